"""Intervals against known values, and what an evaluation measures."""

import random

import pytest

from aha.config import PromptConfig
from aha.metrics import Measure, bootstrap, mean, measure, pass_at_1, wilson
from aha.types import Completion, Group, Problem, Sample


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [  # R: prop.test(successes, n, correct = FALSE)$conf.int
        (5, 10, 0.2366, 0.7634),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (1, 1, 0.2065, 1.0),
        (81, 263, 0.2553, 0.3662),
        (256, 1024, 0.2244, 0.2774),
    ],
)
def test_wilson_interval(successes, n, low, high):
    found = wilson(successes, n)
    assert (found.value, found.n) == (successes / n, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)


def test_wilson_is_symmetric_and_narrows_with_n():
    few, many = wilson(3, 10), wilson(300, 1000)
    assert wilson(7, 10).low == pytest.approx(1 - few.high)
    assert many.high - many.low < (few.high - few.low) / 5


def test_wilson_of_shares_stays_between_zero_and_one():
    for successes in (0, 0.5, 999.5, 1000):
        found = wilson(successes, 1000)
        assert 0 <= found.low <= found.value <= found.high <= 1


def test_mean_with_the_normal_interval():
    found = mean([1, 2, 3, 4])  # variance 5/3, so the standard error is sqrt(5/12) = 0.6455
    assert (found.value, found.n) == (2.5, 4)
    assert (found.low, found.high) == pytest.approx((2.5 - 1.96 * 0.6455, 2.5 + 1.96 * 0.6455), abs=1e-3)
    assert mean([7]) == Measure(7, 7, 7, 1)
    assert mean([3, 3, 3]) == Measure(3, 3, 3, 3)


def test_bootstrap_agrees_with_the_normal_interval_where_there_is_much_data():
    rng = random.Random(0)
    values = [rng.choice([0, 0.25, 0.5, 1]) for _ in range(400)]
    found, normal = bootstrap(values), mean(values)
    assert (found.value, found.n) == (pytest.approx(normal.value), 400)
    assert (found.low, found.high) == pytest.approx((normal.low, normal.high), abs=0.006)


def test_bootstrap_is_seeded_and_within_the_data():
    values = [0, 0, 0.5, 1]
    assert bootstrap(values) == bootstrap(values)
    assert bootstrap(values, seed=1) != bootstrap([1, 1, 0, 0], seed=1)
    found = bootstrap(values)
    assert 0 <= found.low < found.value < found.high <= 1
    assert bootstrap([0.5] * 9) == Measure(0.5, 0.5, 0.5, 9)


GOOD, BARE = "<think>a</think> <answer>2</answer>", "2"


def group(solved: list[bool], task: str = "sums", texts: list[str] | None = None, lengths: list[int] | None = None) -> Group:
    texts, lengths = texts or [GOOD] * len(solved), lengths or [3] * len(solved)
    completions = [
        Completion(Sample([1] * length, [0.0] * length, "stop"), text, {}, float(is_solved), is_solved)
        for is_solved, text, length in zip(solved, texts, lengths, strict=True)
    ]
    return Group(Problem(f"{task}/0", task, "q", {}, "accuracy"), "q", [1], completions)


def test_pass_at_1_of_single_samples_is_wilson_over_problems():
    groups = [group([True]), group([False]), group([False]), group([False])]
    assert pass_at_1(groups) == wilson(1, 4)


def test_pass_at_1_of_several_samples_is_the_bootstrap_over_problems():
    groups = [group([True, False]), group([False, False]), group([True, True])]
    assert pass_at_1(groups) == bootstrap([0.5, 0.0, 1.0])
    assert (pass_at_1(groups).value, pass_at_1(groups).n) == (0.5, 3)


def test_measure_tells_every_task_and_the_form_of_all_texts():
    groups = [
        group([True], texts=[GOOD], lengths=[4]),
        group([False], texts=[BARE], lengths=[2]),
        group([True], "words", texts=[GOOD], lengths=[9]),
    ]
    found = measure(groups, PromptConfig())
    assert list(found) == ["sums/pass@1", "words/pass@1", "format/rate", "length/mean"]
    assert found["sums/pass@1"] == wilson(1, 2)
    assert found["words/pass@1"] == wilson(1, 1)
    assert found["format/rate"] == wilson(2, 3)
    assert found["length/mean"] == mean([4, 2, 9])
    assert found["length/mean"].value == 5


def test_format_is_measured_with_the_tags_of_the_model():
    groups = [group([True], texts=["<thinking>a</thinking> <result>2</result>"])]
    assert measure(groups, PromptConfig(think="thinking", answer="result"))["format/rate"].value == 1
    assert measure(groups, PromptConfig())["format/rate"].value == 0


def test_a_measure_is_written_as_value_low_high_and_n():
    assert Measure(0.25, 0.21, 0.29, 512).as_dict() == {"value": 0.25, "low": 0.21, "high": 0.29, "n": 512}
