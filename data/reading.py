"""A file of interactions with named columns -> user, item, rating and moment, with every dropped row accounted for.

Ids stay text (leading zeros survive); a row that cannot be used is dropped, counted and remembered by
its line number, or refused when reading is strict.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from pathlib import Path

import polars as pl

from palate.data.interactions import CleaningReport, Interactions, RawInteractions, clean
from palate.data.items import read_items
from palate.data.options import ReadOptions
from palate.data.tables import EXAMPLES, Source, Table, as_text, find_column, plain_name, read_table, shorten
from palate.errors import DataError

# Lower case, letters and digits only; earlier names win.
_GUESSES = {
    "user": "user userid uid username customer customerid reviewerid visitorid visitor member memberid account "
    "accountid person personid client clientid profileid",
    "item": "item itemid iid movie movieid film filmid product productid asin parentasin article articleid track "
    "trackid song songid artist artistid book bookid isbn sku stockcode poi poiid business businessid venueid "
    "gameid newsid",
    "rating": "rating ratings score stars overall",
    "time": "timestamp time ts datetime date unixreviewtime createdat eventtime order rank position sequence",
}
_RANK_NAMES = frozenset(("order", "rank", "position", "sequence", "index"))
_DATE_FORMATS = (
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
)
# MovieLens' own files have no header line.
HEADERLESS = {
    "ratings.dat": ("::", ("user", "item", "rating", "timestamp")),
    "u.data": ("\t", ("user", "item", "rating", "timestamp")),
}


def read_interactions(
    source: Source, *, items: Source | None = None, options: ReadOptions | None = None, name: str = ""
) -> Interactions:
    """Read, clean and encode interactions from a file or a frame.

    Parameters
    ----------
    source
        A file (CSV, TSV, RecBole .inter, Parquet; gzipped or not), or a polars, pandas or Arrow frame.
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
        described, notes = read_items(items, strict=options.strict)
        raw = replace(raw, report=replace(raw.report, notes=(*raw.report.notes, *notes)))
    file = Path(source) if isinstance(source, str | Path) else None
    interactions = clean(raw, name=name or (file.name if file else "frame"), options=options, described=described)
    return replace(interactions, source=str(file) if file else "")


def read_rows(source: Source, options: ReadOptions | None = None) -> RawInteractions:
    """Read the usable rows of a file or a frame; each dropped row is accounted for.

    Parameters
    ----------
    source
        As in `read_interactions`; MovieLens' ratings.dat and u.data are known without a header line.
    options
        Column names and strictness.

    Raises
    ------
    DataError
        If the file or a column is missing, nothing usable is left, or `strict` meets a bad row.
    """
    options = options or ReadOptions()
    known_as = Path(source).name.removesuffix(".gz") if isinstance(source, str | Path) else ""
    separator, columns = HEADERLESS.get(known_as, (None, None))
    table = read_table(source, columns=columns, separator=separator)
    chosen = _choose_columns(table, options)
    text = {role: as_text(table.frame[column]) for role, column in chosen.items()}
    is_timestamp = "time" in chosen and plain_name(chosen["time"]) not in _RANK_NAMES
    parsed = {"line": table.lines, "user": text["user"], "item": text["item"]}
    if "rating" in chosen:
        parsed["rating"] = text["rating"].cast(pl.Float64, strict=False)
    if "time" in chosen:
        parsed["moment"] = _moments(table, chosen["time"], text["time"], is_timestamp=is_timestamp)
    frame = pl.DataFrame(parsed).with_columns(_trouble(text, parsed).alias("trouble"))
    report = _account(table, frame, strict=options.strict)
    usable = frame.filter(pl.col("trouble").is_null()).drop("trouble")
    if usable.is_empty():
        columns_read = ", ".join(f"{role}={column}" for role, column in chosen.items())
        raise DataError(
            f"{table.name}: none of its {table.rows_read} rows can be used: {report.malformed} malformed, "
            f"{report.missing} with a missing field, {report.not_finite} not finite",
            hint=f"read as {columns_read}; choose others with --user-column, --item-column and so on",
        )
    return RawInteractions(usable, "moment" in parsed, is_timestamp, report)


def _choose_columns(table: Table, options: ReadOptions) -> dict[str, str]:
    """Role -> column: what was asked for, else the best guess; rating and time may be absent."""
    names = table.frame.columns
    asked = {
        "user": options.user_column,
        "item": options.item_column,
        "rating": options.rating_column,
        "time": options.time_column,
    }
    chosen: dict[str, str] = {}
    for role, name in asked.items():
        if name is not None and name not in names:
            near = difflib.get_close_matches(name, names, n=1) or difflib.get_close_matches(name.lower(), names, n=1)
            raise DataError(
                f"{table.name} has no column {name!r}; it has {shorten(names)}",
                hint=f"did you mean --{role}-column {near[0]}?" if near else f"choose one of them with --{role}-column",
            )
        found = name or find_column([other for other in names if other not in asked.values()], _GUESSES[role])
        if found is not None:
            chosen[role] = found
    for role in ("user", "item"):
        if role not in chosen:
            headerless = all(re.fullmatch(r"[\d.+-]*", name) for name in names)
            hint = "the first line must be a header such as user,item,timestamp"
            raise DataError(
                f"{table.name}: no column looks like the {role}; it has {shorten(names)}",
                hint=hint if headerless else f"name it with --{role}-column",
            )
    twice = [name for name in chosen.values() if list(chosen.values()).count(name) > 1]
    if twice:
        raise DataError(f"{table.name}: column {twice[0]!r} was named for two roles", hint="name a column for each")
    return chosen


def _moments(table: Table, name: str, text: pl.Series, *, is_timestamp: bool) -> pl.Series:
    """Float64 moments: numbers as they are (timestamps in seconds), or ISO 8601 dates as seconds since 1970."""
    numbers = text.cast(pl.Float64, strict=False)
    given = (text != "").sum()
    if 2 * numbers.count() >= given:
        return _in_seconds(numbers) if is_timestamp else numbers
    dates = text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
    for layout in _DATE_FORMATS:
        parsed = text.str.to_datetime(layout, strict=False, time_unit="us")
        if parsed.dtype == pl.Datetime("us", "UTC"):
            parsed = parsed.dt.replace_time_zone(None)
        dates = dates.zip_with(dates.is_not_null(), parsed)
    if 2 * dates.count() < given:
        example = text.filter(text != "")[0]
        raise DataError(
            f"{table.name}: column {name!r} holds neither numbers nor ISO 8601 dates, for example {shorten([example])}",
            hint="write times as 1700000000 or 2023-11-14T22:13:20, or choose another --time-column",
        )
    return dates.dt.epoch("us").cast(pl.Float64) / 1e6


def _in_seconds(numbers: pl.Series) -> pl.Series:
    """Timestamps in milli-, micro- or nanoseconds are told by their size: seconds have 12 digits only after 5138."""
    finite = numbers.filter(numbers.is_finite())
    middle = finite.median() if len(finite) else 0.0
    scale = next((scale for scale in (1e9, 1e6, 1e3) if isinstance(middle, float) and abs(middle) / scale >= 1e8), 1.0)
    return numbers / scale


def _trouble(text: dict[str, pl.Series], parsed: dict[str, pl.Series]) -> pl.Series:
    """Return the first reason, if any, why each row cannot be used; String [num_records], null where there is none."""
    frame = pl.DataFrame(parsed).with_columns(series.alias(f"text of {role}") for role, series in text.items())
    numbers = [pl.col(name) for name in ("rating", "moment") if name in parsed]
    blank = pl.any_horizontal(pl.col(f"text of {role}") == "" for role in text)
    unread = pl.any_horizontal([pl.lit(False), *(number.is_null() for number in numbers)])
    endless = pl.any_horizontal([pl.lit(False), *(~number.is_finite() for number in numbers)])
    reason = pl.when(blank).then(pl.lit("missing")).when(unread).then(pl.lit("malformed"))
    return frame.select(reason.when(endless).then(pl.lit("not_finite")).otherwise(None).alias("trouble"))["trouble"]


def _account(table: Table, frame: pl.DataFrame, *, strict: bool) -> CleaningReport:
    lines = {
        reason: frame.filter(pl.col("trouble") == reason)["line"].to_list()
        for reason in ("malformed", "missing", "not_finite")
    }
    lines["malformed"] = sorted([*table.malformed, *lines["malformed"]])
    if strict and any(lines.values()):
        reason, first = min(((reason, bad[0]) for reason, bad in lines.items() if bad), key=lambda pair: pair[1])
        words = {
            "malformed": "wrong number of fields, or a number or time that cannot be read",
            "missing": "a field is empty",
            "not_finite": "a number is not finite",
        }
        total = sum(map(len, lines.values()))
        raise DataError(
            f"{table.name}, {table.unit} {first}: {words[reason]} ({total} such rows in all)",
            hint="mend the file, or leave out --strict to drop and count them",
        )
    return CleaningReport(
        rows_read=table.rows_read,
        malformed=len(lines["malformed"]),
        missing=len(lines["missing"]),
        not_finite=len(lines["not_finite"]),
        notes=table.notes,
        example_lines={reason: tuple(bad[:EXAMPLES]) for reason, bad in lines.items() if bad},
    )
