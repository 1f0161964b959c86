"""One person's history from a file, an archive or a folder: all the rows of the known exports in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from palate.data.files import Limits, read_known_files
from palate.data.importers import is_known_export
from palate.data.interactions import RawInteractions
from palate.data.items import read_items
from palate.data.options import ReadOptions
from palate.data.reading import read_rows
from palate.data.tables import table_of
from palate.errors import DataError

_HISTORIES: Final = ("ratings.*", "interactions.*", "history.*", "*.inter", "u.data")
_ITEMS: Final = ("movies.csv", "movies.dat", "items.*", "u.item", "*.item")
_PEOPLE: Final = ("users.*", "u.user", "*.user")
"""Names that files of tables have in archives and folders; those about people are not read."""


@dataclass(frozen=True, kw_only=True)
class PersonalRows:
    """What was read.

    Attributes
    ----------
    files
        The histories by the names of their files.
    titles
        Titles by key, of files that describe the items of the others.
    left_out
        Rows of exports that are no part of a history: why, in words -> how many.
    not_read
        Names of files beside them.
    notes
        What could not be read, in sentences.
    """

    files: dict[str, RawInteractions]
    titles: Mapping[str, str] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    not_read: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_personal(path: Path, options: ReadOptions, limits: Limits) -> PersonalRows:
    """Read one person's history.

    Parameters
    ----------
    path
        A file of any kind that `palate.data.tables.read_table` reads, or an archive or a folder of such files, of which
        those are read that may be a known export, or interactions, or titles of their items.
    options
        Column names; what is None is guessed.
    limits
        How large all files together may be, and how many rows each may have.

    Raises
    ------
    DataError
        If nothing can be read, or none of the rows can be used.
    EnvironmentProblem
        If a file may not be read.
    """
    found, not_read = read_known_files(path, _may_be_read, limits)
    files: dict[str, RawInteractions] = {}
    titles: dict[str, str] = {}
    left_out: Counter[str] = Counter()
    troubles: list[DataError] = []
    for name, data in found:
        short = name.rpartition("/")[2]
        try:
            if len(found) > 1 and _named(short, _ITEMS):
                table = table_of(short, data, limits=limits)
                described, _ = read_items(table, limits=limits)
                titles |= dict(zip(described.ids, described.titles, strict=True))
                continue
            table = table_of(short, data, columns=options.column_names, limits=limits)
            if len(found) > 1 and table.frame.is_empty():
                left_out.update(table.left_out["reason"])
                continue
            files[name] = read_rows(table, options, personal=True, limits=limits)
        except DataError as error:
            troubles.append(error)
            continue
        left_out.update(files[name].left_out)
    if not files:
        if not troubles:
            raise DataError(
                f"{path.name} has no history: "
                + (", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "it describes items alone"),
                hint="name the file that says what you had",
            )
        raise troubles[0]
    return PersonalRows(
        files=files,
        titles=titles,
        left_out=dict(left_out),
        not_read=not_read,
        notes=tuple(error.message for error in troubles),
    )


def _may_be_read(name: str) -> bool:
    return not _named(name, _PEOPLE) and (_named(name, _HISTORIES + _ITEMS) or is_known_export(name))


def _named(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name.lower().removesuffix(".gz"), pattern) for pattern in patterns)
