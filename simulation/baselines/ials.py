"""iALS: matrix factorisation on implicit feedback by alternating ridge solves (Hu, Koren & Volinsky 2008).

With the frequency-scaled regularisation and small initialisation of Rendle et al. (2022), "Revisiting the performance
of iALS on item recommendation benchmarks", eq. 2 to 5, which is what makes it competitive with newer models:

    sum_{(u,i) in S} (1 - w_u'h_i)^2 + a0 sum_{all u,i} (w_u'h_i)^2
        + reg (sum_u (|S_u| + a0 |I|)^nu |w_u|^2 + sum_i (|S_i| + a0 |U|)^nu |h_i|^2)
"""

from __future__ import annotations

import numpy as np

from palate.models.arrays import Float32Array, FloatingArray, IntegerArray
from palate.models.histories import Histories
from palate.simulation.baselines.base import Baseline, FitData, require_positive
from palate.simulation.baselines.scorers import FactorScorer, history_matrix

BATCH_ELEMENTS = 4_000_000
"""Floats gathered at once, 16 MB: large enough to hide Python, small enough for the cache of a laptop."""


def fit_ials(
    data: FitData,
    *,
    dim: int = 64,
    num_epochs: int = 12,
    unobserved_weight: float = 0.2,
    regularisation: float = 0.02,
    frequency_exponent: float = 1.0,
    init_scale: float = 0.1,
) -> FactorScorer:
    """Alternate between the users' and the items' closed forms.

    Parameters
    ----------
    data
        Histories and the size of the catalogue; its seed draws the initial item vectors.
    dim
        Length of the vectors.
    num_epochs
        Alternations; users are solved once more at the end, with recent interactions weighing more where there is an
        order.
    unobserved_weight
        a0, weight of a pair that was not observed.
    regularisation
        reg above, positive.
    frequency_exponent
        nu above; 1 weighs the penalty by how often a user or item occurs, 0 not at all.
    init_scale
        Standard deviation of the initial item vectors times sqrt(dim).

    Raises
    ------
    ConfigError
        If the ridge is not positive.
    """
    require_positive(regularisation)
    history, num_items = data.history, data.num_items
    transposed = history_matrix(history, num_items).T.tocsr()
    owners = Histories(transposed.indptr.astype(np.int64), transposed.indices.astype(np.int32))  # users per item

    def penalty(lengths: IntegerArray | FloatingArray, num_others: int) -> Float32Array:
        scale = (lengths + unobserved_weight * num_others) ** frequency_exponent
        return (regularisation * scale).astype(np.float32)

    user_penalty = penalty(history.lengths, num_items)
    item_penalty = penalty(owners.lengths, history.num_users)
    rng = np.random.default_rng(data.seed)
    items = rng.normal(0.0, init_scale / np.sqrt(dim), (num_items, dim)).astype(np.float32)

    for _ in range(num_epochs):
        users = solve_ridge(items, history, unobserved_weight=unobserved_weight, regularisation=user_penalty)
        items = solve_ridge(users, owners, unobserved_weight=unobserved_weight, regularisation=item_penalty)
    weights = data.recency
    seen = np.bincount(history.owners, weights=weights, minlength=history.num_users)
    serving = penalty(seen, num_items)
    return FactorScorer(
        solve_ridge(items, history, unobserved_weight=unobserved_weight, regularisation=serving, weights=weights), items
    )


def solve_ridge(
    table: Float32Array,
    history: Histories,
    *,
    unobserved_weight: float,
    regularisation: FloatingArray | float,
    weights: Float32Array | None = None,
) -> Float32Array:
    """Solve (X_S'W X_S + a0 X'X + reg I) p = X_S'W 1 for each user's items S.

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
    weights
        Diagonal of W: confidence in each interaction, float32 [num_interactions]; 1 unless given.

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
        weighted = own
        if weights is not None:
            of_slot = np.zeros(slots.shape, dtype=np.float32)
            of_slot[slots] = weights[history.entries(users)]
            weighted = own * of_slot[:, :, None]
        normal = weighted.transpose(0, 2, 1) @ own + prior  # [batch, dim, dim]
        normal[:, np.arange(dim), np.arange(dim)] += ridge[users][:, None]
        solved[users] = np.linalg.solve(normal, weighted.sum(axis=1)[:, :, None])[:, :, 0]
        start += size
    return solved


IALS = Baseline(
    name="ials",
    label="iALS",
    citation="Hu, Koren & Volinsky (2008); Rendle, Krichene, Zhang & Koren (2022), Revisiting iALS",
    fit=fit_ials,
    candidates=tuple({"regularisation": ridge} for ridge in (0.02, 0.005, 0.05, 0.1)),
    weighs_recency=True,
    expensive=True,
)
