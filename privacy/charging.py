"""What a round's plan means to a ledger: the entry that charges it, and the policy that it is held against.

Devices and the server write the same entry about the same plan, so an auditor can lay their ledgers side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from palate.privacy.accounting.events import Adjacency, Assumption, SkellamEvent, Unit
from palate.privacy.accounting.filters import SkellamMeter, budget_nano_for
from palate.privacy.errors import PrivacyError
from palate.privacy.ledger.body import Intent, Policy, delta_text
from palate.privacy.mechanisms.registry import MECHANISMS
from palate.privacy.wire import RoundPlan

ADJACENCY = "zero-out"
MECHANISM = "skellam"
NO_SAMPLING = "none-claimed"
SENSITIVITY = 4096
"""Integer steps that an owner's budget counts on unless it is told otherwise."""
PUBLIC = "the list of items is public, and so is who takes part"


@dataclass(frozen=True, kw_only=True)
class Promise:
    """What one ledger is about: a budget for one unit.

    Attributes
    ----------
    unit, epsilon, delta
        The guarantee.
    sensitivity
        S, integer steps that every round's contribution has at least. The finer, the more a budget holds; 1 counts on
        nothing.
    """

    unit: Unit
    epsilon: float
    delta: float
    sensitivity: int = 1

    @property
    def meter(self) -> SkellamMeter:
        """What the ledger's charges prove together."""
        return SkellamMeter(self.sensitivity)

    def require(self, intent: Intent) -> Intent:
        """Return a charge that this budget may hold.

        Raises
        ------
        PrivacyError
            If it is of coarser integers than the budget counts on.
        """
        if intent.clip_int < self.sensitivity:
            raise PrivacyError(
                f"round {intent.round} of {intent.run} clips to {intent.clip_int} integer steps, this device's budget "
                f"counts on {self.sensitivity} or more",
                hint="plan with a larger privacy.sensitivity",
            )
        return intent

    def policy(self, *, smallest_cohort: int) -> Policy:
        """Return the ledger's first entry: a budget, enforceable round by round."""
        return Policy(
            unit=str(self.unit),
            adjacency=ADJACENCY,
            delta=delta_text(self.delta),
            budget_nano=budget_nano_for(self.meter, self.epsilon, self.delta),
            n_min=smallest_cohort,
        )

    @property
    def reading(self) -> dict[str, Any]:
        """All that it takes to read an epsilon of this ledger, as JSON values; for rounds of real devices."""
        return {
            "unit": str(self.unit),
            "delta": self.delta,
            "adjacency": str(Adjacency.ZERO_OUT),
            "amplification": "none claimed",
            "assumptions": [str(Assumption.SECURE_AGGREGATION), str(Assumption.HONEST_FRACTION), PUBLIC],
        }

    @property
    def words(self) -> str:
        """The same as a sentence."""
        return (
            f"epsilon is per {self.unit}, at delta {self.delta:g}, for all rounds together ({Adjacency.ZERO_OUT}; no "
            f"amplification is claimed); it holds if {'; '.join(self.reading['assumptions'])}"
        )


def ledger_name(owner: str, unit: Unit) -> str:
    """Name the ledger of an owner for a unit: its own name, and for interactions one more beside it."""
    return owner if unit is Unit.USER else f"{owner}.{unit}"


def intents(plan: RoundPlan) -> dict[Unit, Intent]:
    """Return the entries that charge a round, one for each unit that it protects.

    Raises
    ------
    PrivacyError
        If the plan's unit has no mechanism.
    """
    if plan.unit not in MECHANISMS:
        raise PrivacyError(f"no mechanism for unit {plan.unit!r}", hint=f"choose one of {', '.join(MECHANISMS)}")
    return {event.unit: _intent(plan, event) for event in MECHANISMS[plan.unit].events(plan)}


def _intent(plan: RoundPlan, event: SkellamEvent) -> Intent:
    if plan.terms is None:
        raise PrivacyError(f"a plan of unit {plan.unit} has no terms", hint="plan it with palate.server")
    return Intent(
        run=plan.run,
        round=plan.server_round,
        mechanism=MECHANISM,
        unit=str(event.unit),
        adjacency=ADJACENCY,
        clip_int=event.sensitivity,
        sum_var_int=int(event.variance),
        m_honest=plan.terms.honest_shares if event.unit is Unit.USER else 1,
        n1=plan.terms.roster_size,
        sampling=NO_SAMPLING,
        model=f"sha256:{plan.table_hash}",
        transcript=f"sha256:{plan.content_hash}",
    )
