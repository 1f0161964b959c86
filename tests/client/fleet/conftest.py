"""A small fleet in memory: an honest server made of the protocol alone, and devices with real folders."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from palate.client.fleet import enrolling
from palate.client.fleet.folder import DeviceFolder
from palate.client.fleet.identity import DeviceKeys
from palate.client.fleet.limits import OwnerLimits
from palate.client.fleet.member import Member
from palate.client.fleet.profile import FleetProfile
from palate.client.fleet.rounds import SecureRounds
from palate.client.fleet.worker import Contribution
from palate.client.vault import Vault
from palate.errors import PalateError
from palate.models.table import ItemTable
from palate.privacy import budget
from palate.privacy.enrolment import Welcome, device_number
from palate.privacy.mechanisms.terms import RunTerms
from palate.privacy.secagg.keys import EnrolmentAuthority
from palate.privacy.secagg.offer import Offer
from palate.privacy.secagg.server import ServerRound, Stage
from palate.privacy.wire import FleetMessage, FleetStep, RoundPlan

NUM_ITEMS, DIM = 12, 2
EPSILON, DELTA = 8.0, 1e-5
ROUNDS = 3
RUN = "run-1"
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
    """Gives a vector of the right form, the same for a plan whenever it is asked, and remembers what it was given."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.asked: list[tuple[int, list[str], bytes | None]] = []
        self.vectors: dict[int, np.ndarray] = {}
        self.closed = False

    def contribute(self, plan: RoundPlan, history: list[str], head: bytes | None) -> Contribution:
        self.asked.append((plan.server_round, list(history), head))
        rng = np.random.default_rng([self._seed, plan.server_round])
        vector = rng.integers(0, 2**32, plan.update_size, dtype=np.uint32)
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

    def kill(self) -> None:
        """Lose everything that is in memory only."""
        self.member.vault.close()
        self.rounds = self.member = None

    def restart(self) -> SecureRounds:
        self.kill()
        return self.start()


class Fleet:
    """Devices, the keys of their server, and an honest run of the protocol."""

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
        device = Device(folder, FixedTrainer(seed), welcome.enrolment.device)
        device.start()
        return device

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


def message(step: FleetStep, plan: RoundPlan, body: bytes) -> FleetMessage:
    return FleetMessage(step=step, run=plan.run, server_round=plan.server_round, body=body)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path, 3)


@pytest.fixture
def lone(tmp_path: Path) -> Fleet:
    """Two devices of which most tests use the first: cheap."""
    return Fleet(tmp_path, 2)


@pytest.fixture
def fleet_of(tmp_path: Path) -> Callable[..., Fleet]:
    """Make a fleet of another size, or under other limits."""
    return lambda devices, **changes: Fleet(tmp_path / "fleet", devices, **changes)


@pytest.fixture(scope="session")
def catalogue_data() -> bytes:
    return catalogue_bytes()
