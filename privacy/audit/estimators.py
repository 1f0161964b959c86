"""Estimate mu of a mechanism from an attacker's scores, and bound it from below.

A Gaussian mechanism with parameter mu shifts the attacker's best score by mu standard deviations (Dong, Roth & Su
2019), and mu gives epsilon at every delta through the exact formula. The estimate takes scores to be normal; scores
along random directions are, whatever the noise (Andrew et al. 2023). The bound takes nothing but the scores' ranks: it
refutes a claim of Gaussian privacy (Nasr et al. 2023, "Tight auditing of differentially private machine learning").
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betainccinv, ndtr, ndtri

from palate.models.arrays import BoolArray, Float64Array
from palate.privacy.accounting.gaussian import epsilon_at
from palate.privacy.errors import PrivacyError

_FEWEST = 2
_CHOOSING = 0.2
_THRESHOLDS = 200
_DOWN = 1 - 1e-9  # the accounting rounds epsilon up; a lower bound goes the other way


@dataclass(frozen=True, kw_only=True)
class MuEstimate:
    """Separation of the two worlds in standard deviations, with a normal interval.

    Attributes
    ----------
    mu
        Difference of means over the pooled standard deviation; infinite where scores do not vary.
    standard_error
        Of mu.
    low, high
        Ends of the interval; `low` may be negative.
    confidence
        Of the interval, such as 0.95.
    """

    mu: float
    standard_error: float
    low: float
    high: float
    confidence: float


def fit_mu(scores: Float64Array, included: BoolArray, *, confidence: float = 0.95, crowding: float = 0.0) -> MuEstimate:
    """Estimate mu from scores of canaries that are in and of those that are out.

    ``mu = (mean_in - mean_out) / sd`` with the pooled standard deviation is Cohen's d; its squared standard error is
    ``1/k_in + 1/k_out + mu^2 / (2 (k - 2))`` (Hedges & Olkin 1985, chapter 5). Where k canaries share d dimensions,
    their scores are as correlated as their directions, which multiplies the variance of the pooled variance by
    ``1 + k/d``: the trace of the squared Gram matrix of random directions is ``k + k^2/d``.

    Parameters
    ----------
    scores
        One a canary, float64 [num_canaries].
    included
        Which took part, bool [num_canaries].
    confidence
        Of the interval.
    crowding
        Canaries a dimension, k/d.

    Raises
    ------
    PrivacyError
        If fewer than two canaries are in, or out, or a score is not finite.
    """
    inside, outside = _split(scores, included)
    freedom = len(inside) + len(outside) - 2
    pooled = (np.var(inside) * len(inside) + np.var(outside) * len(outside)) / freedom
    difference = float(inside.mean() - outside.mean())
    if pooled == 0.0:
        mu = math.copysign(math.inf, difference) if difference else 0.0
        return MuEstimate(mu=mu, standard_error=0.0, low=mu, high=mu, confidence=confidence)
    mu = difference / math.sqrt(pooled)
    error = math.sqrt(1 / len(inside) + 1 / len(outside) + mu * mu * (1 + crowding) / (2 * freedom))
    reach = error * float(ndtri((1 + confidence) / 2))
    return MuEstimate(mu=mu, standard_error=error, low=mu - reach, high=mu + reach, confidence=confidence)


@dataclass(frozen=True, kw_only=True)
class MuBound:
    """A lower bound on mu of the mechanism, except with a probability of `error`.

    Attributes
    ----------
    mu
        The bound; at least 0.
    false_positive_rate, false_negative_rate
        Upper bounds on the attacker's error rates at the threshold.
    threshold
        Scores above it are called in.
    error
        Probability with which the bound may be wrong.
    """

    mu: float
    false_positive_rate: float
    false_negative_rate: float
    threshold: float
    error: float


def clopper_pearson_upper(count: int, trials: int, error: float) -> float:
    """Upper bound on a rate of which `count` of `trials` were seen, wrong with probability `error` at most.

    The exact binomial bound of Clopper & Pearson 1934, a quantile of Beta(count + 1, trials - count).
    """
    if count >= trials:
        return 1.0
    return float(betainccinv(count + 1, trials - count, error))


def bound_mu(scores: Float64Array, included: BoolArray, *, error: float, rng: np.random.Generator) -> MuBound:
    """Bound mu from below: a threshold is chosen on some canaries, and its error rates are taken on the others.

    A mu-private release keeps ``mu >= Phi^-1(1 - FPR) - Phi^-1(FNR)`` for every test (Dong, Roth & Su 2019,
    equation 6). Either rate is bounded at half the error. A fifth of the canaries is enough to choose with, because
    what is chosen is best for normal scores with their means and spread, not for the scores themselves.

    Parameters
    ----------
    scores
        One a canary, float64 [num_canaries].
    included
        Which took part, bool [num_canaries].
    error
        Probability with which the bound may be wrong.
    rng
        Splits the canaries; of the auditor.

    Raises
    ------
    PrivacyError
        If fewer than two canaries are in, or out, or a score is not finite.
    """
    (first_in, inside), (first_out, outside) = (_share(side, rng) for side in _split(scores, included))
    threshold = _threshold(first_in, first_out, len(inside), len(outside), error)
    false_positives, false_negatives = int((outside > threshold).sum()), int((inside <= threshold).sum())
    positive = clopper_pearson_upper(false_positives, len(outside), error / 2)
    negative = clopper_pearson_upper(false_negatives, len(inside), error / 2)
    return MuBound(
        mu=max(0.0, float(_separation(positive, negative))),
        false_positive_rate=positive,
        false_negative_rate=negative,
        threshold=threshold,
        error=error,
    )


def _share(scores: Float64Array, rng: np.random.Generator) -> tuple[Float64Array, Float64Array]:
    """Scores to choose the threshold with, and scores to count; at random."""
    mixed = rng.permutation(scores)
    first = max(1, round(_CHOOSING * len(mixed)))
    return mixed[:first], mixed[first:]


def _threshold(inside: Float64Array, outside: Float64Array, num_in: int, num_out: int, error: float) -> float:
    """Threshold with the highest expected bound on `num_in` and `num_out` other canaries, if scores are normal."""
    means = float(outside.mean()), float(inside.mean())
    spread = math.sqrt((inside.var() + outside.var()) / 2)
    candidates = np.linspace(means[0] - 2 * spread, means[1] + 2 * spread, _THRESHOLDS)
    if spread == 0.0:
        return (means[0] + means[1]) / 2
    positives = num_out * ndtr((means[0] - candidates) / spread)
    negatives = num_in * ndtr((candidates - means[1]) / spread)
    # Clopper-Pearson at counts that are not whole: its formula with gamma functions allows that.
    upper = [
        betainccinv(k + 1, np.maximum(n - k, 0.5), error / 2) for k, n in ((positives, num_out), (negatives, num_in))
    ]
    return float(candidates[int(np.argmax(_separation(*upper)))])


def _separation(positive: npt.ArrayLike, negative: npt.ArrayLike) -> Float64Array:
    """Separation in standard deviations that error rates of one test prove; minus infinity where they prove nothing."""
    separation: Float64Array = -ndtri(positive) - ndtri(negative)
    return separation


def epsilon_of(mu: float, delta: float) -> float:
    """Epsilon at delta of a Gaussian mechanism with parameter mu, rounded down; 0 for a mu that is not positive."""
    if math.isinf(mu):
        return math.inf if mu > 0 else 0.0
    return epsilon_at(mu, delta) * _DOWN if mu > 0 else 0.0


def _split(scores: Float64Array, included: BoolArray) -> tuple[Float64Array, Float64Array]:
    if scores.shape != included.shape or not np.isfinite(scores).all():
        raise PrivacyError(
            f"{scores.shape} scores for {included.shape} canaries, all of them must be finite",
            hint="give one finite score a canary",
        )
    inside, outside = scores[included], scores[~included]
    if min(len(inside), len(outside)) < _FEWEST:
        raise PrivacyError(
            f"{len(inside)} canaries are in and {len(outside)} are out, at least {_FEWEST} of each are needed",
            hint="use more canaries",
        )
    return inside, outside
