"""Where things stand in the pictures: numbers only, the templates turn them into SVG."""

import fnmatch
import math
from dataclasses import dataclass
from itertools import pairwise

from aha.log import interval
from aha.metrics import Measure
from aha.report.run import Run, Stage

MAX_POINTS = 160  # of a curve; longer ones are averaged into as many bins
NO_HEIGHT = 1e-9  # of the values: what differs by less is drawn as equal
LEFT, RIGHT, TOP, BOTTOM = 42, 350, 10, 166  # plot area of a chart, in its own units
ROW, BOX = 96, 76  # from box to box in the chain, and height of a box, in pixels
LANE = 13  # pixels between two edges beside the boxes
TRAINING = {"grpo", "sft", "reward_model"}  # kinds of stages that have steps to draw
CHARTS = {  # title: the metrics in it
    "reward and its parts": ("reward", "rewards/*/mean"),
    "accuracy": ("accuracy",),
    "loss": ("loss", "eval_loss"),
    "completion length (tokens)": ("completions/mean_length",),
    "entropy": ("entropy",),
    "KL to the reference": ("kl",),
    "KL to the teacher": ("teacher/kl",),
    "gradient norm": ("grad_norm",),
}
UNTOLD = {"grpo": "loss"}  # near zero by construction

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Edge:
    """A dependency between two boxes: into the top of the next box, or through a lane into the left side of a later one."""

    outputs: str  # what is handed on: "model", "traces" or both
    path: str  # of SVG
    tip: str
    label: tuple[int, int] | None  # where its name stands


@dataclass(frozen=True)
class Chain:
    """The stages as boxes below each other, with the edges between them."""

    row: int  # pixels from box to box
    box: int  # height of a box
    gutter: int  # width of the lanes on the left
    edges: list[Edge]
    scale: float  # what the right end of the intervals stands for


def chain(run: Run) -> Chain:
    """Edges that leave the same stage share a lane, and the shortest lanes lie next to the boxes."""
    rows = {stage.name: row for row, stage in enumerate(run.stages)}
    outputs: dict[tuple[int, int], list[str]] = {}
    for stage in run.stages:
        for name, output in stage.inputs:
            if rows.get(name, len(rows)) < rows[stage.name]:
                outputs.setdefault((rows[name], rows[stage.name]), []).append(output)
    reach = {source: target for source, target in outputs if target > source + 1}  # the last target of each stays
    lanes: list[list[tuple[int, int]]] = []
    lane_of = {}
    for source, target in sorted(reach.items(), key=lambda span: span[1] - span[0]):
        free = [i for i, lane in enumerate(lanes) if all(target <= a or b <= source for a, b in lane)]
        lane_of[source] = free[0] if free else len(lanes)
        lanes += [] if free else [[]]
        lanes[lane_of[source]].append((source, target))
    gutter = LANE * len(lanes) + 12 if lanes else 0

    edges = []
    for (source, target), names in outputs.items():
        top, told = target * ROW, " + ".join(names)
        if target == source + 1:
            x = gutter + 24
            edges.append(Edge(told, f"M{x} {top - ROW + BOX}V{top - 5}", f"M{x - 4} {top - 7}h8l-4 7z", (x + 10, top - 6)))
        else:
            x, start, end = gutter - 12 - LANE * lane_of[source], source * ROW + BOX * 2 // 3, top + BOX // 3
            path = f"M{gutter} {start}H{x + 6}q-6 0 -6 6V{end - 6}q0 6 6 6H{gutter - 5}"
            edges.append(Edge(told, path, f"M{gutter - 7} {end - 4}v8l7-4z", None))
    return Chain(ROW, BOX, gutter, edges, scale_for([stage.measures[run.main] for stage in run.measured]))


def scale_for(measures: list[Measure]) -> float:
    """The end of an axis from zero that holds all intervals."""
    return ticks_for(0, max([m.high for m in measures if math.isfinite(m.high)], default=1))[-1]


@dataclass(frozen=True)
class Column:
    """A measure of the table, with a cell for each stage that has a policy and was measured."""

    key: str
    cells: dict[str, Measure]
    scale: float  # what the right end of its bars stands for: 1 for shares
    n: int | None  # observations behind each, where they are the same


def columns(run: Run) -> list[Column]:
    """Every measure that some stage with a policy has."""
    stages = [stage for stage in run.stages if stage.has_policy]
    found = []
    for key in dict.fromkeys(key for stage in stages for key in stage.measures):
        cells = {stage.name: stage.measures[key] for stage in stages if key in stage.measures}
        is_share = all(m.low >= 0 and m.high <= 1 for m in cells.values())
        sizes = {m.n for m in cells.values()}
        found.append(
            Column(key, cells, 1 if is_share else scale_for([*cells.values()]), sizes.pop() if len(sizes) == 1 else None)
        )
    return found


@dataclass(frozen=True)
class Dot:
    """An evaluation in a chart, with the ends of its interval."""

    title: str
    x: float
    y: float
    low: float
    high: float
    colour: int


@dataclass(frozen=True)
class Chart:
    """A small picture of some metrics over the steps of a stage."""

    title: str
    legend: list[tuple[str, float]]  # names and last values; their places are the colours
    lines: list[str]  # points of SVG polylines, in the first colours
    dots: list[Dot]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    num_left_out: int  # values that are not finite


def charts(stage: Stage) -> list[Chart]:
    """A chart for every entry of CHARTS that the stage has values of; evaluations stand in that of the accuracy."""
    keys = {key: None for row in stage.rows for key in row} if stage.kind in TRAINING else {}
    found = []
    for title, patterns in CHARTS.items():
        names = [key for pattern in patterns for key in keys if fnmatch.fnmatchcase(key, pattern)]
        series: dict[str, Points] = {key: [*stage.series(key)] for key in names if key != UNTOLD.get(stage.kind)}
        told = [key.removeprefix("eval/") for key in keys if key.startswith("eval/") and key.endswith(("/pass@1", "/accuracy"))]
        evaluations = {key: stage.evaluations(key) for key in told} if title == "accuracy" else {}
        if series or any(len(points) > 1 for points in evaluations.values()):  # the table has what was measured only once
            found += chart(title, series, evaluations)
    return found


def chart(title: str, series: dict[str, Points], evaluations: dict[str, list[tuple[int, Measure]]]) -> list[Chart]:
    """Curves and evaluations on common axes; none where nothing of it is finite."""
    curves = {key: [(step, y) for step, y in points if math.isfinite(y)] for key, points in series.items()}
    num_left_out = sum(len(points) - len(curves[key]) for key, points in series.items())
    curves = {key: binned(points) for key, points in curves.items() if points}
    told = [(step, key, m) for key, points in evaluations.items() for step, m in points]
    steps = [step for points in curves.values() for step, _ in points] + [step for step, _, _ in told]
    values = [y for points in curves.values() for _, y in points] + [y for _, _, m in told for y in (m.low, m.high)]
    if not values:
        return []
    first, last = min(steps), max(steps)
    ticks = ticks_for(min(values), max(values))

    def x_of(step: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * (step - first) / (last - first or 1), 1)

    def y_of(value: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * (value - ticks[0]) / (ticks[-1] - ticks[0]), 1)

    lines = [" ".join(f"{x_of(step)},{y_of(value)}" for step, value in points) for points in curves.values()]
    dots = []
    for step, key, m in told:
        place = list(evaluations).index(key)
        x = x_of(step) - 5 * (len(evaluations) - 1 - place)  # those of one step stand side by side
        ends = y_of(m.value), y_of(m.low), y_of(m.high)
        dots.append(Dot(f"{key} at step {step}: {interval(m)}", x, *ends, len(lines) + place))
    legend = [(_short(key), points[-1][1]) for key, points in curves.items()]
    legend += [(key, points[-1][1].value) for key, points in evaluations.items()]
    x_ticks = [(x_of(step), f"{step:,.0f}") for step in sorted({first, last})]
    return [Chart(title, legend, lines, dots, x_ticks, [(y_of(tick), f"{tick:.6g}") for tick in ticks], num_left_out)]


def _short(key: str) -> str:
    return key.removeprefix("rewards/").removesuffix("/mean").removeprefix("completions/").replace("_", " ")


def binned(points: Points) -> Points:
    """At most MAX_POINTS points; of more, the means of as many bins."""
    bins = min(len(points), MAX_POINTS)
    edges = [round(i * len(points) / bins) for i in range(bins + 1)]
    parts = [points[a:b] for a, b in pairwise(edges)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def ticks_for(low: float, high: float) -> list[float]:
    """Three to six round numbers around all values; from zero where that costs little of the height."""
    if 0 <= low <= 0.7 * high:
        low = 0.0
    if high - low <= NO_HEIGHT * max(abs(low), abs(high)):  # apart by rounding alone, or not at all
        low, high = (low - 0.5, high + 0.5) if low else (0.0, 1.0)
    rough = (high - low) / 4
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough * 0.999)
    start, end = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = 2 - math.floor(math.log10(step))
    return [round(i * step, digits) for i in range(start, end + 1)]
