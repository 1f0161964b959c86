"""`palate audit`: is the record of a run intact, what was promised and spent, and what will the rest cost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from palate.audit import findings
from palate.audit.as_json import budget_dict, ledger_dict, plan_dict
from palate.audit.budget_audit import BudgetAudit, audit_budget
from palate.audit.ledger_audit import LedgerAudit, audit_ledgers
from palate.audit.opening import open_source
from palate.audit.plan_audit import audit_plan
from palate.cli.attack import HtmlOption, KeyOption, attack
from palate.cli.terminal import Answer, Line, answering, note
from palate.privacy import files

audit_app = typer.Typer(
    help="Check what a run promised, what it spent, and whether its record is intact.", no_args_is_help=True
)

audit_app.command("attack")(attack)

_MOST_NAMED = 8
Target = Annotated[
    str,
    typer.Argument(help="Run folder, its name under runs/, or a file of ledgers.", metavar="RUN|FILE"),
]
AnchorsOption = Annotated[
    Path | None,
    typer.Option("--anchors", help="Heads that you kept from an earlier audit, e.g. --anchors heads.jsonl."),
]


@audit_app.command("ledger")
@answering
def ledger(
    target: Target,
    *,
    key: KeyOption = None,
    device: Annotated[
        str | None, typer.Option("--device", help="Verify one ledger alone and list its rounds.", metavar="NAME")
    ] = None,
    anchors: AnchorsOption = None,
    save_anchors: Annotated[
        Path | None, typer.Option("--save-anchors", help="Write the heads of an intact record, to keep elsewhere.")
    ] = None,
    html: HtmlOption = None,
) -> Answer:
    """Verify every ledger of a run: chains, signatures, budgets, anchors, and that server and devices agree.

    Only the public key is trusted. Exit code 0 means intact; 1, 3, 5, 6 and 11 say what is wrong.

    For example:
      palate audit ledger runs/demo --key 3b6a...29 --anchors kept-elsewhere.jsonl
      palate audit ledger runs/demo --device device-000017
      palate audit ledger phone.ledger --key phone.key --json
    """
    found = _audited(target, key, anchors, device)
    _write_page(found, None, html)
    if save_anchors is not None and found.intact:
        files.replace(save_anchors, found.anchor_lines, mode=files.SHARED)
        note(f"heads written: {save_anchors}", style="dim")
    lines: list[Line] = [(findings.headline(found), "bold" if found.intact else "bold red")]
    lines.append(findings.check_grid(found))
    if found.device is None:
        lines.append(findings.file_grid(found))
    lines += [findings.ledger_grid(record) for record in found.records if record.name == found.device]
    lines += ["", (f"Verified in {found.seconds:.1f} s.", "dim")]
    return Answer(ledger_dict(found), lines, check=found.raise_gravest)


@audit_app.command("budget")
@answering
def budget(
    target: Target,
    *,
    key: KeyOption = None,
    anchors: AnchorsOption = None,
    check: Annotated[bool, typer.Option(help="Also ask independent accountants; takes seconds.")] = True,
    html: HtmlOption = None,
) -> Answer:
    """Compute from the ledgers alone what was promised, spent and left, and compare it with the run's claim.

    Rounds without an outcome count as spent. Exit code 3: more was spent than allowed; 4: accountants disagree, or
    the run's claim does not follow from its record.

    For example:
      palate audit budget runs/demo
      palate audit budget runs/demo --html audit.html
    """
    record = _audited(target, key, anchors, None)
    if not record.intact:
        _write_page(record, None, html)
    found = audit_budget(record, check=check, progress=lambda text: note(text, style="dim"))
    _write_page(record, found, html)
    return Answer(budget_dict(found), _budget_lines(found), check=found.raise_first)


@audit_app.command("plan")
@answering
def plan(
    target: Annotated[str, typer.Argument(help="Run folder, or its name under runs/.", metavar="RUN")],
    *,
    key: KeyOption = None,
) -> Answer:
    """Project what an unfinished run will cost at its end, from the terms that its server charged.

    Before a run exists, use palate plan. Exit code 3: devices will refuse the last rounds.
    """
    record = _audited(target, key, None, None)
    units = audit_plan(record)
    lines: list[Line] = []
    for unit in units:
        lines += [(findings.projected(unit), "bold"), *findings.plan_grids(unit)]

    def check() -> None:
        for unit in units:
            unit.raise_first()

    return Answer(plan_dict(record.source.name, units), lines, check=check)


def _audited(target: str, key: str | None, anchors: Path | None, device: str | None) -> LedgerAudit:
    source = open_source(target, key)
    few = len(source.books) <= _MOST_NAMED
    if not few:
        note(f"verifying {len(source.books)} files", style="dim")
    return audit_ledgers(
        source,
        anchors,
        device=device,
        progress=lambda name: note(f"verifying {name}", style="dim") if few else None,
    )


def _budget_lines(found: BudgetAudit) -> Iterator[Line]:
    if found.disclaimer:
        yield f"No privacy. {found.disclaimer}", "bold red"
    for unit in found.units:
        yield findings.spent(unit), "bold"
        yield findings.claimed(unit)
        yield findings.spending_grid(unit)
        if unit.local is not None and unit.needs_aggregation:
            yield f"\n{findings.alone(unit.local)}", "yellow"
        if unit.rounds:
            yield findings.round_grid(unit)
        if unit.guarantee is not None:
            yield findings.meaning_grid(unit.guarantee)
            if unit.guarantee.cross_checks:
                yield findings.accountant_grid(unit.guarantee)
    if not found.record.source.finished:
        yield "\nThe run has not finished: figures are up to now."
    if found.record.open_rounds:
        yield f"\n{findings.counted(found.record.open_rounds, 'round')} without an outcome count as spent."


def _write_page(record: LedgerAudit, budget: BudgetAudit | None, path: Path | None) -> None:
    if path is None:
        return
    from palate.audit.page import audit_page
    from palate.simulation.report.rendering import save

    save(audit_page(record, budget), path)
    note(f"written: {path}", style="dim")
