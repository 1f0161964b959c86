"""Parquet of a stranger: what it would unpack to is known from its headers before a page of it is decoded.

A file of 2 kB can state 10^9 values: equal values are stored once, with a count. So the footer and the header of every
page are read first (apache/parquet-format: README, parquet.thrift, Thrift's compact protocol). A decoder fills what
these say, and no more: a page unpacks to its stated size, and holds its stated number of values.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any, Final

import polars as pl

from palate.data.files import Limits
from palate.errors import DataError

_MARK: Final = b"PAR1"
_MAX_FOOTER: Final = 1 << 24
_MAX_DEPTH: Final = 16
"""Of columns in columns, and of Thrift's structs."""
_VALUE_BYTES: Final = 16
"""What a value takes once it is decoded, next to its text: polars' view of a text has 16 bytes."""
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3  # PageType
_DELTA_BYTE_ARRAY: Final = 7  # Encoding: each text shares a beginning with the one before, so n bytes are n^2 / 2
_ERRORS: Final = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError)  # polars panics, too
_Struct = dict[int, Any]


def is_parquet(data: bytes) -> bool:
    """Whether these bytes begin as Parquet does."""
    return data.startswith(_MARK)


def read_parquet(name: str, data: bytes, limits: Limits, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Decode a Parquet file, once its sizes have been checked.

    Parameters
    ----------
    name
        Of the file, for messages.
    data
        Its content.
    limits
        How many rows it may have, and how many bytes when it is decoded.
    columns
        The columns to decode, of which those that are missing are left out; None means all.

    Raises
    ------
    DataError
        If it is damaged, too large, or contradicts itself.
    """
    try:
        rows, row_groups = _footer(data)
        limits.check_rows(name, rows)
        limits.check_decoded(name, len(data), _decoded_bytes(data, row_groups, columns))
        source = io.BytesIO(data)
        if columns is not None:
            columns = [column for column in pl.read_parquet_schema(source) if column in columns]
        frame = pl.read_parquet(source, columns=columns, use_statistics=False)
    except _ERRORS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{name} is a damaged Parquet file: {reason}", hint="write or fetch it again") from None
    # A text that a dictionary holds once is shared by all its rows. Whoever turns rows into text has it once a row.
    limits.check_decoded(name, len(data), int(frame.estimated_size()))
    return frame


def _footer(data: bytes) -> tuple[int, list[_Struct]]:
    """Return the number of rows, and the row groups; raises ValueError."""
    size = int.from_bytes(data[-8:-4], "little")
    if not data.endswith(_MARK) or len(data) < 12 + size:
        raise ValueError("its footer is cut off")
    if size > _MAX_FOOTER:
        raise ValueError(f"its footer has {size:,} bytes")
    start = len(data) - 8 - size
    footer, end = _struct(data, start, start + size)
    rows, groups = footer.get(3), footer.get(4, [])
    _check_schema(footer.get(2))
    described = isinstance(groups, list) and all(isinstance(group, dict) for group in groups)
    if not isinstance(rows, int) or rows < 0 or not described:
        raise ValueError("its footer is no Parquet footer")
    if end > start + size or rows != sum(_number(group, 3) for group in groups):
        raise ValueError("its row groups have other rows than its footer says")
    if rows and not all(isinstance(group.get(1), list) and group[1] for group in groups):
        raise ValueError("it has rows without columns")
    return rows, groups


def _check_schema(elements: object) -> None:
    """Refuse columns that are nested too deeply for a decoder that calls itself."""
    left: list[int] = []  # children still to come at each depth
    for element in elements if isinstance(elements, list) else ():
        children = element.get(5, 0) if isinstance(element, dict) else -1
        if not isinstance(children, int) or children < 0:
            raise ValueError("its columns are not described")
        while left and not left[-1]:
            left.pop()
        if left:
            left[-1] -= 1
        if children:
            left.append(children)
        if len(left) > _MAX_DEPTH:
            raise ValueError(f"its columns are nested more than {_MAX_DEPTH} deep")


def _decoded_bytes(data: bytes, row_groups: list[_Struct], columns: Sequence[str] | None) -> int:
    """Return how many bytes the columns take at most without texts that they repeat; raises ValueError."""
    total = 0
    for group in row_groups:
        rows = _number(group, 3)
        chunks = group.get(1)
        for chunk in chunks if isinstance(chunks, list) else ():
            about = chunk.get(3) if isinstance(chunk, dict) else None
            if not isinstance(about, dict) or chunk.get(1):
                raise ValueError("a column is elsewhere")
            path = about.get(3)
            if not isinstance(path, list) or not path or not isinstance(path[0], bytes):
                raise ValueError("a column has no name")
            if columns is not None and path[0].decode("utf-8", "replace") not in columns:
                continue
            values, unpacked = 0, 0
            for held, size in _pages(data, about):
                values += held
                unpacked += size
            if values != _number(about, 5) or values < rows:
                raise ValueError("the pages of a column hold another number of values than it states")
            total += unpacked + _VALUE_BYTES * values
    return total


def _pages(data: bytes, about: _Struct) -> Iterator[tuple[int, int]]:
    """Yield the number of values (0 for a dictionary) and the unpacked size of each page; raises ValueError."""
    starts = [_number(about, key) for key in (9, 11) if about.get(key)]
    at = min(starts, default=0)
    end = at + _number(about, 7)
    if at < len(_MARK) or end > len(data):
        raise ValueError("a column is beyond the end of the file")
    while at < end:
        header, at = _struct(data, at, end)
        at += _number(header, 3)
        kind = _number(header, 1)
        within = header.get({_DATA: 5, _DICTIONARY: 7, _DATA_V2: 8}.get(kind, 0), {})
        if at > end or not isinstance(within, dict):
            raise ValueError("a page is longer than its column")
        encoding = within.get(4 if kind == _DATA_V2 else 2)
        if encoding == _DELTA_BYTE_ARRAY:
            raise ValueError("its texts are stored as differences; write it with plain or dictionary encoding")
        held = _number(within, 1) if within else 0
        size = _number(header, 2)
        yield (0, size + _VALUE_BYTES * held) if kind == _DICTIONARY else (held, size)


def _number(struct: _Struct, key: int) -> int:
    value = struct.get(key)
    if not isinstance(value, int) or value < 0:
        raise ValueError("a size is missing or below 0")
    return value


# Thrift's compact protocol (thrift-compact-protocol.md): a field's type is in the low four bits of its header.
_TRUE, _FALSE, _BYTE, _I64, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 6, 7, 8, 9, 10, 12


def _struct(data: bytes, at: int, end: int, depth: int = 0) -> tuple[_Struct, int]:
    """Return the fields of a struct by number, and where it ends; raises ValueError."""
    found: _Struct = {}
    key = 0
    while True:
        head = _byte(data, at, end)
        at += 1
        if head == 0:
            return found, at
        if head >> 4:
            key += head >> 4
        else:
            key, at = _signed(data, at, end)
        found[key], at = _value(data, at, end, head & 15, depth, in_list=False)


def _value(data: bytes, at: int, end: int, kind: int, depth: int, *, in_list: bool) -> tuple[Any, int]:
    if depth > _MAX_DEPTH:
        raise ValueError("its headers are nested too deeply")
    if kind in (_TRUE, _FALSE) and not in_list:
        return kind == _TRUE, at
    if kind in (_TRUE, _FALSE, _BYTE):
        return _byte(data, at, end), at + 1
    if _BYTE < kind <= _I64:
        return _signed(data, at, end)
    if kind == _STRUCT:
        return _struct(data, at, end, depth + 1)
    if kind == _DOUBLE:
        size = 8
    elif kind == _BINARY:
        size, at = _unsigned(data, at, end)
    elif kind in (_LIST, _SET):
        head = _byte(data, at, end)
        at += 1
        count, at = (head >> 4, at) if head >> 4 < 15 else _unsigned(data, at, end)
        values = []
        for _ in range(count):  # each takes a byte or more, so a false count ends with the header
            value, at = _value(data, at, end, head & 15, depth + 1, in_list=True)
            values.append(value)
        return values, at
    else:
        raise ValueError("its headers are no Thrift")
    if at + size > end:
        raise ValueError("its headers are cut off")
    return data[at : at + size], at + size


def _byte(data: bytes, at: int, end: int) -> int:
    if at >= end:
        raise ValueError("its headers are cut off")
    return data[at]


def _unsigned(data: bytes, at: int, end: int) -> tuple[int, int]:
    """LEB128, at most 10 bytes."""
    value = 0
    for shift in range(0, 70, 7):
        byte = _byte(data, at, end)
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number in its headers is too long")


def _signed(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Read a zigzag number."""
    value, at = _unsigned(data, at, end)
    return (value >> 1) ^ -(value & 1), at
