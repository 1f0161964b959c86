"""A Parquet file of one column of texts, written by hand: what its headers say need not be so."""

from __future__ import annotations

_INT, _LONG, _BINARY, _LIST, _STRUCT = 5, 6, 8, 9, 12
_Typed = tuple[int, bytes]
"""Type in Thrift's compact protocol, and the bytes of a value."""


def parquet_file(
    *,
    rows: int,
    text: bytes = b"x",
    held: int | None = None,
    page_held: int | None = None,
    page_bytes: int | None = None,
    groups: int = 0,
    encoding: int = 8,
) -> bytes:
    """All rows have one text, which is stored once, with a run length.

    Parameters
    ----------
    rows
        In the footer.
    text
        The text.
    held, page_held
        How many values the column and its page say that they hold; `rows` where None.
    page_bytes
        What the page says that it unpacks to; the truth where None.
    groups
        Columns around the column.
    encoding
        Of the page; 8 is RLE_DICTIONARY.
    """
    dictionary = len(text).to_bytes(4, "little") + text
    page = b"\x01" + _varint(rows << 1) + b"\x00"  # indices of 1 bit; one run of the index 0
    size = len(dictionary)
    pages = _struct({1: _int(2), 2: _int(size), 3: _int(size), 7: _nested({1: _int(1), 2: _int(0)})}) + dictionary
    data_at = 4 + len(pages)
    within = {1: _int(rows if page_held is None else page_held), 2: _int(encoding), 3: _int(3), 4: _int(3)}
    size = len(page) if page_bytes is None else page_bytes
    pages += _struct({1: _int(0), 2: _int(size), 3: _int(len(page)), 5: _nested(within)}) + page
    about = {
        1: _int(6),
        2: _list(_int(0), _int(8)),
        3: _list(*[_binary(b"g")] * groups, _binary(b"item")),
        4: _int(0),
        5: _long(rows if held is None else held),
        6: _long(len(pages)),
        7: _long(len(pages)),
        9: _long(data_at),
        11: _long(4),
    }
    column = _nested({2: _long(4), 3: _nested(about)})
    row_group = _nested({1: _list(column), 2: _long(len(pages)), 3: _long(rows)})
    root = _nested({4: _binary(b"root"), 5: _int(1)})
    around = [_nested({3: _int(0), 4: _binary(b"g"), 5: _int(1)})] * groups
    leaf = _nested({1: _int(6), 3: _int(0), 4: _binary(b"item"), 6: _int(0)})
    footer = _struct({1: _int(1), 2: _list(root, *around, leaf), 3: _long(rows), 4: _list(row_group)})
    return b"PAR1" + pages + footer + len(footer).to_bytes(4, "little") + b"PAR1"


def _struct(fields: dict[int, _Typed]) -> bytes:
    found, last = b"", 0
    for key, (kind, value) in fields.items():
        found += bytes([(key - last) << 4 | kind]) + value
        last = key
    return found + b"\0"


def _nested(fields: dict[int, _Typed]) -> _Typed:
    return _STRUCT, _struct(fields)


def _list(*values: _Typed) -> _Typed:
    head = bytes([len(values) << 4 | values[0][0]]) if len(values) < 15 else bytes([0xF0 | values[0][0]])
    size = b"" if len(values) < 15 else _varint(len(values))
    return _LIST, head + size + b"".join(value for _, value in values)


def _int(value: int) -> _Typed:
    return _INT, _varint(value << 1)


def _long(value: int) -> _Typed:
    return _LONG, _varint(value << 1)


def _binary(value: bytes) -> _Typed:
    return _BINARY, _varint(len(value)) + value


def _varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found += bytes([value & 127 | 128])
        value >>= 7
    return found + bytes([value])
