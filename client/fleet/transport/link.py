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

from palate.client.fleet.identity import NodeKey
from palate.errors import ConfigError, FederationError
from palate.privacy.https import TRY_LATER, Answered, AnswerTooLarge, Caller, NoAnswer, NotTrusted, trusting

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
        self._caller = _caller(address, authority)
        self._public_key = base64.b64encode(key.public_pem).decode("ascii")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the next call opens one again."""
        self._caller.close()

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
        try:
            answer = self._caller.post(path, body, self._headers, max_bytes=max_bytes, timeout_seconds=timeout_seconds)
        except NotTrusted as error:
            raise ServerNotTrusted(
                f"{self.address} shows a certificate that the pinned authority did not issue for it",
                hint="compare the authority's fingerprint with the operator's; do not connect otherwise",
            ) from error
        except NoAnswer as error:
            raise Unreachable(f"{self.address} does not answer ({error})", hint="is the server running?") from error
        except AnswerTooLarge:
            raise BadAnswer(f"{self.address} sent more than {max_bytes} bytes", hint="is it a fleet server?") from None
        self._check(path, answer)
        return answer.body

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

    def _check(self, path: str, answer: Answered) -> None:
        status = answer.status
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
        kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        encoded = answer.headers.get("content-encoding", "identity") != "identity"
        if status != 200 or kind != MEDIA_TYPE or encoded:
            raise BadAnswer(f"{self.address} answers {status} with {kind or 'no type'}", hint="is it a fleet server?")


def _caller(address: str, authority: Path) -> Caller:
    try:
        trusted = trusting(authority.read_text(encoding="ascii"))
    except (OSError, ValueError, ssl.SSLError) as error:
        raise ConfigError(
            f"{authority} cannot be read as a certificate", hint="get the operator's authority.crt again"
        ) from error
    try:
        return Caller(address, trusted, answer_seconds=ANSWER_SECONDS)
    except ValueError:
        raise ConfigError(f"{address!r} is not an address", hint="write host:port, without https://") from None
