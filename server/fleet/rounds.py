"""A round as the operation sees it, be it among peers (`peers.py`) or under two aggregators (`collecting.py`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from palate.privacy.integer.ring import RingArray
from palate.privacy.mechanisms.terms import RunTerms
from palate.privacy.wire import FleetStep, RoundPlan
from palate.server.fleet.config import Deadlines
from palate.server.fleet.exchange import Exchange
from palate.server.fleet.state import CollectionRecord, FleetState, Round

_ENVELOPE_BYTES = 1 << 20
"""Room for what comes with a vector: signatures, and shares for 300 peers."""


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


class NumberUsed(Exception):
    """The next round's number was used by a round that this folder does not know: it was restored from a backup."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RoundResult:
    """What a round gave.

    Attributes
    ----------
    vector
        The sum modulo 2^b, ring elements [update_size].
    survivors
        Numbers of the devices in it, ascending.
    sets_hash, sum_hash
        For the public log, 32 bytes each: of the survivors (under two aggregators of the helper's answer, which names
        whom it left out), and of the sum.
    """

    vector: RingArray = field(repr=False)
    survivors: tuple[int, ...] = field(repr=False)
    sets_hash: bytes
    sum_hash: bytes


@dataclass(frozen=True)
class Beginning:
    """What is remembered of a round before anything leaves: the signed offer, and more under two aggregators."""

    offer: bytes = field(repr=False)
    collection: CollectionRecord | None = None


class OpenRound(Protocol):
    """A round that was begun, be it among peers or under two aggregators."""

    @property
    def advertised(self) -> int:
        """Devices that have taken part so far."""

    def terms(self, terms: RunTerms) -> RunTerms:
        """Return the terms of a run, for one device, as they were spread when the round was begun."""

    def run(self, exchange: Exchange, plan: RoundPlan, deadlines: Deadlines) -> RoundResult:
        """Take the steps that are left, and return the sum; raises RoundLost, or Interrupted."""

    def result(self) -> RoundResult | None:
        """Return the sum, or None where it is not known yet."""

    def receipt(self, *, model_hash: str, log_index: int) -> bytes:
        """Sign what became of the round."""

    def close(self) -> None:
        """Let its files go."""


class NewRound(Protocol):
    """A round that is about to begin."""

    @property
    def asked(self) -> list[str]:
        """Devices that are asked."""

    def terms(self, terms: RunTerms) -> RunTerms:
        """Spread the terms of a run, for one device, over them."""

    def begin(self, plan: RoundPlan) -> Beginning:
        """Make what is remembered; NumberUsed if a round of this number was collected before."""


class RoundProtocol(Protocol):
    """How a fleet's rounds are made."""

    def prepare(self, present: list[str]) -> NewRound:
        """Say who of the devices that are there is asked in the next round."""

    def open(self, remembered: Round, state: FleetState) -> OpenRound:
        """Open a round that was begun, where it is now."""

    def witness(self) -> None:
        """Have the public log cosigned, where somebody does."""

    def forget(self, open_round: int | None) -> None:
        """Delete what is left of rounds that are over."""


def largest_answer(plan: RoundPlan) -> int:
    """Bytes that no honest answer to any step of a round exceeds."""
    return 8 * plan.update_size + _ENVELOPE_BYTES


def round_lines(rounds: Iterable[Round]) -> list[dict[str, object]]:
    """Return the lines of rounds.jsonl: what is remembered of every round that has ended."""
    return [
        {
            "round": each.number,
            "purpose": each.purpose,
            "status": str(each.status),
            "reason": each.reason,
            "asked": each.roster_size,
            "roster": each.advertised,
            "survivors": each.survivors,
            "epsilon": each.epsilon,
            "table": each.table_hash,
            "log_index": each.log_index,
            "started_at": each.started_at,
            "ended_at": each.ended_at,
        }
        for each in rounds
        if each.ended_at is not None
    ]
