import os
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from aha.chat import encode_prompts
from aha.config import DataConfig, PromptConfig, RewardConfig
from aha.engine.native import NativeEngine
from aha.engine.sampling import Sampling
from aha.rewards import Reward, load_rewards, maths
from aha.rewards.kept import Kept
from aha.rewards.workers import Verdict
from aha.rollout import Prompt, grade, load_eval_prompts, load_prompts, rollout, write_rollouts
from aha.stage_configs import SamplingConfig
from aha.types import Problem, Sample, UserError


def graded(policy, problems: list[Problem], answers: list[str], rewards: list[Reward], verdicts: Path | None = None):
    prompts = [Prompt(problem, problem.question, [5]) for problem in problems]
    ids = [policy.tokenizer(answer, add_special_tokens=False).input_ids for answer in answers]
    return grade(policy, prompts, [[Sample(i, [0.0] * len(i), "stop")] for i in ids], rewards, verdicts=verdicts)


COUNTDOWN = Problem("countdown/0", "countdown", "?", {"nums": [2, 3], "target": 6}, "countdown")
MATHS = Problem("gsm8k/0", "gsm8k", "?", {"gold": "72"}, "accuracy")


def test_problems_of_two_tasks_are_graded_together_each_by_its_own_grader(policy):
    groups = graded(
        policy, [COUNTDOWN, MATHS, MATHS], ["</think><answer>2*3</answer>", "</think> \\boxed{72}", "</think> 7"], []
    )
    assert [group.completions[0].solved for group in groups] == [True, True, False]


def test_grading_sees_the_prefilled_start(policy):
    [group] = graded(policy, [COUNTDOWN], ["a</think> <answer>2*3</answer>"], [])
    assert group.completions[0].text == "<think>a</think> <answer>2*3</answer>"


def test_the_reward_is_the_weighted_sum_of_the_scores_there_are(policy):
    rewards = [Reward("a", 2.0, lambda completions, **_: [0.5, None]), Reward("b", 0.1, lambda completions, **_: [1.0, None])]
    first, second = (group.completions[0] for group in graded(policy, [COUNTDOWN] * 2, ["x", "y"], rewards))
    assert first.reward == 1.1
    assert second.reward is None


def test_a_reward_may_weigh_differently_by_task_and_skips_tasks_without_a_weight(policy):
    asked: list[list[str]] = []

    def ones(completions, **_):
        asked.append(list(completions))
        return [1.0] * len(completions)

    rewards = [Reward("own", {"gsm8k": 0.5}, ones), Reward("all", {"gsm8k": 2.0, "countdown": 3.0}, ones)]
    countdown, maths = (group.completions[0] for group in graded(policy, [COUNTDOWN, MATHS], ["x", "y"], rewards))
    assert (countdown.scores, countdown.reward) == ({"own": None, "all": 1.0}, 3.0)
    assert (maths.scores, maths.reward) == ({"own": 1.0, "all": 1.0}, 2.5)
    assert asked == [["<think>y"], ["<think>x", "<think>y"]]


def test_a_grader_that_is_a_reward_too_is_asked_once_where_it_counts_for_all_of_its_problems(policy, monkeypatch):
    asked: list[int] = []

    def grade_answers(pairs, slow=None):
        asked.append(len(pairs))
        return grade_all(pairs, slow)

    grade_all = maths.grade_answers
    monkeypatch.setattr(maths, "grade_answers", grade_answers)
    equal_to_gold = replace(COUNTDOWN, columns={**COUNTDOWN.columns, "gold": "5"})
    problems, answers = (
        [MATHS, MATHS, COUNTDOWN, equal_to_gold],
        [
            "</think> \\boxed{72}",
            "</think> 7",
            "</think><answer>2*3</answer>",
            "</think><answer>2+3</answer>",  # right for accuracy, which is not its grader
        ],
    )
    for config, calls in [
        (RewardConfig(name="accuracy"), [3]),
        (RewardConfig(name="accuracy", weight={"gsm8k": 1.0}), [2]),
        (RewardConfig(name="accuracy", weight={"countdown": 1.0}), [1, 2]),
        (RewardConfig(name="accuracy", weight={"gsm8k": 1.0}, args={"extract": ["box"]}), [2, 2]),
    ]:
        asked.clear()
        gold = [replace(problem, columns={"gold": "", **problem.columns}) for problem in problems]
        groups = graded(policy, gold, answers, load_rewards([config]))
        assert [group.completions[0].solved for group in groups] == [True, False, True, False]
        assert asked == calls


def test_a_grader_keeps_what_took_long_in_the_file_of_the_reward_of_its_name(policy, monkeypatch, tmp_path):
    monkeypatch.setattr(maths, "_algebra", lambda pairs: [Verdict(False, "timed out", 5.0) for _ in pairs])
    problem = replace(MATHS, columns={"gold": "x^2+x-2"})
    [group] = graded(policy, [problem], ["</think> \\boxed{(x-1)(x+2)}"], [], tmp_path)
    assert not group.completions[0].solved
    assert "timed out" in (tmp_path / "accuracy.jsonl").read_text()

    Kept.of.cache_clear()  # as in a process that resumes
    monkeypatch.setattr(maths, "_algebra", lambda pairs: [Verdict(True, "", 0.1) for _ in pairs])
    rewards = load_rewards([RewardConfig(name="accuracy")], tmp_path)
    for given in ([], rewards):
        [group] = graded(policy, [problem], ["</think> \\boxed{(x-1)(x+2)}"], given, tmp_path)
        assert not group.completions[0].solved


def draw(policy, rewards: list[Reward], generated=lambda: None):
    engine = NativeEngine(policy.model, policy.stop_ids, torch.float32, max_num_seqs=2)
    generate = engine.generate

    def generate_and_tell(*args):
        samples = generate(*args)
        generated()
        return samples

    engine.generate = generate_and_tell
    prompts = [Prompt(problem, "p", [5, 6]) for problem in (COUNTDOWN, MATHS)]
    return rollout(engine, policy, prompts, 3, Sampling("s", 8), rewards)


def test_a_reward_that_waits_begins_while_the_engine_decodes_and_is_called_for_the_batch_all_the_same(policy):
    calls: list[list[str] | str] = []

    def waits(completions, ahead=None, **_):
        calls.append(completions)
        return [None] if ahead else [float(len(text)) for text in completions]

    groups = draw(policy, [Reward("waits", {"gsm8k": 1.0}, waits)], lambda: calls.append("generated"))
    texts = [completion.text for completion in groups[1].completions]
    assert calls[-2:] == ["generated", texts]
    assert sorted(calls[:-2]) == sorted([text] for text in texts)
    assert [c.reward for c in groups[1].completions] == [float(len(text)) for text in texts]


def test_what_goes_wrong_in_the_background_is_told_and_nothing_more_is_begun(policy):
    begun: list[Future] = []

    def fails(completions, ahead=None, **_):
        if ahead:
            begun.append(ahead(1).submit(lambda: 1 / 0 if len(begun) < 2 else time.sleep(0.2)))
            return [None]
        return [begun[0].result()]

    with pytest.raises(ZeroDivisionError):
        draw(policy, [Reward("fails", 1.0, fails)])
    assert len(begun) == 6
    assert all(future.done() for future in begun)
    assert any(future.cancelled() for future in begun)


def test_prompts_that_are_too_long_are_dropped_and_counted(policy):
    data = DataConfig(source="countdown", limit=20)
    prompts, dropped = load_prompts([data], policy)
    lengths = sorted(len(prompt.ids) for prompt in prompts)
    assert dropped == 0
    kept, dropped = load_prompts([data], policy, max_length=lengths[0])
    assert len(kept) == lengths.count(lengths[0]) < 20
    assert len(kept) + dropped == 20


def test_no_problem_is_dropped_from_an_evaluation(policy):
    problems = {"data": [DataConfig(source="countdown", limit=20)]}
    cfg = SamplingConfig(eval=problems, max_prompt_length=1, max_completion_length=8)
    assert len(load_eval_prompts(cfg, policy)) == 20
    with pytest.raises(UserError, match=r"the model holds \d+: lower one of them$"):
        load_eval_prompts(cfg.model_copy(update={"max_completion_length": 10**6}), policy)


def test_rollouts_are_on_disk_before_they_have_their_name(policy, tmp_path, monkeypatch):
    flushed: list[tuple[int, bool]] = []
    path = tmp_path / "step-000001.parquet"
    monkeypatch.setattr("os.fsync", lambda fd: flushed.append((os.fstat(fd).st_size, path.exists())))
    write_rollouts(path, 1, graded(policy, [COUNTDOWN], ["x"], []))
    assert flushed == [(path.stat().st_size, False)]


class WithStart:
    """A tokenizer that puts a start of text before everything unless told not to."""

    def __call__(self, texts, add_special_tokens=True):
        ids = [([1] if add_special_tokens else []) + [ord(c) for c in text] for text in texts]
        return type("Encoding", (), {"input_ids": ids})


def test_a_chat_template_writes_the_only_start_of_text():
    assert encode_prompts(["a"], PromptConfig(template="r1-chat"), WithStart()) == [[97]]
    assert encode_prompts(["a"], PromptConfig(template="r1"), WithStart()) == [[1, 97]]


def test_texts_encoded_in_slices_keep_their_order_and_each_its_start_of_text(monkeypatch):
    monkeypatch.setattr("aha.chat.ENCODED_AT_ONCE", 2)
    assert encode_prompts(list("abcde"), PromptConfig(template="r1"), WithStart()) == [[1, ord(c)] for c in "abcde"]
    assert encode_prompts([], PromptConfig(template="r1"), WithStart()) == []
