"""Ring vectors as bytes: little-endian values of ceil(b / 8) bytes each, without padding between them."""

from __future__ import annotations

from typing import cast

import numpy as np

from palate.privacy.integer.ring import Ring, RingArray
from palate.privacy.secagg.errors import MessageError, VectorRefused
from palate.privacy.secagg.offer import Offer


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
