"""A round under two aggregators: one report a device, spooled; one question to the helper; one sum.

The order survives kill -9 between any two steps. The offer is stored before it is sent, the uploads before
the request, the request before the helper sees it, the answer before it counts. A round that is found open goes on
with the same bytes: the request follows from the spool, and the helper answers the same request with the same answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.errors import FederationError, RunError
from palate.privacy.aggregators.admission import Membership
from palate.privacy.aggregators.call import CollectionCall, open_cosigned
from palate.privacy.aggregators.errors import (
    AnswerRefused,
    LedgerWentBack,
    ReportRefused,
    RoundKeyGone,
    SumImplausible,
    TooFewReports,
)
from palate.privacy.aggregators.leader import Collected, Collection
from palate.privacy.aggregators.messages import Answer, Head, LedgerNotice
from palate.privacy.aggregators.offer import CollectionOffer
from palate.privacy.aggregators.sealing import RoundKey
from palate.privacy.budget import for_batch
from palate.privacy.enrolment import device_name
from palate.privacy.errors import PrivacyError
from palate.privacy.integer.ring import Ring
from palate.privacy.ledger.errors import BadNote, Rollback
from palate.privacy.mechanisms.terms import RunTerms
from palate.privacy.secagg.encoding import to_sign
from palate.privacy.secagg.errors import SecureAggregationError
from palate.privacy.wire import FleetStep, RoundPlan
from palate.server.fleet.config import Deadlines, FleetConfig
from palate.server.fleet.device_heads import DeviceHeads
from palate.server.fleet.dropouts import EXCLUDED
from palate.server.fleet.exchange import Exchange, NotTaken
from palate.server.fleet.registering import RegisterKeeper
from palate.server.fleet.rounds import Beginning, NumberUsed, RoundLost, RoundResult
from palate.server.fleet.spool import UploadSpool, spool_name
from palate.server.fleet.state import CollectionRecord, FleetState, Round
from palate.server.fleet.transparency import TransparencyLog
from palate.server.fleet.watching import HelperAway, HelperDone
from palate.server.helper.link import HelperLink, HelperUnreachable

_ASK_AGAIN_SECONDS = 5.0


@dataclass(frozen=True, eq=False)
class NewCollection:
    """A round that is about to begin.

    Attributes
    ----------
    asked
        Devices that are asked: of those who are there, the registered ones.
    """

    asked: list[str]
    _protocol: CollectionProtocol
    _membership: Membership
    _least_batch: int
    _corrupt: int
    _now: int

    def terms(self, terms: RunTerms) -> RunTerms:
        """Spread the noise of one device over the honest reports of the least batch."""
        return for_batch(terms, honest_shares=self._least_batch - self._corrupt, most_reports=len(self.asked))

    def begin(self, plan: RoundPlan) -> Beginning:
        """Get the round's key, and make the offer and what devices are sent."""
        return self._protocol.offered(plan, self._membership, self._least_batch, self._corrupt, self._now)


@dataclass(frozen=True, eq=False)
class CollectionProtocol:
    """Makes rounds under two aggregators, new ones and those that are found open.

    Attributes
    ----------
    config
        What the operator decided.
    register
        Who is enrolled.
    helper
        The second aggregator.
    log
        The public log, which devices get with every offer, and which the helper cosigns.
    spools
        Folder of the uploads.
    heads
        The newest report of each device.
    wall_clock
        Seconds since 1970.
    """

    config: FleetConfig
    register: RegisterKeeper
    helper: HelperLink
    log: TransparencyLog
    spools: Path
    heads: DeviceHeads
    wall_clock: Callable[[], float]
    _compared: list[int] = field(default_factory=list, repr=False)

    @property
    def key(self) -> Ed25519PrivateKey:
        """The leader's."""
        return self.register.key

    def prepare(self, present: list[str]) -> NewCollection:
        """Say who is asked in the next round, and how many reports it needs.

        Raises
        ------
        HelperUnreachable
            If the helper is needed for it and is away.
        Rollback
            If the helper has seen rounds in the public log that are not in it here.
        FederationError
            If so many devices may be corrupt that none of the least batch is surely honest.
        """
        self._check_newest()
        now = int(self.wall_clock())
        membership = self.register.current(now=now, until=self._ends(now)[1])
        asked = [device for device in present if membership.admits(int(device, 16))]
        cohort = self.config.cohort
        least, corrupt = cohort.least_batch(len(asked)), cohort.corrupt(membership.size)
        if corrupt >= least:
            raise FederationError(
                f"{corrupt} of {membership.size} enrolled devices may be corrupt, and a batch of {least} would leave "
                "no honest one beside them",
                hint="wait for more devices, or begin a run with a larger cohort.smallest or a smaller cohort.gamma",
            )
        return NewCollection(asked, self, membership, least, corrupt, now)

    def offered(self, plan: RoundPlan, membership: Membership, least: int, corrupt: int, now: int) -> Beginning:
        """Make the offer of a round, with a key that the helper has made for it.

        Raises
        ------
        HelperUnreachable
            If it is away.
        NumberUsed
            If the round's key is destroyed: it has answered a round of this number, or the key has expired unused.
        """
        assert plan.terms is not None  # the plan was made with the terms of this round
        try:
            key = RoundKey.from_bytes(self.helper.round_key(plan.run, plan.server_round))
        except RoundKeyGone as error:
            raise NumberUsed(error.message) from None
        report_before, answer_before = self._ends(now)
        offer = CollectionOffer.of_plan(
            plan,
            fleet=self.config.name,
            register=membership.register,
            round_key=key,
            parties=self.register.parties,
            ring_bits=plan.terms.ring_bits,
            corrupt=corrupt,
            least_batch=least,
            issued_at=now,
            report_before=report_before,
            answer_before=min(answer_before, key.not_after),
        )
        offer.check_names(register=membership.register, round_key=key, parties=self.register.parties)
        call = CollectionCall(
            offer=offer.sign(self.key),
            register=membership.register.to_bytes(),
            round_key=key.to_bytes(),
            checkpoint=self._cosigned_log(),
            leaves=self.log.leaf_hashes,
        )
        return Beginning(call.offer, CollectionRecord(epoch=membership.register.epoch, call=call.to_bytes()))

    def open(self, remembered: Round, state: FleetState) -> CollectionRound:
        """Open a round that was begun, where it is now."""
        return CollectionRound(remembered, state, self)

    def witness(self) -> None:
        """Have the helper cosign the public log.

        Raises
        ------
        HelperUnreachable
            If it is away.
        PrivacyError
            If it refuses: it has seen another log.
        """
        self.log.cosign(self.helper.cosign)

    def _cosigned_log(self) -> bytes:
        """Return the log's checkpoint with the helper's cosignature, without which devices answer nothing."""
        try:
            open_cosigned(self.log.published, self.config.name, self.register.parties)
        except BadNote:  # it was away when the log grew, or nobody has asked yet
            self.witness()
        return self.log.published

    def forget(self, open_round: int | None) -> None:
        """Delete the uploads of rounds that are over."""
        if self.spools.is_dir():
            for path in self.spools.iterdir():
                if path.name != spool_name(open_round):
                    path.unlink(missing_ok=True)

    def _check_newest(self) -> None:
        """Refuse a log that lacks rounds which the helper has seen; only rounds of this server can add to it later."""
        if self._compared:
            return
        seen, own = self.helper.log_size(), self.log.head.size
        if seen > own:
            raise Rollback(
                f"the helper has seen {seen} rounds in the public log of this fleet, this folder has {own}: it was "
                "restored from a backup that is too old",
                hint="restore the newest backup; if none has all rounds, this fleet ends here and another one begins "
                "(palate server init): what people have spent stands in their own ledgers",
            )
        self._compared.append(seen)

    def _ends(self, now: int) -> tuple[int, int]:
        reports = now + max(1, round(self.config.deadlines.report_seconds))
        return reports, reports + max(1, round(self.config.deadlines.answer_seconds))


class CollectionRound:
    """One round under two aggregators, and its memory.

    Parameters
    ----------
    remembered
        The round, as it was begun.
    state
        Where request and answer are kept.
    protocol
        The fleet's.
    """

    def __init__(self, remembered: Round, state: FleetState, protocol: CollectionProtocol) -> None:
        self._number = remembered.number
        self._state = state
        self._protocol = protocol
        self._record = self._remembered()
        self._call = CollectionCall.from_bytes(self._record.call)
        key, parties = protocol.key, protocol.register.parties
        self._membership = protocol.register.of_epoch(self._record.epoch)
        self._offer = CollectionOffer.open(remembered.offer, parties.leader)
        self._spool = UploadSpool(protocol.spools / spool_name(remembered.number))
        self._collection = Collection(
            self._offer,
            remembered.offer,
            membership=self._membership,
            suite=RoundKey.from_bytes(self._call.round_key).key.suite,
            parties=parties,
            key=key,
            spool=self._spool,
            last=protocol.heads.marks(self._membership),
        )
        self._collected: Collected | None = None
        if self._record.request is not None and self._collection.freeze() != self._record.request:
            raise RunError(
                f"the uploads of round {self._number} are not those that the helper was asked about",
                hint="restore spool/ and fleet.sqlite from the same backup",
            )

    @property
    def advertised(self) -> int:
        """Devices whose reports are here."""
        return len(self._collection)

    def terms(self, terms: RunTerms) -> RunTerms:
        """Return the terms that the round was begun with."""
        return for_batch(terms, honest_shares=self._offer.honest_shares, most_reports=self._offer.most_reports)

    def run(self, exchange: Exchange, plan: RoundPlan, deadlines: Deadlines) -> RoundResult:
        """Collect reports, ask the helper, and return the sum.

        Raises
        ------
        RoundLost
            If too few reports came, or the helper does not answer.
        Interrupted
            If the server is to stop now; the round stays open.
        """
        refused = -1  # reports that the helper found too few
        while self._record.answer is None:
            if self._record.request is None:
                self._collect(exchange, plan, deadlines)
                if len(self._collection) == refused:
                    raise RoundLost(FleetStep.REPORT, f"of {refused} reports the helper found too few valid")
                self._freeze()
            try:
                self._ask_helper(exchange)
            except TooFewReports:
                refused = len(self._collection)
                self._state.freeze(self._number, None)
                self._collection.unfreeze()
                self._record = self._remembered()
        found = self.result()
        assert found is not None  # there is an answer
        assert self._collected is not None
        for device, reason in self._collected.excluded.items():
            why = f"left out by the helper: {reason.name.lower().replace('_', ' ')}"
            exchange.fail(FleetStep.REPORT, device_name(device), EXCLUDED, why)
        return found

    def result(self) -> RoundResult | None:
        """Return the sum, or None where the helper has not answered yet; RoundLost if its answer is not to be used."""
        if self._record.answer is None:
            return None
        if self._collected is None:
            try:
                self._collection.freeze()
                self._collected = self._collection.finish(self._record.answer)
            except (AnswerRefused, SumImplausible) as error:
                raise RoundLost(FleetStep.REPORT, error.message) from None
        found = self._collected
        return RoundResult(
            vector=Ring(bits=self._offer.ring_bits).reduce(found.integers),
            survivors=tuple(sorted(device for device in self._spool.devices() if device not in found.excluded)),
            sets_hash=found.answer_hash,
            sum_hash=found.sum_hash,
        )

    def receipt(self, *, model_hash: str, log_index: int) -> bytes:
        """Sign what became of the round."""
        assert self._collected is not None  # asked for once there is a result
        assert self._record.head is not None
        return self._collection.receipt(
            self._collected,
            table_hash=bytes.fromhex(model_hash),
            log_index=log_index,
            head=Head.from_bytes(self._record.head),
        )

    def close(self) -> None:
        """Let the files go."""
        self._spool.close()

    def _remembered(self) -> CollectionRecord:
        record = self._state.collection(self._number)
        if record is None:
            raise RunError(f"what round {self._number} was begun with is gone", hint="restore fleet.sqlite")
        return record

    def _collect(self, exchange: Exchange, plan: RoundPlan, deadlines: Deadlines) -> None:
        left = self._offer.report_before - self._protocol.wall_clock()
        here = {device_name(device) for device in self._spool.devices()}
        asked = [member.device for member in self._state.members(self._number)]
        exchange.ask(
            FleetStep.REPORT,
            dict.fromkeys([device for device in asked if device not in here], self._record.call) | self._notices(asked),
            seconds=min(left, deadlines.report_seconds),
            take=self._take,
            plan=plan,
        )

    def _notices(self, asked: list[str]) -> dict[str, bytes]:
        """Return what devices that went back are sent in place of the call."""
        shown = self._protocol.heads.shown(self._membership)
        return {
            device_name(device): LedgerNotice(fleet=self._offer.fleet, report=report)
            .signed(lambda body: self._protocol.key.sign(to_sign(body)))
            .to_bytes()
            for device, report in shown.items()
            if device_name(device) in asked
        }

    def _take(self, step: FleetStep, device: str, body: bytes) -> None:
        del step
        try:
            self._collection.take(body, now=int(self._protocol.wall_clock()), sender=int(device, 16))
        except SecureAggregationError as error:
            if isinstance(error, LedgerWentBack):
                self._protocol.heads.went_back.add(int(device, 16))
            # The name of the check alone; the reasons of a refused report name no device.
            why = f": {error.message}" if isinstance(error, ReportRefused) else ""
            raise NotTaken(f"{type(error).__name__}{why}") from None

    def _freeze(self) -> None:
        try:
            request = self._collection.freeze()
        except TooFewReports as error:
            raise RoundLost(FleetStep.REPORT, error.message) from None
        self._protocol.heads.keep(self._collection.reports(), self._membership)
        self._state.freeze(self._number, request, [(device_name(device), size) for device, size in self._spool.sizes()])
        self._record = self._remembered()

    def _ask_helper(self, exchange: Exchange) -> None:
        """Send the request until there is an answer, and keep it.

        Raises
        ------
        RoundLost
            If the helper refuses, or its time is over.
        TooFewReports
            If it found too few valid reports; the round is not used up.
        """
        assert self._record.request is not None  # frozen before
        begun, away = self._protocol.wall_clock(), False
        while True:
            try:
                self._protocol.register.carry_revocation()  # it counts at the answer
                found = self._protocol.helper.answer(self._record.request)
                break
            except HelperUnreachable as error:
                if not away:
                    exchange.tell(HelperAway(self._number, error.message))
                away = True
            except TooFewReports:
                raise
            except PrivacyError as error:
                raise RoundLost(FleetStep.REPORT, f"the helper refuses: {error.message}") from None
            if self._protocol.wall_clock() >= self._offer.answer_before:
                raise RoundLost(FleetStep.REPORT, "the helper did not answer in time")
            exchange.pause(_ASK_AGAIN_SECONDS)
        answer, head = Answer.from_bytes(found.answer), Head.from_bytes(found.head)
        try:
            head.verify(self._protocol.register.parties.helper, AnswerRefused, "the head is not the helper's")
            if head.answer_hash != answer.content_hash or head.fleet != self._offer.fleet:
                raise AnswerRefused("the head is of another answer")
        except AnswerRefused as error:
            raise RoundLost(FleetStep.REPORT, f"the helper's answer: {error.message}") from None
        self._state.keep_answer(self._number, found.answer, found.head)
        self._record = self._remembered()
        left_out = Counter(reason.name.lower().replace("_", " ") for _, reason in answer.excluded)
        seconds = self._protocol.wall_clock() - begun
        exchange.tell(HelperDone(self._number, answer.reports, answer.accepted, dict(left_out), seconds))
