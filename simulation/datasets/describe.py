"""Describe a dataset in numbers: counts, density, activity, popularity, what cleaning dropped."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from palate.data.interactions import CleaningReport, Interactions
from palate.models.arrays import Int64Array
from palate.simulation.datasets.presets import PRESETS
from palate.simulation.datasets.splits import protocol_for
from palate.simulation.datasets.ties import MANY_TIES, ties_of

QUANTILES = ("min", "25%", "median", "75%", "90%", "max")
_LEVELS = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
_SAMPLES = 5
_GENRES = 12


@dataclass(frozen=True, kw_only=True)
class Description:
    """A dataset in numbers.

    Attributes
    ----------
    name, source
        What it is called and where it was read from ("" for data made by code).
    users, items, interactions, density
        Counts, and interactions / (users * items).
    per_user, per_item
        Interactions of a user and of an item, by the names of `QUANTILES`.
    top_tenth_share
        Share of all interactions that the most popular tenth of the items holds.
    order
        How the order of a user's interactions is known, in words.
    time_range
        First and last day as ISO dates, or None.
    genres
        Items of each of the commonest genres.
    described_items
        Items of which more than the id is known.
    sample_titles
        The most popular items.
    groups
        Users of each demographic group, for reports.
    protocol
        How it will be split.
    ties
        Warning that a draw decides what is held out, because many newest items share their time; "" for few.
    licence, redistribution, citation
        The owner's terms; "" for your own data.
    cleaning
        What was dropped.
    """

    name: str
    source: str
    users: int
    items: int
    interactions: int
    density: float
    per_user: dict[str, float]
    per_item: dict[str, float]
    top_tenth_share: float
    order: str
    time_range: tuple[str, str] | None
    genres: dict[str, int]
    described_items: int
    sample_titles: tuple[str, ...]
    groups: dict[str, dict[str, int]]
    protocol: str
    ties: str
    licence: str
    redistribution: str
    citation: str
    cleaning: CleaningReport


def describe(interactions: Interactions) -> Description:
    """Count everything that the description shows.

    Parameters
    ----------
    interactions
        A loaded dataset.
    """
    catalogue = interactions.catalogue
    popularity = np.bincount(interactions.item, minlength=interactions.num_items)
    activity = np.bincount(interactions.user, minlength=interactions.num_users)
    by_popularity = np.argsort(-popularity, kind="stable")
    tenth = max(1, interactions.num_items // 10)
    genres = Counter(genre for item in catalogue.genres for genre in item)
    preset = PRESETS.resolve(interactions.name) if interactions.name in PRESETS else None
    known = zip(catalogue.ids, catalogue.titles, catalogue.genres, strict=True)
    return Description(
        name=interactions.name,
        source=interactions.source,
        users=interactions.num_users,
        items=interactions.num_items,
        interactions=len(interactions.item),
        density=len(interactions.item) / (interactions.num_users * interactions.num_items),
        per_user=_quantiles(activity),
        per_item=_quantiles(popularity),
        top_tenth_share=float(popularity[by_popularity[:tenth]].sum() / len(interactions.item)),
        order=_order(interactions),
        time_range=_days(interactions),
        genres=dict(genres.most_common(_GENRES)),
        described_items=sum(title != item or bool(of) for item, title, of in known),
        sample_titles=tuple(catalogue.titles[at] for at in by_popularity[:_SAMPLES].tolist()),
        groups={name: dict(sorted(Counter(values).items())) for name, values in interactions.demographics.items()},
        protocol=protocol_for(interactions),
        ties=_ties(interactions),
        licence=preset.licence if preset else "",
        redistribution=preset.redistribution if preset else "",
        citation=preset.citation if preset else "",
        cleaning=interactions.report,
    )


def _quantiles(counts: Int64Array) -> dict[str, float]:
    return dict(zip(QUANTILES, (round(float(q), 1) for q in np.quantile(counts, _LEVELS)), strict=True))


def _order(interactions: Interactions) -> str:
    if not interactions.has_time:
        return "no times: items are held out at random"
    return "timestamps" if interactions.time_range else "ranks, without dates"


def _ties(interactions: Interactions) -> str:
    ties = ties_of(interactions)
    if ties.share < MANY_TIES:
        return ""
    return f"{ties}: a seeded draw, not time, decides which of them is held out, and what is recent"


def _days(interactions: Interactions) -> tuple[str, str] | None:
    """ISO dates of the oldest and newest interaction; None where they are not plausible as dates."""
    if interactions.time_range is None:
        return None
    try:
        first, last = (datetime.fromtimestamp(moment, tz=UTC).date().isoformat() for moment in interactions.time_range)
    except (OverflowError, OSError, ValueError):
        return None
    return first, last
