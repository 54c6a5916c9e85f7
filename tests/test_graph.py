"""References and fingerprints: what a stage needs, what has changed, and which stages that concerns."""

import json
import shutil
from pathlib import Path

import pytest
from toy_chain import STAGES, load_chain, write_chain

from aha.graph import (
    begun_stages,
    config_text,
    dependents,
    graders,
    graph,
    own_changes,
    read_config,
    refuse_changed,
    refuse_foreign,
    roots_of,
    told_changes,
)
from aha.recipe import last_of_line, load_recipe, needs, references, resolve
from aha.rundir import RunDir, write_atomic
from aha.stage_configs import GrpoStage, SftStage
from aha.types import UserError

ALL_KINDS = """
name: toy
stages:
  - {name: cold, kind: sample, data: countdown}
  - {name: sft1, kind: sft, data: "${cold.traces}"}
  - {name: help_rm, kind: reward_model, model: "${sft1.model}", data: preference}
  - name: align
    kind: grpo
    model: "${sft1.model}"
    data: [{source: countdown, weight: 1}, {source: chat, weight: 1}]
    rewards:
      - {name: countdown}
      - {name: reward_model, args: {model: "${help_rm.model}"}}
  - {name: sft2, kind: sft, data: [{source: "${cold.traces}", weight: 3}, {source: writers, weight: 1}]}
"""


@pytest.fixture
def load(tmp_path):
    """A function that loads the recipe of all kinds, with one text in place of another."""

    def load_text(old: str = "", new: str = ""):
        assert old in ALL_KINDS
        (tmp_path / "toy.yaml").write_text(ALL_KINDS.replace(old, new, 1))
        return {cfg.name: cfg for cfg in load_recipe(tmp_path / "toy.yaml").stages}

    return load_text


def test_a_stage_that_asks_a_server_loads_no_model_and_hangs_on_none(load, tmp_path):
    server = "engine: server, server: {base_url: 'http://127.0.0.1:1/v1', model: m}, "
    load("kind: sample, ", "kind: sample, " + server)
    recipe = load_recipe(tmp_path / "toy.yaml")
    nodes = graph(recipe, RunDir(tmp_path / "run"))
    assert recipe.stages[0].initial_model is None
    assert "model" not in nodes["cold"].inputs
    assert "model" in nodes["sft1"].inputs


# References.


def test_references_are_found_wherever_they_stand(load):
    stages = load()
    assert references(stages["cold"]) == {}
    assert references(stages["sft1"]) == {"data.0.source": "${cold.traces}"}
    assert references(stages["align"]) == {"model": "${sft1.model}", "rewards.1.args.model": "${help_rm.model}"}
    assert needs(stages["align"]) == ["sft1", "help_rm"]
    assert needs(stages["sft2"]) == ["cold"]


def test_a_bare_text_is_a_source(load):
    stages = load()
    assert [cfg.source for cfg in stages["cold"].data] == ["countdown"]
    assert stages["sft1"].data == SftStage(name="x", kind="sft", data={"source": "${cold.traces}"}).data
    assert [cfg.source for cfg in SftStage(name="x", kind="sft", data=["writers", "countdown"]).data] == [
        "writers",
        "countdown",
    ]


def test_references_become_paths_and_nothing_else_changes(load):
    run = RunDir(Path("runs/toy"))
    stages = load()
    resolved = resolve(stages["align"], lambda name, output: run.stage(name).output(output))
    assert isinstance(resolved, GrpoStage)
    assert resolved.model == "runs/toy/sft1/model"
    assert resolved.rewards[1].args == {"model": "runs/toy/help_rm/model"}
    assert resolved.model_copy(update={"model": "", "rewards": []}) == stages["align"].model_copy(
        update={"model": "", "rewards": []}
    )
    paths = resolve(stages["sft2"], lambda name, output: run.stage(name).output(output)).data
    assert [(cfg.source, cfg.weight) for cfg in paths] == [("runs/toy/cold/traces.jsonl", 3), ("writers", 1)]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("${cold.traces}", "${cole.traces}", "sft1: data.0.source ${cole.traces} .* there is no stage cole; did you mean cold"),
        ("${cold.traces}", "${cold.model}", "a stage of kind sample has traces to refer to, and no model"),
        ("${cold.traces}", "${cold}", r"write \$\{stage.output\}"),
        ("data: countdown", 'data: "${sft2.traces}"', "the stages need each other, cold -> sft2 -> cold"),
        ("data: countdown", 'data: "${help_rm.traces}"', "the stages need each other, cold -> help_rm -> sft1 -> cold"),
        ('model: "${sft1.model}", data: pref', 'model: "${sft2.model}", data: pref', "sft2 comes later"),
        ('model: "${sft1.model}"\n', 'model: "${cold.traces}"\n', "here stands a model, and this is traces"),
        ('model: "${sft1.model}"\n', 'model: "${help_rm.model}"\n', "help_rm is a reward model, which writes no text"),
        ('"${help_rm.model}"', '"${help_rm.traces}"', r"align: rewards.1.args.model .* has model to refer to, and no traces"),
        ('"${help_rm.model}"', '"${align.model}"', "it is the stage itself"),
    ],
)
def test_a_reference_that_leads_nowhere_is_one_line_when_the_recipe_is_loaded(load, old, new, words):
    with pytest.raises(UserError, match=words.replace("${", r"\$\{")) as caught:
        load(old, new)
    assert "toy.yaml: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_dollar_signs_in_other_texts_are_no_references(load):
    stages = load("data: countdown", 'data: {source: countdown, question: "${price} {nums}"}')
    assert references(stages["cold"]) == {}


# Fingerprints.


@pytest.fixture
def chain(tmp_path, model_folder) -> Path:
    shutil.copytree(model_folder, tmp_path / "model")
    write_chain(tmp_path, tmp_path / "model")
    return tmp_path


def nodes_of(folder: Path, *overrides: str):
    return graph(load_chain(folder, *overrides), RunDir(folder / "run"))


def changed(folder: Path, before, *overrides: str) -> list[str]:
    return [name for name, node in nodes_of(folder, *overrides).items() if node.fingerprint != before[name].fingerprint]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a.learning_rate=2e-3", STAGES),
        ("b.learning_rate=2e-3", ["b", "last"]),
        ("side.learning_rate=2e-3", ["side"]),
        ("last.seed=1", ["last"]),
        ("seed=1", STAGES),
    ],
)
def test_one_key_changes_the_fingerprints_of_the_stage_and_of_those_that_need_it(chain, override, expected):
    assert changed(chain, nodes_of(chain), override) == expected


def test_a_file_changes_the_fingerprints_of_the_stages_that_read_it_and_of_those_that_need_them(chain):
    before = nodes_of(chain)
    (chain / "rows.jsonl").write_text('{"prompt": "1+1=", "completion": "3"}\n')
    assert changed(chain, before) == ["b", "last"]
    (chain / "model" / "generation_config.json").write_text("{}")
    assert changed(chain, before) == STAGES


def test_fingerprints_do_not_depend_on_the_run_directory(chain):
    elsewhere = graph(load_chain(chain), RunDir(chain / "elsewhere"))
    assert {name: node.fingerprint for name, node in elsewhere.items()} == {
        name: node.fingerprint for name, node in nodes_of(chain).items()
    }


def test_a_reward_model_of_ones_own_is_an_input(tmp_path, model_folder):
    shutil.copytree(model_folder, tmp_path / "rm")
    (tmp_path / "toy.yaml").write_text(ALL_KINDS.replace("${help_rm.model}", str(tmp_path / "rm")))
    before = graph(load_recipe(tmp_path / "toy.yaml"), RunDir(tmp_path))
    (tmp_path / "rm" / "config.json").write_text("{}")
    after = graph(load_recipe(tmp_path / "toy.yaml"), RunDir(tmp_path))
    assert [name for name in before if before[name].fingerprint != after[name].fingerprint] == ["align"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["a"], STAGES), (["b"], ["b", "last"]), (["side"], ["side"]), (["side", "b"], STAGES[1:]), ([], [])],
)
def test_dependents_follow_the_references_and_not_the_order(chain, names, expected):
    assert dependents(nodes_of(chain), names) == expected


# What a stage directory holds.


def begin(folder: Path, *names: str) -> None:
    """The directories of stages that have begun, each with something in it."""
    for name, node in nodes_of(folder).items():
        if name in names:
            write_atomic(node.stage.config, config_text(node))
            write_atomic(node.stage.metrics, "")


def test_the_configuration_is_read_back_as_it_was_written(chain):
    begin(chain, "a")
    node = nodes_of(chain)["a"]
    written = read_config(node.stage)
    assert (written.fingerprint, written.inputs) == (node.fingerprint, dict(node.inputs))
    assert SftStage(**written.values) == node.cfg


def test_states_of_a_stage(chain):
    begin(chain, "a", "b")
    finished = {"fingerprint": nodes_of(chain)["a"].fingerprint}
    (chain / "run" / "a" / "stage.json").write_text(json.dumps(finished))
    (chain / "run" / "b" / "stage.json").write_text('{"fingerprint": "of another configuration"}')
    assert {name: node.state for name, node in nodes_of(chain).items()} == {
        "a": "done",
        "b": "unfinished",
        "side": "absent",
        "last": "absent",
    }
    assert nodes_of(chain, "a.seed=3")["a"].state == nodes_of(chain, "a.seed=3")["b"].state == "changed"


def finish(folder: Path, name: str, model: str | None) -> None:
    """`stage.json` of a stage with one file of its model: its sha256, or None as of a large file."""
    file = {"size": 1, "sha256": model} if model else {"size": 1}
    node = nodes_of(folder)[name]
    manifest = {"fingerprint": node.fingerprint, "files": {"model/weights": file, "other": {}}, "ended": f"{model}"}
    write_atomic(node.stage.manifest, json.dumps(manifest))


def test_a_stage_that_was_made_again_changes_what_was_made_of_it_only_where_it_has_another_content(chain):
    begin(chain, "a")
    finish(chain, "a", "0d31")
    begin(chain, "b", "side")
    finish(chain, "b", "77ab")
    finish(chain, "a", "0d31")
    assert [nodes_of(chain)[name].state for name in ("b", "side")] == ["done", "unfinished"]
    (chain / "run" / "a" / "stage.json").unlink()
    assert [nodes_of(chain)[name].state for name in ("b", "side")] == ["done", "unfinished"]
    finish(chain, "a", "beef")
    nodes = nodes_of(chain)
    assert [nodes[name].state for name in ("a", "b", "side")] == ["done", "changed", "changed"]
    assert own_changes(nodes["b"]) == ["${a.model} was made again, with another content"]
    with pytest.raises(UserError, match="Run with --from b --from side to redo these"):
        refuse_changed(nodes, STAGES)


def test_of_files_too_large_to_be_hashed_the_manifest_tells_that_they_were_made_again(chain):
    begin(chain, "a")
    finish(chain, "a", None)
    begin(chain, "b")
    assert nodes_of(chain)["b"].state == "unfinished"
    path = chain / "run" / "a" / "stage.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "ended": "later"}))
    assert nodes_of(chain)["b"].state == "changed"


def test_a_stage_of_a_run_that_did_not_tell_what_it_was_made_of_counts_as_made_of_what_is_there(chain):
    begin(chain, "b")
    begin(chain, "a")
    finish(chain, "a", "0d31")
    finish(chain, "b", "77ab")
    assert nodes_of(chain)["b"].state == "done"


def test_a_folder_is_a_stage_where_its_configuration_has_a_name_and_a_known_kind(chain):
    begin(chain, "b", "last")
    for name, text in {"a": "a: 1", "list": "- a", "odd": "{name: x, kind: poem}", "bad": "a: [b", "none": ""}.items():
        write_atomic(chain / "run" / name / "config.yaml", text)
    (chain / "run" / "binary").mkdir()
    (chain / "run" / "binary" / "config.yaml").write_bytes(b"\xff\xfe")
    assert begun_stages(RunDir(chain / "run")) == {"b": "sft", "last": "eval"}


def test_what_is_not_of_a_run_is_neither_cleared_nor_written_over(chain):
    run, nodes = RunDir(chain / "run"), nodes_of(chain)
    node = next(iter(nodes.values()))
    folder = node.stage.path
    for left in ("config.yaml.77.tmp", ".DS_Store"):  # of a kill, and of a file manager
        write_atomic(folder / left, "")
    refuse_foreign(run, [node])
    write_atomic(folder / "config.yaml", "a: 1")  # of something else
    with pytest.raises(UserError, match=f"{node.name} is no stage of a run"):
        refuse_foreign(run, [node])
    (folder / "config.yaml").unlink()
    write_atomic(folder / "thesis.csv", "years of work")
    with pytest.raises(UserError, match=f"{node.name} is no stage of a run"):
        refuse_foreign(run, [node])
    (folder / "checkpoints").mkdir()  # a stage that somebody put a file into, and that lost its configuration
    refuse_foreign(run, [node])

    write_atomic(run.recipe, "# Mine.\nname: mine\n")
    with pytest.raises(UserError, match=r"recipe.yaml is there and not of a run"):
        refuse_foreign(run, [node])
    write_atomic(run.recipe, "# aha run mine.yaml\nname: mine\n")
    refuse_foreign(run, [node])

    shutil.move(folder, chain / "elsewhere")
    folder.symlink_to(chain / "elsewhere")
    with pytest.raises(UserError, match=f"{node.name} is a file or a link"):
        refuse_foreign(run, [node])
    refuse_foreign(run, [])
    folder.unlink()
    folder.write_text("x")
    with pytest.raises(UserError, match=f"{node.name} is a file or a link"):
        refuse_foreign(run, [node])


def test_what_a_stage_reads_under_its_home_and_a_grader_of_the_user_are_inputs(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"question": "1+1?", "gold": "2"}\n')
    (tmp_path / "countdown").mkdir()  # the generator of that name wins over it
    (tmp_path / "mygrader.py").write_text("def right(prompts, completions, **_): return [1.0] * len(completions)\n")
    (tmp_path / "r.yaml").write_text(
        "name: r\nstages: [{name: a, kind: eval, model: m, eval: {data: [{source: countdown}, "
        '{source: ~/rows.jsonl, grader: "mygrader:right"}]}}]\n'
    )
    [node] = graph(load_recipe(tmp_path / "r.yaml"), RunDir(tmp_path / "run")).values()
    assert set(node.inputs) == {"~/rows.jsonl", "mygrader:right"}


def test_a_package_of_the_user_is_an_input_with_all_its_modules(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "mypackage"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("from mypackage.inner.right import right\n")
    (package / "inner" / "right.py").write_text("def right(prompts, completions, **_): return [1.0] * len(completions)\n")
    (tmp_path / "r.yaml").write_text(
        "name: r\nstages: [{name: a, kind: eval, model: m, eval: {data: [{source: countdown, "
        'grader: "mypackage:right"}, {source: countdown, grader: "mypackage.inner.right:right"}]}}]\n'
    )

    def inputs() -> dict[str, str]:
        return dict(graph(load_recipe(tmp_path / "r.yaml"), RunDir(tmp_path / "run"))["a"].inputs)

    before = inputs()
    (package / "inner" / "right.pyc").write_text("compiled")
    assert inputs() == before
    (package / "inner" / "right.py").write_text("def right(prompts, completions, **_): return [0.0] * len(completions)\n")
    assert [key for key in before if inputs()[key] != before[key]] == ["mypackage.inner.right:right", "mypackage:right"]


def test_data_that_is_named_like_a_key_does_not_take_its_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").write_text('{"question": "1+1?", "gold": "2"}\n')
    (tmp_path / "r.yaml").write_text(
        "name: r\nstages: [{name: a, kind: sft, data: writers}, "
        '{name: b, kind: eval, model: "${a.model}", eval: {data: [{source: model}]}}]\n'
    )
    nodes = graph(load_recipe(tmp_path / "r.yaml"), RunDir(tmp_path / "run"))
    assert nodes["b"].inputs["model"] == nodes["a"].fingerprint
    assert set(nodes["b"].inputs) == {"model", "./model"}


def test_graders_are_those_of_data_at_any_depth(tmp_path):
    (tmp_path / "r.yaml").write_text(
        "name: r\nstages: [{name: a, kind: grpo, data: {source: countdown, columns: {grader: kind}, grader: one}, "
        "rewards: [{name: cosine, args: {grader: two}}], eval: {data: [{source: countdown, grader: three}]}}]\n"
    )
    [cfg] = load_recipe(tmp_path / "r.yaml").stages
    assert graders(cfg) == ["one", "three"]


def test_of_stages_that_changed_those_are_named_that_no_other_brings_along(chain):
    begin(chain, "a", "b", "side")
    nodes = nodes_of(chain, "a.seed=3", "b.seed=4")
    assert [node.name for node in roots_of(nodes, nodes)] == ["a", "b"]
    only_a = {"a": nodes_of(chain)["a"], **{name: nodes[name] for name in ("b", "side")}}
    assert [node.name for node in roots_of(only_a, only_a)] == ["b", "side"]  # `a` was redone by itself


def test_a_stage_that_left_nothing_can_be_changed_freely(chain):
    begin(chain, "b")
    (chain / "run" / "b" / "metrics.jsonl").unlink()
    (chain / "run" / "b" / "error.txt").write_text("no such file")
    assert nodes_of(chain, "b.seed=3")["b"].state == "absent"


def test_changes_are_told_by_key_and_those_of_earlier_stages_are_not(chain):
    begin(chain, "a", "b")
    assert own_changes(nodes_of(chain, "a.learning_rate=2e-3")["b"]) == []
    (chain / "rows.jsonl").write_text('{"prompt": "2+2=", "completion": "4"}\n')
    nodes = nodes_of(chain, "a.learning_rate=2e-3", "a.data.limit=4", "b.optim=muon")
    assert own_changes(nodes["a"]) == ["learning_rate was 0.001 and is 0.002", "data.0.limit was 8 and is 4"]
    assert own_changes(nodes["b"]) == [
        "optim was 'adamw_torch' and is 'muon'",
        f"the content of {chain / 'rows.jsonl'} has changed",
    ]


def test_many_changes_are_cut_short():
    assert told_changes(list("abcd")) == "a; b; c; d"
    assert told_changes(list("abcdef")) == "a; b; c; d; and 2 more"


def test_a_changed_stage_is_refused_with_every_flag_that_is_needed(chain):
    begin(chain, *STAGES)
    refuse_changed(nodes_of(chain), STAGES)
    with pytest.raises(UserError, match=r"run/b holds .*: seed was 42 and is 1\. Run with --from b to redo it and what"):
        refuse_changed(nodes_of(chain, "b.seed=1"), STAGES)
    with pytest.raises(UserError, match=r"run/b holds .* Run with --from b --from side to redo these"):
        refuse_changed(nodes_of(chain, "b.seed=1", "side.seed=1"), STAGES)
    refuse_changed(nodes_of(chain, "b.seed=1"), ["a", "side"])


def test_a_run_whose_configuration_names_no_inputs_is_refused_in_words(chain):
    begin(chain, "a")
    path = chain / "run" / "a" / "config.yaml"
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if not line.startswith("# inputs")))
    assert nodes_of(chain)["a"].state == "unfinished"
    (chain / "model" / "config.json").write_text("{}")
    assert own_changes(nodes_of(chain)["a"]) == ["its inputs (model or data files) have changed"]


@pytest.mark.parametrize(
    ("names", "last"),
    [
        (["base", "zero", "align", "student", "made"], "align"),
        (["base", "student"], "base"),
        (["student", "more", "align"], "more"),
        (["made", "base"], "made"),
    ],
)
def test_the_last_of_a_line_descends_from_the_weights_of_its_first(names, last):
    models = {"base": "tiny", "zero": "tiny", "silent": "${zero.model}", "align": "${silent.model}", "student": "mini"}
    configs = {name: {"model": model} for name, model in {**models, "more": "${student.model}"}.items()}
    assert last_of_line(names, {**configs, "made": {"model": "tiny", "init": "scratch"}}) == last
