"""Reward models: a scalar head on a language model learns which replies people prefer.

    pairwise:   loss = -log sigmoid(r(chosen) - r(rejected))           Bradley-Terry; arXiv 2203.02155, equation 1
    pointwise:  loss = -log sigmoid(r) of a good reply, -log sigmoid(-r) of a bad one

DeepSeek-R1 trains its helpful reward model on pairs and its harmless one on single replies that are safe or unsafe
(arXiv 2501.12948, version 2, section 3.1). Like every denominator here, the number of rows is that of the optimiser step,
so any split into micro-batches gives the same gradient.
"""

import math
import statistics
import time
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from aha.config import DataConfig
from aha.data.mixture import load_preference_mixture
from aha.data.preferences import Preference
from aha.log import StageLog
from aha.metrics import Measure, bootstrap, mean, wilson
from aha.model import Policy, autocast, compute_dtype, default_device, longest, microbatches
from aha.rundir import StageDir
from aha.scorer import encode, load_reward_model, rewards_of, score
from aha.stage_configs import RewardModelStage
from aha.stop import STOP
from aha.training import (
    TrainerState,
    build_optimizers,
    indices_of_step,
    is_due,
    learning_rate,
    make_deterministic,
    resume_training,
    save_checkpoint,
    save_model,
    update,
)
from aha.types import UserError

# Token ids of conversations and whether the reply is good: of a pair the chosen one, then the rejected one.
Row = list[tuple[list[int], bool]]


def run(cfg: RewardModelStage, stage: StageDir, log: StageLog) -> dict[str, Measure]:
    """Train, resume where a checkpoint stands, write `model/`; returns the measures of the held-out preferences."""
    make_deterministic()
    device = default_device()
    dtype = compute_dtype(cfg.dtype, device)
    policy = load_reward_model(cfg, device)
    if cfg.gradient_checkpointing:
        policy.model.activation_checkpointing_enable()
    held_out = load_preferences(cfg.eval.data, cfg)
    rows, num_dropped = rows_of(load_preferences(cfg.data, cfg), policy, cfg)
    total = cfg.max_steps if cfg.max_steps > 0 else math.ceil(len(rows) * cfg.num_train_epochs / cfg.sequences_per_step)
    optimizers = build_optimizers(policy.model, cfg)
    state = resume_training(stage, policy, optimizers, total)

    policy.model.train()
    log.start(total, state.step, rows=len(rows), rows_dropped=num_dropped)
    STOP.wait(log.note)
    for step in range(state.step, total):
        started = time.perf_counter()
        batch = [rows[i] for i in indices_of_step(step, cfg.sequences_per_step, len(rows), cfg.seed)]
        loss_sum, rewards, labels = 0.0, list[float](), list[bool]()
        sizes = [len(row) * max(len(ids) for ids, _ in row) for row in batch]
        for chosen in microbatches(sizes, cfg.max_tokens_per_microbatch):
            micro = [reply for i in chosen for reply in batch[i]]
            labels_N = torch.tensor([is_good for _, is_good in micro], device=device)
            with autocast(device, dtype):
                rewards_N = rewards_of(policy.model, [ids for ids, _ in micro])
            loss = loss_of(rewards_N, labels_N, cfg) / len(batch)
            loss.backward()
            loss_sum += loss.item()
            rewards += rewards_N.tolist()
            labels += labels_N.tolist()
        rate = learning_rate(cfg, step, total)
        grad_norm = update(policy.model, optimizers, rate, cfg.max_grad_norm)

        seconds = time.perf_counter() - started
        num_tokens = sum(len(ids) for row in batch for ids, _ in row)
        metrics = {
            "loss": loss_sum,
            **reward_metrics(rewards, labels, cfg),
            "grad_norm": grad_norm,
            "learning_rate": rate,
            "num_tokens": num_tokens,
            "speed/train_tokens_per_second": num_tokens / seconds,
            "step_time": seconds,
        }
        if is_due(step, step + 1, cfg.logging_steps) or step + 1 == total:
            log.step(step + 1, metrics)
        if is_due(step, step + 1, cfg.eval.eval_steps) and held_out and step + 1 < total:
            log.evaluation(step + 1, evaluate(policy, held_out, cfg, dtype))
        if STOP.is_asked or (is_due(step, step + 1, cfg.save_steps) and step + 1 < total):
            save_checkpoint(stage, TrainerState(step + 1), policy, optimizers, cfg.save_total_limit)
            STOP.now_if_asked()

    STOP.at_once()
    save_model(stage, policy, cfg)
    if not held_out:
        return {}
    measures = evaluate(policy, held_out, cfg, dtype)
    log.evaluation(total, measures)
    return measures


def load_preferences(data: Sequence[DataConfig], cfg: RewardModelStage) -> list[Preference]:
    """The preferences of all sources. Raises UserError where one is no pair and the loss compares pairs."""
    preferences = load_preference_mixture(data, cfg.seed)
    if cfg.loss_type == "pairwise" and not all(preference.is_pair for preference in preferences):
        raise UserError(
            f"{cfg.name}: loss_type pairwise compares chosen and rejected; for completion and label it is pointwise"
        )
    return preferences


def rows_of(preferences: Sequence[Preference], policy: Policy, cfg: RewardModelStage) -> tuple[list[Row], int]:
    """What is learned from, a row per pair or, for pointwise, per reply; and how many rows were too long.

    Raises UserError where nothing is left.
    """
    replies = [reply for preference in preferences for reply in preference.replies]
    ids = encode([(reply.prompt, reply.text) for reply in replies], policy.tokenizer)
    labelled = [(row, reply.is_good) for row, reply in zip(ids, replies, strict=True)]
    size = 2 if cfg.loss_type == "pairwise" else 1
    rows = [labelled[i : i + size] for i in range(0, len(labelled), size)]
    limit = min(cfg.max_length, longest(policy.model))
    kept = [row for row in rows if all(len(ids) <= limit for ids, _ in row)]
    if not kept:
        raise UserError(f"{cfg.name}: no conversation is within max_length {limit} tokens")
    return kept, len(rows) - len(kept)


def loss_of(rewards_N: Tensor, labels_N: Tensor, cfg: RewardModelStage) -> Tensor:
    """The loss summed over rows. For pairwise the rewards of a pair follow each other, the chosen one first.

    `center_rewards_coefficient` times (r(chosen) + r(rejected))^2 fixes the level of the rewards, which differences leave
    open (arXiv 2312.09244, equation 2).
    """
    if cfg.loss_type == "pointwise":
        return F.binary_cross_entropy_with_logits(rewards_N, labels_N.float(), reduction="sum")
    chosen, rejected = rewards_N[0::2], rewards_N[1::2]
    centre = cfg.center_rewards_coefficient * (chosen + rejected).square().sum()
    return centre - F.logsigmoid(chosen - rejected).sum()


def reward_metrics(rewards: Sequence[float], labels: Sequence[bool], cfg: RewardModelStage) -> dict[str, float]:
    """What one optimiser step saw, under TRL's names."""
    metrics = {"mean_reward": statistics.fmean(rewards), "min_reward": min(rewards), "max_reward": max(rewards)}
    if cfg.loss_type == "pointwise":
        is_right = [(reward > 0) == is_good for reward, is_good in zip(rewards, labels, strict=True)]
        return {"accuracy": statistics.fmean(is_right), **metrics}
    margins = [chosen - rejected for chosen, rejected in zip(rewards[0::2], rewards[1::2], strict=True)]
    return {"accuracy": statistics.fmean(m > 0 for m in margins), "margin": statistics.fmean(margins), **metrics}


def evaluate(
    policy: Policy, preferences: Sequence[Preference], cfg: RewardModelStage, dtype: torch.dtype
) -> dict[str, Measure]:
    """How well the rewards agree with people.

    `pairs/accuracy`, the share of pairs whose chosen reply has the higher reward (Wilson's interval), also by the kind of
    the request where there are several; `pairs/margin`, by how much it is higher. For pointwise also `labels/accuracy`,
    the share of replies that are good and above 0 or bad and not (bootstrap over pairs, or Wilson for single replies).
    """
    replies = [reply for preference in preferences for reply in preference.replies]
    with autocast(policy.device, dtype):
        rewards = iter(score(policy.model, encode([(reply.prompt, reply.text) for reply in replies], policy.tokenizer)))
    scored = [(preference, [next(rewards) for _ in preference.replies]) for preference in preferences]
    margins = [(preference.kind, pair[0] - pair[1]) for preference, pair in scored if preference.is_pair]
    measures = {}
    if margins:
        measures["pairs/accuracy"] = wilson(sum(margin > 0 for _, margin in margins), len(margins))
        kinds = sorted({kind for kind, _ in margins})
        for kind in kinds if len(kinds) > 1 else ():
            mine = [margin for other, margin in margins if other == kind]
            measures[f"pairs/accuracy/{kind or 'other'}"] = wilson(sum(margin > 0 for margin in mine), len(mine))
        measures["pairs/margin"] = mean([margin for _, margin in margins])
    if cfg.loss_type == "pointwise":
        shares = [
            statistics.fmean((r > 0) == reply.is_good for r, reply in zip(pair, preference.replies, strict=True))
            for preference, pair in scored
        ]
        measures["labels/accuracy"] = bootstrap(shares, bounds=(0, 1)) if margins else wilson(sum(shares), len(shares))
    return measures
