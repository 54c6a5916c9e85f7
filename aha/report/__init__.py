"""The report of a run: its directory read once, one HTML page that needs nothing else, and `summary.json`."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from aha.log import printable
from aha.report import answers, draw, words
from aha.report.run import Run, read_run
from aha.rundir import RunDir, write_atomic, write_summary


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Write the page of the run in `folder` to `out`, or to `report.html` in it, and then refresh its `summary.json` too.

    Returns the path of the page. Raises UserError, in one line that names the file, for what is no run or cannot be read.
    """
    run = read_run(folder)
    if out is None:
        write_summary(RunDir(folder), run.name, [stage.name for stage in run.stages])
    path = out or folder / "report.html"
    write_atomic(path, page(run))
    return path


def page(run: Run) -> str:
    """The page as text. Whatever the templates insert is made printable, then escaped: model text can only be read."""
    environment = Environment(
        loader=PackageLoader("aha.report"),
        autoescape=True,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"number": words.number, "duration": words.duration, "count": words.count}
    return environment.get_template("page.html").render(
        run=run,
        result=words.result(run),
        headline=words.headline,
        chain=draw.chain(run),
        columns=draw.columns(run),
        charts={stage.name: draw.charts(stage) for stage in run.stages},
        chosen=answers.choose(run),
    )


def _printable(value: Any) -> Any:
    return printable(value) if type(value) is str else value  # what a macro returns is Markup, and has been through here
