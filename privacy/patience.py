"""Connections that say nothing are closed: half a request, dripped for ever, must not keep others out ("slowloris").

Uvicorn bounds the time between two requests of a connection, and the applications that of a body; in between, nothing
bounds how long the first byte and the headers may take. Whoever reaches the port could hold all connections that way,
without a key. A fleet's server, a helper and the local page use this.
"""

from __future__ import annotations

import asyncio
from typing import cast

from uvicorn.protocols.http.h11_impl import H11Protocol


def impatient(headers_within_seconds: float, *, most_waiting: int | None = None) -> type[H11Protocol]:
    """Return uvicorn's protocol with a deadline for the headers of every request, the first one's wait included.

    Parameters
    ----------
    headers_within_seconds
        The deadline.
    most_waiting
        Connections without a whole request, idle ones included. One more, and the one that has waited longest is
        closed: so a newcomer is served however many were opened before. None means no bound. The application closes
        the connection of a stranger with its answer, for one that comes back to wait is among the newest.
    """
    waiting: dict[Impatient, None] = {}  # in the order in which they began to wait

    class Impatient(H11Protocol):
        """HTTP/1.1 that does not wait for ever."""

        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(cast("asyncio.Transport", transport))  # uvicorn asks for no less
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._rest()
            waiting.pop(self, None)
            super().connection_lost(exc)

        def _watch(self) -> None:
            busy = self.cycle is not None and not self.cycle.response_complete
            if busy or self.transport.is_closing():
                waiting.pop(self, None)
            elif most_waiting is not None and self not in waiting:
                waiting[self] = None
                if len(waiting) > most_waiting:
                    next(iter(waiting))._give_up()
            if busy or self.timeout_keep_alive_task is not None or self.transport.is_closing():
                self._rest()
            elif self._deadline is None:  # set once: what drips in does not prolong it
                self._deadline = self.loop.call_later(headers_within_seconds, self._give_up)

        def _rest(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _give_up(self) -> None:
            self._rest()
            waiting.pop(self, None)
            self.transport.abort()  # to close TLS in order would wait for the other side

    return Impatient
