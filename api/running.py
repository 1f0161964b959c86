"""`palate.simulate`, and what a finished run answers: accuracy, guarantee, audit, report, lists, comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import polars as pl

from palate.errors import ConfigError, PalateError
from palate.loading import Data
from palate.planning import plan as planned
from palate.simulation.config import SimulationConfig
from palate.simulation.datasets.presets import IN_MEMORY
from palate.simulation.evaluation import Summary
from palate.simulation.federation import simulate as run_simulation
from palate.simulation.planning import Plan
from palate.simulation.progress import Progress, watching
from palate.simulation.report.headline import headline, protection
from palate.simulation.report.recommending import Recommended, recommend_to
from palate.simulation.report.records import GuaranteeRecord, Result
from palate.simulation.report.rendering import Protection, cell
from palate.simulation.report.tables import accuracy_grid, facts_grid, measured
from palate.simulation.run_folder import RESOLVED, read_config
from palate.simulation.run_reader import Run as RunRecord
from palate.simulation.run_reader import locate_run, read_run
from palate.tables import Table

if TYPE_CHECKING:
    from os import PathLike

    from palate.audit.budget_audit import BudgetAudit
    from palate.audit.ledger_audit import LedgerAudit
    from palate.simulation.finished import Finished
    from palate.simulation.report.comparing import Comparison

Listener: TypeAlias = Callable[[Progress], object] | bool | None
"""Who hears of progress: a function, nobody (False), or the terminal or notebook (None or True)."""


@dataclass(frozen=True, eq=False)
class Metrics:
    """Accuracy of a run and of its baselines on held-out items.

    Attributes
    ----------
    result
        What result.json says.

    Examples
    --------
    >>> run.metrics.test.sampled.hit_rate.value
    >>> polars.DataFrame(run.metrics)  # or pyarrow.table(...), or pandas.DataFrame.from_arrow(...)
    """

    result: Result = field(repr=False)

    @property
    def test(self) -> Summary:
        """The run on test items: `sampled` and `full` accuracy, with 95% intervals, and properties of the lists."""
        return self.result.summary.test

    @property
    def validation(self) -> Summary | None:
        """The run on validation items; None where nobody has one."""
        return self.result.summary.validation

    def to_frame(self) -> pl.DataFrame:
        """Return one row for each part, model and ranking: "sampled" ranks among negatives, "full" the catalogue."""
        return pl.DataFrame(
            [
                {"part": part, "model": label, "ranking": ranking, **summary.accuracy(ranking).values}
                for part in ("test", "validation")
                for label, summary in measured(self.result, part)
                for ranking in ("sampled", "full")
            ]
        )

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Hand the frame to any library that takes Arrow."""
        return self.to_frame().__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        """Show the accuracy on test items."""
        own = self.test
        shown = ", ".join(f"{name} {own.sampled.values[name]:.4f}" for name in own.sampled.intervals)
        return f"Metrics(test, sampled candidates: {shown})"

    def _repr_html_(self) -> str:
        """Show the run and its baselines in a notebook."""
        grids = [accuracy_grid(self.result, "test", ranking) for ranking in ("full", "sampled")]
        return cell(f"Metrics: {self.result.run}", grids, note=headline(self.result))


@dataclass(frozen=True)
class Guarantee:
    """The privacy guarantee of a run with its assumptions; or that there is none.

    Attributes
    ----------
    unit
        What it covers; "none" is no privacy.
    record
        The claim with its meaning and assumptions; None where nothing is promised.
    shown
        The claim in a line (`title`), the compared worlds and assumptions (`text`), and all of its parts (`facts`).

    Examples
    --------
    >>> str(run.guarantee)
    >>> run.guarantee.epsilon, run.guarantee.delta, run.guarantee.unit, run.guarantee.adjacency
    """

    unit: str
    record: GuaranteeRecord | None = field(repr=False)
    shown: Protection

    @property
    def protected(self) -> bool:
        """Whether anything is promised."""
        return self.record is not None

    @property
    def epsilon(self) -> float | None:
        """The proven epsilon, at `delta`, per `unit`, for `adjacency`; None without protection."""
        return self.record.epsilon if self.record else None

    @property
    def delta(self) -> float | None:
        """Failure probability; None without protection."""
        return self.record.delta if self.record else None

    @property
    def adjacency(self) -> str | None:
        """The two worlds that must look alike; None without protection."""
        return self.record.adjacency if self.record else None

    def __str__(self) -> str:
        """Say it in sentences: no epsilon without unit, delta and adjacency."""
        return str(self.shown)

    def _repr_html_(self) -> str:
        """Show the promise in a notebook."""
        return cell("Guarantee", [facts_grid("", "", self.shown.facts)], protection=self.shown)


@dataclass(frozen=True, eq=False)
class AuditResult:
    """What an audit of a run's record found; nothing is raised.

    Attributes
    ----------
    ledgers
        Chains, signatures, budgets and agreement of all ledgers; None where there is no record.
    budget
        Budget and spending, only from the ledgers; None if the record is not intact.
    faults
        Faults, worst first; each has a message, a hint and an exit code.
    """

    ledgers: LedgerAudit | None = field(repr=False)
    budget: BudgetAudit | None = field(repr=False)
    faults: tuple[PalateError, ...]

    @property
    def ok(self) -> bool:
        """Whether the record is there, intact and complete, and supports what the run claims."""
        return not self.faults

    def _repr_html_(self) -> str:
        """Show the findings in a notebook."""
        from palate.audit.findings import checks, headline, spent

        facts = {type(fault).__name__: f"{fault.message}. {fault.hint}" for fault in self.faults}
        if self.ledgers is not None:
            facts |= {check.name: f"{check.verdict}: {check.text}" for check in checks(self.ledgers)}
        if self.budget is not None:
            facts |= {f"Spent, unit {unit.unit}": f"{spent(unit)} {unit.adjacency}." for unit in self.budget.units}
        note = headline(self.ledgers) if self.ledgers is not None else "There is no record to audit."
        return cell("Audit", [facts_grid("", "", facts)], note=note)


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run: its folder, and everything that it can say.

    Attributes
    ----------
    folder
        The run folder; it has everything needed to repeat the run.
    data
        The data that it was made from, where it was made in this session.

    Examples
    --------
    >>> run = palate.Run.open("runs/demo")  # or a name under runs/
    >>> run.recommend(user="v0515", n=5)
    """

    folder: Path
    data: Data | None = field(default=None, repr=False)

    @classmethod
    def open(cls, folder: str | PathLike[str]) -> Run:
        """Open a run by its folder, or by its name under runs/.

        Raises
        ------
        palate.errors.RunError
            If there is no such run.
        """
        return cls(locate_run(folder if isinstance(folder, str) else Path(folder)))

    @cached_property
    def record(self) -> RunRecord:
        """The run folder, read whole and checked; raises RunError if it is unfinished or damaged."""
        return read_run(self.folder)

    @cached_property
    def settings(self) -> SimulationConfig:
        """The settings that ran."""
        return read_config(self.folder, RESOLVED)

    @property
    def metrics(self) -> Metrics:
        """Accuracy on held-out items, of the run and its baselines; exact, and not covered by the guarantee."""
        return Metrics(self.record.result)

    @property
    def guarantee(self) -> Guarantee:
        """The guarantee of the run, with its assumptions."""
        result = self.record.result
        return Guarantee(result.unit, result.guarantee, protection(result))

    @property
    def table(self) -> Table:
        """The item table: the only thing that devices learned together."""
        return Table.open(self.folder)

    def audit(self, *, key: str | None = None, anchors: str | PathLike[str] | None = None) -> AuditResult:
        """Verify the run's ledgers and compute only from them what was spent, as `palate audit` does.

        Parameters
        ----------
        key
            Public key to verify with: 64 hexadecimal digits or a file; by default the one in the ledgers' folder, which
            proves less.
        anchors
            Heads that were kept from an earlier audit.
        """
        from palate.audit.budget_audit import audit_budget
        from palate.audit.ledger_audit import audit_ledgers
        from palate.audit.opening import open_source

        ledgers, budget = None, None
        try:
            source = open_source(str(self.folder), key)
            ledgers = audit_ledgers(source, None if anchors is None else Path(anchors))
            ledgers.raise_gravest(allow_open=True)
            budget = audit_budget(ledgers)
            budget.raise_first()
        except PalateError as error:
            others = ledgers.faults if ledgers is not None else ()
            return AuditResult(ledgers, budget, (error, *(fault for fault in others if fault is not error)))
        return AuditResult(ledgers, budget, tuple(ledgers.faults))

    def report(self, path: str | PathLike[str] | None = None, *, examples: bool | None = None) -> Path:
        """Write the report as one HTML page, by default report.html in the run folder, and return its path.

        Parameters
        ----------
        path
            Where to write.
        examples
            Whether to show a few people's histories and lists; by default only of a run that protects nobody.

        Raises
        ------
        palate.errors.RunError
            If the run has not finished or its folder is damaged.
        ModuleNotFoundError
            If the extra `report` is not installed.
        """
        from palate.simulation.report.page import write_report

        self._hold()
        return write_report(self.folder, output=None if path is None else Path(path), examples=examples)

    def recommend(self, user: str, n: int = 10) -> Recommended:
        """Recommend to one person of the run's data: titles with scores, best first, and what they had recently.

        Raises
        ------
        palate.errors.DataError
            If the data has no such person, or is not on this machine any more.
        palate.errors.RunError
            If the run has not finished or is damaged, or its data has changed.
        """
        return recommend_to(self.finished, str(user), n)

    @cached_property
    def finished(self) -> Finished:
        """The run ready to score: data, table, and everybody's own part of the model put together again."""
        from palate.simulation.finished import open_finished

        self._hold()
        return open_finished(self.folder)

    def _hold(self) -> None:
        if self.data is not None:
            self.data.hold()

    def _repr_html_(self) -> str:
        """Show the run in a notebook: its guarantee, and its accuracy with the baselines'."""
        result = self.record.result
        grid = accuracy_grid(result, "test", "full")
        return cell(f"Run: {result.run}", [grid], note=headline(result), protection=protection(result))


def simulate(
    data: Data,
    plan: Plan | None = None,
    *,
    folder: str | PathLike[str] | None = None,
    fresh: bool = False,
    progress: Listener = None,
    ray_address: str = "",
) -> Run:
    """Train a federated recommender on virtual devices and measure it, as `palate simulate` does.

    A run that was stopped continues after its last finished round; a finished run is returned at once.

    Parameters
    ----------
    data
        What `palate.load` returned.
    plan
        What `palate.plan` returned for this data; by default the plan of unit "user" at epsilon 8 and delta 1e-5.
    folder
        Run folder; by default runs/ and a name made from the settings.
    fresh
        Delete the run that is in the folder, and start anew.
    progress
        By default lines on stderr in a terminal, and a display in a notebook; False for silence; or a function that
        is called with a `Progress`.
    ray_address
        Ray cluster for the engine "flower"; a local one if empty.

    Raises
    ------
    palate.errors.PalateError
        For settings, folders or machines that cannot be used; message and hint say why.

    Examples
    --------
    >>> run = palate.simulate(data, palate.plan(data, epsilon=4), folder="runs/four")
    """
    chosen = plan if plan is not None else planned(data)
    if (chosen.asked.data, chosen.asked.read) != (data.source, data.options):
        raise ConfigError(
            f"the plan is for {chosen.asked.data}, the data is {data.source}", hint="plan again: palate.plan(data, ...)"
        )
    config = chosen.asked
    if config.engine == "flower" and config.data.startswith(IN_MEMORY):
        raise ConfigError(
            "engine 'flower' runs in other processes, and the data is a frame in this one",
            hint="write it to a Parquet file and load that, or use the engine 'vectorised'",
        )
    place = Path(folder) if folder is not None else Path("runs") / config.default_run_name
    data.hold()
    with watching(progress) as watcher:
        run_simulation(config, place, watcher, fresh=fresh, ray_address=ray_address)
    return Run(place, data)


def compare(*runs: Run | str | PathLike[str]) -> Comparison:
    """Compare runs on the same people, each with the first: differences, 95% intervals, effect sizes, paired tests.

    Parameters
    ----------
    runs
        Two or more runs, run folders, or names under runs/.

    Raises
    ------
    palate.errors.RunError
        If they are not of the same data and held-out items, or are unfinished or damaged.
    palate.errors.ConfigError
        If there are fewer than two.
    """
    from palate.simulation.report.comparing import compare_runs

    opened = [run if isinstance(run, Run) else Run.open(run) for run in runs]
    return compare_runs(*(run.record for run in opened))
