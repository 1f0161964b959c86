"""How a leader's question reaches the helper: a path, a body, and the leader's signature over both.

Over HTTPS the signature is in a header, together with the hash of the body, and is checked before the body is read. In
a file all three follow each other. The same question has the same bytes, and asking again changes nothing.

| path | body | answer |
|---|---|---|
| round-key | run, round | signed round key |
| register | register, revocation (either may be empty), certificates | register, revocation |
| renew | certificates that the leader signed | the same, signed by both |
| answer | request | answer, head |
| head | nothing | head |
| log-size | nothing | leaves that were seen last |
| cosign | checkpoint, hashes of the proof | cosigned checkpoint |

Parts of a body stand behind their lengths (`framed`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from palate.privacy.aggregators.admission import MAX_REGISTERED, Parties
from palate.privacy.aggregators.errors import RequestRefused
from palate.privacy.ledger import framing
from palate.privacy.ledger.framing import framed
from palate.privacy.secagg.encoding import SIGNATURE_SIZE

_TAG = b"palate/helper/query/1"
_FILE_TAG = b"palate-helper-query/1"


class Question(StrEnum):
    """What may be asked."""

    ROUND_KEY = "round-key"
    REGISTER = "register"
    RENEW = "renew"
    ANSWER = "answer"
    HEAD = "head"
    LOG_SIZE = "log-size"
    COSIGN = "cosign"


@dataclass(frozen=True)
class Query:
    """A question of the leader.

    Attributes
    ----------
    question
        What is asked.
    body
        With what.
    signature
        The leader's, 64 bytes.
    """

    question: Question
    body: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @staticmethod
    def signed(question: Question, parts: Sequence[bytes], *, parties: Parties, key: Ed25519PrivateKey) -> Query:
        """Ask something, as the leader."""
        body = framed(*parts)
        return Query(question, body, key.sign(statement(question, sha256(body).digest(), parties)))

    def to_file(self) -> bytes:
        """Write the question, to be carried to a helper without a network."""
        return framed(_FILE_TAG, self.question.encode("ascii"), self.signature, self.body)

    @staticmethod
    def from_file(data: bytes, parties: Parties) -> Query:
        """Read a question and check that this helper's leader asks it.

        Raises
        ------
        RequestRefused
            If it is not one, or of somebody else.
        """
        parts = parts_of(data)
        if (
            len(parts) != 4
            or parts[0] != _FILE_TAG
            or parts[1] not in {question.encode("ascii") for question in Question}
        ):
            raise RequestRefused("this is not a leader's question", hint="carry over the file that the leader wrote")
        query = Query(Question(parts[1].decode("ascii")), parts[3], parts[2])
        check_signature(query.question, sha256(query.body).digest(), query.signature, parties)
        return query

    @property
    def parts(self) -> list[bytes]:
        """The parts of the body; raises RequestRefused where it has none."""
        return parts_of(self.body)


def statement(question: Question, body_hash: bytes, parties: Parties) -> bytes:
    """Return what the leader signs."""
    return framed(_TAG, parties.content_hash, question.encode("ascii"), body_hash)


def check_signature(question: Question, body_hash: bytes, signature: bytes, parties: Parties) -> None:
    """Check that this helper's leader asks.

    Raises
    ------
    RequestRefused
        If somebody else does.
    """
    try:
        if len(signature) != SIGNATURE_SIZE:
            raise ValueError
        Ed25519PublicKey.from_public_bytes(parties.leader).verify(signature, statement(question, body_hash, parties))
    except (InvalidSignature, ValueError):
        raise RequestRefused(
            "the question is not signed by this helper's leader",
            hint="the cards of leader and helper must name each other: palate helper status shows the keys",
        ) from None


def parts_of(data: bytes) -> list[bytes]:
    """Take apart what `framed` joined.

    Raises
    ------
    RequestRefused
        If the lengths do not add up.
    """
    try:
        return framing.parts_of(data, most=MAX_REGISTERED + 1)
    except ValueError:
        raise RequestRefused("the message was cut short", hint="send it again") from None
