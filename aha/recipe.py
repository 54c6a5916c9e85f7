"""Recipe files: read, put the defaults under every stage, apply overrides, check references."""

import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from aha.config import nearest, validate
from aha.stage_configs import STAGE_KINDS, Recipe, StageConfig
from aha.types import UserError

REFERENCE = re.compile(r"^\$\{([^.{}]+)\.(\w+)\}$")
OUTPUTS = {"grpo": ["model"], "sft": ["model"], "reward_model": ["model"], "sample": ["traces"]}  # of each kind of stage
# Last part of a key: the output that may stand there.
MEANT_AS_REFERENCE = {"model": "model", "teacher_model": "model", "source": "traces"}


class _Loader(yaml.SafeLoader):
    """YAML in which no mapping may have a key twice: of two blocks `rewards` the first would be lost without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        twice = next((value for i, (tag, value) in enumerate(keys) if (tag, value) in keys[:i]), None)
        if twice is not None:
            place = [key.start_mark for key, _ in node.value if key.value == twice][-1]
            raise yaml.constructor.ConstructorError(None, None, f"{twice} stands there twice", place)
        return node


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe file and apply `stage.key=value` (or `defaults.key=value`, `seed=value`) overrides.

    Raises UserError, in one line that names file and key, for anything that does not fit.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # a SafeLoader
    except OSError as error:
        raise UserError(f"{path}: cannot read the recipe: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        what = f": {error.problem}" if isinstance(error, yaml.constructor.ConstructorError) else ""
        raise UserError(f"{path}: not valid YAML{f' at line {where.line + 1}' if where else ''}{what}") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("stages"), list):
        raise UserError(f"{path}: a recipe is a mapping with a list of `stages`")
    _reject_unknown(raw, {*Recipe.model_fields, "defaults"}, str(path), "")
    stages = [dict(stage) for stage in raw["stages"] if isinstance(stage, dict)]
    if len(stages) != len(raw["stages"]):
        raise UserError(f"{path}: every entry of `stages` is a mapping with at least `name` and `kind`")
    by_name = {str(stage.get("name")): stage for stage in stages}
    if len(by_name) != len(stages):
        raise UserError(f"{path}: two stages have the same name")
    overrides = overrides or []
    for override in overrides:
        if override.startswith("defaults.") or "." not in override.partition("=")[0]:
            _apply_override(raw, override)
    defaults = raw.get("defaults") or {}
    if not isinstance(defaults, dict):
        raise UserError(f"{path}: `defaults` is a mapping of keys to put under every stage")
    kinds = [_stage_class(stage, str(path)) for stage in stages]
    _reject_unknown(defaults, {key for kind in kinds for key in kind.model_fields}, str(path), "defaults.")
    seeded = {"seed": raw.get("seed", Recipe.model_fields["seed"].default), **defaults}
    for kind, stage in zip(kinds, stages, strict=True):
        merged = _merge({key: value for key, value in seeded.items() if key in kind.model_fields}, stage)
        by_name[str(stage["name"])] = merged
    for override in overrides:
        if not override.startswith("defaults.") and "." in override.partition("=")[0]:
            _apply_override(by_name, override)
    resolved = [validate(kind, stage, f"{path}: {name}") for kind, (name, stage) in zip(kinds, by_name.items(), strict=True)]
    if len({stage.name for stage in resolved}) != len(resolved):
        raise UserError(f"{path}: an override gives two stages the same name")
    _check_references(resolved, str(path))
    top = {key: value for key, value in raw.items() if key not in ("defaults", "stages")}
    return typing.cast(Recipe, validate(Recipe, {**top, "stages": [stage.model_dump() for stage in resolved]}, str(path)))


def _stage_class(stage: Mapping[str, Any], where: str) -> type[StageConfig]:
    kind = stage.get("kind")
    if "name" not in stage:
        raise UserError(f"{where}: a stage of kind {kind} has no name")
    if not isinstance(kind, str) or kind not in STAGE_KINDS:
        raise UserError(f"{where}: stage {stage['name']}: unknown kind {kind!r}; known: {', '.join(STAGE_KINDS)}")
    return STAGE_KINDS[kind]


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` wins; mappings are merged key by key, lists are replaced."""
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _apply_override(tree: dict[str, Any], override: str) -> None:
    """Set one value in place: of a stage in the mapping of stages by name, or of the recipe's own keys."""
    key, equals, text = override.partition("=")
    if not equals:
        raise UserError(f"{override!r} is no override: write stage.key=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{override!r}: {text!r} is not valid YAML") from error
    first, *parts = key.split(".")
    if not parts:
        _reject_unknown({key: value}, {"name", "seed"}, "command line", "")
    elif first != "defaults" and first not in tree:
        raise UserError(f"{override!r}: no stage {first!r}; the recipe has {', '.join(tree)}")
    node: Any = tree
    for part in [first, *parts][:-1]:
        child = _child(node, part, override)
        copied = list(child) if isinstance(child, list) else dict(child) if isinstance(child, Mapping) else {}
        _set(node, part, copied)  # defaults and anchors of the YAML share it with other stages
        node = copied
    if isinstance(node, list):
        _child(node, key.rpartition(".")[2], override)
    _set(node, key.rpartition(".")[2], value)


def _child(node: Any, part: str, override: str) -> Any:
    if not isinstance(node, list):
        return node.get(part)
    if not part.isdecimal() or int(part) >= len(node):
        raise UserError(
            f"{override!r}: a list of {len(node)} stands there; write its place, from 0 to {len(node) - 1}, not {part}"
        )
    return node[int(part)]


def _set(node: Any, part: str, value: Any) -> None:
    node[int(part) if isinstance(node, list) else part] = value


def _reject_unknown(given: Mapping[str, Any], known: set[str], where: str, prefix: str) -> None:
    for key in given:
        if key not in known:
            raise UserError(f"{where}: unknown key {prefix}{key}{nearest(str(key), known)}")


def reference(value: str) -> tuple[str, str] | None:
    """("zero", "model") for "${zero.model}", None for anything else."""
    match = REFERENCE.match(value)
    return (match[1], match[2]) if match else None


def last_of_line(names: Sequence[str], configs: Mapping[str, Mapping[str, Any]]) -> str:
    """The last of the stages `names` whose policy descends from the same weights as that of the first: a student with
    weights of its own is no later state of its teacher. `configs`: the keys of every stage.

    Example: ["base", "zero", "student"], with the models tiny-base, tiny-base and tiny-student -> "zero"
    """

    def origin(name: str) -> str:
        model = str(configs[name].get("model"))
        found = reference(model)
        if configs[name].get("init") == "scratch":
            return name
        return origin(found[0]) if found and found[0] in configs else model

    return [name for name in names if origin(name) == origin(names[0])][-1]


def outputs_named(values: Any) -> list[tuple[str, str]]:
    """The outputs of other stages that a tree of keys refers to, each once: ("zero", "model") for "${zero.model}" anywhere."""
    return list(dict.fromkeys(found for _, text in _texts(values) if (found := reference(text))))


def references(cfg: StageConfig) -> dict[str, str]:
    """Every reference of a stage by its key: {"model": "${zero.model}", "data.0.source": "${cold.traces}"}.

    What begins like one where a model or a source stands is meant as one; anywhere else a text is one from end to end
    or it is none.
    """
    texts = dict(_texts(cfg.model_dump()))
    return {
        key: text
        for key, text in texts.items()
        if text.startswith("${") and (reference(text) or key.rpartition(".")[2] in MEANT_AS_REFERENCE)
    }


def needs(cfg: StageConfig) -> list[str]:
    """The stages that a stage refers to, each once."""
    return list(dict.fromkeys(name for name, _ in outputs_named(cfg.model_dump())))


def resolve(cfg: StageConfig, path_of: Callable[[str, str], Path]) -> StageConfig:
    """The stage with a path in place of every reference; `path_of` gives that of an output of a stage."""
    paths = {text: str(path_of(*found)) for text in references(cfg).values() if (found := reference(text))}
    return type(cfg).model_validate(_replaced(cfg.model_dump(), paths))


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text inside, with its key: `data.0.source`."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping | list):
        for part, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _texts(inner, f"{key}.{part}" if key else str(part))


def _replaced(value: Any, texts: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return texts.get(value, value)
    if isinstance(value, Mapping):
        return {key: _replaced(inner, texts) for key, inner in value.items()}
    return [_replaced(inner, texts) for inner in value] if isinstance(value, list) else value


def _check_references(stages: list[StageConfig], where: str) -> None:
    """References lead to outputs of earlier stages, so stages can run in the order of the recipe."""
    by_name = {stage.name: stage for stage in stages}
    earlier: set[str] = set()
    for stage in stages:
        for key, text in references(stage).items():
            wrong = _wrong(stage, key, text, by_name, earlier)
            if wrong:
                raise UserError(f"{where}: {stage.name}: {key} {text} is no output of an earlier stage: {wrong}")
        earlier.add(stage.name)


def _wrong(stage: StageConfig, key: str, text: str, by_name: Mapping[str, StageConfig], earlier: set[str]) -> str | None:
    """What is wrong with a reference, in words."""
    found = reference(text)
    if found is None:
        return "write ${stage.output}"
    name, output = found
    if name not in by_name:
        return f"there is no stage {name}{nearest(name, by_name)}"
    if name == stage.name:
        return "it is the stage itself"
    if name not in earlier:
        back = _path(name, stage.name, by_name)
        return f"the stages need each other, {' -> '.join([stage.name, *back])}" if back else f"{name} comes later"
    kind = by_name[name].kind
    if output not in OUTPUTS.get(kind, ()):
        return f"a stage of kind {kind} has {' and '.join(OUTPUTS.get(kind, ['nothing']))} to refer to, and no {output}"
    wanted = MEANT_AS_REFERENCE.get(key.rpartition(".")[2], output)
    if output != wanted:
        return f"here stands a {wanted}, and this is {output}"
    if key in ("model", "teacher_model") and kind == "reward_model" != stage.kind:
        return f"{name} is a reward model, which writes no text"
    return None


def _path(start: str, end: str, by_name: Mapping[str, StageConfig]) -> list[str]:
    """The stages on a way from one to another that it needs, both included; none where it does not need it."""
    ways, seen = [[start]], {start}
    for way in ways:
        if way[-1] == end:
            return way
        following = [name for name in needs(by_name[way[-1]]) if name in by_name and name not in seen]
        seen |= set(following)
        ways += [[*way, name] for name in following]
    return []
