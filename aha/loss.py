"""The losses of GRPO and its relatives: pure functions of log-probabilities, and the forward pass that feeds them.

    ratio_t = pi(o_t) / pi_old(o_t)                 (per token; GSPO: its geometric mean over the sequence)
    k3_t    = pi_ref(o_t) / pi(o_t) - log(pi_ref(o_t) / pi(o_t)) - 1
    A_t     = A + teacher_coef log(pi_teacher(o_t) / pi_old(o_t))         (without a teacher the same for every token)
    loss_t  = - min(ratio_t A_t, clip(ratio_t, 1 - epsilon, 1 + epsilon_high) A_t) + beta ratio_t k3_t - entropy_coef H_t

docs/algorithms.md has every switch with its equation and paper. Names end in their shape: B completions of a
micro-batch, T tokens; B1 is one value per completion.
"""

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass

import torch
from torch import Tensor

from aha.model import Batch, Policy, align, collate, microbatches, token_logps, token_logps_and_entropies
from aha.stage_configs import GrpoStage


@dataclass(frozen=True)
class Row:
    """One completion as the loss sees it.

    Example: Row(prompt_ids=[5, 6], completion_ids=[7, 8, 2], rollout_logps=[-0.1, -2.3, -0.4], advantage=1.2)
    """

    prompt_ids: list[int]
    completion_ids: list[int]  # empty where the loss leaves the completion out
    rollout_logps: list[float]  # from the engine that drew it
    advantage: float
    old_logps: list[float] | None = None  # under the policy that drew it; None: the policy has not moved since
    ref_logps: list[float] | None = None  # under the reference model
    teacher_logps: list[float] | None = None  # under the teacher


@dataclass(frozen=True)
class Denominators:
    """What a loss is averaged over, counted once per optimiser step: any split into micro-batches adds up the same.

    Example: Denominators(sequences=256, tokens=30_812)
    """

    sequences: int
    tokens: int


@dataclass(frozen=True)
class LossSums:
    """Sums over tokens, which add up over micro-batches and turn into means at the end of a round."""

    tokens: int = 0
    loss: float = 0.0
    kl: float = 0.0
    teacher_kl: float = 0.0
    entropy: float = 0.0
    low_clipped: float = 0.0
    high_clipped: float = 0.0
    logp_gap: float = 0.0

    def __add__(self, other: "LossSums") -> "LossSums":
        return LossSums(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def grpo_loss(
    logp_BT: Tensor,
    old_logp_BT: Tensor,
    ref_logp_BT: Tensor | None,
    teacher_logp_BT: Tensor | None,
    entropy_BT: Tensor | None,
    rollout_logp_BT: Tensor,
    advantage_B: Tensor,
    mask_BT: Tensor,
    denominators: Denominators,
    cfg: GrpoStage,
) -> tuple[Tensor, LossSums]:
    """The loss of a micro-batch: its share of the mean over the whole optimiser step. Log-probabilities in nats.

    A teacher's log-ratio to the policy that drew a token is a part of that token's advantage alone. Over the draws this
    comes to the gradient of KL(pi || pi_teacher) at every position, without what a token does to those that follow it
    (Thinking Machines Lab, "On-Policy Distillation", 2025: a discount of 0). `rollout_logp_BT` only measures how far engine
    and trainer are apart. k3 alone, without its ratio, has no bound: a token that an update made a thousand times less likely
    than the reference has it costs a thousand, and its gradient drowns all others. With the ratio it costs no more than
    pi_ref / pi_old (DeepSeek-V3.2, arXiv 2512.02556, section 3.1, equation 7). The bonus for entropy is the mean over all
    tokens whatever `loss_type` averages, as in TRL.
    """
    advantage_BT = advantage_B[:, None].expand_as(logp_BT)
    teacher_kl_BT = torch.zeros_like(logp_BT)
    if teacher_logp_BT is not None:
        teacher_kl_BT = old_logp_BT - teacher_logp_BT
        advantage_BT = advantage_BT - cfg.teacher_coef * teacher_kl_BT
    ratio_BT = importance_ratios(logp_BT, old_logp_BT, mask_BT, cfg.importance_sampling_level)
    loss_BT, is_low_BT, is_high_BT = policy_loss(logp_BT, ratio_BT, advantage_BT, cfg)
    kl_BT = torch.zeros_like(loss_BT)
    if ref_logp_BT is not None:
        kl_BT = (ref_logp_BT - logp_BT).exp() - (ref_logp_BT - logp_BT) - 1
        if cfg.use_bias_correction_kl:
            kl_BT = ratio_BT * kl_BT
        loss_BT = loss_BT + cfg.beta * kl_BT
    loss = average(loss_BT, mask_BT, denominators, cfg)
    if entropy_BT is not None:
        loss = loss - cfg.entropy_coef * (entropy_BT * mask_BT).sum() / max(1, denominators.tokens)

    def total(values_BT: Tensor) -> float:
        return (values_BT.detach() * mask_BT).sum().item()

    return loss, LossSums(
        tokens=int(mask_BT.sum()),
        loss=loss.item(),
        kl=total(kl_BT),
        teacher_kl=total(teacher_kl_BT),
        entropy=total(entropy_BT) if entropy_BT is not None else 0.0,
        low_clipped=total(is_low_BT),
        high_clipped=total(is_high_BT),
        logp_gap=total((logp_BT - rollout_logp_BT).abs()),
    )


def importance_ratios(logp_BT: Tensor, old_logp_BT: Tensor, mask_BT: Tensor, level: str) -> Tensor:
    """pi / pi_old of every token; at level "sequence" their geometric mean, the same for all tokens of a completion
    (GSPO, arXiv 2507.18071, equation 7)."""
    log_ratio_BT = logp_BT - old_logp_BT
    if level == "token":
        return log_ratio_BT.exp()
    mean_B1 = (log_ratio_BT * mask_BT).sum(dim=1, keepdim=True) / mask_BT.sum(dim=1, keepdim=True).clamp(min=1)
    return mean_B1.exp().expand_as(log_ratio_BT)


def policy_loss(logp_BT: Tensor, ratio_BT: Tensor, advantage_BT: Tensor, cfg: GrpoStage) -> tuple[Tensor, Tensor, Tensor]:
    """Loss of every token, and where the clip bites: (loss_BT, is_low_BT, is_high_BT).

    PPO's clip (arXiv 1707.06347, equation 7) takes clipped tokens out of the gradient. CISPO caps the weight instead,
    at `epsilon_high` itself, so that every token keeps a gradient (arXiv 2506.13585, equations 4 and 5).
    """
    if cfg.loss_type == "cispo":
        weight_BT = ratio_BT.clamp(max=cfg.upper_clip).detach()
        is_low_BT = torch.zeros_like(ratio_BT, dtype=torch.bool)
        return -weight_BT * advantage_BT * logp_BT, is_low_BT, (ratio_BT > cfg.upper_clip) & (advantage_BT > 0)
    low, high = 1 - cfg.epsilon, 1 + cfg.upper_clip
    loss_BT = -torch.min(ratio_BT * advantage_BT, ratio_BT.clamp(low, high) * advantage_BT)
    return loss_BT, (ratio_BT < low) & (advantage_BT < 0), (ratio_BT > high) & (advantage_BT > 0)


def average(loss_BT: Tensor, mask_BT: Tensor, denominators: Denominators, cfg: GrpoStage) -> Tensor:
    """What `loss_type` averages over: "grpo" the means of the sequences (arXiv 2402.03300, equation 3), "dapo" and
    "cispo" all tokens (arXiv 2503.14476, equation 8), "dr_grpo" all tokens over a constant, the maximum length of every
    sequence (arXiv 2503.20783)."""
    if cfg.loss_type == "grpo":
        denominator = denominators.sequences * mask_BT.sum(dim=1, keepdim=True).clamp(min=1)
    elif cfg.loss_type == "dr_grpo":
        denominator = torch.tensor(denominators.sequences * cfg.max_completion_length)
    else:
        denominator = torch.tensor(max(1, denominators.tokens))
    return (loss_BT * mask_BT / denominator).sum()


def loss_of_rows(
    rows: Sequence[Row], policy: Policy, denominators: Denominators, cfg: GrpoStage, dtype: torch.dtype
) -> tuple[Tensor, LossSums]:
    """Forward pass and loss of one micro-batch."""
    batch = collate_rows(rows, policy)
    if cfg.entropy_coef:
        logp_BT, entropy_BT = token_logps_and_entropies(policy.model, batch, cfg.temperature, dtype)
    else:
        logp_BT, entropy_BT = token_logps(policy.model, batch, cfg.temperature, dtype), None
    old = [row.old_logps for row in rows if row.old_logps is not None]
    ref = [row.ref_logps for row in rows if row.ref_logps is not None]
    teacher = [row.teacher_logps for row in rows if row.teacher_logps is not None]
    return grpo_loss(
        logp_BT,
        old_logp_BT=align(old, batch) if old else logp_BT.detach(),
        ref_logp_BT=align(ref, batch) if ref else None,
        teacher_logp_BT=align(teacher, batch) if teacher else None,
        entropy_BT=entropy_BT,
        rollout_logp_BT=align([row.rollout_logps for row in rows], batch),
        advantage_B=torch.tensor([row.advantage for row in rows], device=logp_BT.device),
        mask_BT=batch.mask_BT,
        denominators=denominators,
        cfg=cfg,
    )


def logps_of(rows: Sequence[Row], policy: Policy, cfg: GrpoStage, dtype: torch.dtype) -> list[list[float]]:
    """Log-probabilities of every row's completion under `policy`, without gradient."""
    logps: list[list[float]] = [[] for _ in rows]
    lengths = [len(row.prompt_ids) + len(row.completion_ids) for row in rows]
    with torch.no_grad():
        for chosen in microbatches(lengths, cfg.max_tokens_per_microbatch):
            batch = collate_rows([rows[i] for i in chosen], policy)
            logp_BT = token_logps(policy.model, batch, cfg.temperature, dtype)
            for i, logp_T, mask_T in zip(chosen, logp_BT, batch.mask_BT, strict=True):
                logps[i] = logp_T[mask_T].tolist()
    return logps


def microbatches_with_signal(rows: Sequence[Row], cfg: GrpoStage) -> Iterator[list[Row]]:
    """Rows that have a gradient, sorted by length and cut by the token budget.

    An advantage of 0 has none, unless teacher, KL term or entropy bonus pull on it too. The denominators count such rows
    all the same.
    """
    pulled = cfg.teacher_model or cfg.beta or cfg.entropy_coef
    alive = [row for row in rows if row.completion_ids and (row.advantage or pulled)]
    lengths = [len(row.prompt_ids) + len(row.completion_ids) for row in alive]
    return ([alive[i] for i in chosen] for chosen in microbatches(lengths, cfg.max_tokens_per_microbatch))


def collate_rows(rows: Sequence[Row], policy: Policy) -> Batch:
    """The rows as one padded batch on the policy's device; their completions are what is scored."""
    pairs = [(row.prompt_ids, row.completion_ids) for row in rows]
    return collate(pairs, policy.tokenizer.pad_token_id, policy.device)


def loss_metrics(sums: LossSums, cfg: GrpoStage, num_updates: int) -> dict[str, float]:
    """Means over the tokens that had a gradient, under TRL's names; the loss is the mean of the updates.

    The gap between engine and trainer means something only while the policy has not moved: with one update per
    generation.
    """
    tokens = max(1, sums.tokens)
    clipped = (sums.low_clipped + sums.high_clipped) / tokens
    if cfg.loss_type == "cispo":
        clip_ratios = {"cispo_clip_ratio": clipped}
    else:
        clip_ratios = {
            "clip_ratio/low_mean": sums.low_clipped / tokens,
            "clip_ratio/high_mean": sums.high_clipped / tokens,
            "clip_ratio/region_mean": clipped,
        }
    return {
        "loss": sums.loss / num_updates,
        **({"kl": sums.kl / tokens} if cfg.beta else {}),
        **({"teacher/kl": sums.teacher_kl / tokens} if cfg.teacher_model else {}),
        **({"entropy/exact": sums.entropy / tokens} if cfg.entropy_coef else {}),
        **clip_ratios,
        **({"rollout/logp_gap": sums.logp_gap / tokens} if cfg.updates_per_generation == 1 else {}),
    }
