"""Measure a model on problems, or two models on the same ones: pass@1 with its interval, and the form of what they write."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from aha.engine.native import NativeEngine
from aha.log import StageLog
from aha.metrics import Measure, accuracy_name, of_task, paired_difference, tasks_of
from aha.model import compute_dtype, default_device, load_policy
from aha.rollout import load_eval_prompts, measure_policy
from aha.rundir import StageDir
from aha.stage_configs import EvalStage
from aha.training import make_deterministic
from aha.types import Group


@dataclass(frozen=True)
class Comparison:
    """Two models on the same problems.

    Example: Comparison(against={"countdown/pass@1": Measure(0.25, 0.21, 0.29, 512), ...}, model={...},
                        difference={"countdown/pass@1": Measure(0.08, 0.05, 0.11, 512)})
    """

    against: dict[str, Measure]
    model: dict[str, Measure]
    difference: dict[str, Measure]  # the model's pass@1 less that of the other, paired by problem


def run(cfg: EvalStage, stage: StageDir | None, log: StageLog) -> dict[str, Measure]:
    """Answer every problem of `cfg.eval` and measure the answers; they are kept where there is a stage directory."""
    return answer(cfg, log, stage.answers if stage else None, stage.verdicts if stage else None)[1]


def compare(cfg: EvalStage, against: str, console: Console, kept: Path | None = None) -> Comparison:
    """Measure `cfg.model` and the model `against` on the same problems with the same random numbers.

    Each is asked with its own prompt settings. The answers of `cfg.model` are kept in `kept`. Raises UserError where one
    of them was not asked all problems.
    """
    with StageLog(against, "eval", console) as log:
        before, theirs = answer(cfg.model_copy(update={"model": against}), log)
    with StageLog(cfg.model, "eval", console) as log:
        after, ours = answer(cfg, log, kept)
    pairs = [(of_task(before, task), of_task(after, task)) for task in tasks_of(after)]
    difference = {accuracy_name(new): paired_difference(old, new) for old, new in pairs}
    return Comparison(theirs, ours, difference)


def answer(
    cfg: EvalStage, log: StageLog, kept: Path | None = None, verdicts: Path | None = None
) -> tuple[list[Group], dict[str, Measure]]:
    """The answers of `cfg.model` to every problem of `cfg.eval`, written to `kept` if given, and their measures."""
    make_deterministic()
    device = default_device()
    dtype = compute_dtype(cfg.dtype, device)
    policy = load_policy(cfg, device, dtype)
    prompts = load_eval_prompts(cfg, policy)
    log.start(0, 0, problems=len(prompts))
    engine = NativeEngine(policy.model, policy.stop_ids, dtype, cfg.max_num_seqs)
    return measure_policy(engine, policy, prompts, cfg, log, 0, kept, verdicts)
