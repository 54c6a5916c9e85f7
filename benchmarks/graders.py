"""How fast mathematical answers are graded: ours with its workers warm beside plain math-verify, one row after the other.

Both grade the same rows by turns, so that what else the machine does falls on both; each repeat begins with empty caches.

.venv/bin/python benchmarks/graders.py ../shared/data/grader [--repeats 5] [--only gsm8k_model_solutions]
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

from aha.audit import math_verify_says
from aha.rewards import forms, maths
from aha.rewards.kept import Kept
from aha.rewards.workers import WORKERS

Pair = tuple[str, str]  # gold and answer
MIN_ROWS = 500  # of a set that is worth a ratio
STUCK = ("\\sum_{k=1}^{9999} \\frac{1}{k^{k}}", "\\prod_{k=1}^{9999} \\sin(\\frac{1}{k})")  # would run for ever


def pairs_of(path: Path) -> list[Pair]:
    """Gold and answer of every row that has both."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = [(row["gold"], row.get("answer", row.get("pred"))) for row in rows if "gold" in row]
    return [(str(gold), "" if answer is None else str(answer)) for gold, answer in found]


def forget() -> None:
    """Empty all caches, and start the workers anew, so that no repeat profits from another; their start is not timed."""
    for cached in (maths.read_answer, forms.read_forms, Kept.of):
        cached.cache_clear()
    WORKERS.close()
    WORKERS.decide([(f"x^2-{n}", f"(x-{n})(x+1)") for n in range(2, 2 + 2 * WORKERS.most)])


def ours(pairs: list[Pair]) -> None:
    maths.grade_answers(pairs)


def theirs(pairs: list[Pair]) -> None:
    for gold, answer in pairs:
        math_verify_says(gold, answer)


def seconds(grade: Callable[[list[Pair]], None], pairs: list[Pair]) -> float:
    forget()
    started = time.perf_counter()
    grade(pairs)
    return time.perf_counter() - started


def compare(name: str, pairs: list[Pair], repeats: int) -> str:
    """One line of the table: milliseconds per row of the fastest repeats, and the ratios of neighbouring runs."""
    taken: dict[Callable[[list[Pair]], None], list[float]] = {ours: [], theirs: []}
    for repeat in range(repeats):
        for grade in (ours, theirs) if repeat % 2 else (theirs, ours):
            taken[grade].append(seconds(grade, pairs))
    ratios = [b / a for a, b in zip(taken[ours], taken[theirs], strict=True)]
    ms = [1000 * min(taken[grade]) / len(pairs) for grade in (ours, theirs)]
    spread = f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
    return f"| {name} | {len(pairs):,} | {ms[0]:.3f} | {ms[1]:.3f} | {spread} |"


def group(repeats: int) -> str:
    """Seconds of 512 answers that all need algebra, one of which would run for ever, and of the 511 others alone."""
    others = [(f"x^2-{n * n}", f"(x-{n})(x+{n + n % 2})") for n in range(1, 512)]
    with_stuck, alone = ([], []) if repeats else ([0.0], [0.0])
    for _ in range(repeats):
        alone.append(seconds(ours, others))
        with_stuck.append(seconds(ours, [*others[:9], STUCK, *others[9:]]))
    return (
        f"512 answers, one without end: {statistics.median(with_stuck):.1f} s; the 511 others: {statistics.median(alone):.1f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of .jsonl files with gold and answer")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", help="one set of the folder")
    args = parser.parse_args()
    theirs([("1", "x")])  # imports all of math-verify before the clock starts
    load = os.getloadavg()[0]
    print(
        f"{date.today()}, {platform.machine()}, {os.cpu_count()} processors, load {load:.1f}, {WORKERS.most} workers, "
        f"Python {platform.python_version()}, {args.repeats} repeats\n"
    )
    print("| set | n | ms per row, ours | ms, math-verify | times as fast: median (range) |\n|---|---|---|---|---|")
    for path in sorted(args.folder.glob("*.jsonl")):
        pairs = pairs_of(path)
        if len(pairs) >= MIN_ROWS and args.only in (None, path.stem):
            print(compare(path.stem, pairs, args.repeats), flush=True)
    print("\n" + group(args.repeats))


if __name__ == "__main__":
    main()
