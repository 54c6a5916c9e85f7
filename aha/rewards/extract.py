"""Where in a text the answer stands."""

import re
from collections.abc import Sequence
from typing import Literal

from aha.boxes import BOX, find_boxes
from aha.chat import parse
from aha.rewards.base import TAGS
from aha.rewards.forms import is_prose
from aha.rewards.notation import plain

Place = Literal["tag", "box", "stated", "whole"]
PLACES: tuple[Place, ...] = ("tag", "box", "stated", "whole")  # where an answer is looked for, in this order
MAX_TEXT = 4000  # characters of a text that are looked at, from its end
MAX_WHOLE = 200  # of a text that is taken for an answer as a whole
MARKUP = re.compile(r"\\[A-Za-z]+\s*\{?")
STATED = re.compile(
    r"####[ \t]*|(?:final\s+)?\banswers?\b\**\s*(?:is|are|was|:|=|：)(?:\s*(?:therefore|thus|simply|just|:))?"
    r"|答案(?:是|为|：|:)",
    re.IGNORECASE,
)
SENTENCE_END = re.compile(r"\n|[.。!?](?=\s|$)|(?<=[^\d\s])\.(?=\*\*)|, (?:because|since|so|as)\b|[,;] not\b|\bI hope\b")
FORMULA = re.compile(r"\$\$(?P<a>.+?)\$\$|(?<!\\)\$(?P<b>(?:\\.|[^$\\])+?)\$|\\\((?P<c>.+?)\\\)|\\\[(?P<d>.+?)\\\]", re.DOTALL)
LINK = re.compile(r"[\s,;]*(?:,|;|and|or|\\text\s*\{\s*(?:and|or)\s*\})?[\s,;]*")
NUMBER = re.compile(
    r"(?<![\w.\\^_])(?:[$€£¥₹]\s?)?[-−]?\s?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:[.,]?\d+)(?:\s?/\s?\d+)?(?:\s?(?:%|percent\b|°))?"
)
PIECE = re.compile(r"[^\W_]+|,")
WORD = re.compile(r"(?<![\\A-Za-z])[^\W\d_]{2,}")  # no command of LaTeX


def find_answer(completion: str, places: Sequence[str] = PLACES, tags: tuple[str, str] = TAGS) -> str | None:
    """The answer of a completion, looked for in `places` in their order; None where there is none.

    `tag`: the content of the answer tag, which stands once in the text and after the thoughts; a completion that has it
    is read nowhere else. `box`: the last \\boxed{...}, with those that a comma, "and" or "or" joins to it. `stated`: what
    follows the last "the answer is", "Answer:" or "####", to the end of its sentence. `whole`: all of it, if that is
    short and holds a number or a formula. Only what stands after the thoughts is looked at, and a sentence with several
    numbers, none of which it calls the answer, is none.
    """
    for name in places:
        if name not in PLACES:
            raise ValueError(f"extract has {name!r}; known: {', '.join(PLACES)}")
    parsed = parse(completion, *tags)
    if parsed.answer is not None and "tag" in places:
        return one_answer(parsed.answer)
    body = after_thoughts(parsed.body, tags[0])[-MAX_TEXT:]
    looks = {"box": last_boxes, "stated": stated, "whole": whole}
    for name in places:
        if name != "tag" and (found := looks[name](body)) is not None:
            return one_answer(found)
    return None


def one_answer(text: str) -> str | None:
    """`text`, unless it is a sentence with several numbers or formulas that says of none that it is the answer."""
    if BOX.search(text) or STATED.search(text):
        return text
    if not is_prose(plain(FORMULA.sub(" ", text[-MAX_TEXT:]))):
        return text
    given = {match[0].strip("$ ") for pattern in (FORMULA, NUMBER) for match in pattern.finditer(text[-MAX_TEXT:])}
    return text if len(given) <= 1 else None


def after_thoughts(body: str, think: str) -> str:
    """What follows the last closing tag of thoughts and comes before thoughts that are opened again."""
    return body.rpartition(f"</{think}>")[2].partition(f"<{think}>")[0]


def last_boxes(text: str) -> str | None:
    """What stands in the last box; several that a comma, "and" or "or" joins are one list."""
    boxes = find_boxes(text)
    if not boxes:
        return None
    start, _, content = boxes.pop()
    contents = [content]
    while boxes and _joins(text[boxes[-1][1] : start]):
        start, _, content = boxes.pop()
        contents.insert(0, content)
    return BOX.sub("{", ", ".join(contents))


def _joins(gap: str) -> bool:
    """Whether what stands between two boxes makes them one list: a comma, or up to five words, "and" or "or" among them."""
    words = PIECE.findall(MARKUP.sub(" ", gap.removeprefix("}")))
    return words == [","] or (len(words) <= 6 and ("and" in words or "or" in words))


def stated(text: str) -> str | None:
    """What follows the last "the answer is", "Answer:" or "####", to the end of its sentence."""
    matches = list(STATED.finditer(text))
    if not matches:
        return None
    rest = text[matches[-1].end() :].lstrip(" \t*:：").lstrip("\n")
    formula = FORMULA.match(rest)
    end = SENTENCE_END.search(rest, formula.end() if formula else 0)
    found = rest[: end.start() if end else len(rest)].strip().strip("*").strip()
    return found or None


def whole(text: str) -> str | None:
    """All of a text, if it is short, holds no tags, and is a number or a formula rather than a sentence."""
    text = text.strip()
    if not 0 < len(text) <= MAX_WHOLE or re.search(r"</?\w+>", text):
        return None
    return text if len(WORD.findall(text)) <= 2 and re.search(r"[0-9$\\]|^\(?[A-J]\)?\.?$", text) else None


def in_prose(text: str) -> str | None:
    """The answer that a sentence gives: the last formula, with those joined to it, else the last number.

    None where the text is no sentence but an answer already.
    """
    text = text[-MAX_TEXT:]
    formulas, numbers = list(FORMULA.finditer(text)), list(NUMBER.finditer(text))
    if formulas and not (numbers and numbers[-1].start() > formulas[-1].end()):
        outside = FORMULA.sub(" ", text)
        after = text[formulas[-1].end() :]
        if len(WORD.findall(outside)) <= len(WORD.findall(after)) + _num_links(outside) and len(WORD.findall(after)) <= 3:
            return FORMULA.sub(lambda match: _content(match), text)
        first = len(formulas) - 1
        while first and LINK.fullmatch(text[formulas[first - 1].end() : formulas[first].start()]):
            first -= 1
        return ", ".join(_content(formula) for formula in formulas[first:])
    return numbers[-1][0].strip() if numbers else None


def _num_links(text: str) -> int:
    return len(re.findall(r"\b(?:and|or|text)\b", text))


def _content(formula: re.Match[str]) -> str:
    return next(group for group in formula.groups() if group is not None)
