"""A leader, a helper and devices with real folders in one process, each of which can be killed before any write.

A *point* is where a party is about to commit a transaction, to sync or name a file, or to send or take a message. A
party that was killed there runs nothing more until it is started from its disk: from its newest state, or from an older
one that was put back. What left a device or the helper is noted outside all of them.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict

from palate.client.fleet import enrolling
from palate.client.fleet.folder import DeviceFolder
from palate.client.fleet.identity import DeviceKeys
from palate.client.fleet.limits import OwnerLimits
from palate.client.fleet.member import Member
from palate.client.fleet.profile import FleetProfile
from palate.client.fleet.worker import Contribution
from palate.client.vault import Vault
from palate.errors import FederationError, PalateError
from palate.models.table import ItemTable
from palate.privacy.aggregators.messages import Answer, Request
from palate.privacy.aggregators.offer import CollectionOffer
from palate.privacy.aggregators.planes import pack
from palate.privacy.enrolment import EnrolmentRequest, Welcome
from palate.privacy.ledger.errors import PolicyRefused, Rollback
from palate.privacy.wire import FleetMessage, FleetStep, RoundPlan
from palate.server.fleet import serving
from palate.server.fleet.backup import back_up as back_up_leader
from palate.server.fleet.backup import restore as restore_leader
from palate.server.fleet.certifying import propose
from palate.server.fleet.folder import FleetFolder, read_key
from palate.server.fleet.operation import HALTED
from palate.server.fleet.setup import make_fleet, welcome
from palate.server.fleet.transport.enrolment import Enrolment
from palate.server.fleet.transport.server import ENROLMENT_FILE
from palate.server.helper.backup import back_up as back_up_helper
from palate.server.helper.backup import restore as restore_helper
from palate.server.helper.config import checked_config
from palate.server.helper.folder import HelperFolder, make_helper, renew_anchor, trust
from palate.server.helper.folder import opened as open_helper
from palate.server.helper.link import HelperUnreachable

from .conftest import FakeClock, MemoryGrid

LEADER, HELPER = "leader", "helper"
NUM_ITEMS = 8
REFUSED = 102
_MOST_SLEEPS = 50_000


class KilledError(BaseException):
    """A party ends here."""


class Points:
    """Counts the points of each party, kills one there, and has backups made there."""

    def __init__(self) -> None:
        self.party: str | None = None
        self.dead: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.kill_at: dict[str, int] = {}
        self.back_up_at: dict[str, int] = {}
        self.back_up: Callable[[str], None] = lambda party: None
        self.killed: list[tuple[str, str]] = []

    @contextmanager
    def acting(self, party: str | None) -> Iterator[None]:
        """Count for this party."""
        before, self.party = self.party, party
        try:
            yield
        finally:
            self.party = before

    def reach(self, what: str) -> None:
        """Take note of a point of the party that acts."""
        party = self.party
        if party is None:
            return
        if party in self.dead:
            raise KilledError(party)
        count = self.counts[party]
        self.counts[party] += 1
        # Not in the middle of a transaction, which would keep SQLite's own copy waiting.
        if count >= self.back_up_at.get(party, 1 << 30) and what != "COMMIT":
            del self.back_up_at[party]
            with self.acting(None):
                self.back_up(party)
        if count >= self.kill_at.get(party, 1 << 30):
            del self.kill_at[party]
            self.dead.add(party)
            self.killed.append((party, what))
            raise KilledError(party)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Watch the disk."""
        points = self

        class Watched(sqlite3.Connection):
            def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
                if sql.upper() == "COMMIT":
                    points.reach("COMMIT")
                return super().execute(sql, *values)

        connect = sqlite3.connect
        patch.setattr(sqlite3, "connect", lambda *parts, **more: connect(*parts, **{"factory": Watched, **more}))
        for name in ("fsync", "fdatasync", "link", "replace", "pwrite", "rename"):
            real = getattr(os, name)

            def reached(*parts: Any, _real: Any = real, _name: str = name, **more: Any) -> Any:
                points.reach(_name)
                return _real(*parts, **more)

            patch.setattr(os, name, reached)


class CountedClock(FakeClock):
    """Time passes when somebody sleeps, but not for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.sleeps = 0

    def sleep(self, seconds: float) -> None:
        self.sleeps += 1
        assert self.sleeps < _MOST_SLEEPS, "the fleet waits for ever"
        super().sleep(seconds)


class FixedTrainer:
    """Gives the same vector for a round whenever it is asked."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def vector(self, server_round: int, size: int) -> np.ndarray:
        """[size], int64."""
        return np.random.default_rng([self.seed, server_round]).integers(-200, 200, size)

    def contribute(self, plan: RoundPlan, history: list[str], head: bytes | None) -> Contribution:
        del history, head
        return Contribution((self.vector(plan.server_round, plan.update_size) % 2**32).astype(np.uint32), b"head")

    def use_catalogue(self, sha256: str) -> None:
        """Items do not matter."""

    def close(self) -> None:
        """Nothing to end."""


class RealDevice:
    """A device with its own folder and programs; only its training is made up."""

    def __init__(self, home: Path, seed: int, points: Points) -> None:
        self.folder, self.trainer, self.points = DeviceFolder(home), FixedTrainer(seed), points
        self.backup = home.with_name(f"{home.name}.backup")
        self.restored = False
        self.reports: dict[int, set[bytes]] = defaultdict(set)
        self.revive: Callable[[RealDevice], bool] = lambda device: True
        self.name = ""
        enrolling.begin(self.folder)

    def request(self) -> EnrolmentRequest:
        path = self.folder.home.with_suffix(".request")
        enrolling.request(self.folder, path)
        return EnrolmentRequest.open(path.read_bytes())

    def join(self, archive: bytes) -> None:
        told, catalogue = Welcome.unpack(archive)
        limits = OwnerLimits(epsilon=100.0, delta=told.delta, smallest_cohort=2)
        enrolling.accept(self.folder, told, catalogue, limits)
        self.number = told.device
        self.start()

    def start(self) -> None:
        vault = Vault.open(self.folder.vault)
        self.member = Member(self.folder, vault, DeviceKeys.load(vault), FleetProfile.require(vault))
        self.rounds = self.member.rounds(self.trainer)

    def stop(self) -> None:
        """Let the files go, as the end of its process would."""
        with self.points.acting(None):
            self.member.vault.close()

    def put_back(self) -> None:
        """Restore the older copy of the whole folder."""
        shutil.rmtree(self.folder.home)
        shutil.copytree(self.backup, self.folder.home)
        self.restored = True

    def answer(self, message: Message) -> Message | None:
        """Answer a message; None where the device was killed and does not come back in time."""
        fleet = FleetMessage.from_scalars(dict(message.content.config_records["fleet"]))
        plan = table = None
        if fleet.step is FleetStep.REPORT:
            arrays = {name: array.numpy() for name, array in message.content.array_records["table"].items()}
            plan = RoundPlan.from_parts(arrays, dict(message.content.config_records["plan"]))
        elif "table" in message.content.array_records:
            arrays = {name: array.numpy() for name, array in message.content.array_records["table"].items()}
            table = ItemTable(arrays["fixed"], arrays["learned"])
        while True:
            try:
                with self.points.acting(self.name):
                    self.points.reach("message")
                    reply = self.rounds.handle(fleet, plan=plan, table=table)
                    if fleet.step is FleetStep.REPORT:
                        self.reports[fleet.server_round].add(reply.body)
                    self.points.reach("reply")
                return Message(RecordDict({"fleet": ConfigRecord(dict(reply.to_scalars()))}), reply_to=message)
            except KilledError:
                self.stop()
                if not self.revive(self):
                    return None
            except PalateError as error:
                return Message(Error(code=REFUSED, reason=type(error).__name__), reply_to=message)


class Grid(MemoryGrid):
    """Delivers at once; a device that was killed may stay silent."""

    def _deliver(self, name: str, message: Message) -> None:
        reply = self.devices[message.metadata.dst_node_id].answer(message)
        if reply is not None:
            self._replies[name] = self.clock.now(), reply


class Link:
    """The helper as the leader reaches it."""

    def __init__(self, fleet: WholeFleet) -> None:
        self._fleet = fleet

    def __getattr__(self, name: str) -> Callable[..., Any]:
        fleet, points = self._fleet, self._fleet.points

        def call(*parts: Any) -> Any:
            points.reach(f"ask {name}")
            try:
                with points.acting(HELPER):
                    found = getattr(fleet.helper(), name)(*parts)
                    if name == "answer":
                        fleet.note_answer(parts[0], found.answer)
                    points.reach(f"reply {name}")
            except KilledError:
                if HELPER not in points.dead:
                    raise
                fleet.helper_killed()
                raise HelperUnreachable("the helper was killed") from None
            points.reach(f"take {name}")
            return found

        return call


class WholeFleet:
    """All parties of a fleet, their folders, and what was seen from outside."""

    def __init__(self, place: Path, patch: pytest.MonkeyPatch, *, devices: int = 4) -> None:
        patch.setenv("PALATE_KEYRING", "file")
        self.place, self.points, self.clock = place, Points(), CountedClock()
        self.answers: dict[bytes, set[bytes]] = defaultdict(set)  # by context
        self.sums: dict[bytes, tuple[int, frozenset[int], bytes]] = {}  # by answer: round, accepted, and the sum's hash
        self.leader_restored = self.helper_restored = False
        self.refusals: Counter[str] = Counter()
        self._helper_open = ExitStack()
        self._service = None
        self._copies = 0
        (place / "stick").mkdir()
        (place / "items.csv").write_text("item\n" + "".join(f"i{row}\n" for row in range(NUM_ITEMS)))
        self.helper_folder = HelperFolder(place / "helper")
        anchor = str(place / "stick" / "anchor")
        make_helper(self.helper_folder, checked_config({"fleet": "books", "address": "localhost:1", "anchor": anchor}))
        self.leader_folder = self.newest_leader = FleetFolder(place / "fleet")
        given = {
            "name": "books",
            "run": "books-1",
            "listen": {"address": "localhost:1", "bind": "127.0.0.1", "port": 1},
            "cohort": {"devices": devices, "smallest": 2, "tau": 0.51},
            "schedule": {"rounds": 1, "dim": 2},
            "privacy": {"popularity_share": 0.5, "spare_rounds": 8},
            "epsilon": 20.0,
        }
        make_fleet(self.leader_folder, place / "items.csv", given, helper=self.helper_folder.card.read_bytes())
        trust(self.helper_folder, self.leader_folder.leader_card.read_bytes())
        self.devices = [self._enrolled(seed) for seed in range(devices)]
        with closing(Enrolment(self.leader_folder.nodes / ENROLMENT_FILE)) as enrolment:
            numbers = enrolment.numbers()
        self.grid = Grid({numbers[each.name]: each for each in self.devices}, self.clock)
        fleet = self

        class Listening:
            """A server that hears devices in this process."""

            address = "localhost:1"
            grid = fleet.grid

            def __init__(self, nodes: Path, **_: Any) -> None:
                self.enrolment = Enrolment(nodes / ENROLMENT_FILE)

            def __enter__(self) -> Listening:
                return self

            def __exit__(self, *_: object) -> None:
                self.enrolment.close()

        patch.setattr(serving, "FleetServer", Listening)
        patch.setattr(serving, "SystemClock", lambda: self.clock)
        self.points.back_up = self.back_up
        self.points.install(patch)

    def _enrolled(self, seed: int) -> RealDevice:
        device = RealDevice(self.place / f"device-{seed}", seed, self.points)
        request = device.request()
        with open_helper(self.helper_folder) as service:
            (certificate,) = service.admit([propose(self.leader_folder, request)])
        made = welcome(self.leader_folder, request, certificate=certificate.to_bytes())
        device.name = made.device
        device.join(made.archive)
        return device

    # The helper.

    def helper(self) -> Any:
        """The helper, started if it does not run."""
        if self._service is None:
            with self.points.acting(None):  # a start is made of reads; what a crash left is finished without points
                self._service = self._helper_open.enter_context(open_helper(self.helper_folder))
        return self._service

    def helper_killed(self) -> None:
        """Let its files go; it is started again when it is asked next."""
        with self.points.acting(None):
            self._helper_open.close()
        self._service = None
        self.points.dead.discard(HELPER)

    def put_helper_back(self, *, without_anchor: bool) -> None:
        """Restore the helper's backup, if its rules allow it; `without_anchor` as an operator who overrules them."""
        self._copies += 1
        other = HelperFolder(self.place / f"helper-{self._copies}")
        anchor = self.place / "stick" / "anchor"
        kept = anchor.read_bytes()
        try:
            if without_anchor:
                anchor.unlink()
            restore_helper(self.place / "helper.backup", other)
            if without_anchor:
                renew_anchor(other)
        except Rollback:
            self.refusals["an old ledger of the helper, by its anchor"] += 1
            anchor.write_bytes(kept)
            return
        self.helper_folder, self.helper_restored = other, True
        assert not list(other.round_keys.glob("*.key")), "a backup brought a round's key back"

    def note_answer(self, request: bytes, answer: bytes) -> None:
        """Note what left the helper."""
        asked, made = Request.from_bytes(request), Answer.from_bytes(answer)
        self.answers[made.context].add(answer)
        left_out = {place for place, _ in made.excluded}
        numbers = [int.from_bytes(record[:8], "big") for record in asked.records]
        accepted = frozenset(number for place, number in enumerate(numbers) if place not in left_out)
        offer = CollectionOffer.open(
            asked.offer, read_key(self.newest_leader.server_key).public_key().public_bytes_raw()
        )
        total = sum(
            each.trainer.vector(offer.server_round, offer.vector_length)
            for each in self.devices
            if each.number in accepted
        )
        words = (np.asarray(total) % (1 << offer.ring_bits)).astype(np.uint64)
        self.sums[made.content_hash] = offer.server_round, accepted, pack(words, offer.ring_bits)

    # Backups, and the leader.

    def back_up(self, party: str) -> None:
        """Make a backup of a party as it is now, in the middle of what it does."""
        if party == LEADER:
            back_up_leader(self.leader_folder, self.place / "leader.backup")
        elif party == HELPER:
            back_up_helper(self.helper_folder, self.place / "helper.backup")
        else:
            device = next(each for each in self.devices if each.name == party)
            shutil.rmtree(device.backup, ignore_errors=True)
            shutil.copytree(device.folder.home, device.backup)

    def put_leader_back(self) -> None:
        """Restore the leader's backup; a backup of any moment can be restored."""
        self._copies += 1
        self.leader_folder = FleetFolder(self.place / f"fleet-{self._copies}")
        restore_leader(self.place / "leader.backup", self.leader_folder)
        self.leader_restored = True

    def run(self, revive_leader: Callable[[], None]) -> str:
        """Start the leader again and again until its run has ended; return how."""
        tries = 0
        for _ in range(60):
            try:
                with (
                    self.points.acting(LEADER),
                    serving.opened(self.leader_folder, helper=Link(self), resuming=True) as opened,  # type: ignore[arg-type]
                ):
                    why = opened.operation.run()
                if why != HALTED:
                    return why
            except KilledError:
                self.points.dead.discard(LEADER)
                with self.points.acting(None):
                    revive_leader()
            except PalateError as error:
                if isinstance(error, PolicyRefused):
                    raise  # its own policy never stops a leader
                self.refusals[f"{type(error).__name__} at the leader"] += 1
                tries += 1
                if isinstance(error, FederationError) and tries < 6:
                    continue  # a supervisor starts it again
                if self.leader_folder == self.newest_leader:
                    return f"{type(error).__name__}: {error.message}"
                self.leader_folder, tries = self.newest_leader, 0  # its operator finds the newest state after all
        raise AssertionError("never finished")

    def story(self) -> dict[str, str]:
        """Say who was killed where, what was put back, and what was refused."""
        restored = [LEADER] * self.leader_restored + [HELPER] * self.helper_restored
        restored += ["device" for each in self.devices if each.restored]
        return {
            "killed": ", ".join(
                f"{party if party in (LEADER, HELPER) else 'device'} {what}" for party, what in self.points.killed
            ),
            "restored": ", ".join(restored),
            "refused": ", ".join(f"{what} {count}" for what, count in self.refusals.items()),
        }

    def close(self) -> None:
        """Let all files go."""
        self.helper_killed()
        for device in self.devices:
            device.stop()
