"""A small fleet under two aggregators, in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from oracle.parties import Book, Spool

from palate.privacy.aggregators.admission import (
    Entry,
    Membership,
    Parties,
    Register,
    Revocation,
    key_number,
    list_of,
)
from palate.privacy.aggregators.device import Offered, make_report
from palate.privacy.aggregators.helper import Helper
from palate.privacy.aggregators.leader import Collection
from palate.privacy.aggregators.messages import Head
from palate.privacy.aggregators.offer import CollectionOffer
from palate.privacy.aggregators.sealing import RoundKey, RoundSecret, Suite

NOW, FLEET = 1_000_000, "films"


def key_of(number: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big"))


def raw(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


class Fleet:
    """Keys of all parties, six devices, and one round."""

    def __init__(
        self, *, together: bool = False, suite: Suite = Suite.X25519, devices: int = 6, **numbers: Any
    ) -> None:
        self.leader, self.helper_key, self.authority = key_of(1), key_of(2), key_of(3)
        self.identities = {100 + place: key_of(1000 + place) for place in range(devices)}
        self.parties = Parties(
            leader=raw(self.leader), helper=raw(self.helper_key), authority=None if together else raw(self.authority)
        )
        self.admit = (self.leader, self.helper_key) if together else (self.authority,)
        self.entries = {device: Entry(raw(key), NOW + 10_000) for device, key in self.identities.items()}
        self.register: Register = list_of(self.entries, fleet=FLEET, epoch=5, not_after=NOW + 10_000).signed(
            *self.admit
        )
        self.suite = suite
        self.book = Book(members=self.membership)
        self.helper = Helper(FLEET, self.helper_key, self.parties, self.book)
        self.numbers = {
            "fleet": FLEET,
            "run": "run",
            "server_round": 1,
            "plan_hash": "ab" * 32,
            "vector_length": 11,
            "ring_bits": 20,
            "sensitivity": 64,
            "share_variance": 400,
            "honest_shares": 2,
            "corrupt": 1,
            "least_batch": 3,
            "most_reports": devices,
            "issued_at": NOW,
            "report_before": NOW + 100,
            "answer_before": NOW + 200,
        } | numbers
        self.round_key, self.offer, self.offer_bytes = self.new_round()

    def new_round(self, **changes: Any) -> tuple[RoundKey, CollectionOffer, bytes]:
        """A round key in the helper's book, and the leader's offer that names it."""
        secret = RoundSecret.generate(self.suite)
        round_key = secret.published(self.helper_key, fleet=FLEET, index=len(self.book.secrets), not_after=NOW + 10_000)
        self.book.secrets[round_key.content_hash] = (round_key, secret)
        offer = CollectionOffer(
            **{**self.numbers, **changes},
            register_hash=self.register.content_hash,
            round_key_hash=round_key.content_hash,
            parties_hash=self.parties.content_hash,
        )
        return round_key, offer, offer.sign(self.leader)

    def membership(self, *revoked: int) -> Membership:
        keys = sorted(key_number(self.entries[device].identity_key) for device in revoked)
        revocation = Revocation(fleet=FLEET, number=1, keys=tuple(keys)).signed(*self.admit)
        return Membership.checked(self.register, self.entries, self.parties, revocation)

    def offered(self, **changes: Any) -> Offered:
        values = {
            "offer": self.offer_bytes,
            "register": self.register.to_bytes(),
            "round_key": self.round_key.to_bytes(),
            "parties": self.parties,
            "fleet": FLEET,
            "gamma_thousandths": 200,
            "least_epoch": 0,
            "now": NOW + 1,
        } | changes
        return Offered.checked(values.pop("offer"), values.pop("register"), values.pop("round_key"), **values)

    def vector(self, device: int) -> np.ndarray:
        rng = np.random.default_rng(device)
        signed = rng.integers(-60, 60, self.offer.vector_length)
        return (signed & ((1 << self.offer.ring_bits) - 1)).astype(
            np.uint32 if self.offer.ring_bits <= 32 else np.uint64
        )

    def report(
        self, device: int, *, seen: Head | None = None, vector: np.ndarray | None = None, **heads: bytes
    ) -> bytes:
        return make_report(
            self.offered(),
            self.vector(device) if vector is None else vector,
            device=device,
            identity=self.identities[device],
            seen=seen,
            **{"ledger_head": bytes(32)} | heads,
        )

    def collection(self, spool: Spool | None = None, **more: Any) -> Collection:
        return Collection(
            self.offer,
            self.offer_bytes,
            membership=self.membership(),
            suite=self.suite,
            parties=self.parties,
            key=self.leader,
            spool=Spool() if spool is None else spool,
            **more,
        )

    def signed_sum(self, devices) -> np.ndarray:
        half = 1 << (self.offer.ring_bits - 1)
        vectors = [self.vector(device).astype(np.int64) for device in devices]
        return sum(np.where(vector >= half, vector - 2 * half, vector) for vector in vectors)


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture
def make_fleet() -> Callable[..., Fleet]:
    return Fleet
