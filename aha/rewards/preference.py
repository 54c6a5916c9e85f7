"""A trained reward model as a reward. It needs torch, so whoever loads the rewards passes its scorer in."""

import math
from collections.abc import Sequence
from typing import Any, Literal

from aha.chat import parse
from aha.rewards.base import TAGS, Scorer, Text, text_of


def reward_model(
    prompts: Sequence[Text],
    completions: Sequence[Text],
    model: str = "",
    reads: Literal["answer", "completion"] = "answer",
    squash: Literal["sigmoid", "none"] = "sigmoid",
    scorer: Scorer | None = None,
    tags: tuple[str, str] = TAGS,
    **columns: Any,
) -> list[float | None]:
    """What the reward model `model`, a folder or a hub id, thinks of each reply, from 0 to 1.

    R1 judges helpfulness by the final answer alone (`reads: answer`) and harmlessness by the whole response with its
    thoughts (`reads: completion`; arXiv 2501.12948, section 2.3.4). A sigmoid brings the raw score to 0 to 1 unless
    `squash` is none. A completion without an answer gets the bottom whatever the model thinks of it: 0, or of raw scores
    the lowest of the batch where that is below 0. The prompt is the question where the data has one.
    """
    if reads not in ("answer", "completion") or squash not in ("sigmoid", "none"):
        raise ValueError(f"reads is {reads!r} and squash {squash!r}: want answer or completion, and sigmoid or none")
    if scorer is None:
        raise ValueError(f"the scorer of {model or 'a reward model'} is missing")
    texts = [text_of(completion) for completion in completions]
    answers = [final_answer(text, tags) for text in texts]
    asked = columns.get("question") or prompts
    replies = [(asked[i], answer if reads == "answer" else texts[i]) for i, answer in enumerate(answers) if answer]
    raw = scorer(replies) if replies else []
    bottom = min([0.0, *raw]) if squash == "none" else 0.0
    scores = iter(raw if squash == "none" else map(sigmoid, raw))
    return [next(scores) if answer else bottom for answer in answers]


def final_answer(text: str, tags: tuple[str, str] = TAGS) -> str:
    """The content of the answer tag; where no such tag stands in the text, all that follows the thoughts. Else empty: an
    answer inside the thoughts, or one of several, is none."""
    parsed = parse(text, *tags)
    if parsed.answer is not None:
        return parsed.answer
    has_tag = any(f"<{slash}{tags[1]}>" in text for slash in ("", "/"))
    return "" if has_tag else parsed.body.strip()


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
