"""Countdown: reach a target from three or four numbers, the task of TinyZero.

`problems` draws questions as the public data set has them: numbers from 1 to 99, target from 10 to 100, always
solvable. It is seeded, and a problem belongs to exactly one split by the hash of its numbers and target, so no two
splits can share one, whatever their seeds. `writers.py` answers such problems for the tiny base model to learn from.
"""

import hashlib
import random
from collections.abc import Iterator
from functools import lru_cache

QUESTION = (
    "Using the numbers {nums}, create an equation that equals {target}. You can use basic arithmetic operations "
    "(+, -, *, /) and each number can only be used once."
)

MAX_DRAWS = 100_000  # draws without a new problem after which a generator gives up
DRAWS_PER_TARGET = 1_000  # draws after which it takes another target: this one may be used up

# Share of all problems, in percent, that belongs to each split.
SPLITS = {"base": 50, "train": 30, "cold": 10, "test": 10}


def question(nums: list[int], target: int) -> str:
    """The user turn for one problem."""
    return QUESTION.format(nums=list(nums), target=target)


def split_of(nums: list[int], target: int) -> str:
    """The one split that a problem belongs to, whatever the order of its numbers."""
    key = f"{sorted(nums)}={target}".encode()
    percentile = int.from_bytes(hashlib.sha256(key).digest()[:8], "big") % 100
    for split, share in SPLITS.items():
        percentile -= share
        if percentile < 0:
            return split
    raise AssertionError("the shares of SPLITS add up to 100")


def _partitions(nums: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Every way to deal `nums` to two sides, neither empty; the first number is always on the left."""
    first, rest = nums[0], nums[1:]
    for mask in range(2 ** len(rest) - 1):
        left = (first, *(n for i, n in enumerate(rest) if mask >> i & 1))
        yield left, tuple(n for i, n in enumerate(rest) if not mask >> i & 1)


@lru_cache(maxsize=1024)  # the sets are large, and only those of the problem at hand come back
def _reachable(nums: tuple[int, ...]) -> frozenset[int]:
    """Every whole number that uses all of `nums` once each, with whole intermediate results."""
    if len(nums) == 1:
        return frozenset(nums)
    values: set[int] = set()
    for left, right in _partitions(nums):
        for a in _reachable(left):
            for b in _reachable(right):
                values.update((a + b, a - b, b - a, a * b))
                if b and a % b == 0:
                    values.add(a // b)
                if a and b % a == 0:
                    values.add(b // a)
    return frozenset(values)


def is_solvable(nums: list[int], target: int) -> bool:
    """Whether some equation over all of `nums`, with whole intermediate results, equals the positive `target`."""
    if len(nums) == 1:
        return nums[0] == target
    for left, right in _partitions(tuple(sorted(nums))):
        others = _reachable(right)
        for a in _reachable(left):
            # The b that makes a+b, a-b, b-a, a*b, a/b or b/a equal to the target.
            wanted = {target - a, a - target, a + target}
            if a:
                wanted.add(a * target)
                if target % a == 0:
                    wanted.add(target // a)
                if a % target == 0:
                    wanted.add(a // target)
            if not wanted.isdisjoint(others):
                return True
    return False


def problems(
    split: str,
    seed: int = 0,
    num_numbers: tuple[int, ...] = (3, 4),
    max_number: int = 99,
    min_target: int = 10,
    max_target: int = 100,
) -> Iterator[tuple[list[int], int]]:
    """Endless distinct (numbers, target) pairs of one split.

    Count and target are drawn first, uniformly, then numbers until they can make that target, which gives the lean
    towards small numbers that the public data has.

    Raises ValueError where the ranges hold no new problem for a long time.
    """
    rng = random.Random(f"countdown/{split}/{seed}")
    seen: set[tuple[tuple[int, ...], int]] = set()
    while True:
        count = rng.choice(num_numbers)
        for draw in range(MAX_DRAWS):
            if draw % DRAWS_PER_TARGET == 0:
                target = rng.randint(min_target, max_target)
            nums = [rng.randint(1, max_number) for _ in range(count)]
            key = (tuple(sorted(nums)), target)
            if split_of(nums, target) == split and key not in seen and is_solvable(nums, target):
                break
        else:
            raise ValueError(f"no new problem of {count} numbers up to {max_number} in {MAX_DRAWS} draws after {len(seen)}")
        seen.add(key)
        yield nums, target
