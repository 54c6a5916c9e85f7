"""Rewards for the form of a completion: its tags, its visible steps, its repetitions."""

import re
from collections.abc import Sequence
from typing import Any

from aha.chat import parse
from aha.metrics import repeated_share
from aha.rewards.base import TAGS, Text, text_of

STEPS_FOR_FULL_SCORE = 3
STEP = re.compile(r"\bstep \d+\b|^[^\S\n]*\d+[.)]\s|^[^\S\n]*[-*]\s|\b(?:first|second|third|next|then|finally)\b,", re.I | re.M)


def format_reward(
    prompts: Sequence[Any], completions: Sequence[Text], tags: tuple[str, str] = TAGS, **_: Any
) -> list[float | None]:
    """1 if the whole completion is <think>...</think> <answer>...</answer>, each tag once and neither empty, else 0.

    R1-Zero's format reward (arXiv 2501.12948, version 1, section 2.2.2).
    """
    return [float(parse(text_of(completion), *tags).is_well_formed) for completion in completions]


def tag_count(
    prompts: Sequence[Any], completions: Sequence[Text], tags: tuple[str, str] = TAGS, **_: Any
) -> list[float | None]:
    """A quarter for each of the four tags that stands exactly once in the completion, wherever that is.

    A first step towards the whole form, for models that rarely hit it (the idea of open-r1's `tag_count_reward`).
    """
    marks = [mark for tag in tags for mark in (f"<{tag}>", f"</{tag}>")]
    return [sum(text_of(completion).count(mark) == 1 for mark in marks) / len(marks) for completion in completions]


def reasoning_steps(
    prompts: Sequence[Any], completions: Sequence[Text], tags: tuple[str, str] = TAGS, **_: Any
) -> list[float | None]:
    """A third for each visible step of the thoughts ("Step 1", "1.", "- ", "First,", "Next,", ...), 1 at the most."""
    thoughts = [parse(text_of(completion), *tags).thoughts for completion in completions]
    return [min(1.0, len(STEP.findall(text)) / STEPS_FOR_FULL_SCORE) for text in thoughts]


def repetition_penalty(
    prompts: Sequence[Any], completions: Sequence[Text], ngram_size: int = 3, max_penalty: float = -1.0, **_: Any
) -> list[float | None]:
    """`max_penalty` times the share of word n-grams that came before: 0 for a text that never repeats itself.

    As in "Demystifying Long Chain-of-Thought Reasoning in LLMs" (arXiv 2502.03373).
    """
    if max_penalty > 0:
        raise ValueError(f"max_penalty is {max_penalty}: a penalty is not above 0")
    if ngram_size < 1:
        raise ValueError(f"ngram_size is {ngram_size}: it must be at least 1")
    return [max_penalty * repeated_share(text_of(completion), ngram_size) for completion in completions]
