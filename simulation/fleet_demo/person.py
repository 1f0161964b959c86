"""One person of the demonstration: what their device recommends, and what leader and helper have seen of it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from palate.client.fleet.folder import DeviceFolder
from palate.client.owner.device import OwnerDevice
from palate.client.recommending.requests import Request
from palate.server.fleet.folder import FleetFolder
from palate.server.fleet.state import FleetState

_COUNT = 5


def titles_for(folder: DeviceFolder) -> list[str]:
    """Return the titles that a device recommends to its owner now, best first; before a table has come by content."""
    with OwnerDevice.opened(folder) as device:
        found = device.person().recommend(Request(count=_COUNT))
        titles = device.recommender.catalogue.titles
    return [titles[each.item] for each in found.recommendations]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the server has seen of one device: reports, their bytes, and all bytes that went down to it."""

    reports: int
    bytes_up: int
    bytes_down: int


def seen_of(fleet: FleetFolder, device: str) -> Seen:
    """Look up what a server has seen of a device, by the name under which it is enrolled."""
    with closing(FleetState(fleet.state)) as state:
        rows = [member for each in state.rounds() for member in state.members(each.number) if member.device == device]
    return Seen(
        reports=sum(row.up > 0 for row in rows),
        bytes_up=sum(row.up for row in rows),
        bytes_down=sum(row.down for row in rows),
    )
