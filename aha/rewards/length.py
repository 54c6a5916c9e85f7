"""Rewards that look at how long a completion is."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Literal

from aha.rewards.base import Text, text_of

Unit = Literal["tokens", "characters"]


def cosine(
    prompts: Sequence[Any],
    completions: Sequence[Text],
    completion_ids: Sequence[Sequence[int]],
    grader: str = "accuracy",
    max_length: int = 1000,
    unit: Unit = "tokens",
    min_value_correct: float = 0.5,
    max_value_correct: float = 1.0,
    min_value_wrong: float = -1.0,
    max_value_wrong: float = -0.5,
    verdicts: str | None = None,
    **columns: Any,
) -> list[float | None]:
    """Correctness scaled by length along half a cosine (arXiv 2502.03373, section 4.2).

    A right answer falls from `max_value_correct` at length 0 to `min_value_correct` at `max_length` and stays there;
    a wrong one rises from `min_value_wrong` to `max_value_wrong`, so that thinking on pays. Lengths are in `unit`.
    `grader` is the reward whose top score means right, with the file of `verdicts` where it keeps one.
    """
    if max_length < 1:
        raise ValueError(f"max_length is {max_length}: it must be at least 1")
    lengths = _lengths(completions, completion_ids, unit)
    scores = _grades(grader, prompts, completions, completion_ids, columns, verdicts)
    return [
        None
        if score is None
        else _between(
            *((min_value_correct, max_value_correct) if score >= 1 else (max_value_wrong, min_value_wrong)),
            min(1.0, length / max_length),
        )
        for score, length in zip(scores, lengths, strict=True)
    ]


def _between(at_end: float, at_start: float, progress: float) -> float:
    return at_end + (at_start - at_end) * (1 + math.cos(math.pi * progress)) / 2


def length(
    prompts: Sequence[Any],
    completions: Sequence[Text],
    completion_ids: Sequence[Sequence[int]],
    grader: str = "accuracy",
    unit: Unit = "tokens",
    verdicts: str | None = None,
    **columns: Any,
) -> list[float | None]:
    """Shorter than the rest of the group: a right answer gets lambda, a wrong one min(0, lambda), where lambda falls
    in a straight line from 0.5 for the shortest to -0.5 for the longest, and is 0 where all are equally long.

    lambda = 0.5 - (length - shortest) / (longest - shortest), the length reward of Kimi k1.5 (arXiv 2501.12599, section
    on the length penalty). Consecutive rows of the same prompt are a group. Being short alone never pays; give a reward
    for being right beside it. `grader` and `verdicts` are those of `cosine`.
    """
    lengths = _lengths(completions, completion_ids, unit)
    scores = _grades(grader, prompts, completions, completion_ids, columns, verdicts)
    rewards: list[float | None] = []
    for _, rows in groupby(range(len(prompts)), key=lambda i: prompts[i]):
        group = list(rows)
        shortest = min(lengths[i] for i in group)
        spread = max(lengths[i] for i in group) - shortest
        for i in group:
            pay = 0.5 - (lengths[i] - shortest) / spread if spread else 0.0
            score = scores[i]
            rewards.append(None if score is None else pay if score >= 1 else min(0.0, pay))
    return rewards


def soft_overlong(
    prompts: Sequence[Any],
    completions: Sequence[Text],
    completion_ids: Sequence[Sequence[int]],
    max_length: int | None = None,
    cache: int | None = None,
    **_: Any,
) -> list[float | None]:
    """0 up to `max_length - cache` tokens, from there in a straight line to -1 at `max_length`, and -1 beyond.

    DAPO's soft overlong punishment (arXiv 2503.14476, equation 13). `cache` is a fifth of `max_length` unless given, as
    in the paper: 4096 of 20480.
    """
    if max_length is None:
        raise ValueError("max_length is not given: name the number of tokens that costs 1")
    cache = max_length // 5 if cache is None else cache
    if max_length < 1 or not 0 <= cache <= max_length:
        raise ValueError(f"max_length is {max_length} and cache {cache}: want at least 1, and from 0 to max_length")
    overlong = [len(ids) - (max_length - cache) for ids in completion_ids]
    return [0.0 if over <= 0 else -1.0 if over >= cache else -over / cache for over in overlong]


def _lengths(completions: Sequence[Text], completion_ids: Sequence[Sequence[int]], unit: str) -> list[int]:
    if unit == "tokens":
        return [len(ids) for ids in completion_ids]
    if unit == "characters":
        return [len(text_of(completion)) for completion in completions]
    raise ValueError(f"unit is {unit!r}: want tokens or characters")


def _grades(
    grader: str,
    prompts: Sequence[Any],
    completions: Sequence[Text],
    completion_ids: Sequence[Sequence[int]],
    columns: Mapping[str, Any],
    verdicts: str | None,
) -> list[float | None]:
    from aha.rewards import REWARDS, load_grader, missing_column, without_settings  # which know all rewards, these among them

    if grader not in REWARDS and ":" not in grader:
        raise ValueError(f"unknown grader {grader!r}; known: {', '.join(REWARDS)}, or module:function for your own")
    function = load_grader(grader).function
    if missing := missing_column(function, columns):
        raise ValueError(f"its grader {grader} wants column {missing!r}")
    if not completions:
        return []
    given = {"prompts": prompts, "completions": completions, "completion_ids": completion_ids, "verdicts": verdicts}
    return function(**given, **without_settings(function, columns))
