"""How true the thoughts of Countdown answers are: equations, operands, claims of success, tries.

.venv/bin/python docs/thoughts.py runs/demo/base/rollouts/eval.parquet runs/demo/zero/rollouts/eval.parquet
"""

import re
import sys
from fractions import Fraction

import pyarrow.parquet

from aha.data.writers import HITS

EQUATION = re.compile(r"(\d+)([-+*/])(\d+)=(\d+)")


def value(a: int, operator: str, b: int) -> Fraction | None:
    if operator == "/":
        return Fraction(a, b) if b else None
    return Fraction({"+": a + b, "-": a - b, "*": a * b}[operator])


def main() -> None:
    print(
        "| file | answers | equations true | operands that stand nowhere above | claims of success right | tries per answer |"
    )
    print("|---|---|---|---|---|---|")
    for file in sys.argv[1:]:
        rows = pyarrow.parquet.read_table(file).to_pylist()
        equations = true = foreign = claims = right = tries = 0
        for row in rows:
            seen = {int(number) for number in re.findall(r"\d+", row["question"])}
            thoughts = row["completion"].partition("</think>")[0]
            for a, operator, b, c in EQUATION.findall(thoughts):
                equations += 1
                true += value(int(a), operator, int(b)) == int(c)
                foreign += (int(a) not in seen) + (int(b) not in seen)
                seen.add(int(c))
            claimed = any(hit.strip(" ,") in thoughts for hit in HITS)
            claims += claimed
            right += claimed and row["solved"]
            tries += thoughts.count("\n") + 1
        shares = (true / equations, foreign / equations / 2, right / claims)
        print(f"| {file} | {len(rows)} | " + " | ".join(f"{share:.1%}" for share in shares) + f" | {tries / len(rows):.1f} |")


if __name__ == "__main__":
    main()
