"""A run directory as the page needs it: stages with what they were told, what they measured and what they answered."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import yaml

from aha.chat import load_prompt
from aha.config import PromptConfig
from aha.graph import begun_stages
from aha.metrics import Measure
from aha.public import public, public_text
from aha.recipe import last_of_line, outputs_named, reference
from aha.rundir import RunDir, StageDir, read_lines, read_mapping
from aha.stage_configs import GrpoStage
from aha.types import UserError

DRAWING = {"grpo", "sample"}  # kinds of stages whose `num_tokens` are sampled ones
NO_POLICY = {"sample", "reward_model"}  # kinds that are measured by what they are for, not on the tasks of the run
ANSWER_COLUMNS = {"problem", "sample", "kind", "question", "completion", "num_tokens", "finish_reason", "solved"}
TRACE_KEYS = ("origin", "task", "language", "steps")

Key = tuple[str, str]  # a problem's id and its question


@dataclass(frozen=True)
class Stage:
    """One stage directory. An unfinished stage has no manifest, and whatever else was written so far."""

    name: str
    config: dict[str, Any]
    config_text: str  # config.yaml, as anybody may see it
    manifest: dict[str, Any]  # stage.json; empty while the stage is unfinished
    rows: list[dict[str, Any]]  # the lines of metrics.jsonl
    answers: dict[Key, dict[str, Any]]  # the first answers of the final evaluation, with the `share` of right ones among all
    traces: dict[str, Counter[str]]  # what the rows of traces.jsonl say, counted
    prompt: PromptConfig  # the tags that thoughts and answers stand in
    error: str  # why it failed, in a line; empty where it did not

    @property
    def kind(self) -> str:
        return str(self.config.get("kind", ""))

    @property
    def has_policy(self) -> bool:
        return self.kind not in NO_POLICY

    @property
    def seconds(self) -> float:
        return float(self.manifest.get("seconds", 0))

    @cached_property
    def measures(self) -> dict[str, Measure]:
        """The metrics that have an interval."""
        return {key: Measure(**m) for key, m in self.manifest.get("metrics", {}).items() if isinstance(m, dict)}

    @cached_property
    def numbers(self) -> dict[str, float]:
        """The metrics that have none."""
        return {key: m for key, m in self.manifest.get("metrics", {}).items() if not isinstance(m, dict)}

    @cached_property
    def inputs(self) -> list[tuple[str, str]]:
        """The outputs of other stages that this one reads: ("zero", "model") for "${zero.model}" anywhere in its config."""
        return outputs_named(self.config)

    @property
    def start(self) -> str:
        """The model that the stage starts from, by a short name: "zero", "tiny-base", "scratch"."""
        server = self.config.get("server") or {}
        model = str(server.get("model") or self.config.get("model") or "")
        found = reference(model)
        return "scratch" if self.config.get("init") == "scratch" else found[0] if found else Path(model).name

    def series(self, key: str) -> list[tuple[int, float]]:
        """(step, value) of every line of metrics.jsonl that has the number `key`."""
        return [(row["step"], row[key]) for row in self.rows if isinstance(row.get(key), int | float)]

    def evaluations(self, key: str) -> list[tuple[int, Measure]]:
        """(step, measure) of every evaluation that has the measure `key`."""
        return [(row["step"], Measure(**row[f"eval/{key}"])) for row in self.rows if f"eval/{key}" in row]

    @cached_property
    def tokens_drawn(self) -> int:
        """Tokens of rollouts, candidates and evaluations."""
        if self.kind == "sample":  # every part has its line, and what it evaluates are its candidates
            return round(sum(tokens for _, tokens in self.series("num_tokens")))
        is_grpo = self.kind == "grpo"
        drawn = self._tokens(GrpoStage.model_construct(**self.config).updates_per_generation) if is_grpo else 0.0
        answers_each = (self.config.get("eval") or {}).get("num_generations") or 1
        return round(drawn + sum(m.value * m.n * answers_each for _, m in self.evaluations("length/mean")))

    @cached_property
    def tokens_learned(self) -> int:
        """Tokens that supervised training saw."""
        return 0 if self.kind in DRAWING else round(self._tokens(steps_each=1))

    def _tokens(self, steps_each: int) -> float:
        """The tokens of all batches, with `steps_each` steps on each: a line holds those of one batch and stands for all of
        them up to it."""
        lines = [(math.ceil(step / steps_each), tokens) for step, tokens in [(0, 0.0), *self.series("num_tokens")]]
        return sum(tokens * (batch - before) for (before, _), (batch, tokens) in pairwise(lines))

    @property
    def filters(self) -> list[tuple[str, int, int | None]]:
        """(filter, kept, dropped) in their order. The first are all candidates, the last is what was kept."""
        if "sample/candidates" not in self.numbers:
            return []
        filters = {key.removeprefix("kept/"): n for key, n in self.numbers.items() if key.startswith("kept/")}
        steps = {"candidates": self.numbers["sample/candidates"], **filters, "traces": self.numbers["sample/kept"]}
        dropped = [None, *(int(before - after) for before, after in pairwise(steps.values()))]
        return [(name, int(kept), less) for (name, kept), less in zip(steps.items(), dropped, strict=True)]


@dataclass(frozen=True)
class Run:
    """A whole run, its stages in the order of the recipe."""

    name: str
    stages: list[Stage]
    ended: datetime | None  # when the last finished stage was

    @property
    def seconds(self) -> float:
        return sum(stage.seconds for stage in self.stages)

    @property
    def tokens(self) -> int:
        return sum(stage.tokens_drawn + stage.tokens_learned for stage in self.stages)

    @property
    def main(self) -> str:
        """The measure that stages are compared by: pass@1 of the first task of the first evaluation; empty without any."""
        keys = [key for stage in self.stages if stage.has_policy for key in stage.measures]
        return next((key for key in keys if key.endswith("/pass@1")), "")

    @property
    def measured(self) -> list[Stage]:
        """The stages with a policy that have the main measure."""
        return [stage for stage in self.stages if self.main in stage.measures and stage.has_policy]

    def ends(self, stages: Sequence[Stage]) -> tuple[Stage, Stage]:
        """The first of some stages and the last of its line, between which they are compared."""
        by_name = {stage.name: stage for stage in stages}
        return stages[0], by_name[last_of_line(list(by_name), {stage.name: stage.config for stage in self.stages})]

    @property
    def versions(self) -> dict[str, str]:
        """Every version that some stage ran with; several of one thing are told with a comma."""
        found = [item for stage in self.stages for item in stage.manifest.get("versions", {}).items()]
        return {name: ", ".join(dict.fromkeys(v for other, v in found if other == name)) for name, _ in found}


def read_run(folder: Path) -> Run:
    """Read a run directory; raises UserError, which names the file, for what is none or cannot be read."""
    run = RunDir(folder)
    recipe = next((read_mapping(path, yaml.safe_load) for path in (run.recipe, run.summary) if path.exists()), {})
    order = [str(stage.get("name")) for stage in recipe.get("stages") or [] if isinstance(stage, dict)]
    if run.recipe.exists():  # a stage that it no longer has may have left its directory
        names = [name for name in order if run.stage(name).config.exists()]
    else:
        names = sorted(begun_stages(run), key=lambda name: order.index(name) if name in order else len(order))
    if not names:
        raise UserError(f"{folder}: no run directory, such as runs/tiny-r1: none of its folders is that of a stage")
    stages = [run.stage(name) for name in names]
    read = [_read_stage(stage, run) for stage in stages]
    ends = [_ended(stage, each.manifest) for stage, each in zip(stages, read, strict=True) if each.manifest]
    return Run(str(recipe.get("name") or folder.resolve().name), read, max(ends, default=None))


def _ended(stage: StageDir, manifest: dict[str, Any]) -> datetime:
    """When a stage ended; where its manifest does not say, when that was written, which a copy changes."""
    told = manifest.get("ended")
    return datetime.fromisoformat(told) if told else datetime.fromtimestamp(stage.manifest.stat().st_mtime, UTC)


def _read_stage(stage: StageDir, run: RunDir) -> Stage:
    config = read_mapping(stage.config, yaml.safe_load)
    found = reference(str(config.get("model")))
    models = [stage.model, *([run.stage(found[0]).model] if found else [])]
    own = {key: value for key, value in (config.get("prompt") or {}).items() if key in ("think", "answer")}
    saved = next((prompt for folder in models if (prompt := load_prompt(folder))), PromptConfig())
    return Stage(
        name=stage.path.name,
        config=config,
        config_text=yaml.safe_dump(public(config), sort_keys=False, allow_unicode=True, width=110),
        manifest=stage.read_manifest() or {},
        rows=stage.read_metrics(),
        answers=_read_answers(stage.answers) if stage.answers.exists() else {},
        traces=_count_traces(stage.traces),
        prompt=saved.model_copy(update=own),
        error=public_text(stage.error.read_text(encoding="utf-8")) if stage.error.exists() else "",
    )


def _read_answers(path: Path) -> dict[Key, dict[str, Any]]:
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: damaged ({str(error).splitlines()[0]})") from error
    missing = ANSWER_COLUMNS - set(table.column_names)
    if missing:
        raise UserError(f"{path}: lacks the columns {', '.join(sorted(missing))}")
    answers: dict[Key, list[dict[str, Any]]] = {}
    for row in table.drop_columns([c for c in ("prompt",) if c in table.column_names]).to_pylist():
        answers.setdefault((row["problem"], row["question"]), []).append(row)
    return {key: {**rows[0], "share": sum(row["solved"] for row in rows) / len(rows)} for key, rows in answers.items()}


def _count_traces(path: Path) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {key: Counter() for key in TRACE_KEYS}
    for row in read_lines(path):
        for key, counter in counts.items():
            value = row.get(key)
            counter.update(map(str, value or ["none"]) if isinstance(value, list) else [str(value)] if value else [])
    return {key: counter for key, counter in counts.items() if counter}
