"""A generative reward model: a language model behind any OpenAI-compatible server reads each completion and marks it.

The text of a completion goes into a template as data and is never a template itself. Every verdict is kept in a file as it
comes, failures with the batch that they are of, so that a run which resumes pays the same rewards and asks nothing twice.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from aha.chat import parse
from aha.config import ServerConfig, validate
from aha.remote import ask
from aha.rewards.base import TAGS, Pool, Text, text_of
from aha.rewards.kept import Kept
from aha.types import UserError

TEMPLATE = """You mark answers. Read the request and the answer, then mark the answer from 0 to {scale}.

Request:
{prompt}

Answer:
{reply}

End with one line: "Score: " and the number."""
RUBRIC_TEMPLATE = """You mark answers by a rubric. Read the request and the work, then give the points of each criterion.

Request:
{prompt}

Work:
{completion}

Rubric:
{rubric}

End with the line "Marks:" and below it one line per criterion: its number, a colon, the points you give."""
SCORE = re.compile(r"score[\s:=*_\"]{0,6}(-?\d+(?:\.\d+)?)", re.IGNORECASE)
REASON_CHARACTERS = 300
MANY = 8  # requests of which none is answered: the server is down, and it is not for this text
MARK = re.compile(r"^\W*(\d+)\W*[:.)]\W*(\d+(?:\.\d+)?)", re.MULTILINE)


@dataclass(frozen=True)
class Verdict:
    """What a judge said about one completion.

    Example: Verdict(score=0.7, reason="Score: 7", prompt_tokens=312, completion_tokens=48)
    """

    score: float | None  # from 0 to 1; None where the answer of the judge could not be read, or none came
    reason: str  # the end of what it wrote, or the failure
    prompt_tokens: int = 0
    completion_tokens: int = 0
    is_failure: bool = False  # no answer came


def judge(
    prompts: Sequence[Any],
    completions: Sequence[Text],
    url: str = "",
    model: str = "",
    template: str | None = None,
    scale: float = 10.0,
    rubric: Sequence[Mapping[str, Any]] = (),
    api_key_env: str = "OPENAI_API_KEY",
    temperature: float = 0.0,
    max_tokens: int = 1024,
    timeout: float = 60.0,
    max_retries: int = 4,
    concurrency: int = 16,
    verdicts: str | None = None,
    tags: tuple[str, str] = TAGS,
    log_metric: Callable[[str, float], None] | None = None,
    ahead: Pool | None = None,
    **columns: Any,
) -> list[float | None]:
    """The judge's mark over `scale`, from 0 to 1; None, which skips the completion, where no mark could be had.

    `template` may hold {prompt} (the question, where the data has it under that name), {completion}, {thoughts}, {reply}
    (what follows the thoughts), {answer}, {scale}, {rubric} and any column of the data. With a `rubric`, a list of
    {criterion, points}, the mark is the sum of the points over what there is to get, so that right steps count in a
    wrong solution. Requests time out after `timeout` seconds and are sent again up to `max_retries` times, with growing
    pauses. `verdicts` is the file that keeps what was said (JSON lines); a stage has one of its own. The key comes from
    the environment variable `api_key_env`.
    """
    if not url or not model:
        raise ValueError("a judge needs url (of an OpenAI-compatible server, as http://127.0.0.1:8000/v1) and model")
    if scale <= 0 or concurrency < 1:
        raise ValueError(f"scale is {scale} and concurrency {concurrency}: want more than 0, and at least 1")
    address = {"base_url": url, "model": model, "api_key_env": api_key_env, "timeout": timeout, "max_retries": max_retries}
    server: ServerConfig = validate(ServerConfig, address, "judge")
    settings = {"temperature": temperature, "max_tokens": max_tokens}
    points = tuple(float(item["points"]) for item in rubric)
    asked = []
    for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        own = {name: values[i] for name, values in columns.items() if isinstance(values, Sequence) and len(values) > i}
        asked.append(fill(template or (RUBRIC_TEMPLATE if rubric else TEMPLATE), prompt, completion, own, tags, scale, rubric))

    kept = Kept.of(verdicts, url)
    keys = [fingerprint(model, settings, points, scale, text) for text in asked]
    new = {
        key: partial(verdict_of, server, settings, text, points, scale)
        for key, text in zip(keys, asked, strict=True)
        if key not in kept.known or key in kept.begun  # what was asked ahead counts as asked by this batch
    }
    if ahead:
        kept.begin(ahead(concurrency), new, is_answer)
        return [None] * len(completions)
    pool = ThreadPoolExecutor(concurrency)
    try:
        kept.begin(pool, new, is_answer)
        begun = {key: kept.begun.pop(key) for key in new}
        fresh = {key: future.result() for key, future in begun.items()}
    finally:
        pool.shutdown(cancel_futures=True)  # those under way end first, and what they bring is kept as well
    known = {key: Verdict(**row) for key, row in kept.known.copy().items()} | fresh
    has_answered = any(not verdict.is_failure for verdict in (fresh if len(fresh) >= MANY else known).values())
    if fresh and not has_answered:  # never, or none of many requests: what failed is not kept, and is asked again
        raise UserError(f"judge {url}: none of {len(fresh)} requests was answered: {next(iter(fresh.values())).reason}")
    kept.add({key: asdict(verdict) for key, verdict in fresh.items() if verdict.is_failure})
    if log_metric and fresh:
        log_metric("judge/tokens", sum(verdict.prompt_tokens + verdict.completion_tokens for verdict in fresh.values()))
        log_metric("judge/unread", sum(known[key].score is None for key in keys) / len(keys))
    return [known[key].score for key in keys]


def is_answer(verdict: Verdict) -> bool:
    return not verdict.is_failure


def verdict_of(server: ServerConfig, settings: Mapping[str, Any], text: str, points: Sequence[float], scale: float) -> Verdict:
    """Ask once, with the client's retries. Raises UserError where the server refuses such requests for good."""
    try:
        reply = ask(server, [{"role": "user", "content": text}], **settings)
    except UserError as error:
        raise UserError(f"judge {error}") from error
    if reply.text is None:
        return Verdict(None, reply.failure, is_failure=True)
    mark = read_marks(reply.text, points, scale)
    return Verdict(mark, reply.text[-REASON_CHARACTERS:], reply.prompt_tokens, reply.completion_tokens)


def read_marks(reply: str, points: Sequence[float], scale: float) -> float | None:
    """The mark in a judge's reply, from 0 to 1: the last "Score: ...", or the sum of the marks after "Marks:"."""
    if not points:
        found = SCORE.findall(reply)
        return min(1.0, max(0.0, float(found[-1]) / scale)) if found else None
    marks = {int(number): float(mark) for number, mark in MARK.findall(reply.rpartition("Marks:")[2])}
    if any(number not in marks for number in range(1, len(points) + 1)):
        return None
    return sum(min(marks[i], most) for i, most in enumerate(points, 1)) / sum(points)


def fill(
    template: str,
    prompt: Any,
    completion: Text,
    columns: Mapping[str, Any],
    tags: tuple[str, str],
    scale: float,
    rubric: Sequence[Mapping[str, Any]],
) -> str:
    """The request to the judge. Raises ValueError where the template names what there is not."""
    text = text_of(completion)
    parsed = parse(text, *tags)
    criteria = "\n".join(f"{i}. {item['criterion']} ({item['points']} points)" for i, item in enumerate(rubric, 1))
    values = {
        **columns,
        "prompt": columns.get("question") or (prompt if isinstance(prompt, str) else prompt[-1]["content"]),
        "completion": text,
        "thoughts": parsed.thoughts,
        "reply": parsed.body.strip(),
        "answer": parsed.answer or "",
        "scale": f"{scale:g}",
        "rubric": criteria,
    }
    try:
        return template.format_map(values)
    except (KeyError, IndexError, AttributeError) as error:
        raise ValueError(f"the template of the judge wants {error}; known: {', '.join(values)}") from error


def fingerprint(model: str, settings: Mapping[str, Any], points: Sequence[float], scale: float, text: str) -> str:
    """What a verdict depends on; time-outs and retries are no part of it."""
    parts = [model, *settings.values(), list(points), scale, text]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
