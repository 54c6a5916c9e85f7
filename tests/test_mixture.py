"""Several sources as one: shares, order and ids."""

import json
from collections import Counter

import pytest

from aha.config import DataConfig, validate
from aha.data.mixture import load_mixture, load_text_mixture, mix
from aha.data.sources import load_problems
from aha.types import UserError

A, B = [f"a{n}" for n in range(70)], [f"b{n}" for n in range(1000)]


def write(path, questions: list[str]) -> str:
    path.write_text("".join(json.dumps({"question": text, "prompt": text, "completion": "c"}) + "\n" for text in questions))
    return str(path)


def test_without_weights_all_rows_come_one_source_after_the_other():
    assert mix([A, B], [None, None]) == A + B
    assert mix([], []) == []


@pytest.mark.parametrize(
    ("weights", "counts"),
    [((3, 1), (70, 23)), ((1, 1), (70, 70)), ((1, 10), (70, 700)), ((1, 100), (10, 1000)), ((7, 100), (70, 1000))],
)
def test_with_weights_the_shares_are_exact_until_a_source_is_used_up(weights, counts):
    mixed = mix([A, B], weights)
    assert tuple(Counter(item[0] for item in mixed)[key] for key in "ab") == counts
    assert len(set(mixed)) == len(mixed)
    assert [item for item in mixed if item[0] == "a"] == A[: counts[0]]
    assert [item for item in mixed if item[0] == "b"] == B[: counts[1]]


def test_a_source_with_a_tiny_weight_is_not_lost():
    assert Counter(item[0] for item in mix([A, B], [1000, 1])) == {"a": 70, "b": 1}


def test_the_order_of_a_mixture_is_seeded_and_mixed_from_the_start():
    mixed = mix([A, B], [1, 1])
    assert mixed == mix([A, B], [1, 1])
    assert mixed != mix([A, B], [1, 1], seed=1)
    assert 5 <= sum(item[0] == "a" for item in mixed[:40]) <= 35


def test_weights_of_one_source_change_nothing():
    assert mix([A], [0.5]) == A


def test_some_weights_and_some_none_are_refused():
    with pytest.raises(UserError, match="1 of 2 sources have a weight: give all of them one, or none"):
        mix([A, B], [None, 1])


@pytest.mark.parametrize("key", ["weight", "test_size"])
@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_a_weight_and_a_test_size_are_positive_and_finite(key, value):
    with pytest.raises(UserError, match=f"recipe: {key}: input should be"):
        validate(DataConfig, {"source": "countdown", key: value}, "recipe")


def test_a_test_size_of_rows_is_whole():
    with pytest.raises(UserError, match=r"test_size is 1\.5: want a share below 1, or a whole number of rows"):
        validate(DataConfig, {"source": "countdown", "test_size": 1.5}, "recipe")


def test_problems_of_a_mixture_have_ids_of_their_own(tmp_path):
    data = [
        DataConfig(source="countdown", limit=5),
        DataConfig(source="countdown", limit=5, seed=1),
        DataConfig(source=write(tmp_path / "sums.jsonl", A)),
    ]
    problems = load_mixture(data)
    assert len({problem.id for problem in problems}) == len(problems) == 80
    assert problems[:5] == load_problems(data[0])
    assert [problem.id for problem in problems[5:11]] == [f"countdown/{n}" for n in range(5, 10)] + ["sums/0"]


def test_a_mixture_takes_its_weights_from_the_sources(tmp_path):
    sources = [write(tmp_path / "a.jsonl", A), write(tmp_path / "b.jsonl", B)]
    data = [DataConfig(source=source, weight=weight) for source, weight in zip(sources, (1, 2), strict=True)]
    assert Counter(problem.task for problem in load_mixture(data)) == {"a": 70, "b": 140}
    assert Counter(text["prompt"][0] for text in load_text_mixture(data, seed=3)) == {"a": 70, "b": 140}
