"""Every recipe in recipes/ is valid and runs two steps at toy size, on a random model of the class that it names."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from rich.console import Console

from aha import pipeline
from aha.config import DataConfig
from aha.data.sources import GENERATORS
from aha.model import save_policy
from aha.recipe import load_recipe
from aha.stage_configs import StageConfig

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
STATES = ("Run in full", "Run at toy size", "Not run")
CLASSES = {  # start of a hub id: class, chat template
    "Qwen/Qwen2.5": ("qwen2", "qwen2_5"),
    "Qwen/Qwen3": ("qwen3", "qwen3"),
    "deepseek-ai/": ("deepseek_v3", "deepseekv3"),
}
ROWS = {  # invented rows in the schema of each public data set
    "countdown-tasks-3to4": {"nums": [44, 19, 35], "target": 98},
    "gsm8k": {"question": "Ann has 2 pens and buys 3. How many has she?", "answer": "2 + 3 = 5\n#### 5"},
    "numina-math-tir": {"problem": "What is $2+3$?", "solution": "So the answer is $\\boxed{5}$.", "messages": []},
    "deepscaler": {"problem": "What is $2+3$?", "answer": "5", "solution": "", "difficulty": 1},
    "math-500": {"problem": "What is $2+3$?", "answer": "5", "solution": "", "subject": "Algebra", "level": 1},
    "aime24": {"problem": "What is $2+3$?", "answer": "5", "solution": ""},
    "aime25": {"problem": "What is $2+3$?", "answer": "5"},
    "mgsm": {"question": "2+3?", "answer_number": 5, "answer": ""},
}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_says_in_its_header_what_was_run_and_the_readme_says_the_same(path):
    header = " ".join(line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("#"))
    [state] = [state for state in STATES if state in header]
    row = next(line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith(f"| `{path.name}`"))
    assert row.rstrip(" |").lower().endswith(state.lower())


@pytest.fixture
def toy_model(make_family, model_folder, tmp_path):
    """A function that saves a random model of the class of a hub id, with the chat template of its family."""

    def make(name: str) -> Path:
        if name in ("tiny-base", "tiny-student"):
            return model_folder
        family, template = next(found for start, found in CLASSES.items() if name.startswith(start))
        policy = make_family(family)
        trl = pytest.importorskip("trl")
        policy.tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates" / f"{template}.jinja").read_text()
        save_policy(policy, tmp_path / family, torch.float32)
        return tmp_path / family

    return make


def toy_data(cfg: DataConfig, folder: Path) -> dict:
    """The source itself where it is a generator or an earlier stage, else a file of invented rows with the same mapping."""
    values = {**cfg.model_dump(exclude_none=True), "limit": 8}
    if cfg.source.startswith("${"):
        return values
    if cfg.source in GENERATORS:
        return {**values, "limit": 24}
    preset = cfg.preset or cfg.source
    file = folder / f"{preset}.jsonl"
    file.write_text("".join(json.dumps({**ROWS[preset], "number": i}) + "\n" for i in range(8)))
    return {**values, "source": str(file), "preset": preset, "split": "en" if preset == "mgsm" else "train"}


def toy_overrides(stage: StageConfig, toy_model: Callable[[str], Path], folder: Path) -> dict[str, object]:
    """What makes a stage small: a toy model, toy data, few short completions, two steps."""

    def toy(sources: Sequence[DataConfig]) -> list[dict]:
        return [toy_data(cfg, folder) for cfg in sources]

    changed: dict[str, object] = {}
    if not stage.model.startswith("${") and getattr(stage, "init", "model") == "model":
        changed["model"] = str(toy_model(stage.model))
    if stage.kind != "reward_model":
        changed["max_completion_length"] = 6
    if stage.kind == "reward_model":
        changed["eval"] = {"data": toy(stage.eval.data)}
    elif stage.kind != "sample":
        changed["eval"] = {"data": toy(stage.eval.data), "num_generations": min(2, stage.eval.num_generations)}
    if stage.kind != "eval":
        changed["data"] = toy(stage.data)
    if stage.kind == "sample":
        changed |= {"filters": [], "num_generations": 2}  # random models are never right
    elif stage.kind != "eval":
        changed |= {"max_steps": 2, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
    if stage.kind == "grpo":
        changed |= {"max_prompt_length": None, "num_generations": min(8, stage.num_generations)}
        if stage.steps_per_generation:
            changed["steps_per_generation"] = 2
    return {f"{stage.name}.{key}": value for key, value in changed.items()}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_runs_two_steps_at_toy_size(path, toy_model, tmp_path):
    overrides: dict[str, object] = {}
    for stage in load_recipe(path).stages:
        overrides |= toy_overrides(stage, toy_model, tmp_path)
    told = [f"{key}={json.dumps(value)}" for key, value in overrides.items()]  # JSON is YAML
    pipeline.run(load_recipe(path, told), tmp_path / "run", Console(quiet=True))
    stages = json.loads((tmp_path / "run" / "summary.json").read_text())["stages"]
    assert [stage["name"] for stage in stages] == [stage.name for stage in load_recipe(path).stages]
