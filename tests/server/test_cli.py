"""`palate server` on the command line: what it writes, what it says, and how it refuses."""

from __future__ import annotations

import json
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from palate.cli.authority import authority_app
from palate.cli.server import server_app
from palate.errors import ConfigError, DataError, RunError
from palate.privacy.enrolment import EnrolmentFileRefused, EnrolmentRequest, Welcome
from palate.server.fleet.config import load_config
from palate.server.fleet.folder import FleetFolder
from palate.server.fleet.losses import FleetHalted
from palate.server.fleet.state import FleetState, Round, RoundStatus, Stop
from palate.server.fleet.transport.enrolment import Enrolment

ITEMS = "item,title,genres,year\na,Alpha,Drama,1999\nb,Beta,Comedy,2001\n"


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "items.csv").write_text(ITEMS)

    def run(*arguments, fails=None):
        app, arguments = (authority_app, arguments[1:]) if arguments[0] == "authority" else (server_app, arguments)
        result = CliRunner().invoke(app, [str(each) for each in arguments])
        if fails is None:
            assert result.exception is None, result.exception
        else:
            assert isinstance(result.exception, fails), (result.exception, result.output)
            assert result.exception.hint
            return str(result.exception)
        return result

    return run


@pytest.fixture
def init(call):
    def make(*more, fails=None):
        arguments = ["init", "--name", "books", "--address", "localhost:9191", "--catalogue", "items.csv", *more]
        return call(*arguments, fails=fails)

    return make


def request_file(tmp_path, name="request.json"):
    key = Ed25519PrivateKey.generate()
    request = EnrolmentRequest(key.public_key(), ec.generate_private_key(ec.SECP384R1()).public_key())
    (tmp_path / name).write_bytes(request.sign(key))
    return key, request


def test_a_new_fleet_keeps_its_secrets_to_itself_and_is_never_overwritten(init, tmp_path):
    init("--devices", "12")
    folder = FleetFolder(tmp_path / "fleet")
    assert stat.S_IMODE(folder.keys.stat().st_mode) == 0o700
    secrets = [folder.server_key, folder.authority_key, *(folder.keys / "tls").glob("*.key")]
    assert len(secrets) == 4
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}
    before = folder.server_key.read_bytes()
    assert "holds a fleet already" in init(fails=ConfigError)
    assert folder.server_key.read_bytes() == before


@pytest.mark.parametrize(
    ("more", "kind", "words"),
    [
        (["--address", "localhost"], ConfigError, "not host:port"),
        (["--catalogue", "no.csv"], DataError, "no such file"),
        (["--devices", "500"], ConfigError, "at most 300 share their masks"),
        (["--epsilon", "0"], ConfigError, "epsilon"),
        (["--name", "a fleet"], ConfigError, "not a name"),
        (["--smallest", "30"], ConfigError, "not in order"),
    ],
)
def test_a_fleet_that_cannot_be_is_refused_and_leaves_nothing_that_looks_like_one(init, tmp_path, more, kind, words):
    assert words in init(*more, fails=kind)
    assert not (tmp_path / "fleet" / "fleet.toml").exists()


def test_a_welcome_is_for_the_device_that_asked_and_can_be_written_again(init, call, tmp_path):
    init()
    key, request = request_file(tmp_path)
    first = json.loads(call("enrol", "request.json", "--welcome", "w.zip", "--json").stdout)
    welcome, catalogue = Welcome.unpack((tmp_path / "w.zip").read_bytes())
    welcome.check_for(key.public_key())
    assert catalogue == (tmp_path / "fleet" / "catalogue.parquet").read_bytes()
    assert (welcome.fleet, welcome.num_items, welcome.authority_is_separate) == ("books", 2, False)
    assert first == {
        "device": f"{request.device:016x}",
        "request_fingerprint": request.fingerprint,
        "welcome_fingerprint": welcome.fingerprint,
        "again": False,
    }
    again = json.loads(call("enrol", "request.json", "--welcome", "w2.zip", "--json").stdout)
    assert again == {**first, "again": True}
    assert (tmp_path / "w.zip").read_bytes() == (tmp_path / "w2.zip").read_bytes()
    assert json.loads(call("status", "--json").stdout)["devices_enrolled"] == 1


def test_a_request_that_was_edited_is_refused(init, call, tmp_path):
    init()
    request_file(tmp_path)
    path = tmp_path / "request.json"
    path.write_text(path.read_text().replace('"signature":"', '"signature":"00')[:-4] + '"}')
    call("enrol", "request.json", "--welcome", "w.zip", fails=EnrolmentFileRefused)
    assert "cannot be read" in call("enrol", "no.json", "--welcome", "w.zip", fails=ConfigError)
    assert json.loads(call("status", "--json").stdout)["devices_enrolled"] == 0


def test_a_separate_authority_signs_on_its_own_machine(init, call, tmp_path):
    call("authority", "init", "authority.key")
    init("--authority", "authority.pub")
    folder = FleetFolder(tmp_path / "fleet")
    assert not folder.authority_key.exists()
    key, _ = request_file(tmp_path)
    enrol = ["enrol", "request.json", "--welcome", "w.zip"]
    assert "authority's key is not at" in call(*enrol, fails=ConfigError)
    call("authority", "init", "other.key")
    assert "not the key of this fleet's authority" in call(*enrol, "--authority-key", "other.key", fails=ConfigError)
    certify = ["authority", "certify", "request.json", "--fleet", "books", "-o", "c.crt", "--key"]
    call(*certify, "other.key")
    assert "not this fleet's" in call(*enrol, "--certificate", "c.crt", fails=ConfigError)
    call(*certify, "authority.key")
    call(*enrol, "--certificate", "c.crt")
    welcome, _ = Welcome.unpack((tmp_path / "w.zip").read_bytes())
    welcome.check_for(key.public_key())
    assert welcome.authority_is_separate
    assert json.loads(call("status", "--json").stdout)["guarantee"]["against"] == "malicious"
    # somebody else's certificate enrols nobody
    request_file(tmp_path, "second.json")
    words = call("enrol", "second.json", "--welcome", "x.zip", "--certificate", "c.crt", fails=ConfigError)
    assert "for another device" in words


def test_a_fleet_whose_operators_enrol_claims_the_weaker_guarantee(init, call):
    init()
    assert json.loads(call("status", "--json").stdout)["guarantee"]["against"] == "semi-honest"
    assert "semi-honest" in call("status").stdout


def test_commands_without_a_fleet_or_a_server_say_what_to_do(init, call):
    for command in (["status"], ["rounds"], ["start"], ["resume"], ["stop"]):
        assert "not the folder of a fleet" in call(*command, fails=ConfigError)
    init()
    assert "no round has begun" in call("resume", fails=RunError)
    assert "no server runs" in call("stop", fails=RunError)
    assert json.loads(call("rounds", "--json").stdout) == []
    assert "is not host:port" in call("start", "--listen", "9092", fails=ConfigError)
    assert "--devices 1 " in call("start", "--devices", "1", fails=ConfigError)


def test_stop_leaves_the_wish_for_the_server_that_runs(init, call, tmp_path):
    init()
    folder = FleetFolder(tmp_path / "fleet")
    for more, wish in (([], Stop.AFTER_ROUND), (["--now"], Stop.NOW)):
        with folder.locked():
            call("stop", *more)
        state = FleetState(folder.state)
        assert state.stop_requested() is wish
        state.close()
    with folder.locked():
        assert "still runs" in call("stop", "--wait-seconds", "0.3", fails=RunError)


def test_help_of_every_command_has_an_example(call):
    for command in (
        "init",
        "enrol",
        "waiting",
        "admit",
        "start",
        "resume",
        "stop",
        "status",
        "rounds",
        "remove",
        "devices",
    ):
        assert f"palate server {command}" in call(command, "--help").stdout


def enrolled(call, tmp_path, count):
    names = []
    for index in range(count):
        request_file(tmp_path, f"r{index}.json")
        names.append(
            json.loads(call("enrol", f"r{index}.json", "--welcome", f"w{index}.zip", "--json").stdout)["device"]
        )
    return names


def test_a_removed_device_is_in_no_list_and_its_key_is_refused(init, call, tmp_path):
    init("--devices", "3", "--smallest", "2")
    folder = FleetFolder(tmp_path / "fleet")
    first, second, third = enrolled(call, tmp_path, 3)
    nodes = Enrolment(folder.enrolment)
    keys = {node.label: node.public_key for node in nodes.nodes()}
    done = call("remove", first.upper(), second)
    assert f"device {first} is removed" in done.stderr
    assert "1 devices are enrolled" in done.stderr
    assert "the next round waits for 2 more" in done.stderr
    assert [node.label for node in nodes.nodes()] == [third]
    assert nodes.find(keys[first]).removed_at is not None
    assert nodes.find(keys[third]).removed_at is None
    nodes.close()
    found = json.loads(call("status", "--json").stdout)
    assert (found["devices_enrolled"], found["devices_removed"]) == (1, 2)
    assert "1 enrolled, 2 removed, 3 planned for" in call("status").stdout
    listed = json.loads(call("devices", "--json").stdout)
    assert [(each["device"], each["removed_at"] is None) for each in listed] == [
        (third, True), (first, False), (second, False)
    ]  # fmt: skip
    assert third in call("devices").stdout
    # the log has the number, and no name
    (line,) = [json.loads(line) for line in folder.events.read_text().splitlines()]
    assert (line["event"], line["count"], line["enrolled"]) == ("devices-removed", 2, 1)
    assert first not in folder.events.read_text()
    assert json.loads(call("remove", first, "--json").stdout) == {
        "removed": [], "before": [first], "left": 1, "lacking": 2
    }  # fmt: skip


def test_of_names_of_which_one_is_unknown_nobody_is_removed(init, call, tmp_path):
    init()
    (first,) = enrolled(call, tmp_path, 1)
    assert "no device of this fleet" in call("remove", first, "0" * 16, fails=ConfigError)
    assert json.loads(call("status", "--json").stdout)["devices_enrolled"] == 1


def test_a_removed_device_comes_back_only_on_purpose_and_with_the_welcome_that_it_had(init, call, tmp_path):
    init()
    (first,) = enrolled(call, tmp_path, 1)
    call("remove", first)
    again = ["enrol", "r0.json", "--welcome", "again.zip"]
    assert f"device {first} was removed" in call(*again, fails=ConfigError)
    assert not (tmp_path / "again.zip").exists()
    call(*again, "--readmit")
    assert (tmp_path / "again.zip").read_bytes() == (tmp_path / "w0.zip").read_bytes()
    found = json.loads(call("status", "--json").stdout)
    assert (found["devices_enrolled"], found["devices_removed"]) == (1, 0)


def test_what_a_separate_authority_has_signed_readmits_without_its_key(init, call, tmp_path):
    call("authority", "init", "authority.key")
    init("--authority", "authority.pub")
    _, request = request_file(tmp_path)
    call("authority", "certify", "request.json", "--fleet", "books", "--key", "authority.key", "-o", "c.crt")
    call("enrol", "request.json", "--welcome", "w.zip", "--certificate", "c.crt")
    call("remove", f"{request.device:016x}")
    call("enrol", "request.json", "--welcome", "w2.zip", "--readmit")
    assert (tmp_path / "w.zip").read_bytes() == (tmp_path / "w2.zip").read_bytes()


def lost(folder, count, *, named=""):
    """Write lost rounds into a fleet's memory."""
    state = FleetState(folder.state)
    for number in range(count):
        begun = Round(
            number=number,
            run=load_config(folder.config).run,
            purpose="popularity",
            status=RoundStatus.OPEN,
            roster_size=8,
            plan_hash="",
            offer=b"",
            started_at=0.0,
        )
        state.begin_round(begun, [])
        state.end_round(
            number, RoundStatus.ABANDONED, reason="reveal: shares give no secret", lost_in="reveal", named=named
        )
    state.close()


def test_a_fleet_that_has_stopped_by_itself_says_so_and_starts_on_purpose_alone(init, call, tmp_path):
    init()
    folder = FleetFolder(tmp_path / "fleet")
    lost(folder, 1, named="ab" * 8)
    found = json.loads(call("status", "--json").stdout)
    assert (found["halted"], found["halt_after"], len(found["lost_in_a_row"])) == (False, 2, 1)
    assert "stops after 2" in " ".join(call("status").stdout.split())
    lost_again = FleetState(folder.state)
    lost_again.update_round(0, number=7)  # room for one more
    lost_again.close()
    lost(folder, 1, named="ab" * 8)
    found = json.loads(call("status", "--json").stdout)
    assert found["halted"] is True
    assert found["lost_in_a_row"][-1] == {
        "round": 7, "step": "reveal", "reason": "reveal: shares give no secret", "device": "ab" * 8
    }  # fmt: skip
    shown = " ".join(call("status").stdout.split())
    assert "halted 2 in a row, the last in reveal: shares give no secret (device abababababababab)" in shown
    refused = CliRunner().invoke(server_app, ["start"])
    assert isinstance(refused.exception, FleetHalted)
    assert refused.exception.exit_code == 8
    assert "2 rounds in a row lost" in refused.exception.message
    assert "palate server remove abababababababab" in refused.exception.hint
    assert "palate server resume" in refused.exception.hint


def test_the_end_of_the_certificate_is_said_in_time_and_put_off_by_a_command(init, call, monkeypatch):
    init()
    assert "TLS certificate" not in call("status").stdout
    soon = json.loads(call("renew-tls", "--days", "20", "--json").stdout)
    found = json.loads(call("status", "--json").stdout)
    assert found["tls_ends"] == soon["tls_ends"]
    assert "in 19 days" in call("status").stdout
    assert "palate server renew-tls" in " ".join(call("status").stdout.split())
    assert "is valid until" in call("renew-tls").stdout
    assert "TLS certificate" not in call("status").stdout
