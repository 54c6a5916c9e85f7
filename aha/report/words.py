"""Numbers, and what they say, in words."""

import math
from dataclasses import dataclass

from aha.metrics import Measure, bootstrap
from aha.report.run import Run, Stage


@dataclass(frozen=True)
class Result:
    """The main measure at the first stage that has it, and at the last of its line.

    Example: Result(first="base", before=Measure(0.25, ...), last="zero", after=Measure(0.33, ...),
                    difference=Measure(0.08, 0.05, 0.11, 512), verb="rose")
    """

    first: str
    before: Measure
    last: str
    after: Measure
    difference: Measure | None  # paired, on the problems that both answered; None where they share none
    verb: str


def result(run: Run) -> Result | None:
    """What the run came to, from the first measured stage to the last of its line; None where these are the same."""
    if not run.measured:
        return None
    first, last = run.ends(run.measured)
    if first is last:
        return None
    before, after = first.measures[run.main], last.measures[run.main]
    pairs = [(row, last.answers[key]) for key, row in first.answers.items() if key in last.answers]
    task = run.main.removesuffix("/pass@1")
    changes = [new["share"] - old["share"] for old, new in pairs if old["kind"] == task]
    difference = bootstrap(changes, bounds=(-1, 1)) if changes else None
    low, high = (difference.low, difference.high) if difference else (after.low - before.high, after.high - before.low)
    return Result(first.name, before, last.name, after, difference, verb(low, high))


def verb(low: float, high: float) -> str:
    """What became of a measure, by the ends of the interval of its difference."""
    return "rose" if low > 0 else "fell" if high < 0 else "did not clearly change:"


def headline(stage: Stage, main: str) -> tuple[str, Measure | None, str]:
    """What the box of a stage tells: a value, its interval where it has one, and what it is of.

    Example: ("0.460", Measure(0.46, 0.43, 0.49, 1024), "countdown/pass@1"), ("512", None, "kept of 2,048 candidates")
    """
    if stage.filters:
        return count(stage.filters[-1][1]), None, f"kept of {count(stage.filters[0][1])} candidates"
    for key in [main, *stage.measures]:
        if key in stage.measures:
            return number(stage.measures[key].value), stage.measures[key], key
    return next(((number(value), None, key) for key, value in stage.numbers.items()), ("", None, ""))


def number(value: float, sign: str = "") -> str:
    """Three decimals below ten, one below a thousand, none above; small ones in powers of ten.

    Example: "0.460", "100.7", "1,024", "2.3e-05"; with `sign` "+": "+0.229"
    """
    size = abs(value)
    if not math.isfinite(value) or 0 < size < 0.0005:
        return f"{value:{sign}.1e}"
    return f"{value:{sign},.{3 if size < 10 else 1 if size < 1000 else 0}f}"


def count(value: float) -> str:
    """Example: "512", "13,847", "1.24 M", "8.02 G"."""
    for size, unit in ((1e9, "G"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:,.0f}"


def duration(seconds: float) -> str:
    """Example: "22 s", "7 min 51 s", "1 h 17 min"."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
