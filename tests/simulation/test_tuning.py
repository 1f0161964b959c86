"""What is chosen on validation data: it is the best of what was tried, unless somebody asked for something else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from palate.simulation import tuning
from palate.simulation.config import SimulationConfig, checked_config
from palate.simulation.prepare import Prepared, prepare
from palate.simulation.resolving import resolve
from palate.simulation.tuning import CANDIDATES, RIDGE, WEIGHTS, chosen_on_validation, tuned

DEMO = {"data": "demo", "unit": "none", "training": {"model": "gmf"}, "schedule": {"dim": 4}}


@pytest.fixture(scope="module")
def data() -> Prepared:
    return prepare(checked_config(DEMO))


def config_of(**training: Any) -> SimulationConfig:
    return checked_config({**DEMO, "training": {**DEMO["training"], **training}})


def with_qualities(monkeypatch: pytest.MonkeyPatch, quality: Any) -> list[float]:
    """Answer probes by a function of ridge and forgetting, and list the ridges that are tried."""
    tried = []

    def probe(config: Any, prepared: Any, ridge: float, *, weights: bool) -> list[tuple[float, str | None]]:
        tried.append(ridge)
        return [(quality(ridge, each), each) for each in ((None, "hyperbolic") if weights else (None,))]

    monkeypatch.setattr(tuning, "_probe", probe)
    return tried


@pytest.mark.parametrize("best", CANDIDATES)
def test_the_search_finds_the_best_ridge_where_quality_falls_on_both_sides_of_it(monkeypatch, data, best):
    tried = with_qualities(monkeypatch, lambda ridge, _: -abs(np.log(ridge / best)))
    assert tuned(config_of(), data, lambda _: None).training.regularisation == best
    assert len(tried) == len(set(tried))


@pytest.mark.parametrize("better", [None, "hyperbolic"])
def test_weights_by_age_are_those_that_validation_prefers(monkeypatch, data, better):
    with_qualities(monkeypatch, lambda ridge, forgetting: float(forgetting == better))
    found = tuned(config_of(), data, lambda _: None)
    assert found.training.serving_forgetting == better
    assert not found.tune


@pytest.mark.parametrize(
    ("training", "names"),
    [
        ({}, (RIDGE, WEIGHTS)),
        ({"serving_forgetting": "exponential"}, (RIDGE,)),
        ({"serving_half_life": 5.0}, (RIDGE,)),
        ({"recency_half_life": float("inf")}, (RIDGE,)),
        ({"forgetting": "hyperbolic"}, (RIDGE,)),
        ({"model": "sequential"}, (RIDGE,)),
        ({"regularisation": 7.0}, ()),
        ({"objective": "bce"}, ()),
    ],
)
def test_what_was_asked_for_is_not_chosen_again(data, training, names):
    config = config_of(**training)
    assert chosen_on_validation(config, data) == names
    reasons = {each.name: each.reason for each in resolve(config, data)[1]}
    assert {name for name, reason in reasons.items() if "validation data" in reason} == set(names)


def test_a_protected_run_chooses_nothing_on_private_data(data):
    assert chosen_on_validation(checked_config({"data": "demo", "unit": "user"}), data) == ()


def test_probes_weigh_by_age_in_both_ways_and_score_as_well_as_lists_are(data):
    """The demo's own tables: a sane ridge beats one that shrinks everybody to nothing."""
    found = {ridge: tuning._probe(config_of(), data, ridge, weights=True) for ridge in (10.0, 1e6)}
    assert [forgetting for _, forgetting in found[10.0]] == [None, "hyperbolic"]
    assert found[10.0][0][0] > found[1e6][0][0]
    assert found[10.0][0][0] != found[10.0][1][0]
    assert len(tuning._probe(config_of(), data, 10.0, weights=False)) == 1
