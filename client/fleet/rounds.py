"""A device's part in secure rounds: one message in, one answer out, whatever the server asks and whenever it asks.

Charge, train, aggregate: the ledger is charged before the history is touched, the masked vector is on disk before it
leaves, and the server's receipt closes the round (docs/formats/ledger.md). What was charged stays charged.

Here is what holds under every protocol. Sums among peers are in `palate.client.fleet.peer_rounds`, those under two
aggregators in `palate.client.fleet.reports`; the keys that a device pinned say which one its fleet has.
"""

from __future__ import annotations

import logging
import secrets
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, replace
from hashlib import sha256
from typing import Any, ClassVar

from pydantic import ValidationError

from palate.client.fleet.identity import DeviceKeys
from palate.client.fleet.limits import RoundUnwelcome, check_table
from palate.client.fleet.profile import FleetProfile
from palate.client.fleet.round_log import OPEN, RELEASED, WRITTEN_OFF, Answer, RoundLog, RoundRecord
from palate.client.fleet.worker import Trainer
from palate.client.guard import Guard
from palate.client.vault.heads import head_name
from palate.errors import PalateError
from palate.models.table import ItemTable
from palate.models.training import LocalTraining
from palate.privacy.accounting.events import Unit
from palate.privacy.accounting.filters import SkellamMeter
from palate.privacy.aggregators.offer import CollectionOffer
from palate.privacy.budget import SENSITIVITY
from palate.privacy.colluding import LeastSum
from palate.privacy.ledger.anchors import SALT_SIZE
from palate.privacy.ledger.body import charge_nano
from palate.privacy.ledger.errors import MalformedBody
from palate.privacy.ledger.framing import framed
from palate.privacy.secagg.errors import ReceiptRefused
from palate.privacy.secagg.offer import Offer
from palate.privacy.wire import FleetMessage, FleetStep, RoundPlan, WireError

log = logging.getLogger(__name__)

MAX_RUN_NAME = 128


class RoundOver(PalateError):
    """A step of a round that this device has not begun, or in which it takes no further part."""

    exit_code = 13


class SecureRounds(ABC):
    """Answers a fleet's server for one device.

    Parameters
    ----------
    profile
        The fleet and the owner's limits.
    keys
        The device's.
    guard
        Its ledger.
    round_log
        Its record of rounds.
    trainer
        Computes contributions.
    history
        Gives the keys of the person's items, oldest first, whenever a round begins.
    keep_table
        Takes a table that the server's signed receipts vouch for.
    watch
        Told of a round's record when it began, changed or ended.
    paused
        Asked before a round begins whether the owner wants none.
    meet_run
        Called with the name of a run that this device does not know; returns the profile in it, or None.
    """

    opening: ClassVar[FleetStep]
    """The step with which a round begins."""
    steps: ClassVar[frozenset[FleetStep]]
    """All steps of the protocol but the receipt."""

    def __init__(
        self,
        *,
        profile: FleetProfile,
        keys: DeviceKeys,
        guard: Guard,
        round_log: RoundLog,
        trainer: Trainer,
        history: Callable[[], list[str]],
        keep_table: Callable[[ItemTable], None],
        watch: Callable[[RoundRecord], None] = lambda _: None,
        paused: Callable[[], bool] = lambda: False,
        meet_run: Callable[[str], FleetProfile | None] = lambda _: None,
    ) -> None:
        self._profile = profile
        self._keys = keys
        self._guard = guard
        self._round_log = round_log
        self._trainer = trainer
        self._history = history
        self._keep_table = keep_table
        self._watch = watch
        self._paused = paused
        self._meet_run = meet_run
        self._lock = threading.Lock()
        self.finished_run: str | None = None

    def __repr__(self) -> str:
        return "SecureRounds(<private>)"

    def handle(
        self, message: FleetMessage, *, plan: RoundPlan | None = None, table: ItemTable | None = None
    ) -> FleetMessage:
        """Answer one step; the same step again gets the same bytes.

        Parameters
        ----------
        message
            The step, from the server.
        plan
            The round's plan: with the step that opens it, and with no other.
        table
            The run's final table: with the last RECEIPT, and with no other.

        Raises
        ------
        WireError
            If the parts of the message do not belong together.
        PrivacyError, PalateError
            If the ledger, the owner's limits or a check of the protocol refuses; the owner finds the reason in the
            record, the server does not.
        """
        if not 1 <= len(message.run) <= MAX_RUN_NAME or not (message.run.isascii() and message.run.isprintable()):
            raise WireError(f"a run's name must be 1 to {MAX_RUN_NAME} printable ASCII characters")
        if (plan is not None) != message.step.opens_a_round:
            raise WireError(f"{message.step}: a plan comes with the step that opens a round, and with nothing else")
        if table is not None and message.step is not FleetStep.RECEIPT:
            raise WireError(f"{message.step}: a table comes with {FleetStep.RECEIPT}, and with nothing else")
        with self._lock:
            try:
                with self._guard.held():
                    self._close_expired()
                    last = message.step is FleetStep.RECEIPT
                    body = self._receipt(message, table) if last else self._step(message, plan)
            except PalateError as error:
                log.warning("round %d of %s refused: %s", message.server_round, message.run, error.message)
                self._round_log.refused(message.run, message.server_round, error.message)
                raise
        return FleetMessage(step=message.step, run=message.run, server_round=message.server_round, body=body)

    def close(self) -> None:
        """End the worker and drop the keys of the round under way; what is open stays so."""
        self._trainer.close()
        with self._lock:
            self._abandon()

    @abstractmethod
    def _asked(self, message: FleetMessage) -> bytes:
        """Return what, beside the plan, makes a step the same question, if it comes again."""

    @abstractmethod
    def _respond(self, message: FleetMessage, plan: RoundPlan | None) -> bytes:
        """Answer a step that was not answered before."""

    @abstractmethod
    def _verified(self, record: RoundRecord, body: bytes) -> dict[str, Any]:
        """Check a receipt, and return what it says."""

    @abstractmethod
    def _abandon(self, run: str | None = None, server_round: int | None = None) -> None:
        """Drop what is in memory of a round, or of any."""

    @abstractmethod
    def _close_expired(self) -> None:
        """Close a round that can end no other way any more."""

    def _step(self, message: FleetMessage, plan: RoundPlan | None) -> bytes:
        run, number, step = message.run, message.server_round, message.step
        if step not in self.steps:
            raise RoundUnwelcome(
                f"{step} is no step of the protocol for which this device has keys", hint="do not trust this server"
            )
        planned = plan.content_hash.encode() if plan is not None else b""
        request = sha256(framed(str(step).encode(), planned, self._asked(message))).digest()
        kept = self._round_log.answer(run, number, step)
        if kept is not None:
            if kept.request == request:
                return kept.body
            self._abandon(run, number)
            raise RoundOver(
                f"{step} of round {number} was asked for twice, with different contents",
                hint="do not trust this server",
            )
        if plan is not None and (plan.run, plan.server_round) != (run, number):
            raise WireError(f"the plan is for round {plan.server_round} of {plan.run}, the message for another")
        if plan is not None and (self._profile.notice is None or self._profile.notice.run != run):
            self._follow(run)
        body = self._respond(message, plan)
        self._round_log.keep_answer(run, number, step, Answer(request, body))
        self._tell(run, number)
        return body

    def _follow(self, run: str) -> None:
        """Learn what a run plans that this device does not know, and over which items."""
        profile = self._meet_run(run)
        if profile is not None:
            self._profile = profile
            self._trainer.use_catalogue(profile.welcome.catalogue_sha256)

    def _check_welcome(self, plan: RoundPlan, offer: Offer | CollectionOffer) -> None:
        """Check a plan whose signed offer was checked: the ledger's end, the order of rounds, the owner's limits."""
        self._guard.check_heads(self._round_log.heads())
        self._check_order(plan)
        if self._paused():
            raise RoundUnwelcome("the owner has paused this device", hint="go on with palate client pause --off")
        self._profile.limits.check(
            plan,
            offer,
            num_items=self._profile.welcome.num_items,
            began_lately=self._round_log.began_lately(),
            parties=self._profile.parties,
        )

    def _charge(
        self, plan: RoundPlan, offer: bytes, *, least: int, enrolled: int, anchored: bool = False
    ) -> RoundRecord:
        """Charge a round, and close those before it; nothing is charged where anything refuses.

        Parameters
        ----------
        plan, offer
            What is asked.
        least, enrolled
            Fewest vectors in the sum, and devices that the server may choose from (`LeastSum`).
        anchored
            Keep the ledger's end with a fresh salt, for a report that commits to it.
        """
        self._guard.check(plan)
        self._abandon()
        close_rounds(self._guard, self._round_log, self._watch)
        self._guard.begin(plan)
        heads = self._guard.heads()
        assert plan.terms is not None  # `limits.check` has seen to it
        worst = LeastSum(
            sensitivity=plan.terms.sensitivity,
            share_variance=plan.terms.share_variance,
            least=least,
            enrolled=enrolled,
        )
        record = replace(self._record(plan, offer), least_sum=asdict(worst))
        if anchored:
            salt = secrets.token_hex(SALT_SIZE)
            end = heads[0]
            record = replace(record, anchor={"name": end.name, "seq": end.seq, "entry": end.entry.hex(), "salt": salt})
        self._round_log.begin(record, heads, training=plan.training, columns=plan.columns)
        self._keep_chained(plan)
        return record

    def _keep(self, run: str, server_round: int, masked: bytes, head: bytes | None, name: str) -> None:
        """Put the bytes that carry the vector on disk, and then the head that was learned with it."""
        self._guard.persist(run, server_round, masked)
        if head is not None:  # only now: a head of a round that was not kept would not have been charged
            self._round_log.keep_head(run, name, head)

    def _receipt(self, message: FleetMessage, table: ItemTable | None) -> bytes:
        run, number = message.run, message.server_round
        record = self._round_log.record(run, number)
        if record is None:
            raise RoundOver(f"round {number} of {run} was never begun here", hint="nothing to do")
        facts = self._verified(record, message.body)
        if record.receipt and any(record.receipt[name] != facts[name] for name in facts if name != "confirmed"):
            raise ReceiptRefused(
                f"the server signed two different receipts for round {number} of {run}", hint="keep both, and report it"
            )
        if table is not None:
            if self._round_log.is_overtaken(record):
                raise RoundUnwelcome(
                    f"a final table came for round {number} of {run}, and the receipt of a later round is here",
                    hint="the server is putting an old table back",
                )
            self._take_final(table, facts["model_hash"])
        ended = record.ended
        if ended == OPEN:
            ended = self._ended(record, receipt=message.body)
        self._round_log.keep_receipt(run, number, record.receipt or facts, last=table is not None)
        self._round_log.close(run, number, ended=ended)
        self._abandon(run, number)
        if table is not None:
            self.finished_run = run
        self._tell(run, number)
        return b""

    def _ended(self, record: RoundRecord, receipt: bytes = b"") -> str:
        """Close a round in the ledger, and say how it ended."""
        return _end(self._guard, record, receipt)

    def _take_final(self, table: ItemTable, model_hash: str) -> None:
        if table.content_hash != model_hash:
            raise RoundUnwelcome(
                f"the final table has the hash {table.content_hash[:16]}, the receipt says {model_hash[:16]}",
                hint="do not trust this server",
            )
        check_table(table, self._profile.welcome.num_items)
        self._keep_table(table)

    def _check_order(self, plan: RoundPlan) -> None:
        last = self._guard.last_round(plan.run)
        if plan.server_round <= last:
            raise RoundOver(
                f"round {plan.server_round} of {plan.run} was begun before, or comes after round {last}",
                hint="a round that failed is planned again under the next number",
            )
        standing = self._round_log.standing()
        follows = standing.receipt_run == plan.run and standing.receipt_round == plan.server_round - 1
        if follows and plan.table_hash != standing.model_hash:
            raise RoundUnwelcome(
                f"round {plan.server_round} comes with table {plan.table_hash[:16]}, the receipt before it vouches for "
                f"{standing.model_hash[:16]}",
                hint="do not trust this server",
            )

    def _keep_chained(self, plan: RoundPlan) -> None:
        """Keep a table that the last receipt vouches for, or the notice of the run for its first.

        A full disk is no reason to miss a round that is charged.
        """
        standing, notice = self._round_log.standing(), self._profile.notice
        vouched = {(standing.receipt_run, standing.model_hash)}
        if notice is not None:
            vouched.add((notice.run, notice.table_hash))
        if (plan.run, plan.table_hash) not in vouched:
            return
        try:
            self._keep_table(ItemTable(plan.fixed, plan.learned))
        except PalateError as error:
            log.error("the table of round %d was not kept: %s", plan.server_round, error.message)

    def _record(self, plan: RoundPlan, offer: bytes) -> RoundRecord:
        terms, delta, meter = plan.terms, self._profile.limits.delta, SkellamMeter(SENSITIVITY)
        assert terms is not None
        spent = self._guard.spent_nano(Unit.USER)
        try:
            alone = meter.epsilon(charge_nano(terms.sensitivity, terms.share_variance), delta)
        except MalformedBody:  # next to no noise of its own
            alone = float("inf")
        return RoundRecord(
            run=plan.run,
            server_round=plan.server_round,
            purpose=plan.purpose,
            offer=offer.hex(),
            plan_hash=plan.content_hash,
            table_hash=plan.table_hash,
            began=self._round_log.now(),
            epsilon=meter.epsilon(charge_nano(terms.sensitivity, terms.sum_variance), delta),
            total_epsilon=meter.epsilon(spent, delta),
            local_epsilon=alone,
        )

    def _tell(self, run: str, server_round: int) -> None:
        record = self._round_log.record(run, server_round)
        if record is None:
            return
        try:
            self._watch(record)
        except OSError as error:  # whoever was reading has gone; the round goes on
            log.warning("nobody is told of round %d: %s", server_round, type(error).__name__)


def close_rounds(guard: Guard, round_log: RoundLog, watch: Callable[[RoundRecord], None] = lambda _: None) -> None:
    """Close every round that is open, in the ledger and in the record of rounds; what was charged stays charged."""
    for record in round_log.records():
        if record.ended == OPEN:
            ended = _end(guard, record)
            round_log.close(record.run, record.server_round, ended=ended)
            watch(replace(record, ended=ended))
    guard.settle()  # a round that was charged just before the device was killed is in no record


def _end(guard: Guard, record: RoundRecord, receipt: bytes = b"") -> str:
    released = guard.finish(record.run, record.server_round, receipt=receipt) or record.vector_sent is not None
    return RELEASED if released else WRITTEN_OFF


def name_of_head(plan: RoundPlan) -> str:
    """Name of the score model's head in the vault; WireError if the plan's model has none that could be one."""
    try:
        training = LocalTraining.model_validate_json(plan.training)
    except ValidationError as error:
        raise WireError(f"plan: {error.error_count()} training parameters are not valid") from error
    if len(training.model) > 32 or not training.model.isidentifier():
        raise WireError("plan: the score model's name cannot be one")
    return head_name(training)
