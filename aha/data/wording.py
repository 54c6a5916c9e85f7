"""How a stage of kind `sample` words its questions, and the answers read back into one form.

Cold start asks in three ways (arXiv 2501.12948, section 2.3.1): the model as it was trained, few-shot with long worked
chains, and directly for reasoning with reflection and verification.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import yaml

from aha.chat import parse
from aha.config import ExampleConfig, PromptConfig, validate
from aha.data.files import read
from aha.stage_configs import SampleStage
from aha.types import Sample, UserError

Answer = tuple[Sample, str]  # and its text


def wording_of(cfg: SampleStage, settings: PromptConfig) -> Callable[[str], str]:
    """What is asked for a question: the question itself, or the template of `ask` with it."""
    if cfg.ask == "as_trained":
        return str
    fields = {"think": settings.think, "answer": settings.answer, "delimiter": cfg.delimiter}
    if cfg.ask == "few_shot":
        shown = [cfg.example_template.format(**example.model_dump(), **fields) for example in load_examples(cfg)]
        fields["examples"] = "\n\n".join(shown)
    return lambda question: cfg.wording.format(question=question, **fields)


def load_examples(cfg: SampleStage) -> list[ExampleConfig]:
    """The worked examples of the recipe, or those of the file that it names. Raises UserError."""
    if not isinstance(cfg.examples, str):
        return cfg.examples
    path = Path(cfg.examples).expanduser()
    if path.suffix not in (".yaml", ".yml"):
        return [validate(ExampleConfig, row, where) for where, row in read(path)]
    try:
        rows = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{path}: want a list of examples, each with question, reasoning and summary")
    return [validate(ExampleConfig, row, f"{path}: row {i}") for i, row in enumerate(rows, 1)]


def readable(sample: Sample, text: str, cfg: SampleStage, settings: PromptConfig, thoughts: str = "") -> Answer:
    """An answer in the one form that graders and training see: thoughts and answer between their tags.

    It ends before the first of the texts of `stop`. The form of few_shot becomes tags, unless it was cut off. `thoughts`,
    which a server gave apart, go between theirs where the text has none of its own.
    """
    end = min((place for stop in cfg.stop if (place := text.find(stop)) >= 0), default=None)
    if end is not None:
        sample, text = replace(sample, finish_reason="stop"), text[:end]
    if cfg.ask == "few_shot" and sample.finish_reason == "stop":
        is_open = cfg.wording.rstrip().endswith("{delimiter}") and not settings.prefill
        text = from_few_shot(cfg.delimiter + text if is_open else text, cfg.delimiter, settings)
    if thoughts.strip() and not parse(text, settings.think, settings.answer).is_well_formed:
        text = f"<{settings.think}>{thoughts.strip()}</{settings.think}> {text.strip()}"
    return sample, text


def from_few_shot(text: str, delimiter: str, settings: PromptConfig) -> str:
    """`delimiter reasoning delimiter summary` (arXiv 2501.12948, section 2.3.1) with tags; any other text as it is."""
    before, *parts = text.split(delimiter)
    if len(parts) == 3 and not parts[2].strip():
        parts.pop()  # a delimiter at the end, too
    if before.strip() or len(parts) != 2 or not all(part.strip() for part in parts):
        return text
    reasoning, summary = (part.strip() for part in parts)
    think, answer = settings.think, settings.answer
    return f"<{think}>{reasoning}</{think}> <{answer}>{summary}</{answer}>"
