"""Anchors against truncation and forks, which a chain alone cannot show: its owner could sign a shorter one.

A device sends a salted commitment to its head with each round, which reveals nothing about the head to the server; the
server countersigns it in the round's receipt. Whoever holds receipt, head and salt can prove what the ledger once was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from palate.privacy.ledger import canonical
from palate.privacy.ledger.errors import BadReceipt, Fork, MalformedBody, Rollback
from palate.privacy.ledger.framing import HASH_SIZE, digest, framed, number

COMMITMENT_TAG = b"palate/ledger/head/1"
RECEIPT_TAG = b"palate/ledger/receipt/1"
SALT_SIZE = 32


@dataclass(frozen=True)
class Anchor:
    """Number and hash of an entry that a ledger once ended with.

    Attributes
    ----------
    name
        Of the ledger.
    seq
        Number of the entry, from 1.
    entry
        Its hash, 32 bytes.

    Raises
    ------
    BadReceipt
        If these cannot be the number and the hash of an entry.
    """

    name: str
    seq: int
    entry: bytes

    def __post_init__(self) -> None:
        if not 1 <= self.seq <= canonical.MAX_INT or len(self.entry) != HASH_SIZE:
            raise BadReceipt(f"entry {self.seq} with a hash of {len(self.entry)} bytes is not an entry")

    def commit(self, salt: bytes) -> bytes:
        """Hide the head behind a salt, 32 bytes.

        Parameters
        ----------
        salt
            32 bytes from a cryptographic generator, for this head only; kept by the device.

        Raises
        ------
        BadReceipt
            If the salt has not 32 bytes.
        """
        if len(salt) != SALT_SIZE:
            raise BadReceipt(f"a salt has {SALT_SIZE} bytes, not {len(salt)}")
        return digest(COMMITMENT_TAG, self.name.encode("utf-8"), number(self.seq), self.entry, salt)

    def check(self, hashes: Sequence[bytes]) -> None:
        """Compare with a ledger.

        Parameters
        ----------
        hashes
            Hashes of its entries, from the first.

        Raises
        ------
        Rollback
            If the ledger is shorter than the anchor.
        Fork
            If another entry is where the anchor's was.
        """
        if self.seq > len(hashes):
            raise Rollback(f"ledger {self.name} has {len(hashes)} entries, an anchor saw {self.seq}")
        if hashes[self.seq - 1] != self.entry:
            raise Fork(f"ledger {self.name}: entry {self.seq} is not the one that an anchor saw")


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What the server signs for one device at the end of a round.

    Attributes
    ----------
    run, round
        Which round.
    commitment
        The device's commitment to its head, 32 bytes.
    survivors, total, model
        SHA-256 of the list of those whose vectors are in the sum, of the sum, and of the new item table; 32 bytes each.
    log_index
        Leaf of this round in the transparency log.
    """

    run: str
    round: int
    commitment: bytes
    survivors: bytes
    total: bytes
    model: bytes
    log_index: int

    def sign(self, key: Ed25519PrivateKey) -> bytes:
        """Write the receipt with the server's signature, as canonical JSON.

        Raises
        ------
        BadReceipt
            If a hash has not 32 bytes, or a number or a name is out of bounds.
        """
        values = self._values()
        try:
            signature = key.sign(framed(RECEIPT_TAG, canonical.encode(values)))
            return canonical.encode({**values, "signature": signature.hex()})
        except MalformedBody as error:
            raise BadReceipt(error.message) from None

    def _values(self) -> dict[str, canonical.Value]:
        values: dict[str, canonical.Value] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bytes) and len(value) != HASH_SIZE:
                raise BadReceipt(f"{field.name} has {len(value)} bytes, not {HASH_SIZE}")
            values[field.name] = value.hex() if isinstance(value, bytes) else value
        return values


def open_receipt(text: bytes, key: Ed25519PublicKey) -> Receipt:
    """Check a receipt's form and signature.

    Raises
    ------
    BadReceipt
        If it is not what this server would have written.
    """
    try:
        values = canonical.decode(text)
        signature = canonical.unhex(values.pop("signature", ""), 64)
        key.verify(signature, framed(RECEIPT_TAG, canonical.encode(values)))
        expected = {field.name: str(field.type) for field in fields(Receipt)}
        if set(values) != set(expected):
            raise BadReceipt(f"fields {sorted(set(values) ^ set(expected))} are missing or not known")
        read = {
            name: canonical.unhex(values[name], HASH_SIZE) if kind == "bytes" else _typed(name, values[name], kind)
            for name, kind in expected.items()
        }
    except MalformedBody as error:
        raise BadReceipt(error.message) from None
    except InvalidSignature:
        raise BadReceipt("the receipt's signature does not fit: it was edited, or another server signed it") from None
    build: Callable[..., Receipt] = Receipt
    return build(**read)


def anchor_from_receipt(text: bytes, key: Ed25519PublicKey, claimed: Anchor, salt: bytes) -> Anchor:
    """Prove that the server countersigned a head.

    Parameters
    ----------
    text
        The receipt.
    key
        The server's.
    claimed
        The head that the device says it had.
    salt
        The salt with which the device committed to it.

    Raises
    ------
    BadReceipt
        If the receipt is not the server's, or is for another head or salt.
    """
    if open_receipt(text, key).commitment != claimed.commit(salt):
        raise BadReceipt(f"the receipt is for another head than entry {claimed.seq} of {claimed.name}")
    return claimed


def _typed(name: str, value: canonical.Value, kind: str) -> canonical.Value:
    if type(value).__name__ != kind:
        raise BadReceipt(f"{name} must be {kind}, not {type(value).__name__}")
    return value
