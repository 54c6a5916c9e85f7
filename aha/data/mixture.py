"""Several sources as one: all their rows, or shares of them by weight."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from aha.config import DataConfig
from aha.data.preferences import Preference
from aha.data.sources import load_preferences, load_problems, load_texts
from aha.types import Problem, UserError

T = TypeVar("T")


def load_mixture(data: Sequence[DataConfig], seed: int = 0) -> list[Problem]:
    """The problems of one pass over several sources, with ids that are unique among them. Raises UserError."""
    count: Counter[str] = Counter()
    parts = []
    for cfg in data:
        part = []
        for problem in load_problems(cfg):
            part.append(replace(problem, id=f"{problem.task}/{count[problem.task]}"))
            count[problem.task] += 1
        parts.append(part)
    return mix(parts, [cfg.weight for cfg in data], seed)


def load_text_mixture(data: Sequence[DataConfig], seed: int = 0) -> list[dict[str, Any]]:
    """The texts of one pass over several sources, as `load_texts` gives them. Raises UserError."""
    return mix([load_texts(cfg) for cfg in data], [cfg.weight for cfg in data], seed)


def load_preference_mixture(data: Sequence[DataConfig], seed: int = 0) -> list[Preference]:
    """The preferences of one pass over several sources. Raises UserError."""
    return mix([load_preferences(cfg) for cfg in data], [cfg.weight for cfg in data], seed)


def mix(parts: Sequence[Sequence[T]], weights: Sequence[float | None], seed: int = 0) -> list[T]:
    """One pass over several lists: one after the other without weights, else interleaved in proportion to them.

    With weights a pass ends when one list is used up (`first_exhausted` of datasets), so nothing comes twice, and of
    the longer lists the first rows are taken. The shares are exact but for rounding; `seed` decides the order.

    Raises UserError where some have weights and others have none.
    """
    given = [weight for weight in weights if weight is not None]
    if not given:
        return [item for part in parts for item in part]
    if len(given) < len(parts):
        raise UserError(f"{len(given)} of {len(parts)} sources have a weight: give all of them one, or none")
    # Of part i, weight i times as many rows as the shortest part, by weight, can give.
    unit = min(len(part) / weight for part, weight in zip(parts, given, strict=True))
    counts = [min(len(part), max(1, round(unit * weight))) for part, weight in zip(parts, given, strict=True)]
    order = [i for i, count in enumerate(counts) for _ in range(count)]
    random.Random(f"mixture/{seed}").shuffle(order)
    rows = [iter(part) for part in parts]
    return [next(rows[i]) for i in order]
