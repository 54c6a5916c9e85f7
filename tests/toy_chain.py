"""A chain of four toy stages with a side branch, run in this process: a -> b -> last, and a -> side."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from aha import pipeline
from aha.recipe import load_recipe
from aha.stage_configs import Recipe

STAGES = ["a", "b", "side", "last"]
RECIPE = """
name: chain
defaults: {{dtype: float32, max_steps: 2, per_device_train_batch_size: 4, save_steps: 1, learning_rate: 1.0e-3}}
stages:
  - {{name: a, kind: sft, model: {model}, data: {{source: writers, limit: 8}}}}
  - {{name: b, kind: sft, model: "${{a.model}}", data: {{source: {rows}}}}}
  - {{name: side, kind: sft, model: "${{a.model}}", data: {{source: writers, limit: 8}}}}
  - name: last
    kind: eval
    model: "${{b.model}}"
    max_completion_length: 6
    eval: {{data: [{{source: countdown, split: test, limit: 4}}]}}
"""


def write_chain(folder: Path, model: Path) -> None:
    """The recipe `chain.yaml` and the file of rows that stage b learns from."""
    (folder / "rows.jsonl").write_text('{"prompt": "1+1=", "completion": "2"}\n' * 4)
    (folder / "chain.yaml").write_text(RECIPE.format(model=model, rows=folder / "rows.jsonl"))


def load_chain(folder: Path, *overrides: str) -> Recipe:
    return load_recipe(folder / "chain.yaml", list(overrides))


def run_chain(folder: Path, *overrides: str, redo_from: Sequence[str] = (), only: str | None = None) -> str:
    """Run into folder/run; returns what the console said."""
    with (folder / "console.txt").open("w") as file:
        console = Console(file=file, width=80)
        pipeline.run(load_chain(folder, *overrides), folder / "run", console, redo_from, only, "aha run chain.yaml")
    return (folder / "console.txt").read_text()


def skipped(told: str) -> list[str]:
    return [name for name in STAGES if f"{name}: done, skipped" in told]
