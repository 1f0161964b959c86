"""A device's part in a sum among peers: five steps and a receipt (Bonawitz et al. 2017).

Keys of a round live in memory only: a device that was killed sends again what it had sent, and no more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from palate.client.fleet.profile import FleetProfile
from palate.client.fleet.round_log import RoundRecord
from palate.client.fleet.rounds import RoundOver, SecureRounds, name_of_head
from palate.client.fleet.worker import Contribution
from palate.privacy.secagg.device import DeviceRound
from palate.privacy.secagg.errors import ReceiptRefused
from palate.privacy.secagg.keys import DeviceIdentity, EnrolmentCertificate
from palate.privacy.secagg.messages import Receipt
from palate.privacy.secagg.offer import Offer
from palate.privacy.wire import FleetMessage, FleetStep, RoundPlan, WireError


@dataclass(eq=False)
class _Live:
    """The one round that is under way in this process."""

    run: str
    server_round: int
    round: DeviceRound
    contribution: Contribution | None = field(repr=False)
    head_name: str = ""


class PeerRounds(SecureRounds):
    """Answers a server whose devices mask their vectors for each other."""

    opening = FleetStep.ADVERTISE
    steps = frozenset(FleetStep) - {FleetStep.REPORT, FleetStep.RECEIPT}

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self._identity = DeviceIdentity(self._profile.welcome.enrolment, self._keys.signing)
        self._known: dict[int, EnrolmentCertificate] = {}
        self._live: _Live | None = None

    def _asked(self, message: FleetMessage) -> bytes:
        return message.body

    def _respond(self, message: FleetMessage, plan: RoundPlan | None) -> bytes:
        return self._go_on(message) if plan is None else self._advertise(message, plan)

    def _advertise(self, message: FleetMessage, plan: RoundPlan) -> bytes:
        # Nothing that is not signed by the pinned server goes beyond this line.
        offer = Offer.open(message.body, self._profile.server_key)
        offer.check_plan(plan)
        self._check_welcome(plan, offer)
        name = name_of_head(plan)
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
        history, head = self._history(), self._round_log.head(plan.run, name)
        roster = plan.terms.roster_size
        self._charge(plan, message.body, least=offer.fewest_survivors(roster), enrolled=roster)
        contribution = self._trainer.contribute(plan, history, head)
        advert = round_.advertise()
        self._live = _Live(plan.run, plan.server_round, round_, contribution, name)
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
        self._keep(live.run, live.server_round, masked, contribution.head, live.head_name)
        return masked

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

    def _close_expired(self) -> None:
        """Do nothing: a round among peers ends with its receipt, or when the next one begins."""

    def _abandon(self, run: str | None = None, server_round: int | None = None) -> None:
        live = self._live
        if live is not None and (run is None or (live.run, live.server_round) == (run, server_round)):
            self._known = dict(live.round.verified)
            live.round.abandon()
            self._live = None


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
