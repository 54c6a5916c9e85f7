"""`aha plan`: what would happen and why, and no cost that was not measured or counted."""

import io
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console
from toy_chain import STAGES, load_chain, run_chain, write_chain
from typer.testing import CliRunner

from aha.cli import app
from aha.graph import graph
from aha.plan import Step, obstacles, plan, print_plan, told_bytes, whole_seconds
from aha.rundir import RunDir, StageDir


@pytest.fixture(scope="module")
def finished(model_folder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    write_chain(folder, model_folder)
    run_chain(folder)
    return folder


@pytest.fixture
def done(finished) -> Path:
    """A finished chain that may be changed: its run is put back afterwards."""
    kept = finished / "kept"
    shutil.copytree(finished / "run", kept)
    yield finished
    shutil.rmtree(finished / "run")
    kept.rename(finished / "run")


def steps(folder: Path, *overrides: str, out: str = "run") -> dict[str, Step]:
    return {step.stage: step for step in plan(load_chain(folder, *overrides), folder / out)}


def told(folder: Path, *overrides: str, out: str = "run") -> str:
    console = Console(file=io.StringIO(), width=80)
    print_plan(load_chain(folder, *overrides), folder / out, console)
    return console.file.getvalue()


def words(step: Step) -> str:
    return f"{step.action}: {step.why}"


def test_a_finished_run_has_nothing_to_do(finished):
    found = steps(finished)
    assert {words(step) for step in found.values()} == {"skip: done"}
    assert {(step.seconds, step.disk) for step in found.values()} == {(0.0, 0)}
    assert "everything is done" in told(finished)


def test_planning_writes_nothing(finished):
    steps(finished, out="elsewhere")
    assert not (finished / "elsewhere").exists()


def test_a_new_run_costs_nobody_knows_how_long(finished):
    found = steps(finished, out="other/run")
    assert [words(step) for step in found.values()] == ["run: "] * 4
    assert [step.seconds for step in found.values()] == [None] * 4


def test_a_new_run_takes_as_long_as_the_same_stages_of_the_run_beside_it(finished):
    taken = json.loads((finished / "run" / "a" / "stage.json").read_text())["seconds"]
    found = steps(finished, "seed=7", "side.learning_rate=2e-3", out="elsewhere")
    assert words(found["a"]) == f"run: time as in {finished}/run"
    assert found["a"].seconds >= taken > 0
    assert (words(found["side"]), found["side"].seconds) == ("run: ", None)
    assert words(found["last"]) == f"run: time as in {finished}/run"


def test_a_changed_key_redoes_the_stage_and_what_needs_it_in_the_time_that_they_took(finished):
    found = steps(finished, "b.learning_rate=2e-3")
    assert [words(found[name]) for name in STAGES] == [
        "skip: done",
        "redo: learning_rate was 0.001 and is 0.002",
        "skip: done",
        "redo: b changed",
    ]
    taken = json.loads((finished / "run" / "b" / "stage.json").read_text())["seconds"]
    assert found["b"].seconds == pytest.approx(taken, abs=0.06)  # which is rounded to tenths
    assert found["b"].seconds > 0
    assert obstacles(load_chain(finished, "b.learning_rate=2e-3"), finished / "run") == [
        "the run stops before it begins: add --from b"
    ]


def cut_off(folder: Path) -> None:
    """As if stage b had been killed while it trained."""
    (folder / "run" / "b" / "stage.json").unlink()
    shutil.rmtree(folder / "run" / "b" / "model")


def test_a_stage_that_was_cut_off_resumes_at_its_checkpoint(done):
    cut_off(done)
    found = steps(done)
    assert words(found["b"]) == "resume: at step 1"
    assert words(found["last"]) == "skip: done"


def test_a_stage_that_was_cut_off_while_it_was_measured_is_not_trained_again(done):
    (done / "run" / "b" / "stage.json").unlink()
    assert words(steps(done)["b"]).startswith("resume: after its last step, to measure it")


def timed(folder: Path, step_time: float, by_clock: float, first: int = 0) -> None:
    """Let every step of stage b have taken `step_time` seconds, and `by_clock` from its end to that of the next."""
    stage = StageDir(folder / "run" / "b")
    rows = [{"step": step, "step_time": step_time} for step in (1, 2)]
    stage.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    stage.progress.write_text(json.dumps({"total": 2, "first": first}))
    for path, when in ((stage.progress, 1e9), (stage.metrics, 1e9 + by_clock * (2 - first))):
        os.utime(path, (when, when))


def test_what_is_left_of_a_stage_takes_as_long_as_what_is_done(done):
    cut_off(done)
    timed(done, step_time=10.0, by_clock=12.0)  # evaluations and checkpoints take their time too
    assert steps(done)["b"].seconds == pytest.approx(12.0)  # one of two steps is left
    timed(done, step_time=10.0, by_clock=0.0)  # as in a copy of the run
    assert steps(done)["b"].seconds == pytest.approx(10.0)
    shutil.rmtree(done / "run" / "b" / "checkpoints")
    assert steps(done)["b"].seconds == pytest.approx(20.0)


def test_to_redo_a_stage_that_had_been_cut_off_takes_all_of_its_steps(done):
    path = done / "run" / "b" / "stage.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "seconds": 50.0, "resumed_at_step": 1}))
    timed(done, step_time=10.0, by_clock=12.0, first=1)
    assert steps(done, "b.learning_rate=2e-3")["b"].seconds == pytest.approx(100.0)
    assert steps(done, "b.max_steps=6")["b"].seconds == pytest.approx(300.0)
    timed(done, step_time=90.0, by_clock=0.0, first=1)  # its last process found most of the work done
    assert steps(done, "b.learning_rate=2e-3")["b"].seconds == pytest.approx(180.0)


def test_a_change_of_size_makes_the_time_unknown(finished):
    assert steps(finished, "b.max_completion_length=9999")["b"].seconds is None
    assert steps(finished, "b.data.limit=5")["b"].seconds is None
    assert steps(finished, "b.seed=9")["b"].seconds > 0


def test_what_is_left_to_measure_takes_not_as_long_as_the_whole_stage_beside_it(done):
    shutil.copytree(done / "run", done / "beside")
    (done / "run" / "b" / "stage.json").unlink()
    found = steps(done)["b"]
    assert (words(found), found.seconds) == ("resume: after its last step, to measure it", None)


def test_the_last_step_of_sampling_is_none_of_those_that_are_timed(done):
    cut_off(done)
    timed(done, step_time=10.0, by_clock=10.0)
    (done / "run" / "b" / "progress.json").write_text(json.dumps({"total": 3, "first": 0}))
    path = done / "run" / "b" / "config.yaml"
    assert whole_seconds(StageDir(path.parent), None) == pytest.approx(30.0)
    path.write_text(re.sub("^kind: .*$", "kind: sample", path.read_text(), flags=re.MULTILINE))
    assert whole_seconds(StageDir(path.parent), None) == pytest.approx(20.0)


def test_to_redo_a_stage_that_was_never_finished_takes_its_steps_as_long_as_those_that_it_did(done):
    cut_off(done)
    timed(done, step_time=10.0, by_clock=12.0)
    found = steps(done, "b.learning_rate=2e-3")["b"]
    assert (found.action, found.seconds) == ("redo", pytest.approx(24.0))


def test_what_stops_the_run_before_it_begins_stands_in_the_way(finished):
    [found] = obstacles(load_chain(finished, "side.model=tiny-bse"), finished / "elsewhere")
    assert found == (
        "the run stops before it begins: side: tiny-bse is no model: there is no such folder; did you mean tiny-base?"
    )


def test_a_stage_without_a_checkpoint_begins_again(done):
    cut_off(done)
    shutil.rmtree(done / "run" / "b" / "checkpoints")
    assert words(steps(done)["b"]) == "run: from the start: no checkpoint yet"


def test_a_damaged_output_stands_in_the_way_only_of_a_stage_that_needs_it(done):
    weights = done / "run" / "a" / "model" / "model.safetensors"
    os.truncate(weights, 1000)
    assert obstacles(load_chain(done), done / "run") == []
    shutil.rmtree(done / "run" / "side")
    [found] = obstacles(load_chain(done), done / "run")
    assert found.startswith(f"{weights} is damaged: it has 1,000 bytes and had ")
    assert found.endswith("; side needs it: add --from a")


def test_disk_is_counted_from_the_weights(finished):
    node = graph(load_chain(finished), RunDir(finished / "elsewhere"))["a"]
    weights = (Path(node.cfg.model) / "model.safetensors").stat().st_size
    disk = steps(finished, out="elsewhere")["a"].disk
    # The toy is float32: model, one checkpoint of weights and two moments, as large again each; headers are not counted.
    assert disk == pytest.approx(weights * 4, rel=0.03)
    assert steps(finished, "a.save_dtype=bfloat16", out="elsewhere")["a"].disk == pytest.approx(weights * 3.5, rel=0.03)
    assert steps(finished, "a.save_steps=0", out="elsewhere")["a"].disk == pytest.approx(weights, rel=0.03)
    many = steps(finished, "a.max_steps=9", "a.save_total_limit=3", out="elsewhere")["a"].disk
    assert many == pytest.approx(weights * (1 + 3 * 4), rel=0.03)  # three are kept while a fourth is written
    best = ["a.load_best_model_at_end=true", "a.eval_steps=1", "a.eval_data={source: writers, limit: 2}"]
    kept = steps(finished, *best, out="elsewhere")["a"].disk
    assert kept == pytest.approx(weights * (1 + 3 + 2), rel=0.03)  # the best so far, and the next best while it is written
    epochs = steps(finished, "a.max_steps=-1", out="elsewhere")["a"].disk  # two steps of four of the eight rows
    assert epochs == pytest.approx(weights * 4, rel=0.03)
    endless = steps(finished, "b.max_steps=-1", "a.max_steps=-1", "a.data.limit=null", out="elsewhere")
    assert [endless[name].disk for name in "ab"] == [pytest.approx(weights * (1 + 3 * 3), rel=0.03)] * 2
    # A later stage is as large as what it begins from, which need not be there yet.
    assert steps(finished, out="elsewhere")["side"].disk == disk
    actual = sum(path.stat().st_size for path in (finished / "run" / "a").rglob("*.safetensors"))
    assert actual <= disk * 1.03


def test_what_is_not_known_is_called_unknown(finished):
    rows = f"last.eval.data.0.source={finished / 'rows.jsonl'}"
    found = steps(finished, "a.model=org/a-model-that-is-not-here", rows, "last.eval.data.0.limit=null", out="elsewhere")
    assert [found[name].disk for name in STAGES] == [None] * 4
    text = told(finished, "a.model=org/a-model-that-is-not-here", out="other/run")
    assert text.count("unknown") >= 8


def test_the_table_fits_eighty_columns_and_ends_with_sums(finished):
    text = told(finished, "b.learning_rate=2e-3", "side.optim=muon", "side.data.limit=4", "side.data.seed=5")
    lines = text.splitlines()
    assert max(map(cell_len, lines)) <= 80
    assert lines[0].split() == ["stage", "kind", "what", "would", "happen", "time", "disk"]
    assert re.search(r"run: time about \d+:\d\d", text.replace("\n", ""))
    assert " free" in text
    assert "add --from b --from side" in text.replace("\n", " ")


def test_the_command_prints_the_table(finished):
    arguments = ["plan", str(finished / "chain.yaml"), "b.learning_rate=2e-3", "--out", str(finished / "run")]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "redo: learning_rate was 0.001 and is 0.002" in result.output


@pytest.mark.parametrize(
    ("size", "words"), [(0, "< 1 MB"), (5.83e6, "5.8 MB"), (46e6, "46 MB"), (1.25e9, "1.2 GB"), (3e12, "3.0 TB")]
)
def test_sizes_in_words(size, words):
    assert told_bytes(size) == words
