"""`palate server`, who belongs to a fleet: taking devices out of it, and listing them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from palate.server.fleet.folder import FleetFolder

FolderOption = Annotated[Path, typer.Option("--dir", help="Folder of the fleet.", metavar="DIR")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
HERE = Path("fleet")


def remove(
    devices: Annotated[
        list[str], typer.Argument(help="Names of devices, as palate server enrol printed them.", metavar="DEVICE...")
    ],
    *,
    directory: FolderOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Take devices out of the fleet: their keys are refused from now on, and no round asks them.

    Works while the server runs; a round that is open goes on without them. What they gave to earlier rounds stays in
    the table, and what they were charged stays charged.

    Example: palate server remove 0f3c9a51d27be684
    """
    from dataclasses import asdict

    from palate.server.fleet.removal import remove as take_out

    done = take_out(FleetFolder(directory), devices)
    if as_json:
        print_json(asdict(done))
        return
    talk = talk_to_operator()
    for device in done.removed:
        talk(f"device {device} is removed")
    for device in done.before:
        talk(f"device {device} was removed before")
    talk(f"{done.left} devices are enrolled")
    if done.lacking:
        talk(f"the next round waits for {done.lacking} more: enrol devices, or see palate server start --devices")


def devices(*, directory: FolderOption = HERE, as_json: JsonOption = False) -> None:
    """List who is enrolled, and who was removed; names are those that palate server enrol printed.

    Example: palate server devices
    """
    from palate.server.fleet.summary import devices_of

    found = devices_of(FleetFolder(directory))
    if as_json:
        print_json(found)
        return
    table = Table(box=None, padding=(0, 1, 0, 0))
    for title in ("device", "enrolled", "removed", "lost rounds"):
        table.add_column(title, justify="right" if title == "lost rounds" else "left")
    for each in found:
        days = ("" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}" for at in
                (each["enrolled_at"], each["removed_at"]))  # fmt: skip
        table.add_row(each["device"], *days, ", ".join(map(str, each["named_in"])))
    Console().print(table)


def talk_to_operator() -> Callable[[str], None]:
    """Return what says a line to the person at the keyboard, on stderr."""
    console = Console(stderr=True)

    def say(words: str) -> None:
        console.print(words, highlight=False, markup=False, soft_wrap=True)

    return say


def print_json(value: object) -> None:
    """Print a value for programs, on stdout."""
    typer.echo(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2))
