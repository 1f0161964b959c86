"""Item kNN: recommend what co-occurs with what a user has had (Sarwar et al. 2001; shrinkage: Bell & Koren 2007).

s_ij = |U_i and U_j| / (sqrt(|U_i| |U_j|) + shrinkage),   only the nearest neighbours of each candidate kept
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy import sparse

from palate.models.arrays import Float32Array
from palate.simulation.baselines.base import Baseline, FitData
from palate.simulation.baselines.scorers import ItemToItemScorer, history_matrix

BLOCK_ELEMENTS = 8_000_000
"""Most similarities held at once; fewer where many items have no user in common."""


def fit_item_knn(data: FitData, num_neighbours: int = 50, shrinkage: float = 10.0) -> ItemToItemScorer:
    """Find the nearest neighbours of every item.

    Parameters
    ----------
    data
        Histories, and the size of the catalogue.
    num_neighbours
        Neighbours kept per candidate.
    shrinkage
        Pulls similarities that are based on few users towards 0.
    """
    history, num_items = data.history, data.num_items
    matrix = history_matrix(history, num_items)
    transposed = matrix.T.tocsr()
    norms = np.sqrt(np.bincount(history.items, minlength=num_items).astype(np.float32))
    block = max(1, BLOCK_ELEMENTS // num_items)
    parts = []
    for start in range(0, num_items, block):
        common = transposed[start : start + block] @ matrix  # [block, num_items]
        common.sort_indices()
        candidate, neighbour = common.tocoo().coords
        similarity = common.data / (norms[candidate + start] * norms[neighbour] + shrinkage)
        similarity[candidate + start == neighbour] = 0.0
        for begin, end in pairwise(common.indptr.tolist()):
            _keep_largest(similarity[begin:end], num_neighbours)
        common.data = similarity
        common.eliminate_zeros()
        parts.append(common)
    return ItemToItemScorer(history_matrix(history, num_items, data.recency), sparse.vstack(parts).T.tocsr())


def _keep_largest(values: Float32Array, count: int) -> None:
    """Zero all but the largest values in place, the first of equals at the cut."""
    if len(values) <= count:
        return
    bar = np.partition(values, len(values) - count)[len(values) - count]
    room = count - np.count_nonzero(values > bar)
    dropped = values < bar
    dropped[np.flatnonzero(values == bar)[room:]] = True
    values[dropped] = 0.0


ITEM_KNN = Baseline(
    name="item_knn",
    label="Item kNN",
    citation="Sarwar, Karypis, Konstan & Riedl (2001), Item-based collaborative filtering",
    fit=fit_item_knn,
    candidates=({"num_neighbours": 50}, {"num_neighbours": 200}),
    weighs_recency=True,
    expensive=True,
)
