"""Which language a text is in, word by word: what the language-consistency reward and `language/single` count.

Scripts decide where they can: a Han character is Chinese, Hangul is Korean. Among languages that are written in Latin
letters an identifier decides, line by line, since a word alone often belongs to several. Code, formulas and numbers are no
words of any language.
"""

import tempfile
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

import regex

from aha.rundir import disk_faults_are_user_errors
from aha.types import Problem

SCRIPTS = {  # scripts of the languages that do not use Latin letters
    "zh": ("Han",),
    "ja": ("Han", "Hiragana", "Katakana"),
    "ko": ("Hangul", "Han"),
    "ru": ("Cyrillic",),
    "ar": ("Arabic",),
    "hi": ("Devanagari",),
    "bn": ("Bengali",),
    "te": ("Telugu",),
    "th": ("Thai",),
    "el": ("Greek",),
    "he": ("Hebrew",),
}
OTHER = "other"  # stands for all languages of a script that is not listed
LATIN = ("en", "de", "es", "fr", "it", "pt", "nl", "sv", "pl", "id", "sw", "tr", "vi")  # what the identifier chooses among
KNOWN = {*LATIN, *SCRIPTS, OTHER}
NO_PROSE = regex.compile(
    r"```.*?(?:```|$)|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$|\\\[(?:(?!\\\[).)*?\\\]|\\\((?:(?!\\\().)*?\\\)|\\boxed\{[^{}]*\}"
    r"|\\[A-Za-z]+|<[^<>\n]{1,40}>",
    regex.DOTALL,
)  # no formula holds the mark that opens one, so that many that never close are passed over in linear time
# Scripts that are written without spaces count by the character, all others by the word.
WORD = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}]|\p{L}[\p{L}\p{M}'’]*")
LATIN_WORD = regex.compile(r"\p{Latin}[\p{Latin}\p{M}'’]*")
SCRIPT_NAMES = sorted({name for names in SCRIPTS.values() for name in names})
SCRIPT = regex.compile("|".join(f"(?P<{name}>\\p{{{name}}})" for name in SCRIPT_NAMES))
OTHER_LETTER = regex.compile(r"[^\p{Latin}\p{Common}\p{Inherited}]")
MIN_LATIN_WORDS = 3  # in a line, before the identifier is asked about it alone
MAX_IDENTIFIED = 10_000  # characters of a text that tell its language
MAX_REMEMBERED = 500  # characters of a text whose language is remembered


def prose(text: str) -> str:
    """The text without code, formulas and tags."""
    return NO_PROSE.sub(" ", text)


def word_languages(text: str, target: str) -> Counter[str]:
    """How many words of `text` are in which language; those in a script of `target` are taken for `target`.

    A word of one letter in Latin script, such as the x of an equation, is none, nor are signs such as ℝ. Lines too short
    for the identifier are taken for what the Latin words of the whole text are.
    """
    counts: Counter[str] = Counter()
    text = prose(text)
    everywhere = ""  # the language of all Latin words, once a line asks for it
    for line in text.splitlines():
        latin = []
        for word in WORD.findall(line):
            script = SCRIPT.search(word)  # not of its first character: ー, in the middle of katakana, is of no script
            if script and script.lastgroup in SCRIPTS.get(target, ()):
                counts[target] += 1
            elif script:
                counts[next(language for language, names in SCRIPTS.items() if script.lastgroup in names)] += 1
            elif OTHER_LETTER.search(word):
                counts[OTHER] += 1
            elif len(word) > 1 and LATIN_WORD.search(word):
                latin.append(word)
        if len(latin) >= MIN_LATIN_WORDS:
            counts[identify(" ".join(latin))] += len(latin)
        elif latin:
            everywhere = everywhere or identify(" ".join(LATIN_WORD.findall(text))[:MAX_IDENTIFIED])
            counts[everywhere] += len(latin)
    return counts


def share_in(text: str, target: str) -> tuple[float, int]:
    """Share of the words of `text` that are in `target`, and how many words there are; 0 where there are none."""
    counts = word_languages(text, target)
    total = counts.total()
    return (counts[target] / total if total else 0.0), total


def language_of(text: str) -> str:
    """The language that most words of `text` are in; English where there are none. Kana makes Han characters Japanese."""
    has_kana = regex.search(r"[\p{Hiragana}\p{Katakana}]", text)
    has_hangul = regex.search(r"\p{Hangul}", text)
    counts = word_languages(text, "ja" if has_kana else "ko" if has_hangul else "zh")
    return counts.most_common(1)[0][0] if counts else "en"


def target_language(problem: Problem) -> str:
    """The language that thoughts about a problem should be in: that of its column `language`, else that of the question."""
    given = problem.columns.get("language")
    return given if given in KNOWN else language_of(problem.question)


def identify(text: str) -> str:
    """The language of LATIN that `text`, in Latin letters, is in."""
    return _remembered(text) if len(text) <= MAX_REMEMBERED else _classified(text)


@lru_cache(maxsize=65536)
def _remembered(text: str) -> str:
    return _classified(text)


def _classified(text: str) -> str:
    code: str = _identifier().classify(text)[0]
    return code


@lru_cache(maxsize=1)
def _identifier() -> Any:
    from py3langid import langid

    with disk_faults_are_user_errors(Path(tempfile.gettempdir())):  # it unpacks its model into a temporary file
        identifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE)
    identifier.set_languages(list(LATIN))
    return identifier
