"""The messages of a round as bytes, R0 to R5 (docs/formats/secure-aggregation.md).

A device's advert is signed under the key that the enrolment authority certified; the roster repeats the signature to
every peer. From R1 on a body names its kind, the round's context and the root of the roster, so that nothing that is
signed fits another round, roster or step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from itertools import pairwise
from typing import Annotated, Any, ClassVar

from palate.privacy.ledger.framing import digest
from palate.privacy.ledger.merkle import MerkleTree
from palate.privacy.secagg.encoding import (
    DEVICE,
    HASH,
    HASH_SIZE,
    KEY_SIZE,
    NUMBER,
    SIGNATURE,
    SIGNATURE_SIZE,
    TEXT,
    DeviceNumber,
    Hash,
    Kind,
    Message,
    Number,
    PerRank,
    PublicKey,
    RankSet,
    Reader,
    bitmap,
    header,
    read_fields,
    records,
    unsigned,
    write_fields,
)
from palate.privacy.secagg.errors import MessageError
from palate.privacy.secagg.keys import EnrolmentCertificate
from palate.privacy.secagg.masks import SEALED_SIZE
from palate.privacy.secagg.shamir import SHARE_SIZE
from palate.privacy.wire import MAX_VALUES

_SETS = b"palate secagg survivor sets v1"
_ENTRIES = records(8 + 3 * KEY_SIZE + SIGNATURE_SIZE)


@dataclass(frozen=True, kw_only=True)
class RosterEntry:
    """One device on the roster: what it advertised; 168 bytes."""

    device: DeviceNumber
    cipher_key: PublicKey
    mask_key: PublicKey
    commitment: Hash
    signature: Annotated[bytes, SIGNATURE]

    def advert_body(self, context: bytes, identity_key: bytes) -> bytes:
        """Return what the device signed in R0 if its identity key is `identity_key`."""
        hashes = (identity_key, self.cipher_key, self.mask_key, self.commitment)
        return header(Kind.ADVERT) + HASH.write(context) + DEVICE.write(self.device) + b"".join(map(HASH.write, hashes))


@dataclass(frozen=True, kw_only=True)
class Advert(Message):
    """R0, up: a device's keys for this round.

    Attributes
    ----------
    context
        Hash of the offer, 32 bytes.
    certificate
        The device's enrolment.
    cipher_key, mask_key
        c_pk and s_pk, X25519 public keys: shares are sealed under the first, masks agreed under the second.
    commitment
        H(b), 32 bytes.
    signature
        Of the device over all but the certificate's fleet, end and signature.
    """

    kind: ClassVar[Kind] = Kind.ADVERT
    context: bytes
    certificate: EnrolmentCertificate
    cipher_key: bytes
    mask_key: bytes
    commitment: bytes

    @property
    def body(self) -> bytes:
        """What the device signs."""
        return self.entry.advert_body(self.context, self.certificate.identity_key)

    @property
    def entry(self) -> RosterEntry:
        """The advert as the roster shows it."""
        return RosterEntry(
            device=self.certificate.device,
            cipher_key=self.cipher_key,
            mask_key=self.mask_key,
            commitment=self.commitment,
            signature=self.signature,
        )

    def to_bytes(self) -> bytes:
        """Encode the advert."""
        certificate = self.certificate
        end = TEXT.write(certificate.fleet) + NUMBER.write(certificate.not_after)
        return super().to_bytes() + end + SIGNATURE.write(certificate.signature)

    @classmethod
    def from_bytes(cls, data: bytes) -> Advert:
        """Decode an advert; MessageError if `to_bytes` would write other bytes."""
        reader = Reader(data, Kind.ADVERT)
        context, device, identity_key = reader.raw(HASH_SIZE), DEVICE.read(reader), reader.raw(KEY_SIZE)
        cipher_key, mask_key, commitment = reader.raw(KEY_SIZE), reader.raw(KEY_SIZE), reader.raw(HASH_SIZE)
        signature = reader.raw(SIGNATURE_SIZE)
        certificate = EnrolmentCertificate(
            fleet=TEXT.read(reader),
            device=device,
            identity_key=identity_key,
            not_after=NUMBER.read(reader),
            signature=reader.raw(SIGNATURE_SIZE),
        )
        reader.end()
        return cls(
            context=context,
            certificate=certificate,
            cipher_key=cipher_key,
            mask_key=mask_key,
            commitment=commitment,
            signature=signature,
        )


@dataclass(frozen=True, kw_only=True)
class Roster(Message):
    """R1, down: who takes part.

    Attributes
    ----------
    context
        Hash of the offer.
    fleet
        Fleet of the certificates.
    entries
        Adverts by ascending device number; an entry's place is the device's rank.
    certificates
        Certificates of those on the roster whom the receiver may not know yet, by ascending device number.
    signature
        Of the server.
    """

    kind: ClassVar[Kind] = Kind.ROSTER
    context: bytes
    fleet: str
    entries: tuple[RosterEntry, ...]
    certificates: tuple[EnrolmentCertificate, ...]

    @property
    def root(self) -> bytes:
        """Root of the tree of entries (RFC 6962), 32 bytes."""
        return MerkleTree(map(write_fields, self.entries)).root()

    @property
    def body(self) -> bytes:
        """What the server signs."""
        ranks = {entry.device: rank for rank, entry in enumerate(self.entries)}
        certified = tuple(ranks.get(certificate.device, -1) for certificate in self.certificates)
        if list(certified) != sorted(set(certified)) or any(c.fleet != self.fleet for c in self.certificates):
            raise MessageError("certificates are not in the order of the roster", hint="sort them by device")
        parts = [header(self.kind), HASH.write(self.context), TEXT.write(self.fleet)]
        parts += [_ENTRIES.write(tuple(map(write_fields, self.entries))), bitmap(certified, len(self.entries))]
        for certificate in self.certificates:
            parts += [HASH.write(certificate.identity_key), NUMBER.write(certificate.not_after)]
            parts.append(SIGNATURE.write(certificate.signature))
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> Roster:
        """Decode a roster; MessageError if `to_bytes` would write other bytes, or devices do not ascend."""
        reader = Reader(data, cls.kind)
        context, fleet = reader.raw(HASH_SIZE), TEXT.read(reader)
        records = _ENTRIES.read(reader)
        entries = tuple(RosterEntry(**read_fields(RosterEntry, Reader(record, None))) for record in records)
        devices = [entry.device for entry in entries]
        if any(left >= right for left, right in pairwise(devices)):
            raise MessageError("devices on the roster do not ascend", hint="check what the server sent")
        certified, roster_size = reader.ranks()
        if roster_size != len(entries):
            raise MessageError(f"a bitmap over {roster_size} ranks for {len(entries)} entries", hint="check the server")
        certificates = tuple(
            EnrolmentCertificate(
                fleet=fleet,
                device=devices[rank],
                identity_key=reader.raw(KEY_SIZE),
                not_after=NUMBER.read(reader),
                signature=reader.raw(SIGNATURE_SIZE),
            )
            for rank in certified
        )
        signature = reader.raw(SIGNATURE_SIZE)
        reader.end()
        return cls(context=context, fleet=fleet, entries=entries, certificates=certificates, signature=signature)


@dataclass(frozen=True, kw_only=True)
class RoundMessage(Message):
    """A message after the roster is known: the hash of the offer and the root of the roster bind it to the round."""

    context: Hash
    root: Hash


@dataclass(frozen=True, kw_only=True)
class DeviceMessage(RoundMessage):
    """A message of one device, or for one."""

    device: DeviceNumber


@dataclass(frozen=True, kw_only=True)
class SealedShares(DeviceMessage):
    """R1, up: shares of both secrets, sealed for each neighbour in the order of ranks."""

    kind: ClassVar[Kind] = Kind.SEALED_SHARES
    sealed: Annotated[tuple[bytes, ...], records(SEALED_SIZE)]


@dataclass(frozen=True, kw_only=True)
class Inbox(DeviceMessage):
    """R2, down: what the neighbours sealed for one device.

    Attributes
    ----------
    senders
        Ranks of the neighbours whose shares are here, ascending.
    sealed
        One for each of them.
    """

    kind: ClassVar[Kind] = Kind.INBOX
    roster_size: int
    senders: RankSet
    sealed: Annotated[tuple[bytes, ...], PerRank("senders", SEALED_SIZE)]


@dataclass(frozen=True, kw_only=True)
class MaskedVector(DeviceMessage):
    """R2, up: y = x + masks mod 2^b, packed. The device signs the hash of the values in their place.

    Attributes
    ----------
    word_bytes
        Bytes of one value, ceil(b / 8).
    words
        d little-endian values.
    """

    kind: ClassVar[Kind] = Kind.MASKED_VECTOR
    word_bytes: Annotated[int, unsigned(1, 8)]
    words: bytes = field(repr=False)

    @property
    def body(self) -> bytes:
        """What the device signs."""
        return self._head + sha256(self.words).digest()

    def to_bytes(self) -> bytes:
        """Encode the message."""
        return self._head + self.words + SIGNATURE.write(self.signature)

    @classmethod
    def from_bytes(cls, data: bytes) -> MaskedVector:
        """Decode the message; MessageError if `to_bytes` would write other bytes."""
        reader = Reader(data, cls.kind)
        found = read_fields(cls, reader)
        if not found["word_bytes"]:
            raise MessageError("values of 0 bytes", hint="check what the peer sent")
        words = reader.raw(reader.number(4, most=MAX_VALUES) * found["word_bytes"])
        signature = reader.raw(SIGNATURE_SIZE)
        reader.end()
        return cls(**found, words=words, signature=signature)

    @property
    def _head(self) -> bytes:
        return header(self.kind) + write_fields(self) + unsigned(4).write(len(self.words) // self.word_bytes)


@dataclass(frozen=True, kw_only=True)
class SurvivorSets(RoundMessage):
    """R3, down: who has sent shares (U2), and who of them a masked vector (U3).

    Attributes
    ----------
    shared, survivors
        Ranks, ascending; a survivor has shared.
    """

    kind: ClassVar[Kind] = Kind.SURVIVOR_SETS
    roster_size: int
    shared: RankSet
    survivors: RankSet

    @cached_property
    def sets_hash(self) -> bytes:
        """H(U2, U3), which devices sign in R3, 32 bytes."""
        return digest(_SETS, self.body)

    @classmethod
    def from_bytes(cls, data: bytes) -> SurvivorSets:
        """Decode the message; MessageError if `to_bytes` would write other bytes, or a survivor has not shared."""
        sets = super().from_bytes(data)
        if not set(sets.survivors) <= set(sets.shared):
            raise MessageError("survivors are not a part of those who shared", hint="check what the server sent")
        return sets


@dataclass(frozen=True, kw_only=True)
class Consistency(DeviceMessage):
    """R3, up: this device was shown these survivor sets."""

    kind: ClassVar[Kind] = Kind.CONSISTENCY
    sets_hash: Hash


@dataclass(frozen=True, kw_only=True)
class Signatures(RoundMessage):
    """R4, down: who else has signed the same survivor sets.

    Attributes
    ----------
    signers
        Ranks, ascending.
    signatures
        Theirs over their `Consistency`, 64 bytes each.
    """

    kind: ClassVar[Kind] = Kind.SIGNATURES
    roster_size: int
    signers: RankSet
    signatures: Annotated[tuple[bytes, ...], PerRank("signers", SIGNATURE_SIZE)]


@dataclass(frozen=True, kw_only=True)
class Reveal(DeviceMessage):
    """R4, up: one share per peer that has shared, in the order of ranks: of b if it survived, else of its mask key."""

    kind: ClassVar[Kind] = Kind.REVEAL
    sets_hash: Hash
    shares: Annotated[tuple[bytes, ...], records(SHARE_SIZE)] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Receipt(RoundMessage):
    """R5, down: the outcome of the round.

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

    kind: ClassVar[Kind] = Kind.RECEIPT
    sets_hash: Hash
    sum_hash: Hash
    model_hash: Hash
    log_index: Number

    def facts(self, *, confirmed: bool) -> dict[str, Any]:
        """Return what it vouches for, hashes in hexadecimal.

        `confirmed` says whether these are the survivor sets that this device signed; False if it had dropped out by
        then.
        """
        hashes = {name: getattr(self, name).hex() for name in ("sets_hash", "sum_hash", "model_hash")}
        return {**hashes, "log_index": self.log_index, "confirmed": confirmed}
