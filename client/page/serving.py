"""Serving the page: a socket on 127.0.0.1, and a link that only its owner can read.

The browser is not given the link itself, for other users see the arguments of every program. It is given a file in the
device's folder, which nobody else may open, and the file leads on to the page (as Jupyter does it).
"""

from __future__ import annotations

import asyncio
import html
import logging
import signal
import socket
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import uvicorn

from palate.client.fleet.folder import DeviceFolder
from palate.client.owner.device import OwnerDevice
from palate.client.page.access import HOST, AccessControl, Secrets
from palate.client.page.app import Page
from palate.client.page.session import DeviceSession
from palate.errors import EnvironmentProblem, PalateError
from palate.privacy import files
from palate.privacy.patience import impatient

DOOR = "page.html"
"""The file that leads to the page; removed when the page ends."""

_MOST_AT_ONCE = 64
"""Connections, with those that wait."""
_MOST_WAITING = 32
"""Connections without a whole request. More would be others' on this machine: the oldest gives way."""
_HEADERS_WITHIN_SECONDS = 5.0
_KEEP_ALIVE_SECONDS = 5
_FAREWELL_SECONDS = 2
_MAX_HEAD_BYTES = 32 << 10


def serve(folder: DeviceFolder, *, port: int = 0, browser: bool = True, tell: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C, or until its owner has everything forgotten.

    Parameters
    ----------
    folder
        The device's.
    port
        On 127.0.0.1; 0 takes one that is free.
    browser
        Open the page in the owner's browser.
    tell
        Takes the link once the page can be opened.

    Raises
    ------
    VaultError
        If there is no device, or its vault cannot be opened.
    EnvironmentProblem
        If the port cannot be had.
    """
    words = Secrets.fresh()
    with OwnerDevice.opened(folder) as device, _listening(port) as listener:
        bound = int(listener.getsockname()[1])
        session = DeviceSession(device)
        page = Page(session, words.form)
        server = uvicorn.Server(_config(AccessControl(page.app(), words, bound)))

        def end() -> None:
            server.should_exit = True

        page.ended = end
        with suppress(PalateError):  # the page says what is missing, and has more to show than lists
            device.person()
        with _door(folder, words.link(bound)) as door:
            tell(words.link(bound))
            if browser:
                webbrowser.open(door.as_uri())
            _run(server, listener)


def _config(app: AccessControl) -> uvicorn.Config:
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    return uvicorn.Config(
        app,
        http=impatient(_HEADERS_WITHIN_SECONDS, most_waiting=_MOST_WAITING),
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,  # the place is in every path
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_MOST_AT_ONCE,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_FAREWELL_SECONDS,
        h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
    )


def _run(server: uvicorn.Server, listener: socket.socket) -> None:
    """Serve until a signal; uvicorn ends in order and then raises it again, so that the door is removed on the way."""
    with suppress(KeyboardInterrupt), _interrupted_by(signal.SIGTERM, signal.SIGHUP):
        asyncio.run(server.serve(sockets=[listener]))


@contextmanager
def _interrupted_by(*signals: signal.Signals) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.default_int_handler) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        try:
            listener.bind((HOST, port))
            listener.listen(_MOST_AT_ONCE)  # before the link is told
        except (OSError, OverflowError) as error:
            raise EnvironmentProblem(
                f"port {port} of {HOST} cannot be had: {getattr(error, 'strerror', None) or error}",
                hint="choose another with --port, or leave it out",
            ) from None
        yield listener


@contextmanager
def _door(folder: DeviceFolder, link: str) -> Iterator[Path]:
    path = folder.home / DOOR
    target = html.escape(link, quote=True)
    files.replace(
        path,
        (
            f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={target}">'
            f'<title>Palate</title><p><a href="{target}">Open your page</a></p>\n'
        ).encode(),
    )
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
