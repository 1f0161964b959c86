"""The server's sum of a round: added up as it arrives, and read back in the units of the update."""

from __future__ import annotations

import math

import numpy as np

from palate.errors import FederationError
from palate.models.arrays import Float64Array
from palate.models.training import LocalTraining
from palate.privacy.integer.ring import Ring
from palate.privacy.mechanisms.registry import MECHANISMS
from palate.privacy.wire import ItemUpdate, RoundPlan


class UpdateSum:
    """Sum of the answers to one plan, in a ring under a protected unit and in float64 under unit "none".

    Parameters
    ----------
    plan
        What was asked.
    """

    def __init__(self, plan: RoundPlan) -> None:
        self._plan = plan
        self._plain = np.zeros(plan.update_size if plan.terms is None else 0)
        self._masked = np.zeros(0 if plan.terms is None else plan.update_size, dtype=np.uint64)

    def add(self, update: ItemUpdate) -> None:
        """Add one answer, as `ItemUpdate.from_parts` has checked it."""
        if self._plan.terms is None:
            self._plain += update.vector
        else:  # wraps modulo 2^64, of which every ring's modulus is a divisor
            self._masked += update.vector.astype(np.uint64)

    def total(self) -> Float64Array:
        """Return the sum in the units of the update, float64 [update_size]; raises as `steps_per_unit`."""
        terms, steps = self._plan.terms, steps_per_unit(self._plan)
        return self._plain if terms is None else Ring(bits=terms.ring_bits).centre(self._masked) / steps


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
        # PyTorch, only for rounds of single interactions
        from palate.models.learning.interactions import sample_layout

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
