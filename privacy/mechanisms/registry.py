"""Units of protection: one object each, and the one place where a unit is looked up.

Devices, shards, servers and settings ask the object what its unit means for them; nobody else compares names of units.
The registry is closed: a mechanism needs a proof before it needs code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from palate.privacy.accounting.events import SkellamEvent, Unit
from palate.privacy.mechanisms.interaction import BothLevels, InteractionLevel
from palate.privacy.mechanisms.none import NoProtection
from palate.privacy.mechanisms.user import UserLevel
from palate.privacy.wire import RoundPlan, WireError


class Mechanism(Protocol):
    """What a unit's file says about it."""

    @property
    def unit(self) -> str:
        """Name of the unit."""
        ...

    @property
    def label(self) -> str:
        """The unit in words."""
        ...

    @property
    def source(self) -> str:
        """The papers."""
        ...

    @property
    def protects(self) -> tuple[Unit, ...]:
        """Units that a device keeps a budget for; none without protection."""
        ...

    @property
    def per_interaction(self) -> bool:
        """Whether each interaction is clipped and hidden by itself, on the device, and the head is noised with it.

        Otherwise a person's whole contribution is one sample, and the head stays exact.
        """
        ...

    @property
    def hides_rows(self) -> bool:
        """Whether a sum may leave rows of a contribution at zero: noise on every row then covers which ones."""
        ...

    def events(self, plan: RoundPlan) -> tuple[SkellamEvent, ...]:
        """One accounting event a unit that a round of this plan protects; none without protection."""
        ...

    def steps_per_unit(self, plan: RoundPlan, sample_size: Callable[[], int]) -> float:
        """Return how many integer steps a unit of the update is; `sample_size` counts the values of one sample."""
        ...


_ALL: tuple[Mechanism, ...] = (UserLevel(), InteractionLevel(), BothLevels(), NoProtection())

MECHANISMS: dict[str, Mechanism] = {mechanism.unit: mechanism for mechanism in _ALL}
"""A unit that is not here has no valid mechanism in this version, and is refused."""


def mechanism_of(plan: RoundPlan) -> Mechanism:
    """Look up the mechanism of a plan's unit.

    Raises
    ------
    WireError
        If there is none, or a unit that protects comes without terms.
    """
    if plan.unit not in MECHANISMS:
        raise WireError(f"no mechanism for unit {plan.unit!r}")
    mechanism = MECHANISMS[plan.unit]
    if mechanism.protects and plan.terms is None:
        raise WireError(f"unit {plan.unit!r} needs terms")
    return mechanism
