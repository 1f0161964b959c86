"""One spelling for every message: fixed-width binary fields behind a magic number, a version and a type.

After the habits of C2SP formats: numbers are big-endian, lists and texts carry their length, sets are bitmaps over the
roster, and a reader refuses whatever the writer would not have written. Lengths are checked against the bytes that are
there before anything is allocated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum

from palate.privacy.ledger.framing import digest
from palate.privacy.secagg.errors import MessageError

MAGIC = b"PSAG"
VERSION = 1
HASH_SIZE = KEY_SIZE = 32
SIGNATURE_SIZE = 64
MAX_TEXT = 128
MAX_ROSTER = 4096
MAX_NUMBER = (1 << 63) - 1
"""Bounds every integer but device ids, which use all 64 bits."""

_SIGNED = b"palate secagg signature v1"


class Kind(IntEnum):
    """What a message is; the sixth byte of it."""

    CERTIFICATE = 1
    OFFER = 2
    ADVERT = 3
    ROSTER = 4
    SEALED_SHARES = 5
    INBOX = 6
    MASKED_VECTOR = 7
    SURVIVOR_SETS = 8
    CONSISTENCY = 9
    SIGNATURES = 10
    REVEAL = 11
    RECEIPT = 12


def to_sign(body: bytes) -> bytes:
    """Return what an Ed25519 signature over a message's body covers, 32 bytes; the body names its kind."""
    return digest(_SIGNED, body)


class Writer:
    """Builds a message field by field.

    Parameters
    ----------
    kind
        What the message is.
    """

    def __init__(self, kind: Kind) -> None:
        self._parts = [MAGIC, bytes([VERSION, kind])]

    @classmethod
    def bare(cls) -> Writer:
        """Build a part of a message, without the bytes that start one."""
        writer = cls.__new__(cls)
        writer._parts = []
        return writer

    def number(self, value: int, size: int = 8) -> Writer:
        """Add an unsigned big-endian integer of `size` bytes.

        Raises
        ------
        MessageError
            If it does not fit.
        """
        if not 0 <= value < 1 << (8 * size):
            raise MessageError(f"{value} is not within 0 ... {(1 << (8 * size)) - 1}", hint="check the value's source")
        self._parts.append(value.to_bytes(size, "big"))
        return self

    def raw(self, value: bytes, size: int) -> Writer:
        """Add exactly `size` bytes.

        Raises
        ------
        MessageError
            If there are more or fewer.
        """
        if len(value) != size:
            raise MessageError(f"a field of {size} bytes was given {len(value)}", hint="check the value's source")
        self._parts.append(bytes(value))
        return self

    def text(self, value: str) -> Writer:
        """Add one to `MAX_TEXT` printable ASCII characters behind their number.

        Raises
        ------
        MessageError
            If the text is something else.
        """
        check_text(value)
        return self.number(len(value), 1).raw(value.encode("ascii"), len(value))

    def records(self, values: Sequence[bytes], size: int) -> Writer:
        """Add a list of records of `size` bytes each behind its length."""
        self.number(len(values), 4)
        for value in values:
            self.raw(value, size)
        return self

    def ranks(self, ranks: Iterable[int], roster_size: int) -> Writer:
        """Add a set of roster ranks as a bitmap, rank 0 in the top bit of the first byte."""
        bitmap = bytearray(-(-roster_size // 8))
        for rank in ranks:
            if not 0 <= rank < roster_size:
                raise MessageError(f"rank {rank} is not on a roster of {roster_size}", hint="check the set's source")
            bitmap[rank >> 3] |= 0x80 >> (rank & 7)
        return self.number(roster_size, 4).raw(bytes(bitmap), len(bitmap))

    def done(self) -> bytes:
        """Return what was added so far."""
        return b"".join(self._parts)


class Reader:
    """Reads a message field by field, and keeps count of what is left.

    Parameters
    ----------
    data
        The whole message.
    kind
        What it has to be.

    Raises
    ------
    MessageError
        If it starts otherwise. So does every method if a field is cut short or has another spelling.
    """

    def __init__(self, data: bytes, kind: Kind) -> None:
        if not isinstance(data, bytes):
            raise MessageError(f"a message is bytes, not {type(data).__name__}", hint="pass what arrived")
        self._data = data
        self._at = 0
        if self.raw(len(MAGIC)) != MAGIC:
            raise MessageError("not a message of secure aggregation", hint="check what the peer sent")
        version = self.number(1)
        if version != VERSION:
            raise MessageError(f"message version {version} is not {VERSION}", hint="update the older side")
        found = self.number(1)
        if found != kind:
            raise MessageError(f"message type {found} where {int(kind)} ({kind.name}) belongs", hint="check the step")

    @property
    def signed_so_far(self) -> bytes:
        """Everything read until now: a body, when its signature comes next."""
        return self._data[: self._at]

    def number(self, size: int = 8, *, most: int = MAX_NUMBER) -> int:
        """Read an unsigned integer of at most `most`."""
        value = int.from_bytes(self.raw(size), "big")
        if value > most:
            raise MessageError(f"{value} is above {most}", hint="check what the peer sent")
        return value

    def device(self) -> int:
        """Read a device id, any 64 bits."""
        return self.number(8, most=(1 << 64) - 1)

    def raw(self, size: int) -> bytes:
        """Read exactly `size` bytes."""
        left = len(self._data) - self._at
        if size > left:
            raise MessageError(f"a field of {size} bytes where {left} are left", hint="the message was cut short")
        self._at += size
        return self._data[self._at - size : self._at]

    def text(self) -> str:
        """Read a text."""
        raw = self.raw(self.number(1))
        value = raw.decode("latin-1")
        check_text(value)
        return value

    def records(self, size: int, *, most: int = MAX_ROSTER) -> tuple[bytes, ...]:
        """Read a list of at most `most` records of `size` bytes."""
        count = self.number(4, most=most)
        block = self.raw(count * size)
        return tuple(block[start : start + size] for start in range(0, len(block), size))

    def ranks(self) -> tuple[tuple[int, ...], int]:
        """Read a set of roster ranks, ascending, and the size of the roster."""
        roster_size = self.number(4, most=MAX_ROSTER)
        bitmap = self.raw(-(-roster_size // 8))
        bits = format(int.from_bytes(bitmap, "big"), f"0{8 * len(bitmap)}b") if bitmap else ""
        if "1" in bits[roster_size:]:
            raise MessageError(f"a bitmap names ranks beyond a roster of {roster_size}", hint="check the peer")
        return tuple(rank for rank, bit in enumerate(bits) if bit == "1"), roster_size

    def end(self) -> None:
        """Refuse anything that follows."""
        left = len(self._data) - self._at
        if left:
            raise MessageError(f"{left} bytes follow the message's end", hint="check what the peer sent")


def check_text(value: str) -> None:
    """Refuse a text that has no single spelling.

    Raises
    ------
    MessageError
        If it is not one to `MAX_TEXT` printable ASCII characters.
    """
    if not (1 <= len(value) <= MAX_TEXT and value.isascii() and value.isprintable()):
        raise MessageError(
            f"a text of {len(value)} characters is not 1 to {MAX_TEXT} printable ASCII ones", hint="rename it"
        )
