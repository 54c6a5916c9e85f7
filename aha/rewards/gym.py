"""Is the answer to a reasoning-gym problem right? Its own task's verifier decides."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from aha.chat import parse
from aha.data.gym import gym_dataset
from aha.rewards.base import TAGS, Text, text_of

MAX_CHARACTERS = 2000  # of an answer; longer ones are wrong
HUGE = re.compile(r"[+-]?[\d._]*[eE][+-]?[\d_]{4,}")  # 1e99999999, which a verifier would write out


def reasoning_gym(
    prompts: Sequence[Any],
    completions: Sequence[Text],
    entry: Sequence[Mapping[str, Any]],
    gym: Sequence[Mapping[str, Any]],
    tags: tuple[str, str] = TAGS,
    **_: Any,
) -> list[float | None]:
    """The verifier's score, from 0 to 1, of the one answer; 0 where there is none. Some tasks pay for part of it."""
    rows = zip(completions, entry, gym, strict=True)
    return [grade_answer(parse(text_of(completion), *tags).answer, item, args) for completion, item, args in rows]


def grade_answer(answer: str | None, entry: Mapping[str, Any], args: Mapping[str, Any]) -> float:
    """The score of an answer to `entry`, an item of the task `args["task"]` with those arguments."""
    if not answer or len(answer) > MAX_CHARACTERS or (HUGE.fullmatch(answer) and answer != entry["answer"]):
        return 0.0  # a hexadecimal gold answer may look like a huge number
    try:
        score = _verifier(json.dumps(args, sort_keys=True))(answer=answer, entry=entry)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError):
        return 0.0  # a verifier that stumbles over an answer has not understood it
    return min(1.0, max(0.0, float(score)))


@lru_cache(maxsize=256)
def _verifier(args: str) -> Callable[..., float]:
    own = json.loads(args)
    verifier: Callable[..., float] = gym_dataset(own.pop("task"), own, seed=0, size=1).score_answer
    return verifier
