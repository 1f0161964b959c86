"""What a person asks of a list: filters, nudges and the shape of the list, in one value that can be said back.

Options of a command, controls of a page and sentences (`client/recommending/request_reader.py`) all become a `Request`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from palate.client.recommending.explaining import joined
from palate.data.catalogue import Catalogue

LAST_YEAR = 9999
"""End of a span of `without_years` that has none; one without a beginning begins with the year 0."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a person asked for, as it was understood.

    Attributes
    ----------
    titles, unlike
        Rows of items to be like, and to be unlike.
    genres, without
        Facets of which an item must have one, and those it must not have.
    more, less
        Facets that there should be more of, and less of.
    first_year, last_year
        Span of years, both ends in it; None is open.
    without_years
        Spans that are left out, from 0 or up to `LAST_YEAR` where they are open.
    new_only
        Only what is new in the catalogue.
    popularity
        1 for only what is well known, -1 for only what is not, 0 for either.
    diversity
        The dial of `client/recommending/reranking.py`, None where nothing was said.
    count
        Length of the list, None where nothing was said.
    not_understood
        Phrases that changed nothing.
    suggestions
        Phrases that are nearly titles, each with the row of the nearest.
    """

    titles: tuple[int, ...] = ()
    unlike: tuple[int, ...] = ()
    genres: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    less: tuple[str, ...] = ()
    first_year: int | None = None
    last_year: int | None = None
    without_years: tuple[tuple[int, int], ...] = ()
    new_only: bool = False
    popularity: int = 0
    diversity: float | None = None
    count: int | None = None
    not_understood: tuple[str, ...] = ()
    suggestions: tuple[tuple[str, int], ...] = ()

    @property
    def asks(self) -> bool:
        """Whether anything was understood."""
        return replace(self, not_understood=(), suggestions=()) != Request()

    def also(self, other: Request) -> Request:
        """Ask for both: lists are joined, years narrowed; other settings come from `other`, where it has them."""
        firsts = [year for year in (self.first_year, other.first_year) if year is not None]
        lasts = [year for year in (self.last_year, other.last_year) if year is not None]
        both = {
            name: tuple(dict.fromkeys((*getattr(self, name), *getattr(other, name))))
            for name in ("titles", "unlike", "genres", "without", "more", "less", "without_years", "not_understood")
        }
        return Request(
            **both,
            suggestions=tuple(dict.fromkeys((*self.suggestions, *other.suggestions))),
            first_year=max(firsts, default=None),
            last_year=min(lasts, default=None),
            new_only=self.new_only or other.new_only,
            popularity=other.popularity or self.popularity,
            diversity=self.diversity if other.diversity is None else other.diversity,
            count=self.count if other.count is None else other.count,
        )

    def sentence(self, catalogue: Catalogue) -> str:
        """Say the request back: "like Heat (1995); from 1990 to 1999; more Comedy; not Horror"."""
        return "; ".join(self._said(catalogue)) or "anything"

    def _said(self, catalogue: Catalogue) -> list[str]:
        def titled(items: Sequence[int], last: str) -> str:
            return joined([catalogue.titles[item] for item in items], last)

        said = {
            f"like {titled(self.titles, 'and')}": self.titles,
            f"unlike {titled(self.unlike, 'or')}": self.unlike,
            _listed(self.genres, "or"): self.genres,
            _years(self.first_year, self.last_year): self.first_year is not None or self.last_year is not None,
            **{f"not {_years(first or None, last)}": True for first, last in self.without_years},
            f"more {_listed(self.more, 'and')}": self.more,
            f"less {_listed(self.less, 'and')}": self.less,
            f"not {_listed(self.without, 'or')}": self.without,
            "new only": self.new_only,
            "well known" if self.popularity > 0 else "less known": self.popularity,
            "varied": self.diversity,
            f"{self.count} of them": self.count,
        }
        return [words for words, asked in said.items() if asked]


def _years(first: int | None, last: int | None) -> str:
    if first is None:
        return f"up to {last}"
    if last is None or last == LAST_YEAR:
        return f"from {first} on"
    return f"in {first}" if first == last else f"from {first} to {last}"


def _listed(names: Sequence[str], last: str) -> str:
    return joined([name.partition(": ")[2] or name for name in names], last)
