"""Data sets of the hub: what `datasets` reads and what it says, each mistake in one line."""

import json
import sys
from pathlib import Path

import pytest

from aha.config import DataConfig
from aha.data.sources import load_problems, load_texts
from aha.types import UserError

datasets = pytest.importorskip("datasets", reason="the extra `hub` is not installed")

CARD = """---
configs:
- config_name: main
  data_files: [{split: train, path: main/train.jsonl}, {split: test, path: main/test.jsonl}]
- config_name: socratic
  data_files: [{split: train, path: socratic/train.jsonl}]
---
"""


def rows(count: int, start: int = 0) -> list[dict]:
    return [{"question": f"{n}+1?", "answer": f"{n}+1={n + 1}\n#### {n + 1}"} for n in range(start, start + count)]


def write(path: Path, content: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in content))


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """A folder in the place of the hub: `org/name` is read by `datasets` from its folder there, with a fresh cache."""
    real = datasets.load_dataset

    def load_dataset(name: str, *args, revision: str | None = None, **values):
        folder = tmp_path / "hub" / (f"{name}@{revision}" if revision else name)
        if not folder.exists():
            raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{name}' doesn't exist on the Hub or cannot be accessed.")
        return real(str(folder), *args, cache_dir=str(tmp_path / "cache"), **values)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.chdir(tmp_path)
    datasets.disable_progress_bars()
    return tmp_path / "hub"


@pytest.fixture
def gsm8k(hub) -> Path:
    folder = hub / "openai" / "gsm8k"
    write(folder / "main" / "train.jsonl", rows(20))
    write(folder / "main" / "test.jsonl", rows(5, start=20))
    write(folder / "socratic" / "train.jsonl", rows(3, start=50))
    (folder / "README.md").write_text(CARD)
    return folder


def golds(**values) -> list[str]:
    return [problem.columns["gold"] for problem in load_problems(DataConfig(**values))]


def test_a_preset_alone_is_its_data_set_on_the_hub(gsm8k):
    problems = load_problems(DataConfig(source="gsm8k"))
    assert len(problems) == 20
    assert (problems[3].id, problems[3].question, problems[3].columns) == ("gsm8k/3", "3+1?", {"gold": "4"})
    assert golds(source="gsm8k", split="test") == ["21", "22", "23", "24", "25"]
    assert load_texts(DataConfig(source="gsm8k", limit=1)) == [{"prompt": "0+1?", "completion": "0+1=1\n#### 1"}]


def test_a_hub_id_with_columns_is_read_without_a_preset(gsm8k):
    problems = load_problems(DataConfig(source="openai/gsm8k", subset="socratic", columns={"gold": "answer"}))
    assert [problem.id for problem in problems] == ["gsm8k/0", "gsm8k/1", "gsm8k/2"]
    assert problems[0].columns["gold"] == "50+1=51\n#### 51"


def test_a_hub_id_takes_the_subset_of_its_preset_unless_told_otherwise(gsm8k):
    assert len(golds(source="openai/gsm8k", preset="gsm8k")) == 20
    assert golds(source="gsm8k", subset="socratic") == ["51", "52", "53"]


def test_slice_limit_shuffle_and_test_size_work_on_the_hub(gsm8k):
    everything = golds(source="gsm8k")
    assert golds(source="gsm8k", split="train[5:50%]", limit=3) == everything[5:8]
    assert golds(source="gsm8k", split="train[-2:]") == everything[-2:]
    assert sorted(golds(source="gsm8k", shuffle=True)) == sorted(everything) != golds(source="gsm8k", shuffle=True)
    train, test = (golds(source="gsm8k", split=split, test_size=0.25) for split in ("train", "test"))
    assert sorted(train + test) == sorted(everything)
    assert len(test) == 5


def test_a_revision_is_read(hub):
    write(hub / "org" / "sums" / "train.jsonl", rows(2))
    write(hub / "org" / "sums@v1" / "train.jsonl", rows(1))
    assert len(load_problems(DataConfig(source="org/sums"))) == 2
    assert len(load_problems(DataConfig(source="org/sums", revision="v1"))) == 1


def test_a_part_of_a_data_set_is_read_by_its_folder(hub):
    pair = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}
    write(hub / "Anthropic" / "hh-rlhf" / "harmless-base" / "train.jsonl", [pair])
    write(hub / "Anthropic" / "hh-rlhf" / "helpful-base" / "train.jsonl", [pair] * 2)
    cfg = DataConfig(source="hh-rlhf", args={"data_dir": "harmless-base"}, columns={"question": "chosen"})
    assert len(load_problems(cfg)) == 1


def test_a_language_of_mgsm_is_a_subset(hub):
    folder = hub / "juletxara" / "mgsm"
    for language in ("de", "zh"):
        write(folder / language / "test.jsonl", [{"question": language, "answer": None, "answer_number": 5}])
    configs = [f"- config_name: {name}\n  data_files: [{{split: test, path: {name}/test.jsonl}}]\n" for name in ("de", "zh")]
    (folder / "README.md").write_text("---\nconfigs:\n" + "".join(configs) + "---\n")
    [problem] = load_problems(DataConfig(source="mgsm", split="zh"))
    assert (problem.question, problem.columns) == ("zh", {"gold": "5", "language": "zh"})


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_data_set_with_one_split_is_read_whatever_split_is_asked_for(hub, split):
    write(hub / "HuggingFaceH4" / "MATH-500" / "test.jsonl", [{"problem": "1+1?", "answer": "2"}])
    assert golds(source="math-500", split=split) == ["2"]


def test_a_mirror_is_read_with_its_own_splits(hub):
    write(hub / "me" / "aime" / "test.jsonl", [{"problem": "1+1?", "answer": "2"}])
    assert golds(source="me/aime", preset="aime24", split="test") == ["2"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"source": "org/nothing"}, "org/nothing: no such path here, and Dataset 'org/nothing' doesn't exist on the Hub"),
        ({"source": "gsm8k", "split": "dev"}, "openai/gsm8k: Unknown split \"dev\". Should be one of ['train', 'test']"),
        ({"source": "openai/gsm8k"}, "openai/gsm8k: subset is missing. Please pick one among the subsets: ['main', 'socr"),
        ({"source": "gsm8k", "subset": "mani"}, "openai/gsm8k: subset 'mani' not found. Available: ['main', 'socratic']"),
        ({"source": "gsm8k", "args": {"trust_remote_code": True}}, "args of a hub id are data_dir and data_files, not trust"),
        ({"source": "gsm8k", "columns": {"gold": "gold"}}, "openai/gsm8k train row 1: no column 'gold'; the row has quest"),
        ({"source": "gsm8k", "split": "train[50:]"}, "gsm8k: no rows in split train[50:]"),
        ({"source": "mgsm"}, "mgsm: its splits are languages, en, de, es, fr, zh, bn, ja, ru, sw, te, th, not 'train'"),
        ({"source": "org/code"}, "org/code: Dataset scripts are no longer supported, but found code.py"),
        ({"source": "org/broken"}, "org/broken: An error occurred while generating the dataset"),
    ],
)
def test_what_the_hub_does_not_have_is_one_line(gsm8k, hub, values, words):
    write(hub / "org" / "code" / "train.jsonl", rows(1))
    (hub / "org" / "code" / "code.py").write_text("raise SystemExit('this code was run')")
    (hub / "org" / "broken").mkdir()
    (hub / "org" / "broken" / "train.jsonl").write_text('{"question": "q"}\n{"question": \n')
    with pytest.raises(UserError) as caught:
        load_problems(DataConfig(**values))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_a_connection_the_way_out_is_told(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(UserError) as caught:
        load_problems(DataConfig(source="gsm8k"))
    assert str(caught.value).startswith("openai/gsm8k: no such path here, no copy in the cache, and the hub is out of reach (")
    assert "\n" not in str(caught.value)


def test_without_datasets_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"openai/gsm8k: reading from the hub needs the extra `hub`"):
        load_problems(DataConfig(source="gsm8k"))
