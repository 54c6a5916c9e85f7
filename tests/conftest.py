"""Toy models and tokenizers that the tests share: real classes, tiny sizes, CPU, offline, seeded."""

from itertools import islice
from pathlib import Path

import pytest
import torch

from aha.config import ArchitectureConfig, PromptConfig
from aha.data.writers import documents
from aha.model import Policy, new_policy, save_policy
from aha.tokenizer import build_tokenizer

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
TAGS = ["<think>", "</think>", "<answer>", "</answer>"]
TOY = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory) -> Path:
    """A tokenizer as the tiny base has it, from a few of its documents."""
    folder = tmp_path_factory.mktemp("tokenizer")
    texts = (row["prompt"] + row["completion"] for row in islice(documents(), 200))
    build_tokenizer(texts, 1500, TAGS, folder)
    return folder


@pytest.fixture(scope="session")
def make_policy(tokenizer_folder, tmp_path_factory):
    """A function that makes a policy of a model class with random weights."""

    def make(model_type: str = "qwen3", seed: int = 0) -> Policy:
        folder = tmp_path_factory.mktemp(model_type)
        for file in tokenizer_folder.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        architecture = ArchitectureConfig(model_type=model_type, **TOY)
        return new_policy(architecture, folder, PromptConfig(prefill="<think>"), seed)

    return make


@pytest.fixture
def policy(make_policy) -> Policy:
    return make_policy()


@pytest.fixture(scope="session")
def model_folder(make_policy, tmp_path_factory) -> Path:
    """A saved toy model."""
    folder = tmp_path_factory.mktemp("model")
    save_policy(make_policy(), folder, torch.float32)
    return folder
