"""Exports that are known by their file's name or by their columns, and how each becomes a table that the reader knows.

A new one is an `Importer` in a file of its own and a line in `IMPORTERS`; another package adds its own with an entry
point `palate.importers`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

import polars as pl

from palate.models.registry import Registry, instance_of


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
    convert
        Renames and combines columns to those that the reader guesses: user, item, title, rating, time, genres, year.
    quiet
        Whether the export is known to be in Latin-1, so that this is no guess to be noted.
    """

    name: str
    description: str
    files: tuple[str, ...] = ("*",)
    header: tuple[str, ...] = ()
    separator: str | None = None
    needs: frozenset[str] = frozenset()
    convert: Callable[[pl.DataFrame], pl.DataFrame] = lambda frame: frame
    quiet: bool = False

    def fits(self, file: str, columns: frozenset[str]) -> bool:
        """Whether a file of this name with these columns is such an export."""
        named = any(fnmatchcase(file.lower().removesuffix(".gz"), pattern) for pattern in self.files)
        return named and self.needs <= columns


IMPORTERS: Final = Registry(
    "importer",
    "palate.importers",
    {
        name: f"palate.data.movielens:{attribute}"
        for name, attribute in (
            ("movielens-ratings", "RATINGS"),
            ("movielens-100k-ratings", "RATINGS_100K"),
            ("movielens-movies", "MOVIES"),
            ("movielens-100k-movies", "MOVIES_100K"),
            ("movielens-users", "USERS"),
            ("movielens-100k-users", "USERS_100K"),
        )
    },
    instance_of(Importer),
)


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
