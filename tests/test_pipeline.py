"""Whole runs of a toy recipe: what is written, what is skipped or redone, and what a kill leaves behind."""

import io
import json
import os
import pty
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet
import pytest
from rich.cells import cell_len
from rich.console import Console
from toy_chain import STAGES as CHAIN
from toy_chain import run_chain, skipped, write_chain

from aha import pipeline, preflight
from aha.lock import RunLock, is_held
from aha.recipe import load_recipe
from aha.report import write_report
from aha.rundir import StageDir
from aha.stage import learned_and_measured
from aha.status import read_status
from aha.stop import WAITS
from aha.types import UserError

HEAD = """
name: toy
defaults:
  model: {model}
  dtype: {dtype}
  max_completion_length: 12
  max_num_seqs: 6
  eval: {{data: [{{source: countdown, split: test, limit: 6}}]}}
stages:
"""
STAGES = {
    "base": """
  - {{name: base, kind: eval}}
""",
    "zero": """
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
""",
    "cold": """
  - name: cold
    kind: sample
    model: "${{zero.model}}"
    data: {{source: countdown, split: cold, limit: 6}}
    num_generations: 2
    prompts_per_part: 2
    rewards: [{{name: "toy_rewards:short"}}]
    filters: []
""",
    "more": """
  - name: more
    kind: sft
    model: "${{zero.model}}"
    data: {rows}
    max_steps: {max_steps}
    per_device_train_batch_size: 4
    optim: {optim}
    learning_rate: 1.0e-3
    save_steps: 2
""",
    "rm": """
  - name: rm
    kind: reward_model
    model: "${{more.model}}"
    data: {{source: preference, limit: 8}}
    max_steps: {max_steps}
    per_device_train_batch_size: 4
    save_steps: 2
    eval: {{data: [{{source: preference, split: test, limit: 4}}]}}
""",
    "after": """
  - {{name: after, kind: eval, model: "${{more.model}}"}}
""",
}
# A reward with spread, so that a model of random weights has something to learn; it can be told to wait, or to die.
REWARDS = """
import os, signal, time
def short(prompts, completions, **columns):
    time.sleep(float(os.environ.get("TOY_SECONDS", 0)))
    if "TOY_SIGNAL" in os.environ:
        os.kill(os.getpid(), int(os.environ["TOY_SIGNAL"]))
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


@pytest.fixture(scope="module")
def finished(model_folder, tmp_path_factory) -> Path:
    """The folder of a run of all stages that tests only look at; `console.txt` is what was printed."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "toy_rewards.py").write_text(REWARDS)
    write_recipe(folder, model_folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run(folder)
    sys.modules.pop("toy_rewards", None)
    return folder


def write_recipe(folder: Path, model: Path, stages: str = "base zero more after", **changes: object) -> None:
    values = {"max_steps": 4, "beta": 0.0, "dtype": "float32", "optim": "adamw_torch", "rows": "{source: writers, limit: 16}"}
    values |= {"sync_ref_model": "false", "dynamic_sampling_rounds": 0, "eval_steps": 2, **changes}
    text = HEAD + "".join(STAGES[name] for name in stages.split())
    (folder / "toy.yaml").write_text(text.format(model=model, **values))


def run(folder: Path, out: str = "run", redo_from: Sequence[str] = (), overrides: list[str] | None = None) -> str:
    """Run the recipe in this process; returns what the console said."""
    console = Console(file=(folder / "console.txt").open("w"), width=80)
    pipeline.run(load_recipe(folder / "toy.yaml", overrides), folder / out, console, redo_from)
    console.file.close()
    return (folder / "console.txt").read_text()


def weights(folder: Path, out: str, stage: str) -> bytes:
    return (folder / out / stage / "model" / "model.safetensors").read_bytes()


def aha(folder: Path, out: str, *arguments: str, **environment: str) -> subprocess.Popen:
    """Start `aha run`, where every stage is a process of its own."""
    command = [sys.executable, "-m", "aha", "run", "toy.yaml", "--out", out, *arguments]
    log = (folder / f"{out}.log").open("a")
    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=log,
        stderr=log,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )


def start_until(folder: Path, out: str, checkpoint: str) -> subprocess.Popen:
    """Start a run that is in mid-stage: `checkpoint` is there, and the next rewards wait."""
    process = aha(folder, out, TOY_SECONDS="0.5")
    deadline = time.monotonic() + 600
    while not (folder / out / checkpoint).exists():
        assert process.poll() is None, (folder / f"{out}.log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return process


def kill_at(folder: Path, out: str, checkpoint: str) -> None:
    """End a run with SIGKILL as soon as `checkpoint` is there. Only the run itself: its stage must notice by itself."""
    process = start_until(folder, out, checkpoint)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_run_writes_the_files_of_every_stage(finished):
    out = finished / "run"
    files = {".lock", "recipe.yaml", "summary.json", "report.html"}
    assert {path.name for path in out.iterdir()} == files | {"base", "zero", "more", "after"}
    assert {path.name for path in (out / "base").iterdir()} == {"config.yaml", "metrics.jsonl", "rollouts", "stage.json"}
    assert {path.name for path in (out / "zero").iterdir()} == {
        "checkpoints",
        "config.yaml",
        "metrics.jsonl",
        "model",
        "progress.json",
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


def test_rollouts_hold_every_completion_with_its_scores(finished):
    rows = pyarrow.parquet.read_table(finished / "run" / "zero" / "rollouts" / "step-000002.parquet").to_pylist()
    assert len(rows) == 8
    assert {row["sample"] for row in rows} == {0, 1, 2, 3}
    for row in rows:
        assert row["completion"].startswith("<think>")
        assert row["reward"] == pytest.approx(row["rewards/toy_rewards:short"] + 0.1 * row["rewards/format"])
        assert row["step"] == 2
        assert row["kind"] == "countdown"


def test_metrics_have_one_line_per_generation_and_the_names_of_trl(finished):
    lines = [json.loads(line) for line in (finished / "run" / "zero" / "metrics.jsonl").read_text().splitlines()]
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
    with pytest.raises(UserError, match=r"temperature was 1\.0 and is 0\.9\. Run with --from zero "):
        run(toy, overrides=["zero.temperature=0.9"])
    console = run(toy, overrides=["zero.temperature=0.9"], redo_from=["zero"])
    assert "base: done, skipped" in console
    assert "zero: grpo, 4 steps" in console
    assert "more: sft, 4 steps" in console


def test_a_changed_input_is_refused(toy, model_folder):
    shutil.copytree(model_folder, toy / "model")
    write_recipe(toy, toy / "model")
    run(toy)
    settings = toy / "model" / "generation_config.json"
    settings.write_text(settings.read_text() + "\n")
    with pytest.raises(UserError, match=r"the content of .*model has changed"):
        run(toy)


def files_of(folder: Path, out: str) -> dict[str, bytes]:
    """Everything that later stages and readers go by: weights, traces, and metrics but for times."""
    run = folder / out
    kept = {str(path.relative_to(run)): path.read_bytes() for path in run.glob("*/model/model.safetensors")}
    return kept | {str(path.relative_to(run)): path.read_bytes() for path in run.glob("*/traces.jsonl")}


def metrics_of(folder: Path, out: str) -> dict[str, dict]:
    return {stage["name"]: stage["metrics"] for stage in json.loads((folder / out / "summary.json").read_text())["stages"]}


def test_a_killed_run_resumes_to_the_same_bits(toy, model_folder):
    write_recipe(toy, model_folder, "zero more", max_steps=6, beta=0.04, sync_ref_model="true", dynamic_sampling_rounds=1)
    run(toy, "unbroken")  # in this process, so that both ways of running a stage are compared too

    kill_at(toy, "killed", "zero/checkpoints/step-000002")
    kill_at(toy, "killed", "more/checkpoints/step-000002")
    assert '"more"' not in (toy / "killed" / "summary.json").read_text()
    assert aha(toy, "killed").wait(timeout=600) == 0, (toy / "killed.log").read_text()

    assert (toy / "killed.log").read_text().count("resumed at step") == 2
    assert files_of(toy, "killed") == files_of(toy, "unbroken")
    assert metrics_of(toy, "killed") == metrics_of(toy, "unbroken")
    logs = [
        [json.loads(line)["step"] for line in (toy / out / "zero" / "metrics.jsonl").read_text().splitlines()]
        for out in ("killed", "unbroken")
    ]
    assert logs[0] == logs[1]


KILLED_AT = [
    *("base/config.yaml", "base/rollouts"),
    *("zero/config.yaml", "zero/checkpoints/step-000002", "zero/checkpoints/step-000006", "zero/model"),
    *("cold/config.yaml", "cold/rollouts/step-000001.parquet", "cold/rollouts/step-000003.parquet"),
    *("more/config.yaml", "more/checkpoints/step-000002", "more/checkpoints/step-000008", "more/model"),
    *("rm/config.yaml", "rm/checkpoints/step-000002", "rm/checkpoints/step-000008", "rm/model"),
    "after/config.yaml",
]


# Room between two files that a stage writes, so that a kill after the first comes before the second.
SLOW_DISK = """
import os, sys, time
fsync = os.fsync
def slow(descriptor):
    time.sleep(float(os.environ.get("TOY_DISK_SECONDS", 0)) if "aha.stage" in sys.orig_argv else 0)
    fsync(descriptor)
os.fsync = slow
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{"beta": 0.04, "sync_ref_model": "true"}, {"dtype": "bfloat16", "optim": "muon"}],
    ids=["float32, reference that moves", "bfloat16, Muon"],
)
def test_a_run_killed_anywhere_in_every_kind_of_stage_ends_in_the_same_bits(toy, model_folder, settings):
    write_recipe(toy, model_folder, "base zero cold more rm after", max_steps=12, rows='"${cold.traces}"', **settings)
    assert aha(toy, "unbroken").wait(timeout=1200) == 0, (toy / "unbroken.log").read_text()
    (toy / "sitecustomize.py").write_text(SLOW_DISK)
    rng = random.Random(0)
    for point in KILLED_AT:
        process = aha(toy, "killed", PYTHONPATH=str(toy), TOY_DISK_SECONDS="0.5")
        while not (toy / "killed" / point).exists():
            assert process.poll() is None, (toy / "killed.log").read_text()
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        process.wait()
        while is_held(toy / "killed" / ".lock"):  # its stage must notice by itself
            time.sleep(0.01)
        assert not (toy / "killed" / point.partition("/")[0] / "stage.json").exists(), f"the kill at {point} came too late"
    assert aha(toy, "killed").wait(timeout=1200) == 0, (toy / "killed.log").read_text()
    resumed = re.findall(r"^(\w+): .*resumed at step", (toy / "killed.log").read_text(), re.MULTILINE)
    assert Counter(resumed) == {"zero": 3, "cold": 2, "more": 3, "rm": 3}  # after every kill but those at the beginning
    assert files_of(toy, "killed") == files_of(toy, "unbroken")
    assert metrics_of(toy, "killed") == metrics_of(toy, "unbroken")


def test_ctrl_c_is_one_line_and_the_command_in_it_goes_on(toy, model_folder):
    write_recipe(toy, model_folder, "zero", max_steps=6)
    process = start_until(toy, "run", "zero/checkpoints/step-000002")
    running = read_status(toy / "run")
    assert (running.is_running, running.holder.pid, running.stages[0].state) == (True, process.pid, "running")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=600) == 130
    lines = (toy / "run.log").read_text().splitlines()
    assert f"zero: {WAITS}" in lines
    assert lines[-1] == "aha: stopped; `aha run toy.yaml --out run` goes on from step 4 of zero"  # whose rewards were waiting
    assert "Traceback" not in (toy / "run.log").read_text()
    assert read_status(toy / "run").stages[0].state == "stopped"
    assert aha(toy, "run").wait(timeout=600) == 0
    assert "resumed at step 4" in (toy / "run.log").read_text()
    assert read_status(toy / "run").is_done


SLOW_START = """
import os, sys, time
if "aha.stage" in sys.orig_argv:
    with open("starting.tmp", "w") as file:
        file.write(str(os.getpid()))
    os.rename("starting.tmp", "starting")
    time.sleep(2)
"""


def test_ctrl_c_while_a_stage_is_still_starting_is_one_line_that_promises_no_checkpoint(toy, model_folder):
    write_recipe(toy, model_folder, "zero")
    (toy / "sitecustomize.py").write_text(SLOW_START)
    process = aha(toy, "run", PYTHONPATH=str(toy))
    while not (toy / "starting").exists():
        assert process.poll() is None, (toy / "run.log").read_text()
        time.sleep(0.005)
    for pid in (int((toy / "starting").read_text()), process.pid):  # as the terminal does
        os.kill(pid, signal.SIGINT)
    assert process.wait(timeout=600) == 130
    assert (toy / "run.log").read_text() == "aha: stopped; `aha run toy.yaml --out run` begins zero again\n"


def test_a_terminated_run_stops_like_one_with_ctrl_c(toy, model_folder):
    write_recipe(toy, model_folder, "zero", max_steps=6)
    process = start_until(toy, "run", "zero/checkpoints/step-000002")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=600) == 130
    assert (toy / "run.log").read_text().splitlines()[-1].startswith("aha: stopped; ")
    assert not is_held(toy / "run" / ".lock")


def test_a_run_whose_terminal_is_closed_stops_at_a_checkpoint(toy, model_folder):
    write_recipe(toy, model_folder, "zero", max_steps=60)  # so that some are left
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which these tests ignore when they run under nohup, and it with them
        os.execv(sys.executable, [sys.executable, "-m", "aha", "run", "toy.yaml", "--out", "run"])
    while not (toy / "run" / "zero" / "checkpoints" / "step-000002").exists():
        if select.select([terminal], [], [], 0.05)[0]:
            os.read(terminal, 4096)  # else it would wait for its reader
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    assert not is_held(toy / "run" / ".lock")
    [zero] = read_status(toy / "run").stages
    assert zero.state == "stopped", zero.detail
    assert aha(toy, "run").wait(timeout=600) == 0
    assert "resumed at step" in (toy / "run.log").read_text()


def test_a_stage_that_is_killed_is_one_line_that_says_so(toy, model_folder):
    write_recipe(toy, model_folder, "zero")
    assert aha(toy, "run", TOY_SIGNAL=str(int(signal.SIGKILL))).wait(timeout=600) == 128 + signal.SIGKILL
    [_, line] = (toy / "run.log").read_text().splitlines()
    assert line == (
        "aha: zero: its process was ended by signal 9, Killed (out of memory, perhaps); "
        "`aha run toy.yaml --out run` begins zero again"
    )
    [zero] = read_status(toy / "run").stages
    assert (zero.state, zero.detail) == ("failed", "its process was ended by signal 9, Killed (out of memory, perhaps)")


def test_a_run_in_use_is_refused(toy):
    with RunLock(toy / "run" / ".lock", "aha run other.yaml"), pytest.raises(UserError, match=f"process {os.getpid()}"):
        run(toy)
    assert [path.name for path in (toy / "run").iterdir()] == [".lock"]


@pytest.mark.parametrize("left", [0.5, 1], ids=["half a line", "a whole line"])
def test_an_evaluation_that_was_cut_off_is_written_once(toy, model_folder, left):
    write_recipe(toy, model_folder, "base")
    run(toy)
    stage = toy / "run" / "base"
    whole = (stage / "metrics.jsonl").read_text()
    (stage / "metrics.jsonl").write_text(whole[: int(len(whole) * left)])
    (stage / "stage.json").unlink()
    run(toy)
    assert (stage / "metrics.jsonl").read_text() == whole


def test_a_failed_stage_leaves_its_reason_until_it_runs_again(toy, model_folder):
    write_recipe(toy, model_folder, "base more")
    (toy / "toy.yaml").write_text((toy / "toy.yaml").read_text().replace('"${zero.model}"', str(model_folder)))
    (toy / "rows.jsonl").write_text('{"prompt": "1+1=", "completion": "2"}\n{"prompt": "1+1="}\n')
    with pytest.raises(UserError, match=r"rows\.jsonl: row 2"):
        run(toy, overrides=["more.data={source: rows.jsonl}"])
    assert "rows.jsonl: row 2" in (toy / "run" / "more" / "error.txt").read_text()
    run(toy)  # nothing was lost, so the changed key needs no flag
    assert not (toy / "run" / "more" / "error.txt").exists()


def test_a_stage_that_asks_people_waits_and_their_work_outlives_the_stage(toy, model_folder):
    write_recipe(toy, model_folder, "base cold")
    (toy / "toy.yaml").write_text((toy / "toy.yaml").read_text().replace('"${zero.model}"', str(model_folder)))
    review = toy / "run" / "cold" / "review.csv"
    with pytest.raises(UserError, match=r"review\.csv: \d+ traces to look at"):
        run(toy, overrides=["cold.review=true"])
    cold = read_status(toy / "run").stages[1]
    assert cold.state == "waiting"
    assert cold.detail.startswith(f"for {toy}/run/cold/review.csv: ")
    assert "waiting" in write_report(toy / "run").read_text()
    console = Console(file=io.StringIO(), width=80)
    pipeline.run(load_recipe(toy / "toy.yaml", ["cold.review=true"]), toy / "run", console, only="base")
    assert re.search(r"^cold +waiting ", console.file.getvalue(), re.MULTILINE)

    for work in ("one person's work", "another's"):
        review.write_text(work)
        with pytest.raises(UserError, match="traces to look at"):
            run(toy, overrides=["cold.review=true"], redo_from=["cold"])
    assert f"cold: its review is kept as {toy}/run/cold.review-1.csv" in (toy / "console.txt").read_text().replace("\n", "")
    kept = [(toy / "run" / name).read_text() for name in ("cold.review.csv", "cold.review-1.csv")]
    assert kept == ["one person's work", "another's"]


def test_the_recipe_in_the_run_directory_is_the_same_run(finished):
    assert load_recipe(finished / "run" / "recipe.yaml") == load_recipe(finished / "toy.yaml")


# Redo, in a chain a -> b -> last with a branch a -> side that stands behind b.


@pytest.fixture
def chain(tmp_path, model_folder) -> Path:
    write_chain(tmp_path, model_folder)
    run_chain(tmp_path)
    return tmp_path


def test_one_key_in_a_middle_stage_redoes_exactly_what_depends_on_it(chain):
    with pytest.raises(UserError, match=r"learning_rate was 0\.001 and is 0\.002\. Run with --from b to redo it"):
        run_chain(chain, "b.learning_rate=2e-3")
    side = weights(chain, "run", "side")
    assert skipped(run_chain(chain, "b.learning_rate=2e-3", redo_from=["b"])) == ["a", "side"]
    assert skipped(run_chain(chain, "b.learning_rate=2e-3")) == ["a", "b", "side", "last"]
    assert weights(chain, "run", "side") == side


def test_two_branches_can_be_redone_at_once(chain):
    overrides = ["b.learning_rate=2e-3", "side.learning_rate=2e-3"]
    with pytest.raises(UserError, match="--from b --from side to redo these"):
        run_chain(chain, *overrides)
    assert skipped(run_chain(chain, *overrides, redo_from=["b", "side"])) == ["a"]


def test_only_one_stage_runs_where_its_inputs_are_done(chain):
    for name in ("b", "side", "last"):
        shutil.rmtree(chain / "run" / name)
    with pytest.raises(UserError, match=r"last needs b, which is not done as the recipe has it; `aha run chain\.yaml`"):
        run_chain(chain, only="last")
    assert "side: sft, 2 steps" in run_chain(chain, only="side")
    assert not (chain / "run" / "b").exists()
    with pytest.raises(UserError, match="no stage 'c'; the recipe has a, b, side, last"):
        run_chain(chain, only="c")


def test_only_with_from_redoes_one_stage_and_what_needs_it_stays_where_it_comes_out_the_same(chain, monkeypatch):
    assert "b: sft, 2 steps" in run_chain(chain, only="b", redo_from=["b"])
    assert skipped(run_chain(chain)) == ["a", "b", "side", "last"]
    monkeypatch.setattr("aha.sft.learning_rate", lambda cfg, step, total: 0.01)
    run_chain(chain, only="b", redo_from=["b"])
    with pytest.raises(UserError, match=r"run/last holds .* \$\{b\.model\} was made again, .* Run with --from last to"):
        run_chain(chain)
    assert skipped(run_chain(chain, redo_from=["last"])) == ["a", "b", "side"]


def test_a_stage_that_comes_out_another_stops_the_run_before_what_was_made_of_it(chain, monkeypatch):
    shutil.rmtree(chain / "run" / "b")
    monkeypatch.setattr("aha.sft.learning_rate", lambda cfg, step, total: 0.01)
    with pytest.raises(UserError, match=r"run/last holds .* \$\{b\.model\} was made again"):
        run_chain(chain)
    assert (chain / "run" / "b" / "stage.json").exists()


def test_nothing_is_cleared_where_an_input_is_damaged(chain):
    truncate(chain / "run" / "a" / "model" / "model.safetensors")
    with pytest.raises(UserError, match=r"is damaged: .*; b needs it, and `aha run chain\.yaml --from a` makes it again"):
        run_chain(chain, redo_from=["b"])
    assert all((chain / "run" / name / "stage.json").exists() for name in CHAIN)


def test_a_stop_between_two_clearings_leaves_no_stage_without_what_it_was_made_of(chain, monkeypatch):
    clear, cleared = pipeline._clear, []

    def clear_one(stage: StageDir) -> None:
        if cleared:
            raise KeyboardInterrupt
        cleared.append(stage.path.name)
        clear(stage)

    monkeypatch.setattr(pipeline, "_clear", clear_one)
    with pytest.raises(KeyboardInterrupt):
        run_chain(chain, redo_from=["a"])
    assert cleared == ["last"]
    assert sorted(path.parent.name for path in chain.glob("run/*/stage.json")) == ["a", "b", "side"]


def test_what_a_kill_in_the_middle_of_clearing_left_is_swept_by_the_next_run(chain):
    for name in (".b.old", ".notes.old"):
        (chain / "run" / name / "model").mkdir(parents=True)
    (chain / "run" / "a" / "stage.json.4711.tmp").write_text("{")
    os.utime(chain / "run" / "a" / "stage.json.4711.tmp", (0, 0))
    assert skipped(run_chain(chain)) == CHAIN
    assert [path.name for path in (chain / "run").glob(".*.old")] == [".notes.old"]
    assert not (chain / "run" / "a" / "stage.json.4711.tmp").exists()


def test_the_command_of_one_stage_only_is_named_where_that_stage_goes_on_and_nowhere_else(toy, model_folder):
    write_recipe(toy, model_folder, "zero more")
    assert aha(toy, "run", "--only", "more").wait(timeout=600) == 2
    told = (toy / "run.log").read_text()
    assert "more needs zero, which is not done as the recipe has it; `aha run toy.yaml --out run` runs it" in told
    zero_killed = aha(toy, "run", "--only", "zero", TOY_SIGNAL=str(int(signal.SIGKILL)))
    assert zero_killed.wait(timeout=600) == 128 + signal.SIGKILL
    last = (toy / "run.log").read_text().splitlines()[-1]
    assert last.endswith("; `aha run toy.yaml --out run --only zero` begins zero again")
    assert (toy / "run" / "recipe.yaml").read_text().startswith("# aha run toy.yaml --out run\n")
    assert read_status(toy / "run").holder.command == "aha run toy.yaml --out run"


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def scribble(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "words"), [(truncate, "is damaged: it has "), (scribble, "is damaged: its content"), (Path.unlink, "is missing")]
)
def test_a_damaged_output_is_named_with_the_command_that_makes_it_again(chain, damage, words):
    damage(chain / "run" / "a" / "model" / "model.safetensors")
    assert skipped(run_chain(chain)) == ["a", "b", "side", "last"]  # nobody needs it
    shutil.rmtree(chain / "run" / "side")
    with pytest.raises(UserError) as caught:
        run_chain(chain)
    assert f"{chain}/run/a/model/model.safetensors {words}" in str(caught.value)
    assert str(caught.value).endswith("; side needs it, and `aha run chain.yaml --from a` makes it again")
    assert skipped(run_chain(chain, redo_from=["a"])) == []


def stops_before_it_begins(folder, model, late, words):
    """A run whose last stage is `late` raises UserError with these words and leaves nothing behind."""
    (folder / "toy.yaml").write_text(
        f"name: toy\ndefaults: {{model: {model}}}\nstages:\n"
        "  - {name: base, kind: sample, data: {source: countdown, limit: 2}}\n"
        f"  - {{name: late, {late}}}\n"
    )
    with pytest.raises(UserError, match=re.escape(words)):
        pipeline.run(load_recipe(folder / "toy.yaml"), folder / "run", Console(quiet=True))
    assert not (folder / "run").exists()


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("filters: [corect]", "late: unknown filter 'corect'; did you mean correct?"),
        ("refine: [{name: cap_length, args: {words: 9}}]", "late: refinement cap_length has no argument 'words'"),
        ("rewards: [{name: fromat}]", "late: unknown reward 'fromat'"),
        ("decontaminate: [{source: countdown, grader: cuontdown}]", "late: unknown reward 'cuontdown'"),
    ],
)
def test_a_misspelt_name_in_a_late_stage_stops_the_run_before_its_first_one(tmp_path, model_folder, key, words):
    stops_before_it_begins(tmp_path, model_folder, f"kind: sample, data: {{source: countdown, limit: 2}}, {key}", words)


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("kind: sample, data: {source: rows/none.jsonl}", "late: rows/none.jsonl: no such file or folder"),
        ("kind: sample, data: {source: here.jsonl}", "late: {here}: row 1: no column 'question'; the row has ask, gold"),
        ("kind: grpo, data: {source: here.jsonl, columns: {question: aks}}, rewards: [{name: format}]", "no column 'aks'"),
        ("kind: sample, data: {source: countdown, split: dev}", "late: countdown has no split 'dev'"),
        ("kind: eval, eval: {data: [{source: countdown, args: {numbers: 3}}]}", "do not fit the generator"),
        ("kind: sft, data: {source: here.jsonl}", "late: {here}: row 1: no column 'prompt'"),
        ("kind: sft, data: '${base.traces}', eval_data: [{source: here.jsonl}]", "late: {here}: row 1: no column 'prompt'"),
        ("kind: reward_model, data: {source: preference}, eval: {data: [{source: here.jsonl}]}", "late: {here}: row 1"),
        (
            "kind: grpo, data: countdown, rewards: [{name: countdown, weight: {cuontdown: 1.0}}]",
            "late: reward countdown weighs task 'cuontdown'; the problems are of countdown",
        ),
        ("kind: sample, data: [countdown, words], shares: {countdown: 1}", "late: shares is of countdown; the problems are of"),
        (
            "kind: eval, eval: {data: [{source: here.jsonl, columns: {question: ask, gold: hint}, grader: countdown}]}",
            "late: {here}: row 1: no column 'hint'",
        ),
        (
            "kind: eval, eval: {data: [{source: here.jsonl, columns: {question: ask}, grader: countdown}]}",
            "late: reward countdown wants column 'nums'; the data has ",
        ),
        (
            "kind: grpo, data: {source: here.jsonl, columns: {question: ask}}, rewards: [{name: countdown}]",
            "late: reward countdown wants column 'nums'; the data has ",
        ),
        ("kind: sample, data: countdown, ask: few_shot, examples: nope.yaml", "late: nope.yaml: cannot be read as YAML: "),
    ],
)
def test_data_that_a_late_stage_cannot_read_stops_the_run_before_its_first_one(tmp_path, model_folder, stage, words):
    here = tmp_path / "here.jsonl"
    here.write_text('{"ask": "1+1?", "gold": "2"}\n')
    stage, words = stage.replace("here.jsonl", str(here)), words.replace("{here}", str(here))
    stops_before_it_begins(tmp_path, model_folder, stage, words)


def test_of_data_to_decontaminate_against_only_questions_are_wanted(tmp_path, model_folder):
    (tmp_path / "here.jsonl").write_text('{"question": "1+1?"}\n')
    late = {"decontaminate": [{"source": str(tmp_path / "here.jsonl"), "grader": "countdown"}]}
    stage = {"name": "late", "kind": "sample", "model": str(model_folder), "data": "countdown", **late}
    (tmp_path / "toy.yaml").write_text(json.dumps({"name": "toy", "stages": [stage]}))
    preflight.check(load_recipe(tmp_path / "toy.yaml"))


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("kind: sft, data: writers, model: ./no/such/folder", "late: ./no/such/folder is no model: there is no such folder"),
        ("kind: sft, data: writers, model: no/such/folder", "late: no/such/folder is no model: there is no such folder"),
        ("kind: sft, data: writers, model: folder", "late: folder is no model: it has no config.json"),
        (
            "kind: sft, data: writers, model: tiny-studnet",
            "tiny-studnet is no model: there is no such folder; did you mean tiny-st",
        ),
        ("kind: grpo, data: countdown, teacher_model: ./nope", "late: ./nope is no model"),
        ("kind: grpo, data: chat, rewards: [{name: reward_model, args: {model: ./nope}}]", "late: ./nope is no model"),
        ("kind: grpo, data: chat, rewards: [{name: judge}]", "late: reward judge: a judge needs url"),
        ("kind: grpo, data: chat, rewards: [{name: soft_overlong}]", "late: reward soft_overlong: max_length is not given"),
        ("kind: grpo, data: words, rewards: [{name: accuracy, args: {extract: [boxed]}}]", "accuracy: extract is ['boxed']"),
        ("kind: grpo, data: words, rewards: [{name: cosine, args: {grader: nosuch}}]", "cosine: unknown grader 'nosuch'"),
        (
            "kind: grpo, data: words, rewards: [{name: language_consistency, args: {language: english}}]",
            "language_consistency: unknown language 'english'",
        ),
    ],
)
def test_a_model_or_a_setting_that_is_not_there_stops_the_run_before_its_first_stage(tmp_path, monkeypatch, stage, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "toy.yaml").write_text(f"name: toy\nstages: [{{name: late, {stage}}}]\n")
    with pytest.raises(UserError, match=re.escape(words)):
        preflight.check(load_recipe(tmp_path / "toy.yaml"))


@pytest.mark.parametrize(
    "stage",
    [
        "kind: sft, data: writers, model: gpt2",
        "kind: sft, data: writers, model: org/name",
        "kind: sft, data: writers, model: ./nope, init: scratch",
        "kind: sample, data: countdown, model: ./nope, engine: server, server: {base_url: 'http://x', model: ./nope}",
        "kind: grpo, data: chat, rewards: [{name: judge, args: {model: ./nope, url: 'http://x'}}]",
        "kind: grpo, data: [chat, countdown], rewards: [{name: answered, weight: {chat: 1}}]",
        "kind: grpo, data: words, rewards: [{name: cosine}, {name: language_consistency, args: {language: en}}]",
    ],
)
def test_what_may_be_on_the_hub_and_what_is_not_loaded_does_not_stop_a_run(tmp_path, stage):
    (tmp_path / "toy.yaml").write_text(f"name: toy\nstages: [{{name: late, {stage}}}]\n")
    preflight.check(load_recipe(tmp_path / "toy.yaml"))


@pytest.mark.parametrize(
    ("measured", "told"),
    [
        ("countdown", ["eval.data.0"]),
        ("[{source: countdown, split: test}, {source: countdown, seed: 7, limit: 9}]", ["eval.data.1"]),
        ("[{source: countdown, split: test}, {source: countdown, args: {num_numbers: [3]}}, words]", []),
    ],
)
def test_evaluation_data_that_the_stage_learns_from_is_told(tmp_path, measured, told):
    stage = f"{{name: zero, kind: grpo, data: countdown, rewards: [{{name: countdown}}], eval: {{data: {measured}}}}}"
    (tmp_path / "toy.yaml").write_text(f"name: toy\nstages: [{stage}]\n")
    [cfg] = load_recipe(tmp_path / "toy.yaml").stages
    assert learned_and_measured(cfg) == told


def test_a_file_is_the_same_rows_whatever_the_split_is_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("q.jsonl").write_text('{"nums": [1, 2], "target": 3}\n')
    for measured, told in {"./q.jsonl, split: test": ["eval.data.0"], "q.jsonl, split: 'test[1:]'": []}.items():
        stage = f"name: zero, kind: grpo, data: q.jsonl, rewards: [{{name: format}}], eval: {{data: [{{source: {measured}}}]}}"
        Path("toy.yaml").write_text(f"name: toy\nstages: [{{{stage}}}]\n")
        assert learned_and_measured(load_recipe(Path("toy.yaml")).stages[0]) == told


def test_traces_of_a_stage_are_the_data_of_a_later_one(toy, model_folder):
    write_recipe(toy, model_folder, "zero cold more", rows='"${cold.traces}"')
    assert "more: sft, 4 steps, 12 rows" in run(toy)
    assert "cold  " in run(toy)
    inputs = json.loads((toy / "run" / "more" / "stage.json").read_text())["inputs"]
    assert list(inputs) == ["model", "data.0.source"]
    truncate(toy / "run" / "cold" / "traces.jsonl")
    shutil.rmtree(toy / "run" / "more")
    with pytest.raises(UserError, match=r"cold/traces\.jsonl is damaged"):
        run(toy)


# The summary.


def test_the_summary_shows_the_headlines_of_every_kind():
    measure = {"value": 0.25, "low": 0.2137, "high": 0.2899, "n": 512}
    names = ["words-en/pass@1", "countdown/pass@1", "countdown/pass@4", "format/rate", "length/mean", "language/single"]
    assert list(pipeline.headlines(dict.fromkeys(names, measure))) == [
        *("words-en/pass@1", "countdown/pass@1"),
        *("format/rate", "language/single"),
    ]
    told = pipeline.headlines({"sample/candidates": 4096, "kept/correct": 900, "sample/kept": 412, "refined/cap": 3})
    assert told == {"sample/kept": "412 of 4,096"}
    assert pipeline.headlines({"pairs/accuracy": measure, "pairs/margin": measure}) == {
        "pairs/accuracy": "0.250 [0.214, 0.290]"
    }
    assert pipeline.headlines({"loss": 0.12345, "eval_loss": 1.5, "a": 1, "b": 2}) == {
        "loss": "0.1235",
        "eval_loss": "1.5",
        "a": "1",
    }
    assert pipeline.headlines({}) == {}


def test_the_summary_fits_eighty_columns(finished):
    lines = (finished / "console.txt").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("stage "))
    end = next(i for i, line in enumerate(lines) if i > start and not line)
    assert max(map(cell_len, lines[start:end])) <= 80
    assert [line.split()[0] for line in lines[start:end] if line[:1].isalpha()] == ["stage", "base", "zero", "more", "after"]


def test_a_reward_of_the_user_that_has_changed_is_refused(toy):
    run(toy)
    path = toy / "toy_rewards.py"
    path.write_text(path.read_text() + "# another thought\n")
    with pytest.raises(UserError, match=r"the content of toy_rewards:short has changed"):
        run(toy)


FULL_DISK = """
import resource, sys
from aha.cli import main
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # what a write beyond it meets is what a full disk gives
main()
"""


def test_a_full_disk_is_one_line_and_the_last_checkpoint_survives(toy, model_folder):
    write_recipe(toy, model_folder, "zero", max_steps=6, eval_steps=0)
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
