"""Is a Countdown answer right? Exact, bounded, and nothing is ever executed."""

import ast
import operator
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from aha.chat import parse
from aha.rewards.base import TAGS, Grade, Text, text_of

MAX_CHARACTERS = 200  # of an answer, checked before anything is parsed; six numbers with all parentheses need 40
ALLOWED = frozenset("0123456789+-*/() ")
OPERATIONS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


class NotCountdown(ValueError):
    """The answer is not an equation in the language of the game; the text says why."""


def grade_completion(completion: str, nums: Sequence[int], target: int, tags: tuple[str, str] = TAGS) -> Grade:
    """Grade the one answer of a completion; an answer inside the thoughts, or one of several, earns nothing."""
    answer = parse(completion, *tags).answer
    return Grade(0.0, f"no single <{tags[1]}> after the thoughts") if answer is None else grade_answer(answer, nums, target)


def grade_answer(answer: str, nums: Sequence[int], target: int) -> Grade:
    """1 if `answer` uses every number exactly as often as given and equals `target` in exact arithmetic, else 0.

    The language: whole numbers, + - * / and parentheses, in ASCII. Decimals, //, **, unary signs, implicit products
    and everything else are refused.
    """
    try:
        used, value = _evaluate(answer)
    except NotCountdown as error:
        return Grade(0.0, str(error))
    if Counter(used) != Counter(nums):
        return Grade(0.0, f"uses {sorted(used)}, not {sorted(nums)}")
    if value != target:
        return Grade(0.0, f"equals {value}, not {target}")
    return Grade(1.0, "correct")


def _evaluate(text: str) -> tuple[list[int], Fraction]:
    """The numbers that an equation uses, and its value."""
    if len(text) > MAX_CHARACTERS:
        raise NotCountdown(f"longer than {MAX_CHARACTERS} characters")
    for character in text:
        if character not in ALLOWED:
            raise NotCountdown(f"character {character!r} is not allowed")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, MemoryError, RecursionError):  # the parser's own bounds, on depth
        raise NotCountdown("not an equation") from None
    used: list[int] = []

    def value(node: ast.expr) -> Fraction:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            used.append(node.value)
            return Fraction(node.value)
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
            left, right = value(node.left), value(node.right)
            if isinstance(node.op, ast.Div) and right == 0:
                raise NotCountdown("divides by zero")
            return OPERATIONS[type(node.op)](left, right)
        what = type(node.op).__name__ if isinstance(node, ast.BinOp | ast.UnaryOp) else type(node).__name__
        raise NotCountdown(f"{what} is not allowed")

    return used, value(tree)


def countdown(
    prompts: Sequence[Any],
    completions: Sequence[Text],
    nums: Sequence[Sequence[int]],
    target: Sequence[int],
    tags: tuple[str, str] = TAGS,
    **_: Any,
) -> list[float | None]:
    """1 for a right Countdown answer, else 0."""
    rows = zip(completions, nums, target, strict=True)
    return [grade_completion(text_of(completion), n, t, tags).score for completion, n, t in rows]
