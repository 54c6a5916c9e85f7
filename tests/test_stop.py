"""Ctrl-C and SIGTERM: what is saved before a stage ends, and that it goes on to the same bits."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from aha import grpo, reward_model, sft
from aha.config import validate
from aha.log import StageLog
from aha.rewards.workers import Workers
from aha.rundir import StageDir
from aha.stage_configs import STAGE_KINDS
from aha.stop import STOP, STOPS, WAITS

COUNTDOWN = {"source": "countdown", "limit": 8}
VERBS = {"grpo": grpo, "sft": sft, "reward_model": reward_model}
OF_KIND = {
    "grpo": {
        "data": COUNTDOWN,
        "rewards": [{"name": "toy_letters:letters"}],
        "num_generations": 4,
        "per_device_train_batch_size": 8,
        "num_iterations": 2,
        "max_completion_length": 8,
        "beta": 0.04,
        "sync_ref_model": True,
        "ref_model_sync_steps": 2,
        "eval": {"data": [{**COUNTDOWN, "split": "test"}], "eval_steps": 2},
    },
    "sft": {
        "data": {"source": "writers", "limit": 16},
        "eval_data": {"source": "writers", "seed": 1, "limit": 4},
        "eval_steps": 2,
        "load_best_model_at_end": True,
    },
    "reward_model": {
        "data": {"source": "preference", "limit": 8},
        "eval": {"data": [{"source": "preference", "split": "test", "limit": 4}]},
    },
}
LETTERS = "def letters(prompts, completions, **columns):\n    return [len(set(text)) / 100 for text in completions]\n"


@pytest.fixture(autouse=True)
def _listening(tmp_path, monkeypatch):
    """This process stops as a stage does, and there is a reward with spread."""
    monkeypatch.chdir(tmp_path)
    Path("toy_letters.py").write_text(LETTERS)
    before = {number: signal.signal(number, signal.SIG_DFL) for number in STOPS}  # a shell's background job ignores Ctrl-C
    STOP.listen()
    yield
    STOP.__init__()
    for number, handler in before.items():
        signal.signal(number, handler)
    sys.modules.pop("toy_letters", None)


class ToldToStop(StageLog):
    """Sends the stage a signal while it logs step `at`."""

    at = 0

    def step(self, step, metrics, group=None):
        super().step(step, metrics, group)
        if step == self.at:
            os.kill(os.getpid(), signal.SIGTERM)


def run(kind: str, model: Path, folder: str, log_class=StageLog):
    values = {"name": "s", "kind": kind, "model": str(model), "dtype": "float32", "max_steps": 6, "learning_rate": 1e-3}
    cfg = validate(STAGE_KINDS[kind], {"per_device_train_batch_size": 4, **values, **OF_KIND[kind]}, "test")
    stage = StageDir(Path(folder))
    stage.path.mkdir(exist_ok=True)
    with log_class("s", kind, Console(quiet=True), stage) as log:
        return VERBS[kind].run(cfg, stage, log)


def lines_of(folder: str) -> list[dict]:
    lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    timed = ("speed/", "memory/", "step_time")
    return [{key: value for key, value in line.items() if not key.startswith(timed)} for line in lines]


@pytest.mark.parametrize("kind", VERBS)
@pytest.mark.parametrize("at", [2, 6])
def test_a_stage_told_to_stop_saves_its_step_and_goes_on_to_the_same_bits(kind, at, model_folder, monkeypatch):
    monkeypatch.setattr(ToldToStop, "at", at)
    results = run(kind, model_folder, "unbroken")
    with pytest.raises(KeyboardInterrupt):
        run(kind, model_folder, "stopped", ToldToStop)
    assert [folder.name for folder in StageDir(Path("stopped")).checkpoints()] == [f"step-{at:06d}"]
    assert not Path("stopped/model").exists()
    STOP.__init__()  # as in a process of its own
    assert run(kind, model_folder, "stopped") == results
    assert Path("stopped/model/model.safetensors").read_bytes() == Path("unbroken/model/model.safetensors").read_bytes()
    assert lines_of("stopped") == lines_of("unbroken")


class KilledWhileItIsMeasured(StageLog):
    """Ends the stage when its final evaluation is logged, the last moment at which that can be lost."""

    def evaluation(self, step, measures):
        super().evaluation(step, measures)
        if step == 6:
            raise KeyboardInterrupt


@pytest.mark.parametrize("kind", VERBS)
def test_a_stage_that_ends_in_its_final_evaluation_is_not_trained_again(kind, model_folder, monkeypatch):
    monkeypatch.setitem(OF_KIND, "sft", {**OF_KIND["sft"], "eval": OF_KIND["grpo"]["eval"]})
    results = run(kind, model_folder, "unbroken")
    with pytest.raises(KeyboardInterrupt):
        run(kind, model_folder, "killed", KilledWhileItIsMeasured)
    monkeypatch.setattr(VERBS[kind], "update", None)  # which every step of training calls
    assert run(kind, model_folder, "killed") == results
    assert Path("killed/model/model.safetensors").read_bytes() == Path("unbroken/model/model.safetensors").read_bytes()
    assert lines_of("killed") == lines_of("unbroken")


def test_without_a_checkpoint_to_wait_for_a_stop_comes_at_once_and_only_once():
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)  # does not disturb the cleaning up


def test_a_stop_that_waits_is_told_once_and_comes_when_it_no_longer_waits():
    told: list[str] = []
    STOP.wait(told.append)
    STOP.now_if_asked()
    for number in STOPS:  # as Ctrl-C does: from the terminal and from `aha run`
        os.kill(os.getpid(), number)
    deadline = time.monotonic() + 60
    while not told and time.monotonic() < deadline:
        time.sleep(0.001)
    assert told == [WAITS]
    assert STOP.is_asked
    with pytest.raises(KeyboardInterrupt):
        STOP.at_once()


def test_what_grades_meanwhile_is_in_no_group_that_ctrl_c_reaches():
    workers = Workers(1)
    try:
        workers.decide([("x^2-1", "(x-1)(x+1)")])
        assert os.getpgid(workers.workers[0].process.pid) != os.getpgid(0)
    finally:
        workers.close()
