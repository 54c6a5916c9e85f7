"""Reward models: load one, turn conversations into tokens, score them. Training and the reward share all of it.

A reward model is a plain Hugging Face folder of a class `...ForSequenceClassification` with one label, as TRL's
RewardTrainer writes it too: a language model with a linear head that reads one number off the last token.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, GenerationConfig, PreTrainedModel

from aha.chat import apply_chat_template
from aha.config import PromptConfig, RewardConfig
from aha.model import (
    SCORING_CLASS,
    Policy,
    load_config,
    load_tokenizer,
    longest,
    microbatches,
    model_faults_are_user_errors,
    model_source,
    prompt_beside,
    switch_dropout_off,
)
from aha.rewards.base import Scorer, Text
from aha.stage_configs import StageConfig
from aha.types import UserError

SCORING_TOKENS = 16_384  # in one forward pass, padding included
STAND_IN = "REPLY"
SPEAKERS = {"user": "Human", "assistant": "Assistant", "system": "System"}


def load_scorers(rewards: Sequence[RewardConfig], device: torch.device, dtype: torch.dtype) -> dict[str, Scorer]:
    """A scorer for each reward model that the rewards of a recipe name, by that name; one that two use is loaded once."""
    names = []
    for cfg in rewards:
        if cfg.name == "reward_model":
            if not isinstance(cfg.args.get("model"), str):
                raise UserError(f"reward {cfg.key}: args.model is missing: the folder or hub id of a reward model")
            names.append(cfg.args["model"])
    return {name: load_scorer(name, device, dtype) for name in dict.fromkeys(names)}


def load_scorer(name: str, device: torch.device, dtype: torch.dtype) -> Scorer:
    """A function from (prompt, reply) pairs to raw rewards. Raises UserError where `name` is no reward model."""
    model, tokenizer, missing = _load(name, device, dtype)
    if missing or model.config.num_labels != 1:
        why = f"{sorted(missing)[0]} is missing" if missing else f"it has {model.config.num_labels} labels, want 1"
        raise UserError(f"{name} is no reward model: {why}; a stage of kind reward_model trains one")

    def score_replies(replies: Sequence[tuple[Text, str]]) -> list[float]:
        return score(model, encode(replies, tokenizer))

    return score_replies


def load_reward_model(cfg: StageConfig, device: torch.device) -> Policy:
    """The model to train: `cfg.model` with its scalar head or, where it has none, a new one drawn by the stage's seed.

    Raises UserError where the name is no model, or one that tells several labels apart.
    """
    options: dict[str, Any] = {"revision": cfg.model_revision, "trust_remote_code": cfg.trust_remote_code}
    if cfg.attn_implementation:
        options["attn_implementation"] = cfg.attn_implementation
    config = load_config(cfg)
    has_head = any(name.endswith(SCORING_CLASS) for name in config.architectures or ())
    if has_head and config.num_labels != 1:
        raise UserError(f"{cfg.model} is no reward model: it has {config.num_labels} labels, want 1")
    torch.manual_seed(cfg.seed)
    model, tokenizer, _ = _load(cfg.model, device, torch.float32, num_labels=1, **options)
    switch_dropout_off(model)
    model.generation_config = GenerationConfig()  # which `save_policy` fills for models that speak
    prompt = cfg.prompt or prompt_beside(model_source(cfg.model), cfg.model_revision) or PromptConfig()
    return Policy(model, tokenizer, prompt, frozenset(), config.dtype or torch.float32)


def _load(name: str, device: torch.device, dtype: torch.dtype, **options: Any) -> tuple[PreTrainedModel, Any, set[str]]:
    """Model, tokenizer, and the names of the weights that the folder lacks."""
    with model_faults_are_user_errors(name):
        tokenizer = load_tokenizer(name, options.get("revision"), options.get("trust_remote_code", False))
        model, info = AutoModelForSequenceClassification.from_pretrained(
            model_source(name), dtype=dtype, use_safetensors=True, output_loading_info=True, **options
        )
    config = model.config.get_text_config()
    if config.pad_token_id is None:  # by which the class finds the last token
        config.pad_token_id = tokenizer.pad_token_id
    return model.to(device), tokenizer, set(info["missing_keys"])


def conversation_text(prompt: Text, reply: str, tokenizer: Any) -> str:
    """A conversation as a reward model reads it; the reply stands in it letter for letter, without white space around
    it and without special tokens.

    With the chat template of the tokenizer, into which the reply is put afterwards: templates of reasoning models drop the
    thoughts of a reply. Where there is none, the turns are told as in HH-RLHF ("\\n\\nHuman: ...\\n\\nAssistant: ...") and
    an end of text follows.
    """
    messages: list[Mapping[str, str]] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    messages.append({"role": "assistant", "content": STAND_IN})
    if tokenizer.chat_template:
        text = apply_chat_template(messages, tokenizer, add_generation_prompt=False)
    else:
        turns = (f"\n\n{SPEAKERS.get(message['role'], message['role'])}: {message['content']}" for message in messages)
        text = "".join(turns) + (tokenizer.eos_token or "")
    before, _, after = text.rpartition(STAND_IN)
    return before + without_marks(reply, tokenizer).strip() + after


def without_marks(reply: str, tokenizer: Any) -> str:
    """A reply without texts that the tokenizer would read as special tokens: a policy could end its turn with them, invent
    another one and be scored on that."""
    marks = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    while found := [mark for mark in marks if mark in reply]:  # what is left may make up another one
        for mark in found:
            reply = reply.replace(mark, "")
    return reply


def encode(replies: Sequence[tuple[Text, str]], tokenizer: Any) -> list[list[int]]:
    """Token ids of conversations. A chat template writes its own start of text, so none is added to it."""
    texts = [conversation_text(prompt, reply, tokenizer) for prompt, reply in replies]
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=not tokenizer.chat_template).input_ids if texts else []
    return ids


def rewards_of(model: PreTrainedModel, ids: Sequence[Sequence[int]]) -> Tensor:
    """The raw rewards of conversations of any length: (N,) in float32."""
    width, pad_id = max(map(len, ids)), model.config.get_text_config().pad_token_id
    input_ids_NT = torch.full((len(ids), width), pad_id, dtype=torch.long)
    mask_NT = torch.zeros((len(ids), width), dtype=torch.long)
    for i, row in enumerate(ids):
        input_ids_NT[i, : len(row)] = torch.tensor(row)
        mask_NT[i, : len(row)] = 1
    device = model.device
    logits_N1: Tensor = model(input_ids_NT.to(device), attention_mask=mask_NT.to(device), use_cache=False).logits
    return logits_N1[:, 0].float()


def score(model: PreTrainedModel, ids: Sequence[Sequence[int]]) -> list[float]:
    """Raw rewards without gradient, in batches of like length. Of a conversation that the model cannot hold the end counts."""
    limit = longest(model)
    kept = [row[-limit:] for row in ids]
    rewards = [0.0] * len(kept)
    with torch.no_grad():
        for chosen in microbatches([len(row) for row in kept], SCORING_TOKENS):
            for i, reward in zip(chosen, rewards_of(model, [kept[i] for i in chosen]).tolist(), strict=True):
                rewards[i] = reward
    return rewards
