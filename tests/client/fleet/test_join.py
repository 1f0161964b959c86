"""Two real processes of `palate client join`, a real fleet server over TLS, and everything between them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from palate.client.fleet import enrolling
from palate.client.fleet.folder import DeviceFolder
from palate.client.fleet.identity import DeviceKeys
from palate.client.fleet.member import Member
from palate.client.fleet.profile import REMOVED_AT
from palate.client.fleet.status import status_of
from palate.client.fleet.status_text import status_lines
from palate.client.fleet.tables import read_table
from palate.client.vault import Vault
from palate.client.vault.history import History, Interaction
from palate.privacy.ledger.verify import verify_ledger
from palate.privacy.wire import FleetMessage, FleetStep
from palate.server.fleet.certificates import issue_server_certificate, make_authority
from palate.server.fleet.transport.server import FleetServer

LIGHT = """
import numpy as np
from palate.client.fleet import worker_process

def answer(frame):
    size = frame.arrays["learned"].shape[0]
    return {"failed": ""}, {"vector": np.full(size, sum(map(len, frame.values["history"])), dtype=np.uint32)}

worker_process.answer = answer
worker_process.main()
"""
"""A worker that loads nothing large: what the real one computes has tests of its own."""

CLIENT = f"""
import sys
from palate.cli.client import client_app
from palate.client.fleet.worker import Worker
Worker.__init__.__kwdefaults__["command"] = (sys.executable, "-c", {LIGHT!r})
client_app()
"""
COMMAND = [sys.executable, "-c", CLIENT, "join"]
IDLE_BYTES = 250 << 20

FOREIGN = ("torch", "opacus", "polars", "ray", "dp_accounting", "pandas")

IDLE_PROGRAM = f"""
import sys
from pathlib import Path
from palate.cli import client
from palate.client.fleet.folder import DeviceFolder
from palate.client.fleet.member import Member
from palate.client.fleet.relay import relay_to
from palate.client.fleet.status_text import RoundLines
from palate.client.fleet.transport.agent import FleetAgent
from palate.client.fleet.identity import NodeKey
with Member.opened(DeviceFolder(Path(sys.argv[1]))) as member:
    rounds = member.rounds(member.worker(timeout_seconds=1, idle_seconds=1), RoundLines(print))
    relay_to(rounds)
    import psutil
    print(psutil.Process().memory_info().rss, [name for name in {FOREIGN} if name in sys.modules])
"""


def test_an_idle_agent_is_small_and_has_loaded_nothing_that_computes(lone):
    device = lone.devices[0]
    device.kill()
    done = subprocess.run(
        [sys.executable, "-c", IDLE_PROGRAM, str(device.folder.home)], capture_output=True, text=True, check=True
    )
    size, _, loaded = done.stdout.strip().partition(" ")
    assert loaded == "[]"
    assert int(size) < IDLE_BYTES


class Deployment:
    """A server on loopback with enrolled devices, and their processes."""

    def __init__(self, path: Path, fleet, server: FleetServer, authority: str) -> None:
        self.fleet, self.server = fleet, server
        self.folders: dict[int, DeviceFolder] = {}
        self.processes: dict[int, subprocess.Popen[str]] = {}
        fleet.ca = authority
        for index in range(2):
            folder = DeviceFolder(path / f"person-{index}")
            enrolling.begin(folder)
            with Vault.open(folder.vault) as vault:
                keys = DeviceKeys.load(vault)
                History(vault).add_many([Interaction(item=f"i{8 * index + step}") for step in range(4)])
            welcome = fleet.welcome(keys.signing.public_key(), address=server.address)
            enrolling.accept(folder, welcome, fleet.catalogue, fleet.limits)
            node = server.enrolment.add(keys.request.node_key_pem).node_id
            self.folders[node] = folder

    def start(self, node: int) -> None:
        environment = os.environ | {"PALATE_KEYRING": "file", "OMP_NUM_THREADS": "1"}
        self.processes[node] = subprocess.Popen(
            [*COMMAND, "--folder", str(self.folders[node].home), "--json", "--idle-seconds", "300"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def ask(self, step: FleetStep, plan, bodies: dict[int, bytes], content=None) -> dict[int, Message]:
        """Send everyone a step and wait for all answers, by node."""
        messages = [
            Message(
                content=RecordDict(
                    {"fleet": ConfigRecord(dict(self.fleet.message(step, plan, body).to_scalars())), **(content or {})}
                ),
                dst_node_id=node,
                message_type="query",
            )
            for node, body in bodies.items()
        ]
        replies = self.server.grid.send_and_receive(messages, timeout=90)
        return {reply.metadata.src_node_id: reply for reply in replies}

    def run_round(self, plan):
        server = self.fleet.server(plan)
        numbers = {node: self._number(folder) for node, folder in self.folders.items()}
        bodies = dict.fromkeys(self.folders, server.offer_bytes)
        for step in list(FleetStep)[:5]:
            arrays, scalars = plan.to_parts()
            first = {}
            if step is FleetStep.ADVERTISE:
                first = {"plan": ConfigRecord(dict(scalars)), "table": _record(arrays)}
            stage = server.stage
            for node, reply in self.ask(step, plan, bodies, first).items():
                answer = FleetMessage.from_scalars(dict(reply.content["fleet"]))
                server.receive(stage, numbers[node], answer.body)
            outgoing = server.close(stage)
            bodies = {node: outgoing[number] for node, number in numbers.items() if number in outgoing}
        return server

    def _number(self, folder: DeviceFolder) -> int:
        with Vault.open(folder.vault) as vault:
            return DeviceKeys.load(vault).number


def _record(arrays) -> ArrayRecord:
    return ArrayRecord({name: Array(value) for name, value in arrays.items()})


@pytest.fixture
def deployment(tmp_path, lone):
    authority = make_authority(tmp_path / "pki")
    files = issue_server_certificate(authority, tmp_path / "pki", hosts=["127.0.0.1"])
    with FleetServer(tmp_path / "state", certificate=files.certificate, key=files.key) as server:
        built = Deployment(tmp_path, lone, server, authority.certificate.read_text("ascii"))
        yield built
        for process in built.processes.values():
            process.kill()
            process.communicate()


def test_two_devices_run_rounds_over_tls_and_end_when_the_run_is_over(deployment):
    fleet = deployment.fleet
    for node in deployment.folders:
        deployment.start(node)
    deployment.server.wait_for_nodes(2, timeout_seconds=60)
    sizes = [psutil.Process(process.pid).memory_info().rss for process in deployment.processes.values()]
    assert max(sizes) < IDLE_BYTES
    first = fleet.plan(0)
    server = deployment.run_round(first)
    counts = [sum(len(f"i{index + step}") for step in range(4)) for index in (0, 8)]
    assert server.result().vector.tolist() == [sum(counts)] * 12  # exactly the sum of what both have put in
    table = fleet.final_table()
    receipt = server.receipt(model_hash=table.content_hash, log_index=0)
    replies = deployment.ask(
        FleetStep.RECEIPT,
        first,
        dict.fromkeys(deployment.folders, receipt),
        {"table": _record({"fixed": table.fixed, "learned": table.learned})},
    )
    assert not any(reply.has_error() for reply in replies.values())
    for node, process in deployment.processes.items():
        output, talk = process.communicate(timeout=9)  # less than it would wait for an answer that is stuck
        assert process.returncode == 0, talk
        (line,) = output.splitlines()
        assert json.loads(line)["ended"] == "released"
        folder = deployment.folders[node]
        assert read_table(folder.table).content_hash == table.content_hash
        with Member.opened(folder) as member:
            verify_ledger(folder.ledger, "device", member.keys.ledger.public_key(), allow_open=False)
        found = status_of(folder)
        assert [each.ended for each in found.rounds] == ["released"]
        assert b"i3" not in folder.log.read_bytes()


def test_a_device_that_is_stopped_ends_at_once_and_its_worker_with_it(deployment):
    node = next(iter(deployment.folders))
    deployment.start(node)
    deployment.server.wait_for_nodes(1, timeout_seconds=60)
    process = deployment.processes[node]
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, talk = process.communicate(timeout=20)
    assert time.monotonic() - began < 5
    assert process.returncode == 0, talk
    assert "rounds go on when you join again" in talk


def test_a_device_that_the_fleet_removes_ends_and_says_so_until_it_is_taken_again(deployment):
    node, folder = next(iter(deployment.folders.items()))
    deployment.start(node)
    deployment.server.wait_for_nodes(1, timeout_seconds=60)
    with Member.opened(folder) as member:
        spent, key = member.guard.spending(), member.keys.request.node_key_pem
    deployment.server.enrolment.remove(node)
    _, talk = deployment.processes[node].communicate(timeout=60)
    assert deployment.processes[node].returncode != 0
    assert "the fleet's operator has removed it" in " ".join(talk.split())  # wrapped to the terminal's width
    found = status_of(folder)
    assert abs(found.removed_at - time.time()) < 60
    assert found.to_json()["removed_at"] == found.removed_at
    (line,) = [line for line in status_lines(found) if line.startswith("removed")]
    assert "palate client leave" in line
    with Member.opened(folder) as member:  # what it has stays
        assert member.guard.spending() == spent
        assert len(member.taste()) == 4
    back = deployment.server.enrolment.add(key).node_id
    deployment.folders[back] = folder
    deployment.start(back)
    deadline = time.monotonic() + 60
    while status_of(folder).removed_at is not None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert status_of(folder).removed_at is None


def test_a_device_that_leaves_or_takes_a_welcome_in_forgets_that_it_was_removed(lone):
    device = lone.devices[0]
    vault = device.member.vault
    REMOVED_AT.write(vault, 1_700_000_000)
    welcome = device.member.profile.welcome
    device.kill()
    assert status_of(device.folder).removed_at is not None
    enrolling.accept(device.folder, welcome, lone.catalogue, lone.limits)
    assert status_of(device.folder).removed_at is None
    with Vault.open(device.folder.vault) as vault:
        REMOVED_AT.write(vault, 1_700_000_000)
    enrolling.leave(device.folder)
    assert status_of(device.folder).removed_at is None
