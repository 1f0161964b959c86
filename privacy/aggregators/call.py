"""What the leader sends a device to ask for its report: the offer, all that it names, and its public log so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from palate.privacy.aggregators.admission import Parties
from palate.privacy.aggregators.messages import SIZED
from palate.privacy.ledger.checkpoint import TreeHead, open_checkpoint
from palate.privacy.ledger.errors import BadProof, Rollback
from palate.privacy.ledger.merkle import MerkleTree
from palate.privacy.ledger.note import COSIGNATURE, NoteKey
from palate.privacy.secagg.encoding import HASH_SIZE, Kind, Reader, header, read_fields, records, write_fields

MAX_LEAVES: Final = 1 << 16


@dataclass(frozen=True, kw_only=True)
class CollectionCall:
    """The body of a REPORT step; the same bytes for every device of a round.

    It has no signature of its own: offer, register, round key and checkpoint each have theirs.

    Attributes
    ----------
    offer, register, round_key
        As their signers wrote them (`Offered.checked`).
    checkpoint
        The leader's log as it signed it and the helper cosigned it, a note (docs/formats/transparency-log.md).
    leaves
        Hashes of the log's leaves, 32 bytes each, oldest first: a device checks with them that the log has only grown.
    """

    kind: ClassVar[Kind] = Kind.COLLECTION_CALL
    offer: Annotated[bytes, SIZED] = field(repr=False)
    register: Annotated[bytes, SIZED] = field(repr=False)
    round_key: Annotated[bytes, SIZED] = field(repr=False)
    checkpoint: Annotated[bytes, SIZED] = field(repr=False)
    leaves: Annotated[tuple[bytes, ...], records(HASH_SIZE, MAX_LEAVES)] = field(repr=False)

    def to_bytes(self) -> bytes:
        """Encode the call."""
        return header(self.kind) + write_fields(self)

    @staticmethod
    def from_bytes(data: bytes) -> CollectionCall:
        """Decode a call; MessageError if `to_bytes` would write other bytes. What is in it is not checked."""
        reader = Reader(data, CollectionCall.kind)
        call = CollectionCall(**read_fields(CollectionCall, reader))
        reader.end()
        return call

    def log_head(self, fleet: str, parties: Parties, seen: TreeHead | None) -> TreeHead:
        """Check the log: leader and helper signed it, the leaves are its own, and it only added to what was seen.

        The helper cosigns only what extends the last log that it saw, and the empty log only before any other. So all
        devices see one log, newcomers too, unless leader and helper work together.

        Parameters
        ----------
        fleet
            Name of the fleet, and of its log.
        parties
            The keys of the invitation.
        seen
            Head of the log that this device saw last; None before the first.

        Raises
        ------
        BadNote
            If the leader did not sign the checkpoint, or the helper did not cosign it.
        BadProof
            If the leaves are not those of the checkpoint.
        Rollback, Fork
            If the log lacks leaves that it had, or shows others in their place.
        """
        head = open_cosigned(self.checkpoint, fleet, parties)
        tree = MerkleTree.of_hashes(self.leaves)
        if TreeHead.of(fleet, tree) != head:
            raise BadProof(f"the {len(self.leaves)} leaves are not those of the checkpoint of {head.size}")
        if seen is not None:
            if head.size < seen.size:
                raise Rollback(f"log {fleet} has {head.size} leaves, it had {seen.size} before")
            head.check_extends(seen, tree.consistency_proof(seen.size))
        return head


def open_cosigned(checkpoint: bytes, fleet: str, parties: Parties) -> TreeHead:
    """Read a checkpoint of the leader's log; BadNote unless the leader signed it and the helper cosigned it."""
    witnesses = [witness_key(fleet, parties.helper)]
    return open_checkpoint(checkpoint, log_key(fleet, parties), witnesses=witnesses, quorum=1)


def log_key(fleet: str, parties: Parties) -> NoteKey:
    """Key of the leader's log, under the fleet's name."""
    return NoteKey(fleet, Ed25519PublicKey.from_public_bytes(parties.leader))


def witness_name(fleet: str) -> str:
    """Name of the helper's key in signed notes."""
    return f"helper.{fleet}"


def witness_key(fleet: str, helper: bytes) -> NoteKey:
    """Return the key that verifies the helper's cosignatures of the leader's log.

    Parameters
    ----------
    fleet
        Name of the fleet, which is the log's name as well.
    helper
        The helper's Ed25519 key, 32 bytes.
    """
    return NoteKey(witness_name(fleet), Ed25519PublicKey.from_public_bytes(helper), COSIGNATURE)
