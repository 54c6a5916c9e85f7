"""Print finished runs as a Markdown table, as README.md and docs/algorithms.md show them.

.venv/bin/python docs/results.py --stages runs/tiny-r1 runs/tiny-r1-43 --metrics countdown/pass@1 language/single
.venv/bin/python docs/results.py --seeds runs/ablations --metrics countdown/pass@1 words/pass@1
.venv/bin/python docs/results.py --seeds runs/tiny-zero-4? --metrics three/pass@1 four/pass@1 length/mean
.venv/bin/python docs/results.py --against base zero -- runs/tiny-zero-4?   # the second less the first, problem by problem
"""

import argparse
import json
from pathlib import Path
from typing import Any

import yaml
from record import by_problem, differences

from aha.log import clock, told
from aha.metrics import Measure
from aha.report.run import read_run

TASK = "countdown/pass@1"


def stages_of(folder: Path) -> list[dict[str, Any]]:
    """The finished stages of a run: name, seconds, seed and Measures by key."""
    stages = []
    for stage in json.loads((folder / "summary.json").read_text())["stages"]:
        measures = {key: Measure(**value) for key, value in stage["metrics"].items() if isinstance(value, dict)}
        if measures:
            seed = yaml.safe_load((folder / stage["name"] / "config.yaml").read_text())["seed"]
            stages.append({"name": stage["name"], "seconds": stage["seconds"], "seed": seed, "measures": measures})
    return stages


def by_run(folders: list[Path]) -> list[str]:
    """A row for every stage of every run."""
    lines = [
        f"| run | seed | stage | time | {TASK} [95% interval] | format/rate | length/mean |",
        "|---|---|---|---|---|---|---|",
    ]
    for folder in folders:
        for stage in stages_of(folder):
            if TASK not in stage["measures"]:
                continue
            form, length = (f"{stage['measures'][key].value:.3g}" for key in ("format/rate", "length/mean"))
            accuracy, seconds = told(stage["measures"][TASK]), clock(stage["seconds"])
            lines.append(f"| {folder.name} | {stage['seed']} | {stage['name']} | {seconds} | {accuracy} | {form} | {length} |")
    return lines


def by_stage(folders: list[Path], keys: list[str]) -> list[str]:
    """For every metric a row for every stage that has it, a column for the seed of every run, then the mean over the runs."""
    runs = [{stage["name"]: stage for stage in stages_of(folder)} for folder in folders]
    seeds = [next(iter(run.values()))["seed"] for run in runs]
    head = ["metric", "stage", *(f"seed {seed}" for seed in seeds), "mean"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for key in keys:
        for name in runs[0]:
            found = [run[name]["measures"].get(key) if name in run else None for run in runs]
            if values := [measure.value for measure in found if measure]:
                cells = [f"{m.value:.3f} [{m.low:.3f}, {m.high:.3f}]" if m else "" for m in found]
                lines.append(f"| {key} | {name} | {' | '.join(cells)} | {sum(values) / len(values):.3f} |")
    return lines


def by_metric(folders: list[Path], keys: list[str]) -> list[str]:
    """For every metric a row for every run, a column for every stage that has one of them; values without intervals."""
    runs = [(stages[0]["seed"], {stage["name"]: stage["measures"] for stage in stages}) for stages in map(stages_of, folders)]
    names = [name for name, measures in runs[0][1].items() if any(key in measures for key in keys)]
    lines = ["| metric | seed | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for key in keys:
        for seed, stages in runs:
            cells = [f"{stages[name][key].value:.3f}" if key in stages.get(name, {}) else "" for name in names]
            lines.append(f"| {key} | {seed} | {' | '.join(cells)} |")
    return lines


def by_difference(folders: list[Path], before: str, after: str, keys: list[str]) -> list[str]:
    """For every metric a row for every run: what a stage has more of it than another, over the problems of both."""
    found = {}
    for folder in folders:
        stages = {stage.name: stage for stage in read_run(folder).stages}
        if missing := [name for name in (before, after) if name not in stages]:
            raise SystemExit(f"{folder}: no stage {missing[0]}")
        found[folder] = differences(by_problem(stages[before]), by_problem(stages[after]))
    lines = ["| metric | run | difference [95% interval] | problems |", "|---|---|---|---|"]
    for key in keys or dict.fromkeys(key for changes in found.values() for key in changes):
        for folder, changes in found.items():
            cells = " | "  # not known problem by problem, or of another recipe
            if key in changes:
                change, low, high, n = changes[key]
                cells = f"{change:+.3f} [{low:+.3f}, {high:+.3f}] | {n:,}"
            lines.append(f"| {key} | {folder.name} | {cells} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--seeds", action="store_true", help="runs of one recipe with several seeds: a row for every stage")
    parser.add_argument("--stages", action="store_true", help="runs of one recipe: a column for every stage")
    parser.add_argument("--against", nargs=2, metavar=("BEFORE", "AFTER"), help="two stages, compared problem by problem")
    parser.add_argument(
        "--metrics", nargs="+", default=[], help="of --seeds, --stages and --against; of the last all if not told"
    )
    args = parser.parse_args()
    metrics = args.metrics or [TASK, "format/rate", "length/mean"]
    if args.against:
        lines = by_difference(args.runs, *args.against, args.metrics)
    elif args.stages:
        lines = by_metric(args.runs, metrics)
    else:
        lines = by_stage(args.runs, metrics) if args.seeds else by_run(args.runs)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
