"""The closed form for a batch of devices: whole-data weighted ridge.

Hu, Koren & Volinsky 2008, eq. 4; Rendle et al. 2022, eq. 2. A device is a batch of one.

One device's loss, over its own items S with weights w and over the whole catalogue:

    L(p) = sum_{i in S} w_i (1 - p'x_i)^2  +  a0 sum_{all i} (p'x_i)^2  +  reg |p|^2

so ``p = (X_S' W X_S + a0 X'X + reg I)^-1 X_S' w``. ``X'X`` is public and computed once per table. The negative
half-gradient with respect to item i is ``e_i p`` with ``e_i = w_i (1 - s_i) [i in S] - a0 s_i``: dense over the
catalogue (it shows no sparsity pattern) and rank one.

Part of that gradient is a self-loop: item i has shaped p, and so is pulled towards itself. Where histories are short
it swamps what items say about each other. `left_out_updates` takes the vector that was fitted without the interaction
instead, in closed form (the predicted residual of Allen 1974; Steck 2019 bars self-similarity for the same reason).

Each device costs one small product and one Cholesky solve; the sum of all rank-one updates is two matrix products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from palate.models.arrays import Float32Array, Float64Array, FloatingArray, Int64Array
from palate.models.histories import Histories, history_weights
from palate.models.learning.autoencoding import encoder_updates
from palate.models.training import LocalTraining

_ENTRIES_PER_CHUNK = 1 << 12


def gram(rows: Float32Array) -> Float64Array:
    """``X'X`` of the table, float64 [k, k] for rows float32 [num_items, k]."""
    wide = rows.astype(np.float64)
    return np.asarray(wide.T @ wide)


def solve_users(rows: Float32Array, histories: Histories, config: LocalTraining) -> Float32Array:
    """Fit every person's vector; float32 [num_users, k] for rows float32 [num_items, k]; zeros without a history.

    Raises
    ------
    FloatingPointError
        If normal equations are not positive definite.
    """
    base, weights, solve = _catalogue_part(rows, config), history_weights(histories, config), _cholesky()
    solutions = np.empty((histories.num_users, rows.shape[1]), dtype=np.float32)
    for user in range(histories.num_users):
        span = slice(histories.indptr[user], histories.indptr[user + 1])
        own = rows.take(histories.items[span], axis=0)  # [n, k]
        weighted = own * weights[span, None]
        solutions[user] = solve(base + weighted.T @ own, weighted.sum(axis=0))
    return solutions


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


@dataclass(frozen=True, eq=False)
class ClosedForm:
    """Updates ``scale_u e_u p_u'`` of a batch of devices, kept as their factors.

    Attributes
    ----------
    rows
        The table's rows as the closed form sees them, float32 [num_items, k].
    histories
        Of the devices.
    own_errors
        ``w_i (1 - s_i)`` on each interaction, float32 [num_interactions]; the whole error, ``w_i (1 - s_i) - a0 s_i``,
        if there is no dense part.
    unobserved_weight
        ``a0`` of the dense part, ``-a0 s_i`` on every item; 0 if errors are on own items only.
    users
        The fitted vectors, float32 [num_users, k].
    vectors
        Their learned columns, times the weight of the person's update, float32 [num_users, dim].
    corrections
        What leave-one-out changes on the row of each interaction, float32 [num_interactions, dim]; None without it.
    loss
        Mean squared error on the positives.
    """

    rows: Float32Array
    histories: Histories
    own_errors: Float32Array
    unobserved_weight: float
    users: Float32Array
    vectors: Float32Array
    corrections: Float32Array | None
    loss: float

    def total(self) -> Float32Array:
        """Sum of the updates, float32 [num_items, dim], without forming any of them."""
        import scipy.sparse as sp  # here, as in `_cholesky`

        items, num_items = self.histories.items, len(self.rows)
        sparse = sp.csr_matrix((self.own_errors, items, self.histories.indptr), (self.histories.num_users, num_items))
        summed = sparse.T @ self.vectors
        if self.unobserved_weight:
            cross = self.users.T @ self.vectors  # [k, dim]
            summed = summed - self.unobserved_weight * (self.rows @ cross)
        if self.corrections is not None:
            entries = np.arange(len(items))
            placed = sp.csr_matrix((np.ones(len(items), np.float32), (items, entries)), (num_items, len(items)))
            summed += placed @ self.corrections
        return np.asarray(summed, dtype=np.float32)

    def errors(self, people: Int64Array) -> Float32Array:
        """Errors of some people over the whole catalogue, float32 [len(people), num_items]."""
        dense = np.zeros((len(people), len(self.rows)), dtype=np.float32)
        if self.unobserved_weight:
            np.matmul(self.users[people], self.rows.T, out=dense)
            dense *= -np.float32(self.unobserved_weight)
        own = self.histories.entries(people)
        owners = np.repeat(np.arange(len(people)), self.histories.lengths[people])
        dense[owners, self.histories.items[own]] += self.own_errors[own]
        return dense


def closed_form(
    rows: Float32Array,
    histories: Histories,
    users: Float32Array,
    learned: slice,
    scale: Float32Array,
    config: LocalTraining,
    *,
    through_encoder: bool = False,
) -> ClosedForm:
    """Make everybody's update at the fitted vectors.

    Parameters
    ----------
    rows, histories, users
        As in `ClosedForm`.
    learned
        Columns that are learned.
    scale
        Weight of each person's update, float32 [num_users].
    config
        Says whether an interaction pulls its item by the vector that leaves it out, and whether updates are on own
        items only.
    through_encoder
        Whether own items learn through the code that they are pooled into (`palate.models.learning.autoencoding`).
    """
    scores, owners = np.empty(len(histories.items), dtype=np.float32), histories.owners
    for start in range(0, len(scores), _ENTRIES_PER_CHUNK):
        part = slice(start, start + _ENTRIES_PER_CHUNK)
        scores[part] = np.einsum("nk,nk->n", rows.take(histories.items[part], axis=0), users.take(owners[part], axis=0))
    errors, unobserved = history_weights(histories, config) * (1.0 - scores), config.unobserved_weight
    if config.own_items_only:
        errors, unobserved = errors - np.float32(unobserved) * scores, 0.0
    corrections = None
    if config.leave_one_out or through_encoder:
        corrections = _corrections(rows, histories, users, learned, config, through_encoder=through_encoder)
        corrections *= scale[owners, None]
    return ClosedForm(
        rows=rows,
        histories=histories,
        own_errors=errors,
        unobserved_weight=unobserved,
        users=users,
        vectors=np.ascontiguousarray(users[:, learned]) * scale[:, None],
        corrections=corrections,
        loss=float(np.mean((1.0 - scores) ** 2)) if len(scores) else 0.0,
    )


def _corrections(
    rows: Float32Array,
    histories: Histories,
    users: Float32Array,
    learned: slice,
    config: LocalTraining,
    *,
    through_encoder: bool,
) -> Float32Array:
    """Difference that `left_out_updates` or `encoder_updates` make on own items, float32 [num_interactions, dim]."""
    base, weights, solve = _catalogue_part(rows, config), history_weights(histories, config), _cholesky()
    unobserved = config.unobserved_weight
    corrections = np.zeros((len(histories.items), users[:, learned].shape[1]), dtype=np.float32)
    for user in np.flatnonzero(histories.lengths >= config.least_interactions):
        span = slice(histories.indptr[user], histories.indptr[user + 1])
        own, own_weights = rows[histories.items[span]].astype(np.float64), weights[span].astype(np.float64)
        code = users[user].astype(np.float64)
        normal = base + (own * own_weights[:, None]).T @ own
        inverse = solve(normal, np.vstack([own, code]).T).T  # N^-1 of the rows, and of the code, [n + 1, k]
        if through_encoder:
            left_out = encoder_updates(
                own,
                own_weights,
                inverse,
                code,
                learned,
                unobserved_weight=unobserved,
                regularisation=config.regularisation,
            )
        else:
            left_out = left_out_updates(own, own_weights, inverse[:-1], code, learned, unobserved_weight=unobserved)
        scores = own @ code
        errors = own_weights * (1.0 - scores) - unobserved * scores
        corrections[span] = left_out - errors[:, None] * code[learned]
    return corrections


def _catalogue_part(rows: Float32Array, config: LocalTraining) -> Float64Array:
    """``a0 X'X + reg I``, the part of the normal equations that is public, float64 [k, k]."""
    return config.unobserved_weight * gram(rows) + config.regularisation * np.eye(rows.shape[1])


def _cholesky() -> Callable[[Float64Array, FloatingArray], Float64Array]:
    """Return a solver of normal equations, [k, k] and [k] or [k, n]; it overwrites the matrix."""
    from scipy.linalg.lapack import dposv  # here, because a device that only recommends does not need SciPy

    def solved(normal: Float64Array, right: FloatingArray) -> Float64Array:
        # symmetric, so the transposed view is the same matrix in LAPACK's own order and is factorised in place
        _, solution, failed = dposv(normal.T, right, lower=1, overwrite_a=1)
        if failed:
            raise FloatingPointError(f"normal equations are not positive definite at pivot {failed}")
        return solution  # type: ignore[no-any-return]  # SciPy's wrappers have no types

    return solved
