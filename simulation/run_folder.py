"""The run folder: made, locked, recognised, resumed. Format: docs/formats/run-folder.md."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from palate.data.catalogue import Catalogue
from palate.errors import ConfigError, DataError, EnvironmentProblem, RunError
from palate.privacy import files
from palate.simulation.config import SimulationConfig, checked_config, load_config
from palate.simulation.datasets.presets import IN_MEMORY, PRESETS
from palate.simulation.report.files import exists

ASKED, RESOLVED = "config.toml", "resolved.toml"
"""The configuration as it was asked for, and as the data decided it."""

_PACKAGES = ("palate", "flwr", "torch", "numpy", "scipy", "polars", "pydantic", "safetensors", "tokenizers", "ray")
_OURS = (
    "config.toml",
    "resolved.toml",
    "environment.json",
    "rounds.jsonl",
    "items.parquet",
    "item_table.safetensors",
    "checkpoint.safetensors",
    "evaluation.parquet",
    "result.json",
    "report.html",
    "log.txt",
    "devices",
    "plots",
    "ledgers",
    "noise.key",
    "new_items.json",
)
_LOCK = ".lock"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder if missing, and keep other processes out of it.

    Raises
    ------
    EnvironmentProblem
        If the folder cannot be made or written.
    RunError
        If another process is using it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / _LOCK).open("w")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise EnvironmentProblem(
            f"cannot write to run folder {folder}: {reason}", hint="choose another place with --folder"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(
                f"another process is using {folder}", hint="wait for it, or choose another --folder"
            ) from error
        yield


def claim(folder: Path, config: SimulationConfig) -> None:
    """Write the configuration into a new folder, or make sure that an old one belongs to the same.

    Raises
    ------
    RunError
        If the folder holds another run, or files that are not a run.
    """
    path = folder / ASKED
    if path.exists():
        if read_config(folder) != config:
            raise RunError(
                f"{folder} holds a run with another configuration",
                hint="choose another --folder, or --fresh to delete that run and start anew",
            )
        return
    strangers = sorted(entries(folder) - {"environment.json"})  # the only file that a killed process may have left
    if strangers:
        raise RunError(
            f"{folder} is not empty and not a run: it holds {strangers[0]}", hint="choose a new folder with --folder"
        )
    here = {"run": folder.resolve().name, "folder": str(Path.cwd())}
    made = json.dumps(environment() | here, indent=2).encode()
    files.replace(folder / "environment.json", made, mode=files.SHARED)
    write_config(folder, config)


def read_config(folder: Path, name: str = ASKED) -> SimulationConfig:
    """Read a run's configuration; raises RunError where there is none, or it cannot be read."""
    path = folder / name
    if not path.exists():
        raise RunError(f"{folder} is not a run: it has no {name}", hint="palate simulate makes one")
    try:
        values = load_config(path)
        if "unit" not in values:  # otherwise a default that nobody asked for would be used
            raise ConfigError("it names no unit", hint="")
        return checked_config({"split_version": 1, **values})  # runs from before splits had versions
    except ConfigError as error:
        raise RunError(f"{path} is damaged: {error.message}", hint="restore it, or run again with --fresh") from error


def write_config(folder: Path, config: SimulationConfig, name: str = ASKED) -> None:
    """Write a configuration as a whole."""
    files.replace(folder / name, config.to_toml().encode(), mode=files.SHARED)


def run_name(folder: Path) -> str:
    """Return the name under which a run began: ledgers and checkpoints know it by that, whatever the folder's name."""
    return _begun(folder).get("run") or folder.resolve().name


def located(folder: Path, config: SimulationConfig, *, here: bool = False) -> SimulationConfig:
    """Return a run's configuration with the paths of its files as they are found now.

    A relative path is looked for where the run began, then in the run folder, and then beside it. So a run can be read
    from anywhere, and moved together with its data. Whether the content is still the same is for `pin_data` to say.

    Parameters
    ----------
    folder
        The run folder.
    config
        Its configuration.
    here
        Whether the current folder is looked at first, as for a command that names the paths itself. A run from before
        this was recorded is looked for there last.

    Raises
    ------
    DataError
        If the data is nowhere, unless `here`: then the reader says so.
    """
    if config.data in PRESETS or config.data.startswith(IN_MEMORY):
        return config
    origin = _begun(folder).get("folder", "")
    places = [Path(origin)] if origin else []
    places = [*([Path()] if here else []), *places, folder, folder.resolve().parent, *([] if origin else [Path()])]
    data = _found(Path(config.data), places)
    if data is None and not here:
        raise DataError(
            f"{folder}: the data of this run, {config.data}, is not where it was",
            hint=f"put it beside the run folder, into {folder.resolve().parent}",
        )
    items = None if config.read.items is None else _found(config.read.items, places)
    read = config.read if items is None else config.read.model_copy(update={"items": items})
    return config.model_copy(update={"data": config.data if data is None else str(data), "read": read})


def _found(path: Path, places: Sequence[Path]) -> Path | None:
    """Return the first place that has the path, or else its name; the path itself where that is the same file."""
    for candidate in [place / path for place in places] + [place / path.name for place in places]:
        if exists(candidate):
            return path if exists(path) and path.samefile(candidate) else candidate.resolve()
    return None


def _begun(folder: Path) -> dict[str, str]:
    """Read where and under which name a run began; empty for a run from before this was recorded."""
    try:
        values = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
        return {name: str(values[name]) for name in ("run", "folder") if name in values}
    except (OSError, ValueError, TypeError):
        return {}


def pin_data(folder: Path, data_hash: str) -> None:
    """Record the hash of the run's data with the devices' private state, or check it against the record.

    Raises
    ------
    RunError
        If the data has changed since the run began.
    """
    path = folder / "devices" / "data.sha256"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        files.replace(path, data_hash.encode(), mode=files.SHARED)
    elif path.read_text(encoding="utf-8").strip() != data_hash:
        raise RunError(f"{folder}: the data has changed since this run began", hint="run it again with --fresh")


def clear(folder: Path) -> None:
    """Delete the files of a run.

    Raises
    ------
    RunError
        If the folder is not a run's, or holds anything else; then nothing is deleted.
    """
    found = entries(folder)
    strangers = found - set(_OURS) if found & {"config.toml", "environment.json"} else found
    if strangers:
        raise RunError(
            f"{folder} holds {min(strangers)}, which is not part of a run, so nothing was deleted",
            hint="move it elsewhere, or choose another --folder",
        )
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != _LOCK:
            path.unlink()


def entries(folder: Path) -> set[str]:
    """Names in a folder, without the lock and without files that a killed process was writing."""
    names = {path.name for path in folder.iterdir()}
    return {name for name in names if name != _LOCK and not (name.startswith(".") and name.endswith(".tmp"))}


def write_items(folder: Path, catalogue: Catalogue) -> None:
    """Write what is publicly known about the items, without their descriptions, in the order of the table's rows."""
    files.replace(folder / "items.parquet", catalogue.to_parquet(texts=False), mode=files.SHARED)


def environment() -> dict[str, object]:
    """Describe the environment of the run, so that it can be repeated."""
    packages = {}
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            packages[name] = version(name)
    return {
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "palate": packages.get("palate", "unknown"),
        "packages": packages,
    }
