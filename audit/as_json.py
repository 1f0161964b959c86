"""Findings as JSON values with stable keys: docs/formats/audit.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from palate.audit.budget_audit import BudgetAudit, RoundCost, Spending, UnitBudget
from palate.audit.findings import checks
from palate.audit.ledger_audit import LedgerAudit, counts_by_book
from palate.audit.plan_audit import UnitPlan
from palate.audit.records import LedgerRecord
from palate.privacy.accounting.guarantee import LOCAL_WARNING, as_dict


def ledger_dict(audit: LedgerAudit) -> dict[str, Any]:
    """Return what `palate audit ledger --json` prints."""
    source = audit.source
    found: dict[str, Any] = {
        "target": source.name,
        "run": None if source.run is None else source.run.name,
        "finished": source.finished,
        "intact": audit.intact,
        "faults": [
            {"error": type(fault).__name__, "message": fault.message, "hint": fault.hint} for fault in audit.faults
        ],
        "checks": [{"name": c.name, "verdict": str(c.verdict), "text": c.text} for c in checks(audit)],
        "key": {"public": source.key.digits, "origin": source.key.origin, "beside_the_ledger": source.key.beside},
        "ledgers": len(audit.records),
        "entries": audit.entries,
        "open_rounds": audit.open_rounds,
        "files": [
            {"file": book, "ledgers": ledgers, "entries": entries}
            for book, (ledgers, entries) in counts_by_book(audit.records).items()
        ],
        "anchors": {"checked": audit.anchors_checked, "from_elsewhere": audit.anchors_elsewhere},
        "heads": [{"book": head.book, "entries": head.entries, "heads": head.heads.hex()} for head in audit.heads],
        "seconds": audit.seconds,
    }
    if audit.device is not None:
        found["device"] = [_ledger(record) for record in audit.records if record.name == audit.device]
    return found


def budget_dict(audit: BudgetAudit) -> dict[str, Any]:
    """Return what `palate audit budget --json` prints."""
    return {
        "target": audit.record.source.name,
        "finished": audit.record.source.finished,
        "disclaimer": audit.disclaimer,
        "open_rounds": audit.record.open_rounds,
        "key_beside_the_ledger": audit.record.source.key.beside,
        "units": [_unit(unit) for unit in audit.units],
    }


def plan_dict(target: str, units: Sequence[UnitPlan]) -> dict[str, Any]:
    """Return what `palate audit plan --json` prints."""
    return {
        "target": target,
        "units": [
            {
                "unit": unit.unit,
                "rounds": unit.rounds,
                "charged": unit.charged,
                "cap": unit.cap,
                "busiest": unit.busiest,
                "to_come": unit.to_come,
                "budget_nano": unit.budget_nano,
                "projected_nano": unit.projected_nano,
                "projected": as_dict(unit.projected),
                "local": {"warning": LOCAL_WARNING, **as_dict(unit.local)},
                "terms": [
                    {
                        "first": terms.first,
                        "last": terms.last,
                        "sensitivity": terms.intent.clip_int,
                        "variance": terms.intent.sum_var_int,
                        "honest_shares": terms.intent.m_honest,
                        "roster_size": terms.intent.n1,
                        "charge_nano": terms.intent.charge_nano,
                    }
                    for terms in unit.terms
                ],
            }
            for unit in units
        ],
    }


def _unit(unit: UnitBudget) -> dict[str, Any]:
    return {
        "unit": str(unit.unit),
        "adjacency": str(unit.adjacency),
        "delta": unit.delta,
        "epsilon": unit.epsilon,
        "budget": {"nano": unit.budget_nano, "epsilon": unit.budget_epsilon, "policies": len(unit.policies)},
        "guarantee": None if unit.guarantee is None else as_dict(unit.guarantee),
        "local": None if unit.local is None else {"warning": LOCAL_WARNING, **as_dict(unit.local)},
        "busiest": _spending(unit.busiest),
        "server": None if unit.server is None else _spending(unit.server),
        "devices": unit.devices,
        "spread": {name: _spending(spending) for name, spending in unit.spread.items()},
        "rounds_left": unit.rounds_left,
        "claim": None
        if unit.claim is None
        else {"epsilon": unit.claim.epsilon, "delta": unit.claim.delta, "target_epsilon": unit.claim.target},
        "rounds": [_round(row) for row in unit.rounds],
    }


def _spending(spending: Spending) -> dict[str, Any]:
    return {
        "ledger": spending.name,
        "rounds": spending.rounds,
        "spent_nano": spending.spent_nano,
        "left_nano": spending.left_nano,
        "epsilon": spending.epsilon,
    }


def _round(row: RoundCost) -> dict[str, Any]:
    intent = row.charged.intent
    return {
        "run": intent.run,
        "round": intent.round,
        "status": row.charged.status,
        "sensitivity": intent.clip_int,
        "variance": intent.sum_var_int,
        "honest_shares": intent.m_honest,
        "roster_size": intent.n1,
        "devices": row.devices,
        "charge_nano": intent.charge_nano,
        "epsilon": row.epsilon,
    }


def _ledger(record: LedgerRecord) -> dict[str, Any]:
    return {
        "ledger": record.name,
        "file": record.book,
        "unit": record.policy.unit,
        "spent_nano": record.state.spent_nano,
        "left_nano": record.state.left_nano,
        "rounds": [
            {
                "run": charged.intent.run,
                "round": charged.intent.round,
                "status": charged.status,
                "charge_nano": charged.intent.charge_nano,
            }
            for charged in record.rounds.values()
        ],
    }
