"""Skellam noise from an exact table (Agarwal, Kairouz & Liu 2021): the difference of two Poisson variables.

With variance V its probabilities are ``P(k) = exp(-V) I_k(V)``, and the sum of independent shares with variances V_i
is Skellam with variance ``sum V_i``: a device that drops out removes only its own share.

Draws invert the cumulative distribution of ``|k|``, tabulated with 127 bits, and take the sign from one bit more:

- The table comes from the recurrence ``I_{k-1} = I_{k+1} + (2k/V) I_k`` run downwards (Miller's algorithm) in integer
  arithmetic. All terms are positive, so relative errors only add up: below 2^-160 for every entry.
- Probabilities beyond the cut sum to less than 2^-128 (Chernoff), and each of the table's thresholds is rounded down
  by less than 2^-127.
- A variance above `MAX_TABLE_VARIANCE` is divided among equal parts that are drawn and added: exact by closure.

Added up for one value, this stays below 2^-96 (`tests/privacy/integer/test_skellam.py`).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate

import numpy as np

from palate.models.arrays import Int64Array, UInt64Array
from palate.privacy.errors import PrivacyError
from palate.privacy.integer.csprng import Words

MAX_TABLE_VARIANCE = 1 << 28
MAX_VARIANCE = 1 << 40

_THRESHOLD_BITS = 127
_LOW_BITS = 64
_CUT_BITS = 128
_START_BITS = 300  # Miller's start: far enough out that the neglected part is below 2^-160 where the table begins
_WORKING_BITS = 192
_PMF_BITS = 224
_GUIDE_BITS = 16
_GUIDE_SHIFT = np.uint64(_THRESHOLD_BITS - _LOW_BITS - _GUIDE_BITS)
_STEPS = 3
_CHUNK = 1 << 15


def tail_cut(variance: float, bits: int) -> int:
    """Find a k with ``P(|X| >= k) <= 2^-bits``, by the Chernoff bound at ``t = asinh(k/V)``.

    ``P(|X| >= k) <= 2 exp(V (cosh t - 1) - t k)``.
    """
    needed = (bits + 1) * math.log(2.0)

    def exponent(k: int) -> float:
        return k * math.asinh(k / variance) - k * k / (math.hypot(k, variance) + variance)

    return 1 + bisect_left(range(1, 1 << 50), needed, key=exponent)


def half_pmf(variance: Fraction, cut: int) -> list[int]:
    """Integers proportional to ``P(0), P(1), ..., P(cut)``, each within ``2^-160 P(0)``."""
    above, here = 0, 1 << _WORKING_BITS
    weights = []
    for k in range(max(tail_cut(float(variance), _START_BITS), cut + 1), 0, -1):
        above, here = here, above + 2 * k * variance.denominator * here // variance.numerator
        if k <= cut + 1:
            weights.append(here)
    surplus = max(0, weights[-1].bit_length() - _PMF_BITS)
    return [weight >> surplus for weight in reversed(weights)]


@dataclass(frozen=True, eq=False)
class _Table:
    """Thresholds of ``|k|``: a draw is the number of thresholds that its 127-bit word has reached.

    `high` holds the upper 63 bits, with the end of the range as a sentinel; `before[i]` is `high[i - 1]`; `low` holds
    the lower 64 bits; `guide` gives for each 16-bit prefix where to start searching (Chen & Asau 1974).
    """

    high: UInt64Array
    before: UInt64Array
    low: UInt64Array
    guide: Int64Array

    def draw(self, stream: Words, count: int) -> Int64Array:
        """Draw values, int64 [count]."""
        words = stream.words(count)
        prefix = words >> np.uint64(1)
        index = self.guide[prefix >> _GUIDE_SHIFT]
        for _ in range(_STEPS):
            index += self.high[index] <= prefix
        late = np.flatnonzero(self.high[index] <= prefix)
        index[late] = np.searchsorted(self.high, prefix[late], side="right")
        for tie in np.flatnonzero(self.before[index] == prefix):
            index[tie] = self._settle(prefix[tie], stream)
        negative = -(words & np.uint64(1)).astype(np.int64)  # 0 or -1
        values: Int64Array = (index ^ negative) - negative
        return values

    def _settle(self, prefix: np.uint64, stream: Words) -> int:
        """Compare the lower 64 bits where the upper 63 are those of a threshold: about once in 2^45 draws."""
        first, last = np.searchsorted(self.high, prefix, "left"), np.searchsorted(self.high, prefix, "right")
        reached = self.low[first:last] <= stream.words(1)[0]
        return int(first) + int(np.count_nonzero(reached))


@lru_cache(maxsize=8)
def _table(variance: Fraction) -> _Table:
    cut = tail_cut(float(variance), _CUT_BITS)
    weights = half_pmf(variance, cut)
    cumulative = list(accumulate([weights[0], *(2 * weight for weight in weights[1:])]))
    # the last threshold is 2^127, which no word reaches
    packed = b"".join(((c << _THRESHOLD_BITS) // cumulative[-1]).to_bytes(16, "little") for c in cumulative)
    halves = np.frombuffer(packed, dtype="<u8").astype(np.uint64).reshape(-1, 2)  # [cut + 1, (low, high)]
    high = np.ascontiguousarray(halves[:, 1])
    starts = np.arange(1 << _GUIDE_BITS, dtype=np.uint64) << _GUIDE_SHIFT
    return _Table(
        high=high,
        before=np.concatenate([[np.iinfo(np.uint64).max], high[:-1]]).astype(np.uint64),
        low=np.ascontiguousarray(halves[:, 0]),
        guide=np.searchsorted(high, starts, side="right").astype(np.int64),
    )


@dataclass(frozen=True)
class SkellamSampler:
    """Draws integers with a symmetric Skellam distribution.

    Attributes
    ----------
    variance
        ``V``, of each value; each of the two Poisson variables has mean V/2.

    Raises
    ------
    PrivacyError
        If the variance is not between 1 and 2^40.
    """

    variance: int

    def __post_init__(self) -> None:
        if not 1 <= self.variance <= MAX_VARIANCE:
            raise PrivacyError(
                f"a noise variance of {self.variance} is not between 1 and {MAX_VARIANCE}",
                hint="choose another sensitivity or noise multiplier",
            )

    @property
    def parts(self) -> int:
        """Draws that are added up to one value."""
        return -(-self.variance // MAX_TABLE_VARIANCE)

    def draw(self, count: int, stream: Words) -> Int64Array:
        """Draw independent values, int64 [count].

        Parameters
        ----------
        count
            How many.
        stream
            Where the randomness comes from; a `WordStream` for anything that is released.
        """
        table = _table(Fraction(self.variance, self.parts))
        values = np.zeros(count, dtype=np.int64)
        for start in range(0, count, _CHUNK):
            chunk = values[start : start + _CHUNK]
            for _ in range(self.parts):
                chunk += table.draw(stream, len(chunk))
        return values


def draw_sum(share_variance: int, shares: int, count: int, stream: Words) -> Int64Array:
    """Draw the sum of some devices' noise in one go, exact by closure, int64 [count]; zeros for no shares."""
    together = max(1, MAX_VARIANCE // share_variance)  # shares that one sampler can draw
    total = np.zeros(count, dtype=np.int64)
    for start in range(0, shares, together):
        total += SkellamSampler(min(together, shares - start) * share_variance).draw(count, stream)
    return total
