"""The wire to one server: HTTPS that trusts the operator's own authority and nobody else, signed with the node key.

Answers are read up to a limit, and uncompressed, so that a small one cannot grow (`palate.privacy.https`).
"""

from __future__ import annotations

import base64
import ssl
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import httpx

from palate.client.fleet.identity import NodeKey
from palate.errors import ConfigError, FederationError
from palate.privacy.https import TRY_LATER, caller, is_certificate_error, trusting

MEDIA_TYPE = "application/protobuf"
MAX_ANSWER_BYTES = 16 << 20
"""One answer; Flower cuts arrays into objects of 5 MiB."""
ANSWER_SECONDS = 30.0


class FleetError(FederationError):
    """The device's agent cannot go on."""


class Unreachable(FleetError):
    """No answer, or one that says try later: worth another attempt."""


class ServerNotTrusted(FleetError):
    """The server's certificate is not one of the pinned authority's, or not for this host."""


class Refused(FleetError):
    """The server understood, and said no.

    Parameters
    ----------
    message, hint
        As in PalateError.
    status
        HTTP status, 4xx.
    """

    def __init__(self, message: str, *, hint: str = "", status: int) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class Removed(Refused):
    """The server knew this device, and takes it no more."""

    exit_code = 9


class BadAnswer(FleetError):
    """An answer that is not what was asked for: too large, cut short, or with contents of another hash."""


class Link:
    """Calls one server's Fleet API; thread-safe.

    Parameters
    ----------
    address
        `host:port`.
    key
        Signs every request.
    authority
        The operator's root certificate, PEM.

    Raises
    ------
    ConfigError
        If the address or the certificate cannot be used.
    """

    def __init__(self, address: str, key: NodeKey, *, authority: Path) -> None:
        self.address = address
        self._key = key
        self._trusted = _trust(address, authority)
        self._client = caller(address, self._trusted, answer_seconds=ANSWER_SECONDS)
        self._public_key = base64.b64encode(key.public_pem).decode("ascii")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def rest(self) -> None:
        """Close the connections for now; the next call opens one again."""
        self._client.close()
        self._client = caller(self.address, self._trusted, answer_seconds=ANSWER_SECONDS)

    def call(
        self, path: str, body: bytes, *, timeout_seconds: float | None = None, max_bytes: int = MAX_ANSWER_BYTES
    ) -> bytes:
        """Send one signed request and return the answer's body, of at most `max_bytes`.

        Raises
        ------
        Unreachable
            If there is no answer, or the server asks to try later.
        ServerNotTrusted
            If its certificate is not the pinned authority's.
        Removed
            If it has removed this device.
        Refused
            If it says no for another reason.
        BadAnswer
            If the answer is none of these, or too large.
        """
        timeout = self._client.timeout if timeout_seconds is None else httpx.Timeout(timeout_seconds)
        try:
            with self._client.stream("POST", path, content=body, headers=self._headers(), timeout=timeout) as response:
                content = self._read(response, max_bytes)
        except httpx.ConnectError as error:
            if is_certificate_error(error):
                raise ServerNotTrusted(
                    f"{self.address} shows a certificate that the pinned authority did not issue for it",
                    hint="compare the authority's fingerprint with the operator's; do not connect otherwise",
                ) from error
            raise self._unreachable(error) from error
        except (httpx.TransportError, httpx.StreamError, ssl.SSLError) as error:
            raise self._unreachable(error) from error
        self._check(path, response)
        return content

    def _headers(self) -> dict[str, str]:
        timestamp = datetime.now(UTC).isoformat()
        return {
            "content-type": MEDIA_TYPE,
            "accept": MEDIA_TYPE,
            "accept-encoding": "identity",
            "flwr-public-key": self._public_key,
            "flwr-timestamp": timestamp,
            "flwr-signature": base64.b64encode(self._key.sign(timestamp.encode("ascii"))).decode("ascii"),
        }

    def _read(self, response: httpx.Response, max_bytes: int) -> bytes:
        content = bytearray()
        for chunk in response.iter_raw():
            content += chunk
            if len(content) > max_bytes:
                raise BadAnswer(f"{self.address} sent more than {max_bytes} bytes", hint="is it a fleet server?")
        return bytes(content)

    def _check(self, path: str, response: httpx.Response) -> None:
        status = response.status_code
        if status >= 500 or status in TRY_LATER:
            raise Unreachable(f"{self.address} answers {status}", hint="the server is overloaded or being restarted")
        if status == 410:
            raise Removed(
                f"{self.address} no longer accepts this device: the fleet's operator has removed it",
                hint="ask the operator, or leave too: palate client leave; your data and what is left of your budget "
                "stay here",
                status=status,
            )
        if status >= 400:
            raise Refused(
                f"{self.address} refuses {path.rpartition('/')[2]}: {status}",
                hint="is this device's key enrolled there, and is its clock right?"
                if status in (401, 403)
                else "do device and server have the same version of Palate?",
                status=status,
            )
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        encoded = response.headers.get("content-encoding", "identity") != "identity"
        if status != 200 or kind != MEDIA_TYPE or encoded:
            raise BadAnswer(f"{self.address} answers {status} with {kind or 'no type'}", hint="is it a fleet server?")

    def _unreachable(self, error: Exception) -> Unreachable:
        return Unreachable(f"{self.address} does not answer ({type(error).__name__})", hint="is the server running?")


def _trust(address: str, authority: Path) -> ssl.SSLContext:
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.path or parts.username:
        raise ConfigError(f"{address!r} is not an address", hint="write host:port, without https://")
    try:
        return trusting(authority.read_text(encoding="ascii"))
    except (OSError, ValueError, ssl.SSLError) as error:
        raise ConfigError(
            f"{authority} cannot be read as a certificate", hint="get the operator's authority.crt again"
        ) from error
