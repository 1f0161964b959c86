"""The master key: in a keyring that keeps it, otherwise in a private file, and nowhere else."""

from __future__ import annotations

import sys

import pytest

from palate.client.vault import Vault, keeper
from palate.client.vault.errors import LooseFile, NoKeyring, VaultLocked, WrongKey

keyring = pytest.importorskip("keyring")
from keyring.backend import KeyringBackend  # noqa: E402
from keyring.errors import KeyringLocked, PasswordDeleteError  # noqa: E402


class Memory(KeyringBackend):
    """A keyring in memory that behaves as the system's."""

    priority = 5  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}
        self.failure: Exception | None = None
        self.keeps = True

    def get_password(self, service: str, username: str) -> str | None:
        if self.failure:
            raise self.failure
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        if self.failure:
            raise self.failure
        if self.keeps:
            self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        if (service, username) not in self.kept:
            raise PasswordDeleteError
        del self.kept[service, username]


@pytest.fixture
def system(monkeypatch):
    monkeypatch.delenv("PALATE_KEYRING")
    backend = Memory()
    before = keyring.get_keyring()
    keyring.set_keyring(backend)
    yield backend
    keyring.set_keyring(before)


def test_a_real_keyring_is_preferred_and_no_key_is_in_the_folder(system, folder, notes):
    with Vault.create(folder) as vault:
        assert vault.keeper == "keyring"
        vault.put(notes, "a", b"1")
        entry = ("palate", vault.vault_id.hex())
    assert not (folder / "vault.key").exists()
    assert list(system.kept) == [entry]
    key = bytes.fromhex(system.kept[entry].removeprefix("palate-vault-key/1 "))
    assert len(key) == 32
    for path in folder.iterdir():
        assert key not in path.read_bytes()
        assert key.hex().encode() not in path.read_bytes()
    with Vault.open(folder) as vault:
        assert vault.get(notes, "a") == b"1"


def test_vaults_have_keys_of_their_own(system, tmp_path):
    for name in ("a", "b"):
        Vault.create(tmp_path / name).close()
    assert len(set(system.kept.values())) == 2


def test_a_key_that_is_gone_from_the_keyring_is_named(system, folder):
    Vault.create(folder).close()
    system.kept.clear()
    with pytest.raises(WrongKey, match="keyring has no key"):
        Vault.open(folder)


def test_the_environment_chooses_for_new_vaults_and_not_for_old_ones(system, tmp_path, monkeypatch):
    Vault.create(tmp_path / "old").close()
    monkeypatch.setenv("PALATE_KEYRING", "file")
    with Vault.create(tmp_path / "new") as vault:
        assert vault.keeper == "file"
    with Vault.open(tmp_path / "old") as vault:
        assert vault.keeper == "keyring"
    monkeypatch.setenv("PALATE_KEYRING", "somewhere")
    with pytest.raises(NoKeyring, match="somewhere"):
        Vault.create(tmp_path / "third")


@pytest.mark.parametrize("priority", [0, -1, 0.5])
def test_a_keyring_that_does_not_keep_secrets_is_passed_over(system, tmp_path, monkeypatch, priority):
    monkeypatch.setattr(Memory, "priority", priority)
    with Vault.create(tmp_path / "a") as vault:
        assert vault.keeper == "file"
    assert system.kept == {}
    with pytest.raises(NoKeyring, match="priority") as caught:
        Vault.create(tmp_path / "b", keyring="os")
    assert "PALATE_KEYRING=file" in caught.value.hint


def test_a_keyring_that_forgets_is_found_out_before_anything_is_sealed(system, folder):
    system.keeps = False
    with pytest.raises(NoKeyring, match="give back"):
        Vault.create(folder)
    system.keeps = True
    Vault.create(folder).close()
    Vault.open(folder).close()


@pytest.mark.parametrize(
    ("failure", "kind"), [(KeyringLocked("hunter2"), VaultLocked), (RuntimeError("hunter2"), NoKeyring)]
)
def test_a_keyring_that_does_not_answer_is_named_without_its_words(system, folder, failure, kind):
    Vault.create(folder).close()
    system.failure = failure
    with pytest.raises(kind) as caught:
        Vault.open(folder)
    assert "hunter2" not in str(caught.value) + caught.value.hint
    assert caught.value.__cause__ is None
    assert caught.value.hint


def test_without_the_package_the_file_serves(folder, tmp_path, monkeypatch):
    monkeypatch.delenv("PALATE_KEYRING")
    monkeypatch.setitem(sys.modules, "keyring", None)
    with Vault.create(folder) as vault:
        assert vault.keeper == "file"
    Vault.open(folder).close()
    with pytest.raises(NoKeyring, match="not installed"):
        Vault.create(tmp_path / "b", keyring="os")


def test_a_key_file_is_spelt_as_documented(vault, folder):
    label, digits = (folder / "vault.key").read_bytes().removesuffix(b"\n").split(b" ")
    assert label == b"palate-vault-key/1"
    assert len(bytes.fromhex(digits.decode())) == keeper.KEY_SIZE


@pytest.mark.parametrize("edit", [str.upper, lambda text: text + "x", lambda text: text[:-2], lambda text: "é" + text])
def test_a_key_file_of_another_spelling_is_refused(vault, folder, edit):
    vault.close()
    text = (folder / "vault.key").read_text()
    (folder / "vault.key").write_text(edit(text), encoding="latin-1")
    with pytest.raises(WrongKey, match="no key of the form"):
        Vault.open(folder)


def test_shredding_a_key_through_a_link_is_refused(tmp_path):
    (tmp_path / "target").write_bytes(b"somebody else's")
    (tmp_path / "vault.key").symlink_to(tmp_path / "target")
    with pytest.raises(LooseFile):
        keeper.FileKeeper(tmp_path).shred(bytes(16))
    assert (tmp_path / "target").read_bytes() == b"somebody else's"
