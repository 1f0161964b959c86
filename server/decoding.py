"""From the integers of a sum back to the units of an update: the public scale of each kind of round."""

from __future__ import annotations

import math

from palate.errors import FederationError
from palate.models.training import LocalTraining
from palate.privacy.mechanisms.registry import MECHANISMS
from palate.privacy.wire import RoundPlan


def steps_per_unit(plan: RoundPlan) -> float:
    """Return how many integer steps a unit of the update is; 1 without protection.

    Raises
    ------
    FederationError
        If the plan's unit is not one of this version's.
    """
    if plan.unit not in MECHANISMS:
        raise FederationError(f"no scale for unit {plan.unit!r}", hint="plan a unit that this version knows")

    def sample_size() -> int:
        from palate.models.learning.interactions import (
            sample_layout,  # PyTorch, for rounds of single interactions alone
        )

        training = LocalTraining.model_validate_json(plan.training)
        return sample_layout(training, fixed_dim=plan.fixed.shape[1], dim=plan.learned.shape[1]).size

    return MECHANISMS[plan.unit].steps_per_unit(plan, sample_size)


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
