"""From budgets to the terms of every round at unit "interaction" and "both".

A device's own noise must hide an interaction (norm S); the noise of m honest devices must hide a person (norm at most
B S in a training round, sqrt(B) S in the popularity round). At unit "both" a round uses the larger of the two shares,
so both promises hold. With the same epsilon for both, B up to sqrt(m) costs no noise beyond what an interaction needs,
and in the popularity round B up to m.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from palate.privacy.accounting.calibrate import smallest_noise_multiplier
from palate.privacy.accounting.events import Composed, Event, SkellamEvent, Unit
from palate.privacy.accounting.filters import SkellamMeter
from palate.privacy.integer.ring import Ring
from palate.privacy.mechanisms.budget import Budget, RunTerms, noise_factors
from palate.privacy.mechanisms.interaction import person_sensitivity, require_interactions
from palate.privacy.mechanisms.terms import ReleaseTerms

_LEAST_RING_BITS, _MOST_RING_BITS = 32, 64
_TAIL_DEVIATIONS = 12  # as in Ring.require_room


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """B, most interactions of a device that enter a round of either kind.

    Raises
    ------
    PrivacyError
        If a bound is below 1.
    """

    popularity: int
    train: int

    def __post_init__(self) -> None:
        require_interactions(self.popularity)
        require_interactions(self.train)


def interaction_terms(budget: Budget, bounds: Bounds) -> RunTerms:
    """Size the noise of each device so that it hides an interaction by itself.

    Parameters
    ----------
    budget
        The guarantee for one interaction; its honest shares do not count, and the terms say 1.
    bounds
        Decide only the modulus.

    Raises
    ------
    PrivacyError
        If a number is out of range, or no noise meets the budget.
    """
    alone = replace(budget, honest_shares=1)
    return _run_terms(alone, _share_variances(alone, Unit.INTERACTION, _alone(budget)), bounds)


def both_terms(budget: Budget, bounds: Bounds, *, interaction_epsilon: float) -> RunTerms:
    """Size the smallest shares with which a person is hidden in the sum, and an interaction on its device.

    Parameters
    ----------
    budget
        The guarantee for a person, in the sum over the honest shares.
    bounds
        Most interactions of a person in a round.
    interaction_epsilon
        Epsilon for one interaction against whoever sees the device's own message, at the same delta.

    Raises
    ------
    PrivacyError
        If a number is out of range, or no noise meets both.
    """
    own = replace(budget, epsilon=interaction_epsilon, honest_shares=1)
    interaction = _share_variances(own, Unit.INTERACTION, _alone(budget))
    person = _Sensitivities(
        person_sensitivity(budget.sensitivity, bounds.popularity, different_items=True),
        person_sensitivity(budget.sensitivity, bounds.train),
    )
    user = _share_variances(budget, Unit.USER, person)
    shares = _Shares(max(interaction.popularity, user.popularity), max(interaction.train, user.train))
    return _run_terms(budget, shares, bounds)


class _Sensitivities(NamedTuple):
    """L2 bound of a unit's integers in a round of either kind."""

    popularity: int
    train: int


class _Shares(NamedTuple):
    """Variance of one device's noise in a round of either kind."""

    popularity: int
    train: int


def _alone(budget: Budget) -> _Sensitivities:
    return _Sensitivities(budget.sensitivity, budget.sensitivity)


def _share_variances(budget: Budget, unit: Unit, sensitivities: _Sensitivities) -> _Shares:
    """Smallest whole shares that meet the budget of one unit, split over the rounds as the budget says."""
    popularity_factor, train_factor = noise_factors(budget)

    def shares(noise_multiplier: float) -> _Shares:
        return _Shares(
            math.ceil((noise_multiplier * popularity_factor * sensitivities.popularity) ** 2 / budget.honest_shares),
            math.ceil((noise_multiplier * train_factor * sensitivities.train) ** 2 / budget.honest_shares),
        )

    def events(noise_multiplier: float) -> Sequence[Event]:
        popularity, train = (
            SkellamEvent(sensitivity=sensitivity, variance=budget.honest_shares * share, unit=unit)
            for sensitivity, share in zip(sensitivities, shares(noise_multiplier), strict=True)
        )
        return [popularity, Composed(train, budget.rounds)]

    meter = SkellamMeter(budget.sensitivity)  # a person's bound over several interactions is never below one's
    return shares(smallest_noise_multiplier(events, budget.epsilon, budget.delta, enforced_by=meter))


def _run_terms(budget: Budget, shares: _Shares, bounds: Bounds) -> RunTerms:
    def terms(share_variance: int, clip_norm: float, interactions: int) -> ReleaseTerms:
        return ReleaseTerms(
            clip_norm=clip_norm,
            sensitivity=budget.sensitivity,
            share_variance=share_variance,
            honest_shares=budget.honest_shares,
            roster_size=budget.roster_size,
            ring_bits=_ring_bits(budget, share_variance, interactions),
        )

    return RunTerms(
        popularity=terms(shares.popularity, 1.0, bounds.popularity),
        train=terms(shares.train, budget.clip_norm, bounds.train),
    )


def _ring_bits(budget: Budget, share_variance: int, interactions: int) -> int:
    """Fewest bits, from 32, in which a sum of B contributions a device cannot wrap around."""
    noise = _TAIL_DEVIATIONS * (math.isqrt(budget.roster_size * share_variance) + 1)
    needed = (budget.roster_size * interactions * budget.sensitivity + noise).bit_length() + 1
    bits = min(max(needed, _LEAST_RING_BITS), _MOST_RING_BITS)
    Ring(bits=bits).require_room(
        devices=budget.roster_size,
        sensitivity=interactions * budget.sensitivity,
        sum_variance=budget.roster_size * share_variance,
    )
    return bits
