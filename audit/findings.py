"""Findings of an audit as sentences and tables, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from palate.audit.budget_audit import Spending, UnitBudget
from palate.audit.ledger_audit import LedgerAudit, counts_by_book
from palate.audit.opening import BESIDE
from palate.audit.plan_audit import UnitPlan
from palate.audit.records import LedgerRecord
from palate.privacy.accounting.guarantee import LOCAL_WARNING, Guarantee, round_up
from palate.privacy.ledger.body import NANO, Intent
from palate.privacy.ledger.errors import BudgetExceeded, Contradiction, Fork, LedgerError, OpenIntent, Rollback
from palate.privacy.ledger.state import utc
from palate.simulation.report.tables import Cell, Grid, Row, Tone, facts_grid, text_grid

NO_ANCHOR = (
    "None is known. A chain cannot show that its end was cut off, or that its owner signed another one: keep the heads "
    "of this audit elsewhere with --save-anchors, and give them to the next with --anchors."
)
WHOM = {
    "user": "one person: everything that this person ever did, in all rounds together",
    "interaction": "one interaction of one person, such as a single film seen; not the person's habits",
}
_KEY_DIGITS = 16
_QUANTILES = {
    "least": "device that spent least",
    "median": "median device",
    "nine tenths": "device at nine tenths",
    "most": "device that spent most",
}
_MOST_ROUNDS, _MOST_FILES = 24, 20  # rows of a table; --json has all


Verdict = Literal["passed", "failed", "not shown"]
"""How a check ended."""

_TONES: dict[Verdict, Tone] = {"passed": "good", "failed": "bad", "not shown": "unknown"}


@dataclass(frozen=True)
class Check:
    """One check: its name, how it ended, and a sentence."""

    name: str
    verdict: Verdict
    text: str


def headline(audit: LedgerAudit) -> str:
    """Say in a sentence whether the record can be relied on."""
    what = f"Ledger {audit.device}" if audit.device else f"The record of {audit.source.name}"
    if not audit.faults:
        return f"{what} is intact."
    if audit.intact:
        return f"{what} is intact, with {counted(audit.open_rounds, 'round')} still open."
    return f"{what} cannot be relied on."


def size_of(audit: LedgerAudit) -> str:
    """Count what holds together."""
    return f"{counted(audit.entries, 'entry', 'entries')} of {counted(len(audit.records), 'ledger')}"


def checks(audit: LedgerAudit) -> list[Check]:
    """List everything that an audit of ledgers looks at."""
    faults = audit.faults
    elsewhere = Contradiction | BudgetExceeded | Rollback | Fork | OpenIntent  # each has a check of its own
    broken = [fault for fault in faults if not isinstance(fault, elsewhere)]
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
            "not shown" if key.beside else "passed",
            f"{key.digits[:_KEY_DIGITS]}... ({key.origin}). {BESIDE if key.beside else ''}".strip(),
        ),
    ]


def check_grid(audit: LedgerAudit) -> Grid:
    """Show what was checked, and how it ended."""
    rows = (Row(c.name, (Cell(c.verdict, tone=_TONES[c.verdict]), Cell(c.text))) for c in checks(audit))
    return Grid("What was checked", ("Check", "Verdict", ""), tuple(rows))


def file_grid(audit: LedgerAudit) -> Grid:
    """Show the files, and how many ledgers and entries each holds."""
    counts = list(counts_by_book(audit.records).items())
    if more := [pair for _, pair in counts[_MOST_FILES:]]:
        ledgers, entries = map(sum, zip(*more, strict=True))
        counts = [*counts[:_MOST_FILES], (f"{len(more):,} more", (ledgers, entries))]
    rows = ((book, f"{ledgers:,}", f"{entries:,}") for book, (ledgers, entries) in counts)
    return text_grid("Files", ("File", "Ledgers", "Entries"), rows)


def ledger_grid(record: LedgerRecord) -> Grid:
    """Show the rounds of one ledger, and what they leave of its budget."""
    rows = []
    for charged in record.rounds.values():
        intent = charged.intent
        rows.append((intent.run, str(intent.round), charged.status, noise(intent), two_rho(intent.charge_nano)))
    for name, nano in (("spent", record.state.spent_nano), ("left", record.state.left_nano)):
        rows.append(("", "", "", name, two_rho(nano)))
    for number, each in enumerate(record.windows, start=1):
        when = f"{utc(each.window.begins)} to {utc(each.window.ends)}"
        rows.append((f"window {number}", "", "", when, two_rho(each.spent_nano)))
    caption = f"Ledger {record.name}, {counted(record.state.seq, 'entry', 'entries')}"
    return text_grid(caption, ("Run", "Round", "Outcome", "Noise multiplier", "Charge, 2 rho"), rows)


def spent(unit: UnitBudget) -> str:
    """Say in a sentence what was spent of what."""
    if unit.guarantee is None:
        return f"Nothing has been spent of epsilon {round_up(unit.budget_epsilon)} per {unit.unit}."
    whose = "the server's ledger" if unit.devices == 0 and unit.server else unit.busiest.ledger
    most = f"{whose}, the most of {counted(unit.devices, 'device')}" if unit.devices > 1 else whose
    return (
        f"Epsilon {round_up(unit.epsilon)} at delta {unit.delta:g} per {unit.unit} was spent by {most}, "
        f"{_of_budget(unit)}."
    )


def _of_budget(unit: UnitBudget) -> str:
    budget = round_up(unit.budget_epsilon)
    if not unit.windows:
        return f"of a budget of {budget}"
    return f"in {counted(len(unit.windows), 'window')} of a budget of {budget} each"


def claimed(unit: UnitBudget) -> str:
    """Say how the run's own claim compares with the record."""
    if unit.claim is None:
        return "The run claims nothing about this unit, or has not finished."
    target = "" if unit.claim.target_epsilon is None else f"; its target was {unit.claim.target_epsilon:g}"
    return f"The run claims epsilon {round_up(unit.claim.epsilon)} at delta {unit.claim.delta:g}{target}."


def alone(guarantee: Guarantee) -> str:
    """Say what one device's own share of the noise gives."""
    return f"Local epsilon {round_up(guarantee.epsilon)}. {LOCAL_WARNING}"


def meaning_grid(guarantee: Guarantee) -> Grid:
    """Show what it takes to read an epsilon."""
    facts = {
        "Unit": str(guarantee.unit),
        "Delta": f"{guarantee.delta:g}",
        "Adjacency": str(guarantee.adjacency),
        "Accountant": guarantee.accountant,
        "Amplification": guarantee.amplification,
        "Assuming": "; ".join(guarantee.assumptions) or "nothing besides each device's own noise",
    }
    return facts_grid("What every epsilon here means", "", facts)


def spending_grid(unit: UnitBudget) -> Grid:
    """Show who spent what: devices from least to most, and the server."""
    spread = list(unit.spread.items())
    if spread and spread[0][1].spent_nano == spread[-1][1].spent_nano:
        each = spread[-1][1].ledger if unit.devices == 1 else f"Each of {counted(unit.devices, 'device')}"
        named = [(each, spread[-1][1])]
    else:
        named = [(f"The {_QUANTILES[name]}", spending) for name, spending in spread]
    if unit.server is not None:
        named.append(("All rounds, as the server charged them", unit.server))
    named = named or [(unit.busiest.ledger, unit.busiest)]
    columns = ("Ledger", "Rounds", "Spent, 2 rho", "Of its budget", "Epsilon")
    rows = [
        (label, f"{each.rounds:,}", two_rho(each.spent_nano), share_of_budget(each), round_up(each.epsilon))
        for label, each in named
    ]
    busiest = max((place for place, (_, each) in enumerate(named) if each.ledger == unit.busiest.ledger), default=-1)
    left = (
        f"The budget of {unit.busiest.ledger} admits {counted(unit.rounds_left or 0, 'more round')} at the last price."
    )
    notes = () if unit.rounds_left is None else (left,)
    return text_grid("Who spent what", columns, rows, notes, own=busiest)


def round_grid(unit: UnitBudget) -> Grid:
    """Show the rounds: of a long run the first, the last, and some between."""
    stride = -(-len(unit.rounds) // _MOST_ROUNDS) or 1
    places = sorted({*range(0, len(unit.rounds), stride), len(unit.rounds) - 1} - {-1})
    rows = []
    for cost in (unit.rounds[place] for place in places):
        intent = cost.charged.intent
        devices = f"{cost.devices:,} of {intent.n1:,}" if unit.server is not None and unit.devices else f"{intent.n1:,}"
        cells = cost.charged.status, devices, f"{intent.m_honest:,}", noise(intent), two_rho(intent.charge_nano)
        rows.append((str(intent.round), *cells, round_up(cost.epsilon)))
    note = f"{len(rows)} of {len(unit.rounds):,} rounds are shown; --json has them all."
    columns = ("Round", "Outcome", "Devices", "Shares of noise", "Noise multiplier", "Cost, 2 rho", "Epsilon so far")
    return text_grid("Round by round", columns, rows, (note,) if len(rows) < len(unit.rounds) else ())


def accountant_grid(guarantee: Guarantee) -> Grid:
    """Show what independent accountants say."""
    rows = ((check.accountant, round_up(check.epsilon)) for check in guarantee.cross_checks)
    note = "Information, not the claim: for whole-number noise only the figure above is proven."
    return text_grid("Independent accountants, about Gaussian noise as wide", ("Accountant", "Epsilon"), rows, (note,))


def projected(unit: UnitPlan) -> str:
    """Say what the schedule will have cost at its end."""
    return (
        f"Epsilon {round_up(unit.projected.epsilon)} at delta {unit.projected.delta:g} per {unit.unit} will have been "
        f"spent by {unit.busiest} at the end of the schedule, {counted(unit.to_come, 'round')} to come for it."
    )


def plan_grids(unit: UnitPlan) -> list[Grid]:
    """Show a plan, what its epsilon means, and the terms that were charged so far."""
    facts = {
        "Training rounds": f"{unit.charged:,} of {unit.rounds:,} charged",
        "Cap": "none" if unit.cap is None else f"{counted(unit.cap, 'training round')} of one device",
        "Budget, 2 rho": f"{two_rho(unit.projected_nano)} of {two_rho(unit.budget_nano)}",
        "One device alone": alone(unit.local),
    }
    rows = [
        (
            f"{first}" if first == last else f"{first} to {last}",
            noise(intent),
            *(f"{number:,}" for number in (intent.clip_int, intent.m_honest, intent.n1)),
            two_rho(intent.charge_nano),
        )
        for first, last, intent in unit.terms
    ]
    columns = ("Rounds", "Noise multiplier", "Sensitivity", "Honest shares", "Roster", "Each costs, 2 rho")
    terms = text_grid("Terms charged so far", columns, rows)
    return [facts_grid("The plan", "", facts), meaning_grid(unit.projected), terms]


def share_of_budget(spending: Spending) -> str:
    """Write what was spent of a ledger's own budget, or of its window's, in per cent, rounded up."""
    budget = spending.counted_nano + spending.left_nano
    return f"{-(-1000 * spending.counted_nano // budget) / 10:.1f}%" if budget else "-"


def noise(intent: Intent) -> str:
    """Write the noise multiplier of a charge."""
    return f"{intent.sum_var_int**0.5 / intent.clip_int:.3f}"


def two_rho(nano: int) -> str:
    """Write a charge as a number of 2 rho."""
    return f"{nano / NANO:.6g}"


def counted(count: int, one: str, many: str = "") -> str:
    """Write a number with its noun."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _check(
    name: str, faults: Sequence[LedgerError], passed: str, *, partly: Sequence[LedgerError] | None = None
) -> Check:
    if faults:
        more = f" ({counted(len(faults) - 1, 'more fault')})" if len(faults) > 1 else ""
        return Check(name, "failed", f"{faults[0].message}{more}.")
    if partly:
        return Check(name, "not shown", "Not known of the ledgers that do not hold together.")
    return Check(name, "passed", passed)


def _agreement(audit: LedgerAudit) -> Check:
    name = "Server and devices"
    found = _of(audit.faults, Contradiction)
    devices = sum(not record.is_server for record in audit.records)
    if not found and not audit.intact:
        return Check(name, "not shown", "Not compared: the other faults have to be explained first.")
    if audit.source.run is None or not devices:
        return Check(name, "not shown", "Only one side's ledger is here: there is nothing to compare it with.")
    rounds = max((len(record.rounds) for record in audit.records if record.is_server), default=0)
    agree = f"The server and {counted(devices, 'device ledger')} say the same about {counted(rounds, 'round')}"
    shares = "." if audit.device else ", and each sum had the shares of noise that it counts on."
    return _check(name, found, agree + shares)


def _anchors(audit: LedgerAudit) -> Check:
    name, found = "Anchors", _of(audit.faults, Rollback) + _of(audit.faults, Fork)
    if found:
        return _check(name, found, "")
    if not audit.anchors_checked:
        return Check(name, "not shown", NO_ANCHOR)
    passed = f"The record is a continuation of {counted(audit.anchors_checked, 'earlier state')} of itself."
    if audit.anchors_elsewhere:
        return Check(name, "passed", passed)
    beside = "They are in the ledgers' folder: anybody who could truncate the ledgers could truncate them."
    return Check(name, "not shown", f"{passed} {beside}")


def _of(faults: Sequence[LedgerError], kind: type[LedgerError]) -> list[LedgerError]:
    return [fault for fault in faults if isinstance(fault, kind)]
