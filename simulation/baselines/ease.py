"""EASE: the best linear item-to-item model that may not recommend an item from itself (Steck 2019, eq. 8).

    P = (X'X + reg I)^-1,   B = I - P diag(P)^-1

Closed form, one hyperparameter, and hard to beat on small catalogues; the inverse is cubic in the number of items. For
a larger catalogue the same B follows from a matrix of people (Woodbury's identity):

    P = (I - X' S X) / reg,   S = (X X' + reg I)^-1

Where both are many, only the most popular items are modelled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg, sparse

from palate.models.arrays import Float32Array, Int32Array, Int64Array
from palate.simulation.baselines.base import Baseline, FitData, require_positive
from palate.simulation.baselines.scorers import ItemToItemScorer, history_matrix
from palate.simulation.evaluation import Scorer

LARGEST_INVERSE = 16_000
"""Rows of the largest matrix that is inverted: 1 GB, and some minutes of one core."""
HEAD_ITEMS = 12_000
"""Items that are modelled where there are too many items and too many people; the others get no score."""

_BLOCK = 1024


def fit_ease(data: FitData, regularisation: float = 800.0) -> Scorer:
    """Solve for the item-to-item weights; a history's weights by age are used when recommending.

    Parameters
    ----------
    data
        Histories, and the size of the catalogue.
    regularisation
        Added to the diagonal of the item Gram matrix, positive.

    Raises
    ------
    ConfigError
        If the ridge is not positive.
    """
    require_positive(regularisation)
    num_items = data.num_items
    matrix = history_matrix(data.history, num_items)
    serving = history_matrix(data.history, num_items, data.recency)
    if num_items <= LARGEST_INVERSE:
        return ItemToItemScorer(serving, item_weights(matrix, regularisation))
    if data.history.num_users <= LARGEST_INVERSE:
        return PeopleScorer.fit(matrix, serving, regularisation)
    popular = np.argsort(-np.bincount(data.history.items, minlength=num_items), kind="stable")[:HEAD_ITEMS]
    head = np.sort(popular)
    return HeadScorer(
        ItemToItemScorer(serving[:, head], item_weights(matrix[:, head], regularisation)), head, num_items
    )


def item_weights(matrix: sparse.csr_array, regularisation: float) -> Float32Array:
    """B of the module's docstring, float32 [num_items, num_items]; one matrix of that size is held."""
    weights = _inverse_of_gram(matrix.T.tocsr(), regularisation)
    weights /= -np.diag(weights).copy()
    np.fill_diagonal(weights, 0.0)
    return weights


def _inverse_of_gram(rows: sparse.csr_array, regularisation: float) -> Float32Array:
    """Inverse of (rows rows' + regularisation I), float32 [n, n], in the memory of one such matrix."""
    size, columns = rows.shape[0], rows.T.tocsr()
    gram = np.empty((size, size), dtype=np.float32)
    for start in range(0, size, _BLOCK):
        gram[start : start + _BLOCK] = (rows[start : start + _BLOCK] @ columns).toarray()
    gram[np.arange(size), np.arange(size)] += regularisation
    # Positive definite: a Cholesky inverse costs half of a general one. The transpose has LAPACK's layout.
    factor, _ = linalg.lapack.spotrf(gram.T, lower=True, overwrite_a=True)
    inverse, _ = linalg.lapack.spotri(factor, lower=True, overwrite_c=True)
    found: Float32Array = inverse.T  # its upper triangle is right
    for start in range(0, size, _BLOCK):
        stop = min(start + _BLOCK, size)
        found[stop:, start:stop] = found[start:stop, stop:].T
        square = np.triu(found[start:stop, start:stop])
        found[start:stop, start:stop] = square + np.triu(square, 1).T
    return found


@dataclass(frozen=True, eq=False)
class PeopleScorer:
    """The same scores from a matrix of people, for more items than can be inverted.

    Attributes
    ----------
    matrix
        Histories as 0 and 1, [num_users, num_items].
    serving
        Histories by the weight of each interaction, [num_users, num_items].
    inverse
        S of the module's docstring, float32 [num_users, num_users].
    diagonal
        Diagonal of P times the ridge, float32 [num_items].
    """

    matrix: sparse.csr_array
    serving: sparse.csr_array
    inverse: Float32Array
    diagonal: Float32Array

    @staticmethod
    def fit(matrix: sparse.csr_array, serving: sparse.csr_array, regularisation: float) -> PeopleScorer:
        """Invert the matrix of people."""
        inverse, columns = _inverse_of_gram(matrix, regularisation), matrix.T.tocsr()
        shared = np.empty(matrix.shape[1], dtype=np.float32)  # diagonal of X' S X
        for start in range(0, len(shared), _BLOCK):
            block = columns[start : start + _BLOCK]
            shared[start : start + _BLOCK] = np.asarray(block.multiply(block @ inverse).sum(axis=1)).reshape(-1)
        return PeopleScorer(matrix, serving, inverse, np.float32(1.0) - shared)

    def scores(self, users: Int32Array) -> Float32Array:
        """Scores of all items, float32 [batch, num_items]: h B = h - h P diag(P)^-1 for a weighted history h."""
        own = self.serving[users]  # [batch, num_items]
        smoothed = ((own @ self.matrix.T).toarray() @ self.inverse) @ self.matrix  # h X' S X
        past = own.toarray()
        return np.asarray(past - (past - smoothed) / self.diagonal, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class HeadScorer:
    """Scores of some items; the others get the least score of the row, so that they come last.

    Attributes
    ----------
    head
        Scores of the items that are modelled.
    items
        Their numbers in the catalogue, int64 [num_head].
    num_items
        Size of the catalogue.
    """

    head: ItemToItemScorer
    items: Int64Array
    num_items: int

    def scores(self, users: Int32Array) -> Float32Array:
        """Scores of all items, float32 [batch, num_items]."""
        known = self.head.scores(users)
        found = np.repeat(known.min(axis=1, keepdims=True), self.num_items, axis=1)
        found[:, self.items] = known
        return found


EASE = Baseline(
    name="ease",
    label="EASE",
    citation="Steck (2019), Embarrassingly shallow autoencoders for sparse data",
    fit=fit_ease,
    candidates=tuple({"regularisation": ridge} for ridge in (800.0, 200.0, 3000.0)),
    weighs_recency=True,
    expensive=True,
)
