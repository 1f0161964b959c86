"""Mechanisms by unit of protection."""

from __future__ import annotations

from typing import Protocol

from palate.privacy.accounting.events import SkellamEvent
from palate.privacy.mechanisms.interaction import BothLevels, InteractionLevel
from palate.privacy.mechanisms.none import NoProtection
from palate.privacy.mechanisms.user import UserLevel
from palate.privacy.wire import RoundPlan


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

    def events(self, plan: RoundPlan) -> tuple[SkellamEvent, ...]:
        """One accounting event a unit that a round of this plan protects; none without protection."""
        ...


_ALL: tuple[Mechanism, ...] = (UserLevel(), InteractionLevel(), BothLevels(), NoProtection())

MECHANISMS: dict[str, Mechanism] = {mechanism.unit: mechanism for mechanism in _ALL}
"""A unit that is not here has no valid mechanism in this version, and is refused."""
