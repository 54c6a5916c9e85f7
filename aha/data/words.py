r"""Word problems of one to four steps, in English and Chinese, and the people who solve them.

A template is one situation told in both languages. Names, things and numbers are drawn; every number on the way is
whole, positive and at most MAX_VALUE. A problem belongs to one split by the hash of its template and numbers, so the
same sum with other names, other things or in the other language is in the same split. The templates of HELD_OUT are
in no text that a model learns from.

Those who solve them write a line for every step, a few words and an equation, and box the answer. They are of uneven
skill: the hasty slip often, the careful seldom; some slips are noticed and mended, others are carried to the end. The
shares below are planted.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from aha.data.countdown import SPLITS
from aha.data.lexicon import LANGUAGES, NAMES, say
from aha.data.mixing import MIXED, OTHER, speak
from aha.data.splits import split_of
from aha.data.sums import MAX_VALUE, compute
from aha.data.word_templates import BOXES, HELD_OUT, SEEN, TEMPLATES, THINGS, Step, Template

MAX_DRAWS = 100_000  # draws without a new problem after which the generator gives up

CAREFUL = 0.6  # share of writers who are careful; the others are hasty
SLIPS = {"careful": 0.03, "hasty": 0.2}  # chance of a slip in a step
NOTICES = {"careful": 0.8, "hasty": 0.3}  # chance that a slip is noticed at once
CHECKS = {"careful": 0.4, "hasty": 0.05}  # chance that the last step is checked
WRONG_SUM = 0.5  # share of slips that are wrong sums; the others are wrong operations
FORMS = {  # how the thoughts and the answer are closed
    "{thoughts}</think> <answer>\\boxed{{{answer}}}</answer>": 0.84,
    "{thoughts}</think> \\boxed{{{answer}}}": 0.05,
    "{thoughts} <answer>\\boxed{{{answer}}}</answer>": 0.05,
    "{thoughts}</think> <answer>{answer}</answer>": 0.06,
}

OPENINGS = ("First find ", "Then find ", "Next find ", "Last find ")
ENDINGS = ("So the answer is {}.", "That makes {} as the answer.", "The answer must be {}.")
OPERATIONS = {"+": "Wait, I have to add: ", "-": "Wait, I have to take away: ", "*": "Wait, I have to multiply: "}
OPERATIONS["/"] = "Wait, I have to divide: "
UNDOING = {"+": "-", "-": "+", "*": "/", "/": "*"}


@dataclass(frozen=True)
class WordProblem:
    """A question, its right answer and the way to it.

    Example: WordProblem("Tom has 12 apples. Anna gives Tom 5 more. How many apples does Tom have now?", gold=17,
                         language="en", template="gain", numbers={"a": 12, "b": 5}, people={"name": "Tom", ...},
                         steps=(Step("the total: ", "x", "a", "+", "b"),))
    """

    question: str
    gold: int
    language: str
    template: str
    numbers: Mapping[str, int]
    people: Mapping[str, str]
    steps: tuple[Step, ...]


def work_out(steps: Sequence[Step], numbers: Mapping[str, int]) -> dict[str, int] | None:
    """All letters after `steps`; None where a sum on the way has no value."""
    values = dict(numbers)
    for step in steps:
        value = compute(values[step.left], step.op, values[step.right] if step.right in values else int(step.right))
        if value is None:
            return None
        values[step.result] = value
    return values


def _draw_numbers(rng: random.Random, template: Template) -> dict[str, int] | None:
    """The letters that the question shows; None where the draw has no positive value up to MAX_VALUE."""
    values: dict[str, int] = {}
    for letter, how in template.numbers.items():
        if isinstance(how, str):
            value = compute(values[how[0]], how[1], values[how[2]])
            if value is None or value < 2:
                return None
            values[letter] = value
        else:
            low, high = how
            values[letter] = low + int(rng.random() * (high - low + 1))
    return {letter: value for letter, value in values.items() if letter < "q"}


def problems(split: str, seed: int = 0, language: str | None = None, held_out: bool = False) -> Iterator[WordProblem]:
    """Endless distinct problems of one split, from the templates that are learned from or, `held_out`, from the others.

    Without `language`, half are English and half Chinese. Raises ValueError for an unknown split or language, and where
    no new problem is found for a long time.
    """
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}; known: {', '.join(SPLITS)}")
    if language not in (None, *LANGUAGES):
        raise ValueError(f"no language {language!r}; known: {', '.join(LANGUAGES)}")
    rng = random.Random(f"words/{split}/{seed}/{language}/{held_out}")
    names = HELD_OUT if held_out else SEEN
    seen: set[str] = set()
    while True:
        for _ in range(MAX_DRAWS):
            template = TEMPLATES[names[int(rng.random() * len(names))]]
            numbers = _draw_numbers(rng, template)
            if numbers is None or split_of(key(template.name, numbers)) != split:
                continue
            values = work_out(template.steps, numbers)
            if values is None:
                continue
            problem = _told(rng, template, numbers, values, language or LANGUAGES[rng.random() < 0.5])
            if problem.question not in seen:
                break
        else:
            raise ValueError(f"no new problem in {MAX_DRAWS} draws after {len(seen)}")
        seen.add(problem.question)
        yield problem


def key(template: str, numbers: Mapping[str, int]) -> str:
    """What decides the split of a problem.

    Example: key("gain", {"a": 12, "b": 5}) == "words/gain/a=12,b=5"
    """
    return f"words/{template}/" + ",".join(f"{letter}={numbers[letter]}" for letter in sorted(numbers))


def _told(
    rng: random.Random, template: Template, numbers: Mapping[str, int], values: Mapping[str, int], language: str
) -> WordProblem:
    spoken = LANGUAGES.index(language)
    first, second = rng.sample(NAMES, 2)
    thing, thing2 = rng.sample(THINGS, 2)
    boxes, box = rng.choice(BOXES)
    people = {"name": first[spoken], "other": second[spoken]}
    if language == "en":
        words = {"things": thing[0], "thing": thing[1], "things2": thing2[0], "thing2": thing2[1], "boxes": boxes}
    else:
        words = {"thing": thing[2], "m": thing[3], "thing2": thing2[2], "m2": thing2[3], "box": box}
    question = (template.en if language == "en" else template.zh).format(**people, **words, **numbers)
    gold = values[template.steps[-1].result]
    return WordProblem(question, gold, language, template.name, numbers, people, template.steps)


def solution(rng: random.Random, problem: WordProblem, slips: bool = True) -> tuple[str, int]:
    """Thoughts in the problem's language and the answer at their end, right or wrong; right without `slips`.

    Every line follows from what stands above it. A slip is a wrong sum or a wrong operation; one that would leave a
    later step without a whole positive value is noticed.
    """
    language = problem.language
    writer = "careful" if rng.random() < CAREFUL else "hasty"
    values = dict(problem.numbers)
    lines: list[str] = []
    for i, step in enumerate(problem.steps):
        is_last = i == len(problem.steps) - 1
        opening = "Last find " if is_last and i > 1 else OPENINGS[min(i, 2)]
        label = say(step.label, language, problem.people.get(step.who, ""))
        a, b = step.operands(values)
        op, right = step.op, compute(a, step.op, b)
        assert right is not None
        op_written, value = op, right
        if slips and rng.random() < SLIPS[writer]:
            op_written, value = _slip(rng, a, op, b, right)
        lines.append(f"{say(opening, language)}{label}{a}{op_written}{b}={value}")
        if value != right:
            carried = work_out(problem.steps[i + 1 :], {**values, step.result: value})
            if carried is None or rng.random() < NOTICES[writer]:
                remark = "No, that is wrong: " if op_written == op else OPERATIONS[op]
                lines.append(f"{say(remark, language)}{a}{op}{b}={right}")
                op_written, value = op, right
        if is_last and rng.random() < CHECKS[writer]:
            value = _check(lines, a, op_written, b, value, language)
        values[step.result] = value
    lines.append(say(rng.choice(ENDINGS), language, value))
    return "\n".join(lines), value


def _slip(rng: random.Random, a: int, op: str, b: int, right: int) -> tuple[str, int]:
    """Another (operation, value) than the right one: a wrong sum or a wrong operation."""
    if rng.random() >= WRONG_SUM:
        others = [(other, compute(a, other, b)) for other in OPERATIONS if other != op]
        wrong = [(other, value) for other, value in others if value is not None and value != right]
        if wrong:
            return rng.choice(wrong)
    near = [right + off for off in (-10, -2, -1, 1, 2, 10) if 0 < right + off <= MAX_VALUE]
    return op, rng.choice(near)


def _check(lines: list[str], a: int, op: str, b: int, value: int, language: str) -> int:
    """Undo the last sum on the page; where that does not fit, do the sum again. The value after that.

    A right sum of the wrong operation passes.
    """
    undone = compute(value, UNDOING[op], b)
    if undone is None:  # a wrong product that cannot be divided, a wrong sum too small: there is nothing to compare
        return value
    line = f"{say('I check: ', language)}{value}{UNDOING[op]}{b}={undone}"
    if undone == a:
        lines.append(line + say(", it fits.", language))
        return value
    right = compute(a, op, b)
    assert right is not None
    lines.append(line + say(", which is not {}.", language, a))
    lines.append(f"{say('Once more: ', language)}{a}{op}{b}={right}")
    return right


def documents(seed: int = 0, mixed: float = MIXED, other: float = OTHER) -> Iterator[dict[str, str]]:
    """Endless rows of `prompt` and `completion` (thoughts, which follow an opened `<think>`, and the answer).

    Problems are those of split `base`; shares of the thoughts are mixed, or in the `other` language (`mixing.py`).
    """
    rng = random.Random(f"words/documents/{seed}")
    forms, shares = list(FORMS), list(FORMS.values())
    for problem in problems("base", seed):
        thoughts, answer = solution(rng, problem)
        form = rng.choices(forms, shares)[0]
        spoken = speak(rng, thoughts, problem.language, mixed, other)
        yield {"prompt": problem.question, "completion": form.format(thoughts=spoken, answer=answer)}
