"""Is the chain of thought in one language? The reward against language mixing of R1's reasoning stage."""

from collections.abc import Sequence
from typing import Any

from aha.chat import parse
from aha.language import LATIN, SCRIPTS, language_of, share_in
from aha.rewards.base import TAGS, Text, text_of

KNOWN = {*LATIN, *SCRIPTS}


def language_consistency(
    prompts: Sequence[Any],
    completions: Sequence[Text],
    question: Sequence[str] | None = None,
    language: Sequence[str] | str | None = None,
    min_words: int = 5,
    tags: tuple[str, str] = TAGS,
    **_: Any,
) -> list[float | None]:
    """Words of the target language over all words of the thoughts (arXiv 2501.12948, version 2, section 3.2.1).

    The target is `language`, a code such as "en" or "zh" from the recipe or a column of the data, else the language of
    the question. Code, formulas and numbers count for neither side. Thoughts of fewer than `min_words` words earn
    nothing, so that silence does not pay.
    """
    if min_words < 1:
        raise ValueError(f"min_words is {min_words}: it must be at least 1, else silence pays")
    targets = [language] * len(completions) if isinstance(language, str) else language
    if targets is None:
        if question is None:
            raise ValueError("language_consistency wants a column 'language' or 'question'")
        targets = [language_of(text) for text in question]
    unknown = set(targets) - KNOWN
    if unknown:
        raise ValueError(f"unknown language {min(unknown)!r}; known: {', '.join(sorted(KNOWN))}")
    scores: list[float | None] = []
    for completion, target in zip(completions, targets, strict=True):
        share, words = share_in(parse(text_of(completion), *tags).thoughts, target)
        scores.append(share if words >= min_words else 0.0)
    return scores
