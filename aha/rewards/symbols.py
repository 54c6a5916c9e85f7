"""Whether two expressions are the same, by algebra: latex2sympy reads them and math-verify compares them.

Only `maths.py` asks, in a worker process or for few short expressions; sympy takes a second to import and may think
for ever.
"""

import cmath
import logging
import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

from aha.rewards.numbers import Quantity, read_quantity, rounds_to

DIGITS = 40  # with which an expression is evaluated
TOLERANCE = 1e-11  # relative, of values that count as the same
POINTS = 4  # at which expressions with variables are compared
NEGATIVE = -1.63  # where |x| is not x
POSITIVE = (0.73, 1.31, 0.59, 2.17, 1.87, 0.41, 3.13)  # where roots and logarithms are real
DEGREES = re.compile(r"(\\(?:sin|cos|tan|cot|sec|csc)\s*(?:\^\{?[0-9]\}?\s*)?)[({]?\s*([0-9.]+)\s*°\s*[)}]?")
# A number or a bracket before a bracket with a number, which latex2sympy would read as a mixed number: 2(3) is no five.
PRODUCT = re.compile(r"((?<![\w^\\.])[0-9]*\.?[0-9]+|(?<=[0-9])\))\s*\((?=\s*(?:[0-9.]|\\frac))")
# Towers of powers, exponents of five digits and more, and factorials of three: numbers that nobody can write out.
UNBOUNDED = re.compile(
    r"(?:\^|\*\*)\s*[{(]*\s*-?[\d.]*\s*[})]*\s*(?:\^|\*\*)|(?:\^|\*\*)\s*[{(]*\s*-?\d{5,}|\d{3,}\s*!|!\s*!|\)\s*!"
)
# What sympy works out term by term, and nested powers, which add up.
SLOW = re.compile(
    r"!|\\(?:sum|prod|int|lim|binom|Gamma|zeta|det|frac\{d)|\}\s*\^.*\}\s*\^|\)\s*\^.*\)\s*\^|\d{5,}\D*\^|\^\{?\d{3,}"
)


def is_quick(text: str) -> bool:
    """Whether algebra on `text` is bound to end soon: short, without large powers, sums and products."""
    return len(text) <= 120 and not SLOW.search(text) and not UNBOUNDED.search(text)


def same_expression(a: str, b: str) -> bool:
    """Whether two expressions in plain notation are equal. The order does not matter. May take long.

    Values at a few points tell most apart at once; what they cannot decide goes to math-verify.
    """
    left, right = expression(a), expression(b)
    if left is None or right is None:
        return False
    if left == right or _rounds(left, b) or _rounds(right, a):
        return True
    agree = _agree(left, right)
    if agree is not None:
        return agree
    from math_verify import verify
    from sympy.logic.boolalg import Boolean

    if isinstance(left, Boolean) or isinstance(right, Boolean):
        return False  # math-verify takes most pairs of equations that it cannot solve for the same

    return bool(verify([left], [right], timeout_seconds=None) or verify([right], [left], timeout_seconds=None))


def _agree(left: Any, right: Any) -> bool | None:
    """Whether both have the same values, or are relations whose sides differ by the same up to a factor.

    None where that cannot be told: for sets, matrices and whatever has no value at the points.
    """
    from sympy import Eq, Expr
    from sympy.core.relational import GreaterThan, Relational, StrictGreaterThan

    if isinstance(left, Relational) and isinstance(right, Relational):
        sides = [r.rhs - r.lhs if isinstance(r, GreaterThan | StrictGreaterThan) else r.lhs - r.rhs for r in (left, right)]
        strict = [r.rel_op.replace(">", "<") for r in (left, right)]
        values = _values(*sides) if all(isinstance(side, Expr) for side in sides) else None
        if values is None or any(abs(second) < TOLERANCE for _, second in values):
            return None
        factors = [first / second for first, second in values]
        if all(abs(factor - factors[0]) <= TOLERANCE * abs(factors[0]) for factor in factors):
            return strict[0] == strict[1] and (isinstance(left, Eq) or factors[0].real > 0) and abs(factors[0]) > TOLERANCE
        return False
    if not isinstance(left, Expr) or not isinstance(right, Expr):
        return None
    values = _values(left, right)
    if values is None:
        return None
    return all(_are_close(*pair) for pair in values) and not _differ_below_zero(left, right)


def _are_close(first: complex, second: complex) -> bool:
    return abs(first - second) <= TOLERANCE * max(abs(first), abs(second), TOLERANCE)


def _differ_below_zero(left: Any, right: Any) -> bool:
    """Whether both are real and not the same where one of the variables is negative, as |x| and x are."""
    positive = _points(left, right)[0]
    for symbol in positive:
        pair = _pair(left, right, positive | {symbol: NEGATIVE})
        if pair and all(abs(value.imag) < TOLERANCE for value in pair) and not _are_close(*pair):
            return True
    return False


def _points(left: Any, right: Any) -> list[dict[Any, float]]:
    """Values for the variables of two expressions, all positive; one point, without any, where there are none."""
    symbols = sorted(left.free_symbols | right.free_symbols, key=str)
    return [
        {symbol: POSITIVE[(point + 3 * i) % len(POSITIVE)] + 0.37 * i for i, symbol in enumerate(symbols)}
        for point in range(POINTS if symbols else 1)
    ]


def _values(left: Any, right: Any) -> list[tuple[complex, complex]] | None:
    """The values of two expressions at a few points; None where one has no finite value at one of them."""
    pairs = []
    for at in _points(left, right):
        if (pair := _pair(left, right, at)) is None:
            return None
        pairs.append(pair)
    return pairs


def _pair(left: Any, right: Any, at: dict[Any, float]) -> tuple[complex, complex] | None:
    try:
        first, second = (complex(side.doit().subs(at).evalf(DIGITS)) for side in (left, right))
    except (TypeError, ValueError, ArithmeticError, AttributeError, NotImplementedError):
        return None
    return (first, second) if cmath.isfinite(first) and cmath.isfinite(second) else None


def _rounds(value: Any, text: str) -> bool:
    """Whether `text` is a decimal to which the number `value` rounds."""
    written: Quantity | None = read_quantity(text)
    if written is None or not written.places or not getattr(value, "is_number", False):
        return False
    exact = value.evalf(DIGITS)
    return bool(exact.is_Float) and rounds_to(Fraction(str(exact)), written)


@lru_cache(maxsize=4096)
def expression(text: str) -> Any:
    """`text` as sympy has it, or None where it cannot be read or is too large to be written out."""
    if UNBOUNDED.search(text):
        return None
    from latex2sympy2_extended.latex2sympy2 import NormalizationConfig, latex2sympy
    from math_verify.grader import should_treat_as_complex

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it warns that its own time-out is off
    text = PRODUCT.sub(r"\1\\cdot(", DEGREES.sub(r"\1{\\frac{\2\\pi}{180}}", text))
    number = read_quantity(text)
    if number is not None and not number.places:
        text = f"\\frac{{{number.value.numerator}}}{{{number.value.denominator}}}"
    config = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
    )
    try:
        return latex2sympy(text, is_real=not should_treat_as_complex(text), normalization_config=config)
    except Exception:  # its parser raises Exception itself, for every text that is no mathematics
        return None
