"""Sets the demonstration up: people of the demo data, the fleet's folder, and a folder for every device.

Folders are made with the same functions as the commands use.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from palate.server.fleet.certifying import propose
from palate.server.fleet.folder import FleetFolder
from palate.server.fleet.setup import Welcomed, make_fleet, welcome
from palate.server.helper.config import checked_config
from palate.server.helper.folder import HelperFolder, make_helper, opened, trust
from palate.server.values import merge
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
    deadlines: Mapping[str, float] | None = None,
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
    deadlines
        Those that are other than the demonstration's.
    progress
        Called with the number of devices that are ready.

    Raises
    ------
    ConfigError, PrivacyError
        If a setting cannot be used.
    """
    asked: dict[str, Any] = {
        "cohort": {"devices": len(people), "smallest": smallest},
        "deadlines": {**_DEADLINES, **(deadlines or {})},
    }
    if with_helper:
        asked["privacy"] = {"spare_rounds": 1}  # of devices that are killed a round may lose too many
    asked |= {"epsilon": epsilon, "schedule": {"rounds": rounds - 1}}
    demo = found(root, catalogue, asked, with_helper=with_helper)
    asking: dict[str, tuple[DeviceFolder, EnrolmentRequest]] = {}
    for name in people:
        folder = DeviceFolder(root / "devices" / name)
        asking[name] = folder, EnrolmentRequest.open(make_device(folder))
    for name, welcomed in zip(people, welcome_all(demo, [request for _, request in asking.values()]), strict=True):
        folder, archive = asking[name][0], asking[name][0].home / "welcome.zip"
        files.replace(archive, welcomed.archive)
        join(folder, archive, people[name], smallest=smallest)
        demo.devices[welcomed.device] = folder
        progress(len(demo.devices))
    return demo


def found(root: Path, catalogue: Catalogue, asked: Mapping[str, Any], *, with_helper: bool) -> DemoFleet:
    """Make a fleet's folder, with a helper or without, on free ports of the loopback interface; no device yet.

    Parameters
    ----------
    root
        An empty folder.
    catalogue
        The public items.
    asked
        Settings of fleet.toml besides names and addresses.
    with_helper
        Whether rounds go through two aggregators.

    Raises
    ------
    ConfigError, PrivacyError
        If a setting cannot be used.
    """
    logs, items = root / "logs", root / "items.parquet"
    logs.mkdir(parents=True)
    files.replace(items, catalogue.to_parquet())
    fleet, port = FleetFolder(root / "fleet"), _free_port()
    listen = {"address": f"127.0.0.1:{port}", "bind": "127.0.0.1", "port": port}
    given = merge({"name": "demo", "run": "demo-1", "listen": listen}, asked)
    helper = HelperFolder(root / "helper") if with_helper else None
    if helper is not None:
        port = _free_port()
        own = {"fleet": given["name"], "address": f"127.0.0.1:{port}", "bind": "127.0.0.1", "port": port}
        make_helper(helper, checked_config(own))
    make_fleet(fleet, items, given, helper=None if helper is None else helper.card.read_bytes())
    if helper is not None:
        trust(helper, fleet.leader_card.read_bytes())
    return DemoFleet(fleet, {}, logs, helper)


def make_device(folder: DeviceFolder) -> bytes:
    """Make a device, and return what it asks to be enrolled with."""
    enrolling.begin(folder, keyring="file")
    path = folder.home / "request.json"
    enrolling.request(folder, path)
    return path.read_bytes()


def welcome_all(demo: DemoFleet, requests: Sequence[EnrolmentRequest]) -> Iterator[Welcomed]:
    """Admit devices, by leader and helper together where there is a helper, and yield their welcomes in order."""
    certificates: list[bytes | None] = [None] * len(requests)
    if demo.helper is not None:
        with opened(demo.helper) as service:
            proposed = [propose(demo.fleet, request) for request in requests]
            certificates = [each.to_bytes() for each in service.admit(proposed)]
    for request, certificate in zip(requests, certificates, strict=True):
        yield welcome(demo.fleet, request, certificate=certificate)


def join(folder: DeviceFolder, archive: Path, items: Sequence[str], *, smallest: int) -> None:
    """Join a fleet with a welcome, and fill a person's history in.

    Parameters
    ----------
    folder
        A device's, with keys.
    archive
        The welcome.
    items
        Keys of what the person has had, oldest first.
    smallest
        Fewest devices in a round that the owner accepts.
    """
    welcome, catalogue = enrolling.read_welcome(archive)
    enrolling.accept(folder, welcome, catalogue, enrolling.limits_for(welcome, smallest_cohort=smallest))
    with Vault.open(folder.vault) as vault:
        History(vault).add_many([Interaction(item=item, value=1.0, time=None, source="import") for item in items])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
