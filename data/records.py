"""Records that name their own fields, as in JSON and XML: every field is a column, and values become text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias
from xml.parsers import expat

import polars as pl

from palate.data.files import Limits
from palate.errors import DataError

Record: TypeAlias = tuple[int, object]
"""Line number, 1-based, and a mapping from field to value; anything else is a malformed record."""

_MAX_DEPTH = 32
_MAX_FIELDS = 1000
"""Different fields of all records together."""
_MAX_DAMAGED = 1000
"""JSON values that are passed over: to find the end of each takes another look at what follows."""
_MAX_XML_RECORDS = 1_000_000
_VALUE_BYTES = 64
"""What a JSON value takes in Python."""


def columns_of(
    name: str, records: Iterable[Record], limits: Limits, *, stored: int
) -> tuple[pl.DataFrame, pl.Series, tuple[int, ...]]:
    """Put records into columns; every field of any record is a column, "" where a record lacks it.

    Parameters
    ----------
    name
        Of the file, for messages.
    records
        In the order of the file.
    limits
        How many there may be, and how much memory their columns may take.
    stored
        Bytes of the file.

    Returns
    -------
    tuple
        String columns without malformed records; their line numbers, Int64; the line numbers of malformed ones.

    Raises
    ------
    DataError
        If there are too many, or they have too many different fields.
    """
    fields: set[str] = set()
    lines: list[int] = []
    malformed: list[int] = []
    found: list[dict[str, str | None]] = []
    for line, value in records:
        limits.check_rows(name, len(lines) + len(malformed) + 1)
        if isinstance(value, Mapping) and value:
            found.append({key: _text(field) for key, field in value.items()})
            lines.append(line)
            fields.update(found[-1])
            if len(fields) > _MAX_FIELDS:
                raise DataError(
                    f"{name}, line {line}: its records have more than {_MAX_FIELDS:,} different fields",
                    hint="the fields of a record must be columns; export it as CSV",
                )
        else:
            malformed.append(line)
    limits.check_decoded(name, stored, 16 * len(fields) * len(found))  # every record has a value in every column
    frame = pl.from_dicts(found, infer_schema_length=None) if found else pl.DataFrame()
    frame = frame.select(pl.all().cast(pl.String).fill_null(""))
    return frame, pl.Series("line", lines, pl.Int64), tuple(malformed)


def json_records(name: str, text: str, limits: Limits) -> Iterator[Record]:
    """Objects of a JSON list or of JSON lines; one damaged line costs itself.

    One object that holds a list of objects, as answers of web services do, gives those of the longest such list,
    numbered from 1.

    Raises
    ------
    DataError
        If it has too many values, or too many damaged ones.
    """
    count = text.count(",") + text.count("[") + text.count("{")
    limits.check_decoded(name, len(text), len(text) + _VALUE_BYTES * count)
    values = _json_values(name, text)
    first, second = next(values, None), next(values, None)
    inner = _longest_list(first[1]) if first is not None and second is None else None
    if inner is not None:
        yield from enumerate(inner, start=1)
        return
    yield from (each for each in (first, second) if each is not None)
    yield from values


def _longest_list(value: object, depth: int = 2) -> list[object] | None:
    """Longest list of objects in an object, at most two objects deep; None if there is none."""
    if not isinstance(value, dict):
        return None
    found = [each for each in value.values() if isinstance(each, list) and each and isinstance(each[0], dict)]
    if depth:
        inner = (_longest_list(each, depth - 1) for each in value.values())
        found += [each for each in inner if each is not None]
    return max(found, key=len, default=None)


def _json_values(name: str, text: str) -> Iterator[Record]:
    """Each value of a list, or of lines, with its line number; None for what is none."""
    decoder, at, line, counted, damaged = json.JSONDecoder(), 0, 1, 0, 0
    blank, closing = re.compile(r"[\s,]*"), re.compile(r"\]\s*\Z")
    opening = re.compile(r"\s*\[\s*(?=[\]{])").match(text)
    at = opening.end() if opening else 0
    while True:
        at = blank.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing, too
        line, counted = line + text.count("\n", counted, at), at
        if at == len(text) or (opening and closing.match(text, at)):
            return
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            damaged += 1
            if damaged > _MAX_DAMAGED:
                raise DataError(
                    f"{name}, line {line}: more than {_MAX_DAMAGED:,} values before it are no JSON",
                    hint="write each record as one JSON object on a line, or export it as CSV",
                ) from None
            value, found = None, text.find("\n", at)
            at = found if found >= 0 else len(text)
        yield line, value


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if isinstance(value, list):
        return "|".join(_text(each) or "" for each in value)
    return json.dumps(value, ensure_ascii=False)


def xml_records(text: str, tags: Iterable[str]) -> list[Record]:
    """Elements of XML as records of their children's text.

    A document type is refused before it is read, and with it all entities that a document may declare (the attacks of
    CVE-2003-1564 and CWE-611); expat itself does not recurse.

    Parameters
    ----------
    text
        The document; its declared encoding is ignored.
    tags
        Elements that are records.

    Raises
    ------
    DataError
        If it is no well-formed XML, has a document type or is nested too deeply.
    """
    wanted, path = frozenset(tags), []
    found: list[Record] = []
    fields: dict[str, str] | None = None
    parts: list[str] = []
    parser = expat.ParserCreate(encoding="utf-8")
    parser.buffer_text = True

    def refuse(*_: object) -> None:
        raise DataError("the XML declares a document type, which no export does", hint="export it again")

    def start(tag: str, _: object) -> None:
        nonlocal fields
        path.append(tag)
        if len(path) > _MAX_DEPTH:
            raise DataError(f"the XML is nested more than {_MAX_DEPTH} deep", hint="export it again")
        if fields is None and tag in wanted:
            fields = {}
            if len(found) == _MAX_XML_RECORDS:
                raise DataError(f"the XML has more than {_MAX_XML_RECORDS:,} records", hint="read it in parts")
            found.append((parser.CurrentLineNumber, fields))
        parts.clear()

    def end(tag: str) -> None:
        nonlocal fields
        path.pop()
        if fields is not None and tag in wanted:
            fields = None
        elif fields is not None:
            fields[tag] = "".join(parts).strip()
        parts.clear()

    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = parts.append
    try:
        parser.Parse(text.encode("utf-8", "replace"), True)
    except expat.ExpatError as error:
        raise DataError(f"the XML is damaged: {error}", hint="export it again") from error
    return found
