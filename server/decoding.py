"""From the integers of a sum back to the units of an update: the public scale of each kind of round."""

from __future__ import annotations

import math

from palate.errors import FederationError
from palate.models.scores.base import Shape
from palate.models.scores.registry import head_size
from palate.models.training import LocalTraining
from palate.privacy.mechanisms.interaction import SampleLayout, popularity_scale
from palate.privacy.wire import RoundPlan


def steps_per_unit(plan: RoundPlan) -> float:
    """Return how many integer steps a unit of the update is; 1 without protection.

    Raises
    ------
    FederationError
        If the plan's unit is not one of this version's.
    """
    terms = plan.terms
    if terms is None:
        return 1.0
    if plan.unit == "user":
        return terms.mechanism(plan.update_size).quantiser.scale
    if plan.unit not in ("interaction", "both"):
        raise FederationError(f"no scale for unit {plan.unit!r}", hint="plan a unit that this version knows")
    if plan.purpose == "popularity":
        return popularity_scale(terms)
    training = LocalTraining.model_validate_json(plan.training)
    shape = Shape(fixed_dim=plan.fixed.shape[1], dim=plan.learned.shape[1], hidden=training.hidden)
    size = head_size(training.model, training.objective, shape)
    layout = SampleLayout(head_size=size, slots=1 + training.negatives, dim=shape.dim)
    return layout.quantiser(terms).scale


def noise_std(plan: RoundPlan, devices: int | None = None) -> float:
    """Return the standard deviation of the noise in each value of a sum, in the units of the update.

    Parameters
    ----------
    plan
        What was asked.
    devices
        How many devices the sum is of; the whole roster unless given.
    """
    if plan.terms is None:
        return 0.0
    shares = plan.terms.roster_size if devices is None else devices
    return math.sqrt(shares * plan.terms.share_variance) / steps_per_unit(plan)
