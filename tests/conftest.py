"""Toy models and tokenizers that the tests share: real classes, tiny sizes, CPU, offline, seeded."""

import sys
from collections.abc import Callable
from importlib import import_module
from itertools import islice
from pathlib import Path

import pytest
import torch
from stub_server import StubServer
from toy_chain import run_chain, write_chain
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from aha.config import ArchitectureConfig, PromptConfig
from aha.data.writers import documents
from aha.model import Policy, new_policy, save_policy, stop_token_ids
from aha.tokenizer import build_tokenizer

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
TAGS = ["<think>", "</think>", "<answer>", "</answer>"]
TOY = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def script(monkeypatch, capsys) -> Callable[..., list[list[str]]]:
    """A function that runs docs/NAME.py with some arguments; returns the cells of what it prints, line by line."""

    def run(name: str, *arguments: object) -> list[list[str]]:
        monkeypatch.syspath_prepend(Path(__file__).parent.parent / "docs")
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        import_module(name).main()
        return [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]

    return run


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


# What a family has beside the common sizes; windows and caps are small, so that they bite at toy length.
FAMILIES = {
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {"head_dim": 8},
    "llama": {"tie_word_embeddings": False},
    "mistral": {"sliding_window": 6, "head_dim": 8},
    "gemma2": {
        "sliding_window": 6,
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "attn_logit_softcapping": 0.5,
        "final_logit_softcapping": 1.0,
    },
    "gemma3_text": {
        "sliding_window": 6,
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "deepseek_v3": {
        "num_key_value_heads": 4,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 4,
        "v_head_dim": 6,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "moe_intermediate_size": 16,
    },
}


# Families of which less is tested: only what made trouble.
OTHERS = {
    "qwen3_moe": {"head_dim": 8, "moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2},
    "gpt_neox": {},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "seed_oss": {"head_dim": 8},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
    "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4},
    "bloom": {"n_head": 4, "n_layer": 2},
    "phi3": {
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 1.0,
            "short_factor": [1.0] * 4,
            "long_factor": [1.5, 2.0, 4.0, 8.0],
        },
        "original_max_position_embeddings": 16,
    },
}


@pytest.fixture(scope="session")
def make_family(tokenizer_folder):
    """A function that makes a policy of any class of FAMILIES and OTHERS with random weights, large enough to tell tokens
    apart."""

    def make(family: str, **changes) -> Policy:
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
        settings = {**TOY, **{**FAMILIES, **OTHERS}[family], "vocab_size": len(tokenizer), "initializer_range": 0.3, **changes}
        torch.manual_seed(0)
        config = AutoConfig.for_model(family, **settings, pad_token_id=0, eos_token_id=0, bos_token_id=None)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        return Policy(model, tokenizer, PromptConfig(), stop_token_ids(model, tokenizer), torch.float32)

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


@pytest.fixture
def serve():
    """A function that starts a stub of an OpenAI-compatible server."""
    pytest.importorskip("openai")
    servers = []

    def start(reply, **settings) -> StubServer:
        servers.append(StubServer(reply, **settings))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(scope="module")
def finished(model_folder, tmp_path_factory) -> Path:
    """The directory of a run of the toy chain; a test that changes it copies it."""
    folder = tmp_path_factory.mktemp("finished")
    write_chain(folder, model_folder)
    run_chain(folder)
    return folder / "run"
