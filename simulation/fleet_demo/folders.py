"""Sets the demonstration up: people of the demo data, the fleet's folder, and a folder for every device.

Folders are made with the same functions as the commands use.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from palate.client.fleet import enrolling
from palate.client.fleet.folder import DeviceFolder
from palate.client.vault import Vault
from palate.client.vault.history import History, Interaction
from palate.data.catalogue import Catalogue
from palate.errors import ConfigError
from palate.privacy import files
from palate.privacy.enrolment import EnrolmentRequest
from palate.server.fleet.folder import FleetFolder
from palate.server.fleet.setup import make_fleet, welcome
from palate.simulation.datasets.presets import load

_DEADLINES = {
    "advertise_seconds": 90.0,
    "share_seconds": 15.0,
    "mask_seconds": 15.0,
    "confirm_seconds": 15.0,
    "reveal_seconds": 15.0,
    "receipt_seconds": 10.0,
    "offline_seconds": 8.0,
    "pause_seconds": 1.0,
}
"""Short, so that a killed device is not waited for long; the first step has time for 20 processes on two cores."""


def choose(devices: int, seed: int) -> tuple[Catalogue, dict[str, list[str]]]:
    """Draw people of the demo data, and return what each has seen, oldest first, with the public catalogue.

    Raises
    ------
    ConfigError
        If the demo data has fewer people.
    """
    data = load("demo")
    if devices > data.num_users:
        raise ConfigError(f"{devices} devices, but the demo data has {data.num_users} people", hint="ask for fewer")
    drawn = np.sort(np.random.default_rng(seed).choice(data.num_users, size=devices, replace=False))
    ids = data.catalogue.ids
    return data.catalogue, {data.users[user]: [ids[item] for item in data.item[data.user == user]] for user in drawn}


@dataclass(frozen=True)
class DemoFleet:
    """A fleet and its devices, ready to run.

    Attributes
    ----------
    fleet
        The operator's folder.
    devices
        Folders of the devices, by name; the names are those that the server knows.
    logs
        Where processes print to.
    """

    fleet: FleetFolder
    devices: dict[str, DeviceFolder]
    logs: Path


def build(
    root: Path,
    catalogue: Catalogue,
    people: Mapping[str, Sequence[str]],
    *,
    rounds: int,
    epsilon: float,
    smallest: int,
    progress: Callable[[int], None] = lambda _: None,
) -> DemoFleet:
    """Make a fleet and enrol a device for every person.

    Parameters
    ----------
    root
        An empty folder.
    catalogue, people
        The public items, and by name what everybody who takes part has seen.
    rounds
        Rounds of the run, the popularity round included.
    epsilon
        Budget of the run.
    smallest
        Fewest devices of a round.
    progress
        Called with the number of devices that are ready.

    Raises
    ------
    ConfigError, PrivacyError
        If a setting cannot be used.
    """
    logs = root / "logs"
    logs.mkdir(parents=True)
    files.replace(root / "items.parquet", catalogue.to_parquet())
    fleet = FleetFolder(root / "fleet")
    port = _free_port()
    given: dict[str, Any] = {
        "name": "demo",
        "run": "demo-1",
        "epsilon": epsilon,
        "listen": {"address": f"127.0.0.1:{port}", "bind": "127.0.0.1", "port": port},
        "cohort": {"devices": len(people), "smallest": smallest},
        "deadlines": _DEADLINES,
        "schedule": {"rounds": rounds - 1},
    }
    make_fleet(fleet, root / "items.parquet", given)
    devices = {}
    for name, items in people.items():
        folder = DeviceFolder(root / "devices" / name)
        devices[_enrolled(fleet, folder, items, smallest)] = folder
        progress(len(devices))
    return DemoFleet(fleet, devices, logs)


def _enrolled(fleet: FleetFolder, folder: DeviceFolder, items: Sequence[str], smallest: int) -> str:
    made = enrolling.begin(folder, keyring="file")
    request = folder.home / "request.json"
    enrolling.request(folder, request)
    answer = welcome(fleet, EnrolmentRequest.open(request.read_bytes()))
    archive = folder.home / "welcome.zip"
    files.replace(archive, answer.archive)
    read, catalogue = enrolling.read_welcome(archive)
    enrolling.accept(folder, read, catalogue, enrolling.limits_for(read, smallest_cohort=smallest))
    with Vault.open(folder.vault) as vault:
        History(vault).add_many([Interaction(item=item, value=1.0, time=None, source="import") for item in items])
    return made.device


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
