"""The kernel for a batch of one, called as `oracle.device` is, so that a test can ask both the same."""

from __future__ import annotations

import numpy as np

from oracle.device import Trained
from palate.models.arrays import Float32Array, Int32Array
from palate.models.histories import Histories
from palate.models.learning import kernel
from palate.models.scores.base import State
from palate.models.table import ItemTable
from palate.models.training import LocalTraining


def train(
    table: ItemTable, items: Int32Array, state: State | None, config: LocalTraining, *, key: np.uint64
) -> Trained:
    """Run one round of local training; the update is the one that a mechanism would get."""
    heads = kernel.fresh_heads(table, config, 1) if state is None else {name: own[None] for name, own in state.items()}
    found = [np.zeros_like(table.learned)]
    trained = kernel.train(
        table,
        Histories.of_one(items),
        heads,
        np.full(1, key, dtype=np.uint64),
        config,
        sink=lambda _, updates: found.append(updates.dense(0, 1)[0].T),
    )
    return Trained(found[-1], {name: value[0] for name, value in trained.heads.items()}, trained.loss)


def score_catalogue(table: ItemTable, items: Int32Array, state: State | None, config: LocalTraining) -> Float32Array:
    """Score all items for one person, float32 [num_items]; the linear part is fitted to the history and table."""
    heads = kernel.fresh_heads(table, config, 1) if state is None else {name: own[None] for name, own in state.items()}
    fitted = kernel.fit_heads(table, Histories.of_one(items), heads, config)
    return kernel.scorer_of(table, fitted, config).scores(np.zeros(1, dtype=np.int32))[0]


def popularity_update(items: Int32Array, num_items: int) -> Float32Array:
    """A device's part of the popularity sum, float32 [num_items]."""
    return kernel.popularity_sum(Histories.of_one(items), num_items)
