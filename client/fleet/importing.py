"""From a file into the history: what one person had, with a key or a title, and perhaps a rating and a time.

The file is read as every other (`palate.data.reading`). A row that cannot be used is passed over and listed; items that
the catalogue does not know are kept: a later one may.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from palate.client.vault.errors import EntryRefused
from palate.client.vault.history import History, Interaction
from palate.data.catalogue import TITLE_PREFIX, Catalogue, printable
from palate.errors import DataError

if TYPE_CHECKING:
    from palate.data.options import ReadOptions

MAX_FILE_BYTES: Final = 1 << 28
MAX_ROWS: Final = 1_000_000
EXAMPLES: Final = 3
LISTED: Final = 20
"""Rows that were passed over and are named, at most."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What came of a file.

    Attributes
    ----------
    rows
        Rows of the file, or of one person in it.
    added
        Interactions that the history did not have.
    known
        Of those, how many are about items of the catalogue.
    unknown
        The others: kept for a later catalogue.
    examples
        A few names of unknown items.
    columns
        Which column was read as what.
    passed_over
        Columns of the file that nothing was taken from.
    dropped
        How many rows could not be used.
    reasons
        The first of them: "line 3: the rating is no number".
    notes
        What was guessed, in sentences.
    """

    rows: int
    added: int
    known: int
    unknown: int
    examples: tuple[str, ...]
    columns: dict[str, str]
    passed_over: tuple[str, ...]
    dropped: int
    reasons: tuple[str, ...]
    notes: tuple[str, ...]


def import_file(
    path: Path,
    history: History,
    catalogue: Catalogue | None,
    *,
    options: ReadOptions | None = None,
    user: str | None = None,
) -> Imported:
    """Take a file's interactions into a history.

    Parameters
    ----------
    path
        Any file that `palate.data.reading.read_rows` reads, up to `MAX_FILE_BYTES` and `MAX_ROWS`.
    history
        Where to.
    catalogue
        Tells known items from others; None before the device belongs to a fleet.
    options
        Column names; what is None is guessed.
    user
        Take the rows of this user only, where the file has those of several.

    Raises
    ------
    DataError
        If the file cannot be read, lacks a column, or has no row that can be used; nothing is imported then.
    """
    import polars as pl

    from palate.data.files import Limits
    from palate.data.reading import read_rows

    raw = read_rows(path, options, personal=True, limits=Limits(max_bytes=MAX_FILE_BYTES, max_rows=MAX_ROWS))
    frame, notes = raw.frame, list(raw.report.notes)
    if user is not None:
        if "user" not in frame.columns:
            raise DataError(
                f"{path.name} has no column of users", hint="leave --user out, or name it with --user-column"
            )
        frame = frame.filter(pl.col("user") == user)
        if frame.is_empty():
            raise DataError(f"{path.name} has no rows of user {user!r}", hint="look up how the file writes it")
    elif "user" in frame.columns and (users := frame["user"].n_unique()) > 1:
        notes.append(
            f"the file has rows of {users:,} users in {raw.columns['user']}, and all were taken; "
            "to take one person's: palate client undo, then import again with --user"
        )
    catalogue = Catalogue.of(()) if catalogue is None else catalogue
    named: list[Interaction] = []
    dropped = raw.dropped.rows()
    for row in frame.iter_rows(named=True):
        try:
            named.append(_interaction(row, catalogue))
        except EntryRefused as error:
            dropped.append((row["line"], error.message))
    dropped.sort()
    reasons = tuple(f"{raw.unit} {line}: {reason}" for line, reason in dropped[:LISTED])
    if not named:
        raise DataError(
            f"{path.name}: none of its {len(dropped)} rows can be imported; {reasons[0]}",
            hint="mend the file, or say which column is what: --title-column, --time-column and so on",
        )
    if "rating" in raw.columns and (unrated := frame["rating"].null_count()):
        notes.append(f"{unrated:,} rows have no rating; they count as had")
    had = {(entry.item, entry.value, entry.time) for _, entry in history.in_order()}
    new = [entry for entry in dict.fromkeys(named) if (entry.item, entry.value, entry.time) not in had]
    history.add_many(new)
    unknown = [entry.item for entry in new if entry.item not in catalogue.rows]
    return Imported(
        rows=len(named) + len(dropped),
        added=len(new),
        known=len(new) - len(unknown),
        unknown=len(unknown),
        examples=tuple(item.removeprefix(TITLE_PREFIX) for item in dict.fromkeys(unknown))[:EXAMPLES],
        columns={role: printable(name) for role, name in raw.columns.items()},
        passed_over=tuple(map(printable, raw.other_columns)),
        dropped=len(dropped),
        reasons=reasons,
        notes=tuple(map(printable, notes)),
    )


def _interaction(row: dict[str, object], catalogue: Catalogue) -> Interaction:
    """Return an entry under the key that the catalogue has for it; raises EntryRefused if it cannot be one."""
    key, title = str(row.get("item") or ""), str(row.get("title") or "")
    by_title = TITLE_PREFIX + title
    at = catalogue.rows.get(key) if key else None
    if at is None and title:
        at = catalogue.rows.get(by_title)
    item = catalogue.ids[at] if at is not None else key or by_title
    rating, moment = row.get("rating"), row.get("moment")
    time = None if not isinstance(moment, float) else math.floor(moment)
    return Interaction(item=item, value=rating if isinstance(rating, float) else 1.0, time=time, source="import")
