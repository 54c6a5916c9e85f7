"""What `aha run` would do with a recipe, why, and what it would cost. Times are measured ones or none."""

import json
import math
import shutil
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huggingface_hub import try_to_load_from_cache
from rich.console import Console
from rich.table import Table
from rich.text import Text

from aha import preflight
from aha.bundled import bundled_folder
from aha.config import DataConfig, EvalConfig
from aha.data.hub import HUB_ID
from aha.data.sources import DEFAULT_GENERATED_ROWS, GENERATORS
from aha.graph import Node, graph, own_changes, read_config, refuse_foreign, roots_of, told_changes
from aha.log import WIDTH, clock
from aha.recipe import reference, references
from aha.rundir import RunDir, StageDir, damage
from aha.stage_configs import GrpoStage, Recipe, SampleStage, StageConfig, TrainingConfig
from aha.types import UserError

TOKEN_BYTES = 4  # of text, about
FLOAT32, ADAM = 4, 8  # bytes of a parameter, and of the two moments that AdamW keeps of it

# Settings that leave the time of a step, or of a stage without steps, as it was; max_steps and epochs are counted.
COSTLESS = {
    *{"name", "seed", "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm"},
    *{"adam_beta1", "adam_beta2", "adam_epsilon", "max_steps", "num_train_epochs", "save_steps", "save_total_limit"},
    *{"save_dtype", "logging_steps", "save_rollouts_steps", "temperature", "loss_type", "importance_sampling_level"},
    *{"scale_rewards", "epsilon", "epsilon_high", "filters", "num_best", "rank_by", "shares", "max_traces"},
}

Action = Literal["skip", "resume", "run", "redo"]


@dataclass(frozen=True)
class Step:
    """What would happen to a stage.

    Example: Step("zero", "grpo", "resume", "at step 20", seconds=172.0, disk=46_000_000)
    """

    stage: str
    kind: str
    action: Action
    why: str
    seconds: float | None  # None where nothing was measured
    disk: int | None  # bytes of the whole stage at the most; None where sizes are not known


def plan(recipe: Recipe, out: Path) -> list[Step]:
    """What `aha run` would do with every stage, in order. Nothing is written."""
    nodes = graph(recipe, RunDir(out))
    measured = siblings(out)
    steps = []
    resized: set[str] = set()  # stages whose outputs may be of another size
    for node in nodes.values():
        action, why = _action(node, nodes)
        seconds = _seconds(node, action)
        if action == "redo" and any(unknown in node.needs for unknown in resized):
            seconds = None
        if action == "redo" and seconds is None:
            resized.add(node.name)
        if seconds is None and action != "resume" and (like := _same(node, measured)):
            seconds = whole_seconds(like, steps_of(node))
            why = "; ".join(filter(None, [why, f"time as in {like.path.parent}"]))
        steps.append(Step(node.name, node.cfg.kind, action, why, seconds, _disk(node, nodes, action)))
    return steps


def obstacles(recipe: Recipe, out: Path) -> list[str]:
    """What keeps `aha run` from doing that, each with what mends it."""
    nodes = graph(recipe, RunDir(out))
    try:
        preflight.check(recipe)
        refuse_foreign(RunDir(out), [node for node in nodes.values() if node.state != "done"])
    except UserError as error:
        return [f"the run stops before it begins: {error}"]
    flags = " ".join(f"--from {node.name}" for node in roots_of(nodes, nodes))
    found = [f"the run stops before it begins: add {flags}"] if flags else []
    for node in nodes.values():
        for text in references(node.cfg).values() if node.state != "done" else ():
            name, output = reference(text) or ("", "")
            wrong = damage(nodes[name].stage, output) if nodes[name].state == "done" else None
            if wrong:
                found.append(f"{wrong}; {node.name} needs it: add --from {name}")
    return found


def _action(node: Node, nodes: Mapping[str, Node]) -> tuple[Action, str]:
    if node.state == "done":
        return "skip", "done"
    if node.state == "changed":
        before = [need for need in node.needs if nodes[need].state == "changed"]
        return "redo", told_changes(own_changes(node)) or f"{' and '.join(before) or 'what it needs'} changed"
    if node.state == "unfinished":
        if node.stage.model.exists():
            return "resume", "after its last step, to measure it"
        step = node.resumes_at
        return ("resume", f"at step {step}") if step else ("run", "from the start: no checkpoint yet")
    return "run", ""


# Time.


def _seconds(node: Node, action: Action) -> float | None:
    """Of a stage that was done before, what all of its steps take; of one that goes on, what those that are left take."""
    if action == "skip":
        return 0.0
    if action == "redo":
        share = _share_of_cost(node)
        seconds = whole_seconds(node.stage, steps_of(node)) if share else None
        return seconds and share and seconds * share
    if node.state != "unfinished":
        return None
    total = steps_of(node) or node.stage.read_progress().get("total", 0)
    return seconds_per_step(node.stage) * _timed(total - node.resumes_at, node.stage) or None


def _share_of_cost(node: Node) -> float | None:
    """How often as long a stage takes as it took before its configuration changed; None where that cannot be told."""
    before = read_config(node.stage)
    if before is None:
        return None
    old, new = before.values, node.cfg.model_dump(mode="json")
    if any(old.get(key) != new.get(key) for key in {*old, *new} - COSTLESS):
        return None
    if isinstance(node.cfg, TrainingConfig) and node.cfg.max_steps < 0:
        if old.get("max_steps", -1) != -1:
            return None
        return node.cfg.num_train_epochs / float(old.get("num_train_epochs", 1))
    return 1.0


def _timed(steps: int, stage: StageDir) -> int:
    """How many of the last `steps` of a stage are like those that are timed: the last one of kind `sample` writes traces of
    what the others drew."""
    written = read_config(stage)
    return steps - 1 if written and written.values.get("kind") == "sample" and steps else steps


def whole_seconds(stage: StageDir, steps: int | None) -> float | None:
    """What all steps of a stage take, as many as `steps` or, where that is not known, as there were; None where none was
    measured."""
    manifest, progress = stage.read_manifest(), stage.read_progress()
    total = steps or progress.get("total", 0)
    by_step = seconds_per_step(stage) * _timed(total, stage)
    if manifest is None:
        return by_step or None
    seconds = float(manifest["seconds"])  # of its last process, which may have done a part of the steps only
    measured = progress.get("total", 0) - manifest["resumed_at_step"]
    return max(seconds / measured * total if measured > 0 else seconds, by_step)


def siblings(out: Path) -> list[StageDir]:
    """The finished stages of the runs beside `out`, the newest first."""
    found = [StageDir(path.parent) for path in out.parent.glob("*/*/stage.json") if path.parent.parent != out]
    return sorted(found, key=lambda stage: stage.manifest.stat().st_mtime, reverse=True)


def _same(node: Node, measured: Sequence[StageDir]) -> StageDir | None:
    """The newest of these stages with the name of `node` and, but for the seed, its configuration."""
    wanted = {**node.cfg.model_dump(mode="json"), "seed": None}
    for stage in measured:
        written = read_config(stage) if stage.path.name == node.name else None
        if written and {**written.values, "seed": None} == wanted:
            return stage
    return None


def seconds_per_step(stage: StageDir) -> float:
    """What a step took by the clock, with the evaluations and checkpoints between the steps; 0 where nothing was measured.
    The files of a copied run tell no times: then it is the mean of the steps alone."""
    rows, progress = [row for row in stage.read_metrics() if "step_time" in row], stage.read_progress()
    if not rows or not progress:
        return 0.0
    done = rows[-1]["step"] - progress["first"]
    by_clock = (stage.metrics.stat().st_mtime - stage.progress.stat().st_mtime) / done if done > 0 else 0.0
    return max(by_clock, statistics.fmean(row["step_time"] for row in rows))


def steps_of(node: Node) -> int | None:
    """Optimiser steps of the stage, where the recipe or an earlier start tells."""
    if isinstance(node.cfg, TrainingConfig) and node.cfg.max_steps > 0:
        return node.cfg.max_steps
    return node.stage.read_progress().get("total") if node.state == "unfinished" else None


def steps_at_most(node: Node, nodes: Mapping[str, Node]) -> int | None:
    """Optimiser steps of a stage that trains, or a bound on them: epochs over no more rows than the sources can give."""
    cfg, steps = node.cfg, steps_of(node)
    rows = None if steps else _num_rows(getattr(cfg, "data", []), nodes)
    if rows is None:
        return steps
    assert isinstance(cfg, TrainingConfig)
    passes = cfg.num_train_epochs * rows
    if isinstance(cfg, GrpoStage):
        return math.ceil(passes / cfg.prompts_per_generation * cfg.updates_per_generation)
    return math.ceil(passes / cfg.sequences_per_step)


# Disk.


def _disk(node: Node, nodes: Mapping[str, Node], action: Action) -> int | None:
    """Bytes that the stage takes at the most: weights, checkpoints with the state of the optimiser, texts."""
    cfg = node.cfg
    if action == "skip":
        return 0
    if isinstance(cfg, SampleStage):
        texts = _num_rows(cfg.data, nodes)
        # Every answer stands in the rollouts, and in the traces if it is kept.
        return None if texts is None else texts * cfg.num_generations * cfg.max_completion_length * TOKEN_BYTES * 2
    answers = _num_answers(cfg, nodes)
    if not isinstance(cfg, TrainingConfig):
        return answers
    weights = _weights(cfg, nodes)
    if weights is None or answers is None:
        return None
    size, parameters = weights
    if cfg.save_dtype != "auto":
        size = parameters * (FLOAT32 if cfg.save_dtype == "float32" else 2)
    moving = FLOAT32 if getattr(cfg, "sync_ref_model", False) else 0
    checkpoint = parameters * (FLOAT32 + ADAM + moving)
    # The best weights so far, in float32, and the next best while they are written.
    best = 2 * parameters * FLOAT32 if getattr(cfg, "load_best_model_at_end", False) else 0
    steps = steps_at_most(node, nodes)
    return size + checkpoint * _num_checkpoints(cfg, steps) + best + answers + _rollouts(cfg, steps)


def _num_checkpoints(cfg: TrainingConfig, steps: int | None) -> int:
    """Checkpoints that exist at once: those that are kept, and the next one while it is written."""
    if not cfg.save_steps:
        return 0
    saved = math.inf if steps is None else (steps - 1) // cfg.save_steps
    return int(min(saved, cfg.save_total_limit + 1))


def _num_answers(cfg: StageConfig, nodes: Mapping[str, Node]) -> int | None:
    """Bytes of the answers of the final evaluation; None where a source has no limit."""
    own = getattr(cfg, "eval", None)
    if not isinstance(own, EvalConfig) or not own.data:
        return 0
    rows = _num_rows(own.data, nodes)
    of_stage: int = getattr(cfg, "max_completion_length", 0)
    longest = own.max_completion_length or of_stage
    return None if rows is None else rows * own.num_generations * longest * TOKEN_BYTES


def _rollouts(cfg: StageConfig, steps: int | None) -> int:
    """Bytes of the rollouts that are kept, where the number of steps is known: they are little beside the weights."""
    if not isinstance(cfg, GrpoStage) or not cfg.save_rollouts_steps or steps is None:
        return 0
    completions = cfg.prompts_per_generation * cfg.num_generations
    return steps // cfg.save_rollouts_steps * completions * cfg.max_completion_length * TOKEN_BYTES


def _num_rows(data: Sequence[DataConfig], nodes: Mapping[str, Node]) -> int | None:
    """Rows that sources give at the most; None where one without a limit is a file or comes from the hub."""
    counts = [_num_rows_of(cfg, nodes) for cfg in data]
    return None if None in counts else sum(filter(None, counts))


def _num_rows_of(source: DataConfig, nodes: Mapping[str, Node]) -> int | None:
    if source.limit is not None:
        return source.limit
    if source.source in GENERATORS:
        return DEFAULT_GENERATED_ROWS
    found = reference(source.source)
    cfg = nodes[found[0]].cfg if found else None
    if not isinstance(cfg, SampleStage):
        return None
    problems = _num_rows(cfg.data, nodes)
    return None if problems is None else min(problems * cfg.num_generations, cfg.max_traces or problems * cfg.num_generations)


def _weights(cfg: StageConfig, nodes: Mapping[str, Node]) -> tuple[int, int] | None:
    """Bytes and parameters of the model that a stage begins with; None where it is not on this machine yet."""
    if cfg.initial_model is None:
        return None  # from scratch
    found = reference(cfg.model)
    if found and not nodes[found[0]].stage.model.exists():
        return _weights(nodes[found[0]].cfg, nodes)
    folder = nodes[found[0]].stage.model if found else _folder(cfg)
    sizes = list(_tensors(folder)) if folder else []
    return (sum(size for size, _ in sizes), sum(count for _, count in sizes)) if sizes else None


def _folder(cfg: StageConfig) -> Path | None:
    """Where a model is on this machine, downloaded or not."""
    if found := bundled_folder(cfg.model):
        return found
    if Path(cfg.model).is_dir() or not HUB_ID.match(cfg.model):
        return Path(cfg.model)
    cached = try_to_load_from_cache(cfg.model, "config.json", revision=cfg.model_revision)
    return Path(cached).parent if isinstance(cached, str) else None


def _tensors(folder: Path) -> Iterator[tuple[int, int]]:
    """Bytes and elements of every tensor: a safetensors file begins with the length of its header, which is JSON."""
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for name, tensor in header.items():
            if name != "__metadata__":
                start, end = tensor["data_offsets"]
                yield end - start, math.prod(tensor["shape"])


# The table.


def print_plan(recipe: Recipe, out: Path, console: Console) -> None:
    """The plan as a table of 80 columns, what it comes to, and what stands in its way."""
    steps = plan(recipe, out)
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False, width=min(WIDTH, console.width))
    for column in ("stage", "kind"):
        table.add_column(column, no_wrap=True)
    table.add_column("what would happen", ratio=1, overflow="fold")
    for column in ("time", "disk"):
        table.add_column(column, no_wrap=True, justify="right")
    for step in steps:
        what = f"{step.action}: {step.why}" if step.why else step.action
        if step.action == "skip":
            table.add_row(step.stage, step.kind, Text(what), "", "")
            continue
        time = "unknown" if step.seconds is None else f"~{clock(step.seconds)}"
        table.add_row(step.stage, step.kind, Text(what), time, "unknown" if step.disk is None else told_bytes(step.disk))
    console.print(table)
    for line in [_sum(steps, out), *obstacles(recipe, out)]:
        console.print(Text(line), width=WIDTH)


def _sum(steps: list[Step], out: Path) -> str:
    """Time and disk of all stages in one line."""
    todo = [step for step in steps if step.action != "skip"]
    if not todo:
        return f"{out}: everything is done"
    seconds = [step.seconds for step in todo if step.seconds is not None]
    sizes = [step.disk for step in todo if step.disk is not None]
    time = f"about {clock(sum(seconds))}" if seconds else "unknown"
    if seconds and len(seconds) < len(todo):
        time += f" and {_stages(len(todo) - len(seconds))} of unknown time"
    existing = next(path for path in [out, *out.resolve().parents] if path.exists())
    disk = f"up to {told_bytes(sum(sizes))}" if sizes else "unknown"
    if sizes and len(sizes) < len(todo):
        disk += f" and {_stages(len(todo) - len(sizes))} of unknown size"
    free = shutil.disk_usage(existing).free
    return f"{out}: time {time}; disk {disk}, of {told_bytes(free)} free"


def _stages(number: int) -> str:
    return f"{number} stage{'s' if number > 1 else ''}"


def told_bytes(size: float) -> str:
    """A size on disk in words, as in 5.8 MB or 46 GB."""
    if size < 1e6:
        return "< 1 MB"
    number, unit = next((size / scale, unit) for scale, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")) if size >= scale)
    return f"{number:.1f} {unit}" if number < 10 else f"{number:.0f} {unit}"
