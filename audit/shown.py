"""Findings on a terminal: tables as the other commands have them."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from palate.audit.budget_audit import BudgetAudit, RoundCost, UnitBudget
from palate.audit.ledger_audit import LedgerAudit, counts_by_book
from palate.audit.plan_audit import UnitPlan
from palate.audit.records import LedgerRecord
from palate.audit.words import Verdict, checks, claimed, counted, headline, share_of_budget, spenders, spent, two_rho
from palate.privacy.accounting.guarantee import LOCAL_WARNING, Guarantee, round_up

_STYLES = {Verdict.PASSED: "green", Verdict.FAILED: "bold red", Verdict.NOT_SHOWN: "yellow"}
_MOST_ROWS = 24
_MOST_FILES = 20


def show_ledgers(audit: LedgerAudit, console: Console) -> None:
    """Print what an audit of ledgers found."""
    _say(console, headline(audit), style="bold" if audit.intact else "bold red")
    table = _table("", "", "")
    for check in checks(audit):
        table.add_row(check.name, f"[{_STYLES[check.verdict]}]{check.verdict}[/]", _plain(check.text))
    _titled(console, "What was checked", table)
    if audit.device is None:
        _titled(console, "Files", _files(audit))
    for record in audit.records:
        if record.name == audit.device:
            _titled(console, f"Ledger {record.name}, {counted(record.state.seq, 'entry', 'entries')}", _entries(record))
    _say(console, f"\nVerified in {audit.seconds:.1f} s.", style="dim")


def show_budget(audit: BudgetAudit, console: Console) -> None:
    """Print what was promised, spent and left."""
    if audit.disclaimer:
        _say(console, f"No privacy. {audit.disclaimer}", style="bold red")
    if not audit.record.source.finished:
        _say(console, "The run has not finished: figures are up to now.")
    if audit.record.open_rounds:
        _say(console, f"{counted(audit.record.open_rounds, 'round')} without an outcome count as spent.")
    for unit in audit.units:
        _say(console, f"\n{spent(unit)}", style="bold")
        _say(console, claimed(unit))
        if unit.guarantee is not None:
            _titled(console, "What every epsilon here means", _meaning(unit.guarantee))
        _titled(console, "Who spent what", _spread(unit))
        if unit.local is not None and unit.needs_aggregation:
            _say(console, f"\nLocal epsilon {round_up(unit.local.epsilon)}. {LOCAL_WARNING}", style="yellow")
        if unit.rounds:
            _titled(console, "Round by round", _rounds(unit))
        if unit.guarantee is not None and unit.guarantee.cross_checks:
            table = _table("accountant", "epsilon", header=True)
            for found in unit.guarantee.cross_checks:
                table.add_row(found.accountant, round_up(found.epsilon))
            _titled(console, "Other accountants, about Gaussian noise as wide (information, not the claim)", table)


def show_plan(units: tuple[UnitPlan, ...], console: Console) -> None:
    """Print what the schedule costs at its end."""
    for unit in units:
        left = f"{counted(unit.to_come, 'round')} to come for it"
        _say(
            console,
            f"Epsilon {round_up(unit.projected.epsilon)} at delta {unit.projected.delta:g} per {unit.unit} "
            f"will have been spent by {unit.busiest} at the end of the schedule, {left}.",
            style="bold",
        )
        facts = _table("", "")
        facts.add_row("training rounds", f"{unit.charged:,} of {unit.rounds:,} charged")
        facts.add_row("cap", "none" if unit.cap is None else f"{counted(unit.cap, 'training round')} of one device")
        facts.add_row("budget (2 rho)", f"{two_rho(unit.projected_nano)} of {two_rho(unit.budget_nano)}")
        facts.add_row("local epsilon", f"{round_up(unit.local.epsilon)}. {LOCAL_WARNING}")
        _titled(console, "The plan", facts)
        _titled(console, "What every epsilon here means", _meaning(unit.projected))
        table = _table(
            "rounds", "noise multiplier", "sensitivity", "honest shares", "roster", "each costs", header=True
        )
        for terms in unit.terms:
            which = f"{terms.first}" if terms.first == terms.last else f"{terms.first} to {terms.last}"
            intent = terms.intent
            table.add_row(
                which,
                f"{intent.sum_var_int**0.5 / intent.clip_int:.3f}",
                f"{intent.clip_int:,}",
                f"{intent.m_honest:,}",
                f"{intent.n1:,}",
                two_rho(intent.charge_nano),
            )
        _titled(console, "Terms charged so far", table)


def shown_rounds(rounds: tuple[RoundCost, ...]) -> list[RoundCost]:
    """Choose the rounds of a long run that a table shows: the first, the last, and some between."""
    if len(rounds) <= _MOST_ROWS:
        return list(rounds)
    stride = -(-len(rounds) // _MOST_ROWS)
    kept = sorted({*range(0, len(rounds), stride), len(rounds) - 1})
    return [rounds[place] for place in kept]


def _files(audit: LedgerAudit) -> Table:
    table = _table("file", "ledgers", "entries", header=True)
    counts = counts_by_book(audit.records)
    for book, (ledgers, entries) in list(counts.items())[:_MOST_FILES]:
        table.add_row(_plain(book), f"{ledgers:,}", f"{entries:,}")
    if len(counts) > _MOST_FILES:
        more = list(counts.values())[_MOST_FILES:]
        table.add_row(f"{len(more):,} more", f"{sum(pair[0] for pair in more):,}", f"{sum(pair[1] for pair in more):,}")
    return table


def _entries(record: LedgerRecord) -> Table:
    table = _table("run", "round", "outcome", "noise multiplier", "charge (2 rho)", header=True)
    table.columns[2].justify = "left"
    for charged in record.rounds.values():
        intent = charged.intent
        noise = f"{intent.sum_var_int**0.5 / intent.clip_int:.3f}"
        table.add_row(_plain(intent.run), str(intent.round), charged.status, noise, two_rho(intent.charge_nano))
    table.add_row("", "", "", "spent", two_rho(record.state.spent_nano))
    table.add_row("", "", "", "left", two_rho(record.state.left_nano))
    return table


def _meaning(guarantee: Guarantee) -> Table:
    table = _table("", "")
    table.add_row("unit", guarantee.unit)
    table.add_row("delta", f"{guarantee.delta:g}")
    table.add_row("adjacency", guarantee.adjacency)
    table.add_row("accountant", guarantee.accountant)
    table.add_row("amplification", guarantee.amplification)
    table.add_row("assuming", ";\n".join(guarantee.assumptions) or "nothing besides each device's own noise")
    return table


def _spread(unit: UnitBudget) -> Table:
    table = _table("", "rounds", "spent (2 rho)", "of its budget", "epsilon", header=True)

    for label, spending in spenders(unit):
        share = share_of_budget(spending)
        cells = f"{spending.rounds:,}", two_rho(spending.spent_nano), share, round_up(spending.epsilon)
        table.add_row(_plain(label), *cells)
    if unit.rounds_left is not None:
        table.add_row(f"left to {_plain(unit.busiest.name)}, at the last price", f"{unit.rounds_left:,}", "", "", "")
    return table


def _rounds(unit: UnitBudget) -> Table:
    several = unit.devices > 0 and unit.server is not None
    table = _table("round", "outcome", *(["devices"] if several else []), "noise multiplier", "epsilon so far",
                   header=True)  # fmt: skip
    table.columns[1].justify = "left"
    for cost in shown_rounds(unit.rounds):
        intent = cost.charged.intent
        noise = f"{intent.sum_var_int**0.5 / intent.clip_int:.3f}"
        devices = [f"{cost.devices:,}"] if several else []
        table.add_row(str(intent.round), cost.charged.status, *devices, noise, round_up(cost.epsilon))
    return table


def _titled(console: Console, title: str, table: Table) -> None:
    _say(console, f"\n{title}", style="bold")
    console.print(table, highlight=False)


def _say(console: Console, text: str, *, style: str = "") -> None:
    console.print(text, style=style, highlight=False, markup=False)


def _plain(text: str) -> str:
    """Keep text from a ledger from being read as markup."""
    from rich.markup import escape

    return escape(text)


def _table(*columns: str, header: bool = False) -> Table:
    table = Table(*columns, box=None, pad_edge=False, show_header=header)
    if header:
        for column in table.columns[1:]:
            column.justify = "right"
    return table
