"""A canonical encoding of messages: fixed-width binary fields after a magic number, a version and a type.

After the habits of C2SP formats: numbers are big-endian, lists and texts carry their length, sets are bitmaps over the
roster, and a reader refuses whatever would not have been written. Lengths are checked against the bytes that are there
before anything is allocated.

A message is a dataclass whose annotations say how each field is spelt, in the order of the bytes:

    server_round: Number
    sealed: Annotated[tuple[bytes, ...], records(82)]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Annotated, Any, ClassVar, Final, Self, get_type_hints

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from palate.privacy.ledger.framing import digest
from palate.privacy.secagg.errors import MessageError, SecureAggregationError

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
    ROUND_KEY = 13
    ADMISSION = 14
    REGISTER = 15
    COLLECTION_OFFER = 16
    ANSWER = 19
    HEAD = 20
    COLLECTION_RECEIPT = 21
    REVOCATION = 22
    COLLECTION_CALL = 23
    REPORT = 24
    COLLECTION_REQUEST = 25
    LEDGER_NOTICE = 26


def header(kind: Kind) -> bytes:
    """Return the six bytes that a message starts with."""
    return MAGIC + bytes([VERSION, kind])


class Reader:
    """Reads bytes field by field, and keeps count of what is left.

    Parameters
    ----------
    data
        The whole message, or one record of it.
    kind
        What the message has to be; None for a record, which has no header.

    Raises
    ------
    MessageError
        If it starts otherwise. So does every method if a field is cut short or out of range.
    """

    def __init__(self, data: bytes, kind: Kind | None) -> None:
        if not isinstance(data, bytes):
            raise MessageError(f"a message is bytes, not {type(data).__name__}", hint="pass what arrived")
        self._data = data
        self._at = 0
        if kind is None:
            return
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

    def raw(self, size: int) -> bytes:
        """Read exactly `size` bytes."""
        left = len(self._data) - self._at
        if size > left:
            raise MessageError(f"a field of {size} bytes where {left} are left", hint="the message was cut short")
        self._at += size
        return self._data[self._at - size : self._at]

    def rest(self, spare: int) -> bytes:
        """Read all but the last `spare` bytes."""
        return self.raw(max(0, len(self._data) - self._at - spare))

    def number(self, size: int = 8, *, most: int = MAX_NUMBER) -> int:
        """Read an unsigned integer of at most `most`."""
        value = int.from_bytes(self.raw(size), "big")
        if value > most:
            raise MessageError(f"{value} is above {most}", hint="check what the peer sent")
        return value

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


@dataclass(frozen=True)
class Field:
    """How a value is spelt: what writes it, and what reads it. Both raise MessageError for what has no spelling."""

    write: Callable[[Any], bytes]
    read: Callable[[Reader], Any]


@dataclass(frozen=True)
class Ranks:
    """Marks a set of roster ranks, ascending: the roster's size, which is `roster_size` of the message, and a bitmap.

    Rank 0 is the top bit of the first byte. Several sets of one message are over the same roster.
    """


@dataclass(frozen=True)
class PerRank:
    """Marks a tuple with one record of `size` bytes for each rank of an earlier field, without a length of its own."""

    ranks: str
    size: int


def unsigned(size: int = 8, most: int = MAX_NUMBER) -> Field:
    """Spell an unsigned big-endian integer of `size` bytes; one above `most` is not read."""

    def write(value: int) -> bytes:
        if not 0 <= value < 1 << (8 * size):
            raise MessageError(f"{value} is not within 0 ... {(1 << (8 * size)) - 1}", hint="check the value's source")
        return value.to_bytes(size, "big")

    return Field(write, lambda reader: reader.number(size, most=most))


def raw(size: int) -> Field:
    """Spell exactly `size` bytes."""

    def write(value: bytes) -> bytes:
        if len(value) != size:
            raise MessageError(f"a field of {size} bytes was given {len(value)}", hint="check the value's source")
        return bytes(value)

    return Field(write, lambda reader: reader.raw(size))


def records(size: int, most: int = MAX_ROSTER) -> Field:
    """Spell at most `most` records of `size` bytes each behind their number."""
    record, count = raw(size), unsigned(4, most)

    def read(reader: Reader) -> tuple[bytes, ...]:
        block = reader.raw(count.read(reader) * size)
        return tuple(block[start : start + size] for start in range(0, len(block), size))

    return Field(lambda values: count.write(len(values)) + b"".join(map(record.write, values)), read)


def _write_text(value: str) -> bytes:
    check_text(value)
    return bytes([len(value)]) + value.encode("ascii")


def _read_text(reader: Reader) -> str:
    value = reader.raw(reader.number(1)).decode("latin-1")
    check_text(value)
    return value


def bitmap(ranks: Iterable[int], roster_size: int) -> bytes:
    """Spell a set of roster ranks behind the size of the roster."""
    bits = bytearray(-(-roster_size // 8))
    for rank in ranks:
        if not 0 <= rank < roster_size:
            raise MessageError(f"rank {rank} is not on a roster of {roster_size}", hint="check the set's source")
        bits[rank >> 3] |= 0x80 >> (rank & 7)
    return unsigned(4).write(roster_size) + bytes(bits)


HASH: Final = raw(HASH_SIZE)
SIGNATURE: Final = raw(SIGNATURE_SIZE)
DEVICE: Final = unsigned(8, (1 << 64) - 1)
NUMBER: Final = unsigned()
TEXT: Final = Field(_write_text, _read_text)
"""One to `MAX_TEXT` printable ASCII characters behind their number."""

Hash = Annotated[bytes, HASH]
PublicKey = Annotated[bytes, raw(KEY_SIZE)]
DeviceNumber = Annotated[int, DEVICE]
Number = Annotated[int, NUMBER]
Text = Annotated[str, TEXT]
RankSet = Annotated[tuple[int, ...], Ranks()]


_LAYOUTS: dict[type, tuple[tuple[str, Field | Ranks | PerRank], ...]] = {}


def _layout(kind: type) -> tuple[tuple[str, Field | Ranks | PerRank], ...]:
    if kind not in _LAYOUTS:
        _LAYOUTS[kind] = tuple(
            (name, spelt)
            for name, hint in get_type_hints(kind, include_extras=True).items()
            for spelt in getattr(hint, "__metadata__", ())
            if isinstance(spelt, Field | Ranks | PerRank)
        )
    return _LAYOUTS[kind]


def write_fields(message: Any) -> bytes:
    """Spell all fields of a message or a record, in the order of their declaration."""
    parts = []
    for name, spelt in _layout(type(message)):
        value = getattr(message, name)
        match spelt:
            case Field():
                parts.append(spelt.write(value))
            case Ranks():
                parts.append(bitmap(value, message.roster_size))
            case PerRank(ranks, size):
                expected = len(getattr(message, ranks))
                if len(value) != expected:
                    raise MessageError(f"{len(value)} records for {expected} ranks", hint="give one for each")
                parts += map(raw(size).write, value)
    return b"".join(parts)


def read_fields(kind: type, reader: Reader) -> dict[str, Any]:
    """Read what `write_fields` wrote for a class: values by name."""
    found: dict[str, Any] = {}
    for name, spelt in _layout(kind):
        match spelt:
            case Field():
                found[name] = spelt.read(reader)
            case Ranks():
                found[name], size = reader.ranks()
                if found.setdefault("roster_size", size) != size:
                    raise MessageError("two sets are over rosters of different sizes", hint="check the peer")
            case PerRank(ranks, size):
                found[name] = tuple(reader.raw(size) for _ in found[ranks])
    return found


@dataclass(frozen=True, kw_only=True)
class Message:
    """A body, and the Ed25519 signature of its sender behind it.

    `from_bytes` accepts one spelling, and checks no signature.

    Attributes
    ----------
    signature
        Of the sender over the body, 64 bytes; empty until `signed`.
    """

    kind: ClassVar[Kind]
    signature: bytes = b""

    @property
    def body(self) -> bytes:
        """What the sender signs."""
        return header(self.kind) + write_fields(self)

    def to_bytes(self) -> bytes:
        """Encode the message.

        Raises
        ------
        MessageError
            If a field has the wrong size or range, or the message is not signed.
        """
        return self.body + SIGNATURE.write(self.signature)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode the message; MessageError if `to_bytes` would write other bytes."""
        reader = Reader(data, cls.kind)
        message = cls(**read_fields(cls, reader), signature=reader.raw(SIGNATURE_SIZE))
        reader.end()
        return message

    def signed(self, sign: Callable[[bytes], bytes]) -> Self:
        """Return the message with the signature that `sign` makes of the body."""
        return replace(self, signature=sign(self.body))

    def verify(self, key: Ed25519PublicKey | bytes, error: Callable[..., SecureAggregationError], message: str) -> None:
        """Check the signature under the sender's key.

        Raises
        ------
        SecureAggregationError
            Made by `error` from `message`, if it does not verify.
        """
        verify_signature(key, self.signature, self.body, error, message)


def to_sign(body: bytes) -> bytes:
    """Return what an Ed25519 signature over a message's body covers, 32 bytes; the body names its kind."""
    return digest(_SIGNED, body)


def verify_signature(
    key: Ed25519PublicKey | bytes,
    signature: bytes,
    body: bytes,
    error: Callable[..., SecureAggregationError],
    message: str,
) -> None:
    """Check the signature over a message's body.

    Raises
    ------
    SecureAggregationError
        Made by `error` from `message`, if it does not verify.
    """
    try:
        public = Ed25519PublicKey.from_public_bytes(key) if isinstance(key, bytes) else key
        public.verify(signature, to_sign(body))
    except (InvalidSignature, ValueError):
        raise error(message, hint="the signature is not valid under the pinned or enrolled key") from None


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
