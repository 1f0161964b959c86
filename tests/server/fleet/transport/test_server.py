"""The server's life: it starts and stops within a second, refuses what is unsafe, and comes back after kill -9."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time

import pytest
from flwr.app import Message, RecordDict

from palate.client.fleet.identity import NodeKey
from palate.errors import ConfigError, EnvironmentProblem
from palate.server.fleet.certificates import (
    issue_server_certificate,
    last_moment,
    make_authority,
    renew_server_certificate,
)
from palate.server.fleet.transport import listening
from palate.server.fleet.transport.enrolment import Enrolment
from palate.server.fleet.transport.server import ENROLMENT_FILE, FleetServer


def echo(message: Message) -> Message:
    return Message(message.content, reply_to=message)


def ask(fleet: FleetServer, node_id: int, timeout: float = 10.0) -> list[Message]:
    message = Message(RecordDict(), dst_node_id=node_id, message_type="query")
    return list(fleet.grid.send_and_receive([message], timeout=timeout))


def test_it_starts_and_stops_within_a_second_and_reports_its_port(open_fleet):
    fleet = open_fleet()
    began = time.monotonic()
    with fleet:
        started = time.monotonic()
        assert fleet.port > 0
        assert fleet.address == f"127.0.0.1:{fleet.port}"
        stopping = time.monotonic()
    assert started - began < 1.0
    assert time.monotonic() - stopping < 1.0
    assert not [it for it in threading.enumerate() if it.name == "fleet-server"]


def test_it_stops_within_two_seconds_though_devices_are_connected(open_fleet, run_agent, tmp_path):
    key = NodeKey.make()
    fleet = open_fleet()
    with fleet:
        fleet.enrolment.add(key.public_pem)
        with run_agent(fleet, key, echo):
            assert fleet.wait_for_nodes(1, timeout_seconds=10)
            began = time.monotonic()
            fleet.stop()
            assert time.monotonic() - began < 2.0


def test_a_taken_port_is_named(fleet, open_fleet):
    other = open_fleet(port=fleet.port)
    with pytest.raises(EnvironmentProblem, match=f"cannot listen on 127.0.0.1:{fleet.port}: Address already in use"):
        other.start()
    other.stop()


def test_a_host_that_is_not_here_is_named(open_fleet):
    with pytest.raises(EnvironmentProblem, match=r"cannot listen on 192\.0\.2\.1"):
        open_fleet(host="192.0.2.1").start()


def test_without_a_running_server_there_is_no_grid(open_fleet):
    with pytest.raises(ConfigError, match="does not run"):
        _ = open_fleet().grid


def test_a_node_is_there_from_its_first_call_to_its_goodbye(fleet, run_agent):
    phone, laptop = NodeKey.make(), NodeKey.make()
    ids = [
        fleet.enrolment.add(key.public_pem, label=name).node_id for name, key in (("phone", phone), ("laptop", laptop))
    ]
    with run_agent(fleet, laptop, echo):
        assert fleet.wait_for_nodes(1, timeout_seconds=10) == [ids[1]]
    assert fleet.wait_for_nodes(0, timeout_seconds=0) == [], "it said goodbye"


def test_a_device_that_is_struck_off_is_out_at_once(fleet, insider, tmp_path):
    device, node_id = insider
    assert device.post("/v1/fleet/send-node-heartbeat").status_code == 401, "no body, but known"
    before = device.post("/v1/fleet/pull-messages", b"\xff\xff")
    enrolment = Enrolment(
        tmp_path / "state" / ENROLMENT_FILE
    )  # as `palate server remove` does, in a process of its own
    enrolment.remove(node_id)
    after = device.post("/v1/fleet/pull-messages", b"\xff\xff")
    assert (before.status_code, after.status_code) == (400, 410)
    with pytest.raises(ConfigError, match="no node"):
        enrolment.remove(node_id)


SERVE = """
import sys, time
from pathlib import Path
from palate.server.fleet.transport.server import FleetServer
state, certificate, key, port = map(Path, sys.argv[1:])
with FleetServer(state, certificate=certificate, key=key, port=int(str(port))) as fleet:
    print(fleet.port, flush=True)
    while True:
        time.sleep(1)
"""


def test_after_kill_9_the_same_agent_finds_the_server_again(open_fleet, pki, run_agent, tmp_path):
    key = NodeKey.make()
    first = open_fleet()
    node_id = first.enrolment.add(key.public_pem).node_id
    first.stop()
    arguments = [tmp_path / "state", pki.server.certificate, pki.server.key, 0]
    process = subprocess.Popen([sys.executable, "-c", SERVE, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    try:
        port = int(process.stdout.readline())
        killed = FleetServer(
            tmp_path / "elsewhere", certificate=pki.server.certificate, key=pki.server.key, port=port
        )  # only for its address
        with run_agent(killed, key, echo) as agent:
            deadline = time.monotonic() + 15
            while agent.node_id is None and time.monotonic() < deadline:
                time.sleep(0.02)
            assert agent.node_id == node_id
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            with open_fleet(port=port) as again:
                assert again.wait_for_nodes(1, timeout_seconds=10) == [node_id]
                (reply,) = ask(again, node_id)
                assert reply.has_content()
        killed.stop()
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def test_a_renewed_certificate_is_used_without_a_restart_and_a_spoilt_one_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(listening, "_RENEWED_WITHIN_SECONDS", 0.05)
    authority = make_authority(tmp_path)
    files = issue_server_certificate(authority, tmp_path, hosts=["127.0.0.1"], days=3)
    pinning = ssl.create_default_context(cafile=str(authority.certificate))

    def shown(server):
        with (
            socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw,
            pinning.wrap_socket(raw, server_hostname="127.0.0.1") as stream,
        ):
            return ssl.cert_time_to_seconds(stream.getpeercert()["notAfter"])

    with FleetServer(tmp_path / "state", certificate=files.certificate, key=files.key) as server:
        assert shown(server) == int(last_moment(files.certificate).timestamp())
        last = renew_server_certificate(authority, files, hosts=["127.0.0.1"], days=99)
        deadline = time.monotonic() + 10
        while shown(server) != int(last.timestamp()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert shown(server) == int(last.timestamp())
        files.certificate.write_text("spoilt")
        time.sleep(0.3)
        assert shown(server) == int(last.timestamp())
