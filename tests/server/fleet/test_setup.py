"""A new fleet keeps to itself who belongs to it, and tells its devices no more than is so."""

from __future__ import annotations

import stat

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.client.fleet.enrolling import limits_for
from palate.errors import ConfigError, EnvironmentProblem
from palate.privacy.enrolment import EnrolmentRequest, Welcome
from palate.server.fleet.certifying import certify, make_authority_key
from palate.server.fleet.claims import claim_of
from palate.server.fleet.config import load_config
from palate.server.fleet.folder import FleetFolder, make_key
from palate.server.fleet.serving import opened
from palate.server.fleet.setup import make_fleet, read_key, welcome
from palate.server.fleet.state import FleetState

GIVEN = {
    "name": "books",
    "run": "books-1",
    "listen": {"address": "localhost:1", "bind": "127.0.0.1", "port": 0},
    "cohort": {"devices": 4, "smallest": 3, "authority_is_separate": True, "gamma": 0.1, "tau": 0.6},
    "schedule": {"rounds": 1, "dim": 2},
}


@pytest.fixture
def items(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text("item\n" + "".join(f"i{row}\n" for row in range(12)))
    return path


def request() -> EnrolmentRequest:
    return EnrolmentRequest(
        Ed25519PrivateKey.generate().public_key(), ec.generate_private_key(ec.SECP384R1()).public_key()
    )


def test_devices_are_not_told_of_a_separate_authority_whose_key_lies_with_the_server(tmp_path, items):
    folder = FleetFolder(tmp_path / "fleet")
    make_fleet(folder, items, GIVEN)
    told, _ = Welcome.unpack(welcome(folder, request()).archive)
    assert told.authority_is_separate is False
    assert claim_of(folder, load_config(folder.config)).against == "semi-honest"


def test_devices_are_told_of_an_authority_that_is_elsewhere(tmp_path, items):
    folder, key = FleetFolder(tmp_path / "fleet"), tmp_path / "elsewhere" / "authority.key"
    make_authority_key(key)
    make_fleet(folder, items, GIVEN, authority=key.with_suffix(".pub"))
    asking = request()
    signed = certify(asking, "books", read_key(key)).to_bytes()
    told, _ = Welcome.unpack(welcome(folder, asking, certificate=signed).archive)
    assert told.authority_is_separate is True
    assert claim_of(folder, load_config(folder.config)).against == "malicious"


def test_a_fleets_folder_is_for_its_owners_eyes(tmp_path, items):
    folder = FleetFolder(tmp_path / "fleet")
    make_fleet(folder, items, GIVEN)
    welcome(folder, request())
    assert stat.S_IMODE(folder.root.stat().st_mode) == 0o700
    FleetState(folder.state).close()  # as the server does when it starts
    for path in (folder.state, *folder.nodes.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_reply_larger_than_any_honest_one_is_not_kept(tmp_path, items):
    folder = FleetFolder(tmp_path / "fleet")
    make_fleet(folder, items, GIVEN)
    with opened(folder) as fleet:
        kept = fleet.operation._grid_messages._grid._max_reply_bytes
    assert 12 * 2 * 8 < kept < 2 << 20, "not the 256 MiB that any plan could ask for"


def test_a_file_in_the_place_of_a_folder_is_not_taken_for_a_key(tmp_path):
    (tmp_path / "keys").write_text("not a folder")
    with pytest.raises(EnvironmentProblem, match=r"server\.key cannot be written: File exists"):
        make_key(tmp_path / "keys" / "server.key")
    make_key(tmp_path / "server.key")
    with pytest.raises(ConfigError, match="is there already"):
        make_key(tmp_path / "server.key")


@pytest.mark.parametrize("devices", [3, 5, 12, 100])
def test_devices_agree_unasked_to_the_defaults_of_a_fleet_of_any_size(tmp_path, items, devices):
    folder = FleetFolder(tmp_path / "fleet")
    make_fleet(folder, items, {**GIVEN, "cohort": {"devices": devices}})
    told, _ = Welcome.unpack(welcome(folder, request()).archive)
    limits = limits_for(told)
    assert told.smallest_roster == max(3, -(-devices // 2))
    assert limits.smallest_cohort == min(10, max(3, told.smallest_roster))


def test_devices_do_not_agree_unasked_to_rounds_of_two(tmp_path, items):
    folder = FleetFolder(tmp_path / "fleet")
    make_fleet(folder, items, {**GIVEN, "cohort": {"devices": 2}})
    told, _ = Welcome.unpack(welcome(folder, request()).archive)
    with pytest.raises(ConfigError, match="runs rounds of 2 devices, this device wants 3"):
        limits_for(told)


def test_a_fleet_is_planned_for_the_catalogue_that_it_has(tmp_path, items):
    folder = FleetFolder(tmp_path / "fleet")
    make_fleet(folder, items, GIVEN)
    content = load_config(folder.config).content
    assert (content.items, content.described) == (12, False)  # keys alone describe nothing
