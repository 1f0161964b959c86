"""What the controls of the recommendations page ask for, as the query of its address, and back.

A list is asked for by GET alone: it changes nothing, can be kept as a bookmark, and needs no script.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args
from urllib.parse import urlencode

from palate.client.recommending.facets import genre_facet
from palate.client.recommending.recommender import COUNT, Recommender
from palate.client.recommending.requests import Request
from palate.errors import ConfigError

COUNTS = (10, 20, 50)
MAX_YEAR = 9999

Fame = Literal["any", "well", "less"]
_POPULARITY: dict[Fame, int] = {"any": 0, "well": 1, "less": -1}


@dataclass(frozen=True, kw_only=True)
class ListControls:
    """One setting of the controls.

    Attributes
    ----------
    ask
        A request in plain words.
    diversity
        The dial, 0 to 1.
    genres
        Names of genres of which an item must have one.
    first_year, last_year
        Span of years; None is open.
    new_only
        Only what is new.
    known
        Well known, less known, or any.
    count
        Length of the list.

    Raises
    ------
    ConfigError
        If a number is out of range.
    """

    ask: str = ""
    diversity: float = 0.0
    genres: tuple[str, ...] = ()
    first_year: int | None = None
    last_year: int | None = None
    new_only: bool = False
    known: Fame = "any"
    count: int = COUNT

    def __post_init__(self) -> None:
        if not 0.0 <= self.diversity <= 1.0:
            raise ConfigError(f"the dial is at {self.diversity:g}, it goes from 0 to 1", hint="move it back")
        if not 1 <= self.count <= COUNTS[-1]:
            raise ConfigError(f"a list of {self.count}, 1 to {COUNTS[-1]} are shown", hint="choose a shorter one")
        for year in (self.first_year, self.last_year):
            if year is not None and not 1 <= year <= MAX_YEAR:
                raise ConfigError(f"the year {year}, 1 to {MAX_YEAR} are taken", hint="leave it empty for any year")

    @property
    def narrows(self) -> bool:
        """Whether any filter is set, so that the filters should be seen."""
        return bool(self.genres or self.new_only or self.first_year or self.last_year) or (
            (self.known, self.count) != ("any", COUNT)
        )

    @property
    def query(self) -> str:
        """The same as a query without "?"; empty for the plain list."""
        pairs: list[tuple[str, str]] = []
        if self.ask:
            pairs.append(("ask", self.ask))
        if self.diversity:
            pairs.append(("diversity", f"{self.diversity:g}"))
        pairs += [("genre", genre) for genre in self.genres]
        pairs += [
            (name, str(year)) for name, year in (("from", self.first_year), ("to", self.last_year)) if year is not None
        ]
        if self.new_only:
            pairs.append(("new", "1"))
        if self.known != "any":
            pairs.append(("known", self.known))
        if self.count != COUNT:
            pairs.append(("count", str(self.count)))
        return urlencode(pairs)

    @staticmethod
    def from_query(pairs: Sequence[tuple[str, str]]) -> ListControls:
        """Read the fields of a query; names that are none of them are passed over, of repeated ones the last counts.

        Raises
        ------
        ConfigError
            If a value cannot be used.
        """
        last = dict(pairs)
        known = last.get("known", "any")
        if known not in get_args(Fame):
            raise ConfigError(f"known is {known[:40]!r}", hint=f"it is one of {', '.join(get_args(Fame))}")
        return ListControls(
            ask=" ".join(last.get("ask", "").split()),
            diversity=_number(last.get("diversity", "")),
            genres=tuple(dict.fromkeys(value for name, value in pairs if name == "genre" and value)),
            first_year=_whole("from", last.get("from", "")),
            last_year=_whole("to", last.get("to", "")),
            new_only=last.get("new") == "1",
            known=cast("Fame", known),
            count=_whole("count", last.get("count", "")) or COUNT,
        )

    def request(self, recommender: Recommender) -> Request:
        """Turn it into what the recommender is asked; raises ConfigError as `Recommender.understand`."""
        controls = Request(
            genres=tuple(genre_facet(genre) for genre in self.genres),
            first_year=self.first_year,
            last_year=self.last_year,
            new_only=self.new_only,
            popularity=_POPULARITY[self.known],
            diversity=self.diversity or None,
            count=self.count if self.count != COUNT else None,
        )
        return recommender.understand(self.ask).also(controls) if self.ask else controls


def _number(text: str) -> float:
    try:
        value = float(text) if text.strip() else 0.0
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f"{text[:40]!r} is no number", hint="the dial goes from 0 to 1")
    return value


def _whole(name: str, text: str) -> int | None:
    if not text.strip():
        return None
    if not (text.strip().isascii() and text.strip().isdigit() and len(text.strip()) <= 6):
        raise ConfigError(f"{name} is {text[:40]!r}, a whole number is needed", hint="leave it empty for any")
    return int(text)
