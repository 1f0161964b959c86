"""Public facts about the items: what a person would call them and what kind they are. The same on every machine.

The order of its items is that of the item table's rows. A history names items by their keys, so that it outlives the
catalogue of the day; an item that is known by its title alone has the key ``title:`` and the title.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from palate.errors import DataError
from palate.models.arrays import Int32Array

if TYPE_CHECKING:
    import polars as pl

    from palate.data.form_index import FormIndex
    from palate.data.title_index import TitleIndex

UNKNOWN_YEAR: Final = 0
TITLE_PREFIX: Final = "title:"
_COLUMNS: Final = ("item", "title", "genres", "year", "text")
_MAX_GENRES: Final = 64
"""Of an item, on average."""
_MAX_DECODED_BYTES: Final = 1 << 30
"""Of a catalogue that somebody else wrote; a million items with descriptions need a third of it."""

WORD: Final = re.compile(r"(?<![^\W_])[^\W\d_]{2,}(?![^\W_])")
"""What counts as a word of a title or a description: two or more letters of any script and no digit among them. Numbers
are mostly years, which have columns of their own, and letters mixed with digits are codes, such as the ids that stand
in for missing titles."""


@dataclass(frozen=True)
class Catalogue:
    """Public facts about the items, in the order of the item table's rows.

    Attributes
    ----------
    ids
        Keys of the items: the original ids as text, [num_items].
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
    _forms: Callable[[], FormIndex | None] = field(default=lambda: None, repr=False, compare=False)

    @property
    def num_items(self) -> int:
        """Number of items in the catalogue."""
        return len(self.ids)

    @cached_property
    def rows(self) -> Mapping[str, int]:
        """Row of each item by its key, and by ``title:`` and any usual form of its title that no other item has."""
        return _Rows(self)

    @cached_property
    def title_index(self) -> TitleIndex:
        """The titles, ready to be searched."""
        from palate.data.title_index import TitleIndex

        return TitleIndex(self.titles, self.years, forms=self._forms())

    def with_forms(self, forms: Callable[[], FormIndex]) -> Catalogue:
        """Return the same catalogue, which takes the forms of its titles from elsewhere once somebody needs them."""
        return replace(self, _forms=forms)

    def about(self, row: int) -> dict[str, Any]:
        """Say what is known of an item as plain values: its key, title, year (None where unknown) and genres."""
        year = int(self.years[row]) or None
        return {"item": self.ids[row], "title": self.titles[row], "year": year, "genres": list(self.genres[row])}

    def rows_of(self, history: Iterable[str]) -> Int32Array:
        """Rows of a history's items, each at its newest place, oldest first, int32 [n]; unknown ones are left out."""
        newest: dict[int, None] = {}
        for key in history:
            row = self.rows.get(key)
            if row is not None:
                newest.pop(row, None)
                newest[row] = None
        return np.fromiter(newest, dtype=np.int32, count=len(newest))

    def take(self, rows: Iterable[int]) -> Catalogue:
        """Catalogue of some items, in the order asked for."""
        rows = list(rows)
        return Catalogue(
            ids=tuple(self.ids[row] for row in rows),
            titles=tuple(self.titles[row] for row in rows),
            genres=tuple(self.genres[row] for row in rows),
            years=self.years[rows],
            texts=tuple(self.texts[row] for row in rows),
        )

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

    def to_parquet(self, *, texts: bool = True) -> bytes:
        """Bytes of a Parquet file: the columns of `to_frame`."""
        from palate.data.tables import parquet_bytes

        return parquet_bytes(self.to_frame(texts=texts))

    def to_frame(self, *, texts: bool = True) -> pl.DataFrame:
        """One row for each item: `item`, `title`, `genres` (a list), `year` (0 if unknown) and, if wanted, `text`."""
        import polars as pl

        columns = {
            "item": self.ids,
            "title": self.titles,
            "genres": [list(own) for own in self.genres],
            "year": self.years,
            **({"text": self.texts} if texts else {}),
        }
        return pl.DataFrame(columns, schema_overrides={"genres": pl.List(pl.String), "year": pl.Int32})

    @staticmethod
    @lru_cache(maxsize=1)  # a worker reads the same file in every round
    def from_parquet(data: bytes, *, num_items: int | None = None, hint: str) -> Catalogue:
        """Read what `to_parquet` wrote; only `item` must be there, and genres may be text, parted by "|".

        What could move a terminal's cursor is replaced: a catalogue is written by somebody else.

        Parameters
        ----------
        data
            The file's.
        num_items
            Rows that it must have; None where nobody has said how many.
        hint
            Says where to get a better one.

        Raises
        ------
        DataError
            If it is none, has no items, an item without a key or a key twice, or another number of rows.
        """
        import polars as pl

        from palate.data.files import Limits
        from palate.data.parquet import read_parquet

        limits = Limits(max_decoded_bytes=_MAX_DECODED_BYTES)
        try:
            frame = read_parquet("the catalogue", data, limits, _COLUMNS)
            height, given = frame.height, frame.columns
            keys = frame["item"].cast(pl.String).fill_null("")
            distinct, expected = keys.filter(keys != "").n_unique(), max(height, 1) if num_items is None else num_items
            if height != expected or distinct != expected:
                raise DataError(
                    f"the catalogue has {distinct} items in {height} rows, {expected} are expected", hint=hint
                )

            def words(name: str) -> list[str]:
                text = frame[name].cast(pl.String).fill_null("") if name in given else None
                return [""] * height if text is None else [printable(value) for value in text.to_list()]

            genres = frame["genres"] if "genres" in given else pl.Series([[]] * height, dtype=pl.List(pl.String))
            genres = genres.fill_null("").str.split("|") if genres.dtype == pl.String else genres
            parted = genres.cast(pl.List(pl.String))
            if parted.list.len().sum() > _MAX_GENRES * height:
                raise DataError(f"the catalogue has more than {_MAX_GENRES} genres an item", hint=hint)
            unknown = pl.Series([UNKNOWN_YEAR] * height, dtype=pl.Int32)
            years = frame["year"].cast(pl.Int32).fill_null(UNKNOWN_YEAR) if "year" in given else unknown
            titles, texts = words("title"), words("text")
        except DataError as error:
            raise DataError(error.message, hint=hint) from None
        except (
            pl.exceptions.PolarsError,
            pl.exceptions.PanicException,
            OSError,
        ) as error:  # panics, too
            raise DataError(f"the catalogue cannot be read ({type(error).__name__})", hint=hint) from None
        ids = tuple(keys.to_list())
        return Catalogue(
            ids=ids,
            titles=tuple(title or printable(key) for title, key in zip(titles, ids, strict=True)),
            genres=tuple(tuple(sorted({printable(name) for name in own or () if name})) for own in parted.to_list()),
            years=years.to_numpy().astype(np.int32),
            texts=tuple(texts),
        )


class _Rows(Mapping[str, int]):
    """Row by key, and by ``title:`` and a title as people write it; a title that two items may have names neither."""

    def __init__(self, catalogue: Catalogue) -> None:
        seen: dict[str, int] = {}
        for row, title in enumerate(catalogue.titles):
            seen[title] = -1 if title in seen else row
        self._catalogue = catalogue
        self._exact = {TITLE_PREFIX + title: row for title, row in seen.items() if title and row >= 0}
        self._exact |= {key: row for row, key in enumerate(catalogue.ids)}

    def __getitem__(self, key: str) -> int:
        row = self._exact.get(key)
        title = key.removeprefix(TITLE_PREFIX)
        if row is None and title and title != key:
            found = self._catalogue.title_index.identify(title, likely=False)
            row = None if found is None else found[0]
        if row is None:
            raise KeyError(key)
        return row

    def __iter__(self) -> Iterator[str]:
        return iter(self._exact)

    def __len__(self) -> int:
        return len(self._exact)


def printable(words: str) -> str:
    """Replace what could move a terminal's cursor."""
    if words.isprintable():
        return words
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in words)
