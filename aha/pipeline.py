"""Run a recipe: what is done is skipped, what was cut off goes on from its last checkpoint, each stage in its own process."""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet
import yaml
from rich.columns import Columns
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from aha import preflight
from aha.graph import COMMAND_LINE, Node, config_text, dependents, graph, refuse_changed, refuse_foreign
from aha.lock import RunLock
from aha.log import WIDTH, clock, interval, printable
from aha.metrics import Measure
from aha.recipe import last_of_line, reference, references
from aha.report import write_report
from aha.rundir import RunDir, StageDir, damage, remove_temporary, write_atomic, write_summary
from aha.stage import run_stage
from aha.stage_configs import Recipe
from aha.stop import INTERRUPTED, STOPS
from aha.types import UserError

# Ends of the measures that the console shows.
HEADLINES = ("/pass@1", "/answered", "/refused", "language/single", "format/rate", "pairs/accuracy", "labels/accuracy")
NUM_OTHERS = 3  # of a stage that has none of these


class StageFailedError(Exception):
    """The process of a stage was stopped or ended badly. Without a message it has told by itself what was wrong."""

    def __init__(self, code: int, message: str = ""):
        super().__init__(message)
        self.code = code  # exit code for the whole run


def run(
    recipe: Recipe,
    out: Path,
    console: Console,
    redo_from: Sequence[str] = (),
    only: str | None = None,
    command: str = "aha run",
    in_process: bool = True,
) -> None:
    """Run every stage of `recipe` that is not done, or `only` one, into `out`/<stage>.

    `redo_from` first clears these stages and all that depend on them. `command` is what messages name to go on with the
    run, without `only`. Without `in_process` every stage is a process of its own.

    Raises UserError where another run is going on in `out`, where a stage's directory holds another configuration, where
    an input is missing or damaged, and for whatever a stage finds wrong; StageFailedError where a stage's process failed.
    """
    names = [cfg.name for cfg in recipe.stages]
    for name in [*redo_from, *([only] if only else [])]:
        if name not in names:
            raise UserError(f"no stage {name!r}; the recipe has {', '.join(names)}")
    if only and set(redo_from) - {only}:
        raise UserError(f"--only {only} runs nothing else, so --from can name no other stage")
    preflight.check(recipe)
    place = RunDir(out)
    goes_on = command_with(command, only)
    with RunLock(place.lock, command) as lock:
        sweep(place, names)
        nodes = graph(recipe, place)
        todo = [only] if only else names
        redone = [name for name in dependents(nodes, redo_from) if name in todo]
        made = [name for name in todo if name in redone or nodes[name].state != "done"]
        # Whatever is wrong is told before anything is cleared or run.
        refuse_foreign(place, [nodes[name] for name in made])
        refuse_changed(nodes, [name for name in todo if name not in redone])
        for name in made:
            _check_inputs(nodes[name], nodes, command, made)
        for name in reversed(redone):  # the last first, so that a stop in between leaves none without what it was made of
            kept = _clear(nodes[name].stage)
            if kept:
                console.print(Text(f"{name}: its review is kept as {kept}"))
        write_atomic(place.recipe, recipe_text(recipe, command))
        for name in todo:
            node = nodes[name]
            refuse_changed(nodes, [name])  # what it was made of may have been made again since
            if node.state == "done":
                console.print(Text(f"{name}: done, skipped"))
            else:
                _check_inputs(node, nodes, command)
                write_atomic(node.stage.config, config_text(node))
                lock.enter_stage(name)
                if in_process:
                    run_stage(place, name, console)
                else:
                    _run_in_child(place, node, console, lock, goes_on)
            write_summary(place, recipe.name, names)
    print_summary(recipe, out, console)
    console.print(Text(str(write_report(out))), soft_wrap=True)


def command_with(command: str, only: str | None) -> str:
    """The command that goes on with what is running: the whole run, or `only` one stage."""
    return f"{command} --only {only}" if only else command


def _cleared(stage: StageDir) -> Path:
    """Where a stage's directory is while it is deleted."""
    return stage.path.with_name(f".{stage.path.name}.old")


def sweep(place: RunDir, names: Sequence[str]) -> None:
    """Delete what a run that was killed left behind: stages that it was clearing, files that it was writing."""
    for name in names:
        shutil.rmtree(_cleared(place.stage(name)), ignore_errors=True)
    remove_temporary(place)


def _clear(stage: StageDir) -> Path | None:
    """Delete a stage's directory, or none of it: what is half deleted could pass for a stage to go on with.

    A review, which people may have filled in, is first moved beside it; returns where it is then.
    """
    if not stage.path.exists():
        return None
    kept, old = None, _cleared(stage)
    try:
        if stage.review.exists():
            names = (f"{stage.path.name}.review{f'-{i}' if i else ''}.csv" for i in itertools.count())
            kept = next(path for name in names if not (path := stage.path.with_name(name)).exists())
            stage.review.rename(kept)
        stage.path.rename(old)
        shutil.rmtree(old)
    except OSError as error:
        raise UserError(f"{stage.path}: cannot be cleared: {error.strerror or error}") from error
    return kept


def recipe_text(recipe: Recipe, command: str) -> str:
    """`recipe.yaml` of a run: every value of every stage, below the command that goes on with the run."""
    lines = "".join(f"{COMMAND_LINE}{line}\n" for line in command.splitlines())  # a value may hold line ends
    return lines + yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)


def _check_inputs(node: Node, nodes: Mapping[str, Node], command: str, made: Sequence[str] = ()) -> None:
    """Raise UserError, with the command that mends it, where an earlier stage is not done or its output is damaged, but for
    those that are `made` before."""
    for text in references(node.cfg).values():
        name, output = reference(text) or ("", "")
        if name in made:
            continue
        if nodes[name].state != "done":
            raise UserError(f"{node.name} needs {name}, which is not done as the recipe has it; `{command}` runs it")
        wrong = damage(nodes[name].stage, output)
        if wrong:
            raise UserError(f"{wrong}; {node.name} needs it, and `{command} --from {name}` makes it again")


def _run_in_child(place: RunDir, node: Node, console: Console, lock: RunLock, command: str) -> None:
    """Run a stage in a process of its own, on the same terminal. It ends when this one does, whatever ends it."""
    root = str(Path(__file__).parent.parent)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])}
    theirs, ours = os.pipe()
    arguments = [sys.executable, "-P", "-m", "aha.stage", str(place.path), node.name, str(theirs)]
    try:
        # A stop waits until the stage knows what to do with it: it unblocks these signals when it has got so far.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        # It keeps the lock too: should this process be killed, nobody else gets it before the stage has ended.
        child = subprocess.Popen(arguments, env=env, pass_fds=(theirs, lock.fd))
        os.close(theirs)
        code = _wait(child)
    finally:
        os.close(ours)
        console.show_cursor(True)  # which the live view of a stage that was killed had hidden
    if code == INTERRUPTED:
        raise StageFailedError(code, f"stopped; {_goes_on(node, command)}")
    if code < 0:
        why = " (out of memory, perhaps)" if -code == signal.SIGKILL else ""
        message = f"its process was ended by signal {-code}, {signal.strsignal(-code)}{why}"
        with contextlib.suppress(OSError, UserError):
            write_atomic(node.stage.error, message + "\n")
        raise StageFailedError(128 - code, f"{node.name}: {message}; {_goes_on(node, command)}")
    if code:
        raise StageFailedError(code)


def _wait(child: "subprocess.Popen[bytes]") -> int:
    """The exit code of a stage. Ctrl-C stops it, which takes a moment; pressed again, it kills it."""
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        return child.wait()
    except KeyboardInterrupt:
        child.terminate()
        try:
            child.wait()
        except KeyboardInterrupt:
            child.kill()
            child.wait()
        return INTERRUPTED


def _goes_on(node: Node, command: str) -> str:
    """What `command` does next with a stage that did not end, in words."""
    step = node.resumes_at
    return f"`{command}` goes on from step {step} of {node.name}" if step else f"`{command}` begins {node.name} again"


def headlines(metrics: Mapping[str, Any]) -> dict[str, str]:
    """The measures of a stage that matter most, as text: of tasks and form, of traces how many were kept, of pairs how
    many were told apart; of a stage with none of these its first few."""
    chosen = {key: _shown(value) for key, value in metrics.items() if key.endswith(HEADLINES)}
    if "sample/kept" in metrics:
        chosen["sample/kept"] = f"{_shown(metrics['sample/kept'])} of {_shown(metrics['sample/candidates'])}"
    return chosen or {key: _shown(value) for key, value in list(metrics.items())[:NUM_OTHERS]}


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return interval(Measure(**value))  # how many there were, the stage has printed
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def print_summary(recipe: Recipe, out: Path, console: Console) -> None:
    """What each stage came to, and one problem as the first measured stage and the last of its line answered it."""
    table = Table(box=None, padding=(0, 2, 0, 0), title_justify="left", show_edge=False)
    for column in ("stage", "time", "measure", "value [95% interval]"):
        table.add_column(column, no_wrap=True)
    for cfg in recipe.stages:
        stage = StageDir(out / cfg.name)
        manifest = stage.read_manifest()
        head = (cfg.name, clock(manifest["seconds"]) if manifest else "waiting" if stage.review.exists() else "not run")
        for key, shown in (headlines(manifest["metrics"] if manifest else {}) or {"": ""}).items():
            table.add_row(*head, key, shown)
            head = ("", "")
    console.print(table)
    answered = [cfg.name for cfg in recipe.stages if StageDir(out / cfg.name).answers.exists()]
    if answered:
        last = last_of_line(answered, {cfg.name: cfg.model_dump() for cfg in recipe.stages})
        if last != answered[0]:
            print_side_by_side(out, answered[0], last, console)
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
