"""The fleet server: TLS, enrolled nodes, and a Flower Grid for the code in the same process.

    with FleetServer(folder, certificate=files.certificate, key=files.key, host="0.0.0.0", port=9092) as fleet:
        fleet.enrolment.add(Path("phone.pub").read_bytes(), label="phone")
        fleet.wait_for_nodes(1, timeout_seconds=60)
        replies = fleet.grid.send_and_receive(messages, timeout=30)

Flower's own SuperLink would do more: its Control API lets whoever reaches the port start code on every device
(docs/flower.md). What is not here cannot be called.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from palate.errors import ConfigError
from palate.privacy.enrolment import ADMISSION_PATH
from palate.server.fleet.transport.authentication import Authenticator
from palate.server.fleet.transport.enrolment import Enrolment
from palate.server.fleet.transport.http import FleetLimits, Handler, SignedHttp
from palate.server.fleet.transport.listening import HttpsServer
from palate.server.fleet.transport.mailbox import Mailbox
from palate.server.fleet.transport.presence import Presence
from palate.server.fleet.transport.superlink import FleetApi, FleetGrid

log = logging.getLogger(__name__)

ENROLMENT_FILE = "fleet.sqlite"
MEDIA_TYPE = "application/protobuf"
MAX_OPEN_BYTES = 1 << 13
_WRAPPING_BYTES = 1 << 12
"""What a request has around the object that it brings, and more."""


class FleetServer:
    """Serve `/v1/fleet/*` to enrolled nodes from a thread of this process; a context manager.

    Parameters
    ----------
    state_folder
        Holds the enrolment (`fleet.sqlite`); it outlives the process, also one that was killed. Messages do not:
        the caller sends them again.
    certificate, key
        The server's, as PEM.
    host, port
        Where to listen; port 0 takes a free one, see `address`.
    limits
        What devices may cost.
    calls
        What enrolled devices may fetch, by path.
    open_calls
        What anybody may ask, by path; a request has at most `MAX_OPEN_BYTES`.

    Raises
    ------
    CertificateError
        If the certificate cannot be used.
    RunError
        If the enrolment is damaged.
    """

    def __init__(
        self,
        state_folder: Path,
        *,
        certificate: Path,
        key: Path,
        host: str = "127.0.0.1",
        port: int = 0,
        limits: FleetLimits | None = None,
        calls: Mapping[str, bytes] | None = None,
        open_calls: Mapping[str, Handler[None]] | None = None,
    ) -> None:
        self._limits = FleetLimits() if limits is None else limits
        self.enrolment = Enrolment(state_folder / ENROLMENT_FILE)
        self._presence = Presence()
        self._mailbox = Mailbox(max_reply_bytes=self._limits.max_reply_bytes)
        self._api = FleetApi(self._mailbox, self._presence)
        authenticator = Authenticator(self.enrolment)
        self._app = SignedHttp(
            {
                **self._api.calls,
                ADMISSION_PATH: lambda node, _: node.certificate,
                **{path: partial(_given, content) for path, content in (calls or {}).items()},
            },
            lambda _, headers: authenticator.check(headers),
            self._limits,
            media_type=MEDIA_TYPE,
            body_limit=lambda _: self._limits.max_reply_bytes + _WRAPPING_BYTES,  # no object is larger than its reply
        )
        strangers: SignedHttp[None] = SignedHttp(
            open_calls or {},
            lambda *_: None,
            replace(self._limits, max_body_bytes=MAX_OPEN_BYTES),
            media_type=MEDIA_TYPE,
        )

        async def dispatch(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
            await (strangers if scope.get("path") in (open_calls or {}) else self._app)(scope, receive, send)

        self._https = HttpsServer(
            dispatch,
            certificate=certificate,
            key=key,
            host=host,
            port=port,
            limits=self._limits,
            name="fleet-server",
        )
        self._grid: FleetGrid | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; returns when the server answers.

        Raises
        ------
        EnvironmentProblem
            If the address cannot be had.
        """
        self._https.start()
        self._grid = FleetGrid(
            self._mailbox, self._presence, self._api.run, max_reply_bytes=self._limits.max_reply_bytes
        )
        log.info("fleet server on %s", self.address)

    def stop(self) -> None:
        """Finish the requests that are under way, and close; at once where there are none."""
        self._https.stop()
        self.enrolment.close()
        self._grid = None

    @property
    def port(self) -> int:
        """The port that devices dial."""
        return self._https.port

    @property
    def address(self) -> str:
        """Host and port, as `host:port`."""
        return self._https.address

    @property
    def grid(self) -> FleetGrid:
        """Flower's Grid over the fleet; raises ConfigError unless the server runs."""
        if self._grid is None:
            raise ConfigError("the fleet server does not run", hint="use it as a context manager")
        return self._grid

    def wait_for_nodes(self, count: int, *, timeout_seconds: float) -> list[int]:
        """Wait until so many devices are online, or the time is over, and return their numbers."""
        return self._presence.wait_for(count, timeout_seconds)


def _given(content: bytes, node: object, body: bytes) -> bytes:
    """Answer everybody who may ask with the same bytes."""
    del node, body
    return content
