"""Two models on the same problems."""

import json

import pyarrow.parquet
import pytest
import torch
from rich.console import Console

from aha.evaluate import answer, compare
from aha.log import StageLog
from aha.metrics import bootstrap
from aha.model import save_policy
from aha.stage_configs import EvalStage


@pytest.fixture
def stage(make_policy, tmp_path):
    """An evaluation on a file whose gold answers are what the model itself says."""
    save_policy(make_policy(seed=1), tmp_path / "other", torch.float32)
    questions = [f"Count to {i}" for i in range(4)]

    def make(golds: list[str]) -> EvalStage:
        file = tmp_path / "sums.jsonl"
        file.write_text("".join(json.dumps({"question": q, "gold": g}) + "\n" for q, g in zip(questions, golds, strict=True)))
        values = {
            "name": "eval",
            "kind": "eval",
            "model": str(tmp_path / "other"),
            "prompt": {"template": "plain"},
            "max_completion_length": 6,
            "eval": {"data": [{"source": str(file), "grader": "exact_match"}]},
        }
        return EvalStage(**values)

    with StageLog("eval", "eval", Console(quiet=True)) as log:
        groups, _ = answer(make(["?"] * 4), log)
    return make([group.completions[0].text for group in groups])


def test_the_difference_is_that_of_the_model_to_the_one_it_is_compared_against(stage, model_folder, tmp_path):
    found = compare(stage, str(model_folder), Console(quiet=True), tmp_path / "kept.parquet")
    ours, theirs = (measures["sums/pass@1"].value for measures in (found.model, found.against))
    assert ours == 1
    assert theirs < 1
    assert found.difference["sums/pass@1"].value == 1 - theirs
    assert pyarrow.parquet.read_table(tmp_path / "kept.parquet")["solved"].to_pylist() == [True] * 4
    back = compare(stage.model_copy(update={"model": str(model_folder)}), stage.model, Console(quiet=True))
    assert back.difference["sums/pass@1"].value == theirs - 1


def test_a_model_does_not_differ_from_itself_in_what_it_samples(stage):
    found = compare(stage, stage.model, Console(quiet=True))
    assert found.model == found.against
    assert found.difference == {"sums/pass@1": bootstrap([0] * 4, bounds=(-1, 1))}
