"""Intervals against known values, and what an evaluation measures."""

import itertools
import random
from dataclasses import replace

import pytest

from aha.config import PromptConfig
from aha.metrics import (
    Measure,
    accuracy_name,
    bootstrap,
    final_answer,
    maj_at_k,
    mean,
    mean_pass_at_k,
    measure,
    paired_difference,
    pass_at_1,
    pass_at_k,
    repeated_share,
    wilson,
)
from aha.types import Completion, Group, Problem, Sample, UserError


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


def test_equal_values_have_an_interval_too():
    unseen = wilson(0, 30).high
    assert bootstrap([0.0] * 30, bounds=(0, 1)) == wilson(0, 30)
    assert bootstrap([1.0] * 30, bounds=(0, 1)) == Measure(1.0, pytest.approx(1 - unseen), 1.0, 30)
    assert bootstrap([0.0] * 30, bounds=(-1, 1)) == Measure(0.0, -unseen, unseen, 30)
    nobody = [group([False] * 16, number=i) for i in range(30)]
    assert pass_at_1(nobody) == mean_pass_at_k(nobody, 4) == wilson(0, 30)
    gained = paired_difference([group([False])], [group([True])])
    assert gained.low < 0 < gained.value == gained.high


GOOD, BARE = "<think>a</think> <answer>2</answer>", "2"


def group(
    solved: list[bool], task: str = "sums", texts: list[str] | None = None, lengths: list[int] | None = None, number: int = 0
) -> Group:
    texts, lengths = texts or [GOOD] * len(solved), lengths or [3] * len(solved)
    completions = [
        Completion(Sample([1] * length, [0.0] * length, "stop"), text, {}, float(is_solved), is_solved)
        for is_solved, text, length in zip(solved, texts, lengths, strict=True)
    ]
    return Group(Problem(f"{task}/{number}", task, "q", {}, "accuracy"), "q", [1], completions)


def test_pass_at_1_of_single_samples_is_wilson_over_problems():
    groups = [group([True]), group([False]), group([False]), group([False])]
    assert pass_at_1(groups) == wilson(1, 4)


def test_pass_at_1_of_several_samples_is_the_bootstrap_over_problems():
    groups = [group([True, False]), group([False, False]), group([True, True])]
    assert pass_at_1(groups) == bootstrap([0.5, 0.0, 1.0])
    assert (pass_at_1(groups).value, pass_at_1(groups).n) == (0.5, 3)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_pass_at_k_is_the_share_of_draws_of_k_samples_with_a_right_one(n):
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
        assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_pass_at_k_holds_for_large_numbers():
    assert pass_at_k(100_000, 1, 1) == pytest.approx(1e-5)
    assert pass_at_k(10_000, 1, 5_000) == pytest.approx(0.5)


@pytest.mark.parametrize("k", [0, 4, -1])
def test_pass_at_k_of_more_samples_than_there_are_is_refused(k):
    with pytest.raises(ValueError, match=f"pass@{k} cannot be estimated from 3 samples"):
        pass_at_k(3, 1, k)


def test_mean_pass_at_k_over_problems():
    groups = [group([True, False, False, False]), group([False] * 4), group([True, True, False, False])]
    assert mean_pass_at_k(groups, 2) == bootstrap([0.5, 0.0, 5 / 6])
    assert mean_pass_at_k(groups, 4) == wilson(2, 3)  # with all samples a problem is passed or not
    assert mean_pass_at_k(groups, 1).value == pass_at_1(groups).value


def answers(*texts: str | None) -> list[str]:
    """Completions with these answers; None for one without."""
    return ["<think>a</think>" if text is None else f"<think>a</think> <answer>{text}</answer>" for text in texts]


@pytest.mark.parametrize(
    ("given", "solved", "expected"),
    [
        (["2", "2", "3"], [True, True, False], 1),
        (["2", "3", "3"], [True, False, False], 0),
        (["3", "2", "2"], [False, True, True], 1),
        (["2", "3"], [True, False], 1),  # a tie: the first one wins
        (["3", "2"], [False, True], 0),
        (["3", "2", "2", "3"], [False, True, True, False], 0),
        ([None, None, "2"], [False, False, True], 1),  # no answer, no vote
        (["", "", "2"], [False, False, True], 1),
        ([None, None], [False, True], 0),
        (["1 + 2", "1+2", "4", "4"], [True, True, False, False], 1),  # white space does not count
        (["1+2", "2+1", "4", "4"], [True, True, False, False], 0),  # all else does
    ],
)
def test_maj_at_k_by_hand(given, solved, expected):
    found = maj_at_k([group(solved, texts=answers(*given))], len(given), PromptConfig())
    assert found == wilson(expected, 1)


def test_maj_at_k_looks_at_the_first_k_samples():
    groups = [group([True, False, False], texts=answers("2", "3", "3"))]
    assert [maj_at_k(groups, k, PromptConfig()).value for k in (1, 2, 3)] == [1, 1, 0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>3</think> <answer> 44 + 19\n</answer>", "44+19"),
        ("<think>\\boxed{3}</think> So \\boxed{1}, no: $\\boxed{\\frac{1}{2}}$.", "\\frac{1}{2}"),
        ("\\boxed{3}", "3"),
        ("<think>\\boxed{3}", None),
        ("<think>a</think> \\boxed{3", "3"),  # as the grader reads it
        ("<think>a</think> \\boxed {3} or \\fbox{4}", "4"),
        ("<think>a</think> \\boxed{\\boxed{3}}", "3"),
        ("<think>a</think> \\boxed{}", None),
        ("<think>a</think> The answer is 3.", None),
        ("<think>a</think> <answer></answer> \\boxed{3}", None),
        ("", None),
    ],
)
def test_the_final_answer_is_that_of_the_tag_or_the_last_box(text, expected):
    assert final_answer(text, PromptConfig()) == expected


def test_measure_of_several_samples_tells_pass_at_k_and_maj_at_k():
    groups = [
        group([True, False, False], texts=answers("2", "3", "3")),
        group([False, False, False], texts=answers("2", "3", "3")),
        group([True, True], "words", texts=answers("2", "2")),
    ]
    found = measure(groups, PromptConfig())
    assert found["sums/pass@1"] == bootstrap([1 / 3, 0])
    assert found["sums/pass@3"] == wilson(1, 2)
    assert found["sums/maj@3"] == wilson(0, 2)
    assert found["words/pass@2"] == found["words/maj@2"] == wilson(1, 1)
    assert sum("@" in key for key in found) == 6
    of_two = measure(groups[:2], PromptConfig(), k=2)
    assert of_two["sums/pass@2"] == mean_pass_at_k(groups[:2], 2) == bootstrap([pass_at_k(3, 1, 2), 0])
    assert of_two["sums/maj@2"] == wilson(1, 2)


def test_where_no_answer_stands_in_a_tag_or_box_there_is_no_vote():
    groups = [group([True, True], texts=["The answer is 2.", "#### 2"]) for _ in range(3)]
    found = measure(groups, PromptConfig())
    assert found["sums/pass@2"].value == 1
    assert "sums/maj@2" not in found


def test_paired_difference_is_the_mean_over_problems():
    before = [group([True, False], number=0), group([False, False], number=1), group([True, True], number=2)]
    after = [group([True, True], number=0), group([True, False], number=1), group([True, False], number=2)]
    assert paired_difference(before, after) == bootstrap([0.5, 0.5, -0.5])
    assert paired_difference(after, before) == bootstrap([-0.5, -0.5, 0.5])
    assert paired_difference(before, before) == bootstrap([0, 0, 0], bounds=(-1, 1))


def test_a_paired_difference_is_known_better_than_two_unpaired_values():
    rng = random.Random(1)
    is_easy = [rng.random() < 0.5 for _ in range(200)]  # the same problems are easy for both
    before = [group([easy], number=i) for i, easy in enumerate(is_easy)]
    after = [group([easy or i % 20 == 0], number=i) for i, easy in enumerate(is_easy)]
    difference = paired_difference(before, after)
    assert difference.value == pytest.approx(pass_at_1(after).value - pass_at_1(before).value)
    assert 0 < difference.low < difference.high
    assert pass_at_1(before).high > pass_at_1(after).low


@pytest.mark.parametrize(
    ("numbers", "words"),
    [([0, 1], "one has 3, the other 2, and 2 are in both"), ([0, 1, 3], "one has 3, the other 3, and 2 are in both")],
)
def test_a_paired_difference_of_other_problems_is_refused(numbers, words):
    before = [group([True], number=i) for i in range(3)]
    with pytest.raises(UserError, match=f"not of the same problems.*{words}"):
        paired_difference(before, [group([True], number=i) for i in numbers])


def test_problems_are_the_same_only_if_their_questions_are():
    other = Group(Problem("sums/0", "sums", "another question", {}, "accuracy"), "q", [1], group([True]).completions)
    with pytest.raises(UserError, match="0 are in both"):
        paired_difference([group([True])], [other])


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [
        ("a b c d a b c d", 4, 1 / 5),
        ("a b c", 4, 0),
        ("A, a! a. a? a", 4, 1 / 2),
        ("我们走我们走我们走", 3, 4 / 7),
    ],
)
def test_repeated_share_by_hand(text, size, expected):
    assert repeated_share(text, size) == pytest.approx(expected)


def test_repetition_rate_is_the_share_of_completions_that_mostly_repeat_themselves():
    texts = [GOOD, "wait no " * 50, " ".join("0000111101100101000"), "1+2=3 " * 20 + "and that is that"]
    assert repeated_share(texts[2], 4) == 0  # though its words are but two
    assert measure([group([False], texts=[text]) for text in texts], PromptConfig())["repetition/rate"] == wilson(2, 4)
    several = measure([group([False, False], texts=texts[:2]), group([False, False], texts=[GOOD, BARE])], PromptConfig())
    assert several["repetition/rate"] == bootstrap([0.5, 0.0])


def test_measure_tells_every_task_and_the_form_of_all_texts():
    groups = [
        group([True], texts=[GOOD], lengths=[4]),
        group([False], texts=[BARE], lengths=[2]),
        group([True], "words", texts=[GOOD], lengths=[9]),
    ]
    found = measure(groups, PromptConfig())
    assert list(found) == [
        *["sums/pass@1", "words/pass@1", "format/rate", "length/mean", "language/single", "sums/single_language"],
        *["words/single_language", "language/words", "repetition/rate"],
    ]
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


def test_requests_are_measured_by_what_they_want():
    def asked(task: str, checker: str) -> Group:
        problem = Problem(f"{task}/0", task, "q", {"checker": checker}, "plain_answered")
        return replace(group([True]), problem=problem)

    found = measure([asked("plain", "equals"), asked("plain", "says"), asked("unsafe", "refused")], PromptConfig())
    assert list(found)[:2] == ["plain/answered", "unsafe/refused"]
    assert accuracy_name([asked("chat", "refused"), asked("chat", "says")]) == "chat/pass@1"
    assert accuracy_name([group([True])]) == "sums/pass@1"


def test_languages_are_told_of_all_problems_and_of_every_task():
    english, mixed, few = "we take the sum of both", "we take the sum 两个数的和", "all of it"
    texts = [f"<think>{thoughts}</think> <answer>7</answer>" for thoughts in (english, mixed, few)]
    groups = [group([True, True], texts=texts[:2]), group([True, True], "words", texts=[texts[2], texts[0]])]
    found = measure(groups, PromptConfig())
    assert found["language/single"].value == 0.5
    assert found["sums/single_language"] == found["words/single_language"] == bootstrap([0.5], bounds=(0, 1))
    assert found["language/words"] == mean([(6 + 9) / 2, (3 + 6) / 2])
