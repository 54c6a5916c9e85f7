"""Is a mathematical answer right? Parsed and compared by math-verify."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

from aha.chat import parse as parse_completion
from aha.rewards.base import TAGS, Text, text_of

MAX_CHARACTERS = 2000  # of the text that an answer is looked for in, from its end
# Towers of powers, exponents of five digits and more, and factorials of three: numbers that nobody can write out.
UNBOUNDED = re.compile(r"(?:\^|\*\*)\s*[{(]?\s*[\d.]*\s*(?:\^|\*\*)|(?:\^|\*\*)\s*[{(]?\s*-?\d{5,}|\d{3,}\s*!")


def accuracy(
    prompts: Sequence[Any],
    completions: Sequence[Text],
    gold: Sequence[Any],
    tags: tuple[str, str] = TAGS,
    unparsable_gold: float | None = None,
    **_: Any,
) -> list[float | None]:
    """1 if the final answer equals `gold`, else 0.

    The answer is the content of the answer tag, else what math-verify finds after the thoughts: the last box, then a
    stated final answer. Gold that cannot be parsed gives `unparsable_gold`: None skips the row, 0.5 is what older
    versions of open-r1 paid. Powers that are too large to write out are refused before they are parsed.
    """
    scores: list[float | None] = []
    for completion, right in zip(completions, gold, strict=True):
        expected = _parse_gold(str(right))
        if not expected:
            scores.append(unparsable_gold)
            continue
        parsed = parse_completion(text_of(completion), *tags)
        found = _parse(_last_box(parsed.body) if parsed.answer is None else parsed.answer[:MAX_CHARACTERS])
        scores.append(float(bool(found) and verify(list(expected), found)))
    return scores


def _last_box(body: str) -> str:
    """What follows the last box, the box included; math-verify would read several boxes as a set."""
    body = body[-MAX_CHARACTERS:]
    return body[max(0, body.rfind("\\boxed")) :]


@lru_cache(maxsize=65536)
def _parse_gold(text: str) -> tuple[Any, ...]:
    return tuple(_parse(text))


def _parse(text: str) -> list[Any]:
    if UNBOUNDED.search(text):
        return []
    if any(mark in text for mark in "\\{^") and "$" not in text and "\\boxed" not in text:
        text = f"${text}$"  # bare LaTeX, which math-verify reads only between delimiters
    return parse(text, extraction_config=[LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()])
