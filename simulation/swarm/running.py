"""A swarm from its first key to its last receipt: the parties, the devices, the rounds, and what was counted.

Leader and helper are processes of the same commands that people type. What happens is read in the leader's event log;
the devices get their turns when it says that a step has begun.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from palate.errors import FederationError
from palate.models.arrays import UInt64Array
from palate.privacy import files
from palate.privacy.aggregators.messages import CollectionReceipt
from palate.privacy.aggregators.offer import CollectionOffer
from palate.privacy.aggregators.planes import pack
from palate.privacy.enrolment import EnrolmentRequest
from palate.privacy.wire import FleetStep
from palate.server.fleet.config import load_config
from palate.server.fleet.dropouts import EXCLUDED
from palate.server.fleet.folder import read_public_key
from palate.server.fleet.state import FleetState
from palate.simulation.fleet_demo.folders import DemoFleet, found, welcome_all
from palate.simulation.fleet_demo.running import EventTail, Program, await_server, start_helper, start_server
from palate.simulation.swarm.crew import Crew
from palate.simulation.swarm.device import Resident
from palate.simulation.swarm.faults import REFUSED_AS, Faults, Lie
from palate.simulation.swarm.people import Population
from palate.simulation.swarm.worker import Tally

_POLL_SECONDS = 0.1
_LONGEST_HEARTBEAT = 1_800.0


@dataclass
class SwarmRound:
    """What is known of one round besides the leader's own record.

    Attributes
    ----------
    lies, refusals
        Lies that were told, by kind; and refusals by the name that leader, helper or mailbox gave them.
    deaths, returned
        Devices that were killed, by moment; and those of them that were started again in the round.
    missing
        Why else a report is missing, by the leader's words.
    vectors, total
        How many vectors were added up, and their sum modulo 2^64.
    exact
        Whether that is the sum that the leader's receipt vouches for; None where the round made none.
    """

    lies: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    deaths: Counter[str] = field(default_factory=Counter)
    returned: int = 0
    missing: Counter[str] = field(default_factory=Counter)
    vectors: int = 0
    exact: bool | None = None


@dataclass
class Measured:
    """What a swarm cost: CPU seconds of each part, peak memory of leader and helper in megabytes, wall seconds."""

    leader_cpu_seconds: float = 0.0
    helper_cpu_seconds: float = 0.0
    devices_cpu_seconds: float = 0.0
    enrolling_cpu_seconds: float = 0.0
    leader_memory_mb: float = 0.0
    helper_memory_mb: float = 0.0
    seconds: float = 0.0


class SwarmRun:
    """Runs a swarm.

    Parameters
    ----------
    population
        Who takes part.
    faults
        What goes wrong.
    root
        An empty folder.
    workers
        Processes that share the devices.
    tell
        Called with lines about what happens.
    progress
        Called with what is being done, how many devices are to do it, and how many more have done it.
    """

    def __init__(
        self,
        population: Population,
        faults: Faults,
        root: Path,
        *,
        workers: int,
        tell: Callable[[str], None],
        progress: Callable[[str, int, int], None],
    ) -> None:
        self._population = population
        self._faults = faults
        self._root = root
        self._workers = workers
        self._tell = tell
        self._progress = progress
        self._doing = "", 0
        self._events: EventTail
        self._due: deque[tuple[int, FleetStep | None]] = deque()
        self._current: tuple[int, FleetStep] | None = None
        self.demo: DemoFleet
        self.rounds: dict[int, SwarmRound] = {}
        self.measured = Measured()

    def make(self) -> DemoFleet:
        """Make leader and helper; no device yet."""
        devices = len(self._population.users)
        deadlines = {
            "report_seconds": 120.0 + 0.5 * devices,
            "receipt_seconds": 60.0 + 0.2 * devices,
            "answer_seconds": 600.0,
            "offline_seconds": 5.0,
            "pause_seconds": 1.0,
        }
        asked = self._population.fleet_settings({"name": "swarm", "run": "swarm-1", "deadlines": deadlines})
        self.demo = found(self._root, self._population.prepared.interactions.catalogue, asked, with_helper=True)
        return self.demo

    def crew(self) -> Crew:
        """Start the processes of the devices."""
        users = self._population.users
        residents = [
            Resident(
                place=place,
                home=self._root / "devices" / f"{place:06d}",
                items=self._population.items_of(int(user)),
                death=self._faults.deaths.get(place),
                lie=self._faults.lies.get(place),
            )
            for place, user in enumerate(users)
        ]
        options = {
            "smallest": load_config(self.demo.fleet.config).cohort.smallest,
            "heartbeat_seconds": min(60.0 + 0.5 * len(users), _LONGEST_HEARTBEAT),
        }
        parts = [residents[start :: self._workers] for start in range(self._workers)]
        return Crew(parts, options, self.demo.logs, self._done)

    def enrol(self, crew: Crew) -> None:
        """Admit all devices by leader and helper together, and let them join the fleet."""
        count, before = len(self._population.users), time.process_time()
        self._begin("making keys", count)
        asked: list[list[bytes]] = crew.all("requests")
        requests = [EnrolmentRequest.open(data) for part in asked for data in part]
        welcomes: dict[str, Path] = {}
        self._begin("admitting", count)
        for welcomed in welcome_all(self.demo, requests):
            path = self._root / f"{welcomed.device}.zip"
            files.replace(path, welcomed.archive)
            welcomes[welcomed.device] = path
            self._done(1)
        self._begin("enrolling", count)
        crew.all("accept", welcomes)
        self.measured.enrolling_cpu_seconds = crew.cpu_seconds + time.process_time() - before

    def run(self, crew: Crew, *, timeout_seconds: float) -> None:
        """Run all rounds.

        Raises
        ------
        FederationError
            If the leader does not start, fails, or is not done in time.
        """
        self._events = EventTail(self.demo.fleet.events)
        helper = start_helper(self.demo)
        server = start_server(self.demo)
        begun = time.monotonic()
        try:
            await_server(server, self._events)
            self._begin("joining", len(self._population.users))
            crew.ask("join")
            while server.running or crew.busy or self._due:
                if time.monotonic() > begun + timeout_seconds:
                    raise FederationError(
                        f"the run is not over after {timeout_seconds:g} seconds",
                        hint=f"look into {self.demo.logs}: the server ends with\n{server.last_lines()}",
                    )
                self._measure(server, helper)
                for event in self._events():
                    self._notice(event, crew)
                if not server.running:  # whoever waits for it waits in vain
                    crew.stop()
                    self._due = deque(each for each in self._due if each[1] is None)
                self._give_turns(crew)
                if crew.busy:
                    crew.hear(_POLL_SECONDS)
                else:
                    time.sleep(_POLL_SECONDS)
            if server.exit_code != 0:
                raise FederationError(
                    f"the server ended with code {server.exit_code}:\n{server.last_lines()}",
                    hint=f"look into {server.log}",
                )
        finally:
            server.stop()
            if helper is not None:
                helper.stop()
        self.measured.seconds = time.monotonic() - begun
        self.measured.devices_cpu_seconds = crew.cpu_seconds

    def _begin(self, what: str, devices: int) -> None:
        self._doing = what, devices
        self._progress(what, devices, 0)

    def _done(self, count: int) -> None:
        self._progress(*self._doing, count)

    def _measure(self, server: Program, helper: Program | None) -> None:
        measured = self.measured
        measured.leader_cpu_seconds = max(measured.leader_cpu_seconds, server.cpu_seconds)
        measured.leader_memory_mb = max(measured.leader_memory_mb, server.memory_mb())
        if helper is not None:
            measured.helper_cpu_seconds = max(measured.helper_cpu_seconds, helper.cpu_seconds)
            measured.helper_memory_mb = max(measured.helper_memory_mb, helper.memory_mb())

    def _round(self, number: int) -> SwarmRound:
        return self.rounds.setdefault(number, SwarmRound())

    def _notice(self, event: dict[str, Any], crew: Crew) -> None:
        match event["event"]:
            case "step-begun":
                self._due.append((event["round"], FleetStep(event["step"])))
            case "step-done":
                step = event["round"], FleetStep(event["step"])
                if step == self._current:
                    crew.stop()
                elif step in self._due:
                    self._due.remove(step)
            case "device-failed" if event["step"] == FleetStep.REPORT:
                known = event["why"] in REFUSED_AS.values()
                noted = self._round(event["round"])
                (noted.refusals if known else noted.missing)[event["why"]] += 1
            case "round-ended":
                self._due.append((event["round"], None))
                self._tell(
                    f"round {event['round']} is {event['status']}: {event['asked']} asked, {event['roster']} reports, "
                    f"{event['survivors']} in the sum{' (' + event['reason'] + ')' if event['reason'] else ''}"
                )

    def _give_turns(self, crew: Crew) -> None:
        """Hand out what is due once everybody has answered what was asked before."""
        if crew.busy:
            return
        if self._current is not None:
            self._count(self._current[0], crew.answers)
            self._current = None
        if not self._due:
            return
        number, step = self._due.popleft()
        if step is None:
            self._check_sum(number, crew)
            return
        self._current = number, step
        self._begin(f"round {number}: {step.value}", len(self._population.users))
        crew.ask("step", number, step)

    def _count(self, number: int, tallies: list[Tally]) -> None:
        noted = self._round(number)
        for tally in tallies:
            noted.deaths += Counter(tally.deaths)
            noted.returned += tally.returned
            noted.lies += Counter(tally.lies)
            if tally.second_replies:
                noted.refusals[REFUSED_AS[Lie.TWO_REPORTS]] += tally.second_replies

    def _check_sum(self, number: int, crew: Crew) -> None:
        """Compare the sum that a receipt vouches for with the plain sum of the vectors of the accepted reports.

        The devices tell the swarm their vectors for this check alone.
        """
        with closing(FleetState(self.demo.fleet.state)) as state:
            record = next(each for each in state.rounds() if each.number == number)
            # Who was in the spool and not left out; a device may have failed later, before its receipt.
            members = state.members(number)
            accepted = frozenset(each.device for each in members if each.up and each.failure != EXCLUDED)
        found: list[tuple[UInt64Array | None, int]] = crew.all("sum", number, accepted)
        noted = self._round(number)
        noted.vectors = sum(count for _, count in found)
        if record.receipt is None:
            return
        offer = CollectionOffer.open(record.offer, read_public_key(self.demo.fleet.ledger_key))
        total = np.zeros(offer.vector_length, dtype=np.uint64)
        for part, _ in found:
            if part is not None:
                total += part
        words = pack(total & np.uint64((1 << offer.ring_bits) - 1), offer.ring_bits)
        receipt = CollectionReceipt.from_bytes(record.receipt)
        noted.exact = noted.vectors == record.survivors and sha256(words).digest() == receipt.sum_hash
