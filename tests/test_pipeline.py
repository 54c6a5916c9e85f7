"""Whole runs of a toy recipe: what is written, what is skipped, and what a kill leaves behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet
import pytest
from rich.console import Console

from aha import pipeline
from aha.recipe import load_recipe
from aha.types import UserError

RECIPE = """
name: toy
defaults:
  model: {model}
  dtype: {dtype}
  max_completion_length: 12
  max_num_seqs: 6
  eval: {{data: [{{source: countdown, split: test, limit: 6}}]}}
stages:
  - {{name: base, kind: eval}}
  - name: zero
    kind: grpo
    data: {{source: countdown, split: train, limit: 8}}
    rewards: [{{name: "toy_rewards:short", weight: 1.0}}, {{name: format, weight: 0.1}}]
    num_generations: 4
    per_device_train_batch_size: 8
    beta: {beta}
    num_iterations: 2
    max_steps: {max_steps}
    learning_rate: 1.0e-3
    save_steps: 2
    save_rollouts_steps: 2
    eval: {{eval_steps: {eval_steps}}}
    sync_ref_model: {sync_ref_model}
    ref_model_sync_steps: 2
    dynamic_sampling_rounds: {dynamic_sampling_rounds}
  - name: more
    kind: sft
    model: "${{zero.model}}"
    data: {{source: writers, limit: 16}}
    max_steps: {max_steps}
    per_device_train_batch_size: 4
    optim: {optim}
    learning_rate: 1.0e-3
    save_steps: 2
  - {{name: after, kind: eval, model: "${{more.model}}"}}
"""
# A reward with spread, so that a model of random weights has something to learn; it can be told to wait.
REWARDS = """
import os, time
def short(prompts, completions, **columns):
    time.sleep(float(os.environ.get("TOY_SECONDS", 0)))
    return [len(set(text)) / 100 for text in completions]
"""


@pytest.fixture
def toy(model_folder, tmp_path, monkeypatch) -> Path:
    """A folder with the toy recipe in it, which is also the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy_rewards.py").write_text(REWARDS)
    write_recipe(tmp_path, model_folder)
    yield tmp_path
    sys.modules.pop("toy_rewards", None)


def write_recipe(folder: Path, model: Path, **changes: object) -> None:
    values = {"max_steps": 4, "beta": 0.0, "dtype": "float32", "optim": "adamw_torch"}
    values |= {"sync_ref_model": "false", "dynamic_sampling_rounds": 0, "eval_steps": 2, **changes}
    (folder / "toy.yaml").write_text(RECIPE.format(model=model, **values))


def run(folder: Path, out: str = "run", redo_from: str | None = None, overrides: list[str] | None = None) -> str:
    console = Console(file=(folder / "console.txt").open("w"), width=80)
    pipeline.run(load_recipe(folder / "toy.yaml", overrides), folder / out, console, redo_from)
    console.file.close()
    return (folder / "console.txt").read_text()


def weights(folder: Path, out: str, stage: str) -> bytes:
    return (folder / out / stage / "model" / "model.safetensors").read_bytes()


def aha(folder: Path, out: str, **environment: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "aha", "run", "toy.yaml", "--out", out]
    log = (folder / f"{out}.log").open("a")
    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=log,
        stderr=log,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )


def kill_at(folder: Path, out: str, checkpoint: str) -> None:
    """Start a run and end it with SIGKILL as soon as `checkpoint` is there; rewards wait, so it is in mid-stage."""
    process = aha(folder, out, TOY_SECONDS="0.5")
    deadline = time.monotonic() + 600
    while not (folder / out / checkpoint).exists():
        assert process.poll() is None, (folder / f"{out}.log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_run_writes_the_files_of_every_stage(toy):
    run(toy)
    out = toy / "run"
    assert {path.name for path in out.iterdir()} == {"base", "zero", "more", "after", "summary.json"}
    assert {path.name for path in (out / "base").iterdir()} == {"config.yaml", "metrics.jsonl", "rollouts", "stage.json"}
    assert {path.name for path in (out / "zero").iterdir()} == {
        "checkpoints",
        "config.yaml",
        "metrics.jsonl",
        "model",
        "rollouts",
        "stage.json",
    }
    rollouts = {path.name for path in (out / "zero" / "rollouts").iterdir()}
    assert rollouts == {"step-000002.parquet", "step-000004.parquet", "eval.parquet"}
    summary = json.loads((out / "summary.json").read_text())
    assert [stage["name"] for stage in summary["stages"]] == ["base", "zero", "more", "after"]
    measure = summary["stages"][1]["metrics"]["countdown/pass@1"]
    assert measure.keys() == {"value", "low", "high", "n"}
    assert measure["n"] == 6


def test_rollouts_hold_every_completion_with_its_scores(toy):
    run(toy)
    rows = pyarrow.parquet.read_table(toy / "run" / "zero" / "rollouts" / "step-000002.parquet").to_pylist()
    assert len(rows) == 8
    assert {row["sample"] for row in rows} == {0, 1, 2, 3}
    for row in rows:
        assert row["completion"].startswith("<think>")
        assert row["reward"] == pytest.approx(row["rewards/toy_rewards:short"] + 0.1 * row["rewards/format"])
        assert row["step"] == 2
        assert row["kind"] == "countdown"


def test_metrics_have_one_line_per_generation_and_the_names_of_trl(toy):
    run(toy)
    lines = [json.loads(line) for line in (toy / "run" / "zero" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "reward" in line] == [2, 4]
    expected = {"reward", "reward_std", "frac_reward_zero_std", "completions/mean_length", "entropy", "grad_norm"}
    expected |= {"clip_ratio/region_mean", "learning_rate", "step_time", "rewards/format/mean", "memory/peak_mb"}
    assert expected <= lines[0].keys()
    assert "eval/countdown/pass@1" in lines[-1]


def test_done_stages_are_skipped(toy):
    run(toy)
    before = weights(toy, "run", "zero")
    stamp = (toy / "run" / "zero" / "stage.json").stat().st_mtime_ns
    console = run(toy)
    assert [f"{name}: done, skipped" in console for name in ("base", "zero", "more", "after")] == [True] * 4
    assert (toy / "run" / "zero" / "stage.json").stat().st_mtime_ns == stamp
    assert weights(toy, "run", "zero") == before


def test_another_configuration_is_refused_with_the_lines_that_differ_and_the_flag_that_redoes(toy):
    run(toy)
    with pytest.raises(UserError, match=r"- temperature: 1\.0.*\+ temperature: 0\.9.*--from zero"):
        run(toy, overrides=["zero.temperature=0.9"])
    console = run(toy, overrides=["zero.temperature=0.9"], redo_from="zero")
    assert "base: done, skipped" in console
    assert "zero: grpo, 4 steps" in console
    assert "more: sft, 4 steps" in console


def test_a_changed_input_is_refused(toy, model_folder):
    shutil.copytree(model_folder, toy / "model")
    write_recipe(toy, toy / "model")
    run(toy)
    settings = toy / "model" / "generation_config.json"
    settings.write_text(settings.read_text() + "\n")
    with pytest.raises(UserError, match=r"its inputs .* have changed"):
        run(toy)


@pytest.mark.parametrize(
    "settings",
    [{"beta": 0.04, "sync_ref_model": "true", "dynamic_sampling_rounds": 1}, {"dtype": "bfloat16", "optim": "muon"}],
    ids=["float32, reference that moves", "bfloat16, Muon"],
)
def test_a_killed_run_resumes_to_the_same_bits(toy, model_folder, settings):
    write_recipe(toy, model_folder, max_steps=6, **settings)
    unbroken = aha(toy, "unbroken")
    assert unbroken.wait(timeout=600) == 0, (toy / "unbroken.log").read_text()

    kill_at(toy, "killed", "zero/checkpoints/step-000002")
    kill_at(toy, "killed", "more/checkpoints/step-000002")
    assert not (toy / "killed" / "summary.json").read_text().count('"after"')
    assert aha(toy, "killed").wait(timeout=600) == 0, (toy / "killed.log").read_text()

    assert "resumed at step" in (toy / "killed.log").read_text()
    for stage in ("zero", "more"):
        assert weights(toy, "killed", stage) == weights(toy, "unbroken", stage)
    ends = [json.loads((toy / out / "summary.json").read_text())["stages"][-1]["metrics"] for out in ("killed", "unbroken")]
    assert ends[0] == ends[1]
    logs = [
        [json.loads(line)["step"] for line in (toy / out / "zero" / "metrics.jsonl").read_text().splitlines()]
        for out in ("killed", "unbroken")
    ]
    assert logs[0] == logs[1]


def test_ctrl_c_is_one_line_and_the_same_command_goes_on(toy, model_folder):
    write_recipe(toy, model_folder, max_steps=6)
    process = aha(toy, "run", TOY_SECONDS="0.5")
    deadline = time.monotonic() + 600
    while not (toy / "run" / "zero" / "checkpoints" / "step-000002").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=600) == 130
    last = (toy / "run.log").read_text().splitlines()[-1]
    assert last == "aha: stopped; `aha run` with the same arguments goes on from the last checkpoint"
    assert aha(toy, "run").wait(timeout=600) == 0
    assert "resumed at step 2" in (toy / "run.log").read_text()


def test_a_reward_of_the_user_that_has_changed_is_refused(toy):
    run(toy)
    path = toy / "toy_rewards.py"
    path.write_text(path.read_text() + "# another thought\n")
    with pytest.raises(UserError, match=r"its inputs .* have changed"):
        run(toy)


FULL_DISK = """
import resource, sys
from aha.cli import main
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # what a write beyond it meets is what a full disk gives
main()
"""


def test_a_full_disk_is_one_line_and_the_last_checkpoint_survives(toy, model_folder):
    write_recipe(toy, model_folder, max_steps=6, eval_steps=0)
    kill_at(toy, "run", "zero/checkpoints/step-000002")
    saved = toy / "run" / "zero" / "checkpoints" / "step-000002"
    limit = max(path.stat().st_size for path in saved.iterdir()) - 1  # the next checkpoint does not fit
    command = [sys.executable, "-c", FULL_DISK, str(limit), "run", "toy.yaml", "--out", "run"]
    result = subprocess.run(command, cwd=toy, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 2, result.stderr
    assert "disk full while saving" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert [path.name for path in saved.parent.iterdir()] == ["step-000002"]
    assert aha(toy, "run").wait(timeout=600) == 0, (toy / "run.log").read_text()
    assert "zero: grpo, 6 steps, 8 prompts, resumed at step 2" in (toy / "run.log").read_text()
