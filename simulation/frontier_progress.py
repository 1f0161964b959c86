"""Progress of a sweep on stderr: one bar over all runs with the time that is left."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from palate.simulation.frontier import RUNS, Point, Sweep
from palate.simulation.session import RoundLine, SimulationSession


class SweepProgress:
    """Draws progress; a context manager.

    Parameters
    ----------
    console
        Where to draw; stderr.
    sweep, folder
        What is run, and where: points that were finished before take no time and would spoil the estimate.
    """

    def __init__(self, console: Console, sweep: Sweep, folder: Path) -> None:
        names = [point.name for point in sweep.points()]
        self._finished = {name for name in names if (folder / RUNS / name / "result.json").exists()}
        self._total = len(names)
        self._done, self._rounds, self._now = 0, 1, ""
        self._console = console
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.1f}/{task.total:.0f} runs"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("", total=max(self._total - len(self._finished), 1))

    def __enter__(self) -> SweepProgress:
        if self._finished:
            self._console.print(f"{len(self._finished)} of {self._total} runs have finished before", highlight=False)
        self._progress.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._progress.stop()

    def point(self, point: Point, position: int) -> None:
        """Move on to the next point."""
        if self._now and self._now not in self._finished:
            self._done += 1
        self._now = point.name
        budget = "no privacy" if point.config.epsilon is None else f"epsilon {point.config.epsilon:g}"
        words = f"{position + 1}/{self._total} {point.config.unit}, {budget}, seed {point.config.seed}"
        self._progress.update(self._task, description=words, completed=self._done)

    def started(self, session: SimulationSession, done: list[RoundLine]) -> None:
        """Take note of how many rounds the run has; popularity and the closing work count as two more."""
        self._rounds = session.config.schedule.rounds + 2
        self._advance(len(done))

    def round_done(self, line: RoundLine) -> None:
        """Move the bar by a round."""
        self._advance(line["round"] + 1)

    def phase(self, words: str) -> None:
        """Phases of single runs are too many to name."""

    def _advance(self, rounds: int) -> None:
        self._progress.update(self._task, completed=self._done + min(rounds / self._rounds, 1.0))
