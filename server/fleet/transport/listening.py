"""An HTTPS server in a thread of this process, with bounds on what strangers cost: fleets and helpers use it."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import uvicorn

from palate.errors import EnvironmentProblem
from palate.privacy.patience import impatient
from palate.server.fleet.certificates import CertificateError, server_tls
from palate.server.fleet.transport.accepting import (
    BoundedListener,
    PatientLoop,
    give_memory_back,
    room_for_connections,
)
from palate.server.fleet.transport.http import HttpLimits

log = logging.getLogger(__name__)

_RENEWED_WITHIN_SECONDS = 5.0
_MEMORY_BACK_WITHIN_SECONDS = 5.0
_STARTED_WITHIN_SECONDS = 10.0
_STOPPED_WITHIN_SECONDS = 3.0


class HttpsServer:
    """Serves one ASGI application with TLS from a thread.

    Parameters
    ----------
    app
        The application.
    certificate, key
        The server's, as PEM. A certificate that is replaced while the server runs is used from the next connection on.
    host, port
        Where to listen; port 0 takes a free one, see `address`.
    limits
        Bounds on connections and headers; the application bounds bodies.
    name
        Of the thread.

    Raises
    ------
    CertificateError
        If the certificate cannot be used.
    """

    def __init__(
        self, app: Any, *, certificate: Path, key: Path, host: str, port: int, limits: HttpLimits, name: str
    ) -> None:
        self._app, self._limits, self._name = app, limits, name
        self._certificate, self._key = certificate, key
        self._tls = server_tls(certificate, key)
        self._host, self._port = host, port
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._socket: BoundedListener | None = None

    def start(self) -> None:
        """Listen; returns when the server answers.

        Raises
        ------
        EnvironmentProblem
            If the address cannot be had.
        """
        limits = self._limits
        self._socket = BoundedListener(
            _listen(self._host, self._port),
            most=room_for_connections(limits.max_connections),
            most_of_address=limits.max_connections_of_address,
        )
        tls = self._tls
        config = uvicorn.Config(
            self._app,
            http=impatient(limits.header_timeout_seconds),  # h11 bounds the size of headers
            h11_max_incomplete_event_size=16 << 10,
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=1,
            ssl_context_factory=lambda *_: tls,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, args=(self._server,), name=self._name, daemon=True)
        self._thread.start()
        deadline = time.monotonic() + _STARTED_WITHIN_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                self.stop()
                raise EnvironmentProblem(f"the server did not start on {self._host}", hint="see the log")
            time.sleep(0.005)

    def stop(self) -> None:
        """Finish the requests that are under way, and close; at once where there are none."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(_STOPPED_WITHIN_SECONDS)
        if self._socket is not None:
            self._socket.close()
        self._server = self._thread = self._socket = None

    def _serve(self, server: uvicorn.Server) -> None:
        assert self._socket is not None  # made before the thread

        async def serve(listening: BoundedListener) -> None:
            beside = [asyncio.create_task(each) for each in (self._take_up_renewals(), _give_memory_back(listening))]
            await server.serve(sockets=[listening])
            for each in beside:
                each.cancel()

        with asyncio.Runner(loop_factory=PatientLoop) as runner:
            runner.run(serve(self._socket))

    async def _take_up_renewals(self) -> None:
        """Load the certificate again whenever its file has changed; one that cannot be used is passed over."""
        used = _written_at(self._certificate)
        while True:
            await asyncio.sleep(_RENEWED_WITHIN_SECONDS)
            found = _written_at(self._certificate)
            if found in (used, None):
                continue
            used = found
            try:
                server_tls(self._certificate, self._key)
                self._tls.load_cert_chain(self._certificate, self._key)
            except (CertificateError, OSError) as error:
                log.error("the renewed certificate is not used: %s", error)
            else:
                log.info("the renewed certificate is used")

    @property
    def port(self) -> int:
        """The port that callers dial."""
        return self._port if self._socket is None else int(self._socket.getsockname()[1])

    @property
    def address(self) -> str:
        """Host and port, as `host:port`."""
        return f"[{self._host}]:{self.port}" if ":" in self._host else f"{self._host}:{self.port}"


async def _give_memory_back(listening: BoundedListener) -> None:
    """After a flood, the process is to be as small as before."""
    while True:
        await asyncio.sleep(_MEMORY_BACK_WITHIN_SECONDS)
        if listening.crowd_has_left():
            give_memory_back()


def _written_at(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=512)
    except (OSError, OverflowError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise EnvironmentProblem(
            f"cannot listen on {host}:{port}: {reason}", hint="is another server running there? choose another port"
        ) from error
