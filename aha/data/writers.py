"""The people of the tiny world: they answer Countdown problems in the open, and the tiny base learns from them.

A writer tries, says how it went, discards and tries again, until an equation fits or patience runs out. Every line
follows from what stands above it: no hidden tries and no oracle. Writers differ in rules that a reader could follow
and in how long they persist:

- `forward` combines two numbers at a time, at random, until one is left;
- `nearest` does so too, but makes the last move the one that lands nearest to the target;
- `backward` sets one number aside, works out what the others must make, and picks the move that lands nearest to it.

With four numbers some go back instead of starting anew: they keep the first sum of their last try and go on from there.
Sums slip now and then, and a last sum that comes near is now and then written as if it had arrived. Some writers check a
hit by working the whole equation out once more; a check has no slips, and where it fails the search goes on.

Most are impatient: half of them try at most twice, one in five more than six times, nobody more than `MAX_TRIES`
times. Whoever gives up hands in the closest equation found, a wrong one. A share forgets part of the answer's form, and
shares of the thoughts are in mixed language or in Chinese (`mixing.py`). These shares were fixed before any reinforcement
learning was run on a model of this text; they are what it starts from, good habits and bad.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from aha.data.countdown import problems, question
from aha.data.mixing import MIXED, OTHER, speak
from aha.data.sums import MAX_VALUE, compute

MAX_TRIES = 16
RULES = {"forward": 0.4, "nearest": 0.35, "backward": 0.25}
GOES_BACK = 0.4  # chance to keep the first sum of a failed try with four or more numbers
SLIPS = 0.02  # share of sums that are wrong
WISHES = 0.05  # share of last sums off by at most NEAR that are written as what they should be
NEAR = 10
CHECKS = 0.3  # share of writers who check a hit
FORMS = {  # how the thoughts and the answer are closed
    "{thoughts}</think> <answer>{answer}</answer>": 0.84,
    "{thoughts}</think> {answer}": 0.06,
    "{thoughts} <answer>{answer}</answer>": 0.06,
    "{thoughts}</think> <answer>{answer}={target}</answer>": 0.04,
}
PRACTICE = "Practise some sums."
SUMS_PER_PAGE = 30
FIRST = ("Let me try ", "Let me start with ", "First let me take ")
OPENINGS = ("Then we try ", "Maybe it is ", "Next we take ", "What about this: ", "Or let me see ")
BACK = "Back to "
NEED = "{} last, we need "
HITS = (", yes, that works!", ", and that is right!", ", that is the answer!")
CHECK = "Let me check: "
SURRENDERS = ("I give up, this is the closest.", "enough, I take the closest.", "no more ideas, so a guess.")


@dataclass(frozen=True)
class Term:
    """A number on the table, how it was made, and what it comes to when it is worked out again.

    Example: Term(64, "(44+19)", true=63, sums=("44+19=63",)), after a slip
    """

    value: int  # as written down
    text: str
    true: int | None  # None where a sum on the way is not whole, not positive or above MAX_VALUE
    sums: tuple[str, ...] = ()


@dataclass(frozen=True)
class Try:
    """One attempt that used every number.

    Example: Try(steps=("44+19=63", "63+35=98"), result=Term(98, "((44+19)+35)", 98, ...), verdict_on=98, wanted=98)
    """

    steps: tuple[str, ...]
    result: Term  # the whole equation
    verdict_on: int  # the last number written down, compared with `wanted`
    wanted: int
    kept: tuple[Term, ...] = ()  # what was on the table after the first sum

    @property
    def equation(self) -> str:
        """The equation without its outer parentheses."""
        return self.result.text[1:-1]


def combine(a: Term, op: str, b: Term, value: int) -> Term:
    """The term that is written down as `a op b = value`."""
    true = compute(a.true, op, b.true) if a.true and b.true else None
    sums = (*a.sums, *b.sums, *([f"{a.true}{op}{b.true}={true}"] if true else []))
    return Term(value, f"({a.text}{op}{b.text})", true, sums)


def moves(a: Term, b: Term) -> list[tuple[str, Term]]:
    """Every sensible way to combine two terms, as (sum without its result, new term): no times 1, no division by 1."""
    if a.value < b.value:
        a, b = b, a
    found = []
    for op in "+-*/":
        value = compute(a.value, op, b.value)
        if value is not None and not (op in "*/" and b.value == 1):
            found.append((f"{a.value}{op}{b.value}", combine(a, op, b, value)))
    return found


def slip(rng: random.Random, value: int, wanted: int | None = None) -> int:
    """The result as it is written down: now and then a wrong one, and where one is `wanted` and near now and then that."""
    if wanted and 0 < abs(value - wanted) <= NEAR and rng.random() < WISHES:
        return wanted
    if rng.random() >= SLIPS:
        return value
    return rng.choice([value + off for off in (-10, -2, -1, 1, 2, 10) if 0 < value + off <= MAX_VALUE])


def _write(rng: random.Random, move: tuple[str, Term], wanted: int | None = None) -> tuple[str, Term]:
    step, term = move
    term = replace(term, value=slip(rng, term.value, wanted))
    return f"{step}={term.value}", term


def _forward_move(rng: random.Random, terms: tuple[Term, ...]) -> tuple[str, tuple[Term, ...]]:
    a, b = rng.sample(terms, 2)
    step, made = _write(rng, rng.choice(moves(a, b)))
    return step, (*(term for term in terms if term is not a and term is not b), made)


def _last_move(rng: random.Random, a: Term, b: Term, wanted: int, rule: str) -> tuple[str, Term]:
    options = moves(a, b)
    move = rng.choice(options) if rule == "forward" else min(options, key=lambda move: abs(move[1].value - wanted))
    return _write(rng, move, wanted)


def set_aside(term: Term, target: int) -> list[tuple[str, int, str]]:
    """What the other numbers must make if `term` comes last, as (sum without its result, needed value, equation).

    Of the equation's two sides "x" is what the others make: "x-35" is right if x - 35 is the target.
    """
    n, text = term.value, term.text
    options = [
        (f"{target}+{n}", compute(target, "+", n), f"x-{text}"),
        (f"{target}-{n}", compute(target, "-", n), f"{text}+x"),
        (f"{n}-{target}", compute(n, "-", target), f"{text}-x"),
    ]
    if n > 1:
        options += [
            (f"{target}*{n}", compute(target, "*", n), f"x/{text}"),
            (f"{target}/{n}", compute(target, "/", n), f"{text}*x"),
        ]
    return [(step, need, equation) for step, need, equation in options if need is not None]


def attempt(rng: random.Random, rule: str, terms: tuple[Term, ...], target: int) -> Try:
    """One try over all of `terms` by `rule`."""
    steps: list[str] = []
    kept: tuple[Term, ...] = ()
    while len(terms) > (3 if rule == "backward" else 2):
        step, terms = _forward_move(rng, terms)
        steps.append(step)
        kept = kept or terms
    if rule == "backward":
        last = rng.choice(terms)
        step, need, equation = rng.choice(set_aside(last, target))
        need = slip(rng, need)
        a, b = (term for term in terms if term is not last)
        final_step, made = _last_move(rng, a, b, need, rule)
        steps += [NEED.replace("{}", str(last.value)) + f"{step}={need}", final_step]
        return Try(tuple(steps), _undo(equation, last, made), made.value, need, kept)
    a, b = terms
    step, made = _last_move(rng, a, b, target, rule)
    return Try((*steps, step), made, made.value, target, kept)


def _undo(equation: str, aside: Term, made: Term) -> Term:
    """The term of an equation of `set_aside`; a division that does not come out even is rounded down."""
    if equation.startswith("x"):
        a, op, b = made, equation[1], aside
    else:
        a, op, b = aside, equation[-2], made
    believed = {"+": a.value + b.value, "-": a.value - b.value, "*": a.value * b.value, "/": a.value // b.value}
    return combine(a, op, b, believed[op])


def _verdict(rng: random.Random, tried: Try) -> str:
    off = tried.verdict_on - tried.wanted
    if off == 0:
        return rng.choice(HITS)
    return rng.choice(
        (
            ", that does not work.",
            f", that is not {tried.wanted}.",
            f", that is off by {abs(off)}.",
            ", that is too big." if off > 0 else ", that is too small.",
        )
    )


def _check(tried: Try, target: int) -> str:
    """A line that works the whole equation out again, without slips."""
    sums = CHECK + ", ".join(tried.result.sums)
    if tried.result.true is None:
        return sums + ", the rest cannot be."
    return sums + (", it fits." if tried.result.true == target else f", which is not {target}.")


def _patience(share: float) -> int:
    """The tries of a writer for a number drawn between 0 and 1: few mostly, at most MAX_TRIES."""
    return round(MAX_TRIES**share**2)


def share_within(tries: int) -> float:
    """The share of writers whose patience holds for so many tries and no more."""
    return math.sqrt(math.log(tries + 0.5, MAX_TRIES))


def think(rng: random.Random, nums: list[int], target: int) -> tuple[str, str]:
    """Thoughts in the open and the equation handed in at their end, right or wrong."""
    rule = rng.choices(list(RULES), list(RULES.values()))[0]
    checks = rng.random() < CHECKS
    patience = _patience(rng.random())
    table = tuple(Term(n, str(n), n) for n in nums)
    lines: list[str] = []
    tries: dict[tuple[str, ...], Try] = {}
    last: Try | None = None
    for _ in range(patience):
        back = last is not None and len(last.kept) > 2 and rng.random() < GOES_BACK
        if back:
            assert last is not None
            again = attempt(rng, rule, last.kept, target)
            tried = replace(again, steps=(last.steps[0], *again.steps), kept=last.kept)
            opening = BACK
        else:
            tried = attempt(rng, rule, table, target)
            opening = rng.choice(OPENINGS if lines else FIRST)
        if tried.steps in tries:  # already on the page: nobody writes it twice
            continue
        tries[tried.steps] = last = tried
        lines.append(opening + ", ".join(tried.steps) + _verdict(rng, tried))
        if tried.verdict_on == tried.wanted:
            if not checks:
                return "\n".join(lines), tried.equation
            lines.append(_check(tried, target))
            if tried.result.true == target:
                return "\n".join(lines), tried.equation
            tries[tried.steps] = replace(tried, result=replace(tried.result, value=tried.result.true or 0))
    best = min(tries.values(), key=lambda tried: abs(tried.result.value - target))
    return "\n".join([*lines, rng.choice(SURRENDERS)]), best.equation


def practise(rng: random.Random) -> str:
    """A page of sums, the schoolbook of the tiny world: true equations and nothing to solve."""
    steps = []
    for _ in range(SUMS_PER_PAGE):
        a, b = rng.randint(1, rng.choice((20, 99, 200))), rng.randint(1, rng.choice((20, 99)))
        step, made = rng.choice(moves(Term(a, "", a), Term(b, "", b)))
        steps.append(f"{step}={made.value}")
    return ", ".join(steps)


def documents(seed: int = 0, sums: float = 0.0, mixed: float = MIXED, other: float = OTHER) -> Iterator[dict[str, str]]:
    """Endless rows of `prompt` and `completion` (thoughts, which follow an opened `<think>`, and the answer).

    A share `sums` of them are pages of sums, the others answer questions of split `base`; shares of the thoughts are
    mixed, or in the `other` language (`mixing.py`).
    """
    rng = random.Random(f"writers/{seed}")
    for nums, target in problems("base", seed):
        if sums and rng.random() < sums:
            yield {"prompt": PRACTICE, "completion": f"{practise(rng)}</think> <answer>done</answer>"}
            continue
        thoughts, answer = think(rng, nums, target)
        thoughts = speak(rng, thoughts, "en", mixed, other)
        form = rng.choices(list(FORMS), list(FORMS.values()))[0]
        yield {
            "prompt": question(nums, target),
            "completion": form.format(thoughts=thoughts, answer=answer, target=target),
        }
