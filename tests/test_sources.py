"""Data sources: every kind of file, slices, divisions and orders, and the one line that every mistake gets."""

import csv
import gzip
import json
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from aha.config import DataConfig
from aha.data.countdown import split_of
from aha.data.sources import load_problems, load_texts
from aha.types import Problem, UserError

ROWS = [{"question": f"What is {n}+1?", "gold": str(n + 1)} for n in range(1, 21)]
SUFFIXES = [f"{suffix}{gz}" for suffix in (".jsonl", ".json", ".csv", ".tsv", ".parquet") for gz in ("", ".gz")]


def write(path: Path, rows: list[dict]) -> Path:
    suffix = path.name.removeprefix(path.name.split(".")[0]).removesuffix(".gz")
    plain = path.with_name(path.name.removesuffix(".gz"))
    if suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), plain)
    elif suffix in (".csv", ".tsv"):
        with plain.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="," if suffix == ".csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    elif suffix == ".json":
        plain.write_text(json.dumps(rows, indent=1))
    else:
        plain.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if path != plain:
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    return path


def load(source: Path | str, **values) -> list[Problem]:
    return load_problems(DataConfig(source=str(source), **values))


# Files and folders.


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_of_every_kind_gives_the_same_problems(tmp_path, suffix):
    problems = load(write(tmp_path / f"sums{suffix}", ROWS))
    assert len(problems) == 20
    assert problems[0] == Problem("sums/0", "sums", "What is 1+1?", {"gold": "2"}, "accuracy")
    assert len({problem.id for problem in problems}) == 20


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_folder_is_read_by_split(tmp_path, suffix):
    write(tmp_path / f"test{suffix}", ROWS[:3])
    write(tmp_path / f"train-00000-of-00002{suffix}", ROWS[3:5])
    write(tmp_path / f"train-00001-of-00002{suffix}", ROWS[5:8])
    write(tmp_path / f"trainers{suffix}", ROWS[8:])
    (tmp_path / "README.md").write_text("train")
    assert [p.columns["gold"] for p in load(tmp_path, split="train")] == ["5", "6", "7", "8", "9"]
    assert len(load(tmp_path, split="test")) == 3


def test_a_folder_is_read_by_the_end_of_names_where_none_begins_with_the_split(tmp_path):
    write(tmp_path / "sums_en.tsv", ROWS[:2])
    write(tmp_path / "sums_de.tsv", ROWS[2:5])
    assert len(load(tmp_path, split="de")) == 3
    write(tmp_path / "de.tsv", ROWS[5:6])
    assert len(load(tmp_path, split="de")) == 1


def test_quotation_marks_in_tab_separated_values_are_text(tmp_path):
    (tmp_path / "t.tsv").write_text('question\tgold\n"Two" plus 2?\t4\n')
    assert load(tmp_path / "t.tsv")[0].question == '"Two" plus 2?'


def test_a_line_separator_inside_a_text_does_not_end_a_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "a\u2028b"}\n\n{"question": "c"}\n', encoding="utf-8")
    assert [problem.question for problem in load(path)] == ["a\u2028b", "c"]


def test_texts_are_prompt_and_completion(tmp_path):
    path = write(tmp_path / "t.jsonl", [{"q": "1+1?", "a": "2", "more": 3}])
    cfg = DataConfig(source=str(path), columns={"prompt": "q", "completion": "a"})
    assert load_texts(cfg) == [{"prompt": "1+1?", "completion": "2"}]


def test_a_text_may_be_made_by_templates(tmp_path):
    path = write(tmp_path / "t.jsonl", [{"q": "1+1?", "why": "one more", "a": "2"}])
    cfg = DataConfig(source=str(path), question="Compute {q}", completion="<think>{why}</think> {a}")
    assert load_texts(cfg) == [{"prompt": "Compute 1+1?", "completion": "<think>one more</think> 2"}]


# Columns and templates.


def test_columns_are_mapped_and_the_others_stay(tmp_path):
    path = write(tmp_path / "m.jsonl", [{"problem": "1+1?", "solution": "2", "level": 5}])
    [problem] = load(path, columns={"question": "problem", "gold": "solution"}, task="maths", grader="format")
    assert (problem.id, problem.task, problem.question, problem.grader) == ("maths/0", "maths", "1+1?", "format")
    assert problem.columns["gold"] == "2"
    assert problem.columns["level"] == 5


def test_a_question_template_is_filled_from_the_row(tmp_path):
    path = write(tmp_path / "m.jsonl", [{"a": 3, "b": [1, 2], "gold": "6"}])
    [problem] = load(path, question="What is {a} with {b}?")
    assert problem.question == "What is 3 with [1, 2]?"
    assert problem.columns["gold"] == "6"


def test_braces_in_a_row_are_left_alone(tmp_path):
    path = write(tmp_path / "m.jsonl", [{"question": r"Simplify \frac{1}{2}."}])
    assert load(path)[0].question == r"Simplify \frac{1}{2}."
    assert load(path, question="Q: {question}")[0].question == r"Q: Simplify \frac{1}{2}."


@pytest.mark.parametrize("template", [r"{question} Put the answer in \boxed{}.", "{question} {", "{question} }"])
def test_a_template_with_other_braces_is_one_line(tmp_path, template):
    path = write(tmp_path / "m.jsonl", ROWS)
    with pytest.raises(UserError, match="question template"):
        load(path, question=template)


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl"])
def test_the_mark_of_spreadsheet_programs_and_long_fields_are_read(tmp_path, name):
    rows = [{**row, "gold": "9" * 200_000} for row in ROWS]
    path = write(tmp_path / name, rows)
    path.write_text("\ufeff" + path.read_text(encoding="utf-8"), encoding="utf-8")
    assert [problem.columns["gold"] for problem in load(path)] == [row["gold"] for row in rows]


def test_a_row_of_csv_with_too_many_fields_is_named(tmp_path):
    (tmp_path / "m.csv").write_text("question,gold\n1+1?,2\n2+2?,4,5\n")
    with pytest.raises(UserError, match=r"m\.csv: row 2"):
        load(tmp_path / "m.csv")


# Slices and limits.


@pytest.mark.parametrize(
    ("split", "limit", "first", "count"),
    [
        ("train", None, 0, 20),
        ("train[-10:]", None, 10, 10),
        ("train[:3]", None, 0, 3),
        ("train[5:8]", None, 5, 3),
        ("train[5:-5]", None, 5, 10),
        ("train[:]", None, 0, 20),
        ("train", 4, 0, 4),
        ("train[-10:]", 4, 10, 4),
        ("train[15:100]", 50, 15, 5),
        ("train[:10%]", None, 0, 2),
        ("train[50%:]", None, 10, 10),
        ("train[-5%:]", None, 19, 1),
        ("train[2:50%]", 3, 2, 3),
    ],
)
def test_a_slice_keeps_its_rows_and_the_limit_the_first_of_them(tmp_path, split, limit, first, count):
    problems = load(write(tmp_path / "train.jsonl", ROWS), split=split, limit=limit)
    assert [p.question for p in problems] == [row["question"] for row in ROWS[first : first + count]]


@pytest.mark.parametrize("split", ["train[5]", "train[a:b]", "train[%:]", "train[1:2", "train[1:2:3]", "[[", "train[:]x"])
def test_a_split_that_is_no_slice_is_told(tmp_path, split):
    with pytest.raises(UserError, match=r"split .* is neither a name nor a name with a slice such as train\[-1024:\]"):
        load(write(tmp_path / "train.jsonl", ROWS), split=split)


def test_a_limit_reads_no_further_than_it_needs(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "q"}\n{"question": "r"}\n{"question": \n')
    assert (
        len(load(path, limit=2)) == len(load(path, split="train[:2]")) == len(load(path, split="train[1:]", limit=1)) + 1 == 2
    )
    with pytest.raises(UserError, match="row 3: not valid JSON"):
        load(path)


# Orders and divisions.


def test_a_shuffle_is_seeded_and_comes_after_the_slice_and_before_the_limit(tmp_path):
    path = write(tmp_path / "train.jsonl", ROWS)
    plain, first, second = load(path), load(path, shuffle=True), load(path, shuffle=True, seed=1)
    assert first == load(path, shuffle=True)
    orders = [[problem.question for problem in problems] for problems in (plain, first, second)]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])
    assert [p.question for p in load(path, shuffle=True, limit=5)] == orders[1][:5]
    assert {p.question for p in load(path, split="train[:10]", shuffle=True, limit=10)} == set(orders[0][:10])


@pytest.mark.parametrize(("test_size", "count"), [(0.25, 5), (0.01, 1), (0.99, None), (1, 1), (7, 7), (19, 19)])
def test_train_and_test_of_one_file_are_disjoint_and_all_of_it(tmp_path, test_size, count):
    path = write(tmp_path / "rows.jsonl", ROWS)
    if count is None:
        with pytest.raises(UserError, match=r"test_size 0\.99 leaves nothing of 20 rows to train on"):
            load(path, test_size=test_size)
        return
    train, test = ([p.question for p in load(path, split=split, test_size=test_size)] for split in ("train", "test"))
    assert len(test) == count
    assert sorted(train + test) == sorted(row["question"] for row in ROWS)


def test_a_division_depends_on_seed_and_content_only(tmp_path):
    one, other = write(tmp_path / "one.jsonl", ROWS), write(tmp_path / "other.csv", ROWS[::-1])
    questions = [{p.question for p in load(source, split="test", test_size=5)} for source in (one, other)]
    assert questions[0] == questions[1]
    assert questions[0] != {p.question for p in load(one, split="test", test_size=5, seed=1)}


def test_equal_rows_are_on_one_side_of_a_division(tmp_path):
    path = write(tmp_path / "rows.jsonl", ROWS * 3)
    train, test = ({p.question for p in load(path, split=split, test_size=0.2)} for split in ("train", "test"))
    assert train
    assert test
    assert not train & test


def test_a_slice_is_taken_of_a_part_and_the_rest_of_a_folder_is_left_alone(tmp_path):
    write(tmp_path / "train.jsonl", ROWS[:10])
    write(tmp_path / "test.jsonl", ROWS[10:])
    held_out = load(tmp_path, split="test", test_size=4)
    assert [p.question for p in load(tmp_path, split="test[1:3]", test_size=4)] == [p.question for p in held_out[1:3]]
    assert {p.question for p in held_out} < {row["question"] for row in ROWS[:10]}


# Generators.


def test_countdown_is_generated_with_columns_and_grader():
    problems = load("countdown", split="cold", limit=20, seed=3)
    assert len(problems) == 20
    for problem in problems:
        nums, target = problem.columns["nums"], problem.columns["target"]
        assert split_of(nums, target) == "cold"
        assert problem.question.startswith(f"Using the numbers {nums}, create an equation that equals {target}.")
        assert (problem.task, problem.grader) == ("countdown", "countdown")
    assert problems == load("countdown", split="cold", limit=20, seed=3)
    assert problems != load("countdown", split="cold", limit=20, seed=4)


def test_the_arguments_of_a_generator_are_passed_on():
    problems = load("countdown", limit=10, args={"num_numbers": [3], "max_number": 20})
    assert all(len(p.columns["nums"]) == 3 and max(p.columns["nums"]) <= 20 for p in problems)


def test_a_slice_of_a_generator_is_taken_before_the_limit():
    rows = load("countdown", limit=20)
    sliced = load("countdown", split="train[10:20]", limit=5)
    assert [p.columns for p in sliced] == [p.columns for p in rows[10:15]]


def test_writers_make_texts():
    rows = load_texts(DataConfig(source="writers", limit=5))
    assert len(rows) == 5
    assert all(row.keys() == {"prompt", "completion"} and all(row.values()) for row in rows)


# Mistakes.


@pytest.mark.parametrize(
    ("name", "content", "values", "words"),
    [
        ("a.jsonl", "", {}, ["a.jsonl: no rows in split train"]),
        ("a.json", "[]", {}, ["a.json: no rows"]),
        ("a.csv", "question,gold\n", {}, ["a.csv: no rows"]),
        ("a.jsonl", '{"question": "q"}\n', {"split": "train[5:]"}, ["no rows in split train[5:]"]),
        ("a.parquet", "PAR1", {}, ["a.parquet: cannot be read as parquet"]),
        ("a.txt", "q", {}, ["cannot read .txt", ".jsonl, .json, .csv, .tsv, .parquet, and .gz of them"]),
        ("a", "q", {}, ["cannot read files without ending"]),
        ("a.jsonl.gz", "q", {}, ["a.jsonl.gz: cannot be read as jsonl: Not a gzipped file"]),
        ("a.parquet.gz", "q", {}, ["a.parquet.gz: cannot be read as parquet"]),
        ("a.txt.gz", "q", {}, ["cannot read .txt"]),
        ("a.jsonl", "{}", {"subset": "en"}, ["a.jsonl: subset and revision are for data sets of the hub"]),
        ("a.jsonl", "{}", {"split": "dev", "test_size": 1}, ["with test_size there are the splits train and test, not 'dev'"]),
        ("a.jsonl", "{}", {"test_size": 1, "split": "test"}, ["test_size 1 leaves nothing of 1 rows to train on"]),
        ("a.jsonl", "{}", {"preset": "hh-rlhf"}, ["preset hh-rlhf has no question; it has prompt, chosen, rejected"]),
        ("a.jsonl", '{"question": "q"}\n\n{"question": \n', {}, ["a.jsonl: row 3: not valid JSON"]),
        ("a.json", '[{"question": "q"},', {}, ["a.json: not valid JSON"]),
        ("a.jsonl", '{"question": "q \\ud83d"}\n', {}, ["a.jsonl: row 1: a text holds half of a surrogate pair"]),
        ("a.jsonl", '{"question": "q"}\n["q"]\n', {}, ["a.jsonl: row 2: not a JSON object"]),
        ("a.json", '[{"question": "q"}, 5]', {}, ["a.json: row 2: not a JSON object"]),
        (
            "a.jsonl",
            '{"question": "q"}\n{"problem": "q", "x": 1}\n',
            {},
            ["a.jsonl: row 2: no column 'question'", "problem, x"],
        ),
        (
            "a.jsonl",
            '{"question": "q", "gold": null}\n',
            {"columns": {"gold": "gold"}},
            ["a.jsonl: row 1: no column 'gold'"],
        ),
        ("a.csv", "question,gold\na,1\nb\n", {"columns": {"gold": "gold"}}, ["a.csv: row 2: no column 'gold'"]),
        ("a.jsonl", '{"question": 5}\n', {}, ["a.jsonl: row 1: column 'question' holds no text"]),
        ("a.jsonl", '{"question": "  "}\n', {}, ["a.jsonl: row 1: column 'question' holds no text"]),
        ("a.jsonl", '{"a": 1}\n', {"question": "{b}?"}, ["a.jsonl: row 1: the question template wants column 'b'", "a"]),
        (
            "a.jsonl",
            '{"question": "q"}\n',
            {"preset": "gsm9k"},
            ["unknown preset 'gsm9k'; did you mean gsm8k? known: countdown"],
        ),
        ("a.jsonl", '{"question": "q", "answer": "18"}\n', {"preset": "gsm8k"}, ["row 1: column 'gold': no '####'"]),
        (
            "a.jsonl",
            '{"nums": [1, 2], "target": 3}\n{"nums": [1, 2.5], "target": 3}\n',
            {"preset": "countdown-tasks-3to4"},
            ["a.jsonl: row 2: column 'nums': not a list of whole numbers"],
        ),
        ("a.jsonl", '{"nums": 1, "target": 3}\n', {"preset": "countdown-tasks-3to4"}, ["row 1: column 'nums'"]),
        ("a.jsonl", '{"nums": [1], "target": "x"}\n', {"preset": "countdown-tasks-3to4"}, ["row 1: column 'target'"]),
        ("a.jsonl", '{"nums": [1], "target": 98.7}\n', {"preset": "countdown-tasks-3to4"}, ["row 1: column 'target'"]),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, name, content, values, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as caught:
        load(tmp_path / name, **values)
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


def test_a_file_in_another_encoding_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_bytes('{"question": "é"}\n'.encode("latin-1"))
    with pytest.raises(UserError, match=r"a\.jsonl: cannot be read as jsonl: 'utf-8'"):
        load(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"source": "nowhere.jsonl"}, "nowhere.jsonl: no such file or folder, generator, preset or hub id (org/name); gener"),
        ({"source": "data/nowhere.csv.gz"}, "data/nowhere.csv.gz: no such file or folder"),
        ({"source": "gsm9k"}, "gsm9k: no such file or folder, generator, preset or hub id (org/name); did you mean gsm8k?"),
        ({"source": "countdwn"}, "did you mean countdown?"),
        ({"source": "countdown", "test_size": 0.1}, "countdown: test_size divides files and data sets of the hub"),
        ({"source": "countdown", "split": "dev"}, "countdown has no split 'dev'; known: base, train, cold, test"),
        ({"source": "countdown", "args": {"max_numbr": 3}, "limit": 1}, "countdown: args {'max_numbr': 3} do not fit"),
        ({"source": "countdown", "args": {"min_target": 300}, "limit": 1}, "countdown: args {'min_target': 300} do not fit"),
        ({"source": "writers", "limit": 1}, "no column 'question'; the row has prompt, completion"),
    ],
)
def test_a_source_that_does_not_fit_is_named(tmp_path, monkeypatch, values, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        load_problems(DataConfig(**values))
    assert words in str(caught.value)


def test_a_split_that_no_file_of_a_folder_has_lists_the_files(tmp_path):
    write(tmp_path / "train.jsonl", ROWS)
    write(tmp_path / "test.csv", ROWS)
    with pytest.raises(UserError, match=r"no file for split 'dev'; the folder has test\.csv, train\.jsonl"):
        load(tmp_path, split="dev")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="the folder has no data files"):
        load(tmp_path / "empty")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "q"}, "row 1: no column 'completion'"),
        ({"prompt": "q", "completion": 5}, "row 1: column 'completion' holds no text"),
        ({"prompt": ["q"], "completion": "a"}, "row 1: column 'prompt' holds no text"),
    ],
)
def test_a_row_without_text_to_learn_from_is_named(tmp_path, row, words):
    with pytest.raises(UserError) as caught:
        load_texts(DataConfig(source=str(write(tmp_path / "t.jsonl", [row]))))
    assert f"t.jsonl: {words}" in str(caught.value)


def test_without_reasoning_gym_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", None)
    with pytest.raises(UserError, match=r"reasoning-gym needs the extra `gym`: .venv/bin/pip install -e"):
        load("reasoning-gym", args={"task": "chain_sum"}, limit=1)
