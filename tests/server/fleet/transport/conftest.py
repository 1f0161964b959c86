"""A running fleet server, a device that calls it with raw requests, and one that runs the agent."""

from __future__ import annotations

import base64
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
import pytest
from flwr.app import Message

from palate.client.fleet.identity import NodeKey
from palate.client.fleet.transport.agent import FleetAgent
from palate.client.fleet.transport.pacing import Pace
from palate.server.fleet.certificates import KeyFiles, issue_server_certificate, make_authority
from palate.server.fleet.transport.server import FleetServer

FAST = Pace(busy_poll_seconds=0.02, idle_poll_seconds=0.1, first_retry_seconds=0.05, max_retry_seconds=0.2)


@dataclass(frozen=True)
class Pki:
    authority: KeyFiles
    server: KeyFiles

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority.certificate))


@dataclass
class Caller:
    """Whoever has the authority's certificate, and perhaps a key: makes any request, well-formed or not."""

    client: httpx.Client
    key: NodeKey | None = None

    def headers(self, at: datetime | None = None) -> dict[str, str]:
        headers = {"content-type": "application/protobuf", "accept": "application/protobuf"}
        if self.key is not None:
            timestamp = (datetime.now(UTC) if at is None else at).isoformat()
            headers |= {
                "flwr-public-key": base64.b64encode(self.key.public_pem).decode(),
                "flwr-timestamp": timestamp,
                "flwr-signature": base64.b64encode(self.key.sign(timestamp.encode())).decode(),
            }
        return headers

    def post(self, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> httpx.Response:
        return self.client.post(path, content=body, headers=self.headers() if headers is None else headers)


@pytest.fixture(scope="session")
def pki(tmp_path_factory) -> Pki:
    folder = tmp_path_factory.mktemp("pki")
    authority = make_authority(folder)
    return Pki(authority, issue_server_certificate(authority, folder, hosts=["127.0.0.1", "localhost"]))


@pytest.fixture
def open_fleet(pki, tmp_path) -> Callable[..., FleetServer]:
    def build(**options) -> FleetServer:
        return FleetServer(tmp_path / "state", certificate=pki.server.certificate, key=pki.server.key, **options)

    return build


@pytest.fixture
def fleet(open_fleet) -> Iterator[FleetServer]:
    with open_fleet() as server:
        yield server


@pytest.fixture
def outsider(fleet, pki) -> Iterator[Caller]:
    with httpx.Client(base_url=f"https://{fleet.address}", verify=pki.trust) as client:
        yield Caller(client)


@pytest.fixture
def insider(fleet, outsider, tmp_path) -> tuple[Caller, int]:
    """An enrolled device and its number."""
    key = NodeKey.make()
    return Caller(outsider.client, key), fleet.enrolment.add(key.public_pem).node_id


@pytest.fixture
def as_device(pki, tmp_path) -> Iterator[Callable[[FleetServer], Caller]]:
    """Enrol a device at a server that the test has opened itself."""
    with ExitStack() as stack:

        def enrol(fleet: FleetServer) -> Caller:
            client = stack.enter_context(httpx.Client(base_url=f"https://{fleet.address}", verify=pki.trust))
            key = NodeKey.make()
            fleet.enrolment.add(key.public_pem)
            return Caller(client, key)

        yield enrol


@pytest.fixture
def run_agent(pki) -> Callable[..., object]:
    """Run a device's agent in a thread for as long as the block lasts."""

    @contextmanager
    def running(
        fleet: FleetServer, key: NodeKey, handle: Callable[[Message], Message], pace: Pace = FAST
    ) -> Iterator[FleetAgent]:
        agent = FleetAgent(fleet.address, key, handle, authority=pki.authority.certificate, pace=pace)
        thread = threading.Thread(target=agent.run)
        thread.start()
        try:
            yield agent
        finally:
            agent.stop()
            thread.join(5)
        assert not thread.is_alive()

    return running
