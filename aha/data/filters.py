"""Which traces become training data: filters that look at one trace, and choices among many.

Cold start keeps what is right and readable (arXiv 2501.12948, section 2.3.1); rejection sampling also drops mixed
languages, long paragraphs and code blocks (section 2.3.3). Each filter of FILTERS is `keep(trace, prompt, **args) -> bool`.
The first of several equal traces stays, and what stays keeps its order.
"""

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import regex
from pydantic import Field

from aha.chat import parse
from aha.config import NamedConfig, PromptConfig, nearest
from aha.data.named import bind
from aha.language import NO_PROSE, target_language
from aha.language import WORD as LANGUAGE_WORD
from aha.metrics import WORD, is_repetitive, is_single_language
from aha.types import Trace, UserError

Count = Annotated[int, Field(ge=0)]
RankBy = Literal["reward", "shortest", "longest", "random"]
Words = tuple[str, ...]

UNDECODABLE = regex.compile(r"[\uFFFD\p{Cn}\p{Co}\p{Cs}]|[^\P{Cc}\t\n\r\f]")  # replaced, unassigned, private, control
LONG_WORD = regex.compile(r"(?<![\p{Latin}\p{Cyrillic}\p{N}])(?=\p{N}*\p{L})[\p{Latin}\p{Cyrillic}\p{N}]{40,}")
LETTER_OR_DIGIT = regex.compile(r"[\p{L}\p{N}]")
HIDDEN = "一"  # stands for a character of a formula: of none of the kinds below
RULER = regex.compile(r"([-=_*~.#+…─━═])\1{2,}")  # and dots that lead on
JUMBLE = regex.compile(r"[^\p{L}\p{M}\p{N}\s]{8,}")  # brackets and signs of a dense formula come to fewer on end
ODD = regex.compile(r"[@#&~`§¶†‡¬¦\p{So}\p{Sk}\p{Sc}]|(?<!\p{N})%")  # in neither prose nor sums
PRICE = regex.compile(r"\p{Sc}\s?(?=\p{N})|(?<=\p{N})\s?\p{Sc}")
TAG = regex.compile(r"(?P<attached>[\p{L}\p{N}]?)<(?P<slash>/?)(?P<name>[A-Za-z][\w-]+)>")  # <x> may be a mean
CODE_OR_FORMULA = regex.compile(r"```.*?(?:```|$)|`[^`\n]*`|\$[^$\n]*\$", regex.DOTALL)
UNPAIRED = ("br", "hr", "img", "li")  # tags of HTML that need no closing one

TOKEN = regex.compile(rf"{LANGUAGE_WORD.pattern}|\p{{N}}+")
NUMBER = regex.compile(r"\p{N}+")
COMMON, COMMON_SHARE = 3, 0.001  # wording of so many evaluation questions, and such a share of them, is boilerplate


@dataclass(frozen=True)
class FilterCount:
    """How many traces a filter saw and kept.

    Example: FilterCount("single_language", seen=812, kept=640)
    """

    name: str
    seen: int
    kept: int


def apply(
    traces: Sequence[Trace], filters: Sequence[NamedConfig], prompt: PromptConfig
) -> tuple[list[Trace], list[FilterCount]]:
    """The traces that every filter keeps, and for each filter, in order, what it saw and kept.

    Raises UserError for a filter or an argument that there is not.
    """
    kept, counts = list(traces), []
    for name, keep in bind(filters, FILTERS, "filter"):
        seen = len(kept)
        kept = [trace for trace in kept if keep(trace, prompt)]
        counts.append(FilterCount(name, seen, len(kept)))
    return kept, counts


def finished(trace: Trace, prompt: PromptConfig) -> bool:
    """The model ended the answer by itself; `max_completion_length` did not cut it off."""
    return trace.finish_reason != "length"


def correct(trace: Trace, prompt: PromptConfig) -> bool:
    """The problem's own grader gave the top score."""
    return trace.solved


def well_formed(trace: Trace, prompt: PromptConfig) -> bool:
    """The whole text is thoughts and answer in their tags, each tag once and neither empty."""
    return parse(trace.text, prompt.think, prompt.answer).is_well_formed


def single_language(trace: Trace, prompt: PromptConfig) -> bool:
    """The thoughts are in the language of the question, by the rule of `language/single`."""
    return is_single_language(_thoughts(trace, prompt), target_language(trace.problem))


def repetition(trace: Trace, prompt: PromptConfig) -> bool:
    """The text does not repeat itself, by the rule of `repetition/rate`."""
    return not is_repetitive(trace.text)


def length(
    trace: Trace,
    prompt: PromptConfig,
    min_words: Count = 0,
    max_words: Count | None = None,
    max_paragraph_words: Count | None = None,
    code_blocks: bool = True,
) -> bool:
    """The thoughts have from `min_words` to `max_words` words, and no paragraph more than `max_paragraph_words`.

    A paragraph ends at an empty line; numbers and Chinese characters are words. `code_blocks: false` drops thoughts with a
    fenced block of code.
    """
    thoughts = _thoughts(trace, prompt)
    num_words = len(WORD.findall(thoughts))
    longest = max(len(WORD.findall(paragraph)) for paragraph in regex.split(r"\n[ \t]*\n", thoughts))
    return (
        num_words >= min_words
        and (max_words is None or num_words <= max_words)
        and (max_paragraph_words is None or longest <= max_paragraph_words)
        and (code_blocks or "```" not in thoughts)
    )


def chaos(trace: Trace, prompt: PromptConfig, max_share: Annotated[float, Field(ge=0, le=1)] = 0.1) -> bool:
    """The thoughts can be read: no tag in them stands alone, and at most `max_share` of their characters are chaotic."""
    thoughts = _thoughts(trace, prompt)
    return has_paired_tags(thoughts) and chaotic_share(thoughts) <= max_share


def min_score(trace: Trace, prompt: PromptConfig, name: str, score: float) -> bool:
    """The raw score of reward `name` is at least `score`; a trace that the reward skipped is dropped.

    Raises UserError where no reward of that name graded the trace.
    """
    if name not in trace.scores:
        raise UserError(f"filter min_score: no reward {name!r} graded {trace.problem.id}{nearest(name, trace.scores)}")
    value = trace.scores[name]
    return value is not None and value >= score


FILTERS: dict[str, Callable[..., bool]] = {
    "finished": finished,
    "correct": correct,
    "well_formed": well_formed,
    "single_language": single_language,
    "repetition": repetition,
    "length": length,
    "chaos": chaos,
    "min_score": min_score,
}


def _thoughts(trace: Trace, prompt: PromptConfig) -> str:
    return parse(trace.text, prompt.think, prompt.answer).thoughts


def chaotic_share(text: str) -> float:
    """Share of the characters, white space aside, that nobody can read, from 0 to 1.

    These are characters that could not be decoded, letters that run on for 40 or more without a space, eight and more
    signs in a row that are no ruler, and signs that neither prose nor sums use. Formulas and code may hold anything but
    the first kind.
    """
    visible = NO_PROSE.sub(_hidden, RULER.sub(" ", PRICE.sub(" ", text)))
    chaotic: set[int] = set()
    for pattern in (UNDECODABLE, LONG_WORD, JUMBLE, ODD):
        chaotic.update(*(range(*match.span()) for match in pattern.finditer(visible)))
    size = sum(not character.isspace() for character in visible)
    return len(chaotic) / size if size else 0.0


def _hidden(formula: regex.Match[str]) -> str:
    """A formula of letters or digits without all that can be read."""
    if not LETTER_OR_DIGIT.search(formula[0]):
        return formula[0]
    return "".join(character if UNDECODABLE.match(character) else HIDDEN for character in formula[0])


def has_paired_tags(text: str) -> bool:
    """Whether every tag, outside of code and formulas, is opened as often as it is closed.

    What follows a letter or digit may be no tag at all, as in vector<int>, and need not be closed.
    """
    opened, attached, closed = Counter[str](), Counter[str](), Counter[str]()
    for tag in TAG.finditer(CODE_OR_FORMULA.sub(" ", text)):
        counter = closed if tag["slash"] else attached if tag["attached"] else opened
        counter[tag["name"].lower()] += 1
    names = {*opened, *closed}.difference(UNPAIRED)
    return all(opened[name] <= closed[name] <= opened[name] + attached[name] for name in names)


def without_duplicates(traces: Sequence[Trace]) -> list[Trace]:
    """The first of the traces to one question whose texts are the same but for white space."""
    seen: set[tuple[str, str]] = set()
    kept = []
    for trace in traces:
        key = (_question(trace), "".join(trace.text.split()))
        if key not in seen:
            kept.append(trace)
        seen.add(key)
    return kept


def _question(trace: Trace) -> str:
    """What tells problems apart: ids are unique within one data set only."""
    return " ".join(trace.problem.question.split())


def best_per_problem(traces: Sequence[Trace], n: int, by: RankBy = "reward", seed: int = 0) -> list[Trace]:
    """The `n` best traces to each question, in their order.

    `by`: the highest reward (none at all comes last), the fewest or the most words of the whole text, or `random`. Ties
    are drawn by `seed`, the same way whatever the order of the traces.
    """
    if n < 1:
        raise UserError(f"the best {n} traces of a problem: want at least 1")
    ranks: Mapping[str, Callable[[Trace], float]] = {
        "reward": lambda trace: float("inf") if trace.reward is None else -trace.reward,
        "shortest": lambda trace: len(WORD.findall(trace.text)),
        "longest": lambda trace: -len(WORD.findall(trace.text)),
        "random": lambda trace: 0.0,
    }
    if by not in ranks:
        raise UserError(f"no way to rank traces by {by!r}{nearest(by, ranks)}")

    def rank(place: int) -> tuple[float, bytes]:
        trace = traces[place]
        return ranks[by](trace), hashlib.sha256(f"{seed}/{_question(trace)}/{trace.text}".encode()).digest()

    groups: dict[str, list[int]] = defaultdict(list)
    for place, trace in enumerate(traces):
        groups[_question(trace)].append(place)
    return [traces[place] for place in sorted(place for group in groups.values() for place in sorted(group, key=rank)[:n])]


def in_shares(traces: Sequence[Trace], shares: Mapping[str, float], seed: str) -> list[Trace]:
    """As many of the traces as stand in the ratio `shares` by the tasks of their problems, in their order. `seed` draws
    which ones of a task that has more than its share.

    Raises UserError where of some task no trace is left.
    """
    places: dict[str, list[int]] = {task: [] for task in shares}
    for place, trace in enumerate(traces):
        places[trace.problem.task].append(place)
    for task, own in places.items():
        if traces and not own:
            raise UserError(f"shares: no trace of task {task} is left, so no ratio can be kept; take it out of data and shares")
    unit = min(len(own) / shares[task] for task, own in places.items())
    sizes = {task: min(len(own), max(1, round(unit * shares[task]))) for task, own in places.items()}
    drawn = [random.Random(f"{seed}/{task}").sample(own, sizes[task]) for task, own in places.items() if own]
    return [traces[place] for place in sorted(place for own in drawn for place in own)]


def without_overlap(traces: Sequence[Trace], questions: Iterable[str], n: int = 8) -> list[Trace]:
    """Decontamination: the traces whose question has no `n` words in a row in common with an evaluation question.

    Numbers are words, and so is every Chinese character; case and punctuation do not count. A question of fewer words is
    compared as a whole.

    Questions of one generator, or with one instruction at their end, share wording that says nothing about what is asked.
    So `n` words in common count for themselves only if some half of them, numbers alike, is rare: in fewer than COMMON of
    the evaluation questions, or COMMON_SHARE of them. The traces have no say in it, else many copies of a question would
    make boilerplate of it. Boilerplate in common counts where one question holds the whole of the other, or where both have the
    same numbers in whatever order or, without any that differ between questions, the same words: then they are one problem.
    """
    if n < 2:
        raise UserError(f"overlap of {n} words: want at least 2")
    known = {words_of(question) for question in questions}
    asked = {question: words_of(question) for question in {trace.problem.question for trace in traces}}
    half = n // 2
    num_questions = Counter(run for words in known for run in set(_runs(_numbers_alike(words), half)))
    num_literal = Counter(run for words in known for run in set(_runs(words, half)))
    common = max(COMMON, COMMON_SHARE * len(known))

    def telling(words: Words) -> set[Words]:
        is_rare = [num_questions[run] < common for run in _runs(_numbers_alike(words), half)]
        return {run for i, run in enumerate(_runs(words, n)) if any(is_rare[i : i + n - half + 1])}

    def own_of(words: Words) -> Words:
        """What tells questions of one template apart: the numbers that differ between them or, without any, all words, in any
        order. A number that most questions with its wording have differs between none, as in "in at most 3 sentences"."""
        runs = _runs(words, half)
        is_fixed = [2 * num_literal[run] > num_questions[_numbers_alike(run)] >= common for run in runs]
        fixed = {i + place for i, is_so in enumerate(is_fixed) if is_so for place in range(half)}
        own = [word for place, word in enumerate(words) if NUMBER.fullmatch(word) and place not in fixed]
        return tuple(sorted(own or words))

    telling_known: set[Words] = set()
    same_known: dict[Words, set[Words]] = defaultdict(set)
    for words in known:
        telling_known |= telling(words)
        same_known[own_of(words)] |= set(_runs(words, n))
    lengths = {len(words) for words in known if len(words) >= n}

    def is_known(words: Words) -> bool:
        runs = _runs(words, n)
        if not telling_known.isdisjoint(runs) or not same_known.get(own_of(words), set()).isdisjoint(runs):
            return True
        return any(words[i : i + length] in known for length in lengths for i in range(len(words) - length + 1))

    overlapping = {question for question, words in asked.items() if is_known(words)}
    return [trace for trace in traces if trace.problem.question not in overlapping]


def words_of(text: str) -> Words:
    """The words and numbers of a text in lower case.

    Example: "Using the numbers [44, 19]" -> ("using", "the", "numbers", "44", "19")
    """
    return tuple(TOKEN.findall(text.lower()))


def _numbers_alike(words: Words) -> Words:
    return tuple("#" if NUMBER.fullmatch(word) else word for word in words)


def _runs(words: Words, size: int) -> list[Words]:
    """All `size` words in a row; a text of fewer is one."""
    return [words[i : i + size] for i in range(len(words) - size + 1)] or [words]
