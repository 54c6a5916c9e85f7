"""Attention and cache of rows that decode together, each at a position of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

from aha.types import UserError

ATTENTION = "aha_rows"
WIDTH_BLOCK = 32  # the cache grows by so many positions


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
def rows_attending(model: PreTrainedModel) -> Iterator[None]:
    """Run `model` with the engine's attention, then with its own again."""
    before = model.config._attn_implementation
    model.set_attn_implementation(ATTENTION)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
