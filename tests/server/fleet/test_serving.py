"""A fleet over TLS on this machine: welcomed devices, real agents, and a server that can be killed."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from palate.client.fleet.identity import NodeKey
from palate.client.fleet.transport.agent import FleetAgent
from palate.client.fleet.transport.pacing import Pace
from palate.errors import ConfigError, RunError
from palate.privacy.enrolment import EnrolmentRequest, Welcome
from palate.privacy.ledger.checkpoint import open_checkpoint
from palate.privacy.ledger.note import NoteKey
from palate.privacy.ledger.verify import verify_ledger
from palate.privacy.secagg.keys import DeviceIdentity
from palate.privacy.wire import FleetMessage, FleetStep
from palate.server.fleet.certificates import CertificateError, issue_server_certificate, make_authority
from palate.server.fleet.folder import FleetFolder, read_key, read_public_key
from palate.server.fleet.losses import FleetHalted
from palate.server.fleet.operation import FINISHED, HALTED
from palate.server.fleet.removal import Removal, remove
from palate.server.fleet.serving import opened
from palate.server.fleet.setup import make_fleet, tls_authority, tls_server, welcome
from palate.server.fleet.summary import rounds_of, status_of

ITEMS = "item,title,genres,year,text\n" + "".join(f"i{n},Title {n},Drama|War,19{n + 10},\n" for n in range(12))
FAST = Pace(busy_poll_seconds=0.02, idle_poll_seconds=0.1, first_retry_seconds=0.05, max_retry_seconds=0.2)


class Person:
    """A device with its agent in a thread."""

    def __init__(self, device_kind, folder: FleetFolder, home, seed: int) -> None:
        home.mkdir()
        self.node_key = NodeKey.make()
        identity_key = Ed25519PrivateKey.generate()
        node_public = load_pem_public_key(self.node_key.public_pem)
        asked = EnrolmentRequest(identity_key.public_key(), node_public)
        made = welcome(folder, EnrolmentRequest.open(asked.sign(identity_key)))
        self.welcome, self.catalogue = Welcome.unpack(made.archive)
        self.welcome.check_for(identity_key.public_key())
        (home / "authority.crt").write_text(self.welcome.ca_certificate)
        self.device = device_kind(
            DeviceIdentity(self.welcome.enrolment, identity_key),
            server_key=Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.welcome.server_key)),
            authority_key=Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.welcome.authority_key)),
            seed=seed,
        )
        self._authority = home / "authority.crt"

    def begin(self, port: int) -> None:
        self.agent = FleetAgent(
            f"localhost:{port}", self.node_key, self.device.answer, authority=self._authority, pace=FAST
        )
        self._thread = threading.Thread(target=self.agent.run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self.agent.stop()
        self._thread.join(10)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "items.csv").write_text(ITEMS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = FleetFolder(tmp_path / "fleet")
    given = {
        "name": "books",
        "run": "books-1",
        "listen": {"address": f"localhost:{port}", "bind": "127.0.0.1", "port": port},
        "cohort": {"devices": 4, "smallest": 3},
        "schedule": {"rounds": 1, "dim": 2},
        "deadlines": {"receipt_seconds": 5.0},
    }
    assert make_fleet(made, tmp_path / "items.csv", given) == (12, ())
    return made


@pytest.fixture
def people(folder, tmp_path, device_kind):
    found = [Person(device_kind, folder, tmp_path / f"home{seed}", seed) for seed in range(4)]
    port = found[0].welcome.port
    for person in found:
        person.begin(port)
    yield found
    for person in found:
        person.end()


def test_a_fleet_runs_over_tls_from_the_first_welcome_to_the_last_table(folder, people):
    with opened(folder) as fleet:
        assert fleet.claim.against == "semi-honest"
        assert fleet.operation.run() == FINISHED
        with pytest.raises(RunError, match="another palate server runs this fleet"), opened(folder):
            pass
    found = status_of(folder)
    assert (found["rounds_applied"], found["rounds_planned"], found["devices_enrolled"]) == (2, 2, 4)
    assert found["running"] is False
    assert 0 < found["epsilon_spent"] < found["epsilon_budget"]
    for each in rounds_of(folder):
        assert (each["status"], each["survivors"], each["failed"]) == ("done", 4, 0)
        assert each["bytes_up_per_device"] > 12 * 4
    assert all(person.device.table_hash == found["table"] for person in people)
    # every receipt is in the log, and the server signed its head
    signer = read_public_key(folder.ledger_key)
    head = open_checkpoint((folder.log / "checkpoint").read_bytes(), NoteKey("books", signer))
    assert head.size == 2
    # the record of what happened names no device
    record = folder.events.read_text()
    assert [json.loads(line)["event"] for line in record.splitlines()].count("round-ended") == 2
    assert not any(person.device.name in record for person in people)
    # a run that is over is over; settings of a run do not change
    text = folder.config.read_text()
    folder.config.write_text(text.replace("epsilon = 8.0", "epsilon = 9.0").replace("# epsilon", "epsilon"))
    with pytest.raises(ConfigError, match=r"changed since the run began: epsilon"), opened(folder):
        pass


def test_the_metrics_page_counts_rounds_and_names_nobody(folder, people):
    folder.config.write_text(folder.config.read_text().replace("# metrics_port = 0", f"metrics_port = {free_port()}"))
    with opened(folder) as fleet:
        assert fleet.operation.run() == FINISHED
        with urllib.request.urlopen(f"http://127.0.0.1:{fleet.metrics_port}/metrics") as page:
            text = page.read().decode()
    assert 'palate_rounds_total{status="done"} 2.0' in text
    assert 'palate_answers_total{step="mask"} 8.0' in text
    assert "palate_survivors 4.0" in text
    assert not any(person.device.name in text for person in people)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


START = "import sys; from palate.cli.server import server_app; server_app(sys.argv[1:])"


def test_a_server_that_is_killed_goes_on_with_the_same_devices(folder, people):
    held = threading.Event()
    people[0].device.before = lambda step: held.wait(30) if step is FleetStep.SHARE else None
    command = [sys.executable, "-c", START, "start", "--folder", str(folder.root)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        found = {}
        while (found.get("step"), found.get("answers")) != ("share", 3) and time.monotonic() < deadline:
            time.sleep(0.05)
            found = status_of(folder)["open_round"] or {}
        process.send_signal(signal.SIGKILL)
    held.set()
    assert (found["step"], found["answers"]) == ("share", 3)
    with opened(folder) as fleet:
        assert fleet.operation.run() == FINISHED
    assert [(each["status"], each["survivors"]) for each in rounds_of(folder)] == [("done", 4)] * 2
    events = verify_ledger(folder.ledger, "server", read_key(folder.server_key).public_key()).events
    assert [event.round for event in events if event.kind == "INTENT"] == [0, 1]
    assert all(set(person.device.charged) == {0, 1} for person in people)


def test_a_certificate_of_another_authority_is_refused_before_anybody_connects(folder, tmp_path):
    other = make_authority(tmp_path / "other")
    tls = tls_server(folder)
    for path in (tls.certificate, tls.key):
        path.unlink()
    issue_server_certificate(other, tls.folder, hosts=["localhost"])
    with pytest.raises(CertificateError, match="was not issued by"), opened(folder):
        pass


def test_a_device_that_is_removed_while_the_server_runs_is_out_of_this_round_and_all_later_ones(
    folder, people, monkeypatch
):
    leaving = people[0]
    failures = []
    real = leaving.device.answer

    def answering(message):
        step = FleetMessage.from_scalars(dict(message.content.config_records["fleet"])).step
        if step is FleetStep.MASK and not failures:
            failures.append(remove(folder, [leaving.device.name]))
        return real(message)

    leaving.agent._handle = answering
    monkeypatch.setattr(threading, "excepthook", lambda hook: None)  # its agent ends with an error, as it should
    began = time.monotonic()
    with opened(folder) as fleet:
        assert fleet.operation.run() == FINISHED
    assert time.monotonic() - began < 40, "nobody waited for it"
    assert failures == [Removal((leaving.device.name,), (), 3, 0)]
    assert [(each["survivors"], each["asked"]) for each in rounds_of(folder)] == [(3, 4), (3, 3)]
    found = status_of(folder)
    assert (found["devices_enrolled"], found["devices_removed"]) == (3, 1)
    assert set(leaving.device.charged) == {0}
    assert leaving.device.table_hash is None
    leaving._thread.join(10)
    assert not leaving._thread.is_alive()
    lines = [json.loads(line) for line in folder.events.read_text().splitlines()]
    assert [line["why"] for line in lines if line["event"] == "device-failed"] == ["removed from the fleet"]


def test_a_halted_fleet_does_not_listen_until_it_is_resumed(folder, people):
    folder.config.write_text(folder.config.read_text().replace("# spare_rounds = 1", "spare_rounds = 3"))
    for person in people[:2]:
        person.device.before = lambda step: 1 / 0 if step is FleetStep.MASK else None
    with opened(folder) as fleet:
        assert fleet.operation.run() == HALTED
    assert [each["status"] for each in rounds_of(folder)] == ["abandoned"] * 3
    with pytest.raises(FleetHalted, match="3 rounds in a row lost"), opened(folder):
        pass
    for person in people[:2]:
        person.device.before = lambda step: None
    # what stops a run is a setting that may change while it is under way
    folder.config.write_text(folder.config.read_text().replace("# halt_after = ...", "halt_after = 1"))
    with opened(folder, resuming=True) as fleet:
        assert fleet.operation.run() == FINISHED
    assert [each["status"] for each in rounds_of(folder)] == ["abandoned"] * 3 + ["done"] * 2
    lines = [json.loads(line) for line in folder.events.read_text().splitlines()]
    assert [line["rounds"] for line in lines if line["event"] == "run-halted"] == [[0, 1, 2]]
    assert [line["rounds"] for line in lines if line["event"] == "run-resumed"] == [[0, 1, 2]]
    with opened(folder):  # not halted any more
        pass


def test_a_certificate_for_another_host_is_refused_before_anybody_connects(folder):
    tls = tls_server(folder)
    for path in (tls.certificate, tls.key):
        path.unlink()
    issue_server_certificate(tls_authority(folder), tls.folder, hosts=["other.example"])
    with pytest.raises(CertificateError, match=r"connect to 'localhost' would refuse .*'localhost'"), opened(folder):
        pass
