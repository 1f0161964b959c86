"""From a budget to the terms of every round: noise for one popularity round and T training rounds at unit user.

The budget is split by squared inverse noise multipliers, which add up to the cost: a share f of it goes to
popularity, the rest evenly to the training rounds. Nothing here sees data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from palate.privacy.accounting.calibrate import smallest_noise_multiplier
from palate.privacy.accounting.checks import require_count, require_share
from palate.privacy.accounting.events import Composed, Event, SkellamEvent
from palate.privacy.accounting.filters import SkellamMeter
from palate.privacy.errors import PrivacyError
from palate.privacy.mechanisms.terms import ReleaseTerms


@dataclass(frozen=True, kw_only=True)
class RunTerms:
    """Terms of a whole run: one popularity round, then training rounds that are all alike."""

    popularity: ReleaseTerms
    train: ReleaseTerms


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a run may spend, and on what.

    Attributes
    ----------
    epsilon, delta
        The guarantee to keep.
    rounds
        Training rounds in which one device takes part, at most.
    popularity_share
        f, share of the budget for the popularity round, in (0, 1).
    clip_norm
        C of a training update; of the popularity part it is 1 by construction.
    sensitivity
        S, the integer bound.
    honest_shares, roster_size
        m honest shares of noise among n1 devices.
    """

    epsilon: float
    delta: float
    rounds: int
    popularity_share: float
    clip_norm: float
    sensitivity: int
    honest_shares: int
    roster_size: int


def user_terms(budget: Budget) -> RunTerms:
    """Size the noise so that devices whose own budget is the same take part to the end.

    Raises
    ------
    PrivacyError
        If a number is out of range, or no noise meets the budget.
    """
    popularity_factor, train_factor = noise_factors(budget)

    def terms(noise_multiplier: float) -> RunTerms:
        return RunTerms(
            popularity=_terms(budget, noise_multiplier * popularity_factor, clip_norm=1.0),
            train=_terms(budget, noise_multiplier * train_factor, clip_norm=budget.clip_norm),
        )

    def events(noise_multiplier: float) -> Sequence[Event]:
        popularity = _variance(budget, noise_multiplier * popularity_factor)
        train = _variance(budget, noise_multiplier * train_factor)
        return [  # of any length, as a ledger prices them: it knows none
            SkellamEvent(sensitivity=budget.sensitivity, variance=popularity),
            Composed(SkellamEvent(sensitivity=budget.sensitivity, variance=train), budget.rounds),
        ]

    meter = SkellamMeter(budget.sensitivity)
    return terms(smallest_noise_multiplier(events, budget.epsilon, budget.delta, enforced_by=meter))


def noise_factors(budget: Budget) -> tuple[float, float]:
    """Return the noise multipliers of a popularity and of a training round over that of one release for all.

    Raises
    ------
    PrivacyError
        If the split is out of range.
    """
    require_count("rounds", budget.rounds)
    require_share("popularity_share", budget.popularity_share, zero=False)
    if budget.popularity_share == 1.0:
        raise PrivacyError("popularity_share 1 leaves nothing for training", hint="choose a share below 1")
    return 1.0 / math.sqrt(budget.popularity_share), math.sqrt(budget.rounds / (1.0 - budget.popularity_share))


def _terms(budget: Budget, noise_multiplier: float, *, clip_norm: float) -> ReleaseTerms:
    return ReleaseTerms(
        clip_norm=clip_norm,
        sensitivity=budget.sensitivity,
        share_variance=_variance(budget, noise_multiplier) // budget.honest_shares,
        honest_shares=budget.honest_shares,
        roster_size=budget.roster_size,
    )


def _variance(budget: Budget, noise_multiplier: float) -> int:
    """Variance of the honest shares together: whole shares, rounded up."""
    honest = budget.honest_shares
    return honest * math.ceil((noise_multiplier * budget.sensitivity) ** 2 / honest)
