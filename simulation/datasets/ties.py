"""Ties of time: interactions of one person at the same moment, whose order a file invents.

In a shop a whole basket has one time, and the order of its rows is that of the till or of a sort. A split that follows
it measures the file. So ties are broken by a seeded draw, and counted where they decide what is held out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from palate.data.interactions import Interactions
from palate.models.histories import offsets

MANY_TIES = 0.1
"""From this share of newest items on, a description of the data warns that a draw decides what is held out."""

_STREAM = 1  # the split draws its negatives from the seed itself


@dataclass(frozen=True)
class Ties:
    """How often time does not say which interaction is the newest.

    Attributes
    ----------
    people
        People with at least two interactions.
    newest
        Those of them whose newest interaction has the same time as another one.
    """

    people: int
    newest: int

    @property
    def share(self) -> float:
        """Share of the newest interactions that are tied, in [0, 1]."""
        return self.newest / max(self.people, 1)

    def __str__(self) -> str:
        """Say it in words, for a report."""
        return f"{self.newest:,} of {self.people:,} newest items ({self.share:.0%}) share their time with another"


def ties_of(interactions: Interactions) -> Ties:
    """Count ties for the newest place of a history; where no time is known there is none to share."""
    indptr = offsets(np.bincount(interactions.user, minlength=interactions.num_users))
    last = indptr[1:][np.diff(indptr) >= 2] - 1
    moment = interactions.moment
    return Ties(len(last), 0 if moment is None else int((moment[last] == moment[last - 1]).sum()))


def break_ties(interactions: Interactions, *, seed: int) -> Interactions:
    """Put interactions of the same person and moment into an order that is drawn by a seed.

    Parameters
    ----------
    interactions
        Sorted by user, oldest first; data without known times is left as it is, since a split shuffles it.
    seed
        Of the draw.
    """
    moment = interactions.moment
    if moment is None or (np.diff(moment) != 0).all():
        return interactions
    draws = np.random.default_rng((seed, _STREAM)).random(len(moment))
    order = np.lexsort((draws, moment))  # a moment belongs to one person, and moments rise
    rating = interactions.rating
    return replace(interactions, item=interactions.item[order], rating=None if rating is None else rating[order])
