"""A small fleet in memory: an honest server made of the protocol alone, and devices with real folders."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import count
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from oracle.parties import Book, Spool

from palate.client.fleet import enrolling
from palate.client.fleet.folder import DeviceFolder
from palate.client.fleet.identity import DeviceKeys
from palate.client.fleet.limits import OwnerLimits
from palate.client.fleet.member import Member
from palate.client.fleet.profile import FleetProfile
from palate.client.fleet.round_log import RoundLog
from palate.client.fleet.rounds import SecureRounds
from palate.client.fleet.worker import Contribution
from palate.client.vault import Vault
from palate.errors import PalateError
from palate.models.table import ItemTable
from palate.privacy import budget
from palate.privacy.aggregators.admission import Certificate, Entry, Membership, Parties, Register, list_of
from palate.privacy.aggregators.call import CollectionCall
from palate.privacy.aggregators.helper import Helper
from palate.privacy.aggregators.leader import Collected, Collection
from palate.privacy.aggregators.offer import CollectionOffer
from palate.privacy.aggregators.sealing import RoundSecret, Suite
from palate.privacy.enrolment import Welcome, device_number
from palate.privacy.ledger import canonical
from palate.privacy.ledger.checkpoint import TreeHead
from palate.privacy.ledger.merkle import MerkleTree, leaf_hash
from palate.privacy.ledger.verify import verify_ledger
from palate.privacy.mechanisms.terms import RunTerms
from palate.privacy.secagg.keys import EnrolmentAuthority
from palate.privacy.secagg.offer import Offer
from palate.privacy.secagg.server import ServerRound, Stage
from palate.privacy.wire import FleetMessage, FleetStep, RoundPlan

NUM_ITEMS, DIM = 12, 2
EPSILON, DELTA = 8.0, 1e-5
ROUNDS = 3
RUN = "run-1"
NOW = int(time.time())
STAGES = {
    FleetStep.ADVERTISE: Stage.ADVERTISE,
    FleetStep.SHARE: Stage.SHARE,
    FleetStep.MASK: Stage.MASK,
    FleetStep.CONFIRM: Stage.CONFIRM,
    FleetStep.REVEAL: Stage.REVEAL,
}


@pytest.fixture(autouse=True)
def _key_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALATE_KEYRING", "file")


def authority_pem() -> str:
    """A root certificate that no test connects with."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    now = datetime.now(UTC)
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode("ascii")


def catalogue_bytes(num_items: int = NUM_ITEMS) -> bytes:
    buffer = io.BytesIO()
    rows = range(num_items)
    pl.DataFrame({"item": [f"i{row}" for row in rows], "title": [f"Title {row}" for row in rows]}).write_parquet(buffer)
    return buffer.getvalue()


def run_terms(devices: int, *, honest: int | None = None, epsilon: float = EPSILON, rounds: int = ROUNDS) -> RunTerms:
    return budget.run_terms(
        budget.RunBudget(
            unit="user",
            epsilon=epsilon,
            delta=DELTA,
            rounds=rounds,
            popularity_share=0.2,
            clip_norm=0.5,
            sensitivity=4096,
            honest_shares=devices // 2 + 1 if honest is None else honest,
            roster_size=devices,
        )
    )


class FixedTrainer:
    """Gives a vector of the right form, the same for a plan whenever it is asked, and remembers what it was given.

    Values are below `largest` in magnitude.
    """

    def __init__(self, seed: int, *, largest: int = 2**31) -> None:
        self._seed, self._largest = seed, largest
        self.asked: list[tuple[int, list[str], bytes | None]] = []
        self.vectors: dict[int, np.ndarray] = {}
        self.closed = False

    def contribute(self, plan: RoundPlan, history: list[str], head: bytes | None) -> Contribution:
        self.asked.append((plan.server_round, list(history), head))
        rng = np.random.default_rng([self._seed, plan.server_round])
        signed = rng.integers(-self._largest, self._largest, plan.update_size)
        vector = (signed % 2**32).astype(np.uint32)
        self.vectors[plan.server_round] = vector
        return Contribution(vector, f"head {plan.server_round}".encode())

    def close(self) -> None:
        self.closed = True


@dataclass
class Device:
    """One device with a folder; `start` is what happens when its program starts."""

    folder: DeviceFolder
    trainer: FixedTrainer
    number: int
    seen: list = field(default_factory=list)
    member: Member | None = None
    rounds: SecureRounds | None = None

    def start(self) -> SecureRounds:
        vault = Vault.open(self.folder.vault)
        self.member = Member(self.folder, vault, DeviceKeys.load(vault), FleetProfile.require(vault))
        self.rounds = self.member.rounds(self.trainer, self.seen.append)
        return self.rounds

    def ledger(self, *, allow_open: bool = True):
        """The device's ledger, verified."""
        key = self.member.keys.ledger.public_key()
        return verify_ledger(self.folder.ledger, "device", key, allow_open=allow_open)

    @property
    def spent(self) -> int:
        """What its ledger was charged, in 1e-9 of 2 rho."""
        return self.ledger().state.spent_nano

    def record(self, server_round: int):
        """Its record of a round."""
        return RoundLog(self.member.vault).record(RUN, server_round)

    def receive(self, plan: RoundPlan, receipt: bytes, *, table: ItemTable | None = None) -> None:
        """Take a receipt."""
        self.rounds.handle(message(FleetStep.RECEIPT, plan, receipt), table=table)

    def kill(self) -> None:
        """Lose everything that is in memory only."""
        self.member.vault.close()
        self.rounds = self.member = None

    def restart(self) -> SecureRounds:
        self.kill()
        return self.start()


class Fleet:
    """Devices, the keys of their server, and an honest run of the protocol."""

    largest = 2**31

    def __init__(self, path: Path, devices: int, *, limits: dict | None = None, epsilon: float = EPSILON) -> None:
        self.path = path
        self.server_key = Ed25519PrivateKey.generate()
        self.authority = EnrolmentAuthority.generate("films")
        self.catalogue = catalogue_bytes()
        self.terms = run_terms(devices, epsilon=epsilon)
        self.limits = OwnerLimits(**{"epsilon": epsilon, "delta": DELTA, "smallest_cohort": 2} | (limits or {}))
        self.ca = authority_pem()
        self.devices = [self.enrol(path / f"device-{index}", index) for index in range(devices)]
        self.refused: list[tuple[Device, FleetStep, Exception]] = []
        self.message = message
        self.fixed = np.linspace(0, 1, NUM_ITEMS, dtype=np.float32)[:, None]

    def welcome(self, identity_key, **changes) -> Welcome:
        certificate = self.authority.enrol(device_number(identity_key), identity_key)
        values = {
            "fleet": "films",
            "address": "127.0.0.1:9092",
            "ca_certificate": self.ca,
            "server_key": self.server_key.public_key().public_bytes_raw().hex(),
            "authority_key": self.authority.public_key.public_bytes_raw().hex(),
            "authority_is_separate": True,
            "certificate": certificate.to_bytes().hex(),
            "epsilon": EPSILON,
            "delta": DELTA,
            "rounds": ROUNDS,
            "smallest_roster": 2,
            "tau_thousandths": 500,
            "gamma_thousandths": 0,
            "num_items": NUM_ITEMS,
            "catalogue_sha256": sha256(self.catalogue).hexdigest(),
        }
        return Welcome(**values | changes)

    def enrol(self, home: Path, seed: int) -> Device:
        folder = DeviceFolder(home)
        enrolling.begin(folder)
        with Vault.open(folder.vault) as vault:
            identity_key = DeviceKeys.load(vault).signing.public_key()
        welcome = self.welcome(identity_key)
        enrolling.accept(folder, welcome, self.catalogue, self.limits)
        device = Device(folder, FixedTrainer(seed, largest=self.largest), welcome.device)
        device.start()
        return device

    def terms_for(self, honest: int):
        """Terms of a training round whose noise is sized for some honest devices."""
        return run_terms(len(self.devices), honest=honest).train

    def plan(self, server_round: int = 0, **changes) -> RoundPlan:
        values = {
            "run": RUN,
            "server_round": server_round,
            "purpose": "train" if server_round else "popularity",
            "unit": "user",
            "participation": 1.0,
            "training": '{"model": "gmf"}',
            "fixed": self.fixed,
            "learned": np.full((NUM_ITEMS, DIM), 0.01 * server_round, dtype=np.float32),
            "terms": self.terms.train if server_round else self.terms.popularity,
        }
        return RoundPlan(**values | changes)

    def offer(self, plan: RoundPlan, **changes) -> Offer:
        values = {"fleet": "films", "gamma_thousandths": 0, "tau_thousandths": 500, "n_min": 2, "issued_at": 1}
        return Offer.of_plan(plan, **values | changes)

    def ask(self, plan: RoundPlan, **changes) -> FleetMessage:
        """The server's first message of a round."""
        return message(FleetStep.ADVERTISE, plan, self.offer(plan, **changes).sign(self.server_key))

    def server(self, plan: RoundPlan, **changes) -> ServerRound:
        return ServerRound(
            self.offer(plan, **changes), server_key=self.server_key, authority_key=self.authority.public_key
        )

    def run_round(
        self,
        plan: RoundPlan,
        *,
        before: Callable[[FleetStep, Device], bool] = lambda step, device: True,
        after: Callable[[FleetStep, Device, FleetMessage, FleetMessage], None] = lambda *_: None,
    ) -> ServerRound:
        """Take all devices through a round; `before` says whether one is still there, `after` sees both messages."""
        server = self.server(plan)
        self.refused = []
        outgoing = {device.number: server.offer_bytes for device in self.devices}
        for step, stage in STAGES.items():
            for device in self.devices:
                if device.number not in outgoing or not before(step, device):
                    continue
                asked = message(step, plan, outgoing[device.number])
                try:
                    got = device.rounds.handle(asked, plan=plan if step is FleetStep.ADVERTISE else None)
                except PalateError as error:
                    self.refused.append((device, step, error))
                    continue
                server.receive(stage, device.number, got.body)
                after(step, device, asked, got)
            outgoing = server.close(stage)
        return server

    def finish(self, plan: RoundPlan, server: ServerRound, *, table: ItemTable | None = None, model: str = "") -> None:
        """Send the receipt to every device that is up."""
        receipt = server.receipt(model_hash=model or (table.content_hash if table else "00" * 32), log_index=0)
        for device in self.devices:
            if device.rounds is not None:
                device.rounds.handle(message(FleetStep.RECEIPT, plan, receipt), table=table)

    def final_table(self) -> ItemTable:
        return ItemTable(self.fixed, np.full((NUM_ITEMS, DIM), 0.5, dtype=np.float32))


class ReportFleet(Fleet):
    """Devices of a fleet with two aggregators, and an honest leader and helper."""

    largest = 500  # a leader refuses sums that clipped vectors and their noise do not reach

    def __init__(self, path: Path, devices: int = 3, *, together: bool = False, **changes) -> None:
        self.helper_key, self.third = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        self.together, self.now = together, NOW
        self.book, self.leaves, self.epoch = Book(), [], 1
        self.entries: dict[int, Entry] = {}
        super().__init__(path, devices, **changes)
        self.helper = Helper("films", self.helper_key, self.parties, self.book)
        self.spools: dict[bytes, Spool] = {}

    @property
    def parties(self) -> Parties:
        authority = None if self.together else raw_key(self.third)
        return Parties(leader=raw_key(self.server_key), helper=raw_key(self.helper_key), authority=authority)

    @property
    def admit(self) -> tuple[Ed25519PrivateKey, ...]:
        return (self.server_key, self.helper_key) if self.together else (self.third,)

    @property
    def register(self) -> Register:
        made = list_of(self.entries, fleet="films", epoch=self.epoch, not_after=NOW + 40_000)
        return made.signed(*self.admit)

    def welcome(self, identity_key, **changes) -> Welcome:
        number, key = device_number(identity_key), identity_key.public_bytes_raw()
        certificate = Certificate(
            fleet="films", device=number, identity_key=key, generation=1, not_after=NOW + 40_000
        ).signed(*self.admit)
        self.entries[number] = Entry(key, NOW + 40_000)
        parties = self.parties
        values = {
            "server_key": parties.leader.hex(),
            "helper_key": parties.helper.hex(),
            "authority_key": (parties.authority or b"").hex(),
            "authority_is_separate": False,
            "certificate": certificate.to_bytes().hex(),
        }
        return super().welcome(identity_key, **values | changes)

    def collection(self, plan: RoundPlan, *, register: Register | None = None, **changes) -> CollectionCall:
        """A round key in the helper's book, and the leader's call for reports."""
        register = register or self.register
        secret = RoundSecret.generate(Suite.X25519)
        round_key = secret.published(
            self.helper_key, fleet="films", index=len(self.book.secrets), not_after=NOW + 90_000
        )
        self.book.secrets[round_key.content_hash] = (round_key, secret)
        values = {
            "ring_bits": 24,
            "corrupt": 0,
            "least_batch": 2,
            "issued_at": NOW - 5,
            "report_before": NOW + 20_000,  # devices have the clock of a long test run
            "answer_before": NOW + 30_000,
        } | changes
        offer = CollectionOffer.of_plan(
            plan, fleet="films", register=register, round_key=round_key, parties=self.parties, **values
        )
        return CollectionCall(
            offer=offer.sign(self.server_key),
            register=register.to_bytes(),
            round_key=round_key.to_bytes(),
            checkpoint=TreeHead.of("films", MerkleTree(self.leaves))
            .sign(self.server_key)
            .cosigned(self.helper_key, "helper.films", time=NOW)
            .encode(),
            leaves=tuple(map(leaf_hash, self.leaves)),
        )

    def answer_of(self, device: Device, plan: RoundPlan, call: CollectionCall) -> bytes:
        return device.rounds.handle(message(FleetStep.REPORT, plan, call.to_bytes()), plan=plan).body

    def round(self, plan: RoundPlan, *, table_hash: str) -> tuple[list[bytes], Collected, bytes]:
        """Take all devices through a round but its receipt: reports, what was collected, and the receipt."""
        call = self.collection(plan)
        reports = [self.answer_of(device, plan, call) for device in self.devices]
        return reports, *self.collect(call, reports, table_hash=table_hash)

    def collect(self, call: CollectionCall, reports: list[bytes], *, table_hash: str) -> tuple[Collected, bytes]:
        """Take reports as leader, ask the helper, and sign the receipt."""
        offer = CollectionOffer.open(call.offer, self.parties.leader)
        membership = Membership.checked(Register.from_bytes(call.register), self.entries, self.parties)
        collection = Collection(
            offer,
            call.offer,
            membership=membership,
            suite=Suite.X25519,
            parties=self.parties,
            key=self.server_key,
            spool=Spool(),
        )
        self.book.members = lambda: membership
        for report in reports:
            collection.take(report, now=NOW)
        collected = collection.finish(self.helper.answer(collection.freeze(), now=NOW))
        hashes = {"survivors": collected.answer_hash, "total": collected.sum_hash, "model": bytes.fromhex(table_hash)}
        place = {"run": offer.run, "round": offer.server_round}
        self.leaves.append(canonical.encode(place | {name: value.hex() for name, value in hashes.items()}))
        receipt = collection.receipt(
            collected, table_hash=hashes["model"], log_index=len(self.leaves) - 1, head=self.helper.head()
        )
        return collected, receipt


def raw_key(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def message(step: FleetStep, plan: RoundPlan, body: bytes) -> FleetMessage:
    return FleetMessage(step=step, run=plan.run, server_round=plan.server_round, body=body)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path, 3)


@pytest.fixture
def reporting(tmp_path: Path) -> ReportFleet:
    """Three devices of a fleet with two aggregators."""
    return ReportFleet(tmp_path)


@pytest.fixture
def reporting_of(tmp_path: Path) -> Callable[..., ReportFleet]:
    """Make fleets with two aggregators of another kind, each in a folder of its own."""
    made = count()
    return lambda devices=2, **changes: ReportFleet(tmp_path / f"fleet{next(made)}", devices, **changes)


@pytest.fixture
def lone(tmp_path: Path) -> Fleet:
    """Two devices of which most tests use the first: cheap."""
    return Fleet(tmp_path, 2)


@pytest.fixture
def fleet_of(tmp_path: Path) -> Callable[..., Fleet]:
    """Make a fleet of another size, or under other limits."""
    return lambda devices, **changes: Fleet(tmp_path / "fleet", devices, **changes)


@pytest.fixture
def catalogue_of() -> Callable[[int], bytes]:
    """Make the file of a catalogue of so many items."""
    return catalogue_bytes


@pytest.fixture(scope="session")
def catalogue_data() -> bytes:
    return catalogue_bytes()
