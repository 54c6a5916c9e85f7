"""Which split a problem belongs to: a function of its content alone, so no two splits can share one, whatever the seeds."""

import hashlib

from aha.data.countdown import SPLITS


def split_of(key: str) -> str:
    """The one split of what `key` names, in the shares of SPLITS."""
    percentile = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % 100
    for split, share in SPLITS.items():
        percentile -= share
        if percentile < 0:
            return split
    raise AssertionError("the shares of SPLITS add up to 100")
