"""From a file into the history: CSV, Parquet or JSON with `item` or `title`, and perhaps `rating` and a time.

All of a file is taken, or nothing. Items that the catalogue does not know are kept too: a later catalogue may.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palate.client.fleet.catalogue import TITLE_PREFIX, Catalogue, printable
from palate.client.vault.errors import EntryRefused
from palate.client.vault.history import History, Interaction
from palate.errors import DataError

if TYPE_CHECKING:
    import polars as pl

MAX_FILE_BYTES = 1 << 28
MAX_ROWS = 1_000_000
EXAMPLES = 3

_COLUMNS = ("item", "title", "rating", "time")
_TOO_LATE = 100_000_000_000
"""Times from here on are of a finer unit: in seconds this is the year 5138, in milliseconds 1973."""
_FINER = (1, 1_000, 1_000_000, 1_000_000_000)
"""Parts of a second that a time may be in."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What came of a file.

    Attributes
    ----------
    rows
        Rows of the file.
    added
        Interactions that the history did not have.
    known
        Of those, how many are about items of the catalogue.
    unknown
        The others: kept for a later catalogue.
    examples
        A few names of unknown items.
    passed_over
        Columns of the file that nothing was taken from.
    """

    rows: int
    added: int
    known: int
    unknown: int
    examples: tuple[str, ...]
    passed_over: tuple[str, ...]


def import_file(path: Path, history: History, catalogue: Catalogue | None) -> Imported:
    """Take a file's interactions into a history.

    Parameters
    ----------
    path
        ``.csv``, ``.tsv``, ``.parquet``, ``.json`` (a list of objects) or ``.jsonl``.
    history
        Where to.
    catalogue
        Tells known items from others; None before the device belongs to a fleet.

    Raises
    ------
    DataError
        If the file cannot be read, lacks a column, or holds a value that cannot be one; nothing is imported then.
    """
    frame, passed_over = _read(path)
    interactions = [_interaction(number, row) for number, row in enumerate(frame.iter_rows(named=True), start=1)]
    catalogue = Catalogue((), ()) if catalogue is None else catalogue
    named = [_named(entry, catalogue) for entry in interactions]
    had = {(entry.item, entry.value, entry.time) for _, entry in history.in_order()}
    new = [entry for entry in dict.fromkeys(named) if (entry.item, entry.value, entry.time) not in had]
    history.add_many(new)
    unknown = [entry.item for entry in new if catalogue.row_of(entry.item) is None]
    return Imported(
        rows=len(interactions),
        added=len(new),
        known=len(new) - len(unknown),
        unknown=len(unknown),
        examples=tuple(item.removeprefix(TITLE_PREFIX) for item in dict.fromkeys(unknown))[:EXAMPLES],
        passed_over=passed_over,
    )


def _read(path: Path) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Read the columns that are taken, and name the others."""
    import polars as pl

    readers: dict[str, Callable[[io.BytesIO], pl.DataFrame]] = {
        ".csv": lambda data: pl.read_csv(data, infer_schema=False),
        ".tsv": lambda data: pl.read_csv(data, infer_schema=False, separator="\t"),
        ".parquet": pl.read_parquet,
        ".json": pl.read_json,
        ".jsonl": pl.read_ndjson,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path} is not of a kind that can be imported: {', '.join(readers)}", hint="convert it to CSV first"
        )
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", hint="check the path") from None
    if len(data) > MAX_FILE_BYTES:
        raise DataError(f"{path} has more than {MAX_FILE_BYTES} bytes", hint="import it in parts")
    try:
        frame = reader(io.BytesIO(data))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read as {path.suffix[1:]} ({type(error).__name__})", hint="check its contents"
        ) from None
    if "time" not in frame.columns and "timestamp" in frame.columns:
        frame = frame.rename({"timestamp": "time"})
    if "item" not in frame.columns and "title" not in frame.columns:
        raise DataError(
            f"{path} has the columns {', '.join(frame.columns[:8]) or 'none'}, and neither item nor title",
            hint="name the column with item keys `item`, or the one with titles `title`",
        )
    if len(frame) > MAX_ROWS:
        raise DataError(f"{path} has {len(frame)} rows, at most {MAX_ROWS} are imported", hint="import it in parts")
    passed_over = tuple(printable(name) for name in frame.columns if name not in _COLUMNS)
    return frame.select(name for name in _COLUMNS if name in frame.columns), passed_over


def _interaction(number: int, row: dict[str, Any]) -> Interaction:
    item, title = row.get("item"), row.get("title")
    key = str(item).strip() if item is not None else ""
    if not key and title is not None and str(title).strip():
        key = TITLE_PREFIX + str(title).strip()
    try:
        return Interaction(item=key, value=_value(row.get("rating")), time=_time(row.get("time")), source="import")
    except (EntryRefused, ValueError, OverflowError) as error:
        why = error.message if isinstance(error, EntryRefused) else str(error)
        raise DataError(f"row {number}: {why}", hint="mend or remove the row; nothing was imported") from None


def _named(entry: Interaction, catalogue: Catalogue) -> Interaction:
    """Give an item that was imported by its title the key that the catalogue has for it."""
    row = catalogue.row_of(entry.item) if entry.item.startswith(TITLE_PREFIX) else None
    if row is None:
        return entry
    return Interaction(item=catalogue.keys[row], value=entry.value, time=entry.time, source=entry.source)


def _value(rating: object) -> float:
    if rating is None or rating == "":
        return 1.0
    value = float(str(rating))
    if not math.isfinite(value):
        raise ValueError("the rating is not a finite number")
    return value


def _time(moment: object) -> int | None:
    if moment is None or moment == "":
        return None
    if isinstance(moment, datetime):
        return _seconds(moment)
    if isinstance(moment, date):
        return _seconds(datetime(moment.year, moment.month, moment.day))
    try:
        number = float(str(moment))
    except ValueError:
        try:
            return _seconds(datetime.fromisoformat(str(moment)))
        except ValueError:
            raise ValueError("the time is neither seconds since 1970 nor like 2024-05-01T12:00:00") from None
    if not math.isfinite(number):
        raise ValueError("the time is not a finite number")
    for parts in _FINER:
        if number / parts < _TOO_LATE:
            return int(number / parts)
    raise ValueError("the time is later than the year 5138, even in nanoseconds since 1970")


def _seconds(moment: datetime) -> int:
    """Seconds since 1970 of a moment, in UTC where it names no zone."""
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
