"""Is a mathematical answer right? Exactly, where numbers, lists and words decide; else by algebra, within bounds.

What counts as equal is written down in docs/grading.md.
"""

import hashlib
import json
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from aha.boxes import find_boxes
from aha.chat import has_content
from aha.rewards.base import TAGS, Grade, Text, text_of
from aha.rewards.equality import Ask, same_answer
from aha.rewards.extract import MAX_TEXT, PLACES, Place, find_answer, in_prose, last_boxes, stated
from aha.rewards.forms import FALSE_SUM, Form, read_forms
from aha.rewards.kept import SLOW_SECONDS, Kept
from aha.rewards.symbols import is_quick, same_expression
from aha.rewards.workers import CPU_SECONDS, WORKERS, Verdict

DELIMITER = re.compile(r"(?<!\\)(?:\$|\\[(\[])")  # of a formula
FEW = 4  # questions for algebra that start no workers


class NeedsAlgebra(Exception):
    """The fast path cannot tell."""


class OutOfTime(BaseException):
    """Algebra took too long. No Exception, so that no library catches it."""


def accuracy(
    prompts: Sequence[Any],
    completions: Sequence[Text],
    gold: Sequence[Any],
    tags: tuple[str, str] = TAGS,
    unparsable_gold: float | None = None,
    extract: Sequence[Place] = PLACES,
    verdicts: str | None = None,
    **_: Any,
) -> list[float | None]:
    """1 if the final answer equals `gold`, else 0.

    `extract` says where the answer is looked for, in this order: the answer tag, the last box, a stated final answer,
    the whole text after the thoughts where that is nothing but an answer. Gold that is empty or several words of prose
    gives `unparsable_gold`: None skips the row, 0.5 is what older versions of open-r1 paid. An answer whose algebra does
    not end in time is wrong; `verdicts` is the file (JSON lines) that keeps what took long, so that a run which resumes
    pays the same.
    """
    rows: list[tuple[str, str] | None] = []
    for completion, right in zip(completions, gold, strict=True):
        expected = "" if right is None else str(right)
        found = find_answer(text_of(completion), tuple(extract), tags)
        rows.append((expected, found or "") if is_gradable(expected) else None)
    grades = iter(grade_answers([row for row in rows if row is not None], verdicts))
    return [unparsable_gold if row is None else next(grades).score for row in rows]


def grade_answer(answer: str, gold: str) -> Grade:
    """1 if `answer` equals `gold`, else 0. Swapping the two changes nothing."""
    return grade_answers([(gold, answer)])[0]


def grade_completion(completion: str, gold: str, extract: Sequence[str] = PLACES, tags: tuple[str, str] = TAGS) -> Grade:
    """Grade the answer of a completion; one inside the thoughts is none."""
    answer = find_answer(completion, extract, tags)
    return Grade(0.0, "no answer after the thoughts") if answer is None else grade_answer(answer, gold)


def grade_answers(pairs: Sequence[tuple[str, str]], slow: str | None = None) -> list[Grade]:
    """Grade pairs of gold and answer, in their order. Those that need algebra are worked on in parallel."""
    return [grade for grade, _ in grades_and_seconds(pairs, slow)]


def grades_and_seconds(pairs: Sequence[tuple[str, str]], slow: str | None = None) -> list[tuple[Grade, float]]:
    """The grades, and the seconds that each took (of its worker, where it took one)."""
    given: list[tuple[Grade | None, float]] = []
    for gold, answer in pairs:
        started = time.perf_counter()
        grade = _fast(gold, answer)
        given.append((grade, time.perf_counter() - started))
    kept = Kept.of(slow, "maths")
    hard = {pair: fingerprint(*pair) for pair, (grade, _) in zip(pairs, given, strict=True) if grade is None}
    verdicts = {pair: Verdict(**kept.known[key]) for pair, key in hard.items() if key in kept.known}
    new = [pair for pair in hard if pair not in verdicts]
    found = dict(zip(new, _algebra(new), strict=True))
    kept.add({hard[pair]: asdict(v) for pair, v in found.items() if v.failure or v.seconds >= SLOW_SECONDS})
    verdicts |= found
    return [
        (grade, seconds) if grade is not None else (_told(verdicts[pair]), seconds + verdicts[pair].seconds)
        for pair, (grade, seconds) in zip(pairs, given, strict=True)
    ]


def _told(verdict: Verdict) -> Grade:
    return Grade(float(verdict.is_same), verdict.failure or ("equal" if verdict.is_same else "not equal"))


def _fast(gold: str, answer: str) -> Grade | None:
    """The grade where it needs no algebra, else None."""
    if not has_content(answer):
        return Grade(0.0, "no answer")
    if not has_content(gold):
        return Grade(0.0, "no gold answer")
    try:
        is_same = decide(gold, answer, _needs_algebra)
    except NeedsAlgebra:
        return None
    return Grade(float(is_same), "equal" if is_same else "not equal")


def _needs_algebra(a: str, b: str) -> bool:
    raise NeedsAlgebra


def decide(gold: str, answer: str, ask: Ask) -> bool:
    """Whether two answers are the same; `ask` says whether two expressions are.

    They are compared in the order of their letters, so that it cannot matter which of them is gold.
    """
    first, second = (read_answer(text) for text in sorted((gold, answer)))
    return bool(first and second) and same_answer(first, second, ask)


def decide_by_algebra(gold: str, answer: str) -> tuple[bool, str]:
    """Whether two answers are the same, and "" or why that cannot be told. May take long."""
    try:
        return decide(gold, answer, same_expression), ""
    except MemoryError:
        return False, "out of memory"
    except RecursionError:
        return False, "nested too deeply"


@lru_cache(maxsize=65536)
def read_answer(text: str) -> tuple[Form, ...]:
    """The ways to read a text that is an answer, or a sentence or solution that gives one."""
    text = text[-MAX_TEXT:].strip()
    if (boxed := last_boxes(text)) is not None:
        return read_answer(stated(text[find_boxes(text)[-1][1] :]) or boxed)
    forms = read_forms(text)
    if forms and (forms[0].number is not None or forms[0].marks == FALSE_SUM):
        return forms  # a dollar sign before it is money; a false sum has no result
    is_marked = DELIMITER.search(text) is not None
    is_prose = bool(forms) and forms[0].kind == "words"
    if not is_marked and not is_prose and not (forms and forms[0].kind == "expression"):
        return forms
    if (said := stated(text)) is not None:
        return read_answer(said) if len(said) < len(text) else forms
    if (is_marked or is_prose) and (said := in_prose(text)) is not None and said != text:
        forms = (*(form for form in forms if form.kind == "words"), *read_forms(said))
    return forms


def is_gradable(gold: str) -> bool:
    """Whether a gold answer can be graded by these rules: neither empty nor several words of prose."""
    forms = read_answer(gold)
    return bool(forms) and not (len(forms) == 1 and forms[0].kind == "words" and " " in forms[0].text)


def parsed(text: str) -> str:
    """How an answer is read, in words; empty where there is none."""
    forms = read_answer(text)
    return " | ".join(form.told() for form in forms)


def _algebra(pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
    """Verdicts that need algebra: a few quick ones right here, others by the workers."""
    in_main = threading.current_thread() is threading.main_thread()
    here = in_main and not WORKERS.workers and len(pairs) <= FEW and all(is_quick(a) and is_quick(b) for a, b in pairs)
    return [_within(CPU_SECONDS, gold, answer) for gold, answer in pairs] if here else WORKERS.decide(pairs)


def _within(seconds: float, gold: str, answer: str) -> Verdict:
    started = time.process_time()
    try:
        with _limit(seconds):
            is_same, failure = decide_by_algebra(gold, answer)
    except OutOfTime:
        is_same, failure = False, "timed out"
    return Verdict(is_same, failure, time.process_time() - started)


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """Raise OutOfTime inside when so much processor time is used; again and again, lest a library swallows it."""

    def stop(*_: Any) -> None:
        raise OutOfTime

    before: Callable[..., Any] | int | None = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds, 0.1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def fingerprint(gold: str, answer: str) -> str:
    return hashlib.sha256(json.dumps(sorted((gold, answer))).encode()).hexdigest()
