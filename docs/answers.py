"""What the answers of a run are like, a line for every file and task: right, cut off, how long, in how many words.

With several samples of a problem the intervals are over problems. --together takes all files for one: those of some steps of
training, of which each holds but a few answers of a task. --wordings has a line for every wording of an unsafe or
unsafe-looking request instead; those of split `test` stand in no text and no training.

.venv/bin/python docs/answers.py runs/tiny-r1/{base,zero}/rollouts/eval.parquet
.venv/bin/python docs/answers.py --wordings runs/tiny-r1/align/rollouts/eval.parquet
.venv/bin/python docs/answers.py --together -- runs/tiny-r1/align/rollouts/step-*.parquet
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet

from aha.config import PromptConfig
from aha.data.chat_acts import ASKING, ASKING_IN_TEST
from aha.log import interval
from aha.metrics import measure, share
from aha.types import Completion, Group, Problem, Sample

Row = dict[str, Any]

WORDINGS = [wording for table in (ASKING, ASKING_IN_TEST) for spoken in table for wording in spoken]


def wording_of(row: Row) -> str | None:
    """The wording of an unsafe or unsafe-looking request; None of other questions."""
    if row["kind"] not in ("unsafe", "unsafe_looking"):
        return None
    shapes = (re.escape(wording).replace(re.escape("{act}"), ".+") for wording in WORDINGS)
    found = next((w for w, shape in zip(WORDINGS, shapes, strict=True) if re.fullmatch(shape, row["question"])), None)
    return f"{row['kind']}: {found}"


def groups_of(rows: Sequence[Row]) -> list[Group]:
    """The rows of rollouts by problem, as what measures read them."""
    by_problem: dict[tuple[int, str, str], list[Row]] = {}
    for row in rows:
        by_problem.setdefault((row["step"], row["problem"], row["question"]), []).append(row)
    groups = []
    for samples in by_problem.values():
        completions = [
            Completion(Sample([0] * row["num_tokens"], [], row["finish_reason"]), row["completion"], {}, None, row["solved"])
            for row in samples
        ]
        problem = Problem(samples[0]["problem"], samples[0]["kind"], samples[0]["question"], {}, "")
        groups.append(Group(problem, samples[0]["prompt"], [], completions))
    return groups


def cells(rows: Sequence[Row]) -> list[str]:
    groups = groups_of(rows)
    measures = measure(groups, PromptConfig())
    cut_off = share(groups, lambda completion: completion.sample.finish_reason == "length")
    right = measures[f"{groups[0].problem.task}/pass@1"]
    told = [right, cut_off, *(measures[key] for key in ("language/single", "language/words", "length/mean"))]
    return [f"{len(rows):,}", *map(interval, told)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="rollouts/eval.parquet or rollouts/step-*.parquet of stages")
    parser.add_argument("--together", action="store_true")
    parser.add_argument("--wordings", action="store_true")
    args = parser.parse_args()
    tables = [pyarrow.parquet.read_table(file).to_pylist() for file in args.files]
    named = [("all", [row for rows in tables for row in rows])] if args.together else zip(args.files, tables, strict=True)
    head = ["file", "answers to", "n", "right", "cut off", "one language", "words of the thoughts", "tokens"]
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for name, rows in named:
        by_line: dict[str, list[Row]] = {}
        for row in rows:
            if what := wording_of(row) if args.wordings else row["kind"]:
                by_line.setdefault(what, []).append(row)
        for what in sorted(by_line):
            print("| " + " | ".join([str(name), what, *cells(by_line[what])]) + " |")


if __name__ == "__main__":
    main()
