"""Unpredictable random words: AES-256 in counter mode (NIST SP 800-38A) under a key of one round.

Rounding and noise take their words from separate streams of the same key, so that neither depends on how many words
the other has used.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from typing import Protocol

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from palate.models.arrays import Int64Array, UInt16Array, UInt64Array
from palate.privacy.errors import PrivacyError

KEY_BYTES = 32

_BLOCK_BYTES = 16
_LANE_BITS = 3  # a block holds 2^3 lanes


class Purpose(IntEnum):
    """Purpose of a stream; the upper half of its counter block."""

    ROUNDING = 1
    NOISE = 2


class Words(Protocol):
    """A source of uniform 64-bit words."""

    def words(self, count: int) -> UInt64Array:
        """Return the next `count` words, uint64 [count]."""
        ...


class WordStream:
    """Uniform 64-bit words from AES-256-CTR.

    Parameters
    ----------
    key
        32 secret bytes. A device takes them from the operating system, afresh for every round (`WordStream.fresh`).
    purpose
        Which of the key's streams this is.

    Raises
    ------
    PrivacyError
        If the key has another length.
    """

    def __init__(self, key: bytes, purpose: Purpose) -> None:
        if len(key) != KEY_BYTES:
            raise PrivacyError(f"a stream's key has {KEY_BYTES} bytes, not {len(key)}", hint="use WordStream.fresh")
        first_block = int(purpose).to_bytes(8, "big") + bytes(8)
        self._purpose = purpose
        self._encryptor = Cipher(algorithms.AES(key), modes.CTR(first_block)).encryptor()

    @classmethod
    def fresh(cls, purpose: Purpose) -> WordStream:
        """Make a stream under a new key from the operating system."""
        return cls(os.urandom(KEY_BYTES), purpose)

    def __repr__(self) -> str:
        return f"WordStream({self._purpose.name.lower()}, <sealed>)"

    def words(self, count: int) -> UInt64Array:
        """Return the next `count` words, uint64 [count]."""
        keystream = self._encryptor.update(bytes(8 * count))
        return np.frombuffer(keystream, dtype="<u8").astype(np.uint64, copy=False)

    def lanes(self, count: int) -> UInt16Array:
        """Return `count` 16-bit lanes, writable, uint16 [count]: ``ceil(count / 4)`` words, lowest lane first."""
        padded = np.empty(padded_lanes(count), dtype="<u2")
        self.fill(padded)
        return padded[:count].astype(np.uint16, copy=False)

    def fill(self, lanes: UInt16Array) -> None:
        """Fill memory with the lanes that come next, little-endian uint16 [n], n a multiple of 4; as `lanes` does."""
        self._encryptor.update_into(_zeros(2 * len(lanes)), lanes.data.cast("B"))


def lanes_at(keys: Sequence[bytes], purpose: Purpose, indptr: Int64Array, places: Int64Array) -> UInt16Array:
    """Read single lanes of some keys' streams without making the lanes between them.

    Counter mode encrypts the number of each block by itself (SP 800-38A, 6.5), so a block can be made without those
    before it.

    Parameters
    ----------
    keys
        32 secret bytes each.
    purpose
        Which of each key's streams is read.
    indptr, places
        Key k's lanes are ``places[indptr[k]:indptr[k + 1]]``, counted from the beginning of its stream; int64 [n + 1]
        and int64 [N].

    Returns
    -------
    uint16 [N], those that `WordStream.lanes` gives at these places.
    """
    blocks = np.empty((len(places), 2), dtype=">u8")
    blocks[:, 0], blocks[:, 1] = int(purpose), places >> _LANE_BITS
    keystream = np.empty(_BLOCK_BYTES * (len(places) + 1), dtype=np.uint8)  # OpenSSL asks for a block more than it uses
    given, made = blocks.reshape(-1).view(np.uint8).data, keystream.data
    ends = (_BLOCK_BYTES * indptr).tolist()
    for key, start, stop in zip(keys, ends[:-1], ends[1:], strict=True):
        if start < stop:
            encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
            encryptor.update_into(given[start:stop], made[start:])
    lanes = np.arange(0, len(places) << _LANE_BITS, 1 << _LANE_BITS) + (places & ((1 << _LANE_BITS) - 1))
    return keystream.view("<u2").take(lanes).astype(np.uint16, copy=False)


def padded_lanes(count: int) -> int:
    """Return how many lanes the words hold that `count` lanes take."""
    return 4 * (-(-count // 4))


@lru_cache(maxsize=8)
def _zeros(size: int) -> bytes:
    return bytes(size)
