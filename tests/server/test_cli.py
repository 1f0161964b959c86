"""`palate server` on the command line: what it writes, what it says, and how it refuses."""

from __future__ import annotations

import json
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from palate.models.errors import ConfigError, DataError, RunError
from palate.privacy.enrolment import EnrolmentFileRefused, EnrolmentRequest, Welcome
from palate.server.cli import server_app
from palate.server.deployment.folder import FleetFolder
from palate.server.deployment.state import FleetState, Stop

ITEMS = "item,title,genres,year\na,Alpha,Drama,1999\nb,Beta,Comedy,2001\n"


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "items.csv").write_text(ITEMS)

    def run(*arguments, fails=None):
        result = CliRunner().invoke(server_app, [str(each) for each in arguments])
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
        (["--catalogue", "no.csv"], DataError, "does not exist"),
        (["--devices", "500"], ConfigError, "cohort.devices"),
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
    call("authority", "authority.key")
    init("--authority", "authority.pub")
    folder = FleetFolder(tmp_path / "fleet")
    assert not folder.authority_key.exists()
    key, _ = request_file(tmp_path)
    enrol = ["enrol", "request.json", "--welcome", "w.zip"]
    assert "authority's key is not at" in call(*enrol, fails=ConfigError)
    call("authority", "other.key")
    assert "not the key of this fleet's authority" in call(*enrol, "--authority-key", "other.key", fails=ConfigError)
    certify = ["certify", "request.json", "--fleet", "books", "--certificate", "c.crt", "--authority-key"]
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
    for command in ("init", "authority", "certify", "enrol", "start", "resume", "stop", "status", "rounds"):
        assert f"palate server {command}" in call(command, "--help").stdout
