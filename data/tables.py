"""Any delimited text or Parquet file as a frame of text columns that remembers its line numbers.

polars does the work wherever a line is a record; quoted text, where a record may span lines, goes
through Python's csv module. Both keep the line number of each record, which polars' own CSV reader does not.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import polars as pl

from palate.errors import DataError, EnvironmentProblem

if TYPE_CHECKING:
    import narwhals as nw
    from narwhals.typing import IntoDataFrame

Source: TypeAlias = "str | Path | IntoDataFrame"
"""A file, or a polars, pandas or Arrow frame."""

EXAMPLES = 5  # line numbers kept for each kind of trouble
_SEPARATORS = ("::", "\t", ",", ";", "|")
_QUOTING_SEPARATORS = (",", ";")  # in MovieLens' "::" and "|" files and in TSV a quote is just a character
_PLAIN_CONTROL = frozenset(b"\t\n\r\x0b\x0c\x1a\x1b")


@dataclass(frozen=True)
class Table:
    """A file's records as text.

    Attributes
    ----------
    name
        File name for messages.
    frame
        One String column for each named column (Parquet keeps its own types), without the malformed records.
    lines
        Line number (Parquet: row number) of each record, 1-based, Int64 [num_records].
    unit
        "line" or "row": what `lines` counts.
    rows_read
        Records found, also the malformed ones.
    malformed
        Line numbers of records with a wrong number of fields.
    notes
        What else was decided, in sentences.
    """

    name: str
    frame: pl.DataFrame
    lines: pl.Series
    unit: str
    rows_read: int
    malformed: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def read_table(source: Source, *, columns: Sequence[str] | None = None, separator: str | None = None) -> Table:
    """Read CSV, TSV, "::" or "|" separated text, or Parquet; each may be gzipped.

    Parameters
    ----------
    source
        A file, of which the kind is recognised by content and not by suffix; or a frame.
    columns
        Column names of a file without a header line; None reads them from the first line.
    separator
        Field separator; None picks the commonest candidate of the header line.

    Raises
    ------
    DataError
        If there is no such file, or it is a folder, empty, header only, damaged or not text.
    EnvironmentProblem
        If the file may not be read.
    """
    if not isinstance(source, str | Path):
        return _of_frame(source)
    path = Path(source)
    data = read_bytes(path)
    if data.startswith(b"PAR1"):
        return _parquet(path.name, data)
    text, notes = _decode(path.name, data)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    header = text.lstrip("\n").split("\n", 1)[0]
    separator = separator or max(_SEPARATORS, key=header.count)
    if separator in _QUOTING_SEPARATORS and '"' in text:
        return _quoted(path.name, text, separator, columns, notes)
    return _lines(path.name, text, separator, columns, notes)


def read_bytes(path: Path) -> bytes:
    """Whole content of a file, unzipped if gzipped; the errors are those of `read_table`."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"no such file: {path}", hint="check the path; palate data list shows the presets") from error
    except IsADirectoryError as error:
        raise DataError(f"{path} is a folder, not a file", hint="name the file inside it") from error
    except PermissionError as error:
        raise EnvironmentProblem(f"no permission to read {path}", hint="check the file's owner and mode") from error
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}", hint="check the path") from error
    if data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(
                f"{path.name} is a damaged gzip file: {error}", hint="fetch or compress it again"
            ) from error
    if not data.strip():
        raise _empty(path.name)
    return data


def shorten(names: Sequence[str], limit: int = 12) -> str:
    """Names for a one-line message."""
    shown = [name if len(name) <= 30 else name[:29] + "…" for name in names[:limit]]
    printable = [name if name.isprintable() else repr(name)[1:-1] for name in shown]
    return ", ".join(printable) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def as_text(column: pl.Series) -> pl.Series:
    """Values as trimmed text; whole floats lose their ".0" (pandas' integers with gaps), nothing becomes ""."""
    if column.dtype.is_float():
        whole = column.is_nan().not_() & (column == column.round()) & (column.abs() < 2**53)
        integers = column.set(~whole.fill_null(False), None).cast(pl.Int64).cast(pl.String)
        return integers.zip_with(whole.fill_null(False), column.cast(pl.String)).fill_null("")
    if column.dtype.is_temporal():
        return column.cast(pl.String).fill_null("")
    if column.dtype.is_nested() or column.dtype == pl.Object:
        raise DataError(f"column {column.name} holds {column.dtype}", hint="each field must hold one value")
    if column.dtype == pl.Binary:
        column = column.cast(pl.String, strict=False)
    return column.cast(pl.String).str.strip_chars().fill_null("")


def find_column(names: Sequence[str], candidates: str) -> str | None:
    """Return the first column whose name, without case and punctuation, is among the candidates (best first)."""
    plain = {plain_name(name): name for name in reversed(names)}
    return next((plain[candidate] for candidate in candidates.split() if candidate in plain), None)


def plain_name(name: str) -> str:
    """Name of a column without case, blanks and punctuation."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _empty(name: str) -> DataError:
    return DataError(f"{name} is empty", hint="it needs a header line and at least two users' rows")


def _decode(name: str, data: bytes) -> tuple[str, tuple[str, ...]]:
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            try:
                return data.decode(encoding), ()
            except UnicodeDecodeError:
                break
    if b"\0" in data or any(byte < 32 and byte not in _PLAIN_CONTROL for byte in data[:4096]):
        raise DataError(
            f"{name} is not a text or Parquet file", hint="export the table as CSV, TSV or Parquet, then name that file"
        )
    try:
        return data.decode("utf-8"), ()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return data.decode("latin-1"), (f"{name} is not UTF-8 (line {line}); it was read as Latin-1",)


def _lines(name: str, text: str, separator: str, columns: Sequence[str] | None, notes: tuple[str, ...]) -> Table:
    records = pl.DataFrame({"text": pl.Series([text]).str.split("\n").explode()})
    records = records.with_row_index("line", offset=1).filter(pl.col("text").str.strip_chars() != "")
    if records.is_empty():
        raise _empty(name)  # nothing but a byte order mark
    if columns is None:
        columns = _header(name, records["text"][0].split(separator))
        records = records.slice(1)
    records = records.with_columns(pl.col("text").str.split(separator).alias("fields"))
    good = pl.col("fields").list.len() == len(columns)
    kept = records.filter(good)
    frame = kept.select(pl.col("fields").list.get(at).alias(column) for at, column in enumerate(columns))
    malformed = records.filter(~good)["line"].to_list()
    return _checked(Table(name, frame, kept["line"].cast(pl.Int64), "line", len(records), tuple(malformed), notes))


def _quoted(name: str, text: str, separator: str, columns: Sequence[str] | None, notes: tuple[str, ...]) -> Table:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    records: list[list[str]] = []
    lines: list[int] = []
    malformed: list[int] = []
    started = 0
    try:
        for record in reader:
            line, started = started + 1, reader.line_num
            if len(record) <= 1 and not "".join(record).strip():
                continue
            if columns is None:
                columns = _header(name, record)
            elif len(record) == len(columns):
                records.append(record)
                lines.append(line)
            else:
                malformed.append(line)
    except csv.Error as error:
        raise DataError(f"{name}, line {started + 1}: {error}", hint="a quote may be missing near that line") from error
    if columns is None:
        raise _empty(name)
    frame = pl.DataFrame(records, schema=dict.fromkeys(columns, pl.String), orient="row")
    rows_read = len(records) + len(malformed)
    return _checked(Table(name, frame, pl.Series("line", lines, pl.Int64), "line", rows_read, tuple(malformed), notes))


def _parquet(name: str, data: bytes) -> Table:
    try:
        frame = pl.read_parquet(io.BytesIO(data))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{name} is a damaged Parquet file: {reason}", hint="write or fetch it again") from error
    return _checked(Table(name, frame, pl.Series("line", range(1, len(frame) + 1), pl.Int64), "row", len(frame)))


def _of_frame(frame: IntoDataFrame) -> Table:
    """Turn a polars, pandas or Arrow frame into a table, column by column."""
    if isinstance(frame, pl.DataFrame):
        native = frame
    else:
        import narwhals as nw

        try:
            columns = nw.from_native(frame, eager_only=True).iter_columns()
        except TypeError:
            raise DataError(
                f"{type(frame).__name__} is neither a file nor a frame",
                hint="give a path, or a polars, pandas or Arrow frame",
            ) from None
        native = pl.DataFrame({column.name: _series(column) for column in columns})
    return _checked(Table("the frame", native, pl.int_range(1, len(native) + 1, eager=True), "row", len(native)))


def _series(column: nw.Series[Any]) -> pl.Series:
    """Values of a column; what pandas calls NaN or NA is nothing."""
    gone = column.is_null().to_list()
    values = [None if missing else value for value, missing in zip(column.to_list(), gone, strict=True)]
    return pl.Series(column.name, values, strict=False)


def _header(name: str, fields: Sequence[str]) -> list[str]:
    """Column names: trimmed, RecBole's ":type" removed, pandas' unnamed index column named."""
    names = [field.strip().strip('"') for field in fields]
    names = [field.rsplit(":", 1)[0] if field.endswith(_RECBOLE_TYPES) else field for field in names]
    names = [field or f"column {at + 1}" for at, field in enumerate(names)]
    twice = sorted({field for field in names if names.count(field) > 1})
    if twice:
        raise DataError(f"{name}: the header names {shorten(twice)} more than once", hint="rename one of the columns")
    return names


_RECBOLE_TYPES = (":token", ":token_seq", ":float", ":float_seq")


def _checked(table: Table) -> Table:
    if table.rows_read == 0:
        raise DataError(
            f"{table.name} has a header ({shorten(table.frame.columns)}) and no rows",
            hint="it needs at least two users' rows below the header line",
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
