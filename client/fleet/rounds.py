"""A device's part in secure rounds: one message in, one answer out, whatever the server asks and whenever it asks.

Charge, train, aggregate: the ledger is charged before the history is touched, the masked vector is on disk before it
leaves, and the server's receipt closes the round (docs/formats/ledger.md; Bonawitz et al. 2017 for the steps between).
Keys of a round live in memory only: a device that was killed sends again what it had sent, and no more. What was
charged stays charged.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Final

from pydantic import ValidationError

from palate.client.fleet.identity import DeviceKeys
from palate.client.fleet.limits import RoundUnwelcome, check_table
from palate.client.fleet.profile import FleetProfile
from palate.client.fleet.round_log import OPEN, RELEASED, WRITTEN_OFF, Answer, RoundLog, RoundRecord
from palate.client.fleet.worker import Contribution, Trainer
from palate.client.guard import Guard
from palate.client.vault.heads import head_name
from palate.errors import PalateError
from palate.models.table import ItemTable
from palate.models.training import LocalTraining
from palate.privacy.accounting.events import Unit
from palate.privacy.accounting.filters import SkellamMeter
from palate.privacy.budget import SENSITIVITY
from palate.privacy.ledger.body import charge_nano
from palate.privacy.ledger.errors import MalformedBody
from palate.privacy.ledger.framing import framed
from palate.privacy.secagg.device import DeviceRound
from palate.privacy.secagg.errors import ReceiptRefused
from palate.privacy.secagg.keys import DeviceIdentity, EnrolmentCertificate
from palate.privacy.secagg.messages import Receipt
from palate.privacy.secagg.offer import Offer
from palate.privacy.wire import FleetMessage, FleetStep, RoundPlan, WireError

log = logging.getLogger(__name__)

MAX_RUN_NAME = 128

_SAME: Final = ("sets_hash", "sum_hash", "model_hash", "log_index")


class RoundOver(PalateError):
    """A step of a round that this device has not begun, or in which it takes no further part."""

    exit_code = 13


@dataclass(eq=False)
class _Live:
    """The one round that is under way in this process."""

    run: str
    server_round: int
    round: DeviceRound
    contribution: Contribution | None = field(repr=False)
    head_name: str = ""


class SecureRounds:
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
    """

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
    ) -> None:
        self._profile = profile
        self._identity = DeviceIdentity(profile.welcome.enrolment, keys.signing)
        self._guard = guard
        self._round_log = round_log
        self._trainer = trainer
        self._history = history
        self._keep_table = keep_table
        self._watch = watch
        self._paused = paused
        self._known: dict[int, EnrolmentCertificate] = {}
        self._live: _Live | None = None
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
            The round's plan: with ADVERTISE, and with no other.
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
        if (plan is not None) != (message.step is FleetStep.ADVERTISE):
            raise WireError(f"{message.step}: a plan comes with {FleetStep.ADVERTISE}, and with nothing else")
        if table is not None and message.step is not FleetStep.RECEIPT:
            raise WireError(f"{message.step}: a table comes with {FleetStep.RECEIPT}, and with nothing else")
        with self._lock:
            try:
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
            self._drop_live()

    def _step(self, message: FleetMessage, plan: RoundPlan | None) -> bytes:
        run, number, step = message.run, message.server_round, message.step
        asked = plan.content_hash.encode() if plan is not None else b""
        request = sha256(framed(str(step).encode(), asked, message.body)).digest()
        kept = self._round_log.answer(run, number, step)
        if kept is not None:
            if kept.request == request:
                return kept.body
            self._drop_live(run, number)
            raise RoundOver(
                f"{step} of round {number} was asked for twice, with different contents",
                hint="do not trust this server",
            )
        body = self._go_on(message) if plan is None else self._advertise(message, plan)
        self._round_log.keep_answer(run, number, step, Answer(request, body))
        self._tell(run, number)
        return body

    def _advertise(self, message: FleetMessage, plan: RoundPlan) -> bytes:
        if (plan.run, plan.server_round) != (message.run, message.server_round):
            raise WireError(f"the plan is for round {plan.server_round} of {plan.run}, the message for another")
        welcome, limits = self._profile.welcome, self._profile.limits
        # Nothing that is not signed by the pinned server goes beyond this line.
        offer = Offer.open(message.body, self._profile.server_key)
        offer.check_plan(plan)
        self._guard.check_heads(self._round_log.heads())
        self._check_order(plan)
        if self._paused():
            raise RoundUnwelcome("the owner has paused this device", hint="go on with palate client pause --off")
        limits.check(plan, offer, num_items=welcome.num_items, began_lately=self._round_log.began_lately())
        name_of_head = _head_name(plan)
        round_ = DeviceRound(
            message.body,
            plan_hash=plan.content_hash,
            identity=self._identity,
            server_key=self._profile.server_key,
            authority_key=self._profile.authority_key,
            policy=self._profile.policy,
            known=self._known,
        )
        assert plan.terms is not None  # `limits.check` has seen to it
        plan.terms.mechanism(plan.update_size)  # a plan that cannot be answered must not be charged
        history, head = self._history(), self._round_log.head(plan.run, name_of_head)
        self._guard.check(plan)
        self._drop_live()
        close_rounds(self._guard, self._round_log, self._watch)
        self._guard.begin(plan)
        self._round_log.begin(
            self._record(plan, message.body), self._guard.heads(), training=plan.training, columns=plan.columns
        )
        self._keep_chained(plan)
        contribution = self._trainer.contribute(plan, history, head)
        advert = round_.advertise()
        self._live = _Live(plan.run, plan.server_round, round_, contribution, name_of_head)
        return advert

    def _go_on(self, message: FleetMessage) -> bytes:
        live = self._live
        if live is None or (live.run, live.server_round) != (message.run, message.server_round):
            raise RoundOver(
                f"round {message.server_round} of {message.run} is not under way here: its keys are gone or never were",
                hint="wait for the next round",
            )
        match message.step:
            case FleetStep.SHARE:
                return live.round.share(message.body)
            case FleetStep.MASK:
                return self._mask(live, message.body)
            case FleetStep.CONFIRM:
                return live.round.confirm(message.body)
            case FleetStep.REVEAL:
                return live.round.reveal(message.body)
            case _:
                raise WireError(f"{message.step} is no step of a round that is under way")

    def _mask(self, live: _Live, inbox: bytes) -> bytes:
        contribution = live.contribution
        if contribution is None:
            raise RoundOver(f"round {live.server_round}: its vector is gone", hint="wait for the next round")
        masked = live.round.mask(inbox, contribution.vector)
        live.contribution = None
        self._guard.persist(live.run, live.server_round, masked)
        if contribution.head is not None:  # only now: a head of a round that was not kept would not have been charged
            self._round_log.keep_head(live.run, live.head_name, contribution.head)
        return masked

    def _receipt(self, message: FleetMessage, table: ItemTable | None) -> bytes:
        run, number = message.run, message.server_round
        record = self._round_log.record(run, number)
        if record is None:
            raise RoundOver(f"round {number} of {run} was never begun here", hint="nothing to do")
        facts = self._verified(record, message.body)
        if record.receipt and any(record.receipt[name] != facts[name] for name in _SAME):
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
            released = self._guard.finish(run, number, receipt=message.body) or FleetStep.MASK in record.sent
            ended = RELEASED if released else WRITTEN_OFF
        self._round_log.keep_receipt(run, number, record.receipt or facts, last=table is not None)
        self._round_log.close(run, number, ended=ended)
        self._drop_live(run, number)
        if table is not None:
            self.finished_run = run
        self._tell(run, number)
        return b""

    def _verified(self, record: RoundRecord, body: bytes) -> dict[str, Any]:
        live = self._live
        if (
            live is not None
            and (live.run, live.server_round) == (record.run, record.server_round)
            and FleetStep.MASK in record.sent
            and not live.round.aborted
        ):
            return live.round.accept(body)
        return verify_receipt(body, Offer.open(bytes.fromhex(record.offer), self._profile.server_key), self._profile)

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
        """Keep a table that the last receipt vouches for; a full disk is no reason to miss a round that is charged."""
        standing = self._round_log.standing()
        if (standing.receipt_run, standing.model_hash) != (plan.run, plan.table_hash):
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

    def _drop_live(self, run: str | None = None, server_round: int | None = None) -> None:
        live = self._live
        if live is not None and (run is None or (live.run, live.server_round) == (run, server_round)):
            self._known = dict(live.round.verified)
            live.round.abandon()
            self._live = None

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
            released = guard.finish(record.run, record.server_round) or FleetStep.MASK in record.sent
            ended = RELEASED if released else WRITTEN_OFF
            round_log.close(record.run, record.server_round, ended=ended)
            watch(replace(record, ended=ended))
    guard.settle()  # a round that was charged just before the device was killed is in no record


def verify_receipt(data: bytes, offer: Offer, profile: FleetProfile) -> dict[str, Any]:
    """Check a receipt by the server's signature and the round's offer alone: all that a device has after a restart.

    Raises
    ------
    MessageError
        If the bytes are not a receipt.
    ReceiptRefused
        If it is not the server's, or for another round.
    """
    receipt = Receipt.from_bytes(data)
    if receipt.context != offer.context:
        raise ReceiptRefused("the receipt is for another round", hint="it may be a replay")
    receipt.verify(profile.server_key, ReceiptRefused, "the receipt is not signed by this server")
    return receipt.facts(confirmed=False)


def _head_name(plan: RoundPlan) -> str:
    """Name of the score model's head in the vault; WireError if the plan's model has none that could be one."""
    try:
        training = LocalTraining.model_validate_json(plan.training)
    except ValidationError as error:
        raise WireError(f"plan: {error.error_count()} training parameters are not valid") from error
    if len(training.model) > 32 or not training.model.isidentifier():
        raise WireError("plan: the score model's name cannot be one")
    return head_name(training)
