"""`aha status`: what the files of a run and its lock say, whoever asks."""

import io
import json
import os
import shutil
import time

import pytest
from rich.cells import cell_len
from rich.console import Console
from toy_chain import STAGES
from typer.testing import CliRunner

from aha.cli import app
from aha.lock import RunLock
from aha.rundir import RunDir
from aha.status import REFRESH_SECONDS, newest_run, read_status, show, view
from aha.types import UserError


@pytest.fixture
def run(finished, tmp_path) -> RunDir:
    """A finished run that may be changed."""
    shutil.copytree(finished, tmp_path / "run")
    return RunDir(tmp_path / "run")


def told(run: RunDir) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(view(read_status(run.path)))
    return console.file.getvalue()


def row(run: RunDir, name: str) -> str:
    return next(line for line in told(run).splitlines() if line.startswith(name))


def cut_off(run: RunDir, name: str, steps: int, total: int) -> None:
    """Leave a stage as it is after so many steps, each of ten seconds."""
    stage = run.stage(name)
    stage.manifest.unlink()
    lines = [{"step": step, "reward": step / 100, "accuracy": 0.25, "loss": 1.0} for step in range(1, steps + 1)]
    lines.append({"step": steps, "eval/countdown/pass@1": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9}})
    stage.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 99, "rew')
    stage.progress.write_text(json.dumps({"total": total, "first": 0}))
    began = time.time() - steps * 10
    os.utime(stage.config, (began, began))
    os.utime(stage.progress, (began, began))
    os.utime(stage.metrics, (began + steps * 10, began + steps * 10))


def test_a_finished_run(run):
    status = read_status(run.path)
    assert [(stage.name, stage.state) for stage in status.stages] == [(name, "done") for name in STAGES]
    assert not status.is_running
    assert status.is_done
    assert told(run).splitlines()[-1] == "done"


def test_a_running_stage_tells_its_step_its_metrics_and_what_is_left(run):
    cut_off(run, "b", steps=30, total=100)
    shutil.rmtree(run.stage("last").path)
    with RunLock(run.lock, "aha run chain.yaml") as lock:
        lock.enter_stage("b")
        stage = read_status(run.path).stages[1]
        assert (stage.name, stage.state) == ("b", "running")
        assert stage.detail == "step 30 of 100, reward 0.3, accuracy 0.25, 11:40 left"
        assert stage.seconds >= 300
        assert row(run, "b").split()[:3] == ["b", "sft", "running"]
        assert row(run, "last").split() == ["last", "eval", "waiting"]
        assert told(run).splitlines()[-1].startswith(f"process {os.getpid()} on ")
        assert max(map(cell_len, told(run).splitlines())) <= 80


def test_a_stage_that_did_its_last_step_evaluates_or_saves(run):
    cut_off(run, "b", steps=64, total=64)
    with RunLock(run.lock, "aha run chain.yaml") as lock:
        lock.enter_stage("b")
        assert read_status(run.path).stages[1].detail == "step 64 of 64, reward 0.64, accuracy 0.25, saving"
        config = run.stage("b").config
        config.write_text(config.read_text().replace("data: []", "data: [{source: countdown}]"))
        assert read_status(run.path).stages[1].detail.endswith(", accuracy 0.25, evaluating")


def test_a_stage_that_has_just_begun_is_running_too(run):
    shutil.rmtree(run.stage("last").path)
    with RunLock(run.lock, "aha run chain.yaml") as lock:
        lock.enter_stage("last")
        assert row(run, "last").split()[:3] == ["last", "eval", "running"]


def test_a_killed_run_says_where_it_stopped_and_what_goes_on(run):
    cut_off(run, "b", steps=30, total=100)
    shutil.rmtree(run.stage("last").path)
    assert row(run, "b").split() == ["b", "sft", "stopped", "at", "step", "30", "of", "100"]
    assert told(run).splitlines()[-1] == "not running; `aha run chain.yaml` goes on"
    assert not read_status(run.path).is_done


def test_a_failed_stage_says_why(run):
    cut_off(run, "b", steps=30, total=100)
    run.stage("b").error.write_text("rows.jsonl: row 2: no column 'prompt'\n")
    assert "failed: rows.jsonl: row 2: no column 'prompt'" in row(run, "b")


def test_a_stage_waits_for_people_and_for_nothing_else_that_goes_wrong(run):
    cut_off(run, "b", steps=30, total=100)
    stage = run.stage("b")
    stage.error.write_text(f"{stage.review}: 12 traces to look at\n")
    assert read_status(run.path).stages[1].state == "failed"  # the table could not be written
    stage.review.write_text("")
    assert read_status(run.path).stages[1].detail == f"for {stage.review}: 12 traces to look at"
    assert row(run, "b").split()[2:4] == ["waiting", "for"]
    stage.error.write_text("no answer from the judge\n")
    assert read_status(run.path).stages[1].state == "failed"


def test_a_run_without_its_recipe_is_read_from_its_stages(run):
    run.recipe.unlink()
    assert {stage.name: stage.kind for stage in read_status(run.path).stages} == {
        "a": "sft",
        "b": "sft",
        "side": "sft",
        "last": "eval",
    }


def test_what_is_no_run_is_one_line(tmp_path):
    with pytest.raises(UserError, match="nowhere: no run is there, nor a folder"):
        read_status(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no run is there"):
        read_status(tmp_path)
    with pytest.raises(UserError, match="no run is there"):
        newest_run(tmp_path)


def test_the_newest_run_is_the_one_written_to_last(run, tmp_path):
    (tmp_path / "runs" / "no run").mkdir(parents=True)
    for name in ("old", "new"):
        shutil.copytree(run.path, tmp_path / "runs" / name)
    for path in (tmp_path / "runs" / "old").rglob("*"):
        os.utime(path, (1e9, 1e9))
    assert newest_run(tmp_path / "runs").name == "new"


def test_watching_ends_with_the_run(run):
    console = Console(file=io.StringIO(), width=80)
    show(run.path, console, watch=True)
    assert "last   eval" in console.file.getvalue()


def test_watching_shows_what_changes_as_long_as_it_runs(run, monkeypatch):
    cut_off(run, "b", steps=30, total=100)
    finished, waits = run.stage("a").manifest.read_text(), []
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    lock = RunLock(run.lock, "aha run chain.yaml").__enter__()
    lock.enter_stage("b")

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 1:
            run.stage("b").metrics.write_text(json.dumps({"step": 42, "loss": 1.0}) + "\n")
        else:
            run.stage("b").manifest.write_text(finished)
            lock.__exit__(None, None, None)

    monkeypatch.setattr(time, "sleep", sleep)
    show(run.path, console, watch=True)
    assert waits == [REFRESH_SECONDS] * 2
    told = console.file.getvalue()
    assert told.index("step 30 of 100") < told.index("step 42 of 100")
    assert "running" not in told[told.index("step 42 of 100") :]


def test_other_folders_in_a_folder_of_runs_are_no_stages(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "foreign" / "conf").mkdir(parents=True)
    (tmp_path / "runs" / "foreign" / "conf" / "config.yaml").write_text("a: 1\n")
    with pytest.raises(UserError, match="no run is there"):
        newest_run()
    shutil.copytree(run.path, tmp_path / "runs" / "mine")
    assert newest_run().name == "mine"


def test_the_command_takes_the_newest_run_where_none_is_named(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    shutil.copytree(run.path, tmp_path / "runs" / "mine")
    result = CliRunner().invoke(app, ["status"], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.output.startswith("runs/mine (chain)\n")
