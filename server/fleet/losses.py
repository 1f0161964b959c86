"""Rounds that were lost in a row, and when that is reason to stop: each of them stays charged to all its devices.

The count is no state of its own: it follows from the rounds that `FleetState` remembers, and from the last one that the
operator has forgiven, so that a crash between two writes, or a supervisor that starts the server anew, changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from palate.errors import FederationError
from palate.server.fleet.state import FleetState, Round, RoundStatus


class FleetHalted(FederationError):
    """A fleet that begins no round until its operator resumes it."""

    exit_code = 8


@dataclass(frozen=True)
class Losses:
    """What was lost since the last round that came to its end, or was forgiven.

    Attributes
    ----------
    rounds
        The lost rounds, oldest first.
    halt_after
        How many of them stop the server.
    refused
        Whether most devices refused to go on in the last one: that alone is reason to stop.
    """

    rounds: tuple[Round, ...]
    halt_after: int
    refused: bool = False

    @staticmethod
    def found(state: FleetState, halt_after: int) -> Losses:
        """Count them."""
        forgiven, lost = state.forgiven(), list[Round]()
        for each in reversed(state.rounds()):
            if each.number <= forgiven or each.status in (RoundStatus.APPLIED, RoundStatus.DONE):
                break
            if each.status is RoundStatus.ABANDONED:
                lost.append(each)
        return Losses(tuple(reversed(lost)), halt_after, bool(lost) and lost[0].number == state.halted_at())

    @property
    def halted(self) -> bool:
        """Whether no further round begins."""
        return bool(self.rounds) and (self.refused or len(self.rounds) >= self.halt_after)

    @property
    def named(self) -> tuple[str, ...]:
        """Devices whose messages made rounds fail, each once."""
        return tuple(dict.fromkeys(each.named for each in self.rounds if each.named))

    @property
    def words(self) -> str:
        """What was lost, and in which steps, in one line."""
        count = len(self.rounds)
        reasons = "; ".join(f"round {each.number}, {each.reason}" for each in self.rounds[-self.halt_after :])
        return f"{count} {'round' if count == 1 else 'rounds in a row'} lost, what they cost stays charged: {reasons}"

    @property
    def hint(self) -> str:
        """The next step."""
        if self.named:
            devices = " ".join(self.named)
            return f"ask the owner of {devices}, or: palate server remove {devices}; go on with palate server resume"
        if self.refused:
            return (
                "client.log of the devices that refused says why, and names whose shares they could not open; then "
                "palate server remove, and palate server resume"
            )
        return "find out why (palate server rounds --json, server.jsonl), then go on with palate server resume"

    def error(self) -> FleetHalted:
        """Return what stops the server."""
        return FleetHalted(f"the fleet has stopped by itself: {self.words}", hint=self.hint)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "halted": self.halted,
            "halt_after": self.halt_after,
            "refused_by_most": self.refused,
            "lost_in_a_row": [
                {
                    "round": each.number,
                    "step": each.lost_in or None,
                    "reason": each.reason,
                    "device": each.named or None,
                }
                for each in self.rounds
            ],
        }
