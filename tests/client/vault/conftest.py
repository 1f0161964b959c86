"""A vault with its key in a file, and a keyring that lives in memory."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.client.vault import Purpose, Vault


@pytest.fixture(autouse=True)
def _key_in_a_file(monkeypatch):
    monkeypatch.setenv("PALATE_KEYRING", "file")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "device"


@pytest.fixture
def vault(folder):
    with Vault.create(folder) as vault:
        yield vault


@pytest.fixture
def notes():
    return Purpose("notes", exported=False)


@pytest.fixture
def signer():
    return Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
