"""Rollouts in-process, by the very modules that are being trained.

Continuous batching: a fixed number of rows decode together, each at its own position; a row that finishes is given to
the next waiting sample or dropped. A prompt is prefilled once for all samples of its group. What the model needs for
that comes through transformers' public interfaces: a cache layer with one length per row, explicit `position_ids`,
and a registered attention function. So a family whose attention goes through that interface needs no code here.

The last token of a prompt is not prefilled: it is the first token that is decoded. Every step of every row is
then the same: feed one token, get the distribution of the next.
"""

import copy
import hashlib
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

from aha.model import longest, microbatches, scoring_tolerance, told_longest
from aha.types import Sample, UserError

ATTENTION = "aha_rows"
KNOWN_LAYERS = {"full_attention", "sliding_attention"}
WIDTH_BLOCK = 32  # the cache grows by so many positions
PREFILL_TOKENS = 2**16  # of prompts in one forward pass, padding included
VOCAB_BLOCK = 64  # tokens whose probabilities are summed before one of them is looked for
FIRST_LOOK = 64  # tokens, of which the nucleus of top-p mostly has fewer
MASS = 2**50  # the whole number that stands for probability 1
GOLDEN = -7046029254386353131  # 2^64 / golden ratio as int64: the step of splitmix64

OnSample = Callable[[int, Sample], None]  # place of the prompt, and a sample of it


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


@dataclass(frozen=True)
class Slot:
    """One sample that waits or decodes: what the engine keeps of it on the host."""

    sample: int  # place in the output
    key: int  # of its random numbers


class NativeEngine:
    """Decodes with `model`. Where `dtype` is not that of the weights, with a copy that `refresh` brings up to date."""

    def __init__(self, model: PreTrainedModel, stop_ids: frozenset[int], dtype: torch.dtype, max_num_seqs: int = 256):
        unknown = set(getattr(model.config.get_text_config(), "layer_types", None) or []) - KNOWN_LAYERS
        if unknown:
            raise UserError(f"the native engine knows full and sliding attention; this model has {', '.join(sorted(unknown))}")
        self.trained = model
        self.stop_ids = torch.tensor(sorted(stop_ids), device=model.device)
        self.max_num_seqs = max_num_seqs
        self.model = model if dtype == model.dtype else _copy_of(model, dtype)
        self._check()

    @property
    def is_exact(self) -> bool:
        """Whether its log-probabilities are the trainer's own, up to rounding in float32."""
        return self.model is self.trained and self.model.dtype == torch.float32

    @torch.no_grad()
    def _check(self) -> None:
        """Raise UserError where the model does not read the engine's cache or take its attention: it would fail later, or draw
        from other probabilities than those that are trained."""
        kind = self.model.config.model_type
        ids = list(range(min(8, self.model.config.get_text_config().vocab_size)))
        prompts = [ids[:3], ids[1:]]
        try:
            samples = [sample for [sample] in self.generate(prompts, 1, Sampling("check", 3, temperature=0))]
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, torch.OutOfMemoryError | torch.AcceleratorError) or "CUDA" in str(error).upper():
                raise  # which is no fault of the class
            raise UserError(f"the native engine cannot decode with models of class {kind}: {error}") from error
        was_training = self.model.training
        self.model.eval()
        apart = []
        with _attention(self.model):
            for prompt, sample in zip(prompts, samples, strict=True):
                text = torch.tensor([[*prompt, *sample.token_ids]], device=self.model.device)
                logp_TV = self.model(text, use_cache=False).logits[0, len(prompt) - 1 : -1].float().log_softmax(dim=-1)
                at_once = logp_TV.gather(-1, text[0, len(prompt) :, None])[:, 0].cpu()
                apart += (at_once - torch.tensor(sample.logps)).abs().tolist()
        self.model.train(was_training)
        # Of most tokens: in bfloat16 rounding may send one to another expert.
        if statistics.median(apart) > scoring_tolerance(self.model.dtype):
            raise UserError(f"models of class {kind} use their cache in a way that the native engine does not know")

    def refresh(self) -> None:
        """Follow the weights of the trained model after an update."""
        if self.model is not self.trained:
            with torch.no_grad():
                for mine, trained in zip(self.model.parameters(), self.trained.parameters(), strict=True):
                    mine.copy_(trained)

    @torch.no_grad()
    def generate(
        self,
        prompt_ids: Sequence[Sequence[int]],
        n: int,
        sampling: Sampling,
        problem_ids: Sequence[str] | None = None,
        on_sample: OnSample | None = None,
    ) -> list[list[Sample]]:
        """Draw `n` samples for each prompt.

        Log-probabilities are of softmax(logits / temperature), before top-p, top-k and min-p. The random number of a
        token depends on the seed, the id of its problem, the sample's number and the token's position, not on what
        else is in the batch. `problem_ids` default to the prompts' own places. `on_sample` is told every sample as soon as
        it is finished, while others still decode, with the place of its prompt.
        """
        most = max(len(prompt) for prompt in prompt_ids) + sampling.max_tokens
        limit = longest(self.model)
        if most > limit:
            raise UserError(
                f"the longest prompt and max_completion_length {sampling.max_tokens} make {most} tokens; "
                f"the model holds {told_longest(self.model)}"
            )
        ids = problem_ids or [str(i) for i in range(len(prompt_ids))]
        rows = [Slot(p * n + s, _random_key(sampling.seed, ids[p], s)) for p in range(len(prompt_ids)) for s in range(n)]
        was_training = self.model.training
        self.model.eval()
        with _attention(self.model):
            samples = _Decoder(self, prompt_ids, n, sampling, on_sample).run(rows)
        self.model.train(was_training)
        return [samples[p * n : (p + 1) * n] for p in range(len(prompt_ids))]


class _Decoder:
    """The state of one call of `generate`. Rows 0 to `len(self.active) - 1` of every tensor are in use."""

    def __init__(
        self,
        engine: NativeEngine,
        prompt_ids: Sequence[Sequence[int]],
        n: int,
        sampling: Sampling,
        on_sample: OnSample | None = None,
    ):
        self.model, self.stop_ids, self.sampling, self.on_sample = engine.model, engine.stop_ids, sampling, on_sample
        self.prompt_ids, self.n = prompt_ids, n
        self.capacity = min(engine.max_num_seqs, n * len(prompt_ids))
        device, total = self.model.device, n * len(prompt_ids)
        # One row more than can decode: the spare one keeps the prompt of a group that is only partly admitted.
        self.cache = RowCache(self.model.config.get_text_config(), self.capacity + 1)
        self.spare = self.capacity
        self.spare_prompt = -1
        self.active: list[Slot] = []
        # Per decoding row: the token to feed, its position, the random key, and the place in the output.
        self.token_B, self.position_B, self.key_B, self.sample_B, self.count_B = (
            torch.zeros(self.capacity, dtype=torch.long, device=device) for _ in range(5)
        )
        self.tokens_NM = torch.zeros((total, sampling.max_tokens), dtype=torch.long, device=device)
        self.logps_NM = torch.zeros((total, sampling.max_tokens), device=device)
        self.lengths = [0] * total
        self.stopped = [False] * total
        self.prefilled_prompts = 0

    def run(self, waiting: list[Slot]) -> list[Sample]:
        waiting = waiting[::-1]
        try:
            while waiting or self.active:
                free = self.capacity - len(self.active)
                if waiting and (free >= max(1, self.capacity // 8) or len(waiting) <= free):
                    self._admit([waiting.pop() for _ in range(min(free, len(waiting)))])
                if not waiting:  # no row will be given away again, the spare one neither
                    self.cache.rows_in_use = len(self.active)
                self._drop(self._decode())
        finally:
            self.cache.layers.clear()  # which hold the cache in turn: its memory would wait for a garbage collection
        tokens_NM, logps_NM = self.tokens_NM.cpu(), self.logps_NM.cpu()
        return [self._sample(i, tokens_NM[i], logps_NM[i]) for i in range(len(self.lengths))]

    def _sample(self, i: int, tokens_M: Tensor, logps_M: Tensor) -> Sample:
        length = self.lengths[i]
        return Sample(tokens_M[:length].tolist(), logps_M[:length].tolist(), "stop" if self.stopped[i] else "length")

    def _admit(self, rows: list[Slot]) -> None:
        """Give free rows to waiting samples, which come in the order of their prompts."""
        first = len(self.active)
        prompts = [row.sample // self.n for row in rows]
        fresh = sorted(set(prompts) - {self.spare_prompt})
        self._copy_spare([first + i for i, prompt in enumerate(prompts) if prompt == self.spare_prompt])
        placed = [(first + i, prompt) for i, prompt in enumerate(prompts) if prompt != self.spare_prompt]
        for part in microbatches([len(self.prompt_ids[prompt]) for prompt in fresh], PREFILL_TOKENS):
            chosen = [fresh[i] for i in sorted(part)]  # the last one may be of a group that is only partly admitted
            self._prefill(chosen, [(row, prompt) for row, prompt in placed if prompt in chosen])

        self.active += rows
        new = slice(first, len(self.active))
        self.token_B[new] = self._tensor([self.prompt_ids[prompt][-1] for prompt in prompts])
        self.position_B[new] = self._tensor([len(self.prompt_ids[prompt]) - 1 for prompt in prompts])
        self.key_B[new] = self._tensor([row.key for row in rows])
        self.sample_B[new] = self._tensor([row.sample for row in rows])
        self.count_B[new] = 0

    def _copy_spare(self, targets: list[int]) -> None:
        if targets:
            self.cache.copy_rows([self.spare] * len(targets), targets, len(self.prompt_ids[self.spare_prompt]))

    def _prefill(self, prompts: list[int], placed: list[tuple[int, int]]) -> None:
        """Run `prompts` once each and write their keys and values to all rows of `placed` (row, prompt) pairs."""
        if not prompts:
            return
        self.prefilled_prompts += len(prompts)
        order = {prompt: i for i, prompt in enumerate(prompts)}
        last = prompts[-1]
        if sum(prompt == last for _, prompt in placed) < self.n:  # the rest of the group comes later
            placed = [*placed, (self.spare, last)]
            self.spare_prompt = last
        width = max(len(self.prompt_ids[prompt]) for prompt in prompts) - 1
        if width == 0:
            return
        ids_PT = torch.zeros((len(prompts), width), dtype=torch.long)
        for prompt, i in order.items():
            known = self.prompt_ids[prompt][:-1]
            ids_PT[i, : len(known)] = torch.tensor(known, dtype=torch.long)
        self.cache.prefill_into(self._tensor([row for row, _ in placed]), self._tensor([order[p] for _, p in placed]), width)
        self.model.base_model(
            ids_PT.to(self.model.device),
            position_ids=torch.arange(width, device=self.model.device).expand(len(prompts), width),
            past_key_values=self.cache,
            use_cache=True,
        )

    def _decode(self) -> list[int]:
        """Feed one token to every active row and draw the next; returns the rows that are finished."""
        active = slice(0, len(self.active))
        position_B, token_B = self.position_B[active], self.token_B[active]
        self.cache.decode_at(position_B, int(position_B.max()) + 1)
        visible_BW = torch.arange(self.cache.width, device=position_B.device) <= position_B[:, None]
        logits_BV = self.model(
            token_B[:, None],
            attention_mask=visible_BW[:, None, None, :],
            position_ids=position_B[:, None],
            past_key_values=self.cache,
            use_cache=True,
        ).logits[:, -1]
        uniform_B = uniform(self.key_B[active], self.count_B[active])
        drawn_B, logp_B = draw(logits_BV.float(), self.sampling, uniform_B)

        sample_B, count_B = self.sample_B[active], self.count_B[active]
        self.tokens_NM[sample_B, count_B] = drawn_B
        self.logps_NM[sample_B, count_B] = logp_B
        self.token_B[active], self.position_B[active], self.count_B[active] = drawn_B, position_B + 1, count_B + 1
        stopped_B = torch.isin(drawn_B, self.stop_ids)
        finished = (stopped_B | (self.count_B[active] >= self.sampling.max_tokens)).nonzero()[:, 0].tolist()
        if finished:
            counts, stops = self.count_B[active].tolist(), stopped_B.tolist()
            for row in finished:
                i = self.active[row].sample
                self.lengths[i], self.stopped[i] = counts[row], stops[row]
                if self.on_sample:
                    self.on_sample(i // self.n, self._sample(i, self.tokens_NM[i], self.logps_NM[i]))
        return finished

    def _drop(self, finished: list[int]) -> None:
        """Close the gaps: the last rows move into the places of finished ones."""
        gone = set(finished)
        kept = len(self.active) - len(gone)
        holes = [row for row in finished if row < kept]
        movers = [row for row in range(kept, len(self.active)) if row not in gone]
        if movers:
            self.cache.copy_rows(movers, holes, int(self.position_B[: len(self.active)].max()))
            source, target = self._tensor(movers), self._tensor(holes)
            for tensor in (self.token_B, self.position_B, self.key_B, self.sample_B, self.count_B):
                tensor[target] = tensor[source]
            for mover, hole in zip(movers, holes, strict=True):
                self.active[hole] = self.active[mover]
        del self.active[kept:]

    def _tensor(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self.model.device)


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


def _random_key(seed: str, problem: str, sample: int) -> int:
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


class RowCache(Cache):
    """Keys and values of rows that stand at different positions.

    There is room for `width` positions in every row. It grows in blocks with the longest row, so that attention reads
    tensors without gaps: several times as fast on a CPU as parts of wider ones. What grows are the first `rows_in_use` rows;
    the others are given up, and there are few left when the longest sample is still decoding.
    """

    def __init__(self, config: Any, num_rows: int):
        super().__init__(layers=[RowLayer(self) for _ in range(config.num_hidden_layers)])
        self.rows = self.sources = self.position_B = torch.empty(0)
        self.rows_in_use = num_rows
        self.width = 0
        self.is_prefill = False

    def prefill_into(self, rows: Tensor, sources: Tensor, width: int) -> None:
        """The next forward pass holds whole prompts of up to `width` tokens; number sources[i] of them is for row rows[i]."""
        self.is_prefill, self.rows, self.sources = True, rows, sources
        self._make_room(width)

    def decode_at(self, position_B: Tensor, width: int) -> None:
        """The next forward pass holds one token for each of the first rows, at these positions, all below `width`."""
        self.is_prefill, self.position_B = False, position_B
        self._make_room(width)

    def _make_room(self, width: int) -> None:
        self.width = max(self.width, -(-width // WIDTH_BLOCK) * WIDTH_BLOCK)

    def copy_rows(self, sources: list[int], targets: list[int], width: int) -> None:
        for layer in self.layers if width else ():
            for tensor in (layer.keys, layer.values):
                tensor[targets, :, :width] = tensor[sources, :, :width]


class RowLayer(CacheLayerMixin):
    """One layer of a RowCache; keys and values of shape (rows, key-value heads, width, head size)."""

    is_sliding = False

    def __init__(self, cache: RowCache):
        super().__init__()
        self.cache = cache

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        def make(states: Tensor) -> Tensor:
            return states.new_zeros((self.cache.rows_in_use, states.shape[1], self.cache.width, states.shape[3]))

        self.keys, self.values, self.is_initialized = make(key_states), make(value_states), True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        cache = self.cache
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if cache.width > self.keys.shape[2]:
            self.keys, self.values = self._grown(self.keys), self._grown(self.values)
        if cache.is_prefill:
            width = key_states.shape[2]
            self.keys[cache.rows, :, :width] = key_states[cache.sources]
            self.values[cache.rows, :, :width] = value_states[cache.sources]
            return key_states, value_states  # prompts look at nothing but themselves
        count = key_states.shape[0]
        rows = torch.arange(count, device=key_states.device)
        self.keys[rows, :, cache.position_B] = key_states[:, :, 0]
        self.values[rows, :, cache.position_B] = value_states[:, :, 0]
        return self.keys[:count], self.values[:count]

    def _grown(self, states: Tensor) -> Tensor:
        kept = states[: self.cache.rows_in_use]
        room = kept.new_zeros((*kept.shape[:2], self.cache.width - kept.shape[2], kept.shape[3]))
        return torch.cat([kept, room], dim=2)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.cache.width, 0

    def get_seq_length(self) -> int:
        return self.cache.width

    def get_max_length(self) -> int:
        return -1  # grows


def row_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of a prefill (causal, no mask) or of single tokens over their rows (boolean mask of what is visible).

    query (B, heads, T, D), key and value (B, key-value heads, W, D); returns (B, T, heads, D). With `sliding_window`
    a token sees the last so many positions only, its own included; `softcap` bounds the scores (Gemma 2).
    """
    if kwargs.get("s_aux") is not None:
        raise UserError("the native engine does not know attention with s_aux")
    batch, heads, time, size = query.shape
    groups = heads // key.shape[1]
    if attention_mask is None:
        if softcap is None and (sliding_window is None or time <= sliding_window):
            out = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=groups > 1)
            return out.transpose(1, 2), None
        position_T1 = torch.arange(time, device=query.device)[:, None]
        visible = position_T1 >= position_T1.T
    else:
        visible = attention_mask
    if sliding_window is not None:
        if attention_mask is not None:
            position_T1 = attention_mask.sum(dim=-1, keepdim=True) - 1  # (B, 1, 1, 1): what is visible starts at 0
        visible = visible & (torch.arange(key.shape[2], device=query.device) > position_T1 - sliding_window)
    # The query heads that share a key-value head stand one after the other in the time dimension.
    packed = query.reshape(batch, key.shape[1], groups * time, size)
    scores = (packed @ key.transpose(2, 3)).float() * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if time > 1:
        visible = visible.repeat(groups, 1)
    weights = scores.masked_fill(~visible, float("-inf")).softmax(dim=-1).to(value.dtype)
    return (weights @ value).reshape(batch, heads, time, value.shape[3]).transpose(1, 2), None


AttentionInterface.register(ATTENTION, row_attention)


@contextmanager
def _attention(model: PreTrainedModel) -> Iterator[None]:
    """Run `model` with the engine's attention, then with its own again."""
    before = model.config._attn_implementation
    model.set_attn_implementation(ATTENTION)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _copy_of(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """A copy with parameters in `dtype`; buffers, such as the frequencies of rotary embeddings, stay as they are."""
    cast = {id(p): torch.nn.Parameter(p.detach().to(dtype), requires_grad=False) for p in model.parameters()}
    return copy.deepcopy(model, cast).eval()  # takes the cast parameters for copies already made
