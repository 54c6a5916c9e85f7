"""One fixed batch through TRL's own GRPOTrainer and through the functions that training here uses."""

from dataclasses import replace

import pytest
import torch
from datasets import Dataset

from aha.config import GrpoStage
from aha.grpo import Denominators, Row, loss_of_rows
from aha.model import collate, token_logps

pytestmark = pytest.mark.filterwarnings("ignore")

EPSILON, EPSILON_HIGH, MAX_LENGTH = 0.2, 0.28, 24


def make_rows(policy) -> list[Row]:
    """Unequal lengths, advantages of both signs, and old log-probabilities perturbed so that both clips bite."""
    generator = torch.Generator().manual_seed(1)
    rows = []
    for i, (prompt_length, length) in enumerate([(3, 12), (7, 5), (4, 20), (9, 8)]):
        prompt = torch.randint(3, 200, (prompt_length,), generator=generator).tolist()
        ids = torch.randint(3, 200, (length,), generator=generator).tolist()
        with torch.no_grad():
            batch = collate([(prompt, ids)], 0, policy.device)
            logps = token_logps(policy.model, batch, 1.0, torch.float32)[batch.mask_BT]
        old, ref = (logps + 0.4 * torch.randn(2, length, generator=generator)).tolist()
        rows.append(Row(prompt, ids, old, [1.3, -0.9, 0.4, -1.1][i], old, ref))
    return rows


def padded(rows: list[list], width: int, side: str, dtype: torch.dtype = torch.long) -> torch.Tensor:
    filled = [([0] * (width - len(row)) + row) if side == "left" else (row + [0] * (width - len(row))) for row in rows]
    return torch.tensor(filled, dtype=dtype)


def trl_gradient(policy, rows: list[Row], loss_type: str, beta: float, tmp_path) -> torch.Tensor:
    from trl import GRPOConfig, GRPOTrainer

    args = GRPOConfig(
        output_dir=str(tmp_path),
        loss_type=loss_type,
        epsilon=EPSILON,
        epsilon_high=EPSILON_HIGH,
        max_completion_length=MAX_LENGTH,
        num_generations=2,
        per_device_train_batch_size=len(rows),
        num_iterations=2,
        use_bias_correction_kl=False,  # the k3 estimator of the GRPO paper, without importance weights
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
    trainer.beta = beta  # not in the arguments: there it would load a reference model from the hub
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


def our_gradient(policy, rows: list[Row], loss_type: str, beta: float, sign: float = 1.0) -> torch.Tensor:
    cfg = GrpoStage(
        name="parity",
        kind="grpo",
        data={"source": "countdown"},
        rewards=[{"name": "countdown"}],
        loss_type=loss_type,
        beta=beta,
        epsilon=EPSILON,
        epsilon_high=EPSILON_HIGH,
        max_completion_length=MAX_LENGTH,
        num_generations=2,
        per_device_train_batch_size=len(rows),
    )
    signed = [replace(row, advantage=sign * row.advantage) for row in rows]
    denominators = Denominators(len(rows), sum(len(row.completion_ids) for row in rows))
    policy.model.train()
    policy.model.zero_grad()
    loss, sums = loss_of_rows(signed, policy, denominators, cfg, torch.float32)
    assert sums.low_clipped > 0
    assert sums.high_clipped > 0
    loss.backward()
    return torch.cat([p.grad.flatten().clone() for p in policy.model.parameters()])


@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "dapo"])
def test_gradient_equals_that_of_trl(make_policy, tmp_path, loss_type, beta):
    policy = make_policy("qwen2")
    rows = make_rows(policy)
    theirs = trl_gradient(policy, rows, loss_type, beta, tmp_path)
    ours = our_gradient(policy, rows, loss_type, beta)
    assert theirs.norm() > 0
    assert (ours - theirs).norm() < 1e-5 * theirs.norm()
    wrong_sign = our_gradient(policy, rows, loss_type, beta, sign=-1.0)
    assert (wrong_sign - theirs).norm() > 0.5 * theirs.norm()
