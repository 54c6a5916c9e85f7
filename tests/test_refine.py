"""Refinements: what each makes of the thoughts, and that none of them touches the answer."""

import json
import random
import re
from dataclasses import replace
from functools import lru_cache
from itertools import islice

import pytest
from conftest import SHARED

from aha.chat import parse
from aha.config import NamedConfig, PromptConfig
from aha.data import chat, mixing, refine, words, writers
from aha.language import language_of
from aha.rewards import load_grader, score
from aha.rewards.extract import find_answer
from aha.types import Problem, Trace, UserError

PROMPT = PromptConfig(prefill="<think>")
ENGLISH, CHINESE, GERMAN = (
    "How many apples does Tom have left now?",
    "小明现在还剩多少个苹果？",
    "Wie viele Äpfel hat er noch übrig?",
)
STEPS = [
    NamedConfig(name="one_language"),
    NamedConfig(name="drop_fillers"),
    NamedConfig(name="strip_repetition"),
    NamedConfig(name="capitalise"),
    NamedConfig(name="cap_length", args={"max_lines": 3}),
    NamedConfig(name="cap_length", args={"max_words": 8, "keep": "start"}),
    NamedConfig(name="reasoning_summary"),
]


def trace(text: str, question: str = ENGLISH, grader: str = "accuracy", **columns) -> Trace:
    problem = Problem("p", "task", question, {"question": question, **columns}, grader)
    return Trace(problem, text, "zero", True, 1.0, {}, 10)


def thoughts_after(step: str, thoughts: str, question: str = ENGLISH, **args) -> str:
    refined = refine.refine(trace(f"<think>{thoughts}</think> <answer>7</answer>", question), [named(step, **args)], PROMPT)
    return parse(refined.text).thoughts


def named(name: str, **args) -> NamedConfig:
    return NamedConfig(name=name, args=args)


@lru_cache
def written(count: int) -> list[Trace]:
    """Traces of the tiny world, well and badly formed, in clear and in mixed language, with fillers and repeated lines."""
    rng = random.Random(0)
    traces: list[Trace] = []
    for row in islice((row for row in writers.documents(3) if row["prompt"] != writers.PRACTICE), count):
        *nums, target = _numbers(row["prompt"])
        traces.append(trace(row["completion"], row["prompt"], "countdown", nums=nums, target=target))
    for problem in islice(words.problems("train", 3), count):
        thoughts, answer = words.solution(rng, problem)
        form = rng.choice(list(words.FORMS))
        text = form.format(thoughts=mixing.speak(rng, thoughts, problem.language), answer=answer)
        traces.append(trace(text, problem.question, "accuracy", gold=str(problem.gold)))
    for request in islice(chat.requests("train", 3), count):
        thoughts, answer = chat.reply(rng, request)
        text = rng.choice(list(chat.FORMS)).format(thoughts=thoughts, answer=answer)
        columns = {"checker": request.checker, "arguments": list(request.arguments)}
        traces.append(trace(text, request.question, "plain_answered", **columns))
    return [replace(trace, text="<think>" + _worse(rng, trace.text)) for trace in traces]


def _numbers(question: str) -> list[int]:
    nums, target = re.search(r"\[(.*?)\].*?equals (\d+)", question).groups()
    return [*map(int, nums.split(", ")), int(target)]


def _worse(rng: random.Random, text: str) -> str:
    """The same completion with fillers, lines that come again, and white space around the thoughts."""
    lines = text.split("\n")
    if rng.random() < 0.5:
        lines.insert(0, rng.choice(("Hmm, ", "okay, so, um, ", "嗯，", "well.")))
    if rng.random() < 0.5:
        lines[1:1] = [lines[0]] * rng.randint(1, 3) if "</think>" not in lines[0] else ["no no no no"]
    return "\n" * rng.randint(0, 1) + "\n".join(lines)


def verdict(trace: Trace) -> float | None:
    """What the real grader of the problem says."""
    columns = [{**trace.problem.columns}]
    return score(load_grader(trace.problem.grader), [""], [trace.text], [[]], columns, ("think", "answer"))[0]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step.name}-{'-'.join(step.args)}")
def test_no_step_changes_what_follows_the_thoughts_or_the_verdict_on_it(step):
    changed = 0
    for before in written(60):
        after = refine.refine(before, [step], PROMPT)
        assert parse(after.text).body == parse(before.text).body
        assert parse(after.text).answer == parse(before.text).answer
        assert find_answer(after.text) == find_answer(before.text)
        if after.text == before.text:
            assert after == before
            continue
        changed += 1
        assert after.steps == (step.name,)
        assert verdict(after) == verdict(before)
        if parse(after.text).thoughts.strip():
            assert parse(after.text).is_well_formed == parse(before.text).is_well_formed
    assert changed >= 10  # else nothing was shown


def test_all_steps_in_a_row_change_no_verdict_and_are_done_after_one_pass():
    for before in written(60)[::2]:
        after = refine.refine(before, STEPS, PROMPT)
        assert verdict(after) == verdict(before)
        assert find_answer(after.text) == find_answer(before.text)
        for step in STEPS:
            once = refine.refine(before, [step], PROMPT)
            assert refine.refine(once, [step], PROMPT).text == once.text, step.name


def test_a_trace_remembers_the_steps_that_changed_it_in_order():
    before = trace("<think>um, first we add 3 and 4</think> <answer>7</answer>")
    steps = [named("strip_repetition"), named("drop_fillers"), named("one_language"), named("capitalise")]
    after = refine.refine(before, steps, PROMPT)
    assert after.text == "<think>First we add 3 and 4</think> <answer>7</answer>"
    assert after.steps == ("drop_fillers", "capitalise")
    assert refine.refine(after, steps, PROMPT) == after
    assert (after.problem, after.num_tokens, after.reward) == (before.problem, before.num_tokens, before.reward)


@pytest.mark.parametrize(
    "text",
    [
        "<think>um, it is never closed <answer>7</answer>",
        "<think>um, one</think> um, two</think> <answer>7</answer>",
        "<think>um, one <think>um, two</think> <answer>7</answer>",
        "<think>um, <answer>7</answer></think> <answer>8</answer>",
        "<think>这是中文的<answer>8</answer>。 So it is seven.</think> <answer>7</answer>",
        "um, no thoughts at all <answer>7</answer>",
        "<think></think> <answer>7</answer>",
    ],
)
def test_thoughts_that_cannot_be_told_from_the_answer_stay(text):
    assert refine.refine(trace(text), STEPS, PROMPT).text == text


def test_no_step_puts_a_tag_into_the_thoughts():
    text = "<think>we add 3 and 4 to get it</think> <answer>7</answer>"
    step = named("reasoning_summary", texts={"en": "<answer>{answer}</answer>"})
    assert refine.refine(trace(text), [step], PROMPT).text == text


def test_the_tags_of_the_recipe_count():
    prompt = PromptConfig(think="Thought", answer="Output")
    before = trace("<Thought>\num, we add\n</Thought>\n<Output>um, 7</Output>")
    after = refine.refine(before, [named("drop_fillers"), named("reasoning_summary")], prompt)
    assert after.text == "<Thought>\nwe add\nSummary: the answer is um, 7\n</Thought>\n<Output>um, 7</Output>"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Um, 3+4=7.", "3+4=7."),
        ("Okay, well, hmm... first 3+4=7", "first 3+4=7"),
        ("So, um, I add.", "So, I add."),
        ("I add, you know, both.", "I add, both."),
        ("I add them, okay.", "I add them."),
        ("3+4=7. Hmm. 7 it is.", "3+4=7. 7 it is."),
        ("Hmm...\n3+4=7", "3+4=7"),
        ("\n\nOkay,\n\n3+4=7\n", "\n\n\n3+4=7\n"),
        ("嗯，先算3+4=7。呃，没错。", "先算3+4=7。没错。"),
        ("Wait, no. But that is well known, it works well.", "Wait, no. But that is well known, it works well."),
        ("I know this word well.", "I know this word well."),
        ("the ohm, the umbrella, um", "the ohm, the umbrella"),
    ],
)
def test_fillers_go_where_they_stand_by_themselves(before, after):
    assert thoughts_after("drop_fillers", before) == after


def test_other_fillers_can_be_given():
    assert thoughts_after("drop_fillers", "um, yeah, 3+4=7", fillers=["yeah"]) == "um, 3+4=7"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("first we add. then we stop! is it 7?  yes it is", "First we add. Then we stop! Is it 7?  Yes it is"),
        ("first\n  next\n- last", "First\n  Next\n- Last"),
        ("1. add\n2) multiply", "1. Add\n2) Multiply"),
        ("x = 5\ntotal = 7\nsin(x) is 0\n2 apples", "x = 5\ntotal = 7\nsin(x) is 0\n2 apples"),
        ("the way, e.g. by bus. é is a letter, 13! is large", "The way, e.g. by bus. é is a letter, 13! is large"),
        ("`import this` is code. $a$ is not. `so`", "`import this` is code. $a$ is not. `so`"),
        ("sum = 3. élan counts", "sum = 3. Élan counts"),
        ("先算 cat 1", "先算 cat 1"),
    ],
)
def test_lines_and_sentences_get_a_capital_and_formulas_do_not(before, after):
    assert thoughts_after("capitalise", before) == after


def test_mixed_thoughts_of_the_tiny_world_come_back_whole():
    rng = random.Random(0)
    pages = (chat.PRACTICE[0], chat.PRACTICE[1], writers.PRACTICE)
    for world in (writers, words, chat):
        rows = (
            row
            for row in world.documents(7, mixed=0, other=0)
            if row["prompt"] not in pages and "</think>" in row["completion"]
        )
        for row in islice(rows, 25):
            thoughts = row["completion"].partition("</think>")[0]
            language = language_of(row["prompt"])
            for spoken in (mixing.mix(rng, thoughts, language), mixing.translate(thoughts, language)):
                assert thoughts_after("one_language", spoken, row["prompt"]) == thoughts


@pytest.mark.parametrize(
    ("question", "before", "after"),
    [
        (ENGLISH, "First we add both numbers. Dann ziehen wir die Zahl der Äpfel wieder ab. So it is 7.", None),
        (ENGLISH, "First we add both numbers. 然后减去已经吃掉的苹果。So it is 7.", None),
        (ENGLISH, "First we add both numbers. Сначала складываем. So it is 7.", None),
        (CHINESE, "先把两个数加起来。Then we take away those. 所以是7。", "先把两个数加起来。所以是7。"),
        (CHINESE, "先算 cos 和 sin，再算3+4=7。", "先算 cos 和 sin，再算3+4=7。"),
        (GERMAN, "Zuerst zähle ich sie zusammen. 然后减去。\nAlso 7.", "Zuerst zähle ich sie zusammen. Also 7."),
        (ENGLISH, "3+4=7\n$\\text{减去}$ `减去` 2\\pi\nok: 2π, go", "3+4=7\n$\\text{减去}$ `减去` 2\\pi\nok: 2π, go"),
        (ENGLISH, "这里没有英语。完全没有。", ""),
    ],
)
def test_sentences_in_another_language_go(question, before, after):
    expected = "First we add both numbers. So it is 7." if after is None else after
    assert thoughts_after("one_language", before, question) == expected


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("we try 3+4=7, no.\nor 3*4=12\nwe try 3+4=7, no.\nwe  try 3+4=7, no.", "we try 3+4=7, no.\nor 3*4=12"),
        ("so it is 7. so it is 7. so it is 7. done", "so it is 7. done"),
        ("wait, no, wait, no, wait, no, it is 7", "wait, no, it is 7"),
        ("the the the the end", "the end"),
        ("再算一次，再算一次，再算一次，好", "再算一次，好"),
        ("Wait.\n3+4=7\nWait.", "Wait.\n3+4=7\nWait."),
        ("very very good", "very very good"),
        ("x + x + x + x", "x + x + x + x"),
        ("5, 5, 5, 5 and 1111111", "5, 5, 5, 5 and 1111111"),
        (
            "$2 \\cdot 2 \\cdot 2 \\cdot 2$ and \\times 2 \\times 2 \\times 2",
            "$2 \\cdot 2 \\cdot 2 \\cdot 2$ and \\times 2 \\times 2 \\times 2",
        ),
        ("cos x + cos x + cos x + cos x", "cos x + cos x + cos x + cos x"),
        ("- one pass for two: 5\n- one pass for two: 5", "- one pass for two: 5\n- one pass for two: 5"),
        ("```\nreturn the last one\nreturn the last one\n```", "```\nreturn the last one\nreturn the last one\n```"),
        ("", ""),
    ],
)
def test_repetitions_go_and_sums_stay(before, after):
    assert thoughts_after("strip_repetition", before) == after


def test_a_loop_of_many_words_ends_and_how_often_is_too_often_can_be_said():
    sentence = " ".join(f"word{chr(97 + i)}" for i in range(20)) + ". "
    assert thoughts_after("strip_repetition", sentence * 50 + "end") == sentence + "end"
    assert thoughts_after("strip_repetition", sentence * 2 + "end") == sentence * 2 + "end"
    assert thoughts_after("strip_repetition", sentence * 2 + "end", times=2) == sentence + "end"


def test_a_summary_stands_before_the_answer_and_well_formed_stays_well_formed():
    before = trace("<think>we add 3 and 4\n</think> <answer>\\boxed{7}</answer>")
    after = refine.refine(before, [named("reasoning_summary")], PROMPT)
    assert after.text == "<think>we add 3 and 4\nSummary: the answer is \\boxed{7}\n</think> <answer>\\boxed{7}</answer>"
    assert parse(after.text).is_well_formed
    chinese = thoughts_after("reasoning_summary", "先算3+4=7", CHINESE)
    assert chinese == "先算3+4=7\n总结：答案是7"
    own = thoughts_after("reasoning_summary", "3+4=7", GERMAN, texts={"de": "Kurz gesagt lautet die Antwort {answer}"})
    assert own == "3+4=7\nKurz gesagt lautet die Antwort 7"


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("<think>we add</think> the answer is 7", ENGLISH),  # no tag
        ("<think>we add</think> <answer>7\n8</answer>", ENGLISH),  # more than a line
        ("<think> \n</think> <answer>7</answer>", ENGLISH),  # nothing to sum up
        ("<think>wir addieren</think> <answer>7</answer>", GERMAN),  # no summary in that language
        ("<think>it is a cat</think> <answer>猫</answer>", ENGLISH),  # would mix the languages
    ],
)
def test_no_summary_where_none_fits(text, question):
    assert refine.refine(trace(text, question), [named("reasoning_summary")], PROMPT).text == text


@pytest.mark.parametrize(
    ("args", "after"),
    [
        ({"max_lines": 2}, "\nfour five six\nseven\n"),
        ({"max_lines": 2, "keep": "start"}, "\none two\nthree\n"),
        ({"max_words": 4}, "\nfour five six\nseven\n"),
        ({"max_words": 3, "keep": "start"}, "\none two\nthree\n"),
        ({"max_words": 3}, "\nseven\n"),
        ({"max_words": 4, "max_lines": 1}, "\nseven\n"),
        ({"max_words": 1, "keep": "start"}, "\none two\n"),  # one line at least
        ({"max_lines": 4, "max_words": 7}, None),
    ],
)
def test_long_thoughts_are_cut_between_lines(args, after):
    before = "\none two\nthree\n\nfour five six\nseven\n"
    assert thoughts_after("cap_length", before, **args) == (before if after is None else after)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (named("drop_filler"), "unknown refinement 'drop_filler'; did you mean drop_fillers?"),
        (named("capitalise", all=True), "refinement capitalise has no argument 'all'"),
        (named("cap_length", max_word=3), "refinement cap_length has no argument 'max_word'; did you mean max_words?"),
        (named("cap_length", max_words="many"), "refinement cap_length: max_words is 'many': input should be a valid integer"),
        (named("cap_length", max_words=0), "refinement cap_length: max_words is 0: input should be greater than or equal to 1"),
        (named("cap_length", max_words=1, keep="middle"), "refinement cap_length: keep is 'middle': input should be"),
        (named("cap_length"), "refinement cap_length wants max_words or max_lines"),
        (named("drop_fillers", fillers="um"), "refinement drop_fillers: fillers is 'um': input should be a valid list"),
        (named("reasoning_summary", texts={"en": "done"}), r"refinement reasoning_summary: texts.en has no {answer}"),
        (named("strip_repetition", text="x"), "refinement strip_repetition has no argument 'text'"),
    ],
)
def test_a_wrong_step_is_named(config, message):
    with pytest.raises(UserError, match=re.escape(message)):
        refine.refine(trace("<think>a</think> <answer>7</answer>"), [config], PROMPT)


def test_real_traces_lose_their_fillers_and_keep_their_code_and_formulas():
    path = SHARED / "marco_o1" / "CoT_demo.json"
    if not path.exists():
        pytest.skip("the Marco-o1 traces are not here")
    prompt = PromptConfig(think="Thought", answer="Output")
    rows = [trace(row["response"], row["instruction"]) for row in json.loads(path.read_text(encoding="utf-8"))[:50]]
    steps = [named(name) for name in ("drop_fillers", "strip_repetition", "capitalise")]
    code = re.compile(r"```.*?```", re.DOTALL)
    for before in rows:
        after = refine.refine(before, steps, prompt)
        thoughts = [parse(t.text, prompt.think, prompt.answer).thoughts for t in (before, after)]
        assert code.findall(thoughts[0]) == code.findall(thoughts[1])
        assert sorted(set(re.findall(r"\\\(.*?\\\)", thoughts[0]))) == sorted(set(re.findall(r"\\\(.*?\\\)", thoughts[1])))
        assert not re.match(r"\s*(?:okay|ok|alright|well)[,.，]", thoughts[1], re.IGNORECASE)
        assert len(thoughts[1]) > 0.8 * len(thoughts[0])
    assert sum("drop_fillers" in refine.refine(row, steps, prompt).steps for row in rows) > 35
