"""Preference data: which of two replies is the better one, or whether a reply is good. Any public schema in, one form out.

- `prompt`, `chosen`, `rejected`: texts, chat messages, or a text and messages;
- `chosen`, `rejected` alone: whole conversations, as messages or as text that runs from "\\n\\nHuman:" to "\\n\\nAssistant:";
- `prompt`, `completion`, `label`, or `completion` alone with the whole conversation: true, 1 and safe mean good.

Messages are {"role", "content"} or {"from", "value"}.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aha.data.presets import dialogue

LABELS = {"true": True, "1": True, "safe": True, "false": False, "0": False, "unsafe": False}
ROLES = {"human": "user", "gpt": "assistant", "model": "assistant"}  # of other schemas

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class LabelledReply:
    """A reply to a conversation, and whether people want such replies.

    Example: LabelledReply([{"role": "user", "content": "Name 2 fruits."}], "pear, plum", True)
    """

    prompt: Messages
    text: str
    is_good: bool


@dataclass(frozen=True)
class Preference:
    """A pair of replies, the chosen one first, or one labelled reply.

    Example: Preference((LabelledReply(messages, "pear, plum", True), LabelledReply(messages, "No idea.", False)), "plain")
    """

    replies: tuple[LabelledReply, ...]
    kind: str = ""  # by which results are told apart: of the request, else of the pair

    @property
    def is_pair(self) -> bool:
        return len(self.replies) == 2


def preference_of(row: Mapping[str, Any]) -> Preference:
    """The preference that a row of the data states. Raises ValueError, which names the column."""
    prompt, label = row.get("prompt"), row.get("label")
    kind = row.get("request") or row.get("kind") or ""
    if row.get("chosen") is not None and row.get("rejected") is not None:
        chosen, rejected = (
            LabelledReply(*_conversation(prompt, row[name], name), name == "chosen") for name in ("chosen", "rejected")
        )
        return Preference((chosen, rejected), str(kind))
    if row.get("completion") is None or label is None:
        raise ValueError(f"neither chosen and rejected nor completion and label; the row has {', '.join(map(str, row))}")
    if str(label).lower() not in LABELS:
        raise ValueError(f"column 'label' is {label!r}: want one of {', '.join(LABELS)}")
    reply = LabelledReply(*_conversation(prompt, row["completion"], "completion"), LABELS[str(label).lower()])
    return Preference((reply,), str(kind))


def _conversation(prompt: Any, value: Any, name: str) -> tuple[Messages, str]:
    """The messages before the last reply, and that reply. `value` is the reply or the whole conversation."""
    try:
        if isinstance(value, str):
            if prompt is None:
                return dialogue(value)
            if isinstance(prompt, str) and prompt.startswith("\n\nHuman:"):
                return dialogue(prompt + value)
            return _messages(prompt), value
        messages = _messages(value)
        if messages[0]["role"] == "assistant":  # the reply alone
            messages = _messages(prompt) + messages
    except (ValueError, TypeError, LookupError) as error:
        raise ValueError(f"column {name!r}, with prompt {str(prompt)[:40]!r}: {error}") from error
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise ValueError(f"column {name!r}: want a conversation that ends with a message of the assistant")
    return messages[:-1], messages[-1]["content"]


def _messages(value: Any) -> Messages:
    """Chat messages in our words, of a text, a message or a list of messages."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    messages = []
    for message in [value] if isinstance(value, Mapping) else value or []:
        role, content = message.get("role", message.get("from")), message.get("content", message.get("value"))
        if not isinstance(role, str) or not isinstance(content, str):
            raise ValueError(f"{str(message)[:60]} is no message with a role and a content")
        messages.append({"role": ROLES.get(role, role), "content": content})
    if not messages:
        raise ValueError("no messages")
    return messages
