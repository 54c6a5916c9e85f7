"""One fixed batch through TRL's own GRPOTrainer and through the functions that training here uses."""

from dataclasses import replace

import pytest
import torch
from datasets import Dataset

from aha.grpo import mix_into
from aha.loss import Denominators, Row, loss_of_rows
from aha.model import collate, token_logps
from aha.stage_configs import GrpoStage

pytestmark = pytest.mark.filterwarnings("ignore")

MAX_LENGTH = 24


def make_rows(policy, temperature: float = 1.0) -> list[Row]:
    """Unequal lengths, advantages of both signs, and old log-probabilities perturbed so that both clips bite."""
    generator = torch.Generator().manual_seed(1)
    rows = []
    for i, (prompt_length, length) in enumerate([(3, 12), (7, 5), (4, 20), (9, 8)]):
        prompt = torch.randint(3, 200, (prompt_length,), generator=generator).tolist()
        ids = torch.randint(3, 200, (length,), generator=generator).tolist()
        with torch.no_grad():
            batch = collate([(prompt, ids)], 0, policy.device)
            logps = token_logps(policy.model, batch, temperature, torch.float32)[batch.mask_BT]
        shift = [0.5, -0.5, -0.5, 0.5][i]  # so that the ratio of a whole sequence is clipped too
        old, ref = (logps + shift + 0.4 * torch.randn(2, length, generator=generator)).tolist()
        rows.append(Row(prompt, ids, old, [1.3, -0.9, 0.4, -1.1][i], old, ref))
    return rows


def padded(rows: list[list], width: int, side: str, dtype: torch.dtype = torch.long) -> torch.Tensor:
    filled = [([0] * (width - len(row)) + row) if side == "left" else (row + [0] * (width - len(row))) for row in rows]
    return torch.tensor(filled, dtype=dtype)


def trl_gradient(policy, rows: list[Row], settings: dict, tmp_path) -> torch.Tensor:
    from trl import GRPOConfig, GRPOTrainer

    args = GRPOConfig(
        output_dir=str(tmp_path),
        **{key: value for key, value in settings.items() if key != "beta"},
        max_completion_length=MAX_LENGTH,
        num_generations=2,
        per_device_train_batch_size=len(rows),
        num_iterations=2,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to=[],
    )
    trainer = GRPOTrainer(
        model=policy.model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=args,
        train_dataset=Dataset.from_dict({"prompt": ["a", "b"]}),
        processing_class=policy.tokenizer,
    )
    trainer.beta = settings.get("beta", 0.0)  # not in the arguments: there it would load a reference model from the hub
    trainer.current_gradient_accumulation_steps = 1
    prompt_width = max(len(row.prompt_ids) for row in rows)
    width = max(len(row.completion_ids) for row in rows)
    inputs = {
        "prompt_ids": padded([row.prompt_ids for row in rows], prompt_width, "left"),
        "prompt_mask": padded([[1] * len(row.prompt_ids) for row in rows], prompt_width, "left"),
        "completion_ids": padded([row.completion_ids for row in rows], width, "right"),
        "completion_mask": padded([[1] * len(row.completion_ids) for row in rows], width, "right"),
        "advantages": torch.tensor([row.advantage for row in rows]),
        "old_per_token_logps": padded([row.old_logps for row in rows], width, "right", torch.float32),
        "ref_per_token_logps": padded([row.ref_logps for row in rows], width, "right", torch.float32),
        "num_items_in_batch": torch.tensor(sum(len(row.completion_ids) for row in rows)),
    }
    policy.model.train()
    policy.model.zero_grad()
    trainer.compute_loss(policy.model, inputs).backward()
    return torch.cat([p.grad.flatten().clone() for p in policy.model.parameters()])


def our_gradient(policy, rows: list[Row], settings: dict) -> torch.Tensor:
    cfg = GrpoStage(
        name="parity",
        kind="grpo",
        data={"source": "countdown"},
        rewards=[{"name": "countdown"}],
        max_completion_length=MAX_LENGTH,
        num_generations=2,
        per_device_train_batch_size=len(rows),
        **settings,
    )
    denominators = Denominators(len(rows), sum(len(row.completion_ids) for row in rows))
    policy.model.train()
    policy.model.zero_grad()
    loss, sums = loss_of_rows(rows, policy, denominators, cfg, torch.float32)
    assert sums.high_clipped > 0
    assert sums.low_clipped > 0 or cfg.loss_type == "cispo"  # which has no lower bound
    loss.backward()
    return torch.cat([p.grad.flatten().clone() for p in policy.model.parameters()])


CLIP = {"epsilon": 0.2, "epsilon_high": 0.28}
SETTINGS = {
    "grpo": {"loss_type": "grpo", **CLIP},
    "dr_grpo": {"loss_type": "dr_grpo", **CLIP},
    "dapo": {"loss_type": "dapo", **CLIP},
    "cispo": {"loss_type": "cispo", "epsilon_high": 1.5},
    "GSPO": {"loss_type": "grpo", "importance_sampling_level": "sequence", **CLIP},
    "GSPO averaged as dapo": {"loss_type": "dapo", "importance_sampling_level": "sequence", **CLIP},
    "GSPO's ratio in cispo": {"loss_type": "cispo", "importance_sampling_level": "sequence", "epsilon_high": 1.2},
    "entropy bonus": {"loss_type": "dapo", "entropy_coef": 0.05, **CLIP},
    "entropy bonus in grpo": {"loss_type": "grpo", "entropy_coef": 0.05, **CLIP},
    "k3 without its ratio": {"loss_type": "dapo", "use_bias_correction_kl": False, **CLIP},
    "temperature": {"loss_type": "dapo", "temperature": 0.7, "entropy_coef": 0.05, **CLIP},
}


@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("name", SETTINGS)
def test_gradient_equals_that_of_trl(make_policy, tmp_path, name, beta):
    policy, settings = make_policy("qwen2"), {**SETTINGS[name], "beta": beta}
    rows = make_rows(policy, settings.get("temperature", 1.0))
    theirs = trl_gradient(policy, rows, settings, tmp_path)
    ours = our_gradient(policy, rows, settings)
    assert theirs.norm() > 0
    assert (ours - theirs).norm() < 1e-5 * theirs.norm()

    # A wrong sign of the advantages, and of the pull towards the reference, must show.
    flipped = [replace(row, advantage=-row.advantage) for row in rows]
    assert (our_gradient(policy, flipped, settings) - theirs).norm() > 0.1 * theirs.norm()
    if beta:
        pulled = [
            replace(row, ref_logps=[2 * p - r for p, r in zip(row.old_logps, row.ref_logps, strict=True)]) for row in rows
        ]
        assert (our_gradient(policy, pulled, settings) - theirs).norm() > 1e-3 * theirs.norm()


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_the_reference_model_follows_the_policy_as_in_trl(make_policy, share):
    from trl.trainer.callbacks import SyncRefModelCallback

    policy, ours, theirs = (make_policy("qwen2", seed=seed).model for seed in (1, 2, 2))
    mix_into(ours, policy, share)
    SyncRefModelCallback._sync_target_model(policy, theirs, share)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)
