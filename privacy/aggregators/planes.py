"""Words of b bits as bytes, without unused bits: planes of 32, 16, 8, 4, 2 and 1 bits, from the lowest bits up.

The binary expansion of b says which planes there are: 20 bits are a plane of 16 and one of 4. A plane holds its bits of
every word, in the order of the words; a plane of fewer than 8 bits fills each byte from its low end. So a vector of d
words has the fewest bytes, and a sum over many vectors adds each plane with a few vector instructions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np

from palate.models.arrays import UInt8Array
from palate.privacy.aggregators.errors import CollectionError
from palate.privacy.integer.ring import RingArray

_WIDTHS = (32, 16, 8, 4, 2, 1)
_MAX_BITS = 63
_ADDS_IN_A_BYTE = 17  # 17 words of 4 bits add up to 255 at most


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
    for width in plane_widths(bits):
        plane = np.right_shift(words, shift)
        parts.append(plane.astype(f"<u{width // 8}").tobytes() if width >= 8 else _packed(plane, width))
        shift += width
    return b"".join(parts)


def unpack(data: bytes, length: int, bits: int, *, strict: bool = True) -> RingArray:
    """Read `length` words that `pack` wrote: uint32 [d] up to 32 bits, uint64 above.

    Raises
    ------
    CollectionError
        If there are more or fewer bytes, or, where it is strict, bits behind the last word are set.
    """
    words = _zeros(length, bits)
    shift = 0
    for width, plane in _planes(data, length, bits):
        for place, part in enumerate(_lanes(plane, width)):
            into = words[place :: max(1, 8 // width)]
            into |= np.left_shift(part[: len(into)], shift, dtype=words.dtype)
        if strict and width < 8 and plane.size and int(plane[-1]) >> (width * (length % (8 // width)) or 8):
            raise CollectionError("bits behind the last word are set", hint="check what the peer sent")
        shift += width
    return words


class PlaneSum:
    """A sum of packed vectors modulo 2^b, plane by plane.

    Planes of fewer than 8 bits add up in bytes first, and are carried into wide words before a byte can overflow.

    Parameters
    ----------
    length, bits
        Words of every vector, and their bits.
    """

    def __init__(self, length: int, bits: int) -> None:
        self.length, self.bits = length, bits
        self._sums: list[list[RingArray]] = []  # by plane and place of a word in its byte
        self._bytes: list[list[UInt8Array]] = []  # the same, added since the last carry
        for width in plane_widths(bits):
            places = max(1, 8 // width)
            # 32 bits may wrap around where b has no more: 2^b divides 2^32
            self._sums.append([_zeros(-(-length // places), bits) for _ in range(places)])
            self._bytes.append([np.zeros(-(-length // places), dtype=np.uint8) for _ in range(places)])
        self._waiting = 0
        self.count = 0

    def add(self, data: bytes | memoryview) -> None:
        """Add one packed vector.

        Raises
        ------
        CollectionError
            If it has another size.
        """
        planes = _planes(data, self.length, self.bits)
        for (width, plane), sums, small in zip(planes, self._sums, self._bytes, strict=True):
            for place, part in enumerate(_lanes(plane, width)):
                into = sums[place] if width >= 8 else small[place]
                np.add(into, part, out=into, casting="unsafe")
        self.count += 1
        self._waiting += 1
        if self._waiting == _ADDS_IN_A_BYTE:
            self._carry()

    def words(self) -> RingArray:
        """Return the sum modulo 2^b: uint32 [d] up to 32 bits, uint64 above."""
        self._carry()
        total = _zeros(self.length, self.bits)
        shift = 0
        for width, sums in zip(plane_widths(self.bits), self._sums, strict=True):
            for place, part in enumerate(sums):
                into = total[place :: len(sums)]  # words lie byte by byte, low bits first
                into += np.left_shift(part[: len(into)], shift)  # wraps; 2^b divides the modulus
            shift += width

        return cast("RingArray", np.bitwise_and(total, (1 << self.bits) - 1))

    def _carry(self) -> None:
        for wide, small in zip(self._sums, self._bytes, strict=True):
            if len(small) > 1:
                for into, part in zip(wide, small, strict=True):
                    np.add(into, part, out=into, casting="unsafe")
                    part.fill(0)
        self._waiting = 0


def _zeros(length: int, bits: int) -> RingArray:
    return cast("RingArray", np.zeros(length, dtype=np.uint32 if bits <= 32 else np.uint64))


def _planes(data: bytes | memoryview, length: int, bits: int) -> Iterator[tuple[int, UInt8Array]]:
    """Yield the width of each plane and its bytes."""
    if len(data) != packed_size(length, bits):
        raise CollectionError(
            f"{len(data)} bytes are not {length} words of {bits} bits", hint="check what the peer sent"
        )
    raw = np.frombuffer(data, dtype=np.uint8)
    start = 0
    for width in plane_widths(bits):
        stop = start + _plane_size(length, width)
        yield width, raw[start:stop]
        start = stop


def _lanes(plane: UInt8Array, width: int) -> Iterator[RingArray | UInt8Array]:
    """Yield the words of a plane by their place in its bytes: one array from 8 bits on, 8 / width below."""
    if width >= 8:
        yield cast("RingArray", plane.view(f"<u{width // 8}"))
        return
    mask = np.uint8((1 << width) - 1)
    for shift in range(0, 8, width):
        yield (plane >> np.uint8(shift)) & mask


def _plane_size(length: int, width: int) -> int:
    return -(-length * width // 8)


def _packed(plane: RingArray, width: int) -> bytes:
    """Write the low `width` bits of each element, [d], from the low end of each byte on."""
    per_byte = 8 // width
    low = plane.astype(np.uint8) & np.uint8((1 << width) - 1)
    packed = np.zeros(-(-len(low) // per_byte), dtype=np.uint8)
    for place in range(per_byte):
        part = low[place::per_byte]
        packed[: len(part)] |= part << np.uint8(place * width)
    return packed.tobytes()
