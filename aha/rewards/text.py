"""Rewards that compare the words of an answer, for tasks without a grader of their own."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Any, Literal

from aha.chat import parse
from aha.rewards.base import TAGS, Text, text_of
from aha.rewards.extract import after_thoughts

END_MARKS = ".,;:!?。"  # of full-width ones NFKC leaves only the last
PAIRS = {'""', "''", "``", "“”", "‘’", "«»", "「」", "**", "__"}  # quotation marks and emphasis
LETTER = r"[^\W\u3400-\u9fff]"  # of a script that writes words apart


def exact_match(
    prompts: Sequence[Any], completions: Sequence[Text], gold: Sequence[Any], tags: tuple[str, str] = TAGS, **_: Any
) -> list[float | None]:
    """1 if the answer is `gold`, word for word, else 0; a row without gold is skipped.

    The answer is the content of the answer tag, else all that stands after the thoughts. Both are compared as
    `normalise` leaves them.
    """
    expected = ["" if right is None else normalise(str(right)) for right in gold]
    found = [normalise(answer_of(completion, tags)) for completion in completions]
    return [float(answer == right) if right else None for answer, right in zip(found, expected, strict=True)]


def keyword(
    prompts: Sequence[Any],
    completions: Sequence[Text],
    keywords: Sequence[str] | Sequence[Sequence[str] | None] | None = None,
    where: Literal["answer", "text"] = "answer",
    tags: tuple[str, str] = TAGS,
    **_: Any,
) -> list[float | None]:
    """Share of `keywords` that occur as whole words, whatever their case, in the answer or the whole text.

    The recipe gives one list for all rows, or a column of the data a list for each; a row without any is skipped. The
    answer is that of `exact_match`. Among Chinese characters, which stand without spaces, a keyword may begin and end
    anywhere.
    """
    if where not in ("answer", "text"):
        raise ValueError(f"where is {where!r}: want answer or text")
    for_all = bool(keywords) and all(isinstance(word, str) for word in keywords or [])
    rows: list[Any] = [keywords] * len(completions) if for_all else list(keywords or [])
    if isinstance(keywords, str) or len(rows) != len(completions) or not all(map(_are_words, rows)):
        raise ValueError("keywords is no list of words: give one in args, or a column of that name with one in each row")
    scores: list[float | None] = []
    for completion, words in zip(completions, rows, strict=True):
        text = _folded(without_tags(text_of(completion), tags) if where == "text" else reply_of(completion, tags))
        scores.append(sum(bool(_whole(word).search(text)) for word in words) / len(words) if words else None)
    return scores


def _are_words(row: Any) -> bool:
    return row is None or (isinstance(row, list | tuple) and all(isinstance(word, str) and word.strip() for word in row))


def answer_of(completion: Text, tags: tuple[str, str]) -> str:
    """The content of the answer tag, else all that stands after the thoughts and before they are opened again."""
    parsed = parse(text_of(completion), *tags)
    return after_thoughts(parsed.body, tags[0]) if parsed.answer is None else parsed.answer


def reply_of(completion: Text, tags: tuple[str, str]) -> str:
    """The same without tags that were left in it, so that no tag counts as a word and an empty answer is empty."""
    return without_tags(answer_of(completion, tags), tags)


def without_tags(text: str, tags: tuple[str, str]) -> str:
    return re.sub("|".join(f"</?{re.escape(tag)}>" for tag in tags), " ", text)


def normalise(text: str) -> str:
    """What is compared of an answer: its text in Unicode's NFKC, without case, with one space for any white space.

    Around it, all layers of white space, of marks that end a sentence and of paired quotation marks or emphasis are
    taken away. Articles, inner marks, brackets and signs stay: "-5", "5%" and "(5" are not "5".

    Example: normalise(' **"The  Beatles".** ') == "the beatles"
    """
    text = _folded(text)
    start, end = 0, len(text)
    while True:
        while end > start and text[end - 1] in END_MARKS + " ":
            end -= 1
        while start < end and text[start] == " ":
            start += 1
        if end - start < 2 or text[start] + text[end - 1] not in PAIRS:
            return text[start:end]
        start, end = start + 1, end - 1


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _whole(keyword: str) -> re.Pattern[str]:
    word = _folded(keyword)
    before = f"(?<!{LETTER})" if re.match(LETTER, word[0]) else ""
    after = f"(?!{LETTER})" if re.match(LETTER, word[-1]) else ""
    return re.compile(before + re.escape(word) + after)
