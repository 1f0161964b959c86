"""Merkle trees: every honest proof passes, and no other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.privacy.ledger import merkle
from palate.privacy.ledger.errors import BadProof

LEAVES = [b"leaf %d" % number for number in range(70)]
TREE = merkle.MerkleTree(LEAVES)


def _root(leaves: list[bytes]) -> bytes:
    """Merkle tree hash exactly as RFC 6962 defines it."""
    if not leaves:
        return merkle.EMPTY_ROOT
    if len(leaves) == 1:
        return merkle.leaf_hash(leaves[0])
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return merkle.node_hash(_root(leaves[:split]), _root(leaves[split:]))


@pytest.mark.parametrize("size", range(len(LEAVES) + 1))
def test_roots_follow_the_definition_however_they_are_computed(size: int):
    expected = _root(LEAVES[:size])
    assert TREE.root(size) == merkle.MerkleTree(LEAVES[:size]).root() == merkle.batch_root(LEAVES[:size]) == expected


def test_every_leaf_of_every_tree_has_a_proof_that_fits_nothing_else():
    for size in range(1, 18):
        root = TREE.root(size)
        for index in range(size):
            path = TREE.inclusion_proof(index, size)
            merkle.verify_inclusion(LEAVES[index], index, size, path, root)
            for wrong in set(range(size + 1)) - {index}:
                with pytest.raises(BadProof):
                    merkle.verify_inclusion(LEAVES[index], wrong, size, path, root)
            with pytest.raises(BadProof):
                merkle.verify_inclusion(LEAVES[index + 1], index, size, path, root)


def test_every_pair_of_sizes_has_a_proof_that_fits_no_other_root():
    for size in range(18):
        for old in range(size + 1):
            proof = TREE.consistency_proof(old, size)
            merkle.verify_consistency(old, size, TREE.root(old), TREE.root(size), proof)
            with pytest.raises(BadProof):
                merkle.verify_consistency(old, size, TREE.root(old + 1), TREE.root(size), proof)
            if old:  # the empty tree is consistent with any
                with pytest.raises(BadProof):
                    merkle.verify_consistency(old, size, TREE.root(old), TREE.root(size + 1), proof)


@given(st.data())
def test_any_changed_byte_of_a_proof_is_found(data: st.DataObject):
    size = data.draw(st.integers(2, len(LEAVES)))
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size - 1))
    root, old_root = TREE.root(size), TREE.root(old)
    for proof, verify in (
        (TREE.inclusion_proof(index, size), lambda p: merkle.verify_inclusion(LEAVES[index], index, size, p, root)),
        (TREE.consistency_proof(old, size), lambda p: merkle.verify_consistency(old, size, old_root, root, p)),
    ):
        verify(proof)
        joined = bytearray(b"".join(proof))
        joined[data.draw(st.integers(0, len(joined) - 1))] ^= data.draw(st.integers(1, 255))
        with pytest.raises(BadProof):
            verify([bytes(joined[start : start + 32]) for start in range(0, len(joined), 32)])
        for other in (proof[:-1], [*proof, proof[-1]], proof[1:], [b"", *proof], [hash_[:-1] for hash_ in proof]):
            with pytest.raises(BadProof):
                verify(other)


@given(st.integers(-5, 1 << 70), st.integers(-5, 1 << 70), st.lists(st.binary(min_size=31, max_size=33), max_size=70))
def test_made_up_proofs_end_in_a_named_error(first: int, second: int, proof: list[bytes]):
    with pytest.raises(BadProof):
        merkle.verify_inclusion(b"leaf", first, second, proof, bytes(32))
    with pytest.raises(BadProof):
        merkle.verify_consistency(first, second, bytes(32), bytes(31) + b"\x01", proof)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: TREE.root(71),
        lambda: TREE.root(-1),
        lambda: TREE.inclusion_proof(5, 5),
        lambda: TREE.inclusion_proof(-1),
        lambda: TREE.inclusion_proof(0, 71),
        lambda: TREE.consistency_proof(6, 5),
        lambda: TREE.consistency_proof(-1),
    ],
)
def test_a_tree_that_never_was_is_refused(ask):
    with pytest.raises(BadProof):
        ask()


def test_a_forked_log_cannot_prove_that_it_only_grew():
    forked = merkle.MerkleTree([*LEAVES[:30], b"other", *LEAVES[31:]])
    with pytest.raises(BadProof, match="does not extend"):
        merkle.verify_consistency(40, 70, TREE.root(40), forked.root(), forked.consistency_proof(40))
