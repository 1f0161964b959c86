"""`palate helper`: the second aggregator of a fleet, in other hands than its server. Each command with its example."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from palate.cli.helper_backup import backup, restore
from palate.cli.helper_folder import HERE, FolderOption
from palate.cli.options import listen_on, read_given
from palate.cli.signals import stop_signals
from palate.cli.terminal import Answer, answering, confirm, note, watched
from palate.errors import ConfigError, EnvironmentProblem
from palate.server.helper.folder import HelperFolder

OutputOption = Annotated[Path, typer.Option("-o", "--output", help="Where to write it.", metavar="FILE")]
YesOption = Annotated[bool, typer.Option("--yes", help="Agree without being asked.")]

helper_app = typer.Typer(
    help="Help a fleet's server to add up what devices send, without either seeing it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

_EXAMPLES = """\b
Examples:
  palate helper init --fleet books --address helper.example:9443
  palate helper trust leader.card
  palate helper start
  palate helper status"""


@helper_app.callback(epilog=_EXAMPLES)
def helper() -> None:
    """Be the second aggregator of a fleet, in other hands than its server.

    The server has masked words of each device, the helper the seeds of the masks. Each alone learns nothing but who
    takes part; both together read what every device sends. So never run both.
    """


@answering
def init(
    *,
    fleet: Annotated[str, typer.Option(help="Name of the fleet, as its server has it, e.g. --fleet books.")],
    address: Annotated[str, typer.Option(help="host:port that the server connects to, e.g. helper.example:9443.")],
    folder: FolderOption = HERE,
    anchor: Annotated[
        Path | None,
        typer.Option(
            help="File that keeps the end of the ledger, best on another medium.",
            metavar="FILE",
            show_default="anchor in the folder",
        ),
    ] = None,
    suite: Annotated[
        Literal["x25519", "x-wing"],
        typer.Option(help="How seeds are sealed; x-wing also holds against quantum computers."),
    ] = "x25519",
) -> Answer:
    """Make a helper: keys, certificate, ledger and helper.card, in a new folder."""
    from palate.privacy.enrolment import spaced
    from palate.privacy.spoken import spoken
    from palate.server.helper.config import at_address, checked_config
    from palate.server.helper.folder import make_helper

    asked = {"fleet": fleet, "suite": suite, **at_address(address)}
    if anchor is not None:
        asked["anchor"] = str(anchor.resolve())
    place = HelperFolder(folder)
    card = make_helper(place, checked_config(asked))
    lines = [
        f"helper of {card.fleet} at {card.address}, in {place.root}",
        f"key          {spaced(card.key.hex())}",
        f"words        {spoken(card.key)}",
        f"certificate  {spaced(card.tls_fingerprint)}",
        f"card         {spaced(card.fingerprint)}",
        f"next: give {place.card} to the server's operator, for palate server init --helper helper.card,",
        "and compare the card's fingerprint; then palate helper trust leader.card, with what they give you;",
        "tell the words to people who join, by another way than through the server",
    ]
    values = {
        "fleet": card.fleet,
        "address": card.address,
        "key": card.key.hex(),
        "words": spoken(card.key),
        "tls_fingerprint": card.tls_fingerprint,
        "card": str(place.card),
        "card_fingerprint": card.fingerprint,
    }
    return Answer(values, lines)


@answering
def trust(
    card: Annotated[Path, typer.Argument(help="What the server's operator gave you.", metavar="LEADER_CARD")],
    *,
    folder: FolderOption = HERE,
) -> Answer:
    """Take in the card of the fleet's server: the only one that this helper answers."""
    from palate.privacy.aggregators.claim import trust_of
    from palate.privacy.enrolment import spaced
    from palate.privacy.spoken import spoken
    from palate.server.helper.folder import trust as take_in

    found = take_in(HelperFolder(folder), read_given(card))
    parties = found.parties
    admits = "server and helper together" if parties.authority is None else "a third party"
    claim = trust_of(parties)
    sentence = f"{claim.sentence} {claim.assumption}".rstrip()
    lines = [
        f"this helper answers the server of {found.fleet} alone",
        f"server key   {spaced(parties.leader.hex())}",
        f"its words    {spoken(parties.leader)}",
        *(
            []
            if parties.authority is None
            else [f"authority    {spaced(parties.authority.hex())}", f"its words    {spoken(parties.authority)}"]
        ),
        f"card         {spaced(found.fingerprint)}",
        f"devices are admitted by {admits}. {sentence}",
        "compare the card's fingerprint with its operator's; next: palate helper start",
    ]
    values = {
        "fleet": found.fleet,
        "leader_key": parties.leader.hex(),
        "authority_key": None if parties.authority is None else parties.authority.hex(),
        "card_fingerprint": found.fingerprint,
        "trust": sentence,
    }
    return Answer(values, lines)


def start(
    *,
    folder: FolderOption = HERE,
    listen: Annotated[
        str | None, typer.Option(help="host:port to listen on, in place of helper.toml's.", metavar="HOST:PORT")
    ] = None,
    backup: Annotated[
        Path | None, typer.Option(help="Write a backup there at the start and after every answer.", metavar="TARGET")
    ] = None,
) -> None:
    """Listen, and answer the fleet's server, until it is stopped; refuses an old or damaged ledger."""
    from palate.server.helper.backup import back_up
    from palate.server.helper.folder import opened
    from palate.server.helper.http import HelperServer

    place = HelperFolder(folder)
    config = place.load_config()
    bind, port = listen_on(listen)
    with stop_signals() as received, opened(place) as service, _events():
        server = HelperServer(service, place.tls, host=bind or config.bind, port=config.port if port is None else port)
        with server:
            answered = service.book.head()[0]
            note(f"helper of {config.fleet} on {server.address}; {_count(answered, 'round')} answered")
            kept = None
            while not received:
                if backup is not None and (end := service.end()) != kept:
                    kept = end
                    try:
                        back_up(place, backup)
                    except EnvironmentProblem as error:
                        note(f"warning: {error.message}; the next answer tries again")
                time.sleep(0.1)
    note("stopped; a round that is not answered yet can still be")


@answering
def status(*, folder: FolderOption = HERE) -> Answer:
    """Show how the helper is: rounds answered, keys that are open, and whether the anchor agrees."""
    from palate.server.helper.status import status_of
    from palate.simulation.report.tables import facts_grid

    found = status_of(HelperFolder(folder))
    values, problem = found.values, found.problem
    last = f", the last on {values['last_answered_at']}" if values["last_answered_at"] else ""
    anchor = "the anchor agrees" if problem is None else "THE ANCHOR DOES NOT AGREE"
    first = f"{_count(values['rounds_answered'], 'round')} answered{last}; "
    first += f"{_count(values['keys_open'], 'key')} open; {anchor}"
    left_out = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in values["left_out"].items())
    register = (
        "none yet"
        if values["register_epoch"] is None
        else f"epoch {values['register_epoch']}, {values['devices_registered']} devices"
    )
    if values["keys_revoked"]:
        register += f"; {_count(values['keys_revoked'], 'key')} revoked"
    facts = {
        "fleet": f"{values['fleet']}, {values['address']}",
        "helper": "runs" if values["running"] else "does not run",
        "register": register,
        "reports": f"{values['reports_in_sums']} of {values['reports']} in sums"
        + (f"; left out: {left_out}" if left_out else ""),
        "log": f"cosigned with {values['log_leaves_cosigned']} rounds",
        "anchor": values["anchor"],
        "trust": values["trust"] or "no leader yet: palate helper trust leader.card",
        "words": values["words"],
    }

    def check() -> None:
        if problem is not None:
            raise problem

    return Answer(values, [first, facts_grid("", "", facts)], check=check)


def answer(
    query: Annotated[Path, typer.Argument(help="What the server has written: NAME.query.", metavar="QUERY")],
    *,
    output: OutputOption,
    folder: FolderOption = HERE,
) -> None:
    """Answer one question of the server from a file, without a network.

    A refusal is written as well, for the server to read; the command then ends with its exit code.
    """
    from palate.privacy import files
    from palate.server.helper.folder import opened
    from palate.server.helper.queries import Query
    from palate.server.helper.replies import reply_to

    data = read_given(query)
    bar, moved = watched("report", 1)

    def progress(done: int, total: int) -> None:
        bar.update(bar.task_ids[0], total=total)
        moved(done)

    with opened(HelperFolder(folder), progress=progress) as service, _events():
        try:
            reply, refusal = reply_to(service, Query.from_file(data, service.parties))
        finally:
            bar.stop()
    files.replace(output, reply)
    note(f"wrote {output}: give it to the server's operator, to be put beside {query.name}")
    if refusal is not None:
        raise refusal


@answering
def keys(
    *,
    run: Annotated[str, typer.Option(help="Name of the run, from palate server status.")],
    rounds: Annotated[int, typer.Option(min=1, max=1_000, help="How many rounds, spare ones included.")],
    output: OutputOption,
    first: Annotated[int, typer.Option(min=0, help="Number of the first round.")] = 0,
    folder: FolderOption = HERE,
) -> Answer:
    """Issue round keys ahead, for a server that cannot reach this machine."""
    from palate.privacy import files
    from palate.privacy.aggregators.sealing import RoundKey
    from palate.server.helper.folder import opened
    from palate.server.helper.remote import KEYS_ENDING, issued_ahead

    if output.suffix != KEYS_ENDING:
        raise ConfigError(f"{output} does not end in {KEYS_ENDING}", hint=f"for example -o {run}{KEYS_ENDING}")
    with opened(HelperFolder(folder)) as service:
        made = [(run, number, service.round_key(run, number)) for number in range(first, first + rounds)]
    files.replace(output, issued_ahead(made), mode=files.SHARED)
    end = RoundKey.from_bytes(made[-1][2]).not_after
    until = time.strftime("%Y-%m-%d", time.gmtime(end))
    text = f"wrote {output}: {_count(rounds, 'key')} of run {run}, good until {until}"
    values = {"run": run, "first": first, "rounds": rounds, "not_after": end, "file": str(output)}
    return Answer(values, [text], [f"give it to the server's operator; the private halves stay in {folder}"])


@answering
def admit(
    found: Annotated[
        list[Path],
        typer.Argument(help="Certificates that the server has signed; and the devices' requests.", metavar="FILES..."),
    ],
    *,
    output: OutputOption,
    yes: YesOption = False,
    folder: FolderOption = HERE,
) -> Answer:
    """Sign for devices, where server and helper admit them together; check first who they are.

    Whoever admits alone could fill a round with devices of their own. So sign only for what its owner has shown you, by
    another way than through the server. With its request, a device is shown by the fingerprint that its owner sees.
    Works while the helper runs.
    """
    from palate.privacy import files
    from palate.privacy.enrolment import device_name, spaced
    from palate.privacy.ledger.framing import framed
    from palate.server.helper.admitting import asked_in
    from palate.server.helper.folder import opened

    asked = asked_in(map(read_given, found))
    with opened(HelperFolder(folder), alone=False) as service:
        for each in asked:
            shown = (
                f"key {spaced(each.certificate.identity_key.hex())}"
                if each.request is None
                else f"request {spaced(each.request.fingerprint)}"
            )
            note(f"device {device_name(each.certificate.device)}  {shown}")
            if each.certificate.generation > 1:
                note(f"  key {each.certificate.generation} of the same person: the one before is refused from then on")
        if not yes:
            confirm(
                f"Have you compared {_count(len(asked), 'fingerprint')} with the owners of the devices?",
                nobody="there is nobody to compare these with their owners",
                hint="compare them, then add --yes",
            )
        signed = service.admit([each.certificate for each in asked])
    files.replace(output, framed(*(each.to_bytes() for each in signed)), mode=files.SHARED)
    values = {"devices": [device_name(each.device) for each in signed], "file": str(output)}
    return Answer(values, [f"wrote {output}: {_count(len(signed), 'device')} admitted by both"])


@answering
def move(
    *,
    address: Annotated[str, typer.Option(help="host:port that the server connects to from now on.")],
    folder: FolderOption = HERE,
) -> Answer:
    """Give the helper another address: a new certificate and a new helper.card, with the same keys.

    The fleet stays what it is. The server's operator puts the new card in the place of the old one, in keys/.
    """
    from palate.privacy.enrolment import spaced
    from palate.server.helper.folder import move as give

    place = HelperFolder(folder)
    card = give(place, address)
    lines = [
        f"helper of {card.fleet} at {card.address}",
        f"card         {spaced(card.fingerprint)}",
        f"give {place.card} to the server's operator, who puts it in keys/ of the fleet's folder, and starts again",
    ]
    values = {"address": card.address, "card": str(place.card), "card_fingerprint": card.fingerprint}
    return Answer(values, lines)


@answering
def anchor(*, yes: YesOption = False, folder: FolderOption = HERE) -> Answer:
    """Write the anchor anew where it is lost for good; one that is there is only checked.

    Without the old anchor nobody can tell whether this ledger is the newest. Be sure that it is no backup.
    """
    from palate.server.helper.folder import renew_anchor

    place = HelperFolder(folder)
    if not yes:
        confirm(
            "Are you sure that this ledger is the newest, and no restored backup?",
            nobody="there is nobody to vouch for the ledger",
            hint="be sure that it is the newest, then add --yes",
        )
    path = renew_anchor(place).path
    return Answer({"anchor": str(path)}, [f"the anchor {path} agrees with the ledger"])


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number:,} {thing}s"


@contextmanager
def _events() -> Iterator[None]:
    """Show what the helper does, a line each, on stderr."""
    own, handler = logging.getLogger("palate.server.helper"), _Notes()
    before = own.level
    own.addHandler(handler)
    own.setLevel(logging.INFO)
    try:
        yield
    finally:
        own.removeHandler(handler)
        own.setLevel(before)


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        note(f"{time.strftime('%H:%M:%S', time.gmtime(record.created))} {record.getMessage()}")


_COMMANDS: dict[Callable[..., None], str] = {
    init: "init --fleet books --address helper.example:9443 --anchor /media/stick/anchor",
    trust: "trust leader.card",
    start: "start",
    status: "status --json",
    answer: "answer answer-0f3c9a51d27be684.query -o answer-0f3c9a51d27be684.reply",
    keys: "keys --run books-0a1b2c3d --rounds 20 -o books.keys",
    admit: "admit device.crt request.json -o signed.crt",
    move: "move --address new.example:9443",
    anchor: "anchor",
    backup: "backup helper.backup",
    restore: "restore helper.backup",
}
"""Every command, in the order of the help, with an example of its arguments."""

for _command, _example in _COMMANDS.items():
    helper_app.command(_command.__name__, epilog=f"Example: palate helper {_example}")(_command)
