"""GRPO, the reinforcement learning of R1-Zero and R1 (arXiv 2402.03300, section 4.1; arXiv 2501.12948, section 2).

One round: draw a group of completions for each prompt, score them, let each one's advantage be its distance from
the mean of its group, and raise the probability of what did better:

    A_i = (r_i - mean(r)) / (std(r) + 1e-4)

With a teacher, which scores every token of the policy's own completions, this is on-policy distillation too (GKD, arXiv
2306.13649, with the reverse KL); rewards may then be left out.

`run` is the algorithm from top to bottom; the loss is in loss.py.
"""

import random
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedModel

from aha.engine.native import NativeEngine
from aha.log import StageLog
from aha.loss import Denominators, LossSums, Row, logps_of, loss_metrics, loss_of_rows, microbatches_with_signal
from aha.metrics import Measure
from aha.model import Policy, check_scoring, compute_dtype, default_device, load_policy
from aha.rewards import LogMetric, Reward, check_tasks, ignore_metric, load_rewards
from aha.rollout import (
    Prompt,
    check_lengths,
    load_eval_prompts,
    load_prompts,
    measure_policy,
    rollout,
    sampling_of,
    write_rollouts,
)
from aha.rundir import StageDir
from aha.scorer import load_scorers
from aha.stage_configs import GrpoStage
from aha.stop import STOP
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
    save_model,
    update,
)
from aha.types import Group, UserError

ADVANTAGE_EPSILON = 1e-4


def run(cfg: GrpoStage, stage: StageDir, log: StageLog) -> dict[str, Measure]:
    """Train, resume where a checkpoint stands, write `model/`; returns the final evaluation."""
    make_deterministic()
    device = default_device()
    dtype = compute_dtype(cfg.dtype, device)
    policy = load_policy(cfg, device)
    if cfg.gradient_checkpointing:
        policy.model.activation_checkpointing_enable()
    # A reference model that moves needs float32: small shares of the policy would be lost in bfloat16.
    reference = load_policy(cfg, device, torch.float32 if cfg.sync_ref_model else dtype) if cfg.beta else None
    moving = reference.model if reference and cfg.sync_ref_model else None
    teacher = load_teacher(cfg, policy, dtype) if cfg.teacher_model else None
    engine = NativeEngine(policy.model, policy.stop_ids, dtype, cfg.max_num_seqs)
    rewards = load_rewards(cfg.rewards, stage.verdicts, load_scorers(cfg.rewards, device, dtype))
    prompts, num_dropped = load_prompts(cfg.data, policy, cfg.max_prompt_length, cfg.seed)
    if not cfg.rewards:  # nothing hangs on a grade, so the data need no answers
        prompts = [replace(prompt, problem=replace(prompt.problem, grader=None)) for prompt in prompts]
    check_tasks(cfg.rewards, sorted({prompt.problem.task for prompt in prompts}))
    eval_prompts = load_eval_prompts(cfg, policy)
    check_lengths(policy, prompts, cfg.max_completion_length)
    if teacher:
        check_lengths(teacher, prompts, cfg.max_completion_length, "the teacher")
    check_scoring(policy, dtype)
    total = num_steps(cfg, len(prompts))
    optimizers = build_optimizers(policy.model, cfg)
    step = resume_training(stage, policy, optimizers, total, moving).step
    told: dict[str, list[float]] = defaultdict(list)  # what rewards log by themselves
    engine.refresh()
    policy.model.train()
    log.start(total, step, prompts=len(prompts), prompts_dropped=num_dropped)
    STOP.wait(log.note)

    while step < total:
        started, first = time.perf_counter(), step

        # Sample a group of completions for each prompt and score them.
        generation = step // cfg.updates_per_generation
        active = [reward for reward, part in zip(rewards, cfg.rewards, strict=True) if part.counts_at(step, total)]
        told.clear()
        drawn = list(
            draw_groups(engine, policy, prompts, cfg, generation, active, lambda name, x: told[name].append(x), stage.verdicts)
        )
        rolled = time.perf_counter()
        groups = groups_to_learn_from(drawn, cfg.prompts_per_generation)

        # Advantages, relative to the group; what old policy, reference and teacher think of the tokens.
        groups = with_advantages(groups, cfg.scale_rewards)
        rows = rows_of(groups, cfg.mask_truncated_completions)
        if cfg.updates_per_generation > 1:
            random.Random(f"{cfg.seed}/{cfg.name}/{generation}").shuffle(rows)  # no update sees whole groups only
            drawn_with = [row.rollout_logps for row in rows]
            old = drawn_with if rollout_logps_will_do(cfg, engine) else logps_of(rows, policy, cfg, dtype)
            rows = [replace(row, old_logps=logps) for row, logps in zip(rows, old, strict=True)]
        if reference:
            ref = logps_of(rows, reference, cfg, dtype)
            rows = [replace(row, ref_logps=logps) for row, logps in zip(rows, ref, strict=True)]
        if teacher:
            taught = logps_of(rows, teacher, cfg, dtype)
            rows = [replace(row, teacher_logps=logps) for row, logps in zip(rows, taught, strict=True)]

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
            if moving and step % cfg.ref_model_sync_steps == 0:
                mix_into(moving, policy.model, cfg.ref_model_mixup_alpha)
        engine.refresh()

        # Log, evaluate, save.
        finished = time.perf_counter()
        seen = rollout_metrics(drawn)
        metrics = {
            **seen,
            **{name: statistics.fmean(values) for name, values in told.items()},
            **loss_metrics(sums, cfg, step - first),
            "grad_norm": grad_norm,
            "learning_rate": rate,
            "speed/rollout_tokens_per_second": seen["num_tokens"] / (rolled - started),
            "speed/train_tokens_per_second": sums.tokens / (finished - rolled),
            "memory/peak_mb": peak_memory_mb(device),
            "step_time": (finished - started) / (step - first),
        }
        if is_due(first, step, cfg.logging_steps) or step == total:
            log.step(step, metrics, groups[0])
        if is_due(first, step, cfg.save_rollouts_steps):
            write_rollouts(stage.rollouts(step), step, groups)
        if is_due(first, step, cfg.eval.eval_steps) and eval_prompts and step < total:
            measure_policy(engine, policy, eval_prompts, cfg, log, step, verdicts=stage.verdicts)
        if STOP.is_asked or (is_due(first, step, cfg.save_steps) and step < total):
            save_checkpoint(stage, TrainerState(step), policy, optimizers, cfg.save_total_limit, moving)
            STOP.now_if_asked()

    STOP.at_once()
    save_model(stage, policy, cfg)
    if not eval_prompts:
        return {}
    engine.refresh()
    return measure_policy(engine, policy, eval_prompts, cfg, log, total, stage.answers, stage.verdicts)[1]


def draw_groups(
    engine: NativeEngine,
    policy: Policy,
    prompts: Sequence[Prompt],
    cfg: GrpoStage,
    generation: int,
    rewards: Sequence[Reward],
    log_metric: LogMetric = ignore_metric,
    verdicts: Path | None = None,
) -> Iterator[Group]:
    """A group for each prompt of this generation and, with dynamic sampling, for others in place of flat ones.

    Dynamic sampling (DAPO, arXiv 2503.14476, section 3.2) wants groups that were solved sometimes. What counts is the
    grader's verdict and never the shaped reward: by that, a group that differs in form alone would pass.
    """
    missing, asked = cfg.prompts_per_generation, set[int]()
    for round_ in range(1 + cfg.dynamic_sampling_rounds):
        order = indices_of_step(generation, cfg.prompts_per_generation, len(prompts), cfg.seed, cfg.shuffle_dataset)
        if round_:  # of an order of its own, what this generation has not seen
            order = indices_of_step(0, len(prompts), len(prompts), f"{cfg.seed}/{generation}/{round_}")
            order = [i for i in order if i not in asked][:missing]
        asked |= set(order)
        sampling = sampling_of(cfg, f"{cfg.seed}/{cfg.name}/{generation}" + f"/{round_}" * (round_ > 0))
        chosen = [prompts[i] for i in order]
        if not chosen:
            return
        groups = rollout(engine, policy, chosen, cfg.num_generations, sampling, rewards, log_metric, verdicts)
        yield from groups
        missing -= sum(is_mixed(group) for group in groups)
        if missing <= 0 or not groups:
            return


def is_mixed(group: Group) -> bool:
    """Whether some of the group's completions are solved and some are not."""
    return 0 < sum(completion.solved for completion in group.completions) < len(group.completions)


def groups_to_learn_from(drawn: Sequence[Group], size: int) -> list[Group]:
    """The first `size` of the groups drawn, mixed ones first where there are more than `size`."""
    if len(drawn) > size:
        drawn = sorted(drawn, key=lambda group: not is_mixed(group))
    return list(drawn[:size])


def load_teacher(cfg: GrpoStage, student: Policy, dtype: torch.dtype) -> Policy:
    """The model that scores the student's tokens. Raises UserError where it reads other tokens than the student.

    It is given the student's prompts and completions as they are, so its own prompt settings and stop ids play no part.
    """
    named = cfg.model_copy(update={"model": cfg.teacher_model, "model_revision": cfg.teacher_model_revision})
    teacher = load_policy(named, student.device, dtype)
    ours, theirs = student.tokenizer.get_vocab(), teacher.tokenizer.get_vocab()
    if ours != theirs:
        token, i = min(ours.items() ^ theirs.items(), key=lambda item: item[::-1])
        raise UserError(
            f"teacher_model {cfg.teacher_model} and model {cfg.model} need the same tokenizer: theirs differ in {token!r}, "
            f"token {i} of one of them"
        )
    check_scoring(teacher, dtype)
    return teacher


def rollout_logps_will_do(cfg: GrpoStage, engine: NativeEngine) -> bool:
    """Whether the engine's log-probabilities stand for those of the old policy; else the trainer has to compute them.

    The engine drew the tokens, so its probabilities are the right ones to divide by, though it may round to bfloat16. On the
    level of sequences the clips (GSPO: 3e-4) are narrower than that rounding.
    """
    return engine.is_exact or cfg.importance_sampling_level == "token"


def mix_into(reference: PreTrainedModel, policy: PreTrainedModel, share: float) -> None:
    """Move the reference model towards the policy: ref = share * policy + (1 - share) * ref (arXiv 2404.09656)."""
    with torch.no_grad():
        for theirs, ours in zip(reference.parameters(), policy.parameters(), strict=True):
            theirs.mul_(1 - share).add_(ours, alpha=share)


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


def rollout_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """What one generation looks like, under TRL's names where TRL has one.

    `entropy` is the mean of -log p over the drawn tokens: an unbiased estimate that costs nothing.
    """
    completions = [completion for group in groups for completion in group.completions]
    lengths = [len(completion.sample.token_ids) for completion in completions]
    terminated = [len(c.sample.token_ids) for c in completions if c.sample.finish_reason == "stop"]
    return {
        **(grade_metrics(groups) if any(group.problem.grader for group in groups) else {}),
        "completions/mean_length": statistics.fmean(lengths),
        "completions/max_length": max(lengths),
        "completions/clipped_ratio": 1 - len(terminated) / len(completions),
        "completions/mean_terminated_length": statistics.fmean(terminated) if terminated else 0.0,
        "entropy": -sum(sum(c.sample.logps) for c in completions) / max(1, sum(lengths)),
        "num_tokens": sum(lengths),
    }


def grade_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Rewards and verdicts of one generation."""
    completions = [completion for group in groups for completion in group.completions]
    rewards = [completion.reward for completion in completions if completion.reward is not None]
    spreads = [spread_of(c.reward for c in group.completions) for group in groups]
    metrics = {
        "reward": statistics.fmean(rewards) if rewards else 0.0,
        "reward_std": spread_of(rewards),
        "frac_reward_zero_std": statistics.fmean(spread < 1e-9 for spread in spreads),
        "accuracy": statistics.fmean(completion.solved for completion in completions),
    }
    tasks = sorted({group.problem.task for group in groups})
    for task in tasks if len(tasks) > 1 else ():
        verdicts = [c.solved for group in groups if group.problem.task == task for c in group.completions]
        metrics[f"accuracy/{task}"] = statistics.fmean(verdicts)
    for name in completions[0].scores:
        scores = [score for c in completions if (score := c.scores[name]) is not None]
        metrics[f"rewards/{name}/mean"] = statistics.fmean(scores) if scores else 0.0
        metrics[f"rewards/{name}/std"] = statistics.stdev(scores) if len(scores) > 1 else 0.0
    return metrics
