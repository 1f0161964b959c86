"""Options of the commands that run or plan a federation, made from the settings' own fields."""

from __future__ import annotations

import functools
import inspect
import math
import tomllib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from palate.data.options import ReadOptions
from palate.errors import ConfigError
from palate.server.resolving import AUTO, defaults
from palate.server.values import fields_of, merge, nested, read_toml


@dataclass(frozen=True)
class Panel:
    """Settings that stand together in `--help`; each is an option named after it.

    Attributes
    ----------
    title
        Heading.
    settings
        Dotted names.
    """

    title: str
    settings: tuple[str, ...]


READING = Panel("Reading the data", tuple(f"read.{name}" for name in ReadOptions.model_fields))
RUN_PANELS = (
    Panel("Data and privacy", ("data", "unit", "epsilon", "delta", "new_items", "seed")),
    Panel(
        "Learning",
        (
            "training.model",
            "training.objective",
            "training.epochs",
            "schedule.rounds",
            "schedule.dim",
            "schedule.participation",
            "optimiser.name",
        ),
    ),
    READING,
    Panel("Engine and references", ("engine", "shards", "baselines")),
)
"""Settings of a simulation that have an option of their own; `--set` reaches the others."""

_NAMES = {"optimiser.name": "--optimiser"}
"""Options that are not named after the last part of their setting."""

_SHOWN = {"unit": "user", "baselines": "all"}
"""Defaults that are not shown as they are stored."""

_ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file with any setting; options win over it.", metavar="FILE")
]
_SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any setting of docs/configuration.md, e.g. --set training.recency_half_life=20."),
]


def with_settings(
    model: type[BaseModel], *panels: Panel, decided: Callable[[], Collection[str]] = tuple
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of some settings, `--config` and `--set`.

    The command's first parameter receives what was asked for, nested as in a TOML file: options over `--set` over
    the file. Its other parameters are options of its own. Name, type, bounds, default and help of an option are those
    of the setting's field.

    Parameters
    ----------
    model
        The configuration that has the settings.
    panels
        Which settings, under which headings.
    decided
        Returns the settings that the command decides itself: `--set` refuses them.
    """
    made = {
        name.replace(".", "__"): (name, _option(model, name, panel.title))
        for panel in panels
        for name in panel.settings
    }

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        _, *own = inspect.signature(command, eval_str=True).parameters.values()
        shared = {"config": _ConfigOption, "setting": _SetOption}
        annotations = {key: option for key, (_, option) in made.items()} | shared
        parameters = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
            for key, kind in annotations.items()
        ]

        @functools.wraps(command)
        def run(*, config: Path | None, setting: list[str] | None, **given: Any) -> None:
            options = nested({name: given.pop(key) for key, (name, _) in made.items()})
            file = {} if config is None else read_toml(config, missing="check the path of the configuration file")
            named = settings_of(setting or [])
            for name in decided():
                if name in named:
                    raise ConfigError(
                        f"--set {name}={named[name]}: this command decides it itself",
                        hint="use its own options: --help",
                    )
            command(merge(merge(file, named), options), **given)

        signature = inspect.Signature([*parameters, *own])
        vars(run).update(
            __signature__=signature,
            __annotations__=annotations | {each.name: each.annotation for each in own},
        )
        return run

    return decorate


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


def _option(model: type[BaseModel], name: str, panel: str) -> Any:
    """Return the annotated type of a setting's option."""
    field = fields_of(model)[name]
    kinds = [kind for kind in get_args(field.annotation) or (field.annotation,) if kind in (int, float, Path, bool)]
    kind = kinds[0] if kinds else str
    spelling = _NAMES.get(name, "--" + name.rpartition(".")[2].replace("_", "-"))
    words = str(field.description)
    notes = [f"default: {default}" for default in [_default(model, name)] if default] + _bounds(field)
    text = f"{words[0].upper()}{words[1:]}." + (f"  [{'; '.join(notes)}]" if notes else "")
    return Annotated[kind | None, typer.Option(spelling, help=text, rich_help_panel=panel, show_default=False)]


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


def _bounds(field: FieldInfo) -> list[str]:
    """Return the bounds of a number as `1<=x<=4096`, as Click writes them; those that nobody meets are left out."""
    found = {sign: getattr(each, key) for each in field.metadata for key, sign in _SIGNS.items() if hasattr(each, key)}
    low, high = (
        next(((sign, f"{found[sign]:g}") for sign in signs if abs(found.get(sign, math.inf)) < _HUGE), None)
        for signs in ((">", ">="), ("<", "<="))
    )
    if low and high:
        return [f"{low[1]}{low[0].replace('>', '<')}x{''.join(high)}"]
    return [f"x{''.join(low or high or ())}"] if low or high else []


_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_HUGE = 1e9
