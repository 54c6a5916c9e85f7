"""docs/thoughts.py, which reads the thoughts of Countdown answers."""

import pyarrow
import pyarrow.parquet
import pytest

QUESTION = "Using the numbers [9, 3, 4], create an equation that equals 16."
ROWS = [
    # The first try is not whole, an equation of the second is false; the claim is right.
    {
        "question": QUESTION,
        "kind": "three",
        "completion": "<think>Let me try 9+3=12, that is too small.\nMaybe it is 9-3=5, 5+4=9, that is not 16.\n"
        "Or let me see 9+3=12, 12+4=16, yes, that works!\nLet me check: 9+3=12, 12+4=16, it fits.</think> "
        "<answer>9+3+4</answer>",
        "solved": True,
        "num_tokens": 60,
    },
    # The claim is wrong, and the answer leaves a number out.
    {
        "question": QUESTION,
        "kind": "three",
        "completion": "<think>Let me try 9*3=27, 31-4=16, yes, that works!</think> <answer>9*3</answer>",
        "solved": False,
        "num_tokens": 20,
    },
    # Right, in a form that the grader does not take: the end of the thoughts is missing.
    {
        "question": QUESTION,
        "kind": "four",
        "completion": "<think>Let me try 3+4=7, 9+7=16, yes, that works! <answer>9+(3+4)=16</answer>",
        "solved": False,
        "num_tokens": 30,
    },
    {"question": "How old is Ben?", "kind": "words", "completion": "<think>1+1=3</think>", "solved": False, "num_tokens": 9},
]


@pytest.fixture
def cells(script, tmp_path):
    def run(*arguments: object) -> list[list[str]]:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "eval.parquet")
        return script("thoughts", *arguments, tmp_path / "eval.parquet")[2:]

    return run


def test_thoughts_are_counted_and_other_questions_left_out(cells):
    line, other = cells()
    # 7 + 2 equations, of which 9-3=5 and 31-4=16 are false; 31 is the one foreign operand of 18; 3 of 4 tries are whole.
    assert line[1:] == ["three", "2", "77.8%", "5.6%", "50.0%", "75.0%", "50.0%", "2.0", "0.50"]
    assert other[1:] == ["four", "1", "100.0%", "0.0%", "100.0%", "100.0%", "100.0%", "1.0", "0.00"]


@pytest.mark.parametrize(("limit", "share"), [(59, "0.000"), (60, "0.500")])
def test_an_answer_counts_from_its_own_length_on(cells, tmp_path, limit, share):
    line, _ = cells("--within", limit, "--")
    assert line == [str(tmp_path / "eval.parquet"), "three", "2", share]
