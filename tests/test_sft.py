import io
import json
import math
import shutil

import pyarrow.parquet
import pytest
import torch
from rich.console import Console

from aha import evaluate, sft
from aha.data.sources import load_texts
from aha.log import StageLog
from aha.metrics import Measure
from aha.model import load_policy, save_policy, token_logps
from aha.rundir import StageDir
from aha.stage_configs import EvalStage, SftStage
from aha.texts import collate, encode
from aha.tokenizer import SPECIAL_TOKENS
from aha.types import UserError

SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
HELD_OUT = {"source": "writers", "seed": 1, "limit": 8}


def config(**changes) -> SftStage:
    values = {"name": "s", "kind": "sft", "data": {"source": "writers", "limit": 32}, "dtype": "float32"}
    return SftStage(**{**values, "max_steps": 4, "learning_rate": 1e-2, **changes})


def run(cfg: SftStage, folder, console: Console | None = None) -> dict[str, float | Measure]:
    stage = StageDir(folder)
    folder.mkdir(exist_ok=True)
    with StageLog("s", "sft", console or Console(quiet=True), stage) as log:
        return sft.run(cfg, stage, log)


def metrics_of(folder) -> list[dict]:
    return [json.loads(line) for line in StageDir(folder).metrics.read_text().splitlines()]


def bytes_of(folder) -> dict[str, bytes]:
    return {name: (folder / "model" / name).read_bytes() for name in ("model.safetensors", "tokenizer.json")}


@pytest.mark.parametrize("changes", [{"max_tokens_per_microbatch": 64}, {"packing": True}, {"gradient_checkpointing": True}])
def test_how_a_step_is_computed_does_not_change_the_run(model_folder, tmp_path, changes):
    base = run(config(model=str(model_folder), eval_data=HELD_OUT), tmp_path / "base")
    other = run(config(model=str(model_folder), eval_data=HELD_OUT, **changes), tmp_path / "other")
    assert other == pytest.approx(base, rel=1e-4)


def test_training_learns_and_writes_a_model(model_folder, tmp_path):
    cfg = config(model=str(model_folder), max_steps=30, data={"source": "writers", "limit": 8})
    final = run(cfg, tmp_path / "s")
    assert final["loss"] < 0.7 * math.log(1500)
    assert load_policy(config(model=str(tmp_path / "s" / "model")), torch.device("cpu")).prompt.prefill == "<think>"


def test_rows_that_are_cut_are_told(model_folder, tmp_path):
    policy = load_policy(config(model=str(model_folder)), torch.device("cpu"))
    lengths = sorted(len(example.ids) for example in encode(load_texts(config().data[0]), policy, 1000, True))
    limit, num_cut = lengths[-1] - 1, lengths.count(lengths[-1])
    console = Console(file=io.StringIO(), width=200)
    run(config(model=str(model_folder), max_steps=1, max_length=limit), tmp_path / "s", console)
    assert f"32 rows, {num_cut} rows cut\n" in console.file.getvalue()
    assert f"rows longer than max_length {limit} are cut" in console.file.getvalue()


def test_rows_longer_than_the_model_holds_are_cut_there(make_family, tmp_path):
    lengths = [len(example.ids) for example in encode(load_texts(config().data[0]), make_family("gpt2"), 10_000, True)]
    limit = max(lengths) - 1
    save_policy(make_family("gpt2", n_positions=limit), tmp_path / "short", torch.float32)
    console = Console(file=io.StringIO(), width=200)
    run(config(model=str(tmp_path / "short"), max_steps=1), tmp_path / "s", console)
    assert f"rows longer than the {limit} tokens that the model holds are cut" in console.file.getvalue()


def test_scratch_builds_tokenizer_and_model_of_the_sizes_asked_for(tmp_path):
    sizes = {**SIZES, "vocab_size": 1400}
    run(config(init="scratch", architecture=sizes, max_steps=1, prompt={"think": "thinking"}), tmp_path / "s")
    policy = load_policy(config(model=str(tmp_path / "s" / "model")), torch.device("cpu"))
    assert policy.model.config.hidden_size == 16
    assert policy.model.config.vocab_size == len(policy.tokenizer) <= 1400
    assert policy.prompt.think == "thinking"
    assert len(policy.tokenizer("<thinking>").input_ids) == 1
    assert json.loads((tmp_path / "s" / "model" / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_model_from_scratch_learns_sources_of_different_schemas_with_one_tokenizer(tmp_path, monkeypatch):
    monkeypatch.setattr(sft, "TOKENIZER_ROWS", 40)
    said = [{"role": "user", "content": "zebrafinch?"}, {"role": "assistant", "content": "quokkawallaby!"}]
    (tmp_path / "talk.jsonl").write_text((json.dumps({"messages": said}) + "\n") * 60)
    data = [{"source": "writers", "limit": 60}, {"source": str(tmp_path / "talk.jsonl")}]
    run(config(init="scratch", architecture=SIZES, max_steps=1, data=data), tmp_path / "s")
    tokenizer = load_policy(config(model=str(tmp_path / "s" / "model")), torch.device("cpu")).tokenizer
    talk = tokenizer.tokenize("<|im_start|>assistant\nquokkawallaby!<|im_end|>")
    assert [talk[0], talk[-1]] == ["<|im_start|>", "<|im_end|>"]
    assert len(talk) < 6  # the second source was seen, in the words of the chat template
    assert len(tokenizer.tokenize(" User: Using the numbers [")) < 6  # and so was the first
    assert not any("im_end" in token or "endoftext" in token for token in set(tokenizer.get_vocab()) - {*SPECIAL_TOKENS})


@pytest.mark.parametrize("changes", [{"save_steps": 2}, {"save_steps": 2, "packing": True}])
def test_a_model_from_scratch_resumes_to_the_same_bits(tmp_path, changes):
    cfg = config(init="scratch", architecture=SIZES, optim="muon", **changes)
    run(cfg, tmp_path / "unbroken")
    shutil.copytree(tmp_path / "unbroken" / "checkpoints" / "step-000002", tmp_path / "cut" / "checkpoints" / "step-000002")
    run(cfg, tmp_path / "cut")
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "unbroken")


def test_who_learns_conversations_only_is_told_where_the_model_would_be_asked_in_another_form(model_folder, tmp_path):
    said = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]
    (tmp_path / "talk.jsonl").write_text(json.dumps({"messages": said}) + "\n")
    for prompt, is_told in ({"template": "r1"}, True), ({"template": "chat"}, False):
        console = Console(record=True, file=io.StringIO(), width=120)
        cfg = config(model=str(model_folder), prompt=prompt, max_steps=1, data={"source": str(tmp_path / "talk.jsonl")})
        run(cfg, tmp_path / prompt["template"], console)
        assert ("but prompt.template is r1: to be asked in it, set it to chat" in console.export_text()) == is_told


# Evaluation.


def test_eval_loss_is_the_mean_over_learned_tokens_of_texts_that_are_not_trained_on(model_folder, tmp_path):
    cfg = config(model=str(model_folder), eval_data=HELD_OUT, eval_steps=3, logging_steps=4)
    console = Console(record=True, file=io.StringIO(), width=120)
    result = run(cfg, tmp_path / "s", console)
    rows = metrics_of(tmp_path / "s")
    assert [(row["step"], "eval_loss" in row) for row in rows] == [(3, True), (4, True)]
    assert result["eval_loss"] == rows[-1]["eval_loss"]
    assert f"eval loss {result['eval_loss']:.3g}" in console.export_text()

    saved = load_policy(config(model=str(tmp_path / "s" / "model")), torch.device("cpu"))  # in float32, as the toy model is
    examples = encode(load_texts(cfg.eval_data[0]), saved, cfg.max_length, completion_only=True)
    logps = [token_logps(saved.model, collate([[example]], 0, saved.device), 1.0, torch.float32).sum() for example in examples]
    expected = -sum(logps).item() / sum(example.num_learned for example in examples)
    assert result["eval_loss"] == pytest.approx(expected, rel=1e-5)


FEW = {
    "data": {"source": "writers", "limit": 4},
    "per_device_train_batch_size": 4,
    "learning_rate": 0.03,
    "lr_scheduler_type": "constant",
}


def overfitting(model_folder) -> SftStage:
    """A run whose eval_loss falls and rises again: few rows, at far too high a rate."""
    best = {"eval_data": {**HELD_OUT, "limit": 4}, "eval_steps": 2, "load_best_model_at_end": True}
    return config(model=str(model_folder), max_steps=12, save_steps=2, save_total_limit=9, **best, **FEW)


def test_the_weights_with_the_lowest_eval_loss_are_saved_and_their_step_is_told(model_folder, tmp_path):
    console = Console(record=True, file=io.StringIO(), width=120)
    cfg = overfitting(model_folder).model_copy(update={"save_total_limit": 1})
    result = run(cfg, tmp_path / "s", console)
    losses = {row["step"]: row["eval_loss"] for row in metrics_of(tmp_path / "s") if "eval_loss" in row}
    best = min(losses, key=losses.get)
    assert 2 < best < 12
    assert result["eval_loss"] == losses[best]
    assert f"saved are the weights of step {best}, with the lowest eval_loss, {losses[best]:.4g}" in console.export_text()
    assert sorted(path.name for path in (tmp_path / "s" / "checkpoints").iterdir()) == ["best", "step-000010"]

    run(config(model=str(model_folder), max_steps=best, **FEW), tmp_path / "shorter")
    assert bytes_of(tmp_path / "s") == bytes_of(tmp_path / "shorter")


def test_a_resumed_run_saves_the_same_best_weights_whether_it_was_cut_before_or_after_them(model_folder, tmp_path):
    cfg = overfitting(model_folder)
    run(cfg, tmp_path / "unbroken")
    for step in (2, 10):
        for name in (f"step-{step:06d}", "best"):
            shutil.copytree(tmp_path / "unbroken" / "checkpoints" / name, tmp_path / f"cut{step}" / "checkpoints" / name)
        run(cfg, tmp_path / f"cut{step}")
        assert metrics_of(tmp_path / f"cut{step}")[0]["step"] == step + 1
        assert bytes_of(tmp_path / f"cut{step}") == bytes_of(tmp_path / "unbroken")


def test_problems_are_answered_after_training_by_the_weights_that_are_saved(model_folder, tmp_path):
    data = [{"source": "countdown", "split": "test", "limit": 6}]
    asked = {"max_completion_length": 8, "max_prompt_length": 1}  # which drops no problem of an evaluation
    cfg = config(model=str(model_folder), eval={"data": data, "eval_steps": 3}, save_dtype="bfloat16", **asked)
    result = run(cfg, tmp_path / "s")
    assert result["countdown/pass@1"].n == 6
    assert result["loss"] == metrics_of(tmp_path / "s")[-2]["loss"]
    evaluated = [row["step"] for row in metrics_of(tmp_path / "s") if "eval/countdown/pass@1" in row]
    assert evaluated == [3, 4]

    again = {"name": "e", "kind": "eval", "model": str(tmp_path / "s" / "model"), "dtype": "float32"}
    stage = EvalStage(**again, eval={"data": data}, **asked)
    answers, measures = evaluate.answer(stage, StageLog("e", "eval", Console(quiet=True)))
    assert measures == {key: value for key, value in result.items() if key != "loss"}
    written = pyarrow.parquet.read_table(StageDir(tmp_path / "s").answers)["completion"].to_pylist()
    assert written == [completion.text for group in answers for completion in group.completions]


def test_weights_without_a_finite_eval_loss_are_told(model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(sft, "mean_loss", lambda *_: math.nan)  # as of a run that diverged
    with pytest.raises(UserError, match="s: eval_loss was never finite, so no weights are the best"):
        run(overfitting(model_folder).model_copy(update={"max_steps": 2}), tmp_path / "s")
    assert not (tmp_path / "s" / "model").exists()


@pytest.mark.parametrize("changes", [{"eval_data": HELD_OUT}, {"eval_steps": 2}, {}])
def test_the_best_model_needs_something_to_choose_by(changes):
    with pytest.raises(ValueError, match="load_best_model_at_end chooses by eval_loss: it needs eval_data and eval_steps"):
        config(load_best_model_at_end=True, **changes)


def test_texts_and_problems_to_evaluate_on_are_inputs_of_the_stage():
    cfg = config(eval_data=HELD_OUT, eval={"data": [{"source": "countdown"}]})
    assert sorted(cfg.sources) == ["countdown", "writers", "writers"]


def test_texts_that_leave_nothing_to_learn_are_told(model_folder, tmp_path):
    with pytest.raises(UserError, match="s: no row has anything to learn within max_length 3"):
        run(config(model=str(model_folder), max_length=3), tmp_path / "a")
    (tmp_path / "long.jsonl").write_text(json.dumps({"prompt": "word " * 900, "completion": "x"}) + "\n")
    cfg = config(model=str(model_folder), max_length=400, eval_data={"source": str(tmp_path / "long.jsonl")})
    with pytest.raises(UserError, match="s: no row of eval_data has anything to learn within max_length 400"):
        run(cfg, tmp_path / "b")
