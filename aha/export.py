"""A trained model for others: a plain Hugging Face folder with a card that tells where it comes from."""

import shutil
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from aha.bundled import bundled_folder
from aha.chat import load_prompt, render
from aha.config import PromptConfig, validate
from aha.data.hub import HUB_ID
from aha.data.presets import PRESETS
from aha.data.sources import GENERATORS
from aha.graph import read_config
from aha.log import told
from aha.metrics import Measure
from aha.plan import told_bytes
from aha.public import public
from aha.recipe import needs, reference, references
from aha.rundir import RunDir, StageDir, atomic_folder, damage
from aha.stage_configs import STAGE_KINDS, SampleStage, StageConfig
from aha.types import UserError

CARD = "README.md"
MODEL_FILES = (  # names of what a model folder consists of: weights, settings, tokenizer, card
    *("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json", "config.json", "generation_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja", "prompt.json", CARD),
)

PLAIN = """from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({name!r})
model = AutoModelForCausalLM.from_pretrained({name!r})
prompt = {prompt!r}
inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False{special})
output = model.generate(**inputs, max_new_tokens=256, do_sample=True, temperature=1.0)
print(tokenizer.decode(output[0][inputs.input_ids.shape[1] :]))"""
REWARD = """from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({name!r})
model = AutoModelForSequenceClassification.from_pretrained({name!r})
messages = [{{"role": "user", "content": "QUESTION"}}, {{"role": "assistant", "content": "ANSWER"}}]
inputs = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
print(model(**inputs).logits[0, 0])  # the reward: higher is better"""


def stage_named(stage: str, run: Path | None) -> StageDir:
    """The stage directory that `runs/x/zero`, or `zero` with the run directory, names. Raises UserError if it is none."""
    path = run / stage if run else Path(stage)
    if not (path / "config.yaml").exists():
        raise UserError(f"{path} is no stage directory; name one as runs/RUN/STAGE, or STAGE with --run runs/RUN")
    return StageDir(path)


def export(stage: StageDir, to: Path, force: bool = False, name: str | None = None) -> list[Path]:
    """Copy the model of a finished stage to the folder `to`, with its card; returns the files. `name` is what the card
    calls the model by, a hub id for instance; by default the name of the folder.

    Raises UserError where the stage has no model or a damaged one, and where `to` is in use: with `force` an older model
    folder is replaced.
    """
    manifest = stage.read_manifest()
    if manifest is None:
        raise UserError(f"{stage.path} is not done: it has no {stage.manifest.name} yet")
    if "model" not in manifest["outputs"]:
        raise UserError(f"{stage.path}: a stage of kind {manifest['kind']} has no model to export")
    wrong = damage(stage, "model")
    if wrong:
        raise UserError(f"{wrong}; `aha run` with --from {manifest['name']} makes it again")
    _check_target(to, stage, force)
    text = card(stage, name or to.resolve().name)
    target = to.resolve()
    with atomic_folder(target, target.with_name(f".{target.name}.export")) as folder:  # beside it may lie anything
        shutil.copytree(stage.model, folder, dirs_exist_ok=True)
        (folder / CARD).write_text(text, encoding="utf-8")
    return sorted(path for path in to.rglob("*") if path.is_file())


def _check_target(to: Path, stage: StageDir, force: bool) -> None:
    """Refuse to overwrite; with `force`, whatever is more than the files of a model."""
    if to.resolve() == stage.model.resolve():
        raise UserError(f"{to} is the model of the stage itself")
    if to.resolve() == Path.cwd():
        raise UserError(f"{to} is the folder that you are in, which cannot be replaced; name another one")
    if not to.exists():
        return
    if not to.is_dir():
        raise UserError(f"{to} is a file")
    inside = list(to.iterdir())
    if inside and not force:
        raise UserError(f"{to} is not empty; --force replaces a model that is there")
    stray = [
        path.name for path in inside if not path.is_file() or not any(fnmatchcase(path.name, name) for name in MODEL_FILES)
    ]
    if inside and (stray or not (to / "config.json").exists()):
        why = f"{min(stray)}, which is no part of a model" if stray else "no config.json, so no model"
        raise UserError(f"{to} holds {why}: it is not replaced; choose another folder")


# The card.


def card(stage: StageDir, name: str) -> str:
    """The model card: front matter, use, measures, the chain of stages back to the base, recipe, versions."""
    run = RunDir(stage.path.parent)
    manifest = stage.read_manifest()
    assert manifest
    chain = lineage(run, stage.path.name)
    cfg = chain[stage.path.name]
    is_reward = manifest["kind"] == "reward_model"
    parts = [
        f"---\n{yaml.safe_dump(_front_matter(chain, manifest['kind']), sort_keys=False)}---",
        f"# {run.path.resolve().name}/{manifest['name']}",
        f"Stage `{manifest['name']}` (`{manifest['kind']}`) of a run of aha (the Python package aha-r1), which reproduces how "
        "DeepSeek-R1 was trained.",
        f"## Use\n\n```python\n{_use(stage, name, is_reward)}\n```",
    ]
    if not is_reward:
        parts.append(f"```bash\naha chat --model {name}\n```")
    parts += [
        "## Measures\n\n" + _measures(manifest["metrics"]),
        "## Where it comes from\n\n" + _lineage_table(run, chain),
        "## Recipe\n\nWhat differs from the defaults, for each of these stages.\n\n```yaml\n" + _recipe(chain) + "```",
        "## Versions\n\n" + ", ".join(f"{package} {version}" for package, version in manifest["versions"].items()),
        f"Run for {manifest['seconds']:.0f} seconds by the process that finished the stage; seed {cfg.seed}.",
    ]
    return "\n\n".join(parts) + "\n"


def lineage(run: RunDir, name: str) -> dict[str, StageConfig]:
    """The configurations of a stage and of all that it needs, directly or not, the oldest first."""
    written = read_config(run.stage(name))
    if written is None:
        raise UserError(f"{run.stage(name).config}: no such file")
    cfg: StageConfig = validate(STAGE_KINDS[written.values["kind"]], written.values, str(run.stage(name).config))
    chain: dict[str, StageConfig] = {}
    for need in needs(cfg):
        chain |= {key: value for key, value in lineage(run, need).items() if key not in chain}
    return {**chain, name: cfg}


def _front_matter(chain: Mapping[str, StageConfig], kind: str) -> dict[str, Any]:
    learned_from = [model for cfg in chain.values() for model in (cfg.initial_model, getattr(cfg, "teacher_model", None))]
    models = [model for model in learned_from if model and not reference(model)]
    sources = {source for cfg in chain.values() for source in cfg.sources if not reference(source)}
    data = {PRESETS[source].hub if source in PRESETS else source for source in sources}
    matter: dict[str, Any] = {"library_name": "transformers"}
    matter["pipeline_tag"] = "text-classification" if kind == "reward_model" else "text-generation"
    matter["tags"] = ["aha", kind.replace("_", "-")]
    # Models and texts of others have terms of their own, which whoever exports has to look up.
    if all(map(bundled_folder, models)) and sources <= GENERATORS.keys() and not any(map(_servers_of, chain.values())):
        matter["license"] = "apache-2.0"
    if bases := sorted({model for model in models if _is_hub_id(model)}):
        matter["base_model"] = bases
    if datasets := sorted(source for source in data if source and _is_hub_id(source)):
        matter["datasets"] = datasets
    return matter


def _is_hub_id(name: str) -> bool:
    return bool(HUB_ID.match(name)) and not Path(name).exists()


def _use(stage: StageDir, name: str, is_reward: bool) -> str:
    if is_reward:
        return REWARD.format(name=name)
    settings = load_prompt(stage.model) or PromptConfig()
    if settings.template in ("r1", "plain"):
        return PLAIN.format(name=name, prompt=render("QUESTION", settings, None), special="")
    from transformers import AutoTokenizer  # only a chat template needs it to be rendered

    prompt = render("QUESTION", settings, AutoTokenizer.from_pretrained(stage.model))
    return PLAIN.format(name=name, prompt=prompt, special=", add_special_tokens=False")


def _measures(metrics: Mapping[str, Any]) -> str:
    if not metrics:
        return "None: the stage was not evaluated."
    lines = ["| measure | value [95% interval] |", "|---|---|"]
    for key, value in metrics.items():
        lines.append(f"| {key} | {told(Measure(**value)) if isinstance(value, Mapping) else f'{value:.4g}'} |")
    return "\n".join(lines)


def _lineage_table(run: RunDir, chain: Mapping[str, StageConfig]) -> str:
    """Every stage with what it began from, what it read, and its fingerprint; of one that was redone since, both."""
    written = {name: read_config(run.stage(name)) for name in chain}
    used: dict[str, str | None] = {}  # what stages were made of, by their own word
    for name, cfg in chain.items():
        inputs = (own.inputs if (own := written[name]) else None) or {}
        used |= {found[0]: inputs.get(key) for key, text in references(cfg).items() if (found := reference(text))}
    lines = ["| stage | kind | model | data | fingerprint |", "|---|---|---|---|---|"]
    for name, cfg in chain.items():
        data = [f"{public(one.source)} ({one.split})" for one in getattr(cfg, "data", [])]
        print_ = own.fingerprint if (own := written[name]) else ""
        made_of = used.get(name) or print_
        told_print = f"`{print_[:16]}`" if made_of == print_ else f"`{made_of[:16]}`, redone since as `{print_[:16]}`"
        model = _server_of(cfg) or cfg.initial_model or "random weights"
        lines.append(f"| {name} | {cfg.kind} | `{public(model)}` | {', '.join(data)} | {told_print} |")
    return "\n".join(lines)


def _server_of(cfg: StageConfig) -> str | None:
    """The model behind a server that answers in the place of one of ours."""
    return cfg.server.model if isinstance(cfg, SampleStage) and cfg.server else None


def _servers_of(cfg: StageConfig) -> list[str]:
    """The models behind servers whose words are in what a stage makes."""
    rewriter = cfg.rewrite.server.model if isinstance(cfg, SampleStage) and cfg.rewrite else None
    return [model for model in (_server_of(cfg), rewriter) if model]


def _recipe(chain: Mapping[str, StageConfig]) -> str:
    stages = [{"name": name, "kind": "", **cfg.model_dump(mode="json", exclude_defaults=True)} for name, cfg in chain.items()]
    return yaml.safe_dump({"stages": public(stages)}, sort_keys=False, allow_unicode=True, width=110)


# The hub.


def push(folder: Path, repo: str, is_private: bool = True) -> str:
    """Upload a folder to a repository of the hub, made if it is missing; returns its address. Raises UserError.

    A private upload into a repository that is public already is refused.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of its HTTP client, such as no connection

    api = HfApi()
    try:
        address = str(api.create_repo(repo, private=is_private, exist_ok=True))
        if is_private and not api.repo_info(repo).private:
            raise UserError(f"{repo} is public; --public uploads there all the same")
        api.upload_folder(folder_path=folder, repo_id=repo, commit_message="Upload by aha")
    except (HTTPError, OSError, ValueError) as error:
        raise UserError(f"{repo}: cannot upload: {str(error).strip().splitlines()[0]}") from error
    return address


def told_files(files: list[Path]) -> str:
    """Files in words: how many, how large, which."""
    size = sum(path.stat().st_size for path in files)
    return f"{len(files)} files, {told_bytes(size)}: {', '.join(path.name for path in files)}"
