"""The first messages of a round, R0 and R1: who takes part, with which keys (docs/formats/secure-aggregation.md).

A device's advert is signed under the key that the enrolment authority certified. The roster repeats the signature to
every peer, and its root enters every key and signature from here on.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from palate.privacy.ledger.merkle import MerkleTree
from palate.privacy.secagg.encoding import HASH_SIZE, KEY_SIZE, SIGNATURE_SIZE, Kind, Reader, Writer
from palate.privacy.secagg.errors import MessageError
from palate.privacy.secagg.keys import EnrolmentCertificate, check_size
from palate.privacy.secagg.signed import Signed, ended

_ENTRY_SIZE = 8 + 3 * KEY_SIZE + SIGNATURE_SIZE


@dataclass(frozen=True, kw_only=True)
class Advert(Signed):
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
        return b"".join(
            (
                self.body,
                check_size(self.signature, SIGNATURE_SIZE),
                Writer.bare().text(self.certificate.fleet).number(self.certificate.not_after).done(),
                self.certificate.signature,
            )
        )

    @staticmethod
    def from_bytes(data: bytes) -> Advert:
        """Decode an advert; MessageError if `to_bytes` would write other bytes."""
        reader = Reader(data, Kind.ADVERT)
        context, device, identity_key = reader.raw(HASH_SIZE), reader.device(), reader.raw(KEY_SIZE)
        cipher_key, mask_key, commitment = reader.raw(KEY_SIZE), reader.raw(KEY_SIZE), reader.raw(HASH_SIZE)
        signature = reader.raw(SIGNATURE_SIZE)
        certificate = EnrolmentCertificate(
            fleet=reader.text(),
            device=device,
            identity_key=identity_key,
            not_after=reader.number(),
            signature=reader.raw(SIGNATURE_SIZE),
        )
        return ended(reader, Advert(
            context=context, certificate=certificate, cipher_key=cipher_key, mask_key=mask_key,
            commitment=commitment, signature=signature,
        ))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RosterEntry:
    """One device on the roster: what it advertised."""

    device: int
    cipher_key: bytes
    mask_key: bytes
    commitment: bytes
    signature: bytes

    def advert_body(self, context: bytes, identity_key: bytes) -> bytes:
        """Return what the device signed in R0 if its identity key is `identity_key`."""
        writer = Writer(Kind.ADVERT).raw(context, HASH_SIZE).number(self.device).raw(identity_key, KEY_SIZE)
        writer.raw(self.cipher_key, KEY_SIZE).raw(self.mask_key, KEY_SIZE)
        return writer.raw(self.commitment, HASH_SIZE).done()

    def record(self) -> bytes:
        """Encode the entry: a leaf of the roster's tree, 168 bytes."""
        writer = Writer.bare().number(self.device).raw(self.cipher_key, KEY_SIZE).raw(self.mask_key, KEY_SIZE)
        return writer.raw(self.commitment, HASH_SIZE).raw(self.signature, SIGNATURE_SIZE).done()

    @staticmethod
    def of_record(record: bytes) -> RosterEntry:
        """Decode an entry of the right size."""
        return RosterEntry(
            device=int.from_bytes(record[:8], "big"),
            cipher_key=record[8:40],
            mask_key=record[40:72],
            commitment=record[72:104],
            signature=record[104:],
        )


@dataclass(frozen=True, kw_only=True)
class Roster(Signed):
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

    context: bytes
    fleet: str
    entries: tuple[RosterEntry, ...]
    certificates: tuple[EnrolmentCertificate, ...]

    @property
    def root(self) -> bytes:
        """Root of the tree of entries (RFC 6962), 32 bytes."""
        return MerkleTree(entry.record() for entry in self.entries).root()

    @property
    def body(self) -> bytes:
        """What the server signs."""
        ranks = {entry.device: rank for rank, entry in enumerate(self.entries)}
        certified = [ranks.get(certificate.device, -1) for certificate in self.certificates]
        if certified != sorted(set(certified)) or any(c.fleet != self.fleet for c in self.certificates):
            raise MessageError("certificates are not in the order of the roster", hint="sort them by device")
        writer = Writer(Kind.ROSTER).raw(self.context, HASH_SIZE).text(self.fleet)
        writer.records([entry.record() for entry in self.entries], _ENTRY_SIZE).ranks(certified, len(self.entries))
        for certificate in self.certificates:
            writer.raw(certificate.identity_key, KEY_SIZE).number(certificate.not_after)
            writer.raw(certificate.signature, SIGNATURE_SIZE)
        return writer.done()

    @staticmethod
    def from_bytes(data: bytes) -> Roster:
        """Decode a roster; MessageError if `to_bytes` would write other bytes, or devices do not ascend."""
        reader = Reader(data, Kind.ROSTER)
        context, fleet = reader.raw(HASH_SIZE), reader.text()
        entries = tuple(RosterEntry.of_record(record) for record in reader.records(_ENTRY_SIZE))
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
                not_after=reader.number(),
                signature=reader.raw(SIGNATURE_SIZE),
            )
            for rank in certified
        )
        signature = reader.raw(SIGNATURE_SIZE)
        return ended(reader, Roster(
            context=context, fleet=fleet, entries=entries, certificates=certificates, signature=signature
        ))  # fmt: skip
