"""How tokens are drawn: the shape of the distribution, and random numbers that depend on nothing but a sample's name.

A sample's numbers come from its seed, problem and number, counted by token, so the same sample is drawn whatever decodes
beside it.
"""

import hashlib
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

VOCAB_BLOCK = 64  # tokens whose probabilities are summed before one of them is looked for
FIRST_LOOK = 64  # tokens, of which the nucleus of top-p mostly has fewer
MASS = 2**50  # the whole number that stands for probability 1
GOLDEN = -7046029254386353131  # 2^64 / golden ratio as int64: the step of splitmix64


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Example: Sampling(seed="42/zero/17", max_tokens=256)
    """

    seed: str  # names the stream of random numbers: run seed, stage and step
    max_tokens: int
    temperature: float = 1.0  # 0: greedy, with log-probabilities at temperature 1
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0


def draw(logits_BV: Tensor, sampling: Sampling, uniform_B: Tensor) -> tuple[Tensor, Tensor]:
    """One token per row by inverting the cumulative distribution at `uniform_B`, and its log-probability.

    Top-k is applied first, then top-p and min-p, each on the distribution at the sampling temperature.
    """
    if sampling.temperature == 0:
        drawn_B = logits_BV.argmax(dim=-1)
        return drawn_B, logits_BV.log_softmax(dim=-1).gather(-1, drawn_B[:, None])[:, 0]
    scaled_BV = logits_BV if sampling.temperature == 1 else logits_BV / sampling.temperature
    probs_BV = kept_BV = scaled_BV.softmax(dim=-1)
    if sampling.top_k or sampling.top_p < 1:
        kept_BV = _keep_top(kept_BV, sampling.top_k or kept_BV.shape[-1], sampling.top_p)
    if sampling.min_p:
        kept_BV = kept_BV.where(kept_BV >= sampling.min_p * kept_BV.amax(dim=-1, keepdim=True), 0.0)
    drawn_B = invert(kept_BV, uniform_B)
    return drawn_B, probs_BV.gather(-1, drawn_B[:, None])[:, 0].log()


def invert(probs_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """The token of each row at which the cumulated probability passes the share `uniform_B` of the whole.

    First the block of tokens is found, then the token in it, which spares cumulating all of the vocabulary. Cumulated in whole
    numbers: deterministic on CUDA, where the cumulated sum of floats is not.
    """
    blocks = -(-probs_BV.shape[-1] // VOCAB_BLOCK)
    missing = blocks * VOCAB_BLOCK - probs_BV.shape[-1]
    padded_BV = F.pad(probs_BV, (0, missing)) if missing else probs_BV  # padding by nothing would copy all the same
    probs_BNK = padded_BV.unflatten(-1, (blocks, VOCAB_BLOCK))
    mass_BN = (probs_BNK.sum(dim=-1) * MASS).long()
    until_BN = mass_BN.cumsum(dim=-1)
    point_B1 = (uniform_B[:, None] * until_BN[:, -1:]).long()
    block_B1 = torch.searchsorted(until_BN, point_B1, right=True).clamp(max=blocks - 1)
    within_BK = (probs_BNK.gather(1, block_B1[:, :, None].expand(-1, -1, VOCAB_BLOCK))[:, 0] * MASS).long().cumsum(dim=-1)
    rest_B1 = point_B1 - until_BN.gather(-1, block_B1) + mass_BN.gather(-1, block_B1)
    rest_B1 = rest_B1.minimum(within_BK[:, -1:] - 1)  # the block's mass and those of its tokens are rounded apart
    token_B1 = block_B1 * VOCAB_BLOCK + torch.searchsorted(within_BK, rest_B1, right=True)
    return token_B1[:, 0].clamp(max=probs_BV.shape[-1] - 1)


def _keep_top(probs_BV: Tensor, top_k: int, top_p: float) -> Tensor:
    """Zero what is outside the `top_k` likeliest tokens and the smallest set of tokens that holds `top_p` of those."""
    if top_k >= probs_BV.shape[-1]:
        return _nucleus(probs_BV, top_p)
    sorted_BK, order_BK = probs_BV.topk(top_k, dim=-1)
    mass_BK = (sorted_BK.double() * MASS).long()
    before_BK = mass_BK.cumsum(dim=-1) - mass_BK
    sorted_BK = sorted_BK.where(before_BK < top_p * mass_BK.sum(dim=-1, keepdim=True), 0.0)
    return torch.zeros_like(probs_BV).scatter(-1, order_BK, sorted_BK)


def _nucleus(probs_BV: Tensor, top_p: float) -> Tensor:
    """Zero what is outside the smallest set of tokens that holds `top_p`, and whatever is as likely as its last one.

    A few tokens mostly hold it, and to find them takes a fraction of the time of sorting the vocabulary; where the distribution
    is flat, it takes a half more.
    """
    wanted_B1 = top_p * (probs_BV.double() * MASS).long().sum(dim=-1, keepdim=True)
    size = min(FIRST_LOOK, probs_BV.shape[-1])
    while True:
        sorted_BK = probs_BV.topk(size, dim=-1).values
        mass_BK = (sorted_BK.double() * MASS).long()
        until_BK = mass_BK.cumsum(dim=-1)
        if size == probs_BV.shape[-1] or bool((until_BK[:, -1:] >= wanted_B1).all()):
            break
        size = min(size * 8, probs_BV.shape[-1])
    least_B1 = sorted_BK.where(until_BK - mass_BK < wanted_B1, torch.inf).amin(dim=-1, keepdim=True)
    return probs_BV.where(probs_BV >= least_B1, 0.0)


def random_key(seed: str, problem: str, sample: int) -> int:
    digest = hashlib.sha256(f"{seed}|{problem}|{sample}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def uniform(key_B: Tensor, counter_B: Tensor) -> Tensor:
    """A float64 in [0, 1) for each (key, counter): splitmix64 in wrapping int64 arithmetic."""

    def shifted(z: Tensor, bits: int) -> Tensor:
        return (z >> bits) & ((1 << (64 - bits)) - 1)  # logical, where >> on int64 is arithmetic

    z = key_B + (counter_B + 1) * GOLDEN
    z = (z ^ shifted(z, 30)) * -4658895280553007687
    z = (z ^ shifted(z, 27)) * -7723592293110705685
    z = z ^ shifted(z, 31)
    return shifted(z, 11).double() * 2.0**-53
