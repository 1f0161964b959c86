"""What is put in comes out, as a whole or not at all, and nothing secret is ever said."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import traceback

import pytest
from vaults import purposes_of, verified

from palate.client.vault import HEADS, HISTORY, IDENTITY, PROFILE, SERVERS, Vault, sealing
from palate.client.vault.errors import (
    EntryRefused,
    KeyWornOut,
    NotInVault,
    NoVault,
    OtherVersion,
    VaultError,
    VaultExists,
    VaultLocked,
)

SECRET = b"a secret that no message may quote"
NAME = "name-that-nobody-may-see"


@pytest.mark.parametrize("size", [0, 1, 247, 248, 249, 256, 100_000])
def test_a_value_comes_back_as_it_was_put(vault, folder, notes, size):
    value = bytes(range(256)) * (size // 256) + bytes(size % 256)
    vault.put(notes, "größe", value)
    assert vault.get(notes, "größe") == value
    vault.close()
    with Vault.open(folder) as again:
        assert again.get(notes, "größe") == value
        assert list(again.entries(notes)) == ["größe"]


def test_a_later_value_takes_the_place_of_an_earlier_one(vault, notes):
    vault.put(notes, "a", b"1")
    vault.put(notes, "a", b"2")
    assert vault.entries(notes) == {"a": b"2"}
    assert verified(vault) == 1


def test_purposes_do_not_see_each_others_entries(vault, notes):
    vault.put(notes, "a", b"1")
    vault.put(PROFILE, "a", b"2")
    assert (vault.get(notes, "a"), vault.get(PROFILE, "a")) == (b"1", b"2")
    vault.delete(notes, "a")
    assert vault.has(PROFILE, "a")
    assert not vault.has(notes, "a")


def test_what_is_not_there_is_named_as_missing(vault, notes):
    with pytest.raises(NotInVault):
        vault.get(notes, "a")
    vault.put(notes, "b", b"")
    with pytest.raises(NotInVault):
        vault.get(notes, "a")
    with pytest.raises(NotInVault):
        vault.delete(notes, "a")
    assert list(vault.entries(PROFILE)) == []


@pytest.mark.parametrize("name", ["", "x" * 513, "ä" * 257, "a\nb", "\ud800"])
def test_a_name_that_does_not_fit_is_refused(vault, notes, name):
    with pytest.raises(EntryRefused):
        vault.put(notes, name, b"")
    assert purposes_of(vault) == []


def test_a_value_beyond_the_bound_is_refused(vault, notes, monkeypatch):
    monkeypatch.setattr("palate.client.vault.rows.MAX_VALUE_BYTES", 3)
    with pytest.raises(EntryRefused, match="4 bytes, at most 3"):
        vault.put(notes, "a", b"1234")


def test_a_transaction_is_kept_whole_or_not_at_all(vault, folder, notes):
    vault.put(notes, "kept", b"1")

    def broken() -> None:
        with vault.transaction():
            vault.put(notes, "kept", b"2")
            vault.put(PROFILE, "new", b"3")
            vault.delete(notes, "kept")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        broken()
    assert vault.entries(notes) == {"kept": b"1"}
    assert purposes_of(vault) == ["notes"]
    with vault.transaction():
        vault.put(notes, "kept", b"4")
        assert vault.get(notes, "kept") == b"4"
        vault.put(PROFILE, "new", b"5")
    with Vault.open(folder) as other:
        assert other.get(notes, "kept") + other.get(PROFILE, "new") == b"45"


def test_an_inner_transaction_is_undone_alone(vault, notes):

    def broken() -> None:
        with vault.transaction():
            vault.put(notes, "outer", b"2")
            vault.put(PROFILE, "inner", b"3")
            raise RuntimeError("stop")

    with vault.transaction():
        vault.put(notes, "outer", b"1")
        with pytest.raises(RuntimeError, match="stop"):
            broken()
        vault.put(notes, "after", b"4")
    assert vault.entries(notes) == {"after": b"4", "outer": b"1"}
    assert vault.entries(PROFILE) == {}
    vault.check()


def test_rotation_changes_every_key_and_every_box_and_no_value(vault, folder, notes):
    for number in range(5):
        vault.put(notes, f"{number}", bytes([number]))
    vault.put(PROFILE, "other", b"x")
    before = _rows(folder)
    vault.rotate(notes)
    after = _rows(folder)
    assert vault.entries(notes) == {f"{number}": bytes([number]) for number in range(5)}
    assert verified(vault) == 6
    assert before["keys"].keys() == after["keys"].keys()
    changed = {purpose for purpose in before["keys"] if before["keys"][purpose] != after["keys"][purpose]}
    assert changed == {"notes", "vault"}
    assert not before["boxes"]["notes"] & after["boxes"]["notes"]
    assert before["boxes"]["profile"] == after["boxes"]["profile"]


def _rows(folder):
    connection = sqlite3.connect(folder / "vault.db")
    keys = {purpose: rest for purpose, *rest in connection.execute("SELECT purpose, id, wrapped FROM keys")}
    boxes: dict[str, set[bytes]] = {}
    for purpose, tag, sealed in connection.execute("SELECT purpose, tag, sealed FROM entries"):
        boxes.setdefault(purpose, set()).update({tag, sealed})
    connection.close()
    return {"keys": keys, "boxes": boxes}


def test_the_same_value_is_never_sealed_alike(vault, folder, notes):
    nonces, texts = set(), set()
    for _ in range(20):
        vault.put(notes, "a", b"same")
        (box,) = [box for box in _rows(folder)["boxes"]["notes"] if len(box) > 32]
        nonces.add(box[:12])
        texts.add(box[12:28])
    assert (len(nonces), len(texts)) == (20, 20)  # the tag alone would differ by the version


def test_what_is_on_disk_tells_the_size_to_256_bytes_only(vault, folder, notes):
    sizes = {}
    for size in range(0, 600, 7):
        vault.put(notes, "abc", bytes(size))
        sizes[size] = max(len(box) for box in _rows(folder)["boxes"]["notes"])
    assert set(sizes.values()) == {256 + 28, 512 + 28, 768 + 28}
    assert len({sizes[size] for size in sizes if size <= 245}) == 1  # 4 + 3 + 4 bytes go before the value


def test_a_key_that_sealed_enough_is_refused_until_it_is_rotated(vault, notes, monkeypatch):
    monkeypatch.setattr("palate.client.vault.rows.SEALS_PER_KEY", 12)
    for number in range(11):  # the key was made with version 1, the values have 2 ... 12
        vault.put(notes, "a", bytes([number]))
    with pytest.raises(KeyWornOut, match="12 times") as caught:
        vault.put(notes, "a", b"more")
    assert "rotate" in caught.value.hint
    assert vault.get(notes, "a") == bytes([10])
    vault.rotate(notes)
    vault.put(notes, "a", b"again")
    assert vault.get(notes, "a") == b"again"
    assert sealing.SEALS_PER_KEY <= 2**32


def test_an_export_shows_the_owners_data_and_no_secret_key(vault):
    vault.put(IDENTITY, "signing", SECRET)
    vault.put(HISTORY, "marks", b'{"film-1":"hide"}')
    vault.put(SERVERS, "home", b"not json")
    vault.put(HEADS, "gmf", b"\x00\x01")
    exported = vault.export()
    assert exported == json.loads(json.dumps(exported))
    assert exported["format"] == "palate-vault-export/1"
    assert exported["purposes"] == {
        "heads": {"gmf": {"base64": "AAE="}},
        "history": {"marks": {"film-1": "hide"}},
        "servers": {"home": {"base64": "bm90IGpzb24="}},
    }
    assert SECRET.hex() not in json.dumps(exported)


def test_nothing_that_is_said_quotes_a_secret(vault, folder, notes, caplog):
    caplog.set_level(logging.DEBUG)
    vault.put(notes, NAME, SECRET)
    key = (folder / "vault.key").read_text().split()[1]
    said = [repr(vault), str(vault), repr(vault.key("notes"))]
    assert said[0] == "Vault(<sealed>)"
    connection = sqlite3.connect(folder / "vault.db")
    connection.execute("UPDATE entries SET sealed = zeroblob(300)")
    connection.commit()
    connection.close()
    calls = [
        lambda: vault.get(notes, NAME),
        lambda: vault.delete(PROFILE, NAME),
        lambda: vault.put(notes, NAME * 50, SECRET),
        lambda: verified(vault),
    ]
    for call in calls:
        with pytest.raises(VaultError) as caught:
            call()
        assert caught.value.hint
        said.append("".join(traceback.format_exception(caught.value)))
    said.append(caplog.text)
    for secret in (SECRET.decode(), repr(SECRET), NAME, key, bytes.fromhex(key).decode("latin-1")):
        assert not any(secret in words for words in said)


def test_a_folder_takes_one_vault(vault, folder):
    with pytest.raises(VaultExists):
        Vault.create(folder)
    vault.check()


def test_a_folder_without_a_vault_says_so_and_stays_as_it_was(tmp_path):
    with pytest.raises(NoVault):
        Vault.open(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_closed_vault_serves_no_more(vault, notes):
    vault.put(notes, "a", SECRET)
    vault.close()
    vault.close()
    with pytest.raises(VaultError, match="closed"):
        vault.get(notes, "a")


@pytest.mark.parametrize("pragma", ["application_id = 1", "user_version = 2"])
def test_another_format_is_refused(vault, folder, pragma):
    vault.close()
    connection = sqlite3.connect(folder / "vault.db")
    connection.execute(f"PRAGMA {pragma}")
    connection.commit()
    connection.close()
    with pytest.raises(OtherVersion):
        Vault.open(folder)


def test_every_commit_waits_for_the_disk_and_deletions_overwrite(vault):
    connection = vault._opened()
    pragmas = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")}
    assert pragmas == {"journal_mode": "wal", "synchronous": 2}
    assert connection.execute("PRAGMA secure_delete").fetchone()[0] == 1
    assert connection.execute("SELECT count(*) FROM pragma_table_list WHERE strict").fetchone()[0] == 3


def test_two_programs_see_each_others_changes(vault, folder, notes):
    with Vault.open(folder) as other:
        vault.put(notes, "a", b"1")
        assert other.get(notes, "a") == b"1"
        other.put(notes, "a", b"2")
        other.rotate(notes)
        assert vault.get(notes, "a") == b"2"
        vault.put(notes, "b", b"3")
        assert other.entries(notes) == {"a": b"2", "b": b"3"}
        other.delete(notes, "a")
        assert not vault.has(notes, "a")
        assert verified(vault) == verified(other) == 1


def test_a_vault_that_is_held_for_too_long_says_so(vault, folder, notes, monkeypatch):
    monkeypatch.setattr("palate.client.vault.schema.WAIT_SECONDS", 0.05)
    with Vault.open(folder) as other, vault.transaction(), pytest.raises(VaultLocked):
        other.put(notes, "a", b"1")
    vault.check()


def test_threads_may_share_a_vault(vault, notes):
    def write(thread: int) -> None:
        for number in range(15):
            vault.put(notes, f"{thread}-{number}", bytes([thread, number]))
            vault.get(notes, f"{thread}-{number}")

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert vault.entries(notes) == {f"{t}-{n}": bytes([t, n]) for t in range(4) for n in range(15)}
    assert verified(vault) == 60
