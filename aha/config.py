"""Recipes: what YAML may say, what it means and what it defaults to. The stages themselves are in stage_configs.py.

A recipe is a list of stages. Defaults live in the models below and nowhere else; precedence is defaults, then the
recipe, then `stage.key=value` or `defaults.key=value` on the command line. Keys that TRL and transformers have keep their
names and meaning.
"""

import difflib
import string
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from aha.types import UserError

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
RECIPE_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"  # a dot in the name of a stage would break stage.key=value

EXAMPLE_TEMPLATE = "Question: {question}\nAnswer: {delimiter}{reasoning}{delimiter}{summary}"
FEW_SHOT_TEMPLATE = """Each question is answered by detailed reasoning that tests its own steps, then by a summary that ends \
in the final answer: {delimiter}reasoning{delimiter}summary

{examples}

Question: {question}
Answer:"""
DIRECT_TEMPLATE = """{question}

Reason step by step and in detail. Look back at your steps, and verify the result before you answer. Put the reasoning \
between <{think}> and </{think}>, and after it nothing but the final answer between <{answer}> and </{answer}>."""
REWRITE_TEMPLATE = """Rewrite the answer below so that people read it with ease: whole sentences, in the language of the \
question, one step after the other. Keep every step that leads to the result, add none, and keep the final answer as it is. \
Reply with the rewritten answer alone, in the same form and with the same tags.

Question:
{question}

Answer:
{completion}"""


class Config(BaseModel):
    """Base of all configuration: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class PromptConfig(Config):
    """How a question becomes the text that the model continues. Saved beside the weights."""

    template: Literal["r1", "r1-chat", "chat", "plain"] = Field(
        "r1",
        description="r1: the R1-Zero template as plain text, for base models; r1-chat: the same instruction as system "
        "turn of the chat template; chat: the question as user turn; plain: the question itself",
    )
    system: str | None = Field(None, description="system text in place of the template's own")
    think: str = Field("think", pattern=r"^[A-Za-z_]+$", description="name of the thinking tag")
    answer: str = Field("answer", pattern=r"^[A-Za-z_]+$", description="name of the answer tag")
    prefill: str = Field("", description="start of the assistant's turn, given and graded as if the model wrote it")


class DataConfig(Config):
    """Where problems or texts come from."""

    source: str = Field(
        description="a generator (countdown, words, chat, preference, writers, word-writers, chat-writers, reasoning-gym), a "
        "preset (its data set on the hub), a hub id such as org/name, the path of a file or folder, or the traces of an "
        "earlier stage, ${stage.traces}; a name wins over a path, so write ./gsm8k for a folder of that name. A source with "
        "no other key may stand as bare text, data: countdown"
    )
    preset: str | None = Field(None, description="read `source`, a local copy for instance, with this preset's mapping")
    subset: str | None = Field(None, description="of a hub id: the name of its configuration; default: the preset's, if any")
    revision: str | None = Field(None, description="of a hub id: branch, tag or commit")
    split: str = Field(
        "train",
        description="of a generator or hub id, or the file of that name in a folder (a single file has no splits); [a:b] "
        "keeps those rows, as in train[-1024:] or train[:10%]",
    )
    test_size: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="divide split train of a file, folder or hub id into train and test: rows of test, below 1 their share. "
        "Seed and content decide where a row goes, so both stay disjoint as long as they name the same seed and test_size",
    )
    shuffle: bool = Field(False, description="shuffle the rows by `seed`, after a slice and before the limit")
    limit: int | None = Field(None, ge=1, description="keep the first so many rows")
    seed: int = Field(0, description="seed of a generator, of test_size and of shuffle")
    weight: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="of a source among several: its rows in a pass, relative to the weights of the others; a pass ends when "
        "one source is used up, so no row comes twice. Without any weights a pass is all rows of all sources",
    )
    columns: dict[str, str] = Field({}, description="our column: the file's column, as in {question: problem, gold: answer}")
    question: str | None = Field(None, description="text of the question, or of the prompt for sft, with {column} placeholders")
    completion: str | None = Field(None, description="text of the completion for sft with {column} placeholders")
    grader: str | None = Field(None, description="the reward whose top score counts as solved")
    task: str | None = Field(None, description="prefix of the metrics; default: the name of the source")
    args: dict[str, Any] = Field(
        {}, description="arguments of a generator, such as {task: chain_sum} of reasoning-gym; of a hub id data_dir, data_files"
    )

    @field_validator("test_size")
    @classmethod
    def _share_or_rows(cls, value: float | None) -> float | None:
        if value is not None and value >= 1 and value != int(value):
            raise ValueError(f"test_size is {value}: want a share below 1, or a whole number of rows")
        return value

    @model_validator(mode="before")
    @classmethod
    def _bare_source(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str | Mapping | DataConfig) else value


AnySources = Annotated[list[DataConfig], BeforeValidator(_as_list)]  # one source, several, or none
Sources = Annotated[AnySources, Field(min_length=1)]


def check_template(text: str, known: set[str], needed: set[str]) -> None:
    """Raise ValueError where a template has other fields than those known, or lacks one that it needs."""
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError as error:
        raise ValueError(f"template: {error}; write {{{{ and }}}} for braces") from error
    if fields - known or needed - fields:
        wrong = f"has no {{{min(needed - fields)}}}" if needed - fields else f"has {{{min(fields - known)}}}"
        raise ValueError(f"template {wrong}; known: {', '.join(f'{{{name}}}' for name in sorted(known))}")


class NamedConfig(Config):
    """One refinement or filter of a list that is applied in order; a bare name stands for {name: ...}."""

    name: str = Field(description="which one")
    args: dict[str, Any] = Field({}, description="its keyword arguments")

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class RewardConfig(Config):
    """One component of the reward."""

    name: str = Field(description="a reward of aha/rewards, or module:function for your own")
    label: str | None = Field(
        None,
        pattern=NAME_PATTERN,
        description="what metrics and `requires` call it, where one reward stands twice in the list; default: its name",
    )
    weight: float | dict[str, float] = Field(
        1.0, description="factor in the weighted sum; {task: factor} for tasks of their own, others skip this reward"
    )
    args: dict[str, Any] = Field({}, description="keyword arguments of the reward function")
    requires: str | None = Field(None, description="another reward of the list: without its top score this one counts as 0")
    cap: float | None = Field(None, description="scores above count as this much")
    start_step: float = Field(0, ge=0, description="optimiser step from which on it counts; below 1: a share of all steps")
    end_step: float | None = Field(None, gt=0, description="step from which on it no longer does; 1 or below: a share")

    @model_validator(mode="after")
    def _some_window(self) -> "RewardConfig":
        if self.end_step is not None and (self.start_step < 1) == (self.end_step <= 1) and self.start_step >= self.end_step:
            raise ValueError(f"start_step {self.start_step:g} is not before end_step {self.end_step:g}: it would never count")
        return self

    @property
    def key(self) -> str:
        """What tells it from the other rewards of the list."""
        return self.label or self.name

    def counts_at(self, step: int, total: int) -> bool:
        """Whether the reward is part of the sum in optimiser step `step` (from 0) of `total`."""
        start = self.start_step * total if self.start_step < 1 else self.start_step
        end = total if self.end_step is None else self.end_step * total if self.end_step <= 1 else self.end_step
        return start <= step < end


class EvalConfig(Config):
    """Problems that a model answers to be measured."""

    data: AnySources = Field([], description="problems to answer; none: no evaluation")
    num_generations: int = Field(1, ge=1, description="answers per problem; pass@1 is their mean")
    max_completion_length: int | None = Field(None, ge=1, description="tokens; default: that of the stage")
    temperature: float | None = Field(None, ge=0, description="default: that of the stage; 0 is greedy")
    top_p: float | None = Field(None, gt=0, le=1, description="default: that of the stage")
    eval_steps: int = Field(0, ge=0, description="also evaluate every so many steps; 0: only at the end")


class ArchitectureConfig(Config):
    """A new model, for `init: scratch`: class and sizes in the words of transformers, and its tokenizer."""

    model_type: Literal["qwen2", "qwen3", "llama"] = Field("qwen3", description="class of the model")
    vocab_size: int = Field(2048, ge=1300, description="tokens of the tokenizer that is built from the data, at the most")
    whole_words: bool = Field(False, description="single tokens for the words of the tiny world, as for numbers")
    hidden_size: int = Field(192, ge=8, description="width of the model")
    intermediate_size: int = Field(576, ge=8, description="width of the feed-forward layers")
    num_hidden_layers: int = Field(6, ge=1, description="depth")
    num_attention_heads: int = Field(3, ge=1, description="query heads; the head size is hidden_size over this")
    num_key_value_heads: int = Field(1, ge=1, description="key-value heads, each shared by several query heads")
    max_position_embeddings: int = Field(1024, ge=16, description="longest sequence in tokens")
    rope_theta: float = Field(10_000.0, gt=0, description="base of the rotary embedding")


class HeldOutConfig(Config):
    """Preferences that a reward model is measured on."""

    data: AnySources = Field([], description="held-out pairs or labelled replies; none: no evaluation")
    eval_steps: int = Field(0, ge=0, description="also evaluate every so many steps; 0: only at the end")


class ServerConfig(Config):
    """A model behind an OpenAI-compatible server, and how it is asked."""

    base_url: str = Field(pattern="^https?://", description="as in http://127.0.0.1:8000/v1")
    model: str = Field(min_length=1, description="its name there")
    api: Literal["chat", "completions"] = Field(
        "chat",
        description="chat: messages, which the server puts into the model's chat template; completions: a text that the "
        "model continues as it stands, for base models",
    )
    api_key_env: str = Field("OPENAI_API_KEY", description="environment variable that holds the key; local servers need none")
    timeout: float = Field(600.0, gt=0, allow_inf_nan=False, description="seconds, of one attempt")
    max_retries: int = Field(4, ge=0, description="of a request, with growing pauses")
    concurrency: int = Field(16, ge=1, description="requests at the same time")
    max_failed: float = Field(
        0.05, ge=0, lt=1, description="share of the requests of a part that may fail for good; with more the stage stops"
    )
    extra_body: dict[str, Any] = Field({}, description="more keys of every request, such as {reasoning_effort: high}")

    @field_validator("base_url")
    @classmethod
    def _has_no_password(cls, value: str) -> str:
        if "@" in urlsplit(value).netloc:
            raise ValueError("holds a user or a password; put the key into the environment variable that api_key_env names")
        return value


class ExampleConfig(Config):
    """One worked example of a few-shot prompt."""

    question: str = Field(min_length=1, description="what is asked")
    reasoning: str = Field(min_length=1, description="the whole chain of thought, with its checks")
    summary: str = Field(min_length=1, description="what the reader gets: the steps that matter and the final answer")


class RewriteConfig(Config):
    """A stronger model that rewrites traces."""

    server: ServerConfig = Field(description="the stronger model")
    template: str = Field(
        REWRITE_TEMPLATE, description="the request, with {question}, {completion}, {thoughts} and {answer} of the trace"
    )
    temperature: float = Field(0.0, ge=0, description="of the rewriting")
    max_completion_length: int = Field(4096, ge=1, description="tokens of a rewritten trace at the most")

    @field_validator("template")
    @classmethod
    def _fits(cls, value: str) -> str:
        check_template(value, {"question", "completion", "thoughts", "answer"}, set())
        return value


def fitting(value: Any, annotation: Any, what: str) -> Any:
    """`value` where it is of the type of an argument that a recipe sets. Raises UserError where it is not."""
    try:
        return TypeAdapter(annotation).validate_python(value, strict=True)
    except ValidationError as error:
        told = error.errors()[0]["msg"]
        raise UserError(f"{what} is {value!r}: {told[0].lower()}{told[1:]}") from error


def nearest(key: str, known: typing.Iterable[str]) -> str:
    close = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(sorted(known))}"


def validate(cls: type[Config], values: Mapping[str, Any], where: str) -> Any:
    """Build a configuration; raises UserError, in one line that starts with `where` and names the key."""
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{where}: {explain(cls, error, values)}") from error


def explain(cls: type[BaseModel], error: ValidationError, values: Mapping[str, Any]) -> str:
    """The first problem of a failed validation of `values`, in one line that names the key."""
    first = error.errors()[0]
    location = list(first["loc"])
    if len(location) > 1 and location[1] == 0 and isinstance(values.get(str(location[0])), str | Mapping):
        del location[1]  # one source was given where a list may stand
    if "stages" in cls.model_fields and location[0] == "stages":
        del location[2:3]  # the kind, by which pydantic tells the stages apart
    key = ".".join(str(part) for part in location)
    if first["type"] == "extra_forbidden":
        return f"unknown key {key}{nearest(str(location[-1]), _fields_at(cls, location[:-1]))}"
    if first["type"] == "missing":
        return f"{key} is missing"
    message = first["msg"].removeprefix("Value error, ")
    return message if not key or message.startswith(key) else f"{key}: {message[0].lower()}{message[1:]}"


def _fields_at(cls: type[BaseModel], location: list[Any]) -> set[str]:
    for part in location:
        if isinstance(part, str) and part in cls.model_fields:
            inner = _model_inside(cls.model_fields[part].annotation)
            cls = inner or cls
    return set(cls.model_fields)


def _model_inside(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_inside, typing.get_args(annotation))), None)
