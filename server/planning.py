"""What a protected run is, decided from public numbers: the budget, the size of the federation, and nothing about data.

`DEFAULTS` and `planned` serve simulations and fleets alike. `fleet_terms` sizes noise for real devices, which fail: a
round that fails has been charged, so the budget holds a spare of every kind of round.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from palate.privacy.accounting.calibrate import calibrate_gaussian, smallest_noise_multiplier
from palate.privacy.accounting.checks import require_count, require_share
from palate.privacy.accounting.dropout import Quorum
from palate.privacy.accounting.events import Composed, Event, SkellamEvent
from palate.privacy.accounting.filters import SkellamMeter
from palate.privacy.charging import SENSITIVITY
from palate.privacy.errors import PrivacyError
from palate.privacy.mechanisms.budget import RunTerms
from palate.privacy.mechanisms.terms import ReleaseTerms

DEFAULTS: dict[str, Any] = {
    "epsilon": 8.0,
    "delta": 1e-5,
    "schedule": {"rounds": 3, "dim": 8, "start": "content", "initial_scale": 0.01, "popularity": "saturating"},
    "training": {
        "regularisation": 20.0,
        "recency_half_life": 40.0,
        "serving_half_life": 5.0,
        "least_interactions": 2,
        "leave_one_out": True,
    },
    "optimiser": {
        "name": "curvature",
        "step_size": 0.03,
        "relative": True,
        "decay": 1.0,
        "item_regularisation": 0.0,
    },
    "release": {"steps": []},
}
"""What a protected run has in place of the defaults of an unprotected one: noise wants few rounds and few columns."""

AUTO = (
    "schedule.dim",
    "schedule.rounds",
    "schedule.head",
    "schedule.initial_scale",
    "optimiser.step_size",
    "optimiser.groups",
    "training.own_items_only",
    "privacy.popularity_share",
)
"""Settings of unit user that the size of the federation and the budget decide, unless they are given."""

_RICH = 8000.0
_VERY_RICH = 30_000.0
_POOR = 20.0
_ENOUGH_FOR_POPULARITY = 1000.0
_GROUPS = 120


def planned(
    epsilon: float,
    delta: float,
    cohort: int,
    *,
    num_items: int,
    content: bool,
    given: Mapping[str, float] | None = None,
    own_items: bool = True,
    filterable: bool = True,
) -> dict[str, float]:
    """Decide `AUTO` from public numbers alone.

    What counts is how far a sum stands out of its noise: the cohort times mu, the Gaussian privacy parameter of the
    budget. A direction of taste is hidden by the norm of the noise, which grows with the root of the number of items:
    where that hides it, nearly all of the budget goes to popularity, and start and step are so short that columns which
    hold nothing but noise weigh next to nothing beside popularity and content. Where a sum stands out very far and
    there is no public content, the tail of a catalogue would only add noise to the directions that are found: many
    columns are learned for popular items alone, from updates that pull at a person's own items alone, and what is
    learned is filtered by groups of items that go together (`palate.server.filtering`). Found on validation data of
    public datasets (docs/experiments.md).

    Parameters
    ----------
    epsilon, delta
        The budget of the run.
    cohort
        Devices of a round.
    num_items, content
        Size of the catalogue, and whether it has public columns.
    given
        Those of `AUTO` that are not left to the plan, by name: what rests on them is planned to fit.
    own_items
        Whether local training is one that updates on own items alone were measured with: objective "whole".
    filterable
        Whether the other settings leave the noise known (`palate.server.settings.cannot_filter`).
    """
    given = given or {}
    mu = 1.0 / calibrate_gaussian(epsilon=epsilon, delta=delta, rounds=1).noise_multiplier
    scale, step_size = float(DEFAULTS["schedule"]["initial_scale"]), float(DEFAULTS["optimiser"]["step_size"])
    strength = cohort * mu
    rich = strength > _RICH
    if strength < _POOR * math.sqrt(num_items):  # a sharper popularity is worth more than what could be learned
        return {
            "schedule.dim": 8,
            "schedule.rounds": 1,
            "schedule.head": 0.0,
            "schedule.initial_scale": scale / 100,
            "optimiser.step_size": step_size / 10,
            "optimiser.groups": 0,
            "training.own_items_only": False,
            "privacy.popularity_share": 0.99,
        }
    share = min(0.6 / math.sqrt(epsilon), _ENOUGH_FOR_POPULARITY / strength)
    very_rich = strength > _VERY_RICH
    head = very_rich and not content and bool(given.get("schedule.head", True))
    own = head and own_items and bool(given.get("training.own_items_only", True))
    groups = _GROUPS if own and filterable else 0
    filtered = head and bool(given.get("optimiser.groups", groups))  # which bears more rounds and rarer items
    return {
        "schedule.dim": 112 if head else 32 if very_rich else 16 if rich else 8,
        "schedule.rounds": 7 if filtered else 4 if rich else 3,
        "schedule.head": 2.6 if filtered else 3.0 if head else 0.0,
        "schedule.initial_scale": scale,
        "optimiser.step_size": step_size,
        "optimiser.groups": groups,
        "training.own_items_only": own,
        "privacy.popularity_share": min(max(share, 0.1), 0.6),
    }


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


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries with `over` winning; the arguments stay as they are."""
    merged = dict(base)
    for name, value in over.items():
        old = merged.get(name)
        merged[name] = merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged
