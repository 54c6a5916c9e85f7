"""The bundled models: what a user of plain transformers loads is what aha loads."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from aha.bundled import BUNDLED_MODELS, bundled_folder
from aha.config import validate
from aha.data.hub import HUB_ID
from aha.model import load_policy, load_tokenizer
from aha.recipe import load_recipe, reference
from aha.stage_configs import EvalStage

RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.yaml"))
TEXT = "Using the numbers [44, 19, 35], create an equation that equals 98.\n<think>先试 44+19=63, that is too small.</think>"


def bytes_of(name: str) -> int:
    return (bundled_folder(name) / "model.safetensors").stat().st_size


@pytest.mark.parametrize("name", BUNDLED_MODELS)
def test_plain_transformers_gives_the_same_ids_text_and_logits(name):
    folder = bundled_folder(name)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT).ids
    assert tokenizer(TEXT).input_ids == load_tokenizer(name)(TEXT).input_ids == ids
    assert tokenizer.decode(ids) == TEXT
    stage = {"name": "s", "kind": "eval", "model": name, "eval": {"data": [{"source": "countdown"}]}}
    ours = load_policy(validate(EvalStage, stage, ""), torch.device("cpu")).model
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        assert torch.equal(ours(torch.tensor([ids])).logits, plain(torch.tensor([ids])).logits)


def test_the_models_are_small_and_the_student_is_much_smaller_and_reads_the_same_tokens():
    base, student = BUNDLED_MODELS
    assert bytes_of(base) <= 16e6
    assert bytes_of(student) < bytes_of(base) / 2.5
    vocabularies = [json.loads((bundled_folder(name) / "tokenizer.json").read_text())["model"] for name in BUNDLED_MODELS]
    assert vocabularies[0] == vocabularies[1]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_names_bundled_models_hub_ids_and_earlier_stages_only(path):
    for stage in load_recipe(path).stages:
        assert bundled_folder(stage.model) or HUB_ID.match(stage.model) or reference(stage.model), stage.model
