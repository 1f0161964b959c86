"""Settings as values: nested as in a TOML file, or flat under dotted names such as `schedule.rounds`."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from palate.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries with `over` winning; the arguments stay as they are."""
    merged = dict(base)
    for name, value in over.items():
        old = merged.get(name)
        merged[name] = merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted names into nested dictionaries, without those that are None."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        if value is None:
            continue
        *parents, last = name.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return nested


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested dictionaries into dotted names; the inverse of `nested` where nothing is None."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


def values_of(settings: BaseModel) -> dict[str, Any]:
    """Return every setting of a configuration under its dotted name, as the object that the field holds."""
    return {name: value for name, (_, value) in _leaves(type(settings), settings)}


def fields_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields of a configuration under their dotted names, without the sections that hold them."""
    return {name: field for name, (field, _) in _leaves(model, None)}


def _leaves(
    model: type[BaseModel], values: BaseModel | None, prefix: str = ""
) -> Iterator[tuple[str, tuple[FieldInfo, Any]]]:
    for name, field in model.model_fields.items():
        kind, value = field.annotation, None if values is None else getattr(values, name)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _leaves(kind, value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", (field, value)


def asked_in(settings: BaseModel) -> dict[str, Any]:
    """Return the values that somebody set in a configuration, nested; its defaults are left out."""
    return {
        name: asked_in(value) if isinstance(value := getattr(settings, name), BaseModel) else value
        for name in type(settings).model_fields
        if name in settings.model_fields_set
    }


def read_toml(path: Path, *, missing: str) -> dict[str, Any]:
    """Read a TOML file as nested values.

    Parameters
    ----------
    path
        The file.
    missing
        What to do about a file that does not exist.

    Raises
    ------
    ConfigError
        If the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist", hint=missing) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} is not a TOML file: {error}", hint="docs/configuration.md shows one") from error


def setting_refused(error: ValidationError, model: type[BaseModel], *, hint: str) -> ConfigError:
    """Say what is wrong with the first bad setting in one line that names it, and suggest a name for an unknown one."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return ConfigError(f"{place} = {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}", hint=hint)
    likely = similar(place, fields_of(model))
    hint = f"did you mean {likely}?" if likely else hint
    return ConfigError(f"{place} = {first['input']!r}: there is no such setting", hint=hint)


def checked_name(value: str) -> str:
    """Return the name of a fleet or of a run; raises ConfigError where it cannot be one."""
    if not _NAME.fullmatch(value):
        raise ConfigError(f"{value!r} is not a name", hint="use up to 63 letters, digits, dots, dashes and underscores")
    return value


def similar(name: str, names: Mapping[str, object]) -> str | None:
    """Return the setting that a misspelt or misplaced name most likely means, or None."""
    by_last = {each.rpartition(".")[2]: each for each in names}
    last = name.rpartition(".")[2]
    if last in by_last:
        return by_last[last]
    whole = difflib.get_close_matches(name, names, n=1, cutoff=0.75)
    parts = [by_last[part] for part in difflib.get_close_matches(last, by_last, n=1, cutoff=0.75)]
    return next(iter(whole + parts), None)
