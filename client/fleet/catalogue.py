"""The fleet's public catalogue on the device: which row of the item table is which item.

A history names items by their keys, so that it outlives the catalogue of the day; what no row has now is kept, and
waits. An item that was imported by its title alone has the key ``title:`` and the title.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from palate.errors import DataError
from palate.models.arrays import Int32Array

TITLE_PREFIX = "title:"


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Items in the order of the table.

    Attributes
    ----------
    keys
        Their keys.
    titles
        What a person would call them, as `names_of` says it; none where nothing is known of them.
    """

    keys: tuple[str, ...]
    titles: tuple[str, ...]

    @cached_property
    def _rows(self) -> dict[str, int]:
        return rows_by_name(self.keys, self.titles)

    @staticmethod
    def read(data: bytes, *, num_items: int | None = None) -> Catalogue:
        """Read a catalogue from the bytes of a Parquet file.

        Parameters
        ----------
        data
            The file's.
        num_items
            Rows that it must have; None where nobody has said how many.

        Raises
        ------
        DataError
            If it is none, has no column `item` with distinct names, or another number of rows.
        """
        import polars as pl

        try:
            frame = pl.read_parquet(io.BytesIO(data))
            keys = frame["item"].cast(pl.String)
            titles = frame["title"].cast(pl.String).fill_null("") if "title" in frame.columns else None
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            raise DataError(
                f"the catalogue cannot be read ({type(error).__name__})", hint="ask the operator for a new welcome"
            ) from None
        num_items = max(len(keys), 1) if num_items is None else num_items
        if len(keys) != num_items or keys.null_count() or keys.n_unique() != num_items or (keys == "").any():
            raise DataError(
                f"the catalogue has {keys.drop_nulls().n_unique()} items in {len(keys)} rows, {num_items} are expected",
                hint="ask the operator for a new welcome",
            )
        named = tuple(keys.to_list())
        return Catalogue(named, names_of(named, [""] * len(named) if titles is None else titles.to_list()))

    def row_of(self, key: str) -> int | None:
        """Row of an item by its key, or by ``title:`` and its title; None if it is not in the catalogue."""
        return self._rows.get(key)

    def rows_of(self, history: Iterable[str]) -> Int32Array:
        """Rows of a history's items, each at its newest place, oldest first, int32 [n]; unknown ones are left out."""
        newest: dict[int, None] = {}
        for key in history:
            row = self.row_of(key)
            if row is not None:
                newest.pop(row, None)
                newest[row] = None
        return np.fromiter(newest, dtype=np.int32, count=len(newest))


def names_of(keys: Sequence[str], titles: Sequence[str]) -> tuple[str, ...]:
    """Name items: by their titles, or by their keys where they have none, in letters that can be shown."""
    return tuple(printable(title) or printable(key) for key, title in zip(keys, titles, strict=True))


def rows_by_name(keys: Sequence[str], names: Sequence[str]) -> dict[str, int]:
    """Row of each item by its key, and by ``title:`` and its name; a name that two items have names neither."""
    seen: dict[str, int] = {}
    for row, name in enumerate(names):
        seen[name] = -1 if name in seen else row
    by_name = {TITLE_PREFIX + name: row for name, row in seen.items() if name and row >= 0}
    return by_name | {key: row for row, key in enumerate(keys)}


def printable(words: str) -> str:
    """Take out what could move a terminal's cursor: a catalogue is written by somebody else."""
    if words.isprintable():
        return words
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in words)
