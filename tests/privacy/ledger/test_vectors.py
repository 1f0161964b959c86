"""Fixed vectors: the formats as another implementation would read them, each with a case that must fail.

Hashes of the ledger are recomputed here from docs/formats/ledger.md with hashlib alone. When the format changes, run
this file as a program: it writes ledger.json and receipt.json anew from their seeds, events and salt.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from palate.privacy.ledger import body as bodies
from palate.privacy.ledger import chain, merkle
from palate.privacy.ledger.anchors import Anchor, Receipt, anchor_from_receipt, open_receipt
from palate.privacy.ledger.chain import Record, Seal
from palate.privacy.ledger.checkpoint import TreeHead, open_checkpoint
from palate.privacy.ledger.errors import BadNote, BadProof, BadReceipt, Tampered
from palate.privacy.ledger.export import from_text, to_text
from palate.privacy.ledger.note import Note, NoteKey
from palate.privacy.ledger.verify import verify_records

VECTORS = Path(__file__).parents[2] / "vectors" / "ledger"


def _load(name: str) -> dict:
    return json.loads((VECTORS / name).read_text("utf-8"))


def _ledger_vector(seed: bytes) -> dict:
    """The whole of ledger.json: four entries, the second sealed between two entries of other ledgers."""
    signer = Ed25519PrivateKey.from_private_bytes(seed)
    key = signer.public_key()
    run = {"run": "run-1", "round": 1}
    model, offer, sent, receipt, root = map(bodies.hash_text, (b"model", b"offer", b"masked", b"receipt", b"root"))
    events: list[bodies.Event] = [
        bodies.Policy(unit="user", adjacency="zero-out", delta="1e-5", budget_nano=10**9, n_min=50),
        bodies.Intent(
            **run, mechanism="user", unit="user", adjacency="zero-out", clip_int=4096, sum_var_int=8192**2 - 1,
            m_honest=60, n1=100, sampling="none-claimed", model=model, transcript=offer,
        ),
        bodies.Outcome(**run, status="released", payload=sent, receipt=receipt),
        bodies.Checkpoint(**run, origin="example.org/log", tree_size=1, root=root, receipt=""),
    ]  # fmt: skip
    head = genesis = chain.genesis("device", key)
    records, hashes, roots = [], [], []
    for seq, event in enumerate(events, start=1):
        body = bodies.encode(event, seq)
        head = chain.entry_hash(head, body)
        others = [sha256(b"entry of ledger %d" % number).digest() for number in (0, 2)]
        batch, index = ([others[0], head, others[1]], 1) if seq == 2 else ([head], 0)
        path = tuple(merkle.MerkleTree(batch).inclusion_proof(index))
        records.append(Record(body, Seal(len(batch), index, path, chain.sign_batch(signer, batch))))
        hashes.append(head.hex())
        roots.append(merkle.batch_root(batch).hex())
    lines = to_text("device", key, records).decode().splitlines()
    return {
        "description": "A ledger as text; its second entry was signed in a batch of three. "
        "Key: Ed25519 with the seed 000102...1f.",
        "seed": seed.hex(),
        "key": key.public_bytes_raw().hex(),
        "genesis": genesis.hex(),
        "hashes": hashes,
        "bodies": [record.body.decode() for record in records],
        "seal_roots": roots,
        "lines": lines,
        "invalid": [
            {
                "why": "n1 of the intent is 200 instead of 100",
                "error": "Tampered",
                "line": 2,
                "text": lines[2].replace('n1\\":100', 'n1\\":200'),
            }
        ],
    }


def _receipt_vector(seed: bytes, head: bytes) -> dict:
    """The whole of receipt.json: a receipt for the last entry of ledger.json."""
    signer, salt = Ed25519PrivateKey.from_private_bytes(seed), bytes(range(100, 132))
    anchor = Anchor("device", 4, head)
    survivors, total, model = (sha256(text).digest() for text in (b"survivors", b"sum", b"new model"))
    receipt = Receipt(
        run="run-1", round=1, commitment=anchor.commit(salt), survivors=survivors, total=total, model=model, log_index=1
    )
    text = receipt.sign(signer).decode()
    return {
        "description": "The commitment to a head and the server's receipt for it. "
        "Key: Ed25519 with the seed 000102...1f.",
        "key": signer.public_key().public_bytes_raw().hex(),
        "ledger": anchor.name,
        "seq": anchor.seq,
        "entry": head.hex(),
        "salt": salt.hex(),
        "commitment": anchor.commit(salt).hex(),
        "receipt": text,
        "invalid": [{"why": "log_index is 2 instead of 1", "receipt": text.replace('"log_index":1', '"log_index":2')}],
    }


def _made() -> dict[str, dict]:
    seed = bytes(range(32))
    ledger = _ledger_vector(seed)
    return {"ledger.json": ledger, "receipt.json": _receipt_vector(seed, bytes.fromhex(ledger["hashes"][-1]))}


def test_the_vectors_are_what_this_program_would_write():
    for name, vector in _made().items():
        assert _load(name) == vector


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


if __name__ == "__main__":
    for name, vector in _made().items():
        (VECTORS / name).write_text(json.dumps(vector, indent=1) + "\n", "utf-8")
