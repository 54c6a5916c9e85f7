"""Every attack of docs/reward-hacking.md with the score that it must get."""

import re
from pathlib import Path

import pytest

from aha.config import RewardConfig
from aha.rewards import load_rewards, score

QUESTION = "Using the numbers [44, 19, 35], create an equation that equals 98."
COLUMNS = {"nums": [44, 19, 35], "target": 98, "gold": "98", "question": QUESTION}
PROSE = "First I add the two small numbers and then the large one."


def paid(name: str, completion: str, gold: str = "98", **args) -> float | None:
    [reward] = load_rewards([RewardConfig(name=name, args=args)])
    columns = {**COLUMNS, "gold": gold}
    [value] = score(reward, [QUESTION], [completion], [[1] * len(completion.split())], [columns], ("think", "answer"))
    return value


def scores(completion: str, **columns: str) -> dict[str, float | None]:
    return {name: paid(name, completion, **columns) for name in ("countdown", "accuracy", "exact_match", "format")}


NOTHING = {"countdown": 0.0, "accuracy": 0.0, "exact_match": 0.0, "format": 0.0}
WELL_FORMED = {**NOTHING, "format": 1.0}


def test_what_is_meant_is_paid():
    assert paid("countdown", f"<think>{PROSE}</think> <answer>44+19+35</answer>") == 1.0
    assert paid("accuracy", f"<think>{PROSE}</think> <answer>98</answer>") == 1.0
    assert paid("language_consistency", f"<think>{PROSE}</think> <answer>98</answer>") == 1.0


EVALUATED = {**WELL_FORMED, "accuracy": 1.0}  # a sum that makes 98, however it is written, is no equation of the game
CHOICES = ["(A) (B)", "A. B", "B: A", "(A) or (B) or (C)", "(A), (B)", "A. B. C. D.", "(A) 12 (B) 13", "A) 1 B) 2"]
ATTACKS = {  # by the name that docs/reward-hacking.md gives them: completions and what each is paid
    "form without content": [
        ("<think></think> <answer></answer>", NOTHING),
        ("<think> </think> <answer> </answer>", NOTHING),
        ("<think><think></think></think> <answer><answer></answer></answer>", NOTHING),
        *((f"<think>{blank}</think> <answer>{blank}</answer>", NOTHING) for blank in "\u200b\u2060\u3164\u2800\u00ad\x00"),
    ],
    "form without thought": [("<think>hm</think> <answer>hm</answer>", WELL_FORMED)],
    "a list of answers": [
        ("<think>a</think> <answer>97 or 98 or 99</answer>", WELL_FORMED),
        ("<think>a</think> <answer>97, 98</answer>", WELL_FORMED),
        ("<think>a</think> <answer>44+19+35 or 44*19-35</answer>", WELL_FORMED),
    ],
    "several choices": [
        *((f"<think>a</think> <answer>{text}</answer>", WELL_FORMED) for text in CHOICES),
        ("<think>a</think> \\boxed{\\text{(A) (B)}}", NOTHING),
    ],
    "several answer tags": [
        ("<think>a</think> <answer>97</answer> <answer>98</answer>", NOTHING),
        ("<think>a</think> <answer>98</answer> <answer>98</answer>", NOTHING),
        ("<think>a</think> <answer>44+19</answer> <answer>44+19+35</answer>", NOTHING),
    ],
    "several boxes": [
        ("<think>a</think> \\boxed{98} \\boxed{97}", NOTHING),
        ("<think>a</think> \\boxed{97} or \\boxed{98}", NOTHING),
        ("<think>a</think> \\boxed{97} \\boxed{98}", {**NOTHING, "accuracy": 1.0}),  # the last one counts
    ],
    "the answer in the thoughts only": [
        ("<think>98 <answer>98</answer></think>", NOTHING),
        ("<think>98 <answer>98</answer>", NOTHING),
        ("<think>44+19+35 <answer>44+19+35</answer></think> done", NOTHING),
        ("<think>\\boxed{98}</think> I do not know.", NOTHING),
        ("<think>98</think>", NOTHING),
        ("</think><think><answer>98</answer>", NOTHING),
        ("</think><think><answer>44+19+35</answer>", NOTHING),
        ("<think>a</think><think>98", NOTHING),
        ("<think>a</think><think>The answer is 98.</think>", NOTHING),
    ],
    "repeated closing tags": [
        ("<think>a</think></think> <answer>98</answer>", NOTHING),
        ("<think>a</think> <answer>98</answer></answer>", NOTHING),
        ("<think>a</think></think> <answer>44+19+35</answer>", NOTHING),
    ],
    "copying the question": [
        (f"<think>a</think> <answer>{QUESTION}</answer>", WELL_FORMED),
        (f"<think>{QUESTION}</think> {QUESTION}", NOTHING),
    ],
    "the target itself": [("<think>a</think> <answer>98</answer>", {**EVALUATED, "exact_match": 1.0})],
    "an equation with its result": [
        ("<think>a</think> <answer>44+19+35=98</answer>", EVALUATED),
        ("<think>a</think> <answer>44+19=98</answer>", WELL_FORMED),
        ("<think>a</think> <answer>97=98</answer>", WELL_FORMED),
        ("<think>a</think> <answer>1=2==98</answer>", WELL_FORMED),
        ("<think>a</think> <answer>2(96)=98</answer>", WELL_FORMED),  # no mixed number
        ("<think>a</think> <answer>4!=98</answer>", WELL_FORMED),
    ],
    "work for the grader": [
        ("<think>a</think> <answer>95**36**50</answer>", WELL_FORMED),
        ("<think>a</think> <answer>" + "(" * 10_000 + "98" + ")" * 10_000 + "</answer>", WELL_FORMED),
        ("<think>a</think> <answer>" + "9" * 1_000_000 + "</answer>", WELL_FORMED),
    ],
    "hidden answers": [
        ("<think>a</think> <answer>97<!-- 98 --></answer>", WELL_FORMED),
        ("<think>a</think> <answer>97 \\phantom{98}</answer>", WELL_FORMED),
        ("<think>a</think> <answer>97 \u200b98</answer>", WELL_FORMED),
        ("<think>a</think> <answer>97" + "\n" * 200 + "98</answer>", WELL_FORMED),
        ("<think>a</think> <!-- <answer>98</answer> --> <answer>97</answer>", NOTHING),
        ("<think>a</think> <answer>４４+１９+３５</answer>", EVALUATED),
        ("<think>a</think> <answer>44+19+\u200b35</answer>", EVALUATED),
    ],
}


@pytest.mark.parametrize(
    ("attack", "expected"),
    [pytest.param(*row, id=f"{name} {number}") for name, rows in ATTACKS.items() for number, row in enumerate(rows)],
)
def test_an_attack_gets_what_it_deserves(attack, expected):
    assert scores(attack) == expected


@pytest.mark.parametrize("gold", ["A", "B"])
def test_several_choices_are_none_of_them(gold):
    for attack, expected in ATTACKS["several choices"]:
        assert scores(attack, gold=gold) == expected, attack
    assert paid("accuracy", f"<think>a</think> <answer>({gold}) A triangle</answer>", gold=gold) == 1.0


def test_every_attack_of_the_page_has_its_test():
    page = (Path(__file__).parent.parent / "docs" / "reward-hacking.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| ([a-z][^|]*?) \|.*\| `(test_\w+\.py)(?:::(test_\w+))?` \|$", page, re.MULTILINE)
    assert {name for name, file, test in table if not test} == ATTACKS.keys()
    for name, file, test in table:
        source = (Path(__file__).parent / file).read_text(encoding="utf-8")
        assert f"def {test or 'test_an_attack_gets_what_it_deserves'}(" in source, name
    assert len(table) == len([line for line in page.splitlines() if line.startswith("| ")]) - 1  # without the head


@pytest.mark.parametrize("thoughts", ["", "2+3=5", "ok", "Two. Two. Two."])
def test_silence_earns_no_reward_for_language(thoughts):
    assert paid("language_consistency", f"<think>{thoughts}</think> <answer>98</answer>") == 0.0


@pytest.mark.parametrize("thoughts", ["`one two three four five six`", "$one two three four five six$", "a b c d e f g"])
def test_words_that_are_none_earn_no_reward_for_language(thoughts):
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
