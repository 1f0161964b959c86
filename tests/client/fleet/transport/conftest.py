"""A real fleet server whose answers can be lost, and an enrolled key."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from flwr.app import Message, RecordDict

from palate.client.fleet.identity import NodeKey
from palate.client.fleet.transport.agent import FleetAgent
from palate.client.fleet.transport.pacing import Pace
from palate.server.fleet.certificates import KeyFiles, issue_server_certificate, make_authority
from palate.server.fleet.transport.server import FleetServer

FAST = Pace(
    busy_poll_seconds=0.02,
    idle_poll_seconds=0.1,
    first_retry_seconds=0.02,
    max_retry_seconds=0.1,
    give_up_after_seconds=20,
)


@dataclass
class Fleet:
    """A server with one enrolled device, everything that was sent to it, and a way to lose its answers."""

    server: FleetServer
    authority: KeyFiles
    key: NodeKey
    node_id: int
    sent: list[tuple[str, bytes]] = field(default_factory=list)
    losses: Counter = field(default_factory=Counter)

    def watch(self) -> None:
        def wrap(name, handler):
            def watched(node, body):
                answer = handler(node, body)
                self.sent.append((name, body))
                if self.losses[name] > 0:
                    self.losses[name] -= 1
                    raise OSError("the answer is lost, what was asked for has been done")
                return answer

            return watched

        calls = self.server._app._handlers
        for path, handler in list(calls.items()):
            calls[path] = wrap(path.removeprefix("/v1/fleet/"), handler)

    def bodies(self, name: str) -> list[bytes]:
        return [body for path, body in self.sent if path == name]

    def ask(self, content: RecordDict | None = None, timeout: float = 15.0) -> Message:
        message = Message(content or RecordDict(), dst_node_id=self.node_id, message_type="train")
        (reply,) = self.server.grid.send_and_receive([message], timeout=timeout)
        return reply

    def agent(self, handle: Callable[[Message], Message], **options) -> FleetAgent:
        given = {"authority": self.authority.certificate, "pace": FAST} | options
        return FleetAgent(self.server.address, self.key, handle, **given)

    @contextmanager
    def running(self, handle: Callable[[Message], Message], **options) -> Iterator[FleetAgent]:
        agent = self.agent(handle, **options)
        thread = threading.Thread(target=agent.run)
        thread.start()
        try:
            assert self.server.wait_for_nodes(1, timeout_seconds=15) == [self.node_id]
            yield agent
        finally:
            agent.stop()
            thread.join(5)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def pki(tmp_path_factory) -> tuple[KeyFiles, KeyFiles]:
    folder = tmp_path_factory.mktemp("pki")
    authority = make_authority(folder)
    return authority, issue_server_certificate(authority, folder, hosts=["127.0.0.1", "localhost"])


@pytest.fixture
def key_path(tmp_path) -> Path:
    return tmp_path / "node.key"


@pytest.fixture
def fleet(pki, tmp_path, key_path) -> Iterator[Fleet]:
    authority, files = pki
    key = NodeKey.make()
    key_path.write_bytes(key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    server = FleetServer(tmp_path / "state", certificate=files.certificate, key=files.key)
    fleet = Fleet(server, authority, key, server.enrolment.add(key.public_pem).node_id)
    fleet.watch()
    with server:
        yield fleet
