"""Rewards by name, from the recipe to the scores of a batch. Nothing here imports torch."""

import asyncio
import importlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, get_args

from aha.config import RewardConfig, fitting
from aha.rewards.base import TAGS, Pool, RewardFunction, Scorer
from aha.rewards.chat import answered, plain_answered, refused
from aha.rewards.code import code
from aha.rewards.countdown import countdown
from aha.rewards.form import format_reward, reasoning_steps, repetition_penalty, tag_count
from aha.rewards.gym import reasoning_gym
from aha.rewards.judge import judge
from aha.rewards.language import language_consistency
from aha.rewards.length import cosine, length, soft_overlong
from aha.rewards.maths import accuracy
from aha.rewards.preference import reward_model
from aha.rewards.text import exact_match, keyword
from aha.types import UserError

REWARDS: dict[str, RewardFunction] = {
    "countdown": countdown,
    "accuracy": accuracy,
    "exact_match": exact_match,
    "keyword": keyword,
    "code": code,
    "format": format_reward,
    "tag_count": tag_count,
    "reasoning_steps": reasoning_steps,
    "cosine": cosine,
    "reasoning_gym": reasoning_gym,
    "language_consistency": language_consistency,
    "judge": judge,
    "reward_model": reward_model,
    "length": length,
    "soft_overlong": soft_overlong,
    "repetition_penalty": repetition_penalty,
    "plain_answered": plain_answered,
    "refused": refused,
    "answered": answered,
}


LogMetric = Callable[[str, float], None]


def ignore_metric(name: str, value: float) -> None:
    """For callers that do not log what a reward has to tell."""


GIVEN = (
    "prompts",
    "completions",
    "completion_ids",
    "tags",
    "log_metric",
    "ahead",
    "scorer",
)  # by the program, never by a recipe
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
SINGLE = {bool, int, float, str, type(None)}  # types of which no column is


@dataclass(frozen=True)
class Reward:
    """A reward function with its place in the sum.

    Example: Reward("format", 0.1, format_reward)
    """

    name: str
    weight: float | Mapping[str, float]
    function: RewardFunction
    requires: str | None = None  # another reward, whose top score this one counts with
    cap: float | None = None

    def weight_for(self, task: str) -> float | None:
        """The factor of this reward in the sum for a problem of `task`; None where it does not count there."""
        return self.weight.get(task) if isinstance(self.weight, Mapping) else self.weight


def load_rewards(
    configs: Sequence[RewardConfig], folder: Path | None = None, scorers: Mapping[str, Scorer] | None = None
) -> list[Reward]:
    """Look up and bind the rewards of a recipe. Raises UserError for an unknown name or argument.

    A reward with an argument `verdicts` that the recipe leaves open keeps them in a file of `folder`, so that a run which
    resumes is paid the same. `scorers` holds, by its name, every reward model that the rewards ask.
    """
    keys = [cfg.key for cfg in configs]
    for cfg in configs:
        if keys.count(cfg.key) > 1:
            raise UserError(f"reward {cfg.key} is listed twice; give each a label of its own")
        if cfg.requires is not None and (cfg.requires not in keys or cfg.requires == cfg.key):
            raise UserError(f"reward {cfg.key} requires {cfg.requires!r}, which is no other reward of the list")
        needed = next((other for other in configs if other.key == cfg.requires), cfg)
        if (needed.start_step, needed.end_step) not in ((0, None), (cfg.start_step, cfg.end_step)):
            raise UserError(
                f"reward {cfg.key} requires {cfg.requires!r}, which does not count in all of its steps: give both the same "
                "start_step and end_step"
            )
    return [Reward(cfg.key, cfg.weight, _bind(cfg, folder, scorers or {}), cfg.requires, cfg.cap) for cfg in configs]


def check_tasks(configs: Sequence[RewardConfig], tasks: Sequence[str]) -> None:
    """Raise UserError where a reward weighs a task that no problem is of: it would silently never be paid."""
    for cfg in configs:
        for task in cfg.weight if isinstance(cfg.weight, Mapping) else ():
            if task not in tasks:
                raise UserError(f"reward {cfg.key} weighs task {task!r}; the problems are of {', '.join(tasks)}")


def check_shares(shares: Mapping[str, float], tasks: Sequence[str]) -> None:
    """Raise UserError where the shares of a mixture of traces are not of exactly the tasks of its problems."""
    if shares and sorted(shares) != sorted(tasks):
        raise UserError(f"shares is of {', '.join(shares)}; the problems are of {', '.join(tasks)}: name each")


def total(rewards: Sequence[Reward], scores: Mapping[str, float | None], task: str) -> float | None:
    """The weighted sum of the scores there are; None where every reward skipped the completion.

    A score above its reward's cap counts as the cap. A reward that requires another counts as 0 without the top score of
    that one, and not at all where that one skipped.
    """
    paid = []
    for reward in rewards:
        value, weight = scores[reward.name], reward.weight_for(task)
        needed = scores.get(reward.requires) if reward.requires else 1.0
        if value is not None and weight is not None and needed is not None:
            capped = value if reward.cap is None else min(value, reward.cap)
            paid.append(weight * capped if needed >= 1 else 0.0)
    return sum(paid) if paid or not rewards else None


def load_grader(name: str, folder: Path | None = None) -> Reward:
    """The reward whose top score, 1, means that a problem is solved. What it keeps is kept in `folder`, as `load_rewards`
    does, so that a reward and a grader of one name have one file."""
    return load_rewards([RewardConfig(name=name)], folder)[0]


def begins_ahead(reward: Reward) -> bool:
    """Whether a reward can begin its work on a completion while others are still being written."""
    return "ahead" in inspect.signature(reward.function).parameters


def is_same(a: Reward, b: Reward) -> bool:
    """Whether two rewards give the same scores: one function with the same arguments."""
    bound = [reward.function for reward in (a, b)]
    functions = [(f.func, f.keywords) if isinstance(f, partial) else (f, {}) for f in bound]
    return functions[0] == functions[1]


def _bind(cfg: RewardConfig, folder: Path | None, scorers: Mapping[str, Scorer]) -> RewardFunction:
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
    args = dict(cfg.args)
    for key, value in cfg.args.items() if ":" not in cfg.name else ():
        fitting(value, parameters[key].annotation, f"reward {cfg.name}: {key}")
    if folder and "verdicts" in settable:
        args.setdefault("verdicts", str(folder / f"{cfg.key}.jsonl"))
    if "scorer" in parameters and cfg.args.get("model") in scorers:
        args["scorer"] = scorers[cfg.args["model"]]
    return partial(function, **args)


def _find_modules_here() -> None:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` does


def module_file(name: str) -> Path | None:
    """The file of the module in "module:function"; None where it cannot be found, which loading the reward tells."""
    _find_modules_here()
    try:
        spec = importlib.util.find_spec(name.partition(":")[0])
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.has_location else None


def _user_function(name: str) -> RewardFunction:
    module, _, attribute = name.partition(":")
    _find_modules_here()
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"reward {name}: {error}") from error


def _takes(function: RewardFunction, name: str) -> bool:
    parameters = inspect.signature(function).parameters.values()
    return any(p.name == name or p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


def without_settings(function: RewardFunction, columns: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of the data that may be arguments of `function`, whatever their names.

    An argument whose default is another than None, or whose type is that of a single value, is a setting, which the recipe
    alone gives: of {"timeout": [...], "tests": [...]} only tests is for `code`.
    """
    settings = {name for name, p in inspect.signature(function).parameters.items() if _is_setting(p)} - {*GIVEN}
    return {name: column for name, column in columns.items() if name not in settings}


def _is_setting(parameter: inspect.Parameter) -> bool:
    if parameter.default is None:
        types = set(get_args(parameter.annotation))
        return bool(types) and types <= SINGLE
    return parameter.default is not parameter.empty


def _arguments(function: RewardFunction, columns: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that reach a bound function: what the caller and the recipe give wins over one."""
    taken = {*GIVEN, *getattr(function, "keywords", {})}
    return without_settings(function, {name: column for name, column in columns.items() if name not in taken})


def check_columns(reward: Reward, names: Collection[str]) -> None:
    """Raise UserError where the function asks for a column that is not among `names`, those of the data."""
    if missing := missing_column(reward.function, names):
        raise UserError(f"reward {reward.name} wants column {missing!r}; the data has {', '.join(sorted(names)) or 'none'}")


def missing_column(function: RewardFunction, names: Collection[str]) -> str | None:
    """The first column that the function asks for and that is not among `names`; None where all are there."""
    given = {*GIVEN, *getattr(function, "keywords", {}), *names}
    parameters = inspect.signature(function).parameters.items()
    needed = [name for name, p in parameters if p.default is p.empty and p.kind in NAMED]
    return next((name for name in needed if name not in given), None)


def check_settings(reward: Reward, names: Collection[str]) -> None:
    """Raise UserError for what a built-in reward finds wrong with its settings: it scores no completions, of data with the
    columns `names`, and needs no server and no model for that."""
    function = getattr(reward.function, "func", reward.function)
    if function not in REWARDS.values() or function is reward_model:
        return
    columns = _arguments(reward.function, {name: [] for name in names})
    try:
        reward.function(prompts=[], completions=[], completion_ids=[], tags=TAGS, **columns)
    except ValueError as error:
        raise UserError(f"reward {reward.name}: {error}") from error


def score(
    reward: Reward,
    prompts: Sequence[str],
    completions: Sequence[str],
    completion_ids: Sequence[Sequence[int]],
    columns: Sequence[Mapping[str, Any]],
    tags: tuple[str, str],
    log_metric: LogMetric = ignore_metric,
    ahead: Pool | None = None,
) -> list[float | None]:
    """Scores of a batch: one per completion, None where the reward skips it.

    `columns` holds one mapping per completion; a column reaches the function as a list, and never in the place of one of its
    settings. With `ahead` a reward for which `begins_ahead` holds begins its work there and gives no scores. Raises UserError
    where the data lacks a column that the function asks for, or where the function returns something else than scores.
    """
    function = reward.function
    names = {name for row in columns for name in row}
    arguments = _arguments(function, {name: [row.get(name) for row in columns] for name in names})
    arguments |= {"prompts": prompts, "completions": completions, "completion_ids": completion_ids, "tags": tags}
    if _takes(function, "log_metric"):
        arguments["log_metric"] = log_metric
    if ahead:
        arguments["ahead"] = ahead
    check_columns(reward, names)
    try:
        scores = function(**arguments)
        if inspect.iscoroutine(scores):  # TRL takes `async def` rewards too
            scores = asyncio.run(scores)
    except ValueError as error:
        own_grader = ":" in str(getattr(function, "keywords", {}).get("grader", ""))
        if own_grader or getattr(function, "func", function) not in REWARDS.values():
            raise  # a fault of the user's function, which its traceback shows best
        raise UserError(f"reward {reward.name}: {error}; the data has {', '.join(sorted(names)) or 'none'}") from error
    if ahead:
        return [None] * len(completions)
    if not isinstance(scores, list | tuple) or len(scores) != len(completions):
        told = f"{len(scores)} scores" if isinstance(scores, list | tuple) else f"a {type(scores).__name__}"
        raise UserError(f"reward {reward.name}: gave {told} for {len(completions)} completions")
    for value in scores:
        if value is not None and not (isinstance(value, Real) and math.isfinite(value)):
            raise UserError(f"reward {reward.name}: {value!r} is no score: want a finite number or None")
    return [None if value is None else float(value) for value in scores]
