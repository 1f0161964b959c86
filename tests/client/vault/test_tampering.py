"""Whoever changes the files without the master key is found out, except by putting the whole file back."""

from __future__ import annotations

import itertools
import shutil
import sqlite3
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vaults import verified

from palate.client.vault import HISTORY, PROFILE, Vault
from palate.client.vault.errors import VaultTampered, WrongKey


@pytest.fixture
def full(folder):
    """A folder with a closed vault: two purposes with the same two names."""
    with Vault.create(folder) as vault:
        for purpose, name in itertools.product((HISTORY, PROFILE), "ab"):
            vault.put(purpose, name, f"{purpose.name} {name}".encode())
    return folder


def attack(folder, *statements):
    with closing(sqlite3.connect(folder / "vault.db", isolation_level=None)) as connection:
        for statement, *values in statements:
            connection.execute(statement, values)


def rows(folder, table):
    with closing(sqlite3.connect(folder / "vault.db")) as connection:
        return connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()


def put_back(folder, table, old):
    marks = ", ".join("?" * len(old[0]))
    attack(folder, (f"DELETE FROM {table}",), *((f"INSERT INTO {table} VALUES ({marks})", *row) for row in old))


def assert_found(folder):
    with pytest.raises(VaultTampered) as caught, Vault.open(folder) as vault:
        verified(vault)
    assert caught.value.hint


@given(row=st.integers(0, 3), place=st.integers(0, 10**6), bit=st.integers(0, 7))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bit_of_a_box_can_be_flipped(full, row, place, bit):
    original = rows(full, "entries")
    purpose, tag, _, sealed = original[row]
    changed = bytearray(sealed)
    changed[place % len(changed)] ^= 1 << bit
    where = "WHERE purpose = ? AND tag = ?"
    attack(full, (f"UPDATE entries SET sealed = ? {where}", bytes(changed), purpose, tag))
    assert_found(full)
    attack(full, (f"UPDATE entries SET sealed = ? {where}", sealed, purpose, tag))
    with Vault.open(full) as vault:
        assert verified(vault) == 4


@pytest.mark.parametrize(
    ("columns", "other"),
    [
        *itertools.product([("sealed",), ("sealed", "version"), ("tag",)], [1, 2, 3]),
        *itertools.product([("purpose",)], [2, 3]),  # row 1 has the same purpose
    ],
)
def test_boxes_cannot_change_places(full, columns, other):
    """Row 0 against another name of its purpose, the same name of another purpose, and both."""
    first, second = rows(full, "entries")[0], rows(full, "entries")[other]
    names = ("purpose", "tag", "version", "sealed")
    swapped = [
        tuple(theirs if name in columns else own for name, own, theirs in zip(names, a, b, strict=True))
        for a, b in ((first, second), (second, first))
    ]
    rest = [row for row in rows(full, "entries") if row not in (first, second)]
    assert sorted(rest + swapped) != rows(full, "entries")
    put_back(full, "entries", rest + swapped)
    assert_found(full)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM entries WHERE rowid = 1",
        "DELETE FROM entries",
        "DELETE FROM keys WHERE purpose = 'history'",
        "DELETE FROM keys WHERE purpose = 'history'; DELETE FROM entries WHERE purpose = 'history'",
        "INSERT INTO entries SELECT purpose, randomblob(32), version, sealed FROM entries WHERE rowid = 1",
        "INSERT INTO keys SELECT 'rounds', id, born, wrapped FROM keys WHERE purpose = 'history'",
        "UPDATE entries SET version = version + 1 WHERE rowid = 1",
        "UPDATE keys SET born = born + 1 WHERE purpose = 'history'",
        "UPDATE keys SET id = randomblob(16) WHERE purpose = 'history'",
        "UPDATE keys SET wrapped = randomblob(60) WHERE purpose = 'vault'",
        "UPDATE keys SET wrapped = x'00' WHERE purpose = 'history'",
        "UPDATE keys SET wrapped = (SELECT wrapped FROM keys WHERE purpose = 'profile') WHERE purpose = 'history'",
        "UPDATE vault SET state = randomblob(76)",
        "UPDATE vault SET state = x''",
        "CREATE TRIGGER t AFTER INSERT ON entries BEGIN SELECT 1; END",
        "CREATE TABLE more (a)",
    ],
)
def test_rows_cannot_be_removed_invented_or_edited(full, statement):
    attack(full, *((part,) for part in statement.split(";") if "TRIGGER" not in statement), *_whole(statement))
    assert_found(full)


def _whole(statement):
    return [(statement,)] if "TRIGGER" in statement else []


@pytest.mark.parametrize("tables", [("entries",), ("keys",), ("vault",), ("entries", "keys"), ("entries", "vault")])
def test_a_part_of_the_file_cannot_be_put_back(full, tables):
    before = {table: rows(full, table) for table in tables}
    with Vault.open(full) as vault:
        vault.put(HISTORY, "a", b"newer")
        vault.rotate(PROFILE)
    for table, old in before.items():
        put_back(full, table, old)
    assert_found(full)


def test_one_row_cannot_be_put_back_not_even_after_it_was_deleted(full):
    old = rows(full, "entries")
    with Vault.open(full) as vault:
        vault.put(HISTORY, "a", b"newer")
    newer = rows(full, "entries")
    changed = next(row for row in old if row not in newer)
    put_back(full, "entries", [changed if row[:2] == changed[:2] else row for row in newer])
    assert_found(full)
    put_back(full, "entries", newer)
    with Vault.open(full) as vault:
        vault.delete(HISTORY, "a")
        vault.put(HISTORY, "a", b"made anew")
    newest = rows(full, "entries")
    put_back(full, "entries", [changed if row[:2] == changed[:2] else row for row in newest])
    assert_found(full)


def test_an_entry_that_was_taken_away_is_no_missing_one(full):
    """While the vault is open, too: what is not found is asked for."""
    with Vault.open(full) as vault:
        attack(full, ("DELETE FROM entries",))
        with pytest.raises(VaultTampered):
            vault.get(HISTORY, "a")
        with pytest.raises(VaultTampered):
            vault.delete(HISTORY, "a")


@pytest.mark.parametrize("table", ["entries", "keys WHERE purpose = 'history'"])
def test_a_vault_with_rows_missing_does_not_open(full, table):
    attack(full, (f"DELETE FROM {table}",))
    with pytest.raises(VaultTampered, match="left with"):
        Vault.open(full)


def test_a_whole_file_that_was_put_back_is_not_found(full, tmp_path):
    """Known and documented: nothing in the folder can tell it from the past."""
    shutil.copy(full / "vault.db", tmp_path / "copy")
    with Vault.open(full) as vault:
        vault.put(HISTORY, "a", b"newer")
    shutil.copy(tmp_path / "copy", full / "vault.db")
    with Vault.open(full) as vault:
        assert vault.get(HISTORY, "a") == b"history a"


def test_another_vaults_rows_do_not_open_here(full, tmp_path):
    shutil.copytree(full, tmp_path / "other")
    with Vault.open(tmp_path / "other") as other:
        other.put(HISTORY, "a", b"of the copy")
    put_back(full, "entries", rows(tmp_path / "other", "entries"))
    assert_found(full)


def test_another_key_is_named_as_the_wrong_one(full, tmp_path):
    with Vault.create(tmp_path / "other"):
        pass
    shutil.copy(tmp_path / "other" / "vault.key", full / "vault.key")
    with pytest.raises(WrongKey, match="not the one") as caught:
        Vault.open(full)
    assert caught.value.hint
    (full / "vault.key").unlink()
    with pytest.raises(WrongKey, match="missing"):
        Vault.open(full)
    (full / "vault.key").touch(mode=0o600)
    with pytest.raises(WrongKey, match="holds no key"):
        Vault.open(full)


@pytest.mark.parametrize("content", [b"no database at all" * 300, b"SQLite format 3\x00" + bytes(5000)])
def test_a_damaged_file_is_named_as_damaged(full, content):
    (full / "vault.db").write_bytes(content)
    with pytest.raises(VaultTampered, match="damaged"):
        Vault.open(full)
