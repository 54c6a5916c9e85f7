"""People's eyes on traces: a table to fill in, and what they filled in."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aha.rundir import write_atomic
from aha.types import Trace, UserError

COLUMNS = ("keep", "id", "task", "question", "completion", "solved", "reward")
YES, NO = {"yes", "y", "true", "1"}, {"no", "n", "false", "0"}
FORMULA = ("=", "+", "-", "@")  # a cell that begins with one of these is run by spreadsheet programs


def with_ids(traces: Sequence[Trace]) -> list[tuple[str, Trace]]:
    """The traces with names of their own: the id of the problem and a number."""
    seen: Counter[str] = Counter()
    named = []
    for trace in traces:
        named.append((f"{trace.problem.id}#{seen[trace.problem.id]}", trace))
        seen[trace.problem.id] += 1
    return named


def reviewed(traces: Sequence[Trace], path: Path) -> list[Trace]:
    """The traces that people keep. Without the file it is written and a UserError asks for their work."""
    if not path.exists():
        table = io.StringIO()
        writer = csv.DictWriter(table, COLUMNS)
        writer.writeheader()
        for id_, trace in with_ids(traces):
            cells = (id_, trace.problem.task, trace.problem.question, trace.text, trace.solved, trace.reward)
            writer.writerow(dict(zip(COLUMNS, ("", *map(_cell, cells)), strict=True)))
        write_atomic(path, "\ufeff" + table.getvalue())  # the mark that spreadsheet programs know UTF-8 by
        raise UserError(f"{path}: {len(traces)} traces to look at: write yes or no into column keep and run again")
    verdicts = read_review(path)
    for id_, _ in with_ids(traces):
        if id_ not in verdicts:
            raise UserError(f"{path}: no row with id {id_}")
    return [trace for id_, trace in with_ids(traces) if verdicts[id_]]


def _cell(value: Any) -> str:
    text = str(value)
    return f" {text}" if text.startswith(FORMULA) else text


def read_review(path: Path) -> dict[str, bool]:
    """Whether to keep each trace, by its id. Rows count as spreadsheet programs count them: the header is row 1."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as CSV in UTF-8: {error}") from error
    verdicts = {}
    for number, row in enumerate(rows, 2):
        if not {"keep", "id"} <= row.keys():
            raise UserError(f"{path}: want the columns keep and id; it has {', '.join(map(str, row))}")
        word = (row["keep"] or "").strip().casefold()
        if word not in YES | NO:
            raise UserError(f"{path}: row {number}, id {row['id']}: keep is {row['keep']!r}: want yes or no")
        verdicts[row["id"]] = word in YES
    return verdicts
