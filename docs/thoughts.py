"""How true the thoughts of Countdown answers are: equations, operands, claims of success, tries, checks.

A claim is right where the equation that is handed in is right; one that a check on the page refutes is none.

.venv/bin/python docs/thoughts.py runs/tiny-r1/base/rollouts/eval.parquet runs/tiny-r1/zero/rollouts/eval.parquet
"""

import re
import sys
from fractions import Fraction

import pyarrow.parquet

from aha.data.mixing import translate
from aha.data.writers import CHECK, HITS, SURRENDERS

EQUATION = re.compile(r"(\d+)([-+*/])(\d+)=(\d+)")


def value(a: int, operator: str, b: int) -> Fraction | None:
    if operator == "/":
        return Fraction(a, b) if b else None
    return Fraction({"+": a + b, "-": a - b, "*": a * b}[operator])


def main() -> None:
    print(
        "| file | answers | equations true | operands that stand nowhere above | claims of success right | tries per answer "
        "| checks per claim |"
    )
    print("|---|---|---|---|---|---|---|")
    for file in sys.argv[1:]:
        rows = pyarrow.parquet.read_table(file).to_pylist()
        equations = true = foreign = claims = right = tries = checks = hits = 0
        for row in rows:
            seen = {int(number) for number in re.findall(r"\d+", row["question"])}
            thoughts = translate(row["completion"].partition("</think>")[0], "zh")
            for a, operator, b, c in EQUATION.findall(thoughts):
                equations += 1
                true += value(int(a), operator, int(b)) == int(c)
                foreign += (int(a) not in seen) + (int(b) not in seen)
                seen.add(int(c))
            lines = thoughts.split("\n")
            claimed = lines[-1].endswith((*HITS, "it fits."))
            claims += claimed
            right += claimed and row["solved"]
            tries += sum(not line.startswith((CHECK, *SURRENDERS)) for line in lines)
            hits += sum(line.endswith(HITS) for line in lines)
            checks += sum(line.startswith(CHECK) for line in lines)
        shares = (true / max(1, equations), foreign / max(1, equations) / 2, right / max(1, claims))
        told = " | ".join(f"{share:.1%}" for share in shares)
        print(f"| {file} | {len(rows)} | {told} | {tries / len(rows):.1f} | {checks / max(1, hits):.2f} |")


if __name__ == "__main__":
    main()
