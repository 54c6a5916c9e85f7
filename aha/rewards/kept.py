"""What slow graders said, by key, and the file that keeps it: a run that resumes is paid the same and asks nothing twice."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]


@dataclass
class Kept:
    """Rows by key, in memory and as JSON lines.

    Example: Kept(Path("verdicts/judge.jsonl"), {"9f2c...": {"score": 0.7, "reason": "Score: 7"}})
    """

    path: Path | None
    known: dict[str, Row] = field(default_factory=dict)

    @staticmethod
    @lru_cache(maxsize=16)
    def of(path: str | None, owner: str) -> "Kept":
        """Those of a file; without one, those of `owner` in this process."""
        kept = Kept(Path(path) if path else None)
        for line in kept.path.read_text(encoding="utf-8").split("\n") if kept.path and kept.path.exists() else ():
            if line.endswith("}"):  # the last line of a run that was killed may be cut off
                row = json.loads(line)
                kept.known[row.pop("key")] = row
        return kept

    def add(self, rows: Mapping[str, Row]) -> None:
        self.known.update(rows)
        if self.path and rows:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                for key, row in rows.items():
                    file.write("\n" + json.dumps({"key": key, **row}))  # a newline first: a line cut off spoils no other
                file.flush()
                os.fsync(file.fileno())
