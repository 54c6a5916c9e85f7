"""What slow graders said, by key, and the file that keeps it: a run that resumes is paid the same and asks nothing twice."""

import contextlib
import json
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from aha.rundir import disk_faults_are_user_errors

SLOW_SECONDS = 0.5  # of grading, from which on a verdict is kept for a run that resumes

Row = Mapping[str, Any]


@dataclass
class Kept:
    """Rows by key, in memory and as JSON lines.

    Example: Kept(Path("verdicts/judge.jsonl"), {"9f2c...": {"score": 0.7, "reason": "Score: 7"}})
    """

    path: Path | None
    known: dict[str, Row] = field(default_factory=dict)
    begun: dict[str, Future[Any]] = field(default_factory=dict)  # verdicts that somebody is working on
    lock: threading.Lock = field(default_factory=threading.Lock)  # of the file

    @staticmethod
    @lru_cache(maxsize=16)
    def of(path: str | None, owner: str) -> "Kept":
        """Those of a file; without one, those of `owner` in this process."""
        kept = Kept(Path(path) if path else None)
        for line in kept.path.read_text(encoding="utf-8").split("\n") if kept.path and kept.path.exists() else ():
            with contextlib.suppress(ValueError):  # the last line of a run that was killed may be cut off
                row = json.loads(line)
                kept.known[row.pop("key")] = row
        return kept

    def begin(self, pool: Executor, work: Mapping[str, Callable[[], Any]], is_kept: Callable[[Any], bool]) -> None:
        """Have `pool` work out the verdicts that nobody has begun; `begun` holds what they will be.

        Each for which `is_kept` holds is kept as it comes, whatever becomes of the others.
        """
        missing = [key for key in work if key not in self.begun or self.begun[key].cancelled()]
        self.begun |= {key: pool.submit(self._work_out, key, work[key], is_kept) for key in missing}

    def _work_out(self, key: str, work: Callable[[], Any], is_kept: Callable[[Any], bool]) -> Any:
        verdict = work()
        if is_kept(verdict):
            self.add({key: asdict(verdict)})
        return verdict

    def add(self, rows: Mapping[str, Row]) -> None:
        self.known.update(rows)
        if self.path and rows:
            with self.lock, disk_faults_are_user_errors(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a", encoding="utf-8") as file:
                    for key, row in rows.items():
                        file.write("\n" + json.dumps({"key": key, **row}))  # a newline first: a line cut off spoils no other
                    file.flush()
                    os.fsync(file.fileno())
