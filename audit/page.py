"""The audit as one HTML page for a privacy officer: promised, spent, intact, assumed, and not protected."""

from __future__ import annotations

import math
from pathlib import Path

from palate.audit import findings
from palate.audit.budget_audit import BudgetAudit, UnitBudget
from palate.audit.ledger_audit import LedgerAudit
from palate.errors import PalateError
from palate.privacy.accounting.guarantee import round_up
from palate.simulation.report.drawing import Chart, to_svg
from palate.simulation.report.figures import budget_figure
from palate.simulation.report.rendering import Protection, render

_HERE = Path(__file__).parent


def audit_page(record: LedgerAudit, budget: BudgetAudit | None) -> str:
    """Fill the page: the same findings give the same bytes.

    Parameters
    ----------
    record
        What is known about the record.
    budget
        What was spent; None leaves that out.

    Raises
    ------
    ModuleNotFoundError
        If the extra `report` is not installed.
    """
    units = budget.units if budget else ()
    return render(
        "audit.html.j2",
        folder=_HERE,
        record=record,
        budget=budget,
        banner=_banner(record, budget),
        findings=findings,
        round_up=round_up,
        units=[(unit, _odds(unit.budget_epsilon), _chart(unit, place)) for place, unit in enumerate(units)],
    )


def _banner(record: LedgerAudit, budget: BudgetAudit | None) -> Protection:
    """Say the most important thing first; whatever is wrong comes before what is right."""
    title = findings.headline(record)
    if not record.intact:
        return Protection(False, title, f"{record.faults[0].message}. No figure may be taken from this record.")
    if budget is None:
        signed = "Every entry follows from the one before, and is signed. What was spent is in the budget's audit."
        return Protection(True, title, signed)
    if budget.disclaimer:
        return Protection(False, "No privacy.", budget.disclaimer)
    try:
        budget.raise_first()
    except PalateError as error:
        return Protection(False, "The promise was not kept.", f"{error.message}.")
    return Protection(True, title, " ".join(findings.spent(unit) for unit in budget.units))


def _chart(unit: UnitBudget, place: int) -> Chart | None:
    rows = [row for row in unit.rounds if row.charged.counts]
    if not rows:
        return None
    target = unit.budget_epsilon
    title = f"Epsilon by number of rounds, per {unit.unit}"
    return Chart(
        title=title,
        caption=f"A device that takes part in every round; the dashed line is its budget, {round_up(target)}.",
        svg=to_svg(
            budget_figure(range(1, len(rows) + 1), [row.epsilon for row in rows], target=target),
            name=f"budget-{place}",
            title=title,
            description=f"It rises from {round_up(rows[0].epsilon)} to {round_up(rows[-1].epsilon)} "
            f"over {findings.counted(len(rows), 'round')}; the budget is {round_up(target)}.",
        ),
    )


def _odds(epsilon: float) -> str:
    """Write e^epsilon for a sentence; a promise without meaning shows it."""
    if epsilon > math.log(10**6):
        return "more than a millionfold here, which is no protection"
    factor = math.ceil(100 * math.exp(epsilon)) / 100
    return f"{factor:,.0f}-fold here" if factor >= 100 else f"{factor:.2f}-fold here"
