"""The leader's part: spool masked words, ask the helper once, and take the sum of masks off the sum of words.

A report counts once it is in the spool; nothing of it is needed in memory but where it lies. All of them are on disk
before the request is; until then a device whose report is lost is asked for the same bytes again. The request is frozen
before it is sent: what arrives later is `TooLate`. If the helper finds too few valid reports, the leader may go on
collecting; once it has answered, the round is over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Protocol

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.models.arrays import Int64Array
from palate.privacy.aggregators.admission import Membership, Parties
from palate.privacy.aggregators.errors import (
    AnswerRefused,
    LedgerWentBack,
    ReportRefused,
    SumImplausible,
    TooFewReports,
    TooLate,
    TwoReports,
)
from palate.privacy.aggregators.messages import (
    Answer,
    Batch,
    CollectionReceipt,
    Exclusion,
    Head,
    Request,
    Upload,
    record_in,
    report_size,
    tag_of,
    words_in,
)
from palate.privacy.aggregators.offer import CollectionOffer
from palate.privacy.aggregators.planes import PlaneSum, pack, unpack
from palate.privacy.aggregators.sealing import Suite
from palate.privacy.integer.ring import Ring
from palate.privacy.secagg.encoding import to_sign, verify_signature

_TAIL_DEVIATIONS = 12


class Spool(Protocol):
    """Where uploads lie until their round is over."""

    def put(self, device: int, upload: bytes) -> None:
        """Keep a device's upload; it survives the end of the process, and after `sync` that of the machine, too."""

    def sync(self) -> None:
        """Have everything on disk when this returns."""

    def get(self, device: int, most: int | None = None) -> bytes | None:
        """Return it, or its first `most` bytes; None if it is not here."""

    def devices(self) -> Iterator[int]:
        """Yield the devices whose uploads are here, in any order."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Collected:
    """What a collection gave.

    Attributes
    ----------
    integers
        The sum of the accepted vectors, int64 [d].
    accepted
        Reports in it.
    excluded
        Devices that the helper left out, with its reason.
    answer_hash, sum_hash
        For the receipt, 32 bytes each.
    """

    integers: Int64Array = field(repr=False)
    accepted: int
    excluded: dict[int, Exclusion]
    answer_hash: bytes
    sum_hash: bytes


class Collection:
    """One round on the leader.

    Parameters
    ----------
    offer
        The signed offer's contents, and its bytes as devices got them.
    membership
        The register that it names.
    suite
        How seeds are sealed.
    parties, key
        The keys of all, and the leader's own.
    spool
        Where uploads lie. A leader that was restarted passes the same spool and goes on.
    last
        For each device the mark of its newest report that was counted under its key (`Report.follows`).
    """

    def __init__(
        self,
        offer: CollectionOffer,
        offer_bytes: bytes,
        *,
        membership: Membership,
        suite: Suite,
        parties: Parties,
        key: Ed25519PrivateKey,
        spool: Spool,
        last: Mapping[int, bytes] | None = None,
    ) -> None:
        self.offer = offer
        self._offer_bytes = offer_bytes
        self._membership = membership
        self._suite = suite
        self._parties = parties
        self._key = key
        self._spool = spool
        self._last = last or {}
        self._places = set(spool.devices())
        self._frozen: Request | None = None

    def __len__(self) -> int:
        return len(self._places)

    def take(self, data: bytes, *, now: int, sender: int | None = None) -> None:
        """Check an upload and spool it; the same bytes again change nothing.

        Parameters
        ----------
        data
            The upload as it arrived.
        now
            The leader's clock, seconds since 1970.
        sender
            The device that the connection belongs to, where that is known.

        Raises
        ------
        MessageError, ReportRefused
            If it is not a report of this round by a registered device.
        LedgerWentBack
            If the device does not know its newest report that was counted.
        TwoReports
            If the device has sent another one before.
        TooLate
            If the round takes no more.
        """
        offer = self.offer
        upload = Upload.from_bytes(data, self._suite)
        report = upload.report
        if report.context != offer.context:
            raise ReportRefused("the report is for another offer", hint="ask for the open offer")
        if sender is not None and report.device != sender:
            raise ReportRefused("the report is another device's", hint="each device sends its own")
        entry = self._membership.entries.get(report.device)
        if entry is None or self._membership.is_revoked(entry) or now > entry.not_after:
            raise ReportRefused("the device is not registered, revoked, or its admission has ended", hint="renew it")
        if len(upload.words) != offer.words_size:
            raise ReportRefused(
                f"{len(upload.words)} bytes of words where the offer has {offer.words_size}", hint="update the device"
            )
        verify_signature(
            entry.identity_key, report.signature, report.body, ReportRefused, "the report is not signed by its device"
        )
        if tag_of(offer.context, report.device, upload.salt, upload.words) != report.tag:
            raise ReportRefused("the words are not those that the device signed for", hint="send the report again")
        if report.device in self._places:
            if self._spool.get(report.device) != data:
                raise TwoReports(f"device {report.device:016x} has sent another report", hint="remove the device")
            return
        if not report.follows(self._last.get(report.device)):
            raise LedgerWentBack(
                "the device does not know its newest report: it was put back from a copy, or runs beside one",
                hint="its owner is told what to do",
            )
        if self._frozen is not None or now >= offer.report_before:
            raise TooLate("the round takes no more reports", hint="take part in the next one")
        if len(self._places) >= offer.most_reports:
            raise TooLate(f"the round has its {offer.most_reports} reports", hint="take part in the next one")
        self._spool.put(report.device, data)
        self._places.add(report.device)

    def freeze(self) -> bytes:
        """Close the round for reports and return the signed request; the same bytes every time.

        Raises
        ------
        TooFewReports
            If there are fewer than the least batch.
        """
        if self._frozen is None:
            if len(self._places) < self.offer.least_batch:
                raise TooFewReports(
                    f"{len(self._places)} reports are here, the least batch is {self.offer.least_batch}",
                    valid=len(self._places),
                    least=self.offer.least_batch,
                    hint="wait for more",
                )
            self._spool.sync()  # before anybody is asked about them
            records = tuple(record_in(report, self._suite) for report in self.reports().values())
            self._frozen = Request(offer=self._offer_bytes, batch=Batch(self._suite, records)).signed(
                lambda body: self._key.sign(to_sign(body))
            )
        return self._frozen.to_bytes()

    def reports(self) -> dict[int, bytes]:
        """Return the signed reports that are here, by device."""
        size = report_size(self._suite)
        return {device: self._kept(device, size) for device in sorted(self._places)}

    def unfreeze(self) -> None:
        """Go on collecting, after the helper has found too few."""
        self._frozen = None

    def finish(self, data: bytes) -> Collected:
        """Check the helper's answer and take the masks off.

        Raises
        ------
        MessageError, AnswerRefused
            If it is not this helper's answer to this request.
        SumImplausible
            If the sum is larger than clipped vectors and their noise can be.
        """
        if self._frozen is None:
            raise AnswerRefused("no request was sent", hint="freeze the round first")
        answer = Answer.from_bytes(data)
        answer.verify(self._parties.helper, AnswerRefused, "the answer is not signed by this helper")
        request = self._frozen
        if answer.context != self.offer.context or answer.request_hash != request.content_hash:
            raise AnswerRefused("the answer is for another request", hint="send this round's request again")
        if answer.reports != len(request.records) or answer.accepted < self.offer.least_batch:
            raise AnswerRefused("the answer is for another number of reports", hint="tell the helper's operator")
        left_out = dict(answer.excluded)
        if any(place >= answer.reports for place in left_out):
            raise AnswerRefused("the answer leaves out reports that were not asked about", hint="tell its operator")
        total = PlaneSum(self.offer.vector_length, self.offer.ring_bits)
        excluded: dict[int, Exclusion] = {}
        for place, device in enumerate(sorted(self._places)):
            if place in left_out:
                excluded[device] = left_out[place]
            else:
                total.add(words_in(self._kept(device), self._suite))
        integers = self._unmasked(total, answer)
        words = pack(_reduced(integers, self.offer.ring_bits), self.offer.ring_bits)
        return Collected(
            integers=integers,
            accepted=answer.accepted,
            excluded=excluded,
            answer_hash=answer.content_hash,
            sum_hash=sha256(words).digest(),
        )

    def receipt(self, collected: Collected, *, table_hash: bytes, log_index: int, head: Head) -> bytes:
        """Sign what became of the round, for every device."""
        return (
            CollectionReceipt(
                context=self.offer.context,
                answer_hash=collected.answer_hash,
                sum_hash=collected.sum_hash,
                table_hash=table_hash,
                log_index=log_index,
                head=head,
            )
            .signed(lambda body: self._key.sign(to_sign(body)))
            .to_bytes()
        )

    def _unmasked(self, total: PlaneSum, answer: Answer) -> Int64Array:
        offer = self.offer
        masks = unpack(answer.mask_sum, offer.vector_length, offer.ring_bits).astype(np.uint64)
        difference = (total.words().astype(np.uint64) - masks) & np.uint64((1 << offer.ring_bits) - 1)
        integers = Ring(bits=offer.ring_bits).centre(difference)
        bound = answer.accepted * offer.sensitivity + _TAIL_DEVIATIONS * (
            math.isqrt(answer.accepted * offer.share_variance) + 1
        )
        largest = int(np.abs(integers).max())
        if largest > bound:
            raise SumImplausible(
                f"the sum reaches {largest}, {answer.accepted} vectors and their noise reach {bound}",
                hint="masks and words do not match: tell the helper's operator, and begin the next round",
            )
        return integers

    def _kept(self, device: int, most: int | None = None) -> bytes:
        data = self._spool.get(device, most)
        if data is None:
            raise ReportRefused(f"the report of device {device:016x} is gone from the spool", hint="restore the spool")
        return data


def _reduced(integers: Int64Array, bits: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return integers.view(np.uint64) & np.uint64((1 << bits) - 1)
