"""The Fleet API as a small ASGI application: a list of allowed paths, and nothing behind any other.

A stock SuperLink serves its Fleet, Control and Runtime APIs on one port, and the latter two without authentication.
Here a request is known by its path, then by its node's signature, and only then is its body read, up to a limit.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from palate.server.fleet.transport.authentication import Authenticator, Removed, Unauthenticated
from palate.server.fleet.transport.enrolment import EnrolledNode

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/protobuf"
Handler = Callable[[EnrolledNode, bytes], bytes]
"""Answers one request of an authenticated node; runs in a thread."""
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Refused(Exception):
    """A request that is understood and not granted.

    Parameters
    ----------
    status
        HTTP status, 4xx.
    detail
        What the node is told: fixed words, nothing about others.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


@dataclass(frozen=True, kw_only=True)
class FleetLimits:
    """What devices may cost the server.

    Parameters
    ----------
    max_body_bytes
        One request: Flower cuts arrays into objects of 5 MiB.
    max_reply_bytes
        All objects of one reply.
    max_connections
        Open connections, idle ones included; further requests are answered with 503.
    header_timeout_seconds
        How long a connection may take to bring the headers of a request, from its first byte.
    body_timeout_seconds
        How long a request's body may take to arrive.
    """

    max_body_bytes: int = 8 << 20
    max_reply_bytes: int = 256 << 20
    max_connections: int = 2_000
    header_timeout_seconds: float = 20.0
    body_timeout_seconds: float = 60.0


class FleetHttp:
    """ASGI application.

    Parameters
    ----------
    handlers
        What is served, by path.
    authenticator
        Tells who is calling.
    limits
        Bounds on what is read.
    """

    def __init__(self, handlers: Mapping[str, Handler], authenticator: Authenticator, limits: FleetLimits) -> None:
        self._handlers = dict(handlers)
        self._authenticator = authenticator
        self._limits = limits

    async def __call__(self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"no {scope['type']} here")
        try:
            content = await self._answer(scope, receive)
            status, media_type = 200, MEDIA_TYPE
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
            node = await asyncio.to_thread(self._authenticator.check, headers)
        except Unauthenticated as error:
            log.warning("refused a call of %s: %s", scope["path"], error)
            raise Refused(401, "not an enrolled node, or not signed as one") from error
        except Removed as error:
            raise Refused(410, "removed from the fleet") from error
        if headers.get("content-type", "").partition(";")[0].strip().lower() != MEDIA_TYPE:
            raise Refused(415, f"send {MEDIA_TYPE}")
        body = await self._body(headers, receive)
        return await asyncio.to_thread(handler, node, body)

    async def _body(self, headers: Mapping[str, str], receive: _Receive) -> bytes:
        bound = self._limits.max_body_bytes
        announced = headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > bound:
            raise Refused(413, f"a body of {announced} bytes, at most {bound} are read")
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
