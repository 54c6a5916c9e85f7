"""Progress for people and metrics for programs: a live view on a terminal, plain lines elsewhere, metrics.jsonl always."""

import itertools
import json
import math
import time
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType

from rich.cells import chop_cells, set_cell_size
from rich.console import Console
from rich.console import Group as Lines
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from aha.metrics import Measure
from aha.rundir import StageDir, disk_faults_are_user_errors, truncate_metrics, write_atomic
from aha.types import Group

WIDTH = 80  # columns that everything is readable at
BARS = "▁▂▃▄▅▆▇█"
CURVES = {  # metric: what the console calls it
    "loss": "loss",
    "eval_loss": "eval loss",
    "reward": "reward",
    "accuracy": "accuracy",
    "completions/mean_length": "length",
    "completions/clipped_ratio": "cut off",
    "entropy": "entropy",
    "kl": "kl",
    "teacher/kl": "teacher kl",
    "grad_norm": "grad norm",
}
PLAIN = ("loss", "eval_loss", "reward", "accuracy", "completions/mean_length", "entropy")
HIDDEN_BESIDE_REWARD = {"loss"}  # the loss of GRPO says nothing: its value is near zero by construction
PLAIN_SAMPLE_EVERY = 60.0  # seconds between sample completions in plain output
PLAIN_COUNT_EVERY = 30.0  # seconds between counts of the answers of an evaluation
SAMPLE_LINES = 9


class StageLog:
    """Everything that a running stage tells. Use it as a context manager; without a stage directory nothing is written."""

    def __init__(self, name: str, kind: str, console: Console, stage: StageDir | None = None):
        self.name, self.kind, self.console, self.stage = name, kind, console, stage
        self.total = self.done = self.first = 0
        self.started = time.monotonic()
        self.sampled = self.counted = self.started
        self.answers = ""  # how many of an evaluation there are, while it goes on
        self.history: dict[str, list[float]] = {}
        self.sample: Group | None = None
        self.live = Live(console=console, refresh_per_second=4, transient=True, get_renderable=self._view)

    def __enter__(self) -> "StageLog":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.live.stop()

    def start(self, total: int, done: int, missing: Collection[int] = (), **facts: int) -> None:
        """Say what is about to happen: `total` steps, of which a resumed stage has `done` some already: the first ones, but for
        those that are `missing`."""
        self.total, self.done, self.first, self.started = total, done, done, time.monotonic()
        told = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in facts.items() if value)
        resumed = f", resumed at step {done}" if done else ""
        steps = f"{total} steps" if total else ""
        self._print(f"{self.name}: {self.kind}, " + ", ".join(filter(None, (steps, told))) + resumed)
        if self.stage and total:
            truncate_metrics(self.stage.metrics, done + len(missing), total, missing)
            write_atomic(self.stage.progress, json.dumps({"total": total, "first": done}) + "\n")  # for `aha status`

    def step(self, step: int, metrics: Mapping[str, float], group: Group | None = None) -> None:
        """Record the metrics of a step, and perhaps show the first completion of `group`."""
        self.done = max(step, self.done)  # a missing one comes after later ones
        self._write({"step": step, **metrics})
        for key in CURVES:
            if key in metrics and not (key in HIDDEN_BESIDE_REWARD and "reward" in metrics):
                self.history.setdefault(key, []).append(metrics[key])
        self.sample = group or self.sample
        if self.console.is_terminal:
            return
        values = " ".join(f"{CURVES[key]} {metrics[key]:.3g}" for key in PLAIN if key in self.history and key in metrics)
        self._print(f"{self.name} {step}/{self.total} {values}, {self._left()} left"[:WIDTH])
        if self.sample and time.monotonic() - self.sampled > PLAIN_SAMPLE_EVERY:
            self.sampled = time.monotonic()
            self.console.print(sample_text(self.sample))

    def answered(self, done: int, total: int) -> None:
        """Show how many answers of an evaluation are drawn; the first begins it."""
        self.answers = f"{done:,} of {total:,} answers"
        if done == 1:
            self.counted = time.monotonic()
        elif not self.console.is_terminal and time.monotonic() - self.counted > PLAIN_COUNT_EVERY:
            self.counted = time.monotonic()
            self._print(f"{self.name}: {self.answers}")

    def evaluation(self, step: int, measures: Mapping[str, Measure]) -> None:
        """Record and show an evaluation."""
        self.answers = ""
        self._write({"step": step, **{f"eval/{key}": measure.as_dict() for key, measure in measures.items()}})
        at = f" at step {step}" if step else ""
        head, values = f"{self.name}{at}:", {key: told(measure) for key, measure in measures.items()}
        line = f"{head} " + ", ".join(f"{key} {value}" for key, value in values.items())
        width = max(map(len, values), default=0)
        rows = [head, *(f"  {key:{width}}  {value}" for key, value in values.items())]
        self._print(line if len(line) <= WIDTH else "\n".join(rows))

    def note(self, text: str) -> None:
        """Say something in a line of its own."""
        self._print(f"{self.name}: {text}")

    def record(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write numbers that no curve follows."""
        self._write({"step": step, **numbers})

    def _write(self, row: Mapping[str, object]) -> None:
        if self.stage:
            with disk_faults_are_user_errors(self.stage.metrics), self.stage.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    def _print(self, text: str) -> None:
        self.console.print(Text(text))

    def _left(self) -> str:
        done = self.done - self.first
        return clock((time.monotonic() - self.started) / done * (self.total - self.done)) if done else "?"

    def _view(self) -> Lines:
        elapsed = clock(time.monotonic() - self.started)
        head = Table.grid(padding=(0, 1))
        if self.total:
            bar = ProgressBar(total=self.total, completed=self.done, width=30)
            head.add_row(Text(self.name, "bold"), f"step {self.done}/{self.total}", bar, f"{elapsed}, {self._left()} left")
        else:
            head.add_row(Text(self.name, "bold"), self.kind, elapsed)
        curves = Table.grid(padding=(0, 2))
        for key, values in self.history.items():
            curves.add_row(f"  {CURVES[key]}", Text(sparkline(values, 40), "cyan"), f"{values[-1]:.3g}")
        counted = [Text(f"  {self.answers}")] if self.answers else []
        return Lines(head, *counted, curves, sample_text(self.sample) if self.sample else Text())


def told(measure: Measure) -> str:
    """A measure in words.

    Example: "0.250 [0.214, 0.290] n=512"
    """
    return f"{interval(measure)} n={measure.n}"


def interval(measure: Measure, sign: str = "") -> str:
    """A value with its interval; with `sign` "+" for differences.

    Example: "+0.080 [+0.051, +0.109]"
    """
    digits = 3 if abs(measure.value) < 10 else 1
    return f"{measure.value:{sign}.{digits}f} [{measure.low:{sign}.{digits}f}, {measure.high:{sign}.{digits}f}]"


def side_by_side(
    names: tuple[str, str], before: Mapping[str, Measure], after: Mapping[str, Measure], difference: Mapping[str, Measure]
) -> list[str]:
    """Lines of a table of two evaluations; under a measure its difference, where there is one. A measure that only one has
    is told of that one: maj@k depends on what was answered."""
    lines = [f"{'':20} {_end(names[0], 24):24} {_end(names[1], 24)}"]
    for key in dict.fromkeys([*before, *after]):
        found = [measures[key] for measures in (before, after) if key in measures]
        cells = [interval(measures[key]) if key in measures else "-" for measures in (before, after)]
        lines.append(f"{_end(key, 20):20} {cells[0]:24} {cells[1]:24} n={found[0].n}")
        if key in difference:
            lines.append(f"{'  difference':20} {interval(difference[key], '+')}")
    return lines


def _end(text: str, width: int) -> str:
    """The last `width` characters of a text, which tell paths and measures apart."""
    return text if len(text) <= width else "…" + text[1 - width :]


def sparkline(values: Sequence[float], width: int) -> str:
    """A curve of at most `width` characters; longer series are averaged into as many bins."""
    if len(values) > width:
        edges = [round(i * len(values) / width) for i in range(width + 1)]
        values = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)

    def bar(value: float) -> str:
        if not math.isfinite(value):
            return "!"
        return BARS[int((value - low) / (high - low) * (len(BARS) - 1) + 0.5)] if high > low else BARS[0]

    return "".join(map(bar, values))


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def printable(text: str) -> str:
    """Model text made safe for a terminal: control characters, which could move the cursor or worse, are shown as ·."""
    return "".join(c if c == "\n" or c.isprintable() else "·" for c in text)


def sample_text(group: Group) -> Text:
    """The first completion of a group with its rewards, in at most SAMPLE_LINES lines of WIDTH columns."""
    completion = group.completions[0]
    scores = ", ".join(f"{name} {'-' if score is None else f'{score:.2g}'}" for name, score in completion.scores.items())
    parts = [scores] * bool(scores) + [f"advantage {completion.advantage:+.2f}"]
    question = set_cell_size(printable(group.problem.question).replace("\n", " "), WIDTH - 4).rstrip()
    text = Text(f"\n  {question}", "dim")
    lines = [piece for line in printable(completion.text).split("\n") for piece in chop_cells(line, WIDTH - 4) or [""]]
    if len(lines) > SAMPLE_LINES:
        lines = [*lines[: SAMPLE_LINES - 3], "...", *lines[-2:]]
    text.append("".join(f"\n  {line}" for line in lines), "default not dim")
    text.append(f"\n  {'; '.join(parts)}", "green" if completion.solved else "yellow")
    return text
