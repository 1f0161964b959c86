"""Popularity and public content without learned embeddings: each user's ridge over fixed columns.

Separates what a federated model gains by learning embeddings from what public columns already give. It is
`dp_content` without the noise (Hu, Koren & Volinsky 2008, eq. 4): the same columns, the same weights of what is past.
So the difference of the two is what noise costs, and nothing else.
"""

from __future__ import annotations

import numpy as np

from palate.models.arrays import Float32Array
from palate.models.histories import Histories
from palate.models.learning.kernel import popularity_sum
from palate.models.learning.ridge import solve_users
from palate.models.popularity import saturating_column
from palate.models.scores.registry import serving_training
from palate.models.training import LocalTraining
from palate.simulation.baselines.base import Baseline, FitData
from palate.simulation.baselines.scorers import FactorScorer


def fit_content_only(data: FitData) -> FactorScorer:
    """Solve one ridge per user over exact popularity and public content; the ridge is the run's own."""
    counts = popularity_sum(data.summed or data.history, data.num_items)
    return fit_on_public_columns(data.history, saturating_column(counts), data.content, data.training)


def fit_on_public_columns(
    history: Histories, popularity: Float32Array, content: Float32Array | None, training: LocalTraining
) -> FactorScorer:
    """Solve one ridge per user over a popularity column, noised or not, and public content.

    Parameters
    ----------
    history
        What each user has had.
    popularity
        Popularity column of the item table, float32 [num_items].
    content
        Centred content features, float32 [num_items, k]; None where there are none.
    training
        Parameters of the closed form. What recommends is fitted with `serving_training`, as in a run.

    Returns
    -------
    FactorScorer
        Its items are [popularity | content], as the fixed columns of an item table.
    """
    serving = serving_training(training)
    public = np.zeros((len(popularity), 0), dtype=np.float32) if content is None else content
    rows = np.column_stack([popularity, public]).astype(np.float32)  # [num_items, 1 + k]
    return FactorScorer(solve_users(rows, history, serving), rows)


CONTENT_ONLY = Baseline(
    name="content_only",
    label="Popularity and content",
    citation="Hu, Koren & Volinsky (2008), eq. 4, on public columns",
    fit=fit_content_only,
)
