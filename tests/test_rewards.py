"""Rewards: what pays and what costs, by hand, and what is told when a reward does not fit."""

import math
import sys

import pytest

from aha.config import RewardConfig
from aha.rewards import REWARDS, Reward, check_tasks, load_grader, load_rewards, maths, score, total
from aha.rewards.workers import Verdict
from aha.types import UserError

TAGS = ("think", "answer")
GOOD = "<think>44+19=63, 63+35=98 yes!</think> <answer>44+19+35</answer>"
STEPS = "<think>First, 1+1.\nNext, that is 2.\nFinally, done.</think> <answer>2</answer>"
# Of every reward that pays: (gold completion, its token ids, columns, top score, bottom score).
PAYS = {
    "countdown": (GOOD, [1, 2, 3], {"nums": [44, 19, 35], "target": 98}, 1.0, 0.0),
    "accuracy": (STEPS, [1, 2, 3], {"gold": "2"}, 1.0, 0.0),
    "exact_match": (STEPS, [1, 2, 3], {"gold": "2"}, 1.0, 0.0),
    "keyword": (GOOD, [1, 2, 3], {"keywords": ["35", "44"]}, 1.0, 0.0),
    "format": (GOOD, [1, 2, 3], {}, 1.0, 0.0),
    "tag_count": (GOOD, [1, 2, 3], {}, 1.0, 0.0),
    "reasoning_steps": (STEPS, [1, 2, 3], {}, 1.0, 0.0),
    "cosine": (STEPS, [], {"gold": "2"}, 1.0, -1.0),  # its top is at length 0
}
# Of every penalty: (clean completion, its token ids, the worst completion, its token ids, its score).
COSTS = {
    "repetition_penalty": (STEPS, [1, 2, 3], "again and " * 10_000, [1, 2, 3], -1.0),
    "soft_overlong": (STEPS, [1, 2, 3], STEPS, [1] * 10, -1.0),
}
RELATIVE = {"length"}  # to the other completions of the group
ARGS = {"soft_overlong": {"max_length": 10, "cache": 4}}
SINGLE = {**{name: row[:3] for name, row in PAYS.items()}, **{name: (*row[:2], {}) for name, row in COSTS.items()}}


def call(name: str, completion, *, ids=(), args=None, tags=TAGS, **columns) -> float | None:
    [loaded] = load_rewards([RewardConfig(name=name, args=args or {})])
    [value] = score(loaded, ["q"], [completion], [list(ids)], [columns], tags)
    return value


# In files of tests of their own.
ELSEWHERE = {"reasoning_gym", "code", "judge", "reward_model", "language_consistency", "plain_answered", "refused", "answered"}


def test_every_reward_is_covered_below():
    assert PAYS.keys() | COSTS.keys() | RELATIVE | ELSEWHERE == REWARDS.keys()


@pytest.mark.parametrize("name", PAYS)
def test_a_gold_answer_gets_the_top_score_and_an_empty_one_the_bottom(name):
    gold, ids, columns, top, bottom = PAYS[name]
    assert call(name, gold, ids=ids, **columns) == top
    assert call(name, "", ids=[], **columns) == bottom


@pytest.mark.parametrize("name", COSTS)
def test_a_clean_answer_costs_nothing(name):
    clean, ids, dirty, dirty_ids, worst = COSTS[name]
    assert call(name, clean, ids=ids, args=ARGS.get(name)) == 0
    assert call(name, "", ids=[], args=ARGS.get(name)) == 0
    assert call(name, dirty, ids=dirty_ids, args=ARGS.get(name)) == pytest.approx(worst, abs=1e-3)


@pytest.mark.parametrize("name", SINGLE)
def test_conversations_are_scored_as_their_last_message(name):
    completion, ids, columns = SINGLE[name]
    messages = [{"role": "user", "content": "<answer>0</answer>"}, {"role": "assistant", "content": completion}]
    expected = call(name, completion, ids=ids, args=ARGS.get(name), **columns)
    assert call(name, messages, ids=ids, args=ARGS.get(name), **columns) == expected
    assert call(name, messages[1:], ids=ids, args=ARGS.get(name), **columns) == expected


@pytest.mark.parametrize("name", SINGLE)
def test_rewards_can_be_called_as_trl_calls_them(name):
    completion, ids, columns = SINGLE[name]
    lists = {key: [value, value] for key, value in columns.items()} | ARGS.get(name, {})
    conversations = [[{"role": "assistant", "content": completion}], [{"role": "assistant", "content": ""}]]
    prompts = [[{"role": "user", "content": "q"}]] * 2
    scores = REWARDS[name](prompts=prompts, completions=conversations, completion_ids=[ids, []], trainer_state=None, **lists)
    assert scores == [call(name, text, ids=i, args=ARGS.get(name), **columns) for text, i in ((completion, ids), ("", []))]


@pytest.mark.parametrize("name", PAYS)
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


@pytest.mark.parametrize(
    ("text", "quarters"),
    [
        (GOOD, 4),
        ("no tags", 0),
        ("<think>a", 1),
        ("<think>a</think> 2", 2),
        ("</answer><answer></think><think>", 4),  # where they stand is the format reward's business
        ("<think>a</think> <answer>2", 3),
        (GOOD + "<answer>", 3),
        (GOOD + GOOD, 0),
        ("<Think>a</Think>", 0),
    ],
)
def test_tag_count_pays_a_quarter_for_every_tag_that_stands_once(text, quarters):
    assert call("tag_count", text) == quarters / 4


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


# Words.


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("Paris", "Paris", 1.0),
        ("  paris. ", "PARIS", 1.0),
        ('**"The  Beatles".**', "the beatles", 1.0),
        ("“ New\nYork! ”", "New York", 1.0),
        ("Ｐａｒｉｓ！", "paris", 1.0),  # full width
        ("e\u0301t\u00e9", "\u00e9te\u0301", 1.0),  # composed or not
        ("巴黎。", "巴黎", 1.0),
        ("STRASSE", "Straße", 1.0),
        (7, 7, 1.0),
        ("The Beatles", "Beatles", 0.0),  # articles are words
        ("Paris, France", "Paris", 0.0),
        ("-5", "5", 0.0),
        ("5%", "5", 0.0),
        (".5", "5", 0.0),
        ("(5", "5", 0.0),
        ("*5", "5", 0.0),
        ("New York", "NewYork", 0.0),
        ("", "Paris", 0.0),
    ],
)
def test_exact_match_compares_words_without_case_and_what_surrounds_them(answer, gold, expected):
    assert call("exact_match", f"<think>a</think> <answer>{answer}</answer>", gold=gold) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>a</think> Paris", 1.0),
        ("Paris", 1.0),
        ("<think>Paris</think>", 0.0),
        ("<think>Paris", 0.0),
        ("<think>a</think> <answer>Paris</answer> <answer>Rome</answer>", 0.0),
        ("<think>Rome</think> It is <answer>Paris</answer>, sure.", 1.0),
    ],
)
def test_exact_match_reads_the_tag_or_else_all_that_follows_the_thoughts(text, expected):
    assert call("exact_match", text, gold="Paris") == expected


@pytest.mark.parametrize("gold", ["", " ", None, "..."])
def test_exact_match_skips_rows_without_gold(gold):
    assert call("exact_match", "<think>a</think> <answer></answer>", gold=gold) is None


def test_exact_match_of_a_long_row_of_quotation_marks_ends():
    assert call("exact_match", '"' * 1_000_000, gold="Paris") == 0.0


@pytest.mark.parametrize(
    ("answer", "keywords", "expected"),
    [
        ("The Sun and the moon.", ["sun", "MOON"], 1.0),
        ("The sun.", ["sun", "moon"], 0.5),
        ("sunny, moonlit", ["sun", "moon"], 0.0),
        ("a monsun, a bimoon", ["sun", "moon"], 0.0),
        ("axb", ["a.b"], 0.0),
        ("a red\n giant", ["red giant"], 1.0),
        ("written in C++, not C", ["c++", "c"], 1.0),
        ("C++", ["c"], 1.0),
        ("Cpp", ["c"], 0.0),
        ("太阳很大", ["太阳", "月亮"], 0.5),
        ("5+15", ["5", "1"], 0.5),
        ("", ["sun"], 0.0),
        ("sun", [], None),
    ],
)
def test_keyword_pays_the_share_of_words_found(answer, keywords, expected):
    text = f"<think>sun moon</think> <answer>{answer}</answer>"
    assert call("keyword", text, keywords=keywords) == expected
    if keywords:
        assert call("keyword", text, args={"keywords": keywords}) == expected


def test_keyword_may_look_at_the_whole_text():
    text = "<think>the sun</think> <answer>2</answer>"
    assert call("keyword", text, args={"keywords": ["sun"]}) == 0
    assert call("keyword", text, args={"keywords": ["sun"], "where": "text"}) == 1


def test_keywords_of_a_column_are_those_of_the_row():
    [reward] = load_rewards([RewardConfig(name="keyword")])
    columns = [{"keywords": ["sun"]}, {"keywords": ["moon", "sea"]}, {"keywords": None}, {}]
    assert score(reward, ["q"] * 4, ["moon"] * 4, [[1]] * 4, columns, TAGS) == [0.0, 0.5, None, None]


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


@pytest.mark.parametrize(
    ("grader", "columns"),
    [
        ("exact_match", {"gold": "2"}),
        ("keyword", {"keywords": ["2"]}),
        ("plain_answered", {"checker": "number", "arguments": ["2"]}),
        ("answered", {}),
        ("users_own:two", {}),
    ],
)
def test_any_reward_may_say_what_is_right_for_cosine_and_length(user_module, grader, columns):
    assert call("cosine", "2", ids=[0] * 8, args={"grader": grader, "max_length": 16}, **columns) == pytest.approx(0.75)
    assert call("cosine", "", ids=[0] * 8, args={"grader": grader, "max_length": 16}, **columns) == pytest.approx(-0.75)
    [reward] = load_rewards([RewardConfig(name="length", args={"grader": grader})])
    assert score(reward, ["a"] * 2, ["2", ""], [[1], [1] * 2], [columns] * 2, TAGS) == [0.5, -0.5]


def test_the_grader_of_cosine_keeps_its_slow_verdicts_in_the_file_of_cosine(tmp_path, monkeypatch):
    monkeypatch.setattr(maths, "_algebra", lambda pairs: [Verdict(True, "", 5.0) for _ in pairs])
    [reward] = load_rewards([RewardConfig(name="cosine")], tmp_path)
    assert score(reward, ["q"], ["(x-1)(x+2)"], [[]], [{"gold": "x^2+x-2"}], TAGS) == [1.0]
    assert '"is_same": true' in (tmp_path / "cosine.jsonl").read_text()


# Length.


def length_scores(texts: list[str], lengths: list[int], prompts: list | None = None, **args) -> list[float | None]:
    [reward] = load_rewards([RewardConfig(name="length", args=args)])
    columns = [{"gold": "2"}] * len(texts)
    return score(reward, prompts or ["q"] * len(texts), texts, [[0] * n for n in lengths], columns, TAGS)


def test_length_by_hand():
    """lambda of the lengths 10, 20, 30 and 50 is 0.5, 0.25, 0 and -0.5."""
    lengths = [30, 10, 50, 20]
    assert length_scores(["2"] * 4, lengths) == [0.0, 0.5, -0.5, 0.25]
    assert length_scores(["3"] * 4, lengths) == [0.0, 0.0, -0.5, 0.0]
    assert length_scores(["2", "3", "2", "2"], lengths) == [0.0, 0.0, -0.5, 0.25]


def test_length_gives_the_shortest_right_answer_the_top_the_longest_the_bottom_and_an_empty_one_nothing():
    assert length_scores([STEPS, STEPS, STEPS.replace("2<", "3<"), ""], [3, 40, 40, 3]) == [0.5, -0.5, -0.5, 0.0]


def test_length_of_equally_long_completions_is_zero():
    assert length_scores(["2", "3"], [7, 7]) == [0.0, 0.0]
    assert length_scores(["2"], [7]) == [0.0]


def test_length_is_relative_to_the_consecutive_rows_of_the_same_prompt():
    lengths = [10, 20, 100, 300, 30, 40]
    assert length_scores(["2"] * 6, lengths, ["a", "a", "b", "b", "a", "a"]) == [0.5, -0.5] * 3
    conversations = [[{"role": "user", "content": text}] for text in "aabbaa"]
    assert length_scores(["2"] * 6, lengths, conversations) == [0.5, -0.5] * 3
    assert length_scores(["2"] * 6, lengths, ["a"] * 6) != [0.5, -0.5] * 3


def test_length_can_count_characters():
    assert length_scores(["2", "  2", "    2"], [1, 1, 1], unit="characters") == [0.5, 0.0, -0.5]


def test_length_grades_other_tasks_and_skips_what_its_grader_skips():
    [reward] = load_rewards([RewardConfig(name="length", args={"grader": "exact_match"})])
    columns = [{"gold": "Paris"}] * 2 + [{"gold": None}] * 2
    scores = score(
        reward, ["a", "a", "b", "b"], ["Paris", "Rome", "Paris", "Rome"], [[1], [1] * 9, [1], [1] * 9], columns, TAGS
    )
    assert scores == [0.5, -0.5, None, None]
    [reward] = load_rewards([RewardConfig(name="length", args={"grader": "countdown"})])
    columns = [{"nums": [44, 19, 35], "target": target} for target in (98, 99)]
    assert score(reward, ["a", "a"], [GOOD, GOOD], [[1] * 9, [1]], columns, TAGS) == [-0.5, 0.0]


@pytest.mark.parametrize(
    ("length", "args", "expected"),
    [
        (0, {"max_length": 100, "cache": 20}, 0),
        (80, {"max_length": 100, "cache": 20}, 0),
        (81, {"max_length": 100, "cache": 20}, -0.05),
        (90, {"max_length": 100, "cache": 20}, -0.5),
        (100, {"max_length": 100, "cache": 20}, -1),
        (101, {"max_length": 100, "cache": 20}, -1),
        (90, {"max_length": 100}, -0.5),  # a fifth
        (100, {"max_length": 100, "cache": 0}, 0),
        (101, {"max_length": 100, "cache": 0}, -1),
        (25, {"max_length": 100, "cache": 100}, -0.25),
    ],
)
def test_soft_overlong_by_hand(length, args, expected):
    assert call("soft_overlong", "a", ids=[0] * length, args=args) == expected


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
        "def takes(completions, gold=None, level: int | None = None, scale=1.0, **kwargs):\n"
        "    return [1000 * len(gold) + 100 * (level is None) + 10 * scale + len(kwargs['unit'])]\n"
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
        "def two(completions, **columns):\n"
        "    return [float(text == '2') for text in completions]\n"
        "def buggy(prompts, completions, **columns):\n"
        "    return 1 + 'a'\n"
        "def unread(prompts, completions, **columns):\n"
        "    return [float('abc')]\n"
        "def reals(prompts, completions, **columns):\n"
        "    from fractions import Fraction\n"
        "    return [Fraction(1, 2) for _ in completions]\n"
        "def begins(prompts, completions, ahead=None, **columns):\n"
        "    return None if ahead else [1.0 for _ in completions]\n"
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
        ("length", {"answer": "2"}, ["reward length", "'gold'"]),
        ("exact_match", {"answer": "2"}, ["reward exact_match", "'gold'", "answer"]),
        ("keyword", {"answer": "2"}, ["reward keyword", "keywords", "the data has answer"]),
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
    with pytest.raises(ValueError, match="could not convert string to float"):
        call("users_own:unread", "a")
    with pytest.raises(ValueError, match="could not convert string to float"):
        call("cosine", "a", args={"grader": "users_own:unread"}, ids=[1])


def test_a_score_may_be_any_real_number_and_what_a_call_ahead_returns_does_not_count(user_module):
    assert call("users_own:reals", "a") == 0.5
    [reward] = load_rewards([RewardConfig(name="users_own:begins")])
    assert score(reward, ["q"], ["a"], [[1]], [{}], TAGS, ahead=lambda size: None) == [None]
    assert score(reward, ["q"], ["a"], [[1]], [{}], TAGS) == [1.0]


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("cosine", {"unit": "words"}, "unit is 'words'"),
        ("cosine", {"max_length": 0}, "max_length is 0"),
        ("cosine", {"grader": "formats"}, "unknown grader 'formats'; known: countdown, accuracy"),
        ("length", {"unit": "words"}, "unit is 'words': input should be 'tokens' or 'characters'"),
        ("length", {"grader": "formats"}, "unknown grader 'formats'; known: countdown, accuracy"),
        ("soft_overlong", {}, "max_length is not given"),
        ("soft_overlong", {"max_length": 0}, "max_length is 0"),
        ("soft_overlong", {"max_length": 8, "cache": 9}, "max_length is 8 and cache 9"),
        ("soft_overlong", {"max_length": 8, "cache": -1}, "max_length is 8 and cache -1"),
        ("keyword", {}, "keywords is no list of words"),
        ("keyword", {"keywords": []}, "keywords is no list of words"),
        ("keyword", {"keywords": "sun"}, "keywords is 'sun'"),
        ("keyword", {"keywords": [5]}, "keywords is [5]"),
        ("keyword", {"keywords": ["sun", 5]}, "keywords is ['sun', 5]"),
        ("keyword", {"keywords": ["sun", " "]}, "keywords is no list of words"),
        ("keyword", {"keywords": ["sun"], "where": "thoughts"}, "where is 'thoughts': input should be 'answer' or 'text'"),
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


SETTINGS = {  # of every reward that has some; what the data calls so is none of them
    "accuracy": ("extract", "unparsable_gold", "verdicts"),
    "code": ("timeout", "memory_mb", "partial", "verdicts"),
    "cosine": ("grader", "max_length", "unit", "min_value_correct", "verdicts"),
    "keyword": ("where",),
    "language_consistency": ("min_words",),
    "length": ("grader", "unit", "verdicts"),
    "repetition_penalty": ("ngram_size", "max_penalty"),
    "soft_overlong": ("max_length", "cache"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_column_of_the_data_never_takes_the_place_of_a_setting(name):
    args = {"soft_overlong": {"max_length": 8}}.get(name, {})
    columns = {"gold": "2", "tests": None, "keywords": ["2"], "question": "What is one and one?"}
    plain = call(name, GOOD, ids=[1] * 7, args=args, **columns)
    assert call(name, GOOD, ids=[1] * 7, args=args, **columns, **dict.fromkeys(SETTINGS[name], "x")) == plain


@pytest.mark.parametrize("name", ["cosine", "length"])
def test_a_column_of_the_data_never_takes_the_place_of_a_setting_of_the_grader(name):
    args = {"grader": "keyword"}
    plain = call(name, GOOD, ids=[1], args=args, keywords=["2"])
    assert call(name, GOOD, ids=[1], args=args, keywords=["2"], where="x") == plain is not None


def test_a_column_fills_what_has_no_default_or_none_and_all_others_are_keywords(user_module):
    assert call("users_own:takes", "abc", gold="2", level="x", scale="x", unit="x") == 1111


# TRL has some of these rewards too.

BOXED = [f"<think>a</think> So it is $\\boxed{{{answer}}}$." for answer in ("18", "17", "\\frac{36}{2}", "")]


def as_conversations(texts: list[str]) -> list[list[dict[str, str]]]:
    return [[{"role": "assistant", "content": text}] for text in texts]


@pytest.mark.parametrize(("max_length", "cache"), [(100, 20), (100, 0), (100, 100), (7, 3)])
def test_soft_overlong_equals_that_of_trl(max_length, cache):
    from trl.rewards import get_soft_overlong_punishment

    ids = [[0] * n for n in range(120)]
    theirs = get_soft_overlong_punishment(max_length, cache)(completion_ids=ids)
    assert {-1.0, 0.0} <= set(theirs)
    assert REWARDS["soft_overlong"]([""] * 120, [""] * 120, ids, max_length=max_length, cache=cache) == pytest.approx(theirs)


def test_accuracy_equals_that_of_trl_on_boxed_answers():
    from trl.rewards import accuracy_reward, reasoning_accuracy_reward

    gold = ["$18$"] * 4
    ours = REWARDS["accuracy"]([""] * 4, as_conversations(BOXED), gold=gold)
    assert ours == [1.0, 0.0, 1.0, 0.0]
    assert accuracy_reward(as_conversations(BOXED), gold) == ours
    assert reasoning_accuracy_reward(as_conversations(BOXED), gold) == ours
    assert accuracy_reward(as_conversations(BOXED[:1]), ["no number"]) == [None]
    assert REWARDS["accuracy"]([""], BOXED[:1], gold=["no number"]) == [None]


@pytest.mark.parametrize("length", [0, 1, 8, 15, 16, 17, 40])
def test_cosine_equals_that_of_trl(length):
    from trl.rewards import get_cosine_scaled_reward

    ids = [[0] * length] * 4
    theirs = get_cosine_scaled_reward(max_len=16)(as_conversations(BOXED), ["$18$"] * 4, ids)
    ours = REWARDS["cosine"]([""] * 4, as_conversations(BOXED), ids, max_length=16, gold=["$18$"] * 4)
    assert ours == pytest.approx(theirs)
    assert ours[0] > 0 > ours[1]


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("words", ["a b c a b c", "a a a a a", "a b", "", "d e f g"])
def test_repetition_penalty_of_words_equals_that_of_trl_where_every_word_is_a_token(words, size):
    from trl.rewards import get_repetition_penalty_reward

    ids = [[ord(word) for word in words.split()]]
    assert REWARDS["repetition_penalty"]([""], [words], ngram_size=size) == get_repetition_penalty_reward(size)(ids)


def rewards_of(**changes) -> list[Reward]:
    return [Reward("right", 1.0, len), Reward("language", 0.5, len, **changes)]


@pytest.mark.parametrize(
    ("scores", "changes", "expected"),
    [
        ({"right": 1.0, "language": 0.8}, {}, 1.4),
        ({"right": 1.0, "language": 0.8}, {"requires": "right"}, 1.4),
        ({"right": 0.5, "language": 0.8}, {"requires": "right"}, 0.5),
        ({"right": 0.0, "language": -1.0}, {"requires": "right"}, 0.0),
        ({"right": None, "language": 0.8}, {"requires": "right"}, None),
        ({"right": None, "language": 0.8}, {}, 0.4),
        ({"right": 1.0, "language": None}, {"requires": "right"}, 1.0),
        ({"right": 1.0, "language": 0.8}, {"cap": 0.5}, 1.25),
        ({"right": 1.0, "language": -0.8}, {"cap": 0.5}, 0.6),
        ({"right": None, "language": None}, {}, None),
    ],
)
def test_the_sum_of_rewards_that_require_others_and_are_capped(scores, changes, expected):
    assert total(rewards_of(**changes), scores, "task") == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("name", ["nobody", "format"])
def test_a_reward_requires_another_one_of_the_list(name):
    with pytest.raises(UserError, match=f"reward format requires '{name}', which is no other reward of the list"):
        load_rewards([RewardConfig(name="format", requires=name), RewardConfig(name="countdown")])


def test_rewards_may_log_metrics_as_in_trl(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "telling.py").write_text("""
def named(prompts, completions, log_metric, **_):
    log_metric("mine/length", 3.0)
    return [1.0] * len(completions)
def silent(prompts, completions, completion_ids, tags):
    return [1.0] * len(completions)
""")
    told = []
    for name in ("telling:named", "telling:silent"):
        [reward] = load_rewards([RewardConfig(name=name)])
        assert score(reward, ["p"], ["c"], [[1]], [{}], TAGS, lambda *pair: told.append(pair)) == [1.0]
    assert told == [("mine/length", 3.0)]


KEEPING = ("judge", "accuracy", "code", "cosine", "length")


@pytest.mark.parametrize("name", REWARDS)
def test_a_stage_binds_every_reward_without_touching_its_arguments(name, tmp_path):
    [reward] = load_rewards([RewardConfig(name=name)], tmp_path)
    expected = {"verdicts": str(tmp_path / f"{name}.jsonl")} if name in KEEPING else {}
    assert reward.function.keywords == expected


def test_a_weight_for_a_task_that_no_problem_is_of_is_refused():
    cfg = RewardConfig(name="format", weight={"countdwn": 1.0})
    with pytest.raises(UserError, match="reward format weighs task 'countdwn'; the problems are of countdown, gsm8k"):
        check_tasks([cfg], ["countdown", "gsm8k"])
    check_tasks([RewardConfig(name="format", weight={"gsm8k": 1.0}), RewardConfig(name="countdown")], ["countdown", "gsm8k"])
