"""What some people took, oldest first: one sequence of items each, in compressed rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from palate.models.arrays import Int32Array, Int64Array, IntegerArray


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
        """Make the histories of one user alone, int32 [n]: a device is a batch of one."""
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
