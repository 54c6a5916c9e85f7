"""What is wrong with a recipe that can be told before its first stage runs: names that nothing has, data that cannot be read.

What is not on this machine, a data set or a model of the hub, shows when its stage begins.
"""

from collections.abc import Callable, Iterator
from typing import Any

from aha.config import DataConfig
from aha.data.filters import FILTERS
from aha.data.named import bind
from aha.data.refine import STEPS
from aha.data.sources import is_from_hub, load_preferences, load_problems, load_texts
from aha.graph import graders
from aha.recipe import reference
from aha.rewards import load_grader, load_rewards
from aha.stage_configs import Recipe, StageConfig
from aha.types import UserError

Load = Callable[[DataConfig], Any]


def check(recipe: Recipe) -> None:
    """Raise UserError, with the stage in front, for the first thing that would stop a stage of the recipe."""
    for cfg in recipe.stages:
        try:
            load_rewards(getattr(cfg, "rewards", []))
            for grader in graders(cfg):
                load_grader(grader)
            bind(getattr(cfg, "refine", []), STEPS, "refinement")
            bind(getattr(cfg, "filters", []), FILTERS, "filter")
            for source, load in _sources(cfg):
                if reference(source.source) is None and not is_from_hub(source.source):
                    load(_one_row(source))
        except UserError as error:
            raise UserError(f"{cfg.name}: {error}") from error


def _sources(cfg: StageConfig) -> Iterator[tuple[DataConfig, Load]]:
    """Every data source of a stage, and what reads it there."""
    loads: dict[str, Load] = {"sft": load_texts, "reward_model": load_preferences}
    fields: dict[str, Load] = {
        "data": loads.get(cfg.kind, load_problems),
        "eval_data": load_texts,
        "decontaminate": load_problems,
    }
    for field, load in fields.items():
        yield from ((source, load) for source in getattr(cfg, field, []))
    measured_on = getattr(getattr(cfg, "eval", None), "data", [])
    yield from ((source, load_preferences if cfg.kind == "reward_model" else load_problems) for source in measured_on)


def _one_row(source: DataConfig) -> DataConfig:
    """The first row of the source's split, or of the one that test_size divides."""
    split = "train" if source.test_size is not None else source.split.partition("[")[0]
    return source.model_copy(update={"split": split, "test_size": None, "shuffle": False, "limit": 1})
