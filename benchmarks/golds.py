"""How many gold answers a grader finds equal to themselves, and to a copy that is set differently.

.venv/bin/python benchmarks/golds.py ../shared/data/bigmath/bigmath_rl_tinyv_train.parquet
"""

import re
import sys
from collections.abc import Sequence

import pyarrow.parquet

from aha.audit import math_verify_says
from aha.metrics import wilson
from aha.rewards.maths import grade_answers

SIGNS = {"\\leq": "≤", "\\geq": "≥", "\\le": "≤", "\\ge": "≥", "\\infty": "∞"}


def reformatted(gold: str) -> str:
    """The same answer in a box, with larger fractions, signs of Unicode, and brackets without sizes."""
    text = gold.replace("\\frac", "\\dfrac")
    text = re.sub(r"\\(?:left|right)(?![A-Za-z])", "", text)
    text = re.sub(r"\\(?:leq?|geq?|infty)(?![A-Za-z])", lambda match: SIGNS[match[0]], text)
    return f"\\boxed{{{text}}}"


def theirs(pairs: Sequence[tuple[str, str]]) -> int:
    return sum(math_verify_says(gold, answer) for gold, answer in pairs)


def ours(pairs: Sequence[tuple[str, str]]) -> int:
    return sum(grade.score >= 1 for grade in grade_answers(pairs))


def main() -> None:
    rows = pyarrow.parquet.read_table(sys.argv[1], columns=["reward_model"]).to_pylist()
    golds = [row["reward_model"]["ground_truth"] for row in rows]
    print("| gold equals | n | ours | math-verify |\n|---|---|---|---|")
    for name, others in (("itself", golds), ("a reformatted copy", [reformatted(gold) for gold in golds])):
        pairs = list(zip(golds, others, strict=True))
        shares = [wilson(grade(pairs), len(pairs)) for grade in (ours, theirs)]
        told = [f"{m.value * m.n:,.0f}, {m.value:.2%} ({m.low:.2%} to {m.high:.2%})" for m in shares]
        print(f"| {name} | {len(pairs):,} | {told[0]} | {told[1]} |", flush=True)


if __name__ == "__main__":
    main()
