"""Texts to learn from, as token ids: a prompt and its completion, or a conversation.

A turn ends with a token that generation stops at: under a chat template the end of the turn, else the end of the text.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from aha.chat import Piece, encode_all, encode_prompts, render, render_conversation, turn_end
from aha.config import PromptConfig
from aha.model import Batch, Policy, microbatches, scoring_tolerance, token_logps
from aha.types import UserError


@dataclass(frozen=True)
class Example:
    """A text as token ids.

    Example: Example(ids=[5, 6, 7, 8, 2], learned=[(2, 5)]), whose first two ids are the prompt
    """

    ids: list[int]
    learned: list[tuple[int, int]]  # spans of `ids` in the loss, in order; the first token is never in it
    is_cut: bool = False  # its end did not fit

    @property
    def num_learned(self) -> int:
        return sum(stop - start for start, stop in self.learned)


def encode(texts: Sequence[Mapping[str, Any]], policy: Policy, max_length: int, completion_only: bool) -> list[Example]:
    """The texts of `load_texts` as token ids, cut at `max_length`; those of which nothing is left to learn are dropped.

    Learned is what the assistant says, or without `completion_only` all but the first token.
    """
    if not texts:
        return []
    tokenizer, prompt = policy.tokenizer, policy.prompt
    end = turn_end(tokenizer)
    rendered = [pieces_of(text, prompt, tokenizer, end) for text in texts]
    # Rendered prompts are encoded as for generation, which may put a start of text in front; conversations have theirs.
    is_pair = ["prompt" in text for text in texts]
    contexts = [pieces[0][0] for pair, pieces in zip(is_pair, rendered, strict=True) if pair]
    others = [words for pair, pieces in zip(is_pair, rendered, strict=True) for words, _ in pieces[pair:]]
    context_ids = iter(encode_prompts(contexts, prompt, tokenizer))
    other_ids = iter(encode_all(others, tokenizer, add_special_tokens=False))

    examples = []
    for pair, pieces in zip(is_pair, rendered, strict=True):
        ids: list[int] = []
        spans = []
        for i, (_, is_learned) in enumerate(pieces):
            start = len(ids)
            ids += next(context_ids if pair and i == 0 else other_ids)
            if is_learned or not completion_only:
                spans.append((max(start, 1), min(len(ids), max_length)))
        learned = [(start, stop) for start, stop in spans if start < stop]
        if learned:
            examples.append(Example(ids[: learned[-1][1]], learned, is_cut=len(ids) > max_length))
    return examples


def pieces_of(text: Mapping[str, Any], prompt: PromptConfig, tokenizer: Any, end: str | None) -> list[Piece]:
    """A row of `load_texts` as it is learned, in pieces: (text, whether the assistant says it).

    `end` is the `turn_end` of the tokenizer. The template of `prompt` is for rows of prompt and completion; a
    conversation is always written by the chat template.
    """
    if "messages" in text:
        return render_conversation(text["messages"], end or tokenizer.eos_token, prompt, tokenizer)
    context, completion = render(text["prompt"], prompt, tokenizer), text["completion"]
    # A completion that begins as the prefilled turn does would hold that beginning twice, and the white space behind it.
    opened = prompt.prefill.strip()
    if opened and completion.lstrip().startswith(opened):
        completion = completion.lstrip().removeprefix(opened)
        if context[-1:].isspace():
            completion = completion.lstrip()
    closed = end if end and prompt.template in ("chat", "r1-chat") else tokenizer.eos_token
    return [(context, False), (completion + closed, True)]


def batches(
    examples: Sequence[Example], policy: Policy, max_tokens: int, max_length: int, packing: bool = False
) -> Iterator[Batch]:
    """Micro-batches of at most `max_tokens` tokens, padding included. With `packing`, rows of up to `max_length` tokens
    hold several examples; the scores are the same."""
    lengths = [len(example.ids) for example in examples]
    rows = first_fit(lengths, max_length) if packing else [[i] for i in range(len(examples))]
    if packing and "flash" in str(policy.model.config._attn_implementation):
        max_tokens = 1  # flash attention finds the borders of packed texts in a single row only
    for chosen in microbatches([sum(lengths[i] for i in row) for row in rows], max_tokens):
        yield collate([[examples[i] for i in rows[j]] for j in chosen], policy.tokenizer.pad_token_id, policy.device)


def first_fit(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Indices of texts put into rows of at most `size` tokens: longest first, each into the first row with room."""
    rows: list[list[int]] = []
    free: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        place = next((j for j, room in enumerate(free) if lengths[i] <= room), len(rows))
        if place == len(rows):
            rows.append([])
            free.append(size)
        rows[place].append(i)
        free[place] -= lengths[i]
    return rows


def collate(rows: Sequence[Sequence[Example]], pad_id: int, device: torch.device) -> Batch:
    """One batch whose rows each hold one example, or several, one after the other; padded on the right."""
    width = max(sum(len(example.ids) for example in row) for row in rows)
    input_ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.bool)
    position_ids = torch.arange(width).repeat(len(rows), 1)
    for i, row in enumerate(rows):
        start = 0
        for example in row:
            stop = start + len(example.ids)
            input_ids[i, start:stop] = torch.tensor(example.ids)
            position_ids[i, start:] = torch.arange(width - start)  # padding goes on from the last example
            for first, last in example.learned:
                mask[i, start + first : start + last] = True
            start = stop
    is_packed = any(len(row) > 1 for row in rows)
    return Batch(input_ids.to(device), mask.to(device), position_ids.to(device) if is_packed else None)


def check_packing(policy: Policy, dtype: torch.dtype) -> None:
    """Raise UserError where the model lets packed texts see one another, as layers without attention do. `dtype` is that of
    training."""
    size = min(8, policy.model.config.get_text_config().vocab_size)
    pair = [Example(ids, [(1, size)]) for ids in (list(range(size)), list(range(size))[::-1])]
    was_training = policy.model.training
    policy.model.eval()
    with torch.no_grad():
        packed = token_logps(policy.model, collate([pair], 0, policy.device), 1.0, dtype)[0, size:]
        alone = token_logps(policy.model, collate([pair[1:]], 0, policy.device), 1.0, dtype)[0]
    policy.model.train(was_training)
    if (packed - alone).abs().max() > scoring_tolerance(dtype):
        kind, attention = policy.model.config.model_type, policy.model.config._attn_implementation
        raise UserError(
            f"packing: with attention {attention}, texts in one row of a {kind} model see one another; leave it out"
        )
