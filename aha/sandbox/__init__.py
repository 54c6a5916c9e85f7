"""Run Python programs that nobody trusts: in a child process, with limits on everything, and then gone.

Where bubblewrap works, the program sees an empty file system with Python in it, no network and no other process.
Elsewhere it runs as it is, with the limits of the kernel and a filter on its system calls, and `run_python` says once
what that does not cover. docs/sandbox.md has the whole list.
"""

import json
import math
import os
import random
import selectors
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO

from aha.types import UserError

LAUNCHER, EXAMINER = (Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8") for name in ("launcher", "examiner"))
FLAGS = ("-s", "-S", "-P", "-B", "-X", "utf8")  # no site-packages, nothing imported from the working directory
BOX = "/box"  # working directory and HOME inside bubblewrap
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
STDERR_TAIL = 4000  # characters
FIRST_UID, LAST_UID = 1 << 30, 1 << 31  # users that no machine has: each run as root takes one of its own
MB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What a program may use up.

    Example: Limits(cpu_seconds=2, wall_seconds=4) kills a loop after 2 seconds and a sleeper after 4.
    """

    cpu_seconds: float = 5.0  # of each process, rounded up to whole seconds
    wall_seconds: float = 65.0  # of all together, so also of waiting
    memory_mb: int = 1024  # address space of each process
    processes: int = 16  # and threads, that may exist at once
    file_mb: int = 16  # the largest file; in bubblewrap also all files together
    output_kb: int = 1024  # standard output and error together


@dataclass(frozen=True)
class Outcome:
    """How a program ended.

    Example: Outcome("failed", stdout="", stderr="...ZeroDivisionError: division by zero\\n", seconds=0.02)
    """

    status: str  # ok, failed, timed out, too much memory, too much output
    stdout: str
    stderr: str  # the end of it
    seconds: float


@dataclass(frozen=True)
class Way:
    """How programs are run on this machine.

    Example: Way(bwrap="/usr/bin/bwrap", python="/usr/bin/python3.11", drops=False, filtered=True)
    """

    bwrap: str | None
    python: str
    drops: bool  # we are root: every program gets a user of its own
    filtered: bool = False  # the system call filter is on

    def uncovered(self) -> list[str]:
        """What a program can do all the same, in plain words."""
        if self.bwrap:
            return []
        open_to_all = "read what all users can read and write where all can"
        missing = [open_to_all if self.drops else "read and change every file that you can"]
        if not self.filtered:
            missing += ["use the network", "leave processes behind"]
            missing += [] if self.drops else ["send signals to your other processes"]
        return missing


def run_python(program: str, stdin: str | bytes = "", limits: Limits = Limits()) -> Outcome:
    """Run `program` as `__main__` of a bare Python, without site-packages, and wait for its end.

    Its working directory and HOME are an empty directory of its own, which is gone afterwards, as are all processes
    that it started. Raises UserError where no safe way to run it is to be had, as for root without a user to become.
    """
    way = find_way()
    _warn_once(way)
    outcome, _ = _run(way, program, stdin, limits)
    return outcome


@lru_cache(maxsize=1)
def find_way() -> Way:
    """The safest way that works here, tried out. Raises UserError where root cannot become somebody else."""
    drops = os.geteuid() == 0
    python = os.path.realpath(sys.executable)
    bwrap = shutil.which("bwrap") if sys.platform == "linux" else None
    reasons = []
    for way in ([Way(bwrap, python, drops)] if bwrap else []) + [Way(None, _open_python(python, drops), drops)]:
        if not way.python:
            reasons.append(f"{python} cannot be reached by another user, and root may not run the program itself")
            continue
        try:
            outcome, filtered = _run(way, "print('runs')", "", Limits())
        except UserError as error:
            reasons.append(str(error))
            continue
        if outcome.stdout == "runs\n":
            return Way(way.bwrap, way.python, drops, filtered)
        reasons.append(f"Python does not start: {outcome.status} {outcome.stderr}")
    raise UserError(f"no sandbox: {'; '.join(reasons)}; install bubblewrap, or run as a user other than root")


@lru_cache(maxsize=1)
def _warn_once(way: Way) -> None:
    if way.uncovered():
        why = "bubblewrap is not installed" if shutil.which("bwrap") is None else "bubblewrap does not work here"
        risks = ", ".join(way.uncovered())
        print(f"aha: {why}, so code that is graded can {risks}; docs/sandbox.md says how to close that", file=sys.stderr)


def _open_python(python: str, drops: bool) -> str:
    """A Python that the user of the program can start: ours, or for root one of the same version that is open to all."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    candidates = [python, *(os.path.realpath(f"{folder}/{name}") for folder in ("/usr/local/bin", "/usr/bin"))]
    usable = (p for p in candidates if not drops or _is_open(Path(p)))
    return next(usable, "")


def _is_open(path: Path) -> bool:
    return path.exists() and all(p.stat().st_mode & 0o001 for p in (path, *path.parents))


def _run(way: Way, program: str, stdin: str | bytes, limits: Limits) -> tuple[Outcome, bool]:
    """The outcome, and whether the system call filter was on."""
    uid = _someone() if way.drops else None
    box = BOX if way.bwrap else tempfile.mkdtemp(prefix="aha-")
    ready, ready_w = os.pipe()
    try:
        if uid is not None and not way.bwrap:
            os.chown(box, uid, uid)
        with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as given:
            source.write(program.encode("utf-8", "surrogatepass"))
            given.write(stdin.encode("utf-8", "surrogatepass") if isinstance(stdin, str) else stdin)
            given.seek(0)
            source.seek(0)
            settings = {
                "program": source.fileno(),
                "ready": ready_w,
                "uid": uid,
                "cpu": math.ceil(limits.cpu_seconds),
                "memory": limits.memory_mb * MB,
                "file": limits.file_mb * MB,
                "processes": limits.processes + (0 if _counts_alone(way) else _tasks_of(uid)),
            }
            inner = [way.python, *FLAGS, "-c", LAUNCHER, json.dumps(settings)]
            process = subprocess.Popen(
                [*_bwrap(way, limits), *inner] if way.bwrap else inner,
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/" if way.bwrap else box,
                env={"HOME": box, "TMPDIR": box, "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"},
                pass_fds=(source.fileno(), ready_w),
                start_new_session=True,
            )
            os.close(ready_w)
            ready_w = -1
            outcome = _watch(process, limits)
        os.set_blocking(ready, False)
        try:
            started = os.read(ready, 16)
        except BlockingIOError:  # somebody still holds the other end
            started = b""
        if not started and outcome.status != "timed out":
            raise UserError(f"the sandbox does not start: {outcome.stderr.strip()[-300:] or outcome.status}")
        return outcome, started == b"filtered"
    finally:
        os.close(ready)
        if ready_w >= 0:
            os.close(ready_w)
        if not way.bwrap:
            _remove(box)


def _watch(process: "subprocess.Popen[bytes]", limits: Limits) -> Outcome:
    """Read what a process writes, end it where it goes too far, and end all that it leaves behind."""
    assert process.stdout is not None
    assert process.stderr is not None
    started = time.monotonic()
    deadline = started + limits.wall_seconds
    written: dict[IO[bytes], bytearray] = {process.stdout: bytearray(), process.stderr: bytearray()}
    verdict = None
    with process.stdout, process.stderr, selectors.DefaultSelector() as selector:
        for pipe in written:
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_READ)
        ended = False
        while not ended:
            left = deadline - time.monotonic()
            if left <= 0:
                verdict = "timed out"
                break
            ended = _has_ended(process)
            if selector.get_map():
                for key, _ in selector.select(0 if ended else min(left, 0.02)):
                    _drain(key.fileobj, written, limits.output_kb * 1024, selector.unregister)  # type: ignore[arg-type]
            elif not ended:
                time.sleep(0.001)
            if sum(map(len, written.values())) > limits.output_kb * 1024:
                verdict = "too much output"
                break
        seconds = time.monotonic() - started
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # before it is waited for, so that the number is still its own
        code = process.wait()
    stdout, stderr = (bytes(data).decode("utf-8", "replace") for data in written.values())
    return Outcome(verdict or _status(code, stderr, seconds, limits), stdout, stderr[-STDERR_TAIL:], seconds)


def _has_ended(process: "subprocess.Popen[bytes]") -> bool:
    """Whether a process has ended. Where the system can tell, it is not waited for yet, so that its number stays its own."""
    if hasattr(os, "waitid"):  # macOS has it from Python 3.13 on
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    return process.poll() is not None


def _drain(pipe: IO[bytes], written: dict[IO[bytes], bytearray], limit: int, close: Callable[[IO[bytes]], object]) -> None:
    while len(written[pipe]) <= limit:
        try:
            data = os.read(pipe.fileno(), 65536)
        except BlockingIOError:
            return
        if not data:
            close(pipe)
            return
        written[pipe] += data


def _status(code: int, stderr: str, seconds: float, limits: Limits) -> str:
    """What an exit code tells; bubblewrap adds the number of a signal to 128."""
    if code == 0:
        return "ok"
    killed_by = -code if code < 0 else code - 128
    if killed_by == signal.SIGXCPU or (killed_by == signal.SIGKILL and seconds >= limits.cpu_seconds):
        return "timed out"
    last = stderr.rstrip().rpartition("\n")[2]
    return "too much memory" if last.startswith("MemoryError") else "failed"


def _bwrap(way: Way, limits: Limits) -> list[str]:
    """The command line of bubblewrap: own namespaces, Python and the system's libraries to read, one small box."""
    line = [str(way.bwrap), "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    # Root keeps its own user namespace, where every program can have another user, as long as it takes to change it.
    line += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"] if way.drops else ["--unshare-user"]
    line += ["--die-with-parent"]
    paths, devices = _readable(way.python), ("/dev/null", "/dev/zero", "/dev/urandom")
    for folder in sorted({str(parent) for path in (*paths, *devices) for parent in Path(path).parents} - {"/"}):
        line += ["--perms", "0755", "--dir", folder]  # which bubblewrap would make for its own user only
    for path in paths:
        line += ["--symlink", os.readlink(path), path] if os.path.islink(path) else ["--ro-bind", path, path]
    for device in devices:
        line += ["--dev-bind", device, device]
    line += ["--perms", "0777", "--size", str(limits.file_mb * MB), "--tmpfs", BOX, "--remount-ro", "/"]
    return [*line, "--chdir", BOX]


@lru_cache(maxsize=4)
def _readable(python: str) -> tuple[str, ...]:
    """Python and what it loads."""
    base = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}  # of the Python that a virtual environment is of
    own = [sysconfig.get_path(name, vars=base) for name in ("stdlib", "platstdlib")]
    paths: list[str] = []
    for path in [*LIBRARIES, sysconfig.get_config_var("LIBDIR") or "", *own, python]:
        if os.path.exists(path) and not any(path == p or path.startswith(p + "/") for p in paths):
            paths.append(path)
    return tuple(paths)


def _someone() -> int:
    """A user number that nobody has, so that no other process shares it; of a container with few, that of nobody."""
    try:
        ranges = [tuple(map(int, line.split())) for line in Path("/proc/self/uid_map").read_text().splitlines()]
    except FileNotFoundError:
        ranges = []
    if any(first <= FIRST_UID and first + count >= LAST_UID for first, _, count in ranges):
        return random.SystemRandom().randrange(FIRST_UID, LAST_UID)
    import pwd  # not on Windows, where the package can be imported all the same

    return pwd.getpwnam("nobody").pw_uid


def _counts_alone(way: Way) -> bool:
    """Whether the kernel counts the processes of the sandbox apart from the others of the same user."""
    release = os.uname().release.split("-")[0].split(".")
    return bool(way.bwrap) and not way.drops and [int(part) for part in release[:2] if part.isdigit()] >= [5, 14]


def _tasks_of(uid: int | None) -> int:
    """How many processes and threads a user has; ours for None."""
    owner = os.getuid() if uid is None else uid
    if uid is not None and uid >= FIRST_UID:
        return 0
    count = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if folder.stat().st_uid == owner:
                count += len(os.listdir(folder / "task"))
        except OSError:  # it ended meanwhile
            continue
    return count


def _remove(folder: str) -> None:
    """Remove a folder, also with what a program has taken its owner's rights from."""
    shutil.rmtree(folder, ignore_errors=True)
    if os.path.exists(folder):
        os.chmod(folder, 0o700)
        for place, names, _ in os.walk(folder):
            for name in names:
                if not os.path.islink(os.path.join(place, name)):
                    os.chmod(os.path.join(place, name), 0o700)
        shutil.rmtree(folder, ignore_errors=True)
