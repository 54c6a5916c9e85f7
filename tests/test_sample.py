"""Traces from a toy model and from a stub server: what is asked, what is kept, what is written, what a kill leaves."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet
import pytest
import yaml
from rich.console import Console
from stub_server import StubServer, text_of
from test_filters import trace as toy_trace
from typer.testing import CliRunner

from aha import pipeline, sample, sft
from aha.chat import render, turn_end
from aha.cli import app
from aha.config import DataConfig, PromptConfig, validate
from aha.data.filters import FILTERS
from aha.data.refine import STEPS
from aha.data.review import reviewed
from aha.data.sources import load_problems, load_texts
from aha.data.wording import from_few_shot
from aha.log import StageLog
from aha.model import load_tokenizer
from aha.recipe import load_recipe
from aha.rewards import Reward
from aha.rewards.kept import Kept
from aha.rollout import texts_of
from aha.rundir import StageDir
from aha.stage_configs import STAGE_KINDS, SampleStage, SftStage
from aha.texts import pieces_of
from aha.types import Sample, UserError

D = "<|special_token|>"
GOOD = "<think>Two and three more make five of them.</think> <answer>5</answer>"
SUMS = [(2, 3), (4, 5), (6, 7), (8, 9)]
# A grader that even a model of random weights satisfies now and then; it can be told to wait.
GRADER = """
import os, time
def even(prompts, completions, **columns):
    time.sleep(float(os.environ.get("TOY_SECONDS", 0)))
    return [float(len(text) % 2 == 0) for text in completions]
def tokens(prompts, completions, completion_ids, **columns):
    return [float(len(ids)) for ids in completion_ids]


def rank(prompts, completions, completion_ids, **columns):
    lengths = {prompt: [] for prompt in prompts}
    for prompt, ids in zip(prompts, completion_ids):
        lengths[prompt].append(len(ids))
    return [sum(n <= len(i) for n in lengths[p]) / len(lengths[p]) for p, i in zip(prompts, completion_ids)]
"""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    """A working directory with a grader and two files of problems."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy_grader.py").write_text(GRADER)
    rows = [{"question": f"Count to {i} as fast as you can.", "number": i} for i in range(10)]
    (tmp_path / "counts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"question": f"Ann has {a} pens and buys {b}. How many has she?", "gold": str(a + b)} for a, b in SUMS]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    yield
    sys.modules.pop("toy_grader", None)


@pytest.fixture
def toy(model_folder):
    """Settings of a stage that samples from the toy model."""
    return {
        "model": str(model_folder),
        "dtype": "float32",
        "data": {"source": "counts.jsonl", "grader": "toy_grader:even"},
        "num_generations": 4,
        "prompts_per_part": 3,
        "max_completion_length": 8,
        "filters": ["correct"],
    }


def from_server(stub: StubServer, **changes) -> dict:
    """Settings of a stage that asks a server about pens."""
    own = {"base_url": stub.url, "model": "stub", "max_retries": 0, **changes.pop("server", {})}
    data = {"source": "sums.jsonl", "grader": "accuracy"}
    return {"engine": "server", "server": own, "data": data, "num_generations": 1, "filters": ["correct"], **changes}


def right(request, form: str = "<think>I add the pens, one by one.</think> <answer>{}</answer>") -> str:
    """The right answer to the last question of a request about pens."""
    a, b = re.findall(r"has (\d+) pens and buys (\d+)", text_of(request))[-1]
    return form.format(int(a) + int(b))


def right_while(left: list[int]):
    """A reply that is right as often as `left` says, and from then on a failure of the server."""

    def reply(request):
        left[0] -= 1
        return right(request) if left[0] >= 0 else 503

    return reply


def run(values: dict, folder: str = "run", log_class=StageLog):
    """Run a stage; returns its metrics and traces."""
    cfg: SampleStage = validate(SampleStage, {"name": "cold", "kind": "sample", **values}, "test")
    stage = StageDir(Path(folder))
    stage.path.mkdir(exist_ok=True)
    with Path("console.txt").open("w") as file, log_class("cold", "sample", Console(file=file, width=300), stage) as log:
        metrics = sample.run(cfg, stage, log)
    return metrics, traces_of(folder)


def traces_of(folder: str) -> list[dict]:
    return [json.loads(line) for line in (Path(folder) / "traces.jsonl").read_text().splitlines()]


# From the toy model, as it was trained to be asked


def test_a_trace_says_what_was_asked_what_came_and_where_it_comes_from(toy):
    metrics, traces = run({**toy, "rewards": [{"name": "format", "weight": 0.5}, {"name": "toy_grader:even"}]})
    assert metrics["sample/candidates"] == 40
    assert 0 < metrics["sample/kept"] == metrics["kept/correct"] == len(traces) < 40
    for trace in traces:
        assert list(trace)[:12] == [
            *("id", "task", "prompt", "completion", "origin", "steps", "reward", "scores", "solved", "language"),
            *("num_tokens", "finish_reason"),
        ]
        assert trace["prompt"] == f"Count to {trace['number']} as fast as you can."
        assert trace["completion"].startswith("<think>")
        assert len(trace["completion"]) % 2 == 0
        assert (trace["task"], trace["solved"], trace["language"], trace["steps"]) == ("counts", True, "en", [])
        assert trace["scores"] == {"format": 0.0, "toy_grader:even": 1.0}
        assert trace["reward"] == 1.0
        assert 1 <= trace["num_tokens"] <= 8
    parts = [pyarrow.parquet.read_table(path).to_pylist() for path in sorted((Path("run") / "rollouts").iterdir())]
    solved = [row for part in parts for row in part if row["solved"]]
    for name in ("num_tokens", "finish_reason"):
        assert [trace[name] for trace in traces] == [row[name] for row in solved]
    assert [trace["id"] for trace in traces] == [f"{row['problem']}#{row['sample']}" for row in solved]
    assert len({trace["id"] for trace in traces}) == len(traces)


def test_origin_is_the_stage_that_made_the_model(toy, model_folder):
    Path("zero").mkdir()
    (Path("zero") / "model").symlink_to(model_folder)
    _, traces = run({**toy, "model": "zero/model"})
    assert {trace["origin"] for trace in traces} == {"zero"}


def test_sft_and_graders_read_traces_as_they_are(toy, model_folder, tmp_path):
    _, traces = run(toy)
    texts = load_texts(DataConfig(source="run/traces.jsonl"))
    assert texts == [{"prompt": trace["prompt"], "completion": trace["completion"]} for trace in traces]
    cfg = SftStage(name="s", kind="sft", data={"source": "run/traces.jsonl"}, model=str(model_folder), max_steps=1)
    (tmp_path / "s").mkdir()
    with StageLog("s", "sft", Console(quiet=True), StageDir(tmp_path / "s")) as log:
        assert sft.run(cfg, StageDir(tmp_path / "s"), log)
    problems = load_problems(DataConfig(source="run/traces.jsonl", columns={"question": "prompt"}))
    assert [problem.columns["number"] for problem in problems] == [trace["number"] for trace in traces]


def test_without_rewards_the_grader_is_the_reward(toy):
    _, traces = run({**toy, "filters": [], "deduplicate": False})
    assert len(traces) == 40
    assert {(trace["solved"], trace["reward"]) for trace in traces} == {(True, 1.0), (False, 0.0)}


def test_neither_the_size_of_a_part_nor_of_a_batch_decides_what_is_drawn(toy):
    _, traces = run(toy)
    assert run({**toy, "prompts_per_part": 7, "max_num_seqs": 5}, "other")[1] == traces
    assert run({**toy, "seed": 1}, "third")[1] != traces


def test_every_filter_is_one_line_on_the_console_and_in_the_metrics(toy):
    metrics, traces = run({**toy, "filters": ["correct", {"name": "length", "args": {"max_words": 4}}], "num_best": 1})
    console = Path("console.txt").read_text()
    assert f"cold: correct kept {metrics['kept/correct']} of 40\n" in console
    assert f"cold: num_best kept {len(traces)} of {metrics['kept/deduplicate']}\n" in console
    assert f"cold: {len(traces)} traces of {len(traces)} problems: {len(traces)} counts\n" in console
    lines = [json.loads(line) for line in (Path("run") / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "accuracy" in line] == [1, 2, 3, 4]
    assert {"step": 5, "seen/correct": 40, "kept/correct": metrics["kept/correct"]} in lines
    assert {"step": 5, "seen/length": metrics["kept/correct"], "kept/length": metrics["kept/length"]} in lines
    assert metrics["counts/pass@1"].value == pytest.approx(metrics["kept/correct"] / 40)
    assert metrics["counts/pass@4"].n == 10
    assert metrics["kept/num_best"] == len({trace["prompt"] for trace in traces}) == len(traces)


def test_filters_of_one_name_are_told_apart_by_their_arguments(toy):
    rewards = [{"name": "format"}, {"name": "toy_grader:tokens"}]
    args = [
        {"name": "format", "score": 0},
        {"name": "toy_grader:tokens", "score": 9},
        {"name": "toy_grader:tokens", "score": 2},
    ]
    twice = [{"name": "min_score", "args": values} for values in args]
    with pytest.raises(UserError, match=r"min_score\(name=format, score=0\) kept 40 of 40, .*score=9\) kept 0 of 40"):
        run({**toy, "filters": twice, "rewards": rewards})
    metrics, traces = run({**toy, "filters": ["correct", *twice[::2]], "rewards": rewards, "deduplicate": False})
    kept = {key: number for key, number in metrics.items() if key.startswith("kept/")}
    labels = ["correct", "min_score(name=format, score=0)", "min_score(name=toy_grader:tokens, score=2)"]
    assert list(kept) == [f"kept/{label}" for label in labels]
    assert list(kept.values()) == sorted(kept.values(), reverse=True)
    assert f"cold: {labels[2]} kept {len(traces)} of {kept[f'kept/{labels[1]}']}\n" in Path("console.txt").read_text()
    with pytest.raises(UserError, match=r"cold: filters has min_score\(name=format, score=0\) 2 times"):
        run({**toy, "filters": [twice[0]] * 2, "rewards": rewards}, "other")


def test_what_a_refinement_changed_is_graded_as_it_then_is(toy, monkeypatch):
    def longer(text, trace, prompt, by: str):
        return text + by

    monkeypatch.setitem(STEPS, "longer", longer)
    refine = [{"name": "longer", "args": {"by": ""}}, {"name": "longer", "args": {"by": "!"}}]
    _, before = run({**toy, "filters": [], "deduplicate": False})
    metrics, after = run({**toy, "filters": [], "deduplicate": False, "refine": refine}, "refined")
    assert [trace["completion"] for trace in after] == [trace["completion"] + "!" for trace in before]
    assert [trace["solved"] for trace in after] == [not trace["solved"] for trace in before]
    assert {tuple(trace["steps"]) for trace in after} == {("longer",)}
    assert metrics["refined/longer"] == 40


def test_a_text_that_was_changed_is_graded_with_the_length_that_it_has(toy, monkeypatch, model_folder):
    monkeypatch.setitem(STEPS, "longer", lambda text, trace, prompt: text + " and so on, for many more words")
    values = {**toy, "filters": [], "deduplicate": False, "refine": ["longer"]}
    _, traces = run({**values, "rewards": [{"name": "toy_grader:tokens"}]})
    tokenizer = load_tokenizer(str(model_folder))
    for trace in traces:
        said = tokenizer(trace["completion"].removeprefix("<think>"), add_special_tokens=False).input_ids
        assert trace["num_tokens"] == len(said) + (trace["finish_reason"] == "stop")
        assert trace["reward"] == trace["scores"]["toy_grader:tokens"] == trace["num_tokens"] > 8


def test_an_answer_that_is_cut_at_a_stop_text_has_the_length_of_what_is_left(toy, model_folder):
    values = {**toy, "filters": [], "deduplicate": False}
    _, whole = run(values)
    letter = max("aeinrst", key=lambda letter: sum(letter in trace["completion"] for trace in whole))
    _, cut = run({**values, "stop": [letter]}, "cut")
    tokenizer = load_tokenizer(str(model_folder))
    changed = [new for old, new in zip(whole, cut, strict=True) if new["completion"] != old["completion"]]
    assert changed
    for trace in changed:
        said = tokenizer(trace["completion"].removeprefix("<think>"), add_special_tokens=False).input_ids
        assert (trace["num_tokens"], trace["finish_reason"]) == (len(said) + 1, "stop")


def test_answers_beside_a_changed_one_are_compared_with_it_again(toy, monkeypatch):
    monkeypatch.setitem(STEPS, "first", lambda text, trace, prompt: text + " and more" * 9 if trace.sample == 0 else text)
    values = {**toy, "filters": [], "deduplicate": False, "rewards": [{"name": "toy_grader:rank"}]}
    _, traces = run({**values, "refine": ["first"]})
    ranks = {number: [t["reward"] for t in traces if t["id"].endswith(f"#{number}")] for number in (0, 1)}
    assert set(ranks[0]) == {1.0}
    assert max(ranks[1]) < 1.0


def test_the_length_of_a_servers_answer_that_was_changed_is_estimated(serve, monkeypatch):
    monkeypatch.setitem(STEPS, "twice", lambda text, trace, prompt: text * 2)
    _, traces = run(from_server(serve(right), filters=[], refine=["twice"]))
    assert {trace["num_tokens"] for trace in traces} == {10}  # the stub counts 5 for each


def test_an_answer_that_was_cut_off_is_dropped_by_default_and_else_says_so(serve):
    values = from_server(serve(right, finish_reason="length"))
    assert {trace["finish_reason"] for trace in run(values)[1]} == {"length"}
    values.pop("filters")
    with pytest.raises(UserError, match="no trace is left of 4 answers: finished kept 0 of 4"):
        run(values, "default")


def test_traces_of_tasks_are_thinned_to_their_shares(serve):
    def reply(request):
        return right(request) if " 2 pens" in text_of(request) or request["seed"] % 2 else "0"

    data = [{"source": "sums.jsonl", "grader": "accuracy", "split": f"train[{part}]", "task": task}
            for task, part in (("one", ":1"), ("more", "1:"))]  # fmt: skip
    values = from_server(serve(reply), data=data, num_generations=8, deduplicate=False)
    every, kept = run(values)[0], run({**values, "shares": {"one": 1, "more": 0.25}}, "shared")[0]
    assert every["sample/kept/one"] == kept["sample/kept/one"] == 8
    assert every["sample/kept/more"] > kept["sample/kept/more"] == 2
    assert kept["kept/shares"] == kept["sample/kept"] == 10
    console = Path("console.txt").read_text()
    assert f"cold: shares kept 10 of {every['sample/kept']}\n" in console
    assert ": 2 more, 8 one\n" in console
    with pytest.raises(UserError, match="shares is of one; the problems are of more, one: name each"):
        run({**values, "shares": {"one": 1}}, "other")


def test_a_judge_is_asked_only_about_what_the_other_filters_keep(serve):
    judge = serve(lambda request: "Score: 3" if "has 2 pens" in text_of(request) else "Score: 9")
    answers = serve(lambda request: "0" if "has 8 pens" in text_of(request) else right(request))
    rewards = [{"name": "judge", "weight": 0.5, "args": {"url": judge.url, "model": "judge"}}, {"name": "accuracy"}]
    filters = [{"name": "min_score", "args": {"name": "judge", "score": 0.7}}, "correct"]
    changes = {"rewards": rewards, "filters": filters, "refine": ["reasoning_summary"], "prompts_per_part": 2}
    metrics, traces = run(from_server(answers, **changes))
    assert len(judge.asked) == 3
    assert [trace["id"] for trace in traces] == ["sums/1#0", "sums/2#0"]
    assert {(trace["reward"], trace["scores"]["judge"]) for trace in traces} == {(1.45, 0.9)}
    assert (metrics["kept/correct"], metrics["kept/min_score"]) == (3, 2)
    assert any("judge/tokens" in json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines())


@pytest.mark.parametrize(("made_by", "learned_by"), [("r1", "chat"), ("chat", "r1")])
@pytest.mark.parametrize("prefill", ["<think>", ""])
def test_a_trace_made_under_one_template_is_learned_as_the_other_asks(policy, made_by, learned_by, prefill):
    sample = [Sample(policy.tokenizer(GOOD.removeprefix("<think>")).input_ids, [], "stop")]
    made = replace(policy, prompt=PromptConfig(template=made_by, prefill="<think>"))
    [[text]] = texts_of(made, [sample])
    learned = PromptConfig(template=learned_by, prefill=prefill)
    end = turn_end(policy.tokenizer)
    (context, _), (said, _) = pieces_of({"prompt": "2+3?", "completion": text}, learned, policy.tokenizer, end)
    assert context == render("2+3?", learned, policy.tokenizer)
    assert prefill + said == GOOD + (end if learned_by == "chat" else policy.tokenizer.eos_token)


def test_problems_of_an_evaluation_are_left_out(toy):
    _, every = run(toy)
    Path("evaluation.jsonl").write_text("".join(Path("counts.jsonl").read_text().splitlines(keepends=True)[:4]))
    metrics, traces = run({**toy, "decontaminate": {"source": "evaluation.jsonl"}}, "clean")
    assert traces == [trace for trace in every if trace["number"] >= 4] != every
    assert metrics["kept/decontaminate"] == len(traces)


def test_of_too_many_traces_some_are_drawn_by_the_seed(toy):
    _, every = run(toy)
    _, some = run({**toy, "max_traces": 5}, "some")
    places = [[trace["completion"] for trace in every].index(trace["completion"]) for trace in some]
    assert places == sorted(places)
    assert len(some) == 5
    assert places != list(range(5))


def test_nothing_left_is_one_line_with_what_each_filter_kept(toy):
    with pytest.raises(UserError, match=r"cold: no trace is left of 40 answers: well_formed kept 0 of 40, deduplicate kept 0"):
        run({**toy, "filters": ["well_formed"]})


def test_a_name_that_is_wrong_is_told_before_anything_is_sampled(toy):
    for key, what in (("filters", "filter"), ("refine", "refinement")):
        with pytest.raises(UserError, match=f"unknown {what} 'corect'"):
            run({**toy, key: ["corect"]})
    with pytest.raises(UserError, match="min_score: no reward 'polite' graded"):
        run({**toy, "filters": [{"name": "min_score", "args": {"name": "polite", "score": 1}}]})
    with pytest.raises(UserError, match="cap_length wants max_words or max_lines"):
        run({**toy, "refine": ["cap_length"]})
    assert not (Path("run") / "rollouts").exists()


# What a stage that was cut off goes on with


class StoppedError(Exception):
    pass


class StopsInThree(StageLog):
    def step(self, step, metrics, group=None):
        super().step(step, metrics, group)
        if step == 3:  # the line is written and the part is not: it is drawn again
            raise StoppedError


def test_a_stage_that_was_stopped_goes_on_after_the_last_part_and_writes_the_same(toy):
    run(toy, "unbroken")
    with pytest.raises(StoppedError):
        run(toy, "stopped", StopsInThree)
    parts = sorted((Path("stopped") / "rollouts").iterdir())
    assert [part.name for part in parts] == ["step-000001.parquet", "step-000002.parquet"]
    stamps = [part.stat().st_mtime_ns for part in parts]
    (Path("stopped") / "rollouts" / "step-000003.parquet.tmp").write_text("cut off")
    metrics, _ = run(toy, "stopped")
    assert "resumed at step 2" in Path("console.txt").read_text()
    assert [part.stat().st_mtime_ns for part in parts] == stamps
    assert metrics == run(toy, "unbroken")[0]
    assert (Path("stopped") / "traces.jsonl").read_bytes() == (Path("unbroken") / "traces.jsonl").read_bytes()
    logs = [(Path(folder) / "metrics.jsonl").read_text().splitlines() for folder in ("stopped", "unbroken")]
    steps = [[json.loads(line)["step"] for line in lines] for lines in logs]
    assert steps[0] == steps[1]


def test_a_part_that_was_deleted_is_made_anew_and_logged_once(toy):
    metrics, traces = run(toy)
    log = Path("run") / "metrics.jsonl"
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    (Path("run") / "rollouts" / "step-000002.parquet").unlink()
    assert run(toy) == (metrics, traces)
    assert sorted(json.loads(line)["step"] for line in log.read_text().splitlines()) == steps


def test_a_part_holds_every_answer_with_its_grade(toy):
    run(toy)
    rows = pyarrow.parquet.read_table(Path("run") / "rollouts" / "step-000004.parquet").to_pylist()
    assert [(row["problem"], row["sample"]) for row in rows] == [("counts/9", i) for i in range(4)]
    assert all(row["solved"] == (len(row["completion"]) % 2 == 0) == (row["reward"] == 1) for row in rows)


def test_a_damaged_part_and_one_of_other_data_are_named(toy):
    run(toy)
    part = Path("run") / "rollouts" / "step-000002.parquet"
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"step-000002\.parquet: damaged .*delete it and run again"):
        run(toy)
    part.write_bytes(whole)
    questions = Path("counts.jsonl").read_text()
    Path("counts.jsonl").write_text(questions.replace("Count to 4", "Count to 44"))
    with pytest.raises(UserError, match=r"step-000002\.parquet: counts/4 is not the problem of that name in the data"):
        run(toy)
    Path("counts.jsonl").write_text(questions)
    part.write_bytes((part.parent / "step-000001.parquet").read_bytes())
    with pytest.raises(UserError, match=r"step-000002\.parquet: counts/0 is not the problem of that name"):
        run(toy)


RECIPE = """
name: toy
stages:
  - name: cold
    kind: sample
    model: {model}
    dtype: float32
    data: {{source: counts.jsonl, grader: "toy_grader:even"}}
    prompts_per_part: 1
    max_completion_length: 8
    filters: [correct]
"""


@pytest.mark.slow
def test_a_stage_that_was_killed_writes_the_same_traces(model_folder):
    Path("toy.yaml").write_text(RECIPE.format(model=model_folder))

    def aha(out: str, seconds: str = "0") -> subprocess.Popen:
        command = [sys.executable, "-m", "aha", "run", "toy.yaml", "--out", out]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOY_SECONDS": seconds}
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)

    assert aha("unbroken").wait(timeout=600) == 0
    for part in (2, 6):
        process, deadline = aha("killed", "0.3"), time.monotonic() + 600
        while not (Path("killed") / "cold" / "rollouts" / f"step-{part:06d}.parquet").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (Path("killed") / "cold" / "stage.json").exists()
    assert aha("killed").wait(timeout=600) == 0
    traces = [(Path(out) / "cold" / "traces.jsonl").read_bytes() for out in ("killed", "unbroken")]
    assert traces[0] == traces[1]


# Few-shot and direct


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (f"{D}2+3=5, and 5-3=2.{D}It is 5.", "<think>2+3=5, and 5-3=2.</think> <answer>It is 5.</answer>"),
        (f" {D} 2+3=5 {D} 5 {D}\n", "<think>2+3=5</think> <answer>5</answer>"),
        (f"2+3=5{D}5", None),
        (f"{D}2+3=5", None),
        (f"{D}{D}5", None),
        (f"{D}2+3=5{D} ", None),
        (f"{D}2+3=5{D}5{D}and more", None),
        (GOOD, None),
        ("", None),
    ],
)
def test_the_few_shot_form_becomes_tags_and_anything_else_stays(text, read):
    assert from_few_shot(text, D, PromptConfig()) == (text if read is None else read)
    assert from_few_shot(text, D, PromptConfig(think="t", answer="a")) == (
        text if read is None else read.replace("think>", "t>").replace("answer>", "a>")
    )


EXAMPLES = [{"question": "1+1?", "reasoning": "1 and 1 are {2}, as 2-1=1.", "summary": "2"}]


def test_few_shot_shows_worked_examples_and_reads_their_form(serve):
    server = serve(lambda request: right(request, f"{D}I add the pens, one by one.{D}{{}}"))
    metrics, traces = run(from_server(server, ask="few_shot", examples=EXAMPLES, filters=["correct", "well_formed"]))
    asked = [text_of(request) for request in server.asked]
    assert all(f"Question: 1+1?\nAnswer: {D}1 and 1 are {{2}}, as 2-1=1.{D}2\n" in text for text in asked)
    assert sorted(text.splitlines()[-2] for text in asked) == sorted(f"Question: {trace['prompt']}" for trace in traces)
    assert metrics["sample/kept"] == 4
    assert traces[0]["completion"] == "<think>I add the pens, one by one.</think> <answer>5</answer>"
    assert traces[0]["origin"] == "stub/few_shot"
    assert traces[0]["prompt"] == "Ann has 2 pens and buys 3. How many has she?"
    assert traces[0]["num_tokens"] == 5


def test_a_few_shot_answer_that_was_cut_off_is_not_taken_for_a_whole_one(serve):
    server = serve(lambda request: right(request, f"{D}I add.{D}{{}}"), finish_reason="length")
    with pytest.raises(UserError, match="well_formed kept 0 of 4"):
        run(from_server(server, ask="few_shot", examples=EXAMPLES, filters=["well_formed"]))


def test_template_delimiter_and_end_of_an_answer_are_those_of_the_recipe(serve):
    server = serve(lambda request: right(request, "I add.||{}\nQ: 1+1?\nA: ||x||2"))
    settings = {
        "server": {"api": "completions"},
        "ask": "few_shot",
        "template": "{examples}\n\nQ: {question}\nA: {delimiter}",
        "example_template": "Q: {question}\nA: {delimiter}{reasoning}{delimiter}{summary}",
        "delimiter": "||",
        "stop": ["\nQ:"],
        "examples": EXAMPLES,
    }
    metrics, traces = run(from_server(server, **settings, filters=["correct", "well_formed"]))
    assert server.asked[0]["prompt"].startswith("Q: 1+1?\nA: ||1 and 1 are {2}, as 2-1=1.||2\n\nQ: Ann has")
    assert server.asked[0]["prompt"].endswith("\nA: ||")
    assert server.asked[0]["stop"] == ["\nQ:"]
    assert metrics["sample/kept"] == 4
    assert traces[0]["completion"] == "<think>I add.</think> <answer>5</answer>"


@pytest.mark.parametrize("suffix", ["yaml", "jsonl"])
def test_examples_may_stand_in_a_file(serve, suffix):
    text = yaml.safe_dump(EXAMPLES) if suffix == "yaml" else json.dumps(EXAMPLES[0]) + "\n"
    Path(f"examples.{suffix}").write_text(text)
    server = serve(lambda request: right(request))
    run(from_server(server, ask="few_shot", examples=f"examples.{suffix}"))
    assert "1 and 1 are {2}, as 2-1=1." in text_of(server.asked[0])
    assert (
        f"examples.{suffix}"
        in SampleStage(name="s", kind="sample", **from_server(server, ask="few_shot", examples=f"examples.{suffix}")).sources
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- {question: 1+1, reasoning: x}", r"examples\.yaml: row 1: summary is missing"),
        ("- just text", r"examples\.yaml: row 1: .*"),
        ("{question: x}", r"examples\.yaml: want a list"),
        ("- {", r"examples\.yaml: cannot be read as YAML"),
    ],
)
def test_examples_that_do_not_fit_are_named(serve, text, words):
    Path("examples.yaml").write_text(text)
    with pytest.raises(UserError, match=words):
        run(from_server(serve(right), ask="few_shot", examples="examples.yaml"))


def test_direct_asks_for_reasoning_and_verification_in_the_tags_of_the_stage(serve):
    server = serve(lambda request: right(request, "<t>I add the pens, one by one.</t> <answer>{}</answer>"))
    values = from_server(server, ask="direct", prompt={"template": "chat", "think": "t", "system": "Be thorough."})
    _, traces = run({**values, "filters": ["correct", "well_formed"]})
    assert len(traces) == 4
    system, user = server.asked[0]["messages"]
    assert system == {"role": "system", "content": "Be thorough."}
    assert re.search(r"has she\?\n\nReason step by step .* verify the result .* between <t> and </t>", user["content"])


def test_as_trained_sends_the_question_alone_and_takes_thoughts_that_stand_apart(serve):
    def reply(request):
        return {"content": right(request, " <answer>{}</answer>"), "reasoning_content": "I add the pens.\n"}

    server = serve(reply)
    _, traces = run(from_server(server, filters=["correct", "well_formed"]))
    assert traces[0]["completion"] == "<think>I add the pens.</think> <answer>5</answer>"
    assert {len(request["messages"]) for request in server.asked} == {1}
    assert {text_of(request) for request in server.asked} == {trace["prompt"] for trace in traces}


def test_thoughts_that_stand_apart_are_left_out_where_the_answer_has_its_own(serve):
    server = serve(lambda request: {"content": right(request), "reasoning": "hidden"})
    _, traces = run(from_server(server, ask="direct"))
    assert {trace["completion"] for trace in traces} == {right(request) for request in server.asked}


def test_a_base_model_behind_a_server_is_given_the_r1_template_to_continue(serve):
    server = serve(lambda request: right(request, "I add.</think> <answer>{}</answer>"))
    prompt = {"template": "r1", "prefill": "<think>"}
    _, traces = run(from_server(server, server={"api": "completions"}, prompt=prompt, filters=["correct", "well_formed"]))
    assert server.asked[0]["prompt"].startswith("A conversation between User and Assistant.")
    assert server.asked[0]["prompt"].endswith("How many has she? Assistant: <think>")
    assert traces[0]["completion"] == "<think>I add.</think> <answer>5</answer>"


def test_a_model_in_this_process_can_be_asked_in_other_words(toy):
    asked = {"ask": "direct", "prompt": {"template": "plain"}, "template": "Be quick! {question}", "filters": []}
    run({**toy, **asked})
    [first, *_] = pyarrow.parquet.read_table(Path("run") / "rollouts" / "step-000001.parquet").to_pylist()
    assert first["prompt"] == "Be quick! Count to 0 as fast as you can."
    assert first["question"] == "Count to 0 as fast as you can."
    asked["prompt"] = None  # then the tokenizer's chat template
    run({**toy, **asked}, "chat")
    [first, *_] = pyarrow.parquet.read_table(Path("chat") / "rollouts" / "step-000001.parquet").to_pylist()
    assert "user\nBe quick! Count to 0 as fast as you can." in first["prompt"]


# Servers that fail


def test_a_server_that_breaks_down_costs_nothing_that_came_before(serve):
    left = [3]
    server = serve(right_while(left))
    values = from_server(server, prompts_per_part=2, server={"concurrency": 1})
    with pytest.raises(UserError, match=r"1 requests failed, of 2, the last: .*503"):
        run(values)
    assert [path.name for path in (Path("run") / "rollouts").iterdir()] == ["step-000001.parquet"]
    Kept.of.cache_clear()  # as in another process
    left[0] = 100
    server.asked.clear()
    metrics, traces = run(values)
    assert len(server.asked) == 1
    assert metrics["sample/failed"] == 0
    assert len(traces) == 4
    assert not list((Path("run") / "replies").iterdir())


def test_single_failures_are_counted_and_their_problems_have_fewer_answers(serve):
    server = serve(lambda request: b"rubbish" if "has 2 pens" in text_of(request) else right(request))
    metrics, traces = run(from_server(server, num_generations=2, deduplicate=False, server={"max_failed": 0.3}))
    assert metrics["sample/failed"] == 2
    assert metrics["sample/candidates"] == len(traces) == 6
    assert metrics["sums/pass@1"].n == 3


# A stronger model's words


def rewriting(serve, reply, **changes):
    """A stage whose answers are right but for the last problem, and whose traces are rewritten by `reply`."""
    answers = serve(lambda request: GOOD.replace("5", "0") if "has 8 pens" in text_of(request) else right(request))
    editor = serve(reply)
    server = {"base_url": editor.url, "model": "editor", "max_retries": 0, "max_failed": 0.5}
    return editor, from_server(answers, rewrite={"server": server}, **{"filters": [], **changes})


def polished(request) -> str:
    """A rewrite that keeps the answer."""
    [answer] = re.findall(r"<answer>(.*?)</answer>", text_of(request))
    return f"<think>First I count, then I check.</think>\n<answer>{answer}</answer>\n"


def test_a_rewrite_takes_the_place_of_the_trace_and_is_graded(serve):
    editor, values = rewriting(serve, polished)
    metrics, traces = run(values)
    assert (metrics["rewrite/changed"], metrics["rewrite/refused"], metrics["rewrite/failed"]) == (4, 0, 0)
    assert traces[0]["completion"] == "<think>First I count, then I check.</think>\n<answer>5</answer>"
    assert traces[0]["steps"] == ["rewrite"]
    assert [trace["solved"] for trace in traces] == [True, True, True, False]
    assert any("Ann has 2 pens" in text_of(request) and "one by one" in text_of(request) for request in editor.asked)
    assert editor.asked[0]["temperature"] == 0


@pytest.mark.parametrize(
    ("broken", "filters", "outcome"),
    [
        (lambda request: polished(request).replace("</answer>", "1</answer>"), [], "refused"),
        (lambda request: "", [], "failed"),
        (lambda request: "First I count: " + polished(request), ["well_formed"], "refused"),
    ],
    ids=["answers otherwise", "says nothing", "does not pass the filters"],
)
def test_a_rewrite_that_spoils_the_trace_leaves_it_as_it_was(serve, broken, filters, outcome):
    _, values = rewriting(serve, broken, filters=filters)
    metrics, traces = run(values)
    assert metrics[f"rewrite/{outcome}"] == 4
    assert [trace["steps"] for trace in traces] == [[]] * 4
    assert traces[0]["completion"] == "<think>I add the pens, one by one.</think> <answer>5</answer>"


def test_a_rewrite_that_turns_a_wrong_answer_into_the_right_one_is_refused(serve):
    _, values = rewriting(serve, lambda request: polished(request).replace(">0<", ">17<"))
    metrics, traces = run(values)
    assert (metrics["rewrite/changed"], metrics["rewrite/refused"]) == (3, 1)
    assert traces[-1]["solved"] is False


def test_a_rewrite_that_was_cut_off_is_refused(serve):
    editor, values = rewriting(serve, polished)
    editor.finish_reason = "length"
    assert run(values)[0]["rewrite/refused"] == 4


def test_rewrites_are_kept_and_failures_counted(serve):
    editor, values = rewriting(serve, lambda request: 400 if "has 2 pens" in text_of(request) else polished(request))
    metrics, traces = run(values)
    assert (metrics["rewrite/changed"], metrics["rewrite/failed"]) == (3, 1)
    assert traces[0]["steps"] == []
    Kept.of.cache_clear()  # as in another process
    editor.asked.clear()
    editor.reply = polished
    assert run(values)[0]["rewrite/changed"] == 4
    assert len(editor.asked) == 1


def test_only_what_passed_the_filters_is_rewritten(serve):
    editor, values = rewriting(serve, polished, filters=["correct"])
    assert run(values)[0]["rewrite/changed"] == len(editor.asked) == 3


# People's eyes


def fill(verdicts: list[str]) -> None:
    """Fill in the column of the review."""
    with Path("run/review.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    with Path("run/review.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "keep": keep} for row, keep in zip(rows, verdicts, strict=True))


def test_people_say_what_is_kept(serve):
    server = serve(lambda request: right(request, '<think>I add,\n"one" by 一.</think> <answer>{}</answer>'))
    values = from_server(server, review=True)
    with pytest.raises(UserError, match=r"run/review\.csv: 4 traces to look at: write yes or no into column keep and run"):
        run(values)
    assert "cold: correct kept 4 of 4" in Path("console.txt").read_text()
    assert not (Path("run") / "traces.jsonl").exists()
    asked = len(server.asked)
    with pytest.raises(UserError, match=r"run/review\.csv: row 2, id sums/0#0: keep is '': want yes or no"):
        run(values)
    fill(["yes", "maybe", "no", "no"])
    with pytest.raises(UserError, match=r"row 3, id sums/1#0: keep is 'maybe'"):
        run(values)
    fill(["Yes", "0", " n", "1"])
    metrics, traces = run(values)
    assert [trace["id"] for trace in traces] == ["sums/0#0", "sums/3#0"]
    assert traces[0]["completion"] == '<think>I add,\n"one" by 一.</think> <answer>5</answer>'
    assert (metrics["kept/correct"], metrics["kept/review"], metrics["sample/kept"]) == (4, 2, 2)
    assert len(server.asked) == asked


def test_traces_are_called_in_the_review_as_in_every_other_file(serve):
    values = from_server(serve(right), review=True, num_generations=2, deduplicate=False)
    with pytest.raises(UserError, match="8 traces to look at"):
        run(values)
    fill(["no", "yes"] * 4)
    _, traces = run(values)
    assert [trace["id"] for trace in traces] == [f"sums/{i}#1" for i in range(4)]


def test_a_verdict_on_a_text_that_has_changed_is_named_with_its_row(serve):
    values = from_server(serve(right), review=True)
    with pytest.raises(UserError, match="to look at"):
        run(values)
    fill(["yes", "no", "yes", "yes"])
    with pytest.raises(UserError, match=r"review\.csv: row 2, id sums/0#0: column text is not that of this trace"):
        run({**values, "refine": ["reasoning_summary"]})
    assert len(run(values)[1]) == 3


def test_a_long_trace_and_a_task_that_begins_like_a_formula_can_be_reviewed(tmp_path):
    long = toy_trace("word " * 40_000)
    long = replace(long, problem=replace(long.problem, id="-hard/0", task="-hard"))
    with pytest.raises(UserError, match="1 traces to look at"):
        reviewed([long], tmp_path / "review.csv")
    text = (tmp_path / "review.csv").read_text(encoding="utf-8")
    (tmp_path / "review.csv").write_text(text.replace("\n, -hard", "\nyes, -hard"), encoding="utf-8")
    assert reviewed([long], tmp_path / "review.csv") == [long]


def test_a_review_that_lacks_rows_or_columns_is_named(serve):
    values = from_server(serve(right), review=True)
    with pytest.raises(UserError, match="to look at"):
        run(values)
    file = Path("run/review.csv")
    whole = file.read_text(encoding="utf-8-sig")
    rows = whole.splitlines(keepends=True)
    file.write_text(rows[0] + "yes" + rows[1])
    with pytest.raises(UserError, match=r"review\.csv: no row with id sums/1#0"):
        run(values)
    file.write_text("id,keep\nsums/0#0,yes\n")
    with pytest.raises(UserError, match=r"want the columns keep, id and text; it has id, keep"):
        run(values)
    file.write_text(whole.replace("keep,", "kept,", 1))
    with pytest.raises(UserError, match=r"want the columns keep, id and text; it has kept, id"):
        run(values)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read as CSV in UTF-8"):
        run(values)


def test_text_that_a_spreadsheet_would_run_is_defused(serve):
    with pytest.raises(UserError, match="to look at"):
        run(from_server(serve(lambda request: '=HYPERLINK("http://x")'), review=True, filters=[]))
    with Path("run/review.csv").open(encoding="utf-8-sig", newline="") as file:
        assert {row["completion"] for row in csv.DictReader(file)} == {' =HYPERLINK("http://x")'}


# Recipes and the command line


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"ask": "few_shot"}, "examples is empty"),
        ({"ask": "few_shot", "examples": EXAMPLES, "template": "{question}"}, r"template has no {examples}"),
        ({"ask": "few_shot", "examples": EXAMPLES, "prompt": {"prefill": "<think>"}}, r"prompt\.prefill must be empty"),
        ({"ask": "direct", "template": "{question} {gold}"}, r"template has {gold}; known: {answer}, {question}, {think}"),
        ({"ask": "direct", "template": "{question"}, "template: .*write {{ and }} for braces"),
        ({"template": "{question}"}, "template is for ask: few_shot or direct"),
        ({"engine": "server"}, "engine is server: `server` is missing"),
        ({"server": {"base_url": "http://x", "model": "m"}}, "engine is native: `server` is for engine: server"),
        ({"engine": "server", "server": {"base_url": "x", "model": "m"}}, r"server\.base_url"),
        (
            {"engine": "server", "server": {"base_url": "https://me:sesame@x/v1", "model": "m"}},
            r"server\.base_url: holds a user or a password; put the key into .* that api_key_env names$",
        ),
        ({"temperature": 0}, "temperature is 0: .* num_generations is 1"),
        ({"filters": [{"nam": "correct"}]}, r"filters\.0\.name is missing"),
        ({"filter": ["correct"]}, "unknown key filter; did you mean filters"),
        ({"eval": {}}, "unknown key eval"),
        ({"rewrite": {"server": {"base_url": "http://x", "model": "m"}, "template": "{text}"}}, r"rewrite\.template"),
    ],
)
def test_stages_that_do_not_fit_are_one_line(values, words):
    with pytest.raises(UserError, match=words):
        validate(SampleStage, {"name": "s", "kind": "sample", "data": {"source": "countdown"}, **values}, "recipe")


@pytest.mark.parametrize(
    ("server", "prompt", "words"),
    [
        ({}, {"template": "r1"}, "a chat server begins the answer by itself"),
        ({}, {"template": "chat", "prefill": "<think>"}, "a chat server begins the answer by itself"),
        ({"api": "completions"}, {"template": "chat"}, r"prompt\.template chat needs server\.api: chat"),
    ],
)
def test_prompt_settings_must_fit_the_server(server, prompt, words):
    values = {"engine": "server", "server": {"base_url": "http://x", "model": "m", **server}, "prompt": prompt}
    with pytest.raises(UserError, match=words):
        validate(SampleStage, {"name": "s", "kind": "sample", "data": {"source": "countdown"}, **values}, "recipe")


def test_a_filter_without_arguments_may_stand_as_its_name():
    stage = SampleStage(name="s", kind="sample", data={"source": "countdown"}, filters=["correct", {"name": "length"}])
    assert [cfg.name for cfg in stage.filters] == ["correct", "length"]
    assert SampleStage.model_validate(stage.model_dump(mode="json")) == stage


PAGE = (Path(__file__).parent.parent / "docs" / "sampling.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("block", re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
def test_recipe_lines_of_the_page_are_valid(block):
    values = yaml.safe_load(block)
    cfg = validate(STAGE_KINDS[values["kind"]], values, "docs/sampling.md")
    if cfg.kind == "sample":
        rewards = [Reward(reward.name, 1.0, len) for reward in cfg.rewards]
        sample.try_steps(cfg, rewards)


def test_every_filter_and_refinement_is_on_the_page():
    assert [name for name in [*FILTERS, *STEPS] if f"| `{name}` |" not in PAGE] == []


def test_the_command_writes_traces(serve):
    server = serve(right)
    arguments = ["sample", "--server", server.url, "--model", "stub", "--data", "sums.jsonl", "--num-generations", "2"]
    chosen = ["--filter", "correct", "--filter", "well_formed", "--num-best", "1", "--out", "out/traces.jsonl"]
    result = CliRunner().invoke(app, [*arguments, *chosen], catch_exceptions=False)
    assert result.stdout == "out/traces.jsonl\n"
    assert [trace["reward"] for trace in traces_of("out")] == [1.0] * 4
    assert [path.name for path in Path("out").iterdir()] == ["traces.jsonl"]
    with pytest.raises(UserError, match=r"want a file that ends in \.jsonl"):
        CliRunner().invoke(app, [*arguments, "--out", "traces.csv"], catch_exceptions=False)


@pytest.fixture
def failed(serve):
    """A server that answers again, and a command that had one of four answers to go when it failed."""
    left = [3]
    server = serve(right_while(left))
    command = ["sample", "--server", server.url, "--model", "stub", "--data", "sums.jsonl", "--num-generations", "1"]
    command += ["--out", "out/traces.jsonl"]
    with pytest.raises(UserError, match="what was answered is kept: run again"):
        CliRunner().invoke(app, command, catch_exceptions=False)
    assert not Path("out/traces.jsonl").exists()
    Kept.of.cache_clear()  # as in another process
    left[0] = 100
    server.asked.clear()
    return server, command


@pytest.mark.parametrize("redo_from", [[], ["cold"]])
def test_a_run_goes_on_with_a_stage_whose_server_failed_before_anything_but_replies_was_there(serve, redo_from):
    left = [3]
    server = serve(right_while(left))
    stage = {"name": "cold", "kind": "sample", **from_server(server, server={"concurrency": 1})}
    Path("chain.yaml").write_text(yaml.safe_dump({"name": "chain", "stages": [stage]}))
    with pytest.raises(UserError, match="what was answered is kept: run again"):
        pipeline.run(load_recipe(Path("chain.yaml")), Path("runs"), Console(quiet=True), in_process=True)
    assert {path.name for path in Path("runs/cold").iterdir()} == {"config.yaml", "error.txt", "progress.json", "replies"}
    Kept.of.cache_clear()  # as in another process
    left[0] = 100
    server.asked.clear()
    pipeline.run(load_recipe(Path("chain.yaml")), Path("runs"), Console(quiet=True), redo_from, in_process=True)
    assert len(server.asked) == (4 if redo_from else 1)
    assert len(traces_of("runs/cold")) == 4


def test_the_command_does_not_go_on_with_answers_to_other_data(failed):
    server, command = failed
    Path("sums.jsonl").write_text("".join(reversed(Path("sums.jsonl").read_text().splitlines(keepends=True))))
    CliRunner().invoke(app, command, catch_exceptions=False)
    assert len(server.asked) == 4


def test_the_command_goes_on_with_what_was_answered_before_it_failed(failed):
    server, command = failed
    CliRunner().invoke(app, command, catch_exceptions=False)
    assert len(server.asked) == 1  # of four
    assert len(traces_of("out")) == 4
    assert [path.name for path in Path("out").iterdir()] == ["traces.jsonl"]
