"""Rollouts in-process, by the very modules that are being trained.

Continuous batching: a fixed number of rows decode together, each at its own position; a row that finishes is given to
the next waiting sample or dropped. A prompt is prefilled once for all samples of its group. What the model needs for
that comes through transformers' public interfaces: a cache layer with one length per row, explicit `position_ids`,
and a registered attention function. So a family whose attention goes through that interface needs no code here.

The last token of a prompt is not prefilled: it is the first token that is decoded. Every step of every row is
then the same: feed one token, get the distribution of the next.
"""

import copy
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from aha.engine.rows import RowCache, rows_attending
from aha.engine.sampling import Sampling, draw, random_key, uniform
from aha.model import longest, microbatches, scoring_tolerance, told_longest
from aha.types import Sample, UserError

KNOWN_LAYERS = {"full_attention", "sliding_attention"}
PREFILL_TOKENS = 2**16  # of prompts in one forward pass, padding included

OnSample = Callable[[int, Sample], None]  # place of the prompt, and a sample of it


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
        with rows_attending(self.model):
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
        rows = [Slot(p * n + s, random_key(sampling.seed, ids[p], s)) for p in range(len(prompt_ids)) for s in range(n)]
        was_training = self.model.training
        self.model.eval()
        with rows_attending(self.model):
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
        device = self.model.device
        # One row more than can decode: the spare one keeps the prompt of a group that is only partly admitted.
        self.cache = RowCache(self.model.config.get_text_config(), self.capacity + 1)
        self.spare = self.capacity
        self.spare_prompt = -1
        self.active: list[Slot] = []
        # Per decoding row: the token to feed, its position, the random key, and what was drawn so far.
        self.token_B, self.position_B, self.key_B, self.count_B = (
            torch.zeros(self.capacity, dtype=torch.long, device=device) for _ in range(4)
        )
        self.tokens_BM = torch.zeros((self.capacity, sampling.max_tokens), dtype=torch.long, device=device)
        self.logps_BM = torch.zeros((self.capacity, sampling.max_tokens), device=device)
        self.samples: dict[int, Sample] = {}  # by their places in the output
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
        return [self.samples[i] for i in range(len(self.samples))]

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

        row_B, count_B = torch.arange(len(self.active), device=drawn_B.device), self.count_B[active]
        self.tokens_BM[row_B, count_B] = drawn_B
        self.logps_BM[row_B, count_B] = logp_B
        self.token_B[active], self.position_B[active], self.count_B[active] = drawn_B, position_B + 1, count_B + 1
        stopped_B = torch.isin(drawn_B, self.stop_ids)
        finished = (stopped_B | (self.count_B[active] >= self.sampling.max_tokens)).nonzero()[:, 0].tolist()
        if finished:
            counts, stops = self.count_B[active].tolist(), stopped_B.tolist()
            for row in finished:
                i, drawn = self.active[row].sample, slice(0, counts[row])
                ids, logps = self.tokens_BM[row, drawn].tolist(), self.logps_BM[row, drawn].tolist()
                self.samples[i] = Sample(ids, logps, "stop" if stops[row] else "length")
                if self.on_sample:
                    self.on_sample(i // self.n, self.samples[i])
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
            for tensor in (self.token_B, self.position_B, self.key_B, self.count_B, self.tokens_BM, self.logps_BM):
                tensor[target] = tensor[source]
            for mover, hole in zip(movers, holes, strict=True):
                self.active[hole] = self.active[mover]
        del self.active[kept:]

    def _tensor(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self.model.device)


def _copy_of(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """A copy with parameters in `dtype`; buffers, such as the frequencies of rotary embeddings, stay as they are."""
    cast = {id(p): torch.nn.Parameter(p.detach().to(dtype), requires_grad=False) for p in model.parameters()}
    return copy.deepcopy(model, cast).eval()  # takes the cast parameters for copies already made
