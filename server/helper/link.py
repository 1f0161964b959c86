"""What a leader asks of its helper: one protocol, be the helper in this process, behind TLS, or behind files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from palate.errors import FederationError


class HelperUnreachable(FederationError):
    """The helper does not answer in time; the same question may be asked again."""


class HelperNotTrusted(FederationError):
    """Whoever answers does not hold the helper's pinned certificate."""


@dataclass(frozen=True)
class Answered:
    """What the helper says to a request.

    Attributes
    ----------
    answer
        Its signed answer, as `Collection.finish` takes it.
    head
        The signed head of its ledger right after this answer, for the receipt.
    """

    answer: bytes
    head: bytes


@dataclass(frozen=True)
class Countersigned:
    """What is signed by all who admit.

    Attributes
    ----------
    register
        The register.
    revocation
        The revocation; empty where there is none.
    """

    register: bytes
    revocation: bytes


class HelperLink(Protocol):
    """What a leader asks of its helper.

    Every method may be asked again with the same arguments and changes nothing then; round keys, registers and answers
    are the same bytes. A refusal is the error of `palate.privacy.aggregators.errors` or `palate.privacy.ledger.errors`
    that the helper raised, by name, and uses nothing up. No answer at all is `HelperUnreachable`.
    """

    def round_key(self, run: str, server_round: int) -> bytes:
        """Return the signed key of a round (`RoundKey`); its `not_after` bounds the end of the offer.

        Raises
        ------
        RoundKeyGone
            If the round was answered, or its key has expired: offer the next round under another number.
        """

    def countersign(self, register: bytes, certificates: Sequence[bytes], revocation: bytes = b"") -> Countersigned:
        """Have the helper check a register, and keep it for the offers that will name it.

        Parameters
        ----------
        register
            Signed by the authority; or, where leader and helper admit, by the leader alone. Empty to have a revocation
            checked alone.
        certificates
            Of all registered devices, signed by all who admit (`Certificate`).
        revocation
            The newest `Revocation`, signed as the register is; empty for none.

        Returns
        -------
        Countersigned
            Both with all signatures: as they came, or with the helper's behind the leader's.

        Raises
        ------
        RegisterRefused
            If a signature is missing, the list is another, the epoch goes back, a key is not the device's newest, or a
            revoked key is taken back.
        """

    def renew(self, certificates: Sequence[bytes]) -> list[bytes]:
        """Have the helper sign longer admissions of devices that it has admitted.

        Parameters
        ----------
        certificates
            Of the same devices and keys, with a later end and the leader's signature (`Certificate`).

        Returns
        -------
        list
            The same with both signatures.

        Raises
        ------
        RegisterRefused
            If one is for another key, for a device that is revoked or was never admitted, or lasts too long.
        """

    def answer(self, request: bytes) -> Answered:
        """Ask for the sum of masks of one round; raises as `palate.privacy.aggregators.helper.Helper.answer`."""

    def head(self) -> bytes:
        """Return the signed head of the helper's ledger as it is now (`Head`)."""

    def log_size(self) -> int:
        """Return the number of leaves of the leader's log that the helper saw last."""

    def cosign(self, checkpoint: bytes, proof: Callable[[int], Sequence[bytes]]) -> bytes:
        """Have the helper, as witness, cosign a checkpoint of the leader's log.

        Parameters
        ----------
        checkpoint
            The note that the leader signed.
        proof
            Gives the proof of consistency from a number of leaves, the last that the helper saw, to this checkpoint:
            `MerkleTree.consistency_proof`.

        Returns
        -------
        bytes
            The note with the helper's cosignature.

        Raises
        ------
        Rollback, Fork, BadProof, BadNote
            If it does not extend the last checkpoint that the helper saw, or the leader did not sign it.
        """
