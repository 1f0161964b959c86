"""Results of a frontier: an entry for every point and model, cells over seeds, and their files.

Specified in docs/formats/frontier.md.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from palate.data.tables import parquet_bytes
from palate.privacy import files
from palate.privacy.accounting.guarantee import round_up
from palate.simulation.baselines.registry import BASELINES
from palate.simulation.config import SimulationConfig
from palate.simulation.protection import UNPROTECTED
from palate.simulation.report.tables import Cell as Shown
from palate.simulation.report.tables import Grid, Row

FORMAT, VERSION = "palate.frontier", 1
SUMMARY, TABLE = "frontier.json", "frontier.parquet"

PARTS, RANKINGS = ("validation", "test"), ("sampled", "full")
METRICS = tuple(
    f"{part}/{ranking}/{metric}"
    for part in PARTS
    for ranking in RANKINGS
    for metric in ("hr@10", "ndcg@10", "recall@20", "mrr")
)
"""Names of all stored metrics of a model: part, ranking and metric."""

Kind = Literal["palate", "control", "reference"]


Entry = dict[str, Any]
"""What one model reached with one seed, by the columns of frontier.parquet."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One model at one budget, over seeds.

    Attributes
    ----------
    data, unit, epsilon, delta
        Of the run, or of the run that a control stands beside; epsilon and delta are None without protection.
    kind
        "palate" is a run, "control" a baseline that spends the run's budget, "reference" one that is not private.
    model, label
        Its name, and its name for people.
    seeds
        Which seeds were run.
    guarantee_epsilon
        The largest over seeds of what is proven for what was released; None where nothing is claimed.
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
    return {
        "data": config.data,
        "unit": config.unit,
        "epsilon": config.epsilon,
        "delta": config.delta,
        "seed": config.seed,
        "kind": "palate",
        "model": str(result["model"]),
        "label": f"Palate {result['model']}",
        "run": run,
        "guarantee_epsilon": guarantee["epsilon"] if guarantee else None,
        "cpu_seconds": float(result["cpu_seconds"]["total"]),
        **_metrics(result),
    }


def entry_of_baseline(found: Mapping[str, Any], config: SimulationConfig, kind: Kind, run: str | None) -> Entry:
    """Read a baseline's result; that of a control stands beside a run, that of a reference beside a dataset."""
    private = kind == "control"
    return {
        "data": config.data,
        "unit": config.unit if private else UNPROTECTED,
        "epsilon": config.epsilon if private else None,
        "delta": config.delta if private else None,
        "seed": config.seed,
        "kind": kind,
        "model": str(found["name"]),
        # A control's without the budget, which is a column of its own here.
        "label": BASELINES[str(found["name"])].label if private else str(found["label"]),
        "run": run,
        "guarantee_epsilon": None,
        "cpu_seconds": float(found["cpu_seconds"]),
        **_metrics(found),
    }


def _metrics(found: Mapping[str, Any]) -> dict[str, float | None]:
    values = {}
    for name in METRICS:
        part, ranking, metric = name.split("/")
        values[name] = ((found.get(part) or {}).get(ranking) or {}).get(metric)
    return values


def table_of(entries: Sequence[Entry]) -> pl.DataFrame:
    """Return the rows of frontier.parquet."""
    texts = dict.fromkeys(["kind", "model", "label", "run"], pl.String)
    floats = dict.fromkeys(["guarantee_epsilon", "cpu_seconds", *METRICS], pl.Float64)
    schema = {"data": pl.String, "unit": pl.String, "epsilon": pl.Float64, "delta": pl.Float64, "seed": pl.Int64}
    return pl.DataFrame(entries, schema={**schema, **texts, **floats})


def cells_of(table: pl.DataFrame) -> list[Cell]:
    """Put the seeds of each model at each budget together, in the order in which they first appear."""
    groups = table.group_by("data", "unit", "epsilon", "delta", "kind", "model", "label", maintain_order=True)
    means = groups.agg(
        pl.col("seed").alias("seeds"),
        pl.col("guarantee_epsilon").max(),
        pl.col("cpu_seconds").mean(),
        pl.col(METRICS).mean(),
        pl.col(METRICS).std().name.suffix("/sd"),
    )
    cells = []
    for row in means.iter_rows(named=True):
        found = {name: (row.pop(name), row.pop(f"{name}/sd")) for name in METRICS}
        metrics = {name: None if mean is None else (mean, spread) for name, (mean, spread) in found.items()}
        cells.append(Cell(**row | {"seeds": tuple(row["seeds"])}, metrics=metrics))
    return cells


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
        Notes that must be shown with the numbers.
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
    metrics = {
        name: None if found is None else {"mean": found[0], "sd": found[1]} for name, found in cell.metrics.items()
    }
    return {**vars(cell), "seeds": list(cell.seeds), "metrics": metrics}


def _plain(value: Any) -> Any:
    """Turn settings into what JSON knows: no infinity, no paths."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def cell_grid(cells: Iterable[Cell], part: str, *, narrow: bool = False) -> Grid:
    """Table of what every model reached at every budget on "validation" or "test"; `narrow` fits 80 columns."""
    names = [f"{part}/{ranking}/{metric}" for ranking in ("sampled", "full") for metric in ("hr@10", "ndcg@10")]
    columns: tuple[str, ...]
    columns = "Model", "Unit", "Epsilon", "Proven", "Seeds", "HR@10", "NDCG@10", "HR@10 full", "NDCG@10 full", "CPU-s"
    rows = []
    for cell in cells:
        budget = "\N{EN DASH}" if cell.epsilon is None else f"{cell.epsilon:g}"
        proven = "\N{EN DASH}" if cell.guarantee_epsilon is None else round_up(cell.guarantee_epsilon)
        texts = cell.unit, budget, proven, str(len(cell.seeds))
        metrics = [_metric_cell(cell.metrics[name]) for name in names]
        cpu = Shown(f"{cell.cpu_seconds:.1f}")
        rows.append(Row(cell.label, (*map(Shown, texts), *metrics, cpu), own=cell.kind == "palate"))
    if narrow:
        kept = (1, 2, 5, 6, 7, 8)  # without what is proven, the seeds and the time
        columns = "Model", *(columns[place] for place in kept)
        rows = [Row(row.label, tuple(row.cells[place - 1] for place in kept), own=row.own) for row in rows]
        return Grid(f"All models, {part}", columns, tuple(rows))
    note = (
        "Small print: standard deviation over seeds. Proven: epsilon as accounted for after the run. "
        "Full: ranked among the whole catalogue."
    )
    return Grid(f"All models, {part}", columns, tuple(rows), (note,))


def _metric_cell(found: tuple[float, float | None] | None) -> Shown:
    if found is None:
        return Shown("\N{EN DASH}")
    return Shown(f"{found[0]:.4f}", "" if found[1] is None else f"± {found[1]:.3f}")


def write_frontier(table: pl.DataFrame, summary: Mapping[str, Any], folder: Path) -> None:
    """Write frontier.parquet, and then frontier.json: a folder with the latter holds a whole frontier."""
    files.replace(folder / TABLE, parquet_bytes(table), mode=files.SHARED)
    files.replace(folder / SUMMARY, json.dumps(summary, indent=2, allow_nan=False).encode(), mode=files.SHARED)
