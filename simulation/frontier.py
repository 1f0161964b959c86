"""The privacy-utility frontier: one run per dataset, unit, epsilon and seed, and a summary of all of them.

Every point is an ordinary run folder, made as `palate simulate` makes it, so that a sweep that was stopped goes on
where it was and a longer one finds the points of a shorter one. Written: docs/formats/frontier.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from palate.errors import ConfigError, RunError
from palate.privacy.accounting.events import Adjacency, Assumption
from palate.server.values import merge
from palate.simulation.claims import PUBLIC_CATALOGUE, SEEDED
from palate.simulation.config import SimulationConfig, checked_config
from palate.simulation.federation import simulate
from palate.simulation.frontier_controls import controls_of, dataset_name, reference_names, references_of
from palate.simulation.frontier_records import Cell, Entry, cells_of, entry_of_baseline, entry_of_run, table_of
from palate.simulation.progress import Watcher
from palate.simulation.protection import UNPROTECTED

RUNS = "runs"
"""Folder of the points' run folders."""

SWEPT = ("data", "unit", "epsilon", "delta", "seed", "baselines")
"""Settings that a sweep decides itself."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What is swept.

    Attributes
    ----------
    data
        Datasets.
    units
        Units of protection, none of them "none".
    epsilons
        Budgets, in increasing order; infinity means unit none, once for all units.
    seeds
        Seeds of every point.
    delta
        Of every guarantee; the default of `palate simulate` where None.
    values
        Other settings of every run, nested as in a TOML file; those of `SWEPT` in it are ignored.

    Raises
    ------
    ConfigError
        If something is empty, given twice, or out of range.
    """

    data: tuple[str, ...]
    units: tuple[str, ...]
    epsilons: tuple[float, ...]
    seeds: tuple[int, ...]
    delta: float | None = None
    values: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("data", "units", "epsilons", "seeds"):
            given = getattr(self, name)
            if not given:
                raise ConfigError(f"a frontier needs at least 1 of {name}, 0 were given", hint="see --help")
            if len(set(given)) < len(given):
                raise ConfigError(f"{name} {_listed(given)} names one twice", hint="name each once")
        if not all(epsilon > 0 for epsilon in self.epsilons) or list(self.epsilons) != sorted(self.epsilons):
            raise ConfigError(
                f"epsilons {_listed(self.epsilons)} are not above 0 and in increasing order",
                hint="for example --epsilons 1,4,inf",
            )
        if UNPROTECTED in self.units:
            raise ConfigError("unit 'none' has no epsilon to sweep", hint="it is the point inf of --epsilons")
        self.points()  # what a run would refuse is refused before the first one begins

    @property
    def asked(self) -> dict[str, Any]:
        """The request, for frontier.json; null among the epsilons is unit none."""
        return {
            "data": list(self.data),
            "units": list(self.units),
            "epsilons": [epsilon if math.isfinite(epsilon) else None for epsilon in self.epsilons],
            "seeds": list(self.seeds),
            "delta": self.delta,
            "settings": {name: value for name, value in self.values.items() if name not in SWEPT},
        }

    def points(self) -> tuple[SimulationConfig, ...]:
        """List all runs: a whole curve with the first seed, then with the next."""
        return tuple(
            self._config(data, unit, epsilon, seed)
            for data in self.data
            for seed in self.seeds
            for epsilon in self.epsilons
            for unit in (self.units if math.isfinite(epsilon) else (UNPROTECTED,))
        )

    def _config(self, data: str, unit: str, epsilon: float, seed: int) -> SimulationConfig:
        values = {name: value for name, value in self.values.items() if name not in SWEPT}
        swept: dict[str, Any] = {"data": data, "unit": unit, "seed": seed, "baselines": ()}
        if math.isfinite(epsilon):
            swept["epsilon"] = epsilon
            if self.delta is not None:
                swept["delta"] = self.delta
        return checked_config(merge(values, swept))


def run_name(config: SimulationConfig) -> str:
    """Name the run folder of a point: the same settings find the same folder again."""
    budget = "" if config.epsilon is None else f"-eps{config.epsilon:g}"
    stem = f"{dataset_name(config.data)}-{config.training.model}-{config.unit}"
    return f"{stem}{budget}-seed{config.seed}-{config.fingerprint}"


@dataclass(frozen=True)
class Frontier:
    """A finished sweep."""

    sweep: Sweep
    table: pl.DataFrame
    skipped: tuple[str, ...]

    @property
    def cells(self) -> list[Cell]:
        """Every model at every budget, over seeds."""
        return cells_of(self.table)

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes that must be shown with the numbers."""
        protected = [point for point in self.sweep.points() if point.promises]
        seeded = any(config.privacy.noise == "seeded" for config in protected)
        meaning = [_meaning(protected[0].delta)] if protected and not seeded else []
        return (*([SEEDED] if seeded else meaning), *self.skipped)


def _meaning(delta: float | None) -> str:
    """Describe an epsilon of a sweep: unit, delta, adjacency and assumptions."""
    trusted = f"{Assumption.SECURE_AGGREGATION}, and {Assumption.HONEST_FRACTION} (units user and both)"
    return (
        f"Every epsilon is for all rounds of a run together, per its unit, at delta {delta:g}; "
        f"{Adjacency.ZERO_OUT}. It holds if {trusted}, and {PUBLIC_CATALOGUE}."
    )


def run_sweep(
    sweep: Sweep,
    folder: Path,
    watcher: Watcher,
    *,
    references: Sequence[str],
    begins: Callable[[SimulationConfig, int], None] = lambda *_: None,
) -> Frontier:
    """Run, resume or read every point, and its controls and references.

    Parameters
    ----------
    sweep
        What to run.
    folder
        Where runs/, controls/ and references/ go; made if missing.
    watcher
        Follows each run.
    references
        Baselines without privacy, once for a dataset with the first seed.
    begins
        Called with every point before it begins, and its place from 0 on.

    Raises
    ------
    PalateError, PrivacyError
        As `palate.simulation.federation.simulate`; ConfigError for a reference that there is not, RunError if the
        data changed between two points.
    """
    for name in references:
        if name not in reference_names():
            raise ConfigError(f"no reference is called {name!r}", hint=f"choose from {', '.join(reference_names())}")
    entries: list[Entry] = []
    skipped: list[str] = []
    hashes: dict[str, str] = {}
    for position, config in enumerate(sweep.points()):
        begins(config, position)
        run = folder / RUNS / run_name(config)
        result = simulate(config, run, watcher)
        found = _data_hash(run)
        if found is not None and hashes.setdefault(config.data, found) != found:
            raise RunError(
                f"{run}: {config.data} has changed since the first run of this frontier", hint="choose another --folder"
            )
        entries.append(entry_of_run(config, result, run.name))
        for control in controls_of(config, run, folder, watcher.phase):
            entries.append(entry_of_baseline(control, config, "control", run.name))
    for data in sweep.data:
        first = next(point for point in sweep.points() if point.data == data)
        for found_reference in references_of(first, references, folder, hashes.get(data), watcher.phase):
            if found_reference.get("skipped"):
                skipped.append(f"{dataset_name(data)}, {found_reference['label']}: {found_reference['skipped']}")
                continue
            entries.append(entry_of_baseline(found_reference, first, "reference", None))
    return Frontier(sweep, table_of(entries), tuple(skipped))


def _data_hash(run: Path) -> str | None:
    """Hash of the data that a run is about; None where its devices' state has been deleted since."""
    try:
        return (run / "devices" / "data.sha256").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None


def _listed(values: Iterable[object]) -> str:
    return ",".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
