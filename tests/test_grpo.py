import math
from dataclasses import replace

import pytest
import torch

from aha import grpo
from aha.engine.native import NativeEngine
from aha.grpo import (
    advantages,
    groups_to_learn_from,
    is_mixed,
    minibatches,
    num_steps,
    rollout_metrics,
    rows_of,
    with_advantages,
)
from aha.loss import (
    Denominators,
    LossSums,
    Row,
    grpo_loss,
    importance_ratios,
    loss_metrics,
    loss_of_rows,
    microbatches_with_signal,
)
from aha.model import collate, token_logps, token_logps_and_entropies
from aha.rollout import Prompt
from aha.stage_configs import GrpoStage
from aha.types import Completion, Group, Problem, Sample, UserError

PROBLEM = Problem("p/0", "p", "?", {}, "countdown")


def config(**changes) -> GrpoStage:
    values = {"name": "g", "kind": "grpo", "data": {"source": "countdown"}, "rewards": [{"name": "countdown"}]}
    return GrpoStage(**{**values, "num_generations": 2, "per_device_train_batch_size": 4, **changes})


def group_of(rewards: list[float], reasons: str = "") -> Group:
    completions = [
        Completion(
            Sample([7] * (i + 1), [-0.5] * (i + 1), "length" if reasons[i : i + 1] == "l" else "stop"), "", {}, r, r >= 1
        )
        for i, r in enumerate(rewards)
    ]
    return Group(PROBLEM, "", [5, 6], completions)


def toy_rows(count: int = 6) -> list[Row]:
    """Rows of unequal length; old and reference log-probabilities far enough off that both clips bite."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for i in range(count):
        length = 3 + 4 * (i % 3) + i
        noise = torch.randn(2, length, generator=generator) * 0.5
        ids = torch.randint(3, 200, (length,), generator=generator).tolist()
        old = (noise[0] - 7).tolist()
        ref = (noise[1] - 7).tolist()
        rows.append(Row(list(range(5, 8 + i)), ids, old, (-1.0) ** i * (0.5 + i), old, ref))
    return rows


def gradient_of(policy, batches: list[list[Row]], denominators: Denominators, cfg: GrpoStage) -> torch.Tensor:
    policy.model.zero_grad()
    for rows in batches:
        loss_of_rows(rows, policy, denominators, cfg, torch.float32)[0].backward()
    return torch.cat([p.grad.flatten() for p in policy.model.parameters()])


def denominators_of(rows: list[Row]) -> Denominators:
    return Denominators(len(rows), sum(len(row.completion_ids) for row in rows))


def test_advantages_by_hand():
    # mean 0.25, deviations 0.75 and three times -0.25, standard deviation sqrt(0.75 / 3) = 0.5
    [group] = with_advantages([group_of([1.0, 0.0, 0.0, 0.0])], "group")
    expected = [0.75 / 0.5001, *[-0.25 / 0.5001] * 3]
    assert [c.advantage for c in group.completions] == pytest.approx(expected)


def test_advantages_scaled_by_the_batch_and_not_at_all():
    groups = [group_of([1.0, 0.0]), group_of([0.0, 0.0])]
    [mixed, flat] = with_advantages(groups, "batch")  # standard deviation of 1, 0, 0, 0 is 0.5
    assert [c.advantage for c in mixed.completions] == pytest.approx([0.5 / 0.5001, -0.5 / 0.5001])
    assert [c.advantage for c in flat.completions] == [0.0, 0.0]
    [mixed, _] = with_advantages(groups, "none")
    assert [c.advantage for c in mixed.completions] == [0.5, -0.5]


def test_equal_rewards_have_advantage_exactly_zero_whatever_rounding_does():
    assert advantages([1.1] * 7, spread=0.0) == [0.0] * 7


def loss_by_hand(cfg: GrpoStage) -> tuple[float, LossSums]:
    """Two sequences of one and two tokens; ratios 2, 0.5 and 1; advantages 1 and -1; reference at the policy."""
    logp = torch.tensor([[math.log(0.4), 0.0], [math.log(0.1), math.log(0.3)]])
    old = torch.tensor([[math.log(0.2), 0.0], [math.log(0.2), math.log(0.3)]])
    mask = torch.tensor([[True, False], [True, True]])
    loss, sums = grpo_loss(
        logp, old, logp if cfg.beta else None, None, None, old, torch.tensor([1.0, -1.0]), mask, Denominators(2, 3), cfg
    )
    return loss.item(), sums


def test_loss_types_by_hand():
    # Token losses with epsilon 0.2: -min(2, 1.2) = -1.2; max(0.5, 0.8) = 0.8; 1.
    assert loss_by_hand(config(loss_type="grpo"))[0] == pytest.approx((-1.2 + (0.8 + 1) / 2) / 2)
    assert loss_by_hand(config(loss_type="dapo"))[0] == pytest.approx((-1.2 + 0.8 + 1) / 3)
    assert loss_by_hand(config(loss_type="dr_grpo", max_completion_length=10))[0] == pytest.approx((-1.2 + 0.8 + 1) / 20)


def test_epsilon_high_moves_the_upper_clip_only():
    assert loss_by_hand(config(loss_type="dapo", epsilon_high=0.5))[0] == pytest.approx((-1.5 + 0.8 + 1) / 3)


def test_clipped_tokens_are_counted():
    _, sums = loss_by_hand(config())
    assert (sums.tokens, sums.high_clipped, sums.low_clipped) == (3, 1, 1)
    assert sums.logp_gap == pytest.approx(2 * math.log(2))


def kl_term(logp: torch.Tensor, old: torch.Tensor, ref: torch.Tensor, **settings) -> tuple[torch.Tensor, LossSums]:
    """Loss and sums of one completion without advantage: the KL term alone, with beta 0.1."""
    mask, none = torch.ones_like(logp).bool(), torch.tensor([0.0])
    cfg, denominators = config(beta=0.1, **settings), Denominators(1, logp.numel())
    return grpo_loss(logp, old, ref, None, None, old, none, mask, denominators, cfg)


def test_kl_is_the_k3_estimator():
    logp, ref = torch.tensor([[math.log(0.5)]]), torch.tensor([[math.log(0.25)]])
    k3 = 0.5 - math.log(0.5) - 1
    for corrected in (True, False):
        loss, sums = kl_term(logp, logp, ref, use_bias_correction_kl=corrected)
        assert sums.kl == pytest.approx(k3)
        assert loss.item() == pytest.approx(0.1 * k3)
    loss, _ = kl_term(logp, logp - math.log(2), ref)
    assert loss.item() == pytest.approx(0.1 * 2 * k3)


def test_the_corrected_kl_term_has_the_gradient_of_the_reverse_kl():
    """Summed over the vocabulary, each token weighed by the probability that it is drawn with."""
    logits = torch.tensor([0.3, -1.2, 2.0, 0.1], requires_grad=True)
    ref, old = torch.tensor([1.0, 0.2, -0.5, 0.0]).log_softmax(0), torch.tensor([0.1, 0.1, 1.4, -0.3]).log_softmax(0)
    logp = logits.log_softmax(0)
    (exact,) = torch.autograd.grad((logp.exp() * (logp - ref)).sum(), logits, retain_graph=True)
    losses = torch.stack([kl_term(logp[None, i : i + 1], old[None, i : i + 1], ref[None, i : i + 1])[0] for i in range(4)])
    (ours,) = torch.autograd.grad((old.exp() * losses).sum() / 0.1, logits)
    torch.testing.assert_close(ours, exact)


def test_a_token_that_became_unlikely_does_not_drown_the_others():
    logp, old = torch.tensor([[-20.0, -1.0]], requires_grad=True), torch.tensor([[-1.0, -1.0]])
    for corrected, largest in ((True, 0.1), (False, 1e6)):
        (gradient,) = torch.autograd.grad(kl_term(logp, old, old, use_bias_correction_kl=corrected)[0], logp)
        assert (gradient.abs().max() > largest) != corrected


def test_cispo_caps_the_weight_of_the_gradient_and_keeps_every_token():
    logp = torch.tensor([[math.log(0.4), math.log(0.1)]], requires_grad=True)
    old = torch.tensor([[math.log(0.1), math.log(0.2)]])  # ratios 4 and 0.5
    cfg, mask = config(loss_type="cispo", epsilon_high=3.0), torch.ones(1, 2).bool()
    loss, sums = grpo_loss(logp, old, None, None, None, old, torch.tensor([2.0]), mask, Denominators(1, 2), cfg)
    loss.backward()
    assert logp.grad.tolist() == [pytest.approx([-3 * 2 / 2, -0.5 * 2 / 2])]
    assert (sums.high_clipped, sums.low_clipped) == (1, 0)
    assert loss_metrics(sums, cfg, 1)["cispo_clip_ratio"] == 0.5


def test_the_ratio_of_a_sequence_is_the_geometric_mean_of_its_tokens():
    logp = torch.tensor([[math.log(0.4), math.log(0.1), 0.0], [0.0, 0.0, 0.0]])
    old = torch.tensor([[math.log(0.1), math.log(0.2), 5.0], [math.log(0.5), 0.0, 0.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    expected = torch.tensor([[math.sqrt(4 * 0.5)] * 3, [2.0] * 3])
    torch.testing.assert_close(importance_ratios(logp, old, mask, "sequence"), expected)


def test_the_entropy_bonus_is_the_mean_over_all_tokens_whatever_the_loss_averages():
    logp, entropy = torch.zeros(2, 2), torch.tensor([[1.0, 9.0], [2.0, 3.0]])
    mask = torch.tensor([[True, False], [True, True]])
    for loss_type in ("grpo", "dapo", "dr_grpo"):
        cfg = config(loss_type=loss_type, entropy_coef=0.1)
        loss, _ = grpo_loss(logp, logp, None, None, entropy, logp, torch.zeros(2), mask, Denominators(2, 3), cfg)
        assert loss.item() == pytest.approx(-0.1 * (1 + 2 + 3) / 3)


def test_entropies_are_those_of_the_distribution_at_the_temperature(policy):
    batch = collate([([5, 6], [7, 8, 9]), ([5], [8])], 0, policy.device)
    logp_BT, entropy_BT = token_logps_and_entropies(policy.model, batch, 0.5, torch.float32)
    torch.testing.assert_close(logp_BT, token_logps(policy.model, batch, 0.5, torch.float32))
    logits = policy.model(torch.tensor([[5, 6, 7, 8, 9]])).logits[0, 1:4] / 0.5
    expected = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(entropy_BT[0, 2:], expected)
    assert entropy_BT[1].count_nonzero() == 1


@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize(
    "settings",
    [
        {"loss_type": "grpo"},
        {"loss_type": "dr_grpo"},
        {"loss_type": "dapo"},
        {"loss_type": "cispo", "epsilon_high": 1.5},
        {"loss_type": "grpo", "importance_sampling_level": "sequence"},
        {"loss_type": "grpo", "entropy_coef": 0.1},
    ],
    ids=str,
)
def test_split_into_micro_batches_keeps_gradient(policy, settings, beta):
    rows, cfg = toy_rows(), config(beta=beta, **settings)
    if not beta:
        rows = [replace(row, ref_logps=None) for row in rows]
    whole = gradient_of(policy, [rows], denominators_of(rows), cfg)
    assert whole.norm() > 0
    for split in ([rows[:1], rows[1:]], [rows[::2], rows[1::2]], [[row] for row in rows]):
        parts = gradient_of(policy, split, denominators_of(rows), cfg)
        assert (parts - whole).norm() < 1e-5 * whole.norm()


def test_rows_without_signal_cost_no_backward_pass_and_change_no_gradient(policy):
    rows = [replace(row, ref_logps=None) for row in toy_rows()]
    rows[2], rows[4] = replace(rows[2], advantage=0.0), replace(rows[4], advantage=0.0)
    cfg = config()
    kept = [row for chosen in microbatches_with_signal(rows, cfg) for row in chosen]
    assert sorted(len(row.completion_ids) for row in kept) == sorted(len(rows[i].completion_ids) for i in (0, 1, 3, 5))
    whole = gradient_of(policy, [rows], denominators_of(rows), cfg)
    skipping = gradient_of(policy, list(microbatches_with_signal(rows, cfg)), denominators_of(rows), cfg)
    assert (skipping - whole).norm() < 1e-5 * whole.norm()


def test_with_a_kl_term_no_row_is_skipped():
    rows = [replace(row, advantage=0.0) for row in toy_rows()]
    assert sum(len(chosen) for chosen in microbatches_with_signal(rows, config(beta=0.04))) == len(rows)


def test_with_an_entropy_bonus_no_row_is_skipped():
    rows = [replace(row, advantage=0.0) for row in toy_rows()]
    assert sum(len(chosen) for chosen in microbatches_with_signal(rows, config(entropy_coef=0.01))) == len(rows)


def test_truncated_completions_are_left_out_when_the_recipe_says_so():
    groups = [group_of([1.0, 0.0, 0.0], reasons="sls")]
    assert [len(row.completion_ids) for row in rows_of(groups, mask_truncated=False)] == [1, 2, 3]
    assert [len(row.completion_ids) for row in rows_of(groups, mask_truncated=True)] == [1, 0, 3]


@pytest.mark.parametrize(
    ("level", "dtype", "expected"),
    [("token", "bfloat16", True), ("token", "float32", True), ("sequence", "float32", True), ("sequence", "bfloat16", False)],
)
def test_the_trainer_scores_the_old_policy_only_where_rounding_would_be_clipped(policy, level, dtype, expected):
    engine = NativeEngine(policy.model, policy.stop_ids, getattr(torch, dtype))
    assert grpo.rollout_logps_will_do(config(importance_sampling_level=level), engine) is expected


def test_minibatches_pass_over_the_rows_num_iterations_times():
    cfg = config(per_device_train_batch_size=2, steps_per_generation=2, num_iterations=2)
    rows = toy_rows(4)
    taken = [[row.advantage for row in batch] for batch in minibatches(rows, cfg, limit=10)]
    first, second = [rows[0].advantage, rows[1].advantage], [rows[2].advantage, rows[3].advantage]
    assert taken == [first, second, first, second]
    assert len(list(minibatches(rows, cfg, limit=3))) == 3


def test_steps_of_an_epoch():
    cfg = config(num_train_epochs=2, steps_per_generation=4, num_iterations=3)  # 16 completions, 8 prompts, 12 updates
    assert num_steps(cfg, num_prompts=32) == 2 * 4 * 12
    assert num_steps(config(max_steps=7), num_prompts=32) == 7


def test_fewer_prompts_than_one_generation_needs_is_a_user_error():
    with pytest.raises(UserError, match="1 prompts do not fill one generation of 2"):
        num_steps(config(), num_prompts=1)


def test_rollout_metrics_by_hand():
    metrics = rollout_metrics([group_of([1.0, 0.0], reasons="sl"), group_of([0.0, 0.0])])
    assert metrics["reward"] == metrics["accuracy"] == 0.25
    assert metrics["reward_std"] == pytest.approx(0.5)
    assert metrics["frac_reward_zero_std"] == 0.5
    assert metrics["completions/mean_length"] == 1.5
    assert metrics["completions/clipped_ratio"] == 0.25
    assert metrics["completions/mean_terminated_length"] == pytest.approx(4 / 3)
    assert metrics["entropy"] == pytest.approx(0.5)


def test_a_completion_that_every_reward_skipped_has_no_advantage_and_no_part_in_the_mean():
    assert advantages([1.0, None, 0.0], spread=None) == [0.5, 0.0, -0.5]
    assert advantages([None, None], spread=None) == [0.0, 0.0]


def solved_group(name: str, solved: list[bool]) -> Group:
    """A group whose rewards all differ, so that only the grader's verdict can tell it from a flat one."""
    completions = [Completion(Sample([7], [-0.5], "stop"), "", {}, 0.1 * i, s) for i, s in enumerate(solved)]
    return Group(replace(PROBLEM, id=name), "", [5, 6], completions)


def test_a_group_is_mixed_by_the_verdict_of_the_grader_and_not_by_its_rewards():
    assert is_mixed(solved_group("a", [True, False]))
    assert not is_mixed(solved_group("a", [False, False]))
    assert not is_mixed(solved_group("a", [True, True]))


def test_mixed_groups_are_learned_from_first_and_flat_ones_fill_up():
    flat, mixed = solved_group("flat", [False, False]), solved_group("mixed", [True, False])
    assert groups_to_learn_from([flat, flat], 2) == [flat, flat]
    assert groups_to_learn_from([flat, mixed, flat, mixed], 2) == [mixed, mixed]
    assert groups_to_learn_from([flat, flat, mixed], 2) == [mixed, flat]


@pytest.mark.parametrize("rounds", [0, 1, 9])
def test_dynamic_sampling_draws_other_prompts_for_flat_groups_until_enough_are_mixed(monkeypatch, rounds):
    asked: list[list[int]] = []

    def rollout(engine, policy, prompts, n, sampling, rewards, log_metric, verdicts):
        asked.append([int(prompt.problem.id) for prompt in prompts])
        return [solved_group(prompt.problem.id, [True, int(prompt.problem.id) % 3 > 0]) for prompt in prompts]

    monkeypatch.setattr(grpo, "rollout", rollout)
    prompts = [Prompt(replace(PROBLEM, id=str(i)), "", [5]) for i in range(60)]  # every third one gives a mixed group
    cfg = config(per_device_train_batch_size=16, dynamic_sampling_rounds=rounds)
    groups = list(grpo.draw_groups(None, None, prompts, cfg, 0, []))

    missing = 8
    for ids in asked:
        assert len(ids) == missing > 0
        missing -= sum(i % 3 == 0 for i in ids)
    assert len(asked) == 1 + rounds or missing <= 0
    flat = [i for ids in asked for i in ids]
    assert len(set(flat)) == len(flat)
    assert [int(group.problem.id) for group in groups] == [i for ids in asked for i in ids]
    if rounds == 9:
        assert all(map(is_mixed, groups_to_learn_from(groups, 8)))
