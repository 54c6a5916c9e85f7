"""Where a run stands, read from its directory by anybody at any time: nothing but files and the lock is asked."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from aha.graph import begun_stages, read_config
from aha.lock import Holder, is_held, read_holder
from aha.log import WIDTH, clock, printable
from aha.rundir import RunDir, StageDir, is_evaluation
from aha.types import UserError

RUNS = Path("runs")
REFRESH_SECONDS = 2.0
SHOWN = ("reward", "accuracy", "loss")  # metrics of a running stage; two at the most
COLOURS = {"done": "green", "running": "bold cyan", "stopped": "yellow", "failed": "red", "waiting": "dim"}

State = Literal["done", "running", "stopped", "failed", "waiting"]  # waiting: for its turn, or for people


@dataclass(frozen=True)
class StageStatus:
    """Where one stage stands.

    Example: StageStatus("zero", "grpo", "running", "step 25 of 40, reward 0.518, accuracy 0.434, 1:43 left", 172.0)
    """

    name: str
    kind: str
    state: State
    detail: str
    seconds: float | None  # that a finished stage took, or that a running one has run


@dataclass(frozen=True)
class Status:
    """Where a run stands."""

    run: RunDir
    name: str
    stages: list[StageStatus]
    holder: Holder | None  # who runs it, or ran it last
    is_running: bool

    @property
    def is_done(self) -> bool:
        return all(stage.state == "done" for stage in self.stages)


def newest_run(runs: Path = RUNS) -> Path:
    """The run directory that was written to last. Raises UserError where there is none."""
    found = {path: _last_write(path) for path in runs.glob("*") if _stage_names(RunDir(path))}
    if not found:
        raise UserError(f"{runs}: no run is there; name a run directory")
    return max(found, key=lambda path: found[path])


def _last_write(run: Path) -> float:
    return max((path.stat().st_mtime for pattern in (".lock", "*.json", "*/*") for path in run.glob(pattern)), default=0.0)


def read_status(path: Path) -> Status:
    """Raises UserError where the directory holds no run."""
    run = RunDir(path)
    stages = _stage_names(run)
    if not stages:
        raise UserError(f"{path}: no run is there" + ("" if path.is_dir() else ", nor a folder"))
    holder, is_running = read_holder(run.lock), is_held(run.lock)
    running = holder.stage if holder and is_running else None
    statuses = [_stage_status(run.stage(name), name, kind, name == running) for name, kind in stages.items()]
    recipe = yaml.safe_load(run.recipe.read_text(encoding="utf-8")) if run.recipe.exists() else {}
    return Status(run, str(recipe.get("name", path.name)), statuses, holder, is_running)


def _stage_names(run: RunDir) -> dict[str, str]:
    """Name and kind of every stage: those of the recipe, or, without one, those that have begun, in that order."""
    if run.recipe.exists():
        try:
            recipe = yaml.safe_load(run.recipe.read_text(encoding="utf-8"))
            return {stage["name"]: stage["kind"] for stage in recipe["stages"]}
        except (yaml.YAMLError, ValueError, TypeError, KeyError):
            return {}  # some other file of that name: no run is here
    return begun_stages(run)


def _stage_status(stage: StageDir, name: str, kind: str, is_running: bool) -> StageStatus:
    manifest = stage.read_manifest()
    if manifest:
        return StageStatus(name, kind, "done", "", manifest["seconds"])
    if not stage.config.exists():
        return StageStatus(name, kind, "running" if is_running else "waiting", "", None)
    rows = [row for row in stage.read_metrics() if not is_evaluation(row)]
    total = stage.read_progress().get("total")
    at = f"step {rows[-1]['step']} of {total}" if rows and total else ""
    if is_running:
        is_at_end = bool(rows) and rows[-1]["step"] == total and kind != "sample"  # which has no model to save and measure
        told = [at, *_curves(rows), _after_last_step(stage) if is_at_end else _left(stage, rows, total)]
        began = stage.config.stat().st_mtime  # written anew by every start
        return StageStatus(name, kind, "running", ", ".join(filter(None, told)), time.time() - began)
    if stage.error.exists():
        why = stage.error.read_text(encoding="utf-8").strip()
        if stage.review.exists() and stage.review.name in why:
            return StageStatus(name, kind, "waiting", f"for {why}", None)
        return StageStatus(name, kind, "failed", why, None)
    return StageStatus(name, kind, "stopped", f"at {at}" if at else "", None)


def _curves(rows: list[dict[str, Any]]) -> list[str]:
    """The latest values of the metrics that tell most."""
    latest: Mapping[str, Any] = rows[-1] if rows else {}
    return [f"{key} {latest[key]:.3g}" for key in SHOWN if key in latest][:2]


def _after_last_step(stage: StageDir) -> str:
    """What a stage that trains does when its last step is done."""
    written = read_config(stage)
    is_measured = bool(written and (written.values.get("eval") or {}).get("data"))
    return "evaluating" if is_measured else "saving"


def _left(stage: StageDir, rows: list[dict[str, Any]], total: int | None) -> str:
    """How long the remaining steps take if they take as long as those since the start."""
    if not rows or not total:
        return ""
    done = rows[-1]["step"] - stage.read_progress()["first"]
    seconds = stage.metrics.stat().st_mtime - stage.progress.stat().st_mtime
    return f"{clock(seconds / done * (total - rows[-1]['step']))} left" if done > 0 else ""


def view(status: Status) -> Group:
    """The status as a table of 80 columns, with who runs it or what goes on with it below."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
    table.add_column("stage", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    table.add_column("state", overflow="fold")
    table.add_column("time", no_wrap=True, justify="right")
    for stage in status.stages:
        what = f"{stage.state}: {stage.detail}" if stage.state == "failed" else f"{stage.state} {stage.detail}".strip()
        seconds = "" if stage.seconds is None else clock(stage.seconds)
        table.add_row(stage.name, stage.kind, Text(printable(what), COLOURS[stage.state]), seconds)
    return Group(Text(f"{status.run.path} ({status.name})"), table, Text(_last_line(status)))


def _last_line(status: Status) -> str:
    holder = status.holder
    if status.is_running and holder:
        return f"process {holder.pid} on {holder.host}"
    if status.is_done:
        return "done"
    return f"not running; `{holder.command if holder else 'aha run'}` goes on"


def show(path: Path, console: Console, watch: bool) -> None:
    """Print where a run stands; with `watch` again and again, as long as it runs."""
    status = read_status(path)
    if not watch:
        console.print(view(status), width=min(WIDTH, console.width))
        return
    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(view(status), refresh=True)
            if not status.is_running:
                return
            time.sleep(REFRESH_SECONDS)
            status = read_status(path)
