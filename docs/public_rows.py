"""Write those rows of the public Countdown data that no text of the tiny world can hold: the ones of split `test`.

The split is a hash of numbers and target (aha/data/countdown.py), so neither the base nor any run on the generator has seen
these problems. Three files: three numbers, four numbers, and all.

.venv/bin/python docs/public_rows.py YOUR_COPY/train.parquet runs/public
"""

import argparse
import json
from pathlib import Path

import pyarrow.parquet

from aha.data.countdown import split_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="parquet with columns nums and target, as Jiayi-Pan/Countdown-Tasks-3to4 has")
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    rows = [row for row in pyarrow.parquet.read_table(args.file).to_pylist() if split_of(row["nums"], row["target"]) == "test"]
    for name, counts in {"three": {3}, "four": {4}, "all": {3, 4}}.items():
        chosen = [{"nums": row["nums"], "target": row["target"]} for row in rows if len(row["nums"]) in counts]
        (args.folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen))
        print(f"{args.folder / f'{name}.jsonl'}: {len(chosen)} rows")


if __name__ == "__main__":
    main()
