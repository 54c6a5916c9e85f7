"""Text in and out of the model: prompt templates, and the one parser of thoughts and answer.

Prompt settings travel with the model: `save_prompt` writes them beside the weights, and whoever loads the model
speaks to it as it was trained to be spoken to.
"""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2.exceptions import TemplateError

from aha.config import PromptConfig, validate
from aha.types import UserError

PROMPT_FILE = "prompt.json"
BLANKS = "\u115f\u1160\u2800\u3164\uffa0"  # letters and signs that are drawn as nothing: Hangul fillers, empty Braille
ENCODED_AT_ONCE = 4096  # texts

# Some templates write today's date into the system turn. No result is to depend on the day, so they get the one that such
# templates fall back to themselves.
DAY = {"%d": "26", "%b": "Jul", "%B": "July", "%m": "07", "%Y": "2024", "%y": "24", "%A": "Friday", "%a": "Fri"}
DAY |= dict.fromkeys(("%H", "%M", "%S"), "00")
REPLACED = "".join(f"|replace('{sign}', '{text}')" for sign, text in DAY.items())
CLOCK = "{%- macro strftime_now(format) -%}{{ format" + REPLACED + " }}{%- endmacro -%}"

Message = Mapping[str, str]  # role and content
Piece = tuple[str, bool]

# The template of DeepSeek-R1-Zero (arXiv 2501.12948, table 1); {think} and {answer} are the tag names.
R1_INSTRUCTION = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. "
    "The assistant first thinks about the reasoning process in the mind and then provides the user with the answer. "
    "The reasoning process and answer are enclosed within <{think}> </{think}> and <{answer}> </{answer}> tags, "
    "respectively, i.e., <{think}> reasoning process here </{think}> <{answer}> answer here </{answer}>."
)


def render(question: str, cfg: PromptConfig, tokenizer: Any) -> str:
    """The text that the model continues, ending with the prefilled start of the assistant's turn.

    `r1`: the paper's template as plain text, for base models. `r1-chat`: its instruction as the system turn of the
    tokenizer's chat template, or above the question where the template knows no system role. `chat`: the question as
    user turn. `plain`: the question itself.
    """
    instruction = R1_INSTRUCTION.format(think=cfg.think, answer=cfg.answer)
    if cfg.template == "plain":
        return (cfg.system or "") + question + cfg.prefill
    if cfg.template == "r1":
        return f"{cfg.system or instruction} User: {question} Assistant: {cfg.prefill}".rstrip(" ")
    system = cfg.system or (instruction if cfg.template == "r1-chat" else None)
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": question})
    if not tokenizer.chat_template:
        raise UserError(f"prompt.template {cfg.template} needs a chat template, which this tokenizer lacks; use r1 or plain")
    text = apply_chat_template(messages, tokenizer)
    opened = opened_by_template(text, cfg)
    return text + (cfg.prefill.removeprefix(opened.rstrip()).lstrip() if opened else cfg.prefill)


def render_conversation(messages: Sequence[Message], end: str, cfg: PromptConfig, tokenizer: Any) -> list[Piece]:
    """A conversation as the tokenizer's chat template writes it, in pieces: (text, whether the assistant says it).

    An assistant's turn begins where the template's prompt for it ends and goes on to `end`, the token that ends a turn
    (see `turn_end`). Some templates drop the thoughts of a turn. An earlier turn whose words are not all there is left
    to the other side; the last turn then stands behind its prompt as it was written. What follows it is dropped.

    Example: [("<|im_start|>user\\n1+1?<|im_end|>\\n<|im_start|>assistant\\n", False), ("2<|im_end|>", True)]
    """
    if not tokenizer.chat_template:
        raise UserError("rows of messages need a chat template, which this tokenizer lacks")
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    prompts = [apply_chat_template(messages[:i], tokenizer) for i in turns]
    replies = [messages[i]["content"].strip() for i in turns]
    text = apply_chat_template(messages[: turns[-1] + 1], tokenizer, add_generation_prompt=False)
    if _end_of_turn(text, prompts[-1], replies[-1], end) is None:
        opened = opened_by_template(prompts[-1], cfg)
        replies[-1] = replies[-1].removeprefix(opened.strip()).lstrip() if opened else replies[-1]
        text = prompts[-1] + replies[-1] + end

    pieces, done = [], 0
    for prompt, reply, limit in zip(prompts, replies, [*map(len, prompts[1:]), len(text)], strict=True):
        stop = _end_of_turn(text[:limit], prompt, reply, end)
        if stop is not None:
            pieces += [(text[done : len(prompt)], False), (text[len(prompt) : stop], True)]
            done = stop
    return pieces


def _end_of_turn(text: str, prompt: str, reply: str, end: str) -> int | None:
    """Where the turn that answers `prompt` ends in `text`; None where `text` does not hold all of both."""
    found = text.find(reply, len(prompt)) if text.startswith(prompt) else -1
    closed = text.find(end, found + len(reply)) if found >= 0 else -1
    return closed + len(end) if closed >= 0 else None


def turn_end(tokenizer: Any) -> str | None:
    """The token that the chat template ends the assistant's turn with, such as <|im_end|>, if any."""
    if not tokenizer.chat_template:
        return None
    reply = "This is the reply."
    messages = [{"role": "user", "content": "Reply."}, {"role": "assistant", "content": reply}]
    try:
        rest = apply_chat_template(messages, tokenizer, add_generation_prompt=False).partition(reply)[2].lstrip()
    except UserError:  # matters to whoever uses the template, and to nobody else
        return None
    return max((token for token in tokenizer.get_added_vocab() if rest.startswith(token)), key=len, default=None)


def apply_chat_template(messages: Sequence[Message], tokenizer: Any, add_generation_prompt: bool = True) -> str:
    """The text that the chat template makes of messages. Where it refuses a system role, as Gemma's does, that message
    stands above the first question. Raises UserError where it refuses the rest."""
    template = tokenizer.chat_template
    dated = {"chat_template": CLOCK + template} if isinstance(template, str) and "strftime_now" in template else {}

    def apply(messages: Sequence[Message]) -> str:
        options = {"tokenize": False, "add_generation_prompt": add_generation_prompt, **dated}
        return str(tokenizer.apply_chat_template(list(messages), **options))

    try:
        try:
            return apply(messages)
        except TemplateError:
            if len(messages) < 2 or messages[0]["role"] != "system":
                raise
            system, question, *rest = messages
            return apply([{**question, "content": f"{system['content']}\n\n{question['content']}"}, *rest])
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise UserError(f"the chat template of this tokenizer refuses a conversation of {roles}: {error}") from error


def opened_by_template(text: str, cfg: PromptConfig) -> str:
    """The thinking tag that a chat template has put at the end of the prompt, with the white space behind it, if any."""
    tag = f"<{cfg.think}>"
    return text[len(text.rstrip()) - len(tag) :] if text.rstrip().endswith(tag) else ""


def with_template_prefill(cfg: PromptConfig, tokenizer: Any) -> PromptConfig:
    """The settings with the start of the assistant's turn that the chat template itself gives, so that grading sees it.

    DeepSeek-R1's distilled models and others open the thoughts in their templates.
    """
    if cfg.template not in ("chat", "r1-chat") or not tokenizer.chat_template:
        return cfg
    opened = opened_by_template(render("", cfg.model_copy(update={"prefill": ""}), tokenizer), cfg)
    return cfg.model_copy(update={"prefill": opened}) if opened and not cfg.prefill.startswith(opened.rstrip()) else cfg


def encode_prompts(texts: list[str], cfg: PromptConfig, tokenizer: Any) -> list[list[int]]:
    """Token ids of rendered prompts. A chat template writes its own start of text, so none is added to it."""
    return encode_all(texts, tokenizer, add_special_tokens=cfg.template not in ("chat", "r1-chat"))


def encode_all(texts: list[str], tokenizer: Any, add_special_tokens: bool) -> list[list[int]]:
    """Token ids of every text. In slices, since what a tokenizer makes beside the ids takes four times their memory."""
    slices = [texts[start : start + ENCODED_AT_ONCE] for start in range(0, len(texts), ENCODED_AT_ONCE)]
    return [ids for part in slices for ids in tokenizer(part, add_special_tokens=add_special_tokens).input_ids]


def decode(token_ids: list[int], tokenizer: Any, stop_ids: frozenset[int]) -> str:
    """The text of a completion without its stop token.

    Tags may be special tokens of a tokenizer, so nothing else is skipped: a decoder that drops special tokens drops
    <think> with them, and every reward is then zero.
    """
    if token_ids and token_ids[-1] in stop_ids:
        token_ids = token_ids[:-1]
    return tokenizer.decode(token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


@dataclass(frozen=True)
class Parsed:
    """A completion taken apart.

    Example: "<think>1+1=2</think> <answer>2</answer>" -> Parsed(thoughts="1+1=2", body=" <answer>2</answer>",
    answer="2", is_well_formed=True)
    """

    thoughts: str  # what stands between the thinking tags; all of the rest where they are never closed
    body: str  # what follows the thoughts; everything where there are none
    answer: str | None  # inside the answer tags of the body; None unless they stand exactly once in the whole text
    is_well_formed: bool  # the whole text is <think>...</think> <answer>...</answer>, each tag once, neither empty


def parse(text: str, think: str = "think", answer: str = "answer") -> Parsed:
    """Take thoughts and answer apart. The answer never comes from inside the thoughts.

    Linear in the length of the text. Tags that are repeated, nested or out of order leave the answer None: a text
    that offers several answers offers none.
    """
    marks = (f"<{think}>", f"</{think}>", f"<{answer}>", f"</{answer}>")
    counts = [text.count(mark) for mark in marks]
    opened, closed, answer_opened, answer_closed = marks
    start, end = text.find(opened), text.find(closed)
    if end >= 0:
        thoughts, body = text[start + len(opened) if 0 <= start < end else 0 : end], text[end + len(closed) :]
    elif start >= 0:
        thoughts, body = text[start + len(opened) :], ""
    else:
        thoughts, body = "", text

    found = None
    if counts[0] <= 1 and counts[1] <= 1 and counts[2:] == [1, 1] and opened not in body:
        a, b = body.find(answer_opened), body.find(answer_closed)
        if 0 <= a < b:
            found = body[a + len(answer_opened) : b].strip()
    pattern = rf"\s*{re.escape(opened)}.+?{re.escape(closed)}\s*{re.escape(answer_opened)}.+?{re.escape(answer_closed)}\s*"
    is_well_formed = (
        counts == [1, 1, 1, 1]
        and bool(re.fullmatch(pattern, text, re.DOTALL))
        and has_content(thoughts)
        and has_content(found or "")
    )
    return Parsed(thoughts, body, found, is_well_formed)


def has_content(text: str) -> bool:
    """Whether anything in `text` can be seen: a letter, number or sign that is no white space and no blank character."""
    return any(unicodedata.category(character)[0] in "LNPS" and character not in BLANKS for character in text)


def save_prompt(folder: Path, cfg: PromptConfig) -> None:
    """Write the prompt settings beside the weights in `folder`."""
    (folder / PROMPT_FILE).write_text(json.dumps(cfg.model_dump(), indent=2) + "\n")


def load_prompt(folder: Path) -> PromptConfig | None:
    """The prompt settings saved beside the weights in `folder`, or None where there are none."""
    path = folder / PROMPT_FILE
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from error
    prompt: PromptConfig = validate(PromptConfig, values, str(path))
    return prompt
