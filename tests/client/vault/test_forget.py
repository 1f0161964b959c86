"""Forgetting leaves nothing but what was spent, wherever it is stopped, and what was spent is not forgotten."""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
import sys
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from vaults import verified

from palate.client.vault import HISTORY, IDENTITY, Vault, files, forget, tombstone
from palate.client.vault.errors import EntryRefused, Forgotten, NoVault, OtherVersion, VaultError, VaultTampered

MARK = b"Xq7MARK"
SPENT = {("user", "zero-out"): 1_250_000_000}


@pytest.fixture
def full(folder):
    with Vault.create(folder) as vault:
        vault.put(HISTORY, "block", MARK * 500)
        vault.put(IDENTITY, "signing", MARK)
    return folder


def shredding(*paths):
    def shred():
        for path in paths:
            files.shred(path)

    return shred


def test_nothing_but_the_tombstone_is_left(full, signer):
    before = {path.name: path.read_bytes() for path in full.iterdir()}
    parts = [before["vault.db"][start : start + 32] for start in range(0, len(before["vault.db"]), 512)]
    sealed = [part for part in parts if len(set(part)) > 16]
    assert len(sealed) > 5
    (full / "ledger.db").write_bytes(MARK)
    stone = forget.forget(full, spent=SPENT, signer=signer, further=shredding(full / "ledger.db", full / "not-there"))
    assert [path.name for path in full.iterdir()] == ["vault.tombstone"]
    left = (full / "vault.tombstone").read_bytes()
    assert left == stone.to_bytes()
    assert not any(part in left for part in [MARK, *sealed, before["vault.key"][-65:-1]])


def test_files_are_overwritten_before_they_are_removed(full, signer, tmp_path):
    """A second name of each file shows what became of its bytes."""
    with sqlite3.connect(full / "vault.db") as connection:
        boxes = [row[0] for row in connection.execute("SELECT sealed FROM entries UNION SELECT wrapped FROM keys")]
    connection.close()
    key = (full / "vault.key").read_bytes()
    (full / "ledger.db").write_bytes(MARK * 1000)
    for name in ("vault.db", "vault.key", "ledger.db"):
        os.link(full / name, tmp_path / name)
    forget.forget(full, spent=SPENT, signer=signer, further=shredding(full / "ledger.db"))
    assert key[-40:-1] not in (tmp_path / "vault.key").read_bytes()
    assert MARK not in (tmp_path / "ledger.db").read_bytes()
    database = (tmp_path / "vault.db").read_bytes()
    for box in boxes:
        assert not any(box[start : start + 16] in database for start in range(0, len(box) - 15, 16))


def test_a_caller_may_bring_what_destroys_its_own_files(full, signer):
    called = []
    forget.forget(full, spent=SPENT, signer=signer, further=lambda: called.append(True))
    assert called == [True]


def test_a_fresh_budget_is_refused_where_one_was_spent(full, signer):
    stone = forget.forget(full, spent=SPENT, signer=signer)
    with pytest.raises(Forgotten, match=r"1\.25 \(2 rho\) of unit user"):
        Vault.create(full)
    with pytest.raises(Forgotten):
        Vault.create(full, carrying=replace(stone, spent=()))
    with pytest.raises(NoVault):
        Vault.open(full)
    with Vault.create(full, carrying=tombstone.read(full)) as vault:
        assert list(vault.entries(HISTORY)) == []
    Vault.open(full).close()
    assert tombstone.read(full) == stone


def test_a_second_forgetting_adds_to_the_first(full, signer):
    first = forget.forget(full, spent=SPENT, signer=signer)
    other = Ed25519PrivateKey.generate()
    Vault.create(full, carrying=first).close()
    second = forget.forget(full, spent={("user", "zero-out"): 7, ("interaction", "zero-out"): 3}, signer=other)
    assert second.spent_nano("user", "zero-out") == 1_250_000_007
    assert second.spent_nano("interaction", "zero-out") == 3
    assert second.spent_nano("interaction", "replace-one") == 0
    assert len(second.previous) == 32
    assert second.key == other.public_key().public_bytes_raw()
    assert tombstone.parse(second.to_bytes()) == second


def test_a_tombstone_can_be_carried_to_another_folder(full, signer, tmp_path):
    stone = forget.forget(full, spent=SPENT, signer=signer)
    with Vault.create(tmp_path / "new", carrying=stone):
        pass
    assert tombstone.read(tmp_path / "new") == stone


def test_no_figure_of_a_tombstone_can_be_changed(full, signer):
    data = forget.forget(full, spent=SPENT, signer=signer).to_bytes()
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1
        with pytest.raises(VaultTampered):
            tombstone.parse(bytes(changed))
    for edited in (data[:-1], data + b"\n", data.split(b"\n", 1)[1], b"", data.replace(b"zero-out", b"\xff")):
        with pytest.raises(VaultTampered):
            tombstone.parse(edited)
    (full / "vault.tombstone").write_bytes(data.replace(b"1250000000", b"0"))
    with pytest.raises(VaultTampered) as caught:
        Vault.create(full)
    assert caught.value.hint


@pytest.mark.parametrize("at", range(18))
def test_stopped_anywhere_it_can_be_finished(full, signer, at, monkeypatch):
    (full / "ledger.db").write_bytes(MARK)
    further = shredding(full / "ledger.db")
    calls = iter(range(10**6))

    def stopping(real):
        def call(*arguments, **named):
            if next(calls) == at:
                raise KeyboardInterrupt
            return real(*arguments, **named)

        return call

    with monkeypatch.context() as patch:
        for module, name in [
            ("os", "fsync"),
            ("os", "unlink"),
            ("palate.client.vault.schema", "connect"),
            ("palate.client.vault.forget", "_overwrite_rows"),
        ]:
            patch.setattr(f"{module}.{name}", stopping(getattr(sys.modules[module], name)))
        with pytest.raises(KeyboardInterrupt):
            forget.forget(full, spent=SPENT, signer=signer, further=further)
    begun = (full / "vault.tombstone").exists()
    if begun:
        with pytest.raises((Forgotten, NoVault)):
            Vault.open(full)
        stone = forget.finish(full, further=further)
    else:
        with Vault.open(full) as vault:  # nothing was lost
            assert verified(vault) == 2
        stone = forget.forget(full, spent=SPENT, signer=signer, further=further)
    assert [path.name for path in full.iterdir()] == ["vault.tombstone"]
    assert stone.spent_nano("user", "zero-out") == 1_250_000_000  # counted once, however often it was begun
    assert forget.finish(full) == stone


def test_finishing_spares_a_vault_that_was_made_since(full, signer):
    stone = forget.forget(full, spent=SPENT, signer=signer)
    with Vault.create(full, carrying=stone) as vault:
        vault.put(HISTORY, "new", b"1")
    assert forget.finish(full) == stone
    with Vault.open(full) as vault:
        assert vault.get(HISTORY, "new") == b"1"


def test_a_vault_whose_key_is_lost_can_be_forgotten(full):
    (full / "vault.key").unlink()
    stone = forget.forget(full, spent=SPENT, signer=None)
    assert (stone.key, stone.signature) == (b"", b"")
    assert tombstone.read(full) == stone
    assert [path.name for path in full.iterdir()] == ["vault.tombstone"]


@pytest.mark.parametrize("content", [MARK * 300, b"SQLite format 3\x00" + MARK * 700])
def test_a_damaged_vault_can_be_forgotten(full, signer, content):
    (full / "vault.db").write_bytes(content)
    stone = forget.forget(full, spent=SPENT, signer=signer)
    assert stone.vault == hashlib.sha256(content).digest()[:16]
    assert [path.name for path in full.iterdir()] == ["vault.tombstone"]
    with pytest.raises(Forgotten):
        Vault.create(full)
    Vault.create(full, carrying=stone).close()
    (full / "vault.db").write_bytes(content + b"again")
    assert forget.finish(full) == stone  # it was finished; this is another vault
    again = forget.forget(full, spent=SPENT, signer=signer)
    assert again.spent_nano("user", "zero-out") == 2_500_000_000


def test_what_is_no_vault_is_left_alone(tmp_path, signer):
    tmp_path.chmod(0o700)
    with pytest.raises(NoVault):
        forget.forget(tmp_path, spent=SPENT, signer=signer)
    with sqlite3.connect(tmp_path / "vault.db") as connection:
        connection.execute("CREATE TABLE t AS SELECT 'precious' AS a")
    connection.close()
    (tmp_path / "vault.db").chmod(0o600)
    with pytest.raises(OtherVersion):
        forget.forget(tmp_path, spent=SPENT, signer=signer)
    assert b"precious" in (tmp_path / "vault.db").read_bytes()
    assert not (tmp_path / "vault.tombstone").exists()
    with pytest.raises(NoVault, match="nothing was begun"):
        forget.finish(tmp_path)


def test_a_negative_charge_is_refused_before_anything_is_lost(full, signer):
    with pytest.raises(EntryRefused, match="-1"):
        forget.forget(full, spent={("user", "zero-out"): -1}, signer=signer)
    Vault.open(full).close()


def test_a_program_that_still_has_it_open_finds_it_empty(full, signer):
    with Vault.open(full) as other:
        assert other.get(HISTORY, "block") == MARK * 500
        forget.forget(full, spent=SPENT, signer=signer)
        with pytest.raises(Forgotten):
            other.get(HISTORY, "block")
        with pytest.raises(Forgotten):
            other.put(HISTORY, "block", MARK)
    assert [path.name for path in full.iterdir()] == ["vault.tombstone"]


def test_a_keyring_that_refuses_leaves_the_rest_forgotten_and_the_key_to_finish(folder, signer, monkeypatch):
    keyring = pytest.importorskip("keyring")
    from keyring.backend import KeyringBackend

    class Stubborn(KeyringBackend):
        priority = 5  # type: ignore[assignment]
        kept: dict[str, str] = {}  # noqa: RUF012 - one keyring
        refuses = False

        def get_password(self, service: str, username: str) -> str | None:
            return self.kept.get(username)

        def set_password(self, service: str, username: str, password: str) -> None:
            if self.refuses:
                raise OSError(errno.EACCES, "no")
            self.kept[username] = password

        def delete_password(self, service: str, username: str) -> None:
            del self.kept[username]

    before = keyring.get_keyring()
    keyring.set_keyring(Stubborn())
    try:
        with Vault.create(folder, keyring="os") as vault:
            vault.put(HISTORY, "block", MARK * 50_000)
        Stubborn.refuses = True
        with pytest.raises(VaultError, match="PermissionError"):
            forget.forget(folder, spent=SPENT, signer=signer)
        assert len(Stubborn.kept) == 1
        with sqlite3.connect(folder / "vault.db") as connection:
            assert connection.execute("SELECT count(*) FROM entries").fetchone() == (0,)
        connection.close()
        assert (folder / "vault.db").stat().st_size < 40_000  # not even how much there was
        Stubborn.refuses = False
        forget.finish(folder)
        assert Stubborn.kept == {}
        assert [path.name for path in folder.iterdir()] == ["vault.tombstone"]
    finally:
        keyring.set_keyring(before)
