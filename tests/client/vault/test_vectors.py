"""Fixed vectors, and a second reader of the format, written from docs/formats/vault.md with hashlib and AES-GCM alone.

When the format changes, run this file as a program: it writes vault.json and vault-tombstone.json anew.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from unittest import mock

import pytest
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from vaults import verified

from palate.client.vault import HISTORY, PROFILE, Vault, errors, schema, tombstone

VECTORS = Path(__file__).parents[2] / "vectors"
TABLES = {
    "vault": ("one", "id", "keeper", "master", "state"),
    "keys": ("purpose", "id", "born", "wrapped"),
    "entries": ("purpose", "tag", "version", "sealed"),
}


def _load(name: str) -> dict:
    return json.loads((VECTORS / name).read_text("utf-8"))


# The second reader. Nothing below this line and above the next uses palate.


def framed(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def u64(value: int) -> bytes:
    return value.to_bytes(8, "big")


def mac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


def hkdf(key: bytes, info: bytes) -> bytes:
    """RFC 5869: extract with a salt of zeros, then the first block of expand."""
    return mac(mac(bytes(32), key), info + b"\x01")


def unbox(key: bytes, box: bytes, where: bytes) -> bytes:
    return AESGCM(key).decrypt(box[:12], box[12:], where)


def read_by_hand(path: Path, key_text: str) -> dict[tuple[str, str], bytes]:
    """All entries of a vault.db; ValueError or InvalidTag if anything does not fit."""
    label, digits = key_text.removesuffix("\n").split(" ")
    assert label == "palate-vault-key/1"
    master = bytes.fromhex(digits)
    with closing(sqlite3.connect(path)) as connection:
        ((_, v, _, check, state_box),) = connection.execute("SELECT * FROM vault").fetchall()
        key_rows = connection.execute("SELECT purpose, id, born, wrapped FROM keys").fetchall()
        entry_rows = connection.execute("SELECT purpose, tag, version, sealed FROM entries").fetchall()
    if mac(hkdf(master, b"palate/vault/check/1"), v)[:16] != check:
        raise ValueError("wrong key")
    ids, seals, hashes = {}, {}, {}
    for p, k, b, wrapped in key_rows:
        data_key = unbox(master, wrapped, framed(b"palate/vault/key/1", v, p.encode(), k, u64(b)))
        ids[p], seals[p], hashes[p] = k, hkdf(data_key, b"palate/vault/seal/1"), hkdf(data_key, b"palate/vault/hash/1")
    found, total = {}, 0
    for p, t, n, sealed in entry_rows:
        plain = unbox(seals[p], sealed, framed(b"palate/vault/entry/1", v, p.encode(), ids[p], t, u64(n)))
        size = int.from_bytes(plain[:4], "big")
        name, rest = plain[4 : 4 + size], plain[4 + size :]
        length = int.from_bytes(rest[:4], "big")
        value, zeros = rest[4 : 4 + length], rest[4 + length :]
        if len(plain) % 256 or len(zeros) > 255 or any(zeros):
            raise ValueError("padding")
        if mac(hashes[p], framed(b"palate/vault/name/1", name)) != t:
            raise ValueError("name")
        found[p, name.decode()] = value
        total += int.from_bytes(mac(hashes["vault"], framed(b"palate/vault/entry-row/1", p.encode(), t, u64(n))), "big")
    for p, k, b, _ in key_rows:
        total += int.from_bytes(mac(hashes["vault"], framed(b"palate/vault/key-row/1", p.encode(), k, u64(b))), "big")
    state = unbox(seals["vault"], state_box, framed(b"palate/vault/state/1", v, b"vault", ids["vault"]))
    if state[8:] != u64(len(entry_rows)) + (total % 2**256).to_bytes(32, "big"):
        raise ValueError("sum")
    if any(n > int.from_bytes(state[:8], "big") for _, _, n, _ in entry_rows):
        raise ValueError("version")
    return found


# The end of the second reader.


def _rebuild(folder: Path, vector: dict) -> None:
    """Make the files of a vector."""
    folder.mkdir(mode=0o700)
    with closing(schema.connect(folder / "vault.db")) as connection:
        schema.create(connection)
        for table, columns in TABLES.items():
            for row in vector["tables"][table]:
                values = [bytes.fromhex(row[c]["hex"]) if isinstance(row[c], dict) else row[c] for c in columns]
                connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(values))})", values)
    (folder / "vault.key").touch(mode=0o600)
    (folder / "vault.key").write_text(vector["key_file"], "ascii")


def _contents(vector: dict) -> dict[tuple[str, str], bytes]:
    return {(entry["purpose"], entry["name"]): bytes.fromhex(entry["value"]) for entry in vector["contents"]}


def test_the_vector_reads_as_it_says_by_both_readers(folder):
    vector = _load("vault.json")
    _rebuild(folder, vector)
    assert len(_contents(vector)) == 4
    assert read_by_hand(folder / "vault.db", vector["key_file"]) == _contents(vector)
    with Vault.open(folder) as vault:
        read = {(p.name, name): value for p in (HISTORY, PROFILE) for name, value in vault.entries(p).items()}
        assert read == _contents(vector)
        assert verified(vault) == 4
        assert vault._load_state().version == vector["version"]


@pytest.mark.parametrize("case", _load("vault.json")["invalid"], ids=lambda case: case["why"])
def test_a_vector_with_one_fault_is_refused_by_both_readers(folder, case):
    vector = _load("vault.json")
    assert vector["tables"][case["table"]][case["row"]][case["column"]] != case["value"]
    vector["tables"][case["table"]][case["row"]][case["column"]] = case["value"]
    _rebuild(folder, vector)
    with pytest.raises((ValueError, InvalidTag)):
        read_by_hand(folder / "vault.db", vector["key_file"])
    with pytest.raises(getattr(errors, case["error"])), Vault.open(folder) as vault:
        verified(vault)


def test_the_second_reader_reads_what_a_vault_writes_today(vault, folder):
    expected = {}
    for number in range(20):
        purpose = (HISTORY, PROFILE)[number % 2]
        vault.put(purpose, f"name {number}", bytes([number]) * number**3)
        expected[purpose.name, f"name {number}"] = bytes([number]) * number**3
    vault.rotate(PROFILE)
    vault.delete(HISTORY, "name 4")
    del expected["history", "name 4"]
    vault.close()
    assert read_by_hand(folder / "vault.db", (folder / "vault.key").read_text("ascii")) == expected


def test_the_tombstone_vector_reads_as_it_says_and_is_signed_as_documented():
    vector = _load("vault-tombstone.json")
    data = vector["text"].encode("ascii")
    stone = tombstone.parse(data)
    assert stone.spent_nano("user", "zero-out") == vector["spent_nano"]["user"]
    assert stone.previous == hashlib.sha256(vector["previous"].encode("ascii")).digest()
    assert tombstone.parse(vector["previous"].encode("ascii")).previous == b""
    signed, last = data[: data.rindex(b'{"signature"')], data[data.rindex(b'{"signature"') :]
    signature = bytes.fromhex(json.loads(last)["signature"])
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(json.loads(signed.split(b"\n")[0])["key"]))
    key.verify(signature, framed(b"palate/vault/tombstone/1", signed))
    with pytest.raises(InvalidSignature):
        key.verify(signature, signed)


@pytest.mark.parametrize("case", _load("vault-tombstone.json")["invalid"], ids=lambda case: case["why"])
def test_a_tombstone_with_one_fault_is_refused(case):
    with pytest.raises(errors.VaultTampered):
        tombstone.parse(case["text"].encode("ascii"))


def _write() -> None:
    counter = itertools.count()

    def words(size: int) -> bytes:
        return hashlib.shake_128(b"palate vault vector %d" % next(counter)).digest(size)

    with tempfile.TemporaryDirectory() as top, mock.patch("os.urandom", words):
        folder = Path(top) / "device"
        with Vault.create(folder, keyring="file") as vault:
            vault.put(HISTORY, "block-000000", b'{"0":{"item":"film-1","source":"hand","time":null,"value":4.5}}')
            vault.put(PROFILE, "interests", b'{"western":0.5}')
            vault.rotate(HISTORY)
            vault.put(PROFILE, "interests", b'{"western":0.75}')
            vault.put(HISTORY, "größe", b"")
            vault.put(PROFILE, "long", bytes(range(256)))
            version = vault._load_state().version
            contents = [
                {"purpose": p.name, "name": name, "value": value.hex()}
                for p in (HISTORY, PROFILE)
                for name, value in vault.entries(p).items()
            ]
        key_file = (folder / "vault.key").read_text("ascii")
        with closing(sqlite3.connect(folder / "vault.db")) as connection:
            tables = {
                table: [
                    {c: {"hex": x.hex()} if isinstance(x, bytes) else x for c, x in zip(columns, row, strict=True)}
                    for row in connection.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY 1, 2")
                ]
                for table, columns in TABLES.items()
            }
    vector = {
        "description": "A vault: its key file, the rows of vault.db, and what they hold. Bytes are hexadecimal.",
        "key_file": key_file,
        "tables": tables,
        "version": version,
        "contents": contents,
        "invalid": _faults(tables),
    }
    (VECTORS / "vault.json").write_text(json.dumps(vector, indent=1, ensure_ascii=False) + "\n", "utf-8")
    (VECTORS / "vault-tombstone.json").write_text(json.dumps(_tombstones(), indent=1) + "\n", "utf-8")


def _faults(tables: dict) -> list[dict]:
    first, second = tables["entries"][:2]

    def flipped(box: dict) -> dict:
        return {"hex": box["hex"][:-1] + format(int(box["hex"][-1], 16) ^ 1, "x")}

    def fault(why: str, table: str, row: int, column: str, value: object, error: str = "VaultTampered") -> dict:
        return {"why": why, "table": table, "row": row, "column": column, "value": value, "error": error}

    return [
        fault("a bit of a box", "entries", 0, "sealed", flipped(first["sealed"])),
        fault("the box of another entry", "entries", 0, "sealed", second["sealed"]),
        fault("another version", "entries", 0, "version", first["version"] + 1),
        fault("another tag", "entries", 0, "tag", flipped(first["tag"])),
        fault("another purpose", "entries", 0, "purpose", "profile"),
        fault("another birth of a key", "keys", 0, "born", tables["keys"][0]["born"] + 1),
        fault("the id of another key", "keys", 0, "id", tables["keys"][1]["id"]),
        fault("a bit of a wrapped key", "keys", 0, "wrapped", flipped(tables["keys"][0]["wrapped"])),
        fault("a bit of the state", "vault", 0, "state", flipped(tables["vault"][0]["state"])),
        fault("another vault's id", "vault", 0, "id", {"hex": "00" * 16}, "WrongKey"),
        fault("another check of the master key", "vault", 0, "master", {"hex": "00" * 16}, "WrongKey"),
    ]


def _tombstones() -> dict:
    first_key, second_key = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2))
    first = tombstone.engrave(bytes(range(16)), {("user", "zero-out"): 1_250_000_000}, first_key, None)
    spent = {("user", "zero-out"): 5, ("interaction", "zero-out"): 70}
    text = tombstone.engrave(bytes(range(16, 32)), spent, second_key, first).to_bytes().decode("ascii")
    head, *middle, signature, _ = text.split("\n")
    unsigned = "\n".join([head, *middle, '{"signature":""}', ""])
    return {
        "description": "The tombstone of a second vault, after one of a first. Ed25519 seeds 0101... and 0202...",
        "previous": first.to_bytes().decode("ascii"),
        "text": text,
        "spent_nano": {"user": 1_250_000_005, "interaction": 70},
        "invalid": [
            {"why": "less was spent", "text": text.replace("1250000005", "1250000004")},
            {"why": "a unit is missing", "text": "\n".join([head, middle[1], signature, ""])},
            {"why": "units in another order", "text": "\n".join([head, *reversed(middle), signature, ""])},
            {"why": "a unit twice", "text": "\n".join([head, middle[0], *middle, signature, ""])},
            {"why": "no signature for its key", "text": unsigned},
            {"why": "no newline at the end", "text": text[:-1]},
            {"why": "white space", "text": text.replace(",", ", ", 1)},
            {"why": "another format", "text": text.replace("palate-tombstone/1", "palate-tombstone/2")},
        ],
    }


if __name__ == "__main__":
    _write()
