"""ItemPop: recommend what most people have had. No taste at all; every recommender must beat it."""

from __future__ import annotations

import numpy as np

from palate.models.histories import Histories
from palate.simulation.baselines.base import Baseline
from palate.simulation.baselines.scorers import ConstantScorer


def fit_popularity(
    history: Histories,
    num_items: int,
) -> ConstantScorer:
    """Count users per item.

    Parameters
    ----------
    history
        What each user has had.
    num_items
        Size of the catalogue.
    """
    return ConstantScorer(np.bincount(history.items, minlength=num_items).astype(np.float32))


POPULARITY = Baseline(
    name="popularity",
    label="Popularity",
    citation="Cremonesi, Koren & Turrin (2010), Performance of recommender algorithms on top-N tasks",
    fit=lambda data: fit_popularity(data.history, data.num_items),
)
