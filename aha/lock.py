"""One run at a time in a run directory.

The kernel lets go of the lock with the last process that holds it, so what a killed run leaves behind blocks nobody.
"""

import errno
import fcntl
import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from aha.rundir import disk_faults_are_user_errors
from aha.types import UserError

PATIENCE = 10.0  # seconds in which the stage of a run that was killed notices that and ends
GLANCE = 1.0  # seconds in which those who only look at the lock, and hold it for a moment, have let go of it


@dataclass(frozen=True)
class Holder:
    """Who runs, or ran last, in a run directory.

    Example: Holder(pid=4711, host="laptop", command="aha run recipes/tiny-r1.yaml", stage="zero")
    """

    pid: int
    host: str
    command: str  # what goes on with the run
    stage: str = ""  # that is running

    def is_gone(self) -> bool:
        """Whether the process has ended; of one on another machine that cannot be known."""
        if self.host != socket.gethostname():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return False


class RunLock:
    """The lock of a run directory, held inside the `with` block. `fd` is to be passed on to the processes of the stages.

    Raises UserError, which names the process, where another run holds it.
    """

    def __init__(self, path: Path, command: str):
        self.path = path
        self.holder = Holder(os.getpid(), socket.gethostname(), command)
        self.fd = -1

    def __enter__(self) -> "RunLock":
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(f"{self.path.parent}: {error.strerror}") from error
        began = time.monotonic()
        while not _try_lock(self.fd, fcntl.LOCK_EX):
            holder = read_holder(self.path)
            is_ending = holder is not None and holder.is_gone()
            if time.monotonic() - began > (PATIENCE if is_ending else GLANCE):
                os.close(self.fd)
                raise UserError(f"{self.path.parent} is in use by {_told(holder)}; stop it, or choose another --out")
            time.sleep(0.05)
        try:
            self.enter_stage("")
        except BaseException:
            os.close(self.fd)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self.fd)

    def enter_stage(self, stage: str) -> None:
        """Write down which stage is running. The first line counts: readers see the old one or all of the new."""
        line = json.dumps({**asdict(self.holder), "stage": stage}).encode() + b"\n"
        with disk_faults_are_user_errors(self.path):
            if os.pwrite(self.fd, line, 0) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.ftruncate(self.fd, len(line))


def read_holder(path: Path) -> Holder | None:
    """Who holds the lock or held it last; None where nobody ever did."""
    try:
        return Holder(**json.loads(path.read_text(encoding="utf-8").partition("\n")[0]))
    except (OSError, ValueError, TypeError):
        return None


def is_held(path: Path) -> bool:
    """Whether a run is going on."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _try_lock(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


def _try_lock(fd: int, mode: int) -> bool:
    try:
        fcntl.flock(fd, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _told(holder: Holder | None) -> str:
    if holder is None:
        return "another process"
    where = "" if holder.host == socket.gethostname() else f" on {holder.host}"
    return f"process {holder.pid}{where} (`{holder.command}`)"
