"""Numbers with intervals, from graded groups. Pure functions of text and scores."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from aha.chat import parse
from aha.config import PromptConfig
from aha.types import Completion, Group

Z = 1.959964  # two-sided 95 percent
BOOTSTRAP_SAMPLES = 1000


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


def bootstrap(values: Sequence[float], seed: int = 0) -> Measure:
    """A mean over problems with the percentile bootstrap interval."""
    rng = random.Random(seed)
    n = len(values)
    means = sorted(sum(rng.choices(values, k=n)) / n for _ in range(BOOTSTRAP_SAMPLES))
    cut = round(BOOTSTRAP_SAMPLES * 0.025)
    return Measure(sum(values) / n, means[cut], means[-cut - 1], n)


def share(groups: Sequence[Group], holds: Callable[[Completion], bool]) -> Measure:
    """Share of completions that `holds` is true of: Wilson with one completion a problem, else over problems."""
    shares = [sum(map(holds, group.completions)) / len(group.completions) for group in groups]
    one_each = all(len(group.completions) == 1 for group in groups)
    return wilson(sum(shares), len(shares)) if one_each else bootstrap(shares)


def pass_at_1(groups: Sequence[Group]) -> Measure:
    """Share of problems solved by one sample."""
    return share(groups, lambda completion: completion.solved)


def measure(groups: Sequence[Group], prompt: PromptConfig) -> dict[str, Measure]:
    """Accuracy of every task, and the form of the text: `<task>/pass@1`, `format/rate`, `length/mean` (tokens)."""
    tasks = list(dict.fromkeys(group.problem.task for group in groups))
    measures = {f"{task}/pass@1": pass_at_1([g for g in groups if g.problem.task == task]) for task in tasks}
    measures["format/rate"] = share(groups, lambda c: parse(c.text, prompt.think, prompt.answer).is_well_formed)
    measures["length/mean"] = mean([sum(len(c.sample.token_ids) for c in g.completions) / len(g.completions) for g in groups])
    return measures
