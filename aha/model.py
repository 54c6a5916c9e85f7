"""Models: load and save Hugging Face folders, and score tokens. torch starts here."""

import contextlib
import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub.errors import HFValidationError
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import cached_file
from transformers.utils.logging import disable_progress_bar

from aha.bundled import bundled_folder, check_model
from aha.chat import PROMPT_FILE, load_prompt, save_prompt, turn_end, with_template_prefill
from aha.config import ArchitectureConfig, PromptConfig
from aha.stage_configs import StageConfig
from aha.types import UserError

CHUNK_ELEMENTS = 2**24  # logits that exist at once while scoring: 64 MB in float32
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|endoftext|>")  # of Qwen, Llama, Gemma
SCORING_CLASS = "ForSequenceClassification"  # end of the names of classes with a scalar head
SCORING_TOLERANCE = 0.05  # nats; float32 is far below, scaled logits are nats off
BFLOAT16_TOLERANCE = 0.5  # nats: logits of 32 are 0.25 apart
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

# Loading reports every missing key and slow path on stderr; what matters is raised as an error anyway.
logging.getLogger("transformers").setLevel(logging.ERROR)
disable_progress_bar()


@dataclass(frozen=True)
class Policy:
    """A model together with everything that speaking to it needs."""

    model: PreTrainedModel
    tokenizer: Any
    prompt: PromptConfig
    stop_ids: frozenset[int]
    dtype_on_disk: torch.dtype  # of the weights it was loaded from; what `save_dtype: auto` keeps

    @property
    def device(self) -> torch.device:
        return self.model.device


def default_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def compute_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of the arithmetic for a recipe's `dtype`.

    On a CPU bfloat16 pays with AMX only: with AVX512_BF16 alone, products of small matrices are slower than in float32.
    """
    if name != "auto":
        return DTYPES[name]
    native = (
        torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else torch.cpu._is_amx_tile_supported()
    )
    return torch.bfloat16 if native else torch.float32


def model_source(name: str) -> str:
    """The folder of a bundled model, or the name itself: a folder or a hub id."""
    return str(bundled_folder(name) or name)


def load_tokenizer(name: str, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a model, with a pad token."""
    source = _checked_source(name)
    tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=trust_remote_code)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_policy(cfg: StageConfig, device: torch.device, dtype: torch.dtype = torch.float32) -> Policy:
    """Load model, tokenizer, prompt settings and stop ids of `cfg.model`.

    The prompt settings are the stage's own where it has some, else those saved beside the weights, else the default.
    Raises UserError where the name is no model.
    """
    source = _checked_source(cfg.model)
    options: dict[str, Any] = {"revision": cfg.model_revision, "trust_remote_code": cfg.trust_remote_code}
    config = load_config(cfg)
    if any(name.endswith(SCORING_CLASS) for name in config.architectures or ()):
        raise UserError(f"{cfg.model} is a reward model: it marks texts and writes none")
    if cfg.attn_implementation:
        options["attn_implementation"] = cfg.attn_implementation
    with model_faults_are_user_errors(cfg.model):
        model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, use_safetensors=True, **options)
        tokenizer = load_tokenizer(cfg.model, cfg.model_revision, cfg.trust_remote_code)
    prompt = with_template_prefill(cfg.prompt or prompt_beside(source, cfg.model_revision) or PromptConfig(), tokenizer)
    switch_dropout_off(model)
    make_generation_config_valid(model)
    return Policy(model.to(device), tokenizer, prompt, stop_token_ids(model, tokenizer), config.dtype or torch.float32)


def switch_dropout_off(model: PreTrainedModel) -> None:
    """No dropout in training either: a resumed run could not repeat it, and it makes rewards and ratios noisy."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():  # which a function is given
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def make_generation_config_valid(model: PreTrainedModel) -> None:
    """Some models come with settings of sampling and do not say that they sample, which transformers loads and refuses to
    save: here it would do so at the first checkpoint. They are meant for sampling."""
    with contextlib.suppress(ValueError):
        model.generation_config.validate(strict=True)
        return
    model.generation_config.do_sample = True


def prompt_beside(source: str, revision: str | None) -> PromptConfig | None:
    """The prompt settings beside the weights of a folder or hub id; None where there are none."""
    with model_faults_are_user_errors(source):
        found = cached_file(source, PROMPT_FILE, revision=revision, _raise_exceptions_for_missing_entries=False)
    return load_prompt(Path(found).parent) if found else None


def _checked_source(name: str) -> str:
    check_model(name)
    return model_source(name)


def new_policy(
    architecture: ArchitectureConfig, tokenizer_folder: Path, prompt: PromptConfig, seed: int, attention: str | None = None
) -> Policy:
    """A model with random weights for the tokenizer in `tokenizer_folder`; `attention` is the stage's `attn_implementation`."""
    sizes = architecture.model_dump(exclude={"model_type", "vocab_size", "whole_words", "rope_theta"})
    config = AutoConfig.for_model(
        architecture.model_type,
        **sizes,
        vocab_size=0,
        head_dim=architecture.hidden_size // architecture.num_attention_heads,
        rope_parameters={"rope_type": "default", "rope_theta": architecture.rope_theta},
        tie_word_embeddings=True,
    )
    config.save_pretrained(tokenizer_folder)  # AutoTokenizer picks the tokenizer class by the model type
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    config.vocab_size = len(tokenizer)
    config.eos_token_id = config.pad_token_id = tokenizer.eos_token_id
    config.bos_token_id = None
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attention)
    model.generation_config = GenerationConfig(
        eos_token_id=[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")],
        pad_token_id=tokenizer.pad_token_id,
    )
    return Policy(model.to(default_device()), tokenizer, prompt, stop_token_ids(model, tokenizer), torch.bfloat16)


def longest(model: PreTrainedModel) -> int:
    """Tokens that a sequence may have.

    With LongRoPE (arXiv 2402.13753) as many as the model was first made for: where a text is longer, other frequencies hold for
    all texts of the batch, so that log-probabilities would depend on what else is in it.
    """
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") == "longrope":
        first = rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
        return int(first or config.max_position_embeddings)
    return int(config.max_position_embeddings)


def told_longest(model: PreTrainedModel) -> str:
    """`longest`, with the reason where the configuration of the model says more."""
    most = model.config.get_text_config().max_position_embeddings
    return str(most) if longest(model) == most else f"{longest(model)} (of {most}: beyond it LongRoPE changes the whole batch)"


def load_config(cfg: StageConfig) -> PreTrainedConfig:
    """The configuration of `cfg.model`. Raises UserError where the name is no model."""
    options: dict[str, Any] = {"revision": cfg.model_revision, "trust_remote_code": cfg.trust_remote_code}
    with model_faults_are_user_errors(cfg.model):
        return AutoConfig.from_pretrained(_checked_source(cfg.model), **options)


@contextlib.contextmanager
def model_faults_are_user_errors(name: str) -> Iterator[None]:
    """Tell in one line what transformers says where `name` is no model or wants what is not installed."""
    try:
        yield
    except (OSError, ValueError, ImportError, HFValidationError) as error:
        raise UserError(f"{name} is no model that can be loaded: {str(error).strip().splitlines()[0]}") from error


def stop_token_ids(model: PreTrainedModel, tokenizer: Any) -> frozenset[int]:
    """Every id that ends a completion: base models often have two, one for the text and one for the turn."""
    configured = model.generation_config.eos_token_id
    ids = set(configured if isinstance(configured, list) else [configured]) | {tokenizer.eos_token_id}
    vocabulary = tokenizer.get_vocab()
    ids |= {vocabulary[token] for token in (*TURN_ENDS, turn_end(tokenizer)) if token in vocabulary}
    return frozenset(i for i in ids if i is not None)


def save_policy(policy: Policy, folder: Path, dtype: torch.dtype) -> None:
    """Write a plain Hugging Face folder: weights (safetensors, in `dtype`), configuration, tokenizer, prompt settings."""
    model = policy.model
    parameters = dict(model.named_parameters())  # a tied head is not among them: it is saved once, as the embedding
    tied = dict(model.named_parameters(remove_duplicate=False)).keys() - parameters.keys()
    # What is no parameter keeps its dtype, as in memory: DeepSeek-V3's bias of the experts is float32.
    state = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
    tensors = {name: tensor.to(dtype) if name in parameters else tensor for name, tensor in state.items()}
    config = copy.deepcopy(model.config)
    config.dtype = dtype
    config.architectures = [type(model).__name__]  # not that of the base, which a reward model was made from
    model.generation_config.eos_token_id = sorted(policy.stop_ids)  # so that every engine stops where ours does
    model.save_pretrained(folder, state_dict=tensors)
    config.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    save_prompt(folder, policy.prompt)


def saved_dtype(name: str, policy: Policy) -> torch.dtype:
    """The dtype of `model/` for a recipe's `save_dtype`."""
    return policy.dtype_on_disk if name == "auto" else DTYPES[name]


def round_parameters(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Round the parameters to what `dtype` can hold, as saving in it does. Buffers are saved as they are."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(dtype))


@dataclass(frozen=True)
class Batch:
    """Sequences padded on the right; causal attention never looks at the padding, so no mask is needed.

    Example: rows ([5, 6], [7]) and ([5], [8, 9]) -> input_ids_BT [[5, 6, 7], [5, 8, 9]], mask_BT [[0, 0, 1], [0, 1, 1]]
    """

    input_ids_BT: Tensor
    mask_BT: Tensor  # bool; the tokens that are scored: those of the completion
    position_ids_BT: Tensor | None = None  # where rows hold several texts: each starts at 0 and sees itself only


def collate(rows: Sequence[tuple[Sequence[int], Sequence[int]]], pad_id: int, device: torch.device) -> Batch:
    """Turn (context ids, scored ids) pairs into one padded batch. The very first token of a sequence is never scored."""
    width = max(len(context) + len(scored) for context, scored in rows)
    input_ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.bool)
    for i, (context, scored) in enumerate(rows):
        ids = [*context, *scored]
        input_ids[i, : len(ids)] = torch.tensor(ids)
        mask[i, max(len(context), 1) : len(ids)] = True
    return Batch(input_ids.to(device), mask.to(device))


def align(values: Sequence[Sequence[float]], batch: Batch) -> Tensor:
    """Spread one list of per-token values per row over the scored positions of `batch`; zero elsewhere. Shape (B, T)."""
    aligned = torch.zeros(batch.mask_BT.shape, device=batch.mask_BT.device)
    aligned[batch.mask_BT] = torch.tensor([v for row in values for v in row], device=aligned.device)
    return aligned


def microbatches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Indices of sequences, sorted by length and cut so that no micro-batch exceeds `max_tokens` with its padding."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    for i in order:
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= max_tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Matrix products in bfloat16 where `dtype` is that; the weights stay as they are."""
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)


def token_logps(model: PreTrainedModel, batch: Batch, temperature: float, dtype: torch.dtype) -> Tensor:
    """Log-probability of every scored token under softmax(logits / temperature): (B, T) in nats, zero elsewhere.

    Logits are computed at the scored positions only, in chunks that are recomputed in the backward pass, so the
    (tokens x vocabulary) matrix never exists whole.
    """
    return _score_tokens(model, batch, temperature, dtype, _logps)[0]


def check_scoring(policy: Policy, dtype: torch.dtype) -> None:
    """Raise UserError where the model does more to its logits than the head and a cap: `token_logps` would be wrong.

    `dtype` is that of training: flash attention takes no float32.
    """
    ids = list(range(min(8, policy.model.config.get_text_config().vocab_size)))
    was_training = policy.model.training
    policy.model.eval()
    with torch.no_grad():
        batch = collate([(ids[:1], ids[1:])], 0, policy.device)
        ours = token_logps(policy.model, batch, 1.0, dtype)[0, 1:]
        with autocast(policy.device, dtype):
            logits = policy.model(batch.input_ids_BT).logits[0, :-1].float().log_softmax(dim=-1)
        theirs = logits.gather(-1, batch.input_ids_BT[0, 1:, None])[:, 0]
    policy.model.train(was_training)
    if (ours - theirs).abs().max() > scoring_tolerance(dtype):
        kind = policy.model.config.model_type
        raise UserError(f"models of class {kind} scale their logits in a way that training here does not know")


def scoring_tolerance(dtype: torch.dtype) -> float:
    """How far two ways to the same log-probability may be apart, in nats."""
    return BFLOAT16_TOLERANCE if dtype == torch.bfloat16 else SCORING_TOLERANCE


def token_logps_and_entropies(
    model: PreTrainedModel, batch: Batch, temperature: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """`token_logps`, and the entropy in nats of the distribution that each scored token was drawn from: (B, T) each."""
    logp_BT, entropy_BT = _score_tokens(model, batch, temperature, dtype, _logps_and_entropies)
    return logp_BT, entropy_BT


def _score_tokens(
    model: PreTrainedModel, batch: Batch, temperature: float, dtype: torch.dtype, score: Callable[..., tuple[Tensor, ...]]
) -> list[Tensor]:
    """`score` of every scored token's logits and id, spread over (B, T)."""
    mask_BT, device = batch.mask_BT, batch.mask_BT.device
    head, cap = model.get_output_embeddings(), getattr(model.config.get_text_config(), "final_logit_softcapping", None)

    def score_chunk(hidden_ND: Tensor, targets_N: Tensor) -> tuple[Tensor, ...]:
        logits_NV = head(hidden_ND)
        if cap:
            logits_NV = cap * torch.tanh(logits_NV / cap)
        logits_NV = logits_NV.float()
        return score(logits_NV if temperature == 1 else logits_NV / temperature, targets_N)

    with autocast(device, dtype):
        # Without attention mask and cache, transformers finds the borders of packed texts in the position ids.
        hidden_BTD = model.base_model(batch.input_ids_BT, position_ids=batch.position_ids_BT, use_cache=False).last_hidden_state
        hidden_ND = hidden_BTD[:, :-1][mask_BT[:, 1:]]
        targets_N = batch.input_ids_BT[mask_BT]
        size = max(1, CHUNK_ELEMENTS // head.weight.shape[0])
        chunks = list(zip(hidden_ND.split(size), targets_N.split(size), strict=True))
        recompute = torch.is_grad_enabled() and len(chunks) > 1
        scores = [
            checkpoint(score_chunk, *chunk, use_reentrant=False) if recompute else score_chunk(*chunk) for chunk in chunks
        ]
    empty_BT = torch.zeros(mask_BT.shape, device=device)
    return [empty_BT.masked_scatter(mask_BT, torch.cat(parts)) for parts in zip(*scores, strict=True)]


def _logps(logits_NV: Tensor, targets_N: Tensor) -> tuple[Tensor]:
    return (-F.cross_entropy(logits_NV, targets_N, reduction="none"),)


def _logps_and_entropies(logits_NV: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    logp_NV = logits_NV.log_softmax(dim=-1)
    return logp_NV.gather(-1, targets_N[:, None])[:, 0], -(logp_NV.exp() * logp_NV).sum(dim=-1)
