"""HTTPS under one pinned authority: how devices reach their fleet, and a fleet its helper.

Settings of the surroundings do not reach it: no proxies, no certificate bundles, no redirects. Answers are read up to a
bound. A connection is kept for the next call; a new one to the same server resumes the TLS session of the last (RFC
8446, section 2.2, always with a fresh key exchange), which spares both sides the certificate.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

CONNECT_SECONDS: Final = 5.0
TRY_LATER: Final = frozenset({408, 425, 429})
"""Answers below 500 that are worth another attempt."""
_KEPT_SECONDS = 20.0  # servers close after 30
_MOST_KEPT = 4
_PIECE_BYTES = 1 << 18


class NoAnswer(Exception):
    """The server cannot be reached, broke off, or speaks no HTTP."""


class NotTrusted(Exception):
    """The server shows a certificate that the pinned authority did not issue for it."""


class AnswerTooLarge(Exception):
    """An answer of more bytes than are read."""


@dataclass(frozen=True)
class Answered:
    """What a server answered.

    Attributes
    ----------
    status
        The HTTP status.
    body
        What came, as it came.
    headers
        By lower-case name.
    """

    status: int
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)


@lru_cache(maxsize=8)  # a context is not changed once it is made; thousands of devices of one process share it
def trusting(certificates: str | None) -> ssl.SSLContext:
    """Return a TLS 1.3 context that trusts these authorities and nobody else.

    Parameters
    ----------
    certificates
        As PEM. None checks nobody: for a public answer that is compared with a fingerprint.

    Raises
    ------
    ValueError, ssl.SSLError
        If they cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if certificates is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(cadata=certificates)
    return context


def host_and_port(address: str) -> tuple[str, int]:
    """Split "host:port"; ValueError if it is no address, or has more in it."""
    parts = urlsplit(f"//{address}")
    if not parts.hostname or not parts.port or parts.path or parts.username or parts.query or parts.fragment:
        raise ValueError(f"{address!r} is not host:port")
    return parts.hostname, parts.port


class Caller:
    """Sends requests to one server, one or several at a time; thread-safe.

    Parameters
    ----------
    address
        "host:port".
    context
        Whom to trust (`trusting`).
    answer_seconds
        How long to wait for any part of an answer.

    Raises
    ------
    ValueError
        If the address cannot be one.
    """

    def __init__(self, address: str, context: ssl.SSLContext, *, answer_seconds: float) -> None:
        self._host, self._port = host_and_port(address)
        self._context = context
        self._answer_seconds = answer_seconds
        self._lock = threading.Lock()
        self._kept: list[tuple[float, _Connection]] = []
        self._session: ssl.SSLSession | None = None

    def close(self) -> None:
        """Close the connections that are kept; the next call opens one again."""
        with self._lock:
            kept, self._kept = self._kept, []
        for _, connection in kept:
            connection.close()

    def post(
        self,
        path: str,
        body: bytes,
        headers: Callable[[], Mapping[str, str]],
        *,
        max_bytes: int,
        timeout_seconds: float | None = None,
    ) -> Answered:
        """Send one request, and return what the server answers.

        Parameters
        ----------
        path, body
            What is asked. It may arrive twice: a connection that the server has closed meanwhile is replaced.
        headers
            Makes them, for each attempt anew: a signature is good for one request.
        max_bytes
            The largest body of an answer that is read.
        timeout_seconds
            How long to wait for any part of this answer, in place of `answer_seconds`.

        Raises
        ------
        NoAnswer, NotTrusted, AnswerTooLarge
            If there is no answer to return.
        """
        seconds = self._answer_seconds if timeout_seconds is None else timeout_seconds
        try:
            connection = self._taken()
            if connection is not None:
                try:
                    return self._once(connection, path, body, headers(), seconds, max_bytes)
                except (http.client.RemoteDisconnected, ConnectionError):
                    pass  # it was closed before it answered a byte
            connection = _Connection(
                self._host, self._port, self._context, self._session, min(CONNECT_SECONDS, seconds)
            )
            return self._once(connection, path, body, headers(), seconds, max_bytes)
        except ssl.SSLCertVerificationError as error:
            raise NotTrusted(str(error)) from error
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(type(error).__name__) from error

    def _once(
        self,
        connection: _Connection,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        seconds: float,
        max_bytes: int,
    ) -> Answered:
        try:
            connection.wait_at_most(seconds)
            with suppress(
                BrokenPipeError, ConnectionResetError
            ):  # who refuses a body may answer before it has all of it
                connection.request("POST", path, body, dict(headers))
            response = connection.getresponse()
            content = _read(response, max_bytes)
        except BaseException:
            connection.close()
            raise
        self._session = connection.session or self._session
        if response.will_close:
            connection.close()
        else:
            self._keep(connection)
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answered(response.status, content, found)

    def _taken(self) -> _Connection | None:
        """Take a connection that is kept, the youngest one; None if there is none that the server has surely kept."""
        with self._lock:
            kept_at, connection = self._kept.pop() if self._kept else (0.0, None)
        if connection is not None and time.monotonic() - kept_at > _KEPT_SECONDS:
            connection.close()
            self.close()  # the others are older
            return None
        return connection

    def _keep(self, connection: _Connection) -> None:
        with self._lock:
            if len(self._kept) < _MOST_KEPT:
                self._kept.append((time.monotonic(), connection))
                return
        connection.close()


class _Connection(http.client.HTTPSConnection):
    """One connection, which resumes a TLS session where there is one."""

    def __init__(
        self, host: str, port: int, context: ssl.SSLContext, session: ssl.SSLSession | None, connect_seconds: float
    ) -> None:
        super().__init__(host, port, timeout=connect_seconds, context=context)
        self._resumed = session
        self._trust = context

    def connect(self) -> None:
        """Connect, and agree on keys."""
        raw = socket.create_connection((self.host, self.port), self.timeout)
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sock = self._trust.wrap_socket(raw, server_hostname=self.host, session=self._resumed)
        except BaseException:
            raw.close()
            raise

    def wait_at_most(self, seconds: float) -> None:
        """Connect if need be, and wait so long for any part of an answer."""
        if self.sock is None:
            self.connect()
        self.sock.settimeout(seconds)

    @property
    def session(self) -> ssl.SSLSession | None:
        """The session to resume next."""
        return self.sock.session if isinstance(self.sock, ssl.SSLSocket) else None


def _read(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    """Read a body, as it came; AnswerTooLarge beyond the bound."""
    content = bytearray()
    while piece := response.read(_PIECE_BYTES):
        content += piece
        if len(content) > max_bytes:
            raise AnswerTooLarge
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    return bytes(content)
