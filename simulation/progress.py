"""Live progress on stderr: a bar with an ETA and a line per round; or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from palate.simulation.guarantee import SEEDED

if TYPE_CHECKING:
    from palate.simulation.session import RoundLine, SimulationSession


class SilentWatcher:
    """Says nothing."""

    def started(self, session: SimulationSession, done: list[RoundLine]) -> None:
        """Say nothing."""

    def round_done(self, line: RoundLine) -> None:
        """Say nothing."""

    def phase(self, words: str) -> None:
        """Say nothing."""


class LiveWatcher:
    """Draws progress; a context manager.

    Parameters
    ----------
    console
        Where to draw; stderr, so that stdout stays for results.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._task: TaskID | None = None
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )

    def __enter__(self) -> LiveWatcher:
        self._progress.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._progress.stop()

    def started(self, session: SimulationSession, done: list[RoundLine]) -> None:
        """Introduce the run."""
        facts, config = session.prepared.interactions, session.config
        self._console.print(
            f"{facts.num_users:,} virtual devices, {facts.num_items:,} items, {len(facts.item):,} interactions; "
            f"model {config.training.model}, {config.schedule.rounds} rounds, seed {config.seed}",
            soft_wrap=True,
        )
        if config.unit == "none":
            self._console.print(Text("unit none: no privacy, updates leave the devices as they are", style="bold red"))
        elif config.privacy.noise == "seeded":
            self._console.print(Text(f"unit {config.unit}, {SEEDED}", style="bold red"))
        else:
            self._console.print(
                f"unit {config.unit}: every device has a budget of epsilon {config.epsilon:g} at delta "
                f"{config.delta:g}, and its own ledger",
                soft_wrap=True,
                highlight=False,
            )
        if done:
            self._console.print(f"resumed after round {done[-1]['round']}")
        self._task = self._progress.add_task("round", total=config.schedule.rounds, completed=max(len(done) - 1, 0))

    def round_done(self, line: RoundLine) -> None:
        """Print the round's line and move the bar."""
        if line["purpose"] == "popularity":
            self._console.print(f"popularity   {line['users_per_second']:>9,.0f} users/s", highlight=False)
            return
        words = f"round {line['round']:>4}  "
        words += f" {line['users_per_second']:>9,.0f} users/s"
        if line["loss"] is not None:
            words += f"   loss {line['loss']:.4f}"
        if line["validation"]:
            words += (
                f"   validation HR@10 {line['validation']['hr@10']:.4f}  NDCG@10 {line['validation']['ndcg@10']:.4f}"
            )
        self._console.print(words, highlight=False, soft_wrap=True)
        if self._task is not None:
            self._progress.update(self._task, completed=line["round"])

    def phase(self, words: str) -> None:
        """Say what is going on."""
        if self._task is None:
            self._console.print(f"{words} ...", highlight=False)
        else:
            self._progress.update(self._task, description=words)
