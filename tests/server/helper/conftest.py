"""A helper on disk, and a leader with six devices that asks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from oracle.parties import Spool

from palate.privacy.aggregators.admission import (
    Certificate,
    Membership,
    Parties,
    Register,
    Revocation,
    entries_of,
    key_number,
    list_of,
)
from palate.privacy.aggregators.device import Offered, make_report
from palate.privacy.aggregators.leader import Collection
from palate.privacy.aggregators.messages import Head
from palate.privacy.aggregators.offer import CollectionOffer
from palate.privacy.aggregators.sealing import RoundKey
from palate.privacy.ledger.checkpoint import TreeHead
from palate.privacy.ledger.merkle import MerkleTree
from palate.server.helper.anchor import AnchorFile
from palate.server.helper.book import SqliteBook
from palate.server.helper.queries import Query
from palate.server.helper.remote import FileLink
from palate.server.helper.replies import reply_to
from palate.server.helper.secrets_folder import RoundSecrets
from palate.server.helper.service import HelperService

NOW, FLEET, RUN = 1_000_000, "films", "films-1"


def key_of(number: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big"))


def raw(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


@dataclass
class Place:
    """Where a helper's files lie, and how it is opened again."""

    folder: Path
    parties: Parties
    key: Ed25519PrivateKey = field(default_factory=lambda: key_of(2))
    time: int = NOW

    @property
    def anchor(self) -> AnchorFile:
        return AnchorFile(self.folder / "stick" / "anchor", FLEET, self.key)

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger" / "helper.sqlite"

    @property
    def secrets(self) -> Path:
        return self.folder / "round-keys"

    def make(self) -> None:
        self.anchor.path.parent.mkdir(parents=True)
        SqliteBook.create(self.ledger, self.anchor)

    def book(self) -> SqliteBook:
        return SqliteBook(
            self.ledger,
            secrets=RoundSecrets(self.secrets),
            anchor=self.anchor,
            fleet=FLEET,
            key=self.key,
            clock=lambda: self.time,
        )

    def open(self, **more: Any) -> HelperService:
        return HelperService(FLEET, self.key, self.parties, self.book(), clock=lambda: self.time, **more)


class Leader:
    """A leader that asks one helper, and its devices."""

    def __init__(self, *, together: bool = False, devices: int = 6, time: int = NOW) -> None:
        self.time = time
        self.key, self.helper, self.authority = key_of(1), key_of(2), key_of(3)
        self.parties = Parties(
            leader=raw(self.key), helper=raw(self.helper), authority=None if together else raw(self.authority)
        )
        self.together = together
        self.identities = {100 + place: key_of(1000 + place) for place in range(devices)}
        self.epoch = 0

    def sign(self, statement):
        """As whoever admits; where both do, the leader's half."""
        return statement.signed(self.key if self.together else self.authority)

    def certificate(self, device: int, **changes: Any) -> Certificate:
        values = {
            "fleet": FLEET,
            "device": device,
            "identity_key": raw(self.identities[device]),
            "generation": 1,
            "not_after": self.time + 50_000,
        } | changes
        return self.sign(Certificate(**values))

    def certificates(self, link: HelperService | None = None) -> list[Certificate]:
        """Of all devices; where both admit, the helper's operator signs them first."""
        found = [self.certificate(device) for device in self.identities]
        return link.admit(found) if self.together and link is not None else found

    def register(self, certificates: list[Certificate], **changes: Any) -> Register:
        self.epoch += 1
        values = {"fleet": FLEET, "epoch": self.epoch, "not_after": self.time + 50_000} | changes
        return self.sign(list_of(entries_of(certificates), **values))

    def revocation(self, number: int, *devices: int) -> Revocation:
        keys = tuple(sorted(key_number(raw(self.identities[device])) for device in devices))
        return self.sign(Revocation(fleet=FLEET, number=number, keys=keys))

    def registered(self, link, certificates: list[Certificate] | None = None, *revoked: int) -> Membership:
        """Have a register checked, and return it as the leader looks devices up in it."""
        certificates = self.certificates(link) if certificates is None else certificates
        revocation = self.revocation(1, *revoked).to_bytes() if revoked else b""
        signed = link.countersign(
            self.register(certificates).to_bytes(), [each.to_bytes() for each in certificates], revocation
        )
        return Membership.checked(
            Register.from_bytes(signed.register),
            entries_of(certificates),
            self.parties,
            Revocation.from_bytes(signed.revocation) if signed.revocation else None,
        )

    def round(self, link, membership: Membership, server_round: int = 1, **changes: Any) -> Round:
        return Round(self, membership, RoundKey.open(link.round_key(RUN, server_round), self.parties.helper), changes)


class Round:
    """One round of a leader: its offer, and the reports of its devices."""

    def __init__(self, leader: Leader, membership: Membership, round_key: RoundKey, changes: dict[str, Any]) -> None:
        self.leader, self.membership, self.round_key = leader, membership, round_key
        values = {
            "fleet": FLEET,
            "run": RUN,
            "server_round": round_key.index,
            "plan_hash": "ab" * 32,
            "vector_length": 11,
            "ring_bits": 20,
            "sensitivity": 64,
            "share_variance": 400,
            "honest_shares": 2,
            "corrupt": 1,
            "least_batch": 3,
            "most_reports": len(leader.identities),
            "issued_at": leader.time,
            "report_before": leader.time + 100,
            "answer_before": leader.time + 200,
        } | changes
        self.offer = CollectionOffer(
            **values,
            register_hash=membership.register.content_hash,
            round_key_hash=round_key.content_hash,
            parties_hash=leader.parties.content_hash,
        )
        self.offer_bytes = self.offer.sign(leader.key)

    def vector(self, device: int) -> np.ndarray:
        signed = np.random.default_rng(device).integers(-60, 60, self.offer.vector_length)
        return (signed & ((1 << self.offer.ring_bits) - 1)).astype(np.uint32)

    def report(self, device: int, seen: Head | None = None) -> bytes:
        offered = Offered.checked(
            self.offer_bytes,
            self.membership.register.to_bytes(),
            self.round_key.to_bytes(),
            parties=self.leader.parties,
            fleet=FLEET,
            gamma_thousandths=200,
            least_epoch=0,
            now=self.offer.issued_at + 1,
        )
        identity = self.leader.identities[device]
        return make_report(
            offered, self.vector(device), device=device, identity=identity, ledger_head=bytes(32), seen=seen
        )

    def collection(self, *devices: int, seen: Head | None = None) -> Collection:
        """A leader's collection with the reports of these devices, or of all."""
        made = Collection(
            self.offer,
            self.offer_bytes,
            membership=self.membership,
            suite=self.round_key.key.suite,
            parties=self.leader.parties,
            key=self.leader.key,
            spool=Spool(),
        )
        for device in devices or self.leader.identities:
            made.take(self.report(device, seen), now=self.offer.issued_at + 5)
        return made

    def signed_sum(self, *devices: int) -> np.ndarray:
        half = 1 << (self.offer.ring_bits - 1)
        vectors = [self.vector(device).astype(np.int64) for device in devices or self.leader.identities]
        return sum(np.where(vector >= half, vector - 2 * half, vector) for vector in vectors)


@pytest.fixture
def make_leader() -> Callable[..., Leader]:
    return Leader


@pytest.fixture
def leader() -> Leader:
    return Leader()


@pytest.fixture
def make_place(tmp_path) -> Callable[[Leader], Place]:
    def make(leader: Leader) -> Place:
        place = Place(tmp_path / f"helper-{len(list(tmp_path.iterdir()))}", leader.parties)
        place.make()
        return place

    return make


@pytest.fixture
def place(make_place, leader) -> Place:
    return make_place(leader)


def log_of(leader, leaves, *, signer=None):
    tree = MerkleTree(f"leaf {number}".encode() for number in range(leaves))
    return tree, TreeHead.of(FLEET, tree).sign(signer or leader.key).encode()


@pytest.fixture
def carry(leader, tmp_path):
    """A leader's link by files; whoever carries them answers at once, as `palate helper answer` does."""

    def link(service, **how) -> FileLink:
        folder = tmp_path / "carried"

        def carrier(_seconds):
            for asked in folder.glob("*.query"):
                reply = asked.with_suffix(".reply")
                if not reply.exists():
                    data, _ = reply_to(service, Query.from_file(asked.read_bytes(), leader.parties))
                    reply.write_bytes(data)

        return FileLink(folder, leader.parties, leader.key, **({"wait_seconds": 60.0, "sleep": carrier} | how))

    return link
