"""The writers who answer Countdown problems, checked by reading every line."""

import random
import re
from collections import Counter
from fractions import Fraction
from itertools import islice, pairwise

import pytest

from aha.data import writers
from aha.data.countdown import QUESTION, problems, split_of
from aha.data.writers import (
    BACK,
    CHECK,
    CHECKS,
    FIRST,
    FORMS,
    HITS,
    MAX_TRIES,
    OPENINGS,
    RULES,
    SLIPS,
    SURRENDERS,
    Term,
    documents,
)
from aha.language import share_in
from aha.rewards.countdown import grade_answer

PROMPT = re.compile(re.escape(QUESTION).replace(r"\{nums\}", r"\[([\d, ]+)\]").replace(r"\{target\}", r"(\d+)"))
EQUATION = re.compile(r"(\d+)([-+*/])(\d+)=(\d+)")
NEED = re.compile(r"(\d+) last, we need (\d+)([-+*/])(\d+)=(\d+)")


def take_apart(row: dict[str, str]) -> tuple[list[int], int, list[str], str]:
    """(numbers, target, lines of the thoughts, handed-in answer) of a document, whatever its form."""
    match = PROMPT.fullmatch(row["prompt"])
    nums, target = [int(n) for n in match[1].split(", ")], int(match[2])
    thoughts, answer = re.fullmatch(r"(.*?)(?:</think>| <answer>)(.*)", row["completion"], re.DOTALL).groups()
    answer = answer.replace("<answer>", "").replace("</answer>", "").strip()
    return nums, target, thoughts.split("\n"), answer.removesuffix(f"={target}")


def is_try(line: str) -> bool:
    return line not in SURRENDERS and not line.startswith(CHECK)


def value_of(a: str, op: str, b: str) -> Fraction:
    left, right = int(a), int(b)
    return Fraction({"+": left + right, "-": left - right, "*": left * right, "/": Fraction(left, right)}[op])


def is_true(a: str, op: str, b: str, c: str) -> bool:
    return int(c) == value_of(a, op, b)


@pytest.fixture(scope="module")
def written() -> list[dict[str, str]]:
    """Thoughts in English."""
    return list(islice(documents(seed=4, mixed=0, other=0), 2000))


def test_sums_slip_in_their_share_and_checks_never_do(written):
    tried: Counter[bool] = Counter()
    for row in written:
        _, _, lines, _ = take_apart(row)
        for line in lines:
            for equation in EQUATION.findall(line):
                if is_try(line):
                    tried[is_true(*equation)] += 1
                else:
                    assert is_true(*equation), line
    share = tried[False] / tried.total()
    assert SLIPS < share < 2 * SLIPS  # with those that are wished for


def test_pages_of_sums_are_true():
    rows = [row for row in islice(documents(seed=1, sums=0.5), 200) if row["prompt"] == writers.PRACTICE]
    assert 60 < len(rows) < 140
    for row in rows:
        equations = EQUATION.findall(row["completion"])
        assert len(equations) == writers.SUMS_PER_PAGE
        assert all(is_true(*equation) for equation in equations)


def test_every_verdict_follows_from_the_numbers_on_the_line(written):
    seen: Counter[str] = Counter()
    for row in written:
        _, target, lines, _ = take_apart(row)
        for line in filter(is_try, lines):
            *_, last = EQUATION.finditer(line)
            needs = [int(match[5]) for match in NEED.finditer(line)]
            wanted, got = (needs or [target])[-1], int(last[4])
            verdict = line[last.end() :]
            seen["hit" if verdict in HITS else re.sub(r"\d+", "#", verdict)] += 1
            truth = {
                ", that does not work.": got != wanted,
                f", that is not {wanted}.": got != wanted,
                f", that is off by {abs(got - wanted)}.": got != wanted,
                ", that is too big.": got > wanted,
                ", that is too small.": got < wanted,
                **dict.fromkeys(HITS, got == wanted),
            }
            assert truth.get(verdict), line
    assert len(seen) == 6


def test_every_number_of_a_try_stands_above(written):
    for row in written[:500]:
        nums, target, lines, _ = take_apart(row)
        for line in filter(is_try, lines):
            known = {*nums, target}
            for a, _, b, c in EQUATION.findall(line):
                assert {int(a), int(b)} <= known, line
                known.add(int(c))


def test_a_hit_that_is_not_refuted_ends_the_thoughts(written):
    checked = refuted = false_claims = unnoticed = hits = 0
    for row in written:
        nums, target, lines, answer = take_apart(row)
        for line, following in pairwise([*lines, ""]):
            if not line.endswith(HITS):
                assert not following.startswith(CHECK)
                continue
            hits += 1
            if following.startswith(CHECK):
                checked += 1
                refuted += not following.endswith("it fits.")
                assert following.endswith(("it fits.", f"which is not {target}.", "the rest cannot be."))
            else:
                assert following == ""
        claims = lines[-1].endswith((*HITS, "it fits."))
        assert claims != (lines[-1] in SURRENDERS)
        is_right = grade_answer(answer, nums, target).score == 1.0
        false_claims += claims and not is_right
        unnoticed += is_right and not claims  # a slip hid it
        if lines[-1].endswith("it fits."):
            assert is_right
    assert checked / hits == pytest.approx(CHECKS, abs=0.05)
    assert 0.01 < refuted / checked < 0.15
    assert 0.005 < false_claims / len(written) < 0.05
    assert unnoticed / len(written) < 0.01


def test_some_are_right_and_many_give_up(written):
    given_up = sum(take_apart(row)[2][-1] in SURRENDERS for row in written)
    assert 0.4 < given_up / len(written) < 0.8


def test_the_answer_uses_the_numbers_of_the_prompt_exactly_once(written):
    for row in written:
        nums, _, _, answer = take_apart(row)
        assert sorted(int(n) for n in re.findall(r"\d+", answer)) == sorted(nums), row


def test_no_writer_writes_a_try_twice_or_tries_too_often(written):
    for row in written:
        _, _, lines, _ = take_apart(row)
        tries = [line.removeprefix(BACK) for line in filter(is_try, lines)]
        tries = [re.sub("|".join(map(re.escape, (*FIRST, *OPENINGS))), "", line) for line in tries]
        tries = [line[: [*EQUATION.finditer(line)][-1].end()] for line in tries]
        assert 1 <= len(tries) <= MAX_TRIES
        assert len(set(tries)) == len(tries), row["completion"]


def test_whoever_goes_back_keeps_the_first_sum_of_the_try_before(written):
    backs = 0
    for row in written:
        tries = list(filter(is_try, take_apart(row)[2]))
        assert tries[0].startswith(FIRST)
        for before, line in pairwise(tries):
            if line.startswith(BACK):
                backs += 1
                assert EQUATION.search(line)[0] == EQUATION.search(before)[0]
    assert backs > 500


def test_every_thought_has_words_enough_to_tell_its_language(written):
    for row in written[:300]:
        share, words = share_in("\n".join(take_apart(row)[2]), "en")
        assert share == 1
        assert words >= 5


def test_shares_of_the_thoughts_are_mixed_or_in_chinese():
    kinds: Counter[str] = Counter()
    for row in islice(documents(seed=4), 600):
        thoughts = re.split("</think>| <answer>", row["completion"])[0]
        latin, han = bool(re.search("[A-Za-z]", thoughts)), bool(re.search("[\u3400-\u9fff]", thoughts))
        kinds["mixed" if latin and han else "zh" if han else "en"] += 1
    assert kinds["mixed"] / 600 == pytest.approx(0.4, abs=0.06)
    assert kinds["zh"] / 600 == pytest.approx(0.1, abs=0.04)


def test_writers_answer_only_problems_of_the_split_base(written):
    assert {split_of(*take_apart(row)[:2]) for row in written} == {"base"}


def test_writers_with_the_same_seed_write_the_same():
    first, again, other = (list(islice(documents(seed), 20)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_shares_sum_to_one():
    assert sum(RULES.values()) == pytest.approx(1)
    assert sum(FORMS.values()) == pytest.approx(1)


def test_forms_appear_in_their_shares(written):
    def form(row: dict[str, str]) -> str:
        text = row["completion"]
        closes = "{thoughts}</think> " if "</think>" in text else "{thoughts} "
        tags = "<answer>" in text
        answer = "{answer}={target}" if text.endswith(f"={take_apart(row)[1]}</answer>") else "{answer}"
        return closes + (f"<answer>{answer}</answer>" if tags else answer)

    counts = Counter(map(form, written))
    assert set(counts) == set(FORMS)
    for name, share in FORMS.items():
        assert counts[name] / len(written) == pytest.approx(share, abs=0.04)


@pytest.mark.parametrize("rule", RULES)
def test_a_try_of_every_rule_uses_every_number_and_is_right_where_it_says_so_without_a_slip(rule):
    rng, right = random.Random(0), 0
    for nums, target in islice(problems("base", 9), 400):
        tried = writers.attempt(rng, rule, tuple(Term(n, str(n), n) for n in nums), target)
        assert sorted(int(n) for n in re.findall(r"\d+", tried.equation)) == sorted(nums)
        is_right = grade_answer(tried.equation, nums, target).score == 1.0
        assert is_right == (tried.result.true == target)
        if all(is_true(*equation) for step in tried.steps for equation in EQUATION.findall(step)):
            assert is_right == (tried.verdict_on == tried.wanted)
        right += is_right
    assert right


# Who writes how.


@pytest.fixture
def _no_slips(monkeypatch):
    monkeypatch.setattr(writers, "SLIPS", 0.0)
    monkeypatch.setattr(writers, "WISHES", 0.0)


def results(a: int, b: int) -> list[Fraction]:
    """What two numbers can make; nobody multiplies or divides by 1."""
    more, less = max(a, b), min(a, b)
    return [Fraction(more + less), Fraction(more - less), *([more * less, Fraction(more, less)] if less > 1 else [])]


def is_nearest(line: str, target: int) -> bool:
    """Whether the last sum of a line lands as near as a sum of its two numbers can, whole and within bounds."""
    *_, last = EQUATION.finditer(line)
    wanted = [int(need[5]) for need in NEED.finditer(line)] or [target]
    possible = [x for x in results(int(last[1]), int(last[3])) if x > 0 and x.denominator == 1 and x <= writers.MAX_VALUE]
    return abs(int(last[4]) - wanted[-1]) == min(abs(x - wanted[-1]) for x in possible)


@pytest.mark.usefixtures("_no_slips")
@pytest.mark.parametrize(("rule", "share"), [("nearest", 1.0), ("backward", 1.0), ("forward", 0.4)])
def test_only_who_moves_at_random_ends_elsewhere_than_nearest_to_what_is_wanted(rule, share):
    rng, near = random.Random(5), 0
    for nums, target in islice(problems("base", 9), 400):
        steps = writers.attempt(rng, rule, tuple(Term(n, str(n), n) for n in nums), target).steps
        assert (rule == "backward") == any(map(NEED.search, steps))
        near += is_nearest(", ".join(steps), target)
    assert near / 400 == pytest.approx(share, abs=0.08 if rule == "forward" else 0)


def test_rules_have_their_shares_and_nobody_changes_the_rule(monkeypatch):
    told, attempt = [], writers.attempt
    monkeypatch.setattr(writers, "attempt", lambda rng, rule, *others: (told.append(rule), attempt(rng, rule, *others))[1])
    found: Counter[str] = Counter()
    rng = random.Random(8)
    for nums, target in islice(problems("base", 9), 3000):
        told.clear()
        writers.think(rng, nums, target)
        [rule] = set(told)
        found[rule] += 1
    for rule, share in RULES.items():
        assert found[rule] / 3000 == pytest.approx(share, abs=0.025)


@pytest.mark.usefixtures("_no_slips")
def test_whoever_gives_up_hands_in_the_closest_equation_on_the_page():
    given_up = 0
    for row in islice(documents(seed=6, mixed=0, other=0), 1500):
        nums, target, lines, answer = take_apart(row)
        if lines[-1] not in SURRENDERS or NEED.search(row["completion"]):  # who works backward ends on other numbers
            continue
        given_up += 1
        ends = [int([*EQUATION.finditer(line)][-1][4]) for line in filter(is_try, lines)]
        closest = min(abs(end - target) for end in ends)
        assert {grade_answer(answer, nums, target + sign * closest).score for sign in (1, -1)} >= {1.0}, row
    assert given_up > 400


def test_near_misses_are_wished_away_in_their_share(monkeypatch):
    monkeypatch.setattr(writers, "SLIPS", 0.0)
    missed: Counter[bool] = Counter()
    for row in islice(documents(seed=7, mixed=0, other=0), 4000):
        _, target, lines, _ = take_apart(row)
        for line in filter(is_try, lines):
            *_, last = EQUATION.finditer(line)
            wanted = ([int(need[5]) for need in NEED.finditer(line)] or [target])[-1]
            true = value_of(*last.groups()[:3])
            if 0 < abs(true - wanted) <= writers.NEAR:
                missed[int(last[4]) == wanted] += 1
            else:
                assert int(last[4]) == true, line
    assert missed[True] / missed.total() == pytest.approx(writers.WISHES, abs=0.012)


def test_who_can_goes_back_in_their_share(written):
    backs: Counter[bool] = Counter()
    for row in written:
        nums, _, lines, _ = take_apart(row)
        if len(nums) == 4:
            backs.update(line.startswith(BACK) for line in list(filter(is_try, lines))[1:])
    assert backs[True] / backs.total() == pytest.approx(writers.GOES_BACK, abs=0.05)


def test_patience_has_the_shares_that_are_told():
    draws = [writers._patience(i / 10_000) for i in range(10_000)]
    assert max(draws) == writers.MAX_TRIES
    for tries in (2, 6):
        assert sum(draw <= tries for draw in draws) / len(draws) == pytest.approx(writers.share_within(tries), abs=1e-3)
