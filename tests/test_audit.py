"""Two graders over the same rows: counts, kappa, rates, the rows themselves."""

import json
import re

import pytest
from stub_server import StubServer, text_of
from typer.testing import CliRunner

from aha.audit import Verdict, compare, math_verify_says, told, told_rows, verdicts, with_labels_second
from aha.cli import app
from aha.metrics import wilson
from aha.sandbox import find_way
from aha.types import UserError

ROWS = [
    {"gold": "18", "answer": "18", "label": True, "other": 1.0},
    {"gold": "18", "answer": "18.0", "label": True, "other": 0},
    {"gold": "18", "answer": "17", "label": False, "other": 0.0},
    {"gold": "18", "answer": "18 apples", "label": False, "other": None},
    {"gold": "$\\frac{1}{2}$", "answer": "0.5", "label": "yes", "other": "true"},
    {"gold": "x+1", "completion": "<think>18</think> <answer>1+x</answer>", "label": 1, "other": "no"},
]


def placed(rows: list[dict]) -> list[tuple[str, dict]]:
    return [(f"rows.jsonl: line {number}", row) for number, row in enumerate(rows, 1)]


def said(name: str) -> list[bool | None]:
    return [verdict.is_right for verdict in verdicts(name, "math", placed(ROWS))]


def test_every_grader_gives_its_verdicts():
    assert said("ours") == [True, True, False, True, True, True]
    assert said("exact") == [True, False, False, False, False, False]
    assert said("math-verify")[:5] == [True, True, False, True, True]
    assert said("column:label") == [True, True, False, False, True, True]
    assert said("column:other") == [True, False, False, None, True, False]


def test_a_judge_is_shown_the_gold_answer_and_one_that_cannot_be_read_is_left_out():
    def reply(request):
        gold, given = re.findall(r"answer:\n(.*)\n", text_of(request))
        return "no idea" if given == "17" else f"Score: {10 if given == gold or '1+x' in given else 0}"

    server = StubServer(reply)
    rows = [*placed(ROWS)[:3], ("line 4", {**ROWS[5], "question": "What is one more than x?"})]
    try:
        said = verdicts(f"judge:stub@{server.url}", "math", rows)
    finally:
        server.close()
    assert [verdict.is_right for verdict in said] == [True, False, None, True]
    assert [verdict.reason for verdict in said] == ["marked 1", "marked 0", "", "marked 1"]
    assert any("What is one more than x?" in text_of(request) for request in server.asked)
    assert not any("<think>" in text_of(request) for request in server.asked)


def test_counts_kappa_and_rates_by_hand():
    first = [Verdict(v) for v in [True] * 45 + [False] * 15 + [True] * 25 + [False] * 15 + [None]]
    second = [Verdict(v) for v in [True] * 60 + [False] * 40 + [True]]
    audit = compare(("ours", "column:label"), first, second)
    assert (audit.both, audit.only_first, audit.only_second, audit.neither, audit.left_out) == (45, 25, 15, 15, 1)
    assert audit.agreement() == wilson(60, 100)
    assert audit.kappa() == pytest.approx((0.6 - 0.54) / (1 - 0.54))  # 0.7 * 0.6 + 0.3 * 0.4 by chance
    assert audit.error_rates() == {"false positives": wilson(25, 40), "false negatives": wilson(15, 60)}
    assert audit.rows == tuple(range(45, 85))


def test_kappa_of_graders_that_say_always_the_same_is_one():
    assert compare(("a", "b"), [Verdict(True)] * 3, [Verdict(True)] * 3).kappa() == 1.0


def test_labels_stand_second():
    assert with_labels_second(("column:label", "ours")) == ("ours", "column:label")
    assert with_labels_second(("column:a", "column:b")) == ("column:a", "column:b")


def test_what_is_told_fits_in_eighty_columns():
    rows = placed([{"gold": "x" * 200, "completion": "y " * 500, "label": True}] * 30)
    first, second = [Verdict(False, "not equal")] * 30, [Verdict(True)] * 30
    audit = compare(("ours", "column:" + "l" * 90), first, second)
    found = [
        {"line": str(n), audit.names[0]: False, audit.names[1]: True, "reason": "", "row": row}
        for n, (_, row) in enumerate(rows)
    ]
    lines = [*told(audit), *told_rows(audit, found)]
    assert max(map(len, lines)) <= 80
    assert lines[-1] == "and 10 more; --out FILE keeps all"


def test_text_of_rows_cannot_reach_the_terminal():
    rows = placed([{"gold": "3", "completion": "3\x1b]0;owned\a\x1b[31m", "label": True}])
    audit = compare(("ours", "column:label"), [Verdict(False, "\x1b[2J")], [Verdict(True)])
    found = [{"line": "1", "ours": False, "column:label": True, "reason": "\x1b[2J", "row": rows[0][1]}]
    assert all(c.isprintable() for line in told_rows(audit, found) for c in line)


def test_math_verify_is_asked_as_its_page_shows():
    assert math_verify_says("\\frac{1}{2}", "0.5")
    assert not math_verify_says("2", "3")


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("theirs", "math", "unknown grader 'theirs'; known: ours, math-verify, exact, column:NAME, judge:MODEL@URL"),
        ("judge:qwen", "math", "grader judge:qwen: want judge:MODEL@URL"),
        ("judge:qwen@http://127.0.0.1:1/v1", "format", "it needs --kind math"),
        ("exact", "format", "it needs --kind math"),
        ("column:labels", "math", "line 1: no 'labels'; the line has gold, answer, label, other"),
        ("column:gold", "math", "line 1: gold is '18': want true or false"),
    ],
)
def test_a_grader_that_cannot_be_asked_is_told(name, kind, words):
    with pytest.raises(UserError) as caught:
        verdicts(name, kind, placed(ROWS))
    assert words in str(caught.value)


def test_no_common_row_is_told():
    with pytest.raises(UserError, match="no row has a verdict of both"):
        compare(("a", "b"), [Verdict(None)], [Verdict(True)])


# The command line.


@pytest.fixture
def rows_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def invoke(*arguments: str):
    return CliRunner().invoke(app, ["grade", *arguments])


def test_audit_prints_a_table_and_the_rows_and_writes_them(rows_file, tmp_path):
    out = tmp_path / "out" / "found.jsonl"
    result = invoke("--audit", "column:label", "ours", str(rows_file), "--out", str(out))
    assert result.exit_code == 0, result.output
    assert "6 rows" in result.output
    assert "agreement 83.33%" in result.output
    assert "false positives of ours 50.00%" in result.output
    assert "line 4: ours right, column:label wrong" in result.output
    [found] = map(json.loads, out.read_text().splitlines())
    assert found == {"line": "4", "ours": True, "column:label": False, "reason": "equal", "row": ROWS[3]}


def test_maths_are_graded_with_how_both_were_read(rows_file):
    result = invoke("--kind", "math", str(rows_file))
    graded = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["score"] for row in graded] == [1.0, 1.0, 0.0, 1.0, 1.0, 1.0]
    assert [row["label"] for row in graded] == [row["label"] for row in ROWS]
    assert (graded[4]["parsed_gold"], graded[4]["parsed_answer"]) == ("1/2", "1/2")
    assert graded[2]["reason"] == "not equal"
    assert all(row["ms"] >= 0 for row in graded)


def test_a_grade_takes_the_place_of_what_the_line_has_under_its_names(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"gold": "1", "answer": "2", "score": 0.7, "label": True}) + "\n")
    [graded] = [json.loads(line) for line in invoke(str(path)).stdout.splitlines()]
    assert (graded["score"], graded["label"]) == (0.0, True)
    assert "in place of what they had under these names" in " ".join(invoke("--help").output.split())


def test_format_is_graded_with_what_is_wrong(tmp_path):
    path = tmp_path / "rows.jsonl"
    texts = ["<think>a</think> <answer>2</answer>", "<answer>2</answer>", "<think></think> <answer>2</answer>"]
    path.write_text("".join(json.dumps({"completion": text}) + "\n" for text in texts))
    graded = [json.loads(line) for line in invoke("--kind", "format", str(path)).stdout.splitlines()]
    assert [row["score"] for row in graded] == [1.0, 0.0, 0.0]
    assert [row["reason"] for row in graded] == [
        "well formed",
        "<think> stands 0 times, </think> stands 0 times",
        "an empty part, or text around them",
    ]


def test_code_is_graded_by_the_tests_of_its_row(tmp_path):
    try:
        find_way()
    except UserError as error:
        pytest.skip(str(error))
    path = tmp_path / "rows.jsonl"
    rows = [
        {"tests": "assert f(2) == 8", "answer": "def f(x): return x ** 3"},
        {"tests": "assert f(2) == 8", "completion": "<think>a</think> <answer>```python\ndef f(x): return 9\n```</answer>"},
        {"tests": "assert f(2) == 8", "completion": "<think>```python\ndef f(x): return 8\n```</think>"},
        {"tests": [{"input": "2", "output": "4"}], "answer": "print(int(input()) * 2)"},
        {"tests": [], "answer": "print(4)"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    graded = [json.loads(line) for line in invoke("--kind", "code", str(path)).stdout.splitlines()]
    assert [(row["score"], row["reason"]) for row in graded] == [
        (1.0, "passed"),
        (0.0, "AssertionError at `assert f(2) == 8`"),
        (0.0, "no ```python block after the thoughts"),
        (1.0, "passed"),
        (0.0, "no tests"),
    ]


ENGLISH = {"completion": "<think>First I add the two numbers, 再减去一个。</think> <answer>5</answer>"}


def test_language_is_graded_with_the_words_that_count(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [
        {**ENGLISH, "language": "zh"},
        {**ENGLISH, "question": "How many are there?"},
        {**ENGLISH, "language": "zh", "question": "How many are there?"},
        {"completion": "<think>First we add both numbers.</think>", "language": "en"},
        {"completion": "<think>ok</think>", "language": "en"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    graded = [json.loads(line) for line in invoke("--kind", "language", str(path)).stdout.splitlines()]
    assert [(row["score"], row["reason"]) for row in graded] == [
        (0.5, "5 of 10 words are zh"),
        (0.5, "5 of 10 words are en"),
        (0.5, "5 of 10 words are zh"),
        (1.0, "5 of 5 words are en"),
        (0.0, "words in the thoughts: 1; fewer than 5 earn nothing"),
    ]


def test_an_audit_takes_thoughts_for_single_as_the_evaluation_does():
    sentence = "First we add the two small numbers and then we take away the one that is left of them all. "  # 19 words
    said = [f"<think>{sentence}{rest}</think>" for rest in ("字", "两字")]
    rows = [{"completion": text, "language": "en"} for text in said]
    assert [verdict.is_right for verdict in verdicts("ours", "language", placed(rows))] == [True, False]


@pytest.mark.parametrize(
    ("kind", "row", "words"),
    [
        ("math", {"answer": "1"}, "no 'gold'"),
        ("math", {"gold": "1"}, "no 'answer' and no 'completion'"),
        ("math", {"gold": ["1"], "answer": "1"}, "want gold as a text or a number, not list"),
        ("math", {"gold": "1", "completion": 5}, "want completion as a text, not int"),
        ("code", {"answer": "f = 1"}, "no 'tests'"),
        ("code", {"tests": "assert f("}, "tests are not Python: '(' was never closed"),
        ("code", {"tests": [{"input": "1"}], "answer": ""}, "tests is neither Python nor a list"),
        ("code", {"tests": "assert f"}, "no 'answer' and no 'completion'"),
        ("code", {"tests": "assert f", "answer": None}, "want answer as a text, not NoneType"),
        ("language", {"language": "en"}, "no 'completion'"),
        ("language", ENGLISH, "no 'language' and no 'question'"),
        ("language", {**ENGLISH, "language": "xx"}, "unknown language 'xx'; known: ar, bn"),
        ("language", {**ENGLISH, "question": 5}, "want question as a text, not int"),
    ],
)
def test_a_bad_row_is_named_and_what_came_before_is_graded(tmp_path, kind, row, words):
    path = tmp_path / "rows.jsonl"
    good = {"gold": 1, "answer": "1.0", "tests": "", **ENGLISH, "language": "en"}
    path.write_text(json.dumps(good) + "\n" + json.dumps(row) + "\n")
    result = invoke("--kind", kind, str(path))
    assert isinstance(result.exception, UserError)
    assert f"{path}: line 2" in str(result.exception)
    assert words in str(result.exception)
    assert json.loads(result.stdout)["score"] == {"math": 1.0, "code": 0.0, "language": 0.5}[kind]


@pytest.mark.parametrize("arguments", [["--out", "x.jsonl"], ["--kind", "maths"]])
def test_arguments_that_do_not_fit_are_told(arguments, rows_file):
    assert isinstance(invoke(*arguments, str(rows_file)).exception, UserError)
