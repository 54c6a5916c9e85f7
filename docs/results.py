"""Print finished runs as a Markdown table, the rows of the results in README.md.

.venv/bin/python docs/results.py runs/demo runs/demo-43 runs/demo-44
"""

import json
import sys
from pathlib import Path

import yaml

from aha.log import clock, told
from aha.metrics import Measure


def main() -> None:
    print("| run | seed | stage | time | countdown/pass@1 [95% interval] | format/rate | length/mean |")
    print("|---|---|---|---|---|---|---|")
    for folder in map(Path, sys.argv[1:]):
        for stage in json.loads((folder / "summary.json").read_text())["stages"]:
            seed = yaml.safe_load((folder / stage["name"] / "config.yaml").read_text())["seed"]
            measures = {key: Measure(**value) for key, value in stage["metrics"].items() if isinstance(value, dict)}
            form, length = (f"{measures[key].value:.3g}" for key in ("format/rate", "length/mean"))
            accuracy, seconds = told(measures["countdown/pass@1"]), clock(stage["seconds"])
            print(f"| {folder.name} | {seed} | {stage['name']} | {seconds} | {accuracy} | {form} | {length} |")


if __name__ == "__main__":
    main()
