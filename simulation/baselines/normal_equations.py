"""Whole-data weighted ridge for many users at once (Hu, Koren & Volinsky 2008, eq. 4), histories padded in batches.

With unit weights it is what the oracle of the tests solves for one person.
"""

from __future__ import annotations

import numpy as np

from palate.models.arrays import Float32Array, FloatingArray
from palate.models.histories import Histories

BATCH_ELEMENTS = 4_000_000
"""Floats gathered at once, 16 MB: large enough to hide Python, small enough for the cache of a laptop."""


def solve_ridge(
    table: Float32Array,
    history: Histories,
    *,
    unobserved_weight: float,
    regularisation: FloatingArray | float,
) -> Float32Array:
    """Solve (X_S'X_S + a0 X'X + reg I) p = X_S'1 for each user's items S.

    Parameters
    ----------
    table
        Item vectors X, float32 [num_items, dim].
    history
        Items of each user.
    unobserved_weight
        a0, the weight of the whole catalogue.
    regularisation
        reg, one number or one per user, [num_users]; positive.

    Returns
    -------
    float32 [num_users, dim]
        Zero for users without items.
    """
    num_items, dim = table.shape
    padded = np.vstack([table, np.zeros((1, dim), dtype=np.float32)])  # row num_items is the padding
    prior = unobserved_weight * (table.T @ table)
    ridge = np.broadcast_to(np.asarray(regularisation, dtype=np.float32), history.num_users)
    lengths = history.lengths
    solved = np.zeros((history.num_users, dim), dtype=np.float32)
    # Longest first, so that the users of one batch need little padding.
    order = np.argsort(-lengths, kind="stable")
    order = order[: np.count_nonzero(lengths)]
    start = 0
    while start < len(order):
        width = int(lengths[order[start]])
        size = max(1, BATCH_ELEMENTS // ((width + dim) * dim))
        users = order[start : start + size]
        slots = np.arange(width)[None, :] < lengths[users][:, None]  # [batch, width]
        items = np.full(slots.shape, num_items, dtype=np.int64)
        items[slots] = history.select(users).items
        own = padded[items]  # [batch, width, dim]
        normal = own.transpose(0, 2, 1) @ own + prior  # [batch, dim, dim]
        normal[:, np.arange(dim), np.arange(dim)] += ridge[users][:, None]
        solved[users] = np.linalg.solve(normal, own.sum(axis=1)[:, :, None])[:, :, 0]
        start += size
    return solved
