"""A run on disk: paths, atomic writes, fingerprints and the manifest that says "done".

    runs/<run>/recipe.yaml summary.json .lock
    runs/<run>/<stage>/config.yaml metrics.jsonl rollouts/ checkpoints/ model/ traces.jsonl stage.json

Everything is written under a temporary name, flushed, then renamed; `stage.json` comes last, so that its presence
means that the stage is done.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from aha.types import UserError

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# What a disk, its owner or a path denies: no fault of the program.
UNUSABLE = {*NO_SPACE, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}
TEMPORARY_FOR = 60.0  # seconds, and far longer than a text file is written; an older temporary one is left from a kill
HASHED_OUTPUT = 64 * 2**20  # bytes; of larger files that a stage wrote only the size is compared before they are used


@dataclass(frozen=True)
class RunDir:
    """The paths of a run.

    Example: RunDir(Path("runs/tiny-r1")).stage("zero").path == Path("runs/tiny-r1/zero")
    """

    path: Path

    @property
    def recipe(self) -> Path:
        """The recipe with all its defaults; its first line is the command that goes on with the run."""
        return self.path / "recipe.yaml"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    def stage(self, name: str) -> "StageDir":
        return StageDir(self.path / name)


@dataclass(frozen=True)
class StageDir:
    """The paths of one stage.

    Example: StageDir(Path("runs/tiny-r1/zero")).checkpoint(50) == Path("runs/tiny-r1/zero/checkpoints/step-000050")
    """

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def traces(self) -> Path:
        """What a `sample` stage leaves: one answer a line."""
        return self.path / "traces.jsonl"

    @property
    def progress(self) -> Path:
        """How many steps the stage has, and at which one this process began."""
        return self.path / "progress.json"

    @property
    def error(self) -> Path:
        """Why the stage failed, in one line; gone once it runs again."""
        return self.path / "error.txt"

    @property
    def answers(self) -> Path:
        """The answers of the final evaluation."""
        return self.path / "rollouts" / "eval.parquet"

    @property
    def verdicts(self) -> Path:
        """What slow graders said, a file for each: a run that resumes reads it there."""
        return self.path / "verdicts"

    @property
    def review(self) -> Path:
        """Traces for people to look at; the stage waits until they have filled it in."""
        return self.path / "review.csv"

    @property
    def manifest(self) -> Path:
        return self.path / "stage.json"

    def output(self, name: str) -> Path:
        """The file or folder of an output that later stages may refer to: `model` or `traces`."""
        return {"model": self.model, "traces": self.traces}[name]

    def rollouts(self, step: int) -> Path:
        return self.path / "rollouts" / f"step-{step:06d}.parquet"

    def checkpoint(self, step: int) -> Path:
        return self.path / "checkpoints" / f"step-{step:06d}"

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        steps = (path.name.removeprefix("step-") for path in (self.path / "checkpoints").glob("step-*"))
        return [self.checkpoint(step) for step in sorted(int(step) for step in steps if step.isdecimal())]

    def read_manifest(self) -> dict[str, Any] | None:
        """What `stage.json` says, or None while the stage is unfinished."""
        return read_mapping(self.manifest) if self.manifest.exists() else None

    def read_progress(self) -> dict[str, Any]:
        """`total`, the steps of the stage, and `first`, where its last process began; empty where it never got so far."""
        return read_mapping(self.progress) if self.progress.exists() else {}

    def read_metrics(self) -> list[dict[str, Any]]:
        """The whole lines of `metrics.jsonl`; none where it is not there."""
        return list(read_lines(self.metrics))


def read_mapping(path: Path, parse: Callable[[str], Any] = json.loads) -> dict[str, Any]:
    """The mapping that a file of a run holds. Raises UserError where it is damaged."""
    try:
        found = parse(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: damaged ({str(error).splitlines()[0]})") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: damaged (not a mapping of keys)")
    return found


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON lines of a file, none where it is not there. A last one without its end is left out: it is being written, or
    was cut off. Raises UserError where another is damaged."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                if line.endswith("\n"):
                    yield json.loads(line)
            except ValueError as error:
                raise UserError(f"{path}: line {number}: not valid JSON: {error}") from error


@contextlib.contextmanager
def disk_faults_are_user_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, and one that cannot be written to, into one line that names the path; other failures pass through.

    safetensors reports input and output errors under a type of its own, with the system's text in it.
    """
    try:
        yield
    except Exception as error:
        texts = [os.strerror(code) for code in NO_SPACE]
        if getattr(error, "errno", None) in NO_SPACE or any(text in str(error) for text in texts):
            raise UserError(
                f"{path}: disk full while saving; what was saved before is intact. Free space and run again"
            ) from error
        if isinstance(error, OSError) and error.errno in UNUSABLE:
            raise UserError(f"{path}: cannot be written: {error.strerror}") from error
        raise


def write_atomic(path: Path, text: str) -> None:
    """Write a text file so that readers see the old content or all of the new, also where several processes write it. A link
    is followed. Raises UserError where something else than a plain file is there, such as /dev/stdout."""
    if path.exists() and (not path.is_file() or path.absolute().parts[:2] in (("/", "dev"), ("/", "proc"))):
        raise UserError(f"{path}: cannot be written: no plain file")
    target = path.resolve()
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        with disk_faults_are_user_errors(path):
            target.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def remove_temporary(run: RunDir) -> None:
    """Delete the temporary files that killed processes left in a run directory and in those of its stages."""
    for path in [*run.path.glob("*.tmp"), *run.path.glob("*/*.tmp")]:
        with contextlib.suppress(OSError):
            if path.is_file() and re.search(r"\.\d+\.tmp$", path.name) and time.time() - path.stat().st_mtime > TEMPORARY_FOR:
                path.unlink()


@contextlib.contextmanager
def atomic_folder(path: Path, temporary: Path | None = None) -> Iterator[Path]:
    """A temporary folder, beside `path` by default, that becomes `path` when the block ends well, and vanishes when it does
    not. What was there under its name is deleted: it is left from a kill."""
    temporary = temporary or path.with_name(path.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with disk_faults_are_user_errors(path):
            temporary.mkdir(parents=True)
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    with file.open("rb") as opened:
                        os.fsync(opened.fileno())
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(path, ignore_errors=True)
    temporary.replace(path)


def fingerprint(config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """sha256 of a stage's resolved configuration and of its inputs' fingerprints."""
    text = json.dumps({"config": config, "inputs": inputs}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint_path(path: Path, suffix: str | None = None) -> str:
    """sha256 over names and contents of a file, or of all files of a folder but its documentation and what is hidden, where
    downloads and file managers keep their notes; with `suffix` of those that end in it."""
    digest = hashlib.sha256()
    files = [path]
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if file.is_file() and not _is_hidden(file.relative_to(path)))
        files = [file for file in inside if (file.suffix == suffix if suffix else file.suffix != ".md")]
    for file in files:
        name = file.relative_to(path) if path.is_dir() else file.name
        digest.update(f"{name}:{file.stat().st_size}\n".encode())
        with file.open("rb") as opened:
            hashlib.file_digest(opened, lambda: digest)  # which reads on into it, piece by piece
    return digest.hexdigest()


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in path.parts)


def describe_files(stage: StageDir, outputs: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Size in bytes, and of all but large files sha256, of every file of some outputs, by its path in the stage."""
    described: dict[str, dict[str, Any]] = {}
    for output in map(stage.output, outputs):
        files = sorted(path for path in output.rglob("*") if path.is_file()) if output.is_dir() else [output]
        described |= {path.relative_to(stage.path).as_posix(): _describe(path) for path in files}
    return described


def _describe(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    if size > HASHED_OUTPUT:
        return {"size": size}
    return {"size": size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def content(stage: StageDir, output: str) -> str | None:
    """sha256 of what a finished stage wrote as `output`, from its manifest; None while it is unfinished.

    Where a file is too large to have been hashed, the whole manifest stands for it.
    """
    manifest = stage.read_manifest()
    if manifest is None:
        return None
    inside = stage.output(output).name
    files = {name: told for name, told in manifest.get("files", {}).items() if name.partition("/")[0] == inside}
    return fingerprint(files if all("sha256" in told for told in files.values()) else manifest, {})


def damage(stage: StageDir, output: str) -> str | None:
    """The first file of an output of a finished stage that is not as it was written, and how; None where all are."""
    before = (stage.read_manifest() or {}).get("files", {})
    inside = stage.output(output).name
    for name, expected in before.items():
        path = stage.path / name
        if name.partition("/")[0] != inside:
            continue
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size != expected["size"]:
            return f"{path} is damaged: it has {path.stat().st_size:,} bytes and had {expected['size']:,}"
        if _describe(path) != expected:
            return f"{path} is damaged: its content is not what the stage wrote"
    return None


def write_summary(run: RunDir, name: str, stages: Iterable[str]) -> None:
    """Write `summary.json`, what the finished ones of `stages` came to, in this order.

    {"name": that of the run, "stages": [{"name", "kind", "seconds", "metrics"}, ...]}. Every entry is taken from the
    stage's `stage.json`: a metric is a number, or a measure as {"value", "low", "high", "n"}.
    """
    manifests = [manifest for stage in stages if (manifest := run.stage(stage).read_manifest())]
    entries = [{key: manifest[key] for key in ("name", "kind", "seconds", "metrics")} for manifest in manifests]
    write_atomic(run.summary, json.dumps({"name": name, "stages": entries}, indent=2) + "\n")


def truncate_metrics(path: Path, last_step: int, total: int | None = None, missing: Collection[int] = ()) -> None:
    """Drop the lines of `metrics.jsonl` after `last_step` and of `missing` steps before it, and a last one that was cut off: a
    resumed run writes them. Where that is step `total`, it writes the final evaluation too."""
    if path.exists():
        rows = [row for row in read_lines(path) if row["step"] <= last_step and row["step"] not in missing]
        kept = [row for row in rows if not (row["step"] == total == last_step and is_evaluation(row))]
        write_atomic(path, "".join(json.dumps(row) + "\n" for row in kept))


def is_evaluation(row: Mapping[str, Any]) -> bool:
    """Whether a line of `metrics.jsonl` tells measures and no step of training."""
    return any(key.startswith("eval/") for key in row)
