"""Words by language, and the reward for keeping to one."""

import weakref

import pytest
from conftest import SHARED

from aha.config import RewardConfig
from aha.language import identify, language_of, share_in, target_language, word_languages
from aha.rewards import load_rewards, score
from aha.types import Problem, UserError

SENTENCES = {
    "en": "First I add the two numbers, and then I take away what was eaten.",
    "de": "Zuerst zähle ich die beiden Zahlen zusammen, dann ziehe ich ab, was gegessen wurde.",
    "es": "Primero sumo los dos números y después resto lo que se ha comido.",
    "fr": "D'abord j'additionne les deux nombres, puis je retire ce qui a été mangé.",
    "zh": "首先把两个数字加起来，然后减去已经吃掉的。",
    "ja": "まず二つの数を足して、それから食べた分を引きます。",
    "ko": "먼저 두 수를 더하고 그 다음에 먹은 것을 뺍니다.",
    "ru": "Сначала я складываю два числа, а потом вычитаю то, что съели.",
    "bn": "প্রথমে আমি দুটি সংখ্যা যোগ করি, তারপর যা খাওয়া হয়েছে তা বাদ দিই।",
    "te": "మొదట నేను రెండు సంఖ్యలను కలుపుతాను, తర్వాత తిన్నది తీసివేస్తాను.",
    "th": "ก่อนอื่นฉันบวกเลขสองตัว แล้วลบสิ่งที่กินไปแล้ว",
    "sw": "Kwanza ninajumlisha namba mbili, kisha ninatoa kile kilicholiwa na watoto.",
    "ar": "أولا أجمع العددين ثم أطرح ما تم أكله.",
}


@pytest.mark.parametrize("language", SENTENCES)
def test_a_sentence_is_wholly_in_its_language_and_in_no_other(language):
    sentence = SENTENCES[language]
    assert language_of(sentence) == language
    share, words = share_in(sentence, language)
    assert share == 1.0
    assert words >= 5
    for other in SENTENCES.keys() - {language}:
        if not {language, other} <= {"zh", "ja", "ko"}:  # these share Han characters
            assert share_in(sentence, other)[0] == 0.0, other


@pytest.mark.parametrize("language", ["en", "de", "es", "fr", "zh"])
def test_questions_of_mgsm_are_in_their_language(language):
    path = SHARED / "mgsm" / f"mgsm_{language}.tsv"
    if not path.exists():
        pytest.skip("the MGSM questions are not here")
    questions = [line.split("\t")[0] for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(questions) == 250
    assert sum(language_of(question) == language for question in questions) >= 249
    shares = [share_in(question, language)[0] for question in questions]
    assert sum(shares) / len(shares) > 0.98


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2+3=5",
        "$x + \\text{zwei}$",
        "\\boxed{nein}",
        "`print(hello world)`",
        "```python\nfor number in numbers: pass\n```",
        "x = 5, y = 6",
    ],
)
def test_code_formulas_numbers_and_single_letters_are_no_words(text):
    assert word_languages(text, "en").total() == 0


UNLISTED = ["நான் முதலில் இரண்டு எண்களை கூட்டுகிறேன்", "Նախ ես գումարում եմ երկու թվերը", "ខ្ញុំ បូក លេខ ពីរ ជាមួយ គ្នា"]


@pytest.mark.parametrize("sentence", UNLISTED)
def test_words_of_a_script_that_is_not_listed_are_of_another_language(sentence):
    assert language_of(sentence) == "other"
    assert share_in(sentence, "other")[0] == 1
    for language in SENTENCES:
        assert share_in(sentence, language)[0] == 0, language
    mixed = f"First I add the numbers {sentence} together and then subtract the rest"
    words = len(sentence.split())
    assert word_languages(mixed, "en") == {"en": 10, "other": words}
    assert consistency(mixed) == 10 / (10 + words)
    assert consistency(sentence, question=sentence) == 1


def test_signs_are_no_words_and_no_letter_hides_what_follows_it():
    assert word_languages("ℝ 𝑥𝑦 ー", "en").total() == 0
    assert word_languages("データを見て、コーヒーを飲む。", "ja").keys() == {"ja"}
    assert word_languages("x和y", "zh") == {"zh": 1}


def test_a_switch_between_sentences_and_one_inside_a_sentence_are_seen():
    between = f"{SENTENCES['en']}\n{SENTENCES['zh']}"
    assert 0 < share_in(between, "en")[0] < 1
    within = "First I add 两个 numbers and then 减去 what was eaten."
    share, words = share_in(within, "en")
    assert (round(share * words), words) == (8, 12)


class Text(str):
    """A text that tells whether somebody still holds it."""


def test_a_long_text_is_not_held_once_its_language_is_known():
    short, long = Text(SENTENCES["de"]), Text(f"{SENTENCES['de']} " * 1000)
    assert identify(short) == identify(long) == "de"
    held = weakref.ref(long)
    del long
    assert held() is None


def test_short_lines_ask_once_for_the_language_of_the_whole_text_and_others_never(monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr("aha.language.identify", lambda text: asked.append(text) or "sv")
    word_languages("Ja, ja.\n" * 10_000, "en")
    assert len(asked) == 1
    assert len(asked[0]) <= 10_000
    asked.clear()
    assert word_languages(f"{SENTENCES['en']}\n\n{SENTENCES['de']}", "en").keys() == {"sv"}
    assert [text.split()[0] for text in asked] == ["First", "Zuerst"]


def consistency(thoughts: str, **changes) -> float:
    values = {"question": SENTENCES["en"], **changes}
    [reward] = load_rewards([RewardConfig(name="language_consistency")])
    [value] = score(reward, ["p"], [f"<think>{thoughts}</think> <answer>5</answer>"], [[1]], [values], ("think", "answer"))
    return value


def test_a_problem_is_to_be_thought_about_in_the_language_of_its_column_else_of_its_question():
    def target(question: str, **columns) -> str:
        return target_language(Problem("p/0", "p", question, columns, "accuracy"))

    assert target("Write nose in capital letters.", language="en") == "en"
    assert target(SENTENCES["zh"]) == "zh"
    assert target(SENTENCES["zh"], language="python") == target(SENTENCES["zh"], language=None) == "zh"


def test_the_target_is_the_language_of_the_question_or_the_column():
    assert consistency(SENTENCES["en"]) == 1.0
    assert consistency(SENTENCES["zh"]) == 0.0
    assert consistency(SENTENCES["zh"], question=SENTENCES["zh"]) == 1.0
    assert consistency(SENTENCES["zh"], language="zh") == 1.0
    assert consistency(SENTENCES["zh"], question=SENTENCES["zh"], language=None) == 1.0  # of tasks only some have the column


def test_silence_does_not_pay():
    for silent in ("", "2+3=5", "ok", "```\nwords that are code are no words at all\n```", "x y z a b c d e f g"):
        assert consistency(silent) == 0.0


def test_thoughts_that_are_never_closed_do_not_pay():
    [reward] = load_rewards([RewardConfig(name="language_consistency")])
    texts = [f"<think>{SENTENCES['en']}{end}" for end in ("</think>", "", " <answer>5</answer>", "</thoughts>")]
    columns = [{"question": SENTENCES["en"]}] * 4
    assert score(reward, ["p"] * 4, texts, [[1]] * 4, columns, ("think", "answer")) == [1.0, 0.0, 0.0, 0.0]
    renamed = [text.replace("think>", "t>") for text in texts]
    assert score(reward, ["p"] * 4, renamed, [[1]] * 4, columns, ("t", "answer")) == [1.0, 0.0, 0.0, 0.0]
    [reward] = load_rewards([RewardConfig(name="language_consistency", args={"unfinished": True})])
    assert score(reward, ["p"] * 4, texts, [[1]] * 4, columns, ("think", "answer"))[:2] == [1.0, 1.0]


def test_words_outside_the_thoughts_do_not_count():
    [reward] = load_rewards([RewardConfig(name="language_consistency")])
    text = f"<think>2+3=5</think> {SENTENCES['en']} <answer>5</answer>"
    assert score(reward, ["p"], [text], [[1]], [{"question": SENTENCES["en"]}], ("think", "answer")) == [0.0]


@pytest.mark.parametrize("code", ["english", "da", "zh-cn", ""])
def test_an_unknown_language_is_an_error_and_not_a_reward_of_nothing(code):
    with pytest.raises(UserError, match=f"unknown language '{code}'; known: ar, bn"):
        consistency("words", language=code)
