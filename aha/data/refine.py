"""Refinements: the thoughts of a trace made readable, without a word of its answer changed.

Cold start takes outputs of R1-Zero in a readable form (arXiv 2501.12948, section 2.3.1). Each refinement of STEPS is
`step(text, trace, prompt, **args) -> text`, a pure function of the whole completion. All of them change the thoughts and
nothing that follows them, so a grader reads the same answer before and after. Thoughts that are not closed, or hold tags,
stay as they are: what is thought and what is answered cannot be told apart there.

A step may leave thoughts that say little, or none; whether such a trace is any good is for the filters to say.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Literal

import regex
from pydantic import Field

from aha.chat import parse
from aha.config import NamedConfig, PromptConfig
from aha.data.mixing import translate
from aha.data.named import bind
from aha.language import LATIN, LATIN_WORD, NO_PROSE, share_in, target_language
from aha.language import WORD as LANGUAGE_WORD
from aha.metrics import WORD
from aha.types import Trace, UserError

# Sounds and phrases that carry nothing where commas or full stops set them apart. "Wait" and "but" are no fillers: they
# turn the thought.
FILLERS = (
    *("um", "umm", "uh", "uhh", "hm", "hmm", "hmmm", "ah", "oh", "okay", "ok", "alright", "all right", "well", "anyway"),
    *("you know", "I mean", "let me see", "let's see", "basically"),
    *("嗯", "嗯嗯", "呃", "唔", "啊", "哦", "噢", "那个", "这个嘛", "好吧", "就是说", "怎么说呢", "让我看看", "让我想想"),
)
PAUSE = r"[,.!?;:…，。！？；：、]"
SENTENCE_END = regex.compile(r"(?<![.!?…])[.!?…]+[\"'”’)\]]*\s+|[。！？]+[”’」）]*\s*|\n+")
SENTENCE_START = regex.compile(
    r"(?:^|(?<=\n)|(?<=[^\s.][.!?…]\s)(?<![.\s]\p{L}[.!]\s)(?<!\d!\s))"  # a line or sentence; "e.g. " and "13! " end none
    r"(?:[ \t]*(?:[-*•>]|\d+[.)])[ \t]+|[ \t]*)"  # marks of a list
    r"\K\p{Ll}(?=[\p{L}'’-]+(?:[\s,;:!?，]|\.(?:\s|$)|$))(?![\p{L}'’-]+\s*[=+*/^<>|≤≥≠])"  # a word, and no variable or function
)
OTHER = {"en": ("zh", regex.compile(r"\p{Han}")), "zh": ("en", regex.compile("[A-Za-z]{2}"))}  # that the lexicon knows
MIN_SENTENCE_WORDS = 6  # in Latin letters, before the identifier is asked which language a sentence is in
SYMBOL = regex.compile(r"(?<!\p{Greek})\p{Greek}(?!\p{Greek})")  # of a formula: one Greek letter is no Greek
MIN_LINE_WORDS = 3  # of a line that may stand once only; "Wait." and sums may come again
LIST_ITEM = regex.compile(r"\s*(?:[-*•|>]|\d+[.)])\s")
MAX_LOOP = 64  # words in one round of a loop
PIECE = regex.compile(rf"(?:{NO_PROSE.pattern})|\p{{Han}}|[^\s\p{{Han}}$\\`<]+|\S", regex.DOTALL)
LETTERS = regex.compile(r"\p{L}{2,}|\p{Han}")
OPERATOR = regex.compile(r"[-+*/=×÷·^]+")
CLAUSE = regex.compile(r"[.,;:!?…，。！？；：、]$")
SUMMARIES = {"en": "Summary: the answer is {answer}", "zh": "总结：答案是{answer}"}

Change = Callable[[str], str]


def refine(trace: Trace, steps: Sequence[NamedConfig], prompt: PromptConfig) -> Trace:
    """The trace after `steps`, in order; `trace.steps` gains the names of those that changed its text.

    Raises UserError for a step or an argument that there is not.
    """
    text, names = trace.text, list(trace.steps)
    for name, step in bind(steps, STEPS, "refinement"):
        refined = step(text, trace, prompt)
        if refined != text:
            text = refined
            names.append(name)
    return replace(trace, text=text, steps=tuple(names))


def drop_fillers(text: str, trace: Trace, prompt: PromptConfig, fillers: list[str] | None = None) -> str:
    """Without words such as "um" or "嗯" where they stand by themselves: a sentence, or set apart by commas.

    `fillers` takes the place of FILLERS. Case does not matter. A line of fillers goes as a whole.
    """
    words = "|".join(regex.escape(word) for word in sorted(fillers or FILLERS, key=len, reverse=True))
    at_start = rf"(?:^|(?<=[.!?。！？…]))(\s*)(?:(?:{words})(?:[ \t]*{PAUSE}+[ \t]*|[ \t]*$))+"
    inside = rf"(?:(?<=[,，])[ \t]*(?:{words})[ \t]*[,，][ \t]*|[,，][ \t]*(?:{words})(?=[ \t]*[.!?。！？…]|[ \t]*$))"
    patterns = [regex.compile(pattern, regex.IGNORECASE) for pattern in (at_start, inside)]

    def change(thoughts: str) -> str:
        lines = []
        for line in thoughts.split("\n"):
            cleaned = patterns[1].sub(lambda m: " " if m[0][-1] == " " else "", patterns[0].sub(r"\1", line))
            if cleaned.strip() or not line.strip():
                lines.append(cleaned)
        return "\n".join(lines)

    return _rethink(text, prompt, change)


def capitalise(text: str, trace: Trace, prompt: PromptConfig) -> str:
    """Lines and sentences begin with a capital letter; formulas, code and variables such as `x` or `total =` do not."""

    def change(thoughts: str) -> str:
        starts = [match.start() for match in SENTENCE_START.finditer(_without_formulas(thoughts))]
        letters = list(thoughts)
        for start in starts:
            letters[start] = letters[start].upper()
        return "".join(letters)

    return _rethink(text, prompt, change)


def one_language(text: str, trace: Trace, prompt: PromptConfig) -> str:
    """Thoughts in the language of the question alone.

    What the lexicon of the tiny world knows is translated. Of the rest, sentences go that have fewer than half of their
    words in that language. Among languages in Latin letters a sentence of few words is given the benefit of the doubt.
    """
    language = target_language(trace.problem)

    def change(thoughts: str) -> str:
        if language in OTHER:
            other, letters = OTHER[language]
            lines = (translate(line, other) if letters.search(line) else line for line in thoughts.split("\n"))
            thoughts = "\n".join(lines)
        return "".join(sentence for sentence in _sentences(thoughts) if not _is_foreign(sentence, language))

    return _rethink(text, prompt, change)


def strip_repetition(text: str, trace: Trace, prompt: PromptConfig, times: Annotated[int, Field(ge=2)] = 3) -> str:
    """A line stands once, and so does what is said `times` times on end or more often.

    Items of a list, code, and lines of fewer than MIN_LINE_WORDS words beside their sums may come again. Sums are no loops:
    "x + x + x" and "5, 5, 5" stay.
    """
    return _rethink(text, prompt, lambda thoughts: _without_loops(_lines_once(thoughts), times))


def reasoning_summary(text: str, trace: Trace, prompt: PromptConfig, texts: dict[str, str] | None = None) -> str:
    """Readable reasoning followed by a summary (arXiv 2501.12948, section 2.3.1), which is the last line of the thoughts.

    There it stands right before the answer, and outside of it, since a grader wants an equation and not a sentence about
    one. `texts` takes the place of SUMMARIES: the summary by language, with {answer}. A trace stays as it is where there
    are no thoughts, no answer of one line, no summary in the question's language, or where the answer has words of
    another.

    Example: "...44+19=63, 63+35=98, that works!\\nSummary: the answer is 44+19+35</think> <answer>44+19+35</answer>"
    """
    for language, summary in (texts or {}).items():
        if "{answer}" not in summary:
            raise UserError(f"refinement reasoning_summary: texts.{language} has no {{answer}}")
    answer = parse(text, prompt.think, prompt.answer).answer
    language = target_language(trace.problem)
    template = (texts or SUMMARIES).get(language)
    if not answer or "\n" in answer or template is None:
        return text
    summary = template.replace("{answer}", answer)
    share, words = share_in(summary, language)
    if words and share < 1:
        return text

    def change(thoughts: str) -> str:
        said = thoughts.rstrip()
        return thoughts if not said or said.endswith(summary) else f"{said}\n{summary}{thoughts[len(said) :]}"

    return _rethink(text, prompt, change)


def cap_length(
    text: str,
    trace: Trace,
    prompt: PromptConfig,
    max_words: Annotated[int, Field(ge=1)] | None = None,
    max_lines: Annotated[int, Field(ge=1)] | None = None,
    keep: Literal["start", "end"] = "end",
) -> str:
    """Whole lines of the thoughts, at most `max_lines` and together at most `max_words` words, but one line at least.

    `keep: end` keeps the last lines, those that lead to the answer. Numbers and Chinese characters are words; empty lines
    do not count.
    """
    if max_words is None and max_lines is None:
        raise UserError("refinement cap_length wants max_words or max_lines")

    def change(thoughts: str) -> str:
        body = thoughts.strip()
        lines = body.split("\n")
        kept: list[str] = []
        num_words = num_lines = 0
        for line in lines if keep == "start" else reversed(lines):
            num_words += len(WORD.findall(line))
            num_lines += bool(line.strip())
            is_over = (max_words and num_words > max_words) or (max_lines and num_lines > max_lines)
            if is_over and num_lines > 1:
                break
            kept.append(line)
        if len(kept) == len(lines):
            return thoughts
        start = len(thoughts) - len(thoughts.lstrip())
        shown = "\n".join(kept if keep == "start" else reversed(kept)).strip("\n")
        return thoughts[:start] + shown + thoughts[start + len(body) :]

    return _rethink(text, prompt, change)


STEPS: dict[str, Callable[..., str]] = {
    "drop_fillers": drop_fillers,
    "capitalise": capitalise,
    "one_language": one_language,
    "strip_repetition": strip_repetition,
    "reasoning_summary": reasoning_summary,
    "cap_length": cap_length,
}


def _rethink(text: str, prompt: PromptConfig, change: Change) -> str:
    """`text` with other thoughts; as it is where they are not closed, hold tags, or would hold any after the change."""
    opened, closed = f"<{prompt.think}>", f"</{prompt.think}>"
    tags = (opened, closed, f"<{prompt.answer}>", f"</{prompt.answer}>")
    head, mark, tail = text.partition(closed)
    before, _, thoughts = head.rpartition(opened)
    if not mark or closed in tail or opened in before + tail or any(tag in thoughts for tag in tags):
        return text
    changed = change(thoughts)
    return text if any(tag in changed for tag in tags) else head[: len(head) - len(thoughts)] + changed + mark + tail


def _without_formulas(text: str, with_lines: bool = False) -> str:
    """The text with code, formulas and tags blotted out, every character in its place; with the line ends inside them."""
    return NO_PROSE.sub(lambda match: regex.sub(r"[^\n]" if with_lines else r"(?s).", "\0", match[0]), text)


def _sentences(text: str) -> list[str]:
    """The sentences of a text, each with the white space that follows it; together they are the text."""
    ends = [match.end() for match in SENTENCE_END.finditer(_without_formulas(text))]
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]


def _is_foreign(sentence: str, language: str) -> bool:
    """Whether fewer than half of the words are in `language`."""
    sentence = NO_PROSE.sub(" ", sentence) if language == "el" else SYMBOL.sub(" ", NO_PROSE.sub(" ", sentence))
    share, words = share_in(sentence, language)
    num_latin = sum(len(word) > 1 for word in LATIN_WORD.findall(sentence))
    if language in LATIN and words == num_latin < MIN_SENTENCE_WORDS:
        return False
    return words > 0 and share < 0.5


def _lines_once(text: str) -> str:
    """`text` without lines that stood in it before."""
    seen: set[str] = set()
    lines = []
    for line, prose in zip(text.split("\n"), _without_formulas(text, with_lines=True).split("\n"), strict=True):
        plain = " ".join(line.split())
        may_repeat = LIST_ITEM.match(line) or len(LANGUAGE_WORD.findall(prose)) < MIN_LINE_WORDS
        if may_repeat or plain not in seen:
            lines.append(line)
        seen.add(plain)
    return "\n".join(lines)


def _without_loops(text: str, times: int) -> str:
    """`text` with every run of words that comes at least `times` times on end kept once, short ones first."""
    pieces = list(PIECE.finditer(text))
    for size in range(1, MAX_LOOP + 1):
        words = [piece[0] for piece in pieces]
        comes_again = bytes(map(operator.eq, words, words[size:]))  # the word, `size` words later
        loop = b"\1" * (size * (times - 1))
        kept, place = [], 0
        start = comes_again.find(loop)
        while start >= 0:
            end = comes_again.find(b"\0", start)
            end = len(comes_again) if end < 0 else end
            if _is_loop(words[start : start + size]):
                after = start + ((end - start) // size + 1) * size
                kept.append(text[place : pieces[start + size].start()])
                place = pieces[after].start() if after < len(pieces) else pieces[-1].end()
            start = comes_again.find(loop, end)
        if kept:
            text = "".join(kept) + text[place:]
            pieces = list(PIECE.finditer(text))
    return text


def _is_loop(words: Sequence[str]) -> bool:
    """Whether words that come again and again are prose: some letters, and where a sum is among them a clause around it."""
    has_letters = any(LETTERS.search(NO_PROSE.sub("", word)) for word in words)
    is_sum = any(OPERATOR.fullmatch(word) for word in words) and not any(CLAUSE.search(word) for word in words)
    return has_letters and not is_sum
