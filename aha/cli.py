"""The command line. Errors of use are one line and exit code 2; torch is imported only by commands that need it."""

import json
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console

from aha import __version__
from aha.bundled import BUNDLED_MODELS, DEFAULT_MODEL
from aha.config import validate
from aha.data.presets import PRESETS
from aha.log import printable
from aha.recipe import load_recipe
from aha.rewards.kinds import KINDS, Kind, kind_named
from aha.rundir import UNUSABLE
from aha.stage_configs import DecodingConfig, EvalStage, SampleStage, StageConfig
from aha.stop import INTERRUPTED, interrupt, outlive_terminal
from aha.types import UserError

app = typer.Typer(
    name="aha",
    help="How DeepSeek-R1 was trained, on a two-core laptop or on a GPU.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)


Model = Annotated[str, typer.Option(help=f"{', '.join(BUNDLED_MODELS)}, a folder, or a hub id")]
MaxLength = Annotated[int, typer.Option(help="tokens of a completion at the most")]
Temperature = Annotated[float, typer.Option(help="of sampling; 0 is greedy")]
Template = Annotated[
    str | None,
    typer.Option(help="how the model is asked: r1, r1-chat, chat, plain; default: as saved beside the weights, else r1"),
]
Prefill = Annotated[str | None, typer.Option(help="with --template: how every answer starts, as in '<think>'")]
Seed = Annotated[int, typer.Option(help="seed of the sampling")]
Data = Annotated[str, typer.Option(help="a generator (countdown), a preset (gsm8k), a hub id, a file or folder")]
Preset = Annotated[str | None, typer.Option(help=f"columns of a public data set: {', '.join(PRESETS)}")]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", help="where data of your own has what, as in question=problem, gold=answer; several times"),
]
Split = Annotated[str, typer.Option(help="split, also with rows: train[-1024:]; a file is one split, whatever its name")]
Limit = Annotated[int | None, typer.Option(help="the first so many problems; default: all, 512 of a generator")]


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"aha {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="a YAML file of recipes/ or your own")],
    overrides: Annotated[list[str] | None, typer.Argument(help="stage.key=value, defaults.key=value, or seed=value")] = None,
    out: Annotated[Path | None, typer.Option(help="run directory; default: runs/<name of the recipe>")] = None,
    redo_from: Annotated[
        list[str] | None, typer.Option("--from", help="redo this stage and what depends on it; may be given several times")
    ] = None,
    only: Annotated[str | None, typer.Option(help="run just this stage; what it needs must be done")] = None,
) -> None:
    """Run a recipe: stages that are done are skipped, an interrupted one goes on from its last checkpoint."""
    from aha import pipeline

    loaded = load_recipe(recipe, overrides)
    command = shlex.join(["aha", "run", str(recipe), *(overrides or []), *(["--out", str(out)] if out else [])])
    outlive_terminal()
    for number in (signal.SIGTERM, signal.SIGHUP):  # stop as Ctrl-C does
        if signal.getsignal(number) is not signal.SIG_IGN:  # as it is under nohup
            signal.signal(number, interrupt)
    try:
        pipeline.run(loaded, out or Path("runs") / loaded.name, Console(), redo_from or [], only, command, in_process=False)
    except pipeline.StageFailedError as error:
        if str(error):
            _fail(str(error), error.code)
        sys.exit(error.code)
    except KeyboardInterrupt:
        _fail(f"stopped; `{pipeline.command_with(command, only)}` goes on", INTERRUPTED)


@app.command()
def plan(
    recipe: Annotated[Path, typer.Argument(help="a YAML file of recipes/ or your own")],
    overrides: Annotated[list[str] | None, typer.Argument(help="stage.key=value, defaults.key=value, or seed=value")] = None,
    out: Annotated[Path | None, typer.Option(help="run directory; default: runs/<name of the recipe>")] = None,
) -> None:
    """Show what `run` would do with each stage and why, with time and disk where they are known."""
    from aha.plan import print_plan

    loaded = load_recipe(recipe, overrides)
    print_plan(loaded, out or Path("runs") / loaded.name, Console())


@app.command()
def status(
    run: Annotated[Path | None, typer.Argument(help="run directory; default: the one written to last in runs/")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="refresh as long as it runs")] = False,
) -> None:
    """Show where a run stands, from any terminal."""
    from aha.status import newest_run, show

    show(run or newest_run(), Console(), watch)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="run directory, such as runs/tiny-r1")],
    out: Annotated[Path | None, typer.Option(help="the page; default: report.html in the run directory")] = None,
) -> None:
    """Write one HTML page that shows what every stage of a run did, and print its path."""
    from aha.report import write_report

    _check_output(out, ".html")
    typer.echo(write_report(run, out))


@app.command()
def export(
    stage: Annotated[str, typer.Argument(help="a stage directory such as runs/tiny-r1/zero, or a stage with --run")],
    to: Annotated[Path, typer.Option(help="folder to write")],
    run: Annotated[Path | None, typer.Option(help="run directory of the stage")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace a model folder that is there")] = False,
    repo: Annotated[str | None, typer.Option("--push-to-hub", help="also upload it to this repository, privately")] = None,
    public: Annotated[bool, typer.Option("--public", help="upload for everybody to see")] = False,
) -> None:
    """Write the model of a stage as a plain Hugging Face folder with a model card."""
    from aha import export as exporting

    files = exporting.export(exporting.stage_named(stage, run), to, force, repo)
    typer.echo(f"{to}: {exporting.told_files(files)}")
    if repo:
        typer.echo(f"uploading these to the {'public' if public else 'private'} repository {repo}")
        typer.echo(exporting.push(to, repo, is_private=not public))


@app.command("eval")
def evaluate(
    model: Model = DEFAULT_MODEL,
    against: Annotated[str | None, typer.Option(help="a second model, to compare with on the same problems")] = None,
    data: Data = "countdown",
    preset: Preset = None,
    columns: Columns = None,
    split: Split = "test",
    limit: Limit = None,
    max_completion_length: MaxLength = 256,
    temperature: Temperature = 1.0,
    top_p: Annotated[float, typer.Option(help="only the likeliest tokens that hold this mass; 1 keeps all")] = 1.0,
    top_k: Annotated[int, typer.Option(help="only the k likeliest tokens; 0 keeps all")] = 0,
    num_generations: Annotated[int, typer.Option(help="answers per problem, the k of pass@k and maj@k")] = 1,
    template: Template = None,
    prefill: Prefill = None,
    seed: Seed = 42,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the measures to this file")] = None,
    answers: Annotated[Path | None, typer.Option(help="keep the answers of the model in this parquet file")] = None,
) -> None:
    """Measure a model: accuracy with its 95 percent interval, and the form of the text."""
    values = {
        "name": "eval",
        "kind": "eval",
        "model": model,
        "prompt": _prompt(template, prefill),
        "seed": seed,
        "max_completion_length": max_completion_length,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "eval": {"data": [_source(data, preset, columns, split, limit)], "num_generations": num_generations},
    }
    cfg: EvalStage = validate(EvalStage, values, "command line")
    _check_output(answers, ".parquet")
    _check_output(json_file)
    from aha import evaluate as verb
    from aha.log import StageLog, side_by_side, told
    from aha.rundir import write_atomic

    console = Console(stderr=True)
    if against is None:
        with StageLog("eval", "eval", console) as log:
            _, measures = verb.answer(cfg, log, answers)
        lines = [f"{key:24} {told(measure)}" for key, measure in measures.items()]
        written: dict[str, Any] = {key: measure.as_dict() for key, measure in measures.items()}
    else:
        both = verb.compare(cfg, against, console, answers)
        lines = side_by_side((against, model), both.against, both.model, both.difference)
        written = asdict(both)
    typer.echo("\n".join(lines))
    if json_file:
        write_atomic(json_file, json.dumps(written, indent=2) + "\n")


@app.command()
def sample(
    out: Annotated[Path, typer.Option(help="write the traces to this file, JSON lines")],
    model: Model = DEFAULT_MODEL,
    server: Annotated[str | None, typer.Option(help="ask MODEL behind this OpenAI-compatible server, http://.../v1")] = None,
    data: Data = "countdown",
    preset: Preset = None,
    columns: Columns = None,
    split: Split = "train",
    limit: Limit = None,
    num_generations: Annotated[int, typer.Option(help="answers per problem")] = 4,
    max_completion_length: MaxLength = 256,
    temperature: Temperature = 1.0,
    refine: Annotated[list[str] | None, typer.Option(help="a refinement; may be given several times")] = None,
    filters: Annotated[
        list[str] | None, typer.Option("--filter", help="keep what passes; several times; default: those of recipes")
    ] = None,
    num_best: Annotated[int | None, typer.Option(help="keep so many traces of a problem; default: all")] = None,
    template: Template = None,
    prefill: Prefill = None,
    seed: Seed = 42,
) -> None:
    """Sample answers, grade, refine and filter them, and write traces to learn from. Recipes can do more.

    Stopped, the same command goes on with what was answered, which is kept in a hidden folder beside the output until then.
    """
    values: dict[str, Any] = {
        "name": "sample",
        "kind": "sample",
        "prompt": _prompt(template, prefill),
        "seed": seed,
        "data": _source(data, preset, columns, split, limit),
        "num_generations": num_generations,
        "max_completion_length": max_completion_length,
        "temperature": temperature,
        "refine": refine or [],
        "num_best": num_best,
    }
    values |= {"engine": "server", "server": {"base_url": server, "model": model}} if server else {"model": model}
    values |= {"filters": filters} if filters else {}
    cfg: SampleStage = validate(SampleStage, values, "command line")
    _check_output(out, ".jsonl")
    from aha import sample as verb
    from aha.graph import inputs_of
    from aha.lock import RunLock
    from aha.log import StageLog
    from aha.rundir import StageDir, fingerprint

    # Of these settings and what they read: the same command finds there what was answered before it failed or was stopped.
    stage = StageDir(out.with_name(f".{out.name}.{fingerprint(cfg.model_dump(mode='json'), inputs_of(cfg))[:12]}"))
    with RunLock(stage.path / ".lock", "aha sample"), StageLog("sample", "sample", Console(stderr=True), stage) as log:
        verb.run(cfg, stage, log)
    stage.traces.replace(out)
    shutil.rmtree(stage.path)
    typer.echo(out)


def _source(data: str, preset: str | None, columns: list[str] | None, split: str, limit: int | None) -> dict[str, Any]:
    """The settings of the data that a command reads."""
    from aha.data.sources import GENERATORS

    pairs = [column.partition("=") for column in columns or []]
    if wrong := ["".join(pair) for pair in pairs if not all(pair)]:
        raise UserError(f"--column {printable(wrong[0])}: wants our column and yours, as in question=problem")
    return {
        "source": data,
        "preset": preset,
        "columns": {ours: theirs for ours, _, theirs in pairs},
        "split": split,
        "limit": limit if limit is not None else (512 if data in GENERATORS else None),
    }


def _prompt(template: str | None, prefill: str | None) -> dict[str, str] | None:
    """The prompt settings of a command; None: those of the model."""
    if template is None and prefill is not None:
        raise UserError("--prefill goes with --template: the two are settings of one prompt")
    return {"template": template, "prefill": prefill or ""} if template else None


def _check_output(path: Path | None, suffix: str = "") -> None:
    """Refuse a file that cannot be written before minutes go into what it is to hold."""
    if path is None:
        return
    if not path.name.endswith(suffix):
        raise UserError(f"{path}: want a file that ends in {suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UserError(f"{path}: {'is a folder' if path.is_dir() else 'its folder cannot be written to'}")


@app.command(
    help=(
        "Grade JSON lines: the same lines come out with `score` from 0 to 1, `reason` and `ms`, in place of what they had "
        "under these names.\n\n"
        f"A line holds, for {'; for '.join(f'{name}: {kind.columns}' for name, kind in KINDS.items())}. "
        "For math `parsed_gold` and `parsed_answer` tell how both were read."
    )
)
def grade(
    kind: Annotated[str, typer.Option(help=", ".join(KINDS))] = "math",
    file: Annotated[Path | None, typer.Argument(help="JSON lines; default: stdin")] = None,
    audit: Annotated[
        tuple[str, str] | None,
        typer.Option(help="compare two graders: ours, math-verify, exact, column:NAME, judge:MODEL@URL", metavar="A B"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="write the disagreements of an audit to this file, as JSON lines")] = None,
) -> None:
    grader = kind_named(kind)
    if audit is not None:
        if out and file and out.resolve() == file.resolve():
            raise UserError(f"--out {out} is the file that is read")
        _audit(audit, kind, file, out)
        return
    if out is not None:
        raise UserError("--out keeps the disagreements of --audit; without it, send the lines where you want them")
    for batch in _batches(grader, file):
        for (row, _), graded in zip(batch, grader.grade([arguments for _, arguments in batch]), strict=True):
            typer.echo(json.dumps({**row, **graded.columns()}))


def _batches(grader: Kind, file: Path | None) -> Iterator[list[tuple[dict[str, Any], tuple[Any, ...]]]]:
    """Lines with what the grader takes from them. What comes before a bad line is graded before the line is told."""
    batch: list[tuple[dict[str, Any], tuple[Any, ...]]] = []
    try:
        for where, row in _json_lines(file):
            batch.append((row, grader.read(row, where)))
            if len(batch) == grader.batch:
                yield batch
                batch = []
    except UserError:
        yield batch
        raise
    yield batch


def _audit(names: tuple[str, str], kind: str, file: Path | None, out: Path | None) -> None:
    from aha import audit

    _check_output(out)
    for name in names:
        audit.check_name(name, kind)
    rows = list(_json_lines(file))
    if not rows:
        raise UserError("no rows to compare the graders on")
    names = audit.with_labels_second(names)
    first, second = (audit.verdicts(name, kind, rows) for name in names)
    compared = audit.compare(names, first, second)
    found = audit.disagreements(compared, rows, first, second)
    typer.echo("\n".join([*audit.told(compared), *audit.told_rows(compared, found)]))
    if out:
        from aha.rundir import write_atomic

        write_atomic(out, "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in found))


def _json_lines(file: Path | None) -> Iterator[tuple[str, dict[str, Any]]]:
    name = str(file) if file else "stdin"
    try:
        lines: TextIO = file.open(encoding="utf-8-sig") if file else sys.stdin
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            row = json.loads(line)
            if not isinstance(row, dict):
                raise UserError(f"{name}: line {number}: not a JSON object")
            yield f"{name}: line {number}", row
    except OSError as error:
        raise UserError(f"{name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: not UTF-8: {error}") from error
    except ValueError as error:
        raise UserError(f"{name}: line {number}: not valid JSON, want one object a line: {error}") from error


@app.command()
def chat(
    model: Model = DEFAULT_MODEL,
    prompt: Annotated[str | None, typer.Option(help="ask this and exit; default: ask for questions")] = None,
    max_completion_length: MaxLength = 256,
    temperature: Temperature = 1.0,
    template: Template = None,
    prefill: Prefill = None,
    seed: Seed = 42,
) -> None:
    """Ask a model, with the prompt settings that it was trained with."""
    from aha.speak import Speaker

    values = {"name": "chat", "kind": "chat", "model": model, "prompt": _prompt(template, prefill)}
    settings = {"max_completion_length": max_completion_length, "temperature": temperature}
    decoding = validate(DecodingConfig, settings, "command line")
    cfg = validate(StageConfig, values, "command line")
    speaker = Speaker(cfg, decoding.max_completion_length, decoding.temperature, seed)
    typer.echo(speaker.header())
    if prompt is not None:
        typer.echo(speaker.answer(prompt))
        return
    while True:
        try:
            question = input("\n> ")
        except EOFError:
            return
        if question.strip():
            typer.echo(speaker.answer(question))


def main() -> None:
    """Entry point: turns errors of use into one line and exit code 2."""
    try:
        code = app(standalone_mode=False)
        if code == INTERRUPTED:  # typer turns Ctrl-C into this
            raise KeyboardInterrupt
    except UserError as error:
        _fail(str(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        _fail("stopped", INTERRUPTED)
    except typer.TyperException as error:
        _fail(error.format_message(), error.exit_code)
    except BrokenPipeError:
        sys.exit(0)
    except OSError as error:
        if error.errno not in UNUSABLE or error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}", 2)


def _fail(message: str, code: int) -> None:
    print(f"aha: {printable(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(code)
