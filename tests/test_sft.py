import json
import math
import shutil

import pytest
import torch
from rich.console import Console

from aha import sft
from aha.config import SftStage
from aha.log import StageLog
from aha.model import collate, load_policy, token_logps
from aha.rundir import StageDir

TEXTS = [{"prompt": "What is 1+1?", "completion": "1+1=2</think>"}, {"prompt": "2+2?", "completion": "4"}]


def config(**changes) -> SftStage:
    values = {"name": "s", "kind": "sft", "data": {"source": "writers", "limit": 32}, "dtype": "float32"}
    return SftStage(**{**values, "max_steps": 4, "learning_rate": 1e-2, **changes})


def run(cfg: SftStage, folder) -> dict[str, float]:
    stage = StageDir(folder)
    folder.mkdir(exist_ok=True)
    with StageLog("s", "sft", Console(quiet=True), stage) as log:
        return sft.run(cfg, stage, log)


def test_only_the_completion_is_learned(policy):
    [(context, learned), _] = sft.encode(TEXTS, policy, config())
    assert policy.tokenizer.decode(learned) == "1+1=2</think><|endoftext|>"
    assert policy.tokenizer.decode(context).endswith("User: What is 1+1? Assistant: <think>")


def test_what_the_prompt_prefills_is_not_learned_twice(policy):
    with_tag = [{**text, "completion": "<think>" + text["completion"]} for text in TEXTS]
    assert sft.encode(with_tag, policy, config()) == sft.encode(TEXTS, policy, config())


def test_without_completion_only_loss_all_but_the_first_token_is_learned(policy):
    [(context, learned), _] = sft.encode(TEXTS, policy, config(completion_only_loss=False))
    assert len(context) == 1
    assert policy.tokenizer.decode(context + learned).startswith("A conversation between User and Assistant.")


def test_rows_are_cut_at_max_length_and_dropped_where_nothing_is_left(policy):
    full = sft.encode(TEXTS, policy, config())
    longest = len(full[0][0]) + 2
    cut = sft.encode(TEXTS, policy, config(max_length=longest))
    assert max(len(context) + len(learned) for context, learned in cut) == longest
    assert sft.encode(TEXTS, policy, config(max_length=5)) == []


def test_split_into_micro_batches_keeps_gradient(policy):
    rows = sft.encode(TEXTS, policy, config())

    def gradient(batches) -> torch.Tensor:
        policy.model.zero_grad()
        for batch in batches:
            (-token_logps(policy.model, collate(batch, 0, policy.device), 1.0, torch.float32).sum()).backward()
        return torch.cat([p.grad.flatten() for p in policy.model.parameters()])

    whole, parts = gradient([rows]), gradient([[row] for row in rows])
    assert (parts - whole).norm() < 1e-5 * whole.norm()


@pytest.mark.parametrize("max_tokens", [64, 100_000])
def test_micro_batch_budget_does_not_change_the_run(model_folder, tmp_path, max_tokens):
    base = run(config(model=str(model_folder)), tmp_path / "base")
    other = run(config(model=str(model_folder), max_tokens_per_microbatch=max_tokens), tmp_path / "other")
    assert other["loss"] == pytest.approx(base["loss"], rel=1e-4)


def test_training_learns_and_writes_a_model(model_folder, tmp_path):
    cfg = config(model=str(model_folder), max_steps=30, data={"source": "writers", "limit": 8})
    final = run(cfg, tmp_path / "s")
    assert final["loss"] < 0.7 * math.log(1500)
    assert load_policy(config(model=str(tmp_path / "s" / "model")), torch.device("cpu")).prompt.prefill == "<think>"


def test_scratch_builds_tokenizer_and_model_of_the_sizes_asked_for(tmp_path):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 1400}
    run(config(init="scratch", architecture=sizes, max_steps=1, prompt={"think": "thinking"}), tmp_path / "s")
    policy = load_policy(config(model=str(tmp_path / "s" / "model")), torch.device("cpu"))
    assert policy.model.config.hidden_size == 16
    assert policy.model.config.vocab_size == len(policy.tokenizer) <= 1400
    assert policy.prompt.think == "thinking"
    assert len(policy.tokenizer("<thinking>").input_ids) == 1
    assert json.loads((tmp_path / "s" / "model" / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_model_from_scratch_resumes_to_the_same_bits(tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    cfg = config(init="scratch", architecture={**sizes, "num_key_value_heads": 1}, save_steps=2, optim="muon")
    run(cfg, tmp_path / "unbroken")
    shutil.copytree(tmp_path / "unbroken" / "checkpoints" / "step-000002", tmp_path / "cut" / "checkpoints" / "step-000002")
    run(cfg, tmp_path / "cut")
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "cut" / "model" / name).read_bytes() == (tmp_path / "unbroken" / "model" / name).read_bytes()
