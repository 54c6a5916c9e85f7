"""Files and folders: JSON lines, JSON, CSV, tab-separated values and parquet, each also gzipped."""

import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow
import pyarrow.parquet

from aha.types import UserError

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")

MAX_FIELD = 2**31 - 1  # characters of a field of CSV, for which Python allows 131,072 by default: thoughts are longer

Row = dict[str, Any]


def suffix_of(file: Path) -> str:
    """The ending that tells how a file is read: ".jsonl" of a.jsonl and of a.jsonl.gz."""
    return Path(file.stem).suffix if file.suffix == ".gz" else file.suffix


def stem_of(file: Path) -> str:
    """The name of a data file without its endings: "train" of train.jsonl.gz."""
    return file.name.removesuffix(".gz").removesuffix(suffix_of(file))


def read_files(path: Path, split: str, header: Sequence[str] = ()) -> Iterator[tuple[str, Row]]:
    """(where, row) pairs of a file, or of the files of a folder that `split` names.

    `header` names the columns of CSV and TSV files that have no line for it. Raises UserError.
    """
    for file in [path] if path.is_file() else files_of_split(path, split):
        yield from read(file, header)


def files_of_split(folder: Path, split: str) -> list[Path]:
    """The data files of a folder whose name begins with the split; where none does, those that end with it."""
    found = sorted(file for file in folder.iterdir() if suffix_of(file) in SUFFIXES)
    name = re.escape(split)
    begin = [file for file in found if re.match(rf"{name}(\b|_)", stem_of(file))]
    chosen = begin or [file for file in found if re.search(rf"(\b|_){name}$", stem_of(file))]
    if not chosen:
        names = ", ".join(file.name for file in found) or "no data files"
        raise UserError(f"{folder}: no file for split {split!r}; the folder has {names}")
    return chosen


def read(file: Path, header: Sequence[str] = ()) -> Iterator[tuple[str, Row]]:
    """(where, row) pairs of one file; rows count from 1. Raises UserError."""
    suffix = suffix_of(file)
    if suffix not in SUFFIXES:
        raise UserError(
            f"{file}: cannot read {suffix or 'files without ending'}; known: {', '.join(SUFFIXES)}, and .gz of them"
        )
    try:
        if suffix == ".parquet":
            with _open(file, "rb") as opened:
                batches = pyarrow.parquet.ParquetFile(opened).iter_batches()
                rows = (row for batch in batches for row in batch.to_pylist())
                yield from ((f"{file}: row {i}", row) for i, row in enumerate(rows, 1))
        elif suffix in (".csv", ".tsv"):
            with _open(file, "rt") as opened:
                yield from _read_table(file, opened, header)
        else:
            with _open(file, "rt", newline="\n") as opened:  # JSON strings may hold other line separators
                yield from _read_json(file, opened)
    except (pyarrow.ArrowException, csv.Error, UnicodeDecodeError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file}: cannot be read as {suffix[1:]}: {str(error).splitlines()[0]}") from error


def _open(file: Path, mode: str, newline: str = "") -> IO[Any]:
    """The file, unpacked; of text without the mark that spreadsheet programs put at its start."""
    arguments: dict[str, Any] = {} if mode == "rb" else {"encoding": "utf-8-sig", "newline": newline}
    opener: Callable[..., IO[Any]] = gzip.open if file.suffix == ".gz" else open
    return opener(file, mode, **arguments)


def _read_table(file: Path, opened: IO[str], header: Sequence[str]) -> Iterator[tuple[str, Row]]:
    """CSV, and TSV, in which quotation marks are text like any other."""
    csv.field_size_limit(MAX_FIELD)
    form: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if suffix_of(file) == ".tsv" else {}
    for i, row in enumerate(csv.DictReader(opened, header or None, **form), 1):
        if None in row:
            raise UserError(f"{file}: row {i}: more fields than the header has columns")
        yield f"{file}: row {i}", row


def _read_json(file: Path, opened: IO[str]) -> Iterator[tuple[str, Row]]:
    """JSON lines, one after the other; a file that is one JSON list of rows is read too."""
    first = next((line for line in opened if line.strip()), "")
    opened.seek(0)
    if first.lstrip().startswith("["):
        rows = ((f"{file}: row {i}", row) for i, row in enumerate(_parse(opened.read(), str(file)), 1))
    else:
        lines = ((i, line) for i, line in enumerate(opened, 1) if line.strip())
        rows = ((f"{file}: row {i}", _parse(line, f"{file}: row {i}")) for i, line in lines)
    for where, row in rows:
        if not isinstance(row, dict):
            raise UserError(f"{where}: not a JSON object")
        yield where, row


def _parse(text: str, where: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UserError(f"{where}: not valid JSON: {error}") from error
    if "\\ud" in text.lower():  # "\\ud83d" without its other half is JSON, and no text
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{where}: a text holds half of a surrogate pair, as a cut emoji leaves it") from error
    return value
