"""From problems to graded completions: render, generate, decode, score. Training and evaluation share it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from aha.chat import decode, encode_prompts, render
from aha.config import DataConfig, SamplingConfig
from aha.data.sources import load_problems
from aha.engine.native import NativeEngine, Sampling
from aha.model import Policy
from aha.rewards import Reward, load_grader, score
from aha.rundir import out_of_space_is_a_user_error
from aha.types import Completion, Group, Problem, Sample, UserError


@dataclass(frozen=True)
class Prompt:
    """A problem as the policy sees it."""

    problem: Problem
    text: str
    ids: list[int]


def load_prompts(data: Sequence[DataConfig], policy: Policy, max_length: int | None = None) -> tuple[list[Prompt], int]:
    """The prompts of all sources, and how many were dropped because they are longer than `max_length` tokens."""
    problems = [problem for cfg in data for problem in load_problems(cfg)]
    if not problems:
        return [], 0
    texts = [render(problem.question, policy.prompt, policy.tokenizer) for problem in problems]
    all_ids = encode_prompts(texts, policy.prompt, policy.tokenizer)
    prompts = [Prompt(*row) for row in zip(problems, texts, all_ids, strict=True)]
    kept = [prompt for prompt in prompts if max_length is None or len(prompt.ids) <= max_length]
    if not kept:
        raise UserError(f"all {len(prompts)} prompts are longer than max_prompt_length {max_length}")
    return kept, len(prompts) - len(kept)


def sampling_of(cfg: SamplingConfig, seed: str, **changes: Any) -> Sampling:
    """The engine's sampling settings for a stage; `changes` override single ones."""
    settings = Sampling(seed, cfg.max_completion_length, cfg.temperature, cfg.top_p, cfg.top_k, cfg.min_p)
    return replace(settings, **{key: value for key, value in changes.items() if value is not None})


def rollout(
    engine: NativeEngine, policy: Policy, prompts: Sequence[Prompt], n: int, sampling: Sampling, rewards: Sequence[Reward]
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
    return grade(policy, prompts, samples, rewards)


def evaluate(engine: NativeEngine, policy: Policy, prompts: Sequence[Prompt], cfg: SamplingConfig, seed: int) -> list[Group]:
    """Answers to evaluation prompts. The seed names the random numbers, so two models are measured with the same ones."""
    changes = {"max_tokens": cfg.eval.max_completion_length, "temperature": cfg.eval.temperature}
    return rollout(engine, policy, prompts, cfg.eval.num_generations, sampling_of(cfg, f"{seed}/eval", **changes), [])


def grade(
    policy: Policy, prompts: Sequence[Prompt], samples: Sequence[Sequence[Sample]], rewards: Sequence[Reward]
) -> list[Group]:
    """Turn samples into text, score them by every reward, and by the grader of each problem."""
    flat = [(prompt, sample) for prompt, group in zip(prompts, samples, strict=True) for sample in group]
    prefill = policy.prompt.prefill
    texts = [prefill + decode(sample.token_ids, policy.tokenizer, policy.stop_ids) for _, sample in flat]
    scores = {reward.name: _score(reward, flat, texts, policy) for reward in rewards}
    solved = [False] * len(flat)
    for name in {prompt.problem.grader for prompt in prompts}:
        mine = [i for i, (prompt, _) in enumerate(flat) if prompt.problem.grader == name]
        graded = _score(load_grader(name), [flat[i] for i in mine], [texts[i] for i in mine], policy)
        for i, value in zip(mine, graded, strict=True):
            solved[i] = (value or 0.0) >= 1.0

    completions = []
    for i, (_, sample) in enumerate(flat):
        row = {reward.name: scores[reward.name][i] for reward in rewards}
        paid = [reward.weight * value for reward in rewards if (value := row[reward.name]) is not None]
        total = sum(paid) if paid or not rewards else None
        completions.append(Completion(sample, texts[i], row, total, solved[i]))
    ends = iter(completions)
    return [
        Group(prompt.problem, prompt.text, prompt.ids, [next(ends) for _ in group])
        for prompt, group in zip(prompts, samples, strict=True)
    ]


def _score(reward: Reward, flat: Sequence[tuple[Prompt, Sample]], texts: Sequence[str], policy: Policy) -> list[float | None]:
    return score(
        reward,
        [prompt.text for prompt, _ in flat],
        texts,
        [sample.token_ids for _, sample in flat],
        [prompt.problem.columns for prompt, _ in flat],
        (policy.prompt.think, policy.prompt.answer),
    )


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
