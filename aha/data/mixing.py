"""Mixed language: thoughts that change between English and Chinese, between lines and within them.

What R1-Zero showed at scale is planted in the tiny world: a share of its thoughts is mixed and a smaller one is in the
other language altogether. The reward for a right answer does not ask for either.
"""

import random
import re
from functools import lru_cache

from aha.data.lexicon import LANGUAGES, NAMES, PHRASES

MIXED = 0.4  # share of thoughts that mix the languages
OTHER = 0.1  # share of thoughts that are in the other language than the question
BETWEEN_LINES = 0.5  # of the mixed: lines change as a whole; the others change phrase by phrase
SWITCH = 0.4  # chance of a line, or of a phrase, to change


def speak(rng: random.Random, text: str, language: str, mixed: float = MIXED, other: float = OTHER) -> str:
    """Thoughts as a writer of the tiny world has them: as they are, mixed, or in the other language."""
    draw = rng.random()
    if draw < mixed:
        return mix(rng, text, language)
    return translate(text, language) if draw < mixed + other else text


def translate(text: str, language: str) -> str:
    """`text`, which is in `language`, with every known phrase in the other language."""
    pattern, table = _lexicon(language)
    return pattern.sub(lambda match: _said(match, table), text)


def mix(rng: random.Random, text: str, language: str) -> str:
    """`text`, which is in `language`, with some of its known phrases in the other language, never none and never all.

    A text of one phrase changes as a whole, and one without any stays as it is.
    """
    pattern, table = _lexicon(language)
    found = list(pattern.finditer(text))
    if not found:
        return text
    if rng.random() < BETWEEN_LINES:
        lines = [text.count("\n", 0, match.start()) for match in found]
        switched = {line: rng.random() < SWITCH for line in sorted(set(lines))}
        switches = [switched[line] for line in lines]
    else:
        switches = [rng.random() < SWITCH for _ in found]
    if len(set(switches)) == 1:
        one = rng.randrange(len(found))
        switches = [i == one for i in range(len(found))]
    parts, end = [], 0
    for match, switch in zip(found, switches, strict=True):
        if switch:
            parts += [text[end : match.start()], _said(match, table)]
            end = match.end()
    return "".join(parts) + text[end:]


@lru_cache
def _lexicon(language: str) -> tuple[re.Pattern[str], list[str]]:
    """A pattern of all phrases in `language`, the longest first, and what the other language says for each."""
    here = LANGUAGES.index(language)
    pairs = sorted(PHRASES.items(), key=lambda pair: -len(pair[here]))
    names = "|".join(name for pair in NAMES for name in pair)  # a phrase that was translated keeps the question's names
    slot = rf"(?P<slot{{i}}>\d+|{names})"
    options = []
    for i, pair in enumerate(pairs):
        phrase = re.escape(pair[here]).replace(r"\{\}", slot.replace("{i}", str(i)))
        start = r"(?<![A-Za-z])" if pair[here][0].isascii() and pair[here][0].isalpha() else ""
        options.append(f"(?P<phrase{i}>{start}{phrase})")
    return re.compile("|".join(options)), [pair[1 - here] for pair in pairs]


def _said(match: re.Match[str], table: list[str]) -> str:
    """What the other language says for a match; of nested groups `lastgroup` is the outer one, the phrase."""
    i = int(str(match.lastgroup).removeprefix("phrase"))
    text = table[i]
    return text.replace("{}", match[f"slot{i}"]) if "{}" in text else text
