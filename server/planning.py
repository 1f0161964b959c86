"""Noise of a fleet's rounds, from public numbers: the budget, and how many failed rounds it pays for.

Real devices fail, and a round that fails has been charged, so the budget holds a spare of every kind of round.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from palate.privacy.accounting.calibrate import smallest_noise_multiplier
from palate.privacy.accounting.checks import require_count, require_share
from palate.privacy.accounting.dropout import Quorum
from palate.privacy.accounting.events import Composed, Event, SkellamEvent
from palate.privacy.accounting.filters import SkellamMeter
from palate.privacy.charging import SENSITIVITY
from palate.privacy.errors import PrivacyError
from palate.privacy.mechanisms.budget import RunTerms
from palate.privacy.mechanisms.terms import ReleaseTerms


def fleet_terms(
    *,
    epsilon: float,
    delta: float,
    rounds: int,
    spare_rounds: int,
    popularity_share: float,
    clip_norm: float,
    sensitivity: int,
) -> RunTerms:
    """Size the noise of a fleet's rounds, for one device; `for_roster` spreads it over a roster.

    Parameters
    ----------
    epsilon, delta
        The budget of the run, and of every device.
    rounds, spare_rounds
        Training rounds to apply, and failed rounds of each kind that the budget pays for besides.
    popularity_share
        Share of the budget for the popularity round and its spares.
    clip_norm, sensitivity
        C of a training update, and S, the same bound in integer steps. Budgets of owners count on `SENSITIVITY` steps,
        so that finer ones do not hold more.

    Raises
    ------
    PrivacyError
        If a number is out of range, or no noise meets the budget.
    """
    require_count("rounds", rounds)
    require_share("popularity_share", popularity_share, zero=False)
    if popularity_share == 1.0 or spare_rounds < 0:
        raise PrivacyError(
            f"popularity_share {popularity_share:g} and {spare_rounds} spare rounds leave nothing for training",
            hint="choose a share below 1 and at least 0 spare rounds",
        )
    counts = 1 + spare_rounds, rounds + spare_rounds
    factors = math.sqrt(counts[0] / popularity_share), math.sqrt(counts[1] / (1.0 - popularity_share))

    def variances(noise_multiplier: float) -> list[int]:
        return [math.ceil((noise_multiplier * factor * sensitivity) ** 2) for factor in factors]

    def events(noise_multiplier: float) -> Sequence[Event]:
        return [  # of any length, as a ledger prices them: it knows none
            Composed(SkellamEvent(sensitivity=sensitivity, variance=variance), count)
            for variance, count in zip(variances(noise_multiplier), counts, strict=True)
        ]

    found = smallest_noise_multiplier(events, epsilon, delta, enforced_by=SkellamMeter(min(sensitivity, SENSITIVITY)))
    popularity, train = (
        ReleaseTerms(clip_norm=norm, sensitivity=sensitivity, share_variance=variance, honest_shares=1, roster_size=1)
        for norm, variance in zip((1.0, clip_norm), variances(found), strict=True)
    )
    return RunTerms(popularity=popularity, train=train)


def for_roster(terms: RunTerms, quorum: Quorum, roster_size: int) -> RunTerms:
    """Spread the noise of a round over those who must survive it; the sum has the same noise or more, never less.

    Parameters
    ----------
    terms
        What `fleet_terms` found.
    quorum
        Who must survive, and who may be lying.
    roster_size
        Devices asked.

    Raises
    ------
    PrivacyError
        If a sum over the roster could wrap around.
    """
    honest = quorum.honest_survivors(roster_size)
    popularity, train = (
        replace(
            each,
            share_variance=-(-each.sum_variance // honest),
            honest_shares=honest,
            roster_size=roster_size,
        )
        for each in (terms.popularity, terms.train)
    )
    return RunTerms(popularity=popularity, train=train)
