"""Read interactions from a file or a frame: find the roles of columns, and the usable rows.

This is the only reader of interactions in Palate. Ids stay text (leading zeros survive). Everything that the options do
not specify is guessed and noted. A malformed row is skipped, and counted with its line and the reason; strict reading
refuses the file instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import polars as pl

from palate.data.files import UNLIMITED, Limits
from palate.data.interactions import CleaningReport, Interactions, RawInteractions, clean
from palate.data.items import read_items
from palate.data.options import ReadOptions
from palate.data.tables import EXAMPLES, SKIPPED, Source, Table, read_table
from palate.data.values import (
    PERSONAL_ROLE_NAMES,
    RANK_NAMES,
    ROLE_NAMES,
    as_text,
    find_column,
    lists_of_text,
    moments,
    named_column,
    numbers,
    plain_name,
    shorten,
    titles_with_years,
    without_placeholders,
)
from palate.errors import DataError

_ROLES: Final = ("user", "item", "title", "rating", "time")
_MORE_ROLES: Final = ("year", "code", "other")
"""Roles that help to find one person's items in a catalogue."""
_WRONG_FIELDS: Final = "wrong number of fields"
_KIND_OF: Final = {
    _WRONG_FIELDS: "malformed",
    "the rating is no number": "malformed",
    "the time is neither a number nor a date": "malformed",
    "no user": "missing",
    "no item": "missing",
    "no rating": "missing",
    "no time": "missing",
    "the rating is not finite": "not_finite",
    "the time is not finite": "not_finite",
}
"""Why a row is skipped -> how the cleaning report counts it."""
_SAMPLE = 1000  # rows from which the columns of a file without a header line are guessed
_MOST_RATINGS = 21  # different values of a column that may be ratings


def read_interactions(
    source: Source, *, items: Source | None = None, options: ReadOptions | None = None, name: str = ""
) -> Interactions:
    """Read, clean and encode interactions from a file or a frame.

    Parameters
    ----------
    source
        A file (CSV, TSV, RecBole .inter, JSON, Parquet; gzipped or zipped or not), or a polars, pandas or Arrow frame.
    items
        File or frame that describes the items; ``options.items`` where None.
    options
        Column names, cleaning rules and strictness; what is None is guessed.
    name
        What the dataset is called in messages and reports; the file's name unless given.

    Returns
    -------
    Interactions
        Its `report` says what was dropped and what was guessed.

    Raises
    ------
    DataError
        If a file or a column is missing, or too little is left to learn from.
    """
    options = options or ReadOptions()
    raw = read_rows(source, options)
    described = None
    items = options.items if items is None else items
    if items is not None:
        described, notes = read_items(items, ReadOptions(strict=options.strict))
        raw = replace(raw, report=replace(raw.report, notes=(*raw.report.notes, *notes)))
    file = Path(source) if isinstance(source, str | Path) else None
    interactions = clean(raw, name=name or (file.name if file else "frame"), options=options, described=described)
    return replace(interactions, source=str(file) if file else "")


def read_rows(
    source: Source | Table, options: ReadOptions | None = None, *, personal: bool = False, limits: Limits = UNLIMITED
) -> RawInteractions:
    """Read the usable rows of a file or a frame; each skipped row is counted.

    Parameters
    ----------
    source
        As in `read_interactions`, or a table that was read already.
    options
        Column names and strictness.
    personal
        Whether these are one person's: then nobody needs to be named, a title is enough for an item, a year beside it
        becomes a part of it, and a row without a rating or a time is used.
    limits
        How large a file may be.

    Raises
    ------
    DataError
        If the file or a column is missing, nothing usable is left, or `strict` meets a bad row.
    """
    options = options or ReadOptions()
    table = source if isinstance(source, Table) else read_table(source, columns=options.column_names, limits=limits)
    chosen, notes = _choose_columns(table, options, personal=personal)
    text = {role: as_text(table.frame[column]) for role, column in chosen.items() if role not in _MORE_ROLES}
    parsed: dict[str, pl.Series] = {"line": table.lines}
    parsed |= {role: text[role] for role in ("user", "item", "title") if role in text}
    if "title" in parsed and "year" in chosen:
        parsed["title"] = titles_with_years(parsed["title"], as_text(table.frame[chosen["year"]]))
    parsed |= {role: lists_of_text(table.frame[chosen[role]]) for role in ("code", "other") if role in chosen}
    is_timestamp = "time" in chosen and plain_name(chosen["time"]) not in RANK_NAMES
    if "rating" in chosen:
        text["rating"] = without_placeholders(text["rating"])
        parsed["rating"], note = numbers(text["rating"])
        notes += [f"{chosen['rating']} was read with {note}"] if note else []
    if "time" in chosen:
        text["time"] = without_placeholders(text["time"])
        if is_timestamp:
            ask = "--day-first or --month-first" if personal else "--date-order"
            parsed["moment"], note = moments(text["time"], options.date_order, ask=ask)
        else:
            parsed["moment"], note = numbers(text["time"])
        notes += [f"{chosen['time']}: {note}"] if note else []
        if not personal:
            _check_moments(table, chosen["time"], text["time"], parsed["moment"])
    frame = pl.DataFrame(parsed).with_columns(_trouble(text, parsed, personal=personal))
    bad = frame.filter(pl.col("trouble").is_not_null()).select("line", "trouble")
    wrong = pl.DataFrame({"line": pl.Series(table.malformed, dtype=pl.Int64)}).with_columns(
        pl.lit(_WRONG_FIELDS).alias("trouble")
    )
    dropped = pl.concat([bad, wrong]).sort("line")
    if options.strict and len(dropped):
        line, reason = dropped.row(0)
        raise DataError(
            f"{table.name}, {table.unit} {line}: {reason} ({len(dropped)} such rows in total)",
            hint="correct the file, or leave out --strict to drop and count them",
        )
    raw = RawInteractions(
        frame=frame.filter(pl.col("trouble").is_null()).drop("trouble"),
        has_time="moment" in parsed,
        is_timestamp=is_timestamp,
        report=_account(table, dropped, (*table.notes, *notes)),
        columns=chosen,
        other_columns=tuple(name for name in table.frame.columns if name not in chosen.values()),
        dropped=dropped,
        unit=table.unit,
        export=table.export,
        scale=table.scale,
        left_out=dict(Counter(table.left_out["reason"].to_list())),
    )
    if raw.frame.is_empty():
        counts = Counter(dropped["trouble"].to_list()) + Counter(raw.left_out)
        raise DataError(
            f"{table.name}: none of its {table.rows_read} rows can be used: "
            + ", ".join(f"{count} times {reason}" for reason, count in counts.most_common()),
            hint=f"read as {', '.join(f'{role}={column}' for role, column in chosen.items())}; "
            "choose other columns with --item-column, --time-column and so on",
        )
    return raw


def _choose_columns(table: Table, options: ReadOptions, *, personal: bool) -> tuple[dict[str, str], list[str]]:
    """Role -> column: what was asked for, else the best guess; and notes on guesses from content."""
    names = table.frame.columns
    asked = {role: named_column(table.name, names, role, getattr(options, f"{role}_column")) for role in _ROLES}
    chosen: dict[str, str] = {}
    for role, name in asked.items():
        found = name or find_column([other for other in names if other not in asked.values()], ROLE_NAMES[role])
        if found is not None and (name is not None or found not in chosen.values()):
            chosen[role] = found
    may_be_titles = personal and "title" not in chosen and "item" in chosen and asked["item"] is None
    if may_be_titles and as_text(table.frame[chosen["item"]]).str.contains(r"\S \S").any():  # keys have no blanks
        chosen["title"] = chosen.pop("item")
    if personal:
        left = [name for name in names if name not in chosen.values()]
        chosen |= {role: name for role in _MORE_ROLES if (name := find_column(left, PERSONAL_ROLE_NAMES[role]))}
    twice = [name for name, count in Counter(chosen.values()).items() if count > 1]
    if twice:
        raise DataError(f"{table.name}: column {twice[0]!r} was named for two roles", hint="name a column for each")
    notes = []
    if not table.has_header and options.columns is None and not any(asked.values()):
        chosen = chosen or _guess_by_content(table, personal=personal)
        if not set(chosen.values()).isdisjoint(_unnamed(names)):
            roles = {column: role for role, column in chosen.items()}
            order = ",".join(roles.get(name, SKIPPED) for name in names)
            notes.append(f"{table.name} has no header line; it was read with --columns {order}")
    if "item" not in chosen and "title" in chosen and not personal:
        chosen["item"] = chosen["title"]
    if not personal:
        chosen.pop("title", None)
    needed = ("item",) if personal else ("user", "item")
    for role in needed:
        if role not in chosen and not (personal and "title" in chosen):
            raise _no_column(table, role, personal=personal)
    return chosen, notes


def _unnamed(names: Sequence[str]) -> list[str]:
    return [name for at, name in enumerate(names) if name == f"column {at + 1}"]


def _no_column(table: Table, role: str, *, personal: bool) -> DataError:
    if table.export and role == "user":
        return DataError(
            f"{table.name} is one person's export ({table.export}), so it has no users",
            hint="palate client import takes it",
        )
    names = table.frame.columns
    roles = "title,rating,time" if personal else "user,item,rating,time"
    in_order = f"--columns {roles} names the fields in order, {SKIPPED} skips one"
    what = "the item or its title" if personal else f"the {role}"
    if not table.has_header:
        return DataError(
            f"{table.name} has no header line, and it is unclear which of its {len(names)} columns is {what}",
            hint=in_order,
        )
    own = "--item-column or --title-column" if personal else f"--{role}-column"
    return DataError(
        f"{table.name}: no column looks like {what}; it has {shorten(names)}",
        hint=f"name it with {own}; if its first line is no header, {in_order}",
    )


def _guess_by_content(table: Table, *, personal: bool) -> dict[str, str]:
    """Guess roles where no header names them: times and ratings by their values, the first two others are ids."""
    ids: list[str] = []
    ratings: list[str] = []
    chosen: dict[str, str] = {}
    for name in table.frame.columns:
        text = as_text(table.frame[name].head(_SAMPLE))
        text = text.filter(text != "")
        plain = text.cast(pl.Float64, strict=False)
        numeric = len(text) > 0 and plain.null_count() == 0
        if len(text) == 0:
            continue
        late = numeric and bool((plain.abs() >= 1e8).all()) and text.n_unique() > 1
        dated = not numeric and moments(text)[0].null_count() == 0
        if (late or dated) and "time" not in chosen:
            chosen["time"] = name
        elif numeric and text.n_unique() <= _MOST_RATINGS and _are_ratings(plain):
            ratings.append(name)
            ids += [name] if bool((plain == plain.round()).all()) else []
        elif not numeric or bool((plain == plain.round()).all()):
            ids.append(name)
    wanted = 1 if personal and len(ids) == 1 else 2
    surplus = [name for name in ratings if name not in ids[:wanted]]
    if surplus:
        chosen["rating"] = surplus[0]
    ids = [name for name in ids if name != chosen.get("rating")]
    if len(ids) != wanted:
        return {}
    if wanted == 2:
        return {"user": ids[0], "item": ids[1], **chosen}
    only = as_text(table.frame[ids[0]].head(_SAMPLE))
    return {"item" if only.cast(pl.Float64, strict=False).null_count() == 0 else "title": ids[0], **chosen}


def _are_ratings(numbers: pl.Series) -> bool:
    """Whether all are whole or half numbers from 0 to 100."""
    return bool(((numbers >= 0) & (numbers <= 100) & (2 * numbers == (2 * numbers).round())).all())


def _check_moments(table: Table, name: str, text: pl.Series, read: pl.Series) -> None:
    """Refuse a column of which most is no time at all: it is another column's."""
    given = text.filter(text != "")
    if 2 * read.count() < len(given):
        raise DataError(
            f"{table.name}: column {name!r} holds neither numbers nor dates, for example {shorten([given[0]])}",
            hint="write times as 1700000000 or 2023-11-14T22:13:20, or choose another --time-column",
        )


def _trouble(text: dict[str, pl.Series], parsed: dict[str, pl.Series], *, personal: bool) -> pl.Expr:
    """Return the first reason, if any, why each row cannot be used, as column `trouble`; null where there is none."""
    named = pl.lit(False)
    checks: list[tuple[pl.Expr, str]] = []
    if personal:
        for role in ("item", "title"):
            named = named | (pl.lit(text[role]) != "" if role in text else pl.lit(False))
        checks.append((~named, "no item"))
    else:
        checks += [
            (pl.lit(text[role]) == "", f"no {role}") for role in ("user", "item", "rating", "time") if role in text
        ]
    for role, column, unread in (
        ("rating", "rating", "the rating is no number"),
        ("time", "moment", "the time is neither a number nor a date"),
    ):
        if column in parsed:
            number = pl.lit(parsed[column])
            checks.append(((pl.lit(text[role]) != "") & number.is_null(), unread))
            checks.append((~number.is_finite().fill_null(True), f"the {role} is not finite"))
    reason = pl.lit(None, dtype=pl.String)
    for found, words in reversed(checks):
        reason = pl.when(found).then(pl.lit(words)).otherwise(reason)
    return reason.alias("trouble")


def _account(table: Table, dropped: pl.DataFrame, notes: Sequence[str]) -> CleaningReport:
    kinds = dropped.with_columns(pl.col("trouble").replace_strict(_KIND_OF, return_dtype=pl.String).alias("kind"))
    lines = {
        kind: kinds.filter(pl.col("kind") == kind)["line"].to_list() for kind in ("malformed", "missing", "not_finite")
    }
    return CleaningReport(
        rows_read=table.rows_read,
        malformed=len(lines["malformed"]),
        missing=len(lines["missing"]),
        not_finite=len(lines["not_finite"]),
        notes=tuple(notes),
        example_lines={kind: tuple(bad[:EXAMPLES]) for kind, bad in lines.items() if bad},
    )
