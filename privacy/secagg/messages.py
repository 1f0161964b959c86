"""The messages of a round from R1 to R5 as bytes; the first two are in `adverts` (docs/formats/secure-aggregation.md).

A body names its kind, the round's context and the root of the roster, so that nothing that is signed fits another
round, roster or step. `from_bytes` accepts one spelling; it checks no signature.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256

from palate.privacy.ledger.framing import digest
from palate.privacy.secagg.encoding import HASH_SIZE, MAX_NUMBER, SIGNATURE_SIZE, Kind, Reader, Writer
from palate.privacy.secagg.errors import MessageError
from palate.privacy.secagg.masks import SEALED_SIZE
from palate.privacy.secagg.shamir import SHARE_SIZE
from palate.privacy.secagg.signed import Signed, ended
from palate.privacy.wire import MAX_VALUES

_SETS = b"palate secagg survivor sets v1"


@dataclass(frozen=True, kw_only=True)
class SealedShares(Signed):
    """R1, up: shares of both secrets, sealed for each neighbour in the order of ranks."""

    context: bytes
    root: bytes
    device: int
    sealed: tuple[bytes, ...]

    @property
    def body(self) -> bytes:
        """What the device signs."""
        return _from_device(Kind.SEALED_SHARES, self).records(self.sealed, SEALED_SIZE).done()

    @staticmethod
    def from_bytes(data: bytes) -> SealedShares:
        """Decode the message; MessageError if `to_bytes` would write other bytes."""
        reader = Reader(data, Kind.SEALED_SHARES)
        return ended(reader, SealedShares(
            context=reader.raw(HASH_SIZE), root=reader.raw(HASH_SIZE), device=reader.device(),
            sealed=reader.records(SEALED_SIZE), signature=reader.raw(SIGNATURE_SIZE),
        ))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Inbox(Signed):
    """R2, down: what the neighbours sealed for one device.

    Attributes
    ----------
    senders
        Ranks of the neighbours whose shares are here, ascending.
    sealed
        One for each of them.
    """

    context: bytes
    root: bytes
    device: int
    roster_size: int
    senders: tuple[int, ...]
    sealed: tuple[bytes, ...]

    @property
    def body(self) -> bytes:
        """What the server signs."""
        return _with_records(
            _from_device(Kind.INBOX, self), self.senders, self.roster_size, self.sealed, SEALED_SIZE
        ).done()

    @staticmethod
    def from_bytes(data: bytes) -> Inbox:
        """Decode the message; MessageError if `to_bytes` would write other bytes."""
        reader = Reader(data, Kind.INBOX)
        context, root, device = reader.raw(HASH_SIZE), reader.raw(HASH_SIZE), reader.device()
        senders, roster_size = reader.ranks()
        return ended(reader, Inbox(
            context=context, root=root, device=device, roster_size=roster_size, senders=senders,
            sealed=tuple(reader.raw(SEALED_SIZE) for _ in senders), signature=reader.raw(SIGNATURE_SIZE),
        ))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MaskedVector(Signed):
    """R2, up: y = x + masks mod 2^b, packed.

    Attributes
    ----------
    word_bytes
        Bytes of one value, ceil(b / 8).
    words
        d little-endian values.
    """

    context: bytes
    root: bytes
    device: int
    word_bytes: int
    words: bytes = field(repr=False)

    @property
    def body(self) -> bytes:
        """What the device signs: all fields, the values as their hash."""
        writer = _from_device(Kind.MASKED_VECTOR, self).number(self.word_bytes, 1)
        return writer.number(len(self.words) // self.word_bytes, 4).raw(sha256(self.words).digest(), HASH_SIZE).done()

    def to_bytes(self) -> bytes:
        """Encode the message."""
        writer = _from_device(Kind.MASKED_VECTOR, self).number(self.word_bytes, 1)
        writer.number(len(self.words) // self.word_bytes, 4).raw(self.words, len(self.words))
        return writer.raw(self.signature, SIGNATURE_SIZE).done()

    @staticmethod
    def from_bytes(data: bytes) -> MaskedVector:
        """Decode the message; MessageError if `to_bytes` would write other bytes."""
        reader = Reader(data, Kind.MASKED_VECTOR)
        context, root, device = reader.raw(HASH_SIZE), reader.raw(HASH_SIZE), reader.device()
        word_bytes = reader.number(1, most=8)
        if not word_bytes:
            raise MessageError("values of 0 bytes", hint="check what the peer sent")
        return ended(reader, MaskedVector(
            context=context, root=root, device=device, word_bytes=word_bytes,
            words=reader.raw(reader.number(4, most=MAX_VALUES) * word_bytes), signature=reader.raw(SIGNATURE_SIZE),
        ))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SurvivorSets(Signed):
    """R3, down: who has sent shares (U2), and who of them a masked vector (U3).

    Attributes
    ----------
    shared, survivors
        Ranks, ascending; a survivor has shared.
    """

    context: bytes
    root: bytes
    roster_size: int
    shared: tuple[int, ...]
    survivors: tuple[int, ...]

    @property
    def body(self) -> bytes:
        """What the server signs."""
        writer = Writer(Kind.SURVIVOR_SETS).raw(self.context, HASH_SIZE).raw(self.root, HASH_SIZE)
        return writer.ranks(self.shared, self.roster_size).ranks(self.survivors, self.roster_size).done()

    @cached_property
    def sets_hash(self) -> bytes:
        """H(U2, U3), which devices sign in R3, 32 bytes."""
        return digest(_SETS, self.body)

    @staticmethod
    def from_bytes(data: bytes) -> SurvivorSets:
        """Decode the message; MessageError if `to_bytes` would write other bytes, or a survivor has not shared."""
        reader = Reader(data, Kind.SURVIVOR_SETS)
        context, root = reader.raw(HASH_SIZE), reader.raw(HASH_SIZE)
        (shared, roster_size), (survivors, same_size) = reader.ranks(), reader.ranks()
        if roster_size != same_size or not set(survivors) <= set(shared):
            raise MessageError("survivors are not a part of those who shared", hint="check what the server sent")
        return ended(reader, SurvivorSets(
            context=context, root=root, roster_size=roster_size, shared=shared, survivors=survivors,
            signature=reader.raw(SIGNATURE_SIZE),
        ))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Consistency(Signed):
    """R3, up: this device was shown these survivor sets."""

    context: bytes
    root: bytes
    device: int
    sets_hash: bytes

    @property
    def body(self) -> bytes:
        """What the device signs."""
        return _from_device(Kind.CONSISTENCY, self).raw(self.sets_hash, HASH_SIZE).done()

    @staticmethod
    def from_bytes(data: bytes) -> Consistency:
        """Decode the message; MessageError if `to_bytes` would write other bytes."""
        reader = Reader(data, Kind.CONSISTENCY)
        return ended(reader, Consistency(
            context=reader.raw(HASH_SIZE), root=reader.raw(HASH_SIZE), device=reader.device(),
            sets_hash=reader.raw(HASH_SIZE), signature=reader.raw(SIGNATURE_SIZE),
        ))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Signatures(Signed):
    """R4, down: who else has signed the same survivor sets.

    Attributes
    ----------
    signers
        Ranks, ascending.
    signatures
        Theirs over their `Consistency`, 64 bytes each.
    """

    context: bytes
    root: bytes
    roster_size: int
    signers: tuple[int, ...]
    signatures: tuple[bytes, ...]

    @property
    def body(self) -> bytes:
        """What the server signs."""
        writer = Writer(Kind.SIGNATURES).raw(self.context, HASH_SIZE).raw(self.root, HASH_SIZE)
        return _with_records(writer, self.signers, self.roster_size, self.signatures, SIGNATURE_SIZE).done()

    @staticmethod
    def from_bytes(data: bytes) -> Signatures:
        """Decode the message; MessageError if `to_bytes` would write other bytes."""
        reader = Reader(data, Kind.SIGNATURES)
        context, root = reader.raw(HASH_SIZE), reader.raw(HASH_SIZE)
        signers, roster_size = reader.ranks()
        return ended(reader, Signatures(
            context=context, root=root, roster_size=roster_size, signers=signers,
            signatures=tuple(reader.raw(SIGNATURE_SIZE) for _ in signers), signature=reader.raw(SIGNATURE_SIZE),
        ))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Reveal(Signed):
    """R4, up: one share per peer that has shared, in the order of ranks: of b if it survived, else of its mask key."""

    context: bytes
    root: bytes
    device: int
    sets_hash: bytes
    shares: tuple[bytes, ...] = field(repr=False)

    @property
    def body(self) -> bytes:
        """What the device signs."""
        writer = _from_device(Kind.REVEAL, self).raw(self.sets_hash, HASH_SIZE)
        return writer.records(self.shares, SHARE_SIZE).done()

    @staticmethod
    def from_bytes(data: bytes) -> Reveal:
        """Decode the message; MessageError if `to_bytes` would write other bytes."""
        reader = Reader(data, Kind.REVEAL)
        return ended(reader, Reveal(
            context=reader.raw(HASH_SIZE), root=reader.raw(HASH_SIZE), device=reader.device(),
            sets_hash=reader.raw(HASH_SIZE), shares=reader.records(SHARE_SIZE), signature=reader.raw(SIGNATURE_SIZE),
        ))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Receipt(Signed):
    """R5, down: what became of the round.

    Attributes
    ----------
    sets_hash
        H(U2, U3) of the sum.
    sum_hash
        SHA-256 of the sum's packed values.
    model_hash
        Hash of the new item table, 32 bytes.
    log_index
        Where the server's log has the round.
    """

    context: bytes
    root: bytes
    sets_hash: bytes
    sum_hash: bytes
    model_hash: bytes
    log_index: int

    @property
    def body(self) -> bytes:
        """What the server signs."""
        writer = Writer(Kind.RECEIPT)
        for value in (self.context, self.root, self.sets_hash, self.sum_hash, self.model_hash):
            writer.raw(value, HASH_SIZE)
        return writer.number(self.log_index).done()

    @staticmethod
    def from_bytes(data: bytes) -> Receipt:
        """Decode the message; MessageError if `to_bytes` would write other bytes."""
        reader = Reader(data, Kind.RECEIPT)
        return ended(reader, Receipt(
            context=reader.raw(HASH_SIZE), root=reader.raw(HASH_SIZE), sets_hash=reader.raw(HASH_SIZE),
            sum_hash=reader.raw(HASH_SIZE), model_hash=reader.raw(HASH_SIZE),
            log_index=reader.number(most=MAX_NUMBER), signature=reader.raw(SIGNATURE_SIZE),
        ))  # fmt: skip


def _from_device(kind: Kind, message: SealedShares | Inbox | MaskedVector | Consistency | Reveal) -> Writer:
    writer = Writer(kind).raw(message.context, HASH_SIZE).raw(message.root, HASH_SIZE)
    return writer.number(message.device)


def _with_records(
    writer: Writer, ranks: tuple[int, ...], roster_size: int, records: tuple[bytes, ...], size: int
) -> Writer:
    if len(ranks) != len(records):
        raise MessageError(f"{len(records)} records for {len(ranks)} ranks", hint="give one for each")
    writer.ranks(ranks, roster_size)
    for record in records:
        writer.raw(record, size)
    return writer
