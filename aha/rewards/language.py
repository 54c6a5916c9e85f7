"""Is the chain of thought in one language? The reward against language mixing of R1's reasoning stage."""

from collections.abc import Sequence
from typing import Any

from aha.chat import parse
from aha.language import KNOWN, language_of, share_in
from aha.metrics import MIN_WORDS
from aha.rewards.base import TAGS, Grade, Text, text_of


def language_consistency(
    prompts: Sequence[Any],
    completions: Sequence[Text],
    question: Sequence[str] | None = None,
    language: Sequence[str | None] | str | None = None,
    min_words: int = MIN_WORDS,
    unfinished: bool = False,
    tags: tuple[str, str] = TAGS,
    **_: Any,
) -> list[float | None]:
    """Words of the target language over all words of the thoughts (arXiv 2501.12948, version 2, section 3.2.1).

    The target is `language`, a code such as "en" or "zh" from the recipe or a column of the data, else, also for rows
    without that column, the language of the question. Code, formulas and numbers count for neither side. Thoughts of
    fewer than `min_words` words earn nothing, so that silence does not pay, nor do thoughts that are not closed. With
    `unfinished` these count as far as they go: else an answer that is cut off loses this reward too, and where most searches
    fail it pays to give up in time.
    """
    if min_words < 1:
        raise ValueError(f"min_words is {min_words}: it must be at least 1, else silence pays")
    if isinstance(language, str):
        check_language(language)
    given = [language] * len(completions) if isinstance(language, str) or language is None else language
    if question is None and None in given:
        raise ValueError("language_consistency wants a column 'language' or 'question'")
    asked = question or [""] * len(completions)
    targets = [language_of(text) if target is None else target for target, text in zip(given, asked, strict=True)]
    for target in targets:
        check_language(target)
    pairs = zip(completions, targets, strict=True)
    return [grade_completion(text_of(completion), target, min_words, tags, unfinished).score for completion, target in pairs]


def check_language(language: str) -> None:
    """Raises ValueError for a language that words cannot be counted in."""
    if language not in KNOWN:
        raise ValueError(f"unknown language {language!r}; known: {', '.join(sorted(KNOWN))}")


def grade_completion(
    completion: str, language: str, min_words: int = MIN_WORDS, tags: tuple[str, str] = TAGS, unfinished: bool = False
) -> Grade:
    """The share of the words of the thoughts that are in `language`; 0 where there are fewer than `min_words` or, but for
    `unfinished`, no end."""
    if f"</{tags[0]}>" not in completion and not unfinished:
        return Grade(0.0, f"no thoughts that </{tags[0]}> ends")
    share, words = share_in(parse(completion, *tags).thoughts, language)
    if words < min_words:
        return Grade(0.0, f"words in the thoughts: {words}; fewer than {min_words} earn nothing")
    return Grade(share, f"{round(share * words)} of {words} words are {language}")
