"""EASE: the best linear item-to-item model that may not recommend an item from itself (Steck 2019, eq. 8).

    P = (X'X + reg I)^-1,   B = I - P diag(P)^-1

Closed form, one hyperparameter, and hard to beat on small catalogues; the inverse is cubic in the number of items.
"""

from __future__ import annotations

import numpy as np
from scipy import linalg

from palate.errors import ConfigError
from palate.simulation.baselines.base import Baseline, FitData, require_positive
from palate.simulation.baselines.scorers import ItemToItemScorer, history_matrix

MAX_ITEMS = 12_000
"""Beyond this the inverse takes minutes and gigabytes."""


def fit_ease(data: FitData, regularisation: float = 800.0) -> ItemToItemScorer:
    """Solve for the item-to-item weights.

    Parameters
    ----------
    data
        Histories, and a catalogue of at most MAX_ITEMS.
    regularisation
        Added to the diagonal of the item Gram matrix, positive.

    Raises
    ------
    ConfigError
        If the catalogue is too large, or the ridge not positive.
    """
    require_positive(regularisation)
    num_items = data.num_items
    if num_items > MAX_ITEMS:
        raise ConfigError(
            f"EASE inverts a {num_items} x {num_items} matrix, at most {MAX_ITEMS} items are practical",
            hint="leave out this baseline, or drop rare items",
        )
    matrix = history_matrix(data.history, num_items)
    gram = (matrix.T @ matrix).toarray()  # [num_items, num_items]
    gram[np.arange(num_items), np.arange(num_items)] += regularisation
    # The Gram matrix is positive definite: a Cholesky inverse costs half of a general one.
    factor, _ = linalg.lapack.spotrf(gram, lower=True, overwrite_a=True)
    inverse, _ = linalg.lapack.spotri(factor, lower=True, overwrite_c=True)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return ItemToItemScorer(matrix, weights)


EASE = Baseline(
    name="ease",
    label="EASE",
    citation="Steck (2019), Embarrassingly shallow autoencoders for sparse data",
    fit=fit_ease,
    max_items=MAX_ITEMS,
)
