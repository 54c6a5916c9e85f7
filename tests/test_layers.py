"""Imports point down, and what answers at once imports no torch.

Layers are those of docs/architecture.md. A module may import its own layer and what lies below it; the verbs, which
share a layer, do not import one another.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "aha"
LAYERS = {  # module or package: layer; the longest name that fits counts
    "aha": 0,
    "aha.bundled": 0,
    "aha.config": 0,
    "aha.stage_configs": 0,
    "aha.types": 0,
    "aha.recipe": 0,
    "aha.boxes": 1,
    "aha.public": 1,
    "aha.chat": 1,
    "aha.language": 1,
    "aha.tokenizer": 1,
    "aha.rundir": 1,
    "aha.log": 1,
    "aha.lock": 1,
    "aha.stop": 1,
    "aha.remote": 1,
    "aha.metrics": 1,
    "aha.sandbox": 1,
    "aha.data": 2,
    "aha.rewards": 2,
    "aha.engine": 3,
    "aha.model": 3,
    "aha.training": 3,
    "aha.loss": 3,
    "aha.rollout": 3,
    "aha.texts": 3,
    "aha.scorer": 3,
    "aha.grpo": 4,
    "aha.sft": 4,
    "aha.evaluate": 4,
    "aha.sample": 4,
    "aha.reward_model": 4,
    "aha.speak": 4,
    "aha.audit": 5,
    "aha.graph": 5,
    "aha.stage": 5,
    "aha.plan": 5,
    "aha.status": 5,
    "aha.export": 5,
    "aha.pipeline": 5,
    "aha.preflight": 5,
    "aha.report": 5,
    "aha.cli": 6,
    "aha.__main__": 6,
}
VERBS = {"aha.grpo", "aha.sft", "aha.evaluate", "aha.sample", "aha.reward_model"}
PACKAGES = {"aha.data", "aha.rewards", "aha.engine", "aha.sandbox", "aha.report"}  # a new file in one of these has its layer
LAYERS_WITHOUT_TORCH = {0, 1, 2, 5, 6}


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def layer_of(module: str) -> int:
    package = module.rpartition(".")[0]
    name = package if package in PACKAGES else module
    assert name in LAYERS, f"{module} has no layer: place it in LAYERS of {Path(__file__).name} and in docs/architecture.md"
    return LAYERS[name]


def imported(source: str, module: str, is_package: bool, known: set[str]) -> Iterator[str]:
    """Every module of `known` that `source` imports, at any depth, also by `import_module` of a literal name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".") if is_package else module.split(".")[:-1]
                base = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [node.module])])
            names = [f"{base}.{alias.name}" for alias in node.names]
            names = [name if name in known else base for name in names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value:
            names = [node.value]
        else:
            continue
        yield from (name for name in names if name in known)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    path = MODULES[module]
    for other in imported(path.read_text(encoding="utf-8"), module, path.name == "__init__.py", set(MODULES)):
        assert layer_of(other) <= layer_of(module), (
            f"{module} (layer {layer_of(module)}) imports {other} (layer {layer_of(other)})"
        )
        assert not (module in VERBS and other in VERBS - {module}), f"{module} imports {other}: no verb imports another"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import aha.log", ["aha.log"]),
        ("from aha.log import StageLog", ["aha.log"]),
        ("from aha import log", ["aha.log"]),
        ("def f():\n    if True:\n        from aha import __version__, log", ["aha", "aha.log"]),
        ("from .sources import load_texts", ["aha.data.sources"]),
        ("from .. import log", ["aha.log"]),
        ("from ..log import told", ["aha.log"]),
        ("import importlib\nimportlib.import_module('aha.log')", ["aha.log"]),
        ("import json\n'see aha.log'", []),
    ],
)
def test_imports_are_found_in_every_form(source, expected):
    assert list(imported(source, "aha.data.writers", False, {"aha", "aha.log", "aha.data.sources"})) == expected


def test_a_new_module_must_be_placed():
    with pytest.raises(AssertionError, match=r"aha\.brandnew has no layer: place it in LAYERS"):
        layer_of("aha.brandnew")


def test_every_layer_entry_exists():
    assert set(LAYERS) <= set(MODULES)


def test_what_answers_at_once_imports_no_torch():
    light = [module for module in MODULES if layer_of(module) in LAYERS_WITHOUT_TORCH]
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    for heavy in ('torch', 'transformers'):\n"
        "        assert heavy not in sys.modules, f'{name} imports {heavy}'\n"
    )
    result = subprocess.run([sys.executable, "-c", program, *light], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
