"""The helper's key of one round, and what is sealed under it: HPKE (RFC 9180), X25519 or X-Wing (with ML-KEM-768).

A round has a key of its own, signed by the helper's pinned key. Its private half is destroyed once the answer is
durable or the offer has ended, so that a helper's key that is stolen later opens no old round.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Annotated, ClassVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from palate.privacy.aggregators.errors import RoundKeyRefused
from palate.privacy.ledger.framing import digest, framed, number
from palate.privacy.secagg.encoding import KEY_SIZE, Field, Kind, Message, Number, Reader, Text, raw, to_sign

SEED_SIZE = 32

_HASH = b"palate two aggregators round key v1"
_SEAL = b"palate two aggregators seal v1"


class Suite(IntEnum):
    """How seeds are sealed; a byte on the wire."""

    X25519 = 1
    X_WING = 2


@dataclass(frozen=True)
class _Sizes:
    public: int
    private: int
    sealed: int
    kem: hpke.KEM


_SUITES = {
    Suite.X25519: _Sizes(32, 32, 80, hpke.KEM.X25519),
    Suite.X_WING: _Sizes(1216, 96, 1168, hpke.KEM.MLKEM768_X25519),
}


def sealed_size(suite: Suite) -> int:
    """Bytes of a sealed seed: the encapsulated key, the seed and 16 bytes of tag."""
    return _SUITES[suite].sealed


def _hpke(suite: Suite) -> hpke.Suite:
    return hpke.Suite(_SUITES[suite].kem, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_128_GCM)


def _info(context: bytes, device: int) -> bytes:
    return framed(_SEAL, context, number(device))


@dataclass(frozen=True)
class SealingKey:
    """A public key under which seeds are sealed: 32 bytes, or 1,216 for X-Wing (ML-KEM-768 first)."""

    suite: Suite
    raw: bytes


def _write_key(key: SealingKey) -> bytes:
    return bytes([key.suite]) + raw(_SUITES[key.suite].public).write(key.raw)


def _read_key(reader: Reader) -> SealingKey:
    suite = suite_of(reader.number(1))
    return SealingKey(suite, reader.raw(_SUITES[suite].public))


def suite_of(code: int) -> Suite:
    """Return the suite of a code on the wire.

    Raises
    ------
    RoundKeyRefused
        If it is not known.
    """
    if code not in tuple(Suite):
        raise RoundKeyRefused(f"suite {code} of sealing is not known", hint="update the older side")
    return Suite(code)


@dataclass(frozen=True, kw_only=True)
class RoundKey(Message):
    """The public half of a round's key, signed by the helper.

    Attributes
    ----------
    fleet
        Name of the fleet, printable ASCII.
    index
        Number of the key; the helper gives each only once.
    key
        The public key, with its suite.
    not_after
        Last second, since 1970, at which the helper answers under this key.
    signature
        Ed25519 signature of the helper, 64 bytes.
    """

    kind: ClassVar[Kind] = Kind.ROUND_KEY
    fleet: Text
    index: Number
    key: Annotated[SealingKey, Field(_write_key, _read_key)]
    not_after: Number

    @property
    def content_hash(self) -> bytes:
        """Hash that an offer names, 32 bytes."""
        return digest(_HASH, self.body)

    @staticmethod
    def open(data: bytes, helper_key: Ed25519PublicKey | bytes) -> RoundKey:
        """Decode a key and check that the helper signed it.

        Raises
        ------
        MessageError
            If the bytes are not exactly what `to_bytes` writes.
        RoundKeyRefused
            If the suite is unknown or the signature is not the helper's.
        """
        found = RoundKey.from_bytes(data)
        found.verify(helper_key, RoundKeyRefused, "the round key is not signed by this helper")
        return found

    def seal(self, seed: bytes, *, context: bytes, device: int) -> bytes:
        """Seal a device's seed to the helper, bound to the round and the device.

        Raises
        ------
        RoundKeyRefused
            If the key is not one.
        """
        try:
            return _hpke(self.key.suite).encrypt(seed, _public(self.key), info=_info(context, device))
        except ValueError:
            raise RoundKeyRefused("the round key is no key of its suite", hint="ask for another offer") from None


@dataclass(frozen=True, eq=False)
class RoundSecret:
    """The private half of a round's key. It never prints, and belongs into no backup."""

    suite: Suite
    private: bytes = field(repr=False)

    @staticmethod
    def generate(suite: Suite) -> RoundSecret:
        """Draw a new one from the operating system."""
        curve = X25519PrivateKey.generate()
        raw = curve.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        if suite is Suite.X_WING:
            raw = MLKEM768PrivateKey.generate().private_bytes_raw() + raw
        return RoundSecret(suite, raw)

    def published(self, helper: Ed25519PrivateKey, *, fleet: str, index: int, not_after: int) -> RoundKey:
        """Sign the public half."""
        curve = X25519PrivateKey.from_private_bytes(self.private[-KEY_SIZE:])
        key = curve.public_key().public_bytes_raw()
        if self.suite is Suite.X_WING:
            key = MLKEM768PrivateKey.from_seed_bytes(self.private[:-KEY_SIZE]).public_key().public_bytes_raw() + key
        unsigned = RoundKey(fleet=fleet, index=index, key=SealingKey(self.suite, key), not_after=not_after)
        return unsigned.signed(lambda body: helper.sign(to_sign(body)))

    def opener(self) -> Opener:
        """Prepare for opening many seeds."""
        return Opener(self)


class Opener:
    """Opens sealed seeds of one round; made once, because to load a key costs more than to use it."""

    def __init__(self, secret: RoundSecret) -> None:
        self._suite = _hpke(secret.suite)
        curve = X25519PrivateKey.from_private_bytes(secret.private[-KEY_SIZE:])
        self._key: X25519PrivateKey | hpke.MLKEM768X25519PrivateKey = curve
        if secret.suite is Suite.X_WING:
            lattice = MLKEM768PrivateKey.from_seed_bytes(secret.private[:-KEY_SIZE])
            self._key = hpke.MLKEM768X25519PrivateKey(lattice, curve)

    def open(self, sealed: bytes, *, context: bytes, device: int) -> bytes | None:
        """Return the seed, 32 bytes, or None where this key, round or device is not the one that it was sealed for."""
        try:
            seed = self._suite.decrypt(sealed, self._key, info=_info(context, device))
        except (InvalidTag, ValueError):
            return None
        return seed if len(seed) == SEED_SIZE else None


def _public(key: SealingKey) -> X25519PublicKey | hpke.MLKEM768X25519PublicKey:
    curve = X25519PublicKey.from_public_bytes(key.raw[-KEY_SIZE:])
    if key.suite is Suite.X25519:
        return curve
    return hpke.MLKEM768X25519PublicKey(MLKEM768PublicKey.from_public_bytes(key.raw[:-KEY_SIZE]), curve)
