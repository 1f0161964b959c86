"""No protection: the update leaves the device as it is. Exists for comparisons, and only by name."""

from __future__ import annotations

from typing import ClassVar

from palate.privacy.accounting.events import SkellamEvent
from palate.privacy.wire import RoundPlan


class NoProtection:
    """Releases updates exactly. Whoever uses it must say so on every output (`label`)."""

    unit: ClassVar[str] = "none"
    label: ClassVar[str] = "no privacy"
    source: ClassVar[str] = ""

    def events(self, plan: RoundPlan) -> tuple[SkellamEvent, ...]:
        """Account for nothing: there is no guarantee to compute."""
        del plan
        return ()
