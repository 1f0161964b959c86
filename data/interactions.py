"""Interactions as they leave the reader: cleaned, encoded, and what was dropped on the way.

Users and items are dense indices everywhere; the original ids are text and live beside them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from palate.data.catalogue import Catalogue
from palate.models.arrays import Float32Array, Int32Array


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
    user: Int32Array
    item: Int32Array
    rating: Float32Array | None
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
