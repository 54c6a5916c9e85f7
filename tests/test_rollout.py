from aha.chat import encode_prompts
from aha.config import DataConfig, PromptConfig
from aha.rewards import Reward
from aha.rollout import Prompt, grade, load_prompts
from aha.types import Problem, Sample


def graded(policy, problems: list[Problem], answers: list[str], rewards: list[Reward]):
    prompts = [Prompt(problem, problem.question, [5]) for problem in problems]
    ids = [policy.tokenizer(answer, add_special_tokens=False).input_ids for answer in answers]
    return grade(policy, prompts, [[Sample(i, [0.0] * len(i), "stop")] for i in ids], rewards)


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


def test_prompts_that_are_too_long_are_dropped_and_counted(policy):
    data = DataConfig(source="countdown", limit=20)
    prompts, dropped = load_prompts([data], policy)
    lengths = sorted(len(prompt.ids) for prompt in prompts)
    assert dropped == 0
    kept, dropped = load_prompts([data], policy, max_length=lengths[0])
    assert len(kept) == lengths.count(lengths[0]) < 20
    assert len(kept) + dropped == 20


class WithStart:
    """A tokenizer that puts a start of text before everything unless told not to."""

    def __call__(self, texts, add_special_tokens=True):
        ids = [([1] if add_special_tokens else []) + [ord(c) for c in text] for text in texts]
        return type("Encoding", (), {"input_ids": ids})


def test_a_chat_template_writes_the_only_start_of_text():
    assert encode_prompts(["a"], PromptConfig(template="r1-chat"), WithStart()) == [[97]]
    assert encode_prompts(["a"], PromptConfig(template="r1"), WithStart()) == [[1, 97]]
