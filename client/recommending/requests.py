"""What a person asks of a list: filters, nudges and the shape of the list, in one value that can be said back.

Options of a command, controls of a page and sentences (`client/wishes/reader.py`) all become a `Request`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

from palate.client.recommending.explaining import joined
from palate.client.wishes.moods import Mood
from palate.data.catalogue import Catalogue

LAST_YEAR = 9999
"""End of a span of `without_years` that has none; one without a beginning begins with the year 0."""
LAST_MINUTE = 9999
"""The same of `without_minutes`."""

_NARROWED = ("first_year", "last_year", "shortest", "longest")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a person asked for, as it was understood.

    Attributes
    ----------
    titles, unlike, without_titles
        Rows of items to be like, to be unlike, and to leave out without a word about others.
    genres, every, without
        Facets of which an item must have one, those of which it must have each, and those it must not have.
    moods
        Moods that it must fit.
    more, less
        Facets that there should be more of, and less of.
    first_year, last_year, shortest, longest
        Span of years and of minutes, both ends in it; None is open.
    without_years, without_minutes
        Spans that are left out, from 0 or up to `LAST_YEAR` and `LAST_MINUTE` where they are open.
    mentions, without_mentions
        Words, such as names, that the item's text must hold, and must not hold.
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
    unsure
        Facets beside a word that is not understood, each with that word: they changed nothing either, because the word
        may turn them down.
    suggestions
        Phrases that are nearly titles, each with the row of the nearest.
    """

    titles: tuple[int, ...] = ()
    unlike: tuple[int, ...] = ()
    without_titles: tuple[int, ...] = ()
    genres: tuple[str, ...] = ()
    every: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    moods: tuple[Mood, ...] = ()
    more: tuple[str, ...] = ()
    less: tuple[str, ...] = ()
    first_year: int | None = None
    last_year: int | None = None
    without_years: tuple[tuple[int, int], ...] = ()
    shortest: int | None = None
    longest: int | None = None
    without_minutes: tuple[tuple[int, int], ...] = ()
    mentions: tuple[str, ...] = ()
    without_mentions: tuple[str, ...] = ()
    new_only: bool = False
    popularity: int = 0
    diversity: float | None = None
    count: int | None = None
    not_understood: tuple[str, ...] = ()
    unsure: tuple[tuple[str, str], ...] = ()
    suggestions: tuple[tuple[str, int], ...] = ()

    @property
    def asks(self) -> bool:
        """Whether anything was understood."""
        return replace(self, not_understood=(), unsure=(), suggestions=()) != Request()

    def also(self, other: Request) -> Request:
        """Ask for both: lists are joined, spans narrowed; other settings come from `other`, where it has them."""
        joint: dict[str, Any] = {
            each.name: tuple(dict.fromkeys((*getattr(self, each.name), *getattr(other, each.name))))
            for each in fields(self)
            if isinstance(each.default, tuple)
        }
        for name in _NARROWED:
            given = [value for value in (getattr(self, name), getattr(other, name)) if value is not None]
            joint[name] = (max if name in ("first_year", "shortest") else min)(given, default=None)
        return Request(
            **joint,
            new_only=self.new_only or other.new_only,
            popularity=other.popularity or self.popularity,
            diversity=self.diversity if other.diversity is None else other.diversity,
            count=self.count if other.count is None else other.count,
        )

    def parts(self, catalogue: Catalogue) -> dict[str, Request]:
        """Everything that is asked for, each by its words, as the request that is left without it."""
        titles = catalogue.titles
        found: dict[str, Request] = {}

        def each(name: str, words: Callable[[Any], str]) -> None:
            own: tuple[Any, ...] = getattr(self, name)
            for value in own:
                left: dict[str, Any] = {name: tuple(other for other in own if other != value)}
                found[words(value)] = replace(self, **left)

        each("titles", lambda row: f"like {titles[row]}")
        each("unlike", lambda row: f"unlike {titles[row]}")
        each("without_titles", lambda row: f"not {titles[row]}")
        each("genres", _short)
        each("every", _short)
        each("moods", lambda mood: mood.name)
        if self.first_year is not None or self.last_year is not None:
            found[_years(self.first_year, self.last_year)] = replace(self, first_year=None, last_year=None)
        if self.shortest is not None or self.longest is not None:
            found[_minutes(self.shortest, self.longest)] = replace(self, shortest=None, longest=None)
        each("mentions", _quoted)
        each("more", lambda name: f"more {_short(name)}")
        each("less", lambda name: f"less {_short(name)}")
        each("without", lambda name: f"not {_short(name)}")
        each("without_mentions", lambda words: f"not {_quoted(words)}")
        each("without_years", lambda span: f"not {_years(span[0] or None, span[1])}")
        each("without_minutes", lambda span: f"not {_minutes(span[0] or None, span[1])}")
        for words, name in (
            ("new only", "new_only"),
            ("well known" if self.popularity > 0 else "less known", "popularity"),
            ("varied", "diversity"),
            (f"{self.count} of them", "count"),
        ):
            if getattr(self, name):
                found[words] = replace(self, **{name: getattr(Request(), name)})
        return found

    def dropped(self, words: Iterable[str], catalogue: Catalogue) -> Request:
        """Leave out parts, by their words as `parts` has them; other words change nothing."""
        kept = self
        for each in words:
            kept = kept.parts(catalogue).get(each, kept)
        return kept

    def sentence(self, catalogue: Catalogue) -> str:
        """Say the request back: "like Heat (1995); from 1990 to 1999; more Comedy; not Horror"."""
        alternatives = [*self.genres][1:]
        words = [part for part in self.parts(catalogue) if part not in map(_short, alternatives)]
        if alternatives:
            words[words.index(_short(self.genres[0]))] = joined([_short(name) for name in self.genres], "or")
        return "; ".join(words) or "anything"

    def questions(self) -> list[str]:
        """Ask about what was not understood and matters."""
        asked = [
            f"{word!r} is not a word that is known here, so {_short(facet)} beside it was left out: "
            f"say it with or without {_short(facet)}"
            for word, facet in self.unsure
        ]
        beside = {word for word, _ in self.unsure}
        others = [word for word in self.not_understood if word not in beside]
        if others:
            asked.append(f"not understood: {', '.join(others)}; say it in other words, or leave it out")
        return asked


def _years(first: int | None, last: int | None) -> str:
    if first is None:
        return f"up to {last}"
    if last is None or last == LAST_YEAR:
        return f"from {first} on"
    return f"in {first}" if first == last else f"from {first} to {last}"


def _minutes(first: int | None, last: int | None) -> str:
    if first is None or first <= 1:
        return f"up to {last} minutes"
    return f"at least {first} minutes" if last is None or last == LAST_MINUTE else f"{first} to {last} minutes"


def _quoted(words: str) -> str:
    return f"\N{LEFT DOUBLE QUOTATION MARK}{words}\N{RIGHT DOUBLE QUOTATION MARK}"


def _short(name: str) -> str:
    return name.partition(": ")[2] or name
