"""The agent as a process: light, without the libraries of training, and gone within seconds of a signal."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

AGENT = """
import json, sys, time
from pathlib import Path
from flwr.app import ConfigRecord, Message, RecordDict
from palate.client.fleet.transport.agent import FleetAgent
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from palate.client.fleet.identity import NodeKey

def handle(message):
    if message.content["in"]["x"] == 0:
        time.sleep(60)
    rss = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS"))
    unwanted = ("torch", "opacus", "ray", "polars", "scipy", "pandas", "fastapi")
    loaded = [name for name in unwanted if name in sys.modules]
    out = {"rss_mib": int(rss) // 1024, "loaded": ",".join(loaded)}
    return Message(RecordDict({"out": ConfigRecord(out)}), reply_to=message)

address, key, authority = sys.argv[1:]
key = NodeKey(load_pem_private_key(Path(key).read_bytes(), None))
print(FleetAgent(address, key, handle, authority=Path(authority)).run(), flush=True)
"""


@pytest.fixture
def process(fleet, key_path):
    arguments = [fleet.server.address, str(key_path), str(fleet.authority.certificate)]
    child = subprocess.Popen([sys.executable, "-c", AGENT, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert fleet.server.wait_for_nodes(1, timeout_seconds=30) == [fleet.node_id]
        yield child
    finally:
        child.kill()
        child.stdout.close()
        child.wait()


def asked(value: int):
    from flwr.app import ConfigRecord, RecordDict

    return RecordDict({"in": ConfigRecord({"x": value})})


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_agent_is_light_and_loads_no_library_of_training(fleet, process):
    out = fleet.ask(asked(1)).content["out"]
    assert out["loaded"] == ""
    assert out["rss_mib"] <= 250, json.dumps(dict(out))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("busy", [False, True])
def test_a_signal_ends_it_within_two_seconds_and_the_server_knows(fleet, process, number, busy):
    assert fleet.ask(asked(1)).has_content()
    if busy:
        from flwr.app import Message

        fleet.server.grid.push_messages([Message(asked(0), dst_node_id=fleet.node_id, message_type="train")])
        while not any(
            handling is not None and handling.deliveries
            for posted in fleet.server._mailbox._posted.values()
            for handling in posted.waiting.values()
        ):
            time.sleep(0.01)
    began = time.monotonic()
    process.send_signal(number)
    assert process.wait(5) == 0
    assert time.monotonic() - began < 2.0
    assert process.stdout.read().strip() in ("0", "1"), "it ended by itself, and knows what it did"
    assert fleet.server.wait_for_nodes(0, timeout_seconds=0) == []
