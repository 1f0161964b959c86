"""What happens in a fleet's rounds, as data: the terminal, the log and the metrics page all watch the same way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from palate.privacy.wire import FleetStep
from palate.server.fleet.losses import Losses
from palate.server.fleet.state import Member, Round


class Clock(Protocol):
    """Time that passes."""

    def now(self) -> float:
        """Monotonic seconds."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        ...


class SystemClock:
    """The machine's own."""

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)


@dataclass(frozen=True)
class Waiting:
    """A round waits for devices."""

    online: int
    needed: int


@dataclass(frozen=True)
class RoundBegun:
    """A round is about to be charged, or goes on after a restart."""

    round: Round
    resumed: bool


@dataclass(frozen=True)
class StepBegun:
    """So many devices are asked, and have so many seconds."""

    number: int
    step: FleetStep
    devices: int
    seconds: float


@dataclass(frozen=True)
class Answered:
    """A device's answer was taken."""

    number: int
    step: FleetStep
    device: str


@dataclass(frozen=True)
class DeviceFailed:
    """A device dropped out; `why` names a code or a check, and quotes nothing."""

    number: int
    step: FleetStep
    device: str
    why: str


@dataclass(frozen=True)
class StepDone:
    """A step has ended, after so many seconds."""

    number: int
    step: FleetStep
    answers: int
    devices: int
    seconds: float


@dataclass(frozen=True)
class HelperAway:
    """A round waits for the helper; `why` says what was wrong with the connection."""

    number: int
    why: str


@dataclass(frozen=True)
class HelperDone:
    """The helper has answered for so many reports, with so many of them in its sum.

    `left_out` counts the others by reason.
    """

    number: int
    reports: int
    accepted: int
    left_out: dict[str, int]
    seconds: float


@dataclass(frozen=True)
class RoundEnded:
    """A round was applied or abandoned; so many are in the table now."""

    round: Round
    members: tuple[Member, ...]
    applied: int


@dataclass(frozen=True)
class Lost:
    """So many rounds in a row are lost now: none after one that was applied, or after the operator resumed."""

    losses: Losses


@dataclass(frozen=True)
class RunEnded:
    """There will be no further rounds, or not now."""

    why: str


Happening = (
    Waiting
    | RoundBegun
    | StepBegun
    | Answered
    | DeviceFailed
    | StepDone
    | HelperAway
    | HelperDone
    | RoundEnded
    | Lost
    | RunEnded
)
Watcher = Callable[[Happening], None]


def watch_all(watchers: Iterable[Watcher]) -> Watcher:
    """Make one watcher out of several."""
    everybody = tuple(watchers)

    def watch(happening: Happening) -> None:
        for watcher in everybody:
            watcher(happening)

    return watch
