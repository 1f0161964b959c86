"""Item kNN: recommend what co-occurs with what a user has had (Sarwar et al. 2001; shrinkage: Bell & Koren 2007).

s_ij = |U_i and U_j| / (sqrt(|U_i| |U_j|) + shrinkage),   only the nearest neighbours of each candidate kept
"""

from __future__ import annotations

import numpy as np
from pydantic import NonNegativeFloat, PositiveInt
from pydantic.dataclasses import dataclass
from scipy import sparse

from palate.simulation.baselines.scorers import ItemToItemScorer, history_matrix
from palate.simulation.data.types import Histories

BLOCK_ELEMENTS = 8_000_000
"""Similarities made dense at once, 32 MB."""


@dataclass(frozen=True, kw_only=True)
class ItemKnnConfig:
    """Hyperparameters.

    Attributes
    ----------
    num_neighbours
        Neighbours kept per candidate.
    shrinkage
        Pulls similarities that rest on few users towards 0.
    """

    num_neighbours: PositiveInt = 50
    shrinkage: NonNegativeFloat = 10.0


def fit_item_knn(
    history: Histories,
    num_items: int,
    config: ItemKnnConfig | None = None,
) -> ItemToItemScorer:
    """Find the nearest neighbours of every item.

    Parameters
    ----------
    history
        What each user has had.
    num_items
        Size of the catalogue.
    config
        Hyperparameters.
    """
    config = config or ItemKnnConfig()
    matrix = history_matrix(history, num_items)
    transposed = matrix.T.tocsr()
    norms = np.sqrt(np.bincount(history.items, minlength=num_items).astype(np.float32))
    kept = min(config.num_neighbours, num_items)
    block = max(1, BLOCK_ELEMENTS // num_items)
    parts = []
    for start in range(0, num_items, block):
        stop = min(start + block, num_items)
        similarity = (transposed[start:stop] @ matrix).toarray()  # [block, num_items]
        # A pair without a common user has similarity 0, whatever the denominator.
        similarity /= np.maximum(norms[start:stop, None] * norms[None, :] + config.shrinkage, 1e-12)
        similarity[np.arange(stop - start), np.arange(start, stop)] = 0.0
        threshold = np.partition(similarity, num_items - kept, axis=1)[:, num_items - kept]
        similarity[similarity < threshold[:, None]] = 0.0
        parts.append(sparse.csr_array(similarity))
    return ItemToItemScorer(matrix, sparse.vstack(parts).T.tocsr())
