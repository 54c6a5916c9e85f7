"""Write docs/cli.md, recipes.md, rewards.md and the samples of tiny-world.md from the program itself, and the generated parts
of guide.md and README.md from a recorded run.

With --check, fail where they are out of step.

.venv/bin/python docs/generate.py [--check]
"""

import inspect
import os
import sys
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

os.environ.update(COLUMNS="80", TERM="dumb", NO_COLOR="1")

from guide import guide_files
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.testing import CliRunner
from world import world_page

from aha import config, stage_configs
from aha.cli import app
from aha.rewards import GIVEN, REWARDS

FOLDER = Path(__file__).parent
COMMANDS = ("", "run", "plan", "status", "report", "export", "eval", "sample", "grade", "chat")
SECTIONS = [
    (stage_configs.Recipe, "The recipe"),
    (stage_configs.StageConfig, "Every stage"),
    (config.PromptConfig, "`prompt`"),
    (config.DataConfig, "`data`"),
    (stage_configs.DecodingConfig, "Stages that draw completions: `grpo`, `eval`, `sft`, `sample`"),
    (stage_configs.SamplingConfig, "Stages that are measured by completions: `grpo`, `eval`, `sft`"),
    (config.EvalConfig, "`eval`"),
    (stage_configs.TrainingConfig, "Stages that train: `grpo`, `sft`, `reward_model`"),
    (stage_configs.GrpoStage, "`kind: grpo`"),
    (config.RewardConfig, "`rewards`"),
    (stage_configs.SampleStage, "`kind: sample`"),
    (config.ServerConfig, "`server`"),
    (config.NamedConfig, "`refine`, `filters`"),
    (config.ExampleConfig, "`examples`"),
    (config.RewriteConfig, "`rewrite`"),
    (stage_configs.SftStage, "`kind: sft`"),
    (config.ArchitectureConfig, "`architecture`, with `init: scratch`"),
    (stage_configs.RewardModelStage, "`kind: reward_model`"),
    (config.HeldOutConfig, "`eval` of `reward_model`"),
]


def cli_page() -> str:
    parts = ["# Command line\n\nWritten by `docs/generate.py` from the program's own help.\n"]
    for command in COMMANDS:
        arguments = [command, "--help"] if command else ["--help"]
        lines = [line.rstrip() for line in CliRunner().invoke(app, arguments, prog_name="aha").output.strip().splitlines()]
        text = "\n".join(lines)
        parts.append(f"## `{' '.join(['aha', command]).strip()}`\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def recipes_page() -> str:
    parts = [
        "# Recipes\n",
        "Every key that a recipe may hold, written by `docs/generate.py` from `aha/config.py` and `aha/stage_configs.py`.",
        "Keys that TRL and transformers have keep their names and meaning, not always their defaults:",
        "`gradient_checkpointing` is false here, `num_train_epochs` 1, `logging_steps` 1, `save_total_limit` 2, and",
        "`learning_rate` 1e-6 for `sft` too.\n",
        "Precedence: defaults, then the recipe, then `stage.key=value` on the command line. Beside the keys below, a recipe",
        "may hold `defaults`: a mapping that is put under every stage that has such keys. Mappings are merged key by key,",
        "lists are replaced. On the command line a number names a place in a list (`zero.eval.data.0.limit=64`), and a whole",
        "value is YAML in quotes (`'zero.data={source: words}'`).\n",
        "How the batch keys of `grpo` combine: one batch of rollouts has `per_device_train_batch_size` x",
        "`steps_per_generation` / `num_generations` prompts and makes `steps_per_generation` / `gradient_accumulation_steps`",
        "x `num_iterations` updates; `max_steps` counts updates. With 64, 4 and 8 and no accumulation that is 32 prompts and",
        "4 updates, so 48 steps are 12 batches of rollouts.\n",
    ]
    for model, title in SECTIONS:
        bases = reversed(model.__mro__[1:])
        inherited = {name: field.default for base in bases for name, field in getattr(base, "model_fields", {}).items()}
        own = model.model_fields.items()
        fields = {name: field for name, field in own if name not in inherited or field.default != inherited[name]}
        if not fields:
            continue
        summary = (model.__doc__ or "").strip().splitlines()[0]
        parts.append(f"## {title}\n\n{summary}\n\n| key | values | default | meaning |\n|---|---|---|---|")
        parts += [row(name, field) for name, field in fields.items()]
        parts.append("")
    return "\n".join(parts)


def row(name: str, field: FieldInfo) -> str:
    default = "required" if field.is_required() else shown(field.get_default(call_default_factory=True))
    return f"| `{name}` | {values(field.annotation).replace('|', '&#124;')} | {default} | {field.description or ''} |"


def shown(default: Any) -> str:
    if isinstance(default, BaseModel):
        return "see its section"
    if isinstance(default, list | dict):
        return f"`[{', '.join(getattr(item, 'name', str(item)) for item in default)}]`" if default else "none"
    text = str(default).replace("\n", "\\n").replace("|", "\\|")  # a row of a table is one line
    return {None: "", "": "empty"}.get(default, f"`{text}`")


def values(annotation: Any) -> str:
    """The type of a field in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(values(argument) for argument in arguments if argument is not type(None))
    if origin is list:
        return f"list of {values(arguments[0])}"
    if origin is dict:
        return "mapping"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    names = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    return names.get(annotation, "stage")


def rewards_page() -> str:
    parts = [
        "# Rewards\n",
        "Written by `docs/generate.py` from the functions in `aha/rewards`. A reward is called as in TRL,",
        "`f(prompts, completions, completion_ids=..., **columns) -> list[float | None]`; None skips that completion for that",
        "reward. `args` of the recipe are its keyword arguments. Of those with a default, columns reach only the ones whose",
        "default is None and whose type is not that of a single value, as text or number; `**columns` gets all others. Beside",
        "its arguments every reward has `weight` (a number, or one per task), `label` (its name in metrics), `requires`",
        "(another reward of the list, whose top score it counts with), `cap`, `start_step` and `end_step`.\n",
        "```yaml",
        "rewards:",
        "  - {name: accuracy, weight: 1.0}",
        "  - {name: cosine, weight: 0.5, args: {max_length: 1000}, requires: accuracy}",
        '  - {name: "my_rewards:polite", weight: {chat: 0.2}, start_step: 0.75}',
        "```\n",
    ]
    for name, function in REWARDS.items():
        parameters = list(inspect.signature(function).parameters.values())
        named = [p for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD and p.name not in GIVEN]
        columns = [f"`{p.name}`" for p in named if p.default is p.empty]
        parts.append(f"## `{name}`\n\n{inspect.getdoc(function)}\n")
        if columns:
            parts.append(f"Columns of the data: {', '.join(columns)}.\n")
        settable = [f"`{p.name}` ({shown(p.default) or 'no default'})" for p in named if p.default is not p.empty]
        if settable:
            parts.append(f"Arguments: {', '.join(settable)}.\n")
    return "\n".join(parts)


def main() -> None:
    stale = []
    world = world_page((FOLDER / "tiny-world.md").read_text())
    pages = {"cli.md": cli_page(), "recipes.md": recipes_page(), "rewards.md": rewards_page(), "tiny-world.md": world}
    pages |= guide_files((FOLDER / "guide.md").read_text(encoding="utf-8"))
    for name, text in pages.items():
        path = FOLDER / name
        if "--check" not in sys.argv:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(str(path))
    if stale:
        sys.exit(f"out of step with the program: {', '.join(stale)}; run docs/generate.py")


if __name__ == "__main__":
    main()
