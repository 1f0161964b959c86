"""Taking devices out of a fleet: from the next request on their keys are refused, and no roster names them any more.

A device that is removed in the middle of a round has dropped out of it (`palate.server.fleet.exchange`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from palate.errors import ConfigError
from palate.server.fleet.config import load_config
from palate.server.fleet.eventlog import EventLog
from palate.server.fleet.folder import FleetFolder
from palate.server.fleet.state import FleetState
from palate.server.fleet.transport.enrolment import Enrolment


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
    with closing(Enrolment(folder.enrolment)) as enrolment, closing(FleetState(folder.state)) as state:
        enrolled = enrolment.numbers()
        known = {node.label for node in enrolment.all()}
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ConfigError(
                f"{unknown[0]} is no device of this fleet; nobody was removed", hint="palate server devices lists them"
            )
        for name in names:
            if name in enrolled:
                enrolment.remove(enrolled[name])
        left, begun = len(enrolment.nodes()), bool(state.rounds(config.run))
    removed = tuple(name for name in names if name in enrolled)
    if removed:
        events = EventLog(folder.events, config.promise)
        events.write("devices-removed", count=len(removed), enrolled=left)
        events.close()
    needed = config.cohort.smallest if begun else config.cohort.devices
    before = tuple(name for name in names if name not in enrolled)
    return Removal(removed, before, left, max(0, needed - left))
