"""From floats to noised integers with a sensitivity that is exact: clip, scale, round at random, check, add noise.

A clip in floating point bounds an L2 norm only up to rounding, and a norm in floating point is itself rounded. Privacy
does not depend on it: the exact bound is the check in integers.

The contribution is scaled to just below the integer bound S and rounded stochastically (Kairouz, Liu & Steinke 2021,
"conditional randomised rounding"). Where the squared norm of the integers passes S^2, computed without
rounding, the vector is rounded again, and in the end towards zero, which cannot lengthen it. So the L2 sensitivity
of what follows is S, whatever floating point did before.

A dither of 15 bits decides each rounding: the expected value of a result is the scaled value within
``2^-16 + |value| 2^-24`` of one integer step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from palate.models.arrays import BoolArray, Float32Array, Float64Array, Int64Array, UInt16Array
from palate.privacy.errors import PrivacyError
from palate.privacy.integer.csprng import Purpose, Words, WordStream
from palate.privacy.integer.ring import Ring, RingArray
from palate.privacy.integer.skellam import SkellamSampler, draw_sum

MAX_SENSITIVITY = 1 << 16
"""Above it float32 has too few bits left for the fraction."""
MAX_SIZE = 1 << 28
CLIP_NORMS = (1e-30, 1e30)
"""Range of clip norms: beyond it updates leave the range of float32."""

MOSTLY_ZEROS = 8
"""A vector is mostly zeros if less than one in so many of its values is another."""

_RETRIES = 8
_LANES_PER_WORD = 4
_LOG_INVERSE_BETA = 8.0  # a rounding is refused with probability at most e^-8
_SHRINK = np.float32(1.0 - 2.0**-10)
_DITHER_STEP = np.float32(2.0**-16)
_EXACT_FLOAT32 = 2.0**24
_BLOCK = 512
_SAFE_NORMS = (1e-12, 1e15)  # squares of such values neither vanish nor overflow in float32
_FLOAT32 = np.finfo(np.float32)


def l2_norms(values: Float32Array, *, full: bool = False) -> Float64Array:
    """L2 norms of vectors, float32 [n, d] to float64 [n]; each depends on its own vector only, to the last bit.

    Squares are summed in float32 by blocks and the blocks in float64: the relative error is below 2^-15. Where a vector
    is mostly zeros, its other values alone are summed, as `palate.privacy.integer.sparse` sums them; `full` says that
    none is, and spares the count.
    """
    whole = values.shape[1] - values.shape[1] % _BLOCK
    blocks, rest = values[:, :whole].reshape(len(values), -1, _BLOCK), values[:, whole:]
    with np.errstate(over="ignore", under="ignore"):
        squares = np.vecdot(blocks, blocks).sum(axis=1, dtype=np.float64) + np.vecdot(rest, rest)
    norms: Float64Array = np.sqrt(squares)
    unsafe = ~((norms > _SAFE_NORMS[0]) & (norms < _SAFE_NORMS[1]))
    if unsafe.any():
        wide = values[unsafe].astype(np.float64)
        norms[unsafe] = np.sqrt(np.vecdot(wide, wide))
    if not full and np.count_nonzero(values != 0.0) < values.size:
        counts = np.array([np.count_nonzero(row != 0.0) for row in values])
        for place in np.flatnonzero(MOSTLY_ZEROS * counts < values.shape[1]):
            row = values[place]
            norms[place] = np.sqrt(sums_of_squares(row[row != 0.0], np.array([0, counts[place]])))[0]
    return norms


def sums_of_squares(values: Float32Array, indptr: Int64Array) -> Float64Array:
    """Sum the squares of ``values[indptr[k]:indptr[k + 1]]`` in float64, float32 [N] to float64 [n].

    Each depends on its own values and their order only; of integers they are exact up to 2^53.
    """
    sums, filled = np.zeros(len(indptr) - 1), indptr[:-1] < indptr[1:]
    if filled.any():
        squares = np.multiply(values, values, dtype=np.float64)
        sums[filled] = np.add.reduceat(squares, indptr[:-1][filled])
    return sums


def require_finite(values: Float32Array) -> None:
    """Raise PrivacyError if a value is NaN or infinite: no bound would stop it."""
    if not np.isfinite(values).all():
        count = int(np.count_nonzero(~np.isfinite(values)))
        raise PrivacyError(
            f"the update holds {count} values that are not finite",
            hint="lower the learning rate; nothing has left the device",
        )


def clip(
    values: Float32Array,
    clip_norm: float,
    *,
    scale: float = 1.0,
    out: Float32Array | None = None,
    full: bool = False,
) -> Float32Array:
    """Shorten vectors to an L2 norm of at most `clip_norm` each, and multiply them by `scale`.

    Parameters
    ----------
    values
        Whole contributions of n people, finite, float32 [n, d].
    clip_norm
        Bound ``C``, in the units of `values`; positive.
    scale
        Unit of the result. What is within the bound is multiplied by it and not changed otherwise.
    out
        May receive the result; may be `values`.
    full
        Says that no vector is mostly zeros (`MOSTLY_ZEROS`): the result is the same, and faster.

    Returns
    -------
    float32 [n, d] with norms of at most ``scale * clip_norm (1 + 2^-14)``.
    """
    return shortened(values, l2_norms(values, full=full)[:, None], clip_norm, scale=scale, out=out)


def shortened(
    values: Float32Array, norms: Float64Array, clip_norm: float, *, scale: float = 1.0, out: Float32Array | None = None
) -> Float32Array:
    """Multiply values by what `clip` multiplies vectors of these norms by; norms float64, of a shape that fits."""
    factors = scale * (clip_norm / np.maximum(norms, clip_norm))
    if out is values and (factors == 1.0).all():
        return values
    extreme = (factors < _FLOAT32.tiny) | (factors > _FLOAT32.max)
    if not extreme.any():
        return np.multiply(values, factors.astype(np.float32), out=out)
    ordinary = np.where(extreme, 1.0, factors).astype(np.float32)
    result = np.empty_like(values) if out is None else out
    result[:] = np.where(extreme, values * factors, values * ordinary)  # float64: an extreme factor is no float32
    return result


def dithered_floor(scaled: Float32Array, lanes: UInt16Array, out: Float32Array) -> Float32Array:
    """Round stochastically: ``floor(x + u)`` with u one of the midpoints of 2^15 cells of [0, 1).

    Parameters
    ----------
    scaled
        Values in integer steps, float32 [n, d].
    lanes
        One random lane a value, uint16 [n, d]; their lowest bits are set.
    out
        Receives the integers, float32 [n, d]; must not be `scaled`.
    """
    lanes |= np.uint16(1)  # odd multiples of 2^-16 are the midpoints
    np.copyto(out, lanes)
    out *= _DITHER_STEP
    out += scaled
    return np.floor(out, out=out)


def squared_norms(integers: Float32Array) -> Float64Array:
    """Exact squared L2 norms of integers that are kept as float32, [n, d] to float64 [n]; NaN where one is NaN.

    A float32 sum of squares below 2^24 had only exact intermediate results; other blocks are summed as float64, where
    up to 2^53 the same holds.
    """
    whole = integers.shape[1] - integers.shape[1] % _BLOCK
    blocks, rest = integers[:, :whole].reshape(len(integers), -1, _BLOCK), integers[:, whole:].astype(np.float64)
    sums = np.vecdot(blocks, blocks).astype(np.float64)  # [n, blocks]
    heavy = sums >= _EXACT_FLOAT32
    if heavy.any():
        wide = blocks[heavy].astype(np.float64)
        sums[heavy] = np.vecdot(wide, wide)
    squares: Float64Array = sums.sum(axis=1) + np.vecdot(rest, rest)
    return squares


@dataclass(frozen=True, kw_only=True)
class Quantiser:
    """Turns one contribution into integers with L2 norm at most `sensitivity`.

    Attributes
    ----------
    clip_norm
        Bound ``C`` of the contribution, in its own units.
    sensitivity
        Bound ``S`` of the integers, at most 2^16.
    size
        Values in a contribution, ``d``.

    Raises
    ------
    PrivacyError
        If a bound is outside its range, or if S is too small for d: rounding alone would use it up.
    """

    clip_norm: float
    sensitivity: int
    size: int

    def __post_init__(self) -> None:
        if not CLIP_NORMS[0] <= self.clip_norm <= CLIP_NORMS[1]:
            raise PrivacyError(
                f"clip norm {self.clip_norm} is not between {CLIP_NORMS[0]} and {CLIP_NORMS[1]}",
                hint="measure it in the units of the update",
            )
        if not 0 < self.sensitivity <= MAX_SENSITIVITY:
            raise PrivacyError(
                f"sensitivity {self.sensitivity} is not between 1 and {MAX_SENSITIVITY}", hint="16384 suits most tables"
            )
        if not 0 < self.size <= MAX_SIZE:
            raise PrivacyError(f"{self.size} values are not between 1 and {MAX_SIZE}", hint="check the table's shape")
        if self.target < self.sensitivity / 2:
            raise PrivacyError(
                f"sensitivity {self.sensitivity} is too small for {self.size} values: rounding would use it up",
                hint=f"use at least {min(MAX_SENSITIVITY, 1 << (math.isqrt(self.size) + 8).bit_length())}",
            )

    @property
    def target(self) -> float:
        """Norm that a full contribution is scaled to, in integer steps; 0 if S is too small.

        The largest x with ``x^2 + d/4 + sqrt(2 log(1/beta)) (x + sqrt(d)/2) <= S^2``, which bounds the
        norm of a rounding with probability ``1 - beta`` (Kairouz et al. 2021, Theorem 1).
        """
        spread = math.sqrt(2.0 * _LOG_INVERSE_BETA)
        room = self.sensitivity**2 - self.size / 4.0 - spread * math.sqrt(self.size) / 2.0
        return max(0.0, (math.sqrt(max(0.0, spread**2 + 4.0 * room)) - spread) / 2.0)

    @property
    def scale(self) -> float:
        """Integer steps per unit of the contribution."""
        return self.target / self.clip_norm

    def scaled(self, values: Float32Array, out: Float32Array | None = None, *, full: bool = False) -> Float32Array:
        """Clip and scale contributions to integer steps, float32 [n, d] to [n, d]; `out` and `full` as in `clip`."""
        return clip(values, self.clip_norm, scale=self.scale, out=out, full=full)

    def fits(self, integers: Float32Array) -> BoolArray:
        """Which vectors of integers, kept as float32 [n, d], have a squared norm of at most S^2, bool [n]; exact."""
        return squared_norms(integers) <= self.sensitivity**2  # false for NaN: what is not a number never fits

    def quantise(self, values: Float32Array, rounding: WordStream) -> Int64Array:
        """Turn a contribution into integers.

        Parameters
        ----------
        values
            The contribution, float32 [d]; clipped here if it is not yet.
        rounding
            Stream that decides the roundings.

        Returns
        -------
        int64 [d] with L2 norm at most S.

        Raises
        ------
        PrivacyError
            If the shape or type is not as announced, or a value is not finite.
        """
        if values.shape != (self.size,) or values.dtype != np.float32:
            raise PrivacyError(
                f"the update is {values.dtype} {values.shape}, not float32 ({self.size},)",
                hint="flatten it in the order of the wire",
            )
        require_finite(values)
        scaled = self.scaled(values[None])  # [1, d]
        integers: Float32Array = np.empty_like(scaled)
        for _ in range(_RETRIES):
            dithered_floor(scaled, rounding.lanes(self.size)[None], integers)
            if self.fits(integers)[0]:
                return integers.reshape(-1).astype(np.int64)
        np.trunc(scaled, out=integers)
        while not self.fits(integers)[0]:  # only where float32 rounding has let the scaled vector pass S
            scaled *= _SHRINK
            np.trunc(scaled, out=integers)
        return integers.reshape(-1).astype(np.int64)

    def decode(self, integers: Int64Array) -> Float32Array:
        """Read integers, such as a sum of contributions, in the contribution's units, int64 [d] to float32 [d]."""
        return (integers / self.scale).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class IntegerMechanism:
    """What one device sends: its quantised contribution and its share of the noise, modulo 2^b.

    `encode` is the readable path in arrays. A device runs the same steps with Opacus doing the clipping, a simulation
    for many devices at once; both are tested against it.

    Attributes
    ----------
    quantiser
        Bounds a contribution by its sensitivity ``S``.
    share_variance
        Variance of one device's noise; m honest shares in a sum make a noise multiplier of
        ``sqrt(m * share_variance) / S``.
    ring
        What sums are taken in.

    Raises
    ------
    PrivacyError
        If the variance is not one that can be drawn.
    """

    quantiser: Quantiser
    share_variance: int
    ring: Ring = field(default_factory=Ring)

    def __post_init__(self) -> None:
        SkellamSampler(self.share_variance)  # refuse now what every round would refuse

    def noise(self, stream: Words, *, shares: int = 1) -> Int64Array:
        """Draw the sum of some devices' noise in one go, exact by closure, int64 [d]."""
        return draw_sum(self.share_variance, shares, self.quantiser.size, stream)

    def encode(self, values: Float32Array, *, rounding: WordStream, noise: WordStream) -> RingArray:
        """Return what a device with the contribution `values`, float32 [d], sends: ring elements [d].

        Raises
        ------
        PrivacyError
            If the contribution has another size or type, or is not finite.
        """
        return self.ring.reduce(self.quantiser.quantise(values, rounding) + self.noise(noise))

    def decode(self, total: RingArray) -> Float32Array:
        """Read a sum of what devices sent, in the contribution's units, ring elements [d] to float32 [d]."""
        return self.quantiser.decode(self.ring.centre(total))


def quantise_samples(samples: Float32Array, quantiser: Quantiser, key: bytes) -> Int64Array:
    """Turn each sample's contribution into integers by itself.

    The integers are those of `Quantiser.quantise` on one sample after the other with one stream of the key, so they do
    not depend on how many samples are worked on together.

    Parameters
    ----------
    samples
        Contributions in the compact space, float32 [N, size]; clipped here if they are not yet.
    quantiser
        Clip norm C and sensitivity S of a sample.
    key
        The device's secret of the round, 32 bytes; only its rounding stream is used.

    Returns
    -------
    int64 [N, size], each row with L2 norm at most S.

    Raises
    ------
    PrivacyError
        If the shape or type is not as announced, or a value is not finite.
    """
    if samples.ndim != 2 or samples.shape[1] != quantiser.size or samples.dtype != np.float32:
        raise PrivacyError(
            f"the samples are {samples.dtype} {samples.shape}, not float32 (N, {quantiser.size})",
            hint="lay each sample out as head and slots",
        )
    require_finite(samples)
    count = len(samples)
    if count == 0:
        return np.zeros(samples.shape, dtype=np.int64)
    padded = -(-quantiser.size // _LANES_PER_WORD) * _LANES_PER_WORD  # every sample starts with a word of its own
    lanes = WordStream(key, Purpose.ROUNDING).lanes(count * padded).reshape(count, padded)[:, : quantiser.size]
    integers = dithered_floor(quantiser.scaled(samples), lanes, np.empty_like(samples))
    if not quantiser.fits(integers).all():  # rare: a sample that is rounded again uses the words of the following ones
        rounding = WordStream(key, Purpose.ROUNDING)
        return np.stack([quantiser.quantise(sample, rounding) for sample in samples])
    return integers.astype(np.int64)
