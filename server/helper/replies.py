"""What comes back for a question, over HTTPS and in files: the parts of the answer, or a refusal by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from palate.errors import PalateError
from palate.privacy.aggregators import errors as collection
from palate.privacy.aggregators.errors import RequestRefused, TooFewReports
from palate.privacy.ledger import errors as ledger
from palate.privacy.ledger.framing import framed, number
from palate.privacy.secagg.errors import MessageError
from palate.server.helper.link import HelperUnreachable
from palate.server.helper.queries import Query, Question, parts_of
from palate.server.helper.service import HelperService

_TAG = b"palate-helper-reply/1"
_DONE, _REFUSED = b"done", b"refused"

REFUSALS: Final[dict[str, type[PalateError]]] = {
    kind.__name__: kind
    for kind in (
        MessageError,
        collection.AlreadyCollected,
        collection.HelperRestored,
        collection.OfferRefused,
        collection.RegisterRefused,
        collection.RequestRefused,
        collection.RoundKeyGone,
        collection.TooFewReports,
        ledger.BadNote,
        ledger.BadProof,
        ledger.Fork,
        ledger.Rollback,
    )
}
"""Refusals that reach the leader under their own names."""


def reply_to(service: HelperService, query: Query) -> tuple[bytes, PalateError | None]:
    """Answer a question of the leader; return the reply, and the refusal that is in it, if any."""
    try:
        return framed(_TAG, _DONE, *_parts(service, query)), None
    except PalateError as error:
        valid, least = (error.valid, error.least) if isinstance(error, TooFewReports) else (0, 0)
        words = (type(error).__name__.encode("ascii"), error.message.encode(), error.hint.encode())
        return framed(_TAG, _REFUSED, *words, number(valid), number(least)), error


def read_reply(data: bytes) -> list[bytes]:
    """Return the parts of an answer.

    Raises
    ------
    PalateError
        The refusal, if it is one of `REFUSALS`.
    HelperUnreachable
        If the helper could not answer, or this is no reply.
    """
    try:
        tag, kind, *parts = parts_of(data)
        if tag != _TAG or kind not in (_DONE, _REFUSED):
            raise ValueError
        if kind == _DONE:
            return parts
        name, message, hint = (part.decode() for part in parts[:3])
        valid, least = (int.from_bytes(part, "big") for part in parts[3:])
    except (ValueError, RequestRefused):
        raise HelperUnreachable("what came back is no reply of a helper", hint="ask again") from None
    kind_of = REFUSALS.get(name, HelperUnreachable)
    if kind_of is TooFewReports:
        raise TooFewReports(message, valid=valid, least=least, hint=hint)
    raise kind_of(message, hint=hint)


def _parts(service: HelperService, query: Query) -> Sequence[bytes]:
    parts = query.parts
    match query.question:
        case Question.ROUND_KEY:
            run, server_round = _exactly(parts, 2)
            return [service.round_key(_text(run), int.from_bytes(server_round, "big"))]
        case Question.REGISTER:
            if len(parts) < 2:
                raise RequestRefused("a register and a revocation are missing", hint="check the leader")
            signed = service.countersign(parts[0], parts[2:], parts[1])
            return [signed.register, signed.revocation]
        case Question.RENEW:
            return service.renew(parts)
        case Question.ANSWER:
            answered = service.answer(*_exactly(parts, 1))
            return [answered.answer, answered.head]
        case Question.HEAD | Question.LOG_SIZE:
            _exactly(parts, 0)
            return [service.head() if query.question is Question.HEAD else number(service.log_size())]
        case Question.COSIGN:
            if not parts:
                raise RequestRefused("the checkpoint is missing", hint="check the leader")
            return [service.cosign_with(parts[0], parts[1:])]


def _exactly(parts: list[bytes], count: int) -> list[bytes]:
    if len(parts) != count:
        raise RequestRefused(f"{len(parts)} parts where {count} belong", hint="check the leader")
    return parts


def _text(data: bytes) -> str:
    try:
        return data.decode("ascii")
    except UnicodeDecodeError:
        raise RequestRefused("the name of the run is not ASCII", hint="check the leader") from None
