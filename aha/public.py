"""What of a configuration anybody may see, in a model card and in a report: no local path, no address of a server, no key."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOCAL_PATH = re.compile(r"^(~|/[^/\s]+)/\S")  # two parts at least: a text such as /no_think is none
ADDRESS = re.compile(r"^https?://", re.IGNORECASE)
ADDRESS_KEYS = {"base_url", "url"}
UNTOLD = "(the address is not told)"


def public(value: Any) -> Any:
    """A value as anybody may see it: of every absolute path inside only the name, of servers no address, and no
    `extra_body`, which may hold keys."""
    if isinstance(value, Mapping):
        shown = {key: inner for key, inner in value.items() if key != "extra_body"}
        return {key: UNTOLD if inner and key in ADDRESS_KEYS else public(inner) for key, inner in shown.items()}
    if isinstance(value, list):
        return [public(inner) for inner in value]
    if not isinstance(value, str):
        return value
    return UNTOLD if ADDRESS.match(value) else Path(value).name if LOCAL_PATH.match(value) else value
