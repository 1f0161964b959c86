"""The helper's service: HTTPS for one leader, whose signature is checked before a body is read; bodies are bounded."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from hashlib import sha256
from types import TracebackType
from typing import Self

from palate.privacy.aggregators.errors import RequestRefused
from palate.privacy.aggregators.messages import record_size
from palate.privacy.aggregators.sealing import Suite
from palate.server.fleet.certificates import KeyFiles
from palate.server.fleet.transport.authentication import Unauthenticated
from palate.server.fleet.transport.http import HttpLimits, Refused, SignedHttp
from palate.server.fleet.transport.listening import HttpsServer
from palate.server.helper.queries import Query, Question, check_signature
from palate.server.helper.remote import BODY_HEADER, MEDIA_TYPE, ROOT, SIGNATURE_HEADER
from palate.server.helper.replies import reply_to
from palate.server.helper.service import HelperService

log = logging.getLogger(__name__)

LIMITS = HttpLimits(max_body_bytes=1 << 31, max_connections=1_000, body_timeout_seconds=600.0)
_SMALL, _CHECKPOINT, _OFFER = 1 << 10, 1 << 16, 1 << 12
_CERTIFICATE = 400
"""Bytes of the longest certificate with two signatures, and of a device in a revocation."""
_SWEEP_SECONDS = 60.0


class HelperServer:
    """Serves one leader from a thread of this process; a context manager.

    Parameters
    ----------
    service
        The helper.
    tls
        Its key and certificate.
    host, port
        Where to listen; port 0 takes a free one, see `address`.
    limits
        What strangers may cost.
    """

    def __init__(
        self, service: HelperService, tls: KeyFiles, *, host: str, port: int, limits: HttpLimits = LIMITS
    ) -> None:
        self._service = service
        app = SignedHttp(
            {ROOT + question: self._handler(question) for question in Question},
            self._authenticate,
            limits,
            media_type=MEDIA_TYPE,
            body_limit=self._body_limit,
        )
        self._https = HttpsServer(
            app, certificate=tls.certificate, key=tls.key, host=host, port=port, limits=limits, name="helper"
        )
        self._stopped = threading.Event()

    def __enter__(self) -> Self:
        self._https.start()
        threading.Thread(target=self._sweep, name="helper-sweep", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._https.stop()

    @property
    def address(self) -> str:
        """Host and port, as `host:port`."""
        return self._https.address

    def _authenticate(self, path: str, headers: Mapping[str, str]) -> Query:
        """Return the question of these headers, without its body; it carries the body's hash instead."""
        question = Question(path.removeprefix(ROOT))
        try:
            body_hash = bytes.fromhex(headers[BODY_HEADER])
            signature = bytes.fromhex(headers[SIGNATURE_HEADER])
            check_signature(question, body_hash, signature, self._service.parties)
        except (KeyError, ValueError, RequestRefused) as error:
            raise Unauthenticated(f"not signed by the leader ({type(error).__name__})") from None
        return Query(question, body_hash, signature)

    def _handler(self, question: Question) -> Callable[[Query, bytes], bytes]:
        def handle(asked: Query, body: bytes) -> bytes:
            if sha256(body).digest() != asked.body:
                raise Refused(400, "the body is not the one that was signed for")
            reply, refusal = reply_to(self._service, Query(question, body, asked.signature))
            if refusal is not None:
                log.warning("%s refused: %s", question, type(refusal).__name__)  # a message may name a device
            return reply

        return handle

    def _body_limit(self, path: str) -> int:
        """Bytes of the longest body that a question may have."""
        match Question(path.removeprefix(ROOT)):
            case Question.REGISTER | Question.RENEW:
                return _OFFER + _CERTIFICATE * self._service.most_devices
            case Question.ANSWER:
                return _OFFER + max(map(record_size, Suite)) * (self._service.most_registered() + 1)
            case Question.COSIGN:
                return _CHECKPOINT
            case _:
                return _SMALL

    def _sweep(self) -> None:
        while not self._stopped.wait(_SWEEP_SECONDS):
            self._service.sweep()
