"""Supervised training: next-token prediction on what the assistant says.

    loss = - sum over learned tokens of log p(token | what stands before it) / number of learned tokens

The denominator is counted once per optimiser step, so any split into micro-batches gives the same gradient.
`init: scratch` builds a tokenizer from the data and starts from random weights: that is how the tiny base is made.
"""

import json
import math
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from aha.chat import turn_end
from aha.config import PromptConfig
from aha.data.mixture import load_text_mixture
from aha.data.vocabulary import whole_words
from aha.engine.native import NativeEngine
from aha.log import StageLog
from aha.metrics import Measure
from aha.model import (
    Policy,
    check_scoring,
    compute_dtype,
    default_device,
    load_policy,
    longest,
    new_policy,
    save_policy,
    token_logps,
)
from aha.rollout import load_eval_prompts, measure_policy
from aha.rundir import StageDir, atomic_folder
from aha.stage_configs import SftStage
from aha.stop import STOP
from aha.texts import Example, batches, check_packing, encode, pieces_of
from aha.tokenizer import CHAT_TEMPLATE, END_OF_TEXT, SPECIAL_TOKENS, build_tokenizer
from aha.training import (
    TrainerState,
    build_optimizers,
    indices_of_step,
    is_due,
    learning_rate,
    load_weights,
    make_deterministic,
    resume_training,
    save_checkpoint,
    save_model,
    update,
)
from aha.types import UserError

TOKENIZER_ROWS = 8000  # rows that a new tokenizer is trained on
BEST_FILE = "best.json"  # in checkpoints/best: the step and its eval_loss


def run(cfg: SftStage, stage: StageDir, log: StageLog) -> dict[str, Measure | float]:
    """Train, resume where a checkpoint stands, write `model/`; returns the last losses and the final evaluation."""
    make_deterministic()
    device = default_device()
    dtype = compute_dtype(cfg.dtype, device)
    texts = load_text_mixture(cfg.data, cfg.seed)
    policy = from_scratch(cfg, texts) if cfg.init == "scratch" else load_policy(cfg, device)
    if cfg.gradient_checkpointing:
        policy.model.activation_checkpointing_enable()
    check_scoring(policy, dtype)
    if cfg.packing:
        check_packing(policy, dtype)
    limit = min(cfg.max_length, longest(policy.model))
    examples = encode(texts, policy, limit, cfg.completion_only_loss)
    if not examples:
        raise UserError(f"{cfg.name}: no row has anything to learn within max_length {limit}")
    eval_texts = load_text_mixture(cfg.eval_data, cfg.seed)
    eval_examples = encode(eval_texts, policy, limit, cfg.completion_only_loss)
    if eval_texts and not eval_examples:
        raise UserError(f"{cfg.name}: no row of eval_data has anything to learn within max_length {limit}")
    eval_prompts = load_eval_prompts(cfg, policy)
    engine = NativeEngine(policy.model, policy.stop_ids, dtype, cfg.max_num_seqs) if eval_prompts else None
    total = cfg.max_steps
    if total < 0:
        total = math.ceil(len(examples) * cfg.num_train_epochs / cfg.sequences_per_step)
    optimizers = build_optimizers(policy.model, cfg)
    state = resume_training(stage, policy, optimizers, total)
    metrics: dict[str, float] = {}

    policy.model.train()
    num_cut = sum(example.is_cut for example in examples)
    log.start(total, state.step, rows=len(examples), rows_dropped=len(texts) - len(examples), rows_cut=num_cut)
    if num_cut:
        what = f"max_length {limit}" if limit == cfg.max_length else f"the {limit} tokens that the model holds"
        log.note(f"rows longer than {what} are cut: their answers and ends of turn are not learned")
    if policy.prompt.template in ("r1", "plain") and all("messages" in text for text in texts):
        log.note(
            f"learns the chat template, but prompt.template is {policy.prompt.template}: to be asked in it, set it to chat"
        )
    if state.step == total:  # it was stopped after its last step
        metrics = next(row for row in reversed(stage.read_metrics()) if "loss" in row)
    STOP.wait(log.note)
    for step in range(state.step, total):
        started = time.perf_counter()
        chosen = [examples[i] for i in indices_of_step(step, cfg.sequences_per_step, len(examples), cfg.seed)]
        num_learned = sum(example.num_learned for example in chosen)
        loss_sum = 0.0
        for micro in batches(chosen, policy, cfg.max_tokens_per_microbatch, cfg.max_length, cfg.packing):
            loss = -token_logps(policy.model, micro, temperature=1.0, dtype=dtype).sum() / num_learned
            loss.backward()
            loss_sum += loss.item()
        rate = learning_rate(cfg, step, total)
        grad_norm = update(policy.model, optimizers, rate, cfg.max_grad_norm)

        seconds, done = time.perf_counter() - started, step + 1
        metrics = {
            "loss": loss_sum,
            "grad_norm": grad_norm,
            "learning_rate": rate,
            "num_tokens": num_learned,
            "speed/train_tokens_per_second": num_learned / seconds,
            "step_time": seconds,
        }
        if eval_examples and (is_due(step, done, cfg.eval_steps) or done == total):
            metrics["eval_loss"] = mean_loss(eval_examples, policy, cfg, dtype)
            if cfg.load_best_model_at_end:
                keep_if_best(stage, policy, done, metrics["eval_loss"])
        if is_due(step, done, cfg.logging_steps) or done == total or "eval_loss" in metrics:
            log.step(done, metrics)
        if engine and is_due(step, done, cfg.eval.eval_steps) and done < total:
            engine.refresh()
            measure_policy(engine, policy, eval_prompts, cfg, log, done, verdicts=stage.verdicts)
        if STOP.is_asked or (is_due(step, done, cfg.save_steps) and done < total):
            save_checkpoint(stage, TrainerState(done), policy, optimizers, cfg.save_total_limit)
            STOP.now_if_asked()

    STOP.at_once()
    if cfg.load_best_model_at_end:
        best_step, metrics["eval_loss"] = best_of(stage)
        if not best_step:
            raise UserError(f"{cfg.name}: eval_loss was never finite, so no weights are the best; try a lower learning_rate")
        load_weights(policy.model, best_folder(stage))
        log.note(f"saved are the weights of step {best_step}, with the lowest eval_loss, {metrics['eval_loss']:.4g}")
    save_model(stage, policy, cfg)
    results: dict[str, Measure | float] = {key: metrics[key] for key in ("loss", "eval_loss") if key in metrics}
    if not engine:
        return results
    engine.refresh()
    measures = measure_policy(engine, policy, eval_prompts, cfg, log, total, stage.answers, stage.verdicts)[1]
    return {**results, **measures}


def mean_loss(examples: Sequence[Example], policy: Policy, cfg: SftStage, dtype: torch.dtype) -> float:
    """The loss per learned token over all examples, in nats, without dropout."""
    policy.model.eval()
    with torch.no_grad():
        micros = batches(examples, policy, cfg.max_tokens_per_microbatch, cfg.max_length, cfg.packing)
        logp_sum = sum(token_logps(policy.model, micro, temperature=1.0, dtype=dtype).double().sum().item() for micro in micros)
    policy.model.train()
    return -logp_sum / sum(example.num_learned for example in examples)


def best_folder(stage: StageDir) -> Path:
    """Where the weights with the lowest eval_loss are; beside the checkpoints, so that save_total_limit leaves them."""
    return stage.path / "checkpoints" / "best"


def best_of(stage: StageDir) -> tuple[int, float]:
    """The step with the lowest eval_loss so far, and that loss; infinite before the first."""
    path = best_folder(stage) / BEST_FILE
    if not path.exists():
        return 0, math.inf
    best = json.loads(path.read_text())
    return best["step"], best["eval_loss"]


def keep_if_best(stage: StageDir, policy: Policy, step: int, eval_loss: float) -> None:
    """Keep the weights of a step whose eval_loss is below all before. A resumed run finds the best so far on disk."""
    if eval_loss < best_of(stage)[1]:
        with atomic_folder(best_folder(stage)) as folder:
            save_policy(policy, folder, torch.float32)
            (folder / BEST_FILE).write_text(json.dumps({"step": step, "eval_loss": eval_loss}) + "\n")


def from_scratch(cfg: SftStage, texts: Sequence[Mapping[str, Any]]) -> Policy:
    """A model with random weights, and a tokenizer trained on rows from all over the data, as they will be learned."""
    prompt = cfg.prompt or PromptConfig()
    tags = [f"<{slash}{tag}>" for tag in (prompt.think, prompt.answer) for slash in ("", "/")]
    blank = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE()), eos_token=END_OF_TEXT, chat_template=CHAT_TEMPLATE)
    blank.add_special_tokens({"additional_special_tokens": SPECIAL_TOKENS})
    chosen, end = texts[:: -(-len(texts) // TOKENIZER_ROWS)], turn_end(blank)
    rendered = ("".join(words for words, _ in pieces_of(text, prompt, blank, end)) for text in chosen)
    special = re.compile("|".join(map(re.escape, SPECIAL_TOKENS)))  # tokens already: nothing is merged across them
    sample = (words for text in rendered for words in special.split(text))
    with tempfile.TemporaryDirectory() as folder:
        words = whole_words() if cfg.architecture.whole_words else []
        build_tokenizer(sample, cfg.architecture.vocab_size, tags, Path(folder), words)
        return new_policy(cfg.architecture, Path(folder), prompt, cfg.seed, cfg.attn_implementation)
