"""Unambiguous hashing: every part is preceded by its length, and the first part names what is hashed.

Without lengths, ("ab", "c") and ("a", "bc") would hash alike; without a tag, a signature over one kind of message could
be shown as a signature over another.
"""

from __future__ import annotations

from hashlib import sha256

HASH_SIZE = 32
LENGTH_SIZE = 4


def framed(*parts: bytes) -> bytes:
    """Join parts, each preceded by its length as four big-endian bytes."""
    return b"".join(len(part).to_bytes(LENGTH_SIZE, "big") + part for part in parts)


def parts_of(data: bytes, *, most: int = 1 << 16) -> list[bytes]:
    """Take apart what `framed` joined; raises ValueError if the lengths do not add up, or there are more parts."""
    parts: list[bytes] = []
    at = 0
    while at < len(data):
        start = at + LENGTH_SIZE
        at = start + int.from_bytes(data[at:start], "big")
        if at > len(data) or len(parts) >= most:
            raise ValueError("the lengths of the parts do not add up")
        parts.append(data[start:at])
    return parts


def digest(tag: bytes, *parts: bytes) -> bytes:
    """SHA-256 of the framed tag and parts, 32 bytes."""
    return sha256(framed(tag, *parts)).digest()


def number(value: int) -> bytes:
    """Eight big-endian bytes."""
    return value.to_bytes(8, "big")
