"""Make a demonstration device: vault, catalogue and table like a real one, and an invented person's history.

The table comes from a short private simulation of the embedded demo data: thousands of invented people, user-level
noise, ledgers. Nobody's data is behind it, and no fleet: the device has no budget and takes part in no rounds.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

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
from palate.models.training import LocalTraining
from palate.privacy import files
from palate.privacy.accounting.events import Unit
from palate.privacy.budget import Promise
from palate.simulation.config import checked_config
from palate.simulation.federation import simulate
from palate.simulation.prepare import prepare
from palate.simulation.progress import Watcher
from palate.simulation.run_folder import RESOLVED, read_config
from palate.simulation.run_reader import read_item_table

MARK: Final = "demo.json"
"""File that tells a demonstration device from a real one."""

_EPSILON, _DELTA = 8.0, 1e-5
_HISTORY = (30, 80)
"""Films that the invented owner has seen: enough to show a taste, and few enough to read."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a demonstration device is.

    Attributes
    ----------
    people, items
        Invented people that the table was learned from, and films in the catalogue.
    promise
        What the simulated run kept to for each of these people.
    history
        Films that the device's invented owner has seen.
    newest
        Title of the last of them.
    """

    people: int
    items: int
    promise: Promise
    history: int
    newest: str


def make(folder: DeviceFolder, *, seed: int, tell: Callable[[str], None] = lambda _: None) -> Made:
    """Make a demonstration device in a new folder.

    Parameters
    ----------
    folder
        Where to; it has no vault yet.
    seed
        Draws the invented people's tastes in the simulation, and whose history the device gets; never noise or keys.
    tell
        Called with a line about every step.

    Raises
    ------
    EnvironmentProblem, VaultError
        If the folder cannot be used, or has a vault already.
    """
    config = checked_config(
        {"data": "demo", "unit": "user", "epsilon": _EPSILON, "delta": _DELTA, "seed": seed, "baselines": ()}
    )
    enrolling.begin(folder, keyring="file")
    tell("reading the demo data")
    with tempfile.TemporaryDirectory(prefix="palate-try-") as scratch:
        run = Path(scratch) / "run"
        simulate(config, run, Watcher(lambda progress: tell(progress.words)), ray_address="")
        table, training = read_item_table(run).table, read_config(run, RESOLVED).training
        prepared = prepare(config)  # remembered by the simulation; rows are numbered as in the table
        data = prepared.interactions
        files.replace(folder.catalogue, data.catalogue.to_parquet())
    table_keeper(folder.table)(table)
    tell("giving the device a history")
    made = _furnished(folder, data, training, prepared.column_names, config.promises[Unit.USER], seed)
    about = {"people": made.people, "items": made.items, "epsilon": made.promise.epsilon, **made.promise.reading}
    about |= {"seed": seed}
    files.replace(folder.home / MARK, json.dumps(about).encode("ascii"))
    return made


def is_demo(folder: DeviceFolder) -> bool:
    """Whether a folder's device is a demonstration, and was made to the end."""
    return (folder.home / MARK).is_file()


def seed_of(folder: DeviceFolder) -> int | None:
    """Return the seed that a demonstration device was made with; None where it does not say."""
    try:
        seed = json.loads((folder.home / MARK).read_bytes()).get("seed")
    except (OSError, ValueError, AttributeError):
        return None
    return seed if isinstance(seed, int) else None


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


def _furnished(
    folder: DeviceFolder,
    data: Interactions,
    training: LocalTraining,
    columns: tuple[str, ...],
    promise: Promise,
    seed: int,
) -> Made:
    lengths = np.bincount(data.user, minlength=data.num_users)
    readable = np.flatnonzero((lengths >= _HISTORY[0]) & (lengths <= _HISTORY[1]))
    owner = int(np.random.default_rng(seed).choice(readable))
    items = data.item[data.user == owner].tolist()  # oldest first
    with Vault.open(folder.vault) as vault:
        TRAINING.write(vault, training.model_dump_json())
        COLUMNS.write(vault, columns)
        history = History(vault)
        history.add_many([Interaction(item=data.catalogue.ids[item], source="import") for item in items])
        history.forget_steps()  # an `undo` should not take the whole demonstration away
        open_recommender(folder, vault)  # what takes long is done here, and not in the first list
    return Made(
        people=data.num_users,
        items=data.catalogue.num_items,
        promise=promise,
        history=len(items),
        newest=data.catalogue.titles[items[-1]],
    )
