"""A fleet in memory: devices that speak the protocol, a grid with faults, a clock that moves when somebody waits."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from palate.models.table import ItemTable, initial_embeddings
from palate.privacy.aggregators.admission import Certificate
from palate.privacy.aggregators.admission import Parties as AggregatorParties
from palate.privacy.aggregators.call import CollectionCall
from palate.privacy.aggregators.device import Offered, check_receipt, make_report
from palate.privacy.aggregators.messages import CHAIN_SIZE, Head
from palate.privacy.aggregators.offer import CollectionOffer
from palate.privacy.charging import intents
from palate.privacy.enrolment import device_name, device_number
from palate.privacy.secagg.device import DeviceRound
from palate.privacy.secagg.encoding import Kind, header
from palate.privacy.secagg.errors import SecureAggregationError
from palate.privacy.secagg.keys import DeviceIdentity, EnrolmentAuthority
from palate.privacy.secagg.offer import DevicePolicy, Offer
from palate.privacy.wire import REFUSED, ROUND_GONE, TAMPERED, FleetMessage, FleetStep, RoundPlan
from palate.server.coordinator import Coordinator
from palate.server.fleet.collecting import CollectionProtocol
from palate.server.fleet.config import FleetConfig, checked_config
from palate.server.fleet.device_heads import DeviceHeads
from palate.server.fleet.dropouts import GONE
from palate.server.fleet.grid_messages import GridMessages
from palate.server.fleet.operation import Books, Operation
from palate.server.fleet.peers import Parties, PeerProtocol
from palate.server.fleet.registering import RegisterKeeper
from palate.server.fleet.rounds import RoundProtocol
from palate.server.fleet.state import FleetState
from palate.server.fleet.transparency import TransparencyLog
from palate.server.fleet.transport.enrolment import Enrolment
from palate.server.fleet.watching import Watcher, watch_all
from palate.server.helper.anchor import AnchorFile
from palate.server.helper.book import SqliteBook
from palate.server.helper.secrets_folder import RoundSecrets
from palate.server.helper.service import HelperService
from palate.server.ledger import ServerLedger
from palate.server.store import RunStore

NUM_ITEMS = 12
CONTENT = np.random.default_rng(1).normal(size=(NUM_ITEMS, 2)).astype(np.float32)
TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = 1


def raw(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


class FakeClock:
    """Time passes when somebody sleeps."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


class KeysGoneError(Exception):
    """The device was restarted in the middle of a round."""


class Device:
    """A device without a person: its vector is random, its protocol is real."""

    def __init__(self, identity: DeviceIdentity, *, server_key, authority_key, seed: int) -> None:
        self.identity = identity
        self.number = identity.device
        self.name = device_name(self.number)
        self._pinned = {"server_key": server_key, "authority_key": authority_key}
        self._rng = np.random.default_rng(seed)
        self._round: DeviceRound | None = None
        self._number = -1
        self.vectors: dict[int, np.ndarray] = {}
        self.charged: dict[int, int] = {}
        self.receipts: dict[int, bytes] = {}
        self.table_hash: str | None = None
        self.before: Callable[[FleetStep], object] = lambda step: None

    @staticmethod
    def certified(authority: EnrolmentAuthority, server_key, seed: int) -> Device:
        """Make a device that an authority enrols."""
        key = Ed25519PrivateKey.generate()
        identity = DeviceIdentity(authority.enrol(device_number(key.public_key()), key.public_key()), key)
        return Device(identity, server_key=server_key, authority_key=authority.public_key, seed=seed)

    @property
    def certificate(self) -> bytes:
        """What admits it."""
        return self.identity.certificate.to_bytes()

    def restart(self) -> None:
        """Lose everything that was in memory."""
        self._round = None

    def answer(self, message: Message) -> Message:
        fleet = FleetMessage.from_scalars(dict(message.content.config_records["fleet"]))
        self.before(fleet.step)
        try:
            body = self._body(fleet, message.content)
        except KeysGoneError:
            return Message(Error(code=ROUND_GONE, reason="RoundGone"), reply_to=message)
        except SecureAggregationError as error:
            return Message(Error(code=TAMPERED, reason=type(error).__name__), reply_to=message)
        except Exception as error:
            return Message(Error(code=REFUSED, reason=type(error).__name__), reply_to=message)
        reply = FleetMessage(fleet.step, fleet.run, fleet.server_round, body)
        return Message(RecordDict({"fleet": ConfigRecord(dict(reply.to_scalars()))}), reply_to=message)

    def _body(self, fleet: FleetMessage, content: RecordDict) -> bytes:
        if fleet.step is FleetStep.ADVERTISE:
            arrays = {name: array.numpy() for name, array in content.array_records["table"].items()}
            return self._begin(RoundPlan.from_parts(arrays, dict(content.config_records["plan"])), fleet.body)
        if fleet.step is FleetStep.RECEIPT:
            self.receipts[fleet.server_round] = fleet.body
            if "table" in content.array_records:
                arrays = {name: it.numpy() for name, it in content.array_records["table"].items()}
                self.table_hash = ItemTable(arrays["fixed"], arrays["learned"]).content_hash
            return b""
        if self._round is None:
            raise KeysGoneError
        if fleet.step is FleetStep.SHARE:
            return self._round.share(fleet.body)
        if fleet.step is FleetStep.MASK:
            return self._round.mask(fleet.body, self.vectors[fleet.server_round])
        return self._round.confirm(fleet.body) if fleet.step is FleetStep.CONFIRM else self._round.reveal(fleet.body)

    def _begin(self, plan: RoundPlan, offer: bytes) -> bytes:
        number = plan.server_round
        if number in self.charged:
            if self._round is None:
                raise KeysGoneError
            assert number == self._number, "an older round"
            return self._round.advertise()
        Offer.open(offer, self._pinned["server_key"]).check_plan(plan)
        policy = DevicePolicy(smallest_cohort=2, gamma_thousandths=0)
        begun = DeviceRound(offer, plan_hash=plan.content_hash, identity=self.identity, policy=policy, **self._pinned)
        (intent,) = intents(plan).values()
        self.charged[number] = intent.charge_nano
        self._round, self._number = begun, number
        signed = self._rng.integers(-50, 50, plan.update_size)
        self.vectors[number] = signed.astype(np.int64).view(np.uint64).astype(np.uint32)
        return begun.advertise()


class ReportingDevice(Device):
    """The same under two aggregators: a report is made once, kept on disk, and sent again as it is."""

    def __init__(self, key: Ed25519PrivateKey, admission: Certificate, parties: AggregatorParties, seed: int) -> None:
        self.key, self.admission, self.parties = key, admission, parties
        self.number, self.name = admission.device, device_name(admission.device)
        self._rng = np.random.default_rng(seed)
        self.vectors, self.charged, self.receipts, self.kept = {}, {}, {}, {}
        self.offers: dict[int, CollectionOffer] = {}
        self.table_hash = None
        self.seen: Head | None = None
        self.before = lambda step: None
        self.clock: Callable[[], float] = lambda: 0.0
        self.heads: Callable[[int], tuple[bytes, bytes]] = lambda number: (bytes(32), bytes(CHAIN_SIZE))
        self.notices: list[int] = []

    @property
    def certificate(self) -> bytes:
        return self.admission.to_bytes()

    def restart(self) -> None:
        """Lose nothing: what counts is on disk."""

    def _body(self, fleet: FleetMessage, content: RecordDict) -> bytes:
        if fleet.step is FleetStep.REPORT:
            if fleet.body.startswith(header(Kind.LEDGER_NOTICE)):
                self.notices.append(fleet.server_round)
                return b"not now"
            if fleet.server_round not in self.kept:
                arrays = {name: array.numpy() for name, array in content.array_records["table"].items()}
                plan = RoundPlan.from_parts(arrays, dict(content.config_records["plan"]))
                self.kept[fleet.server_round] = self._report(plan, CollectionCall.from_bytes(fleet.body))
            return self.kept[fleet.server_round]
        receipt = (
            check_receipt(fleet.body, self.offers[fleet.server_round], self.parties, self.seen)
            if fleet.server_round in self.offers
            else None
        )
        if receipt is not None and fleet.server_round not in self.receipts:
            self.seen = receipt.head
        return super()._body(fleet, content)

    def _report(self, plan: RoundPlan, call: CollectionCall) -> bytes:
        number = plan.server_round
        offered = Offered.checked(
            call.offer,
            call.register,
            call.round_key,
            parties=self.parties,
            fleet=self.admission.fleet,
            gamma_thousandths=0,
            least_epoch=0,
            now=int(self.clock()),
        )
        offered.offer.check_plan(plan)
        call.log_head(self.admission.fleet, self.parties, None)
        (intent,) = intents(plan).values()
        self.charged[number] = intent.charge_nano
        signed = self._rng.integers(-50, 50, plan.update_size)
        self.vectors[number] = (signed & ((1 << offered.offer.ring_bits) - 1)).astype(np.uint32)
        self.offers[number] = offered.offer
        ledger_head, chain = self.heads(number)
        return make_report(
            offered,
            self.vectors[number],
            device=self.number,
            identity=self.key,
            ledger_head=ledger_head,
            seen=self.seen,
            chain=chain,
        )


Fault = Callable[[Device, FleetStep, int], str]


class MemoryGrid:
    """Delivers at once, unless a fault says otherwise: "silent", "garbage", "late", "gone", or an error's code."""

    def __init__(self, devices: dict[int, Device], clock: FakeClock, *, delay: float = 30.0) -> None:
        self.devices = devices
        self.offline: set[int] = set()
        self.fault: Fault = lambda device, step, number: ""
        self.clock = clock
        self.delay = delay
        self.log: list[tuple[FleetStep, int, int, bytes]] = []
        self._names = count(1)
        self._replies: dict[str, tuple[float, Message]] = {}

    def get_node_ids(self) -> list[int]:
        return [node for node in self.devices if node not in self.offline]

    def push_messages(self, messages) -> list[str]:
        names = []
        for message in messages:
            name = str(next(self._names))
            message.metadata.__dict__["_message_id"] = name
            names.append(name)
            self._deliver(name, message)
        return names

    def _deliver(self, name: str, message: Message) -> None:
        node = message.metadata.dst_node_id
        fleet = FleetMessage.from_scalars(dict(message.content.config_records["fleet"]))
        device = self.devices[node]
        fault = self.fault(device, fleet.step, fleet.server_round)
        self.log.append((fleet.step, fleet.server_round, node, fleet.body))
        if fault == "silent":
            return
        if fault == "gone":
            self.offline.add(node)
            reply = Message(Error(code=GONE, reason="offline"), reply_to=message)
        elif fault.isdigit():
            reply = Message(Error(code=int(fault), reason="x"), reply_to=message)
        elif fault == "garbage":
            wrong = FleetMessage(fleet.step, fleet.run, fleet.server_round, b"\x00" * 99)
            reply = Message(RecordDict({"fleet": ConfigRecord(dict(wrong.to_scalars()))}), reply_to=message)
        elif fault == "stranger":
            reply = Message(RecordDict({"loss": ConfigRecord({"loss": 0.5})}), reply_to=message)
        else:
            reply = device.answer(message)
        self._replies[name] = self.clock.now() + (self.delay if fault == "late" else 0.0), reply

    def pull_messages(self, names) -> list[Message]:
        due = [name for name in names if name in self._replies and self._replies[name][0] <= self.clock.now()]
        return [self._replies.pop(name)[1] for name in due]


class MemoryFleet:
    """A fleet's folder, its devices, and a server that can be built anew from disk."""

    def __init__(self, folder: Path, *, devices: int = 8, helper: bool = False, **settings: object) -> None:
        self.folder = folder
        self.keys = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        if helper:
            settings = {"helper": {"key": self.keys[1].public_key().public_bytes_raw().hex()}, **settings}
        self.config: FleetConfig = checked_config(
            {
                "name": "f",
                "run": "f-1",
                "listen": {"address": "localhost:1"},
                "cohort": {"devices": devices, "smallest": 3},
                "schedule": {"rounds": 2, "dim": 3},
                "privacy": {"popularity_share": 0.3, "spare_rounds": 2},
                **settings,
            }
        )
        self.settings = self.config.server_settings()
        self.clock = FakeClock()
        if helper:
            self.parties = AggregatorParties(leader=raw(self.keys[0]), helper=raw(self.keys[1]))
            self.helper = self.helper_service()
            self.devices = [self._admitted(seed) for seed in range(devices)]
        else:
            authority = EnrolmentAuthority("f", self.keys[1])
            self.devices = [Device.certified(authority, self.keys[0].public_key(), seed) for seed in range(devices)]
        self.grid = MemoryGrid({100 + i: device for i, device in enumerate(self.devices)}, self.clock)
        enrolment = Enrolment(folder / "nodes.sqlite")
        for node, device in self.grid.devices.items():
            key = ec.generate_private_key(ec.SECP384R1()).public_key()
            pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            made = enrolment.add(pem, label=device.name, certificate=device.certificate)
            enrolment._db.execute("update node set node_id = ? where node_id = ?", (node, made.node_id))
        enrolment.close()

    def wall_clock(self) -> float:
        """Seconds since 1970."""
        return 1_700_000_000.0 + self.clock.now()

    def helper_service(self) -> HelperService:
        """Open the helper from its disk."""
        home = self.folder / "helper"
        anchor = AnchorFile(home / "anchor", "f", self.keys[1])
        if not home.exists():
            home.mkdir()
            SqliteBook.create(home / "helper.sqlite", anchor)
        book = SqliteBook(
            home / "helper.sqlite",
            secrets=RoundSecrets(home / "round-keys"),
            anchor=anchor,
            fleet="f",
            key=self.keys[1],
            clock=lambda: int(self.wall_clock()),
        )
        return HelperService("f", self.keys[1], self.parties, book, clock=lambda: int(self.wall_clock()))

    def _admitted(self, seed: int) -> ReportingDevice:
        key = Ed25519PrivateKey.generate()
        asked = Certificate(
            fleet="f",
            device=device_number(key.public_key()),
            identity_key=raw(key),
            generation=1,
            not_after=int(self.wall_clock()) + 10_000_000,
        )
        device = ReportingDevice(key, self.helper.admit([asked.signed(self.keys[0])])[0], self.parties, seed)
        device.clock = self.wall_clock
        return device

    def protocol(self) -> RoundProtocol:
        """How the fleet's rounds are made."""
        if not self.config.helper.there:
            parties = Parties(self.keys[0], self.keys[1].public_key())
            return PeerProtocol(self.config, parties, self.wall_clock, lambda: len(self.enrolment.nodes()))
        keeper = RegisterKeeper("f", self.parties, self.keys[0], self.state, self.enrolment, self.helper)
        heads = DeviceHeads(self.folder / "device-heads")
        return CollectionProtocol(
            self.config, keeper, self.helper, self.log, self.folder / "spool", heads, self.wall_clock
        )

    def operation(self, watcher: Watcher | None = None, **settings: object) -> Operation:
        """Start the server: everything comes from disk."""
        policy = self.config.promise.policy(smallest_cohort=self.config.cohort.smallest)
        self.state = FleetState(self.folder / "fleet.sqlite")
        self.enrolment = Enrolment(self.folder / "nodes.sqlite")
        self.ledger = ServerLedger(self.folder / "server.sqlite", self.keys[0], {self.config.promise.unit: policy})
        self.store = RunStore(self.folder)
        self.log = TransparencyLog(self.folder / "log", "f", self.keys[0])
        books = Books(
            state=self.state,
            enrolment=self.enrolment,
            store=self.store,
            metadata={"run": "f-1"},
            ledger=self.ledger,
            log=self.log,
        )
        embeddings = initial_embeddings(NUM_ITEMS, 3, scale=0.1, rng=np.random.default_rng(2))
        self.coordinator = Coordinator(self.settings, CONTENT, embeddings)
        return Operation(
            self.config,
            self.settings,
            self.coordinator,
            books=books,
            protocol=self.protocol(),
            grid_messages=GridMessages(self.grid),
            clock=self.clock,
            watcher=watcher or watch_all([]),
            wall_clock=self.wall_clock,
            **settings,
        )

    def remove(self, device: Device) -> None:
        """Remove a device, as the operator's command does in another process."""
        operator = Enrolment(self.folder / "nodes.sqlite")
        operator.remove(next(node.node_id for node in operator.nodes() if node.label == device.name))
        operator.close()

    def kill(self) -> None:
        """Let the server's files go, as the end of its process would."""
        self.state.close()
        self.enrolment.close()
        self.ledger.close()


@pytest.fixture
def device_kind() -> type[Device]:
    """Devices without people."""
    return Device


@pytest.fixture
def reporting_kind() -> type[ReportingDevice]:
    """Devices without people, under two aggregators."""
    return ReportingDevice


@pytest.fixture
def make_fleet(tmp_path):
    """Build fleets in folders of their own."""
    built = count()

    def make(**settings) -> MemoryFleet:
        folder = tmp_path / str(next(built))
        folder.mkdir()
        return MemoryFleet(folder, **settings)

    return make
