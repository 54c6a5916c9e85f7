"""The steps that a recipe names, with their arguments: looked up and checked before anything is applied."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from aha.config import NamedConfig, fitting, nearest
from aha.types import UserError

GIVEN = ("text", "trace", "prompt")  # what the caller hands over; the recipe sets the other parameters


def bind(
    configs: Sequence[NamedConfig], known: Mapping[str, Callable[..., Any]], what: str
) -> list[tuple[str, Callable[..., Any]]]:
    """The functions that `configs` name, with their arguments, in order. `what` is what messages call one of them.

    Raises UserError for a name or an argument that there is not, one that is missing, and a value that does not fit.
    """
    return [(cfg.name, _bound(cfg, known, what)) for cfg in configs]


def _bound(cfg: NamedConfig, known: Mapping[str, Callable[..., Any]], what: str) -> Callable[..., Any]:
    if cfg.name not in known:
        raise UserError(f"unknown {what} {cfg.name!r}{nearest(cfg.name, known)}")
    parameters = {name: p for name, p in inspect.signature(known[cfg.name]).parameters.items() if name not in GIVEN}
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in cfg.args:
            raise UserError(f"{what} {cfg.name} wants an argument {name!r}")
    values = {}
    for name, value in cfg.args.items():
        if name not in parameters:
            raise UserError(f"{what} {cfg.name} has no argument {name!r}{nearest(name, parameters) if parameters else ''}")
        values[name] = fitting(value, parameters[name].annotation, f"{what} {cfg.name}: {name}")
    return partial(known[cfg.name], **values)
