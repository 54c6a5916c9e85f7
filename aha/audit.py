"""Two graders over the same rows: how often they agree, where they do not, and how often one is wrong by labels."""

import json
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aha.log import printable
from aha.metrics import Measure, wilson
from aha.rewards.extract import find_answer
from aha.rewards.judge import judge
from aha.rewards.kinds import kind_named
from aha.rewards.text import normalise
from aha.types import UserError

Row = Mapping[str, Any]
COLUMN, JUDGE = "column:", "judge:"
JUDGE_TEMPLATE = """You mark answers. The right answer to the question below is known. Read the answer that was given.

Question:
{question}

Right answer:
{gold}

Given answer:
{reply}

Is the given answer the same as the right one, however it is written? End with one line: "Score: 10" if it is, else
"Score: 0"."""
SHOWN = 20  # disagreements on the console; a file keeps all
WIDTH = 80
YES, NO = {"true", "yes", "1", "right", "correct"}, {"false", "no", "0", "wrong", "incorrect"}


@dataclass(frozen=True)
class Verdict:
    """What a grader says of a row; None where it says nothing, so that the row is left out.

    Example: Verdict(is_right=False, reason="not equal")
    """

    is_right: bool | None
    reason: str = ""


@dataclass(frozen=True)
class Audit:
    """Two graders compared.

    Example: Audit(("ours", "column:label"), both=50, only_first=1, only_second=1, neither=48, left_out=0, rows=(17, 30))
    """

    names: tuple[str, str]
    both: int  # right for both
    only_first: int  # right for the first, wrong for the second
    only_second: int
    neither: int
    left_out: int
    rows: tuple[int, ...]  # numbers of those on which they disagree, from 0

    @property
    def n(self) -> int:
        return self.both + self.only_first + self.only_second + self.neither

    def agreement(self) -> Measure:
        return wilson(self.both + self.neither, self.n)

    def kappa(self) -> float:
        """Cohen's kappa: agreement beyond what two graders with these shares would have by chance."""
        seen = (self.both + self.neither) / self.n
        first, second = self.both + self.only_first, self.both + self.only_second
        chance = (first * second + (self.n - first) * (self.n - second)) / self.n**2
        return 1.0 if chance == 1 else (seen - chance) / (1 - chance)

    def error_rates(self) -> dict[str, Measure]:
        """Of the first grader, where the second is the truth: wrong answers that it pays, right ones that it does not."""
        rates = {}
        if wrong := self.only_first + self.neither:
            rates["false positives"] = wilson(self.only_first, wrong)
        if right := self.both + self.only_second:
            rates["false negatives"] = wilson(self.only_second, right)
        return rates


def compare(names: tuple[str, str], first: Sequence[Verdict], second: Sequence[Verdict]) -> Audit:
    """Count the agreements of two lists of verdicts."""
    counts: dict[tuple[bool, bool], int] = {}
    rows, left_out = [], 0
    for number, (a, b) in enumerate(zip(first, second, strict=True)):
        if a.is_right is None or b.is_right is None:
            left_out += 1
            continue
        counts[a.is_right, b.is_right] = counts.get((a.is_right, b.is_right), 0) + 1
        if a.is_right != b.is_right:
            rows.append(number)
    if not counts:
        raise UserError("no row has a verdict of both graders")
    both, only_first, only_second, neither = (
        counts.get(cell, 0) for cell in ((True, True), (True, False), (False, True), (False, False))
    )
    return Audit(names, both, only_first, only_second, neither, left_out, tuple(rows))


def check_name(name: str, kind: str) -> None:
    """Raise UserError for an unknown grader, and for one that does not fit the kind."""
    if name == "ours" or name.startswith(COLUMN):
        return
    if name not in GRADERS and not name.startswith(JUDGE):
        raise UserError(f"unknown grader {name!r}; known: ours, {', '.join(GRADERS)}, column:NAME, judge:MODEL@URL")
    if kind != "math":
        raise UserError(f"grader {name} compares gold with an answer: it needs --kind math")


def verdicts(name: str, kind: str, rows: Sequence[tuple[str, Row]]) -> list[Verdict]:
    """The verdicts of a grader on rows, each with its place. Raises UserError for an unknown grader."""
    if name.startswith(COLUMN):
        return [_of_column(row, name.removeprefix(COLUMN), where) for where, row in rows]
    if name == "ours":
        grader = kind_named(kind)
        read = [grader.read(row, where) for where, row in rows]
        return [Verdict(graded.grade.score >= grader.right_from, graded.grade.reason) for graded in grader.grade(read)]
    check_name(name, kind)
    if name.startswith(JUDGE):
        return _of_judge(name.removeprefix(JUDGE), rows)
    reader = kind_named(kind).read
    return [Verdict(GRADERS[name](*_plain(row, reader(row, where)))) for where, row in rows]


def _plain(row: Row, read: tuple[Any, ...]) -> tuple[str, str]:
    """Gold and the answer as it stands in the row, for graders that find it themselves."""
    return read[0], read[1] or "" if "answer" in row else str(row["completion"])


def _of_judge(name: str, rows: Sequence[tuple[str, Row]]) -> list[Verdict]:
    """Of a model behind an OpenAI-compatible server, which is shown the gold answer; None where its mark cannot be read."""
    model, at, url = name.rpartition("@")
    if not (model and at and url):
        raise UserError(f"grader {JUDGE}{name}: want {JUDGE}MODEL@URL, as {JUDGE}qwen@http://127.0.0.1:8000/v1")
    reader = kind_named("math").read
    pairs = [_plain(row, reader(row, where)) for where, row in rows]
    questions = [str(row.get("question") or "(not given)") for _, row in rows]
    golds, replies = [gold for gold, _ in pairs], [reply for _, reply in pairs]
    marks = judge(questions, replies, url=url, model=model, template=JUDGE_TEMPLATE, gold=golds, question=questions)
    return [Verdict(None if mark is None else mark >= 0.5, "" if mark is None else f"marked {mark:g}") for mark in marks]


def _of_column(row: Row, name: str, where: str) -> Verdict:
    if name not in row:
        raise UserError(f"{where}: no {name!r}; the line has {', '.join(row) or 'nothing'}")
    given = row[name]
    if given is None:
        return Verdict(None)
    if isinstance(given, bool | int | float) and 0 <= given <= 1:
        return Verdict(given >= 0.5)
    word = str(given).strip().casefold()
    if word not in YES | NO:
        raise UserError(f"{where}: {name} is {given!r}: want true or false, or a score from 0 to 1")
    return Verdict(word in YES)


def math_verify_says(gold: str, answer: str) -> bool:
    """math-verify as its page shows it: parse both, verify. Bare LaTeX is put between dollar signs, as it asks for."""
    from math_verify import parse, verify

    right, found = (parse(text if re.search(r"\$|\\boxed|\\\(|\\\[", text) else f"${text}$") for text in (gold, answer))
    return bool(verify(right, found))


def exact_says(gold: str, answer: str) -> bool:
    """The same words, as the reward `exact_match` compares them."""
    found = find_answer(answer)
    return normalise(answer if found is None else found) == normalise(gold) != ""


GRADERS: dict[str, Callable[[str, str], bool]] = {"math-verify": math_verify_says, "exact": exact_says}


def with_labels_second(names: tuple[str, str]) -> tuple[str, str]:
    """The graders in the order in which they are compared: a column of labels last."""
    return (names[1], names[0]) if names[0].startswith(COLUMN) and not names[1].startswith(COLUMN) else names


def told(audit: Audit) -> list[str]:
    """The table of agreements, at most eighty columns wide."""
    first, second = (name if len(name) <= 24 else f"{name[:21]}..." for name in audit.names)
    left_out = f", {audit.left_out:,} left out" if audit.left_out else ""
    lines = [
        f"{audit.n:,} rows{left_out}",
        f"{'':32}{second:>24}",
        f"{'':32}{'right':>12}{'wrong':>12}",
        f"{first:24}{'right':>8}{audit.both:>12,}{audit.only_first:>12,}",
        f"{'':24}{'wrong':>8}{audit.only_second:>12,}{audit.neither:>12,}",
        f"agreement {_share(audit.agreement())}, kappa {audit.kappa():.3f}",
    ]
    if audit.names[1].startswith(COLUMN):
        lines += [f"{name} of {first} {_share(rate)}" for name, rate in audit.error_rates().items()]
    return lines


def _share(measure: Measure) -> str:
    return f"{measure.value:.2%} ({measure.low:.2%} to {measure.high:.2%}, n = {measure.n:,})"


def disagreements(
    audit: Audit, rows: Sequence[tuple[str, Row]], first: Sequence[Verdict], second: Sequence[Verdict]
) -> list[dict[str, Any]]:
    """The rows on which the two do not agree, with both verdicts."""
    return [
        {
            "line": rows[number][0].rpartition(" ")[2],
            **{name: given[number].is_right for name, given in zip(audit.names, (first, second), strict=True)},
            "reason": first[number].reason or second[number].reason,
            "row": rows[number][1],
        }
        for number in audit.rows
    ]


def told_rows(audit: Audit, found: Sequence[Mapping[str, Any]]) -> list[str]:
    """The first disagreements in words, at most eighty columns wide."""
    lines = []
    for item in found[:SHOWN]:
        said = ", ".join(f"{name} {'right' if item[name] else 'wrong'}" for name in audit.names)
        lines.append(textwrap.shorten(f"line {item['line']}: {said}", WIDTH, placeholder="..."))
        for name in ("gold", "answer", "completion", "reason"):
            if (text := item["row"].get(name, item.get(name))) is not None:
                text = json.dumps(text, ensure_ascii=False) if not isinstance(text, str) else " ".join(text.split())
                text = printable(text)
                lines.append(f"  {name:11}{text if len(text) <= WIDTH - 13 else '...' + text[-(WIDTH - 16) :]}")
    if len(found) > SHOWN:
        lines.append(f"and {len(found) - SHOWN:,} more; --out FILE keeps all")
    return lines
