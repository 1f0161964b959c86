"""User level: one person's whole contribution to a round is clipped, quantised, and hidden in the sum of shares.

The sum of what m honest devices send is the sum of their integer vectors, each of norm at most S, plus Skellam noise
of variance V = m times the share's (Agarwal, Kairouz & Liu 2021). State that stays on a device may remember
everything: it is a function of that person's data and of what was released (joint differential privacy).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from palate.privacy.accounting.events import SkellamEvent, Unit
from palate.privacy.errors import PrivacyError
from palate.privacy.mechanisms.terms import ReleaseTerms
from palate.privacy.wire import RoundPlan


class UserLevel:
    """Protects everything that one person ever did; the default."""

    unit: ClassVar[str] = "user"
    label: ClassVar[str] = "user-level differential privacy"
    source: ClassVar[str] = "Agarwal, Kairouz & Liu 2021; Kairouz, Liu & Steinke 2021"
    protects: ClassVar[tuple[Unit, ...]] = (Unit.USER,)
    per_interaction: ClassVar[bool] = False
    hides_rows: ClassVar[bool] = True

    def events(self, plan: RoundPlan) -> tuple[SkellamEvent, ...]:
        """Name what a round releases about one person.

        Raises
        ------
        PrivacyError
            If the plan has no terms.
        """
        terms = _terms_of(plan)
        return (SkellamEvent(sensitivity=terms.sensitivity, variance=terms.sum_variance, num_values=plan.update_size),)

    def steps_per_unit(self, plan: RoundPlan, sample_size: Callable[[], int]) -> float:
        """Return the scale of a person's whole contribution; raises PrivacyError as `Quantiser` does."""
        del sample_size
        return _terms_of(plan).mechanism(plan.update_size).quantiser.scale


def _terms_of(plan: RoundPlan) -> ReleaseTerms:
    if plan.terms is None:
        raise PrivacyError("a plan of unit user has no terms", hint="plan it with palate.server")
    return plan.terms
