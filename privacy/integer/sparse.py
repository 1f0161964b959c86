"""Contributions that are mostly zeros: their other values alone are clipped, scaled and rounded.

A zero rounds to zero whatever its random lane is, because the dither is below 1, and adds nothing to a norm. So a
vector of a million values with a thousand that are not zero takes a thousand lanes of the device's stream, each from
its own place. The integers are those that `Quantiser.quantise` makes of the whole vector with the same key, bit for
bit. The noise is not sparse: it is drawn for every value of the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from palate.models.arrays import BoolArray, Float32Array, Int64Array
from palate.privacy.integer.csprng import Purpose, lanes_at
from palate.privacy.integer.quantise import Quantiser, dithered_floor, shortened, sums_of_squares


@dataclass(frozen=True, eq=False)
class SparseVectors:
    """Vectors without their zeros.

    Attributes
    ----------
    indptr
        int64 [n + 1]; vector k owns the entries ``indptr[k]:indptr[k + 1]``.
    places
        Place of each entry in its vector, ascending, int64 [N].
    values
        float32 [N], none of them zero.
    """

    indptr: Int64Array
    places: Int64Array
    values: Float32Array

    @staticmethod
    def of(indptr: Int64Array, places: Int64Array, values: Float32Array) -> SparseVectors:
        """Leave out the entries that are zero after all."""
        kept = values != 0.0
        if kept.all():
            return SparseVectors(indptr, places, values)
        before = np.concatenate([[0], np.cumsum(kept)])
        return SparseVectors(before[indptr], places[kept], values[kept])

    def clipped(self, clip_norm: float, *, scale: float = 1.0) -> SparseVectors:
        """Shorten each vector as `palate.privacy.integer.quantise.clip` does."""
        norms = np.repeat(np.sqrt(sums_of_squares(self.values, self.indptr)), np.diff(self.indptr))
        return SparseVectors.of(self.indptr, self.places, shortened(self.values, norms, clip_norm, scale=scale))

    def extended(self, tail: Float32Array, first_place: int) -> SparseVectors:
        """Put values behind each vector, float32 [n, k], at the places from `first_place` on."""
        count, width = tail.shape
        added = width * np.arange(count + 1)
        new = (self.indptr[1:, None] + added[:-1, None] + np.arange(width)).reshape(-1)
        old = np.ones(len(self.values) + tail.size, dtype=np.bool_)
        old[new] = False
        places, values = np.empty(len(old), dtype=np.int64), np.empty(len(old), dtype=np.float32)
        places[old], values[old] = self.places, self.values
        places[new], values[new] = np.tile(first_place + np.arange(width), count), tail.reshape(-1)
        return SparseVectors.of(self.indptr + added, places, values)


def quantise_sparse(
    vectors: SparseVectors, keys: Sequence[bytes], quantiser: Quantiser
) -> tuple[SparseVectors, BoolArray]:
    """Turn contributions into integers, and say which of them keep the bound of the sensitivity.

    Parameters
    ----------
    vectors
        Contributions that are mostly zeros (`MOSTLY_ZEROS`), finite; clipped here if they are not yet.
    keys
        Each device's key of the round, 32 bytes; only its rounding stream is used.
    quantiser
        Clip norm and sensitivity.

    Returns
    -------
    The integers as float32, and bool [n]: where it is false, `Quantiser.quantise` has to round the whole vector again.
    """
    scaled = vectors.clipped(quantiser.clip_norm, scale=quantiser.scale)
    lanes = lanes_at(keys, Purpose.ROUNDING, scaled.indptr, scaled.places)
    integers = dithered_floor(scaled.values, lanes, np.empty_like(scaled.values))
    fits = sums_of_squares(integers, scaled.indptr) <= quantiser.sensitivity**2
    return SparseVectors(scaled.indptr, scaled.places, integers), fits
