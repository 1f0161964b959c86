"""Make a demonstration device: vault, catalogue and table like a real one.

The table comes from a short private simulation of a dataset, or from a finished run. Unless told otherwise that is the
embedded demo data, thousands of invented people, and the device gets the history of one of them. A device of real items
begins with an empty history, for its owner's own. There is no fleet behind it: it has no budget and takes part in no
rounds.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from palate.client.fleet import enrolling
from palate.client.fleet.folder import DeviceFolder
from palate.client.fleet.profile import FleetProfile
from palate.client.fleet.round_log import RoundLog
from palate.client.fleet.tables import COLUMNS, TRAINING, table_keeper
from palate.client.owner.forgetting import forget_device
from palate.client.owner.opening import open_recommender
from palate.client.vault import Vault, tombstone
from palate.client.vault.errors import Forgotten, NoVault
from palate.client.vault.history import History, Interaction
from palate.data.interactions import Interactions
from palate.errors import ConfigError
from palate.privacy import files
from palate.privacy.budget import Promise
from palate.simulation.claims import label_of
from palate.simulation.config import SimulationConfig, checked_config
from palate.simulation.federation import simulate
from palate.simulation.finished import table_of
from palate.simulation.prepare import prepare
from palate.simulation.progress import Watcher
from palate.simulation.report.recommending import unknown_user
from palate.simulation.run_folder import RESOLVED, located, read_config

MARK: Final = "demo.json"
"""File that tells a demonstration device from a real one."""

INVENTED: Final = "demo"
"""The dataset whose people and films are invented."""

_EPSILON, _DELTA = 8.0, 1e-5
_HISTORY = (30, 80)
"""Films that the invented owner has seen: enough to show a taste, and few enough to read."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a demonstration device comes from.

    Attributes
    ----------
    data
        The dataset to learn from; with `run`, what that run learned from.
    run
        Folder of a finished run whose table is taken; None to learn one now.
    user
        Whose history the device gets, by id; "" for that of an invented person, or none where the people are real.
    seed
        Draws the simulation, and whose history a device of invented films gets; never noise or keys.
    """

    data: str = INVENTED
    run: Path | None = None
    user: str = ""
    seed: int = 1

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the mark of the device."""
        return {
            "data": self.data,
            "run": None if self.run is None else str(self.run),
            "user": self.user,
            "seed": self.seed,
        }


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a demonstration device is.

    Attributes
    ----------
    source
        Where it comes from.
    people, items
        People that the table was learned from, and items in the catalogue.
    protection
        What protected each of these people, in one line.
    explained
        What that is about, and when it holds.
    history
        Items in the device's history.
    example
        Title of the last of them, or of the most popular item.
    """

    source: Source
    people: int
    items: int
    protection: str
    explained: str
    history: int
    example: str


def make(folder: DeviceFolder, source: Source, tell: Callable[[str], None] = lambda _: None) -> Made:
    """Make a demonstration device in a new folder.

    Parameters
    ----------
    folder
        Where to; it has no vault yet.
    source
        What is in it.
    tell
        Called with a line about every step.

    Raises
    ------
    EnvironmentProblem, VaultError
        If the folder cannot be used, or has a vault already.
    DataError, RunError
        If the data or the run cannot be read, or the data has no such person.
    """
    enrolling.begin(folder, keyring="file")
    if source.run is not None:
        made = _made_from(folder, source.run, source, tell)
    else:
        tell(f"reading {source.data}")
        asked = {"data": source.data, "unit": "user", "epsilon": _EPSILON, "delta": _DELTA, "seed": source.seed}
        with tempfile.TemporaryDirectory(prefix="palate-try-") as scratch:
            run = Path(scratch) / "run"
            watcher = Watcher(lambda progress: tell(progress.words))
            simulate(checked_config({**asked, "baselines": ()}), run, watcher, ray_address="")
            made = _made_from(folder, run, source, tell)
    about = {"people": made.people, "items": made.items, "protection": made.protection, **source.to_json()}
    files.replace(folder.home / MARK, json.dumps(about).encode("ascii"))
    return made


def _made_from(folder: DeviceFolder, run: Path, source: Source, tell: Callable[[str], None]) -> Made:
    config = located(run, read_config(run, RESOLVED))
    prepared = prepare(config)  # remembered by the simulation; rows are numbered as in the table
    table, data = table_of(run, config, prepared), prepared.interactions
    files.replace(folder.catalogue, data.catalogue.to_parquet())
    table_keeper(folder.table)(table)
    tell("preparing the device")
    items = _history(data, source)
    with Vault.open(folder.vault) as vault:
        TRAINING.write(vault, config.training.model_dump_json())
        COLUMNS.write(vault, prepared.column_names)
        history = History(vault)
        history.add_many([Interaction(item=data.catalogue.ids[item], source="import") for item in items])
        history.forget_steps()  # an `undo` should not take the whole demonstration away
        open_recommender(folder, vault)  # what takes long is done here, and not in the first list
    return Made(
        source=source,
        people=data.num_users,
        items=data.catalogue.num_items,
        protection=_protection(config, lambda promise: promise.line),
        explained=_protection(config, lambda promise: promise.words),
        history=len(items),
        example=data.catalogue.titles[items[-1] if items else int(np.bincount(data.item).argmax())],
    )


def _protection(config: SimulationConfig, say: Callable[[Promise], str]) -> str:
    """Say what protects the people whom a run learned from; the promise only where its noise was secret."""
    if not config.promises or config.privacy.noise == "seeded":
        return label_of(config)
    return "; ".join(map(say, config.promises.values()))


def _history(data: Interactions, source: Source) -> list[int]:
    """Rows of the items that the device's owner had, oldest first."""
    if source.user:
        if source.user not in data.users:
            raise unknown_user(source.user, data)
        return [int(item) for item in data.item[data.user == data.users.index(source.user)]]
    if source.data != INVENTED:
        return []
    lengths = np.bincount(data.user, minlength=data.num_users)
    readable = np.flatnonzero((lengths >= _HISTORY[0]) & (lengths <= _HISTORY[1]))
    owner = int(np.random.default_rng(source.seed).choice(readable))
    return [int(item) for item in data.item[data.user == owner]]


def is_demo(folder: DeviceFolder) -> bool:
    """Whether a folder's device is a demonstration, and was made to the end."""
    return (folder.home / MARK).is_file()


def made_with(folder: DeviceFolder) -> dict[str, Any]:
    """Return what a demonstration device was made with, as `Source.to_json`; empty where it does not say."""
    try:
        mark = json.loads((folder.home / MARK).read_bytes())
    except (OSError, ValueError):
        return {}
    return {name: mark[name] for name in Source().to_json() if name in mark} if isinstance(mark, dict) else {}


def clear_away(folder: DeviceFolder) -> None:
    """Destroy a demonstration device, as `palate client forget` does, so that another one can be made there.

    Raises
    ------
    ConfigError
        If it has become a real one: it belongs to a fleet, or spent some of a privacy budget.
    RunError, VaultError
        As `forget_device`.
    """
    if _is_real(folder):
        raise ConfigError(
            f"{folder.home} belongs to a fleet, or has spent some of a privacy budget",
            hint="name a new folder with --folder; what was spent must not be lost: palate client forget",
        )
    with suppress(NoVault):  # forgotten before
        forget_device(folder)
    # The marker file last: without it, an interrupted start could not be continued.
    for path in (folder.vault / tombstone.FILE, folder.lock, folder.home / MARK):
        path.unlink(missing_ok=True)
    with suppress(OSError):
        folder.vault.rmdir()


def _is_real(folder: DeviceFolder) -> bool:
    stone = tombstone.read(folder.vault)
    if folder.ledger.exists() or (stone is not None and stone.spent):
        return True
    try:
        with Vault.open(folder.vault) as vault:
            return FleetProfile.load(vault) is not None or bool(RoundLog(vault).heads())
    except (Forgotten, NoVault):
        return False
