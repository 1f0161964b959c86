"""The helper's part: one answer a round, with the sum of the masks of all valid reports, and a named reason for others.

The order of the checks is the protocol's: who asks, was this round answered before, is the offer what it says, then
every report, and only then is anything opened. A refusal reveals nothing and uses nothing up. The answer is durable
and anchored before it is sent, and the round's private key is destroyed in between.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from palate.privacy.aggregators.admission import Entry, Membership, Parties, key_number
from palate.privacy.aggregators.device import mask_bytes
from palate.privacy.aggregators.errors import (
    AlreadyCollected,
    HelperRestored,
    RequestRefused,
    RoundKeyGone,
    TooFewReports,
)
from palate.privacy.aggregators.messages import NO_SIGNATURE, Answer, Exclusion, Head, Report, Request, mark_of
from palate.privacy.aggregators.offer import CollectionOffer
from palate.privacy.aggregators.planes import PlaneSum, pack
from palate.privacy.aggregators.sealing import Opener, RoundKey, RoundSecret
from palate.privacy.secagg.encoding import HASH_SIZE, to_sign


class HelperBook(Protocol):
    """What the helper remembers. Every method that writes is durable when it returns."""

    def head(self) -> tuple[int, bytes]:
        """Return the number of answers given and the hash of the newest, 32 bytes; zeros before the first."""

    def answered(self, context: bytes) -> tuple[bytes, bytes] | None:
        """Return hash of the request and the bytes of the answer of a round, or None."""

    def round_secret(self, round_key_hash: bytes) -> tuple[RoundKey, RoundSecret] | None:
        """Return a round's key while its private half is there, or None."""

    def membership(self, register_hash: bytes) -> Membership:
        """Return a register that was checked, with its list and the newest revocation.

        Raises
        ------
        RegisterRefused
            If it is not here.
        """

    def last_reports(self) -> dict[int, tuple[int, bytes]]:
        """Return for each device the number of its key and the mark of the newest report that was counted."""

    def record(
        self,
        offer: CollectionOffer,
        request_hash: bytes,
        answer: Answer,
        counted: Mapping[int, tuple[int, bytes]],
    ) -> None:
        """Write an answer, the new head, and the newest reports, as `last_reports` has them, in one transaction."""

    def anchor(self) -> None:
        """Copy the newest head to where a restored backup does not reach, unless it is there."""

    def destroy(self, round_key_hash: bytes) -> None:
        """Destroy the private half of a round's key."""


MOST_WORDS = 1 << 24
"""A million items with 16 learned columns; 128 MiB."""


@dataclass(frozen=True, eq=False)
class Helper:
    """The second aggregator.

    Attributes
    ----------
    fleet
        Name of the fleet.
    key
        Its Ed25519 key, which devices pin.
    parties
        The keys of all.
    book
        What it remembers.
    most_words
        The longest vector that it adds up masks of. The sum is laid out whole, at some 8 bytes a word, and the leader
        names the length.
    """

    fleet: str
    key: Ed25519PrivateKey = field(repr=False)
    parties: Parties
    book: HelperBook
    most_words: int = MOST_WORDS

    def head(self) -> Head:
        """Sign the end of the ledger as it is now."""
        sequence, answer_hash = self.book.head()
        return Head(fleet=self.fleet, sequence=sequence, answer_hash=answer_hash).signed(self._sign)

    def answer(self, data: bytes, *, now: int, progress: Callable[[int, int], None] | None = None) -> bytes:
        """Answer a request, or refuse it.

        Parameters
        ----------
        data
            The request as it arrived.
        now
            The helper's clock, seconds since 1970.
        progress
            Told how many reports of how many are done.

        Raises
        ------
        MessageError, RequestRefused, OfferRefused
            If the request or its offer is not what it must be.
        AlreadyCollected
            If another request for this round was answered.
        RoundKeyGone
            If the round's private key is not there any more.
        RegisterRefused
            If the register that the offer names was not checked here.
        TooFewReports
            If fewer reports are valid than the least batch.
        HelperRestored
            If a device proves a newer head of this helper than its own book has.
        """
        request = Request.from_bytes(data)
        request.verify(self.parties.leader, RequestRefused, "the request is not signed by this leader")
        offer = CollectionOffer.open(request.offer, self.parties.leader)
        before = self.book.answered(offer.context)
        if before is not None:
            request_hash, answer = before
            if request_hash != request.content_hash:
                raise AlreadyCollected(
                    f"round {offer.server_round} of run {offer.run} was answered to another request",
                    hint="a round is collected once; begin the next one",
                )
            self.book.anchor()  # a crash may have come between the answer and these
            self.book.destroy(offer.round_key_hash)
            return answer
        if offer.vector_length > self.most_words:
            raise RequestRefused(
                f"an offer for vectors of {offer.vector_length:,} words, this helper takes {self.most_words:,} at most",
                hint="if the fleet's list of items is really that long, raise most_words in helper.toml",
            )
        kept = self.book.round_secret(offer.round_key_hash)
        if kept is None:
            raise RoundKeyGone(
                f"the key of round {offer.server_round} is not here", hint="it was destroyed, or a backup was restored"
            )
        round_key, secret = kept
        membership = self.book.membership(offer.register_hash)
        offer.check_names(register=membership.register, round_key=round_key, parties=self.parties)
        if now >= offer.answer_before:
            self.book.destroy(offer.round_key_hash)
            raise RoundKeyGone(f"the offer ended at {offer.answer_before}", hint="begin the next round")
        if request.suite is not round_key.key.suite or len(request.records) > offer.most_reports:
            raise RequestRefused("the request is of another suite, or too large", hint="check the leader")
        reports = [Report.from_record(record, offer.context) for record in request.records]
        excluded = self._screened(reports, membership, offer, now)
        self._require_batch(len(reports) - len(excluded), offer)
        total = self._summed(reports, excluded, offer, secret.opener(), progress)
        self._require_batch(len(reports) - len(excluded), offer)
        sequence, previous = self.book.head()
        made = Answer(
            sequence=sequence + 1,
            previous=previous,
            context=offer.context,
            request_hash=request.content_hash,
            reports=len(reports),
            excluded=tuple(sorted(excluded.items())),
            mask_sum=pack(total.words(), offer.ring_bits),
        ).signed(self._sign)
        counted = {
            report.device: (key_number(membership.entries[report.device].identity_key), mark_of(report.ledger_head))
            for place, report in enumerate(reports)
            if place not in excluded
        }
        self.book.record(offer, request.content_hash, made, counted)
        self.book.anchor()
        self.book.destroy(offer.round_key_hash)
        return made.to_bytes()

    def head_after(self, answer: bytes) -> Head:
        """Sign the head as it was right after one of this helper's answers, for the receipt of its round."""
        made = Answer.from_bytes(answer)
        return Head(fleet=self.fleet, sequence=made.sequence, answer_hash=made.content_hash).signed(self._sign)

    def _sign(self, body: bytes) -> bytes:
        return self.key.sign(to_sign(body))

    def _screened(
        self, reports: list[Report], membership: Membership, offer: CollectionOffer, now: int
    ) -> dict[int, Exclusion]:
        """Find the reports that do not count, by place; verifies every signature and opens nothing."""
        times = Counter(report.device for report in reports)
        sequence, _ = self.book.head()
        last = self.book.last_reports()
        signed: dict[Head, bool] = {}  # most devices show the same head
        excluded: dict[int, Exclusion] = {}
        for place, report in enumerate(reports):
            reason = _reason(report, membership, offer, now)
            if reason is None and times[report.device] > 1:
                reason = Exclusion.TWICE
            if reason is None and not _claims_nothing(report):
                seen = Head(
                    fleet=self.fleet,
                    sequence=report.sequence,
                    answer_hash=report.answer_hash,
                    signature=report.head_signature,
                )
                if seen not in signed:
                    signed[seen] = _verifies(self.parties.helper, seen.signature, seen.body)
                if not signed[seen]:
                    reason = Exclusion.FALSE_HEAD
                elif report.sequence > sequence:
                    raise HelperRestored(
                        f"a device has seen answer {report.sequence} of this helper, its own book ends at {sequence}",
                        hint="an old state was put back: restore the newest, or end this fleet and begin another",
                    )
            if reason is None and report.device in last:
                key, mark = last[report.device]
                same_key = key == key_number(membership.entries[report.device].identity_key)
                if same_key and not report.follows(mark):
                    reason = Exclusion.LEDGER_WENT_BACK
            if reason is not None:
                excluded[place] = reason
        return excluded

    def _summed(
        self,
        reports: list[Report],
        excluded: dict[int, Exclusion],
        offer: CollectionOffer,
        opener: Opener,
        progress: Callable[[int, int], None] | None,
    ) -> PlaneSum:
        """Open the seeds and add up their masks; what does not open joins the excluded."""
        total = PlaneSum(offer.vector_length, offer.ring_bits)
        for place, report in enumerate(reports):
            if place in excluded:
                continue
            seed = opener.open(report.sealed, context=offer.context, device=report.device)
            if seed is None:
                excluded[place] = Exclusion.UNSEALABLE
                continue
            total.add(mask_bytes(seed, offer, report.device))
            if progress is not None:
                progress(place + 1, len(reports))
        return total

    @staticmethod
    def _require_batch(valid: int, offer: CollectionOffer) -> None:
        if valid < offer.least_batch:
            raise TooFewReports(
                f"{valid} reports are valid, the least batch is {offer.least_batch}",
                valid=valid,
                least=offer.least_batch,
                hint="wait for more reports, or let the round end",
            )


def _reason(report: Report, membership: Membership, offer: CollectionOffer, now: int) -> Exclusion | None:
    entry: Entry | None = membership.entries.get(report.device)
    if entry is None:
        return Exclusion.NOT_REGISTERED
    if membership.is_revoked(entry):
        return Exclusion.REVOKED
    if now > entry.not_after or offer.issued_at > entry.not_after:
        return Exclusion.EXPIRED
    return None if _verifies(entry.identity_key, report.signature, report.body) else Exclusion.BAD_SIGNATURE


def _claims_nothing(report: Report) -> bool:
    return (report.sequence, report.answer_hash, report.head_signature) == (0, bytes(HASH_SIZE), NO_SIGNATURE)


def _verifies(key: bytes, signature: bytes, body: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, to_sign(body))
    except (InvalidSignature, ValueError):
        return False
    return True
