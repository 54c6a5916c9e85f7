"""Write those rows of the public Countdown data that nothing here has learned from: the ones of the splits `test` and `cold`.

The split is a hash of numbers and target (aha/data/countdown.py). The text of the base is of `base`, and R1-Zero trains on
`train`, so neither has seen these problems. Three files: three numbers, four numbers, and all.

.venv/bin/python docs/public_rows.py YOUR_COPY/train.parquet runs/public
"""

import argparse
import json
from pathlib import Path

import pyarrow.parquet

from aha.data.countdown import split_of

SPLITS = ("test", "cold")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="parquet with columns nums and target, as Jiayi-Pan/Countdown-Tasks-3to4 has")
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    table = pyarrow.parquet.read_table(args.file, columns=["nums", "target"]).to_pylist()
    rows = [row for row in table if split_of(row["nums"], row["target"]) in SPLITS]
    for name, counts in {"three": {3}, "four": {4}, "all": {3, 4}}.items():
        chosen = [row for row in rows if len(row["nums"]) in counts]
        (args.folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen))
        print(f"{args.folder / f'{name}.jsonl'}: {len(chosen)} rows")


if __name__ == "__main__":
    main()
