"""A fleet's rounds on the operator's terminal: where the open round is, and a line for every round that has ended."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from palate.privacy.accounting.guarantee import round_up
from palate.privacy.wire import FleetStep
from palate.server.fleet.state import Member, Round, RoundStatus
from palate.server.fleet.watching import (
    Answered,
    Clock,
    Happening,
    HelperAway,
    HelperDone,
    Lost,
    RoundBegun,
    RoundEnded,
    RunEnded,
    StepBegun,
    StepDone,
    Waiting,
)


class RoundLines:
    """Watches, and draws progress; a context manager.

    Parameters
    ----------
    console
        Where to draw; stderr, so that stdout stays for results.
    rounds
        Rounds that the run shall apply, popularity's included.
    delta
        Of the guarantee.
    clock
        Measures rounds, for how long the rest may take.
    """

    def __init__(self, console: Console, *, rounds: int, delta: float, clock: Clock) -> None:
        self._console = console
        self._rounds, self._delta, self._clock = rounds, delta, clock
        self._began: float | None = None
        self._seconds: list[float] = []
        self._task: TaskID | None = None
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f} devices"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )

    def __enter__(self) -> RoundLines:
        self._progress.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._progress.stop()

    def __call__(self, happening: Happening) -> None:
        """Draw or say what happened."""
        match happening:
            case Waiting(online, needed):
                self._say(f"waiting for devices: {online} of {needed} are online")
            case RoundBegun(begun, resumed):
                self._began = self._clock.now()
                again = ", resumed" if resumed else ""
                self._say(f"round {begun.number} ({begun.purpose}{again}): {begun.roster_size} devices are asked")
            case StepBegun(number, step, devices, seconds):
                self._take_off()
                words = f"round {number}: {step}, {seconds:.0f} s at most"
                self._task = self._progress.add_task(words, total=max(devices, 1))
            case Answered() if self._task is not None:
                self._progress.advance(self._task)
            case StepDone(_, step, answers, devices, seconds):
                self._take_off()
                if answers < devices and step is not FleetStep.RECEIPT:
                    self._say(f"  {step}: {answers} of {devices} answered in {seconds:.1f} s")
            case HelperAway(number, why):
                self._say(f"round {number} waits for the helper: {why}")
            case HelperDone(_, reports, accepted, left_out, seconds):
                without = "".join(f", {count} {reason}" for reason, count in left_out.items())
                self._say(f"  helper: {accepted} of {reports} reports are in the sum{without}; {seconds:.1f} s")
            case RoundEnded(ended, members, applied):
                self._round_ended(ended, members, applied)
            case Lost(losses) if losses.rounds and not losses.halted:
                self._say(f"{len(losses.rounds)} lost in a row; after {losses.halt_after} the server stops by itself")
            case RunEnded(why):
                self._say(f"the run ends: {why}")

    def _round_ended(self, ended: Round, members: Sequence[Member], applied: int) -> None:
        if self._began is not None:
            self._seconds.append(self._clock.now() - self._began)
            self._began = None
        of_all = f", {round_up(ended.life_epsilon)} in all runs" if ended.life_epsilon > ended.epsilon else ""
        spent = f"epsilon spent in this run {round_up(ended.epsilon)}{of_all}, per user at delta {self._delta:g}"
        if ended.status is RoundStatus.ABANDONED:
            named = f" (device {ended.named})" if ended.named else ""
            self._say(f"round {ended.number} given up: {ended.reason}{named}; it stays charged: {spent}")
            return
        up, down = bytes_per_device(members)
        self._say(
            f"round {ended.number} done: asked {ended.roster_size}, roster {ended.advertised}, survivors "
            f"{ended.survivors}; {up / 1e3:.0f} KB up and {down / 1e3:.0f} KB down a device without the table; "
            f"{spent}{self._left(applied)}"
        )

    def _take_off(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None

    def _left(self, applied: int) -> str:
        left = self._rounds - applied
        if left <= 0 or not self._seconds:
            return ""
        seconds = left * sum(self._seconds) / len(self._seconds)
        about = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
        return f"; {left} {'round' if left == 1 else 'rounds'} left, about {about}"

    def _say(self, words: str) -> None:
        self._console.print(words, highlight=False, markup=False, soft_wrap=True)


def bytes_per_device(members: Sequence[Member]) -> tuple[float, float]:
    """Mean bytes up and down of the devices that sent anything."""
    sent = [member for member in members if member.up]
    if not sent:
        return 0.0, 0.0
    return sum(member.up for member in sent) / len(sent), sum(member.down for member in sent) / len(sent)
