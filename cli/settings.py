"""Options of the commands that run or plan a federation, made from the settings' own fields."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import typer
from pydantic import BaseModel

from palate.cli.fields import keyword, option, replacing
from palate.data.options import ReadOptions
from palate.errors import ConfigError
from palate.server.resolving import AUTO, defaults
from palate.server.values import fields_of, merge, nested, read_toml

_Command = TypeVar("_Command", bound=Callable[..., Any])

RUN_PANELS = {
    "Data and privacy": ("data", "unit", "epsilon", "delta", "new_items", "seed"),
    "Learning": (
        "training.model",
        "training.objective",
        "training.epochs",
        "schedule.rounds",
        "schedule.dim",
        "schedule.participation",
        "optimiser.name",
    ),
    "Reading the data": tuple(f"read.{name}" for name in ReadOptions.model_fields),
    "Engine and references": ("engine", "shards", "baselines"),
}
"""Settings of a simulation that have an option of their own, by heading; `--set` reaches the others."""

_NAMES = {"optimiser.name": "--optimiser"}
"""Options that are not named after the last part of their setting."""

_SHOWN = {"unit": "user", "baselines": "auto"}
"""Defaults that are not shown as they are stored."""

_FILES = (
    keyword(
        "config",
        Path | None,
        typer.Option("--config", help="TOML file with any setting; options override it.", metavar="FILE"),
    ),
    keyword(
        "setting",
        list[str] | None,
        typer.Option("--set", help="Any setting of docs/configuration.md, e.g. --set training.recency_half_life=20."),
    ),
)


def with_settings(
    model: type[BaseModel], panels: Mapping[str, Sequence[str]], *, decided: Callable[[], Collection[str]] = tuple
) -> Callable[[_Command], _Command]:
    """Give a command the options of some settings, `--config` and `--set`, in the place of its argument `asked`.

    It receives what was asked for, nested as in a TOML file: options over `--set` over the file.

    Parameters
    ----------
    model
        The configuration that has the settings.
    panels
        Which settings, under which headings.
    decided
        Returns the settings that the command decides itself: `--set` refuses them.
    """
    fields = fields_of(model)
    titles = {name: title for title, names in panels.items() for name in names}
    keys = {name.replace(".", "__"): name for name in titles}
    options = [
        option(
            key,
            fields[name],
            spelling=_NAMES.get(name, "--" + name.rpartition(".")[2].replace("_", "-")),
            default=_default(model, name),
            panel=titles[name],
        )
        for key, name in keys.items()
    ]

    def asked(given: dict[str, Any]) -> dict[str, Any]:
        config, named = given.pop("config"), settings_of(given.pop("setting") or [])
        file = {} if config is None else read_toml(config, missing="check the path of the configuration file")
        for name in decided():
            if name in named:
                raise ConfigError(
                    f"--set {name}={named[name]}: this command decides it itself", hint="use its own options: --help"
                )
        return merge(merge(file, named), nested({keys[key]: value for key, value in given.items()}))

    return replacing("asked", [*options, *_FILES], asked)


def settings_of(texts: Sequence[str]) -> dict[str, Any]:
    """Return the values of `--set name=value`, read as TOML values or else as text; raises ConfigError for others."""
    merged: dict[str, Any] = {}
    for text in texts:
        name, equals, raw = text.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"--set {text!r} is not name=value", hint="for example --set schedule.dim=32")
        try:
            value = tomllib.loads(f"value = {raw.strip()}")["value"]
        except tomllib.TOMLDecodeError:
            value = raw.strip()
        merged = merge(merged, nested({name.strip(): value}))
    return merged


def _default(model: type[BaseModel], name: str) -> str:
    """Say what holds where an option is not given, with protection and without."""
    if name in _SHOWN:
        return _SHOWN[name]
    private, plain = (_value(defaults(model, unit)[name]) for unit in ("user", "none"))
    words = "planned" if name in AUTO else private
    return words if plain in ("", words) else f"{words}; {plain} with unit none"


def _value(value: Any) -> str:
    if value is None or value is False:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
