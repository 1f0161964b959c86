"""Canonical JSON: one value has one spelling, so that a hash of the text is a hash of the value.

The subset of RFC 8785 that needs no number formatting: one flat object of integers 0 ... 2^53-1 and printable ASCII
strings, keys sorted, no white space. A reader accepts nothing that it would not have written itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from palate.privacy.ledger.errors import MalformedBody

MAX_INT = (1 << 53) - 1  # what every JSON reader represents exactly
MAX_BYTES = 1 << 16

Value = int | str


def encode(fields: Mapping[str, Value]) -> bytes:
    """Write a flat object.

    Raises
    ------
    MalformedBody
        If a value is neither an integer in range nor printable ASCII, or the text is longer than `MAX_BYTES`.
    """
    for name, value in fields.items():
        check_value(name, value)
    text = _dump(fields)
    if len(text) > MAX_BYTES:
        raise MalformedBody(f"{len(text)} bytes of JSON, at most {MAX_BYTES} are accepted")
    return text


def decode(text: bytes) -> dict[str, Value]:
    """Read a flat object.

    Raises
    ------
    MalformedBody
        If `encode` would not have written exactly these bytes.
    """
    if len(text) > MAX_BYTES:
        raise MalformedBody(f"{len(text)} bytes of JSON, at most {MAX_BYTES} are accepted")
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedBody(f"not JSON: {_one_line(error)}") from None
    if not isinstance(fields, dict):
        raise MalformedBody(f"a JSON {type(fields).__name__} where an object belongs")
    for name, value in fields.items():
        check_value(name, value)
    if _dump(fields) != text:
        raise MalformedBody("not canonical: other order, white space, escapes or a key given twice")
    return fields


def check_value(name: str, value: object) -> None:
    """Refuse what has no single spelling.

    Raises
    ------
    MalformedBody
        If the name or the value is not canonical.
    """
    if not (name.isascii() and name.isprintable()):
        raise MalformedBody(f"field name {name!r} is not printable ASCII")
    if type(value) is int:
        if not 0 <= value <= MAX_INT:
            raise MalformedBody(f"{name} is not within 0 ... {MAX_INT}")
    elif type(value) is str:
        if not (value.isascii() and value.isprintable()):
            raise MalformedBody(f"{name} is not printable ASCII")
    else:
        raise MalformedBody(f"{name} is a {type(value).__name__}; only integers and strings are canonical")


def unhex(value: object, size: int) -> bytes:
    """Read `size` bytes from lower-case hexadecimal digits.

    Raises
    ------
    MalformedBody
        If the value is anything else.
    """
    if isinstance(value, str) and len(value) == 2 * size and set(value) <= set("0123456789abcdef"):
        return bytes.fromhex(value)
    raise MalformedBody(f"{2 * size} lower-case hexadecimal digits are missing")


def _dump(fields: Mapping[str, Value]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode("ascii")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
