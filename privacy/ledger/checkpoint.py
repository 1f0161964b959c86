"""Checkpoints of a transparency log: its name, size and Merkle root as a signed note (c2sp.org/tlog-checkpoint).

A log signs one history only; witnesses cosign what they saw to be consistent (c2sp.org/tlog-cosignature), so that a
server cannot show different logs to different devices unnoticed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.privacy.ledger import canonical, merkle
from palate.privacy.ledger.errors import BadNote, BadProof, Fork, Rollback
from palate.privacy.ledger.framing import HASH_SIZE
from palate.privacy.ledger.note import COSIGNATURE, Note, NoteKey, check_key_name, decode64, encode64


@dataclass(frozen=True)
class TreeHead:
    """What a checkpoint says.

    Attributes
    ----------
    origin
        Name of the log; its key has the same.
    size
        Number of leaves.
    root
        Merkle root, 32 bytes.

    Raises
    ------
    BadNote
        If the origin cannot be the name of a key, or size or root are out of bounds.
    """

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        check_key_name(self.origin)
        if not 0 <= self.size <= canonical.MAX_INT:
            raise BadNote(f"tree size {self.size} is not within 0 ... {canonical.MAX_INT}")
        if len(self.root) != HASH_SIZE:
            raise BadNote(f"the root has {len(self.root)} bytes, not {HASH_SIZE}")
        if self.size == 0 and self.root != merkle.EMPTY_ROOT:
            raise BadNote("a tree without leaves has another root")

    @staticmethod
    def of(origin: str, tree: merkle.MerkleTree) -> TreeHead:
        """Head of a tree as it is now."""
        return TreeHead(origin, len(tree), tree.root())

    def to_text(self) -> str:
        """Write the three lines of a checkpoint."""
        return f"{self.origin}\n{self.size}\n{encode64(self.root)}\n"

    @staticmethod
    def from_text(text: str) -> TreeHead:
        """Read the three lines of a checkpoint.

        Raises
        ------
        BadNote
            If they are not exactly what `to_text` writes. Extension lines are refused: nobody audits them.
        """
        lines = text.split("\n")
        if len(lines) != 4 or lines[3]:
            raise BadNote("a checkpoint has exactly three lines: origin, size and root")
        origin, size, root = lines[:3]
        if not (size.isascii() and size.isdigit() and len(size) <= 16):
            raise BadNote("the size of the tree is not a number in range")
        head = TreeHead(origin, int(size), decode64(root))
        if head.to_text() != text:
            raise BadNote("the checkpoint is not canonical")
        return head

    def sign(self, signer: Ed25519PrivateKey) -> Note:
        """Sign as the log of this origin."""
        return Note(self.to_text(), ()).signed(signer, self.origin)

    def check_extends(self, older: TreeHead, proof: Sequence[bytes]) -> None:
        """Check that this head only added leaves to an older one of the same log.

        Raises
        ------
        Rollback
            If this one is smaller.
        Fork
            If no leaves were added and the roots differ.
        BadProof
            If the proof does not connect them, or they are of different logs.
        """
        if self.origin != older.origin:
            raise BadProof(f"{self.origin} and {older.origin} are different logs")
        if self.size < older.size:
            raise Rollback(f"log {self.origin} has {self.size} leaves, it had {older.size} before")
        if self.size == older.size and self.root != older.root:
            raise Fork(f"log {self.origin} showed two roots for {self.size} leaves")
        merkle.verify_consistency(older.size, self.size, older.root, self.root, proof)


def open_checkpoint(data: bytes, log: NoteKey, *, witnesses: Sequence[NoteKey] = (), quorum: int = 0) -> TreeHead:
    """Read a checkpoint after checking who signed it.

    Parameters
    ----------
    data
        The signed note.
    log
        The log's key.
    witnesses
        Keys of trusted witnesses, of kind `COSIGNATURE`.
    quorum
        How many of them must have cosigned.

    Raises
    ------
    BadNote
        If the log did not sign it, too few witnesses did, a trusted signature is wrong, or it is not a checkpoint.
    """
    if any(witness.kind != COSIGNATURE for witness in witnesses):
        raise BadNote("a witness needs a key for cosignatures")
    note = Note.decode(data)
    signers = note.verified_by([log, *witnesses])
    if log not in signers:
        raise BadNote(f"{log.name} did not sign the checkpoint")
    # One key under two names is one witness, and the log is no witness of itself.
    cosigned = len({signer.key.public_bytes_raw() for signer in signers} - {log.key.public_bytes_raw()})
    if cosigned < quorum:
        raise BadNote(f"{cosigned} trusted witnesses cosigned, {quorum} are needed")
    head = TreeHead.from_text(note.text)
    if head.origin != log.name:
        raise BadNote(f"the checkpoint is of {head.origin}, not of {log.name}")
    return head
