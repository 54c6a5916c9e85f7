"""Prompts in, thoughts and answer out."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from aha.bundled import bundled_folder
from aha.chat import (
    R1_INSTRUCTION,
    Parsed,
    apply_chat_template,
    decode,
    load_prompt,
    parse,
    render,
    save_prompt,
    with_template_prefill,
)
from aha.config import PromptConfig
from aha.types import UserError

# Parsing.


@pytest.mark.parametrize(
    ("text", "thoughts", "body", "answer", "is_well_formed"),
    [
        ("<think>1+1=2</think> <answer>2</answer>", "1+1=2", " <answer>2</answer>", "2", True),
        ("<think>\na\nb\n</think>\n\n<answer>\n2\n</answer>\n", "\na\nb\n", "\n\n<answer>\n2\n</answer>\n", "2", True),
        ("  <think>a</think><answer>2</answer>", "a", "<answer>2</answer>", "2", True),
        # No tags, or not all.
        ("", "", "", None, False),
        ("2", "", "2", None, False),
        ("<answer>2</answer>", "", "<answer>2</answer>", "2", False),
        ("<think>a</think> 2", "a", " 2", None, False),
        ("a</think> <answer>2</answer>", "a", " <answer>2</answer>", "2", False),
        ("<think>a</think> <answer>2", "a", " <answer>2", None, False),
        ("<think>a</think> 2</answer>", "a", " 2</answer>", None, False),
        # Thoughts that are never closed, and an answer inside them.
        ("<think>a", "a", "", None, False),
        ("<think>a <answer>2</answer>", "a <answer>2</answer>", "", None, False),
        ("<think>a <answer>2</answer></think>", "a <answer>2</answer>", "", None, False),
        ("<think>a <answer>2</think> 3</answer>", "a <answer>2", " 3</answer>", None, False),
        # Several answers are none.
        ("<think>a</think> <answer>2</answer> <answer>3</answer>", "a", " <answer>2</answer> <answer>3</answer>", None, False),
        ("<think>a <answer>2</answer></think><answer>3</answer>", "a <answer>2</answer>", "<answer>3</answer>", None, False),
        ("<think>a</think> <answer>2</answer></answer>", "a", " <answer>2</answer></answer>", None, False),
        ("<think>a</think> <answer><answer>2</answer></answer>", "a", " <answer><answer>2</answer></answer>", None, False),
        ("<think>a</think> </answer>2<answer>", "a", " </answer>2<answer>", None, False),
        # Thoughts that are closed or opened twice.
        ("<think>a</think></think> <answer>2</answer>", "a", "</think> <answer>2</answer>", None, False),
        ("<think>a</think> <answer>2</answer></think>", "a", " <answer>2</answer></think>", None, False),
        ("<think><think>a</think> <answer>2</answer>", "<think>a", " <answer>2</answer>", None, False),
        ("<think>a</think><think>b</think><answer>2</answer>", "a", "<think>b</think><answer>2</answer>", None, False),
        ("</think><think> <answer>2</answer>", "", "<think> <answer>2</answer>", None, False),
        # Something around or between, or nothing inside.
        ("x<think>a</think> <answer>2</answer>", "a", " <answer>2</answer>", "2", False),
        ("<think>a</think> so <answer>2</answer>", "a", " so <answer>2</answer>", "2", False),
        ("<think>a</think> <answer>2</answer> bye", "a", " <answer>2</answer> bye", "2", False),
        ("<think></think> <answer>2</answer>", "", " <answer>2</answer>", "2", False),
        ("<think> \n</think> <answer>2</answer>", " \n", " <answer>2</answer>", "2", False),
        ("<think>a</think> <answer></answer>", "a", " <answer></answer>", "", False),
        ("<think>a</think> <answer> </answer>", "a", " <answer> </answer>", "", False),
        # Look-alikes are text.
        ("<Think>a</Think> <answer>2</answer>", "", "<Think>a</Think> <answer>2</answer>", "2", False),
        ("<think >a</think > <answer>2</answer>", "", "<think >a</think > <answer>2</answer>", "2", False),
    ],
)
def test_parse_takes_a_completion_apart(text, thoughts, body, answer, is_well_formed):
    assert parse(text) == Parsed(thoughts, body, answer, is_well_formed)


def test_tags_may_have_other_names():
    text = "<thinking>a</thinking> <result>2</result>"
    assert parse(text, "thinking", "result") == Parsed("a", " <result>2</result>", "2", True)
    assert parse(text) == Parsed("", text, None, False)


@pytest.mark.parametrize(
    "text",
    [
        "x" * 1_000_000,
        " " * 1_000_000,
        "<think>" * 200_000,
        "</think>" * 200_000,
        "<think></think>" * 100_000,
        "<answer></answer>" * 100_000,
        "<think>" + "a</think" * 200_000,
        "<think>" + "</think> <answer" * 100_000,
        "<think>a</think>" + "\n" * 1_000_000,
        "<think>a</think>" + " " * 1_000_000 + "<answer>" + " " * 1_000_000,
        "<think>a</think> <answer>2</answer>" + " " * 1_000_000 + "x",
        "<" * 1_000_000,
    ],
    ids=lambda text: text[:24].strip() or "blank",
)
def test_a_huge_text_without_an_answer_of_good_form_is_not_well_formed(text):
    assert not parse(text).is_well_formed


def test_a_huge_text_of_good_form_is_well_formed():
    thoughts = "<b> wait, " * 100_000
    parsed = parse(f"<think>{thoughts}</think>{' ' * 100_000}<answer>{'1+' * 100_000}1</answer>")
    assert parsed.is_well_formed
    assert parsed.thoughts == thoughts
    assert len(parsed.answer) == 200_001


# Prompts.


class StubTokenizer:
    """A chat template that shows what it was given."""

    chat_template = "stub"

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        assert tokenize is False
        turns = "".join(f"[{message['role']}]{message['content']}" for message in messages)
        return turns + ("[assistant]" if add_generation_prompt else "")


def test_a_template_that_writes_the_date_writes_the_same_one_every_day():
    tokenizer = AutoTokenizer.from_pretrained(bundled_folder("tiny-base"))
    plain = apply_chat_template([{"role": "user", "content": "Q?"}], tokenizer)
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}, {{ strftime_now('%Y-%m-%d') }} " + tokenizer.chat_template
    assert apply_chat_template([{"role": "user", "content": "Q?"}], tokenizer) == f"26 Jul 2024, 2024-07-26 {plain}"


INSTRUCTION = R1_INSTRUCTION.format(think="think", answer="answer")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"template": "plain"}, "Q?"),
        ({"template": "plain", "prefill": "<think>"}, "Q?<think>"),
        ({"template": "plain", "system": "S. "}, "S. Q?"),
        ({"template": "r1"}, f"{INSTRUCTION} User: Q? Assistant:"),
        ({"template": "r1", "prefill": "<think>"}, f"{INSTRUCTION} User: Q? Assistant: <think>"),
        ({"template": "r1", "system": "S."}, "S. User: Q? Assistant:"),
        ({"template": "r1-chat", "prefill": "<think>"}, f"[system]{INSTRUCTION}[user]Q?[assistant]<think>"),
        ({"template": "r1-chat", "system": "S."}, "[system]S.[user]Q?[assistant]"),
        ({"template": "chat"}, "[user]Q?[assistant]"),
        ({"template": "chat", "system": "S.", "prefill": "<think>\n"}, "[system]S.[user]Q?[assistant]<think>\n"),
    ],
)
def test_render_fills_the_template(values, expected):
    assert render("Q?", PromptConfig(**values), StubTokenizer()) == expected


def test_the_instruction_names_the_tags_of_the_prompt():
    text = render("Q?", PromptConfig(think="thinking", answer="result"), StubTokenizer())
    assert "enclosed within <thinking> </thinking> and <result> </result> tags" in text
    assert "<think>" not in text
    assert "<answer>" not in text


def test_braces_in_a_question_are_left_alone():
    assert render(r"\frac{1}{2} {think}?", PromptConfig(template="r1"), None).endswith(
        r" User: \frac{1}{2} {think}? Assistant:"
    )


@pytest.mark.parametrize("template", ["chat", "r1-chat"])
def test_a_tokenizer_without_chat_template_is_told(template):
    tokenizer = StubTokenizer()
    tokenizer.chat_template = None
    with pytest.raises(UserError, match=f"prompt.template {template} needs a chat template.*use r1 or plain"):
        render("Q?", PromptConfig(template=template), tokenizer)


@pytest.mark.parametrize("template", ["r1", "plain"])
def test_plain_templates_need_no_tokenizer(template):
    assert render("Q?", PromptConfig(template=template), None)


# Decoding.


def family_tokenizer(family: str) -> PreTrainedTokenizerFast:
    """A tokenizer with the chat template of a model family, as TRL ships them."""
    trl = pytest.importorskip("trl")
    template = (Path(trl.__file__).parent / "chat_templates" / f"{family}.jinja").read_text()
    inner = Tokenizer(WordLevel({"<s>": 0}, unk_token="<s>"))
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", chat_template=template)


@pytest.mark.parametrize(
    ("family", "start", "end"),
    [
        ("qwen2_5", "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n2+2?", "<|im_start|>assistant\n<think>"),
        ("qwen3", "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n2+2?", "<|im_start|>assistant\n<think>"),
        ("llama3", "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.", "assistant<|end_header_id|>\n\n<think>"),
        ("gemma3", "<s><start_of_turn>user\nBe brief.\n\n2+2?<end_of_turn>", "<start_of_turn>model\n<think>"),
        ("gemma", "<s><start_of_turn>user\nBe brief.\n\n2+2?<end_of_turn>", "<start_of_turn>model\n<think>"),
    ],
)
def test_system_text_reaches_every_family_also_one_without_a_system_role(family, start, end):
    cfg = PromptConfig(template="chat", system="Be brief.", prefill="<think>")
    text = render("2+2?", cfg, family_tokenizer(family))
    assert text.startswith(start)
    assert text.endswith(end)


@pytest.mark.parametrize("family", ["deepseek_r1_distill", "deepseekv3"])
@pytest.mark.parametrize("prefill", ["", "<think>", "<think>\n"])
def test_a_template_that_opens_the_thoughts_is_graded_with_them(family, prefill):
    tokenizer = family_tokenizer(family)
    cfg = with_template_prefill(PromptConfig(template="chat", prefill=prefill), tokenizer)
    assert cfg.prefill.startswith("<think>")
    assert render("2+2?", cfg, tokenizer).count("<think>") == 1
    assert parse(cfg.prefill + "maybe \\boxed{5}? No, wait").body == ""
    more = PromptConfig(template="chat", prefill="<think>\nOkay,")
    assert render("2+2?", more, tokenizer).endswith("<think>\nOkay,")


def test_a_template_that_opens_nothing_leaves_the_settings_alone():
    cfg = PromptConfig(template="chat", prefill="<think>")
    assert with_template_prefill(cfg, family_tokenizer("qwen2_5")) is cfg
    assert with_template_prefill(PromptConfig(template="r1"), family_tokenizer("deepseekv3")).prefill == ""


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer whose tags and stop token are special."""
    words = ["<eos>", "<pad>", "<think>", "</think>", "<answer>", "</answer>", "two", "."]
    inner = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    inner.pre_tokenizer = WhitespaceSplit()
    inner.add_special_tokens(words[:6])
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", pad_token="<pad>")


def test_decode_keeps_tags_that_are_special_tokens_and_drops_the_stop_id(tokenizer):
    ids = [2, 6, 3, 4, 6, 5, 0]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "two two"
    assert decode(ids, tokenizer, frozenset({0})) == "<think> two </think> <answer> two </answer>"


def test_decode_drops_one_stop_id_at_the_end_only(tokenizer):
    assert decode([6, 0, 0], tokenizer, frozenset({0, 1})) == "two <eos>"
    assert decode([0, 6], tokenizer, frozenset({0})) == "<eos> two"
    assert decode([6, 1], tokenizer, frozenset({0, 1})) == "two"
    assert decode([6, 1], tokenizer, frozenset({0})) == "two <pad>"
    assert decode([0], tokenizer, frozenset({0})) == ""
    assert decode([], tokenizer, frozenset({0})) == ""


def test_decode_does_not_tidy_spaces(tokenizer):
    assert decode([6, 7], tokenizer, frozenset({0})) == "two ."


def test_decode_leaves_the_ids_as_they_are(tokenizer):
    ids = [6, 0]
    decode(ids, tokenizer, frozenset({0}))
    assert ids == [6, 0]


# Settings beside the weights.


def test_prompt_settings_come_back_as_saved(tmp_path):
    cfg = PromptConfig(template="chat", system="请一步一步想。", think="thinking", answer="result", prefill="<thinking>\n")
    save_prompt(tmp_path, cfg)
    assert load_prompt(tmp_path) == cfg


def test_a_folder_without_prompt_settings_has_none(tmp_path):
    assert load_prompt(tmp_path) is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", ""),
        ("[]", ""),
        ("null", ""),
        (json.dumps({"templat": "r1"}), "templat"),
        (json.dumps({"template": "r2"}), "template"),
        (json.dumps({"think": "a b"}), "think"),
    ],
)
def test_broken_prompt_settings_name_the_file_and_the_key(tmp_path, content, words):
    (tmp_path / "prompt.json").write_text(content)
    with pytest.raises(UserError) as caught:
        load_prompt(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'prompt.json'}: ")
    assert words in message
    assert "\n" not in message
