"""What the owner types, against what the catalogue has: a title, a kind of item, a span of years, a mood."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from palate.client.recommending.facets import Facets, decade_facet, genre_facet
from palate.client.recommending.requests import Request
from palate.data.catalogue import Catalogue
from palate.data.titles import plain
from palate.errors import ConfigError

if TYPE_CHECKING:
    from palate.client.recommending.recommender import Recommender
    from palate.data.title_index import TitleIndex

CANDIDATES = 5

_DECADE = re.compile(r"(?:the )?((?:1[89]|20)?\d0)'?s", re.IGNORECASE)
_YEAR = re.compile(r"\d{4}")


class UnclearTitle(ConfigError):
    """A title that several items may have, or none.

    Parameters
    ----------
    text
        What was typed.
    items
        Rows of the candidates, the likeliest first; none where nothing is like it.
    titles
        Their titles.
    """

    def __init__(self, text: str, items: tuple[int, ...], titles: tuple[str, ...]) -> None:
        self.items = items
        if items:
            super().__init__(f"{text!r} may be one of {len(items)} titles", hint=f"say which one: {'; '.join(titles)}")
        else:
            super().__init__(
                f"no title matches {text!r}",
                hint="look it up with palate client search; a file that is imported keeps what no catalogue has yet",
            )


def item_named(catalogue: Catalogue, index: TitleIndex, text: str) -> int:
    """Find the one item that was meant, by its key or its title, a slip of the finger allowed.

    Parameters
    ----------
    catalogue, index
        Have the keys, and the titles.
    text
        What was typed.

    Raises
    ------
    UnclearTitle
        If several may be meant, or none is like it.
    """
    text = text.strip()
    exact = index.exact(text) if text else ()
    if len(exact) == 1:
        return exact[0]
    if not exact and text in catalogue.rows:
        return catalogue.rows[text]
    if exact:
        candidates = exact[:CANDIDATES]
    else:
        found = index.identify(text)
        if found is not None:
            return found[0]
        candidates = tuple(match.item for match in index.search(text, CANDIDATES))
    raise UnclearTitle(text, candidates, tuple(catalogue.titles[item] for item in candidates))


def facet_named(text: str, facets: Facets, others: Iterable[str] = ()) -> str:
    """Find a facet: "crime", "sci-fi", "90s", "1990s" or its full name, "genre: Crime".

    Parameters
    ----------
    text
        What was typed.
    facets
        Of the catalogue.
    others
        Names that count although the catalogue does not have them.

    Raises
    ------
    ConfigError
        If there is none.
    """
    from palate.client.wishes.lexicon import LANGUAGES, genre_names, lexicon_of

    text = text.strip()
    for name in (*facets.items, *others):
        if text.casefold() == name.casefold():
            return name
    decade = _DECADE.fullmatch(text)
    if decade is not None:
        year = int(decade[1])
        known = [each for each in (year, 1900 + year, 2000 + year) if decade_facet(each) in facets.items]
        if known:
            return decade_facet(known[0])
    names, said = genre_names(facets.genres), plain(text)
    called = (lexicon_of(language).kinds(said).get("genre", "") for language in LANGUAGES)
    genre = names.get(said) or next((names[name] for name in called if name in names), None)
    if genre is None:
        decades = [name.partition(": ")[2] for name in facets.items if name.startswith("decade: ")]
        raise ConfigError(
            f"the catalogue has no genre or decade {text!r}",
            hint=f"it has {', '.join([*facets.genres[:30], *decades]) or 'none'}",
        )
    return genre_facet(genre)


def year_span(text: str) -> tuple[int | None, int | None]:
    """Read "1995", "1990-1999", "1990-", "-1999", "90s" or "1990s"; None is open.

    Raises
    ------
    ConfigError
        If it is none of them, or ends before it begins.
    """
    begins, dash, ends = text.strip().partition("-")
    first, last = (_years(part.strip()) for part in (begins, ends))
    if (begins.strip() and not first) or (ends.strip() and not last) or not (first or last):
        raise ConfigError(f"the years are {text!r}", hint="write 1995, 1990-1999, 1990-, -1999 or 90s")
    if first and last and first[0] > last[1]:
        raise ConfigError(f"the years {text!r} end before they begin", hint=f"write {ends.strip()}-{begins.strip()}")
    if first and not dash:
        return first
    return first[0] if first else None, last[1] if last else None


def _years(text: str) -> tuple[int, int] | None:
    """First and last of the years that a year or a decade names; None for anything else."""
    decade = _DECADE.fullmatch(text)
    if decade is None:
        return (int(text), int(text)) if _YEAR.fullmatch(text) else None
    year = int(decade[1])
    begins = year if year >= 1000 else 1900 + year if year >= 30 else 2000 + year  # nobody asks for the 1920s so
    return begins, begins + 9


def mood_request(recommender: Recommender, text: str) -> Request:
    """Read a mood: "lighter", "feel good".

    Raises
    ------
    ConfigError
        If it is no mood, or no genre of the catalogue has anything to do with it.
    """
    from palate.client.wishes.moods import MOODS

    found = recommender.reader.read(text)
    if not found.moods or found.not_understood:
        raise ConfigError(f"{text!r} is no mood that this catalogue has", hint=f"try {', '.join(MOODS)}")
    return Request(moods=found.moods)
