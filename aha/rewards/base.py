"""What all rewards share: TRL's calling convention, and a grade that can say why.

A reward is `f(prompts, completions, completion_ids=..., **columns) -> list[float | None]`, one score per completion;
None leaves that completion out of that reward. Completions are texts, or conversations as TRL passes them, so these
functions work in TRL and TRL's work here. Columns of the data arrive by name, a list each.

A reward that waits for others, as for a server, may take an argument `ahead`, a Pool. It is then called for each
completion as soon as that is finished, has the pool begin what it will need, and returns nothing that counts; its call for
the whole batch follows, without `ahead`.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

Text = str | Sequence[Mapping[str, str]]  # a completion: its text, or a list of chat messages
TAGS = ("think", "answer")  # names of the thinking and the answer tag
RewardFunction = Callable[..., list[float | None]]  # the calling convention above
Pool = Callable[[int], Executor]  # threads that work in the background, so many at once
Scorer = Callable[[Sequence[tuple[Text, str]]], list[float]]  # of a reward model: raw rewards of (prompt, reply) pairs


@dataclass(frozen=True)
class Grade:
    """A score from 0 to 1 and the reason for it, in a few words.

    Example: Grade(0.0, "uses 19 twice")
    """

    score: float
    reason: str


def text_of(completion: Text) -> str:
    """The text of a completion; of a conversation, what the last message says."""
    return completion if isinstance(completion, str) else completion[-1]["content"]
