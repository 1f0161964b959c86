"""Merkle hash tree with proofs of inclusion and consistency (RFC 6962, section 2.1; checks as RFC 9162, 2.1).

A few hashes prove to the holder of an older root that a leaf is in the newer tree, and that the newer tree extends the
older one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256

from palate.privacy.ledger.errors import BadProof
from palate.privacy.ledger.framing import HASH_SIZE

EMPTY_ROOT = sha256(b"").digest()
MAX_PROOF = 64  # a tree of 2^63 leaves needs no more


def leaf_hash(data: bytes) -> bytes:
    """Hash of one leaf: SHA-256(0x00 || data)."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node: SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


class MerkleTree:
    """A growing tree that keeps the hash of every complete subtree, so that a proof costs O(log n) hashes.

    Parameters
    ----------
    leaves
        Data of the first leaves.
    """

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        self._levels: list[list[bytes]] = [[]]  # [height][index]: root of the leaves index << height ...
        for data in leaves:
            self.append(data)

    def __len__(self) -> int:
        return len(self._levels[0])

    @staticmethod
    def of_hashes(hashes: Iterable[bytes]) -> MerkleTree:
        """Build a tree from the hashes of its leaves, 32 bytes each, if their data is not available."""
        tree = MerkleTree()
        for each in hashes:
            tree._append_hash(each)
        return tree

    def append(self, data: bytes) -> int:
        """Add a leaf and return its index."""
        return self._append_hash(leaf_hash(data))

    def _append_hash(self, carried: bytes) -> int:
        index, height = len(self), 0
        self._levels[0].append(carried)
        while len(self._levels[height]) % 2 == 0:
            carried = node_hash(self._levels[height][-2], carried)
            height += 1
            if height == len(self._levels):
                self._levels.append([])
            self._levels[height].append(carried)
        return index

    def root(self, size: int | None = None) -> bytes:
        """Root of the first `size` leaves, or of all, 32 bytes.

        Raises
        ------
        BadProof
            If the tree never had that size.
        """
        size = len(self) if size is None else size
        self._check_size(size)
        return self._subtree(0, size) if size else EMPTY_ROOT

    def inclusion_proof(self, index: int, size: int | None = None) -> list[bytes]:
        """PATH(index, D[size]): siblings of a leaf, from the leaf to the root.

        Raises
        ------
        BadProof
            If the leaf is not among the first `size`.
        """
        size = len(self) if size is None else size
        self._check_size(size)
        if not 0 <= index < size:
            raise BadProof(f"leaf {index} is not in a tree of {size} leaves")
        return self._path(index, 0, size)

    def consistency_proof(self, old_size: int, size: int | None = None) -> list[bytes]:
        """PROOF(old_size, D[size]): nodes that both roots are made of.

        Raises
        ------
        BadProof
            If old_size is larger than size, or the tree never had that size.
        """
        size = len(self) if size is None else size
        self._check_size(size)
        if not 0 <= old_size <= size:
            raise BadProof(f"a tree of {size} leaves never had {old_size}")
        return self._subproof(old_size, 0, size, complete=True) if old_size else []

    def _check_size(self, size: int) -> None:
        if not 0 <= size <= len(self):
            raise BadProof(f"a tree of {len(self)} leaves never had {size}")

    def _subtree(self, start: int, stop: int) -> bytes:
        width = stop - start
        if width & (width - 1) == 0 and start % width == 0:
            height = width.bit_length() - 1
            return self._levels[height][start >> height]
        middle = start + _split(width)
        return node_hash(self._subtree(start, middle), self._subtree(middle, stop))

    def _path(self, index: int, start: int, stop: int) -> list[bytes]:
        if stop - start == 1:
            return []
        middle = start + _split(stop - start)
        if index < middle:
            return [*self._path(index, start, middle), self._subtree(middle, stop)]
        return [*self._path(index, middle, stop), self._subtree(start, middle)]

    def _subproof(self, old_stop: int, start: int, stop: int, *, complete: bool) -> list[bytes]:
        if old_stop == stop:
            return [] if complete else [self._subtree(start, stop)]
        middle = start + _split(stop - start)
        if old_stop <= middle:
            return [*self._subproof(old_stop, start, middle, complete=complete), self._subtree(middle, stop)]
        return [*self._subproof(old_stop, middle, stop, complete=False), self._subtree(start, middle)]


def _split(width: int) -> int:
    """Find the largest power of two below width."""
    return 1 << ((width - 1).bit_length() - 1)


def batch_root(leaves: Sequence[bytes]) -> bytes:
    """Root of all leaves at once; the same as `MerkleTree(leaves).root()`, a few times faster."""
    level = [sha256(b"\x00" + data).digest() for data in leaves]
    if not level:
        return EMPTY_ROOT
    while len(level) > 1:
        paired = [sha256(b"\x01" + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=False)]
        # The last one of an odd level moves up unhashed: that is RFC 6962's split at a power of two.
        level = paired + level[2 * len(paired) :]
    return level[0]


def root_from_path(data: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """Root of the tree of `size` leaves that holds `data` at `index`, from the siblings `path`.

    Raises
    ------
    BadProof
        If the path has not the length that index and size call for.
    """
    if not 0 <= index < size:
        raise BadProof(f"leaf {index} is not in a tree of {size} leaves")
    _check_hashes(path)
    result = leaf_hash(data)
    for sibling, is_left in _way_up(index, size - 1, path, f"leaf {index} of {size}"):
        result = node_hash(sibling, result) if is_left else node_hash(result, sibling)
    return result


def _way_up(node: int, last: int, path: Sequence[bytes], what: str) -> Iterator[tuple[bytes, bool]]:
    """Walk from a node to the root: each sibling of a proof, and whether it stands to the left (RFC 9162, 2.1.3.2).

    `node` is the place of the node in its level, and `last` that of the last one there.
    """
    for sibling in path:
        if last == 0:
            raise BadProof(f"{len(path)} hashes are too many for {what}")
        is_left = bool(node & 1) or node == last
        yield sibling, is_left
        if is_left:
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        node, last = node >> 1, last >> 1
    if last != 0:
        raise BadProof(f"{len(path)} hashes are too few for {what}")


def verify_inclusion(data: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Check that a leaf is in a tree.

    Raises
    ------
    BadProof
        If the path does not lead from the leaf to the root.
    """
    if root_from_path(data, index, size, path) != root:
        raise BadProof(f"leaf {index} is not in the tree of {size} leaves with this root")


def verify_consistency(old_size: int, size: int, old_root: bytes, root: bytes, proof: Sequence[bytes]) -> None:
    """Check that a tree extends an older one.

    Raises
    ------
    BadProof
        If the proof does not connect both roots.
    """
    if not 0 <= old_size <= size:
        raise BadProof(f"a tree of {size} leaves cannot extend one of {old_size}")
    _check_hashes(proof)
    if old_size in (0, size):
        expected = root if old_size else EMPTY_ROOT
        if proof or old_root != expected:
            raise BadProof(f"trees of {old_size} and {size} leaves need no proof, and these roots do not fit")
        return
    # A complete old tree is a node of the new one: its root starts the walk and is left out of the proof.
    nodes = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    if not nodes:
        raise BadProof(f"an empty proof does not connect {old_size} and {size} leaves")
    node, last = old_size - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old_result = result = nodes[0]
    for sibling, is_left in _way_up(node, last, nodes[1:], f"{old_size} and {size} leaves"):
        if is_left:
            old_result = node_hash(sibling, old_result)
        result = node_hash(sibling, result) if is_left else node_hash(result, sibling)
    if old_result != old_root or result != root:
        raise BadProof(f"the tree of {size} leaves does not extend the one of {old_size} with this root")


def _check_hashes(hashes: Sequence[bytes]) -> None:
    if len(hashes) > MAX_PROOF:
        raise BadProof(f"{len(hashes)} hashes in a proof, at most {MAX_PROOF} are accepted")
    if any(len(value) != HASH_SIZE for value in hashes):
        raise BadProof(f"a hash in the proof is not {HASH_SIZE} bytes long")
