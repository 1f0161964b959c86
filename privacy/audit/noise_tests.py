"""Tests of the noise of a mechanism, on the integers of rounds in which every contribution was zero.

Skellam noise of variance V has excess kurtosis 1/V. Every formula below carries it, although with the variances in use
(millions) it cannot be distinguished from Gaussian noise. A p-value is the probability that right noise looks at least
as wrong; small ones count against the mechanism.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincc, chdtr, chdtrc, ndtr, ndtri

from palate.models.arrays import Float64Array, FloatingArray, Int64Array, IntegerArray
from palate.privacy.errors import PrivacyError

_BINS = 64
_LOW_BITS = 4
_FEWEST_PER_BIN = 20


@dataclass(frozen=True, kw_only=True)
class VarianceTest:
    """Observed against claimed variance.

    Attributes
    ----------
    ratio
        Observed standard deviation over the claimed one.
    p_too_little, p_too_much
        One-sided p-values: of noise that is too weak, which breaks the claim, and too strong, which costs accuracy.
    """

    ratio: float
    p_too_little: float
    p_too_much: float


@dataclass(frozen=True, kw_only=True)
class CorrelationTest:
    """The two rounds with the most similar noise.

    Attributes
    ----------
    largest
        Their correlation, the largest in size.
    rounds
        Which two.
    p_value
        Over all pairs (Bonferroni).
    """

    largest: float
    rounds: tuple[int, int]
    p_value: float


def variance_test(noise: Int64Array, variance: float) -> VarianceTest:
    """Chi-square test of the variance.

    ``Q = sum x^2 / V`` has mean n and, for Skellam noise, variance ``n (2 + 1/V)``: the fourth moment is
    ``3 V^2 + V``. It is compared with the multiple of a chi-square variable that has these two moments; as V grows
    that is chi-square with n degrees of freedom, the law for Gaussian noise.

    Parameters
    ----------
    noise
        Integers of zero-input rounds, int64 [num_values].
    variance
        V, claimed; above 0.

    Raises
    ------
    PrivacyError
        If there are too few values, or the variance is not positive.
    """
    values = _checked(noise, variance)
    count = len(values)
    statistic = float(values @ values) / variance
    stretch = (2 + 1 / variance) / 2
    return VarianceTest(
        ratio=math.sqrt(statistic / count),
        p_too_little=float(chdtr(count / stretch, statistic / stretch)),
        p_too_much=float(chdtrc(count / stretch, statistic / stretch)),
    )


def shape_test(noise: Int64Array, variance: float, *, bins: int = _BINS) -> float:
    """Pearson's chi-square p-value for the whole distribution, over bins of about equal probability.

    With ``x = (k + 1/2) / sqrt(V)``, ``P(X <= k)`` is ``Phi(x) - phi(x) ((x^3 - 3x) - x) / (24 V)``: the first
    Edgeworth term for an excess kurtosis of 1/V (Feller II, XVI.2), and the midpoint rule's for a sum over integers
    instead of an integral. What is left out is of order 1/V^2.

    Raises
    ------
    PrivacyError
        As `variance_test`, and if the variance leaves fewer than two bins.
    """
    values = _checked(noise, variance)
    edges = np.unique(np.floor(ndtri(np.arange(1, bins) / bins) * math.sqrt(variance))) + 0.5  # between integers
    x = edges / math.sqrt(variance)
    density = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    below = ndtr(x) - density * ((x**3 - 3 * x) - x) / (24 * variance)
    expected = np.diff(below, prepend=0.0, append=1.0) * len(values)
    observed = np.bincount(np.searchsorted(edges, values), minlength=len(expected))
    return _pearson(observed, expected)


def low_bits_test(noise: Int64Array, variance: float, *, bits: int = _LOW_BITS) -> float:
    """Pearson's chi-square p-value for the noise modulo 2^bits: noise on a grid reveals what it was added to.

    The exact probabilities come from the characteristic function ``exp(V (cos t - 1))`` at the 2^bits-th roots of
    unity; for V above a few hundred all residues are alike.

    Raises
    ------
    PrivacyError
        As `variance_test`.
    """
    values = _checked(noise, variance)
    size = 1 << bits
    angles = 2 * np.pi * np.arange(size) / size
    transform = np.exp(variance * (np.cos(angles) - 1))  # [size]
    probabilities = np.cos(np.outer(np.arange(size), angles)) @ transform / size
    observed = np.bincount((values.astype(np.int64) & (size - 1)), minlength=size)
    return _pearson(observed, probabilities * len(values))


def correlation_test(rounds: FloatingArray) -> CorrelationTest:
    """Look for noise that was used twice: the largest correlation between two rounds.

    For independent rounds of d values the square of a correlation is Beta(1/2, (d - 1)/2) (Fisher 1915, for a known
    mean of 0); exact for Gaussian noise, and for Skellam noise its variance 1/d is exact too.

    Parameters
    ----------
    rounds
        Noise of each round, float [num_rounds, num_values].

    Raises
    ------
    PrivacyError
        If there are fewer than two rounds, or two values a round.
    """
    if rounds.ndim != 2 or min(rounds.shape) < 2:
        raise PrivacyError(
            f"noise of shape {rounds.shape} has no two rounds of two values", hint="give one row of noise a round"
        )
    lengths = np.linalg.norm(rounds, axis=1, keepdims=True)
    # Without any noise nothing is used twice; the variance test reports that.
    units = np.divide(rounds, lengths, out=np.zeros_like(rounds), where=lengths > 0)
    cosines = np.triu(units @ units.T, k=1)  # [num_rounds, num_rounds]
    first, second = divmod(int(np.abs(cosines).argmax()), len(rounds))
    largest = float(np.clip(cosines[first, second], -1.0, 1.0))
    pairs = len(rounds) * (len(rounds) - 1) // 2
    single = float(betaincc(0.5, (rounds.shape[1] - 1) / 2, largest * largest))
    return CorrelationTest(largest=largest, rounds=(first, second), p_value=min(1.0, pairs * single))


def _pearson(observed: IntegerArray, expected: Float64Array) -> float:
    cells = [[0.0, 0.0]]  # small cells are merged, because their counts are not normal
    for place in np.argsort(expected):
        if cells[-1][1] >= _FEWEST_PER_BIN:
            cells.append([0.0, 0.0])
        cells[-1][0] += float(observed[place])
        cells[-1][1] += float(expected[place])
    if len(cells) < 2:
        raise PrivacyError("the values fall into fewer than two bins", hint="draw more values")
    return float(chdtrc(len(cells) - 1, math.fsum((seen - due) ** 2 / due for seen, due in cells)))


def _checked(noise: Int64Array, variance: float) -> Float64Array:
    if noise.ndim != 1 or len(noise) < _BINS * _FEWEST_PER_BIN:
        raise PrivacyError(
            f"noise of shape {noise.shape} is not one row of at least {_BINS * _FEWEST_PER_BIN} values",
            hint="run more zero-input rounds",
        )
    if not (math.isfinite(variance) and variance > 0):
        raise PrivacyError(f"a claimed variance of {variance} is not above 0", hint="take it from the release's terms")
    return noise.astype(np.float64)
