"""Any file of records, or a frame, as text columns that remember their line numbers.

Delimited text of any usual separator and encoding, JSON and JSON lines, Parquet, each gzipped or alone in a zip
archive; polars, pandas and Arrow frames. What is guessed is said in notes. polars does the work wherever a line is a
record; quoted text, where a record may span lines, goes through Python's csv module.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import polars as pl

from palate.data.files import UNLIMITED, Limits, empty_file, read_bytes
from palate.data.importers import Importer, importer_of, importer_of_text
from palate.data.parquet import is_parquet, read_parquet
from palate.data.ratings import RatingScale
from palate.data.records import Record, columns_of, json_records
from palate.data.values import KNOWN_NAMES, looks_like_a_value, plain_name, shorten
from palate.errors import DataError

if TYPE_CHECKING:
    import narwhals as nw
    from narwhals.typing import IntoDataFrame

Source: TypeAlias = "str | Path | IntoDataFrame"
"""A file, or a polars, pandas or Arrow frame."""

EXAMPLES: Final = 5
"""Line numbers kept for each kind of trouble."""
_LEFT_OUT: Final = pl.Schema({"line": pl.Int64, "reason": pl.String})
SKIPPED: Final = "-"
"""Marks a column that is left out, where columns are named by their position."""

_SEPARATORS = ("::", "\t", ",", ";", "|", " ")
_QUOTING_SEPARATORS = (",", ";")  # in MovieLens' "::" and "|" files and in TSV a quote is just a character
_SAMPLE = 50  # lines from which the separator is guessed
_MOST_MENDED = 1000  # records with a stray quote that are read again, line by line
_QUOTED = re.compile(r'"[^"]*"')
_RECBOLE_TYPE = re.compile(r":(token|token_seq|float|float_seq)$")
_PLAIN_CONTROL = frozenset(b"\t\n\r\x0b\x0c\x1a\x1b")
_BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_VALUE_BYTES = 16
"""What polars needs for a text, next to its letters."""
_LINE_BYTES = 64
"""What Python needs for a line, next to its letters."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Records as text.

    Attributes
    ----------
    name
        File name for messages.
    frame
        One String column for each named column (Parquet and frames keep their own types), without malformed records.
    lines
        Line number (Parquet and frames: row number) of each record, 1-based, Int64 [num_records].
    unit
        "line" or "row": what `lines` counts.
    rows_read
        Records found, also the malformed ones.
    malformed
        Line numbers of records with a wrong number of fields.
    notes
        What was guessed, in sentences.
    has_header
        Whether the file itself names its columns; if not they are called "column 1" and so on.
    lists
        Columns whose header declares them as words parted by blanks (RecBole's token_seq).
    export
        What kind of export it is; "" for a plain table.
    left_out
        Records of an export that are no part of a history, such as a list of plans: line Int64 and reason String.
    """

    name: str
    frame: pl.DataFrame
    lines: pl.Series
    unit: str
    rows_read: int
    malformed: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    has_header: bool = True
    lists: frozenset[str] = frozenset()
    export: str = ""
    scale: RatingScale | None = None
    left_out: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_LEFT_OUT))

    def converted(self, importer: Importer) -> Table:
        """Return the table with the columns of the reader, without the records that the importer leaves out."""
        reasons = [pl.when(rows).then(pl.lit(reason)) for reason, rows in importer.left_out.items()]
        why = self.frame.with_columns(pl.coalesce(*reasons, pl.lit(None, dtype=pl.String)).alias("reason"))["reason"]
        kept = why.is_null()
        left_out = pl.DataFrame({"line": self.lines.filter(~kept), "reason": why.filter(why.is_not_null())})
        return replace(
            self,
            frame=importer.convert(self.frame).filter(kept),
            lines=self.lines.filter(kept),
            notes=() if importer.quiet else self.notes,
            export=importer.description,
            scale=importer.scale,
            left_out=left_out.cast(_LEFT_OUT),
        )


def read_table(source: Source, *, columns: Sequence[str] | None = None, limits: Limits = UNLIMITED) -> Table:
    """Read a file or a frame into columns.

    Parameters
    ----------
    source
        A file, of which the kind is recognised by content and not by suffix; or a frame.
    columns
        Column names of delimited text that has no header line, in order; "-" for those to leave out. None: ask the
        importers whether they know the file, else guess whether the first line is a header.
    limits
        How large a file may be.

    Raises
    ------
    DataError
        If there is no such file, or it is a folder, empty, header only, damaged, too large or of no kind that is read;
        or if it names its columns itself, and they were given.
    EnvironmentProblem
        If the file may not be read.
    ConfigError
        If an importer of another package cannot be used.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        return table_of(path.name, read_bytes(path, limits), columns=columns, limits=limits)
    table = _of_frame(source)
    if columns is not None:
        raise _has_names(table)
    return table


def table_of(name: str, data: bytes, *, columns: Sequence[str] | None = None, limits: Limits = UNLIMITED) -> Table:
    """Read the content of a file, as `read_table`.

    Parameters
    ----------
    name
        Of the file.
    data
        Its content, unpacked.
    columns, limits
        As for `read_table`.

    Raises
    ------
    DataError, ConfigError
        As `read_table`.
    """
    known = importer_of(name) if columns is None else None
    header, separator = (known.header, known.separator) if known else (columns, None)
    if is_parquet(data):
        table = _by_rows(name, read_parquet(name, data, limits))
    else:
        text, notes = _decode(name, data)
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        by_text = None if columns is not None else importer_of_text(name, text)
        if by_text is not None and by_text.records is not None:
            known, table = by_text, _of_records(name, by_text.records(text), notes, limits, len(data))
        elif text.lstrip().startswith(("{", "[")):
            table = _of_records(name, json_records(name, text, limits), notes, limits, len(data))
        elif text.lstrip().startswith("<"):
            raise DataError(f"{name} is XML or a web page that is no known export", hint="export it as CSV or JSON")
        else:
            table = _delimited(name, text, header, separator, notes, limits)
    if columns is not None and table.has_header:
        raise _has_names(table)
    known = known or importer_of(name, frozenset(table.frame.columns))
    return table if known is None else table.converted(known)


def _has_names(table: Table) -> DataError:
    return DataError(f"{table.name} names its columns itself", hint="leave --columns out")


def _decode(name: str, data: bytes) -> tuple[str, tuple[str, ...]]:
    """Text of a file, and a note where its encoding was guessed."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            try:
                return data.decode(encoding), ()
            except UnicodeDecodeError:
                break
    even, odd = data[:4096:2].count(0), data[1:4096:2].count(0)
    if max(even, odd) > len(data[:4096]) // 4 and min(even, odd) == 0:  # Latin letters in UTF-16 without its mark
        try:
            return data.decode("utf-16-be" if even else "utf-16-le"), (f"{name} was read as UTF-16",)
        except UnicodeDecodeError:
            pass
    if b"\0" in data or any(byte < 32 and byte not in _PLAIN_CONTROL for byte in data[:4096]):
        raise DataError(
            f"{name} is not a text or Parquet file", hint="export the table as CSV, TSV or Parquet, then name that file"
        )
    try:
        return data.decode("utf-8"), ()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        note = (f"{name} is not UTF-8 (line {line}); it was read as Latin-1",)
        try:
            return data.decode("cp1252"), note  # Latin-1 with letters for the codes that have none, as browsers read it
        except UnicodeDecodeError:
            return data.decode("latin-1"), note


def _delimited(
    name: str, text: str, columns: Sequence[str] | None, separator: str | None, notes: tuple[str, ...], limits: Limits
) -> Table:
    """Read text with one separator; a record with too few or too many fields is malformed."""
    sample = [line for line in text[: 1 << 16].split("\n") if line.strip()][:_SAMPLE]
    if not sample:
        raise empty_file(name)  # nothing but a byte order mark
    separator = separator or ("\t" if columns and len(columns) == 1 else _guess_separator(sample))
    quoted = separator in _QUOTING_SEPARATORS and '"' in text
    records = (_quoted if quoted else _plain)(name, text, separator, limits)
    first: list[str] = records["fields"][0].to_list()
    has_header = columns is None and _is_header(first)
    names = _header(name, first) if has_header else _by_position(name, len(first), columns or ())
    records = records.slice(1) if has_header else records
    # Some programs end every line with a separator: empty fields beyond the last column are none.
    beyond = pl.col("fields").list.slice(len(names)).list.join("").str.strip_chars()
    good = (pl.col("fields").list.len() >= len(names)) & (beyond == "")
    kept = records.filter(good)
    named = [(at, column) for at, column in enumerate(names) if column != SKIPPED]
    table = Table(
        name=name,
        frame=kept.select(pl.col("fields").list.get(at).str.strip_chars().alias(column) for at, column in named),
        lines=kept["line"].cast(pl.Int64),
        unit="line",
        rows_read=len(records),
        malformed=tuple(records.filter(~good)["line"].to_list()),
        notes=notes,
        has_header=has_header,
        lists=frozenset(own for own, field in zip(names, first, strict=False) if field.strip().endswith(":token_seq")),
    )
    return _checked(table)


def _guess_separator(sample: list[str]) -> str:
    """Return the separator that is in the first line, and equally often in most of the others."""

    def evenness(separator: str) -> tuple[float, int]:
        lines = [_QUOTED.sub("", line) for line in sample] if separator in _QUOTING_SEPARATORS else sample
        count = lines[0].strip("\n").count(separator)
        alike = sum(line.count(separator) == count for line in lines) / len(lines)
        if separator == " " and alike < 1.0:  # words have blanks between them, too
            count = 0
        return (round(alike, 1), count) if count else (0.0, 0)

    best = max(_SEPARATORS, key=evenness)  # of equals the first
    return best if evenness(best)[1] else max(_SEPARATORS[:-1], key=sample[0].count)


def _plain(name: str, text: str, separator: str, limits: Limits) -> pl.DataFrame:
    """Split text without quotes into columns `line` and `fields`."""
    lines = text.count("\n")
    limits.check_rows(name, lines - 1)
    limits.check_decoded(name, len(text), len(text) + _VALUE_BYTES * (lines + text.count(separator)))
    records = pl.DataFrame({"text": pl.Series([text]).str.split("\n").explode()})
    records = records.with_row_index("line", offset=1).filter(pl.col("text").str.strip_chars() != "")
    return records.select("line", pl.col("text").str.split(separator).alias("fields"))


def _quoted(name: str, text: str, separator: str, limits: Limits) -> pl.DataFrame:
    """Split text with quotes, as `_plain`.

    A quote that is never closed takes the rest of the file into its field. So a record of several lines that has
    not as many fields as the first is taken for one line with a stray quote, and reading continues after that line.
    """
    counted = text.count("\n") + text.count(separator)
    limits.check_decoded(name, len(text), len(text) + _LINE_BYTES * counted)
    lines = text.split("\n")
    records: list[list[str]] = []
    starts: list[int] = []
    start, mended, width = 0, 0, None
    while start < len(lines):
        rest = (f"{lines[at]}\n" for at in range(start, len(lines)))
        reader = csv.reader(rest, delimiter=separator, skipinitialspace=True)
        offset = start
        try:
            for record in reader:
                begins, ends = start, offset + reader.line_num
                if ends - begins > 1 and width is not None and not _fits(record, width):
                    raise csv.Error("a quote is not closed")
                start = ends
                if len(record) <= 1 and not "".join(record).strip():
                    continue
                width = width or len(record)
                records.append(record)
                starts.append(begins + 1)
                limits.check_rows(name, len(records) - 1)
        except csv.Error as error:
            mended += 1
            if mended > _MOST_MENDED or width is None:
                raise DataError(f"{name}, line {start + 1}: {error}", hint="a quote may be missing near it") from error
            records.append([lines[start]])
            starts.append(start + 1)
            start += 1
    return pl.DataFrame({"line": starts, "fields": records}, schema={"line": pl.Int64, "fields": pl.List(pl.String)})


def _fits(record: list[str], width: int) -> bool:
    return len(record) == width or (len(record) > width and not "".join(record[width:]).strip())


def _is_header(fields: list[str]) -> bool:
    """Whether a first line names columns: it has usual names, or no numbers and dates as rows have."""
    if any(_RECBOLE_TYPE.search(field.strip()) for field in fields):
        return True
    usual = sum(plain_name(field) in KNOWN_NAMES for field in fields)
    has_values = any(looks_like_a_value(field.strip()) for field in fields)
    return usual > 1 or not has_values


def _header(name: str, fields: Sequence[str]) -> list[str]:
    """Column names: trimmed, RecBole's ":type" removed, pandas' unnamed index column named."""
    names = [_RECBOLE_TYPE.sub("", field.strip().strip('"').strip()) for field in fields]
    while len(names) > 1 and not names[-1]:  # a separator at the end of every line
        names.pop()
    names = [field or f"column {at + 1}" for at, field in enumerate(names)]
    twice = sorted({field for field in names if names.count(field) > 1})
    if twice:
        raise DataError(f"{name}: the header names {shorten(twice)} more than once", hint="rename one of the columns")
    return names


def _by_position(name: str, width: int, columns: Sequence[str]) -> list[str]:
    """Column names of a file without a header line: those given, then numbers."""
    if len(columns) > width:
        raise DataError(
            f"{name} has {width} fields a line, and {len(columns)} columns were named: {shorten(columns)}",
            hint=f"name one column for each field, {SKIPPED} for those to leave out",
        )
    return [*columns, *(f"column {at + 1}" for at in range(len(columns), width))]


def _of_records(name: str, records: Iterable[Record], notes: tuple[str, ...], limits: Limits, stored: int) -> Table:
    """Table of records that name their own fields; every field that any of them has is a column."""
    frame, lines, malformed = columns_of(name, records, limits, stored=stored)
    if frame.is_empty():
        raise DataError(f"{name} holds no JSON objects", hint='each row must be an object such as {"item": "x"}')
    rows = len(lines) + len(malformed)
    return _checked(
        Table(name=name, frame=frame, lines=lines, unit="line", rows_read=rows, malformed=malformed, notes=notes)
    )


def _of_frame(frame: IntoDataFrame) -> Table:
    """Turn a polars, pandas or Arrow frame into a table, column by column."""
    if isinstance(frame, pl.DataFrame):
        return _by_rows("the frame", frame)
    import narwhals as nw

    try:
        columns = nw.from_native(frame, eager_only=True).iter_columns()
    except TypeError:
        raise DataError(
            f"{type(frame).__name__} is neither a file nor a frame",
            hint="give a path, or a polars, pandas or Arrow frame",
        ) from None
    return _by_rows("the frame", pl.DataFrame({column.name: _series(column) for column in columns}))


def _series(column: nw.Series[Any]) -> pl.Series:
    """Values of a column; what pandas calls NaN or NA is nothing."""
    gone = column.is_null().to_list()
    values = [None if missing else value for value, missing in zip(column.to_list(), gone, strict=True)]
    return pl.Series(column.name, values, strict=False)


def _by_rows(name: str, frame: pl.DataFrame) -> Table:
    rows = pl.int_range(1, len(frame) + 1, dtype=pl.Int64, eager=True)
    return _checked(Table(name=name, frame=frame, lines=rows, unit="row", rows_read=len(frame)))


def _checked(table: Table) -> Table:
    if table.rows_read == 0:
        raise DataError(
            f"{table.name} has a header ({shorten(table.frame.columns)}) and no rows",
            hint="it needs rows below the header line",
        )
    if len(table.frame) == 0:
        raise DataError(
            f"{table.name}: none of the {table.rows_read} rows has "
            f"the {table.frame.width} fields {shorten(table.frame.columns)}",
            hint="one separator (comma, tab, semicolon, | or ::) must part all lines alike",
        )
    return table


def parquet_bytes(frame: pl.DataFrame) -> bytes:
    """Return a frame as the bytes of a Parquet file, for `palate.privacy.files.replace`."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()
