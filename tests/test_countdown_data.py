"""Countdown problems, checked by brute force and against the public ones."""

import random
from bisect import bisect_right
from collections import Counter
from fractions import Fraction
from functools import lru_cache
from itertools import combinations, combinations_with_replacement, islice, permutations, product

import pyarrow.parquet
import pytest
from conftest import SHARED

from aha.data.countdown import SPLITS, is_solvable, problems, question, split_of

PUBLIC = SHARED / "countdown" / "train.parquet"


@lru_cache
def values(nums: tuple[int, ...], whole: bool) -> frozenset[Fraction]:
    """Everything that an equation over all of `nums` can equal; `whole`: with whole intermediate results only."""
    if len(nums) == 1:
        return frozenset({Fraction(nums[0])})
    found: set[Fraction] = set()
    for order in set(permutations(nums)):
        for cut in range(1, len(nums)):
            for a, b in product(values(order[:cut], whole), values(order[cut:], whole)):
                found |= {a + b, a - b, a * b}
                if b:
                    found.add(a / b)
    return frozenset(v for v in found if not whole or v.denominator == 1)


# The generator.


def test_problems_are_solvable_and_within_ranges():
    for nums, target in islice(problems("train", seed=3), 100):
        assert target in values(tuple(sorted(nums)), whole=False)
        assert len(nums) in (3, 4)
        assert all(1 <= n <= 99 for n in nums)
        assert 10 <= target <= 100


def test_ranges_are_arguments():
    small = problems("train", 0, num_numbers=(2, 3), max_number=9, min_target=5, max_target=20)
    drawn = list(islice(small, 30))
    assert {len(nums) for nums, _ in drawn} == {2, 3}
    assert all(max(nums) <= 9 and 5 <= target <= 20 for nums, target in drawn)


def test_the_same_seed_draws_the_same_problems_and_another_seed_others():
    first, again, other = (list(islice(problems("train", seed), 30)) for seed in (1, 1, 2))
    assert first == again
    assert not set(map(str, first)) & set(map(str, other))


def test_problems_are_distinct_whatever_the_order_of_their_numbers():
    drawn = Counter((tuple(sorted(nums)), target) for nums, target in islice(problems("base", 5, (2,), 20), 60))
    assert set(drawn.values()) == {1}


def test_splits_never_share_a_problem_whatever_the_seeds():
    drawn = {
        split: {
            (tuple(sorted(nums)), target) for seed in (0, 1) for nums, target in islice(problems(split, seed, (2,), 40), 40)
        }
        for split in SPLITS
    }
    for a, b in combinations(SPLITS, 2):
        assert not drawn[a] & drawn[b]
    for split, pairs in drawn.items():
        assert {split_of(list(nums), target) for nums, target in pairs} == {split}


def test_a_split_does_not_depend_on_the_order_of_the_numbers():
    for nums, target in (([1, 2, 3], 10), ([7, 7, 50, 3], 77), ([99, 4, 12], 31)):
        assert len({split_of(list(order), target) for order in permutations(nums)}) == 1


def test_splits_have_their_shares():
    rng = random.Random(0)
    counts = Counter(split_of([rng.randint(1, 99) for _ in range(3)], rng.randint(10, 100)) for _ in range(10_000))
    assert sum(SPLITS.values()) == 100
    for split, share in SPLITS.items():
        assert counts[split] / 10_000 == pytest.approx(share / 100, abs=0.02)


def test_the_question_lists_the_numbers_in_their_order():
    text = question([44, 19, 35], 98)
    assert text.startswith("Using the numbers [44, 19, 35], create an equation that equals 98.")
    assert text.endswith("each number can only be used once.")


# Solvability.


@pytest.mark.parametrize("nums", combinations_with_replacement(range(1, 7), 3), ids=str)
def test_is_solvable_agrees_with_brute_force_for_three_numbers(nums):
    expected = {int(value) for value in values(nums, whole=True)}
    assert {t for t in range(1, 60) if is_solvable(list(nums), t)} == {t for t in expected if 1 <= t < 60}


def test_is_solvable_agrees_with_brute_force_for_one_two_and_four_numbers():
    rng = random.Random(1)
    cases = [tuple(sorted(rng.randint(1, 20) for _ in range(count))) for count in (1, 1, 2, 2, 2, 2, 4, 4, 4)]
    for nums in cases:
        expected = {int(value) for value in values(nums, whole=True)}
        assert {t for t in range(1, 100) if is_solvable(list(nums), t)} == {t for t in expected if 1 <= t < 100}, nums


@pytest.mark.parametrize(
    ("nums", "target", "expected"),
    [
        ([44, 19, 35], 98, True),  # 44+19+35
        ([2, 3], 7, False),  # 5, 1, 6 and no more
        ([5, 5, 5], 6, True),  # 5/5+5
        ([1, 5, 5, 5], 24, False),  # 5*(5-1/5), which needs a fraction on the way
        ([3, 3, 8, 8], 24, False),  # 8/(3-8/3), too
        ([2, 9], 18, True),
        ([10], 10, True),
        ([10], 11, False),
    ],
)
def test_is_solvable_by_hand(nums, target, expected):
    assert is_solvable(nums, target) is expected


# The public data set.


@pytest.fixture(scope="module")
def public() -> list[tuple[list[int], int]]:
    if not PUBLIC.exists():
        pytest.skip(f"{PUBLIC} is not here")
    table = pyarrow.parquet.read_table(PUBLIC, columns=["nums", "target"]).to_pylist()
    return [(row["nums"], row["target"]) for row in table]


@pytest.fixture(scope="module")
def generated() -> list[tuple[list[int], int]]:
    return list(islice(problems("train", seed=11), 2500))


def distance(ours: list[int], theirs: list[int]) -> float:
    """Kolmogorov and Smirnov's: the largest difference of two distribution functions."""
    edges = sorted({*ours, *theirs})
    below = [[bisect_right(ordered, edge) / len(ordered) for edge in edges] for ordered in (sorted(ours), sorted(theirs))]
    return max(abs(a - b) for a, b in zip(*below, strict=True))


DESCRIPTIONS = {
    "numbers of three": lambda pairs: [n for nums, _ in pairs if len(nums) == 3 for n in nums],
    "numbers of four": lambda pairs: [n for nums, _ in pairs if len(nums) == 4 for n in nums],
    "smallest number": lambda pairs: [min(nums) for nums, _ in pairs],
    "largest number": lambda pairs: [max(nums) for nums, _ in pairs],
    "targets of three": lambda pairs: [target for nums, target in pairs if len(nums) == 3],
    "targets of four": lambda pairs: [target for nums, target in pairs if len(nums) == 4],
    "how many numbers": lambda pairs: [len(nums) for nums, _ in pairs],
    "length of the question": lambda pairs: [len(question(nums, target)) for nums, target in pairs],
}


@pytest.mark.parametrize("what", DESCRIPTIONS)
def test_the_generator_is_distributed_as_the_public_data(generated, public, what):
    assert distance(*(DESCRIPTIONS[what](pairs) for pairs in (generated, public))) < 0.06


def test_data_of_equal_means_would_be_told_apart(public):
    flat = [([45] * len(nums), 55) for nums, _ in public]
    found = {what: distance(describe(flat), describe(public)) for what, describe in DESCRIPTIONS.items()}
    assert [what for what, apart in found.items() if apart < 0.2] == ["how many numbers"]


def test_public_problems_lie_in_our_ranges_and_are_solvable_in_whole_steps(public):
    rows = public[:300]
    assert all(len(nums) in (3, 4) and min(nums) >= 1 and max(nums) <= 99 and 10 <= target <= 100 for nums, target in rows)
    assert all(is_solvable(nums, target) for nums, target in rows)
