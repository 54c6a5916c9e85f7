"""docs/guide.md says what the recorded run measured and what the recipe holds, and its prose measures nothing."""

import json
import re
import sys
from importlib import import_module
from pathlib import Path

import pyarrow.parquet
import pytest
import yaml
from test_report import RIGHT, WRONG, add_stage, measure

from aha.recipe import load_recipe
from aha.report.run import read_run
from aha.types import UserError

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))
guide, record = import_module("guide"), import_module("record")

PAGE = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
PROSE = guide.MARKS.sub("", PAGE)
STAGES = [cfg.name for cfg in load_recipe(record.RECIPE).stages]
NODE = r'\w+(\["[^"]+"\]|\(\["[^"]+"\]\))?'
EDGE = rf"{NODE} -->(\|\w+\|)? {NODE}"


def test_page_and_charts_are_what_the_recorded_run_and_the_recipe_make():
    files = guide.guide_files(PAGE)
    stale = [name for name, text in files.items() if (ROOT / "docs" / name).read_text(encoding="utf-8") != text]
    assert stale == []
    charts = {f"runs/{path.name}" for path in (ROOT / "docs" / "runs").glob(f"{record.RECORD.stem}-*.svg")}
    assert charts == files.keys() - {"guide.md", "../README.md"}


def test_every_stage_of_the_recipe_has_a_section_with_all_its_parts():
    sections = {
        match[1]: match[2] for match in re.finditer(r"^## [^\n]*`(\w+)`\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    }
    assert list(sections) == STAGES
    for name, text in sections.items():
        parts = [f"<!-- generated: {part}_{name} -->" for part in ("recipe", "effect", "sample")]
        wanted = [*parts, "**The idea", "**The equation", "$$", "```mermaid", "**Not as in the paper.**", "**On a GPU.**"]
        assert [part for part in wanted if part not in text] == [], name


def test_recipe_lines_are_quoted_and_together_are_the_stages_of_the_recipe():
    quoted = re.findall(r"generated: recipe_\w+ -->\n\n```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    lines = [line.strip() for line in record.RECIPE.read_text().splitlines() if line.strip()]
    start = next(i for i, line in enumerate(lines) if line.startswith("name:"))
    assert [line.strip() for text in quoted for line in text.splitlines() if line.strip()] == [
        line for line in lines[start:] if line != "stages:"
    ]
    assert [yaml.safe_load(text)[0]["name"] for text in quoted[1:]] == STAGES


def sentences() -> list[str]:
    text = re.sub(r"^```.*?^```|^\$\$.*?^\$\$", "", PROSE, flags=re.DOTALL | re.MULTILINE)
    parts = [" ".join(part.split()) for part in re.split(r"\n\n+|\n(?=\|)", text)]
    return [sentence for part in parts for sentence in re.split(r"(?<=[.:;?!]) ", re.sub(r"`[^`]*`", "", part))]


def test_prose_has_no_number_but_those_of_papers_and_tells_no_direction():
    number = re.compile(r"%|percent|\d\.\d|\d\d|\d+e-\d")
    change = re.compile(r"\b(rose|fell|doubled|halved|improved|dropped|increased|decreased) (from|to|by)\b")
    named = re.compile(r"section|table|equation|arXiv")
    assert [sentence for sentence in sentences() if number.search(sentence) and not named.search(sentence)] == []
    assert [sentence for sentence in sentences() if change.search(sentence)] == []


def test_diagrams_are_plain_nodes_and_arrows():
    blocks = re.findall(r"^```mermaid\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 1 + len(STAGES)
    for block in blocks:
        head, *lines = block.splitlines()
        assert head in ("flowchart LR", "flowchart TD")
        assert [line for line in lines if not re.fullmatch(rf"  ({EDGE}|{NODE})", line)] == []


def test_equations_hold_nothing_that_markdown_would_change():
    for equation in re.findall(r"^\$\$\n(.*?)^\$\$", PAGE, re.DOTALL | re.MULTILINE):
        assert not re.search(r"\\[^A-Za-z]|[<*]", equation)  # GitHub drops such backslashes before it sets the formula
        assert equation.count("{") == equation.count("}")
        assert equation.count(r"\left") == equation.count(r"\right")


def test_links_lead_to_files_and_headings():
    for target, anchor in re.findall(r"\]\(([^)#:]+)(?:#([\w-]+))?\)", PAGE):
        path = ROOT / "docs" / target
        assert path.exists(), target
        headings = re.findall(r"^#+ (.*)", path.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        assert not anchor or anchor in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
    for name in re.findall(r"`(recipes/[\w.-]+)`", PAGE):
        assert (ROOT / name).exists(), name


def test_record_is_small_and_names_no_path_and_no_machine():
    text = record.RECORD.read_text(encoding="utf-8")
    assert len(text.encode()) < 150_000
    assert max(map(len, text.splitlines())) < 4_000
    assert not re.search(r'"[/~]|/(home|root|tmp|work|Users)/', text)
    assert record.dumped(json.loads(text)) + "\n" == text


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A run of three stages, and a recipe that is the guide's."""
    run = tmp_path / "toy"
    answers = {f"math/{i}": RIGHT if i == 5 else WRONG for i in range(6)}
    add_stage(run, "base", metrics={"math/pass@1": measure(1 / 6), "format/rate": measure(1.0)}, completions=answers, model="m")
    better = {f"math/{i}": RIGHT.replace("<think>", "") if i == 1 else RIGHT for i in range(6)}
    rows = [{"step": step, "reward": float(step), "grad_norm": 1.0} for step in range(100)]
    add_stage(run, "zero", "grpo", {"math/pass@1": measure(1.0), "format/rate": measure(5 / 6)}, rows, better, model="m")
    trace = {
        "id": "math/1#1",
        "prompt": "What is math/1?",
        "completion": "<think>2</think> <answer>2</answer>",
        "steps": ["cap_length"],
    }
    add_stage(run, "cold", "sample", {"sample/candidates": 3, "sample/kept": 1}, traces=[trace], model="${zero.model}")
    # The second is what the trace was made of, though the first looks more like it.
    drawn = [("<think>2.</think> <answer>2</answer>", True), ("<think>2, I think</think> <answer>2</answer>", True)]
    table = [
        {"problem": "math/1", "sample": i, "question": "What is math/1?", "completion": text, "solved": solved}
        for i, (text, solved) in enumerate(drawn)
    ]
    (run / "cold" / "rollouts").mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), run / "cold" / "rollouts" / "step-000001.parquet")
    recipe = tmp_path / "toy.yaml"
    recipe.write_text(
        """
name: toy
stages:
  - {name: base, kind: eval, model: m, eval: {data: [{source: countdown}]}}

  # Why.
  - {name: zero, kind: grpo, model: m, data: {source: countdown}, rewards: [{name: countdown}], per_device_train_batch_size: 8}
  - {name: cold, kind: sample, model: "${zero.model}", data: {source: countdown}}
"""
    )
    monkeypatch.setattr(record, "RECIPE", recipe)
    monkeypatch.setattr(record, "RECORD", tmp_path / "toy.json")
    monkeypatch.setattr(record, "AIMS", {"zero": ("math/pass@1", 0, 1)})
    return run


def test_a_recorded_run_is_written_into_the_page(folder):
    told = record.record(folder)
    record.RECORD.write_text(record.dumped(told))
    assert json.loads(record.RECORD.read_text()) == json.loads(json.dumps(told))
    names = [
        "run",
        "chain",
        "overview",
        "problems",
        "recipe_defaults",
        "recipe_zero",
        "effect_zero",
        "sample_zero",
        "sample_cold",
    ]
    files = guide.guide_files("".join(f"<!-- generated: {name} -->\n<!-- end -->\n" for name in names))
    page = files["guide.md"]
    assert guide.guide_files(page) == files  # written twice, the same page
    assert "rose from 0.167 [0.117, 0.217] at `base` to 1.000 [0.950, 1.050] at `zero`" in page
    assert "on the 6 problems that both answered, the difference is +0.833" in page
    assert "the first problem that `base` failed and `zero` passed. Of 6 problems `zero` gained 5 and lost 0." in page
    assert "# Why.\n- {name: zero, kind: grpo" in page
    assert "Drawn:\n\n```text\n<think>2, I think</think>" in page
    assert "  zero -->|model| cold" in page
    assert "`math/0`" not in page
    assert "<code>math/0</code>: right at 1 of 2 stages" in page
    assert files.keys() == {"guide.md", "../README.md", "runs/toy-zero.svg"}


def test_differences_are_paired_and_told_only_where_the_answers_give_the_measure(folder):
    [_, zero, _] = record.record(folder)["stages"]
    assert zero["differences"]["base"]["math/pass@1"][::3] == [0.833333, 6]
    assert zero["differences"]["base"]["format/rate"][0] == -0.166667
    same = record.by_problem(read_run(folder).stages[0])
    change, low, high, n = record.differences(same, same)["math/pass@1"]
    assert (change, n) == (0, 6)
    assert low < 0 < high  # six answers that stay as they are do not say that none would change
    stage = read_run(folder).stages[0]
    stage.measures["format/rate"] = record.Measure(0.5, 0.4, 0.6, 3)  # as with several answers to each problem
    assert "format/rate" not in record.by_problem(stage)


def test_values_are_rounded_once_and_told_alike_in_guide_and_readme(folder):
    manifest = json.loads((folder / "zero" / "stage.json").read_text())
    share = {"value": 917 / 1024, "low": 0.87, "high": 0.91, "n": 1024}  # 0.89551
    (folder / "zero" / "stage.json").write_text(
        json.dumps({**manifest, "metrics": {**manifest["metrics"], "words/pass@1": share}})
    )
    told = record.record(folder)
    assert "0.896<br>[0.870, 0.910]" in guide.overview(told)
    assert "| metric | base | zero |" in guide.results(told)
    assert "| `words/pass@1` |  | 0.896 |" in guide.results(told)


def test_curves_are_thinned_to_means(folder):
    [_, zero, _] = record.record(folder)["stages"]
    assert zero["curves"].keys() == {"reward"}
    steps, values = zero["curves"]["reward"]
    assert len(steps) <= record.MAX_POINTS
    assert steps[0] == values[0] == 1.5  # of the first four


def test_more_curves_than_colours_are_told_apart():
    curves = {f"rewards/{name}/mean": [[1, 2], [0, 1]] for name in "abcdefg"}
    drawn = guide.svg({"name": "zero", "kind": "grpo", "curves": curves})
    styles = re.findall(r'style="(stroke: [^"]*\))[;"]', drawn)
    assert len(styles) == 14
    assert drawn.count("stroke-dasharray") == 2  # of the seventh, name and curve


def test_settings_that_the_run_did_not_have_are_told(folder):
    config = yaml.safe_load((folder / "zero" / "config.yaml").read_text()) | {"max_steps": 7}
    (folder / "zero" / "config.yaml").write_text(yaml.safe_dump(config))
    told = record.record(folder)
    assert "max_steps" in told["other_settings"]["zero"]
    assert "`max_steps`" in guide.about_run(told)
    assert "has changed since" not in guide.about_run(told)
    record.RECIPE.write_text(record.RECIPE.read_text() + "seed: 7\n")
    assert "has changed since" in guide.about_run(told)


def test_an_unfinished_run_and_an_unknown_stage_are_one_clear_line(folder):
    record.RECORD.write_text(record.dumped(record.record(folder)))
    with pytest.raises(UserError, match=r"effect_other: toy\.json holds no stage other"):
        guide.guide_files("<!-- generated: effect_other -->\n<!-- end -->")
    (folder / "zero" / "stage.json").unlink()
    with pytest.raises(UserError, match=r"stage zero of toy\.yaml is missing or unfinished"):
        record.record(folder)
