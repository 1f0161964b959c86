"""`palate authority`: who admits devices to a fleet. Each command with its example."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from palate.cli.options import read_given
from palate.cli.server_devices import HERE, FolderOption
from palate.cli.terminal import Answer, answering
from palate.errors import ConfigError

if TYPE_CHECKING:
    from palate.privacy.enrolment import EnrolmentRequest

OutputOption = Annotated[Path, typer.Option("-o", "--output", help="Where to write them.", metavar="FILE")]

authority_app = typer.Typer(
    help="Admit devices to a fleet, and revoke them: keys, certificates, invitations.",
    no_args_is_help=True,
)

_EXAMPLES = """\b
Examples:
  palate authority invite --count 20 -o links.txt
  palate authority init authority.key
  palate authority certify requests --fleet books --key authority.key -o certificates"""


@authority_app.callback(epilog=_EXAMPLES)
def authority() -> None:
    """Admit devices to a fleet.

    Whoever admits could invent devices. So let others than the server's operators hold the key, and make sure that a
    person stands behind every device, once.
    """


@answering
def init(
    key: Annotated[Path, typer.Argument(help="File for the key; FILE.pub is what the fleet needs.", metavar="FILE")],
) -> Answer:
    """Make the key of a separate authority, on a machine that the server's operators do not control."""
    from palate.privacy.spoken import spoken
    from palate.server.fleet.certifying import make_authority_key

    public = make_authority_key(key).public_bytes_raw()
    words = spoken(public)
    line = f"{key} is the authority's key, it signs with palate authority certify; give the operators {key.stem}.pub"
    say = f"words        {words}", "tell them to people who join, by another way than through the server"
    return Answer({"key": str(key), "public_key": public.hex(), "words": words}, say, [line])


@answering
def certify(
    requests: Annotated[
        list[Path],
        typer.Argument(help="What palate client enrol or palate server waiting has written.", metavar="REQUESTS..."),
    ],
    *,
    output: OutputOption,
    fleet: Annotated[
        str | None, typer.Option(help="Name of the fleet, with --key.", show_default="the folder's")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="Key of a separate authority that certifies.", metavar="FILE")
    ] = None,
    helper: Annotated[
        bool, typer.Option("--helper", help="The fleet has a helper: sign the register of all devices as well.")
    ] = False,
    days: Annotated[
        int | None,
        typer.Option(
            min=1, max=36_500, help="How long it admits, with --key.", show_default="no end; 730 with --helper"
        ),
    ] = None,
    replaces: Annotated[
        str | None,
        typer.Option(help="Device whose key the one new device replaces: the same person's.", metavar="DEVICE"),
    ] = None,
    folder: FolderOption = HERE,
) -> Answer:
    """Certify that devices belong to a fleet; compare the fingerprints with their owners first.

    With --key and --fleet, on the authority's machine; with --helper, where the fleet has a helper. Without a key, in a
    fleet that has a helper, the server signs; the devices belong to it once the helper's operator has admitted them.

    A person has one live key. With --replaces, a new device goes on in the place of an old one: what that one spent is
    carried over, and its key is refused from then on.
    """
    from palate.privacy import files
    from palate.privacy.enrolment import device_name, spaced
    from palate.privacy.ledger.framing import framed
    from palate.server.fleet.certifying import certify as sign
    from palate.server.fleet.certifying import propose, with_register
    from palate.server.fleet.folder import FleetFolder, read_key

    if (fleet is None) != (key is None) or (key is None and (days is not None or helper)):
        raise ConfigError(
            "--days and --helper need --fleet and --key", hint="the server of a fleet signs with --folder"
        )
    asked, known = _contents(requests)
    if not asked and not known:
        raise ConfigError("there is no request in these files", hint="palate server waiting says who waits")
    before = None if replaces is None else _device(replaces)
    if before is not None and (len(asked) != 1 or (key is not None and not helper)):
        raise ConfigError(
            "--replaces is about one request, in a fleet that has a helper",
            hint="certify that device alone; without a helper: palate server remove the old one",
        )
    if fleet is None or key is None:
        place = FleetFolder(folder)
        place.require()
        signed = [propose(place, each, replaces=before).to_bytes() for each in asked]
        then = f"the helper's operator signs too: palate helper admit {output} REQUESTS -o {output}; then "
    elif helper:
        now = int(time.time())
        signed, then = with_register(asked, known, fleet, read_key(key), days=days, now=now, replaces=before), ""
    else:
        signer, end = read_key(key), 0 if days is None else int(time.time()) + days * 86_400
        signed, then = [sign(each, fleet, signer, not_after=end).to_bytes() for each in asked], ""
    files.replace(output, signed[0] if len(signed) == 1 else framed(*signed))
    lines = [f"device {device_name(each.device)}  request {spaced(each.fingerprint)}" for each in asked]
    if before is not None:
        lines.append(f"it goes on as device {device_name(before)}, whose key until now is refused from then on")
    if helper:
        lines.append(_registered(signed))
    then += (
        f"the operators enrol: palate server enrol REQUEST --certificate {output} --welcome FILE; "
        f"or, those that wait, palate server admit {output}"
    )
    return Answer({"devices": [device_name(each.device) for each in asked], "file": str(output)}, lines, [then])


@answering
def revoke(
    devices: Annotated[
        list[str], typer.Argument(help="Names of devices, from palate server devices.", metavar="DEVICE...")
    ],
    *,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where to write it, with --key.", metavar="FILE")
    ] = None,
    known: Annotated[
        Path | None,
        typer.Option(help="Who is enrolled, from palate server waiting -o FILE; with --key.", metavar="FILE"),
    ] = None,
    fleet: Annotated[str | None, typer.Option(help="Name of the fleet, with --key.")] = None,
    key: Annotated[Path | None, typer.Option(help="Key of a separate authority.", metavar="FILE")] = None,
    folder: FolderOption = HERE,
) -> Answer:
    """Revoke the keys of devices for good, in a fleet that has a helper: lost, stolen, or no longer welcome.

    Where server and helper admit together, the server signs, takes the devices out, and brings the list to the helper
    before its next answer. So a report that such a key signed is left out of a round that is open. A third party signs
    with --key, --fleet, --known and -o; palate server admit takes in what it wrote. The person may come back with a new
    key: palate authority certify --replaces.
    """
    from palate.privacy import files
    from palate.privacy.enrolment import device_name
    from palate.privacy.ledger.framing import framed
    from palate.server.fleet.certifying import with_register
    from palate.server.fleet.folder import FleetFolder, read_key
    from palate.server.fleet.revoking import revoke as take_out

    numbers = [_device(each) for each in devices]
    names = [device_name(each) for each in numbers]
    lines = [f"the key of device {each} is revoked" for each in names]
    if (given := [each is not None for each in (output, known, fleet, key)]) and any(given) and not all(given):
        raise ConfigError("a third party revokes with --key, --fleet, --known and -o", hint="give all four, or none")
    if output is None or known is None or fleet is None or key is None:
        done = take_out(FleetFolder(folder), names)
        lines.append(f"{done.left} devices are enrolled")
        return Answer({"devices": names, "enrolled": done.left}, lines, ["the helper gets the list before its answer"])
    _, certificates = _contents([known])
    now = int(time.time())
    signed = with_register([], certificates, fleet, read_key(key), days=None, now=now, revoked=numbers)
    files.replace(output, framed(*signed))
    lines.append(_registered(signed))
    return Answer(
        {"devices": names, "file": str(output)}, lines, [f"the server's operator: palate server admit {output}"]
    )


@answering
def invite(
    *,
    count: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many devices may join with them.")],
    output: OutputOption,
    days: Annotated[float, typer.Option(min=0.01, max=3_650, help="How long they count.")] = 14.0,
    folder: FolderOption = HERE,
) -> Answer:
    """Make one-time invitations: links that make a device, enrol it and join in one command.

    Each link takes in one device. The fleet keeps no code, only what checks it; so keep the file until the links are
    handed out, then delete it. Works while the server runs.
    """
    from palate.privacy import files
    from palate.server.fleet import inviting
    from palate.server.fleet.folder import FleetFolder

    fleet = FleetFolder(folder)
    fleet.require()
    if output.exists():
        raise ConfigError(f"{output} is there already, and may hold links", hint="name another file")
    made = inviting.invite(fleet, count, days=days)
    files.replace(output, "".join(f"{each.link}\n" for each in made).encode("ascii"))
    lines = [
        f"wrote {output}: {count} links, each for one device, good for {days:g} days",
        "a person runs: palate client join 'LINK'",
    ]
    if not fleet.authority_key.exists():
        lines.append("devices that come wait until others have signed for them: palate server waiting -o requests")
    values = {"file": str(output), "count": count, "days": days, "fingerprint": made[0].card_fingerprint.hex()}
    return Answer(values, lines)


def _contents(paths: list[Path]) -> tuple[list[EnrolmentRequest], list[bytes]]:
    """Read files of requests, and of what was signed before: certificates and a revocation, as bytes."""
    from palate.privacy.enrolment import EnrolmentRequest
    from palate.privacy.secagg.encoding import MAGIC
    from palate.server.helper.queries import parts_of

    asked, known = [], []
    for data in map(read_given, paths):
        for part in [data] if data.lstrip().startswith(b"{") else parts_of(data):
            if part.startswith(MAGIC):
                known.append(part)
            else:
                asked.append(EnrolmentRequest.open(part))
    return asked, known


def _registered(signed: list[bytes]) -> str:
    from palate.privacy.secagg.encoding import Kind, header

    count = sum(each.startswith(header(Kind.ADMISSION)) for each in signed)
    return f"the register names {count} devices"


def _device(name: str) -> int:
    """Read the name of a device."""
    try:
        if len(name.strip()) != 16:
            raise ValueError
        return int(name.strip(), 16)
    except ValueError:
        raise ConfigError(
            f"{name!r} is no name of a device: 16 hexadecimal digits", hint="palate server devices lists them"
        ) from None


_COMMANDS: dict[Callable[..., None], str] = {
    init: "init authority.key",
    certify: "certify requests --fleet books --key authority.key -o certificates",
    revoke: "revoke 3f0c9a51d27be684 --folder fleet",
    invite: "invite --count 20 -o links.txt",
}
"""Every command, in the order of the help, with an example of its arguments."""

for _command, _example in _COMMANDS.items():
    authority_app.command(_command.__name__, epilog=f"Example: palate authority {_example}")(_command)
