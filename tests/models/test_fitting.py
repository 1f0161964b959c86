"""What a device keeps of the parameters of training, so that a list need not wait for their checks."""

from __future__ import annotations

import math
from dataclasses import asdict

import pytest

from palate.client.fleet.tables import FITTING_FORMAT
from palate.models.scores.registry import fitting_of
from palate.models.training import LocalTraining

GMF = {
    "model": "gmf",
    "objective": "whole",
    "hidden": 16,
    "closed_form": "gmf",
    "unobserved_weight": 0.1,
    "regularisation": 30.0,
    "recency_half_life": 10.0,
    "recency_floor": 0.05,
    "forgetting": "exponential",
}
EXPECTED = {
    "gmf": {},
    "mlp": {"closed_form": "gmf", "objective": "bce"},
    "neumf": {"closed_form": "neumf"},
    "linear": {"closed_form": "linear"},
    "autoencoder": {"closed_form": "autoencoder"},
    "sequential": {"closed_form": "sequential", "forgetting": "hyperbolic"},
}


@pytest.mark.parametrize("model", EXPECTED)
def test_what_devices_have_kept_is_what_they_would_make_now(model):
    """Devices keep it under `FITTING_FORMAT`: where this fails for a good reason, that needs another number."""
    assert FITTING_FORMAT == "palate-fitting/1"
    objective = EXPECTED[model].get("objective", "whole")
    found = asdict(fitting_of(LocalTraining(model=model, objective=objective)))
    assert found == GMF | {"model": model} | EXPECTED[model]


def test_a_half_life_for_recommending_takes_the_place_of_the_one_for_training():
    assert fitting_of(LocalTraining(model="gmf", serving_half_life=math.inf)).recency_half_life == math.inf
    assert fitting_of(LocalTraining(model="gmf", serving_forgetting="hyperbolic")).forgetting == "hyperbolic"
