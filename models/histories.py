"""What some people took, oldest first: one sequence of items each, in compressed rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from palate.models.arrays import Int32Array, Int64Array, IntegerArray


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
        lengths = np.bincount(users, minlength=num_users)
        return Histories(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), items)

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

    def select(self, users: IntegerArray) -> Histories:
        """Histories of some users, in the order asked for."""
        lengths = self.lengths[users]
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        starts = np.repeat(self.indptr[users] - indptr[:-1], lengths)
        return Histories(indptr, self.items[starts + np.arange(indptr[-1])])

    def append(self, items: Int32Array) -> Histories:
        """Histories with one newer item per user; -1 appends nothing to that user, items int32 [num_users]."""
        has = items >= 0
        lengths = self.lengths + has
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        merged = np.empty(indptr[-1], dtype=np.int32)
        newest = np.zeros(indptr[-1], dtype=bool)
        newest[indptr[1:][has] - 1] = True
        merged[newest] = items[has]
        merged[~newest] = self.items
        return Histories(indptr, merged)
