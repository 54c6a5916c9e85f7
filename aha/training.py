"""What every verb that trains shares: optimiser, schedule, one update, checkpoints."""

import json
import math
import os
import random
import resource
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import AdamW, Muon, Optimizer
from transformers import PreTrainedModel

from aha.model import Policy, round_parameters, save_policy, saved_dtype
from aha.rundir import StageDir, atomic_folder
from aha.stage_configs import TrainingConfig
from aha.types import UserError

STATE_FILE = "trainer_state.json"
OPTIMIZER_FILE = "optimizer.safetensors"
REFERENCE_FILE = "reference.safetensors"


def make_deterministic() -> None:
    """Same inputs, same bits, on the same device and number of threads."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    os.environ.setdefault("FLASH_ATTENTION_DETERMINISTIC", "1")
    torch.use_deterministic_algorithms(True)
    # Nothing here reads fresh memory before it writes there, and filling it takes time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def build_optimizers(model: PreTrainedModel, cfg: TrainingConfig) -> list[Optimizer]:
    """AdamW for everything, or Muon for the matrices inside the layers and AdamW for embeddings, head and vectors.

    Weight decay is on matrices only, not on biases and norms. Muon's updates are scaled to AdamW's size, so that both
    follow the same learning rate (Liu et al. 2025, arXiv 2502.16982, section 2.2).
    """
    own = [p for p in model.parameters() if p.requires_grad]
    ends = [module for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    ends += [head for head in (model.get_output_embeddings(), getattr(model, "score", None)) if head is not None]
    outside = {id(p) for module in ends for p in module.parameters()}
    inner = [p for p in own if cfg.optim == "muon" and p.ndim == 2 and id(p) not in outside]
    outer = [p for p in own if all(p is not other for other in inner)]
    groups = [
        {"params": [p for p in outer if p.ndim >= 2], "weight_decay": cfg.weight_decay},
        {"params": [p for p in outer if p.ndim < 2], "weight_decay": 0.0},
    ]
    adamw = AdamW(groups, lr=cfg.learning_rate, betas=(cfg.adam_beta1, cfg.adam_beta2), eps=cfg.adam_epsilon)
    if not inner:
        return [adamw]
    return [adamw, Muon(inner, cfg.learning_rate, cfg.weight_decay, momentum=0.95, adjust_lr_fn="match_rms_adamw")]


def learning_rate(cfg: TrainingConfig, step: int, total: int) -> float:
    """The rate of optimiser step `step` (from 0) of `total`: linear warm-up, then constant, linear or cosine to zero."""
    warmup = cfg.warmup_steps if cfg.warmup_steps >= 1 else math.ceil(cfg.warmup_steps * total)
    if step < warmup:
        return cfg.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    shape = {"linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}.get(cfg.lr_scheduler_type, 1.0)
    return cfg.learning_rate * shape


def update(model: torch.nn.Module, optimizers: list[Optimizer], rate: float, max_grad_norm: float) -> float:
    """Clip, step, clear; returns the norm of the gradient before clipping.

    Where no row had a signal there is no gradient: nothing moves then, not even by momentum or weight decay. Raises UserError
    where the norm is not finite: a step would destroy the weights, and the checkpoints after it would take the place of good
    ones.
    """
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm or math.inf)
    if not torch.isfinite(norm):
        raise UserError(
            f"the gradient is not finite (norm {float(norm)}); the checkpoints before are good. A lower learning_rate, a lower "
            "max_grad_norm or dtype float32 may help"
        )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return float(norm)


@dataclass(frozen=True)
class TrainerState:
    """Where a checkpoint stands. All randomness is a function of seed and step, so nothing else is needed."""

    step: int  # optimiser steps done


def save_checkpoint(
    stage: StageDir,
    state: TrainerState,
    policy: Policy,
    optimizers: list[Optimizer],
    keep: int,
    reference: PreTrainedModel | None = None,
) -> None:
    """Write checkpoints/step-NNNNNN, itself a model folder, then drop all but the newest `keep`.

    `reference` is a reference model that moves; one that stays is loaded again from where it came.
    """
    names = {parameter: name for name, parameter in policy.model.named_parameters()}
    tensors: dict[str, Tensor] = {}
    for optimizer in optimizers:
        for parameter, values in optimizer.state.items():
            tensors |= {f"{names[parameter]}.{key}": tensor for key, tensor in values.items()}
    with atomic_folder(stage.checkpoint(state.step)) as folder:
        save_policy(policy, folder, torch.float32)
        save_file(tensors, folder / OPTIMIZER_FILE)
        if reference:
            save_file(dict(reference.named_parameters()), folder / REFERENCE_FILE)
        (folder / STATE_FILE).write_text(json.dumps({"step": state.step}) + "\n")
    for old in stage.checkpoints()[:-keep]:
        shutil.rmtree(old)


def save_model(stage: StageDir, policy: Policy, cfg: TrainingConfig) -> None:
    """Write `model/`, and round the weights in memory as they are on disk: what is measured after this is what is saved."""
    saved = saved_dtype(cfg.save_dtype, policy)
    round_parameters(policy.model, saved)
    with atomic_folder(stage.model) as folder:
        save_policy(policy, folder, saved)


def resume_training(
    stage: StageDir, policy: Policy, optimizers: list[Optimizer], total: int, reference: PreTrainedModel | None = None
) -> TrainerState:
    """Load the newest checkpoint into model, optimisers and a reference model that moves; without one, start at step 0.

    Where `model/` stands, all `total` steps are done and only the final evaluation is missing: its weights are loaded.
    """
    if stage.model.exists():
        load_weights(policy.model, stage.model)
        return TrainerState(step=total)
    checkpoints = stage.checkpoints()
    if not checkpoints:
        return TrainerState(step=0)
    newest = checkpoints[-1]
    load_weights(policy.model, newest)
    if reference:
        load_tensors(reference, load_file(newest / REFERENCE_FILE), newest)
    parameters = dict(policy.model.named_parameters())
    owner = {p: optimizer for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    for key, tensor in load_file(newest / OPTIMIZER_FILE).items():
        name, _, kind = key.rpartition(".")
        parameter = parameters[name]
        owner[parameter].state[parameter][kind] = tensor if kind == "step" else tensor.to(parameter.device)
    return TrainerState(**json.loads((newest / STATE_FILE).read_text()))


def load_weights(model: PreTrainedModel, folder: Path) -> None:
    """Load the weights of a model folder into an existing model of the same class and shape."""
    # Names in the files can be others than those in memory, as those of experts are: the class knows how to read its own.
    loaded, info = type(model).from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    wrong = [*info["missing_keys"], *info["unexpected_keys"]]
    if wrong:
        raise ValueError(f"{folder}: weights do not fit the model: {sorted(wrong)[:3]}")
    load_tensors(model, loaded.state_dict(), folder)


def load_tensors(model: torch.nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Load tensors by name; all of them must fit, and only those that are tied to others may be missing."""
    try:
        missing, unexpected = model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:  # of other shapes
        raise ValueError(f"{folder}: weights do not fit the model: {' '.join(str(error).split())}") from error
    tied = {name for name in model.state_dict() if name not in dict(model.named_parameters())}
    if unexpected or set(missing) - tied:
        raise ValueError(f"{folder}: weights do not fit the model: {[*unexpected, *(set(missing) - tied)][:3]}")


def is_due(before: int, after: int, every: int) -> bool:
    """Whether going from step `before` to `after` passed a multiple of `every`; never where that is 0."""
    return every > 0 and after // every > before // every


def peak_memory_mb(device: torch.device) -> float:
    """Largest memory so far in MB: of the GPU where the model is on one, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (2**20 if sys.platform == "darwin" else 2**10)


def indices_of_step(step: int, size: int, num_rows: int, seed: int | str, shuffle: bool = True) -> list[int]:
    """The `size` rows of step `step` (from 0): consecutive ones of an order that is drawn anew in every epoch."""
    places = (divmod(i, num_rows) for i in range(step * size, (step + 1) * size))
    return [_order(num_rows, seed, epoch)[place] if shuffle else place for epoch, place in places]


@lru_cache(maxsize=2)
def _order(num_rows: int, seed: int | str, epoch: int) -> list[int]:
    order = list(range(num_rows))
    random.Random(f"order/{seed}/{epoch}").shuffle(order)
    return order
