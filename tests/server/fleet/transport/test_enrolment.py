"""The enrolment outlives the process, is shared between processes, and refuses what it cannot read."""

from __future__ import annotations

import sqlite3

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from palate.errors import ConfigError, RunError
from palate.server.fleet.transport.enrolment import Enrolment


def public_key() -> bytes:
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_a_node_keeps_its_number_over_a_restart(tmp_path):
    path, key = tmp_path / "folder" / "fleet.sqlite", public_key()
    first = Enrolment(path)
    node = first.add(key, label="phone")
    first.close()
    second = Enrolment(path)
    assert second.find(key) == node
    assert second.nodes() == (node,)
    assert node.label == "phone"
    assert 0 < node.node_id < 2**63


def test_another_process_may_enrol_and_remove_while_the_server_runs(tmp_path):
    server, operator, key = Enrolment(tmp_path / "f"), Enrolment(tmp_path / "f"), public_key()
    assert server.find(key) is None
    node = operator.add(key)
    assert server.find(key) == node
    operator.remove(node.node_id)
    assert server.find(key).removed_at is not None
    assert server.nodes() == ()


def test_a_key_is_enrolled_once(tmp_path):
    enrolment, key = Enrolment(tmp_path / "f"), public_key()
    enrolment.add(key)
    with pytest.raises(ConfigError, match="is enrolled already"):
        enrolment.add(key)
    assert len(enrolment.nodes()) == 1


def test_a_removed_key_comes_back_under_another_number(tmp_path):
    enrolment, key = Enrolment(tmp_path / "f"), public_key()
    first = enrolment.add(key)
    enrolment.remove(first.node_id)
    assert enrolment.add(key).node_id != first.node_id


def test_a_removed_key_is_remembered_over_a_restart_until_it_comes_back(tmp_path):
    enrolment, key = Enrolment(tmp_path / "f"), public_key()
    node = enrolment.add(key, label="phone", certificate=b"signed")
    assert node.removed_at is None
    enrolment.remove(node.node_id)
    enrolment.close()
    again = Enrolment(tmp_path / "f")
    assert again.find(key).removed_at >= node.enrolled_at
    assert (again.nodes(), [each.certificate for each in again.all()]) == ((), [b"signed"])
    assert again.find(public_key()) is None
    again.add(key, label="phone")
    assert again.find(key).removed_at is None
    assert len(again.all()) == 1


def test_a_device_that_comes_back_with_another_key_is_listed_once(tmp_path):
    enrolment = Enrolment(tmp_path / "f")
    enrolment.remove(enrolment.add(public_key(), label="phone").node_id)
    node = enrolment.add(public_key(), label="phone")
    assert enrolment.all() == enrolment.nodes() == (node,)


def test_removing_nobody_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="no node 7 is enrolled"):
        Enrolment(tmp_path / "f").remove(7)


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "f").write_bytes(b"not a database, but long enough to look like one" * 100)
    with pytest.raises(RunError, match="cannot be read"):
        Enrolment(tmp_path / "f")


def test_a_file_of_a_later_format_is_refused(tmp_path):
    Enrolment(tmp_path / "f").close()
    with sqlite3.connect(tmp_path / "f") as db:
        db.execute("pragma user_version = 9")
    with pytest.raises(RunError, match="has format 9, this version reads 3"):
        Enrolment(tmp_path / "f")


def test_who_is_enrolled_is_for_the_owners_eyes(tmp_path):
    Enrolment(tmp_path / "nodes" / "fleet.sqlite").close()
    assert (tmp_path / "nodes").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "nodes" / "fleet.sqlite").stat().st_mode & 0o777 == 0o600
