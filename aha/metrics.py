"""Numbers with intervals, from graded groups. Pure functions of text and scores."""

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from aha.boxes import find_boxes, last_boxed
from aha.chat import parse
from aha.config import PromptConfig
from aha.language import share_in, target_language
from aha.types import Completion, Group, UserError

Z = 1.959964  # two-sided 95 percent
BOOTSTRAP_SAMPLES = 1000
WORD = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+")  # a Chinese character counts as a word
SINGLE, MIN_WORDS = 0.95, 5  # thoughts are in a single language; with fewer words none is to be seen
REQUEST_GRADER = "plain_answered"  # grades requests, each by a checker of its own
REPETITIVE = 0.5  # traces of large reasoning models repeat up to a quarter of their 4-grams, loops nearly all


@dataclass(frozen=True)
class Measure:
    """A value, its 95 percent interval, and the number of independent observations behind it.

    Example: Measure(value=0.25, low=0.21, high=0.29, n=512)
    """

    value: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def wilson(successes: float, n: int) -> Measure:
    """A share with Wilson's score interval."""
    share = successes / n
    centre = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n)) / (1 + Z * Z / n)
    return Measure(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)), n)


def mean(values: Sequence[float]) -> Measure:
    """A mean with the normal interval."""
    n = len(values)
    value = sum(values) / n
    variance = sum((v - value) ** 2 for v in values) / max(1, n - 1)
    half = Z * math.sqrt(variance / n)
    return Measure(value, value - half, value + half, n)


def bootstrap(values: Sequence[float], seed: int = 0, bounds: tuple[float, float] | None = None) -> Measure:
    """A mean over problems with the percentile bootstrap interval; `bounds` are the least and the largest possible value.

    Of equal values every resample is the same, which says nothing of what others would be. Then, with `bounds`, as large a
    share of others as Wilson's interval allows is taken to lie at either bound.
    """
    rng = random.Random(seed)
    n = len(values)
    if bounds and min(values) == max(values):
        value, unseen = values[0], wilson(0, n).high
        return Measure(value, value - unseen * (value - bounds[0]), value + unseen * (bounds[1] - value), n)
    means = sorted(sum(rng.choices(values, k=n)) / n for _ in range(BOOTSTRAP_SAMPLES))
    cut = round(BOOTSTRAP_SAMPLES * 0.025)
    return Measure(sum(values) / n, means[cut], means[-cut - 1], n)


def share(groups: Sequence[Group], holds: Callable[[Completion], bool]) -> Measure:
    """Share of completions that `holds` is true of: Wilson with one completion a problem, else over problems."""
    shares = [sum(map(holds, group.completions)) / len(group.completions) for group in groups]
    one_each = all(len(group.completions) == 1 for group in groups)
    return wilson(sum(shares), len(shares)) if one_each else bootstrap(shares, bounds=(0, 1))


def pass_at_1(groups: Sequence[Group]) -> Measure:
    """Share of problems solved by one sample."""
    return share(groups, lambda completion: completion.solved)


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that at least one of `k` samples is right, estimated without bias from `n` samples of which `c` are.

    1 - C(n - c, k) / C(n, k) (arXiv 2107.03374, equation 1).
    """
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} cannot be estimated from {n} samples")
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def mean_pass_at_k(groups: Sequence[Group], k: int) -> Measure:
    """pass@k over problems: bootstrap, but Wilson where `k` is all samples of each, so that a problem is a yes or a no."""
    passed = [pass_at_k(len(g.completions), sum(c.solved for c in g.completions), k) for g in groups]
    all_used = all(len(group.completions) == k for group in groups)
    return wilson(sum(passed), len(passed)) if all_used else bootstrap(passed, bounds=(0, 1))


def maj_at_k(groups: Sequence[Group], k: int, prompt: PromptConfig) -> Measure:
    """Share of problems whose most frequent answer among the first `k` samples is right (arXiv 2203.11171), with Wilson's
    interval.

    Of equally frequent answers the first wins. It is right where the first sample that gave it is solved; a problem
    without any answer is not.
    """
    return wilson(sum(_majority_is_right(group.completions[:k], prompt) for group in groups), len(groups))


def _majority_is_right(completions: Sequence[Completion], prompt: PromptConfig) -> bool:
    votes = [(answer, c.solved) for c in completions if (answer := final_answer(c.text, prompt))]
    if not votes:
        return False
    [(winner, _)] = Counter(answer for answer, _ in votes).most_common(1)  # of equals the one counted first
    return next(solved for answer, solved in votes if answer == winner)


def final_answer(text: str, prompt: PromptConfig) -> str | None:
    """The answer that a completion votes for: the content of the answer tag, else of the last box after the thoughts.

    White space is removed and nothing else is changed: "2 * 3" and "2*3" are the same answer, "2*3" and "3*2" are two.
    """
    parsed = parse(text, prompt.think, prompt.answer)
    answer = parsed.answer
    if answer is None:
        boxes = find_boxes(parsed.body)
        content = boxes[-1][2] if boxes else ""
        answer = last_boxed(content) or content  # a box in a box is that one's answer
    return "".join(answer.split()) or None


def paired_difference(before: Sequence[Group], after: Sequence[Group]) -> Measure:
    """Mean over problems of how much larger the share of solved samples is `after`, bootstrapped over problems.

    Both are answers to the same problems in the same order; raises UserError where they are not.
    """
    asked = [[(group.problem.id, group.problem.question) for group in groups] for groups in (before, after)]
    if asked[0] != asked[1]:
        shared = len(set(asked[0]) & set(asked[1]))
        raise UserError(
            f"the two evaluations are not of the same problems in the same order: one has {len(before)}, the other "
            f"{len(after)}, and {shared} are in both"
        )
    differences = [_solved_share(new) - _solved_share(old) for old, new in zip(before, after, strict=True)]
    return bootstrap(differences, bounds=(-1, 1))


def _solved_share(group: Group) -> float:
    return sum(completion.solved for completion in group.completions) / len(group.completions)


def repeated_share(text: str, ngram_size: int) -> float:
    """Share of the word n-grams of `text` that are repetitions, from 0 to 1."""
    words = WORD.findall(text.lower())
    ngrams = list(zip(*(words[i:] for i in range(ngram_size)), strict=False))
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def is_repetitive(text: str) -> bool:
    """Whether more than half of the word 4-grams of `text` are repetitions."""
    return repeated_share(text, 4) > REPETITIVE


def is_single_language(thoughts: str, language: str) -> bool:
    """Whether thoughts have at least five words, of which 95 percent are in `language`."""
    return _is_single(share_in(thoughts, language))


def _is_single(share_and_words: tuple[float, int]) -> bool:
    part, words = share_and_words
    return words >= MIN_WORDS and part >= SINGLE


def _languages(groups: Sequence[Group], prompt: PromptConfig) -> dict[str, Measure]:
    """`language/single`, the same of every task where there are several, and `language/words`."""
    read = {
        id(c): share_in(parse(c.text, prompt.think, prompt.answer).thoughts, language)
        for g in groups
        for language in [target_language(g.problem)]
        for c in g.completions
    }
    tasks = tasks_of(groups)
    of_tasks = {f"{task}/single_language": of_task(groups, task) for task in tasks if len(tasks) > 1}
    single = {"language/single": groups, **of_tasks}
    measures = {key: share(asked, lambda c: _is_single(read[id(c)])) for key, asked in single.items()}
    words = [sum(read[id(c)][1] for c in g.completions) / len(g.completions) for g in groups]
    return measures | {"language/words": mean(words)}


def of_task(groups: Sequence[Group], task: str) -> list[Group]:
    return [group for group in groups if group.problem.task == task]


def tasks_of(groups: Sequence[Group]) -> list[str]:
    """The tasks of the problems, in the order of their first ones."""
    return list(dict.fromkeys(group.problem.task for group in groups))


def accuracy_name(groups: Sequence[Group]) -> str:
    """What the share of solved completions of one task is called: pass@1, or of requests whether they want an answer or
    a refusal."""
    task = groups[0].problem.task
    wants = {"refused" if group.problem.columns.get("checker") == "refused" else "answered" for group in groups}
    is_request = all(group.problem.grader == REQUEST_GRADER for group in groups)
    return f"{task}/{wants.pop()}" if is_request and len(wants) == 1 else f"{task}/pass@1"


def measure(groups: Sequence[Group], prompt: PromptConfig, k: int | None = None) -> dict[str, Measure]:
    """Accuracy of every task, and the form of the text.

    `<task>/pass@1` (of requests `<task>/answered` or `<task>/refused`); with several samples per problem `<task>/pass@k`
    and, unless answers stand neither in tags nor in boxes, `<task>/maj@k`, for all samples unless `k` says how many;
    `format/rate`; `length/mean` in tokens; `language/single`, the share of thoughts of at least five words of which 95 percent
    are in the language of the problem, that of its question unless a column says so, and with several tasks
    `<task>/single_language`, the same of each; `language/words`, the words of the thoughts of one completion in any language;
    `repetition/rate`, the share of completions of whose word 4-grams more than half came before.
    """
    measures = {}
    for task in tasks_of(groups):
        mine = of_task(groups, task)
        measures[accuracy_name(mine)] = pass_at_1(mine)
        size = k or min(len(group.completions) for group in mine)
        completions = [completion for group in mine for completion in group.completions]
        if size > 1:
            measures[f"{task}/pass@{size}"] = mean_pass_at_k(mine, size)
            if any(final_answer(c.text, prompt) for c in completions) or not any(c.solved for c in completions):
                measures[f"{task}/maj@{size}"] = maj_at_k(mine, size, prompt)
    measures["format/rate"] = share(groups, lambda c: parse(c.text, prompt.think, prompt.answer).is_well_formed)
    measures["length/mean"] = mean([sum(len(c.sample.token_ids) for c in g.completions) / len(g.completions) for g in groups])
    measures |= _languages(groups, prompt)
    measures["repetition/rate"] = share(groups, lambda c: is_repetitive(c.text))
    return measures
