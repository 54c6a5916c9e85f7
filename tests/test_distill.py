"""On-policy distillation: a teacher scores every token of the policy's own completions."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from aha import grpo, pipeline
from aha.config import validate
from aha.data.writers import documents
from aha.graph import graph
from aha.log import StageLog
from aha.loss import Denominators, Row, grpo_loss, logps_of, loss_of_rows, microbatches_with_signal
from aha.model import Policy, save_policy
from aha.plan import plan
from aha.recipe import load_recipe, needs
from aha.rundir import RunDir, StageDir
from aha.stage_configs import GrpoStage
from aha.tokenizer import build_tokenizer
from aha.types import UserError


def config(**changes) -> GrpoStage:
    values = {"name": "student", "kind": "grpo", "data": "countdown", "teacher_model": "teacher", "num_generations": 1}
    sizes = {"per_device_train_batch_size": 4, "dtype": "float32", "save_dtype": "float32", "lr_scheduler_type": "constant"}
    return validate(GrpoStage, {**values, **sizes, **changes}, "here")


@pytest.fixture(scope="module")
def teacher(make_family) -> Policy:
    """A model whose random weights are large enough for strong opinions."""
    return make_family("qwen3")


@pytest.fixture(scope="module")
def folders(make_policy, teacher, tmp_path_factory) -> dict[str, str]:
    """A student, its teacher, and questions without answers."""
    folder = tmp_path_factory.mktemp("distill")
    save_policy(make_policy(seed=1), folder / "student", torch.float32)
    save_policy(teacher, folder / "teacher", torch.float32)
    rows = (json.dumps({"question": f"What is {i} + {i * i % 7}?"}) + "\n" for i in range(32))
    (folder / "train.jsonl").write_text("".join(rows))
    return {"model": str(folder / "student"), "teacher_model": str(folder / "teacher"), "data": str(folder / "train.jsonl")}


def run(cfg: GrpoStage, folder: Path) -> list[dict]:
    """Run the stage; returns its lines of metrics."""
    folder.mkdir(parents=True, exist_ok=True)
    stage = StageDir(folder)
    with StageLog(cfg.name, cfg.kind, Console(file=io.StringIO(), width=120), stage) as log:
        grpo.run(cfg, stage, log)
    return [json.loads(line) for line in stage.metrics.read_text().splitlines()]


def weights(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


# The gradient.


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_over_all_draws_the_gradient_is_that_of_the_reverse_kl(temperature):
    generator = torch.Generator().manual_seed(0)
    logits_V, teacher_V = torch.randn(2, 5, generator=generator, dtype=torch.double)
    logits_V.requires_grad_()
    logp_V = (logits_V / temperature).log_softmax(dim=-1)
    teacher_logp_V = (teacher_V / temperature).log_softmax(dim=-1)
    [expected] = torch.autograd.grad((logp_V.exp() * (logp_V - teacher_logp_V)).sum(), logits_V, retain_graph=True)

    found, kl = torch.zeros(5), 0.0
    for i, share in enumerate(logp_V.exp().tolist()):  # each token as often as the policy draws it
        logp_BT, theirs_BT = logp_V[i].reshape(1, 1), teacher_logp_V[i].reshape(1, 1)
        old_BT, mask_BT = logp_BT.detach(), torch.ones(1, 1, dtype=torch.bool)
        loss, sums = grpo_loss(
            logp_BT, old_BT, None, theirs_BT, None, old_BT, torch.zeros(1), mask_BT, Denominators(1, 1), config()
        )
        found = found + share * torch.autograd.grad(loss, logits_V, retain_graph=True)[0]
        kl += share * sums.teacher_kl
    torch.testing.assert_close(found, expected)
    assert kl == pytest.approx((logp_V.exp() * (logp_V - teacher_logp_V)).sum().item())


def rows_to_learn(policy: Policy, temperature: float, moved: bool) -> list[Row]:
    """Completions of unequal length, half of them without an advantage in their group; with `moved` the policy that drew
    them is so far from this one that both clips bite."""
    generator = torch.Generator().manual_seed(1)
    rows = []
    for i, length in enumerate([9, 3, 12, 6]):
        prompt = torch.randint(3, 200, (4 + i,), generator=generator).tolist()
        row = Row(prompt, torch.randint(3, 200, (length,), generator=generator).tolist(), [], [0.8, 0.0, -1.1, 0.0][i])
        [logps] = logps_of([row], policy, config(temperature=temperature), torch.float32)
        old = (torch.tensor(logps) + 0.4 * torch.randn(length, generator=generator)).tolist()
        rows.append(replace(row, rollout_logps=logps, old_logps=old if moved else None, ref_logps=old if moved else None))
    return rows


def scores(policy: Policy, row: Row, temperature: float) -> torch.Tensor:
    logits = policy.model(torch.tensor([row.prompt_ids + row.completion_ids])).logits[0, len(row.prompt_ids) - 1 : -1]
    return (logits / temperature).log_softmax(dim=-1).gather(-1, torch.tensor(row.completion_ids)[:, None])[:, 0]


def gradient_by_hand(policy: Policy, teacher: Policy, rows: list[Row], cfg: GrpoStage) -> torch.Tensor:
    """The equations of docs/algorithms.md, one completion at a time."""
    policy.model.zero_grad()
    num_tokens = sum(len(row.completion_ids) for row in rows)
    for row in rows:
        logp = scores(policy, row, cfg.temperature)
        old = logp.detach() if row.old_logps is None else torch.tensor(row.old_logps)
        with torch.no_grad():
            advantage = row.advantage + cfg.teacher_coef * (scores(teacher, row, cfg.temperature) - old)
        ratio = (logp - old).exp()
        if cfg.importance_sampling_level == "sequence":
            ratio = (logp - old).mean().exp().expand_as(logp)
        if cfg.loss_type == "cispo":
            gain = ratio.detach().clamp(max=cfg.epsilon_high) * advantage * logp
        else:
            gain = torch.min(ratio * advantage, ratio.clamp(1 - cfg.epsilon, 1 + cfg.epsilon) * advantage)
        if cfg.beta:
            apart = torch.tensor(row.ref_logps) - logp
            gain = gain - cfg.beta * ratio * (apart.exp() - apart - 1)
        divisor = {
            "grpo": len(rows) * len(logp),
            "dr_grpo": len(rows) * cfg.max_completion_length,
            "dapo": num_tokens,
            "cispo": num_tokens,
        }[cfg.loss_type]
        (-gain.sum() / divisor).backward()
    return torch.cat([p.grad.flatten().clone() for p in policy.model.parameters()])


@pytest.mark.parametrize("moved", [False, True], ids=["one update", "several updates"])
@pytest.mark.parametrize(
    "settings",
    [
        {"loss_type": "grpo"},
        {"loss_type": "dr_grpo"},
        {"loss_type": "dapo", "teacher_coef": 0.3},
        {"loss_type": "dapo", "temperature": 0.7},
        {"loss_type": "cispo", "epsilon_high": 1.3},
        {"loss_type": "grpo", "importance_sampling_level": "sequence"},
        {"loss_type": "dapo", "beta": 0.1},
    ],
    ids=str,
)
def test_gradient_is_that_of_the_equations_whatever_the_split_into_micro_batches(policy, teacher, settings, moved):
    if settings.get("beta") and not moved:
        pytest.skip("the reference log-probabilities are those of the policy that has moved")
    cfg = config(**settings)
    rows = rows_to_learn(policy, cfg.temperature, moved)
    if not cfg.beta:
        rows = [replace(row, ref_logps=None) for row in rows]
    expected = gradient_by_hand(policy, teacher, rows, cfg)
    assert expected.norm() > 0

    taught = logps_of(rows, teacher, cfg, torch.float32)
    scored = [replace(row, teacher_logps=logps) for row, logps in zip(rows, taught, strict=True)]
    denominators = Denominators(len(rows), sum(len(row.completion_ids) for row in rows))
    for size in (1, 30, 8192):
        policy.model.zero_grad()
        split = list(microbatches_with_signal(scored, cfg.model_copy(update={"max_tokens_per_microbatch": size})))
        assert sum(map(len, split)) == len(rows)  # a group of equal rewards has a signal too
        for micro in split:
            loss_of_rows(micro, policy, denominators, cfg, torch.float32)[0].backward()
        found = torch.cat([p.grad.flatten() for p in policy.model.parameters()])
        assert (found - expected).norm() < 1e-5 * expected.norm()


def test_a_teacher_that_is_the_student_pulls_nowhere(policy):
    cfg = config()
    rows = [replace(row, advantage=0.0) for row in rows_to_learn(policy, 1.0, moved=False)]
    scored = [replace(row, teacher_logps=row.rollout_logps) for row in rows]
    policy.model.zero_grad()
    loss, sums = loss_of_rows(scored, policy, Denominators(4, 30), cfg, torch.float32)
    loss.backward()
    assert max(p.grad.abs().max() for p in policy.model.parameters()) < 1e-5
    assert sums.teacher_kl == pytest.approx(0.0, abs=1e-3)


# The stage.


def test_rewards_and_teacher_add_up(folders, tmp_path):
    settings = {"rewards": [{"name": "format"}], "data": {"source": "countdown", "limit": 8}, "num_generations": 2}
    [line] = run(config(**{**folders, **settings}, max_steps=1, max_completion_length=6), tmp_path / "s")
    assert line["reward"] == line["reward_std"] == 0.0  # random weights: no completion is well-formed
    assert line["grad_norm"] > 0
    assert line["teacher/kl"] > 0
    assert {"accuracy", "rewards/format/mean"} <= line.keys()


def test_a_cut_run_resumes_to_the_same_bits(folders, tmp_path):
    settings = {"max_steps": 6, "num_iterations": 2, "save_steps": 2, "max_completion_length": 6, "learning_rate": 1e-3}
    cfg = config(**folders, **settings, per_device_train_batch_size=8)
    run(cfg, tmp_path / "unbroken")
    shutil.copytree(tmp_path / "unbroken" / "checkpoints" / "step-000004", tmp_path / "cut" / "checkpoints" / "step-000004")
    [line] = run(cfg, tmp_path / "cut")
    assert line["step"] == 6
    assert weights(tmp_path / "cut") == weights(tmp_path / "unbroken")
    assert weights(tmp_path / "cut") != (Path(folders["model"]) / "model.safetensors").read_bytes()


# Errors of use.


def test_a_teacher_with_another_tokenizer_is_one_line_that_names_both(folders, tmp_path):
    shutil.copytree(folders["teacher_model"], tmp_path / "other")
    texts = (f"{row['completion']} zebrafinch quokkawallaby" for row, _ in zip(documents(), range(50), strict=False))
    build_tokenizer(texts, 1500, [], tmp_path / "tokenizer")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tmp_path / "tokenizer" / file, tmp_path / "other" / file)
    with pytest.raises(UserError) as caught:
        run(config(**{**folders, "teacher_model": str(tmp_path / "other")}), tmp_path / "s")
    told = str(caught.value)
    assert "\n" not in told
    assert f"teacher_model {tmp_path / 'other'} and model {folders['model']} need the same tokenizer" in told


def test_a_teacher_that_cannot_hold_a_completion_is_told_before_anything_is_drawn(folders, make_family, tmp_path):
    save_policy(make_family("qwen3", max_position_embeddings=40), tmp_path / "short", torch.float32)
    with pytest.raises(UserError, match=r"max_completion_length 30 make .*; the teacher holds 40"):
        run(config(**{**folders, "teacher_model": str(tmp_path / "short")}, max_completion_length=30), tmp_path / "s")


def test_a_teacher_that_is_no_model_is_told_by_its_name(folders, tmp_path):
    with pytest.raises(UserError, match="/nowhere is no model: there is no such folder"):
        run(config(**{**folders, "teacher_model": "/nowhere"}), tmp_path / "s")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"teacher_model": None}, "rewards is empty: name at least one, or a teacher_model"),
        ({"dynamic_sampling_rounds": 1}, "dynamic_sampling_rounds goes by the grader's verdict"),
        ({"num_generations": 0}, "num_generations is 0"),
        ({"rewards": [{"name": "format"}]}, "num_generations is 1: .* at least 2"),
        ({"teacher_coef": 0}, "teacher_coef"),
    ],
)
def test_a_stage_without_anything_to_learn_from_is_refused(changes, words):
    with pytest.raises(UserError, match=f"^here: .*{words}"):
        config(**changes)


# In a recipe.

RECIPE = """
name: distill
defaults: {{dtype: float32, max_completion_length: 6, per_device_train_batch_size: 4, max_steps: 2}}
stages:
  - {{name: zero, kind: sft, model: {teacher}, data: {{source: writers, limit: 8}}}}
  - {{name: traces, kind: sample, model: "${{zero.model}}", data: {{source: countdown, limit: 2}}, filters: []}}
  - {{name: rm, kind: reward_model, model: "${{zero.model}}", data: {{source: preference, limit: 8}}}}
  - {{name: student, kind: grpo, model: {model}, teacher_model: "{reference}", data: {data}, num_generations: 2}}
"""


def write_recipe(folder: Path, folders: dict[str, str], reference: str = "${zero.model}", teacher: str | None = None) -> Path:
    values = {"teacher": teacher or folders["teacher_model"], "model": folders["model"], "data": folders["data"]}
    (folder / "distill.yaml").write_text(RECIPE.format(reference=reference, **values))
    return folder / "distill.yaml"


def test_the_model_of_an_earlier_stage_teaches(folders, tmp_path):
    path, run_dir = write_recipe(tmp_path, folders), tmp_path / "run"
    recipe = load_recipe(path)
    assert needs(recipe.stages[-1]) == ["zero"]
    assert [step.action for step in plan(recipe, run_dir)] == ["run"] * 4
    pipeline.run(recipe, run_dir, Console(quiet=True), in_process=True)
    assert [step.action for step in plan(recipe, run_dir)] == ["skip"] * 4
    lines = [json.loads(line) for line in (run_dir / "student" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "teacher/kl" in line] == [1, 2]

    before = graph(recipe, RunDir(run_dir))["student"].fingerprint
    assert graph(load_recipe(path, ["zero.seed=7"]), RunDir(run_dir))["student"].fingerprint != before


def test_a_folder_that_teaches_is_an_input(folders, tmp_path):
    shutil.copytree(folders["teacher_model"], tmp_path / "teacher")
    recipe = load_recipe(write_recipe(tmp_path, folders, reference=str(tmp_path / "teacher")))
    before = graph(recipe, RunDir(tmp_path / "run"))["student"]
    (tmp_path / "teacher" / "generation_config.json").write_text("{}")
    after = graph(recipe, RunDir(tmp_path / "run"))["student"]
    assert {key for key in before.inputs if before.inputs[key] != after.inputs[key]} == {"teacher_model"}
    assert before.fingerprint != after.fingerprint


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("${traces.traces}", "teacher_model .* here stands a model, and this is traces"),
        ("${rm.model}", "teacher_model .* rm is a reward model, which writes no text"),
        ("${zero}", r"teacher_model .* write \$\{stage.output\}"),
    ],
)
def test_what_cannot_teach_is_refused_when_the_recipe_is_loaded(folders, tmp_path, reference, words):
    with pytest.raises(UserError, match=words):
        load_recipe(write_recipe(tmp_path, folders, reference))
