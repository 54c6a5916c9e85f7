"""Processes that do what may never end. A worker that takes too long is killed and replaced.

A worker is a fresh Python process that reads questions from its standard input and writes verdicts to its standard
output, one JSON line each. It is started, not forked, so that the threads of torch do no harm. It ends with its
standard input, and the kernel ends it when a question takes it more processor time than it may: no worker outlives the
process that asked, and a stuck one only by its limit.
"""

import atexit
import contextlib
import json
import math
import os
import resource
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CPU_SECONDS = 5.0  # of processor time that one question may take
WALL_SECONDS = 60.0  # after which a worker is given up that neither answers nor uses its processor time
START_SECONDS = 300.0
MEMORY_BYTES = 4 * 2**30  # of address space
START = [sys.executable, "-P", "-c", "from aha.rewards.workers import serve; serve()"]


def processors(root: Path = Path("/")) -> int:
    """How many processors this process may keep busy: those it may run on, or fewer where a control group has a quota.

    `root` is where /proc and /sys are found.
    """
    groups = root / "proc/self/cgroup"
    quotas = [math.inf]
    for line in groups.read_text().splitlines() if groups.exists() else ():
        _, controllers, own = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):  # version 2 names none
            top = root / "sys/fs/cgroup" / controllers
            folder = top / own.lstrip("/")  # which a container may not see: the top is its own then
            quotas += [_quota(group) for group in (folder, *folder.parents) if group.is_relative_to(top)]
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # macOS has none
    return math.ceil(min(allowed, *quotas))


def _quota(group: Path) -> float:
    """How many processors a control group of either version may use; infinity where it has no limit."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError):  # there is none, or it says "max"
        return math.inf


@dataclass(frozen=True)
class Verdict:
    """What a worker said.

    Example: Verdict(is_same=True, failure="", seconds=0.012)
    """

    is_same: bool
    failure: str  # "" or why there is no answer: "timed out", "out of memory", "nested too deeply", "the worker ended"
    seconds: float  # of processor time


def serve() -> None:
    """The life of a worker: a question a line, until there are no more."""
    from aha.rewards.maths import decide_by_algebra
    from aha.rewards.symbols import same_expression

    try:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    except (ValueError, OSError):
        if sys.platform == "linux":  # elsewhere the address space has no limit
            raise
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    same_expression("x", "y")  # imports sympy before any time is counted
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a library that prints spoils no answer
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        gold, answer, seconds = json.loads(line)
        started = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, seconds)  # SIGPROF ends the process, whatever it is doing
        is_same, failure = decide_by_algebra(gold, answer)
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps([is_same, failure, time.process_time() - started]), file=out, flush=True)


class Worker:
    """One process, and the question that it is working on."""

    def __init__(self) -> None:
        root = str(Path(__file__).parent.parent.parent)
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            START,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=env,
            bufsize=0,
            process_group=0,  # Ctrl-C is for the process that asks
        )
        assert self.process.stdout is not None
        self.output = self.process.stdout.fileno()
        self.question: int | None = None
        self.is_ready = False
        self.deadline = time.monotonic() + START_SECONDS
        self.received = b""

    def ask(self, number: int, gold: str, answer: str, seconds: float) -> None:
        assert self.process.stdin is not None
        self.question, self.deadline = number, time.monotonic() + WALL_SECONDS + seconds
        with contextlib.suppress(BrokenPipeError):  # it has ended, which the next read tells
            self.process.stdin.write(json.dumps([gold, answer, seconds]).encode() + b"\n")

    def read(self) -> str | None:
        """The next line that it wrote; "" where there is none yet, None where it has ended."""
        data = os.read(self.output, 65536)
        if not data:
            return None
        self.received += data
        if b"\n" not in self.received:
            return ""
        line, self.received = self.received.split(b"\n", 1)
        return line.decode()

    def stop(self) -> int:
        """End it, and tell how it ended: minus the signal, or its exit code."""
        self.process.kill()
        status = self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        return status


class Workers:
    """As many workers as there are processors, started when first needed and kept until the end of the process.

    Any thread may ask; one batch of questions is worked on at a time.
    """

    def __init__(self, most: int | None = None) -> None:
        self.most = most or min(8, processors())
        self.workers: list[Worker] = []
        self.lock = threading.Lock()
        self.owner = os.getpid()

    def decide(self, questions: Sequence[tuple[str, str]], seconds: float = CPU_SECONDS) -> list[Verdict]:
        """A verdict on every pair of gold and answer, in their order."""
        if self.owner != os.getpid():  # this process is a copy, and the workers are another's
            self.__init__(self.most)  # type: ignore[misc]
        with self.lock:
            try:
                return self._decide(questions, seconds)
            except BaseException:  # of a signal handler too: what a worker still says belongs to no later question
                self._stop_all()
                raise

    def _decide(self, questions: Sequence[tuple[str, str]], seconds: float) -> list[Verdict]:
        verdicts: dict[int, Verdict] = {}
        waiting = deque(range(len(questions)))
        while len(verdicts) < len(questions):
            while len(self.workers) < min(self.most, len(questions) - len(verdicts)):
                self.workers.append(Worker())
            for worker in self.workers:
                if waiting and worker.is_ready and worker.question is None:
                    number = waiting.popleft()
                    worker.ask(number, *questions[number], seconds)
            busy = [worker for worker in self.workers if worker.question is not None or not worker.is_ready]
            pause = max(0.0, min(worker.deadline for worker in busy) - time.monotonic())
            readable = _readable([worker.output for worker in busy], pause)
            for worker in busy:
                line = worker.read() if worker.output in readable else ""
                if line == "ready":
                    worker.is_ready = True
                elif line and worker.question is not None:
                    verdicts[worker.question] = Verdict(*json.loads(line))
                    worker.question = None
                elif line is None or time.monotonic() > worker.deadline:
                    self.workers.remove(worker)
                    if line is None:
                        with contextlib.suppress(subprocess.TimeoutExpired):
                            worker.process.wait(10.0)  # lest it is killed before its exit status tells why
                    status = worker.stop()
                    if not worker.is_ready:
                        raise RuntimeError(f"a grading process did not start: {' '.join(START)}")
                    assert worker.question is not None
                    is_late = line is not None or status == -signal.SIGPROF
                    verdicts[worker.question] = Verdict(False, "timed out" if is_late else "the worker ended", seconds)
        return [verdicts[number] for number in range(len(questions))]

    def close(self) -> None:
        """End all workers. The next question starts new ones."""
        with self.lock:
            self._stop_all()

    def _stop_all(self) -> None:
        for worker in self.workers if self.owner == os.getpid() else ():
            worker.stop()
        self.workers = []


def _readable(descriptors: Sequence[int], seconds: float) -> set[int]:
    """Those that have something to read, after so many seconds at the most."""
    with selectors.DefaultSelector() as selector:
        for descriptor in descriptors:
            selector.register(descriptor, selectors.EVENT_READ)
        return {key.fd for key, _ in selector.select(seconds)}


WORKERS = Workers()
atexit.register(WORKERS.close)
