"""Histories of interactions, oldest first, and the weights of interactions and people in training.

Taste drifts: an interaction's weight halves every `half_life` newer interactions, down to a floor
(Ding & Li 2005 use clock time; ranks need no timestamps). A person's update is scaled by ``n_u ** -exponent``,
so that heavy users do not dominate (exponent 0.5 gives everyone a popularity vector of norm 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from palate.models.arrays import Float32Array, Int32Array, Int64Array, IntegerArray

if TYPE_CHECKING:
    from palate.models.fitting import Fitting
    from palate.models.training import LocalTraining


def offsets(lengths: IntegerArray) -> Int64Array:
    """Where each of some runs of these lengths begins, and where the last one ends; int64 [n + 1]."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


@dataclass(frozen=True)
class Histories:
    """One item sequence per user, oldest first, in compressed rows.

    Attributes
    ----------
    indptr
        int64 [num_users + 1]; user u owns items[indptr[u]:indptr[u + 1]].
    items
        int32 [num_interactions].
    """

    indptr: Int64Array
    items: Int32Array

    @staticmethod
    def grouped(users: IntegerArray, items: Int32Array, num_users: int) -> Histories:
        """Histories of interactions that are sorted by user, oldest first; users int [n], items int32 [n]."""
        return Histories(offsets(np.bincount(users, minlength=num_users)), items)

    @staticmethod
    def of_one(items: Int32Array) -> Histories:
        """Histories of a single user, int32 [n]: a device is a batch of one."""
        return Histories(np.array([0, len(items)], dtype=np.int64), items)

    @property
    def num_users(self) -> int:
        """Number of users."""
        return len(self.indptr) - 1

    @property
    def lengths(self) -> Int64Array:
        """Interactions per user, int64 [num_users]."""
        return np.diff(self.indptr)

    @property
    def owners(self) -> Int32Array:
        """User of each interaction, int32 [num_interactions]."""
        return np.repeat(np.arange(self.num_users, dtype=np.int32), self.lengths)

    def of(self, user: int) -> Int32Array:
        """Items of one user, oldest first, int32 [n]."""
        return self.items[self.indptr[user] : self.indptr[user + 1]]

    def entries(self, users: IntegerArray) -> Int64Array:
        """Places of some users' interactions in `items`, user by user, int64 [sum of their lengths]."""
        lengths = self.lengths[users]
        starts = self.indptr[users] - np.cumsum(lengths) + lengths
        return np.asarray(np.repeat(starts, lengths) + np.arange(lengths.sum()), dtype=np.int64)

    def select(self, users: IntegerArray) -> Histories:
        """Histories of some users, in the order asked for."""
        return Histories(offsets(self.lengths[users]), self.items[self.entries(users)])

    def latest(self, count: int) -> Histories:
        """Keep the `count` newest interactions of everybody, or fewer where there are fewer."""
        indptr = offsets(np.minimum(self.lengths, count))
        kept = np.diff(indptr)
        starts = np.repeat(self.indptr[1:] - kept - indptr[:-1], kept)
        return Histories(indptr, self.items[starts + np.arange(indptr[-1])])

    def without_latest(self, count: int) -> Histories:
        """Drop the `count` newest interactions of everybody, or all where there are fewer."""
        kept = np.maximum(self.lengths - count, 0)
        ages = np.repeat(self.indptr[1:], self.lengths) - 1 - np.arange(len(self.items))
        return Histories(offsets(kept), self.items[ages >= count])

    def append(self, items: Int32Array) -> Histories:
        """Histories with one newer item per user; -1 appends nothing to that user, items int32 [num_users]."""
        has = items >= 0
        indptr = offsets(self.lengths + has)
        merged = np.empty(indptr[-1], dtype=np.int32)
        newest = np.zeros(indptr[-1], dtype=bool)
        newest[indptr[1:][has] - 1] = True
        merged[newest] = items[has]
        merged[~newest] = self.items
        return Histories(indptr, merged)


def recency_weights(ages: IntegerArray, *, half_life: float, floor: float) -> Float32Array:
    """Weights of interactions by age.

    Parameters
    ----------
    ages
        Number of newer interactions of the same person; 0 is the newest.
    half_life
        Interactions after which the decaying part has halved; ``inf`` gives equal weights.
    floor
        Least weight, also of the oldest interaction, in [0, 1].

    Returns
    -------
    float32, same shape
        ``floor + (1 - floor) * 2 ** (-age / half_life)``, in (floor, 1].
    """
    decay = np.exp2(-ages.astype(np.float64) / half_life)
    weights: Float32Array = (floor + (1.0 - floor) * decay).astype(np.float32)
    return weights


def pooling_weights(ages: IntegerArray, config: LocalTraining | Fitting) -> Float32Array:
    """Weights of interactions by age as the configuration has them, float32, same shape; a half-life of inf is off.

    Hyperbolic ones are ``1 / (1 + age)``, memory's power law of forgetting (Anderson & Schooler 1991): the newest
    interaction has by far the largest weight, but the old ones together never vanish, because their sum grows like the
    logarithm of the history's length.
    """
    if config.forgetting == "hyperbolic" and math.isfinite(config.recency_half_life):
        return (1.0 / (1.0 + ages.astype(np.float64))).astype(np.float32)
    return recency_weights(ages, half_life=config.recency_half_life, floor=config.recency_floor)


def history_weights(histories: Histories, config: LocalTraining) -> Float32Array:
    """Recency weight of every interaction, float32 [num_interactions]."""
    by_age = pooling_weights(np.arange(histories.lengths.max(initial=0)), config)
    ends = np.repeat(histories.indptr[1:], histories.lengths)
    return np.asarray(by_age[ends - 1 - np.arange(len(histories.items))])


def user_weights(lengths: IntegerArray, *, exponent: float) -> Float32Array:
    """Weight of each person's update, ``max(n_u, 1) ** -exponent``, float32 [num_users]."""
    weights: Float32Array = np.power(np.maximum(lengths, 1).astype(np.float64), -exponent).astype(np.float32)
    return weights
