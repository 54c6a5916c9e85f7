"""What of a run anybody may see, in a model card and in a report: no local path, no address of a server, no key."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Two parts at least, or a home: a text such as /no_think is none.
PATH = r"(?:file://|//|~\w*/|/[^/\s]+/)\S"
LOCAL_PATH = re.compile(rf"^{PATH}")
ADDRESS = re.compile(r"^(https?://|[\w.-]+:\d+(/|$))", re.IGNORECASE)
INSIDE = re.compile(rf"https?://\S+|(?<![\w./<]){PATH}\S*", re.IGNORECASE)  # an address or a path in a longer text
ADDRESS_KEYS = {"base_url", "url"}
SECRET = re.compile(r"(^|_)(key|token|secret|password|authorization|headers|extra_body)$", re.IGNORECASE)  # of names
UNTOLD = "(the address is not told)"


def public(value: Any) -> Any:
    """A value of a configuration as anybody may see it: of every absolute path only the name, of servers no address, and
    nothing whose name says that it is a key, such as `api_key`, or that it may hold one, such as `extra_body`."""
    if isinstance(value, Mapping):
        shown = {key: inner for key, inner in value.items() if not SECRET.search(str(key))}
        return {key: UNTOLD if inner and key in ADDRESS_KEYS else public(inner) for key, inner in shown.items()}
    if isinstance(value, list):
        return [public(inner) for inner in value]
    if not isinstance(value, str):
        return value
    return UNTOLD if ADDRESS.match(value) else Path(value).name if LOCAL_PATH.match(value) else value


def public_text(text: str) -> str:
    """A message, such as that of an error, without the addresses in it, and of its paths only the names."""
    return INSIDE.sub(lambda found: public(found[0].rstrip(":,;")) + found[0][len(found[0].rstrip(":,;")) :], text)
