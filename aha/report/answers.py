"""The same few problems as every stage answered them, chosen by a rule and taken apart into thoughts and answer."""

from dataclasses import dataclass
from typing import Any

from aha.chat import parse
from aha.config import PromptConfig
from aha.language import language_of
from aha.report.run import Key, Run, Stage
from aha.rewards.language import grade_completion

NUM_PROBLEMS = 5
SHOWN = 1500  # characters of a piece of text; of longer ones both ends are shown


@dataclass(frozen=True)
class Piece:
    """A part of a completion; of a long one `left_out` characters are missing between `text` and `end`.

    Example: Piece(role="thoughts", text="44+19=63 ...")
    """

    role: str  # "thoughts", "answer", "tags", or "rest": whatever else stands outside of them
    text: str
    left_out: int = 0
    end: str = ""


@dataclass(frozen=True)
class Answer:
    """How one stage answered: a row of its answers, with three scores that are computed here, and the completion in pieces."""

    stage: str
    row: dict[str, Any]
    scores: dict[str, float]
    pieces: list[Piece]


@dataclass(frozen=True)
class Problem:
    """One problem with the answers of all stages that were asked it."""

    kind: str
    question: Piece
    answers: list[Answer]


@dataclass(frozen=True)
class Chosen:
    """What is shown, and between which stages the choice was made."""

    first: str
    last: str
    num_shared: int  # problems that both answered
    num_gained: int  # of these, solved by the last only
    num_lost: int  # solved by the first only
    problems: list[Problem]


def choose(run: Run) -> Chosen | None:
    """Five problems, more where there are more kinds: of each kind the first that the first stage missed and the last
    solved; the first that every stage missed; then more of those that the last gained, then the first of the rest.
    """
    asked = [stage for stage in run.stages if stage.answers and stage.has_policy]
    if not asked:
        return None
    first, last = run.ends([stage for stage in asked if stage in run.measured] or asked)
    shared = [key for key in first.answers if key in last.answers]
    gained = [key for key in shared if _solves(last, key) and not _solves(first, key)]
    lost = [key for key in shared if _solves(first, key) and not _solves(last, key)]
    of_kind = list({first.answers[key]["kind"]: key for key in reversed(gained)}.values())
    missed = [key for key in shared if not any(_solves(stage, key) for stage in asked)][:1]
    picked = list(dict.fromkeys([*of_kind, *missed, *gained, *shared]))[: max(NUM_PROBLEMS, len(of_kind) + 1)]
    problems = []
    for key in sorted(picked, key=lambda key: (key in missed, shared.index(key))):
        told = [_answer(stage, stage.answers[key]) for stage in asked if key in stage.answers]
        problems.append(Problem(first.answers[key]["kind"], shortened("question", key[1]), told))
    return Chosen(first.name, last.name, len(shared), len(gained), len(lost), problems)


def _solves(stage: Stage, key: Key) -> bool:
    return key in stage.answers and bool(stage.answers[key]["solved"])


def _answer(stage: Stage, row: dict[str, Any]) -> Answer:
    """An answer with the rewards that every stage can be given, whatever it was trained by: they need no more than the
    verdict, the text and the question."""
    tags = (stage.prompt.think, stage.prompt.answer)
    scores = {
        "accuracy": float(row["solved"]),
        "format": float(parse(row["completion"], *tags).is_well_formed),
        "language": grade_completion(row["completion"], language_of(row["question"]), tags=tags).score,
    }
    return Answer(stage.name, row, scores, pieces(row["completion"], stage.prompt))


def pieces(text: str, prompt: PromptConfig) -> list[Piece]:
    """A completion in order, as `chat.parse` reads it: an answer that does not count is not shown as one."""
    parsed = parse(text, prompt.think, prompt.answer)
    tags = [f"<{slash}{name}>" for name in (prompt.think, prompt.answer) for slash in ("", "/")]
    before, body = text[: len(text) - len(parsed.body)], parsed.body
    start = before.find(tags[0]) + len(tags[0]) if tags[0] in before else 0
    end = start + len(parsed.thoughts)
    parts = [("rest", before[:start]), ("thoughts", before[start:end])]
    if parsed.answer is None:
        parts += [("rest", before[end:]), ("rest", body)]
    else:
        start, stop = body.find(tags[2]) + len(tags[2]), body.find(tags[3])
        parts += [("rest", before[end:] + body[:start]), ("answer", body[start:stop]), ("rest", body[stop:])]
    return [shortened(_role(role, part, tags), part.strip()) for role, part in parts if part.strip()]


def _role(role: str, text: str, tags: list[str]) -> str:
    for tag in tags:
        text = text.replace(tag, "")
    return role if text.strip() or role != "rest" else "tags"


def shortened(role: str, text: str) -> Piece:
    """A piece of at most SHOWN characters: of a longer text two thirds from its beginning, one from its end."""
    if len(text) <= SHOWN:
        return Piece(role, text)
    start, end = text[: SHOWN - SHOWN // 3], text[-(SHOWN // 3) :]
    return Piece(role, start, len(text) - SHOWN, end)
