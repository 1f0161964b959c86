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
"""Most similarities held at once; fewer where many items have no user in common."""


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
    block = max(1, BLOCK_ELEMENTS // num_items)
    parts = []
    for start in range(0, num_items, block):
        common = (transposed[start : start + block] @ matrix).tocoo()  # [block, num_items]
        candidate, neighbour = common.coords
        other = candidate + start != neighbour
        candidate, neighbour = candidate[other], neighbour[other]
        similarity = common.data[other] / (norms[candidate + start] * norms[neighbour] + config.shrinkage)
        order = np.lexsort((neighbour, -similarity, candidate))
        candidate, neighbour, similarity = candidate[order], neighbour[order], similarity[order]
        # Position inside the candidate's own stretch: nearest first, equals in the order of the item index.
        position = np.arange(len(order)) - np.searchsorted(candidate, candidate)
        near = position < config.num_neighbours
        shape = (common.shape[0], num_items)
        parts.append(sparse.coo_array((similarity[near], (candidate[near], neighbour[near])), shape=shape))
    return ItemToItemScorer(matrix, sparse.vstack(parts).T.tocsr())
