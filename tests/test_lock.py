"""The lock of a run directory: one run at a time, and nothing that a killed one leaves behind blocks the next."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from aha import lock as lock_module
from aha.lock import Holder, RunLock, is_held, read_holder
from aha.types import UserError


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "run" / ".lock"


def test_a_second_run_is_refused_and_told_who_holds_the_directory(path):
    with RunLock(path, "aha run one.yaml") as lock:
        lock.enter_stage("zero")
        with pytest.raises(UserError, match=rf"run is in use by process {os.getpid()} \(`aha run one.yaml`\)"):
            RunLock(path, "aha run two.yaml").__enter__()
        assert read_holder(path) == Holder(os.getpid(), socket.gethostname(), "aha run one.yaml", "zero")
    with RunLock(path, "aha run two.yaml"):
        assert read_holder(path).command == "aha run two.yaml"


def test_whether_a_run_goes_on_is_seen_from_outside(path):
    assert not is_held(path)
    with RunLock(path, "aha run"):
        assert is_held(path)
    assert not is_held(path)


HOLDER = """
import sys, time
from pathlib import Path
from aha.lock import RunLock
with RunLock(Path(sys.argv[1]), "aha run"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_what_a_killed_run_leaves_behind_does_not_block(path):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(UserError, match=f"in use by process {process.pid}"):
        RunLock(path, "aha run").__enter__()
    process.kill()
    process.wait()
    process.stdout.close()
    assert read_holder(path).pid == process.pid
    with RunLock(path, "aha run"):
        assert is_held(path)


STAGE = """
import subprocess, sys, time
from dataclasses import replace
from pathlib import Path
from aha.lock import RunLock
run = subprocess.Popen([sys.executable, "-c", ""])
run.wait()
with RunLock(Path(sys.argv[1]), "aha run") as lock:
    lock.holder = replace(lock.holder, pid=run.pid)
    lock.enter_stage("zero")
    print(run.pid, flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize(("seconds", "patience"), [(1, 600), (600, 0.2)])
def test_a_stage_that_outlives_its_run_is_waited_for_but_not_for_ever(path, monkeypatch, seconds, patience):
    monkeypatch.setattr(lock_module, "PATIENCE", patience)
    # As if the run had been killed: its stage holds the lock, and the process that is written down has ended.
    stage = subprocess.Popen([sys.executable, "-c", STAGE, str(path), str(seconds)], stdout=subprocess.PIPE)
    pid = int(stage.stdout.readline())
    if seconds < patience:
        with RunLock(path, "aha run"):
            assert read_holder(path).pid == os.getpid()
    else:
        with pytest.raises(UserError, match=f"in use by process {pid}"):
            RunLock(path, "aha run").__enter__()
    stage.kill()
    stage.wait()
    stage.stdout.close()


def test_a_look_at_the_lock_does_not_keep_a_run_from_starting(path):
    with RunLock(path, "aha run"):
        pass
    looking = os.open(path, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    with ThreadPoolExecutor() as pool:
        started = pool.submit(RunLock(path, "aha run").__enter__)
        wait([started], timeout=0.2)
        assert not started.done()
        os.close(looking)
        started.result().__exit__(None, None, None)


@pytest.mark.parametrize("is_short", [True, False], ids=["a part is written", "nothing is written"])
def test_a_full_disk_is_one_line_and_keeps_no_lock(path, monkeypatch, is_short):
    def pwrite(fd: int, line: bytes, at: int) -> int:
        if is_short:
            return len(line) - 1
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(UserError, match=r"\.lock: disk full while saving"):
        RunLock(path, "aha run").__enter__()
    assert not is_held(path)


def test_a_process_on_another_machine_counts_as_running():
    assert not Holder(2**22 + 1, "elsewhere", "aha run").is_gone()
    assert Holder(2**22 + 1, socket.gethostname(), "aha run").is_gone()
    assert not Holder(1, socket.gethostname(), "aha run").is_gone()


def test_the_first_line_of_the_lock_counts(path):
    with RunLock(path, "aha run") as lock:
        lock.enter_stage("a-stage-with-a-long-name")
        lock.enter_stage("b")
        assert read_holder(path).stage == "b"
        assert json.loads(path.read_text())["stage"] == "b"
        path.write_text(path.read_text() + "rest of an older line")
        assert read_holder(path).stage == "b"


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/run: Not a directory"):
        RunLock(tmp_path / "file" / "run" / ".lock", "aha run").__enter__()
