"""Names of models: those that travel inside the package, folders, and what may be on the hub."""

import difflib
from pathlib import Path

from aha.types import UserError

ASSETS = Path(__file__).parent / "assets"
BUNDLED_MODELS = tuple(sorted(folder.name for folder in ASSETS.iterdir() if folder.is_dir()))
DEFAULT_MODEL = "tiny-base"


def bundled_folder(name: str) -> Path | None:
    """The folder of a bundled model; None for any other name. A bundled name wins over a folder of that name."""
    return ASSETS / name if name in BUNDLED_MODELS else None


def check_model(name: str) -> None:
    """Raise UserError where a model is neither bundled, nor a model folder, nor perhaps one of the hub."""
    path = Path(name)
    if bundled_folder(name) or (path / "config.json").exists():
        return
    if path.exists():
        raise UserError(f"{name} is no model: it has no config.json")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"{name} is no model: there is no such folder")
    # Old models of the hub have names without a slash too, such as gpt2, so only what is close to a bundled name is refused.
    close = difflib.get_close_matches(name, BUNDLED_MODELS, n=1, cutoff=0.8)
    if close:
        raise UserError(f"{name} is no model: there is no such folder; did you mean {close[0]}?")
