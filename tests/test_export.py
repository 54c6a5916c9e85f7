"""`aha export`: a folder that transformers reads, a card that says where it comes from, and nothing overwritten."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import ClassVar

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from aha.cli import app
from aha.export import card, export, lineage, push, stage_named, told_files
from aha.rundir import RunDir, StageDir
from aha.types import UserError


@pytest.fixture
def stage(finished) -> StageDir:
    return StageDir(finished / "b")


def logits(folder: Path) -> torch.Tensor:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return model(**tokenizer("1+1=2, 2+2=4", return_tensors="pt", return_token_type_ids=False)).logits


def test_the_folder_gives_the_same_logits_as_the_stage(stage, tmp_path):
    files = export(stage, tmp_path / "out")
    assert torch.equal(logits(tmp_path / "out"), logits(stage.model))
    assert {path.name for path in files} == {path.name for path in stage.model.iterdir()} | {"README.md"}
    assert {"prompt.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in files}
    assert re.match(r"\d files, ", told_files(files))


def test_the_card_is_read_by_the_hub_and_tells_the_chain_back_to_the_base(stage, tmp_path):
    export(stage, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    data = ModelCard(text).data
    assert (data.library_name, data.pipeline_tag, data.tags) == ("transformers", "text-generation", ["aha", "sft"])
    assert list(lineage(RunDir(stage.path.parent), "b")) == ["a", "b"]
    for name in ("a", "b"):
        print_ = StageDir(stage.path.parent / name).read_manifest()["fingerprint"]
        assert f"`{print_[:16]}`" in text
    assert "| loss |" in text
    assert "learning_rate: 0.001" in text
    assert "name: a" in text
    assert "side" not in text
    assert f"torch {torch.__version__}" in text
    assert "aha chat --model out\n" in text


def test_the_card_tells_that_a_stage_was_redone_since(stage):
    before = StageDir(stage.path.parent / "a")
    made_of = before.read_manifest()["fingerprint"][:16]
    before.config.write_text(before.config.read_text().replace(made_of, "0" * 16, 1))
    assert f"`{made_of}`, redone since as `{'0' * 16}`" in card(stage, "out")


def test_what_lies_beside_the_target_stays(stage, tmp_path):
    (tmp_path / "out.tmp").mkdir()
    export(stage, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.tmp"]
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        export(stage, tmp_path / "file" / "sub")


def test_the_card_holds_no_path_of_this_machine(stage, tmp_path):
    export(stage, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    [model] = {cfg.model for cfg in lineage(RunDir(stage.path.parent), "a").values()}
    assert f"model: {Path(model).name}\n" in text
    assert f"| `{Path(model).name}` |" in text
    assert "source: rows.jsonl\n" in text
    assert "| rows.jsonl (train) |" in text
    assert not re.search(r"[`' ]/\w", text)


def test_the_card_names_no_server_that_was_asked(stage):
    run = stage.path.parent
    for name, text in (
        (
            "traces",
            """{name: traces, kind: sample, data: {source: countdown}, engine: server,
            server: {base_url: "http://teacher.example/v1", model: large, extra_body: {token: sesame}},
            rewrite: {server: {base_url: "http://editor.example/v1", model: larger}},
            rewards: [{name: judge, args: {url: "http://judge.example/v1", model: j}},
                      {name: "own:f", args: {url: "judge.example:80", places: ["HTTPS://other.example"]}}]}""",
        ),
        ("copy", "{name: copy, kind: sft, model: m, data: {source: '${traces.traces}'}}"),
    ):
        shutil.copytree(stage.path, run / name)
        (run / name / "config.yaml").write_text(f"# fingerprint: 0\n{text}")
    text = card(StageDir(run / "copy"), "out")
    for name in ("traces", "copy"):
        shutil.rmtree(run / name)
    assert "model: larger\n" in text
    assert "name: own:f\n" in text
    assert "example" not in text
    assert "sesame" not in text


def test_measures_stand_in_the_card_with_their_intervals(stage):
    copy = stage.path.parent / "copy"
    shutil.copytree(stage.path, copy)
    measure = {"value": 0.25, "low": 0.2137, "high": 0.2899, "n": 512}
    (copy / "stage.json").write_text(
        json.dumps({**stage.read_manifest(), "metrics": {"countdown/pass@1": measure, "loss": 0.5}})
    )
    text = card(StageDir(copy), "out")
    shutil.rmtree(copy)
    assert "| countdown/pass@1 | 0.250 [0.214, 0.290] n=512 |\n| loss | 0.5 |" in text


def test_the_lines_of_the_card_run_beside_the_folder(stage, tmp_path, capsys, monkeypatch):
    export(stage, tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    [code] = re.findall(r"```python\n(.*?)```", (tmp_path / "out" / "README.md").read_text(), re.DOTALL)
    exec(code.replace("max_new_tokens=256", "max_new_tokens=3"), {})
    assert capsys.readouterr().out.strip()


def test_a_model_of_the_hub_and_its_data_stand_in_the_front_matter(stage, monkeypatch):
    copy = stage.path.parent / "copy"
    shutil.copytree(stage.path, copy)
    config = (copy / "config.yaml").read_text()
    config = config.replace("${a.model}", "Qwen/Qwen2.5-0.5B").replace("name: b", "name: copy")
    (copy / "config.yaml").write_text(re.sub(r"source: .*rows.jsonl", "source: gsm8k", config))
    data = ModelCard(card(StageDir(copy), "out")).data
    shutil.rmtree(copy)
    assert data.base_model == ["Qwen/Qwen2.5-0.5B"]
    assert data.datasets == ["openai/gsm8k"]


@pytest.mark.parametrize(
    ("begins", "source", "licence"),
    [
        ("model: tiny-base", "countdown", "apache-2.0"),
        ("init: scratch", "writers", "apache-2.0"),
        ("model: tiny-base", "PKU-Alignment/PKU-SafeRLHF", None),
        ("init: scratch", "/home/me/letters.jsonl", None),
        ("model: Qwen/Qwen2.5-0.5B", "countdown", None),
        ("teacher_model: meta-llama/Llama-3.1-8B, rewards: []", "countdown", None),
        ("rewrite: {server: {base_url: 'http://editor.example/v1', model: large}}", "countdown", None),
    ],
)
def test_the_card_claims_a_licence_only_where_model_and_texts_are_of_this_project(stage, begins, source, licence):
    copy = stage.path.parent / "copy"
    shutil.copytree(stage.path, copy)
    kind = "grpo" if "teacher" in begins else "sample" if "rewrite" in begins else "sft"
    text = f"{{name: copy, kind: {kind}, {begins}, data: {{source: {source}}}}}"
    if begins.startswith("init"):
        text = text[:-1] + ", architecture: {model_type: qwen3}}"
    (copy / "config.yaml").write_text(f"# fingerprint: 0\n{text}")
    data = ModelCard(card(StageDir(copy), "out")).data
    shutil.rmtree(copy)
    assert data.get("license") == licence


def test_a_stage_is_named_by_its_directory_or_by_name_and_run(stage):
    assert stage_named(str(stage.path), None) == stage_named("b", stage.path.parent) == stage
    with pytest.raises(UserError, match="x is no stage directory; name one as runs/RUN/STAGE, or STAGE with --run"):
        stage_named("x", stage.path.parent)


def test_what_is_there_is_not_overwritten(stage, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    export(stage, out)  # an empty folder is none
    with pytest.raises(UserError, match="out is not empty; --force replaces a model that is there"):
        export(stage, out)
    (out / "model-00002-of-00002.safetensors").write_text("of an older model")
    export(stage, out, force=True)
    assert not (out / "model-00002-of-00002.safetensors").exists()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "vocab.txt").write_text("")
    with pytest.raises(UserError, match=r"notes holds no config\.json, so no model: it is not replaced"):
        export(stage, tmp_path / "notes", force=True)
    with pytest.raises(UserError, match=r"vocab\.txt is a file"):
        export(stage, tmp_path / "notes" / "vocab.txt", force=True)
    with pytest.raises(UserError, match="is the model of the stage itself"):
        export(stage, stage.model, force=True)


@pytest.mark.parametrize("name", ["thesis.txt", "other.bin", "my.safetensors", ".git/", "model.safetensors/"])
def test_a_folder_with_anything_beside_a_model_is_not_replaced(stage, tmp_path, name):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=rf" holds {re.escape(name.rstrip('/'))}, which is no part of a model: it is not repl"):
        export(stage, tmp_path, force=True)
    assert (tmp_path / name).exists()


@pytest.mark.parametrize("to", [".", "", "inner/.."])
def test_the_working_directory_is_not_replaced_under_ones_feet(stage, tmp_path, monkeypatch, to):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is the folder that you are in"):
        export(stage, Path(to))
    export(stage, Path("inner/../out/."))
    assert (tmp_path / "out" / "README.md").exists()


def test_what_cannot_be_exported_is_one_line(stage, tmp_path):
    with pytest.raises(UserError, match="a stage of kind eval has no model to export"):
        export(StageDir(stage.path.parent / "last"), tmp_path / "out")
    copy = tmp_path / "b"
    shutil.copytree(stage.path, copy)
    os.truncate(copy / "model" / "model.safetensors", 10)
    with pytest.raises(UserError, match=r"model\.safetensors is damaged: .*--from b makes it again"):
        export(StageDir(copy), tmp_path / "out")
    (copy / "stage.json").unlink()
    with pytest.raises(UserError, match=r"b is not done: it has no stage\.json yet"):
        export(StageDir(copy), tmp_path / "out")
    assert not (tmp_path / "out").exists()


class StubApi:
    """In the place of the hub: it keeps what it is asked."""

    asked: ClassVar[list[tuple]] = []
    is_public = False
    error: Exception | None = None

    def create_repo(self, repo: str, private: bool, exist_ok: bool) -> str:
        if self.error:
            raise self.error
        self.asked.append(("create", repo, private, exist_ok))
        return f"https://huggingface.co/{repo}"

    def repo_info(self, repo: str):
        return type("Info", (), {"private": not self.is_public})

    def upload_folder(self, folder_path: Path, repo_id: str, commit_message: str) -> None:
        self.asked.append(("upload", repo_id, sorted(path.name for path in folder_path.iterdir())))


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", StubApi)
    monkeypatch.setattr(StubApi, "asked", [])
    return StubApi


def test_the_folder_is_uploaded_privately(hub, stage, tmp_path):
    export(stage, tmp_path / "out", name="me/b")
    assert "from_pretrained('me/b')" in (tmp_path / "out" / "README.md").read_text()
    assert push(tmp_path / "out", "me/b") == "https://huggingface.co/me/b"
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert hub.asked == [("create", "me/b", True, True), ("upload", "me/b", files)]


def test_the_command_says_what_it_uploads_and_where(hub, stage, tmp_path):
    arguments = ["export", "b", "--run", str(stage.path.parent), "--to", str(tmp_path / "out"), "--push-to-hub", "me/b"]
    lines = CliRunner().invoke(app, arguments, catch_exceptions=False).output.splitlines()
    assert lines[0].startswith(f"{tmp_path / 'out'}: ")
    assert "README.md, " in lines[0]
    assert lines[1:] == ["uploading these to the private repository me/b", "https://huggingface.co/me/b"]


def test_a_public_repository_is_uploaded_to_only_on_demand(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "is_public", True)
    with pytest.raises(UserError, match="me/b is public; --public uploads there all the same"):
        push(tmp_path, "me/b")
    push(tmp_path, "me/b", is_private=False)
    assert hub.asked[1:] == [("create", "me/b", False, True), ("upload", "me/b", [])]


@pytest.mark.parametrize(
    "error",
    [HFValidationError("no such name\nmore"), ConnectionError("no such name"), OSError("no such name")],
    ids=lambda error: type(error).__name__,
)
def test_what_the_hub_refuses_is_one_line(hub, tmp_path, monkeypatch, error):
    monkeypatch.setattr(hub, "error", error)
    with pytest.raises(UserError, match=r"^me/b: cannot upload: no such name$"):
        push(tmp_path, "me/b")
    assert issubclass(HfHubHTTPError, OSError)
