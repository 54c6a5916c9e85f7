"""Data sets of the Hugging Face hub, read through `datasets`. Code that comes with a data set is never run."""

import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any

from aha.types import UserError

HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
ARGUMENTS = ("data_dir", "data_files")  # of load_dataset that a recipe may give: a folder, or files, of the data set


def hub_rows(
    name: str, subset: str | None, split: str, revision: str | None, args: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, row) pairs of one split of a data set on the hub, from the cache where it is there; rows count from 1.

    Raises UserError: no `datasets`, no connection, no such data set, subset, revision or split.
    """
    for argument in args:
        if argument not in ARGUMENTS:
            raise UserError(f"{name}: args of a hub id are {' and '.join(ARGUMENTS)}, not {argument}")
    try:
        import datasets
    except ImportError:
        raise UserError(f"{name}: reading from the hub needs the extra `hub`: .venv/bin/pip install -e '.[hub]'") from None
    log = logging.getLogger("huggingface_hub")
    level = log.level
    log.setLevel(logging.ERROR)  # its retries without a connection are many lines; the error below is one
    try:
        rows = datasets.load_dataset(name, subset, split=split, revision=revision, **args)
    except ConnectionError as error:
        raise UserError(
            f"{name}: no such path here, no copy in the cache, and the hub is out of reach ({_told(error)}); "
            "the path of a local copy may be the source, with the preset named beside it"
        ) from error
    except datasets.exceptions.DatasetNotFoundError as error:
        raise UserError(f"{name}: no such path here, and {_told(error)}") from error
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise UserError(f"{name}: {_told(error)}") from error
    finally:
        log.setLevel(level)
    yield from ((f"{name} {split} row {i}", row) for i, row in enumerate(rows, 1))


def _told(error: Exception) -> str:
    """What `datasets` says, in one line and in the words of a recipe."""
    told = " ".join(str(error).partition("Example of usage")[0].split()).rstrip(".")
    told = told.replace("Config name is missing", "subset is missing").replace("BuilderConfig", "subset")
    return told.replace("available configs", "subsets") or type(error).__name__
