"""Verdicts that are kept in a file."""

import errno
import os

import pytest

from aha.rewards.kept import Kept
from aha.types import UserError


def test_a_disk_that_takes_no_verdict_is_one_line_that_names_the_file(tmp_path, monkeypatch):
    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    kept = Kept(tmp_path / "verdicts" / "judge.jsonl")
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(UserError, match=r"judge\.jsonl: disk full while saving"):
        kept.add({"a": {"score": 1.0}})
