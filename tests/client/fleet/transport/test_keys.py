"""The node key signs, in a format that others read too, and never shows itself."""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from palate.client.fleet.identity import NodeKey
from palate.server.fleet.certificates import read_node_public_key


def test_the_public_half_is_what_the_operator_enrols():
    key, message = NodeKey.make(), b"2026-05-01T12:00:00+00:00"
    line = key.private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    assert read_node_public_key(line) == read_node_public_key(key.public_pem) == key.public_pem
    load_pem_public_key(key.public_pem).verify(key.sign(message), message, ec.ECDSA(hashes.SHA256()))


def test_the_private_half_is_never_printed():
    key = NodeKey.make()
    assert f"{key.private.private_numbers().private_value:x}" not in repr(key)
    assert repr(key).startswith("NodeKey(<sealed>")
