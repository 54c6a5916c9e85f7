"""Traces: several answers to each problem, graded, refined, filtered and written for supervised training.

Cold start (arXiv 2501.12948, section 2.3.1), rejection sampling (section 2.3.3) and a teacher's traces (section 2.4) are
this verb with other settings. Problems are answered in parts. The answers of a part are graded and saved before the next
part begins; all that follows is a function of what was saved, so a stage that was cut off writes the same traces.

`run` is the verb from top to bottom; refinements are in data/refine.py, filters in data/filters.py.
"""

import json
import random
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aha.chat import R1_INSTRUCTION, parse, render, with_template_prefill
from aha.config import NamedConfig, PromptConfig, RewriteConfig
from aha.data import filters
from aha.data.filters import FilterCount
from aha.data.mixture import load_mixture
from aha.data.refine import refine
from aha.data.review import reviewed
from aha.data.wording import Answer, readable, wording_of
from aha.engine.native import NativeEngine
from aha.engine.sampling import Sampling
from aha.engine.server import ServerEngine
from aha.language import target_language
from aha.log import StageLog
from aha.metrics import Measure, final_answer, measure
from aha.model import compute_dtype, default_device, load_policy
from aha.remote import Reply, Request
from aha.rewards import LogMetric, Reward, check_shares, check_tasks, ignore_metric, load_rewards
from aha.rewards import total as total_of
from aha.rollout import (
    Prompt,
    check_lengths,
    grade_texts,
    load_prompts,
    read_rollouts,
    sampling_of,
    texts_of,
    write_rollouts,
)
from aha.rundir import StageDir, write_atomic
from aha.scorer import load_scorers
from aha.stage_configs import SampleStage
from aha.training import make_deterministic
from aha.types import Completion, Group, Problem, Sample, Trace, UserError

REWRITES_FILE = "rewrites.jsonl"  # what the stronger model answered
JUDGE = "judge"  # the reward that is slow and paid for, so it marks what has passed the filters and nothing else
Draw = Callable[[Sequence[Prompt], Path], list[list[Answer]]]  # the file keeps what a server has said already


@dataclass(frozen=True)
class Asked:
    """What is asked and who answers."""

    settings: PromptConfig  # its tags are those of the traces
    prompts: list[Prompt]
    num_dropped: int  # prompts that are too long
    draw: Draw
    num_tokens: Callable[[Trace, str], int]  # of a trace that is given another text


def run(cfg: SampleStage, stage: StageDir, log: StageLog) -> dict[str, Measure | int]:
    """Sample what is not sampled yet, then write `traces.jsonl`; returns the measures of the answers and how many of them
    passed each filter. Raises UserError where people have to look first (`review`), and where nothing is left."""
    device = default_device()
    rewards = load_rewards(cfg.rewards, stage.verdicts, load_scorers(cfg.rewards, device, compute_dtype(cfg.dtype, device)))
    try_steps(cfg, rewards)
    known_questions = [problem.question for problem in load_mixture(cfg.decontaminate)] if cfg.decontaminate else []
    asked = ask_model(cfg) if cfg.server is None else ask_server(cfg)
    tasks = sorted({prompt.problem.task for prompt in asked.prompts})
    check_tasks(cfg.rewards, tasks)
    check_shares(cfg.shares, tasks)
    judges = [reward for own, reward in zip(cfg.rewards, rewards, strict=True) if own.name == JUDGE]
    rules = [reward for reward in rewards if reward not in judges]
    size = cfg.prompts_per_part
    parts = [asked.prompts[start : start + size] for start in range(0, len(asked.prompts), size)]
    files = [stage.rollouts(number) for number in range(1, len(parts) + 1)]
    total = len(parts) + 1  # the last step makes traces of the answers
    made = [number for number, file in enumerate(files, 1) if file.exists()]
    missing = set(range(1, max(made, default=0))) - set(made)  # one that was damaged, which people deleted
    log.start(total, len(made), missing, prompts=len(asked.prompts), prompts_dropped=asked.num_dropped)

    # Answers, part by part, graded and saved.
    told: dict[str, list[float]] = defaultdict(list)  # what rewards log by themselves
    for number, (part, file) in enumerate(zip(parts, files, strict=True), 1):
        if file.exists():
            continue
        started = time.perf_counter()
        replies = stage.path / "replies" / f"{file.stem}.jsonl"
        told.clear()
        answers = asked.draw(part, replies)
        groups = graded(part, answers, asked.settings, rules, stage.verdicts, lambda name, x: told[name].append(x))
        # Logged first: a part that was not saved after all is drawn again, and then its line is dropped.
        log.step(number, {**part_metrics(groups, time.perf_counter() - started), **_means(told)}, groups[0])
        write_rollouts(file, number, groups)
        replies.unlink(missing_ok=True)
    groups = [group for part, file in zip(parts, files, strict=True) for group in read_rollouts(file, part)]
    measures = measure(groups, asked.settings)
    log.evaluation(total, measures)

    # From answers to traces: refined, graded as they then are, filtered, marked by the judges, the best of each problem.
    grader = Grader(asked, {prompt.problem.id: prompt for prompt in asked.prompts}, rules, judges, stage.verdicts)
    origin = origin_of(cfg)
    candidates = [trace_of(group.problem, c, origin, i) for group in groups for i, c in enumerate(group.completions)]
    refined = grader.grade_again(candidates, [refine(trace, cfg.refine, asked.settings) for trace in candidates])
    traces, counts = select(refined, cfg, asked.settings, known_questions)
    numbers = {"sample/candidates": len(candidates)}
    if cfg.server:
        numbers["sample/failed"] = len(asked.prompts) * cfg.num_generations - len(candidates)
    numbers |= {f"refined/{step.name}": sum(step.name in trace.steps for trace in refined) for step in cfg.refine}
    tell(counts, total, log)
    told.clear()
    marked = []
    for start in range(0, len(traces), size):  # what a judge said about one part is kept before the next
        marked += grader.judge(traces[start : start + size], lambda name, x: told[name].append(x))
    if told:
        log.record(total, _means(told))
    traces, chosen = choose(marked, cfg, asked.settings)
    tell(chosen, total, log)
    counts += chosen

    # A stronger model's words and people's eyes, where they are wanted.
    if cfg.rewrite and traces:
        traces, rewriting = rewritten(traces, cfg, cfg.rewrite, grader, stage.path / REWRITES_FILE)
        numbers |= rewriting
        log.note(", ".join(f"{name} {number}" for name, number in rewriting.items()))
    if cfg.review and traces:
        kept = reviewed(traces, stage.review)
        counts.append(FilterCount("review", len(traces), len(kept)))
        tell(counts[-1:], total, log)
        traces = kept

    numbers |= {f"kept/{count.name}": count.kept for count in counts} | {"sample/kept": len(traces)}
    num_of_task = Counter(trace.problem.task for trace in traces)
    if len(tasks) > 1:
        numbers |= {f"sample/kept/{task}": num_of_task[task] for task in tasks}
    log.record(total, numbers)
    of_tasks = ", ".join(f"{number} {task}" for task, number in sorted(num_of_task.items()))
    log.note(f"{len(traces)} traces of {len({trace.problem.id for trace in traces})} problems: {of_tasks or 'none'}")
    if not traces:
        raise UserError(
            f"{cfg.name}: no trace is left of {len(candidates)} answers: "
            + ", ".join(f"{count.name} kept {count.kept} of {count.seen}" for count in counts)
        )
    rows = (json.dumps(row_of(trace), ensure_ascii=False, default=str) for trace in traces)
    write_atomic(stage.traces, "".join(f"{row}\n" for row in rows))
    return {**measures, **numbers}


def try_steps(cfg: SampleStage, rewards: Sequence[Reward]) -> None:
    """Raise UserError for a refinement or a filter that does not fit, before anything is sampled."""
    for name, times in Counter(label(own, cfg.filters) for own in cfg.filters).items():
        if times > 1:
            raise UserError(f"{cfg.name}: filters has {name} {times} times")
    scores = {reward.name: 1.0 for reward in rewards}
    text = "<think>1+1=2</think> <answer>2</answer>"
    example = Trace(Problem("example", "", "1+1?", {}, ""), text, "", solved=True, reward=1.0, scores=scores, num_tokens=9)
    filters.apply([refine(example, cfg.refine, PromptConfig())], cfg.filters, PromptConfig())


def ask_model(cfg: SampleStage) -> Asked:
    """Let `cfg.model` answer in this process."""
    make_deterministic()
    device = default_device()
    dtype = compute_dtype(cfg.dtype, device)
    policy = load_policy(cfg, device, dtype)
    if cfg.ask != "as_trained" and cfg.prompt is None:
        names = {"think": policy.prompt.think, "answer": policy.prompt.answer}
        template = "chat" if policy.tokenizer.chat_template else "plain"
        policy = replace(policy, prompt=with_template_prefill(PromptConfig(template=template, **names), policy.tokenizer))
    engine = NativeEngine(policy.model, policy.stop_ids, dtype, cfg.max_num_seqs)
    wording = wording_of(cfg, policy.prompt)
    prompts, num_dropped = load_prompts(cfg.data, policy, cfg.max_prompt_length, cfg.seed, wording)
    check_lengths(policy, prompts, cfg.max_completion_length)

    def draw(part: Sequence[Prompt], _: Path) -> list[list[Answer]]:
        ids = [prompt.problem.id for prompt in part]
        sampling = sampling_of(cfg, f"{cfg.seed}/{cfg.name}")
        samples = engine.generate([prompt.ids for prompt in part], cfg.num_generations, sampling, ids)
        texts = texts_of(policy, samples)
        return [[answer(*drawn) for drawn in zip(*pair, strict=True)] for pair in zip(samples, texts, strict=True)]

    def answer(drawn: Sample, text: str) -> Answer:
        sample, shown = readable(drawn, text, cfg, policy.prompt)
        return (sample if shown == text else replace(sample, token_ids=ids_of(shown, sample.finish_reason), logps=[])), shown

    def ids_of(text: str, finish_reason: str) -> list[int]:
        ids: list[int] = policy.tokenizer(text.removeprefix(policy.prompt.prefill), add_special_tokens=False).input_ids
        return ids + sorted(policy.stop_ids)[:1] * (finish_reason == "stop")

    def num_tokens(trace: Trace, text: str) -> int:
        return len(ids_of(text, trace.finish_reason))

    return Asked(policy.prompt, prompts, num_dropped, draw, num_tokens)


def ask_server(cfg: SampleStage) -> Asked:
    """Let the model behind `cfg.server` answer. Its prompts have no token ids; requests that fail have no answer."""
    server = cfg.server
    assert server
    settings = cfg.prompt or PromptConfig(template="chat" if server.api == "chat" else "plain")
    wording = wording_of(cfg, settings)
    prompts = []
    for problem in load_mixture(cfg.data, cfg.seed):
        text = wording(problem.question)
        prompts.append(Prompt(problem, text if server.api == "chat" else render(text, settings, None), []))
    instruction = R1_INSTRUCTION.format(think=settings.think, answer=settings.answer)
    system = settings.system or (instruction if settings.template == "r1-chat" else None)

    def request(prompt: Prompt) -> Request:
        if server.api == "completions":
            return prompt.text
        user = [{"role": "user", "content": prompt.text}]
        return [{"role": "system", "content": system}, *user] if system else user

    def answer(reply: Reply) -> Answer:
        sample = Sample([-1] * reply.completion_tokens, [], reply.finish_reason)
        return readable(sample, settings.prefill + (reply.text or ""), cfg, settings, reply.thoughts)

    def draw(part: Sequence[Prompt], kept: Path) -> list[list[Answer]]:
        sampling = sampling_of(cfg, f"{cfg.seed}/{cfg.name}")
        ids = [prompt.problem.id for prompt in part]
        engine = ServerEngine(server, kept)
        replies = engine.generate([request(prompt) for prompt in part], cfg.num_generations, sampling, ids, cfg.stop)
        return [[answer(reply) for reply in group if reply.text is not None] for group in replies]

    def num_tokens(trace: Trace, text: str) -> int:  # its tokenizer is not at hand
        return round(trace.num_tokens * len(text) / max(1, len(trace.text)))

    return Asked(settings, prompts, 0, draw, num_tokens)


def graded(
    part: Sequence[Prompt],
    answers: Sequence[Sequence[Answer]],
    settings: PromptConfig,
    rewards: Sequence[Reward],
    verdicts: Path,
    log_metric: LogMetric = ignore_metric,
) -> list[Group]:
    """The answers to a part as graded groups; a problem that got no answer has none. Without rewards that of an answer is
    the verdict of its problem's own grader. What took graders long is kept in the folder `verdicts`."""
    answered = [(prompt, group) for prompt, group in zip(part, answers, strict=True) if group]
    samples = [[sample for sample, _ in group] for _, group in answered]
    texts = [[text for _, text in group] for _, group in answered]
    groups = grade_texts(settings, [prompt for prompt, _ in answered], samples, texts, rewards, log_metric, verdicts)
    if rewards:
        return groups
    return [replace(g, completions=[replace(c, reward=float(c.solved)) for c in g.completions]) for g in groups]


def part_metrics(groups: Sequence[Group], seconds: float) -> dict[str, float]:
    """What the answers to one part look like, under the names that grpo uses."""
    completions = [completion for group in groups for completion in group.completions]
    rewards = [completion.reward for completion in completions if completion.reward is not None]
    lengths = [len(completion.sample.token_ids) for completion in completions]
    return {
        "reward": statistics.fmean(rewards) if rewards else 0.0,
        "accuracy": statistics.fmean(completion.solved for completion in completions),
        "completions/mean_length": statistics.fmean(lengths),
        "completions/clipped_ratio": statistics.fmean(c.sample.finish_reason == "length" for c in completions),
        "num_tokens": sum(lengths),
        "speed/rollout_tokens_per_second": sum(lengths) / seconds,
        "step_time": seconds,
    }


def _means(told: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: statistics.fmean(values) for name, values in told.items()}


def origin_of(cfg: SampleStage) -> str:
    """Where traces come from: the stage whose model, or the model that, answered, and how it was asked.

    Example: "zero"; "deepseek-chat/few_shot"
    """
    path = Path(cfg.model)
    is_output = path.name == "model" and path.parent.name and path.is_dir()  # of a stage
    name = cfg.server.model if cfg.server else path.parent.name if is_output else cfg.model
    return name if cfg.ask == "as_trained" else f"{name}/{cfg.ask}"


def trace_of(problem: Problem, completion: Completion, origin: str, number: int) -> Trace:
    """A completion, the answer `number` to its problem, as trace."""
    sample = completion.sample
    return Trace(
        problem,
        completion.text,
        origin,
        completion.solved,
        completion.reward,
        completion.scores,
        len(sample.token_ids),
        finish_reason=sample.finish_reason,
        sample=number,
    )


@dataclass(frozen=True)
class Grader:
    """Grades traces as the answers were graded: what is written has earned its verdict."""

    asked: Asked
    prompts: Mapping[str, Prompt]  # by the ids of their problems
    rules: Sequence[Reward]
    judges: Sequence[Reward]
    verdicts: Path

    def grade_again(self, before: Sequence[Trace], after: Sequence[Trace]) -> list[Trace]:
        """The traces `after`, with length and scores of their texts where these are not those of `before`.

        Where one is changed, all of its problem are graded again: some rewards compare the answers of a group.
        """
        measured = [
            new if new.text == old.text else replace(new, num_tokens=self.asked.num_tokens(old, new.text))
            for old, new in zip(before, after, strict=True)
        ]
        changed = {new.problem.id for old, new in zip(before, after, strict=True) if new.text != old.text}
        places: dict[str, list[int]] = defaultdict(list)
        for i, trace in enumerate(measured):
            if trace.problem.id in changed:
                places[trace.problem.id].append(i)
        prompts = [self.prompts[problem] for problem in places]
        answers = [[_as_answer(measured[i]) for i in mine] for mine in places.values()]
        groups = graded(prompts, answers, self.asked.settings, self.rules, self.verdicts)
        for mine, group in zip(places.values(), groups, strict=True):
            for i, c in zip(mine, group.completions, strict=True):
                measured[i] = replace(measured[i], solved=c.solved, reward=c.reward, scores=c.scores)
        return measured

    def judge(self, traces: Sequence[Trace], log_metric: LogMetric = ignore_metric) -> list[Trace]:
        """The traces with the marks of the judges, which their rewards then hold too."""
        if not self.judges:
            return list(traces)
        prompts, answers = [self.prompts[trace.problem.id] for trace in traces], [[_as_answer(trace)] for trace in traces]
        groups = graded(prompts, answers, self.asked.settings, self.judges, self.verdicts, log_metric)
        marked = []
        for trace, group in zip(traces, groups, strict=True):
            scores = {**trace.scores, **group.completions[0].scores}
            reward = total_of([*self.rules, *self.judges], scores, trace.problem.task)
            marked.append(replace(trace, scores=scores, reward=reward))
        return marked


def _as_answer(trace: Trace) -> Answer:
    return Sample([-1] * trace.num_tokens, [], trace.finish_reason), trace.text


def select(
    traces: Sequence[Trace], cfg: SampleStage, settings: PromptConfig, known_questions: Sequence[str]
) -> tuple[list[Trace], list[FilterCount]]:
    """The traces that pass what can be said without a judge, and what each step kept of what it saw."""
    kept, counts = filtered(traces, [own for own in cfg.filters if not wants_judge(own, cfg)], cfg, settings)
    steps: dict[str, Callable[[list[Trace]], list[Trace]]] = {}
    if cfg.deduplicate:
        steps["deduplicate"] = filters.without_duplicates
    if cfg.decontaminate:
        steps["decontaminate"] = lambda traces: filters.without_overlap(traces, known_questions)
    kept, more = in_steps(kept, steps)
    return kept, [*counts, *more]


def choose(traces: Sequence[Trace], cfg: SampleStage, settings: PromptConfig) -> tuple[list[Trace], list[FilterCount]]:
    """The traces whose judges' marks pass the filters and that are chosen among those, and what each step kept."""
    kept, counts = filtered(traces, [own for own in cfg.filters if wants_judge(own, cfg)], cfg, settings)
    steps: dict[str, Callable[[list[Trace]], list[Trace]]] = {}
    seed, n = f"{cfg.seed}/{cfg.name}", cfg.num_best
    if n is not None:
        steps["num_best"] = lambda traces: filters.best_per_problem(traces, n, cfg.rank_by, cfg.seed)
    if cfg.shares:
        steps["shares"] = lambda traces: filters.in_shares(traces, cfg.shares, f"{seed}/shares")
    if cfg.max_traces is not None:
        steps["max_traces"] = lambda traces: some_of(traces, cfg.max_traces, f"{seed}/max_traces")
    kept, more = in_steps(kept, steps)
    return kept, [*counts, *more]


def filtered(
    traces: Sequence[Trace], some: Sequence[NamedConfig], cfg: SampleStage, settings: PromptConfig
) -> tuple[list[Trace], list[FilterCount]]:
    """The traces that `some` of the filters keep, and what each kept of what it saw, under its label."""
    kept, counts = filters.apply(traces, some, settings)
    return kept, [replace(count, name=label(own, cfg.filters)) for count, own in zip(counts, some, strict=True)]


def label(own: NamedConfig, among: Sequence[NamedConfig]) -> str:
    """The name of a filter, with its arguments where there are several of that name.

    Example: "correct"; "min_score(name=judge, score=0.7)"
    """
    if sum(other.name == own.name for other in among) == 1:
        return own.name
    return f"{own.name}({', '.join(f'{key}={value}' for key, value in own.args.items())})"


def wants_judge(own: NamedConfig, cfg: SampleStage) -> bool:
    """Whether a filter goes by the mark of a judge."""
    return own.name == "min_score" and own.args.get("name") in [reward.key for reward in cfg.rewards if reward.name == JUDGE]


def in_steps(
    traces: list[Trace], steps: Mapping[str, Callable[[list[Trace]], list[Trace]]]
) -> tuple[list[Trace], list[FilterCount]]:
    """The traces that all steps keep, one after the other, and what each kept of what it saw."""
    counts = []
    for name, step in steps.items():
        seen = len(traces)
        traces = step(traces)
        counts.append(FilterCount(name, seen, len(traces)))
    return traces, counts


def tell(counts: Sequence[FilterCount], step: int, log: StageLog) -> None:
    """One line for each filter, on the console and in `metrics.jsonl`."""
    for count in counts:
        log.note(f"{count.name} kept {count.kept} of {count.seen}")
        log.record(step, {f"seen/{count.name}": count.seen, f"kept/{count.name}": count.kept})


def some_of(traces: Sequence[Trace], size: int | None, seed: str) -> list[Trace]:
    """`size` of the traces, drawn by the seed, in their order."""
    places = range(len(traces))
    drawn = places if size is None or size >= len(places) else sorted(random.Random(seed).sample(places, size))
    return [traces[place] for place in drawn]


def rewritten(
    traces: Sequence[Trace], cfg: SampleStage, rewrite: RewriteConfig, grader: Grader, kept: Path
) -> tuple[list[Trace], dict[str, int]]:
    """The traces in the words of a stronger model, and how many of them were changed, refused and failed.

    A rewrite is refused, and the trace stays as it was, where it was cut off, where it answers otherwise (the grader's
    verdict is another one or, of what is not solved, the final answer), and where it does not pass the filters.
    """
    settings = grader.asked.settings
    requests: list[Request] = []
    for trace in traces:
        parsed = parse(trace.text, settings.think, settings.answer)
        text = rewrite.template.format(
            question=trace.problem.question, completion=trace.text, thoughts=parsed.thoughts, answer=parsed.answer or ""
        )
        requests.append([{"role": "user", "content": text}] if rewrite.server.api == "chat" else text)
    sampling = Sampling(f"{cfg.seed}/{cfg.name}/rewrite", rewrite.max_completion_length, rewrite.temperature)
    ids = [trace.id for trace in traces]
    replies = [reply for [reply] in ServerEngine(rewrite.server, kept).generate(requests, 1, sampling, ids)]

    proposed = [
        replace(trace, text=reply.text.strip(), steps=(*trace.steps, "rewrite"), finish_reason=reply.finish_reason)
        if reply.text
        else trace
        for trace, reply in zip(traces, replies, strict=True)
    ]
    after = grader.judge(grader.grade_again(traces, proposed))
    numbers = {"rewrite/changed": 0, "rewrite/refused": 0, "rewrite/failed": 0}
    chosen = []
    for old, new, reply in zip(traces, after, replies, strict=True):
        same = old.solved == new.solved and (old.solved or final_answer(old.text, settings) == final_answer(new.text, settings))
        passes = same and reply.finish_reason == "stop" and bool(filters.apply([new], cfg.filters, settings)[0])
        outcome = "failed" if not reply.text else "changed" if passes else "refused"
        numbers[f"rewrite/{outcome}"] += 1
        chosen.append(new if outcome == "changed" else old)
    return chosen, numbers


def row_of(trace: Trace) -> dict[str, Any]:
    """One line of `traces.jsonl`: what sft learns from, where it comes from, and what its grader needs."""
    own = {
        "id": trace.id,
        "task": trace.problem.task,
        "prompt": trace.problem.question,
        "completion": trace.text,
        "origin": trace.origin,
        "steps": list(trace.steps),
        "reward": trace.reward,
        "scores": dict(trace.scores),
        "solved": trace.solved,
        "language": target_language(trace.problem),
        "num_tokens": trace.num_tokens,
        "finish_reason": trace.finish_reason,
    }
    return {**own, **{name: value for name, value in trace.problem.columns.items() if name not in own}}
