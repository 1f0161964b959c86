"""One round of a fleet, step by step, in an order that survives kill -9 between any two of them.

A round is remembered and charged before anything leaves. Every message is stored before it is looked at, and the end of
a step before what follows from it is sent; so a round that is found open is replayed from the file, and goes on with
the same outgoing bytes, or is given up when too few of its devices are still there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from palate.privacy.enrolment import device_name
from palate.privacy.secagg.errors import QuorumLost, ReconstructionFailed, SecureAggregationError
from palate.privacy.secagg.offer import Offer
from palate.privacy.secagg.server import RoundSum, ServerRound, Stage
from palate.privacy.wire import FleetStep, RoundPlan
from palate.server.fleet.config import Deadlines
from palate.server.fleet.exchange import Exchange, NotTaken
from palate.server.fleet.state import FleetState, Round

_ENVELOPE_BYTES = 1 << 20
"""Room for what comes with a vector: signatures, and shares for 300 peers."""


_FALSE_SHARES = (
    "the shares of a device do not give the secret that it committed to: it shared falsely, or others revealed so"
)


class RoundLost(Exception):
    """A round that cannot be finished; what it cost stays spent.

    Parameters
    ----------
    step
        In which it was lost; None where it could not even be begun again.
    why
        The reason, without the name of a device: it goes into logs.
    named
        The device whose messages made it fail, where that is known.
    """

    def __init__(self, step: FleetStep | None, why: str, *, named: str = "") -> None:
        super().__init__(why if step is None else f"{step.value}: {why}")
        self.step = step
        self.named = named


@dataclass(frozen=True)
class Parties:
    """Who signs a round, and who certifies its devices."""

    server_key: Ed25519PrivateKey
    authority_key: Ed25519PublicKey


def largest_answer(plan: RoundPlan) -> int:
    """Bytes that no honest answer to any step of a round exceeds."""
    return 8 * plan.update_size + _ENVELOPE_BYTES


class FleetRound:
    """The secure aggregation of one round, and its memory.

    Parameters
    ----------
    remembered
        The round, as it was begun.
    state
        Where its messages are.
    parties
        The keys.
    """

    def __init__(self, remembered: Round, state: FleetState, parties: Parties) -> None:
        self._round = remembered
        self._state = state
        offer = Offer.open(remembered.offer, parties.server_key.public_key())
        self._secure = ServerRound(offer, server_key=parties.server_key, authority_key=parties.authority_key)
        self._outgoing: Mapping[int, bytes] | None = None  # of the open step; None before the first is closed
        self._replay()

    @property
    def advertised(self) -> int:
        """Devices on the roster; 0 before there is one."""
        return 0 if self._secure.stage is Stage.ADVERTISE else len(self._secure.arrived(Stage.ADVERTISE))

    def run(self, exchange: Exchange, plan: RoundPlan, deadlines: Deadlines) -> RoundSum:
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
        return self._secure.result()

    def result(self) -> RoundSum | None:
        """Return the sum, or None where it is not known yet."""
        return self._secure.result() if self._secure.stage is None else None

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
