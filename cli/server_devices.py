"""`palate server`, who belongs to a fleet: making one, enrolling devices, removing them, listing them."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from palate.cli.fields import reads
from palate.cli.options import folder_option, read_given
from palate.cli.terminal import Answer, answering, note
from palate.data.options import ReadOptions
from palate.errors import ConfigError
from palate.server.fleet.folder import FleetFolder

HERE = Path("fleet")
FolderOption = Annotated[Path, folder_option("Folder of the fleet.", show_default=True)]


@reads("item_column", "title_column", "columns", "strict")
def init(
    *,
    name: Annotated[str, typer.Option(help="Name of the fleet, e.g. --name books.")],
    address: Annotated[str, typer.Option(help="host:port that devices connect to, e.g. fleet.example:9092.")],
    catalogue: Annotated[
        Path, typer.Option(help="File of the items: key, and where known title, genres, year and description.")
    ],
    folder: FolderOption = HERE,
    devices: Annotated[int, typer.Option(help="Devices that the run is planned for.")] = 20,
    smallest: Annotated[
        int | None, typer.Option(help="Fewest devices in a round.", show_default="half of those planned for")
    ] = None,
    epsilon: Annotated[float, typer.Option(help="Privacy budget of the run, per user.")] = 8.0,
    delta: Annotated[float, typer.Option(help="Failure probability of the guarantee.")] = 1e-5,
    rounds: Annotated[int | None, typer.Option(help="Training rounds.", show_default="from budget and devices")] = None,
    authority: Annotated[
        Path | None,
        typer.Option(help="Public key of a separate enrolment authority, from palate authority init.", metavar="FILE"),
    ] = None,
    helper: Annotated[
        Path | None,
        typer.Option(
            help="Card of the helper, from palate helper init: rounds go through two aggregators.", metavar="FILE"
        ),
    ] = None,
    read: ReadOptions,
) -> None:
    """Make a fleet: keys, certificates, catalogue and fleet.toml, in a new folder."""
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
        "cohort": {"devices": devices},
    }
    if smallest is not None:
        given["cohort"]["smallest"] = smallest
    if rounds is not None:
        given["schedule"] = {"rounds": rounds}
    if authority is not None:
        given["cohort"]["authority_is_separate"] = True
    fleet = FleetFolder(folder)
    card = None if helper is None else read_given(helper)
    items, notes = make_fleet(fleet, catalogue, given, authority=authority, helper=card, read=read)
    for words in notes:
        note(f"note: {words}")
    note(f"{fleet.root}: fleet {name}, {items:,} items, planned for {devices} devices")
    if card is not None:
        from palate.privacy.enrolment import spaced
        from palate.server.helper.cards import HelperCard, LeaderCard

        own = LeaderCard.open(fleet.leader_card.read_bytes())
        note(f"helper's card  {spaced(HelperCard.open(card).fingerprint)}\nleader's card  {spaced(own.fingerprint)}")
        note("compare both with the helper's operator, by another way than the cards came")
        note(f"give {fleet.leader_card} to the helper's operator: palate helper trust leader.card")
        if authority is None:
            note("server and helper admit devices together: palate authority certify, then palate helper admit")
        else:
            note("the authority admits devices: palate server waiting, palate authority certify --helper")
    elif authority is None:
        note(f"the enrolment authority's key is {fleet.authority_key}: who holds it can invent devices, keep it safe")
    note(
        f"settings are in {fleet.config}; next: palate authority invite --count {devices} -o links.txt, "
        "and palate server start"
    )


@answering
def enrol(
    request: Annotated[Path, typer.Argument(help="What palate client enrol has written.", metavar="REQUEST")],
    *,
    welcome: Annotated[Path, typer.Option(help="Where to write the welcome.", metavar="FILE")],
    folder: FolderOption = HERE,
    authority_key: Annotated[
        Path | None, typer.Option(help="The authority's key, where it is not in the folder.", metavar="FILE")
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="What a separate authority has signed.", metavar="FILE")
    ] = None,
    readmit: Annotated[bool, typer.Option("--readmit", help="Take in a device that was removed.")] = False,
) -> Answer:
    """Enrol a device and write its welcome; a device that is enrolled gets the same welcome again.

    Works while the server runs.
    """
    from palate.privacy import files
    from palate.privacy.enrolment import EnrolmentRequest, spaced
    from palate.server.fleet.setup import welcome as make_welcome

    fleet = FleetFolder(folder)
    fleet.require()
    made = make_welcome(
        fleet,
        EnrolmentRequest.open(read_given(request)),
        authority_key=authority_key,
        certificate=None if certificate is None else read_given(certificate),
        readmit=readmit,
    )
    files.replace(welcome, made.archive)
    values = {
        "device": made.device,
        "request_fingerprint": made.request_fingerprint,
        "welcome_fingerprint": made.welcome_fingerprint,
        "again": made.again,
    }
    known = "was enrolled before" if made.again else "is enrolled"
    compare = f"  request {spaced(made.request_fingerprint)}", f"  welcome {spaced(made.welcome_fingerprint)}"
    return Answer(values, (), [f"device {made.device} {known}; compare with its owner:", *compare])


@answering
def waiting(
    *,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write their requests, for whoever admits.", metavar="FILE")
    ] = None,
    folder: FolderOption = HERE,
) -> Answer:
    """List devices that came with an invitation and wait until whoever admits has signed for them."""
    from palate.privacy import files
    from palate.privacy.enrolment import spaced
    from palate.server.fleet import inviting
    from palate.server.fleet.config import load_config

    fleet = FleetFolder(folder)
    fleet.require()
    found = inviting.waiting(fleet)
    notes = []
    if output is not None:
        files.replace(output, inviting.requests_of(fleet, found))
        both = load_config(fleet.config).helper.there and not fleet.authority_public_key.exists()
        then = f"palate helper admit CERTIFICATES {output} -o FILE" if both else ""
        steps = [
            f"palate authority certify {output} -o {'CERTIFICATES' if both else 'FILE'}",
            then,
            "palate server admit FILE",
        ]
        notes.append(f"wrote {output}; next: {', then '.join(filter(None, steps))}")
    values = [
        {"device": each.device, "since": each.since, "request_fingerprint": each.request.fingerprint} for each in found
    ]
    lines = [f"{len(found)} devices wait"]
    lines += [f"{each.device}  {_day(each.since)}  request {spaced(each.request.fingerprint)}" for each in found]
    return Answer(values, lines, notes)


@answering
def admit(
    certificates: Annotated[
        Path, typer.Argument(help="What palate authority certify or palate helper admit wrote.", metavar="CERTIFICATES")
    ],
    *,
    folder: FolderOption = HERE,
) -> Answer:
    """Take in the devices that wait and that are certified now; each gets its welcome when it asks again."""
    from palate.server.fleet import inviting

    fleet = FleetFolder(folder)
    fleet.require()
    taken = inviting.admit(fleet, read_given(certificates))
    left = len(inviting.waiting(fleet))
    lines = [*(f"device {each} is enrolled" for each in taken), f"{left} devices wait"]
    return Answer({"enrolled": taken, "waiting": left}, lines)


@answering
def remove(
    devices: Annotated[
        list[str], typer.Argument(help="Names of devices, as palate server enrol printed them.", metavar="DEVICE...")
    ],
    *,
    folder: FolderOption = HERE,
) -> Answer:
    """Take devices out of the fleet: their keys are refused from now on, and no round asks them.

    Works while the server runs; a round that is open goes on without them. What they gave to earlier rounds stays in
    the table, and what they were charged stays charged.
    """
    from dataclasses import asdict

    from palate.server.fleet.removal import remove as take_out

    done = take_out(FleetFolder(folder), devices)
    notes = [f"device {device} is removed" for device in done.removed]
    notes += [f"device {device} was removed before" for device in done.before]
    notes.append(f"{done.left} devices are enrolled")
    if done.lacking:
        more = f"the next round waits for {done.lacking} more"
        notes.append(f"{more}: enrol devices, or see palate server start --devices")
    return Answer(asdict(done), (), notes)


@answering
def devices(*, folder: FolderOption = HERE) -> Answer:
    """List who is enrolled, and who was removed; names are those that palate server enrol printed."""
    from palate.server.fleet.summary import devices_of
    from palate.simulation.report.tables import text_grid

    found = devices_of(FleetFolder(folder))
    columns = ("Device", "Enrolled", "Removed", "Lost rounds")
    rows = (
        (each["device"], _day(each["enrolled_at"]), _day(each["removed_at"]), ", ".join(map(str, each["named_in"])))
        for each in found
    )
    return Answer(found, [text_grid(f"{len(found)} devices", columns, rows)])


def _day(moment: float | None) -> str:
    return "" if moment is None else f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d}"
