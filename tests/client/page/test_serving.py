"""The page as the command serves it: a real socket on 127.0.0.1, a file that leads to it, and an orderly end."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx
import pytest
from vaults import verified

from palate.client.fleet.folder import DeviceFolder
from palate.client.page.serving import DOOR, serve
from palate.client.vault import Vault
from palate.client.vault.history import History
from palate.errors import EnvironmentProblem

from .test_fuzz import spoilt

PROGRAM = "import typer; from palate.cli.client_owner import page; typer.run(page)"


@dataclass
class Served:
    folder: DeviceFolder
    link: str
    process: subprocess.Popen
    cookies: httpx.Cookies = field(default_factory=httpx.Cookies)

    def browser(self) -> httpx.Client:
        """The owner's browser: it follows the link once, and has the cookie from then on."""
        if not self.cookies:
            with httpx.Client() as first:
                assert first.get(self.link).status_code == 200
                self.cookies = first.cookies
        return httpx.Client(cookies=self.cookies)

    @property
    def place(self) -> str:
        return self.link.partition("open?")[0]

    @property
    def port(self) -> int:
        return int(urlsplit(self.link).port)


def start(folder: DeviceFolder) -> Served:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "--no-browser", "--folder", str(folder.home)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PALATE_KEYRING": "file"},
    )  # fmt: skip
    return Served(folder, process.stdout.readline().strip(), process)


@pytest.fixture
def served(folder: DeviceFolder) -> Iterator[Served]:
    """A page in a process of its own."""
    found = start(folder)
    yield found
    found.process.kill()
    found.process.communicate()


@pytest.fixture(scope="module")
def standing(made: DeviceFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One page for the tests that neither end nor change it."""
    home = tmp_path_factory.mktemp("standing") / "home"
    shutil.copytree(made.home, home)
    found = start(DeviceFolder(home))
    yield found
    found.process.kill()
    found.process.communicate()


def test_the_link_opens_the_page_and_a_signal_ends_it_in_order(served: Served) -> None:
    door = served.folder.home / DOOR
    assert stat.S_IMODE(door.stat().st_mode) == 0o600
    assert served.link in door.read_text().replace("&amp;", "&")
    with httpx.Client() as browser:
        assert browser.get(served.place).status_code == 403
        assert browser.get(served.link).status_code == 200
        page = browser.get(served.place)
        assert page.status_code == 200
        assert "server" not in page.headers
        token = re.search(r'name="token" value="([^"]+)"', page.text)[1]
        origin = f"http://127.0.0.1:{served.port}"
        form = {"token": token, "said": "hide", "item": "film-00003"}
        answer = browser.post(f"{served.place}feedback", data=form, headers={"origin": origin})
        assert answer.status_code == 303
    served.process.send_signal(signal.SIGTERM)
    _, errors = served.process.communicate(timeout=10)
    assert served.process.returncode == 0
    assert "Traceback" not in errors
    assert not door.exists()


def test_only_the_loopback_interface_is_listened_on(standing: Served) -> None:
    with open("/proc/net/tcp") as file:  # noqa: PTH123 - not a file of the device
        rows = [line.split() for line in file.read().splitlines()[1:]]
    listening = [row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{standing.port:04X}")]
    assert listening == [f"0100007F:{standing.port:04X}"]


def test_the_link_does_not_show_among_the_arguments_of_programs(standing: Served) -> None:
    with open(f"/proc/{standing.process.pid}/cmdline", "rb") as file:  # noqa: PTH123 - not a file of the device
        assert standing.place.encode() not in file.read()


def test_spoilt_bytes_on_the_wire_do_not_stop_the_page(standing: Served) -> None:
    rng = random.Random(3)
    path = urlsplit(standing.place).path
    plain = (
        f"POST {path}feedback HTTP/1.1\r\nHost: 127.0.0.1:{standing.port}\r\nCookie: palate=x\r\nContent-Length: 20\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n\r\nsaid=like&item=film-"
    )
    for _ in range(120):
        with socket.create_connection(("127.0.0.1", standing.port), timeout=5) as line:
            line.sendall(spoilt(plain, rng).encode("utf-8", "replace"))
            line.shutdown(socket.SHUT_WR)
            line.settimeout(5)
            found = b""
            while part := line.recv(1 << 16):
                found += part
            assert not found or found.startswith(b"HTTP/1.1 4"), found[:200]
    with standing.browser() as browser:
        assert browser.get(standing.place).status_code == 200


def connections(port: int, count: int, said: bytes) -> list[socket.socket]:
    """Connections of a stranger on this machine, each with the same bytes and nothing more."""
    made = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(count)]
    for line in made:
        line.sendall(said)
    return made


@pytest.mark.parametrize(
    "said",
    [b"", b"GET /x HTTP/1.1\r\nHost: a\r\nX-", b"GET /x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"],
    ids=["silent", "half a request", "idle after a whole one"],
)
def test_strangers_connections_do_not_keep_the_owner_out(standing: Served, said: bytes) -> None:
    with standing.browser() as browser:
        held = connections(standing.port, 200, said)
        began = time.monotonic()
        assert browser.get(standing.place, timeout=30).status_code == 200
        assert time.monotonic() - began < 5.0
        for line in held:
            line.close()


def test_half_a_request_is_closed_after_a_time(standing: Served) -> None:
    (line,) = connections(standing.port, 1, b"GET / HTTP/1.1\r\n")
    line.settimeout(30)
    began = time.monotonic()
    assert line.recv(1) == b""
    assert time.monotonic() - began < 20
    line.close()


def test_the_link_opens_once_and_a_second_browser_is_told_why(served: Served) -> None:
    with served.browser() as browser:
        assert browser.get(served.link).status_code == 200
        with httpx.Client() as thief:
            answer = thief.get(served.link)
            assert answer.status_code == 410
            assert "This link was used" in answer.text
            assert not thief.cookies
            assert thief.get(served.place).status_code == 403
        assert browser.get(served.place).status_code == 200


def test_forgetting_ends_the_page_and_removes_its_door(served: Served) -> None:
    with httpx.Client() as browser:
        browser.get(served.link)
        page = browser.get(f"{served.place}forget")
        token = re.search(r'name="token" value="([^"]+)"', page.text)[1]
        headers = {"origin": f"http://127.0.0.1:{served.port}"}
        answer = browser.post(f"{served.place}forget", data={"token": token, "confirm": "forget"}, headers=headers)
    assert "Forgotten" in answer.text
    _, errors = served.process.communicate(timeout=10)
    assert served.process.returncode == 0
    assert "Traceback" not in errors
    left = sorted(path.name for path in served.folder.home.rglob("*") if path.is_file())
    assert left == ["agent.lock", "vault.tombstone"]


def test_a_taken_port_is_named(folder: DeviceFolder) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(EnvironmentProblem, match=f"port {port} of 127.0.0.1 cannot be had"):
            serve(folder, port=port, browser=False, tell=lambda _: None)
    assert not (folder.home / DOOR).exists()


def test_the_browser_is_given_the_file_and_never_the_link(
    folder: DeviceFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, told = [], []
    monkeypatch.setattr("palate.client.page.serving.webbrowser.open", opened.append)
    monkeypatch.setattr("palate.client.page.serving._run", lambda *_: None)
    serve(folder, browser=True, tell=told.append)
    assert opened == [(folder.home / DOOR).as_uri()]
    assert told[0].startswith("http://127.0.0.1:")
    with Vault.open(folder.vault) as vault:
        assert verified(vault)


def test_the_agent_and_the_page_share_the_vault(standing: Served) -> None:
    with standing.folder.locked(), Vault.open(standing.folder.vault) as agent, standing.browser() as browser:
        before = browser.get(f"{standing.place}history")
        with agent.transaction():
            History(agent).mark("film-00001", "hide")
            meanwhile = browser.get(f"{standing.place}history")  # a change under way neither shows nor blocks
        assert (meanwhile.status_code, "Hidden" in meanwhile.text) == (200, "Hidden" in before.text) == (200, False)
        assert "Hidden" in browser.get(f"{standing.place}history").text
