"""The command line as its users meet it: separate processes, exit codes, one line per mistake."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet
import pytest
import torch
from typer.testing import CliRunner

from aha import __version__, cli
from aha.cli import app
from aha.data.presets import PRESETS
from aha.metrics import bootstrap
from aha.model import save_policy

RECIPE = """
name: toy
stages:
  - name: zero
    kind: grpo
    model: {model}
    data: {{source: countdown, split: train, limit: 8}}
    rewards: [{{name: countdown}}]
    num_generations: 4
    per_device_train_batch_size: 8
    max_completion_length: 8
    max_steps: 1
"""


def aha(*arguments: str, cwd: Path | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "aha", *arguments]
    return subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, text=True, timeout=600, check=False)


def fails_in_one_line(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    for word in words:
        assert word in result.stderr


def test_version():
    assert aha("--version").stdout == f"aha {__version__}\n"


def test_help_fits_in_eighty_columns_and_names_every_command():
    text = aha("--help").stdout
    assert all(len(line) <= 80 for line in text.splitlines())
    assert all(command in text for command in ("run", "eval", "grade", "chat"))


@pytest.fixture
def recipe(tmp_path, model_folder) -> Path:
    path = tmp_path / "toy.yaml"
    path.write_text(RECIPE.format(model=model_folder))
    return path


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("zero.learning_rat=1", ["unknown key learning_rat", "did you mean learning_rate?"]),
        ("zero.num_generations=1", ["num_generations is 1", "at least 2"]),
        ("zero.per_device_train_batch_size=6", ["6 x 1", "num_generations 4 does not divide", "size 8 works"]),
        ("zero.rewards=[{name: acuracy}]", ["unknown reward 'acuracy'", "countdown", "accuracy", "format"]),
        ("zero.model=./nowhere", ["./nowhere is no model"]),
        ("zero.data={source: nowhere.jsonl}", ["nowhere.jsonl", "no such file"]),
        ("zero.data={source: empty.jsonl}", ["empty.jsonl", "no rows"]),
        (
            "zero.data={source: rows.jsonl, preset: countdown-tasks-3to4}",
            ["rows.jsonl: row 2", "no column 'nums'", "target, numbers"],
        ),
        ("zero.data.limit=1", ["1 prompts do not fill one generation of 2"]),
        ("nothing", ["'nothing' is no override"]),
        ("one.max_steps=3", ["no stage 'one'", "zero"]),
        ("zero.max_steps=many", ["max_steps", "integer"]),
    ],
)
def test_bad_recipes_are_one_line_and_exit_code_2(recipe, override, words):
    (recipe.parent / "empty.jsonl").write_text("")
    (recipe.parent / "rows.jsonl").write_text('{"target": 5, "nums": [2, 3]}\n{"target": 5, "numbers": [2, 3]}\n')
    fails_in_one_line(aha("run", "toy.yaml", override, cwd=recipe.parent), *words)


def test_a_missing_recipe_is_one_line(tmp_path):
    fails_in_one_line(aha("run", "nowhere.yaml", cwd=tmp_path), "nowhere.yaml", "No such file")


@pytest.mark.parametrize("arguments", [["fly"], ["run"], ["run", "toy.yaml", "--fast"], ["grade", "--kind", "poetry"]])
def test_wrong_usage_is_one_line(recipe, arguments):
    fails_in_one_line(aha(*arguments, cwd=recipe.parent))


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_what_the_disk_denies_is_one_line_that_names_the_path(monkeypatch, capsys, code):
    def denied(**settings: object) -> None:
        raise OSError(code, os.strerror(code), "runs/toy/zero/config.yaml")

    monkeypatch.setattr(cli, "app", denied)
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert capsys.readouterr().err == f"aha: runs/toy/zero/config.yaml: {os.strerror(code)}\n"


def test_a_fault_of_the_program_keeps_its_traceback(monkeypatch):
    def missing(**settings: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file", "runs/toy")

    monkeypatch.setattr(cli, "app", missing)
    with pytest.raises(FileNotFoundError):
        cli.main()


def test_grade_adds_score_reason_and_time():
    rows = [
        {"nums": [44, 19, 35], "target": 98, "completion": "<think>.</think> <answer>44+19+35</answer>", "id": 7},
        {"nums": [44, 19, 35], "target": 98, "completion": "<think><answer>44+19+35</answer></think>"},
    ]
    result = aha("grade", "--kind", "countdown", stdin="\n".join(map(json.dumps, rows)))
    graded = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["score"] for row in graded] == [1.0, 0.0]
    assert graded[0]["id"] == 7
    assert graded[0]["reason"] == "correct"
    assert all(row["ms"] >= 0 for row in graded)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", ["stdin: line 2", "not valid JSON"]),
        ('{"nums": [1], "target": 1}', ["stdin: line 2", "no 'completion'"]),
        ('{"nums": 1, "target": 1, "completion": ""}', ["stdin: line 2", "nums as a list of whole numbers"]),
        ("[]", ["stdin: line 2", "not a JSON object"]),
    ],
)
def test_grade_names_the_bad_line_and_keeps_what_it_graded(line, words):
    good = '{"nums": [1], "target": 1, "completion": ""}'
    result = aha("grade", "--kind", "countdown", stdin=f"{good}\n{line}\n")
    fails_in_one_line(result, *words)
    assert json.loads(result.stdout)["score"] == 0.0


def test_eval_prints_and_writes_measures(model_folder, tmp_path):
    arguments = ["--model", str(model_folder), "--limit", "5", "--max-completion-length", "4", "--json", "out.json"]
    result = aha("eval", *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "countdown/pass@1" in result.stdout
    assert json.loads((tmp_path / "out.json").read_text())["countdown/pass@1"]["n"] == 5


def test_eval_reads_a_file_by_a_preset(model_folder, tmp_path):
    (tmp_path / "q.jsonl").write_text('{"question": "1+1?", "answer": "It is\\n#### 2"}\n')
    arguments = ["--model", str(model_folder), "--data", "q.jsonl", "--preset", "gsm8k", "--max-completion-length", "4"]
    result = aha("eval", *arguments, cwd=tmp_path)
    assert "gsm8k/pass@1" in result.stdout, result.stderr


def test_eval_reads_a_file_by_its_columns(model_folder, tmp_path):
    (tmp_path / "q.jsonl").write_text('{"problem": "1+1?", "answer": "2"}\n')
    arguments = ["--model", str(model_folder), "--data", "q.jsonl", "--max-completion-length", "4"]
    result = aha("eval", *arguments, "--column", "question=problem", "--column", "gold=answer", cwd=tmp_path)
    assert "q/pass@1" in result.stdout, result.stderr
    fails_in_one_line(aha("eval", *arguments, "--column", "question", cwd=tmp_path), "--column question", "question=problem")


def test_eval_of_several_answers_tells_pass_at_k_and_maj_at_k_and_keeps_the_answers(model_folder, tmp_path):
    arguments = ["--model", str(model_folder), "--limit", "3", "--num-generations", "2", "--max-completion-length", "4"]
    result = aha("eval", *arguments, "--answers", "kept/answers.parquet", cwd=tmp_path)
    assert [line.split()[0] for line in result.stdout.splitlines()] == [
        *["countdown/pass@1", "countdown/pass@2", "countdown/maj@2", "format/rate", "length/mean"],
        *["language/single", "language/words", "repetition/rate"],
    ], result.stderr
    rows = pyarrow.parquet.read_table(tmp_path / "kept" / "answers.parquet").to_pylist()
    assert [(row["problem"], row["sample"]) for row in rows] == [(f"countdown/{i}", j) for i in range(3) for j in range(2)]


def aha_here(*arguments: str) -> str:
    """The output of a command in this process, where torch is loaded already."""
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_eval_samples_as_told(model_folder, tmp_path):
    def completions(*options: str) -> list[str]:
        arguments = ["--model", str(model_folder), "--limit", "3", "--max-completion-length", "6"]
        aha_here("eval", *arguments, "--answers", str(tmp_path / "a.parquet"), *options)
        return pyarrow.parquet.read_table(tmp_path / "a.parquet")["completion"].to_pylist()

    greedy = completions("--temperature", "0")
    assert completions("--top-k", "1") == completions("--top-p", "0.000001") == greedy
    assert completions() != greedy


def test_eval_against_another_model_tells_the_paired_difference(make_policy, model_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_policy(make_policy(seed=1), Path("other"), torch.float32)
    options = ["--model", "other", "--limit", "4", "--max-completion-length", "4"]
    lines = aha_here(
        *["eval", *options, "--against", str(model_folder), "--json", "both.json", "--answers", "both.parquet"]
    ).splitlines()
    assert len(lines) == 8
    assert all(len(line) <= 80 for line in lines)
    assert lines[0].split() == ["…" + str(model_folder)[-23:], "other"]
    assert lines[2].split()[:2] == ["difference", "+0.000"]
    written = json.loads(Path("both.json").read_text())
    assert list(written) == ["against", "model", "difference"]
    assert written["difference"] == {"countdown/pass@1": bootstrap([0.0] * 4, bounds=(-1, 1)).as_dict()}
    aha_here("eval", *options, "--json", "alone.json", "--answers", "alone.parquet")
    assert json.loads(Path("alone.json").read_text()) == written["model"]
    assert pyarrow.parquet.read_table("both.parquet").equals(pyarrow.parquet.read_table("alone.parquet"))


def test_eval_refuses_an_output_that_cannot_be_written_before_it_begins(tmp_path):
    (tmp_path / "folder.parquet").mkdir()
    (tmp_path / "file").write_text("")
    fails_in_one_line(aha("eval", "--answers", "answers.csv", cwd=tmp_path), "answers.csv", "ends in .parquet")
    fails_in_one_line(aha("eval", "--answers", "folder.parquet", cwd=tmp_path), "folder.parquet", "is a folder")
    fails_in_one_line(aha("eval", "--json", "file/out.json", cwd=tmp_path), "file/out.json")


def test_eval_help_names_every_preset():
    text = " ".join(aha("eval", "--help").stdout.replace("│", " ").split())
    assert all(name in text for name in PRESETS)


def test_chat_tells_what_it_loaded_and_answers(model_folder):
    result = aha("chat", "--model", str(model_folder), "--prompt", "1+1?", "--max-completion-length", "4")
    header = result.stdout.splitlines()[:2]
    assert "parameters, vocabulary 1500, maximum length 1024" in header[0]
    assert "pad id 0, stop ids [0, 2], " in header[1]
    assert "on cpu" in header[1] or "on cuda" in header[1]
    assert result.stdout.splitlines()[2].startswith("<think>")


def test_a_model_is_asked_in_the_template_that_is_named(model_folder, tmp_path):
    asked = aha("chat", "--model", str(model_folder), "--prompt", "1+1?", "--max-completion-length", "2", "--template", "plain")
    assert "prompt template plain" in asked.stdout
    answers = tmp_path / "answers.parquet"
    chosen = ["--template", "plain", "--prefill", "<think>", "--limit", "1", "--max-completion-length", "2"]
    CliRunner().invoke(app, ["eval", "--model", str(model_folder), "--answers", str(answers), *chosen], catch_exceptions=False)
    [row] = pyarrow.parquet.read_table(answers).to_pylist()
    assert row["prompt"].startswith(row["question"])  # r1 would put a conversation before it
    assert row["completion"].startswith("<think>")
    fails_in_one_line(aha("chat", "--prompt", "1+1?", "--prefill", "<think>"), "--prefill goes with --template")


@pytest.mark.parametrize(("option", "value"), [("--temperature", "-1"), ("--max-completion-length", "0")])
def test_chat_refuses_settings_that_no_sampling_has(option, value):
    fails_in_one_line(aha("chat", "--prompt", "1+1?", option, value), option.removeprefix("--").replace("-", "_"))


def test_chat_reads_questions_until_the_input_ends(model_folder):
    result = aha("chat", "--model", str(model_folder), "--max-completion-length", "3", stdin="1+1?\n2+2?\n")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("<think>") == 2
