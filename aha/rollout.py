"""From problems to graded completions: render, generate, decode, score. Training and evaluation share it."""

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from aha.chat import decode, encode_prompts, render
from aha.config import DataConfig, PromptConfig
from aha.data.mixture import load_mixture
from aha.engine.native import NativeEngine
from aha.engine.sampling import Sampling
from aha.log import StageLog
from aha.metrics import Measure, measure
from aha.model import Policy, longest, told_longest
from aha.rewards import LogMetric, Reward, begins_ahead, ignore_metric, is_same, load_grader, score, total
from aha.rewards.base import Pool
from aha.rundir import disk_faults_are_user_errors
from aha.stage_configs import DecodingConfig, EvalStage, GrpoStage, SamplingConfig, SftStage
from aha.types import Completion, Group, Problem, Sample, UserError

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Prompt:
    """A problem as the policy sees it."""

    problem: Problem
    text: str
    ids: list[int]


def load_prompts(
    data: Sequence[DataConfig],
    policy: Policy,
    max_length: int | None = None,
    seed: int = 0,
    wording: Callable[[str], str] = str,
) -> tuple[list[Prompt], int]:
    """The prompts of all sources, mixed by their weights, and how many were dropped because they are longer than
    `max_length` tokens. `wording` makes of a question what the model is asked."""
    problems = load_mixture(data, seed)
    if not problems:
        return [], 0
    texts = [render(wording(problem.question), policy.prompt, policy.tokenizer) for problem in problems]
    all_ids = encode_prompts(texts, policy.prompt, policy.tokenizer)
    prompts = [Prompt(*row) for row in zip(problems, texts, all_ids, strict=True)]
    kept = [prompt for prompt in prompts if max_length is None or len(prompt.ids) <= max_length]
    if not kept:
        raise UserError(f"all {len(prompts)} prompts are longer than max_prompt_length {max_length}")
    return kept, len(prompts) - len(kept)


def load_eval_prompts(cfg: SamplingConfig, policy: Policy) -> list[Prompt]:
    """The prompts of `eval.data`. However long, none is dropped: all stages are to be measured on the same problems.

    Raises UserError where one of them and its completion could exceed what the model holds.
    """
    prompts, _ = load_prompts(cfg.eval.data, policy)
    check_lengths(policy, prompts, cfg.eval.max_completion_length or cfg.max_completion_length, way_out="")
    return prompts


def check_lengths(
    policy: Policy,
    prompts: Sequence[Prompt],
    max_completion_length: int,
    who: str = "the model",
    way_out: str = ", or set max_prompt_length",
) -> None:
    """Raise UserError where a prompt and its completion could exceed what the model holds, before anything is drawn."""
    limit = longest(policy.model)
    prompt = max((len(prompt.ids) for prompt in prompts), default=0)
    if prompts and prompt + max_completion_length > limit:
        raise UserError(
            f"the longest prompt of {prompt} tokens and max_completion_length {max_completion_length} make "
            f"{prompt + max_completion_length}; {who} holds {told_longest(policy.model)}: lower one of them{way_out}"
        )


def sampling_of(cfg: DecodingConfig, seed: str, **changes: Any) -> Sampling:
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
    verdicts: Path | None = None,
    on_progress: OnProgress | None = None,
) -> list[Group]:
    """Draw `n` completions of each prompt and score them.

    A problem that stands twice among the prompts gets other random numbers the second time. What graders took long to say
    is kept in the folder `verdicts`, where a run that resumes finds it. `on_progress` is told how many completions are
    drawn, and of how many.
    """
    seen: Counter[str] = Counter()
    ids = []
    for prompt in prompts:
        ids.append(f"{prompt.problem.id}#{seen[prompt.problem.id]}")
        seen[prompt.problem.id] += 1
    with background() as ahead:
        drawn = itertools.count(1)

        def finished(place: int, sample: Sample) -> None:
            if on_progress:
                on_progress(next(drawn), n * len(prompts))
            if waiting:
                begin(place, sample)

        def begin(place: int, sample: Sample) -> None:
            prompt, [[text]] = prompts[place], texts_of(policy, [[sample]])
            for reward in waiting:
                _score(
                    reward,
                    [(prompt, sample)],
                    [text],
                    policy.prompt,
                    [reward.weight_for(prompt.problem.task) is not None],
                    ahead=ahead,
                )

        waiting = [reward for reward in rewards if begins_ahead(reward)]
        samples = engine.generate([prompt.ids for prompt in prompts], n, sampling, ids, finished)
        return grade(policy, prompts, samples, rewards, log_metric, verdicts)


@contextmanager
def background() -> Iterator[Pool]:
    """Pools of threads by their size. What nobody has collected at the end, as after an error, is no longer begun."""
    pools: dict[int, ThreadPoolExecutor] = {}
    try:
        yield lambda size: pools.setdefault(size, ThreadPoolExecutor(size))
    finally:
        for pool in pools.values():
            pool.shutdown(cancel_futures=True)


def evaluate(
    engine: NativeEngine,
    policy: Policy,
    prompts: Sequence[Prompt],
    cfg: SamplingConfig,
    seed: int,
    verdicts: Path | None = None,
    on_progress: OnProgress | None = None,
) -> list[Group]:
    """Answers to evaluation prompts. The seed names the random numbers, so two models are measured with the same ones."""
    own = cfg.eval
    changes = {"max_tokens": own.max_completion_length, "temperature": own.temperature, "top_p": own.top_p}
    sampling = sampling_of(cfg, f"{seed}/eval", **changes)
    return rollout(engine, policy, prompts, cfg.eval.num_generations, sampling, [], verdicts=verdicts, on_progress=on_progress)


def measure_policy(
    engine: NativeEngine,
    policy: Policy,
    prompts: Sequence[Prompt],
    cfg: EvalStage | SftStage | GrpoStage,
    log: StageLog,
    step: int,
    kept: Path | None = None,
    verdicts: Path | None = None,
) -> tuple[list[Group], dict[str, Measure]]:
    """The answers of a policy at `step`, written to `kept` if given, and their measures, which `log` records."""
    answers = evaluate(engine, policy, prompts, cfg, cfg.seed, verdicts, log.answered)
    if kept:
        write_rollouts(kept, step, answers)
    measures = measure(answers, policy.prompt)
    log.evaluation(step, measures)
    return answers, measures


def grade(
    policy: Policy,
    prompts: Sequence[Prompt],
    samples: Sequence[Sequence[Sample]],
    rewards: Sequence[Reward],
    log_metric: LogMetric = ignore_metric,
    verdicts: Path | None = None,
) -> list[Group]:
    """Turn samples into text, score them by every reward, and by the grader of each problem."""
    return grade_texts(policy.prompt, prompts, samples, texts_of(policy, samples), rewards, log_metric, verdicts)


def texts_of(policy: Policy, samples: Sequence[Sequence[Sample]]) -> list[list[str]]:
    """Samples as text, each with the prefilled start of the assistant's turn."""
    prefill, tokenizer = policy.prompt.prefill, policy.tokenizer
    return [[prefill + decode(sample.token_ids, tokenizer, policy.stop_ids) for sample in group] for group in samples]


def grade_texts(
    settings: PromptConfig,
    prompts: Sequence[Prompt],
    samples: Sequence[Sequence[Sample]],
    texts: Sequence[Sequence[str]],
    rewards: Sequence[Reward],
    log_metric: LogMetric = ignore_metric,
    verdicts: Path | None = None,
) -> list[Group]:
    """Score texts, which stand as the samples do, by every reward and by the grader of each problem.

    A grader that is a reward too is asked once. What no grader can judge counts as not solved.
    """
    flat = [(prompt, sample) for prompt, group in zip(prompts, samples, strict=True) for sample in group]
    flat_texts = [text for group in texts for text in group]
    problems = [prompt.problem for prompt, _ in flat]
    scores = {
        reward.name: _score(
            reward, flat, flat_texts, settings, [reward.weight_for(p.task) is not None for p in problems], log_metric
        )
        for reward in rewards
    }
    solved = [False] * len(flat)
    for name in {problem.grader for problem in problems if problem.grader}:
        grader, mine = load_grader(name, verdicts), [problem.grader == name for problem in problems]
        tasks = {problem.task for problem in itertools.compress(problems, mine)}
        twins = [r for r in rewards if is_same(r, grader) and all(r.weight_for(task) is not None for task in tasks)]
        graded = scores[twins[0].name] if twins else _score(grader, flat, flat_texts, settings, mine)
        rows = zip(solved, mine, graded, strict=True)
        solved = [before or (counted and (value or 0.0) >= 1.0) for before, counted, value in rows]

    completions = []
    for i, (prompt, sample) in enumerate(flat):
        row = {reward.name: scores[reward.name][i] for reward in rewards}
        completions.append(Completion(sample, flat_texts[i], row, total(rewards, row, prompt.problem.task), solved[i]))
    ends = iter(completions)
    return [
        Group(prompt.problem, prompt.text, prompt.ids, [next(ends) for _ in group])
        for prompt, group in zip(prompts, samples, strict=True)
    ]


def _score(
    reward: Reward,
    flat: Sequence[tuple[Prompt, Sample]],
    texts: Sequence[str],
    settings: PromptConfig,
    counts: Sequence[bool],
    log_metric: LogMetric = ignore_metric,
    ahead: Pool | None = None,
) -> list[float | None]:
    """Scores of the completions that the reward `counts` for, None for the others."""
    mine = list(itertools.compress(zip(flat, texts, strict=True), counts))
    if not mine:
        return [None] * len(flat)
    given = score(
        reward,
        [prompt.text for (prompt, _), _ in mine],
        [text for _, text in mine],
        [sample.token_ids for (_, sample), _ in mine],
        [{**prompt.problem.columns, "question": prompt.problem.question} for (prompt, _), _ in mine],
        (settings.think, settings.answer),
        log_metric,
        ahead,
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
    with disk_faults_are_user_errors(path):
        with temporary.open("wb") as file:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def read_rollouts(path: Path, prompts: Sequence[Prompt]) -> list[Group]:
    """The groups that `write_rollouts` wrote, without those that have no completion. Ids of tokens, which are not in the
    file, stand as -1, as many as there were. Raises UserError where the file is damaged or not of these prompts."""
    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: damaged ({str(error).splitlines()[0]}); delete it and run again: it is made anew") from error
    asked = {prompt.problem.id: prompt for prompt in prompts}
    groups: dict[str, Group] = {}
    for row in rows:
        prompt = asked.get(row["problem"])
        if prompt is None or prompt.problem.question != row["question"]:
            raise UserError(f"{path}: {row['problem']} is not the problem of that name in the data, which must have changed")
        group = groups.setdefault(row["problem"], Group(prompt.problem, prompt.text, prompt.ids))
        sample = Sample([-1] * row["num_tokens"], [], row["finish_reason"])
        scores = {key.removeprefix("rewards/"): value for key, value in row.items() if key.startswith("rewards/")}
        completion = Completion(sample, row["completion"], scores, row["reward"], row["solved"], row["advantage"])
        group.completions.append(completion)
    return list(groups.values())
