"""Renyi privacy of integer Skellam noise (Agarwal, Kairouz & Liu 2021, Theorem 3.5 and Corollary 3.6).

Shares of Skellam noise add up to Skellam noise, so the sum over any set of survivors is covered by this one bound with
V the variance that the honest ones contributed. The bound is proven for integer orders only.
"""

from __future__ import annotations

import math

import numpy as np

from palate.privacy.accounting.arrays import FloatArray
from palate.privacy.accounting.events import SkellamEvent


def l1_sensitivity(sensitivity: int, num_values: int | None) -> int:
    """L1 bound of an integer vector [num_values] with L2 norm at most `sensitivity`: min(sqrt(d) S, S^2), rounded up.

    The first is Cauchy-Schwarz; the second, |x| <= x^2 for integers, stands alone where the length is unknown.
    """
    if num_values is None:
        return sensitivity * sensitivity
    root = math.isqrt(num_values * sensitivity * sensitivity - 1) + 1  # ceil(sqrt(d) S), exactly
    return min(root, sensitivity * sensitivity)


def skellam_rdp(event: SkellamEvent, orders: FloatArray) -> FloatArray:
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
