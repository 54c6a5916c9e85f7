"""How true the thoughts of Countdown answers are: equations, operands, claims of success, tries, checks.

A line for every file and task. A claim is right where the equation that is handed in is right, in whatever form; one that a
check on the page refutes is none. A try is whole where it has an equation for every number but one, and an answer where it
has every number once. With --within, the share of problems that were solved in so many tokens: what a shorter maximum length
would have left, since the tokens drawn do not depend on it. Checks are counted per line that says that something fits.

.venv/bin/python docs/thoughts.py runs/tiny-r1/base/rollouts/eval.parquet runs/tiny-r1/zero/rollouts/eval.parquet
.venv/bin/python docs/thoughts.py --within 64 128 256 -- runs/tiny-zero/zero/rollouts/eval.parquet
"""

import argparse
import re
from fractions import Fraction
from typing import Any

import pyarrow.parquet

from aha.data.countdown import QUESTION
from aha.data.mixing import translate
from aha.data.writers import CHECK, HITS, SURRENDERS
from aha.rewards.countdown import grade_answer

EQUATION = re.compile(r"(\d+)([-+*/])(\d+)=(\d+)")
START = QUESTION.partition("{")[0]  # of a question of Countdown
END_OF_THOUGHTS = re.compile(r"</think>|<answer>")  # writers forget the one or the other
TAG = re.compile(r"</?(think|answer)>")


def value(a: int, operator: str, b: int) -> Fraction | None:
    if operator == "/":
        return Fraction(a, b) if b else None
    return Fraction({"+": a + b, "-": a - b, "*": a * b}[operator])


def take_apart(completion: str) -> tuple[str, str]:
    """(thoughts, what is handed in), whichever tags are missing; nothing is handed in where the thoughts have no end.

    Example: take_apart("9+3=12 <answer>9+3=12</answer>") == ("9+3=12", "9+3")
    """
    thoughts, *rest = END_OF_THOUGHTS.split(completion, maxsplit=1)
    return TAG.sub("", thoughts).strip(), TAG.sub("", "".join(rest)).partition("=")[0].strip()


def truth(rows: list[dict[str, Any]]) -> list[str]:
    """The cells of one line: shares of true equations, foreign operands, right claims, whole tries and whole answers; tries;
    checks."""
    equations = true = foreign = claims = right = tries = whole = answers = checks = hits = 0
    for row in rows:
        *nums, target = map(int, re.findall(r"\d+", row["question"]))
        seen = {*nums, target}
        thoughts, answer = take_apart(row["completion"])
        thoughts = translate(thoughts, "zh")
        for a, operator, b, c in EQUATION.findall(thoughts):
            equations += 1
            true += value(int(a), operator, int(b)) == int(c)
            foreign += (int(a) not in seen) + (int(b) not in seen)
            seen.add(int(c))
        answers += sorted(nums) == sorted(map(int, re.findall(r"\d+", answer)))
        lines = thoughts.split("\n")
        claimed = lines[-1].endswith((*HITS, "it fits."))
        claims += claimed
        right += claimed and grade_answer(answer, nums, target).score == 1.0
        tried = [line for line in lines if not line.startswith((CHECK, *SURRENDERS))]
        tries += len(tried)
        whole += sum(len(EQUATION.findall(line)) == len(nums) - 1 for line in tried)
        hits += sum(line.endswith(HITS) for line in lines)
        checks += sum(line.startswith(CHECK) for line in lines)
    shares = [true / max(1, equations), foreign / max(1, equations) / 2, right / max(1, claims), whole / max(1, tries)]
    shares.append(answers / len(rows))
    return [*(f"{share:.1%}" for share in shares), f"{tries / len(rows):.1f}", f"{checks / max(1, hits):.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--within", nargs="+", type=int, metavar="TOKENS")
    args = parser.parse_args()
    if args.within:
        head = [f"{limit} tokens" for limit in args.within]
    else:
        head = ["equations true", "operands that stand nowhere above", "claims of success right", "tries that are whole"]
        head += ["answers that are whole", "tries per answer", "checks per hit"]
    print("| " + " | ".join(["file", "task", "answers", *head]) + " |")
    print("|---" * (3 + len(head)) + "|")
    for file in args.files:
        rows = [row for row in pyarrow.parquet.read_table(file).to_pylist() if row["question"].startswith(START)]
        for task in dict.fromkeys(row["kind"] for row in rows):
            mine = [row for row in rows if row["kind"] == task]
            if args.within:
                solved = [row["num_tokens"] for row in mine if row["solved"]]
                cells = [f"{sum(tokens <= limit for tokens in solved) / len(mine):.3f}" for limit in args.within]
            else:
                cells = truth(mine)
            print("| " + " | ".join([file, task, str(len(mine)), *cells]) + " |")


if __name__ == "__main__":
    main()
