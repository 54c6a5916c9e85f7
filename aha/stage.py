"""One stage, run in this process: what it refers to becomes paths, its verb runs, its manifest is written last.

`python -m aha.stage RUN STAGE PIPE` is the process that `aha run` starts for a stage, so that memory is free between
stages and a crash is that of one stage alone. PIPE is the reading end of a pipe that ends with the process that started it.
"""

import contextlib
import importlib
import json
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from aha.config import DataConfig, validate
from aha.graph import read_config
from aha.log import StageLog, printable
from aha.metrics import Measure
from aha.recipe import OUTPUTS, resolve
from aha.rundir import RunDir, describe_files, write_atomic
from aha.stage_configs import STAGE_KINDS, StageConfig
from aha.stop import INTERRUPTED, STOP, STOPS, outlive_terminal
from aha.types import UserError

VERSIONS_OF = ("aha-r1", "torch", "transformers", "math-verify")
VERBS = {
    "eval": "aha.evaluate",
    "sft": "aha.sft",
    "grpo": "aha.grpo",
    "sample": "aha.sample",
    "reward_model": "aha.reward_model",
}


def run_stage(run: RunDir, name: str, console: Console) -> None:
    """Run the stage as its `config.yaml` says, from its last checkpoint on, to its `stage.json`.

    Whatever goes wrong is raised, and told in `error.txt` for those who look at the run later.
    """
    stage = run.stage(name)
    stage.error.unlink(missing_ok=True)
    try:
        _run_stage(run, name, console)
    except Exception as error:
        told = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        with contextlib.suppress(OSError, UserError):  # the disk may be what failed
            write_atomic(stage.error, " ".join(told.split()) + "\n")
        raise


def _run_stage(run: RunDir, name: str, console: Console) -> None:
    started = time.monotonic()
    stage = run.stage(name)
    written = read_config(stage)
    if written is None:
        raise UserError(f"{stage.config}: no such file; `aha run` writes it")
    versions = {"python": platform.python_version(), **{name: version(name) for name in VERSIONS_OF}}
    cfg: StageConfig = validate(STAGE_KINDS[written.values["kind"]], written.values, str(stage.config))
    resolved = resolve(cfg, lambda other, output: run.stage(other).output(output))
    if cfg.kind == "eval":  # it has no steps to go on from, so what one that was cut off wrote is written again
        stage.metrics.unlink(missing_ok=True)
    with StageLog(name, cfg.kind, console, stage) as log:
        for key in learned_and_measured(resolved):
            log.note(f"{key} reads what the stage learns from; another split, or test_size, has what it has not seen")
        results = verb(cfg.kind)(resolved, stage, log)
    outputs = [output for output in OUTPUTS.get(cfg.kind, []) if stage.output(output).exists()]
    manifest = {
        "name": name,
        "kind": cfg.kind,
        "fingerprint": written.fingerprint,
        "inputs": written.inputs,
        "outputs": {output: stage.output(output).name for output in outputs},
        "files": describe_files(stage, outputs),
        "versions": versions,
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - started, 1),
        "resumed_at_step": log.first,
        "metrics": {key: m.as_dict() if isinstance(m, Measure) else m for key, m in results.items()},
    }
    write_atomic(stage.manifest, json.dumps(manifest, indent=2) + "\n")


def learned_and_measured(cfg: StageConfig) -> list[str]:
    """The keys of evaluation data that read the same rows as data of the stage: the split of a source is `train` by default,
    and a file is one split, whatever its name. Other seeds of a generator may draw the same problems."""

    def rows(source: DataConfig) -> dict[str, Any]:
        values = source.model_dump(include={"source", "preset", "subset", "split", "test_size", "args"})
        file = Path(source.source).expanduser()
        one_split = {"source": str(file.resolve()), "split": source.split.partition("[")[2]}
        return values | one_split if file.is_file() and source.test_size is None else values

    learned = [rows(source) for source in getattr(cfg, "data", [])]
    evaluation = getattr(cfg, "eval", None)
    measured = evaluation.data if evaluation else []
    return [f"eval.data.{i}" for i, source in enumerate(measured) if rows(source) in learned]


def verb(kind: str) -> Callable[..., Mapping[str, Any]]:
    """The function that runs a stage of this kind. Imported here: torch takes seconds, and plain commands do without."""
    run_verb: Callable[..., Mapping[str, Any]] = importlib.import_module(VERBS[kind]).run
    return run_verb


def main() -> None:
    """Run a stage as a process of its own: exit code 0, 2 for an error of use, 130 when told to stop, else 1."""
    run, name, pipe = sys.argv[1:]
    threading.Thread(target=_end_with_parent, args=(int(pipe),), daemon=True).start()
    outlive_terminal()
    STOP.listen()
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)  # `aha run` blocks them until here
        run_stage(RunDir(Path(run)), name, Console())
    except UserError as error:
        print(f"aha: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _end_with_parent(pipe: int) -> None:
    os.read(pipe, 1)  # nothing is ever written: this returns when the writing end is closed
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
