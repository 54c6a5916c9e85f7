"""Mathematics: what counts as equal, line by line of docs/grading.md; where the answer is found; what time-outs leave."""

import json
import re
from pathlib import Path

import pytest
from conftest import SHARED

from aha.rewards import maths
from aha.rewards.extract import PLACES, find_answer
from aha.rewards.kept import Kept
from aha.rewards.maths import accuracy, fingerprint, grade_answer, grade_answers, grade_completion, parsed
from aha.rewards.numbers import SHORT_UNITS
from aha.rewards.workers import Verdict

PAGE = Path(__file__).parent.parent / "docs" / "grading.md"
GRADER = SHARED / "grader"


def rules() -> list[tuple[str, str, bool]]:
    """Gold, answer and verdict of every line of the table in docs/grading.md."""
    lines = re.findall(r"^\|.*?\| `(.*?)` \| `(.*?)` \| (yes|no) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [(gold, answer, verdict == "yes") for gold, answer, verdict in lines]


def labelled(name: str) -> list[tuple[str, str, bool]]:
    path = GRADER / f"{name}.jsonl"
    if not path.exists():
        pytest.skip(f"no {path}: labelled rows of other projects are not shipped")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if "gold" in row]
    answers = [row.get("answer", row.get("pred")) for row in rows]
    labels = [row.get("is_correct", row.get("expected")) for row in rows]
    return [
        (str(row["gold"]), "" if answer is None else str(answer), label)
        for row, answer, label in zip(rows, answers, labels, strict=True)
    ]


def test_the_page_has_its_rules():
    assert len(rules()) > 60
    assert {verdict for _, _, verdict in rules()} == {True, False}


@pytest.mark.parametrize(("gold", "answer", "is_same"), rules())
def test_every_rule_of_the_page_holds_both_ways_round(gold, answer, is_same):
    assert [grade.score for grade in grade_answers([(gold, answer), (answer, gold)])] == [float(is_same)] * 2


@pytest.mark.parametrize("text", sorted({text for gold, answer, _ in rules() for text in (gold, answer)}))
def test_every_answer_equals_itself_in_a_box_and_between_dollar_signs(text):
    variants = [f"\\boxed{{{text}}}", f"So it is $\\boxed{{{text}}}$.", f"  {text} "]
    variants += [] if "$" in text else [f"${text}$"]
    assert [grade_answer(variant, text).score for variant in variants] == [1.0] * len(variants)


@pytest.mark.parametrize(
    ("gold", "answer", "is_same"),
    [
        ("12.5%", "1/8", True),
        ("50 cents", "$0.50", True),
        ("2 km", "2000 m", True),
        ("60 miles per hour", "60 mile/hour", True),
        ("9 m^2", "90000 cm^2", True),
        ("5x", "5", False),
        ("12xy", "12", False),
        ("14th", "14", True),
        ("-\\frac{1}{2}", "\\frac{-1}{2}", True),
        ("1e500", "1e501", False),  # too large to be read as numbers
        ("\\frac12", "½", True),
        ("2½", "2.5", True),
        ("√3", "\\sqrt{3}", True),
        ("|x| \\le 2", "[-2, 2]", True),
        ("|x| > 1", "(-\\infty,-1) \\cup (1,\\infty)", True),
        ("-x > -1", "x < 1", True),
        ("x \\in [1, 2]", "1 \\le x \\le 2", True),
        ("x > 5", "x < 5", False),
        ("x > 5", "x \\ge 5", False),
        ("x \\neq 3", "x != 3", True),
        ("k = 1", "1 = k", True),
        ("x = 1, 2", "x = 2 or x = 1", True),
        ("AB = 4, CD = 5", "4, 5", True),
        ("(p,q) = (3,2)", "(2,3)", False),
        ("ab = 8", "x = \\tan y", False),
        ("y^2 = 4x", "y^2 = 8x", False),
        ("x^2/4 + y^2/3 = 1", "x^2/16 + y^2/12 = 1/4", True),
        ("\\tan^2(y) + 1", "\\sec^2(y)", True),
        ("\\frac{\\pi}{2}", "\\frac{π}{2}", True),
        ("A(0; -1; 2)", "(0, -1, 2)", True),
        ("4:30 p.m.", "4:30 a.m.", False),
        ("C: 5", "C: 6", False),
        ("B: 4", "4", True),
        ("The answer is 18 apples.", "18", True),
        ("#### 18", "18", True),
        ("It takes 18 hours", "18", True),
        ("", "0", False),
        ("x", "", False),
        ("90+90=180", "180", True),
        ("|x|", "x", False),
        ("|x|", "\\sqrt{x^2}", True),
        ("2x\\sqrt{2x}", "\\sqrt{8x^3}", True),  # where x is negative neither is real
        ("34", "$3 4$", False),
        ("1.5", "1. 5", False),
        ("\\log_2 8", "3", True),
        ("10 000x", "10000x", True),
        ("2 1/3", "21/3", False),
        ("A", "A. Vitamin C", True),
        ("12", "(A) 12", True),
        ("A", "(A), (B)", False),
        ("B", "A: B", False),
        ("(n-1)!", "n-1", False),
        ("120", "5!", True),
        ("5", "The answer is 5!", True),
        ("98", "98！", True),
        ("$1.2 million", "1,200,000", True),
        ("$5 million", "$5", False),
        ("5", "5 millions", False),
        ("1/2", "\\frac12 xy", False),
        ("3", "3 x y", False),
        ("5", "5 lbs", True),
        ("18", "18 公里", True),
        ("5 €", "5 euros", True),
        ("2,000", "2 and 0", False),
        ("2,5", "5/2", False),
        ("Yes", "yes", True),
        ("SOS", "OSS", False),
        ("ABD", "BDA", False),
        ("105", "$35+$70=$105", True),
        ("12", "24/2=\\frac{36}{3}=12", True),
        ("98", "1=2=98", False),
        ("97 = 98", "97 = 98", True),
        ("66.67%", "2/3", True),
        ("0.5%", "0.005", True),
        ("3", "x \\ne 3", False),
        ("(x,y)=(1,2)", "x=2, y=1", False),
        ("98", "98 and 98", True),
        ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "[[1,3],[2,4]]", False),
        ("1", "\\tan(45°)", True),
        ("50 cents", "50¢", True),
        ("2000", "1,500 + 500 = 2000", True),
        ("2,000", "1,500.50 + 499.50 = 2,000", True),
        ("2000", "$1,500 + $500 = $2,000", True),
        ("2000", "2,000 = 1,500 + 500", True),
        ("3000", "2(1,500) = 3,000", True),
        ("10500", "10,000(1.05) = 10,500", True),
        ("55,380", "(39)(1,420)", True),
        ("1,500,000", "1,000 \\times 1,500 = 1,500,000", True),
        ("1500 + x", "1,500 + x", True),
        ("x = 1500", "x = 1,500", True),
        ("x \\ne 1200", "x != 1,200", True),
        ("1200", "(x, y) = (1,200)", False),
        ("1200", "(1,200)", False),
        ("1, -200, 300", "1,-200,300", True),
        ("60", "5!/2!=60", True),
        ("12", "2 \\times 3!=12", True),
        ("120", "n = 5!=120", True),
        ("5!", "5!=120", True),
        ("x^2 \\ne 4", "x^2!=4", True),
        ("2 \\ne x", "2!=x", True),
        ("2", "2!=x", False),
        ("5 \\ne 120", "5 != 120", True),
        ("5 \\ne 120", "5!=120", False),
        ("2(1/2)", "1", True),
        ("(2)(48) + 2", "98", True),
        ("f(3)", "3f", False),
        ("V = lwh", "V = whl", True),
        ("lwh", "l w h", True),
        ("lwh", "lw", False),
        ("A B C", "C A B", False),
        ("fly", "lfy", False),
        ("Amy", "M a y", False),
        ("\\text{lwh}", "whl", False),
        ("five", "\\text{Five}", True),
        ("6", "\\text{five}", False),
    ],
)
def test_more_cases_both_ways_round(gold, answer, is_same):
    assert [grade.score for grade in grade_answers([(gold, answer), (answer, gold)])] == [float(is_same)] * 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\\frac{1}{2} cm", "1/2 cm"),
        ("28\\%", "28%"),
        ("x = 3", "x = 3"),
        ("[0, 1)", "[0, 1)"),
        ("1 or 2", "{1, 2}"),
        ("1,234", "1234 | {1, 234}"),
        ("-2 < x \\le 7", "x in (-2, 7]"),
        ("\\boxed{\\text{Evelyn}}", "evelyn"),
        ("", ""),
    ],
)
def test_how_an_answer_is_read_is_told(text, words):
    assert parsed(text) == words


def test_what_is_asked_of_algebra_does_not_depend_on_which_is_gold():
    asked: list[tuple[str, str]] = []
    for pair in (("x+1, 2y", "2y, 1+x"), ("2y, 1+x", "x+1, 2y")):
        assert maths.decide(*pair, lambda a, b: asked.append((a, b)) or ("x" in a and "x" in b) or ("y" in a and "y" in b))
    assert asked[: len(asked) // 2] == asked[len(asked) // 2 :] != []


# Where the answer stands.

AFTER = "<think>\\boxed{17} The answer is 17.</think> "


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (AFTER + "<answer>18</answer>", "18"),
        (AFTER + "\\boxed{19} <answer>18</answer>", "18"),
        (AFTER + "<answer>17</answer> <answer>18</answer>", None),
        (AFTER + "\\boxed{17}, no: \\boxed{18}.", "18"),
        (AFTER + "\\boxed{17} or \\boxed{18}", "17, 18"),
        (AFTER + "\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        (AFTER + "\\boxed{17} The answer is 18.", "17"),
        (AFTER + "The answer is 17. So the final answer is 18 apples. Done.", "18 apples"),
        (AFTER + "Answer: 1.5 m", "1.5 m"),
        (AFTER + "It is so.\n#### 1,234", "1,234"),
        (AFTER + "答案是18。", "18"),
        (AFTER + "18", "18"),
        (AFTER + "$x^2$", "$x^2$"),
        (AFTER + "I got 17, then 18 apples in all.", None),
        (AFTER + "<answer>Using the numbers 44 and 35 make 98.</answer>", None),
        (AFTER + "<answer>There are 98 apples in all.</answer>", "There are 98 apples in all."),
        (AFTER, None),
        ("<think>\\boxed{18}</think>", None),
        ("<think>\\boxed{18}", None),
        ("<think>a</think> b <think> \\boxed{18}", None),
        ("<think>a</think> \\boxed{18} </think> done", None),
        ("18", "18"),
    ],
)
def test_where_the_answer_of_a_completion_is_found(completion, answer):
    found = find_answer(completion)
    assert (found.strip() if found else found) == answer


def test_a_recipe_says_where_the_answer_is_looked_for():
    text = AFTER + "\\boxed{17} The answer is 18."
    assert accuracy([""], [text], gold=["18"], extract=["stated"]) == [1.0]
    assert accuracy([""], [text], gold=["18"], extract=["tag"]) == [0.0]
    assert accuracy([""], [AFTER + "<answer>18</answer>"], gold=["18"], extract=["box"]) == [0.0]
    with pytest.raises(ValueError, match=f"extract has 'boxes'; known: {', '.join(PLACES)}"):
        accuracy([""], [text], gold=["18"], extract=["boxes"])


@pytest.mark.parametrize("completion", ["<think>\\boxed{18}</think>", "<think>18 <answer>18</answer></think>", ""])
def test_a_completion_without_an_answer_after_its_thoughts_is_told_so(completion):
    grade = grade_completion(completion, "18")
    assert (grade.score, grade.reason) == (0.0, "no answer after the thoughts")


# Labelled rows of other projects.


@pytest.mark.parametrize(
    ("name", "num_wrong"),
    [
        ("gsm8k_model_solutions", 0),
        ("rho_gsm8k", 21),
        ("qwen_math_cot_100", 1),
        ("math-verify", 9),
        ("nemo-skills", 0),
        ("slime", 0),
    ],
)
def test_labelled_rows_agree_but_for_those_that_the_page_explains_and_are_symmetric(name, num_wrong):
    rows = labelled(name)
    grades = [grade.score for grade in grade_answers([(gold, answer) for gold, answer, _ in rows])]
    assert sum(bool(score) != label for score, (_, _, label) in zip(grades, rows, strict=True)) <= num_wrong
    assert [grade.score for grade in grade_answers([(answer, gold) for gold, answer, _ in rows])] == grades


FALSE_SUMS = [
    "97=98",
    "2^3=98",
    "5!=98",
    "2(48)=98",
    r"\sqrt{4}=98",
    "97{}=98",
    "(97)1=98",
    "97¢=98",
    "97°=98",
    "$97 = 98",
    "1/0 = 98",
    "2(96)=98",
    "4!=98",
    "1,098-1,001=98",
]


@pytest.mark.parametrize(
    "answer", ["1,500 + 500 = 3,000", "$1,500 + $500 = $3,000", "$1,500 + 500 = 3,000$", "3,000 = 1,500 + 500", "3,000=1,500"]
)
def test_a_false_sum_with_commas_of_thousands_has_no_result(answer):
    assert [grade_answer(answer, gold).score for gold in ("3000", "3,000", "\\$3,000")] == [0.0] * 3


@pytest.mark.parametrize("answer", FALSE_SUMS)
def test_a_false_sum_has_no_result(answer):
    assert grade_answer(answer, "98").score == 0.0


@pytest.mark.parametrize(
    "answer", ["90+8=98", "1,098 - 1,000 = 98", "2(49)=98", "3!+92=98", "2^6+34=98", r"\sqrt{9604}=98", "7^2+7^2=98"]
)
def test_a_true_sum_has_its_result(answer):
    assert grade_answer(answer, "98").score == grade_answer("98", answer).score == 1.0


CHOICES = {
    "C. John F. Kennedy": "C",
    "A. Dr. J. Smith": "A",
    "(D) Both (A) and (B)": "D",
    "B. P (A) = 0.5": "B",
    "B)": "B",
    "C) Paris": "C",
    "B!": "B",
}


@pytest.mark.parametrize("answer", CHOICES)
def test_letters_in_the_text_of_a_choice_are_no_choices(answer):
    assert grade_answer(answer, CHOICES[answer]).score == 1.0


@pytest.mark.parametrize("answer", ["A. 12 or B", "A. B or C", "A. 5, B", "A) 1 B) 2", "A. cat B. dog", "(A) 12 (B) 13"])
def test_of_several_choices_none_counts(answer):
    assert [grade_answer(answer, letter).score for letter in "AB"] == [0.0, 0.0]


@pytest.mark.parametrize("unit", sorted(SHORT_UNITS - {"of", "per", "sq", "cu", "by", "in", "at", "to", "for"}))
def test_short_units_are_units(unit):
    assert grade_answer(f"3 {unit}", "3").score == 1.0


@pytest.mark.parametrize("answer", ["**98**!", "$98$!", "98"])
def test_an_exclamation_mark_behind_marks_is_none_of_a_factorial(answer):
    assert grade_answer(answer, "98").score == 1.0


# What took long is kept.


def test_a_time_out_is_wrong_and_is_replayed_from_the_record(tmp_path, monkeypatch):
    path = tmp_path / "stage" / "slow.jsonl"
    asked = []

    def slow(pairs):
        asked.append(list(pairs))
        return [Verdict(False, "timed out", 5.0) for _ in pairs]

    monkeypatch.setattr(maths, "_algebra", slow)
    completion = AFTER + "<answer>(x-1)(x+2)</answer>"
    assert accuracy([""], [completion], gold=["x^2+x-2"], verdicts=str(path)) == [0.0]
    assert accuracy([""], [completion], gold=["x^2+x-2"], verdicts=str(path)) == [0.0]
    assert [len(pairs) for pairs in asked] == [1, 0]
    [line] = path.read_text().split()[:1] and path.read_text().strip().splitlines()
    assert json.loads(line)["failure"] == "timed out"
    path.write_text(path.read_text() + '\n{"key": "cut o')  # the process was killed while it wrote

    Kept.of.cache_clear()
    monkeypatch.setattr(maths, "_algebra", lambda pairs: [Verdict(True, "", 0.1) for _ in pairs])
    [grade] = grade_answers([("x^2+x-2", "(x-1)(x+2)")], str(path))
    assert (grade.score, grade.reason) == (0.0, "timed out")
    assert grade_answers([("x^2+x-2", "(x-1)(x+2) ")], str(path))[0].score == 1.0
    assert 'is_same": true' not in path.read_text()  # what is quick is not kept


def test_the_key_of_the_record_is_that_of_the_two_texts():
    assert fingerprint("1", "2") == fingerprint("2", "1") != fingerprint("12", "")
