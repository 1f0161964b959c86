"""Any delimited text or Parquet file as a frame of text columns that remembers its line numbers.

polars does the work wherever a line is a record; quoted text, where a record may span lines, goes
through Python's csv module. Both keep the line number of each record, which polars' own CSV reader does not.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from palate.errors import DataError, EnvironmentProblem

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


def read_table(path: Path, *, columns: Sequence[str] | None = None, separator: str | None = None) -> Table:
    """Read CSV, TSV, "::" or "|" separated text, or Parquet; each may be gzipped.

    Parameters
    ----------
    path
        The file. Its kind is recognised by content, not by suffix.
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
