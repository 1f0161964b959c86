"""Bounds at the door: how many connections a server takes, in all and from one address, and what one costs.

A stranger who opens connections and says nothing costs a descriptor and some memory each. Without bounds, the process
runs out of descriptors and can neither take a device nor open a file of its own, and what a flood took of the memory
stays with the process for as long as it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import socket
import sys
from asyncio import sslproto
from collections import Counter
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from typing import Any

_WANTED_FILES = 65_536
_RESERVED_FILES = 256
"""Descriptors that connections leave for the server's own files."""
_LEAST_CONNECTIONS = 16
_REFUSED_AT_ONCE = 64
_HANDSHAKE_SECONDS = 10.0
_TLS_BUFFER_BYTES = 32 << 10
"""What asyncio reads at once of a TLS connection, and keeps for it from its first moment: 256 KiB if left alone."""
_CROWD = 64
"""Connections that have to be gone before their memory is worth giving back."""


def room_for_connections(wanted: int) -> int:
    """Raise the limit of open files as far as the system allows, and return how many of `wanted` connections fit."""
    if sys.platform == "win32":
        return wanted
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    better = _WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, _WANTED_FILES)
    if soft != resource.RLIM_INFINITY and soft < better:
        with contextlib.suppress(ValueError, OSError):  # macOS has another bound yet
            resource.setrlimit(resource.RLIMIT_NOFILE, (better, hard))
            soft = better
    return wanted if soft == resource.RLIM_INFINITY else min(wanted, max(_LEAST_CONNECTIONS, soft - _RESERVED_FILES))


class BoundedListener(socket.socket):
    """A listening socket that closes at once what it has no room for.

    Callers on this machine (a proxy in front of the server, say) count in the whole, but not as one address.

    Parameters
    ----------
    listening
        A socket that listens; this one takes its place.
    most
        Open connections.
    most_of_address
        Open connections from one address.
    """

    def __init__(self, listening: socket.socket, *, most: int, most_of_address: int) -> None:
        super().__init__(listening.family, listening.type, listening.proto, fileno=listening.detach())
        self._most, self._most_of_address = most, most_of_address
        self._open: Counter[str] = Counter()
        self._most_open = 0

    def crowd_has_left(self) -> bool:
        """Tell, once for each crowd, whether far fewer connections are open than there were."""
        now = self._open.total()
        if self._most_open - now < _CROWD:
            return False
        self._most_open = now
        return True

    def accept(self) -> tuple[socket.socket, Any]:
        """Return the next connection that there is room for; raises BlockingIOError where none waits."""
        for _ in range(_REFUSED_AT_ONCE):
            connection, address = super().accept()
            host = address[0]
            crowded = self._open[host] >= self._most_of_address and not _is_this_machine(host)
            if crowded or self._open.total() >= self._most:
                connection.close()
                continue
            self._open[host] += 1
            self._most_open = max(self._most_open, self._open.total())
            return _Counted(connection, partial(self._left, host)), address
        raise BlockingIOError  # the event loop asks again, after it has served others

    def _left(self, host: str) -> None:
        self._open[host] -= 1
        if not self._open[host]:
            del self._open[host]


class _Counted(socket.socket):
    """A connection that says when it is closed."""

    def __init__(self, connection: socket.socket, closed: Callable[[], None]) -> None:
        super().__init__(connection.family, connection.type, connection.proto, fileno=connection.detach())
        self._closed_once = closed

    def close(self) -> None:
        """Close the connection; a second time changes nothing."""
        super().close()
        closed, self._closed_once = self._closed_once, _nothing
        closed()


def _is_this_machine(host: str) -> bool:
    return ip_address(host.partition("%")[0]).is_loopback


def _nothing() -> None:
    pass


def give_memory_back() -> None:
    """Return to the system what closed connections held; they refer to themselves, and glibc keeps what is freed."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


class PatientLoop(asyncio.SelectorEventLoop):
    """An event loop whose TLS servers give a stranger seconds, not a minute, for the handshake, and little memory."""

    async def create_server(self, *arguments: Any, **settings: Any) -> asyncio.Server:
        """Listen as asyncio does, with a bound on the handshake where TLS is used."""
        if settings.get("ssl") is not None:
            settings["ssl_handshake_timeout"] = _HANDSHAKE_SECONDS
            sslproto.SSLProtocol.max_size = _TLS_BUFFER_BYTES  # there is no argument for it
        return await super().create_server(*arguments, **settings)
