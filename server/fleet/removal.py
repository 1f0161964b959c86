"""Taking devices out of a fleet: from the next request on their keys are refused, and no roster names them any more.

First the list of whom rounds ask, then the transport's: a crash in between leaves a key that may connect and is never
asked, and the same command again ends it. A device that is removed in the middle of a round has dropped out of it
(`palate.server.fleet.exchange`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from palate.errors import ConfigError
from palate.server.fleet.config import load_config
from palate.server.fleet.eventlog import EventLog
from palate.server.fleet.folder import FleetFolder
from palate.server.fleet.state import FleetState
from palate.server.fleet.transport.enrolment import Enrolment
from palate.server.fleet.transport.server import ENROLMENT_FILE


@dataclass(frozen=True)
class Removal:
    """What came of a removal.

    Attributes
    ----------
    removed
        Devices that were enrolled until now.
    before
        Devices that had been removed before.
    left
        How many are enrolled.
    lacking
        How many of these are missing for the next round, in which at least so many must be online; 0 where enough are.
    """

    removed: tuple[str, ...]
    before: tuple[str, ...]
    left: int
    lacking: int


def remove(folder: FleetFolder, devices: Sequence[str]) -> Removal:
    """Remove devices, all of them or none; works while the server runs.

    Parameters
    ----------
    folder
        The fleet's.
    devices
        Names, as `palate server enrol` printed them.

    Raises
    ------
    ConfigError
        If there is no fleet, or one of the names is nobody's.
    RunError, EnvironmentProblem
        If the fleet's files are damaged, or the disk is full.
    """
    folder.require()
    config, names = load_config(folder.config), tuple(dict.fromkeys(each.strip().lower() for each in devices))
    state, nodes = FleetState(folder.state), Enrolment(folder.nodes / ENROLMENT_FILE)
    try:
        enrolled = {each.device: each.node for each in state.devices()}
        gone = {each.device: each.node for each in state.removed()}
        unknown = [name for name in names if name not in enrolled and name not in gone]
        if unknown:
            raise ConfigError(
                f"{unknown[0]} is no device of this fleet; nobody was removed", hint="palate server devices lists them"
            )
        for name in names:
            if name in enrolled:
                state.remove(name)
        may_connect = {node.node_id for node in nodes.nodes()}
        for name in names:
            node = enrolled.get(name, gone.get(name, 0))
            if node in may_connect:
                nodes.remove(node)
        left, begun = len(state.devices()), bool(state.rounds())
    finally:
        nodes.close()
        state.close()
    removed = tuple(name for name in names if name in enrolled)
    if removed:
        events = EventLog(folder.events, config.promise)
        events.write("devices-removed", count=len(removed), enrolled=left)
        events.close()
    needed = config.cohort.smallest if begun else config.cohort.devices
    before = tuple(name for name in names if name not in enrolled)
    return Removal(removed, before, left, max(0, needed - left))
