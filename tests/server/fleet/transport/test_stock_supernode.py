"""A stock SuperNode can join where the operator enrols its key: for those who run their own, with its weaker trust."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sysconfig
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from flwr.app import ConfigRecord, Message, RecordDict

from palate.client.fleet.identity import NodeKey

CLIENT_APP = """
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

@app.train()
def train(message, context):
    out = {"x": message.content["in"]["x"] + 1, "session": context.run_config["session"], "file": __file__}
    return Message(RecordDict({"out": ConfigRecord(out)}), reply_to=message)
"""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as it:
        return it.getsockname()[1]


@pytest.mark.slow
def test_a_stock_supernode_answers_a_fleet_server(open_fleet, pki, tmp_path):
    key = NodeKey.make()
    (tmp_path / "node").write_bytes(key.private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    installed = tmp_path / "installed"
    installed.mkdir()
    (installed / "stock_client_app.py").write_text(CLIENT_APP)
    environment = os.environ | {
        "FLWR_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(installed),
        "PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    }
    with (
        open_fleet(client_app="stock_client_app:app", run_config={"session": "device"}) as fleet,
        (tmp_path / "log").open("wb") as log,
    ):
        node_id = fleet.register_node(key.public_pem)
        command = [
            *(str(Path(sysconfig.get_path("scripts")) / "flower-supernode"), "--superlink", fleet.address),
            *("--root-certificates", str(pki.authority.certificate)),
            *("--auth-supernode-private-key", str(tmp_path / "node")),
            *("--host", "127.0.0.1", "--port", str(_free_port())),
        ]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            assert fleet.wait_for_nodes(1, timeout_seconds=30) == [node_id], (tmp_path / "log").read_text()
            content = RecordDict({"in": ConfigRecord({"x": 41})})
            sent = Message(content, dst_node_id=node_id, message_type="train")
            replies = list(fleet.grid.send_and_receive([sent], timeout=60))
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        assert replies, (tmp_path / "log").read_text()
        assert replies[0].has_content(), replies[0].error
        out = replies[0].content["out"]
        assert (out["x"], out["session"]) == (42, "device")
        assert Path(out["file"]).parent == installed, "what ran is what is installed there, not what was sent"
