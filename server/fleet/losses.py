"""Rounds that were lost in a row, and when that is reason to stop: each of them stays charged to all its devices.

The count is no state of its own: it follows from the rounds that `FleetState` remembers, and from the last one that the
operator has forgiven, so that a crash between two writes, or a supervisor that starts the server anew, changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from palate.errors import FederationError
from palate.server.fleet.dropouts import AWAY
from palate.server.fleet.state import FleetState, Round, RoundStatus

_REMEMBERED_ROUNDS = 4
"""For so many rounds the others are asked alone after a round was lost because devices went away."""


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
    sabotaged
        Whether a check failed on most devices of one of them: that alone is reason to stop.
    """

    rounds: tuple[Round, ...]
    halt_after: int
    sabotaged: bool = False

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
        return bool(self.rounds) and (self.sabotaged or len(self.rounds) >= self.halt_after)

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
        if self.sabotaged:
            return (
                "client.log of the devices where a check failed says why, and names whose shares they could not open; "
                "then palate server remove, and palate server resume"
            )
        return (
            "palate server rounds --explain says why devices dropped out, and nobody is accused; then go on with "
            "palate server resume"
        )

    def error(self) -> FleetHalted:
        """Return what stops the server."""
        return FleetHalted(f"the fleet has stopped by itself: {self.words}", hint=self.hint)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "halted": self.halted,
            "halt_after": self.halt_after,
            "sabotaged": self.sabotaged,
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


def steady(state: FleetState, run: str, present: list[str], *, least: int) -> list[str]:
    """Leave out who went away in a round that was lost lately, as long as there are enough others.

    Each lost round costs all its devices. Whoever goes and comes all the time shall not cost the others a second one.

    Parameters
    ----------
    state, run
        The rounds.
    present
        Devices that could be asked.
    least
        How many of them must be left.
    """
    lost = [each.number for each in state.rounds(run)[-_REMEMBERED_ROUNDS:] if each.status is RoundStatus.ABANDONED]
    away = {member.device for number in lost for member in state.members(number) if member.failure in AWAY}
    others = [device for device in present if device not in away]
    return others if len(others) >= least else present
