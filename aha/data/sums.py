"""Sums as the tiny world does them: whole, positive, and no larger than its tokenizer holds as single tokens."""

MAX_VALUE = 999


def compute(a: int, op: str, b: int) -> int | None:
    """The value of a sum; None where it is not whole, not positive or above MAX_VALUE."""
    if op == "/" and (b == 0 or a % b):
        return None
    value = a + b if op == "+" else a - b if op == "-" else a * b if op == "*" else a // b
    return value if 0 < value <= MAX_VALUE else None
