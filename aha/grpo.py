"""GRPO, the reinforcement learning of R1-Zero and R1 (arXiv 2402.03300, section 4.1; arXiv 2501.12948, section 2).

One round: draw a group of completions for each prompt, score them, let each one's advantage be its distance from
the mean of its group, and raise the probability of what did better:

    A_i     = (r_i - mean(r)) / (std(r) + 1e-4)
    ratio_t = pi(o_t) / pi_old(o_t)
    k3_t    = pi_ref(o_t) / pi(o_t) - log(pi_ref(o_t) / pi(o_t)) - 1
    loss_t  = - min(ratio_t A, clip(ratio_t, 1 - epsilon, 1 + epsilon_high) A) + beta k3_t

Names end in their shape: B completions of a micro-batch, T tokens.
"""

import random
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace

import torch
from torch import Tensor

from aha.config import GrpoStage
from aha.engine.native import NativeEngine
from aha.log import StageLog
from aha.metrics import Measure, measure
from aha.model import (
    Batch,
    Policy,
    align,
    collate,
    compute_dtype,
    default_device,
    load_policy,
    microbatches,
    round_parameters,
    save_policy,
    saved_dtype,
    token_logps,
)
from aha.rewards import load_rewards
from aha.rollout import evaluate, load_prompts, rollout, sampling_of, write_rollouts
from aha.rundir import StageDir, atomic_folder
from aha.training import (
    TrainerState,
    build_optimizers,
    indices_of_step,
    is_due,
    learning_rate,
    make_deterministic,
    peak_memory_mb,
    resume_training,
    save_checkpoint,
    update,
)
from aha.types import Group, UserError

ADVANTAGE_EPSILON = 1e-4


@dataclass(frozen=True)
class Row:
    """One completion as the loss sees it.

    Example: Row(prompt_ids=[5, 6], completion_ids=[7, 8, 2], rollout_logps=[-0.1, -2.3, -0.4], advantage=1.2)
    """

    prompt_ids: list[int]
    completion_ids: list[int]  # empty where the loss leaves the completion out
    rollout_logps: list[float]  # from the engine that drew it
    advantage: float
    old_logps: list[float] | None = None  # under the policy that drew it; None: the policy has not moved since
    ref_logps: list[float] | None = None  # under the reference model


@dataclass(frozen=True)
class Denominators:
    """What a loss is averaged over, counted once per optimiser step: any split into micro-batches adds up the same.

    Example: Denominators(sequences=256, tokens=30_812)
    """

    sequences: int
    tokens: int


def run(cfg: GrpoStage, stage: StageDir, log: StageLog) -> dict[str, Measure]:
    """Train, resume where a checkpoint stands, write `model/`; returns the final evaluation."""
    make_deterministic()
    device = default_device()
    dtype = compute_dtype(cfg.dtype, device)
    policy = load_policy(cfg, device)
    if cfg.gradient_checkpointing:
        policy.model.gradient_checkpointing_enable()
    reference = load_policy(cfg, device, dtype) if cfg.beta else None
    engine = NativeEngine(policy.model, policy.stop_ids, dtype, cfg.max_num_seqs)
    rewards = load_rewards(cfg.rewards)
    prompts, num_dropped = load_prompts([cfg.data], policy, cfg.max_prompt_length)
    eval_prompts, _ = load_prompts(cfg.eval.data, policy, cfg.max_prompt_length)
    total = num_steps(cfg, len(prompts))
    optimizers = build_optimizers(policy.model, cfg)
    step = resume_training(stage, policy, optimizers).step
    engine.refresh()
    policy.model.train()
    log.start(total, step, prompts=len(prompts), prompts_dropped=num_dropped)

    while step < total:
        started, first = time.perf_counter(), step

        # Sample a group of completions for each prompt and score them.
        generation = step // cfg.updates_per_generation
        order = indices_of_step(generation, cfg.prompts_per_generation, len(prompts), cfg.seed, cfg.shuffle_dataset)
        sampling = sampling_of(cfg, f"{cfg.seed}/{cfg.name}/{generation}")
        groups = rollout(engine, policy, [prompts[i] for i in order], cfg.num_generations, sampling, rewards)

        # Advantages, relative to the group; what the old and the reference policy think of the tokens.
        groups = with_advantages(groups, cfg.scale_rewards)
        rows = rows_of(groups, cfg.mask_truncated_completions)
        if cfg.updates_per_generation > 1:
            random.Random(f"{cfg.seed}/{cfg.name}/{generation}").shuffle(rows)  # no update sees whole groups only
            old = [row.rollout_logps for row in rows] if engine.is_exact else logps_of(rows, policy, cfg, dtype)
            rows = [replace(row, old_logps=logps) for row, logps in zip(rows, old, strict=True)]
        if reference:
            ref = logps_of(rows, reference, cfg, dtype)
            rows = [replace(row, ref_logps=logps) for row, logps in zip(rows, ref, strict=True)]
        sampled = time.perf_counter()

        # Policy updates: one per mini-batch, its gradient gathered over micro-batches.
        sums = LossSums()
        for minibatch in minibatches(rows, cfg, total - step):
            denominators = Denominators(len(minibatch), sum(len(row.completion_ids) for row in minibatch))
            rate = learning_rate(cfg, step, total)
            for micro in microbatches_with_signal(minibatch, cfg):
                loss, parts = loss_of_rows(micro, policy, denominators, cfg, dtype)
                loss.backward()
                sums = sums + parts
            grad_norm = update(policy.model, optimizers, rate, cfg.max_grad_norm)
            step += 1
        engine.refresh()

        # Log, evaluate, save.
        finished = time.perf_counter()
        drawn = rollout_metrics(groups)
        metrics = {
            **drawn,
            **loss_metrics(sums, cfg, step - first),
            "grad_norm": grad_norm,
            "learning_rate": rate,
            "speed/rollout_tokens_per_second": drawn["num_tokens"] / (sampled - started),
            "speed/train_tokens_per_second": sums.tokens / (finished - sampled),
            "memory/peak_mb": peak_memory_mb(device),
            "step_time": (finished - started) / (step - first),
        }
        if is_due(first, step, cfg.logging_steps) or step == total:
            log.step(step, metrics, groups[0])
        if is_due(first, step, cfg.save_rollouts_steps):
            write_rollouts(stage.rollouts(step), step, groups)
        if is_due(first, step, cfg.eval.eval_steps) and eval_prompts and step < total:
            answers = evaluate(engine, policy, eval_prompts, cfg, cfg.seed)
            log.evaluation(step, measure(answers, policy.prompt))
        if is_due(first, step, cfg.save_steps) and step < total:
            save_checkpoint(stage, TrainerState(step), policy, optimizers, cfg.save_total_limit)

    # The weights that are measured are those that are saved, rounded as they are on disk.
    saved = saved_dtype(cfg.save_dtype, policy)
    round_parameters(policy.model, saved)
    engine.refresh()
    with atomic_folder(stage.model) as folder:
        save_policy(policy, folder, saved)
    if not eval_prompts:
        return {}
    answers = evaluate(engine, policy, eval_prompts, cfg, cfg.seed)
    write_rollouts(stage.answers, total, answers)
    measures = measure(answers, policy.prompt)
    log.evaluation(total, measures)
    return measures


def num_steps(cfg: GrpoStage, num_prompts: int) -> int:
    """Optimiser steps of the whole stage. Raises UserError where the prompts do not fill one generation."""
    if num_prompts < cfg.prompts_per_generation:
        raise UserError(
            f"{cfg.name}: {num_prompts} prompts do not fill one generation of {cfg.prompts_per_generation} "
            f"({cfg.per_device_train_batch_size} x {cfg.accumulation_steps_per_generation} completions / "
            f"{cfg.num_generations} per prompt)"
        )
    if cfg.max_steps > 0:
        return cfg.max_steps
    return max(1, round(cfg.num_train_epochs * num_prompts / cfg.prompts_per_generation * cfg.updates_per_generation))


def advantages(rewards: Sequence[float | None], spread: float | None) -> list[float]:
    """Distance of each reward from the mean of its group, over `spread` (None: not divided). All equal: exactly 0.

    A completion that every reward skipped (None) has advantage 0 and is not part of the mean.
    """
    known = [reward for reward in rewards if reward is not None]
    if not known or max(known) == min(known):
        return [0.0] * len(rewards)
    mean, divisor = statistics.fmean(known), 1.0 if spread is None else spread + ADVANTAGE_EPSILON
    return [0.0 if reward is None else (reward - mean) / divisor for reward in rewards]


def spread_of(rewards: Iterable[float | None]) -> float:
    """Standard deviation with Bessel's correction of the rewards there are; 0 for fewer than two."""
    known = [reward for reward in rewards if reward is not None]
    return statistics.stdev(known) if len(known) > 1 else 0.0


def with_advantages(groups: Sequence[Group], scale_rewards: str) -> list[Group]:
    """Give every completion its advantage. `scale_rewards` says whose standard deviation divides: that of the
    "group" (GRPO), of the whole "batch", or "none" (Dr. GRPO, arXiv 2503.20783: the division favours easy and hard)."""
    batch = spread_of(c.reward for group in groups for c in group.completions)
    graded = []
    for group in groups:
        rewards = [completion.reward for completion in group.completions]
        spread = {"group": spread_of(rewards), "batch": batch, "none": None}[scale_rewards]
        pairs = zip(group.completions, advantages(rewards, spread), strict=True)
        graded.append(replace(group, completions=[replace(c, advantage=advantage) for c, advantage in pairs]))
    return graded


def rows_of(groups: Sequence[Group], mask_truncated: bool) -> list[Row]:
    """One row per completion; those cut off at the maximum length are emptied where `mask_truncated` says so."""
    return [
        Row(group.prompt_ids, c.sample.token_ids, c.sample.logps, c.advantage)
        if c.sample.finish_reason == "stop" or not mask_truncated
        else Row(group.prompt_ids, [], [], c.advantage)
        for group in groups
        for c in group.completions
    ]


def minibatches(rows: Sequence[Row], cfg: GrpoStage, limit: int) -> Iterator[Sequence[Row]]:
    """The rows of each optimiser step: `num_iterations` passes over one generation, `limit` steps at the most."""
    size = cfg.sequences_per_step
    starts = [start for _ in range(cfg.num_iterations) for start in range(0, len(rows), size)]
    return (rows[start : start + size] for start in starts[:limit])


def microbatches_with_signal(rows: Sequence[Row], cfg: GrpoStage) -> Iterator[list[Row]]:
    """Rows that have a gradient, sorted by length and cut by the token budget.

    An advantage of 0 has none, unless the KL term pulls on it too. The denominators count such rows all the same.
    """
    alive = [row for row in rows if row.completion_ids and (row.advantage or cfg.beta)]
    lengths = [len(row.prompt_ids) + len(row.completion_ids) for row in alive]
    return ([alive[i] for i in chosen] for chosen in microbatches(lengths, cfg.max_tokens_per_microbatch))


def logps_of(rows: Sequence[Row], policy: Policy, cfg: GrpoStage, dtype: torch.dtype) -> list[list[float]]:
    """Log-probabilities of every row's completion under `policy`, without gradient."""
    logps: list[list[float]] = [[] for _ in rows]
    lengths = [len(row.prompt_ids) + len(row.completion_ids) for row in rows]
    with torch.no_grad():
        for chosen in microbatches(lengths, cfg.max_tokens_per_microbatch):
            batch = collate_rows([rows[i] for i in chosen], policy)
            logp_BT = token_logps(policy.model, batch, cfg.temperature, dtype)
            for i, logp_T, mask_T in zip(chosen, logp_BT, batch.mask_BT, strict=True):
                logps[i] = logp_T[mask_T].tolist()
    return logps


def collate_rows(rows: Sequence[Row], policy: Policy) -> Batch:
    """The rows as one padded batch on the policy's device; their completions are what is scored."""
    pairs = [(row.prompt_ids, row.completion_ids) for row in rows]
    return collate(pairs, policy.tokenizer.pad_token_id, policy.device)


def loss_of_rows(
    rows: Sequence[Row], policy: Policy, denominators: Denominators, cfg: GrpoStage, dtype: torch.dtype
) -> tuple[Tensor, "LossSums"]:
    """Forward pass and loss of one micro-batch."""
    batch = collate_rows(rows, policy)
    logp_BT = token_logps(policy.model, batch, cfg.temperature, dtype)
    old = [row.old_logps for row in rows if row.old_logps is not None]
    ref = [row.ref_logps for row in rows if row.ref_logps is not None]
    return grpo_loss(
        logp_BT,
        old_logp_BT=align(old, batch) if old else logp_BT.detach(),
        ref_logp_BT=align(ref, batch) if ref else None,
        rollout_logp_BT=align([row.rollout_logps for row in rows], batch),
        advantage_B=torch.tensor([row.advantage for row in rows], device=logp_BT.device),
        mask_BT=batch.mask_BT,
        denominators=denominators,
        cfg=cfg,
    )


@dataclass(frozen=True)
class LossSums:
    """Sums over tokens, which add up over micro-batches and turn into means at the end of a round."""

    tokens: int = 0
    loss: float = 0.0
    kl: float = 0.0
    low_clipped: float = 0.0
    high_clipped: float = 0.0
    logp_gap: float = 0.0

    def __add__(self, other: "LossSums") -> "LossSums":
        return LossSums(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def grpo_loss(
    logp_BT: Tensor,
    old_logp_BT: Tensor,
    ref_logp_BT: Tensor | None,
    rollout_logp_BT: Tensor,
    advantage_B: Tensor,
    mask_BT: Tensor,
    denominators: Denominators,
    cfg: GrpoStage,
) -> tuple[Tensor, LossSums]:
    """The loss of a micro-batch: its share of the mean over the whole optimiser step. Log-probabilities in nats.

    `loss_type` says what is averaged: "grpo" the means of the sequences (arXiv 2402.03300, equation 3), "dapo" all
    tokens (arXiv 2503.14476, equation 8), "dr_grpo" all tokens over a constant, the maximum length of every sequence
    (arXiv 2503.20783). `rollout_logp_BT` only measures how far engine and trainer are apart.
    """
    advantage_B1 = advantage_B[:, None]
    ratio_BT = (logp_BT - old_logp_BT).exp()
    epsilon_high = cfg.epsilon if cfg.epsilon_high is None else cfg.epsilon_high
    clipped_BT = ratio_BT.clamp(1 - cfg.epsilon, 1 + epsilon_high)
    loss_BT = -torch.min(ratio_BT * advantage_B1, clipped_BT * advantage_B1)
    kl_BT = torch.zeros_like(loss_BT)
    if ref_logp_BT is not None:
        kl_BT = (ref_logp_BT - logp_BT).exp() - (ref_logp_BT - logp_BT) - 1
        loss_BT = loss_BT + cfg.beta * kl_BT

    if cfg.loss_type == "grpo":
        denominator = denominators.sequences * mask_BT.sum(dim=1, keepdim=True).clamp(min=1)
    elif cfg.loss_type == "dapo":
        denominator = torch.tensor(max(1, denominators.tokens))
    else:
        denominator = torch.tensor(denominators.sequences * cfg.max_completion_length)
    loss = (loss_BT * mask_BT / denominator).sum()

    def total(values_BT: Tensor) -> float:
        return (values_BT.detach() * mask_BT).sum().item()

    return loss, LossSums(
        tokens=int(mask_BT.sum()),
        loss=loss.item(),
        kl=total(kl_BT),
        low_clipped=total((ratio_BT < 1 - cfg.epsilon) & (advantage_B1 < 0)),
        high_clipped=total((ratio_BT > 1 + epsilon_high) & (advantage_B1 > 0)),
        logp_gap=total((logp_BT - rollout_logp_BT).abs()),
    )


def loss_metrics(sums: LossSums, cfg: GrpoStage, num_updates: int) -> dict[str, float]:
    """Means over the tokens that had a gradient, under TRL's names;
    the loss is the mean of the updates. The gap between engine and trainer means
    something only while the policy has not moved: with one update per generation."""
    tokens = max(1, sums.tokens)
    return {
        "loss": sums.loss / num_updates,
        **({"kl": sums.kl / tokens} if cfg.beta else {}),
        "clip_ratio/low_mean": sums.low_clipped / tokens,
        "clip_ratio/high_mean": sums.high_clipped / tokens,
        "clip_ratio/region_mean": (sums.low_clipped + sums.high_clipped) / tokens,
        **({"rollout/logp_gap": sums.logp_gap / tokens} if cfg.updates_per_generation == 1 else {}),
    }


def rollout_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """What one generation looks like, under TRL's names where TRL has one.

    `entropy` is the mean of -log p over the drawn tokens: an unbiased estimate that costs nothing.
    """
    completions = [completion for group in groups for completion in group.completions]
    rewards = [completion.reward for completion in completions if completion.reward is not None]
    lengths = [len(completion.sample.token_ids) for completion in completions]
    terminated = [len(c.sample.token_ids) for c in completions if c.sample.finish_reason == "stop"]
    spreads = [spread_of(c.reward for c in group.completions) for group in groups]
    metrics = {
        "reward": statistics.fmean(rewards) if rewards else 0.0,
        "reward_std": spread_of(rewards),
        "frac_reward_zero_std": statistics.fmean(spread < 1e-9 for spread in spreads),
        "accuracy": statistics.fmean(completion.solved for completion in completions),
        "completions/mean_length": statistics.fmean(lengths),
        "completions/max_length": max(lengths),
        "completions/clipped_ratio": 1 - len(terminated) / len(completions),
        "completions/mean_terminated_length": statistics.fmean(terminated) if terminated else 0.0,
        "entropy": -sum(sum(c.sample.logps) for c in completions) / max(1, sum(lengths)),
        "num_tokens": sum(lengths),
    }
    for name in completions[0].scores:
        scores = [score for c in completions if (score := c.scores[name]) is not None]
        metrics[f"rewards/{name}/mean"] = statistics.fmean(scores) if scores else 0.0
        metrics[f"rewards/{name}/std"] = statistics.stdev(scores) if len(scores) > 1 else 0.0
    return metrics
