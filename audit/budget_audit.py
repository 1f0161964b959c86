"""Budget, spending and rest, computed only from the ledgers, and compared with the claim of the run.

The guarantee covers the device that spent most. Its figure is the proven one for Skellam noise and vectors of any
length, because a ledger does not record their length. Independent accountants are asked about Gaussian noise of that
size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from palate.audit.claim import Claim, read_claims
from palate.audit.ledger_audit import LedgerAudit
from palate.audit.records import LedgerRecord, Round, WindowSpending
from palate.errors import PalateError
from palate.privacy.accounting.crosscheck import checked_epsilon
from palate.privacy.accounting.dropout import local_event
from palate.privacy.accounting.events import Adjacency, Unit
from palate.privacy.accounting.filters import SkellamMeter
from palate.privacy.accounting.guarantee import Guarantee, account_for
from palate.privacy.budget import SENSITIVITY
from palate.privacy.charging import ADJACENCIES, epsilon_of, event_of
from palate.privacy.errors import PrivacyError
from palate.privacy.ledger.body import NANO, Intent, Policy
from palate.privacy.ledger.errors import BudgetExceeded

CLAIM_TOLERANCE = 1e-2
"""Most that a claim may differ from the record: far above rounding, far below anything that one would do on purpose."""

QUANTILES = {"least": 0.0, "median": 0.5, "nine tenths": 0.9, "most": 1.0}
"""Quantiles of devices, by the share of devices that spent no more."""


class ClaimNotSupported(PalateError):
    """What a run claims does not follow from its record."""

    exit_code = 4


@dataclass(frozen=True, kw_only=True)
class Spending:
    """What one ledger spent.

    Attributes
    ----------
    ledger
        Its name.
    rounds
        Rounds that count: released, or open.
    spent_nano, left_nano
        In billionths of 2 rho; what is left is of the window, where the budget renews.
    counted_nano
        What counts against the budget: all that was spent, or what was spent in the window.
    epsilon
        Proven for these rounds; 0 where there are none.
    """

    ledger: str
    rounds: int
    spent_nano: int
    left_nano: int
    counted_nano: int
    epsilon: float


@dataclass(frozen=True, kw_only=True)
class RoundCost:
    """One round of the ledger that is shown, with what was spent up to it.

    Attributes
    ----------
    charged
        The round.
    devices
        Devices that were charged for it; 0 where only one ledger is known.
    epsilon
        Of all rounds that count so far.
    """

    charged: Round
    devices: int
    epsilon: float


@dataclass(frozen=True, kw_only=True)
class UnitBudget:
    """Everything about one unit of protection.

    Attributes
    ----------
    unit, adjacency
        Whom it protects, and against which change.
    delta
        Of the budget.
    policies
        Every budget that was in force, in order, in the ledger that spent most.
    windows
        Windows of that ledger, where its budget renews or did.
    budget_nano, budget_epsilon
        The last of them, and the epsilon that it promises however it is spent.
    guarantee
        Of the device that spent most (of the server's ledger where no device's is known); None while nothing is spent.
    busiest
        Whose guarantee that is.
    server
        The server's ledger: all rounds; None where it is not known.
    devices
        How many devices' ledgers there are.
    spread
        Spending at the quantiles, by the keys of QUANTILES; empty without devices.
    local
        Guarantee of one device's share of noise alone over the same rounds, if secure aggregation failed.
    rounds
        Round by round, of the server's ledger, or of the only one.
    rounds_left
        Further rounds like the last that the busiest device's budget admits; None while nothing is spent.
    overdrawn
        Ledgers that spent more than their policy allows by now: it was lowered afterwards.
    claim
        What the run claims about this unit, if it does.
    """

    unit: Unit
    adjacency: Adjacency
    delta: float
    policies: tuple[Policy, ...]
    windows: tuple[WindowSpending, ...]
    budget_nano: int
    budget_epsilon: float
    guarantee: Guarantee | None
    busiest: Spending
    server: Spending | None
    devices: int
    spread: dict[str, Spending]
    local: Guarantee | None
    rounds: tuple[RoundCost, ...]
    rounds_left: int | None
    overdrawn: tuple[Spending, ...]
    claim: Claim | None

    @property
    def epsilon(self) -> float:
        """The guarantee's, 0 while nothing is spent."""
        return self.guarantee.epsilon if self.guarantee else 0.0

    @property
    def needs_aggregation(self) -> bool:
        """Whether the guarantee depends on a sum, and not on each device's own noise."""
        return bool(self.guarantee and self.guarantee.assumptions)

    def raise_first(self) -> None:
        """Hold the record to the budget and to the claim.

        Raises
        ------
        BudgetExceeded
            If a ledger spent more than its last policy allows, or than the run's target.
        ClaimNotSupported
            If the run claims less than its busiest device spent, or more than the server's ledger holds.
        """
        if self.overdrawn:
            first = self.overdrawn[0]
            spent, left = first.counted_nano, first.left_nano
            raise BudgetExceeded(
                f"{first.ledger} spent {spent / NANO:.9g} of a budget of {(spent + left) / NANO:.9g} (2 rho)",
                needed_nano=spent,
                left_nano=left,
                budget_nano=spent + left,
                hint="the budget was lowered after it was spent: it takes part in no further round",
            )
        if self.claim is None:
            return
        target = self.claim.target_epsilon
        if target is not None and self.epsilon > target + CLAIM_TOLERANCE:
            raise BudgetExceeded(
                f"{self.busiest.ledger} spent epsilon {self.epsilon:.4f}, the run's target is {target:g}",
                hint="do not publish the run under its target; its ledgers were given a larger budget",
                needed_nano=self.busiest.spent_nano,
                left_nano=self.busiest.left_nano,
                budget_nano=self.budget_nano,
            )
        ceiling = max(self.server.epsilon if self.server else 0.0, self.epsilon)
        if not self.epsilon - CLAIM_TOLERANCE <= self.claim.epsilon <= ceiling + CLAIM_TOLERANCE:
            shown = f"{self.epsilon:.4f}" + (f" to {ceiling:.4f}" if ceiling > self.epsilon else "")
            raise ClaimNotSupported(
                f"result.json claims epsilon {self.claim.epsilon:.4f} per {self.unit}, the ledgers give {shown}",
                hint="trust the ledgers; the result belongs to other rounds or was edited",
            )
        if self.claim.delta != self.delta:
            raise ClaimNotSupported(
                f"result.json claims delta {self.claim.delta:g}, the ledgers' policy says {self.delta:g}",
                hint="an epsilon means nothing at another delta",
            )


@dataclass(frozen=True, kw_only=True)
class BudgetAudit:
    """What an intact record says about spending.

    Attributes
    ----------
    record
        The record.
    units
        Unit by unit.
    disclaimer
        Why nobody is protected all the same; empty in an ordinary run.
    """

    record: LedgerAudit
    units: tuple[UnitBudget, ...]
    disclaimer: str

    def raise_first(self) -> None:
        """Raise what is wrong first; as `UnitBudget.raise_first`."""
        for unit in self.units:
            unit.raise_first()


def audit_budget(
    record: LedgerAudit, *, check: bool = True, progress: Callable[[str], None] | None = None
) -> BudgetAudit:
    """Compute everything from the ledgers.

    Parameters
    ----------
    record
        A verified record.
    check
        Ask independent accountants too; seconds for each unit.
    progress
        Called before the accountants are asked.

    Raises
    ------
    Tampered, LedgerUnreadable, BudgetExceeded, Rollback, Fork
        If the record is not intact: nothing follows from it.
    AccountantsDisagree
        If they do not confirm the figure.
    AccountantUnavailable
        If one is missing or fails.
    PrivacyError
        If a ledger says something that this version cannot account for.
    """
    record.raise_gravest(allow_open=True)
    units = dict.fromkeys(ledger.policy.unit for ledger in record.records)
    claims, disclaimer = read_claims(record.source)
    made = []
    for name in units:
        if check and progress is not None:
            progress(f"asking independent accountants about unit {name}: seconds, or a minute for a large epsilon")
        made.append(_unit_budget(record, name, claims.get(name), check=check))
    return BudgetAudit(record=record, units=tuple(made), disclaimer=disclaimer)


def _unit_budget(record: LedgerAudit, name: str, claim: Claim | None, *, check: bool) -> UnitBudget:
    ledgers = [ledger for ledger in record.records if ledger.policy.unit == name]
    devices = sorted((ledger for ledger in ledgers if not ledger.is_server), key=lambda ledger: ledger.state.spent_nano)
    server = next((ledger for ledger in ledgers if ledger.is_server), None)
    busiest = max(devices, key=lambda ledger: ledger.state.spent_nano, default=ledgers[0])  # the first of several
    policy = busiest.policy
    if policy.unit not in tuple(map(str, Unit)) or policy.adjacency not in ADJACENCIES:
        raise PrivacyError(
            f"{busiest.name} protects {policy.unit!r} under {policy.adjacency!r}, which is not known here",
            hint="audit the ledger with the palate that wrote it",
        )
    delta = float(policy.delta)
    counted = busiest.counted
    events = [event_of(intent) for intent in counted]
    account = checked_epsilon if check else account_for
    local = [local_event(event, intent.m_honest) for event, intent in zip(events, counted, strict=True)]
    shown = server or busiest
    return UnitBudget(
        unit=Unit(policy.unit),
        adjacency=ADJACENCIES[policy.adjacency],
        delta=delta,
        policies=busiest.policies,
        windows=tuple(busiest.windows),
        budget_nano=policy.budget_nano,
        budget_epsilon=_meter(counted).epsilon(policy.budget_nano, delta),
        guarantee=account(events, delta) if events else None,
        busiest=_spending(busiest, delta),
        server=_spending(server, delta) if server else None,
        devices=len(devices),
        spread=_spread(devices, delta),
        local=account_for(local, delta) if local else None,
        rounds=_by_round(shown, devices, delta),
        rounds_left=max(0, busiest.state.left_nano) // counted[-1].charge_nano if counted else None,
        overdrawn=tuple(_spending(ledger, delta) for ledger in ledgers if ledger.state.left_nano < 0),
        claim=claim,
    )


def _meter(counted: Sequence[Intent]) -> SkellamMeter:
    """Read charges as fine as the coarsest of them; before the first, as fine as owners ask for."""
    return SkellamMeter(min((intent.clip_int for intent in counted), default=SENSITIVITY))


def _spending(ledger: LedgerRecord, delta: float) -> Spending:
    return Spending(
        ledger=ledger.name,
        rounds=len(ledger.counted),
        spent_nano=ledger.state.spent_nano,
        left_nano=ledger.state.left_nano,
        counted_nano=ledger.state.counted_nano,
        epsilon=epsilon_of(ledger.counted, delta),
    )


def _spread(devices: Sequence[LedgerRecord], delta: float) -> dict[str, Spending]:
    """Pick devices, sorted by what they spent, at the quantiles; the smallest with at least that share at or below."""
    if not devices:
        return {}
    last = len(devices) - 1
    places = {name: max(0, math.ceil(share * len(devices)) - 1) for name, share in QUANTILES.items()}
    return {name: _spending(devices[min(place, last)], delta) for name, place in places.items()}


def _by_round(shown: LedgerRecord, devices: Sequence[LedgerRecord], delta: float) -> tuple[RoundCost, ...]:
    charged_devices: dict[tuple[str, int], int] = {}
    for device in devices if shown.is_server else ():
        for key, charged in device.rounds.items():
            charged_devices[key] = charged_devices.get(key, 0) + charged.counts
    rows, so_far, epsilon = [], list[Intent](), 0.0
    for key, charged in shown.rounds.items():
        if charged.counts:
            so_far.append(charged.intent)
            epsilon = epsilon_of(so_far, delta)
        rows.append(RoundCost(charged=charged, devices=charged_devices.get(key, 0), epsilon=epsilon))
    return tuple(rows)
