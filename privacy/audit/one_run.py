"""A certificate from a single run (Steinke, Nasr & Jagielski 2023, "Privacy auditing with one (1) training run").

With m coins in one run, an (epsilon, delta)-private output lets nobody guess r of them much better than randomised
response would. No other assumption: not on the noise, nor on how canaries overlap. It is weak in return: even a perfect
guesser proves only a few units of epsilon with a thousand canaries, and at no confidence beyond ``1 - 2 m delta / v``.

The guesses must follow only from the released output and public facts. Scores from which the *other* canaries were
subtracted depend on the other coins past the mechanism; they are not covered.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtrc, expit
from scipy.stats import binom

from palate.models.arrays import BoolArray, Float64Array
from palate.privacy.errors import PrivacyError

FRACTIONS = (0.02, 0.05, 0.1, 0.2, 0.4, 1.0)
"""Shares of the canaries that are guessed; the surest first."""

_STEP = 1e-4


@dataclass(frozen=True, kw_only=True)
class OneRunBound:
    """What the guesses of one run prove.

    Attributes
    ----------
    epsilon
        The release is not (epsilon, delta)-private for any smaller epsilon, except with a probability of `error`.
    guesses, correct
        Of the share of canaries that proves most.
    error
        Probability with which the bound may be wrong, over all shares together.
    """

    epsilon: float
    guesses: int
    correct: int
    error: float


def p_value(*, canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Bound the probability of so many correct guesses about an (epsilon, delta)-private release.

    With W binomial of `guesses` trials at rate e^eps/(e^eps + 1), it is
    ``P(W >= v) + 2 m delta max_i P(v - i <= W < v) / i`` (Steinke et al. 2023, Theorem 5.2 and Appendix D).

    Raises
    ------
    PrivacyError
        Unless ``0 <= correct <= guesses <= canaries`` and epsilon is at least 0.
    """
    if not (0 <= correct <= guesses <= canaries and epsilon >= 0):
        raise PrivacyError(
            f"{correct} correct of {guesses} guesses on {canaries} canaries at epsilon {epsilon} is impossible",
            hint="count correct guesses among the guesses, and guesses among the canaries",
        )
    if correct == 0:
        return 1.0
    rate = float(expit(epsilon))
    beyond = float(bdtrc(correct - 1, guesses, rate))
    below = np.cumsum(binom.pmf(np.arange(correct - 1, -1, -1), guesses, rate))  # P(v - i <= W < v) for i = 1 ... v
    steepest = float((below / np.arange(1, correct + 1)).max())
    return min(1.0, beyond + 2 * canaries * delta * steepest)


def one_run_bound(
    scores: Float64Array,
    included: BoolArray,
    *,
    delta: float,
    error: float,
    fractions: Sequence[float] = FRACTIONS,
) -> OneRunBound:
    """Guess the canaries with the highest scores in and those with the lowest out, and bound epsilon from below.

    Several shares of canaries are tried, each at an equal part of the error (Bonferroni).

    Parameters
    ----------
    scores
        One for each canary, from the output and public facts only, float64 [num_canaries].
    included
        Which took part: independent fair coins, bool [num_canaries].
    delta
        Of the claim.
    error
        Probability with which the bound may be wrong.
    fractions
        Shares of the canaries to guess, fixed before scores are seen.
    """
    order = np.argsort(scores, kind="stable")
    count = len(scores)
    found = []
    for fraction in fractions:
        side = min(count // 2, max(1, int(count * fraction / 2)))
        correct = int(included[order[-side:]].sum() + (~included[order[:side]]).sum())
        epsilon = _largest_refuted(count, 2 * side, correct, delta, error / len(fractions))
        found.append(OneRunBound(epsilon=epsilon, guesses=2 * side, correct=correct, error=error))
    return max(found, key=lambda bound: bound.epsilon)


def _largest_refuted(canaries: int, guesses: int, correct: int, delta: float, error: float) -> float:
    """Largest epsilon on a grid whose p-value is below the error; 0 if none is."""

    def not_refuted(steps: int) -> bool:
        value = p_value(canaries=canaries, guesses=guesses, correct=correct, epsilon=steps * _STEP, delta=delta)
        return value >= error

    limit = int((math.log(2 * canaries / error) + 1) / _STEP) + 1  # P(W = r) alone then exceeds the error
    return max(0, bisect_left(range(limit), True, key=not_refuted) - 1) * _STEP
