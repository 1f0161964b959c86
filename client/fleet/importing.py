"""From a file into the history: what one person had, with a key or a title, and perhaps a rating and a time.

First a plan is made, which changes nothing and can be shown; then it is written as one step. An item has one entry from
imports: with its newest time and its newest rating. So importing a newer export changes entries, and importing the same
one changes nothing. A row that cannot be used is passed over and listed; items that the catalogue does not know are
kept by their title: a later catalogue may know them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from palate.client.vault.errors import EntryRefused
from palate.client.vault.history import History, Interaction
from palate.data.catalogue import TITLE_PREFIX, Catalogue, printable
from palate.data.ratings import UNRATED, RatingScale
from palate.errors import DataError

if TYPE_CHECKING:
    from palate.data.interactions import RawInteractions
    from palate.data.options import ReadOptions
    from palate.data.personal import PersonalRows
    from palate.data.title_index import Certainty

Found = Literal["exact", "likely", "unknown"]

MAX_FILE_BYTES: Final = 1 << 28
MAX_ROWS: Final = 1_000_000
MAX_DECODED_BYTES: Final = 1 << 28
EXAMPLES: Final[dict[Found, int]] = {"exact": 3, "likely": 10, "unknown": 3}
"""Titles that are shown of each kind; the likely ones are to be agreed to."""
LISTED: Final = 20
"""Rows that were passed over and are named, at most."""
_UNALIKE: Final = 50
"""Percent of similarity below which a file's key and title are of different items: its keys are another catalogue's."""


@dataclass(frozen=True, kw_only=True)
class ImportPlan:
    """What an import would do; nothing is changed before `write`.

    Attributes
    ----------
    files
        Names of the files that were read, with what kind of export each is, or "".
    not_read
        Files beside them.
    rows
        Rows of the files, or of one person in them; also those that were passed over.
    exact, likely, unknown
        How many different items are in the catalogue, are probably in it, and are not.
    examples
        Of each of these kinds a few: the title as it was written, and the catalogue's; that is "" for unknown ones.
    added, changed, unchanged
        Entries that the history does not have, has otherwise, and has already.
    columns
        Which column was read as what; empty for known exports.
    passed_over
        Columns that nothing was taken from; empty for known exports.
    left_out
        Rows that say nothing about what was had: why, in words -> how many.
    dropped
        How many rows could not be used.
    reasons
        The first of them: "line 3: the rating is no number".
    notes
        What was guessed, in sentences.
    entries, replaced
        The new and the changed entries, in the order of the files; numbers of those that they take the place of.
    """

    files: dict[str, str]
    not_read: tuple[str, ...]
    rows: int
    exact: int
    likely: int
    unknown: int
    examples: dict[Found, tuple[tuple[str, str], ...]]
    added: int
    changed: int
    unchanged: int
    columns: dict[str, str]
    passed_over: tuple[str, ...]
    left_out: dict[str, int]
    dropped: int
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    entries: tuple[Interaction, ...] = field(repr=False)
    replaced: tuple[int, ...] = field(repr=False)

    def write(self, history: History) -> None:
        """Change the history, as one step that `History.undo` takes back."""
        history.add_many(self.entries, replacing=self.replaced)

    def to_json(self) -> dict[str, Any]:
        """All facts but the entries as plain values."""
        return {name: value for name, value in vars(self).items() if name not in ("entries", "replaced")}


@dataclass(frozen=True)
class _Said:
    """What rows say about an item: the newest preference and the newest time, where they have one."""

    written: str
    found: Found
    preference: float | None
    time: int | None

    def after(self, earlier: _Said) -> _Said:
        """Join with what an earlier row says; the one with the later time is the newer, without times this one is."""
        older, newer = earlier, self
        if self.time is not None and earlier.time is not None and earlier.time > self.time:
            older, newer = newer, older
        return replace(
            newer,
            preference=older.preference if newer.preference is None else newer.preference,
            time=older.time if newer.time is None else newer.time,
        )


def plan_import(
    path: Path,
    history: History,
    catalogue: Catalogue | None,
    *,
    options: ReadOptions | None = None,
    user: str | None = None,
    likely: bool = True,
    scale: RatingScale | None = None,
) -> ImportPlan:
    """Read a file, an archive or a folder, and plan what it would change in a history.

    Parameters
    ----------
    path
        What `palate.data.personal.read_personal` reads, up to `MAX_FILE_BYTES` and `MAX_ROWS`.
    history
        Where to.
    catalogue
        Tells known items from others; None before the device belongs to a fleet.
    options
        Column names; what is None is guessed.
    user
        Take the rows of this user only, where the file has those of several.
    likely
        Whether likely titles are taken for the catalogue's; else they are unknown.
    scale
        From the worst rating to the best; None takes the export's, or guesses it.

    Raises
    ------
    DataError
        If nothing can be read, a column is missing, or no row can be used.
    """
    from palate.data.files import Limits
    from palate.data.options import ReadOptions
    from palate.data.personal import read_personal

    limits = Limits(max_bytes=MAX_FILE_BYTES, max_rows=MAX_ROWS, max_decoded_bytes=MAX_DECODED_BYTES)
    read = read_personal(path, options or ReadOptions(), limits)
    catalogue = Catalogue.of(()) if catalogue is None else catalogue
    matcher = _Matcher(catalogue, likely=likely)
    said: dict[str, _Said] = {}
    dropped: list[str] = []
    notes = list(read.notes)
    used = 0
    for name, raw in read.files.items():
        rows, noted = _rows_of(name, raw, user)
        notes += noted
        scale_here, note = _scale_of(name, raw, scale)
        notes += note
        where = f"{name}, " if len(read.files) > 1 else ""
        odd = raw.dropped.rows()
        for row in rows:
            try:
                key, one = _said(row, matcher, read.titles, scale_here)
            except EntryRefused as error:
                odd.append((row["line"], error.message))
                continue
            said[key] = one.after(said[key]) if key in said else one
            used += 1
        dropped += [f"{where}{raw.unit} {line}: {reason}" for line, reason in sorted(odd)]
    if not said:
        raise DataError(
            f"{path.name}: none of its {len(dropped)} rows can be imported; {dropped[0]}",
            hint="mend the file, or say which column is what: --title-column, --time-column and so on",
        )
    if used > len(said):
        notes.append(
            f"an item counts once, with its newest time and rating; rows that repeat one: {used - len(said):,}"
        )
    entries, replaced, changed = _changes(said, history, matcher)
    return _plan(read, said, catalogue, used + len(dropped), dropped, notes, entries, replaced, changed)


def _rows_of(name: str, raw: RawInteractions, user: str | None) -> tuple[Iterable[dict[str, Any]], list[str]]:
    """Rows of one person, and notes on the file."""
    import polars as pl

    frame, notes = raw.frame, list(raw.report.notes)
    if user is not None:
        if "user" not in frame.columns:
            raise DataError(f"{name} has no column of users", hint="leave --user out, or name it with --user-column")
        frame = frame.filter(pl.col("user") == user)
        if frame.is_empty():
            raise DataError(f"{name} has no rows of user {user!r}", hint="look up how the file writes it")
    elif "user" in frame.columns and (users := frame["user"].n_unique()) > 1:
        notes.append(
            f"the file has rows of {users:,} users in {raw.columns['user']}, and all were taken; "
            "to take one person's, import with --user"
        )
    unrated = frame["rating"].null_count() if "rating" in raw.columns else 0
    if unrated and not (raw.export and unrated == len(frame)):
        notes.append(f"{unrated:,} rows have no rating; they count as had")
    return frame.iter_rows(named=True), notes


class _Matcher:
    """Finds the items of rows in a catalogue; each title is looked up once."""

    def __init__(self, catalogue: Catalogue, *, likely: bool) -> None:
        self._catalogue = catalogue
        self._likely = likely
        self._titles: dict[tuple[str, ...], tuple[int, Certainty] | None] = {}

    def find(self, key: str, title: str, codes: Iterable[str] = (), others: Iterable[str] = ()) -> tuple[str, Found]:
        """Return the key for a history, and how certain it is."""
        from palate.data.title_index import alike

        catalogue, rows = self._catalogue, self._catalogue.rows
        for code in codes:
            if code in rows:
                return catalogue.ids[rows[code]], "exact"
        by_title = self._by_title((title, *others)) if title else None
        if by_title is not None and by_title[1] == "exact":
            return catalogue.ids[by_title[0]], "exact"
        at = rows.get(key) if key else None
        if at is not None:
            listed = catalogue.titles[at]
            if not title or listed == key or alike(title, listed) >= _UNALIKE:
                return catalogue.ids[at], "exact"
            key = ""  # it is another item of this catalogue
        if not title and key and not key.isdecimal():  # people name a column of titles "movie", too
            by_title = self._by_title((key,))
        if by_title is not None:
            return catalogue.ids[by_title[0]], by_title[1]
        return key or TITLE_PREFIX + title, "unknown"

    def same(self, key: str) -> str:
        """Return the key under which an entry of the history would be imported now."""
        title = key.removeprefix(TITLE_PREFIX)
        return self.find("" if title != key else key, title if title != key else "")[0]

    def _by_title(self, titles: tuple[str, ...]) -> tuple[int, Certainty] | None:
        if not self._catalogue.num_items:
            return None
        if titles not in self._titles:
            found = self._catalogue.title_index.identify(titles[0], titles[1:], likely=self._likely)
            self._titles[titles] = found
        return self._titles[titles]


def _scale_of(name: str, raw: RawInteractions, given: RatingScale | None) -> tuple[RatingScale | None, list[str]]:
    """Return the scale of a file's ratings, and a note where it was guessed; None where they are no ratings."""
    if "rating" not in raw.frame.columns:
        return None, []
    found = given or raw.scale
    if found is not None:
        return found, []
    found = RatingScale.guessed(raw.frame["rating"].drop_nulls().to_list())
    column = raw.columns.get("rating", "rating")
    if found is None:
        if raw.frame["rating"].drop_nulls().n_unique() < 2:
            return None, []
        return None, [f"{column} of {name} is no rating up to 10, and does not count; --rating-scale says otherwise"]
    return found, [f"{column} of {name} is read as ratings from {found}; --rating-scale says otherwise"]


def _said(
    row: dict[str, Any], matcher: _Matcher, titles: Mapping[str, str], scale: RatingScale | None
) -> tuple[str, _Said]:
    """Return the key of a row's item, and what the row says about it; raises EntryRefused if it cannot be an entry."""
    own, title = str(row.get("item") or ""), str(row.get("title") or "")
    title = title or titles.get(own, "")
    key, found = matcher.find(own, title, row.get("code") or (), row.get("other") or ())
    rating, moment = row.get("rating"), row.get("moment")
    time = math.floor(moment) if isinstance(moment, float) else None
    preference = None if rating is None or scale is None else scale.preference(rating)
    Interaction(item=key, value=UNRATED if preference is None else preference, time=time, source="import")
    return key, _Said(title or own, found, preference, time)


def _changes(said: dict[str, _Said], history: History, matcher: _Matcher) -> tuple[list[Interaction], list[int], int]:
    """Entries that are new or changed, numbers of those that they take the place of, and how many are changed."""
    imported: dict[str, list[tuple[int, Interaction]]] = {}
    had = set()
    for number, entry in history.in_order():
        had.add((entry.item, entry.value, entry.time))
        if entry.source == "import":
            imported.setdefault(matcher.same(entry.item), []).append((number, entry))
    entries, replaced, changed = [], [], 0
    for key, one in said.items():
        before = imported.get(key, [])
        joined = one
        for _, entry in reversed(before):
            known = _Said(one.written, one.found, None if entry.value == UNRATED else entry.value, entry.time)
            joined = joined.after(known)
        new = Interaction(
            item=key,
            value=UNRATED if joined.preference is None else joined.preference,
            time=joined.time,
            source="import",
        )
        if (len(before) == 1 and before[0][1] == new) or (not before and (key, new.value, new.time) in had):
            continue
        entries.append(new)
        replaced += [number for number, _ in before]
        changed += bool(before)
    return entries, replaced, changed


def _plan(
    read: PersonalRows,
    said: dict[str, _Said],
    catalogue: Catalogue,
    rows: int,
    dropped: list[str],
    notes: list[str],
    entries: list[Interaction],
    replaced: list[int],
    changed: int,
) -> ImportPlan:
    """Put together what is to be shown."""
    kinds: dict[Found, list[tuple[str, str]]] = {"exact": [], "likely": [], "unknown": []}
    for key, one in said.items():
        listed = "" if one.found == "unknown" else catalogue.titles[catalogue.rows[key]]
        kinds[one.found].append((printable(one.written), listed))
    plain = [raw for raw in read.files.values() if not raw.export]
    return ImportPlan(
        files={printable(name): raw.export for name, raw in read.files.items()},
        not_read=tuple(map(printable, read.not_read)),
        rows=rows,
        exact=len(kinds["exact"]),
        likely=len(kinds["likely"]),
        unknown=len(kinds["unknown"]),
        examples={kind: _examples(found, EXAMPLES[kind]) for kind, found in kinds.items()},
        added=len(entries) - changed,
        changed=changed,
        unchanged=len(said) - len(entries),
        columns={role: printable(name) for raw in plain for role, name in raw.columns.items()},
        passed_over=tuple(printable(name) for raw in plain for name in raw.other_columns),
        left_out=read.left_out,
        dropped=len(dropped),
        reasons=tuple(map(printable, dropped[:LISTED])),
        notes=tuple(map(printable, notes)),
        entries=tuple(entries),
        replaced=tuple(replaced),
    )


def _examples(found: list[tuple[str, str]], count: int) -> tuple[tuple[str, str], ...]:
    """Return some titles to show: those that are written otherwise than the catalogue's first, for they say more."""
    return tuple(sorted(found, key=lambda pair: pair[0] == pair[1])[:count])
