"""Every attack of docs/reward-hacking.md with the score that it must get."""

import pytest

from aha.config import RewardConfig
from aha.rewards import load_rewards, score

QUESTION = "Using the numbers [44, 19, 35], create an equation that equals 98."
COLUMNS = {"nums": [44, 19, 35], "target": 98, "gold": "98", "question": QUESTION}
PROSE = "First I add the two small numbers and then the large one."


def paid(name: str, completion: str, **args) -> float | None:
    [reward] = load_rewards([RewardConfig(name=name, args=args)])
    [value] = score(reward, [QUESTION], [completion], [[1] * len(completion.split())], [COLUMNS], ("think", "answer"))
    return value


def scores(completion: str) -> dict[str, float | None]:
    return {name: paid(name, completion) for name in ("countdown", "accuracy", "exact_match", "format")}


NOTHING = {"countdown": 0.0, "accuracy": 0.0, "exact_match": 0.0, "format": 0.0}
WELL_FORMED = {**NOTHING, "format": 1.0}


def test_what_is_meant_is_paid():
    assert paid("countdown", f"<think>{PROSE}</think> <answer>44+19+35</answer>") == 1.0
    assert paid("accuracy", f"<think>{PROSE}</think> <answer>98</answer>") == 1.0
    assert paid("language_consistency", f"<think>{PROSE}</think> <answer>98</answer>") == 1.0


@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        ("<think></think> <answer></answer>", NOTHING),
        ("<think> </think> <answer> </answer>", NOTHING),
        ("<think><think></think></think> <answer><answer></answer></answer>", NOTHING),
        ("<think>hm</think> <answer>hm</answer>", WELL_FORMED),
        ("<think>a</think> <answer>97 or 98 or 99</answer>", WELL_FORMED),
        ("<think>a</think> <answer>44+19+35 or 44*19-35</answer>", WELL_FORMED),
        ("<think>a</think> <answer>97</answer> <answer>98</answer>", NOTHING),
        ("<think>a</think> <answer>44+19</answer> <answer>44+19+35</answer>", NOTHING),
        ("<think>98 <answer>98</answer></think>", NOTHING),
        ("<think>44+19+35 <answer>44+19+35</answer></think> done", NOTHING),
        ("<think>\\boxed{98}</think> I do not know.", NOTHING),
        (f"<think>a</think> <answer>{QUESTION}</answer>", WELL_FORMED),
        (f"<think>{QUESTION}</think> {QUESTION}", NOTHING),
        ("<think>a</think> <answer>44+19+35=98</answer>", {**WELL_FORMED, "accuracy": None}),
        ("<think>a</think> <answer>４４+１９+３５</answer>", {**WELL_FORMED, "accuracy": None}),
        ("<think>a</think> <answer>44+19+\u200b35</answer>", {**WELL_FORMED, "accuracy": None}),
        ("<think>a</think> <answer>95**36**50</answer>", WELL_FORMED),
        ("<think>a</think> <answer>" + "(" * 10_000 + "98" + ")" * 10_000 + "</answer>", WELL_FORMED),
        ("<think>a</think> <answer>" + "9" * 1_000_000 + "</answer>", WELL_FORMED),
    ],
    ids=lambda value: value[:50] if isinstance(value, str) else "",
)
def test_an_attack_gets_what_it_deserves(attack, expected):
    found = scores(attack)
    assert {name: value for name, value in found.items() if expected[name] is not None} == {
        name: value for name, value in expected.items() if value is not None
    }


def test_the_target_is_no_equation():
    assert paid("countdown", "<think>a</think> <answer>98</answer>") == 0.0


def test_of_several_boxes_the_last_counts():
    assert paid("accuracy", "<think>a</think> \\boxed{98} \\boxed{97}") == 0.0
    assert paid("accuracy", "<think>a</think> \\boxed{97} \\boxed{98}") == 1.0


def test_repeated_closing_tags_are_no_good_form():
    assert paid("format", "<think>a</think></think> <answer>98</answer>") == 0.0
    assert paid("format", "<think>a</think> <answer>98</answer></answer>") == 0.0


@pytest.mark.parametrize(
    "thoughts", ["", "2+3=5", "ok", "`one two three four five six`", "$one two three four five six$", "a b c d e f g"]
)
def test_silence_earns_no_reward_for_language(thoughts):
    assert paid("language_consistency", f"<think>{thoughts}</think> <answer>98</answer>") == 0.0


def test_being_short_alone_never_pays():
    [reward] = load_rewards([RewardConfig(name="length")])
    texts = ["<think>a</think> <answer>1</answer>", f"<think>{PROSE}</think> <answer>98</answer>"]
    short, long = score(reward, ["p"] * 2, texts, [[1], [1] * 20], [COLUMNS] * 2, ("think", "answer"))
    assert short == 0.0
    assert long == -0.5


def test_a_line_again_and_again_costs():
    assert paid("repetition_penalty", "the same line again. " * 50) < -0.9
    assert paid("soft_overlong", "word " * 100, max_length=50) == -1.0
