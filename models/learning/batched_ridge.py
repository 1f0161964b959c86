"""Closed-form local training of many virtual devices at once.

The same equations as `palate.models.learning.ridge`, arranged for one core: one small product and one Cholesky solve a
person, and the sum of all rank-one updates as two matrix products.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.linalg.lapack import dposv

from palate.models.arrays import Float32Array, Int64Array, IntegerArray
from palate.models.histories import Histories
from palate.models.learning.autoencoding import encoder_updates
from palate.models.learning.ridge import gram, left_out_updates
from palate.models.learning.weights import pooling_weights
from palate.models.training import LocalTraining


def history_weights(histories: Histories, config: LocalTraining) -> Float32Array:
    """Recency weight of every interaction, float32 [num_interactions]."""
    ends = np.repeat(histories.indptr[1:], histories.lengths)
    ages = ends - 1 - np.arange(len(histories.items))
    return pooling_weights(ages, config)


def solve_users(rows: Float32Array, histories: Histories, weights: Float32Array, config: LocalTraining) -> Float32Array:
    """Fit every person's vector; float32 [num_users, k] for rows float32 [num_items, k]."""
    width = rows.shape[1]
    base = config.unobserved_weight * gram(rows) + config.regularisation * np.eye(width)
    solutions = np.empty((histories.num_users, width), dtype=np.float32)
    for user in range(histories.num_users):
        span = slice(histories.indptr[user], histories.indptr[user + 1])
        own = rows[histories.items[span]]  # [n, k]
        weighted = own * weights[span, None]
        normal = base + weighted.T @ own
        # symmetric, so the transposed view is the same matrix in LAPACK's own order and is factorised in place
        _, solution, failed = dposv(normal.T, weighted.sum(axis=0), lower=1, overwrite_a=1)
        if failed:
            raise FloatingPointError(f"normal equations are not positive definite at pivot {failed}")
        solutions[user] = solution
    return solutions


@dataclass(frozen=True)
class RankOne:
    """Updates ``e_u p_u'`` of all people, kept as their factors.

    Attributes
    ----------
    positive_errors
        ``w_i (1 - s_i)`` on each interaction, float32 [num_interactions]; the whole error, ``w_i (1 - s_i) - a0 s_i``,
        if there is no dense part.
    unobserved_weight
        ``a0`` of the dense part, ``-a0 s_i`` on every item; 0 if errors are on own items only.
    users
        Learned part of the user vectors, float32 [num_users, dim].
    whole_users
        Whole user vectors, float32 [num_users, k].
    loss
        Mean squared error on the positives.
    corrections
        What leave-one-out changes on the row of each interaction, float32 [num_interactions, dim]; None without it.
    """

    positive_errors: Float32Array
    unobserved_weight: float
    users: Float32Array
    whole_users: Float32Array
    loss: float
    corrections: Float32Array | None = None

    def total(self, rows: Float32Array, histories: Histories, scale: Float32Array) -> Float32Array:
        """Sum over people of ``scale_u e_u p_u'``, float32 [num_items, dim], without forming any of them."""
        scaled = self.users * scale[:, None]  # [num_users, dim]
        sparse = sp.csr_matrix(
            (self.positive_errors, histories.items, histories.indptr), shape=(histories.num_users, len(rows))
        )
        summed = sparse.T @ scaled
        if self.unobserved_weight:
            cross = self.whole_users.T @ scaled  # [k, dim]
            summed = summed - self.unobserved_weight * (rows @ cross)
        if self.corrections is not None:
            entries = np.arange(len(histories.items))
            placed = sp.csr_matrix(
                (scale[histories.owners], (histories.items, entries)), shape=(len(rows), len(entries))
            )
            summed += placed @ self.corrections
        return np.asarray(summed, dtype=np.float32)

    def errors(self, rows: Float32Array, histories: Histories, people: IntegerArray) -> Float32Array:
        """Residuals of some people over the whole catalogue, float32 [len(people), num_items]."""
        dense = np.zeros((len(people), len(rows)), dtype=np.float32)
        if self.unobserved_weight:
            np.matmul(self.whole_users[people], rows.T, out=dense)
            dense *= -np.float32(self.unobserved_weight)
        lengths, own = histories.lengths[people], entries_of(histories, people)
        dense[np.repeat(np.arange(len(people)), lengths), histories.items[own]] += self.positive_errors[own]
        return dense


def entries_of(histories: Histories, people: IntegerArray) -> Int64Array:
    """Return the indices of some people's interactions, person by person, int64 [sum of their lengths]."""
    lengths = histories.lengths[people]
    starts = histories.indptr[people] - np.cumsum(lengths) + lengths
    return np.asarray(np.repeat(starts, lengths) + np.arange(lengths.sum()), dtype=np.int64)


def leave_one_out_corrections(
    rows: Float32Array,
    histories: Histories,
    weights: Float32Array,
    users: Float32Array,
    learned: slice,
    config: LocalTraining,
    *,
    through_encoder: bool = False,
) -> Float32Array:
    """Difference that `left_out_updates` makes to ``e_u p_u'`` on own items, float32 [num_interactions, dim].

    With `through_encoder` it is the one that `palate.models.learning.autoencoding.encoder_updates` makes.
    """
    width, unobserved = rows.shape[1], config.unobserved_weight
    base = unobserved * gram(rows) + config.regularisation * np.eye(width)
    corrections = np.zeros((len(histories.items), users[:, learned].shape[1]), dtype=np.float32)
    for user in np.flatnonzero(histories.lengths >= config.least_interactions):
        span = slice(histories.indptr[user], histories.indptr[user + 1])
        own, own_weights = rows[histories.items[span]].astype(np.float64), weights[span].astype(np.float64)
        solution = users[user].astype(np.float64)
        _, inverse, failed = dposv(  # the factor, and N^-1 of the rows and of the solution, [k, n + 1]
            (base + (own * own_weights[:, None]).T @ own).T, np.vstack([own, solution]).T, lower=1, overwrite_a=1
        )
        if failed:
            raise FloatingPointError(f"normal equations are not positive definite at pivot {failed}")
        if through_encoder:
            left_out = encoder_updates(
                own,
                own_weights,
                inverse.T,
                solution,
                learned,
                unobserved_weight=unobserved,
                regularisation=config.regularisation,
            )
        else:
            left_out = left_out_updates(
                own, own_weights, inverse[:, :-1].T, solution, learned, unobserved_weight=unobserved
            )  # fmt: skip
        scores = own @ solution
        errors = own_weights * (1.0 - scores) - unobserved * scores
        corrections[span] = left_out - errors[:, None] * solution[learned]
    return corrections


def rank_one_updates(
    rows: Float32Array,
    histories: Histories,
    weights: Float32Array,
    users: Float32Array,
    learned: slice,
    config: LocalTraining,
) -> RankOne:
    """Residuals of all people at their solutions; on their own items alone if the configuration says so."""
    scores = np.empty(len(histories.items), dtype=np.float32)
    owners = histories.owners
    for start in range(0, len(scores), 1 << 12):
        part = slice(start, start + (1 << 12))
        scores[part] = np.einsum("nk,nk->n", rows.take(histories.items[part], axis=0), users.take(owners[part], axis=0))
    errors, unobserved = weights * (1.0 - scores), config.unobserved_weight
    if config.own_items_only:
        errors, unobserved = errors - np.float32(unobserved) * scores, 0.0
    return RankOne(
        positive_errors=errors,
        unobserved_weight=unobserved,
        users=np.ascontiguousarray(users[:, learned]),
        whole_users=users,
        loss=float(np.mean((1.0 - scores) ** 2)) if len(scores) else 0.0,
    )
