"""Local user solve: whole-data weighted ridge (Hu, Koren & Volinsky 2008, eq. 4; Rendle et al. 2022, eq. 2).

One device's loss, over its own items S with weights w and over the whole catalogue:

    L(p) = sum_{i in S} w_i (1 - p'x_i)^2  +  a0 sum_{all i} (p'x_i)^2  +  reg |p|^2

so ``p = (X_S' W X_S + a0 X'X + reg I)^-1 X_S' w``. ``X'X`` is public and computed once per table. The negative
half-gradient with respect to item i is ``e_i p`` with ``e_i = w_i (1 - s_i) [i in S] - a0 s_i``: dense over the
catalogue (it shows no sparsity pattern) and rank one.

Part of that gradient is a self-loop: item i has shaped p, and so is pulled towards itself. Where histories are short
it swamps what items say about each other. `left_out_updates` takes the vector that was fitted without the interaction
instead, in closed form (the predicted residual of Allen 1974; Steck 2019 bars self-similarity for the same reason).
"""

from __future__ import annotations

import numpy as np

from palate.models.arrays import Float32Array, Float64Array, FloatingArray, IntegerArray


def gram(rows: Float32Array) -> Float64Array:
    """``X'X`` of the table, float64 [k, k] for rows float32 [num_items, k]."""
    wide = rows.astype(np.float64)
    return np.asarray(wide.T @ wide)


def solve_user(
    rows: Float32Array,
    items: IntegerArray,
    weights: Float32Array,
    table_gram: Float64Array,
    *,
    unobserved_weight: float,
    regularisation: float,
) -> Float32Array:
    """Fit one person's vector in closed form.

    Parameters
    ----------
    rows
        Item rows, float32 [num_items, k].
    items
        The person's items, int [n]; n = 0 gives the zero vector.
    weights
        Their weights, float32 [n].
    table_gram
        `gram(rows)`, float64 [k, k].
    unobserved_weight, regularisation
        ``a0`` and ``reg`` of the loss.

    Returns
    -------
    float32 [k]
    """
    own = rows[items].astype(np.float64)  # [n, k]
    normal = normal_matrix(
        own, weights, table_gram, unobserved_weight=unobserved_weight, regularisation=regularisation
    )  # fmt: skip
    return np.linalg.solve(normal, (own * weights[:, None]).sum(axis=0)).astype(np.float32)


def normal_matrix(
    own: Float64Array,
    weights: FloatingArray,
    table_gram: Float64Array,
    *,
    unobserved_weight: float,
    regularisation: float,
) -> Float64Array:
    """Return ``N = X_S' W X_S + a0 X'X + reg I``, float64 [k, k], of rows [n, k] and their weights [n]."""
    penalty = regularisation * np.eye(own.shape[1])
    return np.asarray((own * weights[:, None]).T @ own + unobserved_weight * table_gram + penalty)


def residuals(
    rows: Float32Array,
    items: IntegerArray,
    weights: Float32Array,
    user: Float32Array,
    *,
    unobserved_weight: float,
) -> Float32Array:
    """Residual ``e`` of one person over the whole catalogue, float32 [num_items]."""
    scores = rows @ user
    out = (-unobserved_weight * scores).astype(np.float32)
    np.add.at(out, items, weights * (1.0 - scores[items]))
    return out


def left_out_updates(
    own: Float64Array,
    weights: Float64Array,
    inverse_rows: Float64Array,
    user: Float64Array,
    learned: slice,
    *,
    unobserved_weight: float,
) -> Float64Array:
    """Update of each own item's row by the vector fitted without it; the item stays in the catalogue, unobserved.

    With ``z_i = N^-1 x_i`` for the normal matrix N and leverage ``h_i = w_i x_i'z_i``, leaving interaction i out gives
    ``1 - s_-i = (1 - s_i) / (1 - h_i)`` and ``p_-i = p - w_i (1 - s_-i) z_i`` (Sherman & Morrison 1950).

    Parameters
    ----------
    own
        Rows of the person's items, [n, k].
    weights
        Their weights, [n].
    inverse_rows
        ``X_S N^-1``, row i is ``z_i``, [n, k].
    user
        The fitted vector, [k].
    learned
        Columns that are learned.
    unobserved_weight
        ``a0`` of the loss.

    Returns
    -------
    float64 [n, dim]
        ``(w_i (1 - s_-i) - a0 s_-i) p_-i``, the learned columns of it.
    """
    leverage = weights * np.einsum("nk,nk->n", own, inverse_rows)  # below 1, as N exceeds w_i x_i x_i' by the ridge
    missing = (1.0 - own @ user) / (1.0 - leverage)  # 1 - s_-i
    users = user[learned] - (weights * missing)[:, None] * inverse_rows[:, learned]  # [n, dim]
    return np.asarray((weights * missing - unobserved_weight * (1.0 - missing))[:, None] * users)


def leave_one_out(
    rows: Float32Array,
    items: IntegerArray,
    weights: Float32Array,
    table_gram: Float64Array,
    user: Float32Array,
    learned: slice,
    *,
    unobserved_weight: float,
    regularisation: float,
) -> Float32Array:
    """Return `left_out_updates` of one person, float32 [n, dim]; parameters as for `solve_user`."""
    own, wide = rows[items].astype(np.float64), weights.astype(np.float64)
    normal = normal_matrix(
        own, wide, table_gram, unobserved_weight=unobserved_weight, regularisation=regularisation
    )  # fmt: skip
    updates = left_out_updates(
        own,
        wide,
        np.asarray(np.linalg.solve(normal, own.T).T, dtype=np.float64),
        user.astype(np.float64),
        learned,
        unobserved_weight=unobserved_weight,
    )
    return updates.astype(np.float32)
