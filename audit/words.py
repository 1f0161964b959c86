"""Findings in plain words, the same for the terminal and for the page: what was checked, and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from palate.audit.budget_audit import Spending, UnitBudget
from palate.audit.ledger_audit import LedgerAudit
from palate.audit.opening import BESIDE
from palate.privacy.accounting.guarantee import round_up
from palate.privacy.ledger.body import NANO
from palate.privacy.ledger.errors import BudgetExceeded, Contradiction, Fork, LedgerError, OpenIntent, Rollback

NO_ANCHOR = (
    "None is known. A chain cannot show that its end was cut off, or that its owner signed another one: keep the heads "
    "of this audit elsewhere with --save-anchors, and give them to the next with --anchors."
)
WHOM = {
    "user": "one person: everything that this person ever did, in all rounds together",
    "interaction": "one interaction of one person, such as a single film seen; not the person's habits",
}
_SHOWN_DIGITS = 16
_QUANTILES = {
    "least": "device that spent least",
    "median": "median device",
    "nine tenths": "device at nine tenths",
    "most": "device that spent most",
}


class Verdict(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_SHOWN = "not shown"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: its name, how it ended, and a sentence."""

    name: str
    verdict: Verdict
    text: str


def headline(audit: LedgerAudit) -> str:
    """Say in a sentence whether the record can be relied on."""
    what = f"ledger {audit.device}" if audit.device else f"the record of {audit.source.name}"
    if not audit.faults:
        return f"{_capital(what)} is intact."
    if audit.intact:
        return f"{_capital(what)} is intact, with {counted(audit.open_rounds, 'round')} still open."
    return f"{_capital(what)} cannot be relied on."


def size_of(audit: LedgerAudit) -> str:
    """Count what holds together."""
    return f"{counted(audit.entries, 'entry', 'entries')} of {counted(len(audit.records), 'ledger')}"


def checks(audit: LedgerAudit) -> list[Check]:
    """List everything that an audit of ledgers looks at."""
    faults = audit.faults
    broken = [fault for fault in faults if not isinstance(fault, Contradiction | BudgetExceeded | Rollback | Fork)]
    broken = [fault for fault in broken if not isinstance(fault, OpenIntent)]
    key = audit.source.key
    return [
        _check(
            "Chains and signatures",
            broken,
            f"{size_of(audit)}: each follows from the one before, and is signed with the one key.",
        ),
        _check("Budgets", _of(faults, BudgetExceeded), "No ledger was charged beyond its budget.", partly=broken),
        _agreement(audit),
        _anchors(audit),
        _check("Open rounds", _of(faults, OpenIntent), "Every charged round has an outcome.", partly=broken),
        Check(
            "Key",
            Verdict.NOT_SHOWN if key.beside else Verdict.PASSED,
            f"{key.digits[:_SHOWN_DIGITS]}... ({key.origin}). {BESIDE if key.beside else ''}".strip(),
        ),
    ]


def spent(unit: UnitBudget) -> str:
    """Say in a sentence what was spent of what."""
    if unit.guarantee is None:
        return f"Nothing has been spent of epsilon {round_up(unit.budget_epsilon)} per {unit.unit}."
    whose = "the server's ledger" if unit.devices == 0 and unit.server else unit.busiest.name
    most = f"{whose}, the most of {counted(unit.devices, 'device')}" if unit.devices > 1 else whose
    return (
        f"Epsilon {round_up(unit.epsilon)} at delta {unit.delta:g} per {unit.unit} was spent by {most}, "
        f"of a budget of {round_up(unit.budget_epsilon)}."
    )


def claimed(unit: UnitBudget) -> str:
    """Say how the run's own claim compares with the record."""
    if unit.claim is None:
        return "The run claims nothing about this unit, or has not finished."
    target = "" if unit.claim.target is None else f"; its target was {unit.claim.target:g}"
    return f"The run claims epsilon {round_up(unit.claim.epsilon)} at delta {unit.claim.delta:g}{target}."


def spenders(unit: UnitBudget) -> list[tuple[str, Spending]]:
    """Name the ledgers that a table of spending shows: devices from least to most, and the server's."""
    spread = list(unit.spread.items())
    if spread and spread[0][1].spent_nano == spread[-1][1].spent_nano:
        each = spread[-1][1].name if unit.devices == 1 else f"each of {counted(unit.devices, 'device')}"
        rows = [(each, spread[-1][1])]
    else:
        rows = [(_QUANTILES[name], spending) for name, spending in spread]
    if unit.server is not None:
        rows.append(("all rounds, as the server charged them", unit.server))
    return rows or [(unit.busiest.name, unit.busiest)]


def share_of_budget(spending: Spending) -> str:
    """Write what was spent of a ledger's own budget in per cent, rounded up."""
    budget = spending.spent_nano + spending.left_nano
    return f"{-(-1000 * spending.spent_nano // budget) / 10:.1f}%" if budget else "-"


def two_rho(nano: int) -> str:
    """Write a charge as a number of 2 rho."""
    return f"{nano / NANO:.6g}"


def counted(count: int, one: str, many: str = "") -> str:
    """Write a number with its noun."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _check(name: str, faults: list[LedgerError], passed: str, *, partly: list[LedgerError] | None = None) -> Check:
    if faults:
        more = f" ({counted(len(faults) - 1, 'more fault')})" if len(faults) > 1 else ""
        return Check(name, Verdict.FAILED, f"{faults[0].message}{more}.")
    if partly:
        return Check(name, Verdict.NOT_SHOWN, "Not known of the ledgers that do not hold together.")
    return Check(name, Verdict.PASSED, passed)


def _agreement(audit: LedgerAudit) -> Check:
    name = "Server and devices"
    found = _of(audit.faults, Contradiction)
    devices = sum(not record.is_server for record in audit.records)
    if not found and not audit.intact:
        return Check(name, Verdict.NOT_SHOWN, "Not compared: there is no use before the other faults are explained.")
    if audit.source.run is None or not devices:
        return Check(name, Verdict.NOT_SHOWN, "Only one side's ledger is here: there is nothing to compare it with.")
    rounds = max((len(record.rounds) for record in audit.records if record.is_server), default=0)
    agree = f"The server and {counted(devices, 'device ledger')} say the same about {counted(rounds, 'round')}"
    shares = "." if audit.device else ", and each sum had the shares of noise that it counts on."
    return _check(name, found, agree + shares)


def _anchors(audit: LedgerAudit) -> Check:
    name, found = "Anchors", _of(audit.faults, Rollback) + _of(audit.faults, Fork)
    if found:
        return _check(name, found, "")
    if not audit.anchors_checked:
        return Check(name, Verdict.NOT_SHOWN, NO_ANCHOR)
    passed = f"The record is a continuation of {counted(audit.anchors_checked, 'earlier state')} of itself."
    if audit.anchors_elsewhere:
        return Check(name, Verdict.PASSED, passed)
    beside = "They lie beside the ledgers: whoever could cut off the one could cut off the other."
    return Check(name, Verdict.NOT_SHOWN, f"{passed} {beside}")


def _of(faults: tuple[LedgerError, ...], kind: type[LedgerError]) -> list[LedgerError]:
    return [fault for fault in faults if isinstance(fault, kind)]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
