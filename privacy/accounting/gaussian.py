"""The Gaussian mechanism, exactly (Balle & Wang 2018, Theorem 8; Dong, Roth & Su 2019, Corollary 2.13).

Rounds with noise multipliers sigma_i compose to one Gaussian mechanism with mu = sqrt(sum 1 / sigma_i^2), so epsilon,
and delta have one exact formula. Every root is moved to its private side before it is returned.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from palate.privacy.accounting.checks import require_delta, require_positive

# Relative margin for rounding in the root.
_LOG_DELTA_ERROR = 1e-10  # more than the error of `log_delta_at`, compared with sixty digits
_MARGIN = 1e-12


def total_mu(noise_multipliers: Iterable[float]) -> float:
    """Sum up rounds: mu = sqrt(sum 1 / sigma_i^2) (Dong, Roth & Su 2019, Corollary 3.3)."""
    return math.sqrt(math.fsum(require_positive("noise_multiplier", sigma) ** -2 for sigma in noise_multipliers))


def log_delta_at(mu: float, epsilon: float) -> float:
    """Logarithm of the smallest delta at which a mechanism is (epsilon, delta)-private (Balle & Wang 2018, Theorem 8).

    Parameters
    ----------
    mu
        Sensitivity over noise standard deviation; above 0.
    epsilon
        At least 0.

    Raises
    ------
    PrivacyError
        If mu is not a finite positive number.
    """
    from scipy.special import log_ndtr  # here and below: a device that only recommends needs no accounting

    require_positive("mu", mu)
    # delta = Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu), written as Phi(a) (1 - ratio).
    above = float(log_ndtr(mu / 2 - epsilon / mu))
    below = float(log_ndtr(-mu / 2 - epsilon / mu))
    log_ratio = epsilon + below - above
    if log_ratio >= 0:  # mathematically below 0: what is left is rounding, so fall back to an upper bound
        return above
    return above + math.log(-math.expm1(log_ratio))


def epsilon_at(mu: float, delta: float) -> float:
    """Smallest epsilon for which a mechanism with parameter mu is (epsilon, delta)-private, rounded up.

    Raises
    ------
    PrivacyError
        If mu is not a finite positive number, or delta is not a probability.
    """
    from scipy.optimize import brentq

    target = math.log(require_delta(delta)) - _LOG_DELTA_ERROR
    if log_delta_at(mu, 0.0) <= target:
        return 0.0

    def surplus(epsilon: float) -> float:
        return log_delta_at(mu, epsilon) - target

    high = mu * mu / 2 + mu
    while surplus(high) > 0:
        high *= 2
    epsilon = float(brentq(surplus, 0.0, high, xtol=1e-14)) * (1 + _MARGIN)
    while surplus(epsilon) > 0:
        epsilon *= 1 + _MARGIN
    return epsilon
