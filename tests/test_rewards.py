"""Rewards: what pays and what costs, by hand, and what is told when a reward does not fit."""

import math
import sys

import pytest

from aha.config import RewardConfig
from aha.rewards import REWARDS, load_grader, load_rewards, score
from aha.types import UserError

TAGS = ("think", "answer")
GOOD = "<think>44+19=63, 63+35=98 yes!</think> <answer>44+19+35</answer>"
STEPS = "<think>First, 1+1.\nNext, that is 2.\nFinally, done.</think> <answer>2</answer>"
# Of every reward: (gold completion, its token ids, columns, top score, bottom score).
PAYS = {
    "countdown": (GOOD, [1, 2, 3], {"nums": [44, 19, 35], "target": 98}, 1.0, 0.0),
    "accuracy": (STEPS, [1, 2, 3], {"gold": "2"}, 1.0, 0.0),
    "format": (GOOD, [1, 2, 3], {}, 1.0, 0.0),
    "reasoning_steps": (STEPS, [1, 2, 3], {}, 1.0, 0.0),
    "cosine": (STEPS, [], {"gold": "2"}, 1.0, -1.0),  # its top is at length 0
}
COSTS = {"repetition_penalty": (STEPS, [1, 2, 3], {}, -1.0)}


def call(name: str, completion, *, ids=(), args=None, tags=TAGS, **columns) -> float | None:
    [loaded] = load_rewards([RewardConfig(name=name, args=args or {})])
    [value] = score(loaded, ["q"], [completion], [list(ids)], [columns], tags)
    return value


def test_every_reward_is_covered_below():
    assert PAYS.keys() | COSTS.keys() == REWARDS.keys()


@pytest.mark.parametrize("name", PAYS)
def test_a_gold_answer_gets_the_top_score_and_an_empty_one_the_bottom(name):
    gold, ids, columns, top, bottom = PAYS[name]
    assert call(name, gold, ids=ids, **columns) == top
    assert call(name, "", ids=[], **columns) == bottom


@pytest.mark.parametrize("name", COSTS)
def test_a_clean_answer_costs_nothing(name):
    clean, ids, columns, worst = COSTS[name]
    assert call(name, clean, ids=ids, **columns) == 0
    assert call(name, "", ids=[], **columns) == 0
    assert call(name, "again and " * 10_000, ids=ids, **columns) == pytest.approx(worst, abs=1e-3)


@pytest.mark.parametrize("name", REWARDS)
def test_conversations_are_scored_as_their_last_message(name):
    completion, ids, columns, *_ = {**PAYS, **COSTS}[name]
    messages = [{"role": "user", "content": "<answer>0</answer>"}, {"role": "assistant", "content": completion}]
    assert call(name, messages, ids=ids, **columns) == call(name, completion, ids=ids, **columns)
    assert call(name, messages[1:], ids=ids, **columns) == call(name, completion, ids=ids, **columns)


@pytest.mark.parametrize("name", REWARDS)
def test_rewards_can_be_called_as_trl_calls_them(name):
    completion, ids, columns, *_ = {**PAYS, **COSTS}[name]
    lists = {key: [value, value] for key, value in columns.items()}
    conversations = [[{"role": "assistant", "content": completion}], [{"role": "assistant", "content": ""}]]
    prompts = [[{"role": "user", "content": "q"}]] * 2
    scores = REWARDS[name](prompts=prompts, completions=conversations, completion_ids=[ids, []], trainer_state=None, **lists)
    assert scores == [call(name, completion, ids=ids, **columns), call(name, "", ids=[], **columns)]


@pytest.mark.parametrize("name", ["countdown", "accuracy", "format", "reasoning_steps", "cosine"])
def test_tags_may_have_other_names(name):
    completion, ids, columns, top, _ = PAYS[name]
    other = completion.replace("think>", "thinking>").replace("answer>", "result>")
    assert call(name, other, ids=ids, tags=("thinking", "result"), **columns) == top


def test_a_batch_is_scored_row_by_row():
    [countdown] = load_rewards([RewardConfig(name="countdown")])
    columns = [{"nums": [44, 19, 35], "target": 98}, {"nums": [44, 19, 35], "target": 99}, {"nums": [1, 2], "target": 98}]
    assert score(countdown, ["q"] * 3, [GOOD] * 3, [[1]] * 3, columns, TAGS) == [1.0, 0.0, 0.0]


# Countdown: what counts as an equation is in test_hostile.py.


@pytest.mark.parametrize(
    ("answer", "nums", "target", "expected"),
    [
        ("44+19+35", [44, 19, 35], 98, 1.0),
        (" ( 35 + 44 ) + 19 ", [44, 19, 35], 98, 1.0),
        ("7/3*3", [3, 3, 7], 7, 1.0),  # 7/3 is exact on the way
        ("8/(3-8/3)", [3, 3, 8, 8], 24, 1.0),
        ("(1-3)*(2-7)", [1, 2, 3, 7], 10, 1.0),
        ("44+19", [44, 19, 35], 63, 0.0),
        ("44+19+35-0", [44, 19, 35], 98, 0.0),
        ("44+44+19-9", [44, 19, 35], 98, 0.0),
        ("98", [44, 19, 35], 98, 0.0),
        ("5+5", [5, 5], 10, 1.0),
        ("5+5", [5], 10, 0.0),
        ("10/3", [10, 3], 3, 0.0),
        ("5/(3-3)", [3, 3, 5], 5, 0.0),
    ],
)
def test_countdown_is_exact_and_uses_every_number_once(answer, nums, target, expected):
    assert call("countdown", f"<think>.</think> <answer>{answer}</answer>", nums=nums, target=target) == expected


# Format.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD, 1.0),
        ("<think>a</think>\n<answer>2</answer>\n", 1.0),
        ("<answer>2</answer>", 0.0),
        ("<think>a</think> 2", 0.0),
        ("<think></think> <answer>2</answer>", 0.0),
        ("<think>a</think> <answer> </answer>", 0.0),
        (GOOD + "!", 0.0),
        (GOOD + GOOD, 0.0),
    ],
)
def test_format_wants_every_tag_once_and_something_inside(text, expected):
    assert call("format", text) == expected


# Accuracy.


@pytest.mark.parametrize(
    ("text", "gold", "expected"),
    [
        ("<think>a</think> <answer>2</answer>", "2", 1.0),
        ("<think>a</think> <answer>3</answer>", "2", 0.0),
        ("<think>a</think> <answer>\\frac{1}{2}</answer>", "0.5", 1.0),
        ("<think>a</think> <answer>1/2</answer>", "$\\frac{1}{2}$", 1.0),
        ("<think>a</think> <answer>1,234</answer>", "1234", 1.0),
        ("<think>a</think> So it is \\boxed{18}.", "18", 1.0),
        ("<think>a</think> First \\boxed{17}, no: \\boxed{18}.", "18", 1.0),
        ("<think>a</think> The answer is 18.", "18", 1.0),
        ("<think>\\boxed{18}</think>", "18", 0.0),
        ("<think>\\boxed{18}", "18", 0.0),
        ("<think>\\boxed{18}</think> <answer>17</answer>", "18", 0.0),
        ("<think>a</think> <answer>no idea</answer>", "18", 0.0),
        ("18", 18, 1.0),
    ],
)
def test_accuracy_reads_the_answer_after_the_thoughts(text, gold, expected):
    assert call("accuracy", text, gold=gold) == expected


@pytest.mark.parametrize("gold", ["no number", "", None])
def test_gold_that_cannot_be_parsed_skips_the_row_or_pays_what_the_recipe_says(gold):
    assert call("accuracy", "<think>a</think> <answer>2</answer>", gold=gold) is None
    assert call("accuracy", "<think>a</think> <answer>2</answer>", gold=gold, args={"unparsable_gold": 0.5}) == 0.5


# Cosine.


QUARTER = 0.25 * (1 + math.sqrt(0.5))  # how far above the end half a cosine is after a quarter of its way


@pytest.mark.parametrize(
    ("length", "right", "wrong"),
    [
        (0, 1.0, -1.0),
        (4, 0.5 + QUARTER, -0.5 - QUARTER),
        (8, 0.75, -0.75),  # the middle of a cosine is the middle of its ends
        (16, 0.5, -0.5),
        (17, 0.5, -0.5),
        (1000, 0.5, -0.5),
    ],
)
def test_cosine_of_tokens_by_hand(length, right, wrong):
    assert call("cosine", "2", ids=[0] * length, args={"max_length": 16}, gold="2") == pytest.approx(right)
    assert call("cosine", "2", ids=[0] * length, args={"max_length": 16}, gold="3") == pytest.approx(wrong)


@pytest.mark.parametrize(
    ("length", "right", "wrong"), [(4, 0.5 + QUARTER, -0.5 - QUARTER), (8, 0.75, -0.75), (16, 0.5, -0.5), (40, 0.5, -0.5)]
)
def test_cosine_of_characters_by_hand(length, right, wrong):
    args = {"max_length": 16, "unit": "characters"}
    assert call("cosine", "2".rjust(length), ids=[0] * 999, args=args, gold="2") == pytest.approx(right)
    assert call("cosine", "2".rjust(length), ids=[0] * 999, args=args, gold="3") == pytest.approx(wrong)


def test_cosine_ends_are_arguments():
    args = {"max_length": 2, "min_value_correct": 0.2, "max_value_correct": 2, "min_value_wrong": -3, "max_value_wrong": 0}
    assert [call("cosine", "2", ids=[0] * n, args=args, gold="2") for n in (0, 1, 2)] == pytest.approx([2.0, 1.1, 0.2])
    assert [call("cosine", "2", ids=[0] * n, args=args, gold="3") for n in (0, 1, 2)] == pytest.approx([-3.0, -1.5, 0.0])


def test_cosine_grades_countdown_too_and_skips_what_its_grader_skips():
    args = {"grader": "countdown", "max_length": 4}
    assert call("cosine", GOOD, ids=[0, 0], args=args, nums=[44, 19, 35], target=98) == pytest.approx(0.75)
    assert call("cosine", GOOD, ids=[0, 0], args=args, nums=[44, 19, 35], target=99) == pytest.approx(-0.75)
    assert call("cosine", "2", ids=[0, 0], gold="no number") is None


# Repetition.


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [
        ("a b c a b c", 3, -1 / 4),  # abc bca cab abc: one of four came before
        ("a a a a a", 3, -2 / 3),  # aaa three times
        ("a b a b", 2, -1 / 3),  # ab ba ab
        ("A b, a B.", 2, -1 / 3),  # whatever the case and the marks
        ("a b", 3, 0),  # too short to repeat
        ("我们我们", 2, -1 / 3),  # a character is a word: 我们 们我 我们
        ("one two three four", 1, 0),
        ("one one", 1, -1 / 2),
    ],
)
def test_repetition_penalty_by_hand(text, size, expected):
    assert call("repetition_penalty", text, args={"ngram_size": size}) == pytest.approx(expected)
    half = {"ngram_size": size, "max_penalty": -0.5}
    assert call("repetition_penalty", text, args=half) == pytest.approx(expected / 2)


# Steps.


@pytest.mark.parametrize(
    ("thoughts", "steps"),
    [
        ("we just know", 0),
        ("First, we add.", 1),
        ("Step 1: add.\nStep 2: done.", 2),
        ("1. add\n2) multiply\n- and so on", 3),
        ("* a\n* b\n* c\n* d", 3),
        ("First, a. Second, b. Finally, c.", 3),
        ("at first we add, next we stop", 0),
        ("44-19=25, 25-35", 0),
    ],
)
def test_reasoning_steps_by_hand(thoughts, steps):
    assert call("reasoning_steps", f"<think>{thoughts}</think> <answer>2</answer>") == pytest.approx(steps / 3)
    assert call("reasoning_steps", f"<think>a</think> {thoughts}") == 0


# Loading.


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    """A module of the user's own in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "users_own.py").write_text(
        "def longer(prompts, completions, scale=1.0, **columns):\n"
        "    return [scale * len(text) for text in completions]\n"
        "def as_in_trl(completions, **kwargs):\n"
        "    return [float(len(text)) for text in completions]\n"
        "def keywords_only(*, prompts, completions, completion_ids, level, **kwargs):\n"
        "    return [float(n) for n in level]\n"
        "def too_few(prompts, completions, **columns):\n"
        "    return [1.0]\n"
        "def not_a_number(prompts, completions, **columns):\n"
        "    return [float('nan') for _ in completions]\n"
        "def infinite(prompts, completions, **columns):\n"
        "    return [float('inf') for _ in completions]\n"
        "def nothing(prompts, completions, **columns):\n"
        "    return None\n"
        "def words(prompts, completions, **columns):\n"
        "    return ['good' for _ in completions]\n"
        "def skips(prompts, completions, **columns):\n"
        "    return [None for _ in completions]\n"
        "def buggy(prompts, completions, **columns):\n"
        "    return 1 + 'a'\n"
        "constant = 1\n"
    )
    yield
    sys.modules.pop("users_own", None)


def test_a_function_of_the_user_is_a_reward(user_module):
    assert call("users_own:longer", "abc") == 3
    assert call("users_own:longer", "abc", args={"scale": 0.5}) == 1.5
    assert call("users_own:skips", "abc") is None


def test_functions_written_for_trl_are_rewards(user_module):
    assert call("users_own:as_in_trl", "abc") == 3
    assert call("users_own:keywords_only", "abc", level=5) == 5


def test_coroutine_functions_are_rewards_as_in_trl(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "waiting.py").write_text("""
import asyncio
async def reward(prompts, completions, **_):
    await asyncio.sleep(0)
    return [float(len(c)) for c in completions]
""")
    [reward] = load_rewards([RewardConfig(name="waiting:reward")])
    assert score(reward, ["p"], ["abc"], [[1]], [{}], TAGS) == [3.0]


def test_weights_and_names_are_kept():
    loaded = load_rewards([RewardConfig(name="format", weight=0.1), RewardConfig(name="countdown")])
    assert [(reward.name, reward.weight) for reward in loaded] == [("format", 0.1), ("countdown", 1.0)]
    assert load_grader("accuracy").name == "accuracy"


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("acuracy", {}, ["unknown reward 'acuracy'", *REWARDS, "module:function for your own"]),
        ("cosine", {"max_len": 3}, ["reward cosine has no argument 'max_len'", "max_length", "grader", "unit"]),
        ("format", {"strict": True}, ["reward format has no argument 'strict'; known: none"]),
        ("format", {"tags": ["a", "b"]}, ["reward format has no argument 'tags'"]),
        ("cosine", {"prompts": []}, ["reward cosine has no argument 'prompts'"]),
        ("users_own:longer", {"scal": 3}, ["reward users_own:longer has no argument 'scal'; known: scale"]),
        ("users_own:shorter", {}, ["reward users_own:shorter", "no attribute 'shorter'"]),
        ("users_own:constant", {}, ["reward users_own:constant"]),
        ("no_such_module:f", {}, ["reward no_such_module:f", "No module named 'no_such_module'"]),
    ],
)
def test_a_reward_that_cannot_be_loaded_is_named(user_module, name, args, words):
    with pytest.raises(UserError) as caught:
        load_rewards([RewardConfig(name=name, args=args)])
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


def test_a_reward_listed_twice_is_refused():
    with pytest.raises(UserError, match="reward format is listed twice"):
        load_rewards([RewardConfig(name="format"), RewardConfig(name="countdown"), RewardConfig(name="format", weight=2)])


# Scoring.


@pytest.mark.parametrize(
    ("name", "columns", "words"),
    [
        ("accuracy", {"answer": "2", "level": 5}, ["reward accuracy", "'gold'", "answer, level"]),
        ("countdown", {"target": 98}, ["reward countdown", "'nums'", "target"]),
        ("cosine", {"answer": "2"}, ["reward cosine", "'gold'"]),
    ],
)
def test_a_missing_column_is_named_with_those_there_are(name, columns, words):
    with pytest.raises(UserError) as caught:
        call(name, "2", **columns)
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("users_own:too_few", "1 scores for 2 completions"),
        ("users_own:not_a_number", "is no score: want a finite number"),
        ("users_own:infinite", "is no score: want a finite number"),
        ("users_own:nothing", ""),
        ("users_own:words", ""),
    ],
)
def test_what_is_no_list_of_scores_is_told(user_module, name, words):
    [loaded] = load_rewards([RewardConfig(name=name)])
    with pytest.raises(UserError, match=f"reward {name}: .*{words}"):
        score(loaded, ["q", "q"], ["a", "b"], [[1], [1]], [{}, {}], TAGS)


def test_a_mistake_inside_a_function_of_the_user_keeps_its_traceback(user_module):
    with pytest.raises(TypeError, match="unsupported operand"):
        call("users_own:buggy", "a")


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("cosine", {"unit": "words"}, "unit is 'words'"),
        ("cosine", {"max_length": 0}, "max_length 0"),
        ("cosine", {"grader": "format"}, "unknown grader 'format'; known: accuracy, countdown"),
        ("repetition_penalty", {"max_penalty": 1.0}, "max_penalty is 1.0: a penalty is not above 0"),
        ("repetition_penalty", {"ngram_size": 0}, "ngram_size is 0"),
    ],
)
def test_an_argument_out_of_range_is_told(name, args, words):
    with pytest.raises(UserError) as caught:
        call(name, "2", ids=[1], args=args, gold="2")
    assert f"reward {name}: " in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize("column", ["tags", "prompts", "completions", "completion_ids"])
def test_a_column_of_the_data_never_takes_the_place_of_what_the_reward_is_given(column):
    assert score(load_grader("format"), ["q"], [GOOD], [[1]], [{column: "algebra"}], TAGS) == [1.0]


def test_a_column_of_the_data_never_takes_the_place_of_an_argument_of_the_recipe():
    assert call("cosine", "2", ids=[0] * 8, args={"max_length": 16}, gold="2", max_length=7) == pytest.approx(0.75)
