"""`palate server`: make a fleet, welcome devices, run its rounds, and see how it goes."""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from palate.cli import members as members_cli
from palate.cli.members import HERE, FolderOption, JsonOption, print_json, talk_to_operator
from palate.errors import ConfigError, PalateError, RunError
from palate.server.fleet.config import load_config
from palate.server.fleet.folder import FleetFolder
from palate.server.fleet.state import FleetState, Stop

server_app = typer.Typer(
    help="Run a fleet of real devices.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

_EXAMPLES = """\b
Examples:
  palate server init --name books --address fleet.example:9092 --catalogue items.csv
  palate server enrol request.json --welcome welcome.zip
  palate server start
  palate server status --json"""

_QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


class BudgetSpent(PalateError):
    """A run that ends before its last round, because failed rounds have spent the budget."""

    exit_code = 3


@server_app.callback(epilog=_EXAMPLES)
def server() -> None:
    """Run a fleet of real devices.

    The server never sees a device's data or its update, only sums of the updates of many, with noise in them.
    """


@server_app.command("init")
def init(
    *,
    name: Annotated[str, typer.Option(help="Name of the fleet, e.g. --name books.")],
    address: Annotated[str, typer.Option(help="host:port that devices connect to, e.g. fleet.example:9092.")],
    catalogue: Annotated[
        Path, typer.Option(help="CSV or Parquet file of the items: columns item, title, genres, year, text.")
    ],
    directory: FolderOption = HERE,
    devices: Annotated[int, typer.Option(help="Devices that the run is planned for.")] = 20,
    smallest: Annotated[
        int | None, typer.Option(help="Fewest devices in a round.", show_default="10, or all if fewer are planned")
    ] = None,
    epsilon: Annotated[float, typer.Option(help="Privacy budget of the run, per user.")] = 8.0,
    delta: Annotated[float, typer.Option(help="Failure probability of the guarantee.")] = 1e-5,
    rounds: Annotated[int | None, typer.Option(help="Training rounds.", show_default="from budget and devices")] = None,
    authority: Annotated[
        Path | None,
        typer.Option(
            help="Public key of a separate enrolment authority, from palate server authority.", metavar="FILE"
        ),
    ] = None,
) -> None:
    """Make a fleet: keys, certificates, catalogue and fleet.toml, in a new folder.

    Example: palate server init --name books --address fleet.example:9092 --catalogue items.csv
    """
    from palate.server.fleet.setup import make_fleet

    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"--address {address} is not host:port", hint="for example --address fleet.example:9092")
    given: dict[str, Any] = {
        "name": name,
        "run": f"{name}-{secrets.token_hex(4)}",
        "epsilon": epsilon,
        "delta": delta,
        "listen": {"address": address, "port": int(port)},
        "cohort": {"devices": devices, "smallest": min(10, devices) if smallest is None else smallest},
    }
    if rounds is not None:
        given["schedule"] = {"rounds": rounds}
    if authority is not None:
        given["cohort"]["authority_is_separate"] = True
    folder = FleetFolder(directory)
    items = make_fleet(folder, catalogue, given, authority=authority)
    talk = talk_to_operator()
    talk(f"{folder.root}: fleet {name}, {items:,} items, planned for {devices} devices")
    if authority is None:
        talk(f"the enrolment authority's key is {folder.authority_key}: who holds it can invent devices, keep it safe")
    talk(f"settings are in {folder.config}; enrol devices: palate server enrol REQUEST --welcome FILE")


@server_app.command("authority")
def authority(
    key: Annotated[Path, typer.Argument(help="File for the key; FILE.pub is what the fleet needs.", metavar="FILE")],
) -> None:
    """Make the key of a separate enrolment authority, on a machine that the server's operators do not control.

    Example: palate server authority authority.key
    """
    from palate.server.fleet.setup import make_authority_key

    make_authority_key(key)
    talk_to_operator()(
        f"{key} is the authority's key, it signs with palate server certify; give the operators {key.stem}.pub"
    )


@server_app.command("certify")
def certify(
    request: Annotated[Path, typer.Argument(help="What palate client enrol has written.", metavar="REQUEST")],
    *,
    fleet: Annotated[str, typer.Option(help="Name of the fleet.")],
    authority_key: Annotated[Path, typer.Option(help="The authority's key.", metavar="FILE")],
    certificate: Annotated[Path, typer.Option(help="Where to write the certificate.", metavar="FILE")],
) -> None:
    """Certify, as the authority, that a device belongs to a fleet.

    Example: palate server certify request.json --fleet books --authority-key authority.key --certificate device.crt
    """
    from palate.privacy import files
    from palate.privacy.enrolment import EnrolmentRequest, device_name, in_fours
    from palate.server.fleet.folder import read_key
    from palate.server.fleet.setup import certify as sign

    asked = EnrolmentRequest.open(_read(request))
    files.replace(certificate, sign(asked, fleet, read_key(authority_key)).to_bytes())
    talk = talk_to_operator()
    talk(f"device {device_name(asked.device)}; compare with its owner:\n  request {in_fours(asked.fingerprint)}")
    talk(f"the operators enrol it: palate server enrol {request} --certificate {certificate} --welcome FILE")


@server_app.command("enrol")
def enrol(
    request: Annotated[Path, typer.Argument(help="What palate client enrol has written.", metavar="REQUEST")],
    *,
    welcome: Annotated[Path, typer.Option(help="Where to write the welcome.", metavar="FILE")],
    directory: FolderOption = HERE,
    authority_key: Annotated[
        Path | None, typer.Option(help="The authority's key, where it is not in the folder.", metavar="FILE")
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="What a separate authority has signed.", metavar="FILE")
    ] = None,
    readmit: Annotated[bool, typer.Option("--readmit", help="Take in a device that was removed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Enrol a device and write its welcome; a device that is enrolled gets the same welcome again.

    Works while the server runs.

    Example: palate server enrol request.json --welcome welcome.zip
    """
    from palate.privacy import files
    from palate.privacy.enrolment import EnrolmentRequest, in_fours
    from palate.server.fleet.setup import welcome as make_welcome

    folder = FleetFolder(directory)
    folder.require()
    made = make_welcome(
        folder,
        EnrolmentRequest.open(_read(request)),
        authority_key=authority_key,
        certificate=None if certificate is None else _read(certificate),
        readmit=readmit,
    )
    files.replace(welcome, made.archive)
    if as_json:
        print_json(
            {
                "device": made.device,
                "request_fingerprint": made.request_fingerprint,
                "welcome_fingerprint": made.welcome_fingerprint,
                "again": made.again,
            }
        )
        return
    talk = talk_to_operator()
    talk(f"device {made.device} {'was enrolled before' if made.again else 'is enrolled'}; compare with its owner:")
    talk(f"  request {in_fours(made.request_fingerprint)}")
    talk(f"  welcome {in_fours(made.welcome_fingerprint)}")


server_app.command("remove")(members_cli.remove)
server_app.command("devices")(members_cli.devices)


@server_app.command("start")
def start(
    *,
    directory: FolderOption = HERE,
    listen: Annotated[
        str | None, typer.Option(help="host:port to listen on, in place of fleet.toml's.", metavar="HOST:PORT")
    ] = None,
    devices: Annotated[
        int | None, typer.Option(help="Devices that the first round waits for.", show_default="cohort.devices")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Listen, and run rounds until all are done; goes on where a server before it stopped or was killed.

    Example: palate server start --devices 12
    """
    _serve(FleetFolder(directory), listen, devices, as_json=as_json)


@server_app.command("resume")
def resume(
    *,
    directory: FolderOption = HERE,
    listen: Annotated[
        str | None, typer.Option(help="host:port to listen on, in place of fleet.toml's.", metavar="HOST:PORT")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Go on with a run that has begun; refuses where none has.

    A fleet that has stopped by itself, because too many rounds in a row were lost, goes on with this command alone.

    Example: palate server resume
    """
    from palate.server.fleet.summary import rounds_of

    folder = FleetFolder(directory)
    if not rounds_of(folder):
        raise RunError(f"{folder.root}: no round has begun", hint="begin with palate server start")
    _serve(folder, listen, None, as_json=as_json, resuming=True)


@server_app.command("stop")
def stop(
    *,
    directory: FolderOption = HERE,
    now: Annotated[
        bool, typer.Option("--now", help="Do not wait for the open round; it stays open for palate server resume.")
    ] = False,
    wait_seconds: Annotated[
        float, typer.Option(min=0, help="Wait so long for the server to end; 0 does not wait.")
    ] = 0.0,
) -> None:
    """Ask the server to stop after the open round.

    Example: palate server stop --wait-seconds 60
    """
    folder = FleetFolder(directory)
    folder.require()
    if not folder.is_locked():
        raise RunError(f"{folder.root}: no server runs this fleet", hint="palate server status shows how it is")
    state = FleetState(folder.state)
    state.request_stop(Stop.NOW if now else Stop.AFTER_ROUND)
    state.close()
    talk_to_operator()("the server was asked to stop " + ("now" if now else "after the open round"))
    deadline = time.monotonic() + wait_seconds
    while folder.is_locked() and time.monotonic() < deadline:
        time.sleep(0.2)
    if wait_seconds and folder.is_locked():
        raise RunError(
            f"{folder.root}: the server still runs after {wait_seconds:g} seconds", hint="wait on, or use --now"
        )


@server_app.command("status")
def status(*, directory: FolderOption = HERE, as_json: JsonOption = False) -> None:
    """Show how the fleet is: devices, rounds, budget, and the round that is open.

    Example: palate server status --json
    """
    from palate.privacy.accounting.guarantee import round_up
    from palate.server.fleet.summary import status_of

    found = status_of(FleetFolder(directory))
    if as_json:
        print_json(found)
        return
    table = Table(show_header=False, box=None)
    table.add_row("fleet", f"{found['fleet']}, run {found['run']}, {found['address']}")
    table.add_row("server", "runs" if found["running"] else "does not run")
    removed = f"{found['devices_removed']} removed, " if found["devices_removed"] else ""
    table.add_row("devices", f"{found['devices_enrolled']} enrolled, {removed}{found['devices_planned']} planned for")
    table.add_row(
        "rounds",
        f"{found['rounds_applied']} of {found['rounds_planned']} applied, {found['rounds_abandoned']} given up",
    )
    if found["lost_in_a_row"]:
        last = found["lost_in_a_row"][-1]
        named = f" (device {last['device']})" if last["device"] else ""
        table.add_row(
            "halted" if found["halted"] else "lost",
            f"{len(found['lost_in_a_row'])} in a row, the last in {last['reason']}{named}; "
            + ("go on with palate server resume" if found["halted"] else f"stops after {found['halt_after']}"),
        )
    opened = found["open_round"]
    if opened is not None:
        table.add_row(
            "open round", f"{opened['round']} ({opened['purpose']}): {opened['step']}, {opened['answers']} of "
            f"{opened['asked']} answered",
        )  # fmt: skip
    table.add_row(
        "privacy",
        f"epsilon {round_up(found['epsilon_spent'])} of {found['epsilon_budget']:g} spent at delta {found['delta']:g} "
        "per user",
    )
    table.add_row("", load_config(FleetFolder(directory).config).promise.words)
    table.add_row("guarantee", f"{found['guarantee']['against']}: {found['guarantee']['meaning']}")
    Console().print(table)


@server_app.command("rounds")
def rounds(*, directory: FolderOption = HERE, as_json: JsonOption = False) -> None:
    """List the rounds: who was asked, who survived, what it cost in bytes and privacy.

    Example: palate server rounds
    """
    from palate.privacy.accounting.guarantee import round_up
    from palate.server.fleet.summary import rounds_of

    found = rounds_of(FleetFolder(directory))
    if as_json:
        print_json(found)
        return
    if not found:
        talk_to_operator()("no round has begun")
        return
    table = Table(box=None, padding=(0, 1, 0, 0))
    for title in ("round", "purpose", "status", "asked", "roster", "survivors", "KB up", "KB down", "epsilon", "s"):
        table.add_column(title, justify="left" if title in ("purpose", "status") else "right")
    for each in found:
        table.add_row(
            str(each["round"]),
            each["purpose"],
            each["status"],
            str(each["asked"]),
            str(each["roster"]),
            str(each["survivors"]),
            f"{each['bytes_up_per_device'] / 1e3:.0f}",
            f"{each['bytes_down_per_device'] / 1e3:.0f}",
            round_up(each["epsilon_spent"]),
            "" if each["seconds"] is None else f"{each['seconds']:.0f}",
        )
    Console().print(table)
    talk_to_operator()(load_config(FleetFolder(directory).config).promise.words)


def _serve(
    folder: FleetFolder, listen: str | None, devices: int | None, *, as_json: bool, resuming: bool = False
) -> None:
    for variable, value in _QUIET.items():  # before Flower is imported: it reads them once
        os.environ.setdefault(variable, value)
    from palate.server.fleet.exchange import Interrupted
    from palate.server.fleet.operation import HALTED, SPENT
    from palate.server.fleet.progress import RoundLines
    from palate.server.fleet.serving import opened
    from palate.server.fleet.summary import GUARANTEES, status_of
    from palate.server.fleet.watching import SystemClock

    folder.require()
    config = load_config(folder.config)
    bind, port = _listen_on(listen)
    if devices is not None and not config.cohort.smallest <= devices <= config.cohort.largest:
        raise ConfigError(
            f"--devices {devices} is not between cohort.smallest {config.cohort.smallest} and cohort.largest "
            f"{config.cohort.largest}",
            hint="change it, or fleet.toml before the run begins",
        )
    lines = RoundLines(Console(stderr=True), rounds=1 + config.schedule.rounds, delta=config.delta, clock=SystemClock())

    with _signals() as received:
        why = None
        with opened(
            folder,
            bind=bind,
            port=port,
            wait_for=devices,
            resuming=resuming,
            watchers=[lines],
            interrupted=lambda: bool(received),
        ) as fleet:
            talk = talk_to_operator()
            talk(f"fleet {config.name} on {fleet.address}; {len(fleet.books.state.devices())} devices are enrolled")
            talk(f"the guarantee is {fleet.guarantee}: it {GUARANTEES[fleet.guarantee]}")
            talk(config.promise.words)
            if fleet.metrics_port is not None:
                talk(f"metrics: http://127.0.0.1:{fleet.metrics_port}/metrics")
            with lines:
                try:
                    why = fleet.operation.run()
                except Interrupted:
                    talk("stopped; an open round stays open, and palate server resume goes on with it")
            losses = fleet.operation.losses
        if signal.SIGINT in received:
            raise KeyboardInterrupt
    found = status_of(folder)
    if as_json:
        print_json({**found, "ended": why})
    if why == HALTED:
        raise losses.error()
    if why == SPENT:
        raise BudgetSpent(
            f"failed rounds have spent the budget: {found['rounds_applied']} of {found['rounds_planned']} rounds are "
            "in the table",
            hint="a new run, in a folder of its own, with more privacy.spare_rounds; devices need budget for it",
        )


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Take SIGTERM and SIGINT as the wish to stop at once; a second one ends the process as it always does."""
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        received.append(number)
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _listen_on(listen: str | None) -> tuple[str | None, int | None]:
    if listen is None:
        return None, None
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"--listen {listen} is not host:port", hint="for example --listen 0.0.0.0:9092")
    return host.strip("[]"), int(port)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", hint="check the path") from error
