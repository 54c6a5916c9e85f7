"""The same facts on a GPU. Skipped where there is none; run on one before a release."""

import json

import pytest
import torch
from rich.console import Console

from aha import grpo
from aha.engine.native import NativeEngine
from aha.engine.sampling import Sampling
from aha.log import StageLog
from aha.rundir import StageDir
from aha.stage_configs import GrpoStage

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

PROMPTS = [[5, 6, 7], [9], [11, 12, 13, 14, 15, 16, 17, 18]]


@pytest.mark.parametrize("family", ["qwen2", "llama", "qwen3"])
@torch.no_grad()
def test_logps_of_the_engine_equal_those_of_model_forward(make_policy, family):
    model = make_policy(family).model.cuda()
    groups = NativeEngine(model, frozenset(), torch.float32, max_num_seqs=4).generate(PROMPTS, 3, Sampling("s", 20))
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for sample in group:
            ids = torch.tensor([prompt + sample.token_ids], device="cuda")
            logp = model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            expected = logp.gather(-1, ids[0, len(prompt) :, None])[:, 0].cpu()
            torch.testing.assert_close(torch.tensor(sample.logps), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_two_steps_of_grpo_give_the_same_bits_twice(model_folder, tmp_path, dtype):
    cfg = GrpoStage(
        name="zero",
        kind="grpo",
        model=str(model_folder),
        dtype=dtype,
        data={"source": "countdown", "limit": 8},
        rewards=[{"name": "cosine", "args": {"grader": "countdown", "max_length": 12}}],  # has spread: it pays by length
        max_completion_length=12,
        num_generations=4,
        per_device_train_batch_size=8,
        max_steps=2,
        learning_rate=1e-3,
    )
    for name in ("one", "two"):
        stage = StageDir(tmp_path / name)
        stage.path.mkdir()
        with StageLog("zero", "grpo", Console(quiet=True), stage) as log:
            grpo.run(cfg, stage, log)
    one, two = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two
    first = json.loads((tmp_path / "one" / "metrics.jsonl").read_text().splitlines()[0])
    assert first["grad_norm"] > 0
    assert first["memory/peak_mb"] > 0
