"""Problems of reasoning-gym: a hundred procedural tasks, each with its own verifier.

A problem belongs to exactly one split by the hash of its question, so no two splits can share one, whatever their
seeds. Tasks whose verifier evaluates the text of an answer are refused: text written by a model is data.
"""

import difflib
import hashlib
import random
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

from aha.types import UserError

SPLITS = {"train": 90, "test": 10}  # share of all problems, in percent, that belongs to each split
CHUNK = 256  # items of one seed
MAX_DRAWS = 10_000  # draws without a new problem after which the generator gives up

# Their verifiers call eval, or sympy's parse_expr, which does. `composite` is a mixture of tasks: list them as sources.
REFUSED = frozenset(
    {
        "binary_matrix",
        "bitwise_arithmetic",
        "composite",
        "countdown",
        "intermediate_integration",
        "n_queens",
        "number_sorting",
        "polynomial_multiplication",
        "puzzle24",
        "simple_integration",
        "spiral_matrix",
        "string_insertion",
    }
)


def gym_dataset(task: str, args: Mapping[str, Any], seed: int, size: int) -> Any:
    """reasoning-gym's own data set of one task: items by index, and the verifier.

    Raises UserError without reasoning-gym and for a task that is unknown or refused, and TypeError, ValueError or
    AssertionError for arguments that do not fit the task.
    """
    try:
        from reasoning_gym.factory import DATASETS, create_dataset
    except ImportError:
        raise UserError("reasoning-gym needs the extra `gym`: .venv/bin/pip install -e '.[gym]'") from None
    if task not in DATASETS:
        close = difflib.get_close_matches(task, DATASETS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(set(DATASETS) - REFUSED))}"
        raise UserError(f"reasoning-gym has no task {task!r}; {hint}")
    if task in REFUSED:
        is_mixture = task == "composite"
        why = "list its tasks as sources of their own" if is_mixture else "its verifier evaluates answers as code"
        raise UserError(f"reasoning-gym task {task} is refused: {why}")
    return create_dataset(task, **args, seed=seed, size=size)


def split_of(question: str) -> str:
    """The one split that a question belongs to."""
    percentile = int.from_bytes(hashlib.sha256(question.encode()).digest()[:8], "big") % 100
    return "train" if percentile < SPLITS["train"] else "test"


def gym_rows(split: str, seed: int, args: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Endless distinct problems of the task `args["task"]`; the other arguments are the task's own.

    Rows have `question`, `entry` (the item as reasoning-gym made it) and `gym` (`args`, for the verifier).
    """
    if split not in SPLITS:
        raise UserError(f"reasoning-gym has no split {split!r}; known: {', '.join(SPLITS)}")
    if not isinstance(args.get("task"), str):
        raise UserError("reasoning-gym: args want a task, as in {task: chain_sum}")
    task, own = args["task"], {key: value for key, value in args.items() if key != "task"}
    for name in ("seed", "size"):
        if name in own:
            raise UserError(f"reasoning-gym: {name} is no argument of a task here; use the source's own seed and limit")
    seen: set[str] = set()
    misses = 0
    for chunk in count():
        chunk_seed = random.Random(f"{task}/{seed}/{chunk}").getrandbits(31)
        items = gym_dataset(task, own, chunk_seed, CHUNK)
        for i in range(CHUNK):
            entry = items[i]
            if split_of(entry["question"]) == split and entry["question"] not in seen:
                misses = 0
                seen.add(entry["question"])
                yield {"question": entry["question"], "entry": entry, "gym": dict(args)}
            elif (misses := misses + 1) == MAX_DRAWS:
                raise ValueError(f"no new problem of split {split} in {MAX_DRAWS} draws after {len(seen)}: set a lower limit")
