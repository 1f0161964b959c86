"""Budgets for schedules that are chosen on the way: a filter refuses the release that would exceed them.

When the noise of a round may depend on earlier results, adding up epsilons afterwards proves nothing; stopping on a
running sum does, for three sums: Renyi divergence at a fixed order (Feldman & Zrnic 2021), zCDP (Whitehouse et al.
2023), and squared mu of Gaussian privacy (Smith & Thakurta 2022; Koskela, Tobaben & Honkela 2023). For privacy loss
distributions no such theorem holds, so there is no such filter. What is guaranteed is the budget; what is spent is
information.

Charges are integers, in billionths ("nano"), and rounded up: a sum of charges never drifts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np

from palate.privacy.accounting.checks import MIN_DELTA, require_count, require_delta, require_positive
from palate.privacy.accounting.events import BasicEvent, Event, GaussianEvent, SkellamEvent, flatten
from palate.privacy.accounting.gaussian import epsilon_at
from palate.privacy.accounting.rdp import ORDERS, event_rdp, rdp_to_epsilon
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


class BudgetExceeded(PrivacyError):
    """A release would exceed the budget; nothing was charged."""

    exit_code = 3


class Meter(Protocol):
    """One of the sums on which stopping is proven."""

    def price_nano(self, event: BasicEvent) -> int:
        """Cost of one release in billionths, rounded up."""

    def epsilon(self, nano: int, delta: float) -> float:
        """Epsilon that a total of `nano` proves at delta, rounded up."""


@dataclass(frozen=True)
class ZcdpMeter:
    """Zero-concentrated privacy at whole orders (Bun & Steinke 2016), in billionths of 2 rho: mu^2 for a Gaussian.

    Where D_a <= a rho holds at every whole order a >= 2, one sum of rhos is a Renyi filter at all of them at once.
    """

    def price_nano(self, event: BasicEvent) -> int:
        """Cost of one Gaussian or Skellam release, computed in exact fractions.

        Raises
        ------
        PrivacyError
            For a sampled event, whose divergence does not grow linearly in the order.
        """
        match event:
            case GaussianEvent():
                return math.ceil(NANO / Fraction(event.noise_multiplier) ** 2)
            case SkellamEvent():
                return math.ceil(NANO * _skellam_two_rho(event))
            case _:
                raise PrivacyError(
                    "a sampled event has no finite zCDP price", hint="use a filter at one Renyi order instead"
                )

    def epsilon(self, nano: int, delta: float) -> float:
        """Epsilon that a total of 2 rho = nano / 10^9 proves, over whole orders."""
        return rdp_to_epsilon(_WHOLE_ORDERS * (nano / NANO / 2), delta, _WHOLE_ORDERS)[0]


@dataclass(frozen=True)
class SkellamMeter(ZcdpMeter):
    """The same sum of prices as `ZcdpMeter`, read for Skellam rounds of which a fineness is known.

    A round that fits into a total of ``x = mu^2`` has a variance of at least ``S^2 / x``. Noise as fine as that is a
    mixture of Gaussians (`palate.privacy.accounting.skellam`). For these, stopping on a sum of mu^2 is proven as well
    (Smith & Thakurta 2022; Koskela, Tobaben & Honkela 2023), with the exact curve as the promise. Where it is coarser
    than that proof reaches, the zCDP promise is left.

    Attributes
    ----------
    sensitivity
        S, the least in whole steps that any charged round has. Whoever charges must refuse a smaller one.
    """

    sensitivity: int

    def __post_init__(self) -> None:
        require_count("sensitivity", self.sensitivity)
        _require_short(self.sensitivity)

    def price_nano(self, event: BasicEvent) -> int:
        """Cost of one release as `ZcdpMeter` has it.

        Raises
        ------
        PrivacyError
            For a sampled event, for one with coarser contributions than this meter counts on, and beyond 2^53 steps.
        """
        if isinstance(event, SkellamEvent):
            _require_short(event.sensitivity)
        if isinstance(event, SkellamEvent) and event.sensitivity < self.sensitivity:
            raise PrivacyError(
                f"a release with sensitivity {event.sensitivity} is charged where {self.sensitivity} is counted on",
                hint="use more integer steps",
            )
        return super().price_nano(event)

    def epsilon(self, nano: int, delta: float) -> float:
        """Epsilon that a total of mu^2 = nano / 10^9 proves."""
        zcdp = super().epsilon(nano, delta)
        total = nano / NANO
        if not total or zcdp > LARGEST_EXPONENT or not is_fine(coarsest := self.sensitivity**2 / total):
            return zcdp
        # Every S_i^2 / V_i is below its price, V_i is at least `coarsest`, and V over its Gaussian variance falls with
        # V; at most S_i^2 values move, so that prices bound distances too, and a round costs one billionth at least.
        mu_squared = total * coarsest / gaussian_variance(coarsest)
        distance = total * coarsest * gaussian_distance(coarsest) + nano * _LONGEST * gaussian_distance(math.inf)
        left = delta - distance * (1.0 + math.exp(zcdp))
        return zcdp if left < MIN_DELTA else min(zcdp, epsilon_at(math.sqrt(mu_squared), left))


@dataclass(frozen=True)
class GdpMeter:
    """Gaussian privacy, in billionths of mu^2. For Gaussian releases only, and exact for them."""

    def price_nano(self, event: BasicEvent) -> int:
        """Cost of one Gaussian release, mu^2 = 1 / sigma^2, in exact fractions.

        Raises
        ------
        PrivacyError
            For any other event: it is not Gaussian private with a proven parameter.
        """
        if not isinstance(event, GaussianEvent):
            raise PrivacyError(
                f"{type(event).__name__} has no proven parameter of Gaussian privacy",
                hint="use the zCDP or a Renyi filter",
            )
        return math.ceil(NANO / Fraction(event.noise_multiplier) ** 2)

    def epsilon(self, nano: int, delta: float) -> float:
        """Exact epsilon of a total of mu^2 = nano / 10^9."""
        require_delta(delta)
        return epsilon_at(math.sqrt(nano / NANO), delta) if nano else 0.0


@dataclass(frozen=True)
class RenyiMeter:
    """Renyi divergence at one order that is fixed in advance, in billionths. Takes every event.

    Attributes
    ----------
    order
        Above 1; a whole number where Skellam or sampled events are charged.
    """

    order: float

    def __post_init__(self) -> None:
        require_positive("order - 1", self.order - 1)

    def price_nano(self, event: BasicEvent) -> int:
        """Cost of one release at the meter's order.

        Raises
        ------
        PrivacyError
            If nothing is proven for the event at this order.
        """
        divergence = float(event_rdp(event, np.array([self.order]))[0])
        if not math.isfinite(divergence):
            raise PrivacyError(
                f"order {self.order:g} proves nothing for {type(event).__name__}", hint="choose a whole order up to 256"
            )
        return math.ceil(NANO * divergence * (1 + 1e-12))

    def epsilon(self, nano: int, delta: float) -> float:
        """Epsilon that a total divergence of nano / 10^9 at this order proves."""
        return rdp_to_epsilon(np.array([nano / NANO]), delta, np.array([self.order]))[0]


class BudgetFilter:
    """Charges releases against a budget, and refuses the first that would exceed it.

    Parameters
    ----------
    meter
        What is summed up; fixed in advance.
    budget_nano
        Budget in the meter's billionths; see `budget_nano_for`.
    spent_nano
        What earlier releases were charged.

    Raises
    ------
    PrivacyError
        If a number is not a whole one, or negative.
    """

    def __init__(self, meter: Meter, budget_nano: int, spent_nano: int = 0) -> None:
        self._meter = meter
        self._budget_nano = require_count("budget_nano", budget_nano, least=0)
        self._spent_nano = require_count("spent_nano", spent_nano, least=0)

    @property
    def spent_nano(self) -> int:
        """Charged so far."""
        return self._spent_nano

    @property
    def left_nano(self) -> int:
        """What may still be charged; 0 when more was spent than the budget holds."""
        return max(0, self._budget_nano - self._spent_nano)

    def charge(self, event: Event) -> int:
        """Charge an event *before* it is released.

        Returns
        -------
        The charge in billionths.

        Raises
        ------
        BudgetExceeded
            If the budget does not hold it; then nothing is charged.
        PrivacyError
            If the meter has no price for the event.
        """
        price = price_nano(self._meter, [event])
        if price > self.left_nano:
            raise BudgetExceeded(
                f"the release costs {price / NANO:.9f}, {self.left_nano / NANO:.9f} is left of "
                f"{self._budget_nano / NANO:.9f}",
                hint="plan fewer rounds, use more noise, or raise the budget",
            )
        self._spent_nano += price
        return price

    def epsilon(self, delta: float) -> float:
        """Epsilon that the budget promises at delta, however much of it is spent."""
        return self._meter.epsilon(self._budget_nano, delta)


def price_nano(meter: Meter, events: Iterable[Event]) -> int:
    """Cost of events in the meter's billionths: each release is rounded up on its own, as it is when charged.

    Raises
    ------
    PrivacyError
        If the meter has no price for an event, or the events are empty or cannot be composed.
    """
    return sum(count * meter.price_nano(event) for event, count in flatten(events))


def budget_nano_for(meter: Meter, epsilon: float, delta: float) -> int:
    """Largest budget whose promise stays within (epsilon, delta), in the meter's billionths.

    Raises
    ------
    PrivacyError
        If epsilon or delta is out of range, or no budget can promise it at the meter's order.
    """
    require_positive("epsilon", epsilon)
    require_delta(delta)
    if meter.epsilon(1, delta) > epsilon:
        raise PrivacyError(
            f"epsilon {epsilon:g} at delta {delta:g} is out of this filter's reach", hint="choose a larger Renyi order"
        )
    return _last(lambda nano: meter.epsilon(nano, delta) <= epsilon)


def _require_short(sensitivity: int) -> None:
    if sensitivity > LARGEST_SENSITIVITY:
        raise PrivacyError(f"sensitivity {sensitivity} is above {LARGEST_SENSITIVITY}", hint="use fewer integer steps")


def _last(holds: Callable[[int], bool]) -> int:
    low, high = 0, MAX_BUDGET_NANO
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _skellam_two_rho(event: SkellamEvent) -> Fraction:
    # Corollary 3.6 over a, at its supremum over whole orders a >= 2:
    #   ((2a - 1) S^2 + 6 D1) / (4 V^2 a) <= (2 S^2 + 3 D1) / (4 V^2)   and   3 D1 / (2 V a) <= 3 D1 / (4 V).
    variance, s_squared = Fraction(event.variance), event.sensitivity**2
    l1 = l1_sensitivity(event.sensitivity, event.num_values)
    fine = (2 * s_squared + 3 * l1) / (2 * variance**2)
    coarse = 3 * l1 / (2 * variance)
    return s_squared / variance + min(fine, coarse)
