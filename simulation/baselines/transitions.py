"""Counts of transitions: what people took within ten steps after an item that you have had.

A first-order Markov chain over items (Rendle, Freudenthaler & Schmidt-Thieme 2010, without its factorisation), with
longer steps beside the direct one:

    c_ij = how often j came 1 to 10 places after i,   s_ij = c_ij / sqrt((n_i + 10) (n_j + 10))

The plainest model of an order: one that learns more from it has to beat this.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from palate.models.histories import Histories
from palate.simulation.baselines.base import Baseline, FitData
from palate.simulation.baselines.scorers import ItemToItemScorer, history_matrix

NUM_LAGS = 10
SHRINKAGE = 10.0
"""Added to the counts of items, so that rare ones are not trusted."""


def fit_transitions(data: FitData) -> ItemToItemScorer:
    """Count, and recommend from a history in which recent items weigh more."""
    history, num_items = data.history, data.num_items
    scale = 1.0 / np.sqrt(np.bincount(history.items, minlength=num_items).astype(np.float32) + SHRINKAGE)
    normalise = sparse.diags_array(scale)
    weights = (normalise @ transition_counts(history, num_items) @ normalise).tocsr().astype(np.float32)
    return ItemToItemScorer(history_matrix(history, num_items, data.recency), weights)


def transition_counts(history: Histories, num_items: int) -> sparse.csr_array:
    """How often an item (column) came at most NUM_LAGS places after another (row), float32 [num_items, num_items]."""
    later = np.repeat(history.indptr[1:], history.lengths) - 1 - np.arange(len(history.items))  # newer interactions
    counts = sparse.csr_array((num_items, num_items), dtype=np.float32)
    for lag in range(1, NUM_LAGS + 1):
        first = np.flatnonzero(later >= lag)
        pairs = history.items[first], history.items[first + lag]
        ones = np.ones(len(first), dtype=np.float32)
        counts = counts + sparse.csr_array((ones, pairs), shape=counts.shape)  # equal pairs are added up
    return counts


TRANSITIONS = Baseline(
    name="transitions",
    label="Counts of transitions",
    citation="Rendle, Freudenthaler & Schmidt-Thieme (2010), Factorizing personalized Markov chains, unfactorised",
    fit=fit_transitions,
    needs_order=True,
    expensive=True,
)
