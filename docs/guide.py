"""The generated parts of docs/guide.md and README.md: what each stage of a run measured, one problem before and after it.

.venv/bin/python docs/guide.py record runs/tiny-r1   # the run -> docs/runs/tiny-r1.json, which is committed
.venv/bin/python docs/guide.py write                 # that file and the recipe -> both pages, docs/runs/*.svg

Record on the machine that made the run: the file names the machine. `docs/generate.py` does what `write` does.
"""

import hashlib
import json
import math
import os
import platform
import statistics
import sys
import textwrap
from dataclasses import replace
from fnmatch import fnmatch
from html import escape
from pathlib import Path
from typing import Any

import pyarrow.parquet
import yaml
from world import MARKS

from aha.config import PromptConfig
from aha.log import interval, printable
from aha.metrics import Measure, bootstrap, measure
from aha.recipe import load_recipe, outputs_named, reference, resolve
from aha.report import answers, draw, words
from aha.report.run import NO_POLICY, Key, Run, Stage, read_run
from aha.rundir import RunDir, StageDir, write_atomic
from aha.types import Completion, Group, Problem, Sample, UserError

Values = dict[str, dict[Key, float]]  # of each measure, by problem

FOLDER = Path(__file__).parent
README = "../README.md"
RECIPE = FOLDER.parent / "recipes" / "tiny-r1.yaml"
RECORD = FOLDER / "runs" / "tiny-r1.json"
WIDTH = 128  # columns of the record that a list or mapping may take to stand on one line
MAX_POINTS = 30  # of a recorded curve
CURVES = ("reward and its parts", "accuracy", "loss", "completion length (tokens)")  # of those in the report
SOLVED = ("pass@1", "answered", "refused")  # what the share of solved problems of a task may be called
# What a stage is for: the measure that its first sentence is about and that its sample is chosen by, with what that is
# before and after it in the sample.
AIMS = {
    "zero": ("countdown/pass@1", 0, 1),
    "sft1": ("language/single", 0, 1),
    "reason": ("language/single", 0, 1),
    "sft2": ("plain/answered", 0, 1),
    "align": ("unsafe/refused", 0, 1),
    "student": ("countdown/pass@1", 1, 1),
}
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


def record(folder: Path) -> dict[str, Any]:
    """What the guide tells of a run, with no path and no name of a machine in it.

    Raises UserError where the run is of another recipe, or a stage is missing or unfinished.
    """
    recipe, run = load_recipe(RECIPE), read_run(folder)
    done = {stage.name: stage for stage in run.stages if stage.manifest}
    missing = [cfg.name for cfg in recipe.stages if cfg.name not in done]
    if missing:
        raise UserError(f"{folder}: stage {missing[0]} of {RECIPE.name} is missing or unfinished")
    other_settings = {
        cfg.name: [key for key, value in cfg.model_dump(mode="json").items() if done[cfg.name].config.get(key, value) != value]
        for cfg in recipe.stages
    }
    run = replace(run, stages=[done[cfg.name] for cfg in recipe.stages])
    values = {stage.name: by_problem(stage) for stage in run.stages if stage.has_policy}
    told = [told_stage(stage, run, values, RunDir(folder)) for stage in run.stages]
    asked = run.stages[0].answers
    first_of_kind = {row["kind"]: key for key, row in reversed(asked.items())}.values()
    shown = {stage["sample"].get("problem") for stage in told}
    return {
        "name": run.name,
        "date": f"{run.ended:%Y-%m-%d}",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "versions": run.versions,
        "settings": settings_hash(),
        "other_settings": {name: keys for name, keys in other_settings.items() if keys},
        "stages": told,
        "first_of_kind": [key[0] for key in asked if key in first_of_kind],
        "problems": {key[0]: told_problem(key, run) for key in asked if key in first_of_kind or key[0] in shown},
    }


def settings_hash() -> str:
    """Of every value of the recipe, those that it leaves to the defaults too."""
    return hashlib.sha256(json.dumps(load_recipe(RECIPE).model_dump(mode="json")).encode()).hexdigest()


def told_stage(stage: Stage, run: Run, values: dict[str, Values], folder: RunDir) -> dict[str, Any]:
    before = compared_with(stage, run)
    patterns = [pattern for title in CURVES for pattern in draw.CHARTS[title]]
    keys = dict.fromkeys(key for row in stage.rows for key in row if any(fnmatch(key, pattern) for pattern in patterns))
    trains = stage.kind in draw.TRAINING
    return {
        "name": stage.name,
        "kind": stage.kind,
        "seconds": stage.seconds,
        "tokens": {"drawn": stage.tokens_drawn, "learned": stage.tokens_learned},
        "metrics": {key: numbers_of(m) for key, m in stage.measures.items()},
        "numbers": {key: rounded(value) for key, value in stage.numbers.items()},
        "filters": stage.filters,
        "differences": {old.name: differences(values[old.name], values[stage.name]) for old in before},
        "curves": {key: thinned(stage.series(key)) for key in keys if trains and key != draw.UNTOLD.get(stage.kind)},
        "sample": told_sample(stage, before, values, folder),
    }


def compared_with(stage: Stage, run: Run) -> list[Stage]:
    """The measured stages that a stage is compared with: the one whose model it starts from, or that measured this model,
    then those whose models wrote the traces that it learns from."""
    by_name = {other.name: other for other in run.stages}
    if not stage.has_policy:
        return []

    def policy_of(other: Stage) -> list[str]:
        model = str(other.config.get("model"))
        found = reference(model)
        same = [s.name for s in run.stages if s.kind == "eval" and s.config.get("model") == model and s is not stage]
        return [found[0]] if found else same[:1]

    writers = [policy_of(by_name[name]) for name, output in stage.inputs if output == "traces"]
    names = dict.fromkeys(name for found in [policy_of(stage), *writers] for name in found)
    return [by_name[name] for name in names if by_name[name] in run.measured]


def by_problem(stage: Stage) -> Values:
    """Measures problem by problem. Where a problem was answered several times, only its share of right answers is known."""
    names = {name.partition("/")[0]: name for name in stage.measures if name.partition("/")[2] in SOLVED}
    found: Values = {}
    for key, row in stage.answers.items():
        sample = Sample([0] * row["num_tokens"], [], row["finish_reason"])
        group = Group(Problem("", "", key[1], {}, ""), "", [], [Completion(sample, row["completion"], {}, None, False)])
        form = {name: m.value for name, m in measure([group], stage.prompt).items() if name in stage.measures}
        for name, value in {names[row["kind"]]: row["share"], **form}.items():
            found.setdefault(name, {})[key] = value
    means = {name: statistics.fmean(told.values()) for name, told in found.items()}
    return {name: told for name, told in found.items() if math.isclose(means[name], stage.measures[name].value, abs_tol=1e-9)}


def differences(old: Values, new: Values) -> dict[str, list[float]]:
    """Of every measure that both have, the mean difference over the problems that both answered, bootstrapped over them."""
    found = {}
    for name in new:
        changes = [value - old[name][key] for key, value in new[name].items() if key in old.get(name, {})]
        if changes:
            found[name] = numbers_of(bootstrap(changes))
    return found


def told_sample(stage: Stage, before: list[Stage], values: dict[str, Values], folder: RunDir) -> dict[str, Any]:
    """What the sample of a stage is and by which rule it was chosen: one of the run's problems, or a text or two."""
    if stage.kind == "sample":
        return sampled(folder.stage(stage.name))
    if stage.kind == "reward_model":
        return scored(stage, folder)
    if not before:
        return {"problem": next(iter(stage.answers))[0], "rule": "The first problem of the evaluation."}
    name, *wanted = AIMS.get(stage.name, (next(iter(stage.measures)), 0, 1))
    old, new = values[before[0].name][name], values[stage.name][name]
    pairs = {key: [old[key], value] for key, value in new.items() if key in old}
    gained, lost = list(pairs.values()).count([0, 1]), list(pairs.values()).count([1, 0])
    fitting = [key for key, pair in pairs.items() if pair == wanted]
    outcome = "failed" if wanted == [0, 1] else "passed"
    rule = f"By `{name}`, the first problem that `{before[0].name}` {outcome} and `{stage.name}` passed"
    rule += "" if fitting else "; there is none, so this is the first problem"
    counts = f"Of {len(pairs):,} problems `{stage.name}` gained {gained:,} and lost {lost:,}."
    return {"problem": (fitting or list(pairs))[0][0], "before": before[0].name, "rule": f"{rule}. {counts}"}


def sampled(stage: StageDir) -> dict[str, Any]:
    """A trace, and an answer as it was drawn: what the trace was before it was refined or, where none was, one to the
    same question that was dropped."""
    traces = [json.loads(line) for line in stage.traces.read_text(encoding="utf-8").splitlines()]
    drawn: dict[str, list[dict[str, Any]]] = {}
    for file in sorted(stage.path.glob("rollouts/step-*.parquet")):
        for row in pyarrow.parquet.read_table(file).to_pylist():
            drawn.setdefault(row["question"], []).append(row)

    refined = next((trace for trace in traces if trace["steps"]), None)
    if refined:
        draft = next(row for row in drawn[refined["prompt"]] if f"{row['problem']}#{row['sample']}" == refined["id"])
        steps = ", ".join(f"`{name}`" for name in refined["steps"])
        rule = f"The first trace that a refinement changed ({steps}), as it was drawn and as it was kept."
        texts = {"Drawn": cut(draft["completion"]), "Kept": cut(refined["completion"])}
        return {"rule": rule, "question": refined["prompt"], "texts": texts}
    for trace in traces:
        rows = [row for row in drawn[trace["prompt"]] if not row["solved"]]
        if rows:
            rule = "Of the first question with a trace and a wrong answer: its first wrong answer, and the trace."
            texts = {"Dropped": cut(rows[0]["completion"]), "Kept": cut(trace["completion"])}
            return {"rule": rule, "question": trace["prompt"], "texts": texts}
    return {"rule": "The first trace.", "question": traces[0]["prompt"], "texts": {"Kept": cut(traces[0]["completion"])}}


def scored(stage: Stage, folder: RunDir) -> dict[str, Any]:
    """The first held-out preference, with the raw rewards of its replies before the first step and after the last."""
    import torch

    from aha.config import validate
    from aha.data.mixture import load_preference_mixture
    from aha.scorer import encode, load_reward_model, load_scorer, score
    from aha.stage_configs import RewardModelStage

    cfg = validate(RewardModelStage, stage.config, stage.name)
    cfg = resolve(cfg, lambda name, output: folder.stage(name).output(output))
    device = torch.device("cpu")
    preference = load_preference_mixture(cfg.eval.data, cfg.seed)[0]
    pairs = [(reply.prompt, reply.text) for reply in preference.replies]
    untrained = load_reward_model(cfg, device)
    before = score(untrained.model.eval(), encode(pairs, untrained.tokenizer))
    after = load_scorer(str(folder.stage(stage.name).model), device, torch.float32)(pairs)
    texts = {
        f"{'Good' if reply.is_good else 'Bad'} reply, reward {old:+.2f} before and {new:+.2f} after": reply.text
        for reply, old, new in zip(preference.replies, before, after, strict=True)
    }
    rule = "The first held-out preference, scored with the head as it was drawn and as it was trained."
    return {"rule": rule, "question": pairs[0][0][-1]["content"], "texts": texts}


def told_problem(key: Key, run: Run) -> dict[str, Any]:
    """One problem with the answers of all stages."""
    stages = [replace(stage, answers={key: stage.answers[key]} if key in stage.answers else {}) for stage in run.stages]
    chosen = answers.choose(replace(run, stages=stages))
    assert chosen
    [problem] = chosen.problems
    told = {
        answer.stage: {
            "text": cut(answer.row["completion"]),
            "solved": answer.row["solved"],
            "rewards": answer.scores,
            "tokens": answer.row["num_tokens"],
            "is_cut_off": answer.row["finish_reason"] == "length",
        }
        for answer in problem.answers
    }
    return {"kind": problem.kind, "question": cut(key[1]), "answers": told}


def cut(text: str) -> str:
    piece = answers.shortened("rest", text)
    return f"{piece.text} [{piece.left_out} characters] {piece.end}" if piece.left_out else text


def rounded(value: float) -> float:
    return float(f"{value:.6g}")  # the pages tell three digits, and rounding twice may be wrong in the last


def numbers_of(m: Measure) -> list[float]:
    """value, low, high, n"""
    return [*(rounded(value) for value in (m.value, m.low, m.high)), m.n]


def thinned(points: list[tuple[int, float]]) -> list[list[float]]:
    """Steps and values of a curve; of one with many points the means of as many in a row."""
    size = math.ceil(len(points) / MAX_POINTS)
    columns = zip(*points, strict=True)
    return [[rounded(statistics.fmean(column[i : i + size])) for i in range(0, len(points), size)] for column in columns]


def dumped(value: Any, indent: str = "") -> str:
    """JSON in which a list of numbers, and whatever fits, takes one line, so that a diff shows what has changed."""
    line = json.dumps(value, ensure_ascii=False)
    is_curve = isinstance(value, list) and all(isinstance(item, int | float) for item in value)
    if not isinstance(value, list | dict) or is_curve or len(indent) + len(line) <= WIDTH:
        return line
    inner = indent + " "
    if isinstance(value, list):
        items = [inner + dumped(item, inner) for item in value]
    else:
        items = [f"{inner}{json.dumps(key, ensure_ascii=False)}: {dumped(item, inner)}" for key, item in value.items()]
    return line[0] + "\n" + ",\n".join(items) + "\n" + indent + line[-1]


def guide_files(page: str) -> dict[str, str]:
    """The page and the README with their generated parts written anew, and the charts, by their paths from docs/."""
    told = json.loads(RECORD.read_text(encoding="utf-8"))
    stages = {stage["name"]: stage for stage in told["stages"]}
    whole = {"run": about_run, "chain": chain, "overview": overview, "problems": first_problems, "results": results}
    each = {"recipe": recipe_part, "effect": effect, "sample": sample}

    def part(name: str) -> str:
        if name in whole:
            return whole[name](told)
        kind, _, stage = name.partition("_")
        if stage != "defaults" and stage not in stages:
            raise UserError(f"docs/guide.md: {name}: {RECORD.name} holds no stage {stage}")
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
    if told["settings"] != settings_hash():
        lines.append("**The recipe has changed since.**")
    return "\n".join(lines)


def chain(told: dict[str, Any]) -> str:
    """Stages and what they hand on, read from the recipe."""
    recipe = load_recipe(RECIPE)
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
    text = RECIPE.read_text(encoding="utf-8")
    lines = text.splitlines()
    tree = {key.value: (key, value) for key, value in yaml.compose(text).value}
    starts = {}
    for node in tree["stages"][1].value:
        start = node.start_mark.line
        while lines[start - 1].lstrip().startswith("#"):
            start -= 1
        starts[next(value.value for key, value in node.value if key.value == "name")] = start
    if name not in {"defaults", *starts}:
        raise UserError(f"docs/guide.md: {RECIPE.name} has no stage {name}")
    start = tree["name"][0].start_mark.line if name == "defaults" else starts[name]
    stop = min([line for line in [*starts.values(), len(lines)] if line > start])
    told = lines[start : tree["stages"][0].start_mark.line if name == "defaults" else stop]
    return "```yaml\n" + textwrap.dedent("\n".join(told)).strip("\n") + "\n```"


def recipe_part(stage: dict[str, Any], told: dict[str, Any]) -> str:
    command = f"aha run recipes/{RECIPE.name} --only {stage['name']}"
    return f"{recipe_lines(stage['name'])}\n\n```bash\n{command}\n```"


def effect(stage: dict[str, Any], told: dict[str, Any]) -> str:
    """What the stage cost, what its aim came to, and every measure beside those of the stages that it is compared with."""
    did = {"drawn": "drew", "learned": "learned from"}
    spent = [f"{did[what]} {words.count(number)} tokens" for what, number in stage["tokens"].items() if number]
    parts = [f"`{stage['name']}` took {', '.join([words.duration(stage['seconds']), *spent])}."]
    before = [other for other in told["stages"] if other["name"] in stage["differences"]]
    before.sort(key=lambda other: list(stage["differences"]).index(other["name"]))
    if before and stage["name"] in AIMS:
        parts[0] += " " + sentence(AIMS[stage["name"]][0], before[0], stage)
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
    return f"{RECORD.stem}-{stage['name']}.svg"


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
        match sys.argv[1:]:
            case ["record", folder]:
                write_atomic(RECORD, dumped(record(Path(folder))) + "\n")
            case ["write"]:
                for name, text in guide_files((FOLDER / "guide.md").read_text(encoding="utf-8")).items():
                    write_atomic(FOLDER / name, text)
            case _:
                sys.exit(__doc__)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
