"""Stages: what each kind of stage may say in a recipe, and what it defaults to."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from aha.bundled import DEFAULT_MODEL
from aha.config import (
    DIRECT_TEMPLATE,
    EXAMPLE_TEMPLATE,
    FEW_SHOT_TEMPLATE,
    NAME_PATTERN,
    RECIPE_NAME_PATTERN,
    AnySources,
    ArchitectureConfig,
    Config,
    DataConfig,
    EvalConfig,
    ExampleConfig,
    HeldOutConfig,
    NamedConfig,
    PromptConfig,
    RewardConfig,
    RewriteConfig,
    ServerConfig,
    Sources,
    check_template,
)


class StageConfig(Config):
    """What every stage has."""

    name: str = Field(pattern=NAME_PATTERN, description="name of the stage and of its directory")
    kind: str = Field(description="the verb: eval, sft, grpo, sample or reward_model")
    seed: int = Field(42, description="seed of everything random in the stage; default: that of the recipe")
    model: str = Field(DEFAULT_MODEL, description="bundled name, folder, hub id, or ${stage.model}")
    model_revision: str | None = Field(None, description="branch, tag or commit of a hub id")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="of the arithmetic; master weights are float32 in training. auto: bfloat16 on GPUs that multiply it "
        "natively and on CPUs with AMX, else float32",
    )
    attn_implementation: str | None = Field(None, description="attention of transformers in training: sdpa, eager, ...")
    trust_remote_code: bool = Field(False, description="run code that comes with a hub model")
    prompt: PromptConfig | None = Field(None, description="default: the settings saved beside the model, else template r1")

    @property
    def sources(self) -> list[str]:
        """Every data source that the stage reads."""
        return [cfg.source for cfg in _data_inside(self)]

    @property
    def initial_model(self) -> str | None:
        """The model that the stage loads; None where it begins from random weights or asks a server."""
        return self.model


def _data_inside(value: Any) -> Iterator[DataConfig]:
    """Every data source at any depth of a configuration."""
    if isinstance(value, DataConfig):
        yield value
    elif isinstance(value, Config):
        for name in type(value).model_fields:
            yield from _data_inside(getattr(value, name))
    elif isinstance(value, list):
        for inner in value:
            yield from _data_inside(inner)


class DecodingConfig(Config):
    """How completions are drawn."""

    max_prompt_length: int | None = Field(
        None, ge=1, description="tokens; longer prompts are dropped and counted, but for those of eval"
    )
    max_num_seqs: int = Field(256, ge=1, description="rows that the native engine decodes at once")

    max_completion_length: int = Field(256, ge=1, description="tokens, the stop token included")
    temperature: float = Field(1.0, ge=0, description="of the sampling distribution; 0 is greedy")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus: the likeliest tokens that hold this mass; 1 keeps all")
    top_k: int = Field(0, ge=0, description="only the k likeliest tokens; 0 keeps all")
    min_p: float = Field(0.0, ge=0, le=1, description="drop tokens below this share of the likeliest one; 0 keeps all")


class SamplingConfig(DecodingConfig):
    """How completions are drawn, in training and in evaluation."""

    eval: EvalConfig = Field(EvalConfig(), description="what the stage is measured on")

    @model_validator(mode="after")
    def _asks_for_different_answers(self) -> "SamplingConfig":
        temperature = self.temperature if self.eval.temperature is None else self.eval.temperature
        if temperature == 0 and self.eval.num_generations > 1:
            raise ValueError(
                f"eval.num_generations is {self.eval.num_generations} at temperature 0: greedy answers to a problem "
                "are all the same, so 1 will do"
            )
        return self


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

    @field_validator("warmup_steps")
    @classmethod
    def _share_or_steps(cls, value: float) -> float:
        if value >= 1 and value != int(value):
            raise ValueError(f"warmup_steps is {value}: want a share below 1, or a whole number of steps")
        return value

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


class SftStage(StageConfig, SamplingConfig, TrainingConfig):
    """Supervised training on prompt and completion, or on conversations."""

    kind: Literal["sft"]
    data: Sources = Field(description="rows of prompt and completion, or of messages; a list of sources is mixed")
    init: Literal["model", "scratch"] = Field("model", description="start from `model`, or from random weights")
    architecture: ArchitectureConfig = Field(ArchitectureConfig(), description="sizes of a model from scratch")
    completion_only_loss: bool = Field(True, description="learn what the assistant says only, or the prompt too")
    max_length: int = Field(1024, ge=2, description="tokens; longer rows are cut")
    packing: bool = Field(
        False,
        description="put the rows of a step into sequences of at most max_length tokens, in which none sees another: the same "
        "result, faster with flash attention; on the CPU sorting by length alone is as fast or faster",
    )
    eval_data: AnySources = Field([], description="texts like those of `data`, whose loss per learned token is eval_loss")
    eval_steps: int = Field(0, ge=0, description="compute eval_loss every so many steps too; 0: only at the end")
    load_best_model_at_end: bool = Field(False, description="save the weights with the lowest eval_loss, not the last ones")

    @property
    def initial_model(self) -> str | None:
        return self.model if self.init == "model" else None

    @model_validator(mode="after")
    def _has_a_best(self) -> "SftStage":
        if self.load_best_model_at_end and not (self.eval_data and self.eval_steps):
            raise ValueError("load_best_model_at_end chooses by eval_loss: it needs eval_data and eval_steps")
        return self


class GrpoStage(StageConfig, SamplingConfig, TrainingConfig):
    """Group relative policy optimisation (arXiv 2402.03300; R1: arXiv 2501.12948, section 2)."""

    kind: Literal["grpo"]
    data: Sources = Field(description="problems to train on; a list of sources is mixed")
    rewards: list[RewardConfig] = Field(
        [], description="components of the reward; none only with a teacher_model: training then grades nothing"
    )
    num_generations: int = Field(8, description="completions per prompt, the G of GRPO; without rewards 1 will do")
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
    use_bias_correction_kl: bool = Field(
        True, description="weigh the KL term of every token by its ratio, which makes its gradient that of the reverse KL"
    )
    epsilon: float = Field(0.2, ge=0, description="the ratio is clipped below 1 - epsilon")
    epsilon_high: float | None = Field(
        None, ge=0, description="and above 1 + epsilon_high; default: epsilon. For cispo the cap itself, such as 5.0"
    )
    entropy_coef: float = Field(0.0, ge=0, description="coefficient of the bonus for the mean entropy of the tokens")
    teacher_model: str | None = Field(
        None,
        description="on-policy distillation: bundled name, folder, hub id, or ${stage.model} of a model with the tokenizer of "
        "`model`, towards which every token is pulled",
    )
    teacher_model_revision: str | None = Field(None, description="branch, tag or commit of a hub id")
    teacher_coef: float = Field(
        1.0, gt=0, description="coefficient of log pi_teacher - log pi_old in the advantage of every token"
    )
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
    save_rollouts_steps: int = Field(10, ge=0, description="write all rollouts every so many steps; 0: never")

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
    def _has_a_signal(self) -> "GrpoStage":
        if not self.rewards and self.teacher_model is None:
            raise ValueError("rewards is empty: name at least one, or a teacher_model to learn from instead")
        if not self.rewards and self.dynamic_sampling_rounds:
            raise ValueError("dynamic_sampling_rounds goes by the grader's verdict, and without rewards nothing is graded")
        if self.num_generations < (2 if self.rewards else 1):
            raise ValueError(
                f"num_generations is {self.num_generations}: an advantage relative to the group needs at least 2 completions; "
                "without rewards 1 will do"
            )
        return self

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


class RewardModelStage(StageConfig, TrainingConfig):
    """A scalar head on a language model learns which replies people prefer (arXiv 2501.12948, section 2.3.4)."""

    kind: Literal["reward_model"]
    data: Sources = Field(description="rows of chosen and rejected, or for pointwise also of completion and label")
    eval: HeldOutConfig = Field(HeldOutConfig(), description="what the reward model is measured on")
    loss_type: Literal["pairwise", "pointwise"] = Field(
        "pairwise", description="the chosen reply above the rejected one (Bradley-Terry), or every reply good or bad by itself"
    )
    center_rewards_coefficient: float = Field(
        0.0, ge=0, description="of pairwise: pulls the mean of a pair's two rewards towards 0 (arXiv 2312.09244, equation 2)"
    )
    learning_rate: float = Field(1e-4, gt=0, description="peak learning rate")
    max_length: int = Field(1024, ge=2, description="tokens; rows with a longer conversation are dropped and counted")

    @model_validator(mode="after")
    def _centre_is_of_pairs(self) -> "RewardModelStage":
        if self.center_rewards_coefficient and self.loss_type == "pointwise":
            raise ValueError("center_rewards_coefficient is for loss_type pairwise; pointwise fixes the level by itself")
        return self


class SampleStage(StageConfig, DecodingConfig):
    """Traces: several answers to each problem, graded, refined, filtered (R1: arXiv 2501.12948, sections 2.3.1 and 2.3.3)."""

    kind: Literal["sample"]
    data: Sources = Field(description="problems to answer; a list of sources is mixed")
    rewards: list[RewardConfig] = Field(
        [], description="graders, as in grpo, at any step; none: the reward is 1 for what the problem's own grader calls solved"
    )
    num_generations: int = Field(4, ge=1, description="answers per problem")
    prompts_per_part: int = Field(
        256, ge=1, description="problems that are answered, graded and saved together; a stage that resumes keeps whole parts"
    )
    engine: Literal["native", "server"] = Field("native", description="who answers: `model`, in this process, or a server")
    server: ServerConfig | None = Field(None, description="with engine: server")
    ask: Literal["as_trained", "few_shot", "direct"] = Field(
        "as_trained",
        description="as_trained: the question in the prompt settings; few_shot, direct: the filled `template` in its place. "
        "Without settings in the stage these two take the tokenizer's chat template, or none where it has none",
    )
    template: str | None = Field(
        None,
        description="of few_shot, with {examples}, {question} and, if wanted, {delimiter}; of direct, with {question} and, if "
        "wanted, {think} and {answer} for the names of the tags",
    )
    examples: str | list[ExampleConfig] = Field(
        [], description="of few_shot: a YAML, JSON lines or other data file, or a list, of {question, reasoning, summary}"
    )
    example_template: str = Field(
        EXAMPLE_TEMPLATE, description="one example, with {question}, {reasoning}, {summary} and {delimiter}"
    )
    delimiter: str = Field(
        "<|special_token|>",
        min_length=1,
        description="of few_shot: an answer `delimiter reasoning delimiter summary` is read as thoughts and answer",
    )
    stop: list[str] = Field([], description="texts that an answer ends before, such as the next question of a few-shot prompt")
    refine: list[NamedConfig] = Field([], description="refinements of every answer, in order")
    filters: list[NamedConfig] = Field(
        [NamedConfig(name=name) for name in ("finished", "correct", "well_formed", "single_language", "repetition")],
        description="what a trace has to pass, in order; []: everything passes",
    )
    deduplicate: bool = Field(True, description="of traces of a problem that are the same but for white space keep the first")
    decontaminate: AnySources = Field(
        [], description="evaluation problems: traces whose question has eight words in a row of one of theirs are dropped"
    )
    num_best: int | None = Field(None, ge=1, description="keep so many traces of a problem")
    rank_by: Literal["reward", "shortest", "longest", "random"] = Field("reward", description="which ones; ties are drawn")
    shares: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {}, description="weight of every task: traces of tasks that have more than their share are dropped, drawn by the seed"
    )
    max_traces: int | None = Field(None, ge=1, description="keep so many traces at the most, drawn by the seed")
    rewrite: RewriteConfig | None = Field(None, description="let a stronger model rewrite what is kept")
    review: bool = Field(
        False, description="stop with a review.csv whose column `keep` people fill in; run again to go on with what they keep"
    )

    @property
    def sources(self) -> list[str]:
        """Every data source that the stage reads, and the file of its examples."""
        return [*super().sources, *([self.examples] if isinstance(self.examples, str) else [])]

    @property
    def initial_model(self) -> str | None:
        return self.model if self.server is None else None

    @property
    def wording(self) -> str:
        """The template of `ask`."""
        return self.template or {"as_trained": "{question}", "few_shot": FEW_SHOT_TEMPLATE, "direct": DIRECT_TEMPLATE}[self.ask]

    @model_validator(mode="after")
    def _asks_in_one_way(self) -> "SampleStage":
        if self.temperature == 0 and self.num_generations > 1:
            raise ValueError("temperature is 0: all answers to a problem would be the same, so num_generations is 1")
        if self.ask == "few_shot":
            check_template(self.wording, {"examples", "question", "delimiter"}, {"examples", "question"})
            check_template(self.example_template, {"question", "reasoning", "summary", "delimiter"}, {"question", "reasoning"})
            if not self.examples:
                raise ValueError("examples is empty: ask: few_shot shows at least one")
            if self.prompt and self.prompt.prefill.strip() not in ("", self.delimiter):
                raise ValueError("prompt.prefill must be empty or the delimiter: few_shot answers begin with the delimiter")
        elif self.ask == "direct":
            check_template(self.wording, {"question", "think", "answer"}, {"question"})
        elif self.template is not None:
            raise ValueError("template is for ask: few_shot or direct; as_trained takes the prompt settings")
        return self

    @model_validator(mode="after")
    def _server_can_be_asked(self) -> "SampleStage":
        if (self.engine == "server") != (self.server is not None):
            what = "missing" if self.server is None else "for engine: server"
            raise ValueError(f"engine is {self.engine}: `server` is {what}")
        if self.server is None:
            return self
        if self.max_prompt_length is not None:
            raise ValueError("max_prompt_length counts tokens, and a server is sent text; leave it out")
        if self.prompt and self.server.api == "chat" and (self.prompt.template == "r1" or self.prompt.prefill):
            raise ValueError(
                "prompt: a chat server begins the answer by itself, so template is chat or r1-chat and prefill empty; "
                "server.api: completions continues a text"
            )
        if self.prompt and self.server.api == "completions" and self.prompt.template in ("chat", "r1-chat"):
            raise ValueError(f"prompt.template {self.prompt.template} needs server.api: chat; completions wants r1 or plain")
        return self


Stage = Annotated[EvalStage | SftStage | GrpoStage | SampleStage | RewardModelStage, Field(discriminator="kind")]


STAGE_KINDS: dict[str, type[StageConfig]] = {
    "eval": EvalStage,
    "sft": SftStage,
    "grpo": GrpoStage,
    "sample": SampleStage,
    "reward_model": RewardModelStage,
}


class Recipe(Config):
    """A whole run: its name and its stages, in order."""

    name: str = Field(pattern=RECIPE_NAME_PATTERN, description="the run directory is runs/<name>")
    seed: int = Field(42, description="seed of every stage that has none of its own")
    stages: list[Stage] = Field(min_length=1, description="what runs, in order")
