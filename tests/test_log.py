"""What a stage tells: curves, times and samples that fit eighty columns, and metrics.jsonl."""

import io
import json
import math

import pytest
from rich.cells import cell_len
from rich.console import Console

from aha import log as log_module
from aha.log import WIDTH, StageLog, clock, interval, printable, sample_text, side_by_side, sparkline, told
from aha.metrics import Measure
from aha.rundir import StageDir
from aha.types import Completion, Group, Problem, Sample

STEP = {
    "loss": 0.0123,
    "reward": 0.5123,
    "accuracy": 0.4512,
    "completions/mean_length": 102.34,
    "completions/clipped_ratio": 0.0625,
    "entropy": 0.3456,
    "grad_norm": 0.2345,
    "step_time": 12.34,
}


def group(question: str = "1+1?", text: str = "<think>a</think> <answer>2</answer>", is_solved: bool = True) -> Group:
    completion = Completion(Sample([1], [0.0], "stop"), text, {"accuracy": 1.0, "format": None}, 1.1, is_solved, 1.868)
    return Group(Problem("sums/0", "sums", question, {}, "accuracy"), "q", [1], [completion])


@pytest.fixture
def console() -> Console:
    """A console that is no terminal, as a file or a pipe is."""
    return Console(file=io.StringIO(), width=80)


def lines_of(console: Console) -> list[str]:
    return console.file.getvalue().splitlines()


# Helpers.


@pytest.mark.parametrize(
    ("values", "width", "expected"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, "▁▂▃▄▅▆▇█"),
        ([7, 0], 8, "█▁"),
        ([5], 8, "▁"),
        ([3, 3, 3], 8, "▁▁▁"),
        ([-1, 0, 1], 8, "▁▅█"),
        ([0, 0, 7, 7], 2, "▁█"),
        ([0, 2, 4, 10], 2, "▁█"),  # bins of 1 and 7
    ],
)
def test_sparkline_by_hand(values, width, expected):
    assert sparkline(values, width) == expected


@pytest.mark.parametrize("count", [1, 39, 40, 41, 59, 1000])
def test_a_sparkline_is_never_wider_than_asked(count):
    assert len(sparkline([math.sin(i / 9) for i in range(count)], 40)) == min(count, 40)


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_sparkline_bears_a_value_that_is_not_finite(odd, position):
    values = [0.0, 7.0]
    values.insert(position, odd)
    assert len(sparkline(values, 8)) == 3
    assert len(sparkline(values * 20, 40)) == 40


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0:00"), (9.4, "0:09"), (59.6, "1:00"), (61, "1:01"), (3599, "59:59"), (3600, "1:00:00"), (90061, "25:01:01")],
)
def test_clock(seconds, expected):
    assert clock(seconds) == expected


def test_a_measure_is_told_with_interval_and_number():
    assert told(Measure(0.25, 0.2137, 0.2899, 512)) == "0.250 [0.214, 0.290] n=512"
    assert told(Measure(102.34, 99.96, 104.7, 512)) == "102.3 [100.0, 104.7] n=512"


def test_a_difference_is_told_with_its_sign():
    assert interval(Measure(0.08, 0.051, 0.109, 512), "+") == "+0.080 [+0.051, +0.109]"
    assert interval(Measure(-0.08, -0.109, 0.0, 512), "+") == "-0.080 [-0.109, +0.000]"
    assert interval(Measure(-102.34, -104.7, -99.96, 512), "+") == "-102.3 [-104.7, -100.0]"


def test_two_evaluations_stand_side_by_side_in_eighty_columns():
    task = "a_task_with_a_long_name/pass@1"
    before = {task: Measure(0.25, 0.2137, 0.2899, 99999), "length/mean": Measure(1234.5, 1200.1, 1270.2, 99999)}
    after = {task: Measure(0.5, 0.4569, 0.5431, 99999), "length/mean": Measure(2234.5, 2200.1, 2270.2, 99999)}
    difference = {task: Measure(0.25, 0.2, 0.3, 99999)}
    lines = side_by_side(("tiny-base", "runs/a-run-with-a-long-name/zero/model"), before, after, difference)
    assert [line.split() for line in lines] == [
        ["tiny-base", "…-a-long-name/zero/model"],
        ["…_a_long_name/pass@1", "0.250", "[0.214,", "0.290]", "0.500", "[0.457,", "0.543]", "n=99999"],
        ["difference", "+0.250", "[+0.200,", "+0.300]"],
        ["length/mean", "1234.5", "[1200.1,", "1270.2]", "2234.5", "[2200.1,", "2270.2]", "n=99999"],
    ]
    assert lines[0].index("…") == lines[1].index("0.500") == lines[3].index("2234.5")
    assert max(map(len, lines)) <= WIDTH


def test_a_measure_that_one_of_two_evaluations_has_is_told_of_that_one():
    voted, known = {"gsm8k/maj@2": Measure(0.5, 0.4, 0.6, 8)}, {"gsm8k/pass@1": Measure(0.25, 0.2, 0.3, 8)}
    told = [line.split()[:2] for line in side_by_side(("a", "b"), voted, known, {})[1:]]
    assert told == [["gsm8k/maj@2", "0.500"], ["gsm8k/pass@1", "-"]]
    assert side_by_side(("a", "b"), voted, {}, {})[1].split()[-2:] == ["-", "n=8"]


def test_what_could_move_the_cursor_is_made_visible():
    assert printable("a\x1b[31mb\rc\td\x00\x9b\u202e\u200b") == "a·[31mb·c·d····"
    assert printable("a\n先 🙂") == "a\n先 🙂"


# Samples.


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("1+1?", "<think>a</think> <answer>2</answer>"),
        ("q" * 500, "x" * 5000),
        ("q", "x\n" * 500),
        ("q", ""),
        ("q", "\n\n\n"),
        ("q\n" * 50, "a"),
        ("问" * 100, "先试四十四加十九。" * 100),
        ("q", "🙂" * 300),
        ("q", "\t\x1b[2J" * 300),
    ],
    ids=lambda text: repr(text[:6]),
)
def test_a_sample_fits_a_dozen_lines_of_eighty_columns(question, text):
    lines = sample_text(group(question, text)).plain.split("\n")
    assert len(lines) <= 12
    assert max(map(cell_len, lines)) <= WIDTH


def test_a_sample_shows_question_completion_scores_and_advantage(console):
    console.print(sample_text(group()))
    assert lines_of(console) == [
        "",
        "  1+1?",
        "  <think>a</think> <answer>2</answer>",
        "  accuracy 1, format -; advantage +1.87",
    ]


def test_a_long_sample_keeps_its_beginning_and_its_end():
    text = "\n".join(f"line {i}" for i in range(40))
    lines = sample_text(group("q", text)).plain.split("\n")[2:-1]
    assert lines == [*(f"  line {i}" for i in range(6)), "  ...", "  line 38", "  line 39"]


def test_markup_in_model_text_is_text(console):
    console.print(sample_text(group("[bold]q[/]", "[red]a[/red] [link=x]")))
    assert "  [red]a[/red] [link=x]" in lines_of(console)
    assert "  [bold]q[/]" in lines_of(console)


# Plain output.


def plain_steps(console: Console, metrics: dict[str, float], steps: tuple[int, ...] = (1, 2), total: int = 40) -> list[str]:
    with StageLog("zero", "grpo", console) as log:
        log.start(total, 0, prompts=2048)
        for step in steps:
            log.step(step, metrics, group())
    return lines_of(console)


def test_plain_output_has_one_line_per_step_of_at_most_eighty_characters(console):
    lines = plain_steps(console, STEP, (1, 2, 40))
    assert len(lines) == 4
    assert all(len(line) <= 80 for line in lines)
    assert [line.split()[1] for line in lines[1:]] == ["1/40", "2/40", "40/40"]


def test_plain_output_stays_on_one_line_in_a_long_run(console):
    slow = {**STEP, "reward": -0.0123, "completions/mean_length": 12345.6, "step_time": 345.6}
    lines = plain_steps(console, slow, (998, 999), total=1000)
    assert len(lines) == 3
    assert all(len(line) <= 80 for line in lines)


def test_plain_output_of_supervised_training_shows_the_loss(console):
    lines = plain_steps(console, {"loss": 1.2345, "grad_norm": 0.5, "step_time": 0.31})
    assert lines[0] == "zero: grpo, 40 steps, 2048 prompts"
    assert lines[1].startswith("zero 1/40 loss 1.23, ")
    assert lines[1].endswith(" left")


def test_the_loss_is_hidden_beside_a_reward(console):
    [_, first, *_] = plain_steps(console, STEP)
    assert "reward 0.512 accuracy 0.451 length 102 entropy 0.346, " in first
    assert "loss" not in first


def test_plain_output_has_no_escape_codes(console, monkeypatch):
    monkeypatch.setattr(log_module, "PLAIN_SAMPLE_EVERY", -1.0)
    with StageLog("zero", "grpo", console) as log:
        log.start(2, 0, prompts=8)
        log.step(1, STEP, group(text="\x1b[31mred\x1b[0m \x07"))
        log.evaluation(1, {"sums/pass@1": Measure(0.25, 0.21, 0.29, 512)})
    text = console.file.getvalue()
    assert "·[31mred·[0m ·" in text
    assert "zero at step 1: sums/pass@1 0.250 [0.210, 0.290] n=512" in text
    assert all(character == "\n" or character.isprintable() for character in text)


def test_samples_are_shown_now_and_then_in_plain_output(console, monkeypatch):
    assert not any("advantage" in line for line in plain_steps(console, STEP))
    monkeypatch.setattr(log_module, "PLAIN_SAMPLE_EVERY", -1.0)
    assert sum("advantage" in line for line in plain_steps(console, STEP)) == 2


def test_an_evaluation_that_takes_long_counts_its_answers(console, monkeypatch):
    monkeypatch.setattr(log_module, "PLAIN_COUNT_EVERY", -1.0)
    with StageLog("base", "eval", console) as log:
        log.start(0, 0, problems=2)
        for done in range(1, 4):
            log.answered(done, 3)
        log.evaluation(0, {"sums/pass@1": Measure(0.25, 0.21, 0.29, 512)})
    assert lines_of(console) == [
        "base: eval, 2 problems",
        "base: 2 of 3 answers",
        "base: 3 of 3 answers",
        "base: sums/pass@1 0.250 [0.210, 0.290] n=512",
    ]


def test_the_view_counts_the_answers_of_an_evaluation_while_it_goes_on():
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None, legacy_windows=False)
    log = StageLog("zero", "grpo", console)
    log.answered(700, 1024)
    with console.capture() as before:
        console.print(log._view())
    log.evaluation(2, {})
    with console.capture() as after:
        console.print(log._view())
    assert before.get().splitlines()[1].rstrip() == "  700 of 1,024 answers"
    assert "answers" not in after.get()


def test_many_measures_stand_below_each_other(console):
    with StageLog("zero", "grpo", console) as log:
        log.evaluation(2, {"sums/pass@1": Measure(0.25, 0.21, 0.29, 512), "length/mean": Measure(35.25, 33, 37.5, 512)})
    assert lines_of(console) == [
        "zero at step 2:",
        "  sums/pass@1  0.250 [0.210, 0.290] n=512",
        "  length/mean  35.2 [33.0, 37.5] n=512",
    ]


def test_a_resumed_stage_says_so(console):
    with StageLog("zero", "grpo", console) as log:
        log.start(40, 20, prompts=8, prompts_dropped=0)
    assert lines_of(console) == ["zero: grpo, 40 steps, 8 prompts, resumed at step 20"]


def test_a_terminal_gets_a_view_of_eighty_columns():
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None, legacy_windows=False)
    with StageLog("zero", "grpo", console) as log:
        log.start(40, 0, prompts=8)
        for step in range(1, 60):
            log.step(step, {**STEP, "reward": step / 40}, group("q" * 200, "先试" * 200))
        with console.capture() as captured:
            console.print(log._view())
    lines = captured.get().splitlines()
    assert any("step 59/40" in line for line in lines)
    assert any("▁" in line and "█" in line and line.lstrip().startswith("reward") for line in lines)
    assert max(map(cell_len, lines)) <= 80


# metrics.jsonl.


def test_every_step_and_evaluation_is_a_line_of_metrics(console, tmp_path):
    with StageLog("zero", "grpo", console, StageDir(tmp_path)) as log:
        log.start(2, 0)
        log.step(1, STEP)
        log.step(2, STEP)
        log.evaluation(2, {"sums/pass@1": Measure(0.25, 0.21, 0.29, 512)})
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[:2] == [{"step": 1, **STEP}, {"step": 2, **STEP}]
    assert rows[2] == {"step": 2, "eval/sums/pass@1": {"value": 0.25, "low": 0.21, "high": 0.29, "n": 512}}


def test_a_resumed_stage_writes_its_lines_again_and_not_twice(console, tmp_path):
    for done in (0, 2):
        with StageLog("zero", "grpo", console, StageDir(tmp_path)) as log:
            log.start(4, done)
            for step in range(done + 1, 5):
                log.step(step, {**STEP, "reward": step})
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]


def test_without_a_stage_directory_nothing_is_written(console, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain_steps(console, STEP)
    assert list(tmp_path.iterdir()) == []
