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


def digest(tag: bytes, *parts: bytes) -> bytes:
    """SHA-256 of the framed tag and parts, 32 bytes."""
    return sha256(framed(tag, *parts)).digest()


def number(value: int) -> bytes:
    """Eight big-endian bytes."""
    return value.to_bytes(8, "big")
