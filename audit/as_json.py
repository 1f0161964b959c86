"""Findings as JSON values with stable keys: docs/formats/audit.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from palate.audit.budget_audit import BudgetAudit, UnitBudget
from palate.audit.claim import Claim
from palate.audit.findings import checks
from palate.audit.ledger_audit import LedgerAudit, counts_by_book
from palate.audit.plan_audit import UnitPlan
from palate.audit.records import LedgerRecord, Round, WindowSpending
from palate.privacy.accounting.guarantee import LOCAL_WARNING, Guarantee, as_dict
from palate.privacy.ledger.body import Intent


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
        "checks": [asdict(check) for check in checks(audit)],
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
    return {"target": target, "units": [_plan(unit) for unit in units]}


def _plan(unit: UnitPlan) -> dict[str, Any]:
    names = "unit", "rounds", "charged", "cap", "busiest", "to_come", "budget_nano", "projected_nano"
    return {
        **{name: getattr(unit, name) for name in names},
        "projected": as_dict(unit.projected),
        "local": _local(unit.local),
        "terms": [{"first": first, "last": last, **_terms(intent)} for first, last, intent in unit.terms],
    }


def _unit(unit: UnitBudget) -> dict[str, Any]:
    return {
        "unit": str(unit.unit),
        "adjacency": str(unit.adjacency),
        "delta": unit.delta,
        "epsilon": unit.epsilon,
        "budget": {"nano": unit.budget_nano, "epsilon": unit.budget_epsilon, "policies": len(unit.policies)},
        "windows": _windows(unit.windows),
        "guarantee": unit.guarantee and as_dict(unit.guarantee),
        "local": unit.local and _local(unit.local),
        "busiest": asdict(unit.busiest),
        "server": unit.server and asdict(unit.server),
        "devices": unit.devices,
        "spread": {name: asdict(spending) for name, spending in unit.spread.items()},
        "rounds_left": unit.rounds_left,
        "claim": unit.claim and unit.claim.model_dump(include=set(Claim.model_fields)),
        "rounds": [
            {**_charged(row.charged), **_terms(row.charged.intent), "devices": row.devices, "epsilon": row.epsilon}
            for row in unit.rounds
        ],
    }


def _ledger(record: LedgerRecord) -> dict[str, Any]:
    rounds = [{**_charged(each), "charge_nano": each.intent.charge_nano} for each in record.rounds.values()]
    return {
        "ledger": record.name,
        "file": record.book,
        "unit": record.policy.unit,
        "spent_nano": record.state.spent_nano,
        "left_nano": record.state.left_nano,
        "windows": _windows(record.windows),
        "rounds": rounds,
    }


def _windows(windows: Sequence[WindowSpending]) -> list[dict[str, int]]:
    return [{"begins": each.window.begins, "ends": each.window.ends, "spent_nano": each.spent_nano} for each in windows]


def _charged(charged: Round) -> dict[str, Any]:
    return {"run": charged.intent.run, "round": charged.intent.round, "status": charged.status}


def _terms(intent: Intent) -> dict[str, int]:
    return {
        "sensitivity": intent.clip_int,
        "variance": intent.sum_var_int,
        "honest_shares": intent.m_honest,
        "roster_size": intent.n1,
        "charge_nano": intent.charge_nano,
    }


def _local(guarantee: Guarantee) -> dict[str, Any]:
    return {"warning": LOCAL_WARNING, **as_dict(guarantee)}
