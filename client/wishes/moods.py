"""Moods in genres: a short public table, made by hand, that needs no model and can be read.

A mood asks for any of some genres and for none of others. Its opposite, "not scary", leaves out the genres that are
the mood's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from palate.client.recommending.facets import genre_facet


@dataclass(frozen=True)
class Mood:
    """A mood as the genres of one catalogue.

    Attributes
    ----------
    name
        In English, as it is said back.
    of
        Facets of which an item must have one; none means any.
    without
        Facets that an item must not have.
    """

    name: str
    of: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


_MOODS: Final = {
    # mood: (any of these, none of these, what its opposite leaves out)
    "light": ("comedy, romance, musical, childrens, animation", "horror, war, crime, thriller, film noir", "comedy"),
    "dark": ("film noir, crime, horror, thriller", "comedy, childrens, musical", "film noir, horror"),
    "funny": ("comedy", "", "comedy"),
    "scary": ("horror, thriller", "childrens", "horror"),
    "bloody": ("action, crime, horror, war", "childrens", "crime, horror, war"),
    "tense": ("thriller, mystery, crime, film noir", "childrens", "thriller"),
    "exciting": ("action, adventure, thriller", "", "action"),
    "serious": ("drama, history, documentary, war, biography", "comedy, childrens", "drama, war"),
    "warm": ("romance, comedy, childrens, drama", "horror, war, crime, thriller", "romance"),
    "real": ("documentary, biography, history", "", "documentary"),
    "wholesome": ("childrens, animation, musical", "horror, thriller, crime, war", "childrens"),
    "clever": ("mystery, sci fi, drama, documentary, film noir", "", "mystery"),
    "sad": ("drama, romance, war", "comedy", "drama, war"),
    "calm": ("drama, romance, documentary", "action, horror, thriller, war", ""),
    "magical": ("fantasy, animation, childrens", "", "fantasy"),
    "futuristic": ("sci fi", "", "sci fi"),
    "loving": ("romance", "", "romance"),
}
MOODS: Final = tuple(_MOODS)
"""Names of all moods."""


def mood_of(name: str, genres: Mapping[str, str], *, negated: bool = False) -> Mood | None:
    """Say a mood in a catalogue's genres.

    Parameters
    ----------
    name
        One of `MOODS`.
    genres
        The catalogue's genres by their plain English names (`Lexicon.genres`).
    negated
        Whether the opposite is meant.

    Returns
    -------
    Mood or None
        None where the catalogue has no genre that the mood asks for, or that its opposite leaves out.
    """
    wanted, refused, own = (
        tuple(genre_facet(genres[genre]) for genre in column.split(", ") if genre in genres) for column in _MOODS[name]
    )
    if negated:
        return Mood(f"not {name}", (), own) if own else None
    return Mood(name, wanted, refused) if wanted else None
