"""The wire trusts the operator's authority alone, and whatever a server answers costs no more than a bound."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from palate.client.fleet.identity import NodeKey
from palate.client.fleet.transport.link import MAX_ANSWER_BYTES, BadAnswer, Link, Refused, ServerNotTrusted, Unreachable
from palate.errors import ConfigError
from palate.server.fleet.certificates import issue_server_certificate, make_authority, server_tls
from palate.server.fleet.transport.server import FleetServer

PROTOBUF = {"content-type": "application/protobuf"}


class Answers(BaseHTTPRequestHandler):
    """Answers by path, and notes who came."""

    seen: list[str]

    def do_POST(self):
        type(self).seen.append(self.path)
        self.rfile.read(int(self.headers.get("content-length", 0)))
        status, headers, body = {
            "/fine": (200, PROTOBUF, b"fine"),
            "/elsewhere": (307, PROTOBUF | {"location": "/fine"}, b""),
            "/large": (200, PROTOBUF, b"x" * (MAX_ANSWER_BYTES + 1)),
            "/bomb": (200, PROTOBUF | {"content-encoding": "gzip"}, gzip.compress(b"x" * 1_000_000)),
            "/page": (200, {"content-type": "text/html"}, b"<html>hotel login</html>"),
            "/busy": (503, PROTOBUF, b""),
            "/slow": (429, PROTOBUF, b""),
            "/no": (403, PROTOBUF, b""),
            "/unknown": (401, PROTOBUF, b""),
        }[self.path]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def strange_server(pki) -> Iterator[ThreadingHTTPServer]:
    Answers.seen = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.socket = server_tls(pki[1].certificate, pki[1].key).wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def key(tmp_path) -> NodeKey:
    return NodeKey.make()


@pytest.fixture
def link(strange_server, pki, key) -> Iterator[Link]:
    with Link(f"127.0.0.1:{strange_server.server_port}", key, authority=pki[0].certificate) as link:
        yield link


def test_an_answer_comes_back(link):
    assert link.call("/fine", b"") == b"fine"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/elsewhere", BadAnswer),
        ("/large", BadAnswer),
        ("/bomb", BadAnswer),
        ("/page", BadAnswer),
        ("/busy", Unreachable),
        ("/slow", Unreachable),
        ("/no", Refused),
        ("/unknown", Refused),
    ],
)
def test_every_other_answer_has_its_error_and_a_hint(link, path, kind):
    with pytest.raises(kind) as caught:
        link.call(path, b"")
    assert type(caught.value) is kind
    assert caught.value.hint


def test_redirects_are_not_followed(link):
    with pytest.raises(BadAnswer):
        link.call("/elsewhere", b"signed")
    assert Answers.seen == ["/elsewhere"]


def test_a_new_connection_resumes_the_session_of_the_last(fleet):
    with Link(fleet.server.address, fleet.key, authority=fleet.authority.certificate) as link:
        reused = []
        for _ in range(3):
            with pytest.raises(Refused, match="400"):
                link.call("/v1/fleet/pull-messages", b"\xff")
            ((_, connection),) = link._caller._kept
            reused.append(connection.sock.session_reused)
            link.close()
    assert reused == [False, True, True]


def test_a_connection_is_kept_for_the_next_call(fleet):
    with Link(fleet.server.address, fleet.key, authority=fleet.authority.certificate) as link:
        kept = set()
        for _ in range(3):
            with pytest.raises(Refused, match="400"):
                link.call("/v1/fleet/pull-messages", b"\xff")
            kept.add(link._caller._kept[0][1])
    assert len(kept) == 1


def test_a_connection_that_the_server_has_closed_meanwhile_is_replaced(link, monkeypatch):
    monkeypatch.setattr(Answers, "protocol_version", "HTTP/1.1")
    answered = Answers.do_POST

    def close_without_a_word(self):
        answered(self)
        self.close_connection = True

    monkeypatch.setattr(Answers, "do_POST", close_without_a_word)
    assert [link.call("/fine", b"") for _ in range(3)] == [b"fine"] * 3
    assert Answers.seen == ["/fine"] * 3


def test_an_answer_that_breaks_off_is_none(link, monkeypatch):
    def break_off(self):
        self.send_response(200)
        self.send_header("content-type", "application/protobuf")
        self.send_header("content-length", "1000")
        self.end_headers()
        self.wfile.write(b"x" * 999)

    monkeypatch.setattr(Answers, "do_POST", break_off)
    with pytest.raises(Unreachable, match="IncompleteRead"):
        link.call("/fine", b"")


def test_proxies_and_certificates_of_the_surroundings_are_ignored(fleet, monkeypatch, tmp_path):
    other = make_authority(tmp_path / "other")
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("SSL_CERT_FILE", str(fleet.authority.certificate))
    trusted = Link(fleet.server.address, fleet.key, authority=fleet.authority.certificate)
    with trusted as link, pytest.raises(Refused, match="400"):
        link.call("/v1/fleet/pull-messages", b"\xff")
    mistrusted = Link(fleet.server.address, fleet.key, authority=other.certificate)
    with mistrusted as link, pytest.raises(ServerNotTrusted):
        link.call("/v1/fleet/pull-messages", b"")


def test_another_hosts_certificate_is_not_trusted(pki, key, tmp_path):
    files = issue_server_certificate(pki[0], tmp_path / "other", hosts=["other.example"])
    with FleetServer(tmp_path / "state", certificate=files.certificate, key=files.key) as server:
        link = Link(server.address, key, authority=pki[0].certificate)
        with link, pytest.raises(ServerNotTrusted, match="did not issue for it"):
            link.call("/v1/fleet/pull-messages", b"")


def test_a_server_that_is_not_there_is_unreachable(pki, key):
    with (
        Link("127.0.0.1:9", key, authority=pki[0].certificate) as link,
        pytest.raises(Unreachable, match="does not answer"),
    ):
        link.call("/fine", b"")


@pytest.mark.parametrize(
    "address", ["", "fleet.example", "https://fleet.example:80", "a@b:80", "fleet.example:80/x", "h:99999", "h:x"]
)
def test_what_is_no_address_is_refused(pki, key, address):
    with pytest.raises(ConfigError, match="is not an address"):
        Link(address, key, authority=pki[0].certificate)


def test_an_authority_that_cannot_be_read_is_refused(key, tmp_path):
    (tmp_path / "authority.crt").write_text("junk")
    for path in (tmp_path / "authority.crt", tmp_path / "missing.crt"):
        with pytest.raises(ConfigError, match="cannot be read as a certificate"):
            Link("fleet.example:80", key, authority=path)
