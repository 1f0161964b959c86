"""What stands before the page: whoever is not its owner gets nothing (OWASP's CSRF and session management sheets).

Anybody on the machine can reach a port on 127.0.0.1, and so can every website that the owner has open. What keeps them
out, each by itself:

- a random *place* at the head of every address, and a random cookie that goes to that place alone. Cookies know no
  ports, so without the place another user's server on 127.0.0.1 would be sent it too;
- the `Host` header must be the address that was printed, for a website can point a name of its own at 127.0.0.1 (DNS
  rebinding);
- every POST must come from this origin (`Origin`, else `Referer`), must not be cross-site by `Sec-Fetch-Site`, and must
  carry a token that only the page's own forms hold;
- a policy that lets the page load, send to and be framed by nothing but itself, and answers that nobody may keep.

The link works once. Whoever follows it second, the owner or a thief, is told so. Bodies and queries are small, so their
sizes are bounded before anything is read into them, and so is the time of a body.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST = "127.0.0.1"
COOKIE = "palate"
FORM_TOKEN = "token"
"""Name of the field in which a form proves that this page made it."""

MAX_BODY_BYTES = 16 << 10
MAX_QUERY_BYTES = 8 << 10
MAX_FIELDS = 128
BODY_WITHIN_SECONDS = 10.0
_TOKEN_BYTES = 24
_HTTP_PORT = 80
_FORM = "palate.form"

POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
HEADERS: Mapping[str, str] = {
    "content-security-policy": POLICY,
    "cache-control": "no-store",
    # Not `no-referrer`: with it browsers send `Origin: null` with the page's own forms.
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), browsing-topics=()",
}

_CLOSING = {**HEADERS, "connection": "close"}
"""Of a refusal: a stranger's connection does not stay."""

_OPENING = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="0; url=./">'
    '<link rel="icon" href="data:,"><title>Palate</title></head>'
    '<body><p><a href="./">Open your page</a></p></body></html>'
)
_NO_COOKIE = "Open this page by the link that the command printed.\n"
_USED = (
    "This link was used: it opens the page once, in one browser. If that was not you, somebody else saw your page.\n"
    "For another browser, end palate client page with Ctrl-C and start it again.\n"
)


@dataclass(frozen=True)
class Secrets:
    """Random words of one run of the page; they end with the process and never print.

    Attributes
    ----------
    place
        First part of every path.
    ticket
        Opens the page, once: it is exchanged for the cookie.
    cookie
        Kept by the browser.
    form
        In every form.
    """

    place: str = field(repr=False)
    ticket: str = field(repr=False)
    cookie: str = field(repr=False)
    form: str = field(repr=False)

    @staticmethod
    def fresh() -> Secrets:
        """Draw them from the operating system, 192 bits each."""
        return Secrets(*(secrets.token_urlsafe(_TOKEN_BYTES) for _ in range(4)))

    def link(self, port: int) -> str:
        """Address that opens the page."""
        return f"http://{HOST}:{port}/{self.place}/open?ticket={self.ticket}"


class AccessControl:
    """ASGI middleware: lets the owner's requests through, with the place taken off their path.

    Parameters
    ----------
    app
        The page; it finds a form's fields by `form_of`.
    words
        Of this run.
    port
        Where it listens.
    """

    def __init__(self, app: ASGIApp, words: Secrets, port: int) -> None:
        self._app = app
        self._words = words
        self._hosts = {f"{HOST}:{port}", HOST} if port == _HTTP_PORT else {f"{HOST}:{port}"}
        self._port = port
        self._ticket_used = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        refusal = self._refusal(scope)
        if refusal is None and scope["method"] == "POST":
            form = await self._form(Headers(scope=scope), receive)
            if form is None:
                refusal = _nothing(403)
            else:
                scope[_FORM] = form
        if refusal is not None:
            await refusal(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        inner = {name: value for name, value in scope.items() if name != "raw_path"}
        inner["path"] = scope["path"][1 + len(self._words.place) :]
        await self._app(inner, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        """Return what to answer in the page's stead; None lets the request through."""
        headers, query = Headers(scope=scope), scope.get("query_string", b"")
        hosts = headers.getlist("host")
        place, parted, rest = scope["path"][1:].partition("/")
        own_cookie = any(_same(value, self._words.cookie) for value in _cookies(headers))
        if len(hosts) != 1 or hosts[0] not in self._hosts or not parted or not _same(place, self._words.place):
            return _nothing(404)
        if scope["method"] not in {"GET", "HEAD", "POST"}:
            return _nothing(405)
        if len(query) > MAX_QUERY_BYTES or query.count(b"&") >= MAX_FIELDS:
            return _nothing(414)
        if rest == "open" and scope["method"] == "GET":
            return self._opened(query, own_cookie=own_cookie)
        if headers.get("sec-fetch-site", "none") not in {"same-origin", "none"}:
            return _nothing(403)
        return None if own_cookie else PlainTextResponse(_NO_COOKIE, 403, headers=_CLOSING)

    def _opened(self, query: bytes, *, own_cookie: bool) -> Response:
        """Exchange the ticket for the cookie, once; the browser that has the cookie may follow the link again.

        A page that moves on by itself and not a redirect: a link from a file on the disk is cross-site, and a browser
        keeps a strict cookie back along the whole chain of redirects that such a link begins.
        """
        given = dict(parse_qsl(query.decode("latin-1"))).get("ticket", "")
        if not _same(given, self._words.ticket):
            return _nothing(404)
        if self._ticket_used and not own_cookie:
            return PlainTextResponse(_USED, 410, headers=_CLOSING)
        self._ticket_used = True
        response = HTMLResponse(_OPENING, headers=dict(HEADERS))
        response.set_cookie(COOKIE, self._words.cookie, path=f"/{self._words.place}/", httponly=True, samesite="strict")
        return response

    async def _form(self, headers: Headers, receive: Receive) -> dict[str, str] | None:
        """Read a form that this page made; None for any other body."""
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/x-www-form-urlencoded" or not self._own_origin(headers):
            return None
        body, more = b"", True
        try:
            async with asyncio.timeout(BODY_WITHIN_SECONDS):
                while more:
                    message = await receive()
                    if message["type"] != "http.request":
                        return None
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > MAX_BODY_BYTES:
                        return None
        except TimeoutError:
            return None
        try:
            fields = dict(
                parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
            )
        except ValueError:
            return None
        return fields if _same(fields.pop(FORM_TOKEN, ""), self._words.form) else None

    def _own_origin(self, headers: Headers) -> bool:
        origins = headers.getlist("origin")
        if not origins:
            referrer = urlsplit(headers.get("referer", ""))
            origins = [f"{referrer.scheme}://{referrer.netloc}"]
        return all(origin.startswith("http://") and origin[7:] in self._hosts for origin in origins)


def form_of(scope: Scope) -> dict[str, str]:
    """Return the fields of a form that access control let through; of several with one name the last."""
    found: dict[str, str] = scope.get(_FORM, {})
    return found


def _nothing(status: int) -> Response:
    return Response(status_code=status, headers={"cache-control": "no-store", "connection": "close"})


def _same(given: str, expected: str) -> bool:
    """Compare without telling by the time how much was right."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode("ascii"))


def _cookies(headers: Headers) -> list[str]:
    pairs = (pair.partition("=") for line in headers.getlist("cookie") for pair in line.split(";"))
    return [value.strip() for name, _, value in pairs if name.strip() == COOKIE]
