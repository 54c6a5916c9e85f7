"""Recipes: what is read, what wins, and what every mistake is told as."""

import pytest

from aha.config import Config, RewardConfig, validate
from aha.recipe import load_recipe, reference
from aha.stage_configs import STAGE_KINDS, GrpoStage, Recipe
from aha.types import UserError

ZERO = {"name": "zero", "kind": "grpo", "data": {"source": "countdown"}, "rewards": [{"name": "countdown"}]}
RECIPE = """
name: toy
{top}
stages:
  - {{name: base, kind: eval, eval: {{data: [{{source: countdown}}]}}}}
  - name: zero
    kind: grpo
    data: {{source: countdown}}
    rewards: [{{name: countdown}}]
    {stage}
  - {{name: more, kind: sft, data: {{source: writers}}}}
"""


@pytest.fixture
def load(tmp_path):
    """A function that loads a recipe from its text."""

    def load_text(text: str, *overrides: str) -> Recipe:
        path = tmp_path / "toy.yaml"
        path.write_text(text, encoding="utf-8")
        return load_recipe(path, list(overrides))

    return load_text


def recipe(top: str = "", stage: str = "") -> str:
    return RECIPE.format(top=top, stage=stage)


def grpo(**changes) -> GrpoStage:
    return validate(GrpoStage, {**ZERO, **changes}, "here")


def stages_by_name(loaded: Recipe) -> dict[str, Config]:
    return {stage.name: stage for stage in loaded.stages}


# What is read.


def test_a_recipe_lists_only_differences(load):
    zero = stages_by_name(load(recipe()))["zero"]
    assert zero == GrpoStage(**ZERO)
    assert (zero.num_generations, zero.temperature, zero.model, zero.loss_type) == (8, 1.0, "tiny-base", "dapo")


def test_default_is_below_recipe_is_below_override(load):
    text = recipe("defaults: {learning_rate: 2.0e-6, temperature: 0.9, top_p: 0.8}", "temperature: 0.7\n    top_p: 0.6")
    zero = stages_by_name(load(text, "zero.top_p=0.5"))["zero"]
    assert (zero.min_p, zero.learning_rate, zero.temperature, zero.top_p) == (0.0, 2e-6, 0.7, 0.5)


def test_defaults_reach_only_the_stages_that_have_such_a_key(load):
    stages = stages_by_name(load(recipe("defaults: {num_generations: 4, max_length: 99}")))
    assert stages["zero"].num_generations == 4
    assert stages["more"].max_length == 99
    assert not hasattr(stages["base"], "max_length")


def test_mappings_of_defaults_are_merged_key_by_key(load):
    text = recipe("defaults: {prompt: {template: chat, prefill: '<think>'}}", "prompt: {template: plain}")
    stages = stages_by_name(load(text))
    assert (stages["zero"].prompt.template, stages["zero"].prompt.prefill) == ("plain", "<think>")
    assert (stages["more"].prompt.template, stages["more"].prompt.prefill) == ("chat", "<think>")


def test_lists_of_defaults_are_replaced(load):
    top = "defaults: {eval: {num_generations: 2, data: [{source: countdown}, {source: countdown, split: cold}]}}"
    zero = stages_by_name(load(recipe(top, "eval: {data: countdown}")))["zero"]
    assert [data.split for data in zero.eval.data] == ["train"]
    assert zero.eval.num_generations == 2


def test_a_null_takes_a_default_back(load):
    zero = stages_by_name(load(recipe("defaults: {max_prompt_length: 7}", "max_prompt_length: null")))["zero"]
    assert zero.max_prompt_length is None


def test_an_override_reaches_into_mappings_and_keeps_the_rest(load):
    zero = stages_by_name(load(recipe(stage="prompt: {prefill: x}"), "zero.prompt.template=chat"))["zero"]
    assert (zero.prompt.template, zero.prompt.prefill) == ("chat", "x")


def test_an_override_is_read_as_yaml(load):
    zero = stages_by_name(load(recipe(), "zero.rewards=[{name: format, weight: 0.5}]", "zero.learning_rate=3e-4"))["zero"]
    assert (zero.rewards[0].name, zero.rewards[0].weight, zero.learning_rate) == ("format", 0.5, 3e-4)


def test_the_later_of_two_overrides_wins(load):
    assert stages_by_name(load(recipe(), "zero.max_steps=3", "zero.max_steps=5"))["zero"].max_steps == 5


def test_the_seed_of_the_recipe_reaches_every_stage_without_its_own(load):
    assert [stage.seed for stage in load(recipe()).stages] == [42, 42, 42]
    assert [stage.seed for stage in load(recipe("seed: 7", "seed: 8")).stages] == [7, 8, 7]
    assert [stage.seed for stage in load(recipe("seed: 7", "seed: 8"), "seed=9").stages] == [9, 8, 9]
    assert load(recipe(), "seed=9").seed == 9


def test_the_same_recipe_gives_the_same_configuration(load):
    assert load(recipe()) == load(recipe())


def test_a_configuration_cannot_be_changed(load):
    with pytest.raises(ValueError, match="frozen"):
        load(recipe()).stages[0].temperature = 2.0


@pytest.mark.parametrize("cls", Config.__subclasses__() + list(STAGE_KINDS.values()), ids=lambda cls: cls.__name__)
def test_every_key_has_a_description(cls):
    assert [key for key, field in cls.model_fields.items() if not field.description and key != "kind"] == []


# Sizes.


def test_batch_sizes_follow_from_each_other():
    cfg = grpo(per_device_train_batch_size=6, gradient_accumulation_steps=2, steps_per_generation=4, num_generations=8)
    assert cfg.sequences_per_step == 12
    assert cfg.prompts_per_generation == 3  # 6 x 4 = 24 completions, 8 of each prompt
    assert cfg.updates_per_generation == 2
    assert grpo(num_iterations=3).updates_per_generation == 3


@pytest.mark.parametrize("number", [1, 0, -4])
def test_a_group_needs_two_completions(number):
    with pytest.raises(UserError, match=f"^here: num_generations is {number}: .*at least 2"):
        grpo(num_generations=number)


@pytest.mark.parametrize(("size", "steps", "group"), [(6, 1, 4), (3, 3, 2), (1, 1, 8), (5, 4, 16), (7, 3, 6)])
def test_the_message_about_batch_sizes_names_one_that_works(size, steps, group):
    sizes = {"gradient_accumulation_steps": steps, "num_generations": group}
    with pytest.raises(UserError, match=r"does not divide; per_device_train_batch_size \d+ works") as caught:
        grpo(per_device_train_batch_size=size, **sizes)
    works = int(str(caught.value).split()[-2])
    assert works > size
    assert grpo(per_device_train_batch_size=works, **sizes).prompts_per_generation == works * steps // group


def test_the_message_about_steps_per_generation_names_one_that_works():
    with pytest.raises(UserError, match=r"steps_per_generation 3 .* gradient_accumulation_steps 2; 4 works"):
        grpo(gradient_accumulation_steps=2, steps_per_generation=3)
    assert grpo(gradient_accumulation_steps=2, steps_per_generation=4).updates_per_generation == 2


def test_greedy_groups_are_refused():
    with pytest.raises(UserError, match="temperature is 0"):
        grpo(temperature=0)


def test_several_greedy_answers_to_a_problem_are_refused():
    data = [{"source": "countdown"}]
    assert grpo(eval={"data": data, "temperature": 0}).eval.num_generations == 1
    with pytest.raises(UserError, match=r"eval.num_generations is 4 at temperature 0: greedy answers .* are all the same"):
        grpo(eval={"data": data, "temperature": 0, "num_generations": 4})


# Mistakes: one line each, with the file and the key.


@pytest.mark.parametrize(
    ("text", "override", "words"),
    [
        (recipe("sed: 1"), None, ["unknown key sed", "did you mean seed?"]),
        (recipe(stage="learning_rat: 1"), None, ["zero: unknown key learning_rat", "did you mean learning_rate?"]),
        (recipe(stage="prompt: {templat: r1}"), None, ["unknown key prompt.templat", "did you mean template?"]),
        (
            recipe(stage="eval: {num_generation: 2}"),
            None,
            ["unknown key eval.num_generation;", "did you mean num_generations?"],
        ),
        (recipe(stage="eval: {dat: []}"), None, ["unknown key eval.dat;", "did you mean data?"]),
        (
            recipe(stage="eval: {data: [{source: countdown, limt: 2}]}"),
            None,
            ["unknown key eval.data.0.limt", "did you mean limit?"],
        ),
        (
            recipe().replace("[{name: countdown}]", "[{name: countdown, weigth: 2}]"),
            None,
            ["unknown key rewards.0.weigth", "did you mean weight?"],
        ),
        (recipe("defaults: {learning_rat: 1}"), None, ["unknown key defaults.learning_rat", "did you mean learning_rate?"]),
        (recipe("defaults: {eval: {temperatur: 1}}"), None, ["unknown key eval.temperatur;", "did you mean temperature?"]),
        (recipe(), "zero.max_step=3", ["zero: unknown key max_step", "did you mean max_steps?"]),
        (recipe(), "zero.data.splt=test", ["unknown key data.splt", "did you mean split?"]),
        (recipe(), "base.eval.num_generation=2", ["unknown key eval.num_generation;", "did you mean num_generations?"]),
        (recipe(), "sed=3", ["command line: unknown key sed", "did you mean seed?"]),
        (recipe(stage="zzzzzz: 1"), None, ["unknown key zzzzzz; known: ", "num_generations"]),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(load, text, override, words):
    with pytest.raises(UserError) as caught:
        load(text, *([override] if override else []))
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("max_steps: many", "zero: max_steps: input should be a valid integer"),
        ("max_steps: 1.5", "zero: max_steps: input should be a valid integer"),
        ("temperature: -1", "zero: temperature: input should be greater than or equal to 0"),
        ("temperature: .nan", "zero: temperature: "),
        ("learning_rate: 0", "zero: learning_rate: input should be greater than 0"),
        ("loss_type: ppo", "zero: loss_type: input should be 'grpo', 'dr_grpo', 'dapo' or 'cispo'"),
        ("prompt: r1", "zero: prompt: "),
        ("prompt: {think: 'a b'}", "zero: prompt.think: string should match pattern"),
        ("eval: {temperature: hot}", "zero: eval.temperature: input should be a valid number"),
        ("eval: {data: [{split: test}]}", "zero: eval.data.0.source is missing"),
    ],
)
def test_a_value_of_the_wrong_type_names_the_key(load, stage, words):
    with pytest.raises(UserError) as caught:
        load(recipe(stage=stage))
    assert words in str(caught.value)
    assert "toy.yaml: zero: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: [", "toy.yaml: not valid YAML at line 1"),
        ("name: a\nstages:\n  - {name: b", "not valid YAML at line 3"),
        ("name: a\nstages:\n  - {name: b, kind: eval, seed: 1, seed: 2}", "at line 3: seed stands there twice"),
        ("name: a\nstages: []\nname: b", "at line 3: name stands there twice"),
        ("{[1, 2]: x, name: a}", "not valid YAML at line 1: found unhashable key"),
        ("", "a recipe is a mapping with a list of `stages`"),
        ("- a", "a recipe is a mapping with a list of `stages`"),
        ("name: a\nstages: {b: c}", "a recipe is a mapping with a list of `stages`"),
        ("name: a\nstages: [eval]", "every entry of `stages` is a mapping"),
        ("name: a\nstages: []", "stages: list should have at least 1 item"),
        ("name: a\nstages: [{name: b, kind: evl}]", "stage b: unknown kind 'evl'; known: eval, sft, grpo"),
        ("name: a\nstages: [{name: b}]", "stage b: unknown kind None; known: eval, sft, grpo"),
        ("name: a\nstages: [{name: b, kind: [eval]}]", "stage b: unknown kind ['eval']; known: eval, sft, grpo"),
        ("name: a\nstages: [{kind: eval}]", "a stage of kind eval has no name"),
        ("name: a\nstages: [{name: b, kind: eval}]", "b: eval.data is empty"),
        ("name: a\nstages: [{name: b, kind: sft}]", "b: data is missing"),
        ("name: a\nstages: [{name: ../b, kind: sft, data: {source: writers}}]", "name: string should match pattern"),
        ("stages: [{name: b, kind: sft, data: {source: writers}}]", "toy.yaml: name is missing"),
        ("name: a\ndefaults: [seed]\nstages: [{name: b, kind: sft, data: {source: writers}}]", "defaults"),
        ("name: a\ndefaults: 5\nstages: [{name: b, kind: sft, data: {source: writers}}]", "defaults"),
        ("name: a\nseed: x\nstages: [{name: b, kind: sft, data: {source: writers}}]", "seed: input should be a valid integer"),
    ],
)
def test_what_is_no_recipe_is_told_in_one_line(load, text, words):
    with pytest.raises(UserError) as caught:
        load(text)
    assert words in str(caught.value)
    assert "toy.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.yaml: cannot read the recipe: No such file"):
        load_recipe(tmp_path / "nowhere.yaml")
    with pytest.raises(UserError, match="cannot read the recipe: Is a directory"):
        load_recipe(tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"bytes\.yaml: not valid YAML"):
        load_recipe(tmp_path / "bytes.yaml")


def test_two_stages_of_the_same_name_are_refused(load):
    with pytest.raises(UserError, match="two stages have the same name"):
        load(recipe().replace("name: more", "name: zero"))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("zero.max_steps", "'zero.max_steps' is no override: write stage.key=value"),
        ("one.max_steps=3", "no stage 'one'; the recipe has base, zero, more"),
        ("zero.rewards=[{", "'zero.rewards=[{'"),
        ("seed=[", "'seed=['"),
        ("zero.model.name=x", "zero: model: input should be a valid string"),
    ],
)
def test_an_override_that_does_not_fit_is_named(load, override, words):
    with pytest.raises(UserError) as caught:
        load(recipe(), override)
    assert words in str(caught.value)


# References.


def test_a_reference_to_an_earlier_stage_is_accepted(load):
    text = recipe().replace("{name: more, ", '{name: more, model: "${zero.model}", ')
    assert stages_by_name(load(text))["more"].model == "${zero.model}"
    assert reference("${zero.model}") == ("zero", "model")
    assert reference("tiny-base") is None


@pytest.mark.parametrize(
    "value",
    [
        "${more.model}",  # a later stage
        "${zero.model}",  # itself
        "${one.model}",  # no stage
        "${base.traces}",  # no such output
        "${base.model}",  # an evaluation leaves no model
        "${base}",  # no output named
    ],
)
def test_a_reference_to_no_earlier_output_is_refused(load, value):
    with pytest.raises(UserError) as caught:
        load(recipe(stage=f'model: "{value}"'))
    assert f"zero: model {value} is no output of an earlier stage" in str(caught.value)


@pytest.mark.parametrize(
    ("window", "steps"),
    [
        ({}, range(10)),
        ({"start_step": 0.75}, [8, 9]),
        ({"start_step": 1}, range(1, 10)),
        ({"end_step": 0.2}, [0, 1]),
        ({"start_step": 3, "end_step": 5}, [3, 4]),
        ({"end_step": 1}, range(10)),
    ],
)
def test_a_reward_counts_in_its_window_of_steps_or_shares_of_them(window, steps):
    cfg = RewardConfig(name="format", **window)
    assert [step for step in range(10) if cfg.counts_at(step, 10)] == list(steps)


def test_cispo_wants_its_cap_and_a_moving_reference_wants_beta():
    with pytest.raises(UserError, match="epsilon_high is missing: for loss_type cispo it is the cap"):
        grpo(loss_type="cispo")
    with pytest.raises(UserError, match="sync_ref_model needs a reference model, and with beta 0 there is none"):
        grpo(sync_ref_model=True)


def test_data_is_one_source_or_a_list_of_them(load):
    [source] = stages_by_name(load(recipe()))["zero"].data
    assert source.source == "countdown"
    mixed = [{"source": "countdown"}, {"source": "rows.jsonl"}]
    assert [cfg.source for cfg in grpo(data=mixed).data] == ["countdown", "rows.jsonl"]
    with pytest.raises(UserError, match="data: value should have at least 1 item"):
        grpo(data=[])


def test_an_override_reaches_into_a_list_by_place(load):
    loaded = load(recipe(), "zero.rewards.0.weight=0.5", "zero.data.limit=7")
    zero = stages_by_name(loaded)["zero"]
    assert (zero.rewards[0].weight, zero.data[0].limit) == (0.5, 7)
    for place in ("1", "weight"):
        with pytest.raises(UserError, match=f"a list of 1 stands there; write its place, from 0 to 0, not {place}"):
            load(recipe(), f"zero.rewards.{place}.weight=0.5")


def test_an_override_of_the_defaults_reaches_every_stage_that_has_the_key(load):
    stages = stages_by_name(load(recipe("defaults: {temperature: 0.5}"), "defaults.model=other", "defaults.temperature=0.7"))
    assert {stage.model for stage in stages.values()} == {"other"}
    assert stages["zero"].temperature == stages["base"].temperature == 0.7
    assert stages_by_name(load(recipe(), "defaults.model=other"))["zero"].model == "other"


def test_an_override_reaches_into_what_a_stage_has_from_the_defaults(load):
    text = recipe("defaults: {eval: {data: [{source: countdown, limit: 9}]}, prompt: {template: plain}}")
    stages = stages_by_name(load(text, "zero.eval.data.0.limit=5", "zero.prompt.prefill=<think>"))
    assert (stages["zero"].eval.data[0].source, stages["zero"].eval.data[0].limit) == ("countdown", 5)
    assert (stages["zero"].prompt.template, stages["zero"].prompt.prefill) == ("plain", "<think>")
    assert stages["base"].prompt.prefill == ""
    assert stages_by_name(load(text, "zero.temperature=0.5", "defaults.temperature=0.7"))["zero"].temperature == 0.5
