"""The audit as one HTML page for a privacy officer: promised, spent, intact, assumed, and not protected."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from palate.audit.budget_audit import BudgetAudit, UnitBudget
from palate.audit.ledger_audit import LedgerAudit, counts_by_book
from palate.audit.shown import shown_rounds
from palate.audit.words import (
    WHOM,
    Check,
    checks,
    claimed,
    counted,
    headline,
    share_of_budget,
    size_of,
    spenders,
    spent,
    two_rho,
)
from palate.errors import PalateError
from palate.privacy.accounting.guarantee import round_up
from palate.privacy.errors import PrivacyError
from palate.simulation.report.budget_chart import budget_figure
from palate.simulation.report.drawing import Chart, to_svg
from palate.simulation.report.headline import Protection
from palate.simulation.report.rendering import render, save
from palate.simulation.report.tables import Cell, Grid, Row, facts_grid

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class UnitPage:
    """What the page says about one unit: sentences, tables and a drawing."""

    unit: UnitBudget
    whom: str
    budget: str
    odds: str
    spent: str
    claimed: str
    chart: Chart | None
    spread: Grid
    rounds: Grid
    checks: Grid | None
    local: str


def write_page(record: LedgerAudit, budget: BudgetAudit | None, path: Path) -> None:
    """Write the page.

    Parameters
    ----------
    record
        What is known about the record.
    budget
        What was spent; None leaves that out.
    path
        Where to.

    Raises
    ------
    EnvironmentProblem
        If its folder does not exist.
    ModuleNotFoundError
        If the extra `report` is not installed.
    """
    save(audit_page(record, budget), path)


def audit_page(record: LedgerAudit, budget: BudgetAudit | None) -> str:
    """Fill the page: the same findings give the same bytes."""
    found = checks(record)
    return render(
        "audit.html.j2",
        folder=_HERE,
        record=record,
        size=size_of(record),
        budget=budget,
        banner=_banner(record, budget),
        checks=found,
        check_grid=_check_grid(found),
        files=_file_grid(record),
        units=[_unit_page(unit, place) for place, unit in enumerate(budget.units)] if budget else [],
    )


def _banner(record: LedgerAudit, budget: BudgetAudit | None) -> Protection:
    """Say the most important thing first; whatever is wrong comes before what is right."""
    if not record.intact:
        fault = record.faults[0]
        text = f"{fault.message}. No figure may be taken from this record."
        return Protection(protected=False, title=headline(record), text=text, facts={})
    if budget is None:
        text = "Every entry follows from the one before, and is signed. What was spent is in the budget's audit."
        return Protection(protected=True, title=headline(record), text=text, facts={})
    if budget.disclaimer:
        return Protection(protected=False, title="No privacy.", text=budget.disclaimer, facts={})
    try:
        budget.raise_first()
    except (PalateError, PrivacyError) as error:
        return Protection(protected=False, title="The promise was not kept.", text=f"{error.message}.", facts={})
    text = " ".join(spent(unit) for unit in budget.units)
    return Protection(protected=True, title=headline(record), text=text, facts={})


def _unit_page(unit: UnitBudget, place: int) -> UnitPage:
    cross = unit.guarantee.cross_checks if unit.guarantee else ()
    rows = tuple(Row(check.accountant, (Cell(round_up(check.epsilon)),)) for check in cross)
    return UnitPage(
        unit=unit,
        whom=WHOM[unit.unit],
        budget=round_up(unit.budget_epsilon),
        odds=_odds(unit.budget_epsilon),
        spent=spent(unit),
        claimed=claimed(unit),
        chart=_chart(unit, place),
        spread=_spread_grid(unit),
        rounds=_round_grid(unit),
        checks=Grid("Independent accountants, about Gaussian noise as wide", ("Accountant", "Epsilon"), rows)
        if rows
        else None,
        local=round_up(unit.local.epsilon) if unit.local else "",
    )


def _chart(unit: UnitBudget, place: int) -> Chart | None:
    rows = [row for row in unit.rounds if row.charged.counts]
    if not rows:
        return None
    counts, target = range(1, len(rows) + 1), unit.budget_epsilon
    figure = budget_figure(list(counts), [row.epsilon for row in rows], target=target)
    title = f"Epsilon by number of rounds, per {unit.unit}"
    return Chart(
        title=title,
        caption=f"A device that takes part in every round; the dashed line is its budget, {round_up(target)}.",
        svg=to_svg(
            figure,
            name=f"budget-{place}",
            title=title,
            description=f"It rises from {round_up(rows[0].epsilon)} to {round_up(rows[-1].epsilon)} "
            f"over {counted(len(rows), 'round')}; the budget is {round_up(target)}.",
        ),
    )


def _odds(epsilon: float) -> str:
    """Write e^epsilon for a sentence; a promise without meaning shows it."""
    if epsilon > math.log(10**6):
        return "more than a millionfold here, which is no protection"
    factor = math.ceil(100 * math.exp(epsilon)) / 100
    return f"{factor:,.0f}-fold here" if factor >= 100 else f"{factor:.2f}-fold here"


def _spread_grid(unit: UnitBudget) -> Grid:
    rows = []
    for label, spending in spenders(unit):
        share = share_of_budget(spending)
        cells = (f"{spending.rounds:,}", two_rho(spending.spent_nano), share, round_up(spending.epsilon))
        rows.append(Row(label[:1].upper() + label[1:], tuple(map(Cell, cells)), own=spending.name == unit.busiest.name))
    notes = () if unit.rounds_left is None else (
        f"The budget of {unit.busiest.name} admits {counted(unit.rounds_left, 'more round')} at the last price.",
    )  # fmt: skip
    return Grid("Who spent what", ("Ledger", "Rounds", "Spent, 2 rho", "Of its budget", "Epsilon"), tuple(rows), notes)


def _round_grid(unit: UnitBudget) -> Grid:
    rows = []
    for cost in shown_rounds(unit.rounds):
        intent = cost.charged.intent
        cells = (
            cost.charged.status,
            f"{cost.devices:,} of {intent.n1:,}" if unit.server is not None and unit.devices else f"{intent.n1:,}",
            f"{intent.m_honest:,}",
            f"{intent.sum_var_int**0.5 / intent.clip_int:.3f}",
            two_rho(intent.charge_nano),
            round_up(cost.epsilon),
        )
        rows.append(Row(f"{intent.round}", tuple(map(Cell, cells))))
    note = f"{len(rows)} of {len(unit.rounds):,} rounds are shown; --json has them all."
    columns = ("Round", "Outcome", "Devices", "Shares of noise", "Noise multiplier", "Cost, 2 rho", "Epsilon so far")
    return Grid("Round by round", columns, tuple(rows), (note,) if len(rows) < len(unit.rounds) else ())


def _check_grid(found: Sequence[Check]) -> Grid:
    rows = tuple(Row(check.name, (Cell(str(check.verdict)), Cell(check.text))) for check in found)
    return Grid("What was checked", ("Check", "Verdict", ""), rows)


def _file_grid(record: LedgerAudit) -> Grid:
    counts = {
        book: f"{counted(ledgers, 'ledger')}, {counted(entries, 'entry', 'entries')}"
        for book, (ledgers, entries) in counts_by_book(record.records).items()
    }
    return facts_grid("Files", "File", counts)
