"""The fleet's public catalogue on the device: which row of the item table is which item.

A history names items by their keys, so that it outlives the catalogue of the day; what no row has now is kept, and
waits. An item that was imported by its title alone has the key ``title:`` and the title.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from palate.models.errors import DataError

TITLE_PREFIX = "title:"

IntArray = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Items in the order of the table.

    Attributes
    ----------
    keys
        Their keys.
    titles
        Their titles; empty where the catalogue has none.
    """

    keys: tuple[str, ...]
    titles: tuple[str, ...]

    @cached_property
    def _rows(self) -> dict[str, int]:
        rows = {key: row for row, key in enumerate(self.keys)}
        seen: dict[str, int] = {}
        for row, title in enumerate(self.titles):
            seen[title] = -1 if title in seen else row  # a title that two items have names neither
        by_title = {TITLE_PREFIX + title: row for title, row in seen.items() if title and row >= 0}
        return by_title | rows

    @staticmethod
    def read(data: bytes, *, num_items: int) -> Catalogue:
        """Read a catalogue from the bytes of a Parquet file.

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
        if len(keys) != num_items or keys.null_count() or keys.n_unique() != num_items or (keys == "").any():
            raise DataError(
                f"the catalogue has {keys.drop_nulls().n_unique()} items in {len(keys)} rows, {num_items} are expected",
                hint="ask the operator for a new welcome",
            )
        return Catalogue(tuple(keys.to_list()), () if titles is None else tuple(titles.to_list()))

    def row_of(self, key: str) -> int | None:
        """Row of an item by its key, or by ``title:`` and its title; None if it is not in the catalogue."""
        return self._rows.get(key)

    def rows_of(self, history: Iterable[str]) -> IntArray:
        """Rows of a history's items, each at its newest place, oldest first, int32 [n]; unknown ones are left out."""
        newest: dict[int, None] = {}
        for key in history:
            row = self.row_of(key)
            if row is not None:
                newest.pop(row, None)
                newest[row] = None
        return np.fromiter(newest, dtype=np.int32, count=len(newest))
