"""Presets: on real rows where they are at hand, on invented rows of the documented schema where they are not."""

import json
import re
from pathlib import Path

import pytest
from conftest import SHARED

from aha.config import DataConfig
from aha.data.preferences import LabelledReply
from aha.data.presets import PRESETS, between, boxed_gold, dialogue, gsm8k_gold, last_reply
from aha.data.sources import load_preferences, load_problems, load_texts
from aha.rewards.chat import answered, plain_answered
from aha.rewards.maths import accuracy
from aha.types import Problem, UserError

DOCS = Path(__file__).parent.parent / "docs"
THOUGHT = "<|begin_of_thought|>\n\nOne and one.\n\n<|end_of_thought|>\n\n"
SOLUTION = "<|begin_of_solution|>\n\n\\boxed{2}\n\n<|end_of_solution|>"
STRATOS = {
    "system": "Think.",
    "conversations": [{"from": "user", "value": "1+1?"}, {"from": "assistant", "value": THOUGHT + SOLUTION}],
}
MEDICAL = {"Question": "Why {so}?", "Complex_CoT": "Because.", "Response": "It is so."}
REPLY = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: 1+1?\n\nAssistant: {}"


def shared(name: str) -> str:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return str(path)


def config(tmp_path: Path, preset: str, rows: list[dict], **values) -> DataConfig:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DataConfig(source=str(path), preset=preset, **values)


def problems_of(tmp_path: Path, preset: str, rows: list[dict], **values) -> list[Problem]:
    return load_problems(config(tmp_path, preset, rows, **values))


@pytest.mark.parametrize("name", PRESETS)
def test_preset_has_a_hub_id_a_use_and_a_line_in_the_docs(name):
    preset = PRESETS[name]
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", preset.hub)
    assert preset.columns or preset.texts
    assert f"| `{name}` | `{preset.hub}`" in (DOCS / "data.md").read_text()


# Real rows.


def test_countdown_reads_the_public_data():
    problems = load_problems(DataConfig(source=shared("countdown"), preset="countdown-tasks-3to4", limit=200))
    assert len(problems) == 200
    first = problems[0]
    assert first.columns == {"nums": [44, 19, 35], "target": 98}
    assert first.question.startswith("Using the numbers [44, 19, 35], create an equation that equals 98.")
    assert (first.id, first.grader) == ("countdown/0", "countdown")
    for problem in problems:
        assert all(type(n) is int for n in [*problem.columns["nums"], problem.columns["target"]])


@pytest.mark.parametrize(("split", "count"), [("train", 7473), ("test", 1319)])
def test_gsm8k_reads_the_public_data_with_numeric_golds(split, count):
    problems = load_problems(DataConfig(source=shared("gsm8k"), preset="gsm8k", split=split))
    assert len(problems) == count
    assert all(re.fullmatch(r"-?\d+(\.\d+)?", problem.columns["gold"]) for problem in problems)
    assert all(problem.grader == "accuracy" and problem.columns.keys() == {"gold"} for problem in problems)


@pytest.mark.parametrize("language", ["en", "de", "es", "fr", "zh"])
def test_mgsm_reads_every_language_of_the_public_data(language):
    problems = load_problems(DataConfig(source=shared("mgsm"), preset="mgsm", split=language))
    assert len(problems) == 250
    assert all(re.fullmatch(r"\d+", problem.columns["gold"]) for problem in problems)
    assert {problem.columns["language"] for problem in problems} == {language}
    assert problems[1].columns["gold"] == "3"


def test_mgsm_asks_the_same_in_every_language():
    golds = [
        [p.columns["gold"] for p in load_problems(DataConfig(source=shared("mgsm"), preset="mgsm", split=language))]
        for language in ("en", "zh")
    ]
    assert golds[0] == golds[1]


def test_deepscaler_reads_the_public_data_but_for_rows_without_an_answer():
    assert len(load_problems(DataConfig(source=shared("deepscaler/train_math.json"), preset="deepscaler"))) == 7470
    problems = load_problems(DataConfig(source=shared("deepscaler"), preset="deepscaler"))
    assert len(problems) == 7470 + 975
    assert all(isinstance(problem.columns["gold"], str) and problem.columns["gold"] for problem in problems)


def test_numina_math_tir_reads_the_public_row_as_problem_and_as_text():
    cfg = DataConfig(source=shared("numina_tir/row.jsonl"), preset="numina-math-tir")
    [problem], [text] = load_problems(cfg), load_texts(cfg)
    assert problem.columns == {"gold": r"\frac{63}{400}"}
    assert problem.question == text["prompt"]
    assert accuracy([""], [text["completion"]], [problem.columns["gold"]]) == [1.0]


def test_hh_rlhf_reads_the_public_data_but_for_pairs_with_an_empty_reply():
    pairs = load_preferences(DataConfig(source=shared("hh_rlhf"), preset="hh-rlhf", split="test"))
    assert len(pairs) == 2308
    for chosen, rejected in (pair.replies for pair in pairs):
        roles = [message["role"] for message in chosen.prompt]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
        assert chosen.text
        assert rejected.text
        assert chosen.text != rejected.text


def test_xstest_reads_the_public_data():
    problems = load_problems(DataConfig(source=shared("xstest/xstest_prompts.csv"), preset="xstest"))
    labels = [problem.columns["label"] for problem in problems]
    assert (labels.count("safe"), labels.count("unsafe")) == (250, 200)
    assert all(problem.columns["type"].startswith("contrast_") for problem in problems if problem.columns["label"] == "unsafe")


@pytest.mark.parametrize(
    ("half", "task", "count", "right", "wrong"),
    [
        ("xstest-safe", "unsafe_looking", 250, "Use boiling water.", "I cannot help with that."),
        ("xstest-unsafe", "unsafe", 200, "I cannot help with that.", "Use boiling water."),
    ],
)
def test_the_halves_of_xstest_want_an_answer_or_a_refusal(half, task, count, right, wrong):
    problems = load_problems(DataConfig(source=shared("xstest/xstest_prompts.csv"), preset=half))
    assert len(problems) == count
    for problem in problems:
        columns = {name: [problem.columns[name]] * 2 for name in ("checker", "arguments")}
        assert (problem.task, problem.grader) == (task, "plain_answered")
        assert plain_answered([""] * 2, [right, wrong], **columns) == [1.0, 0.0]


def test_humaneval_reads_the_public_data_with_tests_that_are_python():
    problems = load_problems(DataConfig(source=shared("humaneval/HumanEval.jsonl.gz"), preset="humaneval"))
    assert len(problems) == 164
    for problem in problems:
        compile(problem.columns["tests"], problem.id, "exec")
        assert problem.columns["tests"].endswith(f"check({problem.columns['entry_point']})\n")
        assert problem.columns["function"] in problem.question


def test_mbpp_reads_the_public_data_with_tests_that_are_python():
    problems = load_problems(DataConfig(source=shared("mbpp/mbpp.jsonl"), preset="mbpp"))
    assert len(problems) == 974
    for problem in problems:
        compile(problem.columns["tests"], problem.id, "exec")
        assert "assert " in problem.question


# Documented schemas.


@pytest.mark.parametrize("preset", ["math-500", "aime24", "aime25", "deepscaler"])
def test_problem_and_answer_are_question_and_gold(tmp_path, preset):
    row = {"id": "1", "problem": "What is $1+1$?", "solution": "It is $2$.", "answer": "2", "level": 1}
    [problem] = problems_of(tmp_path, preset, [row])
    assert (problem.question, problem.columns, problem.grader) == ("What is $1+1$?", {"gold": "2"}, "accuracy")


def test_the_reasoning_of_stratos_becomes_thoughts(tmp_path):
    [text] = load_texts(config(tmp_path, "bespoke-stratos-17k", [STRATOS]))
    assert text == {"prompt": "1+1?", "completion": "<think>\nOne and one.\n</think>\n\n\\boxed{2}"}
    assert accuracy([""], [text["completion"]], ["2"]) == [1.0]


def test_the_reasoning_of_medical_o1_becomes_thoughts(tmp_path):
    [text] = load_texts(config(tmp_path, "medical-o1", [MEDICAL]))
    assert text == {"prompt": "Why {so}?", "completion": "<think>\nBecause.\n</think>\n\nIt is so."}


def test_a_recipe_may_write_thoughts_and_reply_in_other_words(tmp_path):
    template = "<think>{thoughts}</think> <answer>{reply}</answer>"
    [text] = load_texts(config(tmp_path, "medical-o1", [MEDICAL], completion=template))
    assert text["completion"] == "<think>Because.</think> <answer>It is so.</answer>"


def test_gsm8k_is_also_a_text(tmp_path):
    row = {"question": "1+1?", "answer": "1+1=2\n#### 2"}
    assert load_texts(config(tmp_path, "gsm8k", [row])) == [{"prompt": "1+1?", "completion": "1+1=2\n#### 2"}]


def test_mgsm_from_the_hub_has_numbers_as_golds(tmp_path):
    row = {"question": "1000+1?", "answer": None, "answer_number": 1001, "equation_solution": None}
    [problem] = problems_of(tmp_path, "mgsm", [row], split="de")
    assert problem.columns == {"gold": "1001", "language": "de"}


def test_csv_holds_lists_as_text(tmp_path):
    (tmp_path / "c.csv").write_text('nums,target\n"[44, 19, 35]",98\n')
    [problem] = load_problems(DataConfig(source=str(tmp_path / "c.csv"), preset="countdown-tasks-3to4"))
    assert problem.columns == {"nums": [44, 19, 35], "target": 98}


def test_rows_that_cannot_be_used_are_left_out_before_the_limit(tmp_path):
    rows = [{"problem": f"{n}?", "solution": f"\\boxed{{{n}}}" if n % 2 else "who knows"} for n in range(10)]
    assert [p.columns["gold"] for p in problems_of(tmp_path, "numina-math-tir", rows, limit=3)] == ["1", "3", "5"]


def test_a_preference_pair_differs_in_the_last_reply(tmp_path):
    rows = [
        {"chosen": REPLY.format("2"), "rejected": REPLY.format("3")},
        {"chosen": REPLY.format("2"), "rejected": REPLY.format(" ")},
        {"chosen": REPLY.format("2"), "rejected": REPLY.replace("Hello", "Bye").format("3")},
    ]
    [pair] = load_preferences(config(tmp_path, "hh-rlhf", rows))
    prompt = [("user", "Hi"), ("assistant", "Hello."), ("user", "1+1?")]
    assert [(message["role"], message["content"]) for message in pair.replies[0].prompt] == prompt
    assert [reply.text for reply in pair.replies] == ["2", "3"]


def test_ultrafeedback_is_pairs_and_requests(tmp_path):
    def pair(chosen: str, rejected: str) -> dict:
        asked = {"role": "user", "content": "Name a fruit."}
        replies = {"chosen": chosen, "rejected": rejected}
        told = {name: [asked, {"role": "assistant", "content": text}] for name, text in replies.items()}
        return {"prompt": "Name a fruit.", "prompt_id": "7", "messages": told["chosen"], "score_chosen": 8.0, **told}

    cfg = config(tmp_path, "ultrafeedback", [pair("Pear.", "No."), pair("Pear.", ""), pair("Pear.", "Pear.")])
    [preference], [problem] = load_preferences(cfg), load_problems(cfg)
    asked = [{"role": "user", "content": "Name a fruit."}]
    assert preference.replies == (LabelledReply(asked, "Pear.", True), LabelledReply(asked, "No.", False))
    assert (problem.question, problem.task, problem.grader) == ("Name a fruit.", "ultrafeedback", "answered")
    assert answered([""], ["Pear."], **{name: [value] for name, value in problem.columns.items()}) == [1.0]


def test_a_row_of_two_labelled_replies_is_read_by_its_columns(tmp_path):
    row = {"prompt": "How?", "response_0": "So.", "response_1": "No.", "is_response_0_safe": False, "is_response_1_safe": True}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    replies = [
        load_preferences(
            DataConfig(source=str(path), columns={"completion": f"response_{i}", "label": f"is_response_{i}_safe"})
        )
        for i in range(2)
    ]
    asked = [{"role": "user", "content": "How?"}]
    assert [preference.replies for [preference] in replies] == [
        (LabelledReply(asked, "So.", False),),
        (LabelledReply(asked, "No.", True),),
    ]


# Converters.


def test_the_last_reply_is_the_assistants():
    user = {"role": "user", "content": "Hi"}
    assert last_reply([user, {"role": "assistant", "content": "Hello."}]) == "Hello."
    with pytest.raises(ValueError, match="does not end with"):
        last_reply([user])


def test_the_gold_of_gsm8k_stands_after_the_last_mark():
    assert gsm8k_gold("2*3=<<2*3=6>>6\n#### 1,234") == "1234"
    assert gsm8k_gold("#### 1\n####  -5 ") == "-5"
    with pytest.raises(ValueError, match="####"):
        gsm8k_gold("18")


def test_the_last_box_is_taken_with_the_braces_inside():
    assert boxed_gold(r"\boxed{1}, so \boxed{ \frac{1}{2} }.") == r"\frac{1}{2}"
    assert boxed_gold(r"\boxed{\{1, 2\}}") == r"\{1, 2\}"
    assert boxed_gold(r"so \boxed{x and \boxed {5}") == boxed_gold(r"\boxed{\boxed{5}}, \fbox{see}") == "5"
    for text in ("none", r"\boxed{\frac{1}{2}"):
        with pytest.raises(ValueError, match="boxed"):
            boxed_gold(text)


def test_marks_of_thought_may_be_missing_only_loudly():
    with pytest.raises(ValueError, match="begin_of_thought"):
        between("thought")([{"from": "assistant", "value": SOLUTION}])
    with pytest.raises(ValueError, match="no message from assistant or gpt"):
        between("thought")([])


def test_turns_of_one_speaker_in_a_row_become_one():
    messages, reply = dialogue("\n\nHuman: a\n\nAssistant: b\n\nAssistant: c\n\nd")
    assert (messages, reply) == ([{"role": "user", "content": "a"}], "b\n\nc\n\nd")


@pytest.mark.parametrize("text", ["", "Human: a", "\n\nAssistant: a", "\n\nHuman: a", "x\n\nHuman: a\n\nAssistant: b"])
def test_what_is_no_dialogue_is_refused(text):
    with pytest.raises(ValueError, match="not a dialogue"):
        dialogue(text)


# Mistakes.


@pytest.mark.parametrize(
    ("preset", "row", "words"),
    [
        ("numina-math-tir", {"problem": "q", "messages": []}, "row 1: no column 'solution'; the row has problem, messages"),
        ("numina-math-tir", {"problem": "q", "solution": 5}, "row 1: column 'gold': "),
        ("deepscaler", {"problem": "q", "solution": "s"}, "row 1: no column 'answer'; the row has problem, solution"),
        ("xstest", {"prompt": "q", "type": "t", "label": "good"}, "column 'label': 'good' is neither safe nor unsafe"),
        ("xstest-safe", {"prompt": "q", "type": "t", "label": "good"}, "column 'label': 'good' is neither safe nor unsafe"),
        ("mbpp", {"text": "q", "test_setup_code": "", "test_list": [1]}, "row 1: column 'asserts': "),
        ("mgsm", {"question": "q", "answer_number": 1}, "its splits are languages, en, de, es, fr, zh, bn, ja, ru"),
        ("bespoke-stratos-17k", STRATOS, "preset bespoke-stratos-17k has no question; it has"),
    ],
)
def test_a_row_that_does_not_fit_a_preset_is_named(tmp_path, preset, row, words):
    with pytest.raises(UserError) as caught:
        problems_of(tmp_path, preset, [row])
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("preset", "row", "words"),
    [
        ("hh-rlhf", {"chosen": "Hi", "rejected": "Ho"}, "row 1: column 'prompt': not a dialogue"),
        ("hh-rlhf", {"chosen": REPLY}, "row 1: no column 'rejected'; the row has chosen"),
        ("ultrafeedback", {"prompt": "q", "chosen": []}, "row 1: column 'chosen': the conversation does not end with"),
        ("ultrafeedback", {"prompt": "q", "chosen": [{"role": "user"}]}, "column 'chosen': the conversation does not end with"),
    ],
)
def test_a_pair_that_does_not_fit_is_named(tmp_path, preset, row, words):
    with pytest.raises(UserError) as caught:
        load_preferences(config(tmp_path, preset, [row]))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"conversations": [{"from": "user", "value": "q"}]}, "row 1: column 'thoughts': no message from assistant or gpt"),
        ({"conversations": [{"role": "user"}]}, "row 1: column 'prompt': 'from'"),
        ({"system": "s"}, "row 1: no column 'conversations'; the row has system"),
    ],
)
def test_a_conversation_that_does_not_fit_is_named(tmp_path, row, words):
    with pytest.raises(UserError) as caught:
        load_texts(config(tmp_path, "bespoke-stratos-17k", [row]))
    assert words in str(caught.value)


def test_a_preset_without_texts_says_what_it_has(tmp_path):
    with pytest.raises(UserError, match=r"preset xstest has no prompt; it has question, type, label"):
        load_texts(config(tmp_path, "xstest", [{"prompt": "q"}]))
