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
from palate.privacy.ledger.framing import framed
from palate.server.fleet.certifying import propose
from palate.server.fleet.folder import FleetFolder
from palate.server.fleet.setup import make_fleet, welcome
from palate.server.helper.config import checked_config
from palate.server.helper.folder import HelperFolder, make_helper, opened, trust
from palate.simulation.datasets.presets import load

_DEADLINES = {
    "advertise_seconds": 90.0,
    "share_seconds": 15.0,
    "mask_seconds": 15.0,
    "confirm_seconds": 15.0,
    "reveal_seconds": 15.0,
    "receipt_seconds": 10.0,
    "report_seconds": 90.0,
    "answer_seconds": 120.0,
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
    helper
        The folder of the helper; None where devices share masks with each other.
    """

    fleet: FleetFolder
    devices: dict[str, DeviceFolder]
    logs: Path
    helper: HelperFolder | None = None


def build(
    root: Path,
    catalogue: Catalogue,
    people: Mapping[str, Sequence[str]],
    *,
    rounds: int,
    epsilon: float,
    smallest: int,
    with_helper: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> DemoFleet:
    """Make a fleet, with a helper or without, and enrol a device for every person.

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
    with_helper
        Whether rounds go through two aggregators.
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
    helper, card = None, None
    if with_helper:
        helper, port = HelperFolder(root / "helper"), _free_port()
        make_helper(
            helper,
            checked_config({"fleet": "demo", "address": f"127.0.0.1:{port}", "bind": "127.0.0.1", "port": port}),
        )
        card = helper.card.read_bytes()
        given["privacy"] = {"spare_rounds": 1}  # of devices that are killed a round may lose too many
    make_fleet(fleet, root / "items.parquet", given, helper=card)
    if helper is not None:
        trust(helper, fleet.leader_card.read_bytes())
    asking: dict[str, tuple[DeviceFolder, EnrolmentRequest]] = {}
    for name in people:
        folder = DeviceFolder(root / "devices" / name)
        asking[name] = folder, _request(folder)
    certificates = None if helper is None else _admitted(fleet, helper, [request for _, request in asking.values()])
    devices = {}
    for name, (folder, request) in asking.items():
        devices[_enrolled(fleet, folder, request, certificates, people[name], smallest)] = folder
        progress(len(devices))
    return DemoFleet(fleet, devices, logs, helper)


def _request(folder: DeviceFolder) -> EnrolmentRequest:
    enrolling.begin(folder, keyring="file")
    path = folder.home / "request.json"
    enrolling.request(folder, path)
    return EnrolmentRequest.open(path.read_bytes())


def _admitted(fleet: FleetFolder, helper: HelperFolder, requests: Sequence[EnrolmentRequest]) -> bytes:
    """Have both parties sign for all devices, and return the certificates as the helper's command writes them."""
    with opened(helper) as service:
        signed = service.admit([propose(fleet, request) for request in requests])
    return framed(*(each.to_bytes() for each in signed))


def _enrolled(
    fleet: FleetFolder,
    folder: DeviceFolder,
    request: EnrolmentRequest,
    certificates: bytes | None,
    items: Sequence[str],
    smallest: int,
) -> str:
    made = welcome(fleet, request, certificate=certificates)
    archive = folder.home / "welcome.zip"
    files.replace(archive, made.archive)
    read, catalogue = enrolling.read_welcome(archive)
    enrolling.accept(folder, read, catalogue, enrolling.limits_for(read, smallest_cohort=smallest))
    with Vault.open(folder.vault) as vault:
        History(vault).add_many([Interaction(item=item, value=1.0, time=None, source="import") for item in items])
    return made.device


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
