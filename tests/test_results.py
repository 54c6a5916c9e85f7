"""docs/results.py and docs/public_rows.py, which make the tables of the docs and the rows that one of them is of."""

import json
from itertools import islice

import pyarrow
import pyarrow.parquet
import pytest
from test_report import RIGHT, WRONG, add_stage, measure

from aha.data.countdown import problems
from aha.rundir import RunDir, write_summary


@pytest.fixture
def runs(tmp_path):
    """Two seeds of a recipe of two stages; of four problems the second one gains one and two."""
    folders = []
    for gained, seed in enumerate((42, 43), 1):
        run = tmp_path / f"run-{seed}"
        base = {f"math/{i}": RIGHT if i < 1 else WRONG for i in range(4)}
        zero = {f"math/{i}": RIGHT if i < 1 + gained else WRONG for i in range(4)}
        add_stage(run, "base", metrics={"math/pass@1": measure(0.25, 4)}, completions=base, seed=seed)
        add_stage(run, "zero", "grpo", {"math/pass@1": measure((1 + gained) / 4, 4)}, (), zero, seed=seed)
        write_summary(RunDir(run), "toy", ["base", "zero"])
        folders.append(run)
    return folders


def test_a_table_of_seeds_has_a_row_for_every_stage_and_the_mean_of_the_seeds(script, runs):
    assert script("results", "--seeds", *runs, "--metrics", "math/pass@1") == [
        ["metric", "stage", "seed 42", "seed 43", "mean"],
        ["---|---|---|---|---"],
        ["math/pass@1", "base", "0.250 [0.200, 0.300]", "0.250 [0.200, 0.300]", "0.250"],
        ["math/pass@1", "zero", "0.500 [0.450, 0.550]", "0.750 [0.700, 0.800]", "0.625"],
    ]


def test_a_table_of_stages_has_a_row_for_every_seed(script, runs):
    found = script("results", "--stages", *runs, "--metrics", "math/pass@1", "no/such")[2:]
    assert found[:2] == [["math/pass@1", "42", "0.250", "0.500"], ["math/pass@1", "43", "0.250", "0.750"]]


def test_two_stages_are_compared_problem_by_problem(script, runs):
    first, second = script("results", "--against", "base", "zero", "--", *runs)[2:]
    assert (first[:2], second[:2]) == (["math/pass@1", "run-42"], ["math/pass@1", "run-43"])
    assert (first[2].split()[0], first[3]) == ("+0.250", "4")
    assert (second[2].split()[0], second[3]) == ("+0.500", "4")
    with pytest.raises(SystemExit, match="no stage two"):
        script("results", "--against", "base", "two", "--", *runs)


def test_public_rows_are_those_that_neither_text_nor_training_holds(script, tmp_path):
    rows = [
        {"nums": nums, "target": target, "split": split}
        for split in ("base", "train", "cold", "test")
        for nums, target in islice(problems(split), 6)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "public.parquet")
    script("public_rows", tmp_path / "public.parquet", tmp_path / "out")

    def read(name: str) -> list[dict]:
        return [json.loads(line) for line in (tmp_path / "out" / f"{name}.jsonl").read_text().splitlines()]

    wanted = [{"nums": row["nums"], "target": row["target"]} for row in rows if row["split"] in ("cold", "test")]
    assert read("all") == wanted
    assert read("three") + read("four") == sorted(wanted, key=lambda row: len(row["nums"]))
