"""A process of the swarm: it enrols its devices, gives each of them its turns, and finds out how they ended.

The process that runs the swarm asks over a pipe, one question at a time, and hears how far this one has come.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from palate.client.fleet.transport.link import FleetError
from palate.errors import PalateError
from palate.models.arrays import UInt64Array
from palate.privacy.wire import FleetStep
from palate.simulation.fleet_demo.checks import DeviceFindings, examine_devices
from palate.simulation.swarm.device import Killed, Resident, VirtualDevice

DONE, PROGRESS, FAILED = "done", "progress", "failed"
STOP = "stop"
_TELL_EVERY = 10
_IDLE_SECONDS = 0.2
_PATIENT_AFTER = 4
"""Devices that come in vain, one after the other, before the others wait a little."""


@dataclass(frozen=True)
class Tally:
    """What the devices of one process did in a round.

    Attributes
    ----------
    deaths
        Kills, by the moment's words.
    returned
        Devices that were started again.
    lies
        Lies that were told, by kind.
    second_replies
        Second reports that the server did not wait for.
    """

    deaths: dict[str, int]
    returned: int
    lies: dict[str, int]
    second_replies: int


class SwarmWorker:
    """Some of the swarm's devices.

    Parameters
    ----------
    residents
        Whose they are.
    smallest
        Fewest devices in a round that their owners accept.
    heartbeat_seconds
        Of each device.
    tell
        Called with how many more devices are done.
    stopped
        Asked again and again whether the round is over.
    """

    def __init__(
        self,
        residents: Sequence[Resident],
        *,
        smallest: int,
        heartbeat_seconds: float,
        tell: Callable[[int], None],
        stopped: Callable[[], bool],
    ) -> None:
        self._devices = [VirtualDevice(each, heartbeat_seconds=heartbeat_seconds) for each in residents]
        self._smallest = smallest
        self._tell = tell
        self._stopped = stopped

    def requests(self) -> list[bytes]:
        """Make all devices, and return their requests, in the order of the residents."""
        return [self._counted(device.request()) for device in self._devices]

    def accept(self, welcomes: dict[str, Path]) -> None:
        """Let devices join with their welcomes, by name; the archives go."""
        for device in self._devices:
            if device.name in welcomes:
                device.accept(welcomes[device.name], smallest=self._smallest)
                welcomes[device.name].unlink()
                self._counted(None)

    def join(self) -> None:
        """Let every device join the server."""
        for device in self._devices:
            device.turn()
            self._counted(None)

    def step(self, number: int, step: FleetStep) -> Tally:
        """Give devices turns until each has answered a step of a round, or the step is over."""
        deaths: dict[str, int] = {}
        returned, idle = 0, 0
        seconds_before = sum(device.second_replies for device in self._devices)
        # In the order in which the leader sends: who comes before it has sent is asked in vain, at the leader's cost.
        devices = sorted(self._devices, key=lambda device: device.name)
        waiting = deque(device for device in devices if device.alive and device.answered != (number, step))
        while waiting and not self._stopped():
            device = waiting.popleft()
            try:
                worked = device.turn(number)
                if device.answered == (number, step) and step is FleetStep.REPORT:
                    device.dies_between(number)
            except Killed:
                worked = True
                deaths[device.died_at] = deaths.get(device.died_at, 0) + 1
                returned += device.alive
            except FleetError as error:  # overloaded, or being restarted: like the agent, try again
                logging.getLogger(__name__).warning("a device's turn failed: %s", error.message)
                worked = False
            if device.answered == (number, step):
                if step is FleetStep.RECEIPT:
                    device.rest()
                self._counted(None)
            elif device.alive:
                waiting.append(device)
            idle = 0 if worked else idle + 1
            if idle >= min(len(waiting), _PATIENT_AFTER):
                time.sleep(_IDLE_SECONDS)
                idle = 0
        told: dict[str, int] = {}
        for device in self._devices:
            if device.resident.lie is not None and number in device.lies and step is FleetStep.REPORT:
                told[device.resident.lie.value] = told.get(device.resident.lie.value, 0) + 1
        return Tally(deaths, returned, told, sum(device.second_replies for device in self._devices) - seconds_before)

    def sum(self, number: int, names: frozenset[str]) -> tuple[UInt64Array | None, int]:
        """Add up the vectors that some devices made in a round, modulo 2^64; uint64 [d], and how many they are."""
        total: UInt64Array | None = None
        count = 0
        for device in self._devices:
            vector = device.told_vector(number)
            if vector is None or device.name not in names:
                continue
            total = np.zeros(vector.shape, dtype=np.uint64) if total is None else total
            total += vector
            count += 1
        return total, count

    def examine(self, tables: dict[int, str], server_spent: int) -> DeviceFindings:
        """Check ledgers, budgets, receipts and tables of all devices."""
        folders = (device.folder for device in self._devices)
        return examine_devices(self._each(folders), tables, server_spent)

    def heads(self, run: str) -> list[tuple[int, bytes | None]]:
        """Return the score model's head that each device has learned in a run, by the device's place."""
        return [(device.resident.place, self._counted(device.head(run))) for device in self._devices]

    def _each(self, things: Iterable[Any]) -> Iterable[Any]:
        for thing in things:
            yield thing
            self._counted(None)

    def _counted(self, value: Any) -> Any:
        self._tell(1)
        return value


def main(connection: Connection, residents: Sequence[Resident], options: dict[str, Any], log: Path) -> None:
    """Answer questions until None comes: the target of the process."""
    logging.basicConfig(filename=log, level=logging.WARNING)
    import torch

    torch.set_num_threads(1)
    pending = 0

    def tell(count: int) -> None:
        nonlocal pending
        pending += count
        if pending >= _TELL_EVERY:
            connection.send((PROGRESS, pending))
            pending = 0

    stopping = False

    def stopped() -> bool:
        nonlocal stopping
        while connection.poll():
            stopping = connection.recv() == STOP or stopping
        return stopping

    worker = SwarmWorker(residents, tell=tell, stopped=stopped, **options)
    while (question := connection.recv()) is not None:
        if question == STOP:  # the step had ended here already
            continue
        name, arguments = question
        stopping = False
        try:
            found = getattr(worker, name)(*arguments)
        except PalateError as error:
            connection.send((FAILED, (error.message, error.hint)))
            return
        connection.send((PROGRESS, pending))
        pending = 0
        connection.send((DONE, (found, time.process_time())))
