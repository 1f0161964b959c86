"""One round of a fleet among peers, step by step, in an order that survives kill -9 between any two of them.

A round is remembered and charged before anything leaves. Every message is stored before it is looked at, and the end of
a step before what follows from it is sent; so a round that is found open is replayed from the file, and goes on with
the same outgoing bytes, or is given up when too few of its devices are still there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from palate.errors import FederationError
from palate.privacy.accounting.dropout import Quorum
from palate.privacy.budget import for_roster
from palate.privacy.enrolment import device_name
from palate.privacy.errors import PrivacyError
from palate.privacy.mechanisms.terms import RunTerms
from palate.privacy.secagg.errors import QuorumLost, ReconstructionFailed, SecureAggregationError
from palate.privacy.secagg.messages import Receipt
from palate.privacy.secagg.offer import Offer
from palate.privacy.secagg.server import ServerRound, Stage
from palate.privacy.wire import FleetStep, RoundPlan
from palate.server.fleet.config import Deadlines, FleetConfig
from palate.server.fleet.exchange import Exchange, NotTaken
from palate.server.fleet.rounds import Beginning, RoundLost, RoundResult
from palate.server.fleet.state import FleetState, Round

_FALSE_SHARES = (
    "the shares of a device do not give the secret that it committed to: it shared falsely, or others revealed so"
)


@dataclass(frozen=True)
class Parties:
    """Who signs a round among peers, and who certifies its devices."""

    server_key: Ed25519PrivateKey
    authority_key: Ed25519PublicKey


@dataclass(frozen=True)
class NewPeerRound:
    """A `NewRound` among peers: everybody who is there is asked."""

    asked: list[str]
    _quorum: Quorum
    _config: FleetConfig
    _parties: Parties
    _now: float

    def terms(self, terms: RunTerms) -> RunTerms:
        """Spread the noise over those who must survive."""
        return for_roster(terms, self._quorum, len(self.asked))

    def begin(self, plan: RoundPlan) -> Beginning:
        """Make and sign the offer."""
        cohort = self._config.cohort
        offer = Offer.of_plan(
            plan,
            fleet=self._config.name,
            gamma_thousandths=round(self._quorum.gamma * 1000),
            tau_thousandths=round(cohort.tau * 1000),
            n_min=cohort.smallest,
            issued_at=int(self._now),
        )
        return Beginning(offer.sign(self._parties.server_key))


@dataclass(frozen=True)
class PeerProtocol:
    """A `RoundProtocol` among peers, who share masks with each other."""

    config: FleetConfig
    parties: Parties
    wall_clock: Callable[[], float]
    enrolled: Callable[[], int]

    def prepare(self, present: list[str]) -> NewPeerRound:
        """Ask everybody who is there.

        Raises
        ------
        FederationError
            If so many of those who are enrolled now may be corrupt that the run's tau does not bear them.
        """
        try:
            quorum = self.config.cohort.quorum(self.enrolled())
        except PrivacyError as error:
            raise FederationError(
                f"more devices are enrolled than the run is planned for: {error.message}",
                hint="begin a run that is planned for them, or set up a helper",
            ) from None
        return NewPeerRound(present, quorum, self.config, self.parties, self.wall_clock())

    def open(self, remembered: Round, state: FleetState) -> PeerRound:
        """Replay a round's messages."""
        return PeerRound(remembered, state, self.parties, self.config)

    def witness(self) -> None:
        """Do nothing: there is nobody who cosigns."""

    def forget(self, open_round: int | None) -> None:
        """Do nothing: messages go when their round ends."""


class PeerRound:
    """The secure aggregation of one round, and its memory.

    Parameters
    ----------
    remembered
        The round, as it was begun.
    state
        Where its messages are.
    parties
        The keys.
    config
        What the operator decided.
    """

    def __init__(self, remembered: Round, state: FleetState, parties: Parties, config: FleetConfig) -> None:
        self._round = remembered
        self._config = config
        self._state = state
        offer = Offer.open(remembered.offer, parties.server_key.public_key())
        self._quorum = Quorum(tau=offer.tau_thousandths / 1000, gamma=offer.gamma_thousandths / 1000)
        self._secure = ServerRound(offer, server_key=parties.server_key, authority_key=parties.authority_key)
        self._outgoing: Mapping[int, bytes] | None = None  # of the open step; None before the first is closed
        self._replay()

    @property
    def advertised(self) -> int:
        """Devices on the roster; 0 before there is one."""
        return 0 if self._secure.stage is Stage.ADVERTISE else len(self._secure.arrived(Stage.ADVERTISE))

    def terms(self, terms: RunTerms) -> RunTerms:
        """Spread the noise over those who must survive, as when the round was begun."""
        return for_roster(terms, self._quorum, self._round.roster_size)

    def run(self, exchange: Exchange, plan: RoundPlan, deadlines: Deadlines) -> RoundResult:
        """Take the steps that are left, and return the sum.

        Raises
        ------
        RoundLost
            If too few devices are left for it.
        Interrupted
            If the server is to stop now; the round stays open.
        """
        while (stage := self._secure.stage) is not None:
            step = FleetStep(stage.name.lower())
            exchange.ask(
                step,
                self._bodies(stage),
                seconds=deadlines.of(step),
                take=self._take,
                plan=plan if stage is Stage.ADVERTISE else None,
            )
            try:
                self._outgoing = self._secure.close(stage)
            except QuorumLost as error:
                raise RoundLost(step, error.message) from None
            except ReconstructionFailed as error:
                raise RoundLost(step, _FALSE_SHARES, named=device_name(error.device)) from None
            self._state.close_step(self._round.number, step)
        return self._result()

    def result(self) -> RoundResult | None:
        """Return the sum, or None where it is not known yet."""
        return self._result() if self._secure.stage is None else None

    def _result(self) -> RoundResult:
        found = self._secure.result()
        hashes = Receipt.from_bytes(self._secure.receipt(model_hash="00" * 32, log_index=0))
        return RoundResult(
            vector=found.vector, survivors=found.survivors, sets_hash=hashes.sets_hash, sum_hash=hashes.sum_hash
        )

    def close(self) -> None:
        """Do nothing: its messages are in the state's file."""

    def receipt(self, *, model_hash: str, log_index: int) -> bytes:
        """Sign what became of the round."""
        return self._secure.receipt(model_hash=model_hash, log_index=log_index)

    def _bodies(self, stage: Stage) -> dict[str, bytes]:
        """Return what goes down in the open step, by device; not to those whose answer is here."""
        here = self._secure.arrived(stage)
        if stage is Stage.ADVERTISE:
            asked = [member.device for member in self._state.members(self._round.number)]
            return {name: self._round.offer for name in asked if int(name, 16) not in here}
        outgoing = self._outgoing or {}
        return {device_name(device): body for device, body in outgoing.items() if device not in here}

    def _take(self, step: FleetStep, device: str, body: bytes) -> None:
        self._state.record(self._round.number, step, device, body)
        try:
            self._secure.receive(Stage[step.name], int(device, 16), body)
        except SecureAggregationError as error:
            # The name of the check alone: its text may quote what the device sent.
            raise NotTaken(type(error).__name__) from None

    def _replay(self) -> None:
        """Do again what was done before a crash, in the same order."""
        for event in self._state.events(self._round.number):
            stage = Stage[event.step.name]
            if event.device is None:
                self._outgoing = self._secure.close(stage)
                continue
            try:
                self._secure.receive(stage, int(event.device, 16), event.body)
            except SecureAggregationError:
                continue  # it was not taken then either
