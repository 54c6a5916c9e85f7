"""Texts as token ids: what is learned of them, under the chat templates of several families, and packed into rows."""

import json
from pathlib import Path

import pytest
import torch
from conftest import SHARED

from aha.chat import render
from aha.config import DataConfig, PromptConfig
from aha.data.sources import load_texts
from aha.model import Policy, microbatches, stop_token_ids, token_logps
from aha.texts import Example, batches, check_packing, collate, encode, first_fit, pieces_of
from aha.tokenizer import CHAT_TEMPLATE
from aha.types import UserError

TEXTS = [{"prompt": "What is 1+1?", "completion": "1+1=2</think>"}, {"prompt": "2+2?", "completion": "4"}]
TALK = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "It is 2."},
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "It is 4."},
    ]
}
THOUGHTS = {
    "messages": [
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "<think>\none and one\n</think>\n\nIt is 2."},
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "<think>\ntwo and two\n</think>\n\nIt is 4."},
    ]
}
ENDS = {  # template of TRL: the token that ends a turn
    "qwen2_5": "<|im_end|>",
    "qwen3": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "llama3_1": "<|eot_id|>",
    "gemma": "<end_of_turn>",
    "gemma3": "<end_of_turn>",
    "phi3": "<|end|>",
    "deepseekv3": "<｜end▁of▁sentence｜>",
    "deepseek_r1_distill": "<｜end▁of▁sentence｜>",
}


def speaking(policy: Policy, template: str, prompt: PromptConfig | None = None) -> Policy:
    """The policy with the chat template of a family, and the token that ends its turns."""
    trl = pytest.importorskip("trl")
    tokenizer = policy.tokenizer
    tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates" / f"{template}.jinja").read_text()
    tokenizer.add_special_tokens({"additional_special_tokens": [ENDS[template], "<bos>"]})
    tokenizer.bos_token = "<bos>"
    policy.model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    stop_ids = stop_token_ids(policy.model, tokenizer)
    return Policy(policy.model, tokenizer, prompt or policy.prompt, stop_ids, policy.dtype_on_disk)


def learned(policy: Policy, example: Example) -> list[str]:
    return [policy.tokenizer.decode(example.ids[start:stop]) for start, stop in example.learned]


def all_of(texts, policy: Policy, max_length: int = 1024, completion_only: bool = True) -> list[Example]:
    return encode(texts, policy, max_length, completion_only)


# What rows may hold.


def read(tmp_path, rows: list[dict], **changes) -> list[dict]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_texts(DataConfig(source=str(path), **changes))


SHARE_GPT = [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "1+1?"}, {"from": "gpt", "value": "2"}]
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]


def test_rows_of_messages_and_of_conversations_are_the_same_texts(tmp_path):
    other = [{**message, "from": sender} for message, sender in zip(SHARE_GPT, ("system", "user", "assistant"), strict=True)]
    rows = [{"messages": CHAT, "id": 7}, {"conversations": SHARE_GPT}, {"conversations": other}, {"messages": SHARE_GPT}]
    assert read(tmp_path, rows) == [{"messages": CHAT}] * 4


def test_a_row_with_prompt_and_completion_is_no_conversation(tmp_path):
    row = {"prompt": "p", "completion": "c", "question": "q", "messages": CHAT}
    pair, talk = {"prompt": "p", "completion": "c"}, {"messages": CHAT}
    assert read(tmp_path, [row, {**row, "completion": None}, {"prompt": "p", **talk}]) == [pair, talk, talk]
    assert read(tmp_path, [{"question": "q", "answer": "a", **talk}]) == [talk]
    columns = {"prompt": "question", "completion": "completion"}
    assert read(tmp_path, [row], columns=columns) == [{"prompt": "q", "completion": "c"}]
    assert read(tmp_path, [row], question="{question}!") == [{"prompt": "q!", "completion": "c"}]
    with pytest.raises(UserError, match="row 1: no column 'completion'"):
        read(tmp_path, [{"question": "q", **talk}], question="{question}!")


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
@pytest.mark.parametrize("name", ["numina_cot/numina_cot_sharegpt_data_1k.jsonl", "numina_tir/row.jsonl"])
def test_public_conversations_are_read_and_every_reply_is_learned(policy, name):
    texts = load_texts(DataConfig(source=str(SHARED / name), limit=50))
    assert [[message["role"] for message in text["messages"]] for text in texts] == [["user", "assistant"]] * len(texts)
    examples = all_of(texts, policy, max_length=100_000)
    for text, example in zip(texts, examples, strict=True):
        [reply] = learned(policy, example)
        assert reply.endswith("<|im_end|>")
        assert reply.removesuffix("<|im_end|>").strip() == text["messages"][1]["content"].strip()


def test_a_column_of_messages_may_have_another_name(tmp_path):
    assert read(tmp_path, [{"chat": CHAT}], columns={"messages": "chat"}) == [{"messages": CHAT}]
    assert read(tmp_path, [{"chat": SHARE_GPT}], columns={"conversations": "chat"}) == [{"messages": CHAT}]


def test_a_row_without_texts_is_told(tmp_path):
    with pytest.raises(UserError, match="row 1: no column 'prompt'; the row has text"):
        read(tmp_path, [{"text": "a"}])


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("Hello", "the conversation is no list of messages"),
        (["Hello"], "the conversation is no list of messages"),
        ([*CHAT, {"role": "tool", "content": "3"}], "message 4 is from 'tool'; known: system, user, human, assistant, gpt"),
        ([{"content": "3"}], "message 1 is from None; known"),
        ([CHAT[1], {"role": "assistant", "content": None}], "message 2 holds no text"),
        ([], "want at most one system message, then the user, then the assistant; got nothing"),
        (CHAT[2:], "want at most one system message, then the user, then the assistant; got assistant"),
        (CHAT[:2], "want at most one system message, then the user, then the assistant; got system, user"),
        (
            [CHAT[1], CHAT[0], CHAT[2]],
            "want at most one system message, then the user, then the assistant; got user, system, assistant",
        ),
    ],
)
def test_a_conversation_that_is_none_is_told_with_its_row(tmp_path, messages, message):
    with pytest.raises(UserError, match=f"rows.jsonl: row 2: {message}"):
        read(tmp_path, [{"messages": CHAT}, {"messages": messages}])


# Prompt and completion.


def test_only_the_completion_is_learned(policy):
    [example, _] = all_of(TEXTS, policy)
    assert learned(policy, example) == ["1+1=2</think><|endoftext|>"]
    assert policy.tokenizer.decode(example.ids[: example.learned[0][0]]).endswith("User: What is 1+1? Assistant: <think>")


def test_what_the_prompt_prefills_is_not_learned_twice(policy):
    with_tag = [{**text, "completion": "<think>" + text["completion"]} for text in TEXTS]
    assert all_of(with_tag, policy) == all_of(TEXTS, policy)


@pytest.mark.parametrize("prefill", ["<think>", "<think>\n"])
@pytest.mark.parametrize("opening", ["<think>", "<think>\n", "\n<think> "])
def test_white_space_about_a_prefilled_tag_does_not_bring_it_back(policy, prefill, opening):
    prompt = policy.prompt.model_copy(update={"template": "chat", "prefill": prefill})
    text = {"prompt": "1+1?", "completion": f"{opening}two</think> <answer>2</answer>"}
    (context, _), (learned, _) = pieces_of(text, prompt, policy.tokenizer, "<|im_end|>")
    assert (context + learned).count("<think>") == 1
    assert "\n\n" not in context[-3:] + learned[:3]


def test_without_completion_only_loss_all_but_the_first_token_is_learned(policy):
    for text in (TEXTS[0], TALK):
        [example] = all_of([text], policy, completion_only=False)
        assert example.num_learned == len(example.ids) - 1
        assert example.ids == all_of([text], policy)[0].ids


def test_texts_are_cut_at_max_length_and_dropped_where_nothing_is_left(policy):
    texts = [*TEXTS, TALK]
    full = all_of(texts, policy)
    longest = full[0].learned[0][0] + 2
    cut = all_of(texts, policy, max_length=longest)
    assert [example.ids for example in cut] == [example.ids[:longest] for example in full]
    assert cut[0].learned == [(longest - 2, longest)]
    assert all_of(texts, policy, max_length=5) == []


@pytest.mark.parametrize("template", ["chat", "r1-chat"])
@pytest.mark.parametrize("family", ENDS)
def test_under_a_chat_template_a_completion_ends_as_a_turn_does_and_generation_stops_there(policy, family, template):
    policy = speaking(policy, family, PromptConfig(template=template))
    [_, example] = all_of(TEXTS, policy)
    assert learned(policy, example) == ["4" + ENDS[family]]
    assert example.ids[-1] in policy.stop_ids
    context = render("2+2?", policy.prompt, policy.tokenizer)
    assert policy.tokenizer.decode(example.ids[: example.learned[0][0]]) == context


# Conversations.


@pytest.mark.parametrize("family", ["qwen2_5", "llama3", "llama3_1", "gemma", "gemma3", "phi3"])
def test_every_turn_of_the_assistant_is_learned_with_its_end_and_nothing_else(policy, family):
    policy = speaking(policy, family)
    [example] = all_of([TALK], policy)
    assert learned(policy, example) == ["It is 2." + ENDS[family], "It is 4." + ENDS[family]]
    assert all(example.ids[stop - 1] in policy.stop_ids for _, stop in example.learned)
    text = policy.tokenizer.decode(example.ids)
    assert [text.count(words) for words in ("Be brief.", "1+1?", "2+2?")] == [1, 1, 1]
    prompt = PromptConfig(template="chat", system="Be brief.")
    assert text.startswith(render("1+1?", prompt, policy.tokenizer) + "It is 2." + ENDS[family])


def test_a_conversation_is_written_by_the_chat_template_whatever_the_prompt_settings_say(policy):
    [example] = all_of([TALK], policy)
    assert policy.prompt.template == "r1"
    assert learned(policy, example) == ["It is 2.<|im_end|>", "It is 4.<|im_end|>"]
    assert policy.tokenizer.decode(example.ids).startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1+1?")


def test_qwen3_learns_turns_without_thoughts_and_the_empty_thoughts_that_it_writes_in_the_last(policy):
    policy = speaking(policy, "qwen3")
    [example] = all_of([TALK], policy)
    assert learned(policy, example) == ["It is 2.<|im_end|>", "<think>\n\n</think>\n\nIt is 4.<|im_end|>"]


def test_where_the_template_drops_the_thoughts_of_earlier_turns_the_last_turn_is_learned(policy):
    policy = speaking(policy, "qwen3")
    [example] = all_of([THOUGHTS], policy)
    assert learned(policy, example) == ["<think>\ntwo and two\n</think>\n\nIt is 4.<|im_end|>"]
    assert "one and one" not in policy.tokenizer.decode(example.ids)
    assert "It is 2.<|im_end|>" in policy.tokenizer.decode(example.ids)


@pytest.mark.parametrize("family", ["deepseek_r1_distill", "deepseekv3"])
def test_where_the_template_drops_all_thoughts_the_last_turn_is_learned_as_it_was_written(policy, family):
    policy = speaking(policy, family)
    [example] = all_of([THOUGHTS], policy)
    [last] = learned(policy, example)
    assert last.removeprefix("<think>\n") == "two and two\n</think>\n\nIt is 4." + ENDS[family]
    whole = policy.tokenizer.decode(example.ids)
    assert whole.count("<think>") == 1
    assert "one and one" not in whole


def test_a_turn_without_its_thoughts_is_not_mistaken_for_a_later_one_with_the_same_words(policy):
    policy = speaking(policy, "qwen3")
    [example] = all_of([{"messages": THOUGHTS["messages"][:2] * 2}], policy)
    assert learned(policy, example) == ["<think>\none and one\n</think>\n\nIt is 2.<|im_end|>"]
    assert policy.tokenizer.decode(example.ids).count("one and one") == 1


def test_where_the_template_opens_thoughts_in_the_prompt_but_shows_none_in_earlier_turns_the_last_is_learned(policy):
    policy.tokenizer.chat_template = CHAT_TEMPLATE.replace("assistant\n", "assistant\n<think>\n")
    said = ("1+1?", "2", "2+2?", "4")
    messages = [{**message, "content": text} for message, text in zip(TALK["messages"][1:], said, strict=True)]
    [example] = all_of([{"messages": messages}], policy)
    assert learned(policy, example) == ["4<|im_end|>"]
    assert policy.tokenizer.decode(example.ids).endswith("2+2?<|im_end|>\n<|im_start|>assistant\n<think>\n4<|im_end|>")


def test_thoughts_that_the_template_would_write_in_another_way_are_learned_as_they_are(policy):
    policy = speaking(policy, "qwen3")
    messages = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "<think>a</think> <answer>2</answer>"}]
    [example] = all_of([{"messages": messages}], policy)
    assert learned(policy, example) == ["<think>a</think> <answer>2</answer><|im_end|>"]


def test_what_follows_the_last_reply_is_dropped(policy):
    more = {"messages": [*TALK["messages"], {"role": "user", "content": "Thanks."}]}
    assert all_of([more], policy) == all_of([TALK], policy)


def test_conversations_and_pairs_keep_their_order(policy):
    mixed = all_of([TEXTS[0], TALK, TEXTS[1], TALK], policy)
    assert mixed == [all_of([text], policy)[0] for text in (TEXTS[0], TALK, TEXTS[1], TALK)]


def test_a_conversation_without_a_chat_template_and_one_that_it_refuses_are_told(policy):
    alternating = speaking(policy, "gemma3")
    twice = [{"role": "user", "content": "1"}, {"role": "user", "content": "2"}, {"role": "assistant", "content": "3"}]
    with pytest.raises(UserError, match=r"refuses a conversation of user, user: Conversation roles must alternate"):
        all_of([{"messages": twice}], alternating)
    policy.tokenizer.chat_template = None
    with pytest.raises(UserError, match="rows of messages need a chat template, which this tokenizer lacks"):
        all_of([TALK], policy)


# Packing.

EXAMPLES = [
    Example([5, 6, 7], [(1, 3)]),
    Example([9, 8, 7, 6, 5, 4, 3, 9, 11], [(2, 4), (6, 9)]),
    Example([4, 4, 4, 5, 6, 7, 8], [(3, 7)]),
    Example([12, 6], [(1, 2)]),
]
PACKED = ("qwen2", "qwen3", "llama", "gemma3_text")


def test_first_fit_fills_rows_with_whole_texts():
    lengths = [3, 9, 1, 4, 4, 8, 2, 1]
    rows = first_fit(lengths, 10)
    assert sorted(i for row in rows for i in row) == list(range(8))
    assert rows == [[1, 2], [5, 6], [3, 4, 7], [0]]
    assert first_fit([20, 3], 10) == [[0], [1]]


def test_collate_restarts_the_positions_of_every_text_and_marks_what_is_learned():
    batch = collate([[EXAMPLES[0], EXAMPLES[3]], [EXAMPLES[2]]], pad_id=0, device=torch.device("cpu"))
    assert batch.input_ids_BT.tolist() == [[5, 6, 7, 12, 6, 0, 0], [4, 4, 4, 5, 6, 7, 8]]
    assert batch.mask_BT.int().tolist() == [[0, 1, 1, 0, 1, 0, 0], [0, 0, 0, 1, 1, 1, 1]]
    assert batch.position_ids_BT.tolist() == [[0, 1, 2, 0, 1, 2, 3], [0, 1, 2, 3, 4, 5, 6]]
    assert collate([EXAMPLES[:1], EXAMPLES[1:2]], 0, torch.device("cpu")).position_ids_BT is None


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", PACKED)
def test_logits_of_a_packed_text_equal_those_of_the_text_alone(make_family, family, attention):
    model = make_family(family).model
    model.set_attn_implementation(attention)
    batch = collate([EXAMPLES[:2], EXAMPLES[2:]], 0, model.device)
    packed = model(batch.input_ids_BT, position_ids=batch.position_ids_BT, use_cache=False).logits
    for row, start, example in [(0, 0, 0), (0, 3, 1), (1, 0, 2), (1, 7, 3)]:
        ids = EXAMPLES[example].ids
        alone = model(torch.tensor([ids])).logits[0]
        torch.testing.assert_close(packed[row, start : start + len(ids)], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", PACKED)
def test_a_packed_step_has_the_gradient_of_an_unpacked_one(make_family, family):
    policy = make_family(family)

    def gradient(packing: bool) -> tuple[torch.Tensor, float]:
        policy.model.zero_grad()
        loss = 0.0
        for batch in batches(EXAMPLES, policy, 40, max_length=12, packing=packing):
            part = -token_logps(policy.model, batch, 1.0, torch.float32).sum() / 12
            part.backward()
            loss += part.item()
        return torch.cat([p.grad.flatten() for p in policy.model.parameters()]), loss

    (packed, packed_loss), (alone, loss) = gradient(True), gradient(False)
    assert packed_loss == pytest.approx(loss, rel=1e-5)
    assert (packed - alone).norm() < 1e-5 * alone.norm()


def test_split_into_micro_batches_keeps_gradient(policy):
    def gradient(max_tokens: int) -> torch.Tensor:
        policy.model.zero_grad()
        for batch in batches(EXAMPLES, policy, max_tokens, 1024):
            (-token_logps(policy.model, batch, 1.0, torch.float32).sum()).backward()
        return torch.cat([p.grad.flatten() for p in policy.model.parameters()])

    whole, parts = gradient(1000), gradient(1)
    assert (parts - whole).norm() < 1e-5 * whole.norm()


def test_packing_is_one_row_per_pass_for_flash_attention_and_fills_the_budget_otherwise(policy):
    sizes = [batch.input_ids_BT.shape[0] for batch in batches(EXAMPLES, policy, 1000, 12, packing=True)]
    assert sizes == [2]
    policy.model.config._attn_implementation = "flash_attention_2"
    sizes = [batch.input_ids_BT.shape[0] for batch in batches(EXAMPLES, policy, 1000, 12, packing=True)]
    assert sizes == [1, 1]
    assert len(microbatches([12, 9], 1000)) == 1


@pytest.mark.parametrize("family", PACKED)
def test_packing_is_refused_where_packed_texts_would_see_one_another(make_family, family):
    policy = make_family(family)
    check_packing(policy, torch.float32)
    forward = policy.model.base_model.forward
    policy.model.base_model.forward = lambda ids, position_ids, **kwargs: forward(ids, **kwargs)
    with pytest.raises(UserError, match=r"packing: with attention sdpa, texts in one row of a .* model see one another"):
        check_packing(policy, torch.float32)
