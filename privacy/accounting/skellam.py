"""Privacy of integer Skellam noise: a Renyi bound, and a Gaussian that is never more private.

Shares of Skellam noise add up to Skellam noise, so the sum over any set of survivors is covered by these bounds with
V the variance that the honest ones contributed.

The Renyi bound (Agarwal, Kairouz & Liu 2021, Theorem 3.5 and Corollary 3.6) is proven for integer orders only, and its
way to (epsilon, delta) loses some 7% of noise. Fine noise has an exact answer instead: except with a probability of
`gaussian_distance` a value, it is a Gaussian of variance `gaussian_variance` or more that was rounded at random, and so
at least as private as that Gaussian on real numbers. docs/skellam-as-gaussians.md has the proof.
"""

from __future__ import annotations

import math

import numpy as np

from palate.models.arrays import Float64Array
from palate.privacy.accounting.events import SkellamEvent
from palate.privacy.errors import PrivacyError


def l1_sensitivity(sensitivity: int, num_values: int | None) -> int:
    """L1 bound of an integer vector [num_values] with L2 norm at most `sensitivity`: min(sqrt(d) S, S^2), rounded up.

    The first is Cauchy-Schwarz; the second, |x| <= x^2 for integers, stands alone where the length is unknown.
    """
    if num_values is None:
        return sensitivity * sensitivity
    root = math.isqrt(num_values * sensitivity * sensitivity - 1) + 1  # ceil(sqrt(d) S), exactly
    return min(root, sensitivity * sensitivity)


def skellam_rdp(event: SkellamEvent, orders: Float64Array) -> Float64Array:
    """Renyi divergence bound of one release.

    Parameters
    ----------
    event
        The release.
    orders
        Renyi orders above 1, float64 [num_orders].

    Returns
    -------
    float64 [num_orders]; infinite at orders that are not whole numbers, for which the theorem says nothing.
    """
    l1, l2_squared = l1_sensitivity(event.sensitivity, event.num_values), event.sensitivity**2
    variance = float(event.variance)
    # Corollary 3.6: a D2^2 / (2 mu) + min(((2a - 1) D2^2 + 6 D1) / (4 mu^2), 3 D1 / (2 mu)), with mu the variance.
    leading = orders * (l2_squared / (2 * variance))
    fine = ((2 * orders - 1) * l2_squared + 6 * l1) / (4 * variance) / variance
    coarse = 3 * l1 / (2 * variance)
    bound = leading + np.minimum(fine, coarse)
    return np.where(orders == np.floor(orders), bound, np.inf)


LEAST_FINE_VARIANCE = 2.0**16
"""Variance from which the comparison with Gaussians is proven."""

LARGEST_SENSITIVITY = 2**53
"""Most integer steps for which anything is claimed by that comparison, as in ledgers."""

LARGEST_EXPONENT = 700.0
"""Largest epsilon at which it is used: e^epsilon is a number up to here."""

_DEVIATIONS, _ROUNDING_VARIANCE = 12.0, 16.0  # 12 sqrt(V) and eta of the proof


def gaussian_variance(variance: float) -> float:
    """Least variance of the Gaussians that Skellam noise of this variance is a mixture of: V - 12 sqrt(V) - 16.

    Skellam noise behaves like a Gaussian whose variance is itself random, with mean V and standard deviation sqrt(V /
    3); almost nothing is more than twenty of these below the mean. 16 goes into random rounding to whole numbers.

    Raises
    ------
    PrivacyError
        If the variance is below `LEAST_FINE_VARIANCE`.
    """
    _require_fine(variance)
    return variance - _DEVIATIONS * math.sqrt(variance) - _ROUNDING_VARIANCE


def gaussian_distance(variance: float) -> float:
    """Total variation distance of one noise value from that mixture of rounded Gaussians: at most 0.18 / V^3 + 1e-86.

    Raises
    ------
    PrivacyError
        If the variance is below `LEAST_FINE_VARIANCE`.
    """
    _require_fine(variance)
    return 0.18 / variance**3 + 1e-86


def is_fine(variance: float) -> bool:
    """Whether the comparison with Gaussians covers noise of this variance."""
    return variance >= LEAST_FINE_VARIANCE


def _require_fine(variance: float) -> None:
    if not is_fine(variance):
        raise PrivacyError(
            f"Skellam noise of variance {variance:g} is compared with no Gaussian below {LEAST_FINE_VARIANCE:g}",
            hint="use its Renyi bound, or more integer steps",
        )
