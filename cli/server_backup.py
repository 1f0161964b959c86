"""`palate server backup` and `restore`: a fleet's folder as it was at one moment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palate.cli.server_devices import HERE, FolderOption
from palate.cli.terminal import Answer, answering
from palate.server.fleet.folder import FleetFolder

TargetArgument = Annotated[
    Path, typer.Argument(help="File to write, or a folder in which it is named after fleet and time.", metavar="TARGET")
]
SourceArgument = Annotated[Path, typer.Argument(help="What the backup command wrote.", metavar="BACKUP")]


@answering
def backup(target: TargetArgument, *, folder: FolderOption = HERE) -> Answer:
    """Write all that belongs together into one file, as it was at one moment. Works while the server runs.

    It holds the fleet's secret keys and the reports of the open round: keep it as safe as the server, and never where
    the helper can read it. palate server start --backup TARGET writes one after every round.
    """
    from palate.server.fleet.backup import back_up

    path, contents = back_up(FleetFolder(folder), target)
    lines = [f"wrote {path}: fleet {contents.fleet}, {len(contents.files)} files, {_size(path)}"]
    notes = ["it holds the fleet's secret keys: keep it as safe as the server, and away from the helper"]
    values = {"file": str(path), "fleet": contents.fleet, "made_at": contents.made_at, "files": len(contents.files)}
    return Answer(values, lines, (), notes)


@answering
def restore(
    source: SourceArgument,
    *,
    folder: FolderOption = HERE,
) -> Answer:
    """Restore a backup into a folder that is empty, or not there yet; it is checked first.

    A fleet has one server: the one that the backup is of must never run again beside this one. What the fleet did after
    the backup is not in it. palate server start compares with the helper, and refuses if a round is missing here;
    devices answer no round twice. Without a helper, go on with palate server new-run --unfinished in that case.
    """
    from palate.privacy.accounting.guarantee import round_up
    from palate.server.fleet.backup import restore as restored

    found = restored(source, FleetFolder(folder))
    status = found.status
    opened = status["open_round"]
    lines = [
        f"{folder}: fleet {status['fleet']}, run {status['run']}, as it was on {found.contents.date}",
        f"{status['rounds_applied']} of {status['rounds_planned']} rounds applied, "
        f"{status['rounds_abandoned']} given up, "
        + ("none" if opened is None else f"round {opened['round']}")
        + " open",
        f"epsilon {round_up(status['epsilon_spent'])} of {status['epsilon_budget']:g} spent in this run at delta "
        f"{status['delta']:g} per user; keys, ledger, rounds, table and public log belong together",
    ]
    notes = [
        "the server that this is a backup of must never run again beside this one",
        "what the fleet did since is not in it; next: palate server start",
    ]
    values = {"folder": str(folder), "made_at": found.contents.made_at, "status": status}
    return Answer(values, lines, (), notes)


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:,.1f} MB"
