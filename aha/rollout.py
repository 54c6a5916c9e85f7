"""From problems to graded completions: render, generate, decode, score. Training and evaluation share it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from aha.chat import decode, encode_prompts, render
from aha.config import DataConfig, SamplingConfig
from aha.data.mixture import load_mixture
from aha.engine.native import NativeEngine, Sampling
from aha.model import Policy
from aha.rewards import LogMetric, Reward, ignore_metric, load_grader, score, total
from aha.rundir import out_of_space_is_a_user_error
from aha.types import Completion, Group, Problem, Sample, UserError


@dataclass(frozen=True)
class Prompt:
    """A problem as the policy sees it."""

    problem: Problem
    text: str
    ids: list[int]


def load_prompts(
    data: Sequence[DataConfig], policy: Policy, max_length: int | None = None, seed: int = 0
) -> tuple[list[Prompt], int]:
    """The prompts of all sources, mixed by their weights, and how many were dropped because they are longer than
    `max_length` tokens."""
    problems = load_mixture(data, seed)
    if not problems:
        return [], 0
    texts = [render(problem.question, policy.prompt, policy.tokenizer) for problem in problems]
    all_ids = encode_prompts(texts, policy.prompt, policy.tokenizer)
    prompts = [Prompt(*row) for row in zip(problems, texts, all_ids, strict=True)]
    kept = [prompt for prompt in prompts if max_length is None or len(prompt.ids) <= max_length]
    if not kept:
        raise UserError(f"all {len(prompts)} prompts are longer than max_prompt_length {max_length}")
    return kept, len(prompts) - len(kept)


def check_lengths(policy: Policy, prompts: Sequence[Prompt], max_completion_length: int) -> None:
    """Raise UserError where a prompt and its completion could exceed what the model holds, before anything is drawn."""
    limit = policy.model.config.get_text_config().max_position_embeddings
    longest = max((len(prompt.ids) for prompt in prompts), default=0)
    if prompts and longest + max_completion_length > limit:
        raise UserError(
            f"the longest prompt of {longest} tokens and max_completion_length {max_completion_length} make "
            f"{longest + max_completion_length}; the model holds {limit}: lower one of them, or set max_prompt_length"
        )


def sampling_of(cfg: SamplingConfig, seed: str, **changes: Any) -> Sampling:
    """The engine's sampling settings for a stage; `changes` override single ones."""
    settings = Sampling(seed, cfg.max_completion_length, cfg.temperature, cfg.top_p, cfg.top_k, cfg.min_p)
    return replace(settings, **{key: value for key, value in changes.items() if value is not None})


def rollout(
    engine: NativeEngine,
    policy: Policy,
    prompts: Sequence[Prompt],
    n: int,
    sampling: Sampling,
    rewards: Sequence[Reward],
    log_metric: LogMetric = ignore_metric,
) -> list[Group]:
    """Draw `n` completions of each prompt and score them.

    A problem that stands twice among the prompts gets other random numbers the second time.
    """
    seen: Counter[str] = Counter()
    ids = []
    for prompt in prompts:
        ids.append(f"{prompt.problem.id}#{seen[prompt.problem.id]}")
        seen[prompt.problem.id] += 1
    samples = engine.generate([prompt.ids for prompt in prompts], n, sampling, ids)
    return grade(policy, prompts, samples, rewards, log_metric)


def evaluate(engine: NativeEngine, policy: Policy, prompts: Sequence[Prompt], cfg: SamplingConfig, seed: int) -> list[Group]:
    """Answers to evaluation prompts. The seed names the random numbers, so two models are measured with the same ones."""
    own = cfg.eval
    changes = {"max_tokens": own.max_completion_length, "temperature": own.temperature, "top_p": own.top_p}
    return rollout(engine, policy, prompts, cfg.eval.num_generations, sampling_of(cfg, f"{seed}/eval", **changes), [])


def grade(
    policy: Policy,
    prompts: Sequence[Prompt],
    samples: Sequence[Sequence[Sample]],
    rewards: Sequence[Reward],
    log_metric: LogMetric = ignore_metric,
) -> list[Group]:
    """Turn samples into text, score them by every reward, and by the grader of each problem."""
    flat = [(prompt, sample) for prompt, group in zip(prompts, samples, strict=True) for sample in group]
    prefill = policy.prompt.prefill
    texts = [prefill + decode(sample.token_ids, policy.tokenizer, policy.stop_ids) for _, sample in flat]
    problems = [prompt.problem for prompt, _ in flat]
    scores = {
        reward.name: _score(reward, flat, texts, policy, [reward.weight_for(p.task) is not None for p in problems], log_metric)
        for reward in rewards
    }
    solved = [False] * len(flat)
    for name in {problem.grader for problem in problems}:
        graded = _score(load_grader(name), flat, texts, policy, [problem.grader == name for problem in problems])
        solved = [before or (value or 0.0) >= 1.0 for before, value in zip(solved, graded, strict=True)]

    completions = []
    for i, (prompt, sample) in enumerate(flat):
        row = {reward.name: scores[reward.name][i] for reward in rewards}
        completions.append(Completion(sample, texts[i], row, total(rewards, row, prompt.problem.task), solved[i]))
    ends = iter(completions)
    return [
        Group(prompt.problem, prompt.text, prompt.ids, [next(ends) for _ in group])
        for prompt, group in zip(prompts, samples, strict=True)
    ]


def _score(
    reward: Reward,
    flat: Sequence[tuple[Prompt, Sample]],
    texts: Sequence[str],
    policy: Policy,
    counts: Sequence[bool],
    log_metric: LogMetric = ignore_metric,
) -> list[float | None]:
    """Scores of the completions that the reward `counts` for, None for the others."""
    mine = list(compress(zip(flat, texts, strict=True), counts))
    if not mine:
        return [None] * len(flat)
    given = score(
        reward,
        [prompt.text for (prompt, _), _ in mine],
        [text for _, text in mine],
        [sample.token_ids for (_, sample), _ in mine],
        [{**prompt.problem.columns, "question": prompt.problem.question} for (prompt, _), _ in mine],
        (policy.prompt.think, policy.prompt.answer),
        log_metric,
    )
    values = iter(given)
    return [next(values) if counted else None for counted in counts]


def write_rollouts(path: Path, step: int, groups: Sequence[Group]) -> None:
    """All completions of one step as parquet, one row each."""
    rows = [
        {
            "step": step,
            "problem": group.problem.id,
            "sample": i,
            "kind": group.problem.task,
            "question": group.problem.question,
            "prompt": group.prompt,
            "completion": completion.text,
            "num_tokens": len(completion.sample.token_ids),
            "finish_reason": completion.sample.finish_reason,
            "reward": completion.reward,
            "solved": completion.solved,
            **{f"rewards/{name}": value for name, value in completion.scores.items()},
            "advantage": completion.advantage,
        }
        for group in groups
        for i, completion in enumerate(group.completions)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with out_of_space_is_a_user_error(path):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), temporary)
        temporary.replace(path)
