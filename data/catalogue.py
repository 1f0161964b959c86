"""Public facts about the items: what a person would call them and what kind they are. The same on every machine."""

from __future__ import annotations

from dataclasses import dataclass

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
