"""Run a recipe: stages in order; what is done is skipped, what was cut off goes on from its last checkpoint."""

import difflib
import importlib
import json
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.parquet
import yaml
from rich.columns import Columns
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from aha.config import BUNDLED_MODEL, Recipe, StageConfig
from aha.log import WIDTH, StageLog, clock, printable, told
from aha.metrics import Measure
from aha.recipe import reference
from aha.rewards import module_file
from aha.rundir import StageDir, fingerprint, fingerprint_path, write_atomic
from aha.types import UserError

FINGERPRINT_LINE = "# fingerprint: "
VERSIONS_OF = ("aha-r1", "torch", "transformers", "math-verify")


def run(recipe: Recipe, out: Path, console: Console, redo_from: str | None = None) -> None:
    """Run every stage of `recipe` that is not done, into `out`/<stage>. `redo_from` first clears that stage and all later.

    Raises UserError where a stage's directory holds another configuration, and for whatever a stage finds wrong.
    """
    names = [cfg.name for cfg in recipe.stages]
    if redo_from is not None and redo_from not in names:
        raise UserError(f"no stage {redo_from!r}; the recipe has {', '.join(names)}")
    redone = names[names.index(redo_from) :] if redo_from else []
    prints: dict[str, str] = {}
    inputs: dict[str, dict[str, str]] = {}
    for cfg in recipe.stages:  # refuse before anything is cleared or run
        inputs[cfg.name] = _input_fingerprints(cfg, prints)
        prints[cfg.name] = fingerprint(cfg.model_dump(mode="json"), inputs[cfg.name])
        if cfg.name not in redone:
            _refuse_other_config(cfg, StageDir(out / cfg.name), prints[cfg.name])
    for name in redone:
        shutil.rmtree(out / name, ignore_errors=True)
    for cfg in recipe.stages:
        stage = StageDir(out / cfg.name)
        if stage.read_manifest() is None:
            write_atomic(stage.config, config_text(cfg, prints[cfg.name]))
            _run_stage(cfg, stage, inputs[cfg.name], prints[cfg.name], console)
        else:
            console.print(Text(f"{cfg.name}: done, skipped"))
        _write_summary(recipe, out)
    print_summary(recipe, out, console)


def _run_stage(cfg: StageConfig, stage: StageDir, inputs: Mapping[str, str], print_: str, console: Console) -> None:
    started = time.monotonic()
    found = reference(cfg.model)
    resolved = cfg.model_copy(update={"model": str(stage.path.parent / found[0] / "model")}) if found else cfg
    with StageLog(cfg.name, cfg.kind, console, stage) as log:
        results = verb(cfg.kind)(resolved, stage, log)
    manifest = {
        "name": cfg.name,
        "kind": cfg.kind,
        "fingerprint": print_,
        "inputs": inputs,
        "outputs": {"model": "model"} if stage.model.exists() else {},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in VERSIONS_OF}},
        "seconds": round(time.monotonic() - started, 1),
        "resumed_at_step": log.first,
        "metrics": {key: m.as_dict() if isinstance(m, Measure) else m for key, m in results.items()},
    }
    write_atomic(stage.manifest, json.dumps(manifest, indent=2) + "\n")


def verb(kind: str) -> Callable[..., Mapping[str, Any]]:
    """The function that runs a stage of this kind. Imported here: torch takes seconds, and plain commands do without."""
    module = {"eval": "aha.evaluate", "sft": "aha.sft", "grpo": "aha.grpo"}[kind]
    run_stage: Callable[..., Mapping[str, Any]] = importlib.import_module(module).run
    return run_stage


def _input_fingerprints(cfg: StageConfig, prints: Mapping[str, str]) -> dict[str, str]:
    """Fingerprints of what a stage reads: an earlier stage, the bundled model, local folders and files, the user's rewards."""
    inputs = {}
    found = reference(cfg.model)
    if found:
        inputs["model"] = prints[found[0]]
    elif cfg.model == BUNDLED_MODEL and getattr(cfg, "init", "model") == "model":
        inputs["model"] = fingerprint_path(Path(__file__).parent / "assets" / BUNDLED_MODEL)
    elif Path(cfg.model).exists():
        inputs["model"] = fingerprint_path(Path(cfg.model))
    for source in sorted(set(cfg.sources)):
        if Path(source).exists():
            inputs[source] = fingerprint_path(Path(source))
    for name in [reward.name for reward in getattr(cfg, "rewards", []) if ":" in reward.name]:
        module = module_file(name)
        if module:
            inputs[name] = fingerprint_path(module)
    return inputs


def config_text(cfg: StageConfig, print_: str) -> str:
    """`config.yaml`: every value of the stage, defaults included."""
    return f"{FINGERPRINT_LINE}{print_}\n" + yaml.safe_dump(cfg.model_dump(mode="json"), sort_keys=False, width=110)


def _refuse_other_config(cfg: StageConfig, stage: StageDir, print_: str) -> None:
    if not stage.config.exists():
        return
    before = stage.config.read_text().splitlines()
    now = config_text(cfg, print_).splitlines()
    if before[0] == now[0]:
        return
    changed = [line for line in difflib.ndiff(before[1:], now[1:]) if line[0] in "+-"]
    what = "; ".join(changed[:6]) if changed else "its inputs (model or data files) have changed"
    raise UserError(
        f"{stage.path} holds a run with another configuration: {what}. Run with --from {cfg.name} to redo it "
        "and what follows, or with --out for another directory"
    )


def _write_summary(recipe: Recipe, out: Path) -> None:
    manifests = [m for cfg in recipe.stages if (m := StageDir(out / cfg.name).read_manifest())]
    stages = [{key: m[key] for key in ("name", "kind", "seconds", "metrics")} for m in manifests]
    write_atomic(out / "summary.json", json.dumps({"name": recipe.name, "stages": stages}, indent=2) + "\n")


def print_summary(recipe: Recipe, out: Path, console: Console) -> None:
    """What each stage came to, and one problem as the first and the last measured stage answered it."""
    table = Table(box=None, padding=(0, 2, 0, 0), title_justify="left", show_edge=False)
    for column in ("stage", "time", "measure", "value [95% interval]"):
        table.add_column(column, no_wrap=True)
    for cfg in recipe.stages:
        manifest = StageDir(out / cfg.name).read_manifest() or {"metrics": {}, "seconds": 0}
        head = (cfg.name, clock(manifest["seconds"]))
        for key, value in (manifest["metrics"] or {"": ""}).items():
            shown = told(Measure(**value)) if isinstance(value, dict) else f"{value:.4g}" if key else ""
            table.add_row(*head, key, shown)
            head = ("", "")
    console.print(table)
    answered = [cfg.name for cfg in recipe.stages if StageDir(out / cfg.name).answers.exists()]
    if len(answered) > 1:
        print_side_by_side(out, answered[0], answered[-1], console)
    console.print(Text(f"{out}/summary.json"))


def print_side_by_side(out: Path, before: str, after: str, console: Console) -> None:
    """The first evaluation problem that only the later stage solved, answered by both; if there is none, the first."""
    rows = [_first_answers(StageDir(out / name).answers) for name in (before, after)]
    shared = [problem for problem in rows[0] if problem in rows[1]]
    if not shared:
        return
    gained = [problem for problem in shared if rows[1][problem]["solved"] and not rows[0][problem]["solved"]]
    problem = (gained or shared)[0]
    panels = [
        Panel(
            Text(printable(row[problem]["completion"])),
            title=f"{name}: {'right' if row[problem]['solved'] else 'wrong'}",
            width=WIDTH // 2 - 1,
        )
        for name, row in zip((before, after), rows, strict=True)
    ]
    what = f"The first problem that only {after} solved" if gained else "The first problem"
    console.print(Text(f"\n{what}, {printable(problem)}"), width=WIDTH)
    console.print(Columns(panels, padding=(0, 1)))


def _first_answers(path: Path) -> dict[str, dict[str, Any]]:
    """The first answer to each question, by problem and question: two stages may number other problems alike."""
    rows = pyarrow.parquet.read_table(path, filters=[("sample", "==", 0)]).to_pylist()
    return {f"{row['problem']}: {row['question']}": row for row in rows}
