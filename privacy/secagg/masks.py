"""Keys that two devices agree on, and the masks that cancel in the sum (Bonawitz et al. 2017, section 4).

X25519 (RFC 7748) and HKDF-SHA-256 (RFC 5869), salted with the round's context and the roster's root, so that a key is
of one round and one roster only. Masks are AES-256 in counter mode; shares travel under AES-256-GCM. Ring vectors
travel as little-endian values of ceil(b / 8) bytes each, without padding between them.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from palate.privacy.integer.ring import Ring, RingArray
from palate.privacy.ledger.framing import digest, framed, number
from palate.privacy.secagg.encoding import KEY_SIZE
from palate.privacy.secagg.errors import MessageError, VectorRefused
from palate.privacy.secagg.offer import Offer
from palate.privacy.secagg.shamir import SHARE_SIZE

SEALED_SIZE = 2 * SHARE_SIZE + 16
"""A share of the self mask's seed, one of the mask key, and the tag."""

_SEAL, _PAIR, _SELF = b"palate secagg seal v1", b"palate secagg pair mask v1", b"palate secagg self mask v1"
_COMMITMENT = b"palate secagg commitment v1"
_CHUNK = 1 << 17  # bytes; the keystream stays in the second-level cache
_ZEROS = memoryview(bytes(_CHUNK))


class PairKeys:
    """Derives the keys of one round and roster.

    Parameters
    ----------
    context, root
        Hash of the offer, root of the roster, 32 bytes each.
    """

    def __init__(self, context: bytes, root: bytes) -> None:
        self._salt = context + root

    def sealing(self, own: X25519PrivateKey, theirs: bytes, devices: tuple[int, int]) -> bytes:
        """Key under which two devices exchange shares, 32 bytes; ValueError if the other's key is of low order."""
        return self._derive(_agree(own, theirs), _SEAL, devices)

    def pair_mask(self, own: X25519PrivateKey, theirs: bytes, devices: tuple[int, int]) -> bytes:
        """Seed of the mask that one of two devices adds and the other subtracts, 32 bytes; ValueError as above."""
        return self._derive(_agree(own, theirs), _PAIR, devices)

    def self_mask(self, seed: bytes) -> bytes:
        """Seed of a device's self mask, 32 bytes, from its secret b."""
        return HKDF(hashes.SHA256(), KEY_SIZE, self._salt, framed(_SELF)).derive(seed)

    def _derive(self, secret: bytes, label: bytes, devices: tuple[int, int]) -> bytes:
        low, high = sorted(devices)
        return HKDF(hashes.SHA256(), KEY_SIZE, self._salt, framed(label, number(low), number(high))).derive(secret)


def commitment(context: bytes, seed: bytes) -> bytes:
    """H(b), by which the server recognises a reconstructed seed, 32 bytes."""
    return digest(_COMMITMENT, context, seed)


def add_mask(total: RingArray, key: bytes, *, subtract: bool = False) -> None:
    """Add the mask of a key to uint32 or uint64 [d] in place, or subtract it.

    Words are little-endian; the caller reduces modulo 2^b when all masks are in, because 2^b divides 2^32 and 2^64.
    """
    encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    words = np.empty(_CHUNK // total.itemsize, dtype=total.dtype.newbyteorder("<"))
    view = words.view(np.uint8).data
    apply = np.subtract if subtract else np.add
    for start in range(0, len(total), len(words)):
        part = total[start : start + len(words)]
        encryptor.update_into(_ZEROS[: part.nbytes], view[: part.nbytes])
        apply(part, words[: len(part)], out=part)


def check_vector(vector: RingArray, offer: Offer) -> None:
    """Check that a vector is what the offer asks for.

    Raises
    ------
    VectorRefused
        If it is not uint32 (up to 32 bits) or uint64 [vector_length] with values below 2^ring_bits.
    """
    dtype = np.dtype(Ring(bits=offer.ring_bits).dtype)
    if not isinstance(vector, np.ndarray) or vector.dtype != dtype or vector.shape != (offer.vector_length,):
        found = f"{vector.dtype} {vector.shape}" if isinstance(vector, np.ndarray) else type(vector).__name__
        raise VectorRefused(f"the vector is {found}, not {dtype} ({offer.vector_length},)", hint="encode it first")
    if int(vector.max()) >> offer.ring_bits:
        raise VectorRefused(f"the vector holds values of more than {offer.ring_bits} bits", hint="reduce it first")


def reduced(vector: RingArray, bits: int) -> RingArray:
    """Reduce modulo 2^bits, [d] to a new array [d]."""
    return vector & vector.dtype.type((1 << bits) - 1)


def pack(vector: RingArray, word_bytes: int) -> bytes:
    """Write values, [d] to d * word_bytes bytes."""
    lanes = np.ascontiguousarray(vector, dtype=vector.dtype.newbyteorder("<")).view(np.uint8)
    return lanes.reshape(len(vector), -1)[:, :word_bytes].tobytes()  # [d, word_bytes]


def unpack(words: bytes, offer: Offer) -> RingArray:
    """Read what `pack` wrote under an offer, ring elements [vector_length].

    Raises
    ------
    MessageError
        If there are more or fewer values, or one has more than ring_bits bits.
    """
    if len(words) != offer.vector_length * offer.word_bytes:
        raise MessageError(
            f"{len(words)} bytes are not {offer.vector_length} values of {offer.word_bytes}", hint="check the device"
        )
    native = Ring(bits=offer.ring_bits).dtype
    little = np.dtype(native).newbyteorder("<")
    lanes = np.frombuffer(words, dtype=np.uint8).reshape(-1, offer.word_bytes)
    if offer.word_bytes < little.itemsize:
        padded = np.zeros((offer.vector_length, little.itemsize), dtype=np.uint8)
        padded[:, : offer.word_bytes] = lanes
        lanes = padded
    vector = cast("RingArray", lanes.reshape(-1).view(little).astype(native, copy=False))
    if int(vector.max()) >> offer.ring_bits:
        raise MessageError(f"a masked value has more than {offer.ring_bits} bits", hint="check the device")
    return vector


def seal(key: bytes, sender: int, receiver: int, shares: bytes) -> bytes:
    """Encrypt two shares for a peer, 82 bytes.

    The key is of this pair and round, and seals once in each direction; the sender's number in the nonce tells the
    directions apart.
    """
    return AESGCM(key).encrypt(_nonce(sender), shares, _addresses(sender, receiver))


def unseal(key: bytes, sender: int, receiver: int, sealed: bytes) -> bytes | None:
    """Decrypt what a peer sealed for this device, 66 bytes; None if it is anything else."""
    try:
        return AESGCM(key).decrypt(_nonce(sender), sealed, _addresses(sender, receiver))
    except InvalidTag:
        return None


def has_low_order(public_key: bytes) -> bool:
    """Whether every key agreement with an X25519 key gives zero (RFC 7748, section 6.1)."""
    try:
        _agree(_PROBE, public_key)
    except ValueError:
        return True
    return False


def _agree(own: X25519PrivateKey, theirs: bytes) -> bytes:
    return own.exchange(X25519PublicKey.from_public_bytes(theirs))


def _nonce(sender: int) -> bytes:
    return bytes(4) + number(sender)


def _addresses(sender: int, receiver: int) -> bytes:
    return framed(_SEAL, number(sender), number(receiver))


_PROBE = X25519PrivateKey.from_private_bytes(bytes(range(KEY_SIZE)))  # no secret: any scalar finds low order
