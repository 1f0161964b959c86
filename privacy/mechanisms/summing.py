"""The server's sum of a round: added up as it arrives, read back in the units of the update."""

from __future__ import annotations

import numpy as np

from palate.models.arrays import Float64Array
from palate.privacy.integer.ring import Ring
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

    def total(self, steps_per_unit: float) -> Float64Array:
        """Return the sum in the units of the update, float64 [update_size]; integers are divided by their scale."""
        terms = self._plan.terms
        if terms is None:
            return self._plain
        return Ring(bits=terms.ring_bits).centre(self._masked) / steps_per_unit
