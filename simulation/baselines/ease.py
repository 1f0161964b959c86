"""EASE: the best linear item-to-item model that may not recommend an item from itself (Steck 2019, eq. 8).

    P = (X'X + reg I)^-1,   B = I - P diag(P)^-1

Closed form, one hyperparameter, and hard to beat on small catalogues; the inverse is cubic in the number of items.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from pydantic import PositiveFloat
from pydantic.dataclasses import dataclass
from scipy import linalg

from palate.errors import ConfigError
from palate.models.histories import Histories
from palate.simulation.baselines.base import Baseline, FitData
from palate.simulation.baselines.scorers import ItemToItemScorer, history_matrix
from palate.simulation.evaluation import Scorer

MAX_ITEMS = 12_000
"""Beyond this the inverse takes minutes and gigabytes."""


@dataclass(frozen=True, kw_only=True)
class EaseConfig:
    """Hyperparameters.

    Attributes
    ----------
    regularisation
        Added to the diagonal of the item Gram matrix.
    """

    regularisation: PositiveFloat = 800.0


def fit_ease(
    history: Histories,
    num_items: int,
    config: EaseConfig | None = None,
) -> ItemToItemScorer:
    """Solve for the item-to-item weights.

    Parameters
    ----------
    history
        What each user has had.
    num_items
        Size of the catalogue, at most MAX_ITEMS.
    config
        Hyperparameters.

    Raises
    ------
    ConfigError
        If the catalogue is too large.
    """
    if num_items > MAX_ITEMS:
        raise ConfigError(
            f"EASE inverts a {num_items} x {num_items} matrix, at most {MAX_ITEMS} items are practical",
            hint="leave out this baseline, or drop rare items",
        )
    config = config or EaseConfig()
    matrix = history_matrix(history, num_items)
    gram = (matrix.T @ matrix).toarray()  # [num_items, num_items]
    gram[np.arange(num_items), np.arange(num_items)] += config.regularisation
    # The Gram matrix is positive definite: a Cholesky inverse costs half of a general one.
    factor, _ = linalg.lapack.spotrf(gram, lower=True, overwrite_a=True)
    inverse, _ = linalg.lapack.spotri(factor, lower=True, overwrite_c=True)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return ItemToItemScorer(matrix, weights)


def _fit(data: FitData, config: EaseConfig) -> Scorer:
    return fit_ease(data.history, data.num_items, config)


EASE = Baseline(
    name="ease",
    label="EASE",
    citation="Steck (2019), Embarrassingly shallow autoencoders for sparse data",
    fit=partial(_fit, config=EaseConfig()),
    variants={
        f"regularisation={reg:g}": partial(_fit, config=EaseConfig(regularisation=reg)) for reg in (200.0, 2000.0)
    },
    max_items=MAX_ITEMS,
)
