"""The messages between devices, leader and helper as bytes (docs/formats/two-aggregators.md).

A body names its kind and the round's context, so that nothing that is signed fits another round or step. `from_bytes`
accepts one spelling and checks no signature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from itertools import pairwise
from typing import Annotated, ClassVar, Final

from palate.privacy.aggregators.admission import MAX_REGISTERED
from palate.privacy.aggregators.errors import AnswerRefused, RequestRefused
from palate.privacy.aggregators.sealing import Suite, sealed_size, suite_of
from palate.privacy.ledger.framing import digest
from palate.privacy.secagg.encoding import (
    HASH_SIZE,
    SIGNATURE,
    SIGNATURE_SIZE,
    DeviceNumber,
    Field,
    Hash,
    Kind,
    Message,
    Number,
    Reader,
    Text,
    header,
    raw,
    unsigned,
)

SALT_SIZE = 32
MARK_SIZE: Final = 8
CHAIN_LENGTH: Final = 8
CHAIN_SIZE: Final = MARK_SIZE * CHAIN_LENGTH
NO_SIGNATURE = bytes(SIGNATURE_SIZE)
_LENGTH_SIZE = 4

SIZED: Final = Field(
    lambda data: len(data).to_bytes(_LENGTH_SIZE, "big") + data,
    lambda reader: reader.raw(reader.number(_LENGTH_SIZE, most=1 << 32)),
)
"""Bytes behind their number."""

SEALED: Final = Field(bytes, lambda reader: reader.rest(SIGNATURE_SIZE))
"""All that stands before the signature: its length follows from the suite."""

_REQUEST = b"palate two aggregators request v1"
_ANSWER = b"palate two aggregators answer v1"
_TAG = b"palate two aggregators tag v1"


class Exclusion(IntEnum):
    """Why the helper leaves a report out; a byte of its answer."""

    NOT_REGISTERED = 1
    REVOKED = 2
    EXPIRED = 3
    TWICE = 4
    BAD_SIGNATURE = 5
    UNSEALABLE = 6
    FALSE_HEAD = 7
    LEDGER_WENT_BACK = 8


@dataclass(frozen=True, kw_only=True)
class Head(Message):
    """The end of the helper's ledger, as it signed it: devices keep the newest, and show it in their reports.

    Attributes
    ----------
    fleet
        Name of the fleet.
    sequence
        Answers that the helper has given; 0 before the first.
    answer_hash
        Hash of the newest, 32 bytes; zeros before the first.
    """

    kind: ClassVar[Kind] = Kind.HEAD
    fleet: Text
    sequence: Number
    answer_hash: Hash


@dataclass(frozen=True, kw_only=True)
class Report(Message):
    """What the helper sees of a device's report: no word of its vector, and nothing that tests a guess of one.

    Attributes
    ----------
    context
        ctx of the offer, 32 bytes.
    device
        Number of the device.
    tag
        Commitment to the masked words under a salt that the leader alone gets, 32 bytes.
    ledger_head
        Salted commitment to the head of the device's own ledger, 32 bytes.
    chain
        Marks of earlier reports of this device (`chain_of`), `CHAIN_SIZE` bytes.
    sequence, answer_hash, head_signature
        The newest head of the helper that the device has seen; zeros before the first.
    sealed
        The seed of the mask, sealed to the helper.
    """

    kind: ClassVar[Kind] = Kind.REPORT
    context: Hash
    device: DeviceNumber
    tag: Hash
    ledger_head: Hash
    chain: Annotated[bytes, raw(CHAIN_SIZE)]
    sequence: Number
    answer_hash: Hash
    head_signature: Annotated[bytes, SIGNATURE]
    sealed: Annotated[bytes, SEALED] = field(repr=False)

    def follows(self, last: bytes | None) -> bool:
        """Tell whether the device that made this report knows another one of its own.

        Parameters
        ----------
        last
            Mark of the newest report that was counted, 8 bytes; None before the first.
        """
        marks = {self.chain[at : at + MARK_SIZE] for at in range(0, CHAIN_SIZE, MARK_SIZE)}
        return last is None or last in marks or last == mark_of(self.ledger_head)

    @property
    def record(self) -> bytes:
        """The report in a request, where the context stands once: `record_size` bytes."""
        return self.to_bytes()[_RECORD_AT:]

    @staticmethod
    def from_record(record: bytes, context: bytes) -> Report:
        """Decode a report of a request, which has the context once."""
        return Report.from_bytes(header(Kind.REPORT) + context + record)


_RECORD_AT = len(header(Kind.REPORT)) + HASH_SIZE


def record_size(suite: Suite) -> int:
    """Bytes of one report in a request."""
    return 8 + 2 * HASH_SIZE + CHAIN_SIZE + 8 + HASH_SIZE + SIGNATURE_SIZE + sealed_size(suite) + SIGNATURE_SIZE


def report_size(suite: Suite) -> int:
    """Bytes of a report, with which an upload begins."""
    return _RECORD_AT + record_size(suite)


def record_in(upload: bytes, suite: Suite) -> bytes:
    """Return the report of an upload that was read before as it stands in a request, without reading it again."""
    return upload[_RECORD_AT : report_size(suite)]


def words_in(upload: bytes, suite: Suite) -> memoryview:
    """Return the packed words of an upload that was read before, without reading the rest again."""
    return memoryview(upload)[report_size(suite) + SALT_SIZE + _LENGTH_SIZE :]


@dataclass(frozen=True, kw_only=True)
class Upload:
    """What a device sends to the leader: the report, and what the helper must not see.

    Attributes
    ----------
    report
        The signed part.
    salt
        Opens the tag, 32 bytes.
    words
        The masked vector, packed.
    """

    report: Report
    salt: bytes = field(repr=False)
    words: bytes = field(repr=False)

    def to_bytes(self) -> bytes:
        """Encode the upload."""
        return self.report.to_bytes() + raw(SALT_SIZE).write(self.salt) + SIZED.write(self.words)

    @staticmethod
    def from_bytes(data: bytes, suite: Suite) -> Upload:
        """Decode an upload; MessageError if `to_bytes` would write other bytes."""
        reader = Reader(data, None)
        report = Report.from_bytes(reader.raw(report_size(suite)))
        upload = Upload(report=report, salt=reader.raw(SALT_SIZE), words=SIZED.read(reader))
        reader.end()
        return upload


def mark_of(ledger_head: bytes) -> bytes:
    """Return the short name of a report, by the commitment in it; 8 bytes."""
    return ledger_head[:MARK_SIZE]


def chain_of(receipted: bytes, made: Sequence[bytes]) -> bytes:
    """Return the marks that a device's next report has: by them its leader and its helper know that it did not go back.

    A device that was put back from a copy, or runs beside one, does not know the commitments of the newer reports, and
    cannot guess them. One whose receipts were lost knows them all the same.

    Parameters
    ----------
    receipted
        Commitment in the newest report of a round whose receipt came, 32 bytes; empty before the first.
    made
        Those in the reports that the device made last, newest first; at most `CHAIN_LENGTH` - 1 count.
    """
    marks = [mark_of(each).ljust(MARK_SIZE, b"\0") for each in (receipted, *made)[:CHAIN_LENGTH]]
    return b"".join(marks).ljust(CHAIN_SIZE, b"\0")


def tag_of(context: bytes, device: int, salt: bytes, words: bytes) -> bytes:
    """Commit to masked words, 32 bytes."""
    return digest(_TAG, context, device.to_bytes(8, "big"), salt, words)


@dataclass(frozen=True)
class Batch:
    """The reports of a request: `record_size(suite)` bytes each, by ascending device."""

    suite: Suite
    records: tuple[bytes, ...] = field(repr=False)


def _write_batch(batch: Batch) -> bytes:
    record = raw(record_size(batch.suite))
    return bytes([batch.suite]) + len(batch.records).to_bytes(4, "big") + b"".join(map(record.write, batch.records))


def _read_batch(reader: Reader) -> Batch:
    suite = suite_of(reader.number(1))
    size = record_size(suite)
    block = reader.raw(size * reader.number(4, most=MAX_REGISTERED))
    records = tuple(block[at : at + size] for at in range(0, len(block), size))
    if any(right[:8] < left[:8] for left, right in pairwise(records)):
        raise RequestRefused("the reports are not in order of their devices", hint="check the leader")
    return Batch(suite, records)


@dataclass(frozen=True, kw_only=True)
class Request(Message):
    """What the leader asks the helper: the offer, and all reports of the batch without words and salts.

    Attributes
    ----------
    offer
        The signed offer, as devices got it.
    batch
        The reports; a device with two has both, side by side.
    signature
        Of the leader.
    """

    kind: ClassVar[Kind] = Kind.COLLECTION_REQUEST
    offer: Annotated[bytes, SIZED]
    batch: Annotated[Batch, Field(_write_batch, _read_batch)] = field(repr=False)

    @cached_property
    def body(self) -> bytes:
        """What the leader signs."""
        return super().body

    @property
    def suite(self) -> Suite:
        """How seeds are sealed."""
        return self.batch.suite

    @property
    def records(self) -> tuple[bytes, ...]:
        """The reports, by ascending device."""
        return self.batch.records

    @cached_property
    def content_hash(self) -> bytes:
        """Hash that an answer names, 32 bytes."""
        return digest(_REQUEST, self.body)


def _write_excluded(excluded: tuple[tuple[int, Exclusion], ...]) -> bytes:
    places = b"".join(place.to_bytes(4, "big") + bytes([reason]) for place, reason in excluded)
    return len(excluded).to_bytes(4, "big") + places


def _read_excluded(reader: Reader) -> tuple[tuple[int, Exclusion], ...]:
    block = reader.raw(5 * reader.number(4, most=MAX_REGISTERED))
    found = [(int.from_bytes(block[at : at + 4], "big"), block[at + 4]) for at in range(0, len(block), 5)]
    ordered = all(left < right for (left, _), (right, _) in pairwise(found))
    if not ordered or any(reason not in tuple(Exclusion) for _, reason in found):
        raise AnswerRefused("the exclusions are not in order, or of an unknown reason", hint="check the helper")
    return tuple((place, Exclusion(reason)) for place, reason in found)


@dataclass(frozen=True, kw_only=True)
class Answer(Message):
    """What the helper answers: the sum of the accepted reports' masks, and who was left out and why.

    Attributes
    ----------
    sequence
        Number of this answer, from 1.
    previous
        Hash of the answer before, 32 bytes; zeros for the first.
    context
        ctx of the offer, 32 bytes.
    request_hash
        Hash of the request, 32 bytes.
    reports
        Reports in the request.
    excluded
        Place in the request and reason, by ascending place; all others are in the sum.
    mask_sum
        Sum of their masks modulo 2^b, packed.
    """

    kind: ClassVar[Kind] = Kind.ANSWER
    sequence: Number
    previous: Hash
    context: Hash
    request_hash: Hash
    reports: Annotated[int, unsigned(4, MAX_REGISTERED)]
    excluded: Annotated[tuple[tuple[int, Exclusion], ...], Field(_write_excluded, _read_excluded)]
    mask_sum: Annotated[bytes, SIZED] = field(repr=False)

    @cached_property
    def body(self) -> bytes:
        """What the helper signs."""
        return super().body

    @cached_property
    def content_hash(self) -> bytes:
        """Hash that the next answer, the head and the receipt name, 32 bytes."""
        return digest(_ANSWER, self.body)

    @property
    def accepted(self) -> int:
        """Reports in the sum."""
        return self.reports - len(self.excluded)


@dataclass(frozen=True, kw_only=True)
class LedgerNotice(Message):
    """Tells a device, in place of a call, that its report does not follow the newest one that was counted.

    Attributes
    ----------
    fleet
        Name of the fleet.
    report
        That newest report, as the device's own key signed it: no leader can make one up.
    """

    kind: ClassVar[Kind] = Kind.LEDGER_NOTICE
    fleet: Text
    report: Annotated[bytes, SIZED]


def _write_head(head: Head) -> bytes:
    data = head.to_bytes()
    return len(data).to_bytes(2, "big") + data


def _read_head(reader: Reader) -> Head:
    return Head.from_bytes(reader.raw(reader.number(2)))


@dataclass(frozen=True, kw_only=True)
class CollectionReceipt(Message):
    """What the leader tells devices of a round that is done.

    Attributes
    ----------
    context
        ctx of the offer, 32 bytes.
    answer_hash, sum_hash, table_hash
        Of the helper's answer, the sum's packed words and the new item table, 32 bytes each.
    log_index
        Where the leader's log has the round.
    head
        The helper's signed head after this answer: devices keep it.
    """

    kind: ClassVar[Kind] = Kind.COLLECTION_RECEIPT
    context: Hash
    answer_hash: Hash
    sum_hash: Hash
    table_hash: Hash
    log_index: Number
    head: Annotated[Head, Field(_write_head, _read_head)]
