"""Ctrl-C, SIGTERM and the end of the terminal (SIGHUP) in the process of a stage: while a verb trains they wait for a
checkpoint, else they end it at once."""

import errno
import os
import signal
import sys
from collections.abc import Callable
from threading import Thread
from types import FrameType
from typing import Any, TextIO

INTERRUPTED = 130  # exit code after Ctrl-C
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TERMINALS: list[int] = []  # file descriptors that this process outlives
WAITS = "stops after this step, with a checkpoint; Ctrl-C again stops at once"


class Stop:
    """Whether this process was told to stop. Signals are of a process, so there is one of it, `STOP`."""

    def __init__(self) -> None:
        self.is_asked = False
        self.tell: Callable[[str], None] | None = None  # set while a stop waits

    def listen(self) -> None:
        for number in STOPS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as it is for a job that a shell has put into the background
                signal.signal(number, self._ask)

    def wait(self, tell: Callable[[str], None]) -> None:
        """From here on a stop only sets `is_asked`, and `tell` says so: what looks at it saves, then calls `now_if_asked`."""
        self.tell = tell

    def now_if_asked(self) -> None:
        if self.is_asked:
            raise KeyboardInterrupt

    def at_once(self) -> None:
        """From here on a stop is a KeyboardInterrupt where it comes, and at once where it came before."""
        self.tell = None
        self.now_if_asked()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            write_to_nobody()
        if self.is_asked:
            return  # Ctrl-C comes from the terminal and from `aha run`, which itself kills the stage when it is pressed again
        self.is_asked = True
        if self.tell is None:
            raise KeyboardInterrupt
        # In a thread: what was interrupted may be printing, or hold what printing needs.
        Thread(target=self.tell, args=(WAITS,), daemon=True).start()


def interrupt(number: int, frame: FrameType | None) -> None:
    """What a signal is to the process of `aha run`: KeyboardInterrupt, as Ctrl-C is."""
    if number == signal.SIGHUP:
        signal.signal(number, signal.SIG_IGN)  # the shell and the kernel both send one; a second Ctrl-C would kill the stage
        write_to_nobody()
    raise KeyboardInterrupt


class Outliving:
    """A stream to a terminal, which may be gone before the signal that tells so is here."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        return int(self._unless_gone(lambda: self._stream.write(text)))

    def flush(self) -> None:
        self._unless_gone(self._stream.flush)

    def _unless_gone(self, use: Callable[[], Any]) -> Any:
        try:
            return use()
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            write_to_nobody()
            return use()


def outlive_terminal() -> None:
    """From here on it is no error to print to a terminal that is gone: it would keep a stage from saving."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Outliving) and stream.isatty():
            TERMINALS.append(stream.fileno())
            setattr(sys, name, Outliving(stream))


def write_to_nobody() -> None:
    """Let go of the terminal."""
    nobody = os.open(os.devnull, os.O_WRONLY)
    for number in TERMINALS:
        os.dup2(nobody, number)
    os.close(nobody)


STOP = Stop()
