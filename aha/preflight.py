"""What is wrong with a recipe that can be told before its first stage runs: names that nothing has, data that cannot be read.

Models are looked for and not loaded. What is not on this machine, a data set or a model of the hub, shows when its stage
begins.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from aha.bundled import check_model
from aha.config import DataConfig
from aha.data.filters import FILTERS
from aha.data.named import bind
from aha.data.refine import STEPS
from aha.data.sources import is_from_hub, load_preferences, load_problems, load_texts, task_of
from aha.data.wording import load_examples
from aha.graph import graders
from aha.recipe import reference
from aha.rewards import Reward, check_columns, check_settings, check_shares, check_tasks, load_grader, load_rewards
from aha.stage_configs import GrpoStage, Recipe, SampleStage, StageConfig
from aha.types import Problem, UserError

Load = Callable[[DataConfig], Any]


def check(recipe: Recipe) -> None:
    """Raise UserError, with the stage in front, for the first thing that would stop a stage of the recipe."""
    for cfg in recipe.stages:
        try:
            rewards = load_rewards(getattr(cfg, "rewards", []))
            for grader in graders(cfg):
                load_grader(grader)
            bind(getattr(cfg, "refine", []), STEPS, "refinement")
            bind(getattr(cfg, "filters", []), FILTERS, "filter")
            for model in _models(cfg):
                check_model(model)
            if isinstance(cfg, SampleStage) and cfg.ask == "few_shot":
                load_examples(cfg)
            for field, source, load in _sources(cfg):
                if reference(source.source) is None and not is_from_hub(source.source):
                    rows = load(_one_row(source))
                    if load is load_problems:
                        is_taught_only = field == "data" and isinstance(cfg, GrpoStage) and not rewards  # by a teacher
                        is_graded = field != "decontaminate" and not is_taught_only  # there questions alone are read
                        _check_columns(rows, rewards if field == "data" else [], is_graded)
            _check_tasks(cfg)
        except UserError as error:
            raise UserError(f"{cfg.name}: {error}") from error


def _models(cfg: StageConfig) -> Iterator[str]:
    """Every model that a stage loads and that no earlier stage makes."""
    named = [getattr(cfg, "teacher_model", None)]
    named += [reward.args.get("model") for reward in getattr(cfg, "rewards", []) if reward.name == "reward_model"]
    named += [cfg.initial_model]
    yield from (name for name in named if isinstance(name, str) and reference(name) is None)


def _check_columns(problems: Sequence[Problem], rewards: Sequence[Reward], is_graded: bool) -> None:
    """Raise UserError where a row lacks a column that its grader or a reward that weighs its task asks for."""
    for problem in problems:
        asking = [reward for reward in rewards if reward.weight_for(problem.task) is not None]
        asking += [load_grader(problem.grader)] if problem.grader and is_graded else []
        for reward in asking:
            check_columns(reward, {*problem.columns, "question"})
            check_settings(reward, {*problem.columns, "question"})


def _check_tasks(cfg: StageConfig) -> None:
    """Raise UserError where weights or shares name other tasks than those of the data. Traces of earlier stages could be of
    any."""
    sources: list[DataConfig] = getattr(cfg, "data", [])
    if any(reference(source.source) for source in sources):
        return
    tasks = sorted({task_of(source) for source in sources})
    check_tasks(getattr(cfg, "rewards", []), tasks)
    check_shares(getattr(cfg, "shares", {}), tasks)


def _sources(cfg: StageConfig) -> Iterator[tuple[str, DataConfig, Load]]:
    """Every data source of a stage: the field that names it, and what reads it there."""
    loads: dict[str, Load] = {"sft": load_texts, "reward_model": load_preferences}
    fields: dict[str, Load] = {
        "data": loads.get(cfg.kind, load_problems),
        "eval_data": load_texts,
        "decontaminate": load_problems,
    }
    for field, load in fields.items():
        yield from ((field, source, load) for source in getattr(cfg, field, []))
    measured_on = getattr(getattr(cfg, "eval", None), "data", [])
    load = load_preferences if cfg.kind == "reward_model" else load_problems
    yield from (("eval", source, load) for source in measured_on)


def _one_row(source: DataConfig) -> DataConfig:
    """The first row of the source's split, or of the one that test_size divides."""
    split = "train" if source.test_size is not None else source.split.partition("[")[0]
    return source.model_copy(update={"split": split, "test_size": None, "shuffle": False, "limit": 1})
