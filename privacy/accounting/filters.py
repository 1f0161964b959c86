"""Budgets for adaptive schedules: prices that add up, so that a ledger can refuse a round that exceeds them.

When the noise of a round may depend on earlier results, adding up epsilons afterwards proves nothing. Stopping on a
running sum does, for zCDP (Whitehouse et al. 2023) and for squared mu of Gaussian privacy (Smith & Thakurta 2022;
Koskela, Tobaben & Honkela 2023). For privacy loss distributions no such theorem holds. What is guaranteed is the
budget; what is spent is information.

Charges are integers, in billionths ("nano"), and rounded up: a sum of charges never drifts.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np

from palate.privacy.accounting.checks import MIN_DELTA, require_count, require_delta, require_positive
from palate.privacy.accounting.events import BasicEvent, Event, SkellamEvent, flatten
from palate.privacy.accounting.gaussian import epsilon_at
from palate.privacy.accounting.rdp import ORDERS, rdp_to_epsilon
from palate.privacy.accounting.skellam import (
    LARGEST_EXPONENT,
    LARGEST_SENSITIVITY,
    gaussian_distance,
    gaussian_variance,
    is_fine,
    l1_sensitivity,
)
from palate.privacy.errors import PrivacyError

NANO = 10**9
MAX_BUDGET_NANO = 10**18
"""A squared mu of 10^9: far beyond any budget that protects anybody."""

_LONGEST = LARGEST_SENSITIVITY**2  # values that a contribution may move
_WHOLE_ORDERS = ORDERS[np.floor(ORDERS) == ORDERS]


@dataclass(frozen=True)
class SkellamMeter:
    """Prices of Skellam releases in billionths of 2 rho, and the epsilon that a total of them proves.

    A price is zero-concentrated privacy at whole orders (Bun & Steinke 2016): D_a <= a rho at every whole order a >= 2.
    One sum of rhos is then a Renyi filter at all of them at once. For Gaussian noise 2 rho is mu^2.

    A round that fits into a total of ``x = mu^2`` has a variance of at least ``S^2 / x``. Noise as fine as that is a
    mixture of Gaussians (`palate.privacy.accounting.skellam`). For these, stopping on a sum of mu^2 is proven as well
    (Smith & Thakurta 2022; Koskela, Tobaben & Honkela 2023), with the exact curve as the promise. Where it is coarser
    than that proof reaches, the zCDP promise is left.

    Attributes
    ----------
    sensitivity
        S, the least in whole steps that any charged round has. The caller must refuse a smaller one. 1 counts on
        nothing: the promise is then zCDP's.
    """

    sensitivity: int

    def __post_init__(self) -> None:
        require_count("sensitivity", self.sensitivity)
        _require_short(self.sensitivity)

    def price_nano(self, event: BasicEvent) -> int:
        """Cost of one release in billionths, computed in exact fractions and rounded up.

        Raises
        ------
        PrivacyError
            For an event that is not of Skellam noise, for one with coarser contributions than this meter counts on, and
            beyond 2^53 steps.
        """
        if not isinstance(event, SkellamEvent):
            raise PrivacyError(f"a ledger has no price for {type(event).__name__}", hint="charge Skellam releases")
        _require_short(event.sensitivity)
        if event.sensitivity < self.sensitivity:
            raise PrivacyError(
                f"a release with sensitivity {event.sensitivity} is charged where {self.sensitivity} is counted on",
                hint="use more integer steps",
            )
        return math.ceil(NANO * _skellam_two_rho(event))

    def epsilon(self, nano: int, delta: float) -> float:
        """Epsilon that a total of 2 rho = mu^2 = nano / 10^9 proves at delta, rounded up."""
        zcdp = rdp_to_epsilon(_WHOLE_ORDERS * (nano / NANO / 2), delta, _WHOLE_ORDERS)[0]
        total = nano / NANO
        if not total or zcdp > LARGEST_EXPONENT or not is_fine(coarsest := self.sensitivity**2 / total):
            return zcdp
        # Every S_i^2 / V_i is below its price, V_i is at least `coarsest`, and V over its Gaussian variance falls with
        # V; at most S_i^2 values move, so that prices bound distances too, and a round costs one billionth at least.
        mu_squared = total * coarsest / gaussian_variance(coarsest)
        distance = total * coarsest * gaussian_distance(coarsest) + nano * _LONGEST * gaussian_distance(math.inf)
        left = delta - distance * (1.0 + math.exp(zcdp))
        return zcdp if left < MIN_DELTA else min(zcdp, epsilon_at(math.sqrt(mu_squared), left))


def price_nano(meter: SkellamMeter, events: Iterable[Event]) -> int:
    """Cost of events in the meter's billionths: each release is rounded up on its own, as it is when charged.

    Raises
    ------
    PrivacyError
        If the meter has no price for an event, or the events are empty or cannot be composed.
    """
    return sum(count * meter.price_nano(event) for event, count in flatten(events))


@lru_cache(maxsize=64)  # thirty steps of a search, asked again for every ledger that is opened
def budget_nano_for(meter: SkellamMeter, epsilon: float, delta: float) -> int:
    """Largest budget whose promise stays within (epsilon, delta), in the meter's billionths.

    Raises
    ------
    PrivacyError
        If epsilon or delta is out of range, or no budget can promise it.
    """
    require_positive("epsilon", epsilon)
    require_delta(delta)
    if meter.epsilon(1, delta) > epsilon:
        raise PrivacyError(
            f"epsilon {epsilon:g} at delta {delta:g} is out of this filter's range",
            hint="choose a larger epsilon or delta",
        )
    return bisect_right(range(1, MAX_BUDGET_NANO), epsilon, key=lambda nano: meter.epsilon(nano, delta))


def _require_short(sensitivity: int) -> None:
    if sensitivity > LARGEST_SENSITIVITY:
        raise PrivacyError(f"sensitivity {sensitivity} is above {LARGEST_SENSITIVITY}", hint="use fewer integer steps")


def _skellam_two_rho(event: SkellamEvent) -> Fraction:
    # Corollary 3.6 over a, at its supremum over whole orders a >= 2:
    #   ((2a - 1) S^2 + 6 D1) / (4 V^2 a) <= (2 S^2 + 3 D1) / (4 V^2)   and   3 D1 / (2 V a) <= 3 D1 / (4 V).
    variance, s_squared = Fraction(event.variance), event.sensitivity**2
    l1 = l1_sensitivity(event.sensitivity, event.num_values)
    fine = (2 * s_squared + 3 * l1) / (2 * variance**2)
    coarse = 3 * l1 / (2 * variance)
    return s_squared / variance + min(fine, coarse)
