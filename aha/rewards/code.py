"""Is a program right? Its tests decide, run in a sandbox where it can neither see them nor speak for them."""

import ast
import hashlib
import json
import secrets
import struct
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from aha.rewards.base import TAGS, Grade, Text, text_of
from aha.rewards.kept import SLOW_SECONDS, Kept
from aha.rewards.text import answer_of
from aha.rewards.workers import WALL_SECONDS, processors
from aha.sandbox import EXAMINER, Limits, Outcome, run_python

MAX_CHARACTERS = 100_000  # of a program
PYTHON = {"python", "py", "python3"}  # languages of a fenced block
TIMEOUT = 5.0
Case = Mapping[str, str]


def code(
    prompts: Sequence[Any],
    completions: Sequence[Text],
    tests: Sequence[str | Sequence[Case] | None],
    timeout: float = TIMEOUT,
    memory_mb: int = Limits.memory_mb,
    partial: bool = False,
    verdicts: str | None = None,
    tags: tuple[str, str] = TAGS,
    **_: Any,
) -> list[float | None]:
    """1 if the program in the answer passes its tests, else 0; with `partial` the share that it passes.

    The program is the last ```python block after the thoughts. `tests` is Python that raises where the program is wrong,
    or a list of {"input", "output"} for programs that read and print; a row without tests is skipped. `timeout` is in
    seconds of processor time, of a whole Python text or of each {"input", "output"}; by the clock a minute more may pass.
    `verdicts` is the file (JSON lines) that keeps what took long, time-outs among it, so that a run which resumes pays the
    same.
    """
    limits = limits_for(timeout, memory_mb)
    for row, given in enumerate(tests, 1):
        try:
            check_tests(given)
        except ValueError as error:
            raise ValueError(f"row {row} of the batch: {error}") from error

    texts = [text_of(completion) for completion in completions]
    keys = [fingerprint(*row, limits, partial, tags) if row[1] else None for row in zip(texts, tests, strict=True)]
    kept = Kept.of(verdicts, "code")
    new = {key: row for key, *row in zip(keys, texts, tests, strict=True) if key is not None and key not in kept.known}

    def timed(row: list[Any]) -> tuple[Grade, float]:
        started, (text, cases) = time.monotonic(), row
        return grade_completion(text, cases, limits, partial, tags), time.monotonic() - started

    with ThreadPoolExecutor(processors()) as pool:
        graded = dict(zip(new, pool.map(timed, new.values()), strict=True))
    kept.add({key: asdict(grade) for key, (grade, seconds) in graded.items() if seconds >= SLOW_SECONDS})
    scores = {key: grade.score for key, (grade, _) in graded.items()}
    return [None if key is None else scores[key] if key in scores else kept.known[key]["score"] for key in keys]


def fingerprint(
    completion: str, tests: str | Sequence[Case] | None, limits: Limits, partial: bool, tags: tuple[str, str]
) -> str:
    """What a verdict depends on."""
    return hashlib.sha256(json.dumps([completion, tests, asdict(limits), partial, tags], default=str).encode()).hexdigest()


def limits_for(timeout: float = TIMEOUT, memory_mb: int = Limits.memory_mb) -> Limits:
    """The limits of a run. The clock only ends programs that wait for ever, so that a busy machine fails nobody."""
    if timeout <= 0:
        raise ValueError(f"timeout is {timeout}: it must be above 0")
    return Limits(cpu_seconds=timeout, wall_seconds=WALL_SECONDS + timeout, memory_mb=memory_mb)


def check_tests(tests: Any) -> None:
    """Raises ValueError unless `tests` is Python, a list of {"input", "output"} as texts, or empty."""
    if isinstance(tests, str):
        _check_python(tests)
    elif tests is not None:
        is_list = isinstance(tests, Sequence) and all(isinstance(case, Mapping) for case in tests)
        if not is_list or not all(isinstance(case.get(name), str) for case in tests for name in ("input", "output")):
            raise ValueError('tests is neither Python nor a list of {"input": text, "output": text}')


@lru_cache(maxsize=4096)
def _check_python(tests: str) -> None:
    try:
        ast.parse(tests)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ValueError(f"tests are not Python: {error}") from None


def grade_completion(
    completion: str,
    tests: str | Sequence[Case],
    limits: Limits | None = None,
    partial: bool = False,
    tags: tuple[str, str] = TAGS,
) -> Grade:
    """Grade the last ```python block of the answer; what stands inside the thoughts is never run."""
    program = last_block(answer_of(completion, tags))
    return (
        Grade(0.0, "no ```python block after the thoughts")
        if program is None
        else grade_answer(program, tests, limits, partial)
    )


def grade_answer(answer: str, tests: str | Sequence[Case], limits: Limits | None = None, partial: bool = False) -> Grade:
    """Grade a program, or the last ```python block of a text that has one. Raises ValueError for tests that are none."""
    check_tests(tests)
    if not tests:
        return Grade(0.0, "no tests")
    block = last_block(answer)
    program = answer if block is None else block
    if not program.strip():
        return Grade(0.0, "no program")
    if len(program) > MAX_CHARACTERS:
        return Grade(0.0, f"longer than {MAX_CHARACTERS} characters")
    if isinstance(tests, str):
        whole = _grade_asserts(program, tests, limits or limits_for(), False)
        return _grade_asserts(program, tests, limits or limits_for(), True) if partial and whole.score < 1 else whole
    return _grade_cases(program, tests, limits or limits_for(), partial)


def last_block(text: str) -> str | None:
    """What stands in the last closed fenced block that says python, or where none does, in the last that says nothing.

    Example: last_block("So:\\n```python\\nprint(1)\\n```") == "print(1)\\n"
    """
    named = plain = language = None
    lines: list[str] = []
    for line in text.splitlines(keepends=True):
        mark = line.strip()
        if language is None:
            if mark.startswith("```"):
                language, lines = mark[3:].strip().lower(), []
        elif mark == "```":
            if language in PYTHON:
                named = "".join(lines)
            elif not language:
                plain = "".join(lines)
            language = None
        else:
            lines.append(line)
    return plain if named is None else named


def _grade_cases(program: str, cases: Sequence[Case], limits: Limits, partial: bool) -> Grade:
    """A run for each input. Without `partial` the first failure ends it; the first time-out always does."""
    passed, reason = 0, ""
    for number, case in enumerate(cases, 1):
        outcome = run_python(program, case["input"], limits)
        if outcome.status == "ok" and _lines(outcome.stdout) == _lines(case["output"]):
            passed += 1
            continue
        reason = reason or f"test {number}: {_cause(outcome) if outcome.status != 'ok' else 'prints something else'}"
        if not partial or outcome.status == "timed out":
            break
    return _share(passed, len(cases), reason, partial)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]


def _grade_asserts(program: str, tests: str, limits: Limits, partial: bool) -> Grade:
    token = secrets.token_hex(16)
    budget = {"cpu": limits.cpu_seconds, "wall": limits.wall_seconds} if partial else {"cpu": 0, "wall": 0}
    given = {"tests": tests, "token": token, "single": partial, **budget}
    frames = [program.encode("utf-8", "surrogatepass"), json.dumps(given).encode()]
    stdin = b"".join(struct.pack("<Q", len(frame)) + frame for frame in frames)
    outcome = run_python(EXAMINER, stdin, limits)
    told = [line[len(token) + 1 :] for line in outcome.stdout.split("\n") if line.startswith(f"{token} ")]
    failure = next((line[len("fails ") :] for line in told if line.startswith("fails ")), "")
    if not told or not (failure or "passes" in told):
        failure = _cause(outcome) if outcome.status != "ok" else "the tests did not end"
    if not partial:
        return Grade(0.0, failure) if failure else Grade(1.0, "passed")
    called = failure != "the tests never call the solution"
    failed = {line[1:] for line in told if line.startswith("-")}
    passed = {line[1:] for line in told if line.startswith("+")} - failed
    raised = [line for line in told if line.startswith("raises ")]
    total = next((int(line[len("of ") :]) for line in told if line.startswith("of ")), 0)
    if "complete" in told:
        total = len(passed | failed)  # asserts on ways that a right program never takes do not count
        if not total:
            return Grade(1.0, "passed")
    reason = failure or next(iter(raised), "") or ("an assert fails" if failed else "")
    total += len(raised) + bool(failure and len(passed) == total)  # whatever failed after all asserts is one more test
    return _share(len(passed) if called else 0, max(total, 1), reason, partial)


def _share(passed: int, total: int, reason: str, partial: bool) -> Grade:
    if passed == total:
        return Grade(1.0, "passed")
    return Grade(passed / total if partial else 0.0, f"{passed} of {total} tests passed: {reason}" if partial else reason)


def _cause(outcome: Outcome) -> str:
    """The status, and of a program that failed the last line of what it said."""
    if outcome.status != "failed":
        return outcome.status
    return outcome.stderr.strip().rpartition("\n")[2][:200] or "failed"
