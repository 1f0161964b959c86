"""`palate audit`: is the record of a run intact, what was promised and spent, and what will the rest cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from palate.audit.ledger_audit import LedgerAudit, audit_ledgers, read_anchor_files
from palate.audit.opening import open_source
from palate.cli.attack import attack

audit_app = typer.Typer(
    help="Check what a run promised, what it spent, and whether its record is intact.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

audit_app.command("attack")(attack)

_MOST_NAMED = 8
_LEDGER_EXAMPLES = """\b
Examples:
  palate audit ledger runs/demo --key 3b6a...29 --anchors kept-elsewhere.jsonl
  palate audit ledger runs/demo --device device-000017
  palate audit ledger phone.ledger --key phone.key --json"""
_BUDGET_EXAMPLES = """\b
Examples:
  palate audit budget runs/demo
  palate audit budget runs/demo --html audit.html"""

Target = Annotated[
    str,
    typer.Argument(help="Run folder, its name under runs/, or a file of ledgers.", metavar="RUN|FILE"),
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--key",
        help="Public key, 64 hexadecimal digits or a file with them.",
        metavar="HEX|FILE",
        show_default="public.key beside the ledger, which proves less",
    ),
]
AnchorsOption = Annotated[
    Path | None,
    typer.Option("--anchors", help="Heads that you kept from an earlier audit, e.g. --anchors heads.jsonl."),
]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", help="Write a page for people as well, e.g. --html audit.html.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]


@audit_app.callback()
def audit() -> None:
    """Check what a run promised, what it spent, and whether its record is intact."""


@audit_app.command("ledger", epilog=_LEDGER_EXAMPLES)
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
    as_json: JsonOption = False,
) -> None:
    """Verify every ledger of a run: chains, signatures, budgets, anchors, and that server and devices agree.

    Nothing is believed but the public key. Exit code 0 means intact; 1, 3, 5, 6 and 11 name what is wrong.
    """
    err = Console(stderr=True)
    found = _audited(target, key, anchors, device, err)
    if as_json:
        from palate.audit.as_json import ledger_dict

        _print_json(ledger_dict(found))
    else:
        from palate.audit.shown import show_ledgers

        show_ledgers(found, Console())
    if html is not None:
        from palate.audit.page import write_page

        write_page(found, None, html)
        _told(err, f"written: {html}")
    if save_anchors is not None and found.intact:
        from palate.privacy import files

        files.replace(save_anchors, found.anchor_lines, mode=files.SHARED)
        _told(err, f"heads written: {save_anchors}")
    found.raise_gravest()


@audit_app.command("budget", epilog=_BUDGET_EXAMPLES)
def budget(
    target: Target,
    *,
    key: KeyOption = None,
    anchors: AnchorsOption = None,
    check: Annotated[bool, typer.Option(help="Ask independent accountants too; takes seconds.")] = True,
    html: HtmlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compute from the ledgers alone what was promised, spent and left, and compare it with the run's claim.

    Rounds without an outcome count as spent. Exit code 3: more was spent than allowed; 4: accountants disagree, or
    the run's claim does not follow from its record.
    """
    from palate.audit.budget_audit import audit_budget

    err = Console(stderr=True)
    record = _audited(target, key, anchors, None, err)
    if html is not None and not record.intact:
        from palate.audit.page import write_page

        write_page(record, None, html)
        _told(err, f"written: {html}")
    found = audit_budget(record, check=check, progress=lambda text: _told(err, text))
    if as_json:
        from palate.audit.as_json import budget_dict

        _print_json(budget_dict(found))
    else:
        from palate.audit.shown import show_budget

        show_budget(found, Console())
    if html is not None:
        from palate.audit.page import write_page

        write_page(record, found, html)
        _told(err, f"written: {html}")
    found.raise_first()


@audit_app.command("plan")
def plan(
    target: Annotated[str, typer.Argument(help="Run folder, or its name under runs/.", metavar="RUN")],
    *,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compute what a run under way will have cost at its end, from the terms that its server really charged.

    Before there is a run, palate privacy plan answers. Exit code 3: devices will refuse its last rounds.
    """
    from palate.audit.plan_audit import audit_plan

    record = _audited(target, key, None, None, Console(stderr=True))
    units = audit_plan(record)
    if as_json:
        from palate.audit.as_json import plan_dict

        _print_json(plan_dict(record.source.name, units))
    else:
        from palate.audit.shown import show_plan

        show_plan(units, Console())
    for unit in units:
        unit.raise_first()


def _audited(target: str, key: str | None, anchors: Path | None, device: str | None, err: Console) -> LedgerAudit:
    source = open_source(target, key)
    if len(source.books) > _MOST_NAMED:
        _told(err, f"verifying {len(source.books)} files")
    return audit_ledgers(
        source,
        read_anchor_files(source, anchors),
        device=device,
        progress=lambda name: _told(err, f"verifying {name}") if len(source.books) <= _MOST_NAMED else None,
    )


def _print_json(value: dict[str, Any]) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2))


def _told(err: Console, text: str) -> None:
    err.print(text, style="dim", markup=False, highlight=False, soft_wrap=True)
