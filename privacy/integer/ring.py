"""Integers modulo 2^b, the elements of masked vectors (Bonawitz et al. 2017).

Sums wrap around; `centre` reads them back as signed numbers. An unintended wrap harms accuracy, never privacy:
reduction happens after the noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np

from palate.models.arrays import Int64Array, UInt32Array, UInt64Array
from palate.privacy.errors import PrivacyError

RingArray = UInt32Array | UInt64Array

_TAIL_DEVIATIONS = 12  # a Skellam sum passes 12 standard deviations less than once in 10^30 values
_MIN_BITS, _MAX_BITS = 2, 64


@dataclass(frozen=True, kw_only=True)
class Ring:
    """The ring of integers modulo ``2^bits``.

    Attributes
    ----------
    bits
        2 to 64. Elements are uint32 up to 32 bits, uint64 above.

    Raises
    ------
    PrivacyError
        If `bits` is outside its range.
    """

    bits: int = 32

    def __post_init__(self) -> None:
        if not _MIN_BITS <= self.bits <= _MAX_BITS:
            raise PrivacyError(
                f"a modulus of {self.bits} bits is not between {_MIN_BITS} and {_MAX_BITS}", hint="32 is ample"
            )

    @staticmethod
    def fewest_bits(*, devices: int, sensitivity: int, sum_variance: int) -> int:
        """Return the fewest bits that `require_room` accepts."""
        return _largest_sum(devices, sensitivity, sum_variance).bit_length() + 1

    @property
    def dtype(self) -> type[np.uint32] | type[np.uint64]:
        """Type of the elements."""
        return np.uint32 if self.bits <= 32 else np.uint64

    def zeros(self, count: int) -> RingArray:
        """Return the sum of no vectors, [count]."""
        return cast("RingArray", np.zeros(count, dtype=self.dtype))

    def reduce(self, values: Int64Array) -> RingArray:
        """Reduce signed integers, int64 [d], to elements of the ring, [d]."""
        return self._narrow(values.view(np.uint64))

    def add(self, left: RingArray, right: RingArray) -> RingArray:
        """Add elements, [d] each."""
        return self._narrow(left.astype(np.uint64) + right.astype(np.uint64))

    def centre(self, elements: RingArray) -> Int64Array:
        """Read elements as signed integers in ``[-2^(bits-1), 2^(bits-1))``, int64 [d]."""
        unused = np.uint64(_MAX_BITS - self.bits)
        lifted = elements.astype(np.uint64) << unused  # the sign bit goes to the top, and comes back with copies
        return lifted.view(np.int64) >> np.int64(unused)

    def require_room(self, *, devices: int, sensitivity: int, sum_variance: int) -> None:
        """Check that a sum cannot wrap around, even if one coordinate carries every contribution.

        Parameters
        ----------
        devices
            Most contributions in the sum.
        sensitivity
            Largest L2 norm ``S`` of a quantised contribution.
        sum_variance
            Variance of the noise in the sum.

        Raises
        ------
        PrivacyError
            If ``devices * S`` plus 12 standard deviations of the noise reaches ``2^(bits-1)``.
        """
        largest = _largest_sum(devices, sensitivity, sum_variance)
        if largest >= 1 << (self.bits - 1):
            needed = largest.bit_length() + 1
            raise PrivacyError(
                f"a sum of {devices} contributions may reach {largest}, a modulus of {self.bits} bits holds"
                f" {(1 << (self.bits - 1)) - 1}",
                hint=f"use {needed} bits or a smaller sensitivity",
            )

    def _narrow(self, values: UInt64Array) -> RingArray:
        reduced = values & np.uint64((1 << self.bits) - 1)
        return reduced.astype(np.uint32) if self.bits <= 32 else reduced


def _largest_sum(devices: int, sensitivity: int, sum_variance: int) -> int:
    return devices * sensitivity + _TAIL_DEVIATIONS * (math.isqrt(sum_variance) + 1)
