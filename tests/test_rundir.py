"""The run directory: nothing half-written is ever seen, and a fingerprint changes with what it stands for."""

import errno
import json
import os
from pathlib import Path

import pytest

from aha.rundir import (
    RunDir,
    StageDir,
    atomic_folder,
    fingerprint,
    fingerprint_path,
    remove_temporary,
    truncate_metrics,
    write_atomic,
)
from aha.types import UserError


@pytest.fixture
def failing_flush(monkeypatch):
    """A function that makes the next flush to disk fail with an error number."""

    def fail(code: int) -> None:
        def fsync(descriptor: int) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "fsync", fsync)

    return fail


# Files.


def test_a_file_is_written_with_its_folders_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a" / "b" / "stage.json"
    write_atomic(path, "{}\n")
    write_atomic(path, "中文\n")
    assert path.read_text(encoding="utf-8") == "中文\n"
    assert [file.name for file in path.parent.iterdir()] == ["stage.json"]


def test_a_link_is_followed(tmp_path):
    (tmp_path / "old.json").write_text("old")
    (tmp_path / "latest.json").symlink_to("old.json")
    write_atomic(tmp_path / "latest.json", "new")
    assert (tmp_path / "latest.json").is_symlink()
    assert (tmp_path / "old.json").read_text() == "new"


def test_a_pipe_and_what_the_system_keeps_are_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/stdout"), Path("/dev/null")):
        with pytest.raises(UserError, match=f"{path}: cannot be written: no plain file"):
            write_atomic(path, "new")
    assert (tmp_path / "pipe").is_fifo()


def test_a_file_keeps_its_old_content_when_writing_fails(tmp_path, failing_flush):
    path = tmp_path / "summary.json"
    write_atomic(path, "old")
    failing_flush(errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_one_line_that_names_the_file(tmp_path, failing_flush, code):
    failing_flush(code)
    with pytest.raises(UserError, match=r"summary\.json: disk full while saving"):
        write_atomic(tmp_path / "summary.json", "new")
    assert not (tmp_path / "summary.json").exists()


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_file_that_cannot_be_written_is_one_line_that_names_it(tmp_path, monkeypatch, code):
    def mkdir(path: Path, **options: object) -> None:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(UserError, match=rf"new/summary\.json: cannot be written: {os.strerror(code)}"):
        write_atomic(tmp_path / "new" / "summary.json", "new")


def test_a_file_that_two_processes_write_at_once_is_that_of_one(tmp_path, monkeypatch):
    path, fsync = tmp_path / "summary.json", os.fsync

    def write_in_between(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(os, "getpid", lambda: 1)
        write_atomic(path, "theirs")
        monkeypatch.undo()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", write_in_between)
    write_atomic(path, "ours")
    assert path.read_text() == "ours"
    assert list(tmp_path.iterdir()) == [path]


def test_temporary_files_that_a_kill_left_are_removed_and_young_ones_may_be_those_of_another_process(tmp_path):
    for name in (
        "old.1.tmp",
        "zero/old.1.tmp",
        "zero/young.1.tmp",
        "zero/model.tmp/file",
        "zero/checkpoints/old.tmp",
        "old-notes.tmp",
    ):
        write_atomic(tmp_path / name, "")
        if "old" in name:
            os.utime(tmp_path / name, (0, 0))
    os.utime(tmp_path / "zero" / "model.tmp", (0, 0))
    remove_temporary(RunDir(tmp_path))
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"zero/young.1.tmp", "zero/model.tmp/file", "zero/checkpoints/old.tmp", "old-notes.tmp"}


# Folders.


def test_a_folder_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "checkpoints" / "step-000050"
    with atomic_folder(path) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "a.txt").write_text("a")
        assert not path.exists()
    assert (path / "inner" / "a.txt").read_text() == "a"
    assert [entry.name for entry in path.parent.iterdir()] == ["step-000050"]


def test_a_folder_replaces_the_old_one_whole(tmp_path):
    path = tmp_path / "model"
    for name in ("old.txt", "new.txt"):
        with atomic_folder(path) as folder:
            (folder / name).write_text(name)
    assert [file.name for file in path.iterdir()] == ["new.txt"]


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt(), SystemExit(1)], ids=lambda e: type(e).__name__)
def test_a_folder_keeps_its_old_content_when_the_block_fails(tmp_path, error):
    def save(path: Path) -> None:
        with atomic_folder(path) as folder:
            (folder / "a.txt").write_text("new")
            raise error

    path = tmp_path / "model"
    with atomic_folder(path) as folder:
        (folder / "a.txt").write_text("old")
    with pytest.raises(type(error)):
        save(path)
    assert (path / "a.txt").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_meets_a_full_disk_is_one_line(tmp_path, failing_flush):
    failing_flush(errno.ENOSPC)
    with pytest.raises(UserError, match="model: disk full while saving"), atomic_folder(tmp_path / "model") as folder:
        (folder / "a.txt").write_text("new")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_recognised_by_its_text_too(tmp_path):
    with pytest.raises(UserError, match="disk full"), atomic_folder(tmp_path / "model"):
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_what_a_kill_left_behind_is_cleared(tmp_path):
    (tmp_path / "model.tmp").mkdir()
    (tmp_path / "model.tmp" / "half.txt").write_text("half")
    with atomic_folder(tmp_path / "model") as folder:
        (folder / "a.txt").write_text("a")
    assert [file.name for file in (tmp_path / "model").iterdir()] == ["a.txt"]


# Fingerprints.


def test_a_fingerprint_does_not_depend_on_the_order_of_keys():
    assert fingerprint({"a": 1, "b": 2}, {"x": "1"}) == fingerprint({"b": 2, "a": 1}, {"x": "1"})
    assert len(fingerprint({}, {})) == 64


@pytest.mark.parametrize(
    ("config", "inputs"),
    [
        ({"a": 2}, {"x": "1"}),
        ({"a": "1"}, {"x": "1"}),
        ({"a": 1, "b": None}, {"x": "1"}),
        ({"a": 1}, {"x": "2"}),
        ({"a": 1}, {}),
    ],
)
def test_a_fingerprint_changes_with_configuration_and_inputs(config, inputs):
    assert fingerprint(config, inputs) != fingerprint({"a": 1}, {"x": "1"})


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / "data"
    (path / "inner").mkdir(parents=True)
    (path / "a.txt").write_text("a")
    (path / "inner" / "b.txt").write_text("b")
    return path


def test_the_fingerprint_of_a_folder_is_that_of_names_and_contents(folder, tmp_path):
    before = fingerprint_path(folder)
    folder.rename(tmp_path / "moved")
    assert fingerprint_path(tmp_path / "moved") == before


def change_content(folder: Path) -> None:
    (folder / "inner" / "b.txt").write_text("c")


def rename_file(folder: Path) -> None:
    (folder / "a.txt").rename(folder / "c.txt")


def add_file(folder: Path) -> None:
    (folder / "empty.txt").write_text("")


def move_text_between_files(folder: Path) -> None:
    (folder / "a.txt").write_text("ab")
    (folder / "inner" / "b.txt").write_text("")


@pytest.mark.parametrize("change", [change_content, rename_file, add_file, move_text_between_files])
def test_the_fingerprint_of_a_folder_changes_with_it(folder, change):
    before = fingerprint_path(folder)
    change(folder)
    assert fingerprint_path(folder) != before


@pytest.mark.parametrize("name", [".cache/huggingface/download/a.txt.metadata", ".DS_Store", "__pycache__/a.pyc", "README.md"])
def test_notes_of_other_programs_and_documentation_are_no_part_of_a_folder(folder, name):
    before = fingerprint_path(folder)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("later")
    assert fingerprint_path(folder) == before


def test_the_fingerprint_of_a_file_changes_with_its_content(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("a")
    before = fingerprint_path(path)
    path.write_text("b")
    assert fingerprint_path(path) != before


def test_one_byte_in_the_middle_of_a_file_of_100_mb_changes_its_fingerprint(tmp_path):
    path = tmp_path / "large.parquet"
    path.touch()
    os.truncate(path, 100 * 2**20)  # a hole, which takes no disk
    before = fingerprint_path(path)
    with path.open("r+b") as file:
        file.seek(50 * 2**20)
        file.write(b"x")
    assert fingerprint_path(path) != before


def test_the_fingerprint_of_a_folder_can_be_that_of_some_of_its_files(folder):
    (folder / "inner" / "c.py").write_text("c = 1")
    before = fingerprint_path(folder, ".py")
    change_content(folder)
    assert fingerprint_path(folder, ".py") == before
    (folder / "inner" / "c.py").write_text("c = 2")
    assert fingerprint_path(folder, ".py") != before


# Stage directories.


def test_paths_of_a_stage():
    stage = StageDir(Path("runs/tiny-r1/zero"))
    assert stage.checkpoint(50) == Path("runs/tiny-r1/zero/checkpoints/step-000050")
    assert stage.rollouts(10) == Path("runs/tiny-r1/zero/rollouts/step-000010.parquet")
    assert stage.manifest == Path("runs/tiny-r1/zero/stage.json")


def test_checkpoints_are_the_complete_ones_oldest_first(tmp_path):
    stage = StageDir(tmp_path)
    assert stage.checkpoints() == []
    for name in ("step-1000000", "step-000100", "step-000020", "step-000003", "step-000200.tmp", "notes"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert stage.checkpoints() == [stage.checkpoint(step) for step in (3, 20, 100, 1_000_000)]


def test_a_stage_without_manifest_is_not_done(tmp_path):
    stage = StageDir(tmp_path)
    assert stage.read_manifest() is None
    write_atomic(stage.manifest, '{"kind": "sft"}')
    assert stage.read_manifest() == {"kind": "sft"}


# Metrics of a run that was cut off.


def lines_of(*steps: int) -> str:
    return "".join(json.dumps({"step": step, "eval/x": {"value": 0.5, "n": 4}}) + "\n" for step in steps)


def test_metrics_after_the_last_checkpoint_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(lines_of(1, 2, 2, 3, 4))
    truncate_metrics(path, 2)
    assert path.read_text() == lines_of(1, 2, 2)
    truncate_metrics(path, 0)
    assert path.read_text() == ""


@pytest.mark.parametrize("length", range(1, len(lines_of(3)) - 1))
def test_a_line_that_was_cut_off_anywhere_is_dropped(tmp_path, length):
    path = tmp_path / "metrics.jsonl"
    path.write_text(lines_of(1, 2) + lines_of(3)[:length])
    truncate_metrics(path, 3)
    assert path.read_text() == lines_of(1, 2)


def test_a_stage_without_metrics_stays_without(tmp_path):
    truncate_metrics(tmp_path / "metrics.jsonl", 5)
    assert list(tmp_path.iterdir()) == []
