"""Public facts about the items: what a person would call them and what kind they are. The same on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from palate.models.arrays import Int32Array

UNKNOWN_YEAR = 0


@dataclass(frozen=True)
class Catalogue:
    """Public facts about the items, in the order of the item table's rows.

    Attributes
    ----------
    ids
        Original item ids as text, [num_items].
    titles
        What a person would call the item; the id where nothing better is known, [num_items].
    genres
        Sorted genre names per item, possibly empty, [num_items].
    years
        Year of appearance, 0 where unknown, int32 [num_items].
    texts
        Description or tags, "" where unknown, [num_items].
    """

    ids: tuple[str, ...]
    titles: tuple[str, ...]
    genres: tuple[tuple[str, ...], ...]
    years: Int32Array
    texts: tuple[str, ...]

    @property
    def num_items(self) -> int:
        """Number of items in the catalogue."""
        return len(self.ids)

    @staticmethod
    def of(ids: Sequence[str], described: Catalogue | None = None) -> Catalogue:
        """Catalogue of just these ids in this order; an id that `described` does not know is its own title."""
        at = {} if described is None else {item: row for row, item in enumerate(described.ids)}
        known = [(at.get(item, -1), item) for item in ids]
        if described is None:
            described = Catalogue((), (), (), np.zeros(0, dtype=np.int32), ())
        return Catalogue(
            ids=tuple(ids),
            titles=tuple(described.titles[row] if row >= 0 else item for row, item in known),
            genres=tuple(described.genres[row] if row >= 0 else () for row, _ in known),
            years=np.array([described.years[row] if row >= 0 else UNKNOWN_YEAR for row, _ in known], dtype=np.int32),
            texts=tuple(described.texts[row] if row >= 0 else "" for row, _ in known),
        )
