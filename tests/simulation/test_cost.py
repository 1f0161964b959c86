"""Estimates of cost: they follow what a run does, and stand within a factor of two of runs that were measured."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from palate.simulation.config import checked_config
from palate.simulation.cost import estimate
from palate.simulation.prepare import Prepared

SIZES = {"demo": (2000, 700, 60_536, 106), "ml-100k": (943, 1682, 100_000, 48), "ml-1m": (6040, 3706, 1_000_209, 49),
         "gowalla": (29_858, 40_981, 1_027_370, 1)}  # fmt: skip


def data_of(name: str) -> Any:
    """Sizes of a dataset, in the shape of a prepared one."""
    people, items, interactions, columns = SIZES[name]
    held = SimpleNamespace(num_users=people, num_items=items, item=np.zeros(interactions, dtype=np.int8))
    validation = SimpleNamespace(item=np.array([-1]))
    names = {field.name: None for field in dataclasses.fields(Prepared)}
    found = {**names, "interactions": held, "split": SimpleNamespace(validation=validation)}
    return SimpleNamespace(**found, column_names=("",) * columns)


DIM_8 = {"schedule": {"dim": 8}}


@pytest.mark.parametrize(
    ("name", "settings", "measured"),
    [
        ("demo", DIM_8, 1.74),
        ("demo", {"unit": "none"}, 0.364),
        ("ml-100k", DIM_8, 1.08),
        ("ml-100k", {"schedule": {"dim": 64}}, 2.7),
        ("ml-100k", {"unit": "none", "training": {"model": "gmf"}}, 0.062),
        ("ml-100k", {**DIM_8, "training": {"model": "sequential"}}, 0.713),
        ("ml-1m", {"unit": "none"}, 2.5),
        ("ml-1m", {"unit": "none", "training": {"model": "gmf"}}, 1.0),
        ("ml-1m", DIM_8, 6.2),
        ("demo", {"unit": "none", "training": {"objective": "bce"}}, 1.13),
        (
            "gowalla",
            {
                "schedule": {"dim": 112, "head": 2.6},
                "training": {"model": "gmf", "own_items_only": True},
                "optimiser": {"groups": 120},
            },
            55.0,
        ),
    ],
)
def test_a_round_costs_what_it_was_measured_to_cost_within_a_factor_of_two(name, settings, measured):
    """CPU-seconds of a training round on the machine of docs/benchmarks.md."""
    found = estimate(checked_config(settings), data_of(name)).cpu_seconds_of_round
    assert measured / 2 < found < measured * 2


def test_more_of_anything_costs_more():
    base = estimate(checked_config(DIM_8), data_of("ml-100k"))
    for changes in ({"schedule": {"dim": 16}}, {"schedule": {"dim": 8, "rounds": 30}}):
        assert estimate(checked_config(changes), data_of("ml-100k")).cpu_seconds > base.cpu_seconds
    assert estimate(checked_config(DIM_8), data_of("ml-1m")).memory_mb > base.memory_mb
    half = checked_config({"schedule": {"dim": 8, "participation": 0.5}})
    assert estimate(half, data_of("ml-100k")).cpu_seconds_of_round < base.cpu_seconds_of_round
