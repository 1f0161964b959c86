"""Renyi differential privacy: per-order bounds that add up, and their conversion to (epsilon, delta).

Composition is Mironov 2017, Proposition 1; it also holds for adaptively chosen mechanisms with fixed parameters. The
conversion is Canonne, Kamath & Steinke 2020, Proposition 12.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from palate.models.arrays import Float64Array
from palate.privacy.accounting.checks import require_delta
from palate.privacy.accounting.events import BasicEvent, Event, GaussianEvent, SkellamEvent, flatten
from palate.privacy.accounting.skellam import skellam_rdp

_MARGIN = 1e-12  # relative: covers the rounding of the few float operations in a bound


def _make_orders() -> Float64Array:
    # Fractions serve large epsilon (Gaussian events only); the long tail serves epsilon far below 1.
    fractions = np.arange(1.05, 64, 0.05).round(2)
    whole = np.arange(2.0, 513.0)
    tail = np.unique(np.geomspace(512, 2**20, 400).round())
    orders = np.unique(np.concatenate([fractions, whole, tail]))
    orders.flags.writeable = False
    return orders


ORDERS: Float64Array = _make_orders()
"""Renyi orders at which every bound is evaluated, float64 [num_orders], ascending."""


def event_rdp(event: BasicEvent, orders: Float64Array = ORDERS) -> Float64Array:
    """Renyi divergence bound of one release at each order, float64 [num_orders]; infinite where nothing is proven."""
    match event:
        case GaussianEvent():
            return orders / (2 * event.noise_multiplier**2)  # Mironov 2017, Corollary 3
        case SkellamEvent():
            return skellam_rdp(event, orders)


def composed_rdp(events: Iterable[Event], orders: Float64Array = ORDERS) -> Float64Array:
    """Sum of the events' bounds at each order, float64 [num_orders], rounded up.

    Raises
    ------
    PrivacyError
        If the events are empty or cannot be composed.
    """
    total = np.zeros_like(orders)
    for event, count in flatten(events):
        total += count * event_rdp(event, orders)
    return total * (1 + _MARGIN)


def rdp_to_epsilon(rdp: Float64Array, delta: float, orders: Float64Array = ORDERS) -> tuple[float, float]:
    """Convert bounds at several orders to the smallest epsilon that they prove, rounded up.

    Parameters
    ----------
    rdp
        Bounds, float64 [num_orders].
    delta
        Above 0 and below 1.
    orders
        Their orders, float64 [num_orders].

    Returns
    -------
    epsilon, and the order that gave it.

    Raises
    ------
    PrivacyError
        If delta is not a probability.
    """
    require_delta(delta)
    # Proposition 12: eps = D_a + log1p(-1/a) - log(delta a) / (a - 1).
    epsilon = rdp + np.log1p(-1 / orders) - (math.log(delta) + np.log(orders)) / (orders - 1)
    # Bretagnolle & Huber 1979: total variation <= sqrt(1 - e^-KL), and KL <= D_a, so here epsilon = 0 already holds.
    epsilon = np.where(-np.expm1(-rdp) < delta**2, 0.0, epsilon)
    best = int(np.argmin(epsilon))
    return max(0.0, float(epsilon[best])) * (1 + _MARGIN), float(orders[best])
