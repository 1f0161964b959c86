"""What a run under way will have cost at its end: its ledgers so far, and its schedule for the rounds still to come.

`palate plan` answers before there is a run. Here the terms are those that the server's ledger really charged.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from palate.audit.ledger_audit import LedgerAudit
from palate.audit.records import LedgerRecord
from palate.errors import ConfigError
from palate.privacy.accounting.dropout import local_event
from palate.privacy.accounting.events import Composed
from palate.privacy.accounting.guarantee import Guarantee, account_for
from palate.privacy.charging import event_of
from palate.privacy.ledger.body import NANO, Intent
from palate.privacy.ledger.errors import BudgetExceeded
from palate.simulation.config import SimulationConfig
from palate.simulation.run_folder import RESOLVED, read_config

_PLAN_HINT = "palate plan answers without a run: give it the epsilon and the rounds"


@dataclass(frozen=True, kw_only=True)
class UnitPlan:
    """A unit's cost at the end of the schedule.

    Attributes
    ----------
    unit
        Whom it protects.
    terms
        What was charged so far: first and last number of rounds charged alike without a gap, and one of them.
    rounds, charged
        Training rounds of the schedule, and those that were charged.
    cap
        Most training rounds of one device; None for no cap.
    busiest
        The device that spent most, or the server where none is known.
    to_come
        Rounds in which it may still take part.
    budget_nano, projected_nano
        Its budget, and what it will have spent, in billionths of 2 rho.
    projected, local
        What is then proven for it, and what its own share of noise alone would give.
    """

    unit: str
    terms: tuple[tuple[int, int, Intent], ...]
    rounds: int
    charged: int
    cap: int | None
    busiest: str
    to_come: int
    budget_nano: int
    projected_nano: int
    projected: Guarantee
    local: Guarantee

    def raise_first(self) -> None:
        """Hold the projection to the budget.

        Raises
        ------
        BudgetExceeded
            If the device will refuse a round before the schedule ends.
        """
        if self.projected_nano > self.budget_nano:
            raise BudgetExceeded(
                f"the schedule costs {self.busiest} {self.projected_nano / NANO:.9g} per {self.unit}, "
                f"its budget is {self.budget_nano / NANO:.9g} (2 rho)",
                needed_nano=self.projected_nano,
                left_nano=self.budget_nano,
                budget_nano=self.budget_nano,
                hint="devices will refuse the last rounds: plan fewer, or more noise",
            )


def audit_plan(record: LedgerAudit) -> tuple[UnitPlan, ...]:
    """Price the rest of a run's schedule.

    Raises
    ------
    ConfigError
        If there is no run, or its ledger has no training round from which to take the terms.
    RunError
        If resolved.toml is missing or damaged.
    Tampered, LedgerUnreadable, BudgetExceeded, Rollback, Fork
        If the record is not intact.
    """
    record.raise_gravest(allow_open=True)
    source = record.source
    if source.run is None:
        raise ConfigError(f"{source.name} is a file, a plan belongs to a run folder", hint=_PLAN_HINT)
    config = read_config(source.run, RESOLVED)
    servers = [ledger for ledger in record.records if ledger.is_server]
    return tuple(_unit_plan(record, server, config) for server in servers)


def _unit_plan(record: LedgerAudit, server: LedgerRecord, config: SimulationConfig) -> UnitPlan:
    unit, rounds, cap = server.policy.unit, config.schedule.rounds, config.privacy.cap
    devices = [ledger for ledger in record.records if ledger.policy.unit == unit and not ledger.is_server]
    busiest = max(devices, key=lambda ledger: ledger.state.spent_nano, default=server)
    trained = [charged.intent for charged in server.rounds.values() if charged.intent.round > 0]
    if not trained:
        raise ConfigError(
            f"{record.source.name} has charged no training round, so its terms are not known yet", hint=_PLAN_HINT
        )
    last = trained[-1]
    own = sum(intent.round > 0 and intent.run == last.run for intent in busiest.counted)
    remaining = max(0, rounds - max(intent.round for intent in trained if intent.run == last.run))
    to_come = remaining if cap is None else min(remaining, max(0, cap - own))
    more = [Composed(event_of(last), to_come)] if to_come else []
    spent = busiest.counted
    alone = [local_event(event_of(intent), intent.m_honest) for intent in spent]
    more_alone = [Composed(local_event(event_of(last), last.m_honest), to_come)] if to_come else []
    delta = float(busiest.policy.delta)
    return UnitPlan(
        unit=unit,
        terms=_alike([charged.intent for charged in server.rounds.values()]),
        rounds=rounds,
        charged=len(trained),
        cap=cap,
        busiest=busiest.name,
        to_come=to_come,
        budget_nano=busiest.policy.budget_nano,
        projected_nano=busiest.state.spent_nano + to_come * last.charge_nano,
        projected=account_for([*map(event_of, spent), *more], delta),
        local=account_for([*alone, *more_alone], delta),
    )


def _alike(intents: list[Intent]) -> tuple[tuple[int, int, Intent], ...]:
    """Join consecutive rounds with the same sensitivity, noise and cohort."""
    runs = groupby(enumerate(intents), key=lambda each: (each[1].round - each[0], _numbers(each[1])))
    same = [[intent for _, intent in run] for _, run in runs]
    return tuple((run[0].round, run[-1].round, run[0]) for run in same)


def _numbers(intent: Intent) -> tuple[object, ...]:
    return intent.run, intent.mechanism, intent.clip_int, intent.sum_var_int, intent.m_honest, intent.n1
