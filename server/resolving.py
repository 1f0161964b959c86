"""From what was asked to what runs: the defaults of each unit of protection, and what public numbers decide.

Everybody who starts a run asks here: simulations of every kind and fleets. A setting is, in this order, what was asked
for, what the plan chooses from public numbers (unit user), what its unit uses, or the default of its field. Nothing
here looks at data.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from pydantic import BaseModel

from palate.privacy.accounting.calibrate import calibrate_gaussian
from palate.privacy.mechanisms.registry import MECHANISMS
from palate.server.settings import cannot_filter
from palate.server.values import fields_of, flat, merge, values_of

PROTECTED: dict[str, Any] = {
    "epsilon": 8.0,
    "delta": 1e-5,
    "schedule": {
        "rounds": 3,
        "dim": 8,
        "start": "content",
        "initial_scale": 0.01,
        "popularity": "saturating",
        "popularity_tolerance": 0.01,
    },
    "training": {
        "regularisation": 20.0,
        "recency_half_life": 40.0,
        "serving_half_life": 5.0,
        "least_interactions": 2,
        "leave_one_out": True,
    },
    "optimiser": {
        "name": "curvature",
        "step_size": 0.03,
        "relative": True,
        "decay": 1.0,
        "item_regularisation": 0.0,
    },
    "release": {"steps": []},
}
"""What a run at unit user has in place of the defaults of an unprotected one."""

PER_INTERACTION: dict[str, Any] = {
    **PROTECTED,
    "schedule": {"rounds": 1, "dim": 8, "popularity": "saturating"},
    "training": {"objective": "bce", "learning_rate": 10.0},
    "optimiser": {**PROTECTED["optimiser"], "name": "momentum", "relative": False, "step_size": 0.1},
    "release": {"steps": ["project", "low_rank"]},
    "privacy": {"sensitivity": 256, "popularity_share": 0.9, "evaluation_share": 0.0},
}
"""The same for units whose noise each device adds for itself."""

AUTO = (
    "schedule.dim",
    "schedule.rounds",
    "schedule.head",
    "schedule.initial_scale",
    "optimiser.step_size",
    "optimiser.groups",
    "training.own_items_only",
    "privacy.popularity_share",
)
"""Settings of unit user that the size of the federation and the budget decide, unless they are given."""

_RICH = 8000.0
_VERY_RICH = 30_000.0
_POOR = 20.0
_ENOUGH_FOR_POPULARITY = 1000.0
_GROUPS = 120


class Source(StrEnum):
    """Where the value of a setting comes from."""

    ASKED = "asked"
    PLANNED = "planned"
    UNIT = "unit"
    DATA = "data"
    DEFAULT = "default"


@dataclass(frozen=True)
class Setting:
    """One setting of a run: its dotted name, the value that runs, where that comes from, and why in one sentence."""

    name: str
    value: Any
    source: Source
    reason: str


class Choice(NamedTuple):
    """What is chosen for a setting, and why in one sentence."""

    value: Any
    reason: str


@dataclass(frozen=True, kw_only=True)
class PublicNumbers:
    """What a plan may know: the devices of a round, the size of the catalogue, and whether it has public columns."""

    cohort: int
    num_items: int
    content: bool


def defaults_of(unit: str) -> dict[str, Any]:
    """Return the settings of a unit that differ from those without protection, nested as in a TOML file."""
    if unit not in MECHANISMS:  # refused when the settings are validated
        return PROTECTED
    mechanism = MECHANISMS[unit]
    if not mechanism.protects:
        return {}
    return PER_INTERACTION if mechanism.per_interaction else PROTECTED


def defaults(model: type[BaseModel], unit: str) -> dict[str, Any]:
    """Return what a run of a unit uses where nothing is asked for, by dotted name; the plan then changes `AUTO`."""
    return {name: field.default for name, field in fields_of(model).items()} | flat(defaults_of(unit)) | {"unit": unit}


def planned_settings(unit: str, asked: Mapping[str, Any]) -> tuple[str, ...]:
    """Return those of `AUTO` that nobody asked for, where the unit has a plan."""
    if unit not in MECHANISMS or not MECHANISMS[unit].hides_rows or not MECHANISMS[unit].protects:
        return ()
    given = flat(asked)
    return tuple(name for name in AUTO if name not in given)


def complete(asked: Mapping[str, Any], unit: str) -> dict[str, Any]:
    """Add to nested values what their unit uses where nobody asked for something else."""
    return merge(defaults_of(unit), asked)


def choices(
    config: BaseModel, auto: Collection[str], *, epsilon: float, delta: float, numbers: PublicNumbers
) -> dict[str, Choice]:
    """Plan the settings of a configuration that are left to the plan.

    Parameters
    ----------
    config
        A whole configuration: what it says of settings outside `auto` is planned around.
    auto
        Names of `AUTO` to decide.
    epsilon, delta, numbers
        What the plan may know.
    """
    values = values_of(config)
    sections: Any = config
    on_own_items = sections.training.model_copy(update={"own_items_only": True})
    plan = planned(
        epsilon,
        delta,
        numbers,
        given={name: values[name] for name in AUTO if name not in auto},
        own_items=sections.training.objective == "whole",
        filterable=cannot_filter(on_own_items, sections.optimiser, sections.release) is None,
    )
    return {name: choice for name, choice in plan.items() if name in auto}


def planned(
    epsilon: float,
    delta: float,
    numbers: PublicNumbers,
    *,
    given: Mapping[str, float] | None = None,
    own_items: bool = True,
    filterable: bool = True,
) -> dict[str, Choice]:
    """Decide `AUTO` from public numbers only.

    The plan depends on the signal-to-noise ratio of a sum: the cohort times mu, the Gaussian privacy parameter of the
    budget. The norm of the noise grows with the root of the number of items and can hide a direction of taste. If it
    does, nearly all of the budget goes to popularity, and start and step are so short that columns of mere noise have
    next to no weight compared with popularity and content. If the ratio is very high and there is no public content,
    the tail of a catalogue would only add noise to the directions that are found. Then many columns are learned, for
    popular items only, from updates on a person's own items only, and the result is filtered by groups of items that go
    together (`palate.server.filtering`). The rules were found on validation data of public datasets
    (docs/experiments.md).

    Parameters
    ----------
    epsilon, delta, numbers
        The budget of the run, and what else a plan may know.
    given
        Those of `AUTO` that are not left to the plan, by name: the rest is planned to fit them.
    own_items
        Whether updates on own items were measured with this local training: objective "whole".
    filterable
        Whether the other settings leave the noise known (`palate.server.settings.cannot_filter`).
    """
    given, cohort, num_items = given or {}, numbers.cohort, numbers.num_items
    mu = 1.0 / calibrate_gaussian(epsilon=epsilon, delta=delta, rounds=1).noise_multiplier
    scale, step_size = float(PROTECTED["schedule"]["initial_scale"]), float(PROTECTED["optimiser"]["step_size"])
    strength, needed = cohort * mu, _POOR * math.sqrt(num_items)
    signal = f"{cohort:,} devices at epsilon {epsilon:g}: their sum is {strength:,.0f} times its noise"
    if strength < needed:  # a more exact popularity is worth more than anything that could be learned
        poor = f"{signal}, and {num_items:,} items need {needed:,.0f} before taste can be learned"
        small = f"{poor}; learned columns are kept small compared with popularity and content"
        return {
            "schedule.dim": Choice(8, f"{poor}; few columns"),
            "schedule.rounds": Choice(1, f"{poor}; one round; lists come from popularity, content and own history"),
            "schedule.head": Choice(0.0, f"{poor}; no items are selected"),
            "schedule.initial_scale": Choice(scale / 100, small),
            "optimiser.step_size": Choice(step_size / 10, small),
            "optimiser.groups": Choice(0, f"{poor}; there is nothing to filter"),
            "training.own_items_only": Choice(False, f"{poor}; updates stay dense"),
            "privacy.popularity_share": Choice(0.99, f"{poor}; nearly all of the budget goes to popularity"),
        }
    rich, very_rich = strength > _RICH, strength > _VERY_RICH
    share = min(max(min(0.6 / math.sqrt(epsilon), _ENOUGH_FOR_POPULARITY / strength), 0.1), 0.6)
    head = very_rich and not numbers.content and bool(given.get("schedule.head", True))
    own = head and own_items and bool(given.get("training.own_items_only", True))
    groups = _GROUPS if own and filterable else 0
    filtered = head and bool(given.get("optimiser.groups", groups))  # which bears more rounds and rarer items
    wide = f"{signal}, and no item has public columns"
    popular, dense = "only popular items have embeddings; the others keep their popularity", "all items are learned"
    pull = "updates are on a person's own items only, and the noise of all covers every item that is learned"
    return {
        "schedule.dim": Choice(112 if head else 32 if very_rich else 16 if rich else 8, wide if head else signal),
        "schedule.rounds": Choice(7 if filtered else 4 if rich else 3, f"{signal}, filtered" if filtered else signal),
        "schedule.head": Choice(
            2.6 if filtered else 3.0 if head else 0.0, f"{wide}; {popular}" if head else f"{signal}; {dense}"
        ),
        "schedule.initial_scale": Choice(scale, f"{signal}; the usual start"),
        "optimiser.step_size": Choice(step_size, f"{signal}; the usual step"),
        "optimiser.groups": Choice(
            groups,
            "the noise of updates on own items is known, and is filtered by groups of items that go together"
            if groups
            else "the noise is filtered only where updates are on own items and nothing else changes it",
        ),
        "training.own_items_only": Choice(own, pull if own else "dense unless only popular items are learned"),
        "privacy.popularity_share": Choice(share, f"{signal}; popularity needs this share of the budget"),
    }
