"""A device's part under two aggregators: one report a round, and a receipt (docs/formats/two-aggregators.md).

The report is made once and kept; the same offer gets the same bytes for as long as the round is open. Seed and vector
are gone as soon as it is made. A device that was killed after the charge and before the report trains once more under
the same charge, for nothing can have left. Receipt or the offer's end closes the round.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from palate.client.fleet.limits import RoundUnwelcome
from palate.client.fleet.round_log import OPEN, RoundRecord
from palate.client.fleet.rounds import RoundOver, SecureRounds, name_of_head
from palate.client.fleet.seen import keep_seen, read_seen
from palate.client.vault import Vault
from palate.errors import PalateError
from palate.privacy.aggregators.call import CollectionCall
from palate.privacy.aggregators.device import Offered, check_notice, check_receipt, make_report
from palate.privacy.aggregators.offer import CollectionOffer
from palate.privacy.integer.ring import RingArray
from palate.privacy.ledger import canonical
from palate.privacy.ledger.anchors import Anchor
from palate.privacy.ledger.errors import BadProof
from palate.privacy.ledger.merkle import leaf_hash
from palate.privacy.secagg.encoding import Kind, header
from palate.privacy.wire import FleetMessage, FleetStep, RoundPlan

KIND_SIZE = len(header(Kind.REPORT))


class OldCopy(PalateError):
    """The leader has a newer report that this device's key signed and that this device does not know."""

    exit_code = 13


class ReportRounds(SecureRounds):
    """Answers a leader with reports whose masks a helper knows.

    Parameters
    ----------
    vault
        Where it is kept what was seen of leader and helper.
    parts
        As `SecureRounds`.
    """

    opening = FleetStep.REPORT
    steps = frozenset({FleetStep.REPORT})

    def __init__(self, *, vault: Vault, **parts: Any) -> None:
        super().__init__(**parts)
        parties = self._profile.welcome.parties
        assert parties is not None  # `Member.rounds` chooses the protocol by it
        self._parties = parties
        self._certificate = self._profile.welcome.admission
        self._vault = vault

    def _asked(self, message: FleetMessage) -> bytes:
        if message.body[:KIND_SIZE] == header(Kind.LEDGER_NOTICE):
            return message.body
        return CollectionCall.from_bytes(message.body).offer

    def _respond(self, message: FleetMessage, plan: RoundPlan | None) -> bytes:
        assert plan is not None  # `handle` has seen to it
        if message.body[:KIND_SIZE] == header(Kind.LEDGER_NOTICE):
            raise self._gone_back(message.body)
        call = CollectionCall.from_bytes(message.body)
        record = self._round_log.record(plan.run, plan.server_round)
        if record is not None and record.ended != OPEN:
            raise RoundOver(f"round {plan.server_round} of {plan.run} is over here", hint="wait for the next round")
        offered = self._checked(call)
        offered.offer.check_plan(plan)
        offer = call.offer.hex()
        begun = record is not None and (record.ended, record.offer) == (OPEN, offer)
        if begun:
            self._guard.check_heads(self._round_log.heads())
        else:
            self._check_welcome(plan, offered.offer)
        name = name_of_head(plan)
        assert plan.terms is not None  # `check_plan` has seen to it
        plan.terms.mechanism(plan.update_size)  # a plan that cannot be answered must not be charged
        history, head = self._history(), self._round_log.head(plan.run, name)
        if record is None or not begun:
            least, enrolled = offered.offer.least_batch, offered.register.size
            record = self._charge(plan, call.offer, least=least, enrolled=enrolled, anchored=True)
        else:
            kept = self._guard.begin(plan)  # it is charged: this only asks whether there are bytes
            if kept is not None:
                return kept
        contribution = self._trainer.contribute(plan, history, head)
        seen, own = read_seen(self._vault, self._parties), _commitment(record)
        report = make_report(
            offered,
            _within(contribution.vector, offered.offer.ring_bits),
            device=self._certificate.device,
            identity=self._keys.signing,
            ledger_head=own,
            seen=seen.head,
            chain=seen.chain(own),
        )
        keep_seen(self._vault, self._parties, made=seen.with_report(own))  # before it can leave
        self._keep(plan.run, plan.server_round, report, contribution.head, name)
        return report

    def _checked(self, call: CollectionCall) -> Offered:
        """Check all that is public: signatures, the keys of the invitation, the register's epoch, and the log."""
        welcome, limits = self._profile.welcome, self._profile.limits
        seen = read_seen(self._vault, self._parties)
        offered = Offered.checked(
            call.offer,
            call.register,
            call.round_key,
            parties=self._parties,
            fleet=welcome.fleet,
            gamma_thousandths=limits.least_gamma_thousandths,
            least_epoch=seen.epoch,
            now=self._round_log.now(),
        )
        ends = self._certificate.not_after
        if ends < offered.offer.answer_before:
            raise RoundUnwelcome(
                f"this device's admission ends at {ends}, before the answer is due at {offered.offer.answer_before}",
                hint="palate client join renews it when it starts; if that does not help, ask who admits devices",
            )
        log = call.log_head(welcome.fleet, self._parties, seen.log)
        self._check_logged(call)
        keep_seen(self._vault, self._parties, log=log, epoch=offered.register.epoch)
        return offered

    def _gone_back(self, notice: bytes) -> PalateError:
        """Return what to refuse with, where the leader says that this device does not know its newest report."""
        certificate = self._certificate
        report = check_notice(
            notice,
            self._parties,
            fleet=self._profile.welcome.fleet,
            device=certificate.device,
            identity=certificate.identity_key,
        )
        if report.ledger_head in read_seen(self._vault, self._parties).made:
            return RoundUnwelcome(
                "the server says that this device was put back, and shows a report that this device knows",
                hint="do not trust this server: tell whoever runs it",
            )
        return OldCopy(
            "another copy of this device has sent a newer report: this one was put back from a backup, or both run. "
            "It takes part no more, for what was spent since is missing in its ledger",
            hint="end the other copy and go on there; if there is none: palate client leave, and have the new request "
            "certified with --replaces, which carries what was spent",
        )

    def _check_logged(self, call: CollectionCall) -> None:
        """Check that the round of the last receipt is in the log, where the receipt said."""
        standing = self._round_log.standing()
        record = self._round_log.record(standing.receipt_run, standing.receipt_round)
        facts = {} if record is None else record.receipt
        if record is None or "answer_hash" not in facts:
            return
        leaf = canonical.encode(
            {
                "run": record.run,
                "round": record.server_round,
                "survivors": facts["answer_hash"],
                "total": facts["sum_hash"],
                "model": facts["model_hash"],
            }
        )
        index = facts["log_index"]
        if index >= len(call.leaves) or call.leaves[index] != leaf_hash(leaf):
            raise BadProof(
                f"round {record.server_round} of {record.run} is not in the leader's log, as its receipt said",
                hint="the leader shows different logs: keep the receipt, and report it",
            )

    def _verified(self, record: RoundRecord, body: bytes) -> dict[str, Any]:
        offer = CollectionOffer.open(bytes.fromhex(record.offer), self._parties.leader)
        late = self._round_log.is_overtaken(record)  # of an earlier round: its head is behind the newest, rightly
        seen = None if late else read_seen(self._vault, self._parties).head
        receipt = check_receipt(body, offer, self._parties, seen)
        if not late:
            keep_seen(self._vault, self._parties, head=receipt.head, receipted=_commitment(record))
        return {
            "answer_hash": receipt.answer_hash.hex(),
            "sum_hash": receipt.sum_hash.hex(),
            "model_hash": receipt.table_hash.hex(),
            "log_index": receipt.log_index,
            "helper_sequence": receipt.head.sequence,
        }

    def _close_expired(self) -> None:
        standing = self._round_log.standing()
        record = self._round_log.record(standing.run, standing.last_round)
        if record is None or record.ended != OPEN:
            return
        offer = CollectionOffer.open(bytes.fromhex(record.offer), self._parties.leader)
        if self._round_log.now() >= offer.answer_before:
            self._round_log.close(record.run, record.server_round, ended=self._ended(record))
            self._tell(record.run, record.server_round)

    def _abandon(self, run: str | None = None, server_round: int | None = None) -> None:
        """Do nothing: no part of a round is in memory only."""


def _commitment(record: RoundRecord) -> bytes:
    kept = record.anchor
    anchor = Anchor(kept["name"], kept["seq"], bytes.fromhex(kept["entry"]))
    return anchor.commit(bytes.fromhex(kept["salt"]))


def _within(vector: RingArray, bits: int) -> RingArray:
    """Reduce words to a ring of fewer bits; [update_size], uint32 up to 32 bits, else uint64."""
    if bits > 32:
        return vector.astype(np.uint64) & np.uint64((1 << bits) - 1)
    return (vector & vector.dtype.type((1 << bits) - 1)).astype(np.uint32)
