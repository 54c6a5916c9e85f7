"""The parts of docs/guide.md and README.md that a recorded run and the recipe make, and the charts of the guide.

.venv/bin/python docs/guide.py   # docs/runs/tiny-r1.json and the recipe -> both pages, docs/runs/*.svg

`docs/record.py` makes the record. `docs/generate.py` does what this does, and more.
"""

import json
import math
import sys
import textwrap
from html import escape
from pathlib import Path
from typing import Any

import record
import yaml
from world import MARKS

from aha.config import PromptConfig
from aha.log import interval, printable
from aha.metrics import Measure
from aha.recipe import load_recipe, outputs_named, reference
from aha.report import draw, words
from aha.report.run import NO_POLICY, Stage
from aha.rundir import write_atomic
from aha.types import UserError

FOLDER = Path(__file__).parent
README = "../README.md"
TOLD_FIRST = {  # measures in the README, with what explains them there
    "countdown/pass@1": "",
    "words/pass@1": "",
    "language/single": ": thoughts in one language, that of the question",
    "plain/answered": "",
    "unsafe/refused": "",
    "unsafe_looking/answered": "",
    "length/mean": ", tokens",
}
SVG_STYLE = """
svg { --ink: #1b1f27; --dim: #5d6675; --line: #dde1e7;
  --c0: #0072b2; --c1: #c25400; --c2: #00805d; --c3: #a8518a; --c4: #8a6d00; --c5: #4b5563; }
@media (prefers-color-scheme: dark) { svg { --ink: #e7eaf0; --dim: #9aa4b4; --line: #343a45;
  --c0: #56b4e9; --c1: #f0883e; --c2: #2fc79b; --c3: #e08fc3; --c4: #e6c229; --c5: #b6bfcc; } }
text { fill: var(--dim); font: 11px system-ui, sans-serif; } .title { fill: var(--ink); font-weight: 600; }
.end { text-anchor: end; } line { stroke: var(--line); } polyline { fill: none; stroke-width: 1.8; }
"""


def guide_files(page: str) -> dict[str, str]:
    """The page and the README with their generated parts written anew, and the charts, by their paths from docs/."""
    told = json.loads(record.RECORD.read_text(encoding="utf-8"))
    stages = {stage["name"]: stage for stage in told["stages"]}
    whole = {"run": about_run, "chain": chain, "overview": overview, "problems": first_problems, "results": results}
    each = {"recipe": recipe_part, "effect": effect, "sample": sample}

    def part(name: str) -> str:
        if name in whole:
            return whole[name](told)
        kind, _, stage = name.partition("_")
        if stage != "defaults" and stage not in stages:
            raise UserError(f"docs/guide.md: {name}: {record.RECORD.name} holds no stage {stage}")
        return recipe_lines(stage) if stage == "defaults" else each[kind](stages[stage], told)

    pages = {"guide.md": page, README: (FOLDER / README).read_text(encoding="utf-8")}
    files = {name: MARKS.sub(lambda match: f"{match[1]}\n{part(match[2])}\n\n{match[3]}", text) for name, text in pages.items()}
    return files | {f"runs/{chart_name(stage)}": svg(stage) for stage in stages.values() if stage["curves"]}


def about_run(told: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    seconds = sum(stage["seconds"] for stage in told["stages"])
    tokens = sum(sum(stage["tokens"].values()) for stage in told["stages"])
    lines = [
        f"Every number and sample below is of one run, finished on {told['date']} ({told['machine']}; {versions}).",
        f"Its stages took {words.duration(seconds)} and {words.count(tokens)} tokens. Intervals hold 95 percent.",
    ]
    if told["other_settings"]:
        keys = "; ".join(f"`{name}`: {', '.join(f'`{key}`' for key in keys)}" for name, keys in told["other_settings"].items())
        lines.append(f"**It ran with other settings than those quoted below:** {keys}.")
    if told["settings"] != record.settings_hash():
        lines.append("**The recipe has changed since.**")
    return "\n".join(lines)


def chain(told: dict[str, Any]) -> str:
    """Stages and what they hand on, read from the recipe."""
    recipe = load_recipe(record.RECIPE)
    models = dict.fromkeys(cfg.model for cfg in recipe.stages if not reference(cfg.model))
    nodes = [f'  {name.replace("-", "_")}(["{name}"])' for name in models]
    nodes += [f'  {cfg.name}["{cfg.name} ({cfg.kind})"]' for cfg in recipe.stages]
    edges = []
    for cfg in recipe.stages:
        edges += [f"  {cfg.model.replace('-', '_')} --> {cfg.name}"] if cfg.model in models else []
        edges += [f"  {name} -->|{output}| {cfg.name}" for name, output in outputs_named(cfg.model_dump())]
    return "\n".join(["```mermaid", "flowchart TD", *nodes, *edges, "```"])


def overview(told: dict[str, Any]) -> str:
    """Every measure of every stage with a policy."""
    stages = [stage for stage in told["stages"] if stage["kind"] not in NO_POLICY]
    keys = dict.fromkeys(key for stage in stages for key in stage["metrics"])
    lines = [f"| measure | {' | '.join(stage['name'] for stage in stages)} |", "|---" * (len(stages) + 1) + "|"]
    for key in keys:
        cells = [spoken(stage["metrics"].get(key)).replace(" [", "<br>[") for stage in stages]
        lines.append(f"| `{key}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def results(told: dict[str, Any]) -> str:
    """The values of a few measures at every stage with a policy."""
    stages = [stage for stage in told["stages"] if stage["kind"] not in NO_POLICY]
    lines = [f"| metric | {' | '.join(stage['name'] for stage in stages)} |", "|---" * (len(stages) + 1) + "|"]
    for key, what in TOLD_FIRST.items():
        cells = [words.number(stage["metrics"][key][0]) if key in stage["metrics"] else "" for stage in stages]
        lines.append(f"| `{key}`{what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def first_problems(told: dict[str, Any]) -> str:
    parts = []
    for name in told["first_of_kind"]:
        problem = told["problems"][name]
        right = sum(answer["solved"] for answer in problem["answers"].values())
        head = f"<summary><code>{name}</code>: right at {right} of {len(problem['answers'])} stages</summary>"
        told_by = [answer_text(problem, stage) for stage in problem["answers"]]
        parts.append("\n\n".join(["<details>\n" + head, fenced(problem["question"]), *told_by, "</details>"]))
    return "\n\n".join(parts)


def recipe_lines(name: str) -> str:
    """The lines of a stage in the recipe with the comments above them, or those before the stages, `defaults`."""
    text = record.RECIPE.read_text(encoding="utf-8")
    lines = text.splitlines()
    tree = {key.value: (key, value) for key, value in yaml.compose(text).value}
    starts = {}
    for node in tree["stages"][1].value:
        start = node.start_mark.line
        while lines[start - 1].lstrip().startswith("#"):
            start -= 1
        starts[next(value.value for key, value in node.value if key.value == "name")] = start
    if name not in {"defaults", *starts}:
        raise UserError(f"docs/guide.md: {record.RECIPE.name} has no stage {name}")
    start = tree["name"][0].start_mark.line if name == "defaults" else starts[name]
    stop = min([line for line in [*starts.values(), len(lines)] if line > start])
    told = lines[start : tree["stages"][0].start_mark.line if name == "defaults" else stop]
    return "```yaml\n" + textwrap.dedent("\n".join(told)).strip("\n") + "\n```"


def recipe_part(stage: dict[str, Any], told: dict[str, Any]) -> str:
    command = f"aha run recipes/{record.RECIPE.name} --only {stage['name']}"
    return f"{recipe_lines(stage['name'])}\n\n```bash\n{command}\n```"


def effect(stage: dict[str, Any], told: dict[str, Any]) -> str:
    """What the stage cost, what its aim came to, and every measure beside those of the stages that it is compared with."""
    did = {"drawn": "drew", "learned": "learned from"}
    spent = [f"{did[what]} {words.count(number)} tokens" for what, number in stage["tokens"].items() if number]
    parts = [f"`{stage['name']}` took {', '.join([words.duration(stage['seconds']), *spent])}."]
    before = [other for other in told["stages"] if other["name"] in stage["differences"]]
    before.sort(key=lambda other: list(stage["differences"]).index(other["name"]))
    if before and stage["name"] in record.AIMS:
        parts[0] += " " + sentence(record.AIMS[stage["name"]][0], before[0], stage)
    if stage["filters"]:
        rows = [f"| {name} | {kept:,} | {'' if less is None else f'{less:,}'} |" for name, kept, less in stage["filters"]]
        parts.append("\n".join(["| filter | left | dropped |", "|---|---|---|", *rows]))
        refined = {key.removeprefix("refined/"): n for key, n in stage["numbers"].items() if key.startswith("refined/")}
        if refined:
            changed = ", ".join(f"`{name}` {number:,.0f}" for name, number in refined.items())
            parts.append(f"Answers that each refinement changed: {changed}.")
    columns = [*[f"`{other['name']}`" for other in before], f"`{stage['name']}`"]
    columns += [f"`{stage['name']}` less `{other['name']}`" for other in before] + ["n"]
    rows = []
    for key, m in stage["metrics"].items():
        cells = [spoken(other["metrics"].get(key)) for other in before] + [spoken(m)]
        cells += [spoken(stage["differences"][other["name"]].get(key), "+") for other in before]
        rows.append(f"| `{key}` | {' | '.join(cells)} | {m[3]:,} |")
    parts.append("\n".join([f"| measure | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|", *rows]))
    if stage["curves"]:
        parts.append(f"![Curves of the training of {stage['name']}](runs/{chart_name(stage)})")
    return "\n\n".join(parts)


def sentence(key: str, before: dict[str, Any], after: dict[str, Any]) -> str:
    """What became of a measure; a direction is told only where the interval of the difference is on one side of zero."""
    difference = after["differences"][before["name"]].get(key)
    if not difference:
        return ""
    ends = [f"{spoken(stage['metrics'][key])} at `{stage['name']}`" for stage in (before, after)]
    told = f"`{key}` {words.verb(*difference[1:3])} from {ends[0]} to {ends[1]}"
    return f"{told}; on the {difference[3]:,} problems that both answered, the difference is {spoken(difference, '+')}."


def spoken(numbers: list[float] | None, sign: str = "") -> str:
    return interval(Measure(*numbers[:3], int(numbers[3])), sign) if numbers else ""


def sample(stage: dict[str, Any], told: dict[str, Any]) -> str:
    chosen = stage["sample"]
    if "problem" in chosen:
        problem = told["problems"][chosen["problem"]]
        names = [name for name in (chosen.get("before"), stage["name"]) if name]
        return "\n\n".join([chosen["rule"], fenced(problem["question"]), *(answer_text(problem, name) for name in names)])
    texts = [part for head, text in chosen["texts"].items() for part in (f"{head}:", fenced(text))]
    return "\n\n".join([chosen["rule"], fenced(chosen["question"]), *texts])


def answer_text(problem: dict[str, Any], stage: str) -> str:
    answer = problem["answers"][stage]
    rewards = ", ".join(f"{name} {score:.3g}" for name, score in answer["rewards"].items())
    length = f"{answer['tokens']:,} tokens{', cut off' if answer['is_cut_off'] else ''}"
    return f"`{stage}`, {'right' if answer['solved'] else 'wrong'} ({rewards}; {length}):\n\n{fenced(answer['text'])}"


def fenced(text: str) -> str:
    """Model text as a block of code, whatever is in it."""
    fence = "```" if "```" not in text else "`" * (len(text) + 1)
    return f"{fence}text\n{printable(text)}\n{fence}"


def chart_name(stage: dict[str, Any]) -> str:
    return f"{record.RECORD.stem}-{stage['name']}.svg"


def stroke(place: int) -> str:
    """The look of a curve by its place: of six colours, then of the same ones dashed."""
    return f"stroke: var(--c{place % 6})" + ("; stroke-dasharray: 5 3" if place >= 6 else "")


def svg(stage: dict[str, Any]) -> str:
    """The curves of a stage's training, drawn as in the report, three charts in a row."""
    rows = [{"step": x, key: y} for key, curve in stage["curves"].items() for x, y in zip(*curve, strict=True)]
    drawn = draw.charts(Stage(stage["name"], {"kind": stage["kind"]}, "", {}, rows, {}, {}, PromptConfig(), ""))
    num_keys = max(len(chart.legend) for chart in drawn)
    wide, high = 370, 24 + 15 * num_keys + 196
    parts = []
    for place, chart in enumerate(drawn):
        inner = [f'<text class="title" x="4" y="14">{escape(chart.title)}</text>']
        for i, (name, last) in enumerate(chart.legend):
            y = 30 + 15 * i
            inner.append(f'<line x1="4" x2="18" y1="{y - 4}" y2="{y - 4}" style="{stroke(i)}; stroke-width: 3"/>')
            inner.append(f'<text x="24" y="{y}">{escape(name)}: {words.number(last)} at the end</text>')
        plot = [f'<line x1="{draw.LEFT}" x2="{draw.RIGHT}" y1="{y}" y2="{y}"/>' for y, _ in chart.y_ticks]
        plot += [f'<text class="end" x="{draw.LEFT - 5}" y="{y + 3.5}">{label}</text>' for y, label in chart.y_ticks]
        for i, (x, label) in enumerate(chart.x_ticks):
            plot.append(f'<text class="{"end" if i else ""}" x="{x}" y="183">{"" if i else "step "}{label}</text>')
        plot += [f'<polyline style="{stroke(i)}" points="{line}"/>' for i, line in enumerate(chart.lines)]
        inner.append(f'<g transform="translate(0 {24 + 15 * num_keys})">{"".join(plot)}</g>')
        parts.append(f'<g transform="translate({wide * (place % 3)} {high * (place // 3)})">' + "\n".join(inner) + "</g>")
    size = (wide * min(3, len(drawn)), high * math.ceil(len(drawn) / 3))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}" width="{size[0]}" role="img">'
    return "\n".join([head, f"<style>{SVG_STYLE}</style>", *parts, "</svg>\n"])


def main() -> None:
    try:
        for name, text in guide_files((FOLDER / "guide.md").read_text(encoding="utf-8")).items():
            write_atomic(FOLDER / name, text)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
