"""Recipes: what YAML may say, what it means and what it defaults to.

A recipe is a list of stages. Defaults live in the models below and nowhere else; precedence is defaults, then the
recipe, then `stage.key=value` or `defaults.key=value` on the command line. Keys that TRL and transformers have keep their
names and meaning.
"""

import difflib
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from aha.types import UserError

BUNDLED_MODEL = "tiny-base"
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
RECIPE_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"  # a dot in the name of a stage would break stage.key=value


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
        "preset (its data set on the hub), a hub id such as org/name, or the path of a file or folder; a name wins over a "
        "path, so write ./gsm8k for a folder of that name"
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


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, Mapping | DataConfig) else value


# One source, or several that are mixed.
Sources = Annotated[list[DataConfig], BeforeValidator(_as_list), Field(min_length=1)]


class RewardConfig(Config):
    """One component of the reward."""

    name: str = Field(description="a reward of aha/rewards, or module:function for your own")
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

    def counts_at(self, step: int, total: int) -> bool:
        """Whether the reward is part of the sum in optimiser step `step` (from 0) of `total`."""
        start = self.start_step * total if self.start_step < 1 else self.start_step
        end = total if self.end_step is None else self.end_step * total if self.end_step <= 1 else self.end_step
        return start <= step < end


class EvalConfig(Config):
    """Problems that a model answers to be measured."""

    data: list[DataConfig] = Field([], description="problems to answer; none: no evaluation")
    num_generations: int = Field(1, ge=1, description="answers per problem; pass@1 is their mean")
    max_completion_length: int | None = Field(None, ge=1, description="tokens; default: that of the stage")
    temperature: float | None = Field(None, ge=0, description="default: that of the stage; 0 is greedy")
    top_p: float | None = Field(None, gt=0, le=1, description="default: that of the stage")
    eval_steps: int = Field(0, ge=0, description="also evaluate every so many steps; 0: only at the end")


class StageConfig(Config):
    """What every stage has."""

    name: str = Field(pattern=NAME_PATTERN, description="name of the stage and of its directory")
    kind: str = Field(description="the verb: eval, sft or grpo")
    seed: int = Field(42, description="seed of everything random in the stage; default: that of the recipe")
    model: str = Field(BUNDLED_MODEL, description="bundled name, folder, hub id, or ${stage.model}")
    model_revision: str | None = Field(None, description="branch, tag or commit of a hub id")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="of the arithmetic; master weights are float32 in training. auto: bfloat16 where the hardware "
        "multiplies it natively, else float32",
    )
    attn_implementation: str | None = Field(None, description="attention of transformers in training: sdpa, eager, ...")
    trust_remote_code: bool = Field(False, description="run code that comes with a hub model")
    prompt: PromptConfig | None = Field(None, description="default: the settings saved beside the model, else template r1")

    @property
    def sources(self) -> list[str]:
        """Every data source that the stage reads."""
        return [cfg.source for cfg in [*getattr(self, "data", []), *getattr(self, "eval", EvalConfig()).data]]


class SamplingConfig(Config):
    """How completions are drawn, in training and in evaluation."""

    eval: EvalConfig = Field(EvalConfig(), description="what the stage is measured on")
    max_prompt_length: int | None = Field(None, ge=1, description="tokens; longer prompts are dropped and counted")
    max_num_seqs: int = Field(256, ge=1, description="rows that the native engine decodes at once")

    max_completion_length: int = Field(256, ge=1, description="tokens, the stop token included")
    temperature: float = Field(1.0, ge=0, description="of the sampling distribution; 0 is greedy")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus: the likeliest tokens that hold this mass; 1 keeps all")
    top_k: int = Field(0, ge=0, description="only the k likeliest tokens; 0 keeps all")
    min_p: float = Field(0.0, ge=0, le=1, description="drop tokens below this share of the likeliest one; 0 keeps all")


class TrainingConfig(Config):
    """Optimiser, schedule and checkpoints: the same for every stage that trains."""

    learning_rate: float = Field(1e-6, gt=0, description="peak learning rate")
    lr_scheduler_type: Literal["constant", "constant_with_warmup", "linear", "cosine"] = Field(
        "linear", description="after the warm-up: stay, or fall to 0 at the last step; both constants warm up"
    )
    warmup_steps: float = Field(0, ge=0, description="optimiser steps of linear warm-up; below 1: a share of all steps")
    optim: Literal["adamw_torch", "muon"] = Field(
        "adamw_torch", description="muon: Muon for the matrices inside the layers, AdamW for the rest"
    )
    weight_decay: float = Field(0.0, ge=0, description="on matrices only")
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="decay of the mean of the gradient")
    adam_beta2: float = Field(0.999, ge=0, lt=1, description="decay of the mean of its square")
    adam_epsilon: float = Field(1e-8, gt=0, description="added to the root of that mean")
    max_grad_norm: float = Field(1.0, ge=0, description="clip the gradient to this norm; 0: no clipping")
    max_steps: int = Field(-1, description="optimiser steps; -1: as many as the epochs need")
    num_train_epochs: float = Field(1.0, gt=0, description="passes over the data, where max_steps is -1")
    per_device_train_batch_size: int = Field(8, ge=1, description="sequences per accumulation step; for grpo completions")
    gradient_accumulation_steps: int = Field(1, ge=1, description="accumulation steps per optimiser step")
    max_tokens_per_microbatch: int = Field(8192, ge=1, description="tokens, padding included, in one forward pass")
    gradient_checkpointing: bool = Field(False, description="recompute activations in the backward pass to save memory")
    logging_steps: int = Field(1, ge=1, description="write metrics every so many optimiser steps")
    save_steps: int = Field(500, ge=0, description="checkpoint every so many optimiser steps; 0: none before the end")
    save_total_limit: int = Field(2, ge=1, description="keep so many checkpoints")
    save_dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of the weights in model/; auto: as in the initial model, bfloat16 from scratch"
    )

    @field_validator("max_steps")
    @classmethod
    def _some_steps(cls, value: int) -> int:
        if value == 0 or value < -1:
            raise ValueError(f"max_steps is {value}: want at least 1, or -1 for as many as the epochs need")
        return value

    @property
    def sequences_per_step(self) -> int:
        """Sequences behind one optimiser step."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps


class EvalStage(StageConfig, SamplingConfig):
    """Measure a model."""

    kind: Literal["eval"]

    @model_validator(mode="after")
    def _has_data(self) -> "EvalStage":
        if not self.eval.data:
            raise ValueError("eval.data is empty: name at least one source to evaluate on")
        return self


class ArchitectureConfig(Config):
    """A new model, for `init: scratch`: class and sizes in the words of transformers, and its tokenizer."""

    model_type: Literal["qwen2", "qwen3", "llama"] = Field("qwen3", description="class of the model")
    vocab_size: int = Field(2048, ge=1300, description="tokens of the tokenizer that is built from the data, at the most")
    hidden_size: int = Field(192, ge=8, description="width of the model")
    intermediate_size: int = Field(576, ge=8, description="width of the feed-forward layers")
    num_hidden_layers: int = Field(6, ge=1, description="depth")
    num_attention_heads: int = Field(3, ge=1, description="query heads; the head size is hidden_size over this")
    num_key_value_heads: int = Field(1, ge=1, description="key-value heads, each shared by several query heads")
    max_position_embeddings: int = Field(1024, ge=16, description="longest sequence in tokens")
    rope_theta: float = Field(10_000.0, gt=0, description="base of the rotary embedding")


class SftStage(StageConfig, TrainingConfig):
    """Supervised training on prompt and completion."""

    kind: Literal["sft"]
    data: Sources = Field(description="rows of prompt and completion; a list of sources is mixed")
    init: Literal["model", "scratch"] = Field("model", description="start from `model`, or from random weights")
    architecture: ArchitectureConfig = Field(ArchitectureConfig(), description="sizes of a model from scratch")
    completion_only_loss: bool = Field(True, description="learn the completion only, or the prompt too")
    max_length: int = Field(1024, ge=2, description="tokens; longer rows are cut")


class GrpoStage(StageConfig, SamplingConfig, TrainingConfig):
    """Group relative policy optimisation (arXiv 2402.03300; R1: arXiv 2501.12948, section 2)."""

    kind: Literal["grpo"]
    data: Sources = Field(description="problems to train on; a list of sources is mixed")
    rewards: list[RewardConfig] = Field(min_length=1, description="components of the reward")
    num_generations: int = Field(8, description="completions per prompt, the G of GRPO")
    steps_per_generation: int | None = Field(
        None, ge=1, description="accumulation steps that one batch of rollouts feeds; default: gradient_accumulation_steps"
    )
    num_iterations: int = Field(1, ge=1, description="passes over one batch of rollouts, the mu of GRPO")
    loss_type: Literal["grpo", "dr_grpo", "dapo", "cispo"] = Field(
        "dapo", description="how token losses are averaged; cispo also caps the ratio instead of clipping the loss"
    )
    importance_sampling_level: Literal["token", "sequence"] = Field(
        "token", description="ratio of every token, or its geometric mean over the completion (GSPO)"
    )
    scale_rewards: Literal["group", "batch", "none"] = Field("group", description="standard deviation that divides advantages")
    beta: float = Field(0.0, ge=0, description="coefficient of the KL term; 0: no reference model")
    epsilon: float = Field(0.2, ge=0, description="the ratio is clipped below 1 - epsilon")
    epsilon_high: float | None = Field(
        None, ge=0, description="and above 1 + epsilon_high; default: epsilon. For cispo the cap itself, such as 5.0"
    )
    entropy_coef: float = Field(0.0, ge=0, description="coefficient of the bonus for the mean entropy of the tokens")
    sync_ref_model: bool = Field(False, description="let the reference model follow the policy (needs beta)")
    ref_model_sync_steps: int = Field(512, ge=1, description="optimiser steps between two synchronisations; the paper: 400")
    ref_model_mixup_alpha: float = Field(
        0.6, gt=0, le=1, description="share of the policy in the new reference model; the paper replaces it: 1.0"
    )
    dynamic_sampling_rounds: int = Field(
        0, ge=0, description="up to so many times, draw other prompts in place of those that were solved always or never"
    )
    mask_truncated_completions: bool = Field(False, description="leave completions without stop token out of the loss")
    shuffle_dataset: bool = Field(True, description="a new seeded order in every epoch")
    save_rollouts_steps: int = Field(10, ge=0, description="write all rollouts of every so-manyth step; 0: never")

    @field_validator("num_generations")
    @classmethod
    def _at_least_two(cls, value: int) -> int:
        if value < 2:
            raise ValueError(f"num_generations is {value}: an advantage relative to the group needs at least 2 completions")
        return value

    @property
    def upper_clip(self) -> float:
        return self.epsilon if self.epsilon_high is None else self.epsilon_high

    @property
    def accumulation_steps_per_generation(self) -> int:
        return self.steps_per_generation or self.gradient_accumulation_steps

    @property
    def prompts_per_generation(self) -> int:
        return self.per_device_train_batch_size * self.accumulation_steps_per_generation // self.num_generations

    @property
    def updates_per_generation(self) -> int:
        """Optimiser steps taken on one batch of rollouts."""
        return self.accumulation_steps_per_generation // self.gradient_accumulation_steps * self.num_iterations

    @model_validator(mode="after")
    def _sizes_fit(self) -> "GrpoStage":
        size, steps, group = self.per_device_train_batch_size, self.accumulation_steps_per_generation, self.num_generations
        if size * steps % group:
            fits = next(s for s in range(size, size + group + 1) if s * steps % group == 0)
            raise ValueError(
                f"per_device_train_batch_size {size} x {steps} accumulation steps = {size * steps} completions per "
                f"generation, which num_generations {group} does not divide; per_device_train_batch_size {fits} works"
            )
        accumulation = self.gradient_accumulation_steps
        if steps % accumulation:
            raise ValueError(
                f"steps_per_generation {steps} is not a multiple of gradient_accumulation_steps {accumulation}; "
                f"{-(-steps // accumulation) * accumulation} works"
            )
        if self.loss_type == "cispo" and self.epsilon_high is None:
            raise ValueError("epsilon_high is missing: for loss_type cispo it is the cap of the ratio, 5.0 for instance")
        if self.sync_ref_model and not self.beta:
            raise ValueError("sync_ref_model needs a reference model, and with beta 0 there is none")
        if self.temperature == 0:
            raise ValueError("temperature is 0: greedy completions of a group are all the same, so nothing can be learned")
        return self


Stage = Annotated[EvalStage | SftStage | GrpoStage, Field(discriminator="kind")]
STAGE_KINDS: dict[str, type[StageConfig]] = {"eval": EvalStage, "sft": SftStage, "grpo": GrpoStage}


class Recipe(Config):
    """A whole run: its name and its stages, in order."""

    name: str = Field(pattern=RECIPE_NAME_PATTERN, description="the run directory is runs/<name>")
    seed: int = Field(42, description="seed of every stage that has none of its own")
    stages: list[Stage] = Field(min_length=1, description="what runs, in order")


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
    if len(location) > 1 and location[1] == 0 and isinstance(values.get(str(location[0])), Mapping):
        del location[1]  # one source was given where a list may stand
    if cls is Recipe and location[0] == "stages":
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
