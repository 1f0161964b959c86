"""Facets: the kinds of item that a person can name, and which columns of the table speak of each.

A facet's name is the one that its column has in `data/content.py`: "genre: Crime", "decade: 1990s". So a profile, a
request and an explanation use the same name for the same thing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from palate.data.catalogue import UNKNOWN_YEAR, Catalogue
from palate.errors import ConfigError
from palate.models.arrays import BoolArray, Int32Array, Int64Array

POPULARITY = "popularity"
DESCRIPTION = "description"
LEARNED = "learned"
CONSTANT = "constant"
_GROUPS = {
    POPULARITY: "its popularity",
    DESCRIPTION: "words of its description",
    LEARNED: "what was learned from everybody",
    CONSTANT: "what all items have in common",
}

_MINUTES = re.compile(r"\b(\d{1,3}) ?(?:min\b|minutes?\b|Minuten\b|\u5206)")
_AFTER = re.compile(r", after \d+$")


def genre_facet(genre: str) -> str:
    """Name of a genre's facet."""
    return f"genre: {genre}"


def decade_facet(decade: int) -> str:
    """Name of a decade's facet, for its first year."""
    return f"decade: {decade}s"


def in_words(facet: str) -> str:
    """Say a facet, or another group of columns, in a sentence: "the genre Crime", "the 1990s", "its popularity"."""
    kind, _, value = facet.partition(": ")
    known = {"genre": f"the genre {value}", "decade": f"the {value}", "year": f"the year {value}"}
    return known.get(kind) or _GROUPS.get(facet, facet)


def group_of(column: str) -> str:
    """Return the facet, or other group, that a column belongs to: "genre: Crime, after 1995" is of "genre: Crime"."""
    kind, parted, value = column.partition(": ")
    if parted and kind == "genre":
        return genre_facet(_AFTER.sub("", value))
    if column.startswith("text "):
        return DESCRIPTION
    return column


def column_groups(fixed_names: Sequence[str], dim: int, *, intercept: bool) -> tuple[str, ...]:
    """Group of each column of a row ``[fixed | learned | constant]``, [fixed_dim + dim (+ 1)]."""
    return (*map(group_of, fixed_names), *(LEARNED,) * dim, *((CONSTANT,) if intercept else ()))


@dataclass(frozen=True, eq=False)
class Facets:
    """Which items are of which facet.

    Attributes
    ----------
    items
        Ascending rows by facet, genres in alphabetical order and then decades from old to new.
    years
        Year by row, 0 where unknown, int32 [num_items].
    texts
        Description by row, "" where unknown, [num_items]; none where no item has one.
    """

    items: dict[str, Int64Array]
    years: Int32Array
    texts: tuple[str, ...] = ()

    @property
    def genres(self) -> tuple[str, ...]:
        """Genre names in alphabetical order."""
        return tuple(name.removeprefix("genre: ") for name in self.items if name.startswith("genre: "))

    def of(self, name: str) -> Int64Array:
        """Rows of a facet, ascending.

        Raises
        ------
        ConfigError
            If the catalogue has no such facet.
        """
        if name not in self.items:
            kind = name.partition(": ")[0]
            like = [other for other in self.items if other.startswith(kind)] or list(self.items)
            raise ConfigError(f"the catalogue has no facet {name!r}", hint=f"it has {', '.join(like[:30]) or 'none'}")
        return self.items[name]

    def mask(self, names: Iterable[str]) -> BoolArray:
        """Items of any of these facets, bool [num_items]."""
        inside = np.zeros(len(self.years), dtype=np.bool_)
        for name in names:
            inside[self.of(name)] = True
        return inside

    @cached_property
    def minutes(self) -> Int32Array:
        """Length of each item as its description says it, "170 min", 0 where unknown, int32 [num_items]."""
        found = np.zeros(len(self.years), dtype=np.int32)
        for row, text in enumerate(self.texts):
            said = _MINUTES.search(text)
            found[row] = 0 if said is None else int(said[1])
        return found

    @property
    def has_minutes(self) -> bool:
        """Whether it is known of any item how long it is."""
        return bool(self.minutes.any())

    def minutes_of(self, row: int) -> int:
        """Length of an item, 0 where unknown."""
        return int(self.minutes[row])

    def lasting(self, shortest: int | None, longest: int | None) -> BoolArray:
        """Items of a span of minutes, both ends in it, bool [num_items]; an unknown length is in no span."""
        inside = self.minutes != 0
        if shortest is not None:
            inside &= self.minutes >= shortest
        if longest is not None:
            inside &= self.minutes <= longest
        return np.asarray(inside)

    @cached_property
    def _one_text(self) -> tuple[str, Int64Array]:
        """All descriptions in one, and where each of them ends."""
        texts = [text.casefold() for text in self.texts]
        return "\n".join(texts), np.cumsum([len(text) + 1 for text in texts], dtype=np.int64)

    def mentioning(self, words: str) -> BoolArray:
        """Items whose description has some words, as they are and not within others, bool [num_items]."""
        inside = np.zeros(len(self.years), dtype=np.bool_)
        if self.texts and words.strip():
            text, ends = self._one_text
            places = [found.start() for found in re.finditer(rf"(?<!\w){re.escape(words.casefold())}(?!\w)", text)]
            inside[np.searchsorted(ends, places, side="right")] = True
        return inside

    def between(self, first: int | None, last: int | None) -> BoolArray:
        """Items from a span of years, both ends in it, bool [num_items]; an unknown year is in no span."""
        inside = self.years != UNKNOWN_YEAR
        if first is not None:
            inside &= self.years >= first
        if last is not None:
            inside &= self.years <= last
        return np.asarray(inside)


def facets_of_item(item: int, catalogue: Catalogue) -> tuple[str, ...]:
    """Names of one item's facets: its genres, and its decade where the year is known."""
    year = int(catalogue.years[item])
    decade = (decade_facet(year // 10 * 10),) if year != UNKNOWN_YEAR else ()
    return (*map(genre_facet, catalogue.genres[item]), *decade)


def facets_of(catalogue: Catalogue) -> Facets:
    """Index a catalogue by genre and decade."""
    by_genre: dict[str, list[int]] = {}
    for item, genres in enumerate(catalogue.genres):
        for genre in genres:
            by_genre.setdefault(genre, []).append(item)
    found = {genre_facet(genre): np.array(by_genre[genre], dtype=np.int64) for genre in sorted(by_genre)}
    years = np.asarray(catalogue.years, dtype=np.int32)
    decades = years // 10 * 10
    for decade in sorted(set(decades[years != UNKNOWN_YEAR].tolist())):  # np.unique would load masked arrays
        found[decade_facet(decade)] = np.flatnonzero((decades == decade) & (years != UNKNOWN_YEAR))
    return Facets(found, years, catalogue.texts if any(catalogue.texts) else ())
