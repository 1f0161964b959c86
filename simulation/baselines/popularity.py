"""ItemPop: recommend what most people have had. It is not personal; every recommender should beat it."""

from __future__ import annotations

import numpy as np

from palate.simulation.baselines.base import Baseline, FitData
from palate.simulation.baselines.scorers import ConstantScorer


def fit_popularity(data: FitData) -> ConstantScorer:
    """Count users per item."""
    return ConstantScorer(np.bincount(data.history.items, minlength=data.num_items).astype(np.float32))


POPULARITY = Baseline(
    name="popularity",
    label="Popularity",
    citation="Cremonesi, Koren & Turrin (2010), Performance of recommender algorithms on top-N tasks",
    fit=fit_popularity,
)
