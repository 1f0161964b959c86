"""What a frontier leaves behind: an entry for every point and model, cells over seeds, and their files.

Specified in docs/formats/frontier.md.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from palate.data.tables import parquet_bytes
from palate.privacy import files
from palate.simulation.baselines.registry import BASELINES
from palate.simulation.config import SimulationConfig
from palate.simulation.protection import UNPROTECTED

FORMAT, VERSION = "palate.frontier", 1
SUMMARY, TABLE = "frontier.json", "frontier.parquet"

PARTS, RANKINGS = ("validation", "test"), ("sampled", "full")
METRICS = tuple(
    f"{part}/{ranking}/{metric}"
    for part in PARTS
    for ranking in RANKINGS
    for metric in ("hr@10", "ndcg@10", "recall@20", "mrr")
)
"""Names of every number that is kept of a model: part, ranking and metric."""

Kind = Literal["palate", "control", "reference"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What one model reached at one point; a row of frontier.parquet.

    Attributes
    ----------
    data, unit, epsilon, delta, seed
        Of the run, or of the run that a control stands beside; epsilon and delta are None without protection.
    kind
        "palate" is a run, "control" a baseline that spends the run's budget, "reference" one that is not private.
    model, label
        Its name, and its name for people.
    run
        Folder of the run; None for a reference, which belongs to the dataset.
    guarantee_epsilon
        What is proven for what was released; None where nothing is claimed.
    cpu_seconds
        Processor time: training and ranking of a run, fitting and ranking of a baseline.
    metrics
        By the names of `METRICS`; None where nobody could be asked.
    """

    data: str
    unit: str
    epsilon: float | None
    delta: float | None
    seed: int
    kind: Kind
    model: str
    label: str
    run: str | None
    guarantee_epsilon: float | None
    cpu_seconds: float
    metrics: Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One model at one budget, over seeds.

    Attributes
    ----------
    data, unit, epsilon, delta, kind, model, label
        As in `Entry`.
    seeds
        Which seeds were run.
    guarantee_epsilon
        The largest over seeds.
    cpu_seconds
        Mean over seeds.
    metrics
        Mean and sample standard deviation (None for one seed) by name; None where nobody could be asked.
    """

    data: str
    unit: str
    epsilon: float | None
    delta: float | None
    kind: Kind
    model: str
    label: str
    seeds: tuple[int, ...]
    guarantee_epsilon: float | None
    cpu_seconds: float
    metrics: Mapping[str, tuple[float, float | None] | None]


def entry_of_run(config: SimulationConfig, result: Mapping[str, Any], run: str) -> Entry:
    """Read a run's result."""
    guarantee = result["guarantee"]
    return Entry(
        data=config.data,
        unit=config.unit,
        epsilon=config.epsilon,
        delta=config.delta,
        seed=config.seed,
        kind="palate",
        model=str(result["model"]),
        label=f"Palate {result['model']}",
        run=run,
        guarantee_epsilon=guarantee["epsilon"] if guarantee else None,
        cpu_seconds=float(result["cpu_seconds"]["total"]),
        metrics=_metrics(result),
    )


def entry_of_baseline(found: Mapping[str, Any], config: SimulationConfig, kind: Kind, run: str | None) -> Entry:
    """Read a baseline's result; that of a control stands beside a run, that of a reference beside a dataset."""
    private = kind == "control"
    return Entry(
        data=config.data,
        unit=config.unit if private else UNPROTECTED,
        epsilon=config.epsilon if private else None,
        delta=config.delta if private else None,
        seed=config.seed,
        kind=kind,
        model=str(found["name"]),
        label=BASELINES[str(found["name"])].label,  # without the budget, which is a column of its own here
        run=run,
        guarantee_epsilon=None,
        cpu_seconds=float(found["cpu_seconds"]),
        metrics=_metrics(found),
    )


def _metrics(found: Mapping[str, Any]) -> dict[str, float | None]:
    values = {}
    for name in METRICS:
        part, ranking, metric = name.split("/")
        values[name] = ((found.get(part) or {}).get(ranking) or {}).get(metric)
    return values


def cells_of(entries: Iterable[Entry]) -> Iterator[Cell]:
    """Put the seeds of each model at each budget together, in the order in which they first appear."""
    groups: dict[tuple[object, ...], list[Entry]] = {}
    for entry in entries:
        groups.setdefault((entry.data, entry.unit, entry.epsilon, entry.kind, entry.model), []).append(entry)
    for group in groups.values():
        first = group[0]
        claimed = [entry.guarantee_epsilon for entry in group if entry.guarantee_epsilon is not None]
        yield Cell(
            data=first.data,
            unit=first.unit,
            epsilon=first.epsilon,
            delta=first.delta,
            kind=first.kind,
            model=first.model,
            label=first.label,
            seeds=tuple(entry.seed for entry in group),
            guarantee_epsilon=max(claimed, default=None),
            cpu_seconds=statistics.fmean(entry.cpu_seconds for entry in group),
            metrics={name: _mean_and_spread([entry.metrics[name] for entry in group]) for name in METRICS},
        )


def _mean_and_spread(values: Sequence[float | None]) -> tuple[float, float | None] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None


def summary_of(cells: Iterable[Cell], *, part: str, swept: Mapping[str, Any], notes: Iterable[str]) -> dict[str, Any]:
    """Return what frontier.json holds and `--json` prints.

    Parameters
    ----------
    cells
        All models.
    part
        "validation" or "test": what the chart shows.
    swept
        What was asked for, by name.
    notes
        What a reader must know beside the numbers.
    """
    return {
        "format": FORMAT,
        "version": VERSION,
        "metric_part": part,
        "sweep": _plain(swept),
        "notes": list(notes),
        "cells": [_plain_cell(cell) for cell in cells],
    }


def _plain_cell(cell: Cell) -> dict[str, Any]:
    plain = {name: getattr(cell, name) for name in Cell.__dataclass_fields__}
    plain["seeds"] = list(cell.seeds)
    plain["metrics"] = {
        name: None if found is None else {"mean": found[0], "sd": found[1]} for name, found in cell.metrics.items()
    }
    return plain


def _plain(value: Any) -> Any:
    """Turn settings into what JSON knows: no infinity, no paths."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def table_of(entries: Sequence[Entry]) -> pl.DataFrame:
    """Return the rows of frontier.parquet."""
    columns = [name for name in Entry.__dataclass_fields__ if name != "metrics"]
    rows = [{name: getattr(entry, name) for name in columns} | dict(entry.metrics) for entry in entries]
    floats = dict.fromkeys(["epsilon", "delta", "guarantee_epsilon", "cpu_seconds", *METRICS], pl.Float64)
    texts = dict.fromkeys(["data", "unit", "kind", "model", "label", "run"], pl.String)
    return pl.DataFrame(rows, schema_overrides={**floats, **texts, "seed": pl.Int64})


def write_frontier(entries: Sequence[Entry], summary: Mapping[str, Any], folder: Path) -> None:
    """Write frontier.parquet, and then frontier.json: a folder with the latter holds a whole frontier."""
    files.replace(folder / TABLE, parquet_bytes(table_of(entries)), mode=files.SHARED)
    files.replace(folder / SUMMARY, json.dumps(summary, indent=2, allow_nan=False).encode(), mode=files.SHARED)
