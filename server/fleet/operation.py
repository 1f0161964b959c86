"""A fleet's run from the first round to the last: when to begin one, what to do with its sum, and how to go on after a
crash.

What is true after kill -9 is decided by three files, in this order: the checkpoint says which rounds are in the table,
fleet.sqlite which round is open, and the ledger what was charged. A round is charged once, before its plan leaves; its
sum enters the table once, for the checkpoint names its last round; and whatever else is missing is made up for.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from palate.errors import FederationError, RunError
from palate.privacy.accounting.events import Unit
from palate.privacy.budget import for_batch
from palate.privacy.charging import epsilon_of, intents
from palate.privacy.errors import PrivacyError
from palate.privacy.ledger.body import hash_text
from palate.privacy.mechanisms.terms import RunTerms
from palate.privacy.wire import REFUSED, TAMPERED, FleetStep, ItemUpdate, RoundPlan
from palate.server.coordinator import Coordinator
from palate.server.decoding import UpdateSum
from palate.server.fleet.books_check import check_agreement
from palate.server.fleet.config import FleetConfig
from palate.server.fleet.dropouts import counted
from palate.server.fleet.exchange import Exchange, Interrupted
from palate.server.fleet.grid_messages import GridMessages
from palate.server.fleet.losses import Losses, steady
from palate.server.fleet.rounds import (
    Beginning,
    NewRound,
    NumberUsed,
    OpenRound,
    RoundLost,
    RoundProtocol,
    RoundResult,
    largest_answer,
    round_lines,
)
from palate.server.fleet.state import FleetState, Round, RoundStatus, Stop
from palate.server.fleet.transparency import TransparencyLog
from palate.server.fleet.transport.enrolment import Enrolment
from palate.server.fleet.watching import Clock, HelperAway, Lost, RoundBegun, RoundEnded, RunEnded, Waiting, Watcher
from palate.server.helper.link import HelperUnreachable
from palate.server.ledger import ServerLedger
from palate.server.settings import ServerSettings
from palate.server.store import RunStore

log = logging.getLogger(__name__)

FINISHED = "all rounds are done"
SPENT = "the budget does not pay for another round"
STOPPED = "the operator asked for it"
HALTED = "too many rounds in a row were lost"

_GATHER_SECONDS = 0.5
_HELPER_SECONDS = 5.0
"""Between two attempts to reach a helper that is away."""


@dataclass(frozen=True, kw_only=True)
class Books:
    """Where a run is written down."""

    state: FleetState
    enrolment: Enrolment
    store: RunStore
    metadata: Mapping[str, str]
    ledger: ServerLedger
    log: TransparencyLog


class Operation:
    """Runs a fleet's rounds.

    Parameters
    ----------
    config
        What the operator decided.
    settings
        The coordinator's settings; its terms are for one device (`palate.privacy.budget.run_terms`).
    coordinator
        The run's state machine, as new; it is brought to where the books are.
    books, protocol, grid_messages, clock, watcher
        What it works with.
    interrupted
        Asked again and again whether to stop at once.
    wall_clock
        Seconds since 1970, for what is signed and remembered.
    wait_for
        Devices that the first round waits for. Unless given, as many as the run is planned for, but no longer than
        `deadlines.gather_seconds` once there are enough for a round.

    Raises
    ------
    RunError
        If the books contradict each other, or belong to another run.
    """

    def __init__(
        self,
        config: FleetConfig,
        settings: ServerSettings,
        coordinator: Coordinator,
        *,
        books: Books,
        protocol: RoundProtocol,
        grid_messages: GridMessages,
        clock: Clock,
        watcher: Watcher,
        interrupted: Callable[[], bool] = lambda: False,
        wall_clock: Callable[[], float] = time.time,
        wait_for: int | None = None,
    ) -> None:
        self._config = config
        self._settings = settings
        self._coordinator = coordinator
        self._books = books
        self._protocol = protocol
        self._grid_messages = grid_messages
        self._clock = clock
        self._watcher = watcher
        self._interrupted = interrupted
        self._wall_clock = wall_clock
        self._wait_for = wait_for
        self._waiting: Waiting | None = None
        self._served: set[str] = set()  # who is there and has been handed the last table
        self._nodes = self._enrolled()
        self._catch_up()

    def run(self) -> str:
        """Run rounds until all are done, the budget is spent, too many are lost, or somebody wants to stop; say which.

        Raises
        ------
        Interrupted
            If it is to stop at once; an open round stays open.
        """
        self._watcher(Lost(self.losses))
        unfinished = self._books.state.unfinished()
        if unfinished is not None:
            self._watcher(RoundBegun(unfinished, resumed=True))
            self._go_on(unfinished, resumed=True)
        why = self._rounds()
        if why in (FINISHED, SPENT):  # else the run is to go on, and its devices stay
            self._farewell()
        self._watcher(RunEnded(why))
        return why

    def _rounds(self) -> str:
        first = not self._books.state.rounds(self._config.run)
        while not self._coordinator.finished:
            losses = self.losses
            if losses.halted:
                return HALTED if self._can_pay(self._plan(self._terms)) else SPENT
            if self._books.state.stop_requested() is not None:
                return STOPPED
            asked = self._gather(first=first)
            if asked is None:
                return STOPPED
            try:
                coming = self._protocol.prepare(asked)
                if len(coming.asked) < self._config.cohort.smallest:  # those who are there are not all registered
                    self._tell_waiting(len(coming.asked), self._config.cohort.smallest)
                    self._clock.sleep(_GATHER_SECONDS)
                    continue
                begun = self._begin(coming)
            except HelperUnreachable as error:
                self._watcher(HelperAway(self._coordinator.next_round, error.message))
                self._clock.sleep(_HELPER_SECONDS)
                continue
            first = False
            if begun is None:
                return SPENT
            self._watcher(RoundBegun(begun, resumed=False))
            self._go_on(begun, resumed=False)
        return FINISHED

    def _gather(self, *, first: bool) -> list[str] | None:
        """Wait until enough devices are online, and say who is asked; None where the wish to stop comes first."""
        cohort, enough_since = self._config.cohort, math.inf
        needed = (self._wait_for or cohort.devices) if first else cohort.smallest
        while True:
            self._check_interrupt()
            self._nodes = self._enrolled()
            online = self._grid_messages.online()
            present = sorted(device for device, node in self._nodes.items() if node in online)
            if len(present) < cohort.smallest or self._wait_for is not None:
                enough_since = math.inf
            else:
                enough_since = min(enough_since, self._clock.now())
            enough = len(present) >= needed or (
                self._clock.now() - enough_since >= self._config.deadlines.gather_seconds
            )
            if enough and self._is_time():
                present = steady(self._books.state, self._config.run, present, least=cohort.smallest)
                largest = cohort.largest
                if len(present) > largest:  # drawn anew every round; nothing is claimed for it
                    present = sorted(secrets.SystemRandom().sample(present, largest))
                return present
            if not enough:
                self._tell_waiting(len(present), needed)
            if self._books.state.stop_requested() is not None:
                return None
            self._clock.sleep(_GATHER_SECONDS)

    def _is_time(self) -> bool:
        """Whether the last round began long enough ago; a clock that was set back does not hold the next one up."""
        last = self._books.state.rounds(self._config.run)[-1:]
        waited = self._wall_clock() - last[0].started_at if last else math.inf
        return not 0 <= waited < self._config.deadlines.every_seconds

    def _tell_waiting(self, online: int, needed: int) -> None:
        """Say that a round waits for devices, where that has changed."""
        waiting = Waiting(online, needed)
        if waiting != self._waiting:
            self._waiting = waiting
            self._watcher(waiting)

    def _begin(self, coming: NewRound) -> Round | None:
        """Plan and remember the next round; None if the ledger cannot pay for it."""
        plan = self._plan(coming.terms(self._terms))
        if not self._can_pay(plan):
            return None
        try:
            beginning = coming.begin(plan)
        except NumberUsed:  # devices may have been charged for it; what is said to be spent must cover that
            plan, beginning = self._plan(self._terms_of_a_lost_number), Beginning(offer=b"")
            if not self._can_pay(plan):
                return None
        begun = Round(
            number=plan.server_round,
            run=plan.run,
            purpose=plan.purpose,
            status=RoundStatus.OPEN,
            roster_size=len(coming.asked),
            plan_hash=plan.content_hash,
            offer=beginning.offer,
            started_at=self._wall_clock(),
            epsilon=self.epsilon_spent(plan),  # said before it is charged: never less than what the ledger has
            life_epsilon=self.epsilon_spent(plan, of_all_runs=True),
        )
        self._books.state.begin_round(begun, coming.asked, beginning.collection)
        return begun

    def _can_pay(self, plan: RoundPlan) -> bool:
        return intents(plan)[Unit.USER].charge_nano <= self._books.ledger.left_nano(Unit.USER)

    def _go_on(self, begun: Round, *, resumed: bool) -> None:
        """Take a round from where it is to its end."""
        if begun.status is RoundStatus.APPLIED:
            return self._close(begun)
        if not begun.offer:
            self._books.ledger.begin(self._plan(self._terms_of_a_lost_number))
            loss = RoundLost(None, "a round of this number was begun after the backup that was restored")
            return self._abandon(begun, loss, sabotaged=False)
        number = begun.number
        in_the_table = number < self._coordinator.next_round
        current = self._protocol.open(begun, self._books.state)
        try:
            self._go_on_with(current, begun, in_the_table=in_the_table, resumed=resumed)
        finally:
            current.close()

    def _go_on_with(self, current: OpenRound, begun: Round, *, in_the_table: bool, resumed: bool) -> None:
        number = begun.number
        plan = None if in_the_table else self._plan(current.terms(self._terms))
        if plan is not None:
            if plan.content_hash != begun.plan_hash:
                loss = RoundLost(None, "its plan cannot be made again: table or configuration have changed")
                return self._abandon(begun, loss, sabotaged=False)
            self._books.ledger.begin(plan)
        try:
            if plan is None:
                found = current.result()
            else:
                found = current.run(self._exchange(number, plan), plan, self._config.deadlines)
        except RoundLost as loss:
            self._books.state.update_round(number, advertised=current.advertised)
            members = self._books.state.members(number)
            declined = sum(member.failure == REFUSED for member in members)
            tampered = sum(member.failure == TAMPERED for member in members)
            opening = loss.step in (FleetStep.ADVERTISE, FleetStep.REPORT)
            self._abandon(begun, loss, sabotaged=2 * tampered > len(members))
            # After a power cut a device may have charged the round, and refuses to begin it again.
            if opening and not resumed and 2 * declined > len(members):
                # To ask again would spend the budget for nothing.
                raise FederationError(
                    f"round {number}: {declined} of {len(members)} devices refuse the plan",
                    hint="their owners' limits or ledgers do not allow it, or they know newer rounds than this folder, "
                    "which a backup was restored into: palate client status says why",
                ) from None
            return None
        if found is None:
            raise RunError(
                f"round {number} is in the table, but its messages are gone",
                hint="restore run/ and fleet.sqlite from the same backup",
            )
        if plan is not None:
            self._apply(plan, found)
        return self._conclude(begun, current, found)

    def _apply(self, plan: RoundPlan, found: RoundResult) -> None:
        """Put a sum into the table, and the table on disk; from here on the round is in it."""
        total = UpdateSum(plan)
        total.add(ItemUpdate(found.vector))
        self._coordinator.apply(total.total(), survivors=len(found.survivors))
        self._books.store.save(self._coordinator.snapshot(), self._books.metadata)

    def _conclude(self, begun: Round, current: OpenRound, found: RoundResult) -> None:
        """Write down what a round made: in the public log, in the ledger, and for its devices."""
        run, number, table_hash = self._config.run, begun.number, self._coordinator.table.content_hash
        index = self._books.log.record(
            run, number, survivors=found.sets_hash, total=found.sum_hash, model=bytes.fromhex(table_hash)
        )
        self._witness(number)
        receipt = current.receipt(model_hash=table_hash, log_index=index)
        self._books.ledger.finish(run, number, table_hash, receipt=hash_text(receipt))
        self._books.state.update_round(
            number,
            status=str(RoundStatus.APPLIED),
            advertised=current.advertised,
            survivors=len(found.survivors),
            table_hash=table_hash,
            log_index=index,
            receipt=receipt,
        )
        self._close(self._remembered(number))

    def _witness(self, number: int) -> None:
        """Have the log cosigned; a helper that is away sees it with the next round."""
        try:
            self._protocol.witness()
        except HelperUnreachable as error:
            self._watcher(HelperAway(number, error.message))
        except PrivacyError as error:
            log.warning("the helper does not cosign the public log: %s", error.message)

    def _close(self, applied: Round) -> None:
        """Send receipts, and forget the round's messages."""
        if not self._coordinator.finished:  # else they come with the last table
            members = self._books.state.members(applied.number)
            self._deliver(applied, [member.device for member in members if member.up])
        self._end(applied.number, RoundStatus.DONE)

    def _farewell(self) -> None:
        """Send the last receipt with the last table to everybody who is there: for them the run is over."""
        applied = [each for each in self._books.state.rounds(self._config.run) if each.receipt is not None]
        if applied:
            self._nodes, online = self._enrolled(), self._grid_messages.online()
            self._deliver(applied[-1], list(self._nodes), last=True)
            self._served = {device for device, node in self._nodes.items() if node in online}

    def stay(self) -> None:
        """Hand the last table to devices that come after the last round, until somebody wants to stop."""
        applied = [each for each in self._books.state.rounds(self._config.run) if each.receipt is not None]
        while applied and not self._interrupted() and self._books.state.stop_requested() is None:
            self._nodes, online = self._enrolled(), self._grid_messages.online()
            here = {device for device, node in self._nodes.items() if node in online}
            fresh, self._served = here - self._served, here  # who goes and comes back is handed it again
            if fresh:
                self._deliver(applied[-1], sorted(fresh), last=True, patient=fresh)
            self._clock.sleep(_GATHER_SECONDS)

    def _deliver(
        self, applied: Round, devices: list[str], *, last: bool = False, patient: set[str] | None = None
    ) -> None:
        # Who has failed in the round may be gone, and is not waited for.
        alive = {member.device for member in self._books.state.members(applied.number) if not member.failure}
        exchange = self._exchange(applied.number, None)
        exchange.ask(
            FleetStep.RECEIPT,
            dict.fromkeys(devices, applied.receipt or b""),
            seconds=self._config.deadlines.receipt_seconds,
            take=_take_note,
            table=self._coordinator.table if last else None,
            patient=alive if patient is None else patient,
        )

    def _abandon(self, begun: Round, loss: RoundLost, *, sabotaged: bool) -> None:
        """Give a round up; what it cost stays spent, and the next number asks for the same."""
        if sabotaged:  # noted first: it counts once the round is given up
            self._books.state.halt_at(begun.number)
        self._end(begun.number, RoundStatus.ABANDONED, loss=loss)
        self._books.ledger.write_off(self._config.run, begun.number)
        self._coordinator.abandon()
        self._clock.sleep(self._config.deadlines.pause_seconds)

    def _end(self, number: int, status: RoundStatus, *, loss: RoundLost | None = None) -> None:
        members, reason = self._books.state.members(number), ""
        if loss is not None:
            why = counted(member.failure for member in members).items()
            reason = "; ".join([str(loss), *(f"{count} of {len(members)} devices: {words}" for words, count in why)])
        lost_in, named = ("", "") if loss is None else ("" if loss.step is None else loss.step.value, loss.named)
        self._books.state.end_round(number, status, reason=reason, lost_in=lost_in, named=named)
        self._protocol.forget(None)
        self._write_lines()
        self._watcher(RoundEnded(self._remembered(number), members, self._coordinator.applied))
        self._watcher(Lost(self.losses))

    @property
    def losses(self) -> Losses:
        """Rounds that were lost in a row."""
        return Losses.found(self._books.state, self._config.halt_after)

    def _catch_up(self) -> None:
        """Bring coordinator and ledger to where the books are."""
        run = self._config.run
        self._coordinator.next_round = self._books.state.first_round(run)
        snapshot = self._books.store.load(self._books.metadata)
        if snapshot is not None:
            self._coordinator.restore(snapshot)
        check_agreement(
            run,
            self._books.state.rounds(),
            charged={(each.run, each.round) for each in self._books.ledger.charged(Unit.USER)},
            last_in_table=None if snapshot is None else snapshot.server_round,
            log=self._books.log,
        )
        for each in self._books.state.rounds(run):
            if each.status is RoundStatus.ABANDONED:
                self._books.ledger.write_off(run, each.number)
                if each.number >= self._coordinator.next_round:
                    self._coordinator.abandon()
        self._write_lines()
        self._protocol.forget(self._open_round)

    def epsilon_spent(self, plan: RoundPlan | None = None, *, of_all_runs: bool = False) -> float:
        """Return what the run's charged rounds cost each person, at its delta; with one that is about to be charged."""
        charged = self._books.ledger.charged(Unit.USER)
        if not of_all_runs:
            charged = [each for each in charged if each.run == self._config.run]
        if plan is not None:
            charged.append(intents(plan)[Unit.USER])
        return epsilon_of(charged, self._config.delta)

    @property
    def _terms(self) -> RunTerms:
        terms = self._settings.terms
        if terms is None:
            raise RunError("a fleet's run has no terms of protection", hint="use palate simulate for unit none")
        return terms

    @property
    def _terms_of_a_lost_number(self) -> RunTerms:
        """Of a round that is charged and never asked: the full price, for the fewest devices that a round may have."""
        return for_batch(self._terms, honest_shares=1, most_reports=self._config.cohort.smallest)

    @property
    def _open_round(self) -> int | None:
        unfinished = self._books.state.unfinished()
        return None if unfinished is None else unfinished.number

    def _plan(self, terms: RunTerms) -> RoundPlan:
        self._coordinator.settings = self._settings.model_copy(update={"terms": terms})
        return self._coordinator.plan()

    def _exchange(self, number: int, plan: RoundPlan | None) -> Exchange:
        return Exchange(
            self._grid_messages,
            self._books.state,
            self._clock,
            self._watcher,
            nodes=self._nodes,
            run=self._config.run,
            number=number,
            enrolled=self._enrolled,
            largest_answer=0 if plan is None else largest_answer(plan),
            offline_seconds=self._config.deadlines.offline_seconds,
            interrupted=self._stop_now,
        )

    def _enrolled(self) -> Mapping[str, int]:
        """Return where devices are reached that are enrolled now, by name."""
        return self._books.enrolment.numbers()

    def _remembered(self, number: int) -> Round:
        return next(each for each in self._books.state.rounds() if each.number == number)

    def _write_lines(self) -> None:
        """Write rounds.jsonl anew: what the state says of every round that has ended."""
        self._books.store.write_rounds(round_lines(self._books.state.rounds(self._config.run)))

    def _stop_now(self) -> bool:
        return self._interrupted() or self._books.state.stop_requested() is Stop.NOW

    def _check_interrupt(self) -> None:
        if self._stop_now():
            raise Interrupted


def _take_note(step: FleetStep, device: str, body: bytes) -> None:
    """Take the answer to a receipt: it says no more than that it came."""
