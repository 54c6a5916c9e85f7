"""Presets: what the columns of public data sets are in our words, and where the hub keeps them.

Canonical columns, whatever a data set calls them:

- problems: `question`, and what a grader needs: `gold` (the right answer as text), `nums` and `target`, `tests` (Python
  that raises where a solution is wrong, or a list of {"input", "output"}), `label` (safe or unsafe);
- texts to learn from: `prompt`, `completion`;
- preference pairs: `prompt` (a list of chat messages), `chosen`, `rejected` (the text of the last reply).
"""

import difflib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aha.boxes import last_boxed
from aha.data import countdown
from aha.types import UserError

# Completions of data sets that keep thoughts and reply apart: what DeepSeek-R1 writes.
THOUGHTS_AND_REPLY = "<think>\n{thoughts}\n</think>\n\n{reply}"


@dataclass(frozen=True)
class Preset:
    """How a public data set is read.

    Example: Preset("gsm8k", hub="openai/gsm8k", subset="main", columns={"question": "question", "gold": "answer"},
    convert={"gold": gsm8k_gold}) reads GSM8K's own columns; gold is the number at the end of its answers.
    """

    task: str  # prefix of the metrics
    hub: str | None = None  # its id
    subset: str | None = None  # its configuration there
    split: str | None = None  # its only split there, for data sets to evaluate on: read whatever split is asked for
    languages: tuple[str, ...] = ()  # what `split` may name: a subset on the hub, a file in a folder, and column `language`
    columns: Mapping[str, str] = field(default_factory=dict)  # our column: theirs
    texts: Mapping[str, str] = field(default_factory=dict)  # the same for texts to learn from
    convert: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)  # our column: what to make of its value
    templates: Mapping[str, str] = field(default_factory=dict)  # our column: text with {column}, where none holds it
    keep: Callable[[Mapping[str, Any]], bool] | None = None  # rows that can be used, where public data has others
    header: tuple[str, ...] = ()  # columns of CSV and TSV files that have no line for it
    grader: str = "accuracy"


def gsm8k_gold(answer: str) -> str:
    """The number after the last "####" of a GSM8K answer, without thousands separators."""
    _, mark, gold = answer.rpartition("####")
    if not mark:
        raise ValueError("no '####' before the gold answer")
    return number_text(gold)


def number_text(value: Any) -> str:
    """A number as text, without thousands separators."""
    return str(value).strip().replace(",", "")


def number_list(value: Any) -> list[int]:
    """A list of whole numbers, also from the text of one, as CSV holds it."""
    numbers = json.loads(value) if isinstance(value, str) else list(value)
    if not isinstance(numbers, list) or not numbers or not all(isinstance(n, int) for n in numbers):
        raise ValueError("not a list of whole numbers")
    return numbers


def whole_number(value: Any) -> int:
    """A whole number, also from its text."""
    number = int(value)
    if number != float(value):
        raise ValueError(f"{value} is not a whole number")
    return number


def boxed_gold(text: str) -> str:
    r"""What stands in the last \boxed{...} of a solution, braces inside it included."""
    gold = last_boxed(text)
    if gold is None:
        raise ValueError("no \\boxed{...} that is closed")
    return gold


def _has_box(row: Mapping[str, Any]) -> bool:
    return not isinstance(row.get("solution"), str) or "\\boxed" in row["solution"]


def _has_answer(row: Mapping[str, Any]) -> bool:
    return "answer" not in row or row["answer"] not in (None, "")


def _message(conversations: Any, *senders: str) -> str:
    """The first message of one of `senders` in a conversation of {"from", "value"}."""
    for message in conversations:
        if message["from"] in senders:
            text: str = message["value"]
            return text
    raise ValueError(f"no message from {' or '.join(senders)}")


def user_message(conversations: Any) -> str:
    """What the user says first."""
    return _message(conversations, "user", "human")


def between(name: str) -> Callable[[Any], str]:
    """A function that takes what stands between <|begin_of_name|> and <|end_of_name|> from the assistant's message."""
    pattern = re.compile(rf"<\|begin_of_{name}\|>(.*)<\|end_of_{name}\|>", re.DOTALL)

    def take(conversations: Any) -> str:
        match = pattern.search(_message(conversations, "assistant", "gpt"))
        if match is None:
            raise ValueError(f"no <|begin_of_{name}|> ... <|end_of_{name}|>")
        return match[1].strip()

    return take


def dialogue(text: str) -> tuple[list[dict[str, str]], str]:
    r"""The chat messages of a dialogue of HH-RLHF and its last reply.

    Turns start with "\n\nHuman:" or "\n\nAssistant:"; those of one speaker in a row become one.
    """
    start, *parts = re.split(r"\n\n(Human|Assistant):", text)
    messages: list[dict[str, str]] = []
    for speaker, content in zip(parts[::2], parts[1::2], strict=True):
        role = "user" if speaker == "Human" else "assistant"
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += "\n\n" + content.strip()
        else:
            messages.append({"role": role, "content": content.strip()})
    if start.strip() or len(messages) < 2 or messages[0]["role"] != "user" or messages[-1]["role"] != "assistant":
        raise ValueError("not a dialogue from '\\n\\nHuman:' to a reply after '\\n\\nAssistant:'")
    return messages[:-1], messages[-1]["content"]


def _differs_in_the_reply(row: Mapping[str, Any]) -> bool:
    """Whether two dialogues are the same up to the last replies, and neither of these is empty."""
    try:
        (prompt, chosen), (other, rejected) = dialogue(row["chosen"]), dialogue(row["rejected"])
    except (KeyError, TypeError, ValueError):
        return True  # is told with its reason where the columns are made
    return prompt == other and bool(chosen) and bool(rejected)


def last_reply(messages: Any) -> str:
    """What the assistant says at the end of a conversation of {"role", "content"}."""
    if not messages or messages[-1]["role"] != "assistant":
        raise ValueError("the conversation does not end with a message of the assistant")
    text: str = messages[-1]["content"]
    return text


def _has_two_replies(row: Mapping[str, Any]) -> bool:
    """Whether two conversations end in replies that differ, and neither of these is empty."""
    try:
        chosen, rejected = last_reply(row["chosen"]).strip(), last_reply(row["rejected"]).strip()
    except (TypeError, ValueError, LookupError, AttributeError):
        return True  # is told with its reason where the columns are made
    return bool(chosen) and bool(rejected) and chosen != rejected


def safety_label(value: Any) -> str:
    """safe or unsafe."""
    if value not in ("safe", "unsafe"):
        raise ValueError(f"{value!r} is neither safe nor unsafe")
    return str(value)


def _xstest_half(task: str, label: str, checker: str) -> Preset:
    """The requests of XSTest with one label, each with the checker (see rewards/chat.py) that its answer has to pass."""
    other = {"safe": "unsafe", "unsafe": "safe"}[label]
    return Preset(
        task=task,
        hub="Paul/XSTest",
        split="train",
        columns={"question": "prompt", "type": "type", "label": "label", "checker": "label", "arguments": "label"},
        convert={"label": safety_label, "checker": lambda _: checker, "arguments": lambda _: []},
        keep=lambda row: row.get("label") != other,
        grader="plain_answered",
    )


PRESETS = {
    "countdown-tasks-3to4": Preset(
        task="countdown",
        hub="Jiayi-Pan/Countdown-Tasks-3to4",
        columns={"nums": "nums", "target": "target"},
        convert={"nums": number_list, "target": whole_number},
        templates={"question": countdown.QUESTION},
        grader="countdown",
    ),
    "gsm8k": Preset(
        task="gsm8k",
        hub="openai/gsm8k",
        subset="main",
        columns={"question": "question", "gold": "answer"},
        texts={"prompt": "question", "completion": "answer"},
        convert={"gold": gsm8k_gold},
    ),
    "mgsm": Preset(
        task="mgsm",
        hub="juletxara/mgsm",
        split="test",
        languages=("en", "de", "es", "fr", "zh", "bn", "ja", "ru", "sw", "te", "th"),
        columns={"question": "question", "gold": "answer_number"},
        convert={"gold": number_text},
        header=("question", "answer_number"),
    ),
    "numina-math-tir": Preset(
        task="numina",
        hub="AI-MO/NuminaMath-TIR",
        columns={"question": "problem", "gold": "solution"},
        texts={"prompt": "problem", "completion": "solution"},
        convert={"gold": boxed_gold},
        keep=_has_box,
    ),
    "math-500": Preset(
        task="math500", hub="HuggingFaceH4/MATH-500", split="test", columns={"question": "problem", "gold": "answer"}
    ),
    "aime24": Preset(
        task="aime24", hub="HuggingFaceH4/aime_2024", split="train", columns={"question": "problem", "gold": "answer"}
    ),
    "aime25": Preset(
        task="aime25", hub="yentinglin/aime_2025", split="train", columns={"question": "problem", "gold": "answer"}
    ),
    # Six of its AIME problems are also in MATH-500.
    "deepscaler": Preset(
        task="deepscaler",
        hub="agentica-org/DeepScaleR-Preview-Dataset",
        columns={"question": "problem", "gold": "answer"},
        keep=_has_answer,
    ),
    "bespoke-stratos-17k": Preset(
        task="stratos",
        hub="bespokelabs/Bespoke-Stratos-17k",
        texts={"prompt": "conversations", "thoughts": "conversations", "reply": "conversations"},
        convert={"prompt": user_message, "thoughts": between("thought"), "reply": between("solution")},
        templates={"completion": THOUGHTS_AND_REPLY},
    ),
    "medical-o1": Preset(
        task="medical",
        hub="FreedomIntelligence/medical-o1-reasoning-SFT",
        subset="en",
        texts={"prompt": "Question", "thoughts": "Complex_CoT", "reply": "Response"},
        templates={"completion": THOUGHTS_AND_REPLY},
    ),
    "hh-rlhf": Preset(
        task="hh",
        hub="Anthropic/hh-rlhf",
        columns={"prompt": "chosen", "chosen": "chosen", "rejected": "rejected"},
        convert={
            "prompt": lambda text: dialogue(text)[0],
            "chosen": lambda text: dialogue(text)[1],
            "rejected": lambda text: dialogue(text)[1],
        },
        keep=_differs_in_the_reply,
    ),
    # Its prompts are also requests to answer.
    "ultrafeedback": Preset(
        task="ultrafeedback",
        hub="HuggingFaceH4/ultrafeedback_binarized",
        columns={"question": "prompt", "prompt": "prompt", "chosen": "chosen", "rejected": "rejected"},
        convert={
            "prompt": lambda text: [{"role": "user", "content": text}],
            "chosen": last_reply,
            "rejected": last_reply,
        },
        keep=_has_two_replies,
        grader="answered",
    ),
    "xstest": Preset(
        task="xstest",
        hub="Paul/XSTest",
        split="train",
        columns={"question": "prompt", "type": "type", "label": "label"},
        convert={"label": safety_label},
    ),
    "xstest-safe": _xstest_half("unsafe_looking", "safe", "answered"),
    "xstest-unsafe": _xstest_half("unsafe", "unsafe", "refused"),
    "humaneval": Preset(
        task="humaneval",
        hub="openai/openai_humaneval",
        split="test",
        columns={"function": "prompt", "test": "test", "entry_point": "entry_point"},
        templates={
            "question": "Complete this Python function; answer with the whole of it.\n\n{function}",
            "tests": "{test}\ncheck({entry_point})\n",
        },
        grader="code",
    ),
    "mbpp": Preset(
        task="mbpp",
        hub="google-research-datasets/mbpp",
        subset="full",
        columns={"text": "text", "setup": "test_setup_code", "asserts": "test_list"},
        convert={"asserts": "\n".join},
        templates={"question": "{text} Your code should pass these tests:\n\n{asserts}", "tests": "{setup}\n{asserts}\n"},
        grader="code",
    ),
}
# Generators of problems whose columns are those of a public data set, or their own.
GENERATOR_PRESETS = {
    "countdown": PRESETS["countdown-tasks-3to4"],
    "words": Preset(
        task="words", columns={name: name for name in ("question", "gold", "language", "template")}, grader="accuracy"
    ),
    "chat": Preset(
        task="chat",
        columns={name: name for name in ("question", "kind", "checker", "arguments", "language")},
        grader="plain_answered",
    ),
    "preference": Preset(
        task="preference",
        columns={name: name for name in ("prompt", "chosen", "rejected", "kind", "request", "language")},
    ),
    "reasoning-gym": Preset(
        task="reasoning-gym", columns={"question": "question", "entry": "entry", "gym": "gym"}, grader="reasoning_gym"
    ),
}


def preset_named(name: str) -> Preset:
    """Raises UserError with the nearest known name."""
    if name not in PRESETS:
        close = difflib.get_close_matches(name, PRESETS, n=1)
        raise UserError(f"unknown preset {name!r}; {f'did you mean {close[0]}? ' if close else ''}known: {', '.join(PRESETS)}")
    return PRESETS[name]
