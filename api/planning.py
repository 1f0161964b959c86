"""`palate.plan`: every setting of a run decided before it starts, with the reason for each and what it will cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from palate.loading import Data
from palate.models.table import initial_embeddings
from palate.privacy.mechanisms.registry import MECHANISMS
from palate.server.coordinator import Coordinator
from palate.server.planning import merge
from palate.server.settings import cohort_size
from palate.simulation import protection
from palate.simulation.config import SimulationConfig, checked_config, nested
from palate.simulation.guarantee import PUBLIC_CATALOGUE, label_of
from palate.simulation.prepare import Prepared, prepare
from palate.simulation.report.headline import Protection
from palate.simulation.report.rendering import cell
from palate.simulation.report.tables import Cell, Grid, Row, facts_grid
from palate.simulation.report.words import data_size, flattened
from palate.simulation.resolving import resolve
from palate.simulation.seeding import table_rng


@dataclass(frozen=True, eq=False)
class Plan:
    """A run before it starts.

    Attributes
    ----------
    asked
        The settings that `simulate` is given: config.toml of the run.
    settings
        The settings that will run: resolved.toml of the run.
    reasons
        Where each value comes from, by the setting's dotted name.
    protection
        What will protect the people: an epsilon with its unit, delta and adjacency, and what it rests on; or nothing.
    bytes_down, bytes_up
        Traffic of one device in one training round: the item table with the plan's arrays, and the update.
    """

    asked: SimulationConfig = field(repr=False)
    settings: SimulationConfig = field(repr=False)
    reasons: Mapping[str, str] = field(repr=False)
    protection: Protection
    bytes_down: int
    bytes_up: int

    def to_frame(self) -> pl.DataFrame:
        """List every setting: its name, its value as text, and the reason for it."""
        values = _flat(self.settings)
        return pl.DataFrame(
            [(name, value, self.reasons[name]) for name, value in values.items()],
            schema={"setting": pl.String, "value": pl.String, "reason": pl.String},
            orient="row",
        )

    def _repr_html_(self) -> str:
        """Show the plan in a notebook: the promise, the cost, and the settings that are no plain default."""
        costs = {
            "to a device, in a training round": data_size(self.bytes_down),
            "from a device, in a training round": data_size(self.bytes_up),
            "training rounds": f"{self.settings.schedule.rounds}",
        }
        rows = [
            Row(name, (Cell(value), Cell(why))) for name, value, why in self.to_frame().iter_rows() if why != DEFAULT
        ]
        grids = [facts_grid("", "", costs), Grid("Settings", ("", "Value", "Reason"), tuple(rows))]
        return cell(f"Plan: {self.settings.data}", grids, protection=self.protection)


DEFAULT, ASKED = "default", "asked for"


def plan(
    data: Data,
    *,
    epsilon: float | None = None,
    delta: float | None = None,
    unit: str = "user",
    model: str | None = None,
    rounds: int | None = None,
    dim: int | None = None,
    seed: int | None = None,
    baselines: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Plan:
    """Decide every setting of a run on this data.

    Nothing private is looked at: a protected run is planned from its budget and the size of the federation.

    Parameters
    ----------
    data
        What `palate.load` returned.
    epsilon, delta
        Budget of the whole run; 8 and 1e-5 unless given, absent with unit "none".
    unit
        What one guarantee covers: "user", "interaction" or "both"; "none" is no privacy.
    model
        Score model, such as "neumf", "gmf" or "sequential".
    rounds, dim
        Training rounds and width of the item embedding; planned unless given.
    seed
        Seed of everything random but the noise.
    baselines
        References to compute beside the run; all unless given, and none for an empty list.
    settings
        Any other setting by its dotted name, such as {"training.recency_half_life": 20}; docs/configuration.md lists
        them. A name given above wins.

    Raises
    ------
    palate.errors.ConfigError
        If a setting is unknown or out of range, or settings do not go together.

    Examples
    --------
    >>> plan = palate.plan(data, epsilon=8)
    >>> plan.settings.schedule.dim, plan.reasons["schedule.dim"]
    >>> plan.to_frame().filter(pl.col("reason") != "default")
    """
    named = {
        "data": data.source,
        "unit": unit,
        "epsilon": epsilon,
        "delta": delta,
        "seed": seed,
        "baselines": None if baselines is None else tuple(baselines),
        "training.model": model,
        "schedule.rounds": rounds,
        "schedule.dim": dim,
    }
    given = merge(nested(dict(settings or {})), nested(named))
    read = data.options.model_dump(exclude_none=True, exclude_defaults=True)
    asked = checked_config(merge(given, {"read": read} if read else {}))
    prepared = prepare(asked)
    probing = asked.tune and asked.unit == protection.UNPROTECTED and asked.training.objective == "whole"
    settled = resolve(asked.model_copy(update={"tune": False}), prepared, lambda _: None)
    reasons = _reasons(given, asked, settled, prepared)
    if probing:
        reasons["training.regularisation"] = "chosen on validation data when the run starts"
    coordinator = _coordinator(settled, prepared)
    return Plan(
        asked=asked,
        settings=settled,
        reasons=reasons,
        protection=_promised(settled, coordinator),
        bytes_down=4 * coordinator.table.rows.size,
        bytes_up=4 * coordinator.example_plans()[1].update_size,
    )


def _coordinator(config: SimulationConfig, prepared: Prepared) -> Coordinator:
    """Return the server of the run as it will start, for its example plans."""
    num_users, num_items, schedule = prepared.interactions.num_users, prepared.interactions.num_items, config.schedule
    start = initial_embeddings(num_items, schedule.dim, scale=schedule.initial_scale, rng=table_rng(config.seed))
    return Coordinator(config.server_settings(run="plan", population=num_users), prepared.content.columns, start)


def _promised(config: SimulationConfig, coordinator: Coordinator) -> Protection:
    """Say what will be promised, with everything that it takes to read it; or that nothing is."""
    label = label_of(config)
    if not config.promises or config.privacy.noise == "seeded":
        text = f"Unit {config.unit}: {label}."
        return Protection(protected=False, title="No privacy", text=text, facts={"unit": config.unit})
    events = MECHANISMS[config.unit].events(coordinator.example_plans()[1])
    claims = [
        f"epsilon {promise.epsilon:g} at delta {promise.delta:g} per {promise.unit}"
        for promise in config.promises.values()
    ]
    assumptions = dict.fromkeys([*(str(each) for event in events for each in event.assumptions), PUBLIC_CATALOGUE])
    return Protection(
        protected=True,
        title=f"Planned, {label}: at most {' and '.join(claims)}",
        text=f"For all rounds together. Compared: {events[0].adjacency}. It holds if: {'; '.join(assumptions)}.",
        facts={"unit": config.unit},
    )


def _reasons(
    given: Mapping[str, Any], asked: SimulationConfig, settled: SimulationConfig, prepared: Prepared
) -> dict[str, str]:
    """Say of every setting whether it was asked for, planned, made necessary by the data, or a default."""
    content = "with" if prepared.public_columns is not None else "without"
    devices = cohort_size(prepared.interactions.num_users, asked.schedule.participation)
    planned = f"planned for {devices:,} devices, {prepared.interactions.num_items:,} items {content} content"
    by_unit = flattened(protection.defaults_of(asked.unit))
    wanted, before, after = flattened(dict(given)), _flat(asked), _flat(settled)
    reasons = {}
    for name, value in after.items():
        if name in wanted and before.get(name) == value:
            reasons[name] = ASKED
        elif name in asked.auto:
            reasons[name] = planned
        elif before.get(name) != value:
            reasons[name] = (
                "the data has no times" if name.endswith("_half_life") else "what this machine has installed"
            )
        else:
            reasons[name] = f"default of unit {asked.unit}" if name in by_unit else DEFAULT
    return reasons


def _flat(config: SimulationConfig) -> dict[str, str]:
    return flattened(config.model_dump(mode="json", exclude_none=True, exclude={"auto", "tune"}))
