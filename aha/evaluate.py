"""Measure a model on problems: pass@1 with its interval, and the form of what it writes."""

from aha.config import EvalStage
from aha.engine.native import NativeEngine
from aha.log import StageLog
from aha.metrics import Measure, measure
from aha.model import compute_dtype, default_device, load_policy
from aha.rollout import evaluate, load_prompts, write_rollouts
from aha.rundir import StageDir
from aha.training import make_deterministic


def run(cfg: EvalStage, stage: StageDir | None, log: StageLog) -> dict[str, Measure]:
    """Answer every problem of `cfg.eval` and measure the answers; they are kept where there is a stage directory."""
    make_deterministic()
    device = default_device()
    dtype = compute_dtype(cfg.dtype, device)
    policy = load_policy(cfg, device, dtype)
    prompts, num_dropped = load_prompts(cfg.eval.data, policy, cfg.max_prompt_length)
    log.start(0, 0, problems=len(prompts), prompts_dropped=num_dropped)
    engine = NativeEngine(policy.model, policy.stop_ids, dtype, cfg.max_num_seqs)
    answers = evaluate(engine, policy, prompts, cfg, cfg.seed)
    if stage:
        write_rollouts(stage.answers, 0, answers)
    measures = measure(answers, policy.prompt)
    log.evaluation(0, measures)
    return measures
