"""A recipe in a run directory: which stage needs which, what is done, and what has changed since.

The fingerprint of a stage is the sha256 of its resolved configuration and of the fingerprints of its inputs, so a change
anywhere changes the fingerprints of exactly the stages that depend on it.
"""

import contextlib
import functools
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import yaml

from aha.bundled import bundled_folder
from aha.data.presets import PRESETS
from aha.data.sources import GENERATORS
from aha.recipe import needs, reference, references
from aha.rewards import module_file
from aha.rundir import RunDir, StageDir, content, fingerprint, fingerprint_path, read_mapping
from aha.stage_configs import STAGE_KINDS, Recipe, StageConfig
from aha.types import UserError

COMMAND_LINE = "# "  # in front of the command in recipe.yaml
FINGERPRINT_LINE = "# fingerprint: "
INPUTS_LINE = "# inputs: "
MADE_OF_LINE = "# made of: "
NOTHING_LOST = {"config.yaml", "error.txt", "progress.json"}  # a stage directory with no other file can be begun anew
OF_A_STAGE = {"stage.json", "metrics.jsonl", "checkpoints", "rollouts", "replies", "verdicts"}  # one without its configuration
CHANGES_TOLD = 4

State = Literal["absent", "unfinished", "done", "changed"]


@dataclass(frozen=True)
class Node:
    """A stage of a recipe and its directory.

    Example: Node(cfg=GrpoStage(name="zero", ...), stage=StageDir(Path("runs/tiny-r1/zero")), needs=["base"],
                  inputs={"model": "0d31..."}, fingerprint="77ab...")
    """

    cfg: StageConfig
    stage: StageDir
    needs: list[str]  # stages that it refers to
    inputs: Mapping[str, str]  # key or path of what it reads: fingerprint
    fingerprint: str

    @property
    def name(self) -> str:
        return self.cfg.name

    @property
    def state(self) -> State:
        """absent: nothing of it is there; changed: the directory holds another configuration, or was made of other inputs."""
        before = read_config(self.stage)
        if before is not None and before.fingerprint == self.fingerprint and not self.made_again(before):
            finished = self.stage.read_manifest()
            return "done" if finished and finished.get("fingerprint") == self.fingerprint else "unfinished"
        files = {path.name for path in self.stage.path.glob("*") if path.suffix != ".tmp"}
        return "changed" if files - NOTHING_LOST else "absent"

    @property
    def made_of(self) -> dict[str, str]:
        """sha256 of every output that it refers to and that is there, by its key: a stage that was redone may have made
        another one from an equal fingerprint."""
        found = {key: reference(text) or ("", "") for key, text in references(self.cfg).items()}
        contents = {key: content(StageDir(self.stage.path.with_name(name)), output) for key, (name, output) in found.items()}
        return {key: text for key, text in contents.items() if text}

    def made_again(self, before: "Written") -> list[str]:
        """The keys of outputs that are others than those that the stage's directory was made of."""
        return [key for key, text in self.made_of.items() if before.made_of.get(key, text) != text]

    @property
    def resumes_at(self) -> int:
        """The step that an unfinished stage goes on from: that of its last checkpoint, of a `sample` stage its last part, and
        the last one where the stage is trained and not measured yet."""
        if self.stage.model.exists():
            return int(self.stage.read_progress().get("total", 0))
        done = self.stage.path.glob("rollouts/step-*.parquet") if self.cfg.kind == "sample" else self.stage.checkpoints()
        return max((int(path.stem.removeprefix("step-")) for path in done), default=0)


@dataclass(frozen=True)
class Written:
    """What `config.yaml` of a stage directory says."""

    values: dict[str, Any]
    fingerprint: str
    inputs: dict[str, str] | None  # None where the file does not tell
    made_of: dict[str, str]  # what the file tells of them


def graph(recipe: Recipe, run: RunDir) -> dict[str, Node]:
    """Every stage by its name, in the order of the recipe: each after those that it needs."""
    hash_of = functools.cache(fingerprint_path)
    nodes: dict[str, Node] = {}
    for cfg in recipe.stages:
        inputs = inputs_of(cfg, {name: node.fingerprint for name, node in nodes.items()}, hash_of)
        print_ = fingerprint(cfg.model_dump(mode="json"), inputs)
        nodes[cfg.name] = Node(cfg, run.stage(cfg.name), needs(cfg), inputs, print_)
    return nodes


def inputs_of(
    cfg: StageConfig, prints: Mapping[str, str] = MappingProxyType({}), hash_of: Callable[[Path], str] = fingerprint_path
) -> dict[str, str]:
    """Fingerprints of what a stage reads: earlier stages, whose own are `prints`, the bundled model, local folders and files,
    the user's rewards."""
    inputs = {key: prints[found[0]] for key, text in references(cfg).items() if (found := reference(text))}
    model = cfg.initial_model
    if model and "model" not in inputs and (folder := bundled_folder(model) or Path(model)).exists():
        inputs["model"] = hash_of(folder)
    teacher = getattr(cfg, "teacher_model", None)
    if teacher and (folder := bundled_folder(teacher) or Path(teacher)).exists():
        inputs["teacher_model"] = hash_of(folder)
    keys = {"model", *inputs}
    for source in sorted(set(cfg.sources)):
        path = Path(source).expanduser()
        if source not in GENERATORS and source not in PRESETS and path.exists():  # such a name wins over a path
            inputs[f"./{source}" if source in keys else source] = hash_of(path)
    for name in _user_functions(cfg):
        code = _code_of(name)
        if code:
            inputs[name] = fingerprint_path(code, ".py")
    for reward in getattr(cfg, "rewards", []):
        model = reward.args.get("model")
        if isinstance(model, str) and Path(model).is_dir():
            inputs[f"./{model}" if model in keys else model] = hash_of(Path(model))
    return inputs


def _code_of(name: str) -> Path | None:
    """The file of the module in "module:function", or the folder of the package that it belongs to; None where there is
    none, which loading the function tells."""
    package = module_file(name.partition(":")[0].partition(".")[0])
    return package.parent if package and package.name == "__init__.py" else module_file(name)


def _user_functions(cfg: StageConfig) -> list[str]:
    """Every module:function that the stage names as reward or grader."""
    values = _leaves(cfg.model_dump(mode="json"))
    named = [value for key, value in values if key.rpartition(".")[2] in ("name", "grader") and isinstance(value, str)]
    return sorted({value for value in named if ":" in value})


def graders(cfg: StageConfig) -> list[str]:
    """Every grader that the stage names for its data: `data.0.grader`, not a column or an argument of that name."""
    values = _leaves(cfg.model_dump(mode="json"))
    return sorted({value for key, value in values if re.search(r"\.\d+\.grader$", key) and value is not None})


def dependents(nodes: Mapping[str, Node], names: Collection[str]) -> list[str]:
    """`names` and every stage that needs one of them, directly or not, in the order of the recipe."""
    found: list[str] = []
    for name, node in nodes.items():
        if name in names or any(need in found for need in node.needs):
            found.append(name)
    return found


def config_text(node: Node) -> str:
    """`config.yaml`: every value of the stage, defaults included, below its fingerprint, those of its inputs, and what
    outputs of earlier stages it is made of."""
    values = yaml.safe_dump(node.cfg.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)
    made_of = f"{MADE_OF_LINE}{json.dumps(node.made_of)}\n" if node.made_of else ""
    return f"{FINGERPRINT_LINE}{node.fingerprint}\n{INPUTS_LINE}{json.dumps(dict(node.inputs))}\n{made_of}{values}"


def read_config(stage: StageDir) -> Written | None:
    """What the stage was run with; None where there is no `config.yaml`."""
    if not stage.config.exists():
        return None
    values = read_mapping(stage.config, lambda text: yaml.safe_load(text) or {})
    text = stage.config.read_text(encoding="utf-8")
    head = [line for line in text.splitlines()[:3] if line.startswith("# ")]
    inputs, made_of = (
        next((json.loads(line.removeprefix(start)) for line in head if line.startswith(start)), None)
        for start in (INPUTS_LINE, MADE_OF_LINE)
    )
    return Written(values, head[0].removeprefix(FINGERPRINT_LINE) if head else "", inputs, made_of or {})


def refuse_foreign(run: RunDir, nodes: Iterable[Node]) -> None:
    """Raise UserError where something that is not of a run stands where it would be cleared or written over: `nodes` are the
    stages that are to be run."""
    if run.recipe.exists() and not run.recipe.read_bytes().startswith(f"{COMMAND_LINE}aha run".encode()):
        raise UserError(f"{run.recipe} is there and not of a run, which writes its own; choose another directory with --out")
    for node in nodes:
        path = node.stage.path
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise UserError(f"{path} is a file or a link, and a stage wants a folder; put the whole run elsewhere, with --out")
        names = {found.name for found in path.glob("[!.]*") if found.suffix != ".tmp"}
        is_foreign = names - NOTHING_LOST or node.stage.config.exists()
        if is_foreign and not names & OF_A_STAGE and not _is_configured(node.stage):
            raise UserError(f"{path} is no stage of a run; name the stage otherwise, or choose another --out")


def _is_configured(stage: StageDir) -> bool:
    """Whether `config.yaml` was written by a run."""
    return stage.config.exists() and stage.config.read_bytes().startswith(FINGERPRINT_LINE.encode())


def begun_stages(run: RunDir) -> dict[str, str]:
    """The kind of every stage that has begun in a run directory, by the name of its folder, in that order.

    Other folders may hold a `config.yaml` of their own: that of a stage has a name and a known kind.
    """
    found = {}
    for path in sorted(run.path.glob("*/config.yaml"), key=lambda path: path.stat().st_mtime):
        with contextlib.suppress(yaml.YAMLError, UnicodeDecodeError):
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
            if isinstance(values, dict) and "name" in values and str(values.get("kind")) in STAGE_KINDS:
                found[path.parent.name] = str(values["kind"])
    return found


def own_changes(node: Node) -> list[str]:
    """What differs from the run in the stage's directory, in words, but for changes that come from earlier stages."""
    before = read_config(node.stage)
    if before is None:
        return [f"{node.stage.config.name} is missing"]
    old, new = dict(_leaves(before.values)), dict(_leaves(node.cfg.model_dump(mode="json")))
    changed = [f"{key} was {old[key]!r} and is {new[key]!r}" for key in new if key in old and old[key] != new[key]]
    changed += [f"{key} is {new[key]!r} and was not there" for key in new if key not in old]
    changed += [f"{key} was {old[key]!r} and is not there" for key in old if key not in new]
    if before.inputs is None:
        return changed or ["its inputs (model or data files) have changed"]
    stages = references(node.cfg)
    changed += [f"{stages[key]} was made again, with another content" for key in node.made_again(before)]
    inputs = {**before.inputs, **node.inputs}
    changed += [
        f"the content of {node.cfg.model if key == 'model' else key} has changed"
        for key in inputs
        if key not in stages and before.inputs.get(key) != node.inputs.get(key)
    ]
    return changed


def told_changes(changes: list[str]) -> str:
    """The first few changes in one line."""
    rest = len(changes) - CHANGES_TOLD
    return "; ".join([*changes[:CHANGES_TOLD], *([f"and {rest} more"] if rest > 0 else [])])


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value inside, with its key: `eval.data.0.limit`."""
    inner = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    if not inner:
        yield key, value
    for part, child in inner:
        yield from _leaves(child, f"{key}.{part}" if key else str(part))


def roots_of(nodes: Mapping[str, Node], names: Collection[str]) -> list[Node]:
    """Of the stages `names` that have changed those that must be redone by name: the others depend on one of them."""
    changed = {name: nodes[name] for name in names if nodes[name].state == "changed"}
    return [node for node in changed.values() if own_changes(node) or not any(need in changed for need in node.needs)]


def refuse_changed(nodes: Mapping[str, Node], names: Collection[str]) -> None:
    """Raise UserError where the directory of one of these stages holds another configuration than the recipe."""
    changed = [nodes[name] for name in names if nodes[name].state == "changed"]
    if not changed:
        return
    roots = roots_of(nodes, names)
    first, flags = roots[0], " ".join(f"--from {node.name}" for node in roots)
    what = told_changes(own_changes(first) or ["a stage that it needs has changed"])
    raise UserError(
        f"{first.stage.path} holds a run with another configuration: {what}. Run with {flags} to redo "
        f"{'it' if len(roots) == 1 else 'these'} and what depends on it, or with --out for another directory"
    )
