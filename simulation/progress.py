"""Live progress: lines and a bar with an ETA on stderr, one display in a notebook, calls of a function, or nothing."""

from __future__ import annotations

import contextlib
import html
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from rich.text import Text

from palate.simulation.claims import SEEDED

if TYPE_CHECKING:
    from palate.simulation.session import RoundLine, SimulationSession


def round_words(line: RoundLine) -> str:
    """Describe a round in one line."""
    if line["purpose"] == "popularity":
        again = f"round {line['round']:>4}   {'popularity again':>16}" if line["round"] else "popularity"
        return f"{again}   {line['users_per_second']:>9,.0f} users/s"
    words = f"round {line['round']:>4}   {line['users_per_second']:>9,.0f} users/s"
    if line["loss"] is not None:
        words += f"   loss {line['loss']:.4f}"
    if line["validation"]:
        words += f"   validation HR@10 {line['validation']['hr@10']:.4f}  NDCG@10 {line['validation']['ndcg@10']:.4f}"
    return words


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of a run.

    Attributes
    ----------
    words
        The current step, or the result of the last round.
    round, rounds
        Training rounds that are done, and all of them; both 0 while data is read.
    seconds_left
        Estimate for the rounds to come, from the median of those that are done; None before the first.
    lasting
        Whether the words stay true, as about a finished round; others are replaced by the next.
    warning
        Whether they say that nobody is protected.
    """

    words: str
    round: int
    rounds: int
    seconds_left: float | None
    lasting: bool = False
    warning: bool = False


class Watcher:
    """Follows a run, and calls a function with the `Progress` at every step; without one it says nothing."""

    def __init__(self, call: Callable[[Progress], object] = lambda _: None) -> None:
        self._call = call
        self._rounds = self._done = 0
        self._walls: list[float] = []

    def started(self, session: SimulationSession, done: list[RoundLine]) -> None:
        """Introduce the run."""
        facts, config = session.prepared.interactions, session.config
        self._rounds, self._done = config.schedule.rounds, max(len(done) - 1, 0)
        self._tell(
            f"{facts.num_users:,} virtual devices, {facts.num_items:,} items, {len(facts.item):,} interactions; "
            f"model {config.training.model}, {config.schedule.rounds} rounds, seed {config.seed}",
            lasting=True,
        )
        if config.unit == "none":
            self._tell("unit none: no privacy, updates leave the devices as they are", lasting=True, warning=True)
        elif config.privacy.noise == "seeded":
            self._tell(f"unit {config.unit}, {SEEDED}", lasting=True, warning=True)
        else:
            self._tell(
                f"unit {config.unit}: every device has a budget of epsilon {config.epsilon:g} at delta "
                f"{config.delta:g}, and its own ledger",
                lasting=True,
            )
        if done:
            self._tell(f"resumed after round {done[-1]['round']}", lasting=True)

    def round_done(self, line: RoundLine) -> None:
        """Report a finished round."""
        self._done = line["round"]
        if line["purpose"] == "train":
            self._walls.append(line["wall_seconds"])
        self._tell(round_words(line), lasting=True)

    def phase(self, words: str) -> None:
        """Report the current step."""
        self._tell(words)

    def _tell(self, words: str, *, lasting: bool = False, warning: bool = False) -> None:
        left = statistics.median(self._walls) * (self._rounds - self._done) if self._walls else None
        step = Progress(words=words, round=self._done, rounds=self._rounds, seconds_left=left)
        self._call(replace(step, lasting=lasting, warning=warning))


def bar_on(console: Console, count: str = "{task.completed:.0f}/{task.total:.0f}") -> ProgressBar:
    """Return a bar with what is counted, what has been and the time that is left; it goes away at its end."""
    return ProgressBar(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TextColumn(count),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


@contextlib.contextmanager
def _on_lines(console: Console) -> Iterator[Watcher]:
    """Print lasting words, and draw a bar with the others."""
    bar = bar_on(console)
    task = bar.add_task("round", start=False, visible=False)

    def show(step: Progress) -> None:
        started = step.rounds > 0
        if step.lasting or not started:
            line = Text(step.words if step.lasting else f"{step.words} ...", style="bold red" if step.warning else "")
            console.print(line, soft_wrap=True)
        if started:
            bar.start_task(task)
            words = None if step.lasting else step.words
            bar.update(task, visible=True, total=step.rounds, completed=step.round, description=words)

    with bar:
        yield Watcher(show)


def _in_notebook() -> Watcher:
    """Bring one display up to date: a bar, what is going on, and the time that is left."""
    from IPython.display import HTML, display

    shown = display(HTML("starting"), display_id=True)
    return Watcher(lambda progress: shown.update(HTML(_as_html(progress))))


def _as_html(progress: Progress) -> str:
    left = "" if progress.seconds_left is None else f", about {progress.seconds_left:,.0f} s left"
    where = f"round {progress.round} of {progress.rounds}{left}: " if progress.rounds else ""
    bar = f'<progress value="{progress.round}" max="{progress.rounds or 1}"></progress> '
    return f"<div>{bar}{html.escape(where + progress.words)}</div>"


@contextlib.contextmanager
def watching(
    progress: Callable[[Progress], object] | bool | None, *, console: Console | None = None
) -> Iterator[Watcher]:
    """Choose who watches a run.

    Parameters
    ----------
    progress
        A function; False for nobody; None or True for the notebook, where there is one, or else lines on stderr.
    console
        Where lines go.
    """
    if callable(progress):
        yield Watcher(progress)
    elif progress is False:
        yield Watcher()
    elif in_notebook():
        yield _in_notebook()
    else:
        with _on_lines(console or Console(stderr=True)) as watcher:
            yield watcher


def in_notebook() -> bool:
    """Tell whether this process is the kernel of a notebook: IPython with a front end that shows HTML."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")
