"""What popularity and public content can do alone: each user's ridge over fixed columns, nothing learned together.

Columns of an item are its log-popularity b, bands of b, its content c, and b * c. Separates what a federated model
gains by learning embeddings from what everybody could have read off the box.
"""

from __future__ import annotations

import numpy as np
from pydantic import NonNegativeFloat, PositiveFloat
from pydantic.dataclasses import dataclass

from palate.models.popularity import log_column
from palate.simulation.baselines.normal_equations import solve_ridge
from palate.simulation.baselines.scorers import FactorScorer
from palate.simulation.data.types import FloatArray, Histories

BAND_QUANTILES = (0.25, 0.5, 0.75, 0.9, 0.97)
"""Popularity bands get finer towards the head, where the recommendations are."""


@dataclass(frozen=True, kw_only=True)
class ContentOnlyConfig:
    """Hyperparameters of the user ridge (normal_equations.py).

    Attributes
    ----------
    unobserved_weight
        Weight of the whole catalogue.
    regularisation
        Ridge on the user vector.
    popularity_scale
        Factor on the log-popularity column; larger means less shrinkage of the taste for the popular.
    """

    unobserved_weight: NonNegativeFloat = 0.1
    regularisation: PositiveFloat = 30.0
    popularity_scale: PositiveFloat = 3.0


def fit_content_only(
    history: Histories,
    num_items: int,
    content: FloatArray | None = None,
    config: ContentOnlyConfig | None = None,
) -> FactorScorer:
    """Solve one ridge per user over popularity and content columns.

    Parameters
    ----------
    history
        What each user has had.
    num_items
        Size of the catalogue.
    content
        Centred content features, float32 [num_items, k]; popularity alone where there are none.
    config
        Hyperparameters.
    """
    config = config or ContentOnlyConfig()
    per_user = 1.0 / np.sqrt(np.maximum(history.lengths, 1))
    counts = np.zeros(num_items)
    np.add.at(counts, history.items, per_user[history.owners])
    popularity = log_column(counts)  # [num_items]
    band = np.searchsorted(np.quantile(popularity, BAND_QUANTILES), popularity)
    bands = np.eye(len(BAND_QUANTILES) + 1, dtype=np.float32)[band]  # [num_items, num_bands]
    public = np.zeros((num_items, 0), dtype=np.float32) if content is None else content
    # Popularity keeps its origin, so that an unpopular item scores low; everything else is a deviation.
    deviations = np.column_stack([bands, public, public * popularity[:, None]])
    deviations -= deviations.mean(axis=0)
    table = np.column_stack([config.popularity_scale * popularity, deviations]).astype(np.float32)
    users = solve_ridge(
        table, history, unobserved_weight=config.unobserved_weight, regularisation=config.regularisation
    )
    return FactorScorer(users, table)
