"""Whoever has no key cannot keep the fleet out by holding connections open."""

from __future__ import annotations

import socket
import time

import httpx
import pytest

from palate.server.fleet.transport.http import FleetLimits

DEADLINE_SECONDS = 0.4


def _dripping(stream, pieces):
    """Send byte by byte for as long as the other side listens, and say for how long that was."""
    began = time.monotonic()
    try:
        for _ in range(40):
            stream.sendall(pieces)
            time.sleep(0.05)
            stream.settimeout(0.01)
            try:
                if stream.recv(100) == b"":
                    break
            except TimeoutError:
                continue
    except OSError:
        pass
    return time.monotonic() - began


@pytest.mark.parametrize("first", [b"", b"POST /v1/fleet/pull-messages HTTP/1.1\r\nx: "], ids=["nothing", "half"])
def test_a_connection_without_a_whole_request_is_closed(open_fleet, pki, first):
    with (
        open_fleet(limits=FleetLimits(header_timeout_seconds=DEADLINE_SECONDS)) as fleet,
        socket.create_connection(("127.0.0.1", fleet.port), timeout=5) as raw,
        pki.trust.wrap_socket(raw, server_hostname="127.0.0.1") as stream,
    ):
        stream.sendall(first)
        took = _dripping(stream, b"a" if first else b"")
        assert DEADLINE_SECONDS / 2 < took < 4 * DEADLINE_SECONDS


def test_half_a_second_request_is_no_better(open_fleet, as_device, pki):
    with open_fleet(limits=FleetLimits(header_timeout_seconds=DEADLINE_SECONDS)) as fleet:
        whole = b"POST /nowhere HTTP/1.1\r\nhost: fleet\r\ncontent-length: 0\r\n\r\n"
        with (
            socket.create_connection(("127.0.0.1", fleet.port), timeout=5) as raw,
            pki.trust.wrap_socket(raw, server_hostname="127.0.0.1") as stream,
        ):
            stream.sendall(whole + b"POST /now")
            assert stream.recv(1000).startswith(b"HTTP/1.1 404")
            assert _dripping(stream, b"a") < 4 * DEADLINE_SECONDS


def test_a_device_that_is_slow_between_whole_requests_keeps_its_connection(open_fleet, as_device):
    with open_fleet(limits=FleetLimits(header_timeout_seconds=DEADLINE_SECONDS)) as fleet:
        device = as_device(fleet)
        used = set()
        for _ in range(3):
            with device.client.stream("POST", "/v1/fleet/pull-messages", headers=device.headers()) as response:
                response.read()
                used.add(response.extensions["network_stream"].get_extra_info("client_addr"))
            time.sleep(1.5 * DEADLINE_SECONDS)
        assert len(used) == 1


def test_strangers_who_hold_every_connection_are_outwaited(open_fleet, as_device, pki):
    with open_fleet(limits=FleetLimits(max_connections=3, header_timeout_seconds=DEADLINE_SECONDS)) as fleet:
        device = as_device(fleet)
        raw = [socket.create_connection(("127.0.0.1", fleet.port)) for _ in range(3)]
        held = [pki.trust.wrap_socket(it, server_hostname="127.0.0.1") for it in raw]
        with pytest.raises(httpx.TransportError):
            device.post("/v1/fleet/pull-messages")
        time.sleep(2 * DEADLINE_SECONDS)
        assert device.post("/v1/fleet/pull-messages").status_code == 401
        for it in held:
            it.close()
