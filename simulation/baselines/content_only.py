"""What popularity and public content can do alone: each user's ridge over fixed columns, nothing learned together.

Separates what a federated model gains by learning embeddings from what everybody could have read off the box. It is
`dp_content` without the noise (Hu, Koren & Volinsky 2008, eq. 4): the same columns, the same weights of what is past.
So the difference of the two is what noise costs, and nothing else.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from palate.models.arrays import Float32Array
from palate.models.histories import Histories
from palate.models.learning.kernel import popularity_sum
from palate.models.learning.ridge import solve_users
from palate.models.popularity import saturating_column
from palate.models.serving import serving_training
from palate.models.training import LocalTraining
from palate.simulation.baselines.base import Baseline, FitData
from palate.simulation.baselines.scorers import FactorScorer
from palate.simulation.evaluation import Scorer


def fit_content_only(
    history: Histories,
    num_items: int,
    content: Float32Array | None = None,
    training: LocalTraining | None = None,
    *,
    summed: Histories | None = None,
) -> FactorScorer:
    """Solve one ridge per user over the exact popularity column and public content.

    Parameters
    ----------
    history
        What each user has had.
    num_items
        Size of the catalogue.
    content
        Centred content features, float32 [num_items, k]; popularity alone where there are none.
    training
        Parameters of the closed form: those of the run that this is a reference for.
    summed
        What popularity is counted on, where that is less than `history`.
    """
    counts = popularity_sum(summed or history, num_items)
    return fit_on_public_columns(history, saturating_column(counts), content, training)


def fit_on_public_columns(
    history: Histories, popularity: Float32Array, content: Float32Array | None, training: LocalTraining | None
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
        Parameters of the closed form; the defaults unless given. What recommends is fitted with `serving_training`, as
        in a run.

    Returns
    -------
    FactorScorer
        Its items are [popularity | content], as the fixed columns of an item table.
    """
    serving = serving_training(training or LocalTraining())
    public = np.zeros((len(popularity), 0), dtype=np.float32) if content is None else content
    rows = np.column_stack([popularity, public]).astype(np.float32)  # [num_items, 1 + k]
    return FactorScorer(solve_users(rows, history, serving), rows)


def _fit(data: FitData, regularisation: float | None = None) -> Scorer:
    ridge = {} if regularisation is None else {"regularisation": regularisation}
    training = data.training.model_copy(update=ridge)
    return fit_content_only(data.history, data.num_items, data.content, training, summed=data.summed)


CONTENT_ONLY = Baseline(
    name="content_only",
    label="Popularity and content",
    citation="Hu, Koren & Volinsky (2008), eq. 4, on public columns",
    fit=_fit,
    variants={f"regularisation={reg:g}": partial(_fit, regularisation=reg) for reg in (10.0, 100.0)},
)
