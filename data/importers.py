"""Exports that are known by their file's name or by their columns, and how each becomes a table that the reader knows.

A new one is an `Importer` in its family's file (`exports_*.py`) and a line in `IMPORTERS`; another package adds its own
with an entry point `palate.importers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

import polars as pl

from palate.data.ratings import RatingScale
from palate.data.records import Record
from palate.models.registry import Registry, instance_of

_BEGINNING = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Importer:
    """One kind of export.

    Attributes
    ----------
    name, description
        What it is called, and what it is, in one line.
    files
        Patterns of file names, without `.gz`, in lower case.
    header
        Column names of files without a header line; empty where the file has one.
    separator
        Field separator; None to guess it.
    needs
        Column names that tell this export from others, if the file has a header line; empty: the file's name is enough.
    alone
        Whether the export has no other columns than those.
    records
        For exports that are no tables: makes records of their text, for `palate.data.records.columns_of`.
    holds
        Text near the beginning of such a file.
    convert
        Renames and combines columns to those that the reader guesses: user, item, title, rating, time, genres, year;
        `code`, keys that catalogues may have, as an ISBN; `other`, other titles of the item; text or List(String).
    left_out
        Records that are no part of a history, on the columns before `convert`: why, in words -> which.
    inside
        Patterns of the names that such exports have in archives and folders; `files` where empty.
    scale
        From the worst rating to the best, where the export has ratings.
    quiet
        Whether the export is known to be in Latin-1, so that this is no guess to be noted.
    """

    name: str
    description: str
    files: tuple[str, ...] = ("*",)
    header: tuple[str, ...] = ()
    separator: str | None = None
    needs: frozenset[str] = frozenset()
    alone: bool = False
    records: Callable[[str], Iterable[Record]] | None = None
    holds: str = ""
    convert: Callable[[pl.DataFrame], pl.DataFrame] = lambda frame: frame
    left_out: Mapping[str, pl.Expr] = field(default_factory=dict)
    inside: tuple[str, ...] = ()
    scale: RatingScale | None = None
    quiet: bool = False

    def fits(self, file: str, columns: frozenset[str]) -> bool:
        """Whether a file of this name with these columns is such an export."""
        return _named(file, self.files) and (columns == self.needs if self.alone else self.needs <= columns)


def _named(file: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(file.lower().removesuffix(".gz"), pattern) for pattern in patterns)


IMPORTERS: Final = Registry(
    "importer",
    "palate.importers",
    {
        "movielens-ratings": "palate.data.movielens:RATINGS",
        "movielens-100k-ratings": "palate.data.movielens:RATINGS_100K",
        "movielens-movies": "palate.data.movielens:MOVIES",
        "movielens-100k-movies": "palate.data.movielens:MOVIES_100K",
        "movielens-users": "palate.data.movielens:USERS",
        "movielens-100k-users": "palate.data.movielens:USERS_100K",
        "letterboxd-watchlist": "palate.data.exports_films:LETTERBOXD_WATCHLIST",
        "letterboxd": "palate.data.exports_films:LETTERBOXD",
        "netflix": "palate.data.exports_films:NETFLIX",
        "netflix-activity": "palate.data.exports_films:NETFLIX_ACTIVITY",
        "imdb-list": "palate.data.exports_films:IMDB_LIST",
        "imdb": "palate.data.exports_films:IMDB",
        "trakt-ratings": "palate.data.exports_films:TRAKT_RATINGS",
        "trakt-watched": "palate.data.exports_films:TRAKT_WATCHED",
        "trakt-history": "palate.data.exports_films:TRAKT_HISTORY",
        "trakt-watchlist": "palate.data.exports_films:TRAKT_LISTS",
        "myanimelist": "palate.data.exports_films:MYANIMELIST",
        "goodreads": "palate.data.exports_books:GOODREADS",
        "kindle": "palate.data.exports_books:KINDLE",
        "spotify": "palate.data.exports_music:SPOTIFY",
        "spotify-extended": "palate.data.exports_music:SPOTIFY_EXTENDED",
        "lastfm": "palate.data.exports_music:LASTFM",
        "steam": "palate.data.exports_games:STEAM",
        "amazon-orders": "palate.data.exports_shops:AMAZON",
        "amazon-report": "palate.data.exports_shops:AMAZON_REPORT",
    },
    instance_of(Importer),
)
"""In the order in which they are asked; of two that fit, the first is taken."""


def values_of(frame: pl.DataFrame, column: str) -> pl.Expr:
    """Values of a column that not every export of a kind has; "" where it is missing."""
    return pl.col(column).fill_null("") if column in frame.columns else pl.lit("")


def first_given(frame: pl.DataFrame, *columns: str) -> pl.Expr:
    """Value of the first of some columns that has one in the row; "" where none has."""
    return pl.coalesce(*(values_of(frame, column).replace("", None) for column in columns), pl.lit(""))


def unless(values: pl.Expr, *nothing: str) -> pl.Expr:
    """Values, with "" in place of markers for missing ones."""
    return pl.when(values.is_in(nothing)).then(pl.lit("")).otherwise(values)


def importer_of(file: str, columns: frozenset[str] | None = None) -> Importer | None:
    """Return the importer that knows a file, or None.

    Parameters
    ----------
    file
        Its name.
    columns
        Those that its header line names; None before it is read: only exports without a header line are known then.

    Raises
    ------
    ConfigError
        If an importer of another package cannot be used.
    """
    for _, importer in IMPORTERS.items():
        known_by = importer.header if columns is None else importer.needs
        if known_by and importer.fits(file, columns or frozenset()):
            return importer
    return None


def importer_of_text(file: str, text: str) -> Importer | None:
    """Return the importer that knows a text which is no table, or None; raises as `importer_of`."""
    beginning = text[:_BEGINNING]
    importers = (importer for _, importer in IMPORTERS.items())
    return next(
        (each for each in importers if each.records and _named(file, each.files) and each.holds in beginning), None
    )


def is_known_export(file: str) -> bool:
    """Whether a file of this name, found in an archive or a folder, may be a known export; raises as `importer_of`."""
    patterns = (each.inside or tuple(name for name in each.files if name != "*") for _, each in IMPORTERS.items())
    return any(_named(file, each) for each in patterns)
