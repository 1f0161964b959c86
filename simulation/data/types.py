"""The shapes that data takes on its way to the virtual devices.

`Interactions` (cleaned, encoded) -> `Split` (leave-one-out) -> one history per virtual device.
Users and items are dense indices everywhere; the original ids are text and live beside them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from palate.models.catalogue import Catalogue

IntArray = npt.NDArray[np.int32]
LongArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class CleaningReport:
    """What was dropped on the way in, and where: rows are counted, the first few line numbers kept.

    `notes` are sentences for the reader on what else was decided, such as a guessed encoding.
    """

    rows_read: int
    malformed: int = 0
    missing: int = 0
    not_finite: int = 0
    duplicates: int = 0
    below_core: int = 0
    below_rating: int = 0
    notes: tuple[str, ...] = ()
    example_lines: dict[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Interactions:
    """Cleaned interactions, sorted by user and then from oldest to newest.

    Attributes
    ----------
    name
        Name of the dataset.
    user, item
        Dense indices, int32 [num_interactions].
    rating
        float32 [num_interactions], or None where the data has none.
    users
        Original user ids as text, [num_users].
    catalogue
        The items.
    has_time
        Whether the order inside a user is known (timestamp or rank); if not it means nothing.
    report
        What cleaning dropped.
    demographics
        Public-report-only groups of users, e.g. {"gender": ("F", "M", ...)}; values as text, [num_users] each.
    time_range
        Oldest and newest timestamp in seconds since 1970 (UTC), or None where there are no timestamps.
    source
        The file that was read; "" for data made by code.
    """

    name: str
    user: IntArray
    item: IntArray
    rating: FloatArray | None
    users: tuple[str, ...]
    catalogue: Catalogue
    has_time: bool
    report: CleaningReport
    demographics: dict[str, tuple[str, ...]] = field(default_factory=dict)
    time_range: tuple[float, float] | None = None
    source: str = ""

    @property
    def num_users(self) -> int:
        """Number of users."""
        return len(self.users)

    @property
    def num_items(self) -> int:
        """Number of items in the catalogue (also those without interactions)."""
        return self.catalogue.num_items


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

    indptr: LongArray
    items: IntArray

    @staticmethod
    def grouped(users: npt.NDArray[np.integer], items: IntArray, num_users: int) -> Histories:
        """Histories of interactions that are sorted by user, oldest first; users int [n], items int32 [n]."""
        lengths = np.bincount(users, minlength=num_users)
        return Histories(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), items)

    @property
    def num_users(self) -> int:
        """Number of users."""
        return len(self.indptr) - 1

    @property
    def lengths(self) -> LongArray:
        """Interactions per user, int64 [num_users]."""
        return np.diff(self.indptr)

    @property
    def owners(self) -> IntArray:
        """User of each interaction, int32 [num_interactions]."""
        return np.repeat(np.arange(self.num_users, dtype=np.int32), self.lengths)

    def of(self, user: int) -> IntArray:
        """Items of one user, oldest first, int32 [n]."""
        return self.items[self.indptr[user] : self.indptr[user + 1]]

    def select(self, users: npt.NDArray[np.integer]) -> Histories:
        """Histories of some users, in the order asked for."""
        lengths = self.lengths[users]
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        starts = np.repeat(self.indptr[users] - indptr[:-1], lengths)
        return Histories(indptr, self.items[starts + np.arange(indptr[-1])])

    def append(self, items: IntArray) -> Histories:
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


@dataclass(frozen=True)
class HeldOut:
    """One held-out item per user and its fixed negatives.

    Attributes
    ----------
    item
        The item to be found, int32 [num_users]; -1 where the user has too short a history.
    negatives
        Items it is ranked against in the sampled protocol, int32 [num_users, num_negatives].
    """

    item: IntArray
    negatives: IntArray


@dataclass(frozen=True)
class Split:
    """Leave-one-out: newest interaction is the test item, second-newest validation, the rest is training.

    A user with two interactions has a test item but no validation item; with one, training only.
    Each round trains on `train`. Validation ranks with `train` as the history; test ranks with
    `train` plus the validation item, as a device that has lived until then would.
    """

    train: Histories
    validation: HeldOut
    test: HeldOut
    num_items: int

    @property
    def full_train(self) -> Histories:
        """Everything before the test item: training plus validation."""
        return self.train.append(self.validation.item)
