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
from palate.privacy.charging import intents
from palate.privacy.enrolment import device_name, device_number
from palate.privacy.secagg.device import DeviceRound
from palate.privacy.secagg.keys import DeviceIdentity, EnrolmentAuthority
from palate.privacy.secagg.offer import Offer
from palate.privacy.secagg.policy import DevicePolicy
from palate.privacy.wire import FleetMessage, FleetStep, RoundPlan
from palate.server.coordinator import Coordinator
from palate.server.fleet.config import FleetConfig, checked_config
from palate.server.fleet.grid_messages import GONE, GridMessages
from palate.server.fleet.operation import Books, Operation
from palate.server.fleet.rounds import Parties
from palate.server.fleet.state import FleetState
from palate.server.fleet.transparency import TransparencyLog
from palate.server.fleet.transport.enrolment import Enrolment
from palate.server.fleet.watching import Watcher, watch_all
from palate.server.ledger import ServerLedger
from palate.server.store import RunStore

NUM_ITEMS = 12
CONTENT = np.random.default_rng(1).normal(size=(NUM_ITEMS, 2)).astype(np.float32)
TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = 1


class FakeClock:
    """Time passes when somebody sleeps."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


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

    def restart(self) -> None:
        """Lose everything that was in memory."""
        self._round = None

    def answer(self, message: Message) -> Message:
        fleet = FleetMessage.from_scalars(dict(message.content.config_records["fleet"]))
        self.before(fleet.step)
        try:
            body = self._body(fleet, message.content)
        except Exception as error:
            return Message(Error(code=102, reason=type(error).__name__), reply_to=message)
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
        assert self._round is not None, "the keys are gone"
        if fleet.step is FleetStep.SHARE:
            return self._round.share(fleet.body)
        if fleet.step is FleetStep.MASK:
            return self._round.mask(fleet.body, self.vectors[fleet.server_round])
        return self._round.confirm(fleet.body) if fleet.step is FleetStep.CONFIRM else self._round.reveal(fleet.body)

    def _begin(self, plan: RoundPlan, offer: bytes) -> bytes:
        number = plan.server_round
        if number in self.charged:
            assert self._round is not None, "charged, but the keys are gone"
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

    def __init__(self, folder: Path, *, devices: int = 8, **settings: object) -> None:
        self.folder = folder
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
        self.keys = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        authority = EnrolmentAuthority("f", self.keys[1])
        self.devices = [Device.certified(authority, self.keys[0].public_key(), seed) for seed in range(devices)]
        self.clock = FakeClock()
        self.grid = MemoryGrid({100 + i: device for i, device in enumerate(self.devices)}, self.clock)
        enrolment = Enrolment(folder / "nodes.sqlite")
        for node, device in self.grid.devices.items():
            key = ec.generate_private_key(ec.SECP384R1()).public_key()
            pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            made = enrolment.add(pem, label=device.name, certificate=device.identity.certificate.to_bytes())
            enrolment._db.execute("update node set node_id = ? where node_id = ?", (node, made.node_id))
        enrolment.close()

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
            parties=Parties(self.keys[0], self.keys[1].public_key()),
            grid_messages=GridMessages(self.grid),
            clock=self.clock,
            watcher=watcher or watch_all([]),
            wall_clock=lambda: 1_700_000_000.0 + self.clock.now(),
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
def make_fleet(tmp_path):
    """Build fleets in folders of their own."""
    built = count()

    def make(**settings) -> MemoryFleet:
        folder = tmp_path / str(next(built))
        folder.mkdir()
        return MemoryFleet(folder, **settings)

    return make
