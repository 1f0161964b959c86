"""A small ASGI application: a list of allowed paths, and nothing behind any other. Fleets and helpers serve with it.

A stock SuperLink serves its Fleet, Control and Runtime APIs on one port, and the latter two without authentication.
Here a request is known by its path, then by its caller's signature, and only then is its body read, up to a limit.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from palate.server.fleet.transport.authentication import Removed, Unauthenticated

log = logging.getLogger(__name__)

Caller = TypeVar("Caller")
Handler = Callable[[Caller, bytes], bytes]
"""Answers one request of an authenticated caller; runs in a thread."""
Authenticate = Callable[[str, Mapping[str, str]], Caller]
"""Tells from path and headers who is calling; raises Unauthenticated or Removed; runs in a thread."""
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Refused(Exception):
    """A request that is understood and not granted.

    Parameters
    ----------
    status
        HTTP status, 4xx.
    detail
        What the caller is told: fixed words, nothing about others.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


@dataclass(frozen=True, kw_only=True)
class HttpLimits:
    """What callers may cost a server.

    Parameters
    ----------
    max_body_bytes
        One request, by whatever path.
    max_connections
        Open connections, idle ones included; further ones are closed at once.
    max_connections_of_address
        The same from one address, unless it is this machine's own.
    max_bodies_bytes
        Bodies that are read or answered at the same time; further ones wait.
    max_bodies_of_caller_bytes
        The same of one caller.
    header_timeout_seconds
        How long a connection may take to bring the headers of a request, from its first byte.
    body_timeout_seconds
        How long a request's body may take to arrive.
    """

    max_body_bytes: int
    max_connections: int
    max_connections_of_address: int = 500
    max_bodies_bytes: int = 256 << 20
    max_bodies_of_caller_bytes: int = 16 << 20
    header_timeout_seconds: float = 20.0
    body_timeout_seconds: float = 60.0


@dataclass(frozen=True, kw_only=True)
class FleetLimits(HttpLimits):
    """What devices may cost the server of a fleet.

    Parameters
    ----------
    max_body_bytes
        One request: Flower cuts arrays into objects of 5 MiB.
    max_reply_bytes
        All objects of one reply.
    """

    max_body_bytes: int = 8 << 20
    max_reply_bytes: int = 256 << 20
    max_connections: int = 2_000


class BodyRoom:
    """Memory for the bodies of requests; used by one event loop.

    Parameters
    ----------
    most, most_of_caller
        Bytes in all, and of one caller. A single body may be larger; it then has the room alone.
    """

    def __init__(self, *, most: int, most_of_caller: int) -> None:
        self._most, self._most_of_caller = most, most_of_caller
        self._used: Counter[object] = Counter()
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def taken(self, caller: object, size: int) -> AsyncIterator[None]:
        """Wait for room, and have it while the context lasts."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._fits(caller, size))
            self._used[caller] += size
        try:
            yield
        finally:
            self._used[caller] -= size
            if not self._used[caller]:
                del self._used[caller]
            async with self._changed:
                self._changed.notify_all()

    def _fits(self, caller: object, size: int) -> bool:
        used, of_caller = self._used.total(), self._used[caller]
        return (not used or used + size <= self._most) and (not of_caller or of_caller + size <= self._most_of_caller)


class SignedHttp(Generic[Caller]):
    """ASGI application.

    Parameters
    ----------
    handlers
        What is served, by path.
    authenticate
        Tells who is calling.
    limits
        Bounds on what is read.
    media_type
        Of every request and answer.
    body_limit
        Bound on a request's body by its path, where it is tighter than `limits`.
    """

    def __init__(
        self,
        handlers: Mapping[str, Handler[Caller]],
        authenticate: Authenticate[Caller],
        limits: HttpLimits,
        *,
        media_type: str,
        body_limit: Callable[[str], int] | None = None,
    ) -> None:
        self._handlers = dict(handlers)
        self._authenticate = authenticate
        self._limits = limits
        self._media_type = media_type
        self._body_limit = body_limit
        self._room = BodyRoom(most=limits.max_bodies_bytes, most_of_caller=limits.max_bodies_of_caller_bytes)

    async def __call__(self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"no {scope['type']} here")
        try:
            content = await self._answer(scope, receive)
            status, media_type = 200, self._media_type
        except Refused as refusal:
            status, media_type = refusal.status, "application/json"
            content = json.dumps({"detail": refusal.detail}).encode()
        except Exception as error:  # by its type alone: a text may quote what a device sent
            log.error("%s failed with %s", scope["path"], type(error).__name__)
            log.debug("failure", exc_info=True)
            status, media_type, content = 500, "application/json", b'{"detail": "internal error"}'
        headers = [(b"content-type", media_type.encode()), (b"content-length", str(len(content)).encode())]
        if status == 413:
            headers.append((b"connection", b"close"))  # what is left of the body is not read
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _answer(self, scope: MutableMapping[str, Any], receive: _Receive) -> bytes:
        handler = self._handlers.get(scope["path"]) if scope["method"] == "POST" else None
        if handler is None:
            raise Refused(404, "not found")
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            caller = await asyncio.to_thread(self._authenticate, scope["path"], headers)
        except Unauthenticated as error:
            log.warning("refused a call of %s: %s", scope["path"], error)
            raise Refused(401, "not somebody who is known here, or not signed as they sign") from error
        except Removed as error:
            raise Refused(410, "removed from the fleet") from error
        if headers.get("content-type", "").partition(";")[0].strip().lower() != self._media_type:
            raise Refused(415, f"send {self._media_type}")
        bound = self._limits.max_body_bytes
        if self._body_limit is not None:
            bound = min(bound, await asyncio.to_thread(self._body_limit, scope["path"]))
        announced = headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > bound:
            raise Refused(413, f"a body of {announced} bytes, at most {bound} are read")
        try:
            async with asyncio.timeout(self._limits.body_timeout_seconds) as waiting:
                async with self._room.taken(caller, int(announced) if announced.isdecimal() else bound):
                    waiting.reschedule(None)
                    body = await self._body(receive, bound)
                    return await asyncio.to_thread(handler, caller, body)
        except TimeoutError as error:
            raise Refused(503, "too many bodies at the same time") from error

    async def _body(self, receive: _Receive, bound: int) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_timeout_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refused(400, "the body is incomplete")
                    body += message.get("body", b"")
                    if len(body) > bound:
                        raise Refused(413, f"a body of more than {bound} bytes")
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError as error:
            raise Refused(408, "the body took too long") from error
