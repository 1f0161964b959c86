"""No protection: the update leaves the device as it is. Exists for comparisons, and only by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from palate.privacy.accounting.events import SkellamEvent, Unit
from palate.privacy.wire import RoundPlan


class NoProtection:
    """Releases updates exactly. Whoever uses it must say so on every output (`label`)."""

    unit: ClassVar[str] = "none"
    label: ClassVar[str] = "no privacy"
    source: ClassVar[str] = ""
    protects: ClassVar[tuple[Unit, ...]] = ()
    per_interaction: ClassVar[bool] = False
    hides_rows: ClassVar[bool] = False

    def events(self, plan: RoundPlan) -> tuple[SkellamEvent, ...]:
        """Account for nothing: there is no guarantee to compute."""
        del plan
        return ()

    def steps_per_unit(self, plan: RoundPlan, sample_size: Callable[[], int]) -> float:
        """Return 1: updates are not turned into integers."""
        del plan, sample_size
        return 1.0
