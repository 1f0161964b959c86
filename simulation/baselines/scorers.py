"""The shapes of fitted baselines: one list for everyone, a product of factors, or a product with the history."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from palate.models.arrays import Float32Array, Int32Array
from palate.models.histories import Histories


@dataclass(frozen=True, eq=False)
class ConstantScorer:
    """The same scores for everybody.

    Attributes
    ----------
    item_scores
        float32 [num_items].
    """

    item_scores: Float32Array

    def scores(self, users: Int32Array) -> Float32Array:
        """Scores of all items, float32 [batch, num_items]."""
        return np.repeat(self.item_scores[None, :], len(users), axis=0)


@dataclass(frozen=True, eq=False)
class FactorScorer:
    """Inner products of user and item vectors.

    Attributes
    ----------
    users
        float32 [num_users, dim].
    items
        float32 [num_items, dim].
    """

    users: Float32Array
    items: Float32Array

    def scores(self, users: Int32Array) -> Float32Array:
        """Scores of all items, float32 [batch, num_items]."""
        return np.asarray(self.users[users] @ self.items.T)

    def score_items(self, users: Int32Array, items: Int32Array) -> Float32Array:
        """Scores of some items [batch, candidates], float32 of that shape."""
        return np.asarray(np.einsum("bd,bcd->bc", self.users[users], self.items[items]))


@dataclass(frozen=True, eq=False)
class ItemToItemScorer:
    """Sum of the weights from the items that a user has had.

    Attributes
    ----------
    history
        Weight of each item that was had, 0 for the others, [num_users, num_items].
    weights
        Weight from an item that was had (row) to a candidate (column), [num_items, num_items], dense or sparse.
    """

    history: sparse.csr_array
    weights: Float32Array | sparse.csr_array

    def scores(self, users: Int32Array) -> Float32Array:
        """Scores of all items, float32 [batch, num_items]."""
        product = self.history[users] @ self.weights  # [batch, num_items]
        dense = product.toarray() if sparse.issparse(product) else product
        return np.asarray(dense, dtype=np.float32)


def history_matrix(history: Histories, num_items: int, weights: Float32Array | None = None) -> sparse.csr_array:
    """Histories as a matrix of 0 and 1, or of each interaction's weight, float32 [num_users, num_items]."""
    values = np.ones(len(history.items), dtype=np.float32) if weights is None else weights.copy()
    entries = (values, history.items.copy(), history.indptr)  # sorting is in place
    matrix = sparse.csr_array(entries, shape=(history.num_users, num_items))
    matrix.sort_indices()
    return matrix
