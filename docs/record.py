"""Record what docs/guide.md tells of a run: what each stage measured, and one problem before and after it.

.venv/bin/python docs/record.py runs/tiny-r1   # -> docs/runs/tiny-r1.json, which is committed

Record on the machine that made the run: the file names the machine. `docs/guide.py` writes the pages from it.
"""

import hashlib
import json
import math
import os
import platform
import statistics
import sys
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pyarrow.parquet

from aha.config import DataConfig
from aha.data.mixture import load_mixture
from aha.metrics import Measure, bootstrap, measure
from aha.recipe import load_recipe, reference, resolve
from aha.report import answers, draw
from aha.report.run import Key, Run, Stage, read_run
from aha.rundir import RunDir, StageDir, write_atomic
from aha.types import Completion, Group, Problem, Sample, UserError

Values = dict[str, dict[Key, float]]  # of each measure, by problem

FOLDER = Path(__file__).parent
RECIPE = FOLDER.parent / "recipes" / "tiny-r1.yaml"
RECORD = FOLDER / "runs" / "tiny-r1.json"
WIDTH = 128  # columns of the record that a list or mapping may take to stand on one line
MAX_POINTS = 30  # of a recorded curve
CURVES = ("reward and its parts", "accuracy", "loss", "completion length (tokens)")  # of those in the report
SOLVED = ("pass@1", "answered", "refused")  # what the share of solved problems of a task may be called
COUNTS = ("length/mean", "language/words")  # measures that are no shares
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
    data = [DataConfig(**source) for source in (stage.config.get("eval") or {}).get("data", [])]
    asked = {(problem.id, problem.question): problem for problem in load_mixture(data)}
    names = {name.partition("/")[0]: name for name in stage.measures if name.partition("/")[2] in SOLVED}
    found: Values = {}
    for key, row in stage.answers.items():
        sample = Sample([0] * row["num_tokens"], [], row["finish_reason"])
        problem = asked.get(key) or Problem("", "", key[1], {}, "")  # the data of the run may not be here
        group = Group(problem, "", [], [Completion(sample, row["completion"], {}, None, False)])
        values = {name: m.value for name, m in measure([group], stage.prompt).items()}
        values[f"{row['kind']}/single_language"] = values["language/single"]
        form = {name: value for name, value in values.items() if name in stage.measures}
        for name, value in {**form, names[row["kind"]]: row["share"]}.items():
            found.setdefault(name, {})[key] = value
    means = {name: statistics.fmean(told.values()) for name, told in found.items()}
    return {name: told for name, told in found.items() if math.isclose(means[name], stage.measures[name].value, abs_tol=1e-9)}


def differences(old: Values, new: Values) -> dict[str, list[float]]:
    """Of every measure that both have, the mean difference over the problems that both answered, bootstrapped over them."""
    found = {}
    for name in new:
        changes = [value - old[name][key] for key, value in new[name].items() if key in old.get(name, {})]
        if changes:
            found[name] = numbers_of(bootstrap(changes, bounds=None if name in COUNTS else (-1, 1)))
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


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        write_atomic(RECORD, dumped(record(Path(sys.argv[1]))) + "\n")
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
