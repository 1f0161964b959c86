"""Words of b bits as bytes, without unused bits: planes of 32, 16, 8, 4, 2 and 1 bits, from the lowest bits up.

The binary expansion of b says which planes there are: 20 bits are a plane of 16 and one of 4. A plane holds its bits of
every word, in the order of the words; a plane of fewer than 8 bits fills each byte from its low end. So a vector of d
words has the fewest bytes, and a sum over many vectors adds each plane with a few vector instructions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np

from palate.models.arrays import UInt8Array, UInt64Array
from palate.privacy.aggregators.errors import CollectionError
from palate.privacy.integer.ring import RingArray

_WIDTHS = (32, 16, 8, 4, 2, 1)
_MAX_BITS = 63


def plane_widths(bits: int) -> tuple[int, ...]:
    """Widths of the planes of b-bit words, widest first; they add up to b.

    Raises
    ------
    CollectionError
        If b is not between 2 and 63.
    """
    if not 2 <= bits <= _MAX_BITS:
        raise CollectionError(f"words of {bits} bits are not between 2 and {_MAX_BITS}", hint="let the plan choose")
    return tuple(width for width in _WIDTHS if bits & width)


def packed_size(length: int, bits: int) -> int:
    """Bytes of `length` words of `bits` bits: each plane ends on a byte."""
    return sum(_plane_size(length, width) for width in plane_widths(bits))


def pack(words: RingArray, bits: int) -> bytes:
    """Write words, uint32 or uint64 [d] below 2^bits, as planes."""
    parts, shift = [], 0
    values = words.astype(np.uint64, copy=False)
    for width in plane_widths(bits):
        plane = (values >> np.uint64(shift)) & np.uint64((1 << width) - 1)
        parts.append(_pack_plane(plane, width))
        shift += width
    return b"".join(parts)


def unpack(data: bytes, length: int, bits: int, *, strict: bool = True) -> RingArray:
    """Read `length` words that `pack` wrote: uint32 [d] up to 32 bits, uint64 above.

    Raises
    ------
    CollectionError
        If there are more or fewer bytes, or, where it is strict, bits behind the last word are set.
    """
    total = PlaneSum(length, bits)
    total.add(data)
    words = total.words()
    if strict and pack(words, bits) != data:
        raise CollectionError("bits behind the last word are set", hint="check what the peer sent")
    return words


class PlaneSum:
    """A sum of packed vectors modulo 2^b, plane by plane.

    Parameters
    ----------
    length, bits
        Words of every vector, and their bits.
    """

    def __init__(self, length: int, bits: int) -> None:
        self.length, self.bits = length, bits
        self._widths = plane_widths(bits)
        self._size = packed_size(length, bits)
        # [place of a word in its byte, byte]; 32 bits may wrap around where b has no more: 2^b divides 2^32
        self._sums = [
            np.zeros(
                (max(1, 8 // width), -(-length // max(1, 8 // width))), dtype=np.uint32 if bits <= 32 else np.uint64
            )
            for width in self._widths
        ]
        self.count = 0

    def add(self, data: bytes | memoryview) -> None:
        """Add one packed vector.

        Raises
        ------
        CollectionError
            If it has another size.
        """
        if len(data) != self._size:
            raise CollectionError(
                f"{len(data)} bytes are not {self.length} words of {self.bits} bits", hint="check what the peer sent"
            )
        raw = np.frombuffer(data, dtype=np.uint8)
        for sums, (width, plane) in zip(self._sums, self._planes(raw), strict=True):
            if width >= 8:
                np.add(sums[0], plane.view(f"<u{width // 8}"), out=sums[0], casting="unsafe")
            else:
                for place in range(8 // width):
                    np.add(
                        sums[place], (plane >> np.uint8(place * width)) & np.uint8((1 << width) - 1), out=sums[place]
                    )
        self.count += 1

    def words(self) -> RingArray:
        """Return the sum modulo 2^b: uint32 [d] up to 32 bits, uint64 above."""
        total = np.zeros(self.length, dtype=np.uint64)
        shift = 0
        for sums, width in zip(self._sums, self._widths, strict=True):
            plane = sums.T.reshape(-1)[: self.length].astype(np.uint64)  # words lie byte by byte, low bits first
            total += plane << np.uint64(shift)  # wraps modulo 2^64, of which 2^b is a divisor
            shift += width
        total &= np.uint64((1 << self.bits) - 1)
        return cast("RingArray", total.astype(np.uint32) if self.bits <= 32 else total)

    def _planes(self, raw: UInt8Array) -> Iterator[tuple[int, UInt8Array]]:
        start = 0
        for width in self._widths:
            stop = start + _plane_size(self.length, width)
            yield width, raw[start:stop]
            start = stop


def _plane_size(length: int, width: int) -> int:
    return -(-length * width // 8)


def _pack_plane(plane: UInt64Array, width: int) -> bytes:
    if width >= 8:
        return plane.astype(f"<u{width // 8}").tobytes()
    per_byte = 8 // width
    padded = np.zeros(-(-len(plane) // per_byte) * per_byte, dtype=np.uint8)
    padded[: len(plane)] = plane
    lanes = padded.reshape(-1, per_byte) << (np.arange(per_byte, dtype=np.uint8) * np.uint8(width))
    packed: UInt8Array = np.bitwise_or.reduce(lanes, axis=1).astype(np.uint8)
    return packed.tobytes()
