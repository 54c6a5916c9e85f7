"""What `aha grade` can grade, by kind: how a row is read, and how rows are graded."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from aha.chat import parse
from aha.language import language_of
from aha.metrics import SINGLE
from aha.rewards import maths
from aha.rewards.base import Grade
from aha.rewards.code import check_tests, grade_answer
from aha.rewards.code import grade_completion as grade_program
from aha.rewards.countdown import grade_completion as grade_countdown
from aha.rewards.extract import find_answer
from aha.rewards.language import check_language
from aha.rewards.language import grade_completion as grade_language
from aha.rewards.workers import processors
from aha.types import UserError

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Graded:
    """A grade of one row, the milliseconds that it took, and what else there is to say.

    Example: Graded(Grade(1.0, "equal"), 0.021, {"parsed_gold": "1/2", "parsed_answer": "1/2"})
    """

    grade: Grade
    ms: float
    more: Mapping[str, Any] = field(default_factory=dict)

    def columns(self) -> dict[str, Any]:
        return {"score": self.grade.score, "reason": self.grade.reason, "ms": round(self.ms, 3), **self.more}


@dataclass(frozen=True)
class Kind:
    """How rows of one kind are graded.

    `read` takes what it needs from a row, and raises UserError that begins with the row's place; `grade` takes a batch
    of what it gave.

    Example: Kind("completion", lambda row, where: (text_field(row, "completion", where),), graded_formats)
    """

    columns: str  # for the help
    read: Callable[[Row, str], tuple[Any, ...]]
    grade: Callable[[Sequence[tuple[Any, ...]]], list[Graded]]
    batch: int = 1  # rows that are graded together
    right_from: float = 1.0  # the score from which an audit takes a row for right


def value(row: Row, name: str, where: str) -> Any:
    if name not in row:
        raise UserError(f"{where}: no {name!r}; the line has {', '.join(row) or 'nothing'}")
    return row[name]


def text_field(row: Row, name: str, where: str) -> str:
    text = value(row, name, where)
    if not isinstance(text, str):
        raise UserError(f"{where}: want {name} as a text, not {type(text).__name__}")
    return text


def one_by_one(function: Callable[..., Grade]) -> Callable[[Sequence[tuple[Any, ...]]], list[Graded]]:
    """Grade a batch row by row, with the time that each takes."""
    return lambda batch: [_timed(function, arguments) for arguments in batch]


def side_by_side(function: Callable[..., Grade]) -> Callable[[Sequence[tuple[Any, ...]]], list[Graded]]:
    """Grade a batch on as many threads as there are processors, for graders that wait for processes."""

    def graded(batch: Sequence[tuple[Any, ...]]) -> list[Graded]:
        with ThreadPoolExecutor(processors()) as pool:
            return list(pool.map(lambda arguments: _timed(function, arguments), batch))

    return graded


def _timed(function: Callable[..., Grade], arguments: tuple[Any, ...]) -> Graded:
    started = time.perf_counter()
    grade = function(*arguments)
    return Graded(grade, (time.perf_counter() - started) * 1000)


def _read_maths(row: Row, where: str) -> tuple[str, str | None, bool]:
    """Gold, the answer, and whether that is a whole completion."""
    gold = _as_text(value(row, "gold", where), "gold", where)
    if "answer" in row:
        return gold, _as_text(row["answer"], "answer", where), False
    return gold, find_answer(_completion(row, where)), True


def _completion(row: Row, where: str) -> str:
    if "completion" not in row:
        raise UserError(f"{where}: no 'answer' and no 'completion'; the line has {', '.join(row)}")
    return text_field(row, "completion", where)


def _as_text(given: Any, name: str, where: str) -> str:
    """A text or a number as a text; None, an answer that was not found, as an empty one."""
    if given is None:
        return ""
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        raise UserError(f"{where}: want {name} as a text or a number, not {type(given).__name__}")
    return str(given)


def _grade_maths(batch: Sequence[tuple[Any, ...]]) -> list[Graded]:
    grades = maths.grades_and_seconds([(gold, answer or "") for gold, answer, _ in batch])
    graded = []
    for (gold, answer, is_completion), (grade, seconds) in zip(batch, grades, strict=True):
        if answer is None and is_completion:
            grade = Grade(0.0, "no answer after the thoughts")
        more = {"parsed_gold": maths.parsed(gold), "parsed_answer": maths.parsed(answer or "")}
        graded.append(Graded(grade, seconds * 1000, more))
    return graded


def _read_countdown(row: Row, where: str) -> tuple[str, list[int], int]:
    nums, target, completion = (value(row, name, where) for name in ("nums", "target", "completion"))
    numbers = [*nums, target] if isinstance(nums, list) else [None]
    if any(type(number) is not int for number in numbers) or not isinstance(completion, str):
        raise UserError(f"{where}: want nums as a list of whole numbers, target as one and completion as a text")
    return completion, nums, target


def _read_code(row: Row, where: str) -> tuple[str, Any, bool]:
    """The text, its tests, and whether it is a whole completion."""
    tests = value(row, "tests", where)
    try:
        check_tests(tests)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error
    is_answer = "answer" in row
    return text_field(row, "answer", where) if is_answer else _completion(row, where), tests, not is_answer


def _grade_code(text: str, tests: Any, is_completion: bool) -> Grade:
    return grade_program(text, tests) if is_completion else grade_answer(text, tests)


def _read_language(row: Row, where: str) -> tuple[str, str]:
    """The completion and the language that its thoughts should be in, which is that of the question unless given."""
    completion = text_field(row, "completion", where)
    if row.get("language") is None:
        if "question" not in row:
            raise UserError(f"{where}: no 'language' and no 'question'; the line has {', '.join(row)}")
        return completion, language_of(text_field(row, "question", where))
    target = text_field(row, "language", where)
    try:
        check_language(target)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error
    return completion, target


def grade_format(completion: str) -> Grade:
    """1 for <think>...</think> <answer>...</answer>, each tag once and neither empty, as the reward `format` has it."""
    if parse(completion).is_well_formed:
        return Grade(1.0, "well formed")
    marks = ("<think>", "</think>", "<answer>", "</answer>")
    wrong = [f"{mark} stands {completion.count(mark)} times" for mark in marks if completion.count(mark) != 1]
    return Grade(0.0, ", ".join(wrong) or "an empty part, or text around them")


KINDS: dict[str, Kind] = {
    "math": Kind("gold and answer or completion", _read_maths, _grade_maths, 256),
    "countdown": Kind("nums, target and completion", _read_countdown, one_by_one(grade_countdown)),
    "code": Kind("tests and answer or completion", _read_code, side_by_side(_grade_code), 16),
    "format": Kind("completion", lambda row, where: (text_field(row, "completion", where),), one_by_one(grade_format)),
    "language": Kind("completion and language or question", _read_language, one_by_one(grade_language), right_from=SINGLE),
}


def kind_named(name: str) -> Kind:
    if name not in KINDS:
        raise UserError(f"unknown kind {name!r}; known: {', '.join(KINDS)}")
    return KINDS[name]
