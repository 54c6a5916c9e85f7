"""Mixed language: phrases change, numbers and equations stay, and both languages are there."""

import random
import re
from itertools import islice

import pytest

from aha.data import writers
from aha.data.lexicon import LANGUAGES, NAMES, PHRASES, WORDS, say
from aha.data.mixing import MIXED, OTHER, mix, speak, translate

CHINESE = re.compile("[\u3400-\u9fff]")
ENGLISH = re.compile("[A-Za-z]")


@pytest.fixture(scope="module")
def thoughts() -> list[str]:
    """Thoughts of Countdown."""
    return [re.split("</think>| <answer>", row["completion"])[0] for row in islice(writers.documents(3, mixed=0, other=0), 500)]


def test_the_lexicon_has_one_phrase_for_each_and_no_other_language_in_it():
    assert len(set(PHRASES.values())) == len(PHRASES)
    for english, chinese in [*PHRASES.items(), *NAMES, *(pair for pairs in WORDS.values() for pair in pairs)]:
        assert not CHINESE.search(english)
        assert CHINESE.search(chinese)
        assert not ENGLISH.search(chinese)
        assert english.count("{}") == chinese.count("{}") <= 1


def test_no_word_is_of_two_kinds():
    for language in (0, 1):
        told = [pair[language] for pairs in WORDS.values() for pair in pairs]
        assert len(set(told)) == len(told)


def test_a_phrase_is_said_in_either_language():
    assert say(", that is off by {}.", "en", 7) == ", that is off by 7."
    assert say(", that is off by {}.", "zh", 7) == "，还差7。"


def test_the_thoughts_of_countdown_can_be_all_english_or_all_chinese(thoughts):
    for text in thoughts:
        chinese = translate(text, "en")
        assert CHINESE.search(chinese)
        assert not ENGLISH.search(chinese), chinese
        assert translate(chinese, "zh") == text


def test_mixed_thoughts_have_both_languages_and_the_same_numbers_in_the_same_order(thoughts):
    rng, both = random.Random(0), 0
    for text in thoughts:
        mixed = mix(rng, text, "en")
        assert re.findall(r"\d+|[-+*/=]", mixed) == re.findall(r"\d+|[-+*/=]", text)
        assert translate(mixed, "zh") == text
        assert CHINESE.search(mixed)
        has_two_phrases = len(re.findall("[A-Za-z]+", text)) > 2 and "\n" in text
        if has_two_phrases:
            assert ENGLISH.search(mixed), mixed
            both += 1
    assert both > 200


def test_languages_change_between_lines_and_within_them():
    text = "First find the total: 1+2=3\nThen find what is left: 3-1=2\nSo the answer is 2."
    rng = random.Random(1)
    within = between = 0
    for _ in range(200):
        lines = mix(rng, text, "en").split("\n")
        if any(CHINESE.search(line) and ENGLISH.search(line) for line in lines):
            within += 1
        else:
            between += 1
    assert within > 50
    assert between > 50


def test_a_text_without_a_known_phrase_stays_and_one_of_one_phrase_changes_as_a_whole():
    rng = random.Random(0)
    assert mix(rng, "1+1=2", "en") == "1+1=2"
    assert {mix(rng, "1+1=2, it fits.", "en") for _ in range(20)} == {"1+1=2，没错。"}
    assert {mix(rng, "1+1=2，没错。", "zh") for _ in range(20)} == {"1+1=2, it fits."}


def test_a_phrase_is_not_found_inside_a_word():
    assert translate("not enough, I take the closest.", "en") == "not 够了，就用最接近的。"
    assert translate("unenough, I take the closest.", "en") == "unenough, I take the closest."


def test_names_and_numbers_in_a_phrase_stay():
    assert translate("Then find what Anna has: 1+2=3", "en") == "再算Anna有多少：1+2=3"
    assert translate("再算小红有多少：1+2=3", "zh") == "Then find what 小红 has: 1+2=3"


@pytest.mark.parametrize("language", LANGUAGES)
def test_speaking_has_the_planted_shares(language):
    text = "\n".join(say(phrase, language) for phrase in ("This could hurt somebody.", "I should not help with it."))
    rng = random.Random(5)
    spoken = [speak(rng, text, language) for _ in range(3000)]
    other = translate(text, language)
    assert sum(told == other for told in spoken) / 3000 == pytest.approx(OTHER, abs=0.03)
    assert sum(told not in (text, other) for told in spoken) / 3000 == pytest.approx(MIXED, abs=0.03)
    assert {speak(rng, text, language, mixed=0, other=0) for _ in range(50)} == {text}
