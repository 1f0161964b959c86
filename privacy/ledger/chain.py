"""Entries of a ledger: each hash covers the one before, and a signature covers a batch of entries of many ledgers.

An Ed25519 signature is the most expensive part of an entry. A batch of entries, at most one a ledger, is therefore
signed once: over the RFC 6962 root of the entries' hashes. Each entry keeps its way to that root, so it is still
verified by itself. A device's own entry is a batch of one, with an empty way: the same format.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from palate.privacy.ledger import merkle
from palate.privacy.ledger.errors import BadProof, Tampered
from palate.privacy.ledger.framing import HASH_SIZE, LENGTH_SIZE, digest, framed, number

GENESIS_TAG = b"palate/ledger/genesis/1"
ENTRY_TAG = b"palate/ledger/entry/1"
SEAL_TAG = b"palate/ledger/seal/1"
MAX_NAME = 100

Columns = tuple[int, str, str | None, int | None]  # seq, kind, run, round

# Everything of the framed hash input that is the same in all entries; hashing is on the hot path of simulations.
_ENTRY_PREFIX = framed(ENTRY_TAG) + HASH_SIZE.to_bytes(LENGTH_SIZE, "big")


@dataclass(frozen=True)
class Seal:
    """A signature over a batch of entries, and one entry's inclusion proof.

    Attributes
    ----------
    size
        Entries in the batch.
    index
        Place of this entry in it, from 0.
    path
        RFC 6962 inclusion proof of the entry's hash.
    signature
        Ed25519, 64 bytes, over `seal_message`.
    """

    size: int
    index: int
    path: tuple[bytes, ...]
    signature: bytes


@dataclass(frozen=True)
class Record:
    """One entry as it is stored.

    Attributes
    ----------
    body
        Canonical JSON.
    seal
        The signature over it.
    columns, entry
        What a table repeats of the body, and its hash; None in a file that repeats nothing.
    """

    body: bytes
    seal: Seal
    columns: Columns | None = None
    entry: bytes | None = None


def check_name(name: str) -> None:
    """Refuse a name of a ledger that could not be written into a file's header.

    Raises
    ------
    Tampered
        If the name is empty, longer than `MAX_NAME`, or not printable ASCII.
    """
    if not (1 <= len(name) <= MAX_NAME and name.isascii() and name.isprintable()):
        raise Tampered(f"the name of a ledger must be 1 ... {MAX_NAME} printable ASCII characters")


def genesis(name: str, key: Ed25519PublicKey) -> bytes:
    """Hash before the first entry: binds the chain to the ledger's name and to the key that signs it."""
    return digest(GENESIS_TAG, name.encode("ascii"), key.public_bytes_raw())


def entry_hash(previous: bytes, body: bytes) -> bytes:
    """Hash of an entry: SHA-256 of the framed tag, previous hash and body, 32 bytes."""
    return sha256(_ENTRY_PREFIX + previous + len(body).to_bytes(LENGTH_SIZE, "big") + body).digest()


def seal_message(size: int, root: bytes) -> bytes:
    """Frame what is signed: the tag, the size of the batch and the Merkle root of its hashes."""
    return framed(SEAL_TAG, number(size), root)


def sign_batch(signer: Ed25519PrivateKey, hashes: Sequence[bytes]) -> bytes:
    """Sign the hashes of a batch, in order; 64 bytes."""
    return signer.sign(seal_message(len(hashes), merkle.batch_root(hashes)))


def verify_batch(key: Ed25519PublicKey, hashes: Sequence[bytes], signature: bytes) -> None:
    """Check a signature over all entries of a batch.

    Raises
    ------
    Tampered
        If this key did not sign these hashes in this order.
    """
    _verify(key, signature, len(hashes), merkle.batch_root(hashes))


def verify_seal(key: Ed25519PublicKey, entry: bytes, seal: Seal) -> None:
    """Check the signature over one entry's hash.

    Raises
    ------
    Tampered
        If the key did not sign a batch that holds this hash at the seal's place.
    """
    try:
        root = merkle.root_from_path(entry, seal.index, seal.size, seal.path)
    except BadProof as error:
        raise Tampered(f"the seal is malformed: {error.message}") from None
    _verify(key, seal.signature, seal.size, root)


def _verify(key: Ed25519PublicKey, signature: bytes, size: int, root: bytes) -> None:
    try:
        key.verify(signature, seal_message(size, root))
    except InvalidSignature:
        raise Tampered("the signature does not fit: the entry was edited, or another key signed it") from None
