"""The closed form for a batch of devices: whole-data weighted ridge.

Hu, Koren & Volinsky 2008, eq. 4; Rendle et al. 2022, eq. 2. A device is a batch of one.

One device's loss, over its own items S with weights w and over the whole catalogue:

    L(p) = sum_{i in S} w_i (1 - p'x_i)^2  +  a0 sum_{all i} (p'x_i)^2  +  reg |p|^2

so ``p = (X_S' W X_S + a0 X'X + reg I)^-1 X_S' w``. ``X'X`` is public and computed once per table. The negative
half-gradient with respect to item i is ``e_i p`` with ``e_i = w_i (1 - s_i) [i in S] - a0 s_i``: dense over the
catalogue (it shows no sparsity pattern) and rank one.

Part of that gradient is a self-loop: item i has shaped p, and so is pulled towards itself. Where histories are short
it swamps what items say about each other. With `leave_one_out` the vector that was fitted without the interaction is
taken instead, in closed form (the predicted residual of Allen 1974; Steck 2019 bars self-similarity for the same
reason).

Each device costs one small product and one Cholesky factor; the sum of all rank-one updates is two matrix products.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from palate.models.arrays import Float32Array, Float64Array, FloatingArray, Int64Array
from palate.models.histories import Histories, history_weights
from palate.models.learning.autoencoding import encoder_updates

if TYPE_CHECKING:
    from palate.models.training import LocalTraining

_ENTRIES_PER_CHUNK = 1 << 12
_SINGLE_CONDITION = 1 << 12
"""Up to this condition of a matrix a solution in float32 is exact to some 2^-12 at worst."""


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
    factors = _Factors(rows, histories, config)
    solutions = np.empty((histories.num_users, rows.shape[1]), dtype=np.float32)
    for user in range(histories.num_users):
        weighted, roots = factors.weighted(user)
        solutions[user] = factors.of(weighted).solve(roots @ weighted)
    return solutions


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
        import scipy.sparse as sp  # here, as in `_Kernels`

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
    if through_encoder:
        corrections = _encoder_corrections(rows, histories, users, learned, config)
    elif config.leave_one_out:
        corrections = _left_out_corrections(rows, histories, users, scores, learned, config)
    if corrections is not None:
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


def _left_out_corrections(
    rows: Float32Array,
    histories: Histories,
    users: Float32Array,
    scores: Float32Array,
    learned: slice,
    config: LocalTraining,
) -> Float32Array:
    """Difference that it makes on own items to pull each by the vector that was fitted without it.

    The item stays in the catalogue, unobserved. With ``z_i = N^-1 x_i`` for the normal matrix N and leverage
    ``h_i = w_i x_i'z_i``, leaving interaction i out gives ``1 - s_-i = (1 - s_i) / (1 - h_i)`` and
    ``p_-i = p - w_i (1 - s_-i) z_i`` (Sherman & Morrison 1950). The update ``(w_i (1 - s_-i) - a0 s_-i) p_-i`` takes
    the place of ``(w_i (1 - s_i) - a0 s_i) p``.

    With ``N = L L'`` and ``v_i = L^-1 x_i``, h_i is ``w_i |v_i|^2``, and the last columns of z_i take only the last
    rows of L and v_i. So the learned columns are put last.

    Parameters are those of `closed_form`, and the scores of all interactions, float32 [num_interactions].

    Returns
    -------
    float32 [num_interactions, dim]; zeros for people with fewer interactions than an update takes.
    """
    dim = learned.stop - learned.start
    ordered = np.concatenate([rows[:, : learned.start], rows[:, learned.stop :], rows[:, learned]], axis=1)
    factors = _Factors(ordered, histories, config)
    leverage = np.zeros(len(scores), dtype=np.float32)
    reached = np.zeros((len(scores), dim), dtype=np.float32)  # sqrt(w_i) z_i, its learned columns
    for user in np.flatnonzero(histories.lengths >= config.least_interactions).tolist():
        span = slice(histories.indptr[user], histories.indptr[user + 1])
        weighted, _ = factors.weighted(user)
        factor = factors.of(weighted)
        half = factor.solve_lower(weighted)  # sqrt(w_i) v_i, [n, k]
        leverage[span] = np.vecdot(half, half)  # below 1, as N exceeds w_i x_i x_i' by the ridge
        reached[span] = factor.solve_upper_last(half[:, -dim:])
    weights, owners, unobserved = factors.weights, histories.owners, np.float32(config.unobserved_weight)
    missing = 1.0 - scores
    missing_left_out = missing / (1.0 - leverage)  # 1 - s_-i
    errors = (weights + unobserved) * missing_left_out - unobserved
    corrections: Float32Array = -(np.sqrt(weights) * missing_left_out * errors)[:, None] * reached
    corrections += ((weights + unobserved) * (missing_left_out - missing))[:, None] * users[:, learned][owners]
    corrections[histories.lengths[owners] < config.least_interactions] = 0.0
    return corrections


def _encoder_corrections(
    rows: Float32Array, histories: Histories, users: Float32Array, learned: slice, config: LocalTraining
) -> Float32Array:
    """Difference that `encoder_updates` makes on own items, float32 [num_interactions, dim]."""
    factors, unobserved = _Factors(rows, histories, config), config.unobserved_weight
    corrections = np.zeros((len(histories.items), users[:, learned].shape[1]), dtype=np.float32)
    for user in np.flatnonzero(histories.lengths >= config.least_interactions).tolist():
        span = slice(histories.indptr[user], histories.indptr[user + 1])
        own, weights = rows[histories.items[span]].astype(np.float64), factors.weights[span].astype(np.float64)
        code = users[user].astype(np.float64)
        factor = factors.of(own * np.sqrt(weights)[:, None])
        inverse = factor.solve(np.vstack([own, code]).T).T.astype(
            np.float64, copy=False
        )  # N^-1 of the rows, and of the code, [n + 1, k]
        encoded = encoder_updates(
            own,
            weights,
            inverse,
            code,
            learned,
            unobserved_weight=unobserved,
            regularisation=config.regularisation,
        )
        scores = own @ code
        errors = weights * (1.0 - scores) - unobserved * scores
        corrections[span] = encoded - errors[:, None] * code[learned]
    return corrections


class _Factors:
    """Cholesky factors of people's normal matrices ``N = X_S' W X_S + a0 X'X + reg I``.

    The part of the catalogue is public, and computed once. A matrix whose condition is at most `_SINGLE_CONDITION`, by
    its trace and the ridge, is formed and factorised in float32, and others in float64. That depends on nobody else.
    """

    def __init__(self, rows: Float32Array, histories: Histories, config: LocalTraining) -> None:
        public = config.unobserved_weight * gram(rows) + config.regularisation * np.eye(rows.shape[1])
        self._rows, self._histories = rows, histories
        self.weights = history_weights(histories, config)
        self._roots = np.sqrt(self.weights)
        self._kernels = {dtype: _Kernels(public, dtype) for dtype in (np.float32, np.float64)}
        own = self.weights * np.vecdot(rows, rows)[histories.items]
        traces = np.trace(public) + np.bincount(histories.owners, weights=own, minlength=histories.num_users)
        self._single = traces <= _SINGLE_CONDITION * config.regularisation

    def weighted(self, user: int) -> tuple[FloatingArray, FloatingArray]:
        """Rows of a person's items times the roots of their weights, [n, k], and these roots, [n]."""
        span = slice(self._histories.indptr[user], self._histories.indptr[user + 1])
        own, roots = self._rows.take(self._histories.items[span], axis=0), self._roots[span]
        own *= roots[:, None]
        return (own, roots) if self._single[user] else (own.astype(np.float64), roots.astype(np.float64))

    def of(self, weighted: FloatingArray) -> _Factor:
        """Form and factorise a normal matrix, in the precision of the weighted rows [n, k].

        Raises
        ------
        FloatingPointError
            If it is not positive definite.
        """
        kernels = self._kernels[weighted.dtype.type]
        normal = kernels.syrk(1.0, weighted.T, beta=1.0, c=kernels.public, lower=1)  # [k, k], its lower half
        lower, failed = kernels.potrf(normal, lower=1, clean=0, overwrite_a=1)
        if failed:
            raise FloatingPointError(f"normal equations are not positive definite at pivot {failed}")
        return _Factor(lower, kernels)


class _Kernels:
    """BLAS and LAPACK in one precision, and the public part of normal matrices in it."""

    def __init__(self, public: Float64Array, dtype: type[np.float32] | type[np.float64]) -> None:
        from scipy.linalg import get_blas_funcs, get_lapack_funcs  # here: who only recommends does not need SciPy

        self.public = np.asfortranarray(public, dtype=dtype)  # in LAPACK's own order nothing is copied
        self.syrk, self.trsm = get_blas_funcs(("syrk", "trsm"), (self.public,))
        self.potrf, self.potrs = get_lapack_funcs(("potrf", "potrs"), (self.public,))


@dataclass(frozen=True, eq=False)
class _Factor:
    """The factor L of a normal matrix ``N = L L'``, [k, k], in its lower half."""

    lower: FloatingArray
    kernels: _Kernels

    def solve(self, right: FloatingArray) -> FloatingArray:
        """``N^-1 right``, [k] or [k, n]."""
        solution, _ = self.kernels.potrs(self.lower, right, lower=1)
        return np.asarray(solution)

    def solve_lower(self, rows: FloatingArray) -> FloatingArray:
        """Rows ``L^-1 x`` of rows x, [n, k]; in their place."""
        return np.asarray(self.kernels.trsm(1.0, self.lower, rows.T, lower=1, overwrite_b=1)).T

    def solve_upper_last(self, half: FloatingArray) -> FloatingArray:
        """Find the last columns of rows ``L^-T v`` from the last columns of v alone, [n, dim]."""
        dim = half.shape[1]
        return np.asarray(self.kernels.trsm(1.0, self.lower[-dim:, -dim:], half.T, lower=1, trans_a=1)).T
