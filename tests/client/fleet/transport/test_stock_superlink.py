"""On a stock SuperLink the agent answers with its own program, and a malicious bundle stays on the server.

The SuperLink is Flower's own, with TLS and node authentication; the run is started as its open Control API lets
anybody do who has the authority's certificate. On a stock SuperNode the bundle's code would run.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sysconfig
import threading
import time
from pathlib import Path

import httpx
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.cli.build import build_fab_from_files
from flwr.common.serde import fab_to_proto
from flwr.proto.control_pb2 import RegisterNodeRequest, StartRunRequest, StartRunResponse
from flwr.supercore.fab import Fab

from palate.client.fleet.identity import NodeKey
from palate.client.fleet.transport.agent import FleetAgent
from palate.client.fleet.transport.pacing import Pace

MANIFEST = b"""[project]
name = "innocent"
version = "1.0.0"
[tool.flwr.app]
publisher = "mallory"
[tool.flwr.app.components]
serverapp = "innocent.server:app"
clientapp = "innocent.client:app"
[tool.flwr.app.config]
"""
STOLEN = """
from pathlib import Path

Path({marker!r}).write_text("the bundle's code ran on the device")
from flwr.clientapp import ClientApp

app = ClientApp()
"""
SERVER_APP = """
import json
import time
from pathlib import Path
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()

@app.main()
def main(grid, context):
    while not (nodes := list(grid.get_node_ids())):
        time.sleep(0.1)
    seen = []
    for number in range(3):
        content = RecordDict({{"in": ConfigRecord({{"x": number}})}})
        replies = grid.send_and_receive(
            [Message(content, dst_node_id=node, message_type="train") for node in nodes], timeout=30
        )
        seen += [it.content["out"]["x"] if it.has_content() else it.error.reason for it in replies]
    Path({result!r}).write_text(json.dumps(seen))
"""
MEDIA = {"content-type": "application/protobuf", "accept": "application/protobuf"}


def double(message: Message) -> Message:
    value = message.content["in"]["x"]
    if value == 2:
        raise LookupError("watched: The Room")
    return Message(RecordDict({"out": ConfigRecord({"x": 2 * value})}), reply_to=message)


def _post(client: httpx.Client, path: str, body: bytes) -> bytes:
    response = client.post(path, content=body, headers=MEDIA)
    assert response.status_code == 200, response.text
    return response.content


@pytest.mark.slow
def test_the_agent_answers_a_stock_superlink_and_runs_no_bundle(pki, tmp_path):
    authority, files = pki
    key, marker, result = NodeKey.make(), tmp_path / "stolen", tmp_path / "result.json"
    content, _ = build_fab_from_files(
        {
            "pyproject.toml": MANIFEST,
            "innocent/__init__.py": b"",
            "innocent/client.py": STOLEN.format(marker=str(marker)).encode(),
            "innocent/server.py": SERVER_APP.format(result=str(result)).encode(),
        }
    )
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    scripts = sysconfig.get_path("scripts")
    environment = os.environ | {
        "FLWR_HOME": str(tmp_path / "home"),
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
    }
    command = [
        *(str(Path(scripts) / "flower-superlink"), "--host", "127.0.0.1", "--port", str(port)),
        *("--ssl-ca-certfile", str(authority.certificate), "--ssl-certfile", str(files.certificate)),
        *("--ssl-keyfile", str(files.key), "--enable-supernode-auth", "--disable-runtime-dependency-installation"),
    ]
    agent = FleetAgent(
        f"127.0.0.1:{port}",
        key,
        double,
        authority=authority.certificate,
        pace=Pace(busy_poll_seconds=0.1, give_up_after_seconds=30),
    )
    trust = ssl.create_default_context(cafile=str(authority.certificate))
    with (
        (tmp_path / "log").open("wb") as log,
        httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trust, timeout=30) as outsider,
    ):
        superlink = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        thread = threading.Thread(target=agent.run, daemon=True)
        try:
            _wait(lambda: _answers(outsider), tmp_path / "log")
            _post(
                outsider,
                "/v1/control/register-node",
                RegisterNodeRequest(public_key=key.public_pem).SerializeToString(),
            )
            thread.start()
            fab = fab_to_proto(Fab(hashlib.sha256(content).hexdigest(), content, {}))
            started = _post(outsider, "/v1/control/start-run", StartRunRequest(fab=fab).SerializeToString())
            assert StartRunResponse.FromString(started).run_id
            _wait(result.exists, tmp_path / "log")
            _wait(lambda: result.read_text() != "", tmp_path / "log")
        finally:
            agent.stop()
            os.killpg(superlink.pid, signal.SIGTERM)
            if thread.is_alive():
                thread.join(5)
            try:
                superlink.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(superlink.pid, signal.SIGKILL)
                superlink.wait()
    assert json.loads(result.read_text()) == [0, 2, "LookupError"]
    assert not marker.exists()
    assert "The Room" not in (tmp_path / "log").read_text()


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code < 500
    except httpx.TransportError:
        return False


def _wait(condition, log: Path) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
