"""Supervised training: next-token prediction on prompt and completion.

    loss = - sum over learned tokens of log p(token | what stands before it) / number of learned tokens

The denominator is counted once per optimiser step, so any split into micro-batches gives the same gradient.
`init: scratch` builds a tokenizer from the data and starts from random weights: that is how the tiny base is made.
"""

import math
import tempfile
import time
from pathlib import Path

from aha.chat import encode_prompts, render
from aha.config import PromptConfig, SftStage
from aha.data.mixture import load_text_mixture
from aha.log import StageLog
from aha.model import (
    Policy,
    collate,
    compute_dtype,
    default_device,
    load_policy,
    microbatches,
    new_policy,
    save_policy,
    saved_dtype,
    token_logps,
)
from aha.rundir import StageDir, atomic_folder
from aha.tokenizer import build_tokenizer
from aha.training import (
    TrainerState,
    build_optimizers,
    indices_of_step,
    learning_rate,
    make_deterministic,
    resume_training,
    save_checkpoint,
    update,
)
from aha.types import UserError

TOKENIZER_ROWS = 4000  # rows that a new tokenizer is trained on

Row = tuple[list[int], list[int]]  # context ids, learned ids


def run(cfg: SftStage, stage: StageDir, log: StageLog) -> dict[str, float]:
    """Train, resume where a checkpoint stands, write `model/`; returns the last metrics."""
    make_deterministic()
    device = default_device()
    dtype = compute_dtype(cfg.dtype, device)
    texts = load_text_mixture(cfg.data, cfg.seed)
    policy = _from_scratch(cfg, texts) if cfg.init == "scratch" else load_policy(cfg, device)
    if cfg.gradient_checkpointing:
        policy.model.activation_checkpointing_enable()
    rows = encode(texts, policy, cfg)
    if not rows:
        raise UserError(f"{cfg.name}: no row has anything to learn within max_length {cfg.max_length}")
    total = cfg.max_steps if cfg.max_steps > 0 else math.ceil(len(rows) * cfg.num_train_epochs / cfg.sequences_per_step)
    optimizers = build_optimizers(policy.model, cfg)
    state = resume_training(stage, policy, optimizers)
    metrics: dict[str, float] = {}

    policy.model.train()
    log.start(total, state.step, rows=len(rows), rows_dropped=len(texts) - len(rows))
    for step in range(state.step, total):
        started = time.perf_counter()
        batch = [rows[i] for i in indices_of_step(step, cfg.sequences_per_step, len(rows), cfg.seed)]
        num_learned = sum(len(learned) - (not context) for context, learned in batch)
        loss_sum = 0.0
        for chosen in microbatches([len(context) + len(learned) for context, learned in batch], cfg.max_tokens_per_microbatch):
            micro = collate([batch[i] for i in chosen], policy.tokenizer.pad_token_id, device)
            logp_BT = token_logps(policy.model, micro, temperature=1.0, dtype=dtype)
            loss = -logp_BT.sum() / num_learned
            loss.backward()
            loss_sum += loss.item()
        rate = learning_rate(cfg, step, total)
        grad_norm = update(policy.model, optimizers, rate, cfg.max_grad_norm)

        seconds = time.perf_counter() - started
        metrics = {
            "loss": loss_sum,
            "grad_norm": grad_norm,
            "learning_rate": rate,
            "num_tokens": num_learned,
            "speed/train_tokens_per_second": num_learned / seconds,
            "step_time": seconds,
        }
        if (step + 1) % cfg.logging_steps == 0 or step + 1 == total:
            log.step(step + 1, metrics)
        if cfg.save_steps and (step + 1) % cfg.save_steps == 0 and step + 1 < total:
            save_checkpoint(stage, TrainerState(step + 1), policy, optimizers, cfg.save_total_limit)

    with atomic_folder(stage.model) as folder:
        save_policy(policy, folder, saved_dtype(cfg.save_dtype, policy))
    return {key: metrics[key] for key in ("loss",) if key in metrics}


def encode(texts: list[dict[str, str]], policy: Policy, cfg: SftStage) -> list[Row]:
    """Token ids of every row: the rendered prompt, then completion and end of text. Cut at `max_length`."""
    tokenizer = policy.tokenizer
    rendered = [render(text["prompt"], policy.prompt, tokenizer) for text in texts]
    contexts = encode_prompts(rendered, policy.prompt, tokenizer)
    # A completion that begins as the prefilled turn does would hold that beginning twice.
    learned_texts = [text["completion"].removeprefix(policy.prompt.prefill) for text in texts]
    completions = tokenizer(learned_texts, add_special_tokens=False).input_ids
    rows = []
    for context, completion in zip(contexts, completions, strict=True):
        learned = [*completion, tokenizer.eos_token_id]
        if not cfg.completion_only_loss:
            context, learned = context[:1], context[1:] + learned
        rows.append((context, learned[: max(0, cfg.max_length - len(context))]))
    return [row for row in rows if row[1]]


def _from_scratch(cfg: SftStage, texts: list[dict[str, str]]) -> Policy:
    prompt = cfg.prompt or PromptConfig()
    tags = [f"<{slash}{tag}>" for tag in (prompt.think, prompt.answer) for slash in ("", "/")]
    sample = (render(text["prompt"], prompt, None) + text["completion"] for text in texts[:TOKENIZER_ROWS])
    with tempfile.TemporaryDirectory() as folder:
        build_tokenizer(sample, cfg.architecture.vocab_size, tags, Path(folder))
        return new_policy(cfg.architecture, Path(folder), prompt, cfg.seed)
