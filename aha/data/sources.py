"""Data sources: a name, a path or a hub id in, problems or texts out.

Generators make their rows; files, folders and data sets of the hub are read, and a preset knows the columns of a public
one. Of these rows a source takes its split's slice, shuffled where that is wanted, up to the limit. A row that does not
fit is an error that names file, row and column.
"""

import difflib
import hashlib
import json
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from aha.config import DataConfig
from aha.data import chat, countdown, words, writers
from aha.data.files import SUFFIXES, read_files, stem_of, suffix_of
from aha.data.gym import gym_rows
from aha.data.hub import HUB_ID, hub_rows
from aha.data.preferences import Preference, preference_of
from aha.data.presets import GENERATOR_PRESETS, PRESETS, Preset, preset_named
from aha.types import Problem, UserError

DEFAULT_GENERATED_ROWS = 4096
SPLIT_PATTERN = re.compile(r"^(?P<name>[^\[\]]*)(\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?$")
HELD_OUT_FROM = "train"  # the split that test_size divides

TEXT = ("prompt", "completion")
CONVERSATION = ("messages", "conversations")  # columns that a row may have in their place
ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}

Row = dict[str, Any]
Rows = Iterator[tuple[str, Row]]  # with each row where it stands, for messages


def _countdown_rows(cfg: DataConfig, split: str) -> Iterator[Row]:
    for nums, target in countdown.problems(_generated(cfg, split), cfg.seed, **cfg.args):
        yield {"nums": nums, "target": target}


def _words_rows(cfg: DataConfig, split: str) -> Iterator[Row]:
    for problem in words.problems(_generated(cfg, split), cfg.seed, **cfg.args):
        yield {**vars(problem), "gold": str(problem.gold)}


def _chat_rows(cfg: DataConfig, split: str) -> Iterator[Row]:
    for request in chat.requests(_generated(cfg, split), cfg.seed, **cfg.args):
        yield {**vars(request), "arguments": list(request.arguments)}


def _preference_rows(cfg: DataConfig, split: str) -> Iterator[Row]:
    for pair in chat.pairs(_generated(cfg, split), cfg.seed, **cfg.args):
        yield {**vars(pair), "prompt": [{"role": "user", "content": pair.prompt}]}


def _generated(cfg: DataConfig, split: str) -> str:
    if split not in countdown.SPLITS:
        raise UserError(f"{cfg.source} has no split {split!r}; known: {', '.join(countdown.SPLITS)}")
    return split


def _writer_rows(cfg: DataConfig, split: str) -> Iterator[Row]:
    return _documents(writers.documents, cfg)


def _word_writer_rows(cfg: DataConfig, split: str) -> Iterator[Row]:
    return _documents(words.documents, cfg)


def _chat_writer_rows(cfg: DataConfig, split: str) -> Iterator[Row]:
    return _documents(chat.documents, cfg)


def _documents(write: Callable[..., Iterator[Row]], cfg: DataConfig) -> Iterator[Row]:
    """What writers write; of `args`, `messages` is the share of it that is told as a conversation."""
    args = dict(cfg.args)
    share = args.pop("messages", 0.0)
    rng = random.Random(f"messages/{cfg.seed}")
    for row in write(cfg.seed, **args):
        if share and rng.random() < share:
            said = (("user", row["prompt"]), ("assistant", "<think>" + row["completion"]))
            yield {"messages": [{"role": role, "content": content} for role, content in said]}
        else:
            yield row


def _gym_rows(cfg: DataConfig, split: str) -> Iterator[Row]:
    return gym_rows(split, cfg.seed, cfg.args)


# Generators of problems and pairs take their mapping from a preset; writers make texts to learn from.
GENERATORS: dict[str, Callable[[DataConfig, str], Iterator[Row]]] = {
    "countdown": _countdown_rows,
    "words": _words_rows,
    "chat": _chat_rows,
    "preference": _preference_rows,
    "writers": _writer_rows,
    "word-writers": _word_writer_rows,
    "chat-writers": _chat_writer_rows,
    "reasoning-gym": _gym_rows,
}


def load_problems(cfg: DataConfig) -> list[Problem]:
    """The problems of a source, for rollouts and evaluation. Raises UserError, also where there are none."""
    preset = preset_of(cfg)
    grader = cfg.grader or (preset.grader if preset else "accuracy")
    task = task_of(cfg)
    problems: list[Problem] = []
    for where, values in _canonical(cfg, preset, preset.columns if preset else {}, ("question",)):
        question = values.pop("question")
        if not isinstance(question, str) or not question.strip():
            raise UserError(f"{where}: column 'question' holds no text")
        problems.append(Problem(f"{task}/{len(problems)}", task, question, values, grader))
    return problems


def load_texts(cfg: DataConfig) -> list[Row]:
    """Texts for supervised training: rows of `prompt` and `completion`, or of `messages`, a list of role and content.

    A row is a conversation where it has a column `messages` or `conversations` and neither preset, `columns`, template
    nor columns of its own give it prompt and completion. Raises UserError, also where there are none.
    """
    preset = preset_of(cfg)
    is_mapped = preset or cfg.question or cfg.completion or cfg.columns.keys() & set(TEXT)
    texts: list[Row] = []
    for where, values in _canonical(cfg, preset, preset.texts if preset else {}, TEXT, () if is_mapped else CONVERSATION):
        if any(values.get(name) is None for name in TEXT):
            said = next(values[name] for name in CONVERSATION if values.get(name) is not None)
            texts.append({"messages": _messages(said, where)})
            continue
        for name in TEXT:
            if not isinstance(values[name], str):
                raise UserError(f"{where}: column {cfg.columns.get(name, name)!r} holds no text")
        texts.append({name: values[name] for name in TEXT})
    return texts


def _messages(value: Any, where: str) -> list[dict[str, str]]:
    """Chat messages of role and content, from {"role", "content"} or {"from", "value"}: a user's first, or a system's."""
    if not isinstance(value, list) or not all(isinstance(message, Mapping) for message in value):
        raise UserError(f"{where}: the conversation is no list of messages")
    messages = []
    for i, message in enumerate(value, 1):
        role, content = message.get("role", message.get("from")), message.get("content", message.get("value"))
        if not isinstance(role, str) or role not in ROLES:
            raise UserError(f"{where}: message {i} is from {role!r}; known: {', '.join(ROLES)}")
        if not isinstance(content, str):
            raise UserError(f"{where}: message {i} holds no text")
        messages.append({"role": ROLES[role], "content": content})
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if "system" in turns or turns[:1] != ["user"] or "assistant" not in turns:
        got = ", ".join(roles) or "nothing"
        raise UserError(f"{where}: want at most one system message, then the user, then the assistant; got {got}")
    return messages


def load_preferences(cfg: DataConfig) -> list[Preference]:
    """Pairs of replies and labelled ones, for reward models; preferences.py lists the schemas. Raises UserError, also where
    there are none."""
    preset = preset_of(cfg)
    preferences = []
    for where, values in _canonical(cfg, preset, preset.columns if preset else {}, ()):
        try:
            preferences.append(preference_of(values))
        except ValueError as error:
            raise UserError(f"{where}: {error}") from error
    return preferences


def preset_of(cfg: DataConfig) -> Preset | None:
    """The preset that a source is read with, if any."""
    if cfg.preset is not None:
        return preset_named(cfg.preset)
    return GENERATOR_PRESETS.get(cfg.source) or PRESETS.get(cfg.source)


def task_of(cfg: DataConfig) -> str:
    """The task that the problems of a source are of. Raises UserError for a preset that there is not."""
    if cfg.task:
        return cfg.task
    preset = preset_of(cfg)
    if preset:
        # a generator of many tasks has it among its arguments, one of many kinds the kind
        return str(cfg.args.get("task") or cfg.args.get("kind") or preset.task)
    path = Path(cfg.source)
    return stem_of(path) if suffix_of(path) in SUFFIXES else path.name


def _canonical(
    cfg: DataConfig,
    preset: Preset | None,
    columns: Mapping[str, str],
    required: Sequence[str],
    instead: Sequence[str] = (),
) -> Rows:
    """Rows in our columns: renamed, converted, templates filled. Without a preset the row's own columns stay too.

    A row with a column of `instead` need not have all that are `required`.
    """
    given = {"question": cfg.question, "prompt": cfg.question, "completion": cfg.completion}
    templates = {name: text for name, text in (preset.templates if preset else {}).items() if name not in cfg.columns}
    templates.update({name: text for name in required if (text := given.get(name))})
    columns = {**columns, **cfg.columns}
    for name in required:
        if preset and name not in {*columns, *templates}:
            has = ", ".join({**preset.columns, **preset.texts, **templates})
            raise UserError(f"{cfg.source}: preset {cfg.preset or cfg.source} has no {name}; it has {has}")
        if name not in templates:
            columns.setdefault(name, name)
    split = _split_of(cfg)[0]
    for where, row in _rows(cfg, preset):
        values = dict(row) if preset is None else {}
        wanted = columns
        if any(row.get(columns.get(name, name)) is not None for name in instead):
            wanted = {ours: theirs for ours, theirs in columns.items() if ours not in required}
        for ours, theirs in wanted.items():
            values[ours] = _convert(preset, ours, _column(row, theirs, where), where)
        values.update({name: _fill(name, template, values, where) for name, template in templates.items()})
        if preset and preset.languages:
            values["language"] = split
        yield where, values


def _split_of(cfg: DataConfig) -> tuple[str, str | None, str | None]:
    """Name, start and stop of a split: ("train", None, "10%") of train[:10%]."""
    match = SPLIT_PATTERN.match(cfg.split)
    if match is None:
        raise UserError(f"split {cfg.split!r} is neither a name nor a name with a slice such as train[-1024:]")
    return match["name"], match["start"], match["stop"]


def _rows(cfg: DataConfig, preset: Preset | None) -> list[tuple[str, Row]]:
    """(where, row) pairs of a source: the split, its slice, shuffled, then the limit."""
    name, start, stop = _split_of(cfg)
    needed = _leading_rows(cfg, start, stop)
    if cfg.source in GENERATORS:
        if cfg.test_size is not None:
            raise UserError(
                f"{cfg.source}: test_size divides files and data sets of the hub; generators have splits of their own"
            )
        made = GENERATORS[cfg.source](cfg, name)
        count = DEFAULT_GENERATED_ROWS if start or stop or cfg.limit is None else cfg.limit
        rows = [(f"{cfg.source} row {i}", row) for i, row in enumerate(_draw(made, count, cfg))]
    else:
        if cfg.test_size is not None and name not in ("train", "test"):
            raise UserError(f"{cfg.source}: with test_size there are the splits train and test, not {name!r}")
        read = _read(cfg, preset, name if cfg.test_size is None else HELD_OUT_FROM)
        if preset and preset.keep:
            keep = preset.keep
            read = ((where, row) for where, row in read if keep(row))
        rows = list(islice(read, needed))
    if cfg.test_size is not None:
        rows = _divide(rows, name, cfg)
    rows = rows[_index(start, len(rows)) : _index(stop, len(rows))]
    if cfg.shuffle:
        random.Random(f"shuffle/{cfg.seed}").shuffle(rows)
    rows = rows[: cfg.limit]
    if not rows:
        raise UserError(f"{cfg.source}: no rows in split {cfg.split}")
    return rows


def _leading_rows(cfg: DataConfig, start: str | None, stop: str | None) -> int | None:
    """How many rows of a split suffice where the first ones do; None where all must be read."""
    if cfg.shuffle or cfg.test_size is not None or any(edge and ("-" in edge or "%" in edge) for edge in (start, stop)):
        return None
    edges = ([int(stop)] if stop else []) + ([int(start or 0) + cfg.limit] if cfg.limit else [])
    return min(edges, default=None)


def _index(edge: str | None, count: int) -> int | None:
    """A row number, or the row at a percentage, negative from the end."""
    if edge is None:
        return None
    return round(int(edge[:-1]) / 100 * count) if edge.endswith("%") else int(edge)


def _divide(rows: list[tuple[str, Row]], name: str, cfg: DataConfig) -> list[tuple[str, Row]]:
    """The rows of split `name`, train or test, in their order.

    Rows are ranked by a hash of seed and content and the first test_size are test, so it depends on nothing else
    which they are, and equal rows are on one side.
    """
    size = cfg.test_size or 0
    count = math.ceil(size * len(rows)) if size < 1 else int(size)
    if count >= len(rows):
        raise UserError(f"{cfg.source}: test_size {size:g} leaves nothing of {len(rows)} rows to train on")
    digests = [
        hashlib.sha256(f"{cfg.seed}/{json.dumps(row, sort_keys=True, default=str)}".encode()).digest() for _, row in rows
    ]
    last = sorted(digests)[count - 1]
    return [pair for pair, digest in zip(rows, digests, strict=True) if (digest <= last) == (name == "test")]


def _draw(rows: Iterator[Row], count: int, cfg: DataConfig) -> list[Row]:
    try:
        return list(islice(rows, count))
    except (TypeError, ValueError, IndexError, AssertionError) as error:
        raise UserError(f"{cfg.source}: args {cfg.args} do not fit the generator: {error}") from error


def _read(cfg: DataConfig, preset: Preset | None, split: str) -> Rows:
    """The rows of one split of files or of a data set on the hub."""
    if preset and preset.languages and split not in preset.languages:
        raise UserError(f"{cfg.source}: its splits are languages, {', '.join(preset.languages)}, not {split!r}")
    path = Path(cfg.source).expanduser()
    if cfg.source not in PRESETS and path.exists():
        if cfg.subset or cfg.revision:
            raise UserError(f"{cfg.source}: subset and revision are for data sets of the hub, and this is a path")
        return read_files(path, split, preset.header if preset else ())
    subset = cfg.subset
    if preset and preset.languages:
        subset, split = split, preset.split or split
    elif preset and (cfg.source in PRESETS or cfg.source == preset.hub):
        subset, split = subset or preset.subset, preset.split or split
    return hub_rows(_hub_id(cfg), subset, split, cfg.revision, cfg.args)


def is_from_hub(source: str) -> bool:
    """Whether a source is a preset or a hub id, and no path. A path with the ending of a data file need not exist."""
    looks_like_id = HUB_ID.match(source) and suffix_of(Path(source)) not in SUFFIXES
    return source in PRESETS or bool(looks_like_id and not Path(source).expanduser().exists())


def _hub_id(cfg: DataConfig) -> str:
    hub = PRESETS[cfg.source].hub if cfg.source in PRESETS else cfg.source
    if hub and is_from_hub(cfg.source):
        return hub
    close = difflib.get_close_matches(cfg.source, {**GENERATORS, **PRESETS}, n=1)
    hint = f"did you mean {close[0]}?" if close else f"generators: {', '.join(GENERATORS)}; presets: {', '.join(PRESETS)}"
    raise UserError(f"{cfg.source}: no such file or folder, generator, preset or hub id (org/name); {hint}")


def _column(row: Mapping[str, Any], name: str, where: str) -> Any:
    if row.get(name) is None:
        raise UserError(f"{where}: no column {name!r}; the row has {', '.join(map(str, row)) or 'nothing'}")
    return row[name]


def _convert(preset: Preset | None, column: str, value: Any, where: str) -> Any:
    convert = preset.convert.get(column) if preset else None
    if convert is None:
        return value
    try:
        return convert(value)
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise UserError(f"{where}: column {column!r}: {error}") from error


def _fill(name: str, template: str, values: Mapping[str, Any], where: str) -> str:
    try:
        return template.format(**values)
    except KeyError as error:
        raise UserError(f"{where}: the {name} template wants column {error}; the row has {', '.join(values)}") from error
    except (IndexError, ValueError, AttributeError) as error:
        raise UserError(f"{where}: the {name} template is no template ({error}); write {{{{ and }}}} for braces") from error
