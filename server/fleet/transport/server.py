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
import os
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import uvicorn

from palate.errors import ConfigError, EnvironmentProblem
from palate.server.fleet.certificates import server_tls
from palate.server.fleet.transport.authentication import Authenticator
from palate.server.fleet.transport.enrolment import Enrolment
from palate.server.fleet.transport.http import FleetHttp, FleetLimits
from palate.server.fleet.transport.mailbox import Mailbox
from palate.server.fleet.transport.patience import impatient
from palate.server.fleet.transport.presence import Presence
from palate.server.fleet.transport.superlink import FleetApi, FleetGrid

log = logging.getLogger(__name__)

ENROLMENT_FILE = "fleet.sqlite"
_STARTED_WITHIN_SECONDS = 10.0
_STOPPED_WITHIN_SECONDS = 3.0


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
    ) -> None:
        self._host, self._port = host, port
        self._tls = server_tls(certificate, key)
        self._limits = FleetLimits() if limits is None else limits
        self.enrolment = Enrolment(state_folder / ENROLMENT_FILE)
        self._presence = Presence()
        self._mailbox = Mailbox(max_reply_bytes=self._limits.max_reply_bytes)
        self._api = FleetApi(self._mailbox, self._presence)
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None
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
        self._socket = _listen(self._host, self._port)
        app = FleetHttp(self._api.calls, Authenticator(self.enrolment), self._limits)
        tls = self._tls
        config = uvicorn.Config(
            app,
            http=impatient(self._limits.header_timeout_seconds),  # h11 bounds the size of headers
            h11_max_incomplete_event_size=16 << 10,
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=self._limits.max_connections,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=1,
            ssl_context_factory=lambda *_: tls,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="fleet-server", daemon=True
        )
        self._thread.start()
        deadline = time.monotonic() + _STARTED_WITHIN_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                self.stop()
                raise EnvironmentProblem(f"the server did not start on {self._host}", hint="see the log")
            time.sleep(0.005)
        self._grid = FleetGrid(
            self._mailbox, self._presence, self._api.run, max_reply_bytes=self._limits.max_reply_bytes
        )
        log.info("fleet server on %s", self.address)

    def stop(self) -> None:
        """Finish the requests that are under way, and close; at once where there are none."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(_STOPPED_WITHIN_SECONDS)
        if self._socket is not None:
            self._socket.close()
        self.enrolment.close()
        self._server = self._thread = self._socket = self._grid = None

    @property
    def port(self) -> int:
        """The port that devices dial."""
        return self._port if self._socket is None else int(self._socket.getsockname()[1])

    @property
    def address(self) -> str:
        """Host and port, as `host:port`."""
        return f"[{self._host}]:{self.port}" if ":" in self._host else f"{self._host}:{self.port}"

    @property
    def grid(self) -> FleetGrid:
        """Flower's Grid over the fleet; raises ConfigError unless the server runs."""
        if self._grid is None:
            raise ConfigError("the fleet server does not run", hint="use it as a context manager")
        return self._grid

    def wait_for_nodes(self, count: int, *, timeout_seconds: float) -> list[int]:
        """Wait until so many devices are online, or the time is over, and return their numbers."""
        return self._presence.wait_for(count, timeout_seconds)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=512)
    except (OSError, OverflowError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise EnvironmentProblem(
            f"cannot listen on {host}:{port}: {reason}", hint="is another server running there? choose another port"
        ) from error
