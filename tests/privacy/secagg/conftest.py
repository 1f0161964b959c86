"""A small fleet, and a round played step by step so that a test can interfere anywhere."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.privacy.integer.ring import Ring
from palate.privacy.secagg.device import DeviceRound
from palate.privacy.secagg.encoding import to_sign
from palate.privacy.secagg.keys import DeviceIdentity, EnrolmentAuthority
from palate.privacy.secagg.offer import DevicePolicy, Offer
from palate.privacy.secagg.server import ServerRound, Stage

PLAN_HASH = "ab" * 32


def make_offer(**changes) -> Offer:
    return Offer(**{
        "fleet": "test fleet", "run": "run-1", "server_round": 3, "plan_hash": PLAN_HASH, "vector_length": 50,
        "ring_bits": 32, "sensitivity": 1 << 12, "share_variance": 1 << 20, "honest_shares": 3, "max_roster": 40,
        "gamma_thousandths": 200, "tau_thousandths": 600, "n_min": 4, "issued_at": 1_700_000_000, **changes,
    })  # fmt: skip


@dataclass(eq=False)
class Fleet:
    """Keys of everyone, and the devices' rounds."""

    size: int
    offer: Offer
    policy: DevicePolicy
    authority: EnrolmentAuthority = field(default_factory=lambda: EnrolmentAuthority.generate("test fleet"))
    server_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    def __post_init__(self) -> None:
        # Numbers that are neither dense nor small, so that no test confuses them with ranks.
        self.ids = [100 + 7 * number for number in range(self.size)]
        self.identities = {device: self.identity(device) for device in self.ids}
        self.server = self.new_server()
        self.devices = {device: self.device(device) for device in self.ids}
        rng = np.random.default_rng(1)
        self.vectors = {
            device: rng.integers(
                0, 1 << self.offer.ring_bits, self.offer.vector_length, dtype=np.uint64
            ).astype(Ring(bits=self.offer.ring_bits).dtype)
            if self.offer.ring_bits < 64
            else rng.integers(0, (1 << 64) - 1, self.offer.vector_length, dtype=np.uint64, endpoint=True)
            for device in self.ids
        }  # fmt: skip

    def identity(self, device: int, authority: EnrolmentAuthority | None = None) -> DeviceIdentity:
        key = Ed25519PrivateKey.generate()
        return DeviceIdentity((authority or self.authority).enrol(device, key.public_key()), key)

    def new_server(self) -> ServerRound:
        return ServerRound(self.offer, server_key=self.server_key, authority_key=self.authority.public_key)

    def device(self, device: int, **changes) -> DeviceRound:
        given = {
            "offer": self.server.offer_bytes, "plan_hash": PLAN_HASH, "identity": self.identities[device],
            "server_key": self.server_key.public_key(), "authority_key": self.authority.public_key,
            "policy": self.policy, **changes,
        }  # fmt: skip
        return DeviceRound(given.pop("offer"), **given)

    def sign(self, message) -> bytes:
        """As the server, whatever it says."""
        return message.signed(lambda body: self.server_key.sign(to_sign(body))).to_bytes()

    def answer(self, device: int, stage: Stage, message: bytes = b"") -> bytes:
        party = self.devices[device]
        return {
            Stage.ADVERTISE: party.advertise,
            Stage.SHARE: lambda: party.share(message),
            Stage.MASK: lambda: party.mask(message, self.vectors[device]),
            Stage.CONFIRM: lambda: party.confirm(message),
            Stage.REVEAL: lambda: party.reveal(message),
        }[stage]()

    def play(
        self,
        until: Stage | None = None,
        drops: dict[Stage, Collection[int]] | None = None,
        tamper: Callable[[Stage, int, bytes], bytes] = lambda stage, device, data: data,
    ) -> dict[int, bytes]:
        """Play all stages before `until`, and return the messages for it."""
        messages: dict[int, bytes] = dict.fromkeys(self.ids, b"")
        for stage in Stage:
            if stage == until:
                return messages
            for device, message in messages.items():
                if device not in (drops or {}).get(stage, ()):
                    self.server.receive(stage, device, tamper(stage, device, self.answer(device, stage, message)))
            messages = self.server.close(stage)
        return messages

    def sum_of(self, devices: Iterable[int]) -> np.ndarray:
        """Sum of vectors, in Python integers."""
        columns = zip(*(self.vectors[device].tolist() for device in devices), strict=True)
        return np.array([sum(column) % (1 << self.offer.ring_bits) for column in columns], dtype=object)


@pytest.fixture
def secagg() -> SimpleNamespace:
    """Makers of offers and fleets."""

    def fleet(size: int = 8, **changes) -> Fleet:
        policy = DevicePolicy(smallest_cohort=3, gamma_thousandths=100)
        return Fleet(size, make_offer(**changes), policy=policy)

    return SimpleNamespace(offer=make_offer, fleet=fleet)
