"""`palate server`, the rounds of a fleet: running them, stopping them, and seeing how they go."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate.cli.options import ExplainOption, listen_on
from palate.cli.server_devices import HERE, FolderOption
from palate.cli.signals import stop_signals
from palate.cli.terminal import Answer, answering, note
from palate.errors import ConfigError, PalateError, RunError
from palate.server.fleet.config import load_config
from palate.server.fleet.folder import FleetFolder
from palate.server.fleet.state import FleetState, Stop

if TYPE_CHECKING:
    from palate.simulation.report.tables import Grid

ListenOption = Annotated[
    str | None, typer.Option(help="host:port to listen on, in place of fleet.toml's.", metavar="HOST:PORT")
]

BackupOption = Annotated[
    Path | None, typer.Option("--backup", help="Write a backup there after every round.", metavar="TARGET")
]

UntilDoneOption = Annotated[bool, typer.Option("--until-done", help="End after the last round.")]

TLS_WARNING_DAYS = 30
_QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


class BudgetSpent(PalateError):
    """A run that ends before its last round, because failed rounds have spent the budget."""

    exit_code = 3


@answering
def start(
    *,
    folder: FolderOption = HERE,
    listen: ListenOption = None,
    devices: Annotated[
        int | None, typer.Option(help="Devices that the first round waits for.", show_default="cohort.devices")
    ] = None,
    until_done: UntilDoneOption = False,
    backup: BackupOption = None,
    explain: ExplainOption = False,
) -> Answer:
    """Listen, and run all rounds; goes on where a server before it stopped or was killed.

    After the last round it stays, for devices that come for the table, until palate server stop.
    """
    return _serve(FleetFolder(folder), listen, devices, until_done=until_done, backup=backup, explain=explain)


@answering
def resume(
    *,
    folder: FolderOption = HERE,
    listen: ListenOption = None,
    until_done: UntilDoneOption = False,
    backup: BackupOption = None,
    explain: ExplainOption = False,
) -> Answer:
    """Go on with a run that has begun; refuses where none has.

    A fleet that has stopped by itself, because too many rounds in a row were lost, goes on with this command alone.
    """
    from palate.server.fleet.summary import rounds_of

    fleet = FleetFolder(folder)
    if not rounds_of(fleet):
        raise RunError(f"{fleet.root}: no round has begun", hint="begin with palate server start")
    return _serve(fleet, listen, None, resuming=True, until_done=until_done, backup=backup, explain=explain)


def stop(
    *,
    folder: FolderOption = HERE,
    now: Annotated[
        bool, typer.Option("--now", help="Do not wait for the open round; it stays open for palate server resume.")
    ] = False,
    wait_seconds: Annotated[
        float, typer.Option(min=0, help="Wait so long for the server to end; 0 does not wait.")
    ] = 0.0,
) -> None:
    """Ask the server to stop after the open round."""
    fleet = FleetFolder(folder)
    fleet.require()
    if not fleet.is_locked():
        raise RunError(f"{fleet.root}: no server runs this fleet", hint="palate server status shows how it is")
    state = FleetState(fleet.state)
    state.request_stop(Stop.NOW if now else Stop.AFTER_ROUND)
    state.close()
    note("the server was asked to stop " + ("now" if now else "after the open round"))
    deadline = time.monotonic() + wait_seconds
    while fleet.is_locked() and time.monotonic() < deadline:
        time.sleep(0.2)
    if wait_seconds and fleet.is_locked():
        raise RunError(
            f"{fleet.root}: the server still runs after {wait_seconds:g} seconds", hint="wait on, or use --now"
        )


@answering
def status(
    *,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Say what the figures are about, and what is left if devices collude.",
        ),
    ] = False,
    folder: FolderOption = HERE,
) -> Answer:
    """Show how the fleet is: devices, rounds, budget, and the round that is open."""
    from palate.server.fleet.summary import status_of
    from palate.simulation.report.tables import facts_grid

    found = status_of(FleetFolder(folder))
    removed = f"{found['devices_removed']} removed, " if found["devices_removed"] else ""
    if found["keys_revoked"]:
        away = "" if found["revocation_at_helper"] else ", which the helper learns before its next answer"
        removed += f"{found['keys_revoked']} {'key' if found['keys_revoked'] == 1 else 'keys'} revoked{away}, "
    facts = {
        "fleet": f"{found['fleet']}, run {found['run']}, {found['address']}",
        "server": "runs" if found["running"] else "does not run",
        "devices": f"{found['devices_enrolled']} enrolled, {removed}{found['devices_planned']} planned for",
        "rounds": f"{found['rounds_applied']} of {found['rounds_planned']} applied, "
        f"{found['rounds_abandoned']} given up",
    }
    if found["lost_in_a_row"]:
        last = found["lost_in_a_row"][-1]
        named = f" (device {last['device']})" if last["device"] else ""
        then = "go on with palate server resume" if found["halted"] else f"stops after {found['halt_after']}"
        lost = f"{len(found['lost_in_a_row'])} in a row, the last in {last['reason']}{named}; {then}"
        facts["halted" if found["halted"] else "lost"] = lost
    opened = found["open_round"]
    if opened is not None:
        answered = f"{opened['answers']} of {opened['asked']} answered"
        facts["open round"] = f"{opened['round']} ({opened['purpose']}): {opened['step']}, {answered}"
    facts |= _tls_warning(found["tls_ends"])
    claim = found["guarantee"]
    facts["guarantee"] = claim["meaning"] + (" (semi-honest)" if claim["against"] == "semi-honest" else "")
    facts |= {f"{name}'s words": words for name, words in found["words"].items()}
    if explain:
        facts["promise"] = load_config(FleetFolder(folder).config).promise.words
        facts["colluders"] = found["if_colluding_in_words"] or "more are enrolled than this run's tau bears"
    return Answer(found, [_spent_line(found), facts_grid("", "", facts)])


def _spent_line(found: Mapping[str, Any]) -> str:
    """Say in one line what is spent of a run's budget: epsilon, delta, unit and window."""
    from palate.privacy.accounting.guarantee import round_up

    life = found["epsilon_spent_in_all_runs"]
    more = f"; {round_up(life)} in all runs together" if life > found["epsilon_spent"] else ""
    return (
        f"epsilon {round_up(found['epsilon_spent'])} of {found['epsilon_budget']:g} spent in this run at delta "
        f"{found['delta']:g}, per user and for all its rounds together{more}"
    )


def _tls_warning(ends: str) -> dict[str, str]:
    """Say when the TLS certificate ends, from `TLS_WARNING_DAYS` before on."""
    from datetime import UTC, datetime

    last = datetime.fromisoformat(ends)
    days = (last - datetime.now(UTC)).days
    if days > TLS_WARNING_DAYS:
        return {}
    when = f"ends on {last:%Y-%m-%d}, in {days} days" if days >= 0 else f"ended on {last:%Y-%m-%d}"
    return {"TLS certificate": f"{when}; renew it with palate server renew-tls, the server need not stop"}


@answering
def rounds(
    *,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say why devices dropped out, and what epsilon is about.")
    ] = False,
    folder: FolderOption = HERE,
) -> Answer:
    """List the rounds: who was asked, who survived, what it cost in bytes and privacy."""
    from palate.privacy.accounting.guarantee import round_up
    from palate.server.fleet.summary import rounds_of, status_of

    found = rounds_of(FleetFolder(folder))
    first = [_spent_line(status_of(FleetFolder(folder)))] if found else []
    notes = [] if found else ["no round has begun"]
    runs = {each["run"]: each for each in found}  # the last round of each
    if len(runs) > 1:
        notes += [
            f"run {run} ends with round {last['round']}: epsilon {round_up(last['epsilon_spent'])} in it, "
            f"{round_up(last['epsilon_spent_in_all_runs'])} in all runs up to it"
            for run, last in runs.items()
        ]
    if explain and found:
        notes.append(load_config(FleetFolder(folder).config).promise.words)
        notes += [
            f"round {each['round']}: {count} of {each['asked']} devices: {why}"
            for each in found
            for why, count in each["why_failed"].items()
        ]
    return Answer(found, [*first, *([round_grid(found)] if found else [])], notes)


def round_grid(rounds: Sequence[Mapping[str, Any]]) -> Grid:
    """Lay the rounds of a fleet out as a table, as `palate.server.fleet.summary.rounds_of` lists them."""
    from palate.privacy.accounting.guarantee import round_up
    from palate.simulation.report.tables import text_grid

    columns = ("Round", "Purpose", "Status", "Asked", "Roster", "Survivors", "KB up", "KB down", "Epsilon", "Seconds")
    rows = (
        (
            str(each["round"]),
            each["purpose"],
            each["status"],
            str(each["asked"]),
            str(each["roster"]),
            str(each["survivors"]),
            f"{each['bytes_up_per_device'] / 1e3:.1f}",
            f"{each['bytes_down_per_device'] / 1e3:.1f}",
            round_up(each["epsilon_spent"]),
            "" if each["seconds"] is None else f"{each['seconds']:.0f}",
        )
        for each in rounds
    )
    return text_grid("", columns, rows)


def _serve(
    folder: FleetFolder,
    listen: str | None,
    devices: int | None,
    *,
    until_done: bool,
    backup: Path | None,
    explain: bool,
    resuming: bool = False,
) -> Answer:
    for variable, value in _QUIET.items():  # before Flower is imported: it reads them once
        os.environ.setdefault(variable, value)
    from rich.console import Console

    from palate.server.fleet.backup import BackupWatcher
    from palate.server.fleet.exchange import Interrupted
    from palate.server.fleet.operation import FINISHED, HALTED, SPENT
    from palate.server.fleet.progress import RoundLines
    from palate.server.fleet.serving import opened
    from palate.server.fleet.summary import status_of
    from palate.server.fleet.watching import SystemClock

    folder.require()
    config = load_config(folder.config)
    bind, port = listen_on(listen)
    if devices is not None and not config.cohort.smallest <= devices <= config.cohort.largest:
        raise ConfigError(
            f"--devices {devices} is not between cohort.smallest {config.cohort.smallest} and cohort.largest "
            f"{config.cohort.largest}",
            hint="change it, or fleet.toml before the run begins",
        )
    lines = RoundLines(Console(stderr=True), rounds=1 + config.schedule.rounds, delta=config.delta, clock=SystemClock())

    with stop_signals() as received:
        why = None
        with opened(
            folder,
            bind=bind,
            port=port,
            wait_for=devices,
            resuming=resuming,
            watchers=[lines, *([] if backup is None else [BackupWatcher(folder, backup, note)])],
            interrupted=lambda: bool(received),
        ) as fleet:
            note(f"fleet {config.name} on {fleet.address}; {len(fleet.books.enrolment.nodes())} devices are enrolled")
            note(f"the guarantee {fleet.claim.meaning}")
            note(f"this run plans {config.promise.line}")
            if explain:
                note(config.promise.words)
            for warning in _tls_warning(status_of(folder)["tls_ends"]).values():
                note(f"the TLS certificate {warning}")
            if fleet.metrics_port is not None:
                note(f"metrics: http://127.0.0.1:{fleet.metrics_port}/metrics")
            with lines:
                try:
                    why = fleet.operation.run()
                except Interrupted:
                    note("stopped; an open round stays open, and palate server resume goes on with it")
                if why == FINISHED and not until_done:
                    note("the server stays, and gives the table to devices that come; palate server stop ends it")
                    with suppress(Interrupted):
                        fleet.operation.stay()
            losses = fleet.operation.losses
        if signal.SIGINT in received:
            raise KeyboardInterrupt
    found = status_of(folder)

    def check() -> None:
        if why == HALTED:
            raise losses.error()
        if why == SPENT:
            raise BudgetSpent(
                f"failed rounds have spent the budget: {found['rounds_applied']} of {found['rounds_planned']} rounds "
                "are in the table",
                hint="begin the next run from this table: palate server new-run --unfinished",
            )

    return Answer({**found, "ended": why}, (), check=check)
