"""The public log: it only grows, survives a torn write, and has one leaf a round."""

from __future__ import annotations

from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.errors import RunError
from palate.privacy.ledger.checkpoint import open_checkpoint
from palate.privacy.ledger.merkle import MerkleTree, verify_consistency, verify_inclusion
from palate.privacy.ledger.note import NoteKey
from palate.server.fleet.transparency import TransparencyLog

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def hashes(number: int) -> dict[str, bytes]:
    return {name: bytes([number, len(name)] * 16) for name in ("survivors", "total", "model")}


def head_of(folder):
    return open_checkpoint((folder / "checkpoint").read_bytes(), NoteKey("f", KEY.public_key()))


def test_every_checkpoint_extends_the_one_before_and_holds_its_rounds(tmp_path):
    log, heads = TransparencyLog(tmp_path, "f", KEY), []
    for number in range(5):
        assert log.record("r", 2 * number, **hashes(number)) == number  # abandoned rounds have no leaf
        heads.append(head_of(tmp_path))
    leaves = (tmp_path / "leaves.jsonl").read_bytes().splitlines()
    tree = MerkleTree(leaves)
    for older, newer in pairwise(heads):
        proof = tree.consistency_proof(older.size, newer.size)
        verify_consistency(older.size, newer.size, older.root, newer.root, proof)
    for index, leaf in enumerate(leaves):
        verify_inclusion(leaf, index, 5, tree.inclusion_proof(index), heads[-1].root)


def test_a_round_is_recorded_once_and_with_one_sum(tmp_path):
    log = TransparencyLog(tmp_path, "f", KEY)
    log.record("r", 0, **hashes(0))
    again = TransparencyLog(tmp_path, "f", KEY)
    assert again.record("r", 0, **hashes(0)) == 0
    assert again.head.size == 1
    with pytest.raises(RunError, match="another sum"):
        again.record("r", 0, **hashes(1))


def test_a_torn_last_line_is_dropped_and_written_again(tmp_path):
    log = TransparencyLog(tmp_path, "f", KEY)
    for number in (0, 1):
        log.record("r", number, **hashes(number))
    whole = (tmp_path / "leaves.jsonl").read_bytes()
    (tmp_path / "leaves.jsonl").write_bytes(whole[:-20])
    again = TransparencyLog(tmp_path, "f", KEY)
    assert again.record("r", 1, **hashes(1)) == 1
    assert (tmp_path / "leaves.jsonl").read_bytes() == whole
    assert head_of(tmp_path) == log.head


def test_a_damaged_line_is_refused(tmp_path):
    log = TransparencyLog(tmp_path, "f", KEY)
    for number in (0, 1):
        log.record("r", number, **hashes(number))
    lines = (tmp_path / "leaves.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "leaves.jsonl").write_bytes(b"{}\n" + lines[1])
    with pytest.raises(RunError, match="line 1 is damaged"):
        TransparencyLog(tmp_path, "f", KEY)
