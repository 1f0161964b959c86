"""Fixed vectors: the formats as another implementation would read them, each with a case that must fail.

Hashes of the ledger are recomputed here from docs/formats/ledger.md with hashlib alone.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from palate.privacy.ledger import merkle
from palate.privacy.ledger.anchors import Anchor, anchor_from_receipt, open_receipt
from palate.privacy.ledger.checkpoint import TreeHead, open_checkpoint
from palate.privacy.ledger.errors import BadNote, BadProof, BadReceipt, Tampered
from palate.privacy.ledger.export import from_text
from palate.privacy.ledger.note import Note, NoteKey
from palate.privacy.ledger.verify import verify_records

VECTORS = Path(__file__).parents[2] / "vectors" / "ledger"


def _load(name: str) -> dict:
    return json.loads((VECTORS / name).read_text("utf-8"))


def _hashes(values: list[str]) -> list[bytes]:
    return [bytes.fromhex(value) for value in values]


def _framed(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


@pytest.fixture(scope="module")
def tree():
    vector = _load("merkle.json")
    return vector, merkle.MerkleTree(_hashes(vector["leaves"]))


def test_roots_are_those_of_certificate_transparency(tree):
    vector, grown = tree
    assert merkle.EMPTY_ROOT.hex() == vector["empty_root"]
    assert [grown.root(size).hex() for size in range(1, 9)] == vector["roots"]


def test_proofs_are_those_of_certificate_transparency(tree):
    vector, grown = tree
    leaves, roots = _hashes(vector["leaves"]), _hashes(vector["roots"])
    for case in vector["inclusion"]:
        index, size, path = case["index"], case["size"], _hashes(case["path"])
        assert grown.inclusion_proof(index, size) == path
        merkle.verify_inclusion(leaves[index], index, size, path, roots[size - 1])
    for case in vector["consistency"]:
        old, size, proof = case["old"], case["size"], _hashes(case["proof"])
        assert grown.consistency_proof(old, size) == proof
        merkle.verify_consistency(old, size, roots[old - 1], roots[size - 1], proof)


def test_wrong_proofs_fail(tree):
    vector, _ = tree
    leaves, roots = _hashes(vector["leaves"]), _hashes(vector["roots"])
    for case in vector["inclusion_invalid"]:
        index, size = case["index"], case["size"]
        with pytest.raises(BadProof):
            merkle.verify_inclusion(leaves[index], index, size, _hashes(case["path"]), roots[size - 1])
    for case in vector["consistency_invalid"]:
        old, size = case["old"], case["size"]
        with pytest.raises(BadProof):
            merkle.verify_consistency(old, size, roots[old - 1], roots[size - 1], _hashes(case["proof"]))


def test_the_ledger_verifies_and_its_hashes_follow_from_the_format():
    vector = _load("ledger.json")
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(vector["seed"])).public_key()
    assert key.public_bytes_raw().hex() == vector["key"]
    name, records = from_text("".join(line + "\n" for line in vector["lines"]).encode(), key)
    verified = verify_records(name, records, key)
    assert [entry.hex() for entry in verified.hashes] == vector["hashes"]
    assert [record.body.decode() for record in records] == vector["bodies"]

    previous = sha256(_framed(b"palate/ledger/genesis/1", b"device", key.public_bytes_raw())).digest()
    assert previous.hex() == vector["genesis"]
    for body, entry, root, record in zip(
        vector["bodies"], vector["hashes"], vector["seal_roots"], records, strict=True
    ):
        previous = sha256(_framed(b"palate/ledger/entry/1", previous, body.encode())).digest()
        assert previous.hex() == entry
        size = record.seal.size.to_bytes(8, "big")
        key.verify(record.seal.signature, _framed(b"palate/ledger/seal/1", size, bytes.fromhex(root)))
        if record.seal.size == 1:
            assert sha256(b"\x00" + previous).hexdigest() == root


def test_the_edited_ledger_fails():
    vector = _load("ledger.json")
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(vector["key"]))
    for case in vector["invalid"]:
        lines = list(vector["lines"])
        assert lines[case["line"]] != case["text"]
        lines[case["line"]] = case["text"]
        name, records = from_text("".join(line + "\n" for line in lines).encode(), key)
        with pytest.raises(Tampered, match="entry 2"):
            verify_records(name, records, key)


def test_the_receipt_anchors_the_head():
    vector = _load("receipt.json")
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(vector["key"]))
    head = Anchor(vector["ledger"], vector["seq"], bytes.fromhex(vector["entry"]))
    salt = bytes.fromhex(vector["salt"])
    committed = sha256(_framed(b"palate/ledger/head/1", b"device", vector["seq"].to_bytes(8, "big"), head.entry, salt))
    assert head.commit(salt).hex() == vector["commitment"] == committed.hexdigest()
    assert anchor_from_receipt(vector["receipt"].encode(), key, head, salt) == head
    assert open_receipt(vector["receipt"].encode(), key).log_index == 1
    for case in vector["invalid"]:
        with pytest.raises(BadReceipt):
            open_receipt(case["receipt"].encode(), key)


def test_the_go_implementations_note_verifies():
    vector = _load("note.json")
    key = NoteKey.decode(vector["note"]["key"])
    note = Note.decode(vector["note"]["text"].encode())
    assert note.verified_by([key]) == (key,)
    assert note.encode().decode() == vector["note"]["text"]
    for case in vector["note_invalid"]:
        with pytest.raises(BadNote, match="was edited"):
            Note.decode(case["text"].encode()).verified_by([key])


def test_the_cosigned_checkpoint_verifies():
    vector = _load("note.json")
    log, witness = NoteKey.decode(vector["checkpoint"]["log"]), NoteKey.decode(vector["checkpoint"]["witness"])
    head = open_checkpoint(vector["checkpoint"]["text"].encode(), log, witnesses=[witness], quorum=1)
    assert head == TreeHead("example.org/palate", 8, bytes.fromhex(vector["checkpoint"]["root"]))
    for case in vector["checkpoint_invalid"]:
        with pytest.raises(BadNote):
            open_checkpoint(case["text"].encode(), log, witnesses=[witness], quorum=1)
