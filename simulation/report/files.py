"""Files of a run folder as bytes and frames; every problem with one is a `RunError` that names it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from palate.errors import EnvironmentProblem, RunError

_Record = TypeVar("_Record", bound=BaseModel)

_HINT = "the run folder is damaged: copy it again, or repeat the run with its config.toml"


def damaged(folder: Path, name: str, why: str) -> RunError:
    """Say that a file of the run folder cannot be used, and why, on one line."""
    return RunError(f"{folder / name} is damaged: {why.splitlines()[0] if why else 'unreadable'}", hint=_HINT)


def is_file(path: Path) -> bool:
    """Tell whether there is such a file; False also for what cannot be a path."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with a null byte
        return False


def exists(path: Path) -> bool:
    """Tell whether there is anything at a path; False also for what cannot be a path."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def file_bytes(folder: Path, name: str, *, limit: int = -1) -> bytes:
    """Content of one file of the run, or its first `limit` bytes.

    Raises
    ------
    RunError
        If there is no such file.
    EnvironmentProblem
        If it may not be read.
    """
    try:
        with (folder / name).open("rb") as file:
            return file.read(limit)
    except PermissionError as error:
        raise EnvironmentProblem(
            f"no permission to read {folder / name}", hint="check the file's owner and mode"
        ) from error
    except OSError as error:
        raise RunError(f"{folder} has no {name} that can be read", hint=_HINT) from error


def file_record(folder: Path, name: str, kind: type[_Record]) -> _Record:
    """One JSON or TOML file of the run as a record.

    Raises
    ------
    RunError
        If it is missing, damaged, or says something else.
    """
    return as_record(folder, name, file_bytes(folder, name), kind)


def as_record(folder: Path, name: str, text: bytes, kind: type[_Record]) -> _Record:
    """Read a part of a file, JSON unless its name ends in .toml, as a record; raises RunError as `file_record`."""
    try:
        if name.endswith(".toml"):
            return kind.model_validate(tomllib.loads(text.decode("utf-8")))
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise damaged(folder, name, f"{where}: {first['msg']}" if where else first["msg"]) from error
    except ValueError as error:  # both of tomllib and of UTF-8
        raise damaged(folder, name, str(error)) from error
