"""Ctrl-C and SIGTERM in the process of a stage: while a verb trains they wait for a checkpoint, else they end it at once."""

import signal
from collections.abc import Callable
from threading import Thread
from types import FrameType

INTERRUPTED = 130  # exit code after Ctrl-C
STOPS = (signal.SIGINT, signal.SIGTERM)
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
        if self.is_asked:
            return  # Ctrl-C comes from the terminal and from `aha run`, which itself kills the stage when it is pressed again
        self.is_asked = True
        if self.tell is None:
            raise KeyboardInterrupt
        # In a thread: what was interrupted may be printing, or hold what printing needs.
        Thread(target=self.tell, args=(WAITS,), daemon=True).start()


STOP = Stop()
