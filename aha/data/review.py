"""People's eyes on traces: a table to fill in, and what they filled in."""

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aha.data.files import MAX_FIELD
from aha.rundir import write_atomic
from aha.types import Trace, UserError

COLUMNS = ("keep", "id", "task", "question", "completion", "solved", "reward", "text")
YES, NO = {"yes", "y", "true", "1"}, {"no", "n", "false", "0"}
FORMULA = ("=", "+", "-", "@")  # a cell that begins with one of these is run by spreadsheet programs


@dataclass(frozen=True)
class Verdict:
    """What people said of one trace.

    Example: Verdict(row=2, keep=True, text="sha256:9f86d081884c7d65")
    """

    row: int
    keep: bool
    text: str  # the `digest` of what they saw


def reviewed(traces: Sequence[Trace], path: Path) -> list[Trace]:
    """The traces that people keep. Without the file it is written and a UserError asks for their work.

    Column `text` tells by a hash which text people saw: spreadsheet programs cut long cells and change white space, so the
    completion in the file cannot. A verdict on another text is a UserError that names the row.
    """
    if not path.exists():
        table = io.StringIO()
        writer = csv.DictWriter(table, COLUMNS)
        writer.writeheader()
        for trace in traces:
            problem = trace.problem
            cells = (trace.id, problem.task, problem.question, trace.text, trace.solved, trace.reward, digest(trace))
            writer.writerow(dict(zip(COLUMNS, ("", *map(_cell, cells)), strict=True)))
        write_atomic(path, "\ufeff" + table.getvalue())  # the mark that spreadsheet programs know UTF-8 by
        raise UserError(f"{path}: {len(traces)} traces to look at: write yes or no into column keep and run again")
    verdicts = read_review(path)
    for trace in traces:
        verdict = verdicts.get(trace.id)
        if verdict is None:
            raise UserError(f"{path}: no row with id {trace.id}")
        if verdict.text != digest(trace):
            raise UserError(
                f"{path}: row {verdict.row}, id {trace.id}: column text is not that of this trace, which must have changed "
                "since; move the file away and run again to have a new one"
            )
    return [trace for trace in traces if verdicts[trace.id].keep]


def digest(trace: Trace) -> str:
    """Tells question and text of a trace from any other. No spreadsheet program takes it for a number."""
    return "sha256:" + hashlib.sha256(f"{trace.problem.question}\0{trace.text}".encode()).hexdigest()[:16]


def _cell(value: Any) -> str:
    text = str(value)
    return f" {text}" if text.startswith(FORMULA) else text


def read_review(path: Path) -> dict[str, Verdict]:
    """What people say of each trace, by its id. Rows count as spreadsheet programs count them: the header is row 1."""
    csv.field_size_limit(MAX_FIELD)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as CSV in UTF-8: {error}") from error
    verdicts = {}
    for number, row in enumerate(rows, 2):
        if not {"keep", "id", "text"} <= row.keys():
            raise UserError(f"{path}: want the columns keep, id and text; it has {', '.join(map(str, row))}")
        word = (row["keep"] or "").strip().casefold()
        if word not in YES | NO:
            raise UserError(f"{path}: row {number}, id {row['id']}: keep is {row['keep']!r}: want yes or no")
        verdicts[(row["id"] or "").removeprefix(" ")] = Verdict(number, word in YES, row["text"])
    return verdicts
