"""The report: what the page says of a run, and that nothing in a run can break it."""

import json
import math
import os
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from aha import pipeline
from aha.chat import parse
from aha.cli import app
from aha.config import PromptConfig
from aha.metrics import bootstrap
from aha.recipe import load_recipe
from aha.report import answers, draw, words, write_report
from aha.report.run import read_run
from aha.rundir import RunDir, write_summary
from aha.types import UserError

VOID = {"meta", "br", "wbr", "line", "circle", "path", "polyline"}  # elements that have no end, or end themselves
LOADING = {"script", "link", "img", "iframe", "object", "embed", "video", "audio", "image", "use", "base", "form"}
WRONG, RIGHT = "<think>1+1=3</think> <answer>3</answer>", "<think>1+1=2</think> <answer>2</answer>"


class Page(HTMLParser):
    """What a browser finds in a page: every element ends where it should, and the text between them."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[tuple[str, str]] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.texts: dict[str, list[str]] = {}  # class of the innermost element -> texts
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append((tag, dict(attrs).get("class") or tag))
            self.texts.setdefault(self.open[-1][1], []).append("")

    def handle_startendtag(self, tag, attrs):
        assert tag in VOID
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if self.open and self.open[-1][0] != "style":
            self.texts[self.open[-1][1]][-1] += data
            self.text += data


def measure(value: float, n: int = 100) -> dict[str, float]:
    return {"value": value, "low": value - 0.05, "high": value + 0.05, "n": n}


def add_stage(run: Path, name: str, kind: str = "eval", metrics=None, rows=(), completions=None, traces=(), **config) -> None:
    """A stage as its verb leaves it; without `metrics` an unfinished one. `completions`: of a problem, one or several."""
    folder = run / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"# fingerprint: 0\n{yaml.safe_dump({'name': name, 'kind': kind, **config})}")
    when = len(list(run.iterdir()))
    os.utime(folder / "config.yaml", (when, when))
    if rows:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if traces:
        (folder / "traces.jsonl").write_text("".join(json.dumps(row) + "\n" for row in traces))
    if completions is not None:
        write_answers(folder / "rollouts" / "eval.parquet", completions)
    if metrics is not None:
        manifest = {"name": name, "kind": kind, "seconds": 61.0, "resumed_at_step": 0, "versions": {"python": "3.11.7"}}
        (folder / "stage.json").write_text(json.dumps({**manifest, "metrics": metrics}))


def write_answers(path: Path, completions: dict[str, str | list[str]]) -> None:
    rows = [
        {
            "problem": problem,
            "sample": i,
            "kind": problem.partition("/")[0],
            "question": f"What is {problem}?",
            "prompt": "not shown",
            "completion": text,
            "num_tokens": len(text),
            "finish_reason": "stop",
            "solved": "<answer>2</answer>" in text,
        }
        for problem, given in completions.items()
        for i, text in enumerate([given] if isinstance(given, str) else given)
    ]
    path.parent.mkdir(exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


@pytest.fixture
def run(tmp_path) -> Path:
    return tmp_path / "toy"


@pytest.fixture
def chain(run) -> Path:
    """A run with every kind of stage in it."""
    steps = [{"step": s, "reward": s / 9, "rewards/format/mean": 0.5, "loss": 0.1, "num_tokens": 10} for s in (2, 4)]
    learned = [{"step": s, "loss": 1 / s, "eval_loss": 2 / s, "num_tokens": 7} for s in (5, 10, 12)]
    add_stage(run, "base", metrics={"math/pass@1": measure(0.2)}, completions={"math/0": WRONG, "math/1": WRONG}, model="tiny")
    evaluated = {"eval/math/pass@1": measure(0.5), "eval/length/mean": measure(8.0)}
    add_stage(
        run,
        "zero",
        "grpo",
        {"math/pass@1": measure(0.5)},
        [*steps, {"step": 4, **evaluated}],
        {"math/0": RIGHT, "math/1": WRONG},
        model="tiny",
    )
    kept = {"sample/candidates": 40, "kept/correct": 30, "kept/language": 29, "sample/kept": 20, "math/pass@1": measure(0.9)}
    trace = {"origin": "zero", "task": "math", "steps": ["drop_fillers"], "language": "en"}
    parts = [
        {"step": 1, "accuracy": 0.5, "num_tokens": 99},
        {"step": 1, "eval/length/mean": measure(9.0)},
    ]  # it measures its candidates
    add_stage(run, "cold", "sample", kept, parts, traces=[trace] * 3, model="${zero.model}")
    add_stage(run, "sft", "sft", {"loss": 0.1}, learned, data=[{"source": "${cold.traces}"}], init="scratch")
    add_stage(run, "rm", "reward_model", {"pairs/accuracy": measure(0.9, 512)}, model="${sft.model}")
    rewards = [{"name": "helpful", "args": {"model": "${rm.model}"}}]
    add_stage(
        run,
        "align",
        "grpo",
        {"math/pass@1": measure(0.6)},
        [],
        {"math/0": RIGHT, "math/1": RIGHT},
        model="${sft.model}",
        rewards=rewards,
    )
    return run


def test_page_shows_every_stage_and_loads_nothing(chain):
    page = Page(write_report(chain).read_text())
    assert page.tags & LOADING == set()
    assert page.attributes & {"src", "href", "onload", "onclick"} == set()
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in (chain / "report.html").read_text()
    for told in (
        "math/pass@1 did not clearly change: from 0.200",
        "to 0.500 [0.450, 0.550] at zero",  # align descends from weights of its own
        "20 kept of 40 candidates",
        "pairs/accuracy",
    ):
        assert told in page.text
    assert "6 min 6 s" in page.text
    assert "python 3.11.7" in page.text


def test_summary_is_the_one_that_a_run_writes(chain):
    names = ["base", "zero", "cold", "sft", "rm", "align"]
    write_summary(RunDir(chain), "toy", names)
    before = (chain / "summary.json").read_text()
    (chain / "summary.json").unlink()
    write_report(chain)
    assert (chain / "summary.json").read_text() == before
    summary = json.loads(before)
    assert summary["name"] == "toy"
    assert [stage["name"] for stage in summary["stages"]] == names
    metrics = {"math/pass@1": measure(0.2)}
    assert summary["stages"][0] == {"name": "base", "kind": "eval", "seconds": 61.0, "metrics": metrics}


def test_tokens_are_counted_where_they_are_drawn_and_where_they_are_learned(chain):
    tokens = {stage.name: (stage.tokens_drawn, stage.tokens_learned) for stage in read_run(chain).stages}
    # zero: 10 tokens in each of 4 steps, two of which were logged, and 100 answers of 8 tokens; sft: 7 in each of 12 steps
    assert tokens == {"base": (0, 0), "zero": (840, 0), "cold": (99, 0), "sft": (0, 84), "rm": (0, 0), "align": (0, 0)}


def test_tokens_of_rollouts_are_counted_once_a_generation(run):
    rows = [{"step": step, "num_tokens": 10} for step in (6, 12, 14)]
    settings = {"steps_per_generation": 4, "gradient_accumulation_steps": 2, "num_iterations": 3}
    add_stage(run, "zero", "grpo", rows=rows, **settings)  # six steps on each, of the third but two
    add_stage(run, "sparse", "grpo", rows=rows[1:], **settings)  # the first was not logged
    assert [stage.tokens_drawn for stage in read_run(run).stages] == [30, 30]


def test_stages_and_name_are_those_of_the_recipe(chain):
    (chain / "recipe.yaml").write_text("# aha run x\nname: mine\nstages: [{name: zero}, {name: base}]\n")
    run = read_run(chain)
    assert run.name == "mine"
    assert [stage.name for stage in run.stages] == ["zero", "base"]


def test_the_page_shows_no_path_of_this_machine_no_address_and_no_key(run):
    server = {"base_url": "http://10.1.2.3:8000/v1", "model": "large", "extra_body": {"token": "sesame"}}
    add_stage(run, "cold", "sample", metrics={}, model="/home/me/secret/base", server=server)
    config = run / "cold" / "config.yaml"
    config.write_text('# fingerprint: 0\n# inputs: {"/home/me/rows.jsonl": "1"}\n' + config.read_text())
    add_stage(run, "rest", "sample", server=server)  # which failed
    (run / "rest" / "error.txt").write_text("http://10.1.2.3:8000/v1: no answer to /home/me/rows.jsonl: timed out")
    page = write_report(run).read_text()
    assert "(the address is not told): no answer to rows.jsonl: timed out" in page
    assert "model: large" in page
    assert "model: base" in page
    assert not [text for text in ("/home/me", "10.1.2.3", "sesame") if text in page]


def test_folders_that_are_no_stages_are_left_out(chain, tmp_path):
    for folder in (chain / "conf", tmp_path / "foreign" / "conf"):
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("a: 1\n")
    assert "conf" not in [stage.name for stage in read_run(chain).stages]
    with pytest.raises(UserError, match="no run directory"):
        write_report(tmp_path / "foreign")
    assert [path.name for path in (tmp_path / "foreign").iterdir()] == ["conf"]


def test_run_ended_when_its_last_stage_says(run):
    add_stage(run, "base", metrics={})
    os.utime(run / "base" / "stage.json", (0, 0))
    assert read_run(run).ended.isoformat() == "1970-01-01T00:00:00+00:00"  # of a stage that does not say, its file's time
    manifest = json.loads((run / "base" / "stage.json").read_text())
    (run / "base" / "stage.json").write_text(json.dumps({**manifest, "ended": "2026-11-21T23:39:01+00:00"}))
    assert "finished 2026-11-21 23:39 UTC" in Page(write_report(run).read_text()).text


def test_page_goes_where_it_is_told_and_the_command_prints_where(chain, tmp_path):
    result = CliRunner().invoke(app, ["report", str(chain), "--out", str(tmp_path / "new" / "page.html")])
    assert result.output == f"{tmp_path / 'new' / 'page.html'}\n"
    assert (tmp_path / "new" / "page.html").read_text().startswith("<!doctype html>")
    assert {path.name for path in chain.iterdir()} == {"base", "zero", "cold", "sft", "rm", "align"}  # no summary.json


HOSTILE = [
    "<script>alert(1)</script>",
    "</div></section></body></html><h1>mine</h1>",
    "\"'><svg onload=alert(1)>",
    "<!-- <style>*{display:none}</style>",
    "{{ 7 * 7 }} {% raw %}",
    "&lt;b&gt; &amp;",
    "\x1b[2J\x00\x07",
    "\u202egnirts\u2066\u200f",
    "你好，世界 مرحبا بالعالم",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(run, text):
    for name in ("base", "zero"):
        add_stage(run, name, metrics={"math/pass@1": measure(0.2)}, completions={f"math/{text}": f"{text}<answer>{text}"})
    add_stage(run, "last", system=text)
    (run / "last" / "error.txt").write_text(text)
    page = Page(write_report(run).read_text())
    assert page.tags & LOADING == set()
    assert page.attributes & {"onload"} == set()
    shown = "".join(c if c.isprintable() else "·" for c in text)
    assert page.texts["rest"] == [f"{shown}<answer>{shown}"] * 2
    assert page.texts["text question"] == [f"What is math/{shown}?"]
    assert page.texts["wrong"].count(shown) == 1
    assert not re.search("[\x00-\x09\x0b-\x1f\u202a-\u202e\u2066-\u2069]", (run / "report.html").read_text())


def test_long_answer_is_shown_from_both_ends(run):
    thoughts = "a" * 50_000 + "b" * 50_000
    add_stage(
        run,
        "base",
        metrics={"math/pass@1": measure(0.2)},
        completions={"math/0": f"<think>{thoughts}</think><answer>2</answer>"},
    )
    page = Page(write_report(run).read_text())
    assert page.texts["thoughts"][-1] == "a" * 1000 + "b" * 500
    assert " … 98,500 characters … " in page.texts["em"]
    assert page.texts["answer"][-1] == "2"
    assert (run / "report.html").stat().st_size < 50_000


@pytest.mark.parametrize(
    "text",
    [
        RIGHT,
        "<think>a</think> b <answer>c</answer> d",
        "<think>never closed <answer>1</answer>",
        "opened by the template</think> <answer>2</answer>",
        "</think> closed only <think> later </think> x",
        "<think>a <answer>inside</answer></think> <answer>2</answer>",
        "<answer>1</answer> <answer>2</answer>",
        "<think></think><answer></answer>",
        "no tags at all",
        "",
    ],
)
def test_pieces_are_the_whole_text_as_the_grader_reads_it(text):
    found = answers.pieces(text, PromptConfig())
    assert "".join("".join(piece.text.split()) for piece in found) == "".join(text.split())
    parsed = parse(text)
    of_role = {piece.role: piece.text for piece in found}
    assert of_role.get("thoughts", "") == parsed.thoughts.strip()
    assert of_role.get("answer", "") == (parsed.answer or "")
    assert all("<" not in piece.text or piece.role != "answer" for piece in found)


def test_pieces_use_the_tags_of_the_stage(run):
    text = "<thinking>a</thinking> <final>2</final>"
    add_stage(run, "base", metrics={}, completions={"math/0": text}, prompt={"think": "thinking", "answer": "final"})
    [problem] = answers.choose(read_run(run)).problems
    assert [(piece.role, piece.text) for piece in problem.answers[0].pieces] == [
        ("tags", "<thinking>"),
        ("thoughts", "a"),
        ("tags", "</thinking> <final>"),
        ("answer", "2"),
        ("tags", "</final>"),
    ]
    assert problem.answers[0].scores == {"accuracy": 0.0, "format": 1.0, "language": 0.0}


def test_tags_come_from_the_model_that_a_stage_starts_from(run):
    add_stage(run, "zero", "grpo", metrics={})
    (run / "zero" / "model").mkdir()
    (run / "zero" / "model" / "prompt.json").write_text(json.dumps({"think": "thinking"}))
    add_stage(run, "after", metrics={}, model="${zero.model}")
    assert [stage.prompt.think for stage in read_run(run).stages] == ["thinking", "thinking"]


def test_problems_are_chosen_by_the_rule(run):
    problems = [*(f"math/{i}" for i in range(9)), *(f"plain/{i}" for i in range(3))]
    first = dict.fromkeys(problems, WRONG) | {"math/0": RIGHT, "math/1": RIGHT}
    gained = {"math/1": WRONG, "math/3": RIGHT, "math/5": RIGHT, "math/7": RIGHT, "plain/1": RIGHT, "plain/2": RIGHT}
    add_stage(run, "base", metrics={}, completions=first)
    add_stage(run, "middle", metrics={}, completions={"math/2": RIGHT, "plain/1": RIGHT})  # it was asked less
    add_stage(run, "traces", "sample", metrics={}, completions=dict.fromkeys(problems, RIGHT))
    add_stage(run, "last", metrics={}, completions=first | gained)
    chosen = answers.choose(read_run(run))
    assert (chosen.first, chosen.last, chosen.num_shared, chosen.num_gained, chosen.num_lost) == ("base", "last", 12, 5, 1)
    # of each kind the first gained, two more gained, and at the end the first that all missed
    asked = [problem.question.text for problem in chosen.problems]
    assert asked == [f"What is {name}?" for name in ("math/3", "math/5", "math/7", "plain/1", "math/4")]
    assert [len(problem.answers) for problem in chosen.problems] == [2, 2, 2, 3, 2]


def test_every_answer_has_the_rewards_that_need_no_more_than_question_and_text(run):
    mixed = "<think>We try one plus 我们试试</think> <answer>2</answer>"
    silent = "<think>1+1=2</think> <answer>2</answer>"
    add_stage(run, "base", metrics={}, completions={"math/0": silent})
    add_stage(run, "zero", metrics={}, completions={"math/0": mixed})
    [problem] = answers.choose(read_run(run)).problems
    silence, mixture = (answer.scores for answer in problem.answers)
    assert silence == {"accuracy": 1.0, "format": 1.0, "language": 0.0}
    assert mixture == {"accuracy": 1.0, "format": 1.0, "language": pytest.approx(0.5)}


def test_result_is_the_paired_difference_of_stages_with_a_policy(run):
    before = {f"math/{i}": [WRONG, RIGHT if i < 20 else WRONG] for i in range(100)}
    after = {f"math/{i}": [RIGHT, RIGHT if i < 20 else WRONG] for i in range(100)}
    before["plain/0"], after["plain/0"] = RIGHT, WRONG  # another task
    add_stage(run, "base", metrics={"math/pass@1": measure(0.1)}, completions=before)
    add_stage(run, "zero", metrics={"math/pass@1": measure(0.6)}, completions=after)
    add_stage(run, "cold", "sample", metrics={"math/pass@1": measure(0.9)})
    found = words.result(read_run(run))
    assert (found.first, found.last, found.verb) == ("base", "zero", "rose")
    assert found.difference == bootstrap([0.5] * 100, bounds=(-1, 1))
    write_answers(run / "zero" / "rollouts" / "eval.parquet", before)
    assert words.result(read_run(run)).verb == "did not clearly change:"
    write_answers(run / "base" / "rollouts" / "eval.parquet", after)
    assert words.result(read_run(run)).verb == "fell"


def test_headline_and_problems_are_of_the_same_two_stages(chain):
    add_stage(chain, "student", metrics={"math/pass@1": measure(0.3)}, completions={"math/0": RIGHT}, model="tiny-student")
    run = read_run(chain)
    result, chosen = words.result(run), answers.choose(run)
    assert (result.first, result.last) == (chosen.first, chosen.last) == ("base", "zero")


def test_stages_with_nothing_to_compare_have_no_gains(run):
    add_stage(run, "base", metrics={"math/pass@1": measure(0.2)}, completions={"math/0": WRONG}, model="tiny")
    add_stage(run, "student", metrics={"math/pass@1": measure(0.3)}, completions={"math/0": RIGHT}, model="tiny-student")
    text = Page(write_report(run).read_text()).text
    assert "math/pass@1 is 0.200" in text
    assert "Chosen by rule: the first problems" in text
    assert "gained" not in text


def test_result_without_shared_answers_compares_intervals(run):
    add_stage(run, "base", metrics={"math/pass@1": measure(0.2)})
    add_stage(run, "zero", metrics={"math/pass@1": measure(0.25)})
    assert words.result(read_run(run)).verb == "did not clearly change:"
    add_stage(run, "more", metrics={"math/pass@1": measure(0.4)})
    assert words.result(read_run(run)).verb == "rose"


def test_filters_tell_what_each_dropped(chain):
    [cold] = [stage for stage in read_run(chain).stages if stage.kind == "sample"]
    assert cold.filters == [("candidates", 40, None), ("correct", 30, 10), ("language", 29, 1), ("traces", 20, 9)]
    assert cold.traces["steps"] == {"drop_fillers": 3}


def test_references_anywhere_are_edges(chain):
    drawn = draw.chain(read_run(chain))
    assert sorted(edge.outputs for edge in drawn.edges) == ["model", "model", "model", "model", "traces"]
    stages = {stage.name: stage for stage in read_run(chain).stages}
    assert stages["align"].inputs == [("sft", "model"), ("rm", "model")]
    assert [stages[name].start for name in ("base", "cold", "sft")] == ["tiny", "zero", "scratch"]


@pytest.mark.parametrize("num_stages", [1, 2, 5, 12])
def test_lanes_of_the_chain_never_overlap(run, num_stages):
    add_stage(run, "s0", "grpo", metrics={})
    for i in range(1, num_stages):  # each needs the one before, the one three before, and the first
        needed = [f"${{s{j}.model}}" for j in (i - 1, max(0, i - 3), 0)]
        add_stage(run, f"s{i}", "grpo", metrics={}, model=needed[0], rewards=[{"args": needed}])
    drawn = draw.chain(read_run(run))
    lanes = [
        re.fullmatch(r"M(\d+) (\d+)H(\d+)q-6 0 -6 6V(\d+)q0 6 6 6H\d+", edge.path) for edge in drawn.edges if not edge.label
    ]
    spans = [(int(lane[3]), int(lane[2]), int(lane[4])) for lane in lanes]  # where, from, to
    assert len(spans) == max(0, 2 * num_stages - 6)
    assert sum(edge.label is not None for edge in drawn.edges) == num_stages - 1
    assert all(0 < x < drawn.gutter for x, _, _ in spans)
    for a in spans:
        for b in spans:
            assert a[0] != b[0] or a[1] == b[1] or a[2] < b[1] or b[2] < a[1]
    Page(write_report(run).read_text())


def test_charts_follow_what_the_stage_has(chain):
    titles = {stage.name: [chart.title for chart in draw.charts(stage)] for stage in read_run(chain).stages}
    assert titles == {"base": [], "zero": ["reward and its parts"], "cold": [], "sft": ["loss"], "rm": [], "align": []}
    [loss] = draw.charts(read_run(chain).stages[3])
    assert loss.legend == [("loss", 1 / 12), ("eval loss", 2 / 12)]


def test_more_curves_than_colours_are_told_apart(run):
    add_stage(run, "zero", "grpo", rows=[{"step": s, **{f"rewards/{name}/mean": s for name in "abcdefg"}} for s in (1, 2)])
    page = write_report(run).read_text()
    assert re.findall(r'<(\w+) class="[^"]*\bdashed"', page) == ["span", "polyline"]  # of the seventh, name and curve
    assert re.search(r'class="key c0 dashed"><i></i>g ', page)


def test_evaluations_stand_in_the_chart_of_the_accuracy(run):
    rows = [row for s in (2, 4) for row in ({"step": s, "accuracy": 0.4}, {"step": s, "eval/math/pass@1": measure(s / 10)})]
    add_stage(run, "zero", "grpo", metrics={}, rows=rows)
    [chart] = draw.charts(read_run(run).stages[0])
    assert chart.legend == [("accuracy", 0.4), ("math/pass@1", 0.4)]
    assert chart.dots[0].title == "math/pass@1 at step 2: 0.200 [0.150, 0.250]"
    (bottom, lowest), *_, (top, highest) = chart.y_ticks
    for dot, value in zip(chart.dots, (0.2, 0.4), strict=True):
        assert dot.high < dot.y < dot.low  # upwards is less in SVG
        share = (value - float(lowest)) / (float(highest) - float(lowest))
        assert dot.y == pytest.approx(bottom + share * (top - bottom), abs=0.1)


def test_values_that_are_not_finite_are_counted_not_drawn():
    [chart] = draw.chart("loss", {"loss": [(1, 1.0), (2, math.nan), (3, math.inf), (4, 2.0)]}, {})
    assert chart.num_left_out == 2
    assert "nan" not in chart.lines[0]
    assert draw.chart("loss", {"loss": [(1, math.nan)]}, {}) == []


def test_long_curve_is_averaged():
    points = [(step, float(step % 2)) for step in range(1600)]
    assert draw.binned(points) == [(i * 10 + 4.5, 0.5) for i in range(160)]
    assert draw.binned(points[:7]) == points[:7]


@pytest.mark.parametrize(
    ("low", "high"),
    [
        *[(0, 1), (0.3, 0.31), (-2, 5), (0, 0), (7, 7), (1e-7, 3e-7), (53.2, 100.7), (1, 123456)],
        *[(0.1, math.nextafter(0.1, 1)), (0, 3e-14), (-2e-20, 5e-20), (1e12, 1e12 + 1)],  # apart by rounding, and tiny ones
    ],
)
def test_ticks_hold_all_values(low, high):
    ticks = draw.ticks_for(low, high)
    assert ticks[0] <= low <= high <= ticks[-1]
    assert 2 <= len(ticks) <= 7
    assert ticks[0] < ticks[-1]


def test_table_has_stages_with_a_policy_and_their_measures_only(chain):
    columns = draw.columns(read_run(chain))
    assert [(column.key, list(column.cells), column.scale, column.n) for column in columns] == [
        ("math/pass@1", ["base", "zero", "align"], 1, 100)
    ]


def test_unfinished_stage_is_shown_with_what_it_has(run):
    add_stage(run, "zero", "grpo", rows=[{"step": 1, "reward": 0.5}])
    with (run / "zero" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "rew')
    page = Page(write_report(run).read_text())
    assert "unfinished" in page.text
    assert "reward and its parts" in page.text
    assert json.loads((run / "summary.json").read_text())["stages"] == []


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.yaml", "a: [b"),
        ("config.yaml", "- a"),
        ("stage.json", "{"),
        ("metrics.jsonl", '{"step": 1}\nnonsense\n'),
        ("traces.jsonl", "nonsense\n"),
        ("rollouts/eval.parquet", "nonsense"),
    ],
)
def test_damaged_file_is_named(chain, file, content):
    (chain / "recipe.yaml").write_text("stages: [{name: base}, {name: zero}]")
    (chain / "zero" / file).write_text(content)
    with pytest.raises(UserError, match=re.escape(str(chain / "zero" / file))) as error:
        write_report(chain)
    assert "\n" not in str(error.value)


def test_answers_without_their_columns_are_named(chain):
    pyarrow.parquet.write_table(pyarrow.table({"problem": ["a"]}), chain / "zero" / "rollouts" / "eval.parquet")
    with pytest.raises(UserError, match=r"eval\.parquet: lacks the columns completion, "):
        write_report(chain)


def test_folder_that_is_no_run_is_told(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match="no run directory"):
            write_report(folder)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0.4604, "0.460"),
        (100.73, "100.7"),
        (1024, "1,024"),
        (0, "0.000"),
        (2.3e-5, "2.3e-05"),
        (-3, "-3.000"),
        (math.nan, "nan"),
    ],
)
def test_numbers_are_told_in_three_digits(value, told):
    assert words.number(value) == told


def test_counts_and_times_are_told_for_people():
    assert [words.count(n) for n in (512, 13847, 1_240_000, 8.02e9)] == ["512", "13,847", "1.24 M", "8.02 G"]
    assert [words.duration(s) for s in (22.4, 471.1, 4645.6)] == ["22 s", "7 min 51 s", "1 h 17 min"]


def test_last_line_of_a_run_is_the_path_of_its_report(model_folder, tmp_path, capsys):
    recipe = tmp_path / "toy.yaml"
    data = "eval: {data: [{source: countdown, split: test, limit: 2}]}"
    recipe.write_text(
        f"name: toy\nstages: [{{name: base, kind: eval, model: {model_folder}, max_completion_length: 4, {data}}}]\n"
    )
    pipeline.run(load_recipe(recipe), tmp_path / "run", Console())
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "run" / "report.html")
    assert "countdown/pass@1 is 0.000" in Page((tmp_path / "run" / "report.html").read_text()).text
    ended = datetime.fromisoformat(json.loads((tmp_path / "run" / "base" / "stage.json").read_text())["ended"])
    assert ended.tzinfo == UTC
    assert read_run(tmp_path / "run").ended == ended
