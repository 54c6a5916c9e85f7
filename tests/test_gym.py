"""reasoning-gym: problems with disjoint splits, and its own verifiers as the reward."""

import inspect
import re

import pytest

from aha.config import DataConfig
from aha.data import gym
from aha.data.sources import load_problems
from aha.rewards.gym import grade_answer, reasoning_gym
from aha.types import UserError

reasoning_gym_library = pytest.importorskip("reasoning_gym", reason="the extra `gym` is not installed")
TASKS = ["chain_sum", "word_sorting", "basic_arithmetic", "knights_knaves", "number_format", "game_of_life", "coin_flip"]


def load(task: str, **values):
    return load_problems(DataConfig(source="reasoning-gym", args={"task": task, **values.pop("args", {})}, **values))


def score(problem, completion: str) -> float:
    columns = {name: [value] for name, value in problem.columns.items()}
    [value] = reasoning_gym(["prompt"], [completion], **columns)
    return value


@pytest.mark.parametrize("task", TASKS)
def test_the_gold_answer_scores_1_and_none_or_nonsense_0(task):
    for problem in load(task, limit=5):
        gold = problem.columns["entry"]["answer"]
        assert (problem.task, problem.grader) == (task, "reasoning_gym")
        assert score(problem, f"<think>a</think> <answer>{gold}</answer>") == 1.0
        assert score(problem, "") == score(problem, "<think>a</think>") == 0.0
        assert score(problem, f"<think><answer>{gold}</answer></think> <answer>{gold}</answer>") == 0.0
        assert score(problem, "<think>a</think> <answer></answer>") == 0.0
        assert score(problem, f"<think>a</think> <answer>{gold}\n{'x' * 3000}</answer>") == 0.0


def test_problems_are_seeded_distinct_and_divided():
    train, test = load("chain_sum", limit=300), load("chain_sum", limit=60, split="test")
    assert train == load("chain_sum", limit=300)
    assert train != load("chain_sum", limit=300, seed=1)
    questions = {problem.question for problem in train}
    assert len(questions) == 300
    for other in (test, load("chain_sum", limit=60, split="test", seed=1)):
        assert not questions & {problem.question for problem in other}


def test_arguments_of_a_task_reach_its_problems_and_its_verifier():
    [problem] = load("chain_sum", limit=1, args={"min_terms": 6, "max_terms": 6})
    assert problem.columns["entry"]["metadata"]["num_terms"] == 6
    assert problem.columns["gym"] == {"task": "chain_sum", "min_terms": 6, "max_terms": 6}
    [close] = load("decimal_arithmetic", limit=1, args={"min_num_decimal_places": 8, "max_num_decimal_places": 8})
    entry = close.columns["entry"]
    wrong = f"{float(entry['answer']) + 1e-4:.8f}"
    assert grade_answer(wrong, entry, close.columns["gym"]) < 1 <= grade_answer(entry["answer"], entry, close.columns["gym"])


@pytest.mark.parametrize(
    "answer", ["1e99999999", "1e+9_9_9_9_9", "9" * 1999, "[" * 1999, "nan", "\0", "²", "1/0", '{"a": 1}', "__import__('os')"]
)
def test_hostile_answers_score_0(answer):
    for task in [*TASKS, "prime_factorization", "boxnet"]:
        [problem] = load(task, limit=1)
        assert score(problem, f"<think>a</think> <answer>{answer}</answer>") in (0.0, 0.01)


def test_a_gold_answer_that_looks_huge_is_right():
    assert grade_answer("1e99999", {"answer": "1e99999", "metadata": {}}, {"task": "base_conversion"}) == 1.0


def test_a_verifier_that_evaluates_text_is_refused():
    from reasoning_gym.factory import DATASETS

    assert set(DATASETS) > gym.REFUSED
    evaluates = re.compile(r"\beval\(|\bexec\(|parse_expr|sympify")
    for task, (kind, _) in DATASETS.items():
        if evaluates.search(inspect.getsource(kind.score_answer)):
            assert task in gym.REFUSED
    for task in gym.REFUSED:
        with pytest.raises(UserError, match=f"reasoning-gym task {task} is refused"):
            load(task, limit=1)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"args": {}}, "reasoning-gym: args want a task, as in {task: chain_sum}"),
        ({"args": {"task": "chain_sums"}}, "reasoning-gym has no task 'chain_sums'; did you mean chain_sum?"),
        ({"args": {"task": "zzz"}}, "reasoning-gym has no task 'zzz'; known: ab, "),
        ({"args": {"task": "chain_sum"}, "split": "dev"}, "reasoning-gym has no split 'dev'; known: train, test"),
        ({"args": {"task": "chain_sum", "terms": 1}}, "reasoning-gym: args {'task': 'chain_sum', 'terms': 1} do not fit"),
        ({"args": {"task": "chain_sum", "min_terms": 0}}, "do not fit the generator: min_terms must be"),
        ({"args": {"task": "chain_sum", "seed": 1}}, "reasoning-gym: seed is no argument of a task here"),
        ({"args": {"task": "coin_flip"}, "limit": 4000}, "set a lower limit"),
    ],
)
def test_what_does_not_fit_is_named(values, words):
    with pytest.raises(UserError) as caught:
        load_problems(DataConfig(source="reasoning-gym", **{"limit": 1, **values}))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
