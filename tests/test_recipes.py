"""Every recipe in recipes/ is valid and runs two steps at toy size."""

from pathlib import Path

import pytest
from rich.console import Console

from aha import pipeline
from aha.config import load_recipe

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
STATES = ("Run in full", "Run at toy size", "Not run")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_says_in_its_header_what_was_run(path):
    header = " ".join(line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("#"))
    assert any(state in header for state in STATES)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_runs_two_steps_at_toy_size(path, model_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    recipe = load_recipe(path)
    if any(not Path(source).exists() for stage in recipe.stages for source in stage.sources if "/" in source):
        pytest.skip("the data of this recipe is not here")
    overrides = []
    for stage in recipe.stages:
        if stage.kind == "eval":
            overrides += [f"{stage.name}.max_completion_length=6"]
        else:
            overrides += [f"{stage.name}.max_steps=2", f"{stage.name}.per_device_train_batch_size=8"]
        if stage.kind == "sft":
            overrides += [f"{stage.name}.data.limit=24"]
        if stage.kind == "grpo":
            overrides += [f"{stage.name}.max_completion_length=6", f"{stage.name}.data.limit=8"]
        if stage.model == "tiny-base" and getattr(stage, "init", "model") == "model":
            overrides += [f"{stage.name}.model={model_folder}"]
        data = getattr(stage, "eval", None)
        if data and data.data:
            small = [{**cfg.model_dump(), "limit": 4} for cfg in data.data]
            overrides += [f"{stage.name}.eval.data={small}"]
    console = Console(quiet=True)
    pipeline.run(load_recipe(path, [o.replace("None", "null") for o in overrides]), tmp_path / "run", console)
    assert (tmp_path / "run" / "summary.json").exists()
