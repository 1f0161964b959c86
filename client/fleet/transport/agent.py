"""The device's agent: one long-lived process that lets one installed program answer one pinned server.

    FleetAgent("fleet.example:9092", keys.node, handle, authority=Path("authority.crt")).run()

A stock SuperNode fetches a bundle of code from the server and starts it anew for every message. This agent cannot
fetch code: what answers is the callable it was given. It survives a flaky link (waits, joins again, sends the same
bytes again) and tells the server no more of a failure than a code and the name of a type.
"""

from __future__ import annotations

import logging
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from palate.client.fleet.identity import NodeKey
from palate.client.fleet.transport.link import BadAnswer, FleetError, Link, Refused, Removed, Unreachable
from palate.client.fleet.transport.pacing import Backoff, Pace, Poll
from palate.client.fleet.transport.supernode import FleetCalls, Handle, Message, Packed, answer, failure
from palate.errors import ConfigError

log = logging.getLogger(__name__)

MAX_SENDS = 20
"""How often the same reply is offered to a server that does not take it."""
_GOODBYE_SECONDS = 1.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class _Stopped(BaseException):
    """Raised in the main thread by a signal, out of whatever is going on: like kill -9, but with a goodbye."""


class FleetAgent:
    """Answers one server's messages with one installed program, one at a time, until it is stopped.

    Parameters
    ----------
    address
        The server, `host:port`.
    key
        This device's node key; the operator has enrolled its public half.
    handle
        The program: `handle(message)` returns `Message(content, reply_to=message)`. It runs in the thread that calls
        `run`. An exception becomes a reply with `palate.privacy.wire.FAILED` and the name of its type; of an
        Error that it returns, the code and at most a type name are sent.
    authority
        The operator's root certificate, the only one that is trusted.
    pace
        Polls, retries, and when to give up.
    max_message_bytes
        The largest message that is fetched.
    joined
        Called whenever the server has taken this device in.

    Raises
    ------
    ConfigError
        If the address or certificate cannot be used.
    """

    def __init__(
        self,
        address: str,
        key: NodeKey,
        handle: Handle,
        *,
        authority: Path,
        pace: Pace | None = None,
        max_message_bytes: int = 256 << 20,
        joined: Callable[[], None] = lambda: None,
    ) -> None:
        if max_message_bytes < 1:
            raise ConfigError(f"messages of at most {max_message_bytes} bytes", hint="allow at least the item table")
        self._key = key
        self._handle = handle
        self._joined = joined
        self._pace = Pace() if pace is None else pace
        self._link = Link(address, key, authority=authority)
        self.calls = FleetCalls(self._link, max_message_bytes=max_message_bytes)
        self._stop = threading.Event()
        self._rejoin = threading.Event()
        self._leaving = False
        self._outbox: Packed | None = None
        self._sends = 0
        self._last: Packed | None = None
        self.node_id: int | None = None
        self.answered = 0

    def stop(self) -> None:
        """Ask the agent to end, from another thread: it does after the call or message that is under way."""
        self._stop.set()

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT, `stop`, or a failure that waiting does not mend; may be called once.

        Signals are handled where this runs in the main thread: they interrupt whatever is going on there.

        Returns
        -------
        int
            How many messages were answered.

        Raises
        ------
        ServerNotTrusted
            If the server's certificate is not the pinned authority's.
        Removed
            If the server has removed this device: to ask again would change nothing.
        Refused
            If the server does not know this device's key, when the agent first joins.
        FleetError
            If the server could not be reached for `pace.give_up_after_seconds`.
        """
        beats = threading.Thread(target=self._beat, name="fleet-heartbeat", daemon=True)
        try:
            with self._signals():
                beats.start()
                self._serve()
        except _Stopped:
            log.info("stopped by a signal")
        finally:
            self._leaving = True
            self._stop.set()
            if self.node_id is not None:
                with suppress(FleetError):
                    self.calls.leave(timeout_seconds=_GOODBYE_SECONDS)
            self.close()
        return self.answered

    def turn(self) -> bool:
        """Join if need be, ask once for a message, and answer it; say whether there was one.

        Whoever has many devices in one process calls this in place of `run`.

        Raises
        ------
        FleetError
            If the server does not answer or refuses; the next turn sends the same reply again.
        """
        self._join()
        self._send()
        message = self.calls.receive()
        if message is None:
            return False
        self._answer(message)
        self._send()
        return True

    def close(self) -> None:
        """Close the connections, where `turn` was called and not `run`; the next turn opens one again."""
        self._link.close()

    def _serve(self) -> None:
        poll, backoff = Poll(self._pace), Backoff(self._pace)
        while not self._stop.is_set():
            try:
                worked = self.turn()
            except (Unreachable, BadAnswer, Refused) as error:
                self._after(error, backoff)
                continue
            backoff.succeeded()
            if worked:
                poll.worked()
            else:
                self._stop.wait(poll.wait_seconds())
        with suppress(FleetError):
            if self.node_id is not None:
                self._send()  # what was being worked on when somebody called `stop`

    def _join(self) -> None:
        if self.node_id is not None and not self._rejoin.is_set():
            return
        self.node_id = self.calls.join(self._key.public_pem, self._pace.heartbeat_seconds)
        self._rejoin.clear()
        self._joined()
        log.info("joined %s as node %d", self._link.address, self.node_id)

    def _answer(self, message: Message) -> None:
        if self._last is not None and self._last.message_id == message.metadata.message_id:
            self._outbox = self._last  # asked again, because the confirmation was lost: the same bytes
            return
        reply, error = answer(message, self._handle)
        if error is not None:
            log.error("the program failed with %s", type(error).__name__)
        try:
            self._outbox = self.calls.pack(message, reply)
        except Exception as unfit:  # what the program returned is not a reply; by its type alone, texts may quote data
            log.error("the reply cannot be sent: %s", type(unfit).__name__)
            self._outbox = self.calls.pack(message, failure(message, unfit))

    def _send(self) -> None:
        if self._outbox is None:
            return
        if self._sends >= MAX_SENDS or time.time() > self._outbox.expires_at:
            log.warning("a reply was dropped after %d attempts", self._sends)
            self._outbox, self._sends = None, 0
            return
        self._sends += 1
        try:
            self.calls.send(self._outbox)
        except Refused as error:
            if error.status == 401 or isinstance(error, Removed):
                raise
            log.warning("the server does not want a reply: %s", error.message)
        else:
            self.answered += 1
        self._outbox, self._last, self._sends = None, self._outbox, 0

    def _after(self, error: FleetError, backoff: Backoff) -> None:
        if isinstance(error, Removed):
            raise error
        if isinstance(error, Refused) and error.status in (401, 403):
            if self.node_id is None:
                raise error
            self._rejoin.set()  # the server was started anew, and may know this node under another number
        wait = backoff.failed()
        if wait is None:
            raise FleetError(
                f"gave up after {self._pace.give_up_after_seconds:g} s: {error.message}", hint=error.hint
            ) from error
        log.warning("%s; next attempt in %.1f s", error.message, wait)
        self._stop.wait(wait)

    def _beat(self) -> None:
        while not self._stop.wait(self._pace.heartbeat_seconds * random.uniform(0.6, 0.8)):
            if self.node_id is None:
                continue
            try:
                known = self.calls.beat(self._pace.heartbeat_seconds)
            except Refused:
                known = False
            except FleetError:
                continue  # the main loop notices too, and waits
            if not known:
                self._rejoin.set()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def on_signal(number: int, frame: FrameType | None) -> None:
            del number, frame
            self._stop.set()
            if not self._leaving:
                self._leaving = True
                raise _Stopped

        before = {number: signal.signal(number, on_signal) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
