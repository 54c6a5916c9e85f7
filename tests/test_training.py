import pytest
import torch
from transformers import AutoModelForSequenceClassification

from aha.model import save_policy
from aha.rundir import StageDir
from aha.stage_configs import SftStage
from aha.training import (
    TrainerState,
    build_optimizers,
    indices_of_step,
    is_due,
    learning_rate,
    resume_training,
    save_checkpoint,
    update,
)
from aha.types import UserError


def config(**changes) -> SftStage:
    return SftStage(**{"name": "s", "kind": "sft", "data": {"source": "writers"}, "learning_rate": 1.0, **changes})


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1]),
        ("constant_with_warmup", [0.5, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1, 1, 0.8536, 0.5, 0.1464]),
    ],
)
def test_schedules_warm_up_and_then_follow_their_shape(kind, expected):
    cfg = config(lr_scheduler_type=kind, warmup_steps=2)
    assert [learning_rate(cfg, step, total=6) for step in range(6)] == pytest.approx(expected, abs=1e-4)


def test_warmup_of_a_step_and_a_half_is_refused():
    with pytest.raises(ValueError, match=r"warmup_steps is 1\.5: want a share below 1, or a whole number of steps"):
        config(warmup_steps=1.5)


def test_warmup_below_one_is_a_share_of_all_steps():
    cfg = config(lr_scheduler_type="constant", warmup_steps=0.1)
    assert [learning_rate(cfg, step, total=40) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1, 1])


@pytest.mark.parametrize(
    ("before", "after", "every", "due"), [(0, 1, 1, True), (3, 4, 4, True), (2, 5, 4, True), (4, 5, 4, False), (0, 9, 0, False)]
)
def test_what_is_due(before, after, every, due):
    assert is_due(before, after, every) is due


def test_every_epoch_visits_every_row_once_in_a_new_order():
    steps = [indices_of_step(step, size=3, num_rows=6, seed=1) for step in range(4)]
    first, second = steps[0] + steps[1], steps[2] + steps[3]
    assert sorted(first) == sorted(second) == list(range(6))
    assert first != second
    assert indices_of_step(2, size=3, num_rows=6, seed=1) == steps[2]
    assert indices_of_step(1, size=4, num_rows=6, seed=1, shuffle=False) == [4, 5, 0, 1]


def test_weight_decay_is_on_matrices_only(policy):
    [adamw] = build_optimizers(policy.model, config(weight_decay=0.1))
    decayed, free = adamw.param_groups
    assert decayed["weight_decay"] == 0.1
    assert all(parameter.ndim >= 2 for parameter in decayed["params"])
    assert free["weight_decay"] == 0.0
    assert all(parameter.ndim < 2 for parameter in free["params"])


def test_muon_leaves_embeddings_and_heads_alone_whatever_they_are_called(make_family, tmp_path):
    policy = make_family("gpt2")
    save_policy(policy, tmp_path, torch.float32)
    reward_model = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=1)
    for model in (policy.model, reward_model):
        _, muon = build_optimizers(model, config(optim="muon"))
        names = {parameter: name for name, parameter in model.named_parameters()}
        inner = {names[p] for group in muon.param_groups for p in group["params"]}
        assert len(inner) == 2 * 4
        assert all(".h." in name for name in inner)


def test_muon_takes_the_matrices_inside_the_layers_and_adamw_the_rest(policy):
    adamw, muon = build_optimizers(policy.model, config(optim="muon"))
    names = {parameter: name for name, parameter in policy.model.named_parameters()}
    inner = {names[p] for group in muon.param_groups for p in group["params"]}
    outer = {names[p] for group in adamw.param_groups for p in group["params"]}
    assert inner | outer == set(names.values())
    assert not inner & outer
    assert "model.layers.0.self_attn.q_proj.weight" in inner
    assert {"model.embed_tokens.weight", "model.norm.weight", "model.layers.0.input_layernorm.weight"} <= outer


@pytest.mark.parametrize("optim", ["adamw_torch", "muon"])
def test_a_checkpoint_restores_weights_and_optimisers_and_old_ones_go(optim, policy, make_policy, tmp_path):
    def train_a_step(policy, optimizers) -> None:
        policy.model(torch.tensor([[5, 6, 7]])).logits.square().mean().backward()
        update(policy.model, optimizers, rate=0.1, max_grad_norm=1.0)

    stage, cfg = StageDir(tmp_path), config(optim=optim)
    optimizers = build_optimizers(policy.model, cfg)
    for step in (1, 2, 3):
        train_a_step(policy, optimizers)
        save_checkpoint(stage, TrainerState(step), policy, optimizers, keep=2)
    assert [folder.name for folder in stage.checkpoints()] == ["step-000002", "step-000003"]

    fresh = make_policy(seed=1)
    resumed = build_optimizers(fresh.model, cfg)
    assert resume_training(stage, fresh, resumed, 9).step == 3
    for one, other in ((policy, optimizers), (fresh, resumed)):
        train_a_step(one, other)  # shows what the optimisers remember
    for ours, theirs in zip(fresh.model.parameters(), policy.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_no_step(bad, policy):
    optimizers = build_optimizers(policy.model, config())
    policy.model(torch.tensor([[5, 6, 7]])).logits.square().mean().backward()
    next(policy.model.parameters()).grad[0, 0] = bad
    before = [parameter.clone() for parameter in policy.model.parameters()]
    with pytest.raises(UserError, match="the gradient is not finite"):
        update(policy.model, optimizers, rate=0.1, max_grad_norm=1.0)
    assert all(torch.equal(old, new) for old, new in zip(before, policy.model.parameters(), strict=True))


@pytest.mark.parametrize("optim", ["adamw_torch", "muon"])
def test_without_a_gradient_nothing_moves(optim, policy):
    optimizers = build_optimizers(policy.model, config(optim=optim, weight_decay=0.1))
    policy.model(torch.tensor([[5, 6, 7]])).logits.square().mean().backward()
    update(policy.model, optimizers, rate=0.1, max_grad_norm=1.0)  # from here on there is momentum
    before = [parameter.clone() for parameter in policy.model.parameters()]
    assert update(policy.model, optimizers, rate=0.1, max_grad_norm=1.0) == 0.0
    assert all(torch.equal(old, new) for old, new in zip(before, policy.model.parameters(), strict=True))
