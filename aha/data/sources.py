"""Data sources: a name or a path in, problems or texts out.

Generators make their rows, files and folders are read as JSON lines, CSV or parquet, and a preset knows the columns
of a public data set. A row that does not fit is an error that names file, row and column.
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from aha.config import DataConfig
from aha.data import countdown, writers
from aha.types import Problem, UserError

DEFAULT_GENERATED_ROWS = 4096
SPLIT_PATTERN = re.compile(r"^(?P<name>[^\[\]]*)(\[(?P<start>-?\d+)?:(?P<stop>-?\d+)?\])?$")
SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")


@dataclass(frozen=True)
class Preset:
    """How a public data set is read.

    Example: Preset("gsm8k", {"question": "question", "answer": "answer"}, "accuracy") reads GSM8K's own columns.
    """

    task: str  # prefix of the metrics
    columns: Mapping[str, str]  # our column: theirs
    grader: str
    question: str | None = None  # template with {column}, where no column holds the question itself
    convert: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)  # our column: what to make of its value


def gsm8k_gold(answer: str) -> str:
    """The number after the last "####" of a GSM8K answer, without thousands separators."""
    _, mark, gold = answer.rpartition("####")
    if not mark:
        raise ValueError("no '####' before the gold answer")
    return gold.strip().replace(",", "")


def number_list(value: Any) -> list[int]:
    """A list of whole numbers, also from the text of one, as CSV holds it."""
    numbers = json.loads(value) if isinstance(value, str) else list(value)
    if not isinstance(numbers, list) or not numbers or not all(isinstance(n, int) for n in numbers):
        raise ValueError("not a list of whole numbers")
    return numbers


def whole_number(value: Any) -> int:
    """A whole number, also from its text."""
    number = int(value)
    if number != float(value):
        raise ValueError(f"{value} is not a whole number")
    return number


PRESETS = {
    "countdown-tasks-3to4": Preset(
        task="countdown",
        columns={"nums": "nums", "target": "target"},
        grader="countdown",
        question=countdown.QUESTION,
        convert={"nums": number_list, "target": whole_number},
    ),
    "gsm8k": Preset(
        task="gsm8k", columns={"question": "question", "gold": "answer"}, grader="accuracy", convert={"gold": gsm8k_gold}
    ),
}


def _countdown_rows(cfg: DataConfig, split: str) -> Iterator[dict[str, Any]]:
    if split not in countdown.SPLITS:
        raise UserError(f"countdown has no split {split!r}; known: {', '.join(countdown.SPLITS)}")
    for nums, target in countdown.problems(split, cfg.seed, **cfg.args):
        yield {"nums": nums, "target": target}


def _writer_rows(cfg: DataConfig, split: str) -> Iterator[dict[str, Any]]:
    return writers.documents(cfg.seed, **cfg.args)


# Generators of problems take their mapping from a preset; `writers` makes texts to learn from.
GENERATORS: dict[str, Callable[[DataConfig, str], Iterator[dict[str, Any]]]] = {
    "countdown": _countdown_rows,
    "writers": _writer_rows,
}
GENERATOR_PRESETS = {"countdown": PRESETS["countdown-tasks-3to4"]}


def load_problems(cfg: DataConfig) -> list[Problem]:
    """The problems of a source, for rollouts and evaluation. Raises UserError, also where there are none."""
    preset = _preset(cfg)
    columns = {**(preset.columns if preset else {}), **cfg.columns}
    template = cfg.question or (preset.question if preset else None)
    grader = cfg.grader or (preset.grader if preset else "accuracy")
    task = cfg.task or (preset.task if preset else Path(cfg.source).stem)
    if template is None:
        columns.setdefault("question", "question")
    problems: list[Problem] = []
    for where, row in _rows(cfg):
        values = dict(row) if preset is None else {}
        for ours, theirs in columns.items():
            values[ours] = _convert(preset, ours, _column(row, theirs, where), where)
        values["question"] = _fill(template, values, where) if template else values["question"]
        if not isinstance(values["question"], str) or not values["question"].strip():
            raise UserError(f"{where}: column 'question' holds no text")
        question = values.pop("question")
        problems.append(Problem(f"{task}/{len(problems)}", task, question, values, grader))
    return problems


def load_texts(cfg: DataConfig) -> list[dict[str, str]]:
    """Rows of `prompt` and `completion`, for supervised training. Raises UserError, also where there are none."""
    texts = []
    for where, row in _rows(cfg):
        pair = {name: _column(row, cfg.columns.get(name, name), where) for name in ("prompt", "completion")}
        for name, value in pair.items():
            if not isinstance(value, str):
                raise UserError(f"{where}: column {cfg.columns.get(name, name)!r} holds no text")
        texts.append(pair)
    return texts


def _preset(cfg: DataConfig) -> Preset | None:
    if cfg.preset is not None and cfg.preset not in PRESETS:
        raise UserError(f"unknown preset {cfg.preset!r}; known: {', '.join(PRESETS)}")
    return PRESETS[cfg.preset] if cfg.preset else GENERATOR_PRESETS.get(cfg.source)


def _rows(cfg: DataConfig) -> list[tuple[str, dict[str, Any]]]:
    """(where, row) pairs of a source: the split's slice, then the limit."""
    match = SPLIT_PATTERN.match(cfg.split)
    if match is None:
        raise UserError(f"split {cfg.split!r} is neither a name nor a name with a slice such as train[-1024:]")
    start, stop = (int(match[key]) if match[key] else None for key in ("start", "stop"))
    rows: Iterable[tuple[str, dict[str, Any]]]
    if cfg.source in GENERATORS:
        made = GENERATORS[cfg.source](cfg, match["name"])
        sliced = start is not None or stop is not None
        count = DEFAULT_GENERATED_ROWS if sliced or cfg.limit is None else cfg.limit
        rows = [(f"{cfg.source} row {i}", row) for i, row in enumerate(_draw(made, count, cfg))]
    else:
        rows = [pair for file in _data_files(cfg.source, match["name"]) for pair in _read(file)]
    rows = rows[start:stop][: cfg.limit]
    if not rows:
        raise UserError(f"{cfg.source}: no rows in split {cfg.split}")
    return rows


def _draw(rows: Iterator[dict[str, Any]], count: int, cfg: DataConfig) -> list[dict[str, Any]]:
    try:
        return list(islice(rows, count))
    except (TypeError, ValueError, IndexError) as error:
        raise UserError(f"{cfg.source}: args {cfg.args} do not fit the generator: {error}") from error


def _data_files(source: str, split: str) -> list[Path]:
    path = Path(source).expanduser()
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise UserError(f"{source}: cannot read {path.suffix or 'files without ending'}; known: {', '.join(SUFFIXES)}")
        return [path]
    if not path.is_dir():
        hint = f"; to read a local copy of it, give its path as source and `preset: {source}`" if source in PRESETS else ""
        known = ", ".join(GENERATORS)
        raise UserError(f"{source}: no such file or folder, and no generator (known: {known}){hint}")
    found = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    chosen = [file for file in found if re.match(rf"{re.escape(split)}(\b|_|-)", file.stem)]
    if not chosen:
        names = ", ".join(file.name for file in found) or "no data files"
        raise UserError(f"{source}: no file for split {split!r}; the folder has {names}")
    return chosen


def _read(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, row) pairs of one file; rows count from 1."""
    try:
        if file.suffix == ".parquet":
            table = pyarrow.parquet.read_table(file)
            yield from ((f"{file}: row {i}", row) for i, row in enumerate(table.to_pylist(), 1))
        elif file.suffix == ".csv":
            with file.open(newline="", encoding="utf-8") as opened:
                for i, row in enumerate(csv.DictReader(opened), 1):
                    if None in row:
                        raise UserError(f"{file}: row {i}: more fields than the header has columns")
                    yield f"{file}: row {i}", row
        else:
            yield from _read_json(file)
    except (pyarrow.ArrowException, csv.Error, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{file}: cannot be read as {file.suffix[1:]}: {str(error).splitlines()[0]}") from error


def _read_json(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """JSON lines; a file that is one JSON list of rows is read too."""
    text = file.read_text(encoding="utf-8")
    if text.lstrip().startswith("["):
        rows = [(f"{file}: row {i}", row) for i, row in enumerate(_parse(text, str(file)), 1)]
    else:
        # Not splitlines: JSON strings may hold line separators other than "\n".
        lines = [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
        rows = [(f"{file}: row {i}", _parse(line, f"{file}: row {i}")) for i, line in lines]
    for where, row in rows:
        if not isinstance(row, dict):
            raise UserError(f"{where}: not a JSON object")
        yield where, row


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{where}: not valid JSON: {error}") from error


def _column(row: Mapping[str, Any], name: str, where: str) -> Any:
    if row.get(name) is None:
        raise UserError(f"{where}: no column {name!r}; the row has {', '.join(map(str, row)) or 'nothing'}")
    return row[name]


def _convert(preset: Preset | None, column: str, value: Any, where: str) -> Any:
    convert = preset.convert.get(column) if preset else None
    if convert is None:
        return value
    try:
        return convert(value)
    except (ValueError, TypeError) as error:
        raise UserError(f"{where}: column {column!r}: {error}") from error


def _fill(template: str, values: Mapping[str, Any], where: str) -> str:
    try:
        return template.format(**values)
    except KeyError as error:
        raise UserError(f"{where}: the question template wants column {error}; the row has {', '.join(values)}") from error
    except (IndexError, ValueError, AttributeError) as error:
        raise UserError(f"{where}: the question template is no template ({error}); write {{{{ and }}}} for braces") from error
