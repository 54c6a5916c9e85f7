"""Which traces are kept: every filter on both sides of its rule, and the choices among many traces."""

import json
import random
import re
from dataclasses import replace
from itertools import islice

import pyarrow.parquet
import pytest
from conftest import SHARED

from aha.config import NamedConfig, PromptConfig
from aha.data import chat, countdown, filters, words, writers
from aha.data.filters import FilterCount
from aha.language import target_language
from aha.metrics import is_repetitive, is_single_language
from aha.types import Problem, Trace, UserError

PROMPT = PromptConfig()
GOOD = "<think>First we add 44+19=63, and then 63+35=98.</think> <answer>44+19+35</answer>"
QUESTION = "Which equation of these numbers equals ninety-eight?"


def trace(text: str = GOOD, question: str = QUESTION, solved: bool = True, reward: float | None = 1.0, **scores) -> Trace:
    return Trace(Problem("p/0", "p", question, {}, "countdown"), text, "zero", solved, reward, scores, 10)


def thinking(thoughts: str, question: str = QUESTION) -> Trace:
    return trace(f"<think>{thoughts}</think> <answer>7</answer>", question)


def asking(question: str) -> Trace:
    return trace(question=question)


def named(name: str, /, **args) -> NamedConfig:
    return NamedConfig(name=name, args=args)


def is_kept(trace: Trace, name: str, prompt: PromptConfig = PROMPT, /, **args) -> bool:
    return bool(filters.apply([trace], [named(name, **args)], prompt)[0])


def clean_rows() -> list[Trace]:
    rows = [row for world in (writers, words, chat) for row in islice(world.documents(2), 150)]
    return [trace("<think>" + row["completion"], row["prompt"]) for row in rows]


def test_filters_act_in_order_and_count_what_they_saw_and_kept():
    wrong, loose, other = trace(solved=False), trace(GOOD.replace("<answer>", "")), thinking("先加起来，再减去一，就是七。")
    traces = [trace(), wrong, loose, other, replace(loose, solved=False)]
    kept, counts = filters.apply(traces, [named("correct"), named("well_formed"), named("single_language")], PROMPT)
    assert kept == [traces[0]]
    assert counts == [FilterCount("correct", 5, 3), FilterCount("well_formed", 3, 2), FilterCount("single_language", 2, 1)]
    assert filters.apply(traces, [], PROMPT) == (traces, [])
    assert filters.apply([], [named("correct")], PROMPT) == ([], [FilterCount("correct", 0, 0)])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (named("corect"), "unknown filter 'corect'; did you mean correct?"),
        (named("correct", strict=True), "filter correct has no argument 'strict'"),
        (named("length", max_word=1), "filter length has no argument 'max_word'; did you mean max_words?"),
        (named("length", max_words="1"), "filter length: max_words is '1': input should be a valid integer"),
        (named("length", min_words=-1), "filter length: min_words is -1: input should be greater than or equal to 0"),
        (named("length", code_blocks="no"), "filter length: code_blocks is 'no': input should be a valid boolean"),
        (named("chaos", max_share=10), "filter chaos: max_share is 10: input should be less than or equal to 1"),
        (named("min_score", name="format"), "filter min_score wants an argument 'score'"),
    ],
)
def test_a_wrong_filter_is_named_before_any_trace_is_looked_at(config, message):
    with pytest.raises(UserError, match=re.escape(message)):
        filters.apply([], [named("correct"), config], PROMPT)


def test_the_tags_of_the_recipe_count():
    prompt = PromptConfig(think="Thought", answer="Output")
    theirs = trace(GOOD.replace("think>", "Thought>").replace("answer>", "Output>"))
    assert is_kept(theirs, "well_formed", prompt)
    assert not is_kept(replace(theirs, text=theirs.text + " So there."), "well_formed", prompt)
    assert not is_kept(theirs, "well_formed")
    assert is_kept(theirs, "length", prompt, min_words=11, max_words=11)


def test_language_and_repetition_follow_the_rules_of_the_metrics():
    rows = [*clean_rows(), thinking("we add it once more " * 12), thinking("3+4=7"), thinking("first we add 3 and 4")]
    verdicts = set()
    for row in rows:
        thoughts = row.text.removeprefix("<think>").partition("</think>")[0]
        kept = [is_kept(row, name) for name in ("single_language", "repetition")]
        language = target_language(row.problem)
        assert kept == [is_single_language(thoughts, language), not is_repetitive(row.text)]
        verdicts.add(tuple(kept))
    assert verdicts == {(True, True), (False, True), (True, False)}


@pytest.mark.parametrize(
    ("thoughts", "args", "kept"),
    [
        ("one two three", {"min_words": 3}, True),
        ("one two three", {"min_words": 4}, False),
        ("one two three", {"max_words": 3}, True),
        ("one two three", {"max_words": 2}, False),
        ("一二三 4", {"min_words": 4, "max_words": 4}, True),
        ("one two\nthree\n\nfour", {"max_paragraph_words": 3}, True),
        ("one two\nthree\n \nfour", {"max_paragraph_words": 2}, False),
        ("```python\nx = 1\n```", {}, True),
        ("```python\nx = 1\n```", {"code_blocks": False}, False),
        ("`x`", {"code_blocks": False}, True),
        ("", {"min_words": 1}, False),
    ],
)
def test_length_of_the_thoughts(thoughts, args, kept):
    assert is_kept(thinking(thoughts), "length", **args) == kept


def test_length_does_not_look_at_the_answer():
    long = trace("<think>one two</think> <answer>```" + "word " * 50 + "```</answer>")
    assert is_kept(long, "length", max_words=2, code_blocks=False)


@pytest.mark.parametrize(
    "thoughts",
    [
        "First we add 44+19=63, then ((62+30)-(64+22))*((3-2))=6, and {1,2,3}\\{2} is 100% of $5.00.",
        "先算总数：44+19=63，再算63+35=98，没错。",
        "3 < 5 > 2, 2**200 = 1606938044258990275541962092341162602522202993782792835301376",
        "\\[\\frac{\\sqrt{\\left(\\left(a\\right)\\right)}}{{{2}}}\\] and $a@#&~~&#@###b$ are formulas",
        "| a | b |\n|---|---|\n| 1 | 2 |\n=========\n..... so",
        "we use `std::vector<int> v{{}};` and vector<int>, H<sub>2</sub>O <br> and <em>this</em>, the mean <x>",
        "ก่อนอื่นฉันบวกเลขสองตัวแล้วลบสิ่งที่กินไปแล้วก่อนอื่นฉันบวกเลขสองตัวแล้วลบสิ่งที่กินไปแล้ว",
        "好 " * 40,
        "",
    ],
)
def test_prose_numbers_and_formulas_are_no_chaos(thoughts):
    assert is_kept(thinking(thoughts), "chaos", max_share=0.0)


@pytest.mark.parametrize(
    "source", ["bytes", "control", "signs", "brackets", "no spaces", "emoji", "symbols", "pieces", "tag", "closing tag"]
)
def test_chaos_is_dropped(source):
    rng = random.Random(source)
    some = {
        "bytes": lambda: rng.randbytes(80).decode("utf-8", "replace"),
        "signs": lambda: "".join(rng.choice("!@#$%^&*()_+{}|:<>?[];',./~`") for _ in range(60)),
        "control": lambda: "".join(
            chr(rng.choice((rng.randrange(1, 9), rng.randrange(0xE000, 0xE100)))) + "a" for _ in range(20)
        ),
        "brackets": lambda: "".join(rng.choice("(){}[]<>/|^*+=-,.;:!?") for _ in range(60)),
        "no spaces": lambda: "".join(rng.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(80)),
        "emoji": lambda: "we 🔥🔥 add 🎉🚀 it 😀😀 all 🔥",
        "symbols": lambda: "".join(chr(rng.randrange(0x2400, 0x2BFF)) for _ in range(60)),
        "pieces": lambda: " ".join(rng.choice(("##ing", "@@", "~", "&", "der", "zu", "§")) for _ in range(40)),
        "tag": lambda: "now <em>we add <code>it</em> up",
        "closing tag": lambda: "now we add it</div> up",
    }[source]
    for _ in range(20):
        assert not is_kept(thinking("First we add the two numbers. " + some()), "chaos")


def test_a_little_chaos_may_pass_where_the_recipe_says_so():
    mostly = thinking("First we add the two numbers and then we take away the third one \ufffd\ufffd.")
    assert is_kept(mostly, "chaos")
    assert not is_kept(mostly, "chaos", max_share=0.01)


def test_clean_text_of_the_tiny_world_and_of_people_is_no_chaos():
    assert all(is_kept(row, "chaos", max_share=0.0) for row in clean_rows())
    path = SHARED / "numina_cot" / "numina_cot_sharegpt_data_1k.jsonl"
    if not path.exists():
        pytest.skip("the NuminaMath rows are not here")
    solutions = [json.loads(line)["conversations"][1]["value"] for line in path.read_text(encoding="utf-8").splitlines()[:300]]
    assert all(is_kept(thinking(text), "chaos") for text in solutions)
    kept = [is_kept(thinking(text), "length", max_paragraph_words=150) for text in solutions]
    assert 0.8 < sum(kept) / len(kept) < 1


def test_an_answer_that_was_cut_off_is_not_finished():
    assert is_kept(trace(), "finished")
    assert not is_kept(replace(trace(), finish_reason="length"), "finished")


def of_tasks(**numbers: int) -> list[Trace]:
    return [
        replace(trace(f"{task} {i}"), problem=replace(trace().problem, task=task))
        for i in range(max(numbers.values()))
        for task, number in numbers.items()
        if i < number
    ]


def test_traces_are_thinned_to_the_shares_of_their_tasks():
    traces = of_tasks(countdown=40, words=9, chat=30)
    drawn = {seed: filters.in_shares(traces, {"countdown": 2, "words": 1, "chat": 0.5}, seed) for seed in "ab"}
    for kept in drawn.values():
        tasks = [t.problem.task for t in kept]
        assert (tasks.count("countdown"), tasks.count("words"), tasks.count("chat")) == (18, 9, 4)
        assert kept == [t for t in traces if t in kept]
    assert drawn["a"] != drawn["b"]
    assert filters.in_shares(traces, {"countdown": 2, "words": 1, "chat": 0.5}, "a") == drawn["a"]
    assert filters.in_shares([], {"countdown": 2, "words": 1}, "a") == []
    with pytest.raises(UserError, match="shares: no trace of task chat is left"):
        filters.in_shares(of_tasks(countdown=3), {"countdown": 2, "chat": 1}, "a")


def test_min_score_wants_the_score_and_knows_its_rewards():
    assert is_kept(trace(format=1.0), "min_score", name="format", score=1)
    assert not is_kept(trace(format=0.9), "min_score", name="format", score=1)
    assert not is_kept(trace(format=None), "min_score", name="format", score=0)
    with pytest.raises(UserError, match="no reward 'fromat' graded p/0; did you mean format"):
        is_kept(trace(format=1.0), "min_score", name="fromat", score=1)


def test_of_traces_that_differ_in_white_space_the_first_stays():
    first, spaced = trace(), trace(GOOD.replace(" ", "  ").replace(",", ",\n"))
    closer, elsewhere = trace(GOOD.replace("44+19=63", "44 + 19 = 63")), trace(question=QUESTION + " Really?")
    assert filters.without_duplicates([first, spaced, closer, elsewhere, first]) == [first, elsewhere]
    assert filters.without_duplicates([spaced, first]) == [spaced]
    moved = replace(first, problem=replace(first.problem, id="q/7", question=" " + QUESTION))
    assert filters.without_duplicates([first, moved]) == [first]


def test_the_best_traces_of_each_problem_stay_in_their_order():
    low, high, none = trace("a b c", reward=-0.5), trace("a b", reward=1.0), trace("a", reward=None)
    other = trace("x", question="another", reward=0.1)
    traces = [none, low, other, high]
    assert filters.best_per_problem(traces, 1, "reward") == [other, high]
    assert filters.best_per_problem(traces, 2, "reward") == [low, other, high]
    assert filters.best_per_problem(traces, 1, "shortest") == [none, other]
    assert filters.best_per_problem(traces, 1, "longest") == [low, other]
    assert filters.best_per_problem(traces, 9, "random") == traces


def test_ties_are_drawn_by_the_seed_whatever_the_order_of_the_traces():
    traces = [trace(f"text {i}") for i in range(20)]
    drawn = {seed: filters.best_per_problem(traces, 5, "reward", seed) for seed in range(8)}
    for seed, chosen in drawn.items():
        assert len(chosen) == 5
        assert chosen == filters.best_per_problem(traces, 5, "random", seed)
        assert {t.text for t in chosen} == {t.text for t in filters.best_per_problem(traces[::-1], 5, "reward", seed)}
    assert len({t.text for chosen in drawn.values() for t in chosen}) > 12
    assert filters.best_per_problem(traces, 5, "shortest", 3) == drawn[3]


def test_a_wrong_choice_is_named():
    with pytest.raises(UserError, match="no way to rank traces by 'shortes'; did you mean shortest"):
        filters.best_per_problem([trace()], 1, "shortes")
    with pytest.raises(UserError, match="the best 0 traces of a problem"):
        filters.best_per_problem([trace()], 0)
    with pytest.raises(UserError, match="overlap of 1 words"):
        filters.without_overlap([trace()], [], n=1)


KNOWN = "A baker sells twelve loaves in the morning and 9 more at noon. How many did he sell?"


@pytest.mark.parametrize(
    "question",
    [
        KNOWN,
        KNOWN.upper().replace(",", "").replace(".", " -"),
        "Read this with care. " + KNOWN + " Put the answer into a box.",
        "Yesterday a baker sells twelve loaves in the morning, then he rests.",  # eight words in a row
        "面包师早上卖了12个面包，中午又卖了9个，他一共卖了几个？",
        "What is 3 + 5?",
    ],
)
def test_a_question_that_shares_eight_words_in_a_row_with_an_evaluation_goes(question):
    known = [KNOWN, "What is 3+5?", "早上卖了12个面包，中午又卖了9个"]
    other = asking("A farmer has 12 sheep and buys 9 more at noon. How many has he got?")
    assert filters.without_overlap([asking(question), other], known) == [other]
    assert filters.without_overlap([asking(question), other], []) == [asking(question), other]


@pytest.mark.parametrize(
    "question",
    [
        "Yesterday a baker sells twelve loaves in the evening and 9 more.",
        "What is 3+4?",
        "What is 3+5-1?",
        "面包师早上卖了13个面包。",
    ],
)
def test_a_question_that_shares_fewer_words_stays(question):
    known = [KNOWN, "What is 3+5?", "早上卖了12个面包，中午又卖了9个"]
    assert filters.without_overlap([asking(question)], known) == [asking(question)]


def test_copies_among_the_traces_make_no_boilerplate_of_a_question():
    copies = [asking(f"Exercise {number}: {KNOWN}") for number in range(1, 9)]  # each with a number of its own
    assert filters.without_overlap(copies, [KNOWN]) == []


def test_wording_of_many_evaluation_questions_is_boilerplate():
    known = [KNOWN.replace("9", str(number)) for number in range(20, 23)]
    other = asking(KNOWN.replace("9", "7"))
    assert filters.without_overlap([other], known[:2]) == []
    assert filters.without_overlap([other], known) == [other]
    assert filters.without_overlap([asking(known[0])], known) == []


def test_fewer_words_in_a_row_can_be_enough():
    question = asking("Yesterday a baker sells twelve loaves in the evening.")
    assert filters.without_overlap([question], [KNOWN], n=8) == [question]
    assert filters.without_overlap([question], [KNOWN], n=6) == []


def test_countdown_shares_its_wording_and_goes_only_where_the_numbers_are_the_same():
    known = [countdown.question(*problem) for problem in islice(countdown.problems("test", 1), 200)]
    asked = [countdown.question(*problem) for problem in islice(countdown.problems("train", 1), 400)]
    copies = known[:20]
    nums, target = next(countdown.problems("test", 1))
    turned = countdown.question(nums[::-1], target)
    kept = filters.without_overlap([asking(question) for question in [*asked, *copies, turned]], known)
    kept = {t.problem.question for t in kept}
    assert kept.isdisjoint([*copies, turned])
    assert len(kept) >= 0.99 * len(asked)


@pytest.mark.parametrize("form", ["{}", "7. {}", "{} Explain in at most 3 sentences.", "Problem 12: {} Answer in 2 words."])
def test_a_templated_question_goes_with_whatever_stands_around_it(form):
    known = [countdown.question(*problem) for problem in islice(countdown.problems("test", 1), 50)]
    other = asking(form.format(countdown.question(*next(countdown.problems("train", 1)))))
    assert filters.without_overlap([*[asking(form.format(question)) for question in known], other], known) == [other]


def test_small_numbers_and_an_instruction_in_common_make_no_overlap():
    form = "{} Please reason step by step, and put your final answer within a box."
    powers = [form.format(f"What is {base} to the power of {power}?") for base in range(2, 8) for power in range(2, 8)]
    other = asking(form.format("A farmer has 5 cows and sells 2. He buys 700 hens and 13 ducks. How many animals has he?"))
    assert filters.without_overlap([other, asking(powers[0])], powers) == [other]


def test_numbers_of_an_instruction_tell_no_questions_apart():
    form = "Answer the following question in at most 3 short sentences: {}"
    known = [form.format(f"what is the {colour} thing?") for colour in ("red", "green", "blue", "grey", "pink")]
    other, same = asking(form.format("who was the first king?")), asking(form.format("what is the red thing? Thank you."))
    assert filters.without_overlap([other, same], known) == [other]


def test_word_problems_share_their_wording_and_go_where_one_is_in_the_evaluation():
    known = [problem.question for problem in islice(words.problems("test", 1), 200)]
    asked = [problem.question for problem in islice(words.problems("train", 1), 600)]
    kept = {t.problem.question for t in filters.without_overlap([asking(q) for q in [*asked, *known[:50]]], known)}
    assert kept.isdisjoint(known[:50])
    assert len(kept) > 0.75 * len(asked)  # of few questions each, phrases of eight words stand in the evaluation too


def test_real_countdown_rows_stay_and_copies_go():
    path = SHARED / "countdown" / "train.parquet"
    if not path.exists():
        pytest.skip("the Countdown rows are not here")
    rows = pyarrow.parquet.read_table(path, columns=["nums", "target"]).slice(0, 900).to_pylist()
    questions = list(dict.fromkeys(countdown.question(row["nums"], row["target"]) for row in rows))
    known, asked = questions[:300], questions[300:]
    wanted = {(*sorted(map(int, re.findall(r"\d+", q))),) for q in known}
    kept = {t.problem.question for t in filters.without_overlap([asking(q) for q in [*asked, *known[:30]]], known)}
    for question in asked:
        if (*sorted(map(int, re.findall(r"\d+", question))),) in wanted:
            assert question not in kept
    assert kept.isdisjoint(known)
    assert len(kept) > 0.98 * len(asked)


def test_copies_of_gsm8k_go_whole_in_part_or_with_words_around_them():
    path = SHARED / "gsm8k" / "test.jsonl"
    if not path.exists():
        pytest.skip("the GSM8K rows are not here")

    def questions(name: str) -> list[str]:
        lines = (path.parent / name).read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["question"] for line in lines]

    known, asked = questions("test.jsonl")[:600], questions("train.jsonl")[:1500]
    copies = []
    for i, question in enumerate(known[:150]):
        parts = question.split()
        half = len(parts) // 2
        changed = (
            "Solve this problem. " + question + " Put the answer into a box.",
            " ".join(parts[:half]) + " indeed, " + " ".join(parts[half:]),
            question.upper().replace(",", " "),
        )
        copies.append(changed[i % 3])
    kept = {t.problem.question for t in filters.without_overlap([asking(q) for q in [*asked, *copies]], known)}
    assert kept.isdisjoint(copies)
    assert len(kept) > 0.98 * len(asked)
