"""Text of one column as numbers and as times, in every usual way to write them; what is ambiguous is said.

A column is read as a whole: whether 1,234 has a decimal comma, and whether 7/6 is in June or July, is decided by the
other rows where they can decide it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Final

import polars as pl

from palate.data.options import DateOrder
from palate.errors import DataError

# Lower case, letters and digits only; earlier names win.
_ITEM = (
    "item itemid iid movie movieid film filmid product productid asin parentasin article articleid track trackid song "
    "songid artist artistid book bookid isbn sku stockcode poi poiid business businessid venueid locationid gameid "
    "newsid"
)
ROLE_NAMES: Final = {
    "user": "user userid uid username customer customerid reviewerid visitorid visitor member memberid account "
    "accountid person personid client clientid profileid",
    "item": _ITEM,
    "title": "title movietitle itemtitle name itemname productname filmname moviename",
    "rating": "rating ratings score stars overall myrating yourrating userrating",
    "time": "timestamp time ts datetime date unixreviewtime createdat eventtime watched watchedat "
    "datewatched watcheddate dateread daterated playedat lastplayed orderdate order rank position sequence",
    "genres": "genres genre categories category class tags",
    "year": "year releaseyear releasedate date",
    "description": "description overview summary text abstract plot",
    "url": "url path link",
    "gender": "gender sex",
    "age": "age",
}
"""Usual names of the columns of each role."""
PERSONAL_ROLE_NAMES: Final = {
    "year": "year releaseyear yearreleased",
    "code": "code",
    "other": "other originaltitle originalname alternativetitle",
}
"""Usual names of further columns in one person's files: the title's year, public keys, other titles."""
KNOWN_NAMES: Final = frozenset(name for names in ROLE_NAMES.values() for name in names.split()) | {"id"}
RANK_NAMES: Final = frozenset(("order", "rank", "position", "sequence", "index"))
"""Names of times that say what came later, but not when."""

_NOTHING = ("", "na", "n/a", "#n/a", "-", "--", "?", "none", "null")
_NUMBER = re.compile(r"[-+]?[\d.,]*\d(?:[eE][-+]?\d+)?")
_MOMENT = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?:[T ].*)?")
_GROUPED = r"^[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?$"
_GROUPED_BY_POINT = r"^[-+]?\d{1,3}(?:\.\d{3})+(?:,\d+)?$"
_DECIMAL_COMMA = r"^[-+]?\d+,\d+$"

_ISO_FORMATS = (
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
)
_CLOCK = (
    r"(?:,?[T ]+(?<h>\d{1,2}):(?<min>\d{2})(?::(?<s>\d{2})(?:[.,]\d+)?)?\s*(?<half>[AaPp])?\.?(?:[Mm]\.?)?)?"
    r"\s*(?:Z|UTC|GMT|\+00:?00)?$"
)
_DAY, _NAME, _YEAR = r"(?<day>\d{1,2})", r"(?<month>[A-Za-z]{3})[a-z]*", r"(?<year>\d{4}|\d{2})"
_IN_NUMBERS = rf"^{_DAY}[-/. ](?<month>\d{{1,2}})[-/. ]{_YEAR}" + _CLOCK
_OTHER_DATES = (
    rf"^(?<year>\d{{4}})[-/. ](?<month>\d{{1,2}})[-/. ]{_DAY}" + _CLOCK,
    rf"^(?:[A-Za-z]+\.?,? )?{_DAY}(?:st|nd|rd|th)?[-/. ]{_NAME}[-/., ]+{_YEAR}" + _CLOCK,
    rf"^(?:[A-Za-z]+\.?,? )?{_NAME}\.? {_DAY}(?:st|nd|rd|th)?,? {_YEAR}" + _CLOCK,
)
_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: str(number) for number, name in enumerate(_MONTH_NAMES, start=1)}
_LATEST = 100_000_000_000  # seconds: in the year 5138
_COMPACT = (19_000_101, 21_001_231)  # 20240131: dates in eight digits


def shorten(names: Sequence[str], limit: int = 12) -> str:
    """Names for a one-line message."""
    shown = [name if len(name) <= 30 else name[:29] + "…" for name in names[:limit]]
    printable = [name if name.isprintable() else repr(name)[1:-1] for name in shown]
    return ", ".join(printable) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def plain_name(name: str) -> str:
    """Name of a column without case, blanks and punctuation."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def find_column(names: Sequence[str], candidates: str) -> str | None:
    """Return the first column whose name, without case and punctuation, is among the candidates (best first)."""
    plain = {plain_name(name): name for name in reversed(names)}
    return next((plain[candidate] for candidate in candidates.split() if candidate in plain), None)


def named_column(table: str, columns: Sequence[str], role: str, name: str | None) -> str | None:
    """Return the column that an option names, by its name or its position; None where it names none.

    Raises
    ------
    DataError
        If the table has no such column.
    """
    if name is None or name in columns:
        return name
    if name.isdecimal() and f"column {name}" in columns:
        return f"column {name}"
    near = difflib.get_close_matches(name, columns, n=1) or difflib.get_close_matches(name.lower(), columns, n=1)
    raise DataError(
        f"{table} has no column {name!r}; it has {shorten(columns)}",
        hint=f"did you mean --{role}-column {near[0]}?" if near else f"choose one of them with --{role}-column",
    )


def looks_like_a_value(field: str) -> bool:
    """Whether a field is a number or a date, which a column's name hardly ever is."""
    return _NUMBER.fullmatch(field) is not None or _MOMENT.fullmatch(field) is not None


def as_text(column: pl.Series) -> pl.Series:
    """Values as trimmed text: whole floats lose their ".0" (pandas' integers with gaps), lists are parted by "|".

    Raises
    ------
    DataError
        If a field holds several named values.
    """
    if column.dtype.is_float():
        whole = column.is_nan().not_() & (column == column.round()) & (column.abs() < 2**53)
        integers = column.set(~whole.fill_null(False), None).cast(pl.Int64).cast(pl.String)
        return integers.zip_with(whole.fill_null(False), column.cast(pl.String)).fill_null("")
    if column.dtype.is_temporal():
        return column.cast(pl.String).fill_null("")
    if isinstance(column.dtype, pl.List) and not column.dtype.inner.is_nested():
        return column.cast(pl.List(pl.String)).list.join("|", ignore_nulls=True).fill_null("")
    if column.dtype.is_nested() or column.dtype == pl.Object:
        raise DataError(f"column {column.name} holds {column.dtype}", hint="each field must hold one value")
    if column.dtype == pl.Binary:
        column = column.cast(pl.String, strict=False)
    return column.cast(pl.String).str.strip_chars().fill_null("")


def without_placeholders(text: pl.Series) -> pl.Series:
    """Numbers and times in which NA, null, - and their like are nothing."""
    return text.set(text.str.to_lowercase().is_in(_NOTHING), "")


def numbers(text: pl.Series) -> tuple[pl.Series, str]:
    """Read numbers, also those with thousands separators or a decimal comma.

    Parameters
    ----------
    text
        Trimmed, String [n].

    Returns
    -------
    tuple
        Float64 [n], null where there is none; and a note on what was guessed, or "".
    """
    plain = text.cast(pl.Float64, strict=False)
    if not text.str.contains(",", literal=True).any():
        return plain, ""
    grouped, by_point = text.str.contains(_GROUPED), text.str.contains(_GROUPED_BY_POINT)
    decimal = text.str.contains(_DECIMAL_COMMA)
    # 1,234 alone could be either; 4,5 cannot have thousands, and 1,234,567 or 1,234.5 no decimal comma.
    if (decimal & ~grouped).any() or (by_point & text.str.contains(",", literal=True)).any():
        mended, note = (
            text.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True),
            "a decimal comma",
        )
        other = mended.set(~(decimal | by_point), None)
    else:
        mended, note = text.str.replace_all(",", "", literal=True), "thousands separators"
        other = mended.set(~grouped, None)
    read = other.cast(pl.Float64, strict=False)
    return plain.zip_with(read.is_null(), read), note if read.count() else ""


def titles_with_years(titles: pl.Series, years: pl.Series) -> pl.Series:
    """Append years, as in "Heat (1995)", where there is one and the title does not end with it; String [n]."""
    year = years.str.extract(r"^((?:1[89]|20)\d\d)(?:\.0*)?$", 1)
    ends = titles.str.contains(r"\((?:1[89]|20)\d\d\)$") | (titles.str.extract(r".\b(\d{4})$", 1) == year)
    dated = titles + " (" + year + ")"
    return dated.zip_with(year.is_not_null() & (titles != "") & ~ends.fill_null(False), titles)


def lists_of_text(column: pl.Series) -> pl.Series:
    """Values as lists of trimmed text without empty ones, List(String) [n]; a plain value is a list of one."""
    if not isinstance(column.dtype, pl.List):
        column = as_text(column).reshape((-1, 1)).arr.to_list() if len(column) else column.cast(pl.List(pl.String))
    return column.cast(pl.List(pl.String)).list.eval(pl.element().str.strip_chars().replace("", None).drop_nulls())


def moments(text: pl.Series, order: DateOrder | None = None, *, ask: str = "--date-order") -> tuple[pl.Series, str]:
    """Read times: numbers of seconds or parts of them, or dates in any usual form; UTC where they name no zone.

    Parameters
    ----------
    text
        Trimmed, String [n].
    order
        What comes first in dates such as 7/6/2020; None lets the column decide.
    ask
        The option that decides, for the note.

    Returns
    -------
    tuple
        Seconds since 1970, Float64 [n], null where there is none; and a note on what was guessed, or "".
    """
    plain = text.cast(pl.Float64, strict=False)
    given = int((text != "").sum())
    if plain.count() and 2 * plain.count() >= given:
        whole = plain.drop_nulls()
        if ((whole >= _COMPACT[0]) & (whole <= _COMPACT[1])).all():
            dates = text.str.to_date("%Y%m%d", strict=False)
            if dates.count() == len(whole):
                return _seconds(dates.cast(pl.Datetime("us"))), ""
        return _in_seconds(plain), ""
    dates = text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
    for layout in _ISO_FORMATS:
        if dates.count() == given:
            break
        parsed = text.str.to_datetime(layout, strict=False, time_unit="us")
        if parsed.dtype == pl.Datetime("us", "UTC"):
            parsed = parsed.dt.replace_time_zone(None)
        dates = dates.zip_with(dates.is_not_null(), parsed)
    note = ""
    if dates.count() < given:
        left = text.set(dates.is_not_null(), "")
        others, note = _written_dates(left, order, ask)
        dates = dates.zip_with(dates.is_not_null(), others)
    return _seconds(dates), note


def _written_dates(text: pl.Series, order: DateOrder | None, ask: str) -> tuple[pl.Series, str]:
    """Read 13/02/2020, 7/6/20 9:15 PM, 2020/2/13, 13 Feb 2020 and February 13, 2020."""
    parts = text.str.extract_groups(_IN_NUMBERS).struct.unnest()
    first, second = (parts[name].cast(pl.Int64, strict=False) for name in ("day", "month"))
    note = ""
    day_first, month_first = int((first > 12).sum()), int((second > 12).sum())
    if order is None and first.count():
        if day_first or month_first:
            order = "day" if day_first >= month_first else "month"
        else:
            by_slash = bool(text.filter(first.is_not_null())[0].count("/"))
            order = "month" if by_slash else "day"
            note = f"its dates could be day or month first; they were read {order} first: say {ask}"
        if day_first and month_first:
            note = (
                f"{day_first} of its dates are day first, {month_first} month first; the others were read {order} first"
            )
    # A date that has only one reading has that one, whatever the others are.
    as_day = (pl.Series([order == "day"] * len(text)) & (second <= 12)) | (first > 12)
    swapped = parts.with_columns(
        first.zip_with(as_day, second).alias("day"), second.zip_with(as_day, first).alias("month")
    )
    found = _combined(swapped)
    for pattern in _OTHER_DATES:
        others = _combined(text.str.extract_groups(pattern).struct.unnest())
        found = found.zip_with(found.is_not_null(), others)
    return found, note


def _combined(parts: pl.DataFrame) -> pl.Series:
    """Datetimes of the groups of a pattern; null where a part is impossible."""
    named = pl.col("month").cast(pl.String).str.to_lowercase().replace(_MONTHS)
    numbers = parts.with_columns(named, pl.col("h", "min", "s").fill_null("0"), pl.col("half").str.to_lowercase())
    frame = numbers.with_columns(pl.col("day", "month", "year", "h", "min", "s").cast(pl.Int64, strict=False))
    year = pl.col("year") + pl.when(pl.col("year") >= 100).then(0).when(pl.col("year") < 69).then(2000).otherwise(1900)
    hour = (
        pl.when((pl.col("half") == "p") & (pl.col("h") < 12))
        .then(pl.col("h") + 12)
        .when((pl.col("half") == "a") & (pl.col("h") == 12))
        .then(0)
        .otherwise("h")
    )
    written = pl.format("{}-{}-{} {}:{}:{}", year, "month", "day", hour, "min", "s")
    return frame.select(written.str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False, time_unit="us").alias("at"))["at"]


def _seconds(dates: pl.Series) -> pl.Series:
    return dates.dt.epoch("us").cast(pl.Float64) / 1e6


def _in_seconds(plain: pl.Series) -> pl.Series:
    """Timestamps in milli-, micro- or nanoseconds are recognised by size: seconds have 12 digits only after 5138."""
    finite = plain.filter(plain.is_finite())
    middle = finite.median() if len(finite) else 0.0
    scale = next((scale for scale in (1e9, 1e6, 1e3) if isinstance(middle, float) and abs(middle) / scale >= 1e8), 1.0)
    seconds = plain / scale
    return seconds.set(seconds.is_finite() & (seconds > _LATEST), None)
