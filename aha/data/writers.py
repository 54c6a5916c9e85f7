"""The people of the tiny world: they answer Countdown problems in the open, and the tiny base learns from them.

A writer tries, says how it went, discards and tries again, until an equation fits or patience runs out. Every line
follows from what stands above it: no hidden tries and no oracle. Writers differ in rules that a reader could follow
and in how long they persist:

- `forward` combines two numbers at a time, at random, until one is left;
- `nearest` does so too, but makes the last move the one that lands nearest to the target;
- `backward` sets one number aside, works out what the others must make, and picks the move that lands nearest to it.

Most are impatient: half of them try at most twice, one in five more than six times, nobody more than `MAX_TRIES`
times. Whoever gives up hands in the closest equation found, a wrong one. A share forgets part of the answer's form.
These shares were fixed before any reinforcement learning was run on the model; they are what it starts from, good
habits and bad.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from aha.data.countdown import problems, question

MAX_TRIES = 16
MAX_VALUE = 999  # larger results are not attempted: the tiny tokenizer holds 0 to 999 as single tokens
RULES = {"forward": 0.5, "nearest": 0.3, "backward": 0.2}
FORMS = {  # how the thoughts and the answer are closed
    "{thoughts}</think> <answer>{answer}</answer>": 0.84,
    "{thoughts}</think> {answer}": 0.06,
    "{thoughts} <answer>{answer}</answer>": 0.06,
    "{thoughts}</think> <answer>{answer}={target}</answer>": 0.04,
}
PRACTICE = "Practise some sums."
SUMS_PER_PAGE = 30
OPENINGS = ("try ", "maybe ", "or ", "next ", "then ", "what about ")
HITS = (" yes!", ", that works!", ", got it!")
SURRENDERS = ("I give up, this is the closest.", "enough, I take the closest.", "no more ideas, so a guess.")


@dataclass(frozen=True)
class Term:
    """A number on the table and how it was made.

    Example: Term(63, "(44+19)")
    """

    value: int
    text: str


@dataclass(frozen=True)
class Try:
    """One attempt that used every number.

    Example: Try(steps="44+19=63, 63+35=98", value=98, text="(44+19)+35", verdict_on=98, wanted=98)
    """

    steps: str
    value: int  # what the whole equation gives
    text: str  # the equation, without outer parentheses
    verdict_on: int  # the last number written down, compared with `wanted`
    wanted: int


def moves(a: Term, b: Term) -> list[tuple[str, Term]]:
    """Every sensible way to combine two terms, as (written step, new term): whole, positive and at most MAX_VALUE."""
    if a.value < b.value:
        a, b = b, a
    results = [("+", a.value + b.value)]
    if a.value > b.value:
        results.append(("-", a.value - b.value))
    if b.value > 1:
        results.append(("*", a.value * b.value))
        if a.value % b.value == 0:
            results.append(("/", a.value // b.value))
    return [
        (f"{a.value}{op}{b.value}={value}", Term(value, f"({a.text}{op}{b.text})"))
        for op, value in results
        if value <= MAX_VALUE
    ]


def set_aside(term: Term, target: int) -> list[tuple[str, int, str]]:
    """What the other numbers must make if `term` comes last, as (written step, needed value, equation pattern)."""
    n, text = term.value, term.text
    options = [(f"{target}+{n}", target + n, "{}-" + text)]
    if target > n:
        options.append((f"{target}-{n}", target - n, text + "+{}"))
    if n > target:
        options.append((f"{n}-{target}", n - target, text + "-{}"))
    if n > 1:
        options.append((f"{target}*{n}", target * n, "{}/" + text))
        if target % n == 0:
            options.append((f"{target}/{n}", target // n, text + "*{}"))
    return [(f"need {step}={need}", need, pattern) for step, need, pattern in options if need <= MAX_VALUE]


def _forward_move(rng: random.Random, terms: list[Term]) -> tuple[str, list[Term]]:
    a, b = rng.sample(terms, 2)
    step, made = rng.choice(moves(a, b))
    return step, [term for term in terms if term is not a and term is not b] + [made]


def _nearest_move(a: Term, b: Term, wanted: int) -> tuple[str, Term]:
    return min(moves(a, b), key=lambda move: abs(move[1].value - wanted))


def attempt(rng: random.Random, rule: str, nums: list[int], target: int) -> Try:
    """One try over all of `nums` by `rule`."""
    terms = [Term(n, str(n)) for n in nums]
    steps = []
    while len(terms) > (3 if rule == "backward" else 2):
        step, terms = _forward_move(rng, terms)
        steps.append(step)
    if rule == "backward":
        last = rng.choice(terms)
        step, need, pattern = rng.choice(set_aside(last, target))
        a, b = (term for term in terms if term is not last)
        final_step, made = _nearest_move(a, b, need)
        text = pattern.format(made.text)
        value = _undo(pattern, last.value, made.value)
        return Try(", ".join([*steps, step, final_step]), value, text, made.value, need)
    a, b = terms
    step, made = _nearest_move(a, b, target) if rule == "nearest" else rng.choice(moves(a, b))
    return Try(", ".join([*steps, step]), made.value, made.text[1:-1], made.value, target)


def _undo(pattern: str, aside: int, made: int) -> int:
    """The value of an equation pattern of `set_aside`; a division that does not come out even is rounded down."""
    if pattern.startswith("{}"):
        return made - aside if pattern[2] == "-" else made // aside
    return {"+": aside + made, "-": aside - made, "*": aside * made}[pattern[-3]]


def _verdict(rng: random.Random, tried: Try) -> str:
    off = tried.verdict_on - tried.wanted
    if off == 0:
        return rng.choice(HITS)
    return rng.choice((" no.", f" not {tried.wanted}.", f" off by {abs(off)}.", " too big." if off > 0 else " too small."))


def think(rng: random.Random, nums: list[int], target: int) -> tuple[str, str]:
    """Thoughts in the open and the equation handed in at their end, right or wrong."""
    rule = rng.choices(list(RULES), list(RULES.values()))[0]
    patience = round(MAX_TRIES ** rng.random() ** 2)
    lines: list[str] = []
    tries: dict[str, Try] = {}
    for _ in range(patience):
        tried = attempt(rng, rule, nums, target)
        if tried.steps in tries:  # already on the page: nobody writes it twice
            continue
        tries[tried.steps] = tried
        opening = rng.choice(OPENINGS) if lines else ""
        lines.append(opening + tried.steps + _verdict(rng, tried))
        if tried.verdict_on == tried.wanted:
            return "\n".join(lines), tried.text
    best = min(tries.values(), key=lambda tried: abs(tried.value - target))
    return "\n".join([*lines, rng.choice(SURRENDERS)]), best.text


def practise(rng: random.Random) -> str:
    """A page of sums, the schoolbook of the tiny world: true equations and nothing to solve."""
    steps = []
    for _ in range(SUMS_PER_PAGE):
        a, b = rng.randint(1, rng.choice((20, 99, 200))), rng.randint(1, rng.choice((20, 99)))
        steps.append(rng.choice(moves(Term(a, ""), Term(b, "")))[0])
    return ", ".join(steps)


def documents(seed: int = 0, sums: float = 0.0) -> Iterator[dict[str, str]]:
    """Endless rows of `prompt` and `completion` (thoughts, which follow an opened `<think>`, and the answer).

    A share `sums` of them are pages of sums, the others answer questions of split `base`.
    """
    rng = random.Random(f"writers/{seed}")
    for nums, target in problems("base", seed):
        if sums and rng.random() < sums:
            yield {"prompt": PRACTICE, "completion": f"{practise(rng)}</think> <answer>done</answer>"}
            continue
        thoughts, answer = think(rng, nums, target)
        form = rng.choices(list(FORMS), list(FORMS.values()))[0]
        yield {
            "prompt": question(nums, target),
            "completion": form.format(thoughts=thoughts, answer=answer, target=target),
        }
