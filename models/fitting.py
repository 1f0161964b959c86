"""Parameters of the copy that recommends, as plain values: checked once, where `LocalTraining` is.

A device fits its owner's copy at every start of `palate client recommend`. The checks of `LocalTraining` need Pydantic,
whose import takes as long as all the rest of a list.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """What the closed form of a personal copy is fitted with (`palate.models.scores.registry.fitting_of`).

    Attributes
    ----------
    model, objective, hidden
        What trains in rounds, as in `LocalTraining`; they name the head that a device may keep.
    closed_form
        The score model whose closed form recommends.
    unobserved_weight, regularisation
        Of the ridge.
    recency_half_life, recency_floor, forgetting
        How weights fall with age when recommending.
    """

    model: str
    objective: str
    hidden: int
    closed_form: str
    unobserved_weight: float
    regularisation: float
    recency_half_life: float
    recency_floor: float
    forgetting: str
