"""Units of protection: one object each, and the only place where a unit is looked up.

Devices, shards, servers and settings ask the object what its unit means for them; nobody else compares names of units.
What a unit protects, and how much noise that takes, is in `palate.privacy.budget`. The registry is closed: a mechanism
needs a proof before it needs code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from palate.privacy.accounting.events import Unit
from palate.privacy.budget import PROTECTED, terms_of
from palate.privacy.wire import RoundPlan, WireError

_SKELLAM = "Agarwal, Kairouz & Liu 2021; Kairouz, Liu & Steinke 2021"


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """What a unit of protection means.

    Attributes
    ----------
    unit, label
        Its name, and the same in words: every output of a run says it.
    source
        The papers.
    hides_rows
        Whether a sum may leave rows of a contribution at zero: noise on every row then covers which ones.
    """

    unit: str
    label: str
    source: str
    hides_rows: bool

    @property
    def protects(self) -> tuple[Unit, ...]:
        """Units that a device keeps a budget for; none without protection."""
        return tuple(row.unit for row in PROTECTED[self.unit])

    @property
    def per_interaction(self) -> bool:
        """Whether each interaction is clipped and hidden by itself, on the device, and the head is noised with it.

        Otherwise a person's whole contribution is one sample, and the head stays exact.
        """
        return any(row.alone for row in PROTECTED[self.unit])

    def steps_per_unit(self, plan: RoundPlan, sample_size: Callable[[], int]) -> float:
        """Return how many integer steps a unit of the update is; 1 where updates are not turned into integers.

        Parameters
        ----------
        plan
            A round.
        sample_size
            Counts the values of one sample, where each interaction is one.

        Raises
        ------
        PrivacyError
            As `palate.privacy.budget.events_of` and `Quantiser` do.
        """
        if not self.protects:
            return 1.0
        terms = terms_of(plan)
        if not self.per_interaction:
            return terms.mechanism(plan.update_size).quantiser.scale
        if plan.purpose == "popularity":
            return terms.sensitivity / terms.clip_norm
        return terms.mechanism(sample_size()).quantiser.scale


_ALL = (
    # The sum of what m honest devices send is the sum of their integer vectors, each of norm at most S, plus Skellam
    # noise of m times a share's variance. State that stays on a device may remember everything: it is a function of
    # that person's data and of what was released (joint differential privacy).
    Mechanism(unit="user", label="user-level differential privacy", source=_SKELLAM, hides_rows=True),
    # DP-SGD with the full noise on every device. One sample is an interaction with its sampled negatives. Its gradient
    # with respect to all trainable parameters, head and item rows, is clipped jointly and turned into integers of norm
    # at most S; noise goes onto every coordinate. A head that learned without noise would carry one interaction into
    # all later item gradients, and the claim would be false.
    Mechanism(
        unit="interaction",
        label="interaction-level differential privacy",
        source=f"Abadi et al. 2016; {_SKELLAM}",
        hides_rows=False,
    ),
    # One release, charged to two budgets: at most B interactions of a person enter a round, so that person's integers
    # have norm at most B S.
    Mechanism(
        unit="both",
        label="user-level and interaction-level differential privacy",
        source=f"Abadi et al. 2016; {_SKELLAM}",
        hides_rows=False,
    ),
    # For comparisons, and only by name.
    Mechanism(unit="none", label="no privacy", source="", hides_rows=False),
)

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
