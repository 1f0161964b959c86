"""A flood of connections and of bodies: whoever comes from elsewhere, or with another key, is served all the same."""

from __future__ import annotations

import asyncio
import resource
import select
import socket
import time

import pytest

from palate.server.fleet.transport import accepting
from palate.server.fleet.transport.accepting import room_for_connections
from palate.server.fleet.transport.http import BodyRoom, FleetLimits

STRANGER = ("127.0.0.9", 0)


@pytest.fixture(autouse=True)
def _no_address_is_our_own(monkeypatch):
    monkeypatch.setattr(accepting, "_is_this_machine", lambda host: False)


def flood(fleet, count):
    """Open connections from another address, and return those that the server kept."""
    opened = [socket.create_connection(("127.0.0.1", fleet.port), source_address=STRANGER) for _ in range(count)]
    time.sleep(0.3)
    closed, _, _ = select.select(opened, [], [], 0)
    for each in closed:
        each.close()
    return [each for each in opened if each not in closed]


def test_a_flood_from_one_address_leaves_room_for_others(open_fleet, as_device):
    with open_fleet(limits=FleetLimits(max_connections=40, max_connections_of_address=30)) as fleet:
        device = as_device(fleet)
        kept = flood(fleet, 200)
        assert len(kept) == 30
        began = time.monotonic()
        assert device.post("/v1/fleet/pull-messages").status_code == 401
        assert time.monotonic() - began < 5
        for each in kept[:10]:
            each.close()
        time.sleep(0.2)
        assert len(flood(fleet, 50)) == 10, "what is closed makes room"


def test_a_stranger_who_does_not_speak_tls_is_closed_after_seconds(open_fleet, monkeypatch):
    monkeypatch.setattr(accepting, "_HANDSHAKE_SECONDS", 0.5)
    with open_fleet() as fleet, socket.create_connection(("127.0.0.1", fleet.port)) as raw:
        raw.settimeout(5)
        began = time.monotonic()
        assert raw.recv(100) == b""
        assert 0.3 < time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "room", "raised"),
    [
        (1024, 4096, 2000, 2000, 4096),
        (1024, 1024, 2000, 768, None),
        (1024, resource.RLIM_INFINITY, 2000, 2000, 65_536),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 2000, 2000, None),
        (100, 100, 2000, 16, None),
    ],
)
def test_open_files_are_raised_and_some_are_kept_for_the_server(monkeypatch, soft, hard, wanted, room, raised):
    asked = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: asked.append(limits[0]))
    assert room_for_connections(wanted) == room
    assert asked == ([] if raised is None else [raised])


def test_a_system_that_does_not_allow_more_files_is_no_error(monkeypatch):
    def refuse(which, limits):
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert room_for_connections(2000) == 768


def test_bodies_wait_for_room_and_one_caller_never_has_all_of_it():
    async def scene():
        room, log = BodyRoom(most=10, most_of_caller=6), []
        leave = {name: asyncio.Event() for name in "abcdef"}

        async def body(name, caller, size):
            async with room.taken(caller, size):
                log.append(name)
                await leave[name].wait()

        tasks = [asyncio.create_task(body(*each)) for each in (("a", 1, 4), ("b", 1, 3), ("c", 2, 5), ("d", 3, 2))]
        await asyncio.sleep(0.01)
        assert log == ["a", "c"], "b would be caller 1's seventh byte, d the eleventh of all"
        leave["c"].set()
        await asyncio.sleep(0.01)
        assert log == ["a", "c", "d"]
        leave["a"].set()
        await asyncio.sleep(0.01)
        assert log == ["a", "c", "d", "b"]
        tasks.append(asyncio.create_task(body("e", 4, 99)))
        await asyncio.sleep(0.01)
        for name in "bde":
            leave[name].set()
        await asyncio.gather(*tasks)
        assert log[-1] == "e", "a body that is larger than the room has it alone"

    asyncio.run(asyncio.wait_for(scene(), 5))


def test_many_slow_bodies_of_one_key_wait_and_others_are_served(open_fleet, as_device, pki):
    limits = FleetLimits(max_body_bytes=100_000, max_bodies_of_caller_bytes=300_000, body_timeout_seconds=2.0)
    with open_fleet(limits=limits) as fleet:
        slow, other = as_device(fleet), as_device(fleet)
        streams = []
        for _ in range(12):
            lines = ["POST /v1/fleet/push-object HTTP/1.1", "host: fleet", "content-length: 100000"]
            lines += [f"{name}: {text}" for name, text in slow.headers().items()]
            raw = socket.create_connection(("127.0.0.1", fleet.port), timeout=10)
            streams.append(pki.trust.wrap_socket(raw, server_hostname="127.0.0.1"))
            streams[-1].sendall(("\r\n".join(lines) + "\r\n\r\n").encode() + b"x")
        time.sleep(0.3)
        assert other.post("/v1/fleet/pull-messages").status_code == 401
        assert fleet._app._room._used.total() == 300_000
        assert {stream.recv(100)[:12] for stream in streams} == {b"HTTP/1.1 408", b"HTTP/1.1 503"}
        for stream in streams:
            stream.close()
