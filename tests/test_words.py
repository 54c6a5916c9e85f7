"""Word problems and those who solve them: every question and every line is read and worked out again."""

import random
import re
from collections import Counter
from itertools import combinations, islice, pairwise

import pytest

from aha.chat import parse
from aha.data import words
from aha.data.countdown import SPLITS
from aha.data.words import FORMS, HELD_OUT, SEEN, TEMPLATES, documents, problems, solution
from aha.rewards import load_grader, score

CHINESE = re.compile("[\u3400-\u9fff]")
ENGLISH = re.compile("[A-Za-z]")
EQUATION = re.compile(r"(\d+)([-+*/])(\d+)=(\d+)")

# What each question asks, from its numbers in the order in which they stand in it (in Chinese the same).
ANSWERS = {
    "gain": lambda a, b: a + b,
    "loss": lambda a, b: a - b,
    "packed": lambda a, b: a * b,
    "share": lambda a, b: a / b,
    "more": lambda a, b: a + b,
    "fewer": lambda a, b: a - b,
    "difference": lambda a, b: a - b,
    "times": lambda a, b: a * b,
    "older": lambda a, b: a + b,
    "train": lambda a, b: a * b,
    "change": lambda a, b, c: c - a * b,
    "gain_and_loss": lambda a, b, c: a + b - c,
    "more_together": lambda a, b: a + (a + b),
    "times_together": lambda a, b: a * (1 + b),
    "taken_from_boxes": lambda a, b, c: a * b - c,
    "packing": lambda a, b, c: (a + b) / c,
    "trip": lambda a, b, c: c - a * b,
    "laps": lambda a, b, c: a * b + c,
    "half": lambda a, b: a / 2 + b,
    "tank": lambda a, b, c: a / (b - c),
    "rest_shared": lambda a, b, c: (a - b) / c,
    "both_work": lambda a, b, c: (a + b) * c,
    "pages": lambda a, b, c: a - b * c,
    "two_kinds": lambda a, b, c, d: a * c + b * d,
    "two_walks": lambda a, b, c, d: a * b + c * d,
    "coupon": lambda a, b, c: (a * b - c) / 2,
    "wages": lambda a, b, c, d: a * b * c - d,
    "hall": lambda a, b, c, d: a * b - c - d,
    "farm": lambda a, b, c: a + a * b + (a - c),
    "change_of_two": lambda a, b, c, d, e: e - a * b - c * d,
}


def value_of(a: str, op: str, b: str) -> float:
    return {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b), "/": int(a) / int(b)}[op]


@pytest.fixture(scope="module")
def drawn() -> list[words.WordProblem]:
    return [*islice(problems("train", seed=1), 1500), *islice(problems("test", seed=2, held_out=True), 500)]


@pytest.fixture(scope="module")
def written() -> list[dict[str, str]]:
    return list(islice(documents(seed=4), 2000))


# Problems.


def test_the_gold_answer_is_what_the_question_asks(drawn):
    assert ANSWERS.keys() == TEMPLATES.keys()
    for problem in drawn:
        numbers = [int(n) for n in re.findall(r"\d+", problem.question)]
        assert ANSWERS[problem.template](*numbers) == problem.gold, problem.question


def test_every_number_on_the_way_is_whole_positive_and_one_token(drawn):
    for problem in drawn:
        values = words.work_out(problem.steps, problem.numbers)
        assert values[problem.steps[-1].result] == problem.gold
        assert all(isinstance(value, int) and 0 < value <= 999 for value in values.values())


def test_questions_are_in_one_language_and_have_no_gaps(drawn):
    assert {problem.language for problem in drawn} == {"en", "zh"}
    for problem in drawn:
        assert bool(CHINESE.search(problem.question)) == (problem.language == "zh")
        assert bool(ENGLISH.search(problem.question)) == (problem.language == "en")
        assert "{" not in problem.question


def test_there_are_templates_of_one_to_four_steps_each_in_both_languages(drawn):
    assert {len(template.steps) for template in TEMPLATES.values()} == {1, 2, 3, 4}
    seen = {(problem.template, problem.language) for problem in drawn}
    assert seen == {(name, language) for name in TEMPLATES for language in ("en", "zh")}


def test_a_fifth_of_the_templates_is_held_out_and_only_asked_for_by_name(drawn):
    assert len(HELD_OUT) == len(TEMPLATES) / 5
    assert {p.template for p in islice(problems("test", 0), 300)} == set(SEEN)
    assert {p.template for p in islice(problems("test", 0, held_out=True), 100)} == set(HELD_OUT)


def test_one_language_can_be_asked_for():
    for language in ("en", "zh"):
        assert {problem.language for problem in islice(problems("test", 0, language), 50)} == {language}


def test_splits_never_share_a_sum_whatever_the_seeds_names_and_languages():
    keys = {
        split: {
            words.key(problem.template, problem.numbers)
            for seed in (0, 1)
            for held_out in (False, True)
            for problem in islice(problems(split, seed, held_out=held_out), 300)
        }
        for split in SPLITS
    }
    for a, b in combinations(SPLITS, 2):
        assert not keys[a] & keys[b]


def test_splits_have_their_shares_of_the_sums():
    counts = Counter(words.split_of(words.key("gain", {"a": a, "b": b})) for a in range(2, 100) for b in range(2, 100))
    for split, share in SPLITS.items():
        assert counts[split] / counts.total() == pytest.approx(share / 100, abs=0.02)


def test_questions_are_distinct_and_a_seed_draws_the_same_ones_again():
    first, again, other = (list(islice(problems("base", seed), 500)) for seed in (1, 1, 2))
    assert first == again != other
    assert len({problem.question for problem in first}) == 500


@pytest.mark.parametrize("args", [{"split": "dev"}, {"split": "test", "language": "de"}])
def test_unknown_names_are_told(args):
    with pytest.raises(ValueError, match="known: "):
        next(problems(**args))


# Solutions.


def test_writers_who_do_not_slip_are_right_and_so_is_each_of_their_lines(drawn):
    rng = random.Random(0)
    for problem in drawn:
        thoughts, answer = solution(rng, problem, slips=False)
        assert answer == problem.gold, thoughts
        for a, op, b, c in EQUATION.findall(thoughts):
            assert value_of(a, op, b) == int(c), thoughts
        assert str(problem.gold) in thoughts.split("\n")[-1]


def test_every_number_of_a_line_is_known_before_it(drawn):
    rng = random.Random(1)
    for problem in drawn:
        known = {*re.findall(r"\d+", problem.question), "2"}  # half, and two who share, are two
        for line in solution(rng, problem)[0].split("\n"):
            for a, _, b, c in EQUATION.findall(line):
                assert {a, b} <= known, (problem.question, line)
                known.add(c)


def test_solutions_are_in_the_language_of_the_problem_and_of_five_words_or_more(drawn):
    rng = random.Random(2)
    for problem in drawn:
        thoughts, _ = solution(rng, problem)
        assert bool(CHINESE.search(thoughts)) == (problem.language == "zh")
        assert bool(ENGLISH.search(thoughts)) == (problem.language == "en")
        assert len(re.findall("[\u3400-\u9fff]|[A-Za-z]+", thoughts)) >= 5


def test_some_writers_slip_some_notice_and_the_answer_is_the_last_number_of_the_thoughts(drawn):
    rng = random.Random(3)
    right = noticed = false_equations = 0
    for problem in drawn:
        thoughts, answer = solution(rng, problem)
        right += answer == problem.gold
        noticed += bool(re.search("wrong|Wait|算错|等等|Once more|再算一次", thoughts))
        false_equations += any(value_of(a, op, b) != int(c) for a, op, b, c in EQUATION.findall(thoughts))
        assert re.findall(r"\d+", thoughts)[-1] == str(answer)
    assert 0.8 < right / len(drawn) < 0.92
    assert 0.03 < noticed / len(drawn) < 0.15
    assert 0.04 < false_equations / len(drawn) < 0.16


def test_slips_what_is_noticed_of_them_and_checks_have_the_shares_that_are_told(drawn):
    """In problems of one step, where no later one forces a writer to notice."""
    rng, found = random.Random(5), Counter()
    for problem in [p for p in drawn if p.language == "en" and len(p.steps) == 1] * 24:
        first, second, *_ = lines = solution(rng, problem)[0].split("\n")
        _, op, _, value = EQUATION.search(first).groups()
        slipped = (op, int(value)) != (problem.steps[0].op, problem.gold)
        noticed = second.startswith(("No, that is wrong", *words.OPERATIONS.values()))
        assert slipped or not noticed
        found.update(steps=1, slips=slipped, noticed=noticed, checks=any(line.startswith("I check") for line in lines))
        found["wrong sums"] += slipped and op == problem.steps[0].op

    def of_all(shares: dict[str, float]) -> float:
        return words.CAREFUL * shares["careful"] + (1 - words.CAREFUL) * shares["hasty"]

    slips = of_all(words.SLIPS)
    noticed = of_all({who: words.SLIPS[who] * words.NOTICES[who] for who in words.SLIPS}) / slips
    assert found["slips"] / found["steps"] == pytest.approx(slips, abs=0.015)
    assert found["noticed"] / found["slips"] == pytest.approx(noticed, abs=0.06)
    assert found["checks"] / found["steps"] == pytest.approx(of_all(words.CHECKS), abs=0.025)
    # Where no other operation has a value, the sum is wrong.
    assert words.WRONG_SUM < found["wrong sums"] / found["slips"] < words.WRONG_SUM + 0.15


def test_a_check_that_does_not_fit_leads_to_the_right_sum(drawn):
    rng, found = random.Random(4), 0
    for problem in [p for p in drawn if p.language == "en"] * 3:
        lines = solution(rng, problem)[0].split("\n")
        for line, after in pairwise(lines):
            for match in EQUATION.finditer(line) if line.startswith("I check") else ():
                assert value_of(*match.groups()[:3]) == int(match[4])
                if "which is not" in line:
                    found += 1
                    again = EQUATION.search(after)
                    assert after.startswith("Once more")
                    assert value_of(*again.groups()[:3]) == int(again[4])
    assert found


# Documents.


def test_documents_hold_no_held_out_template_and_only_sums_of_the_split_base():
    asked = list(islice(problems("base", 4), 2000))
    assert [row["prompt"] for row in islice(documents(seed=4), 2000)] == [problem.question for problem in asked]
    assert not {problem.template for problem in asked} & set(HELD_OUT)
    # No question of a held-out template can be mistaken for another: its fixed words are nowhere in the documents.
    for name in HELD_OUT:
        for text in (TEMPLATES[name].en, TEMPLATES[name].zh):
            pattern = re.compile(re.sub(r"\\{\w+\\}", r"\\w+", re.escape(text)))
            assert not any(pattern.fullmatch(problem.question) for problem in asked), name


def test_documents_are_those_of_their_seed():
    first, again, other = (list(islice(documents(seed), 50)) for seed in (1, 1, 2))
    assert first == again != other


def test_unmixed_documents_are_in_one_language():
    for row in islice(documents(5, mixed=0, other=0), 500):
        completion = re.sub(r"</?\w+>|boxed", "", row["completion"])
        assert bool(CHINESE.search(row["prompt"])) == bool(CHINESE.search(completion))
        assert bool(ENGLISH.search(row["prompt"])) == bool(ENGLISH.search(completion))


def test_a_share_of_the_thoughts_is_mixed_and_a_share_is_in_the_other_language(written):
    kinds: Counter[str] = Counter()
    for row in written:
        thoughts = re.sub("|".join(name for pair in words.NAMES for name in pair), "", row["completion"])
        thoughts = re.sub(r"</?\w+>|boxed", "", thoughts)
        prompt_is_chinese = bool(CHINESE.search(row["prompt"]))
        found = (bool(CHINESE.search(thoughts)), bool(ENGLISH.search(thoughts)))
        kinds["mixed" if all(found) else "own" if found[0] == prompt_is_chinese else "other"] += 1
    assert kinds["mixed"] / len(written) == pytest.approx(words.MIXED, abs=0.03)
    assert kinds["other"] / len(written) == pytest.approx(words.OTHER, abs=0.03)


def test_forms_appear_in_their_shares_and_the_grader_reads_them_all(written):
    counts: Counter[str] = Counter()
    asked = islice(problems("base", 4), 2000)
    grader, right = load_grader("accuracy"), 0.0
    for row, problem in zip(written, asked, strict=True):
        completion = row["completion"]
        answer = re.findall(r"\d+", completion)[-1]
        thoughts = re.split(r"</think>| <answer>", completion)[0]
        counts[next(form for form in FORMS if form.format(thoughts=thoughts, answer=answer) == completion)] += 1
        if len(counts) and counts.total() <= 300:
            given = score(grader, ["q"], ["<think>" + completion], [[1]], [{"gold": str(problem.gold)}], ("think", "answer"))
            is_right = int(answer) == problem.gold and parse("<think>" + completion).body != ""
            assert given == [float(is_right)], completion
            right += is_right
    assert right > 200
    assert sum(FORMS.values()) == pytest.approx(1)
    for form, share in FORMS.items():
        assert counts[form] / len(written) == pytest.approx(share, abs=0.03)
