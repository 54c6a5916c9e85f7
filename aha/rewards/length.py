"""Rewards that look at how long a completion is."""

import math
from collections.abc import Sequence
from typing import Any, Literal

from aha.rewards.base import RewardFunction, Text, text_of
from aha.rewards.countdown import countdown
from aha.rewards.maths import accuracy

GRADERS: dict[str, RewardFunction] = {"accuracy": accuracy, "countdown": countdown}


def cosine(
    prompts: Sequence[Any],
    completions: Sequence[Text],
    completion_ids: Sequence[Sequence[int]],
    grader: Literal["accuracy", "countdown"] = "accuracy",
    max_length: int = 1000,
    unit: Literal["tokens", "characters"] = "tokens",
    min_value_correct: float = 0.5,
    max_value_correct: float = 1.0,
    min_value_wrong: float = -1.0,
    max_value_wrong: float = -0.5,
    **columns: Any,
) -> list[float | None]:
    """Correctness scaled by length along half a cosine (arXiv 2502.03373, section 4.2).

    A right answer falls from `max_value_correct` at length 0 to `min_value_correct` at `max_length` and stays there;
    a wrong one rises from `min_value_wrong` to `max_value_wrong`, so that thinking on pays. Lengths are in `unit`.
    """
    if grader not in GRADERS:
        raise ValueError(f"unknown grader {grader!r}; known: {', '.join(GRADERS)}")
    if unit not in ("tokens", "characters") or max_length < 1:
        raise ValueError(f"unit is {unit!r} and max_length {max_length}: want tokens or characters, and at least 1")
    scores = GRADERS[grader](prompts, completions, completion_ids=completion_ids, **columns)
    lengths = [len(ids) if unit == "tokens" else len(text_of(c)) for ids, c in zip(completion_ids, completions, strict=True)]
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
