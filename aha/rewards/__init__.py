"""Rewards by name, from the recipe to the scores of a batch. Nothing here imports torch."""

import asyncio
import importlib
import inspect
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from aha.config import RewardConfig
from aha.rewards.base import RewardFunction
from aha.rewards.countdown import countdown
from aha.rewards.form import format_reward, reasoning_steps, repetition_penalty, tag_count
from aha.rewards.gym import reasoning_gym
from aha.rewards.length import cosine, length, soft_overlong
from aha.rewards.maths import accuracy
from aha.rewards.text import exact_match, keyword
from aha.types import UserError

REWARDS: dict[str, RewardFunction] = {
    "countdown": countdown,
    "accuracy": accuracy,
    "exact_match": exact_match,
    "keyword": keyword,
    "format": format_reward,
    "tag_count": tag_count,
    "reasoning_steps": reasoning_steps,
    "cosine": cosine,
    "reasoning_gym": reasoning_gym,
    "length": length,
    "soft_overlong": soft_overlong,
    "repetition_penalty": repetition_penalty,
}


GIVEN = ("prompts", "completions", "completion_ids", "tags")  # what every reward is called with
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class Reward:
    """A reward function with its place in the sum.

    Example: Reward("format", 0.1, format_reward)
    """

    name: str
    weight: float | Mapping[str, float]
    function: RewardFunction

    def weight_for(self, task: str) -> float | None:
        """The factor of this reward in the sum for a problem of `task`; None where it does not count there."""
        return self.weight.get(task) if isinstance(self.weight, Mapping) else self.weight


def load_rewards(configs: Sequence[RewardConfig]) -> list[Reward]:
    """Look up and bind the rewards of a recipe. Raises UserError for an unknown name or argument."""
    names = [cfg.name for cfg in configs]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"reward {name} is listed twice")
    return [Reward(cfg.name, cfg.weight, _bind(cfg)) for cfg in configs]


def load_grader(name: str) -> Reward:
    """The reward whose top score, 1, means that a problem is solved."""
    return load_rewards([RewardConfig(name=name)])[0]


def _bind(cfg: RewardConfig) -> RewardFunction:
    function = _user_function(cfg.name) if ":" in cfg.name else REWARDS.get(cfg.name)
    if function is None:
        raise UserError(f"unknown reward {cfg.name!r}; known: {', '.join(REWARDS)}, or module:function for your own")
    if not callable(function):
        raise UserError(f"reward {cfg.name} is no function")
    parameters = inspect.signature(function).parameters
    settable = [name for name, p in parameters.items() if p.default is not p.empty and name not in GIVEN]
    for argument in cfg.args:
        if argument not in settable:
            raise UserError(f"reward {cfg.name} has no argument {argument!r}; known: {', '.join(settable) or 'none'}")
    return partial(function, **cfg.args)


def _user_function(name: str) -> RewardFunction:
    module, _, attribute = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` does: a module beside the recipe can be named
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"reward {name}: {error}") from error


def score(
    reward: Reward,
    prompts: Sequence[str],
    completions: Sequence[str],
    completion_ids: Sequence[Sequence[int]],
    columns: Sequence[Mapping[str, Any]],
    tags: tuple[str, str],
) -> list[float | None]:
    """Scores of a batch: one per completion, None where the reward skips it.

    `columns` holds one mapping per completion; a column reaches the function as a list. Raises UserError where the
    data lacks a column that the function asks for, or where the function returns something else than scores.
    """
    function = reward.function
    taken = {*GIVEN, *getattr(function, "keywords", {})}  # what the caller and the recipe give wins over a column
    names = {name for row in columns for name in row} - taken
    arguments: dict[str, Any] = {name: [row.get(name) for row in columns] for name in names}
    arguments |= {"prompts": prompts, "completions": completions, "completion_ids": completion_ids, "tags": tags}
    required = [name for name, p in inspect.signature(function).parameters.items() if p.default is p.empty and p.kind in NAMED]
    for name in required:
        if name not in arguments and name not in taken:
            raise UserError(f"reward {reward.name} wants column {name!r}; the data has {', '.join(sorted(names)) or 'none'}")
    try:
        scores = function(**arguments)
        if inspect.iscoroutine(scores):  # TRL takes `async def` rewards too
            scores = asyncio.run(scores)
    except (TypeError, ValueError) as error:
        if isinstance(error, TypeError) and "required positional argument" not in str(error):
            raise  # a fault of the function, which its traceback shows best
        raise UserError(f"reward {reward.name}: {error}; the data has {', '.join(sorted(names)) or 'none'}") from error
    if not isinstance(scores, list | tuple) or len(scores) != len(completions):
        told = f"{len(scores)} scores" if isinstance(scores, list | tuple) else f"a {type(scores).__name__}"
        raise UserError(f"reward {reward.name}: gave {told} for {len(completions)} completions")
    for value in scores:
        if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
            raise UserError(f"reward {reward.name}: {value!r} is no score: want a finite number or None")
    return list(scores)
