"""The node key stays on the device, in a format that others read too."""

from __future__ import annotations

import stat

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_public_key,
    load_ssh_public_key,
)

from palate.client.fleet.transport.keys import make_node_key, read_node_key
from palate.errors import ConfigError, EnvironmentProblem
from palate.server.fleet.certificates import read_node_public_key


def test_the_public_half_is_what_the_operator_enrols(tmp_path):
    key = make_node_key(tmp_path / "node")
    line = (tmp_path / "node.pub").read_bytes()
    assert line.startswith(b"ecdsa-sha2-nistp384 ")
    assert read_node_public_key(line) == key.public_pem == read_node_key(tmp_path / "node").public_pem
    message = b"2026-05-01T12:00:00+00:00"
    load_ssh_public_key(line).verify(key.sign(message), message, ec.ECDSA(hashes.SHA256()))
    load_pem_public_key(key.public_pem).verify(key.sign(message), message, ec.ECDSA(hashes.SHA256()))


def test_the_private_half_is_for_its_owner_and_never_printed(tmp_path):
    key = make_node_key(tmp_path / "node")
    assert stat.S_IMODE((tmp_path / "node").stat().st_mode) == 0o600
    secret = (tmp_path / "node").read_text().splitlines()[1]
    assert secret not in repr(key)
    assert repr(key).startswith("NodeKey(<sealed>")
    (tmp_path / "node").chmod(0o640)
    with pytest.raises(ConfigError, match="has mode 0640") as caught:
        read_node_key(tmp_path / "node")
    assert "chmod 600" in caught.value.hint


@pytest.mark.parametrize("name", ["node", "node.pub"])
def test_a_key_is_never_replaced(tmp_path, name):
    (tmp_path / name).write_text("precious")
    with pytest.raises(ConfigError, match="exists, and is not replaced"):
        make_node_key(tmp_path / "node")
    assert [it.name for it in tmp_path.iterdir()] == [name]


def _p256() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


@pytest.mark.parametrize(
    ("make", "message"), [(None, "is missing"), (lambda: b"junk", "cannot be read"), (_p256, "not a P-384 key")]
)
def test_what_is_no_node_key_is_named(tmp_path, make, message):
    if make is not None:
        (tmp_path / "node").write_bytes(make())
        (tmp_path / "node").chmod(0o600)
    with pytest.raises(ConfigError, match=message) as caught:
        read_node_key(tmp_path / "node")
    assert caught.value.hint


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="cannot be written"):
        make_node_key(tmp_path / "file" / "node")
