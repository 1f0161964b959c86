"""`palate client`, the device in a fleet: from its keys to what it has spent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from palate.cli.client_folder import FolderOption, device_folder
from palate.cli.fields import keyword, reads, replacing
from palate.cli.options import ExplainOption, JsonOption
from palate.cli.terminal import Answer, answering, confirm, note, say, somebody_is_there
from palate.client.fleet.limit_fields import FIELDS, KINDS, as_text, changes_in
from palate.data.options import ReadOptions
from palate.errors import ConfigError

if TYPE_CHECKING:
    from palate.client.fleet.folder import DeviceFolder
    from palate.client.fleet.profile import FleetProfile
    from palate.privacy.enrolment import Welcome

EpsilonOption = Annotated[
    float | None, typer.Option(help="Budget of this device, for life or for each window; the fleet's unless given.")
]
EveryOption = Annotated[
    str | None,
    typer.Option(help="Window after which the budget renews, such as 30d.", show_default="life", metavar="LENGTH"),
]
DeltaOption = Annotated[float | None, typer.Option(help="Delta of the budget; the fleet's unless given.")]
CohortOption = Annotated[int | None, typer.Option(help="Fewest devices in a round's sum; 10 unless given.")]
PartiesOption = Annotated[
    int | None, typer.Option(help="Fewest parties that must work together to read a vector: 1 or 2.")
]


@answering
def init(
    folder: FolderOption = None,
    keyring: Annotated[
        Literal["auto", "os", "file"],
        typer.Option(help="Where the vault's key goes: the system's keyring, a file, or the best there is."),
    ] = "auto",
    explain: ExplainOption = False,
) -> Answer:
    """Make this device: a sealed vault and its keys; what one forgotten here had spent stays spent."""
    from palate.client.fleet.enrolling import begin
    from palate.client.fleet.status_text import carried_words

    place = device_folder(folder)
    made = begin(place, keyring=keyring)
    lines = [f"device {made.device} in {place.home}"]
    if made.carried_nano:
        lines.append(f"carried over: {carried_words(made.carried_nano, explain=explain)}")
    if made.keeper == "file":
        lines.append("the vault's key lies in a file beside it: whoever copies the whole folder can open it")
    lines.append("next: palate client import FILE, then palate client join 'LINK' with an invitation's link")
    values = {"device": made.device, "home": str(place.home), "vault_key": made.keeper}
    return Answer({**values, "carried_nano": made.carried_nano}, lines)


@answering
def enrol(
    request: Annotated[Path | None, typer.Option(help="Write what the operator needs into this file.")] = None,
    welcome: Annotated[Path | None, typer.Option(help="Take in the operator's answer, a zip archive.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Trust fingerprints and plan without being asked.")] = False,
    epsilon: EpsilonOption = None,
    every: EveryOption = None,
    delta: DeltaOption = None,
    smallest_cohort: CohortOption = None,
    least_parties: PartiesOption = None,
    explain: ExplainOption = False,
    folder: FolderOption = None,
) -> Answer:
    """Ask to be taken into a fleet (--request), then take in the operator's answer (--welcome)."""
    from palate.client.fleet import enrolling
    from palate.privacy.enrolment import spaced

    place = device_folder(folder)
    if (request is None) == (welcome is None):
        raise ConfigError("enrol takes one of --request and --welcome", hint="begin with --request request.json")
    if request is not None:
        fingerprint = enrolling.request(place, request)
        lines = f"wrote {request}", f"fingerprint {spaced(fingerprint)}", "give both to the operator, by two ways"
        return Answer({"request": str(request), "fingerprint": fingerprint}, lines)
    assert welcome is not None
    read, catalogue = enrolling.read_welcome(welcome)
    note(f"welcome      {spaced(read.fingerprint)}")
    wishes = {
        "epsilon": epsilon,
        "every": every,
        "delta": delta,
        "smallest_cohort": smallest_cohort,
        "least_parties": least_parties,
    }
    question = "Are the fingerprints the operator's, and do you agree?"
    nobody = "there is nobody to compare the fingerprints"
    profile = _agree(place, read, catalogue, wishes, question="" if yes else question, nobody=nobody, explain=explain)
    values: dict[str, Any] = {
        "fleet": read.fleet,
        "fingerprint": read.fingerprint,
        "guarantee_against_the_server": profile.guarantee,
    }
    values |= {"reading": _reading(profile)}
    next_ = "next: palate client import FILE, then palate client join"
    return Answer({**values, "limits": profile.limits.to_values()}, (f"joined fleet {read.fleet}", next_))


def _reading(profile: FleetProfile) -> dict[str, Any]:
    """Return all that it takes to read a device's epsilon, for programs."""
    (promise,) = profile.limits.promises.values()
    return promise.reading


def _agree(
    place: DeviceFolder,
    welcome: Welcome,
    catalogue: bytes,
    wishes: dict[str, Any],
    *,
    question: str,
    nobody: str,
    explain: bool,
) -> FleetProfile:
    """Show what a fleet plans and what this device would allow, ask unless there is no question, and join."""
    from palate.client.fleet import enrolling
    from palate.client.fleet.profile import FleetProfile
    from palate.client.fleet.status_text import ahead_words, carried_words
    from palate.client.fleet.trust import trust_sentence
    from palate.privacy.enrolment import spaced

    current, before, carried = enrolling.membership_of(place)
    limits = enrolling.limits_for(welcome, **wishes, current=current, before=before)
    (allowed,) = limits.promises.values()
    note(f"fleet {welcome.fleet} at {welcome.address}, {welcome.num_items} items")
    keys = FleetProfile(welcome, limits)
    for name, words in keys.words.items():
        note(f"{name} key".ljust(13) + spaced(keys.keys[name]))
        note(f"{'words':<13}{words}")
    if not welcome.authority_key:
        note("authority    server and helper admit devices together")
    note(
        f"it plans {1 + welcome.rounds} rounds within epsilon {welcome.epsilon:g} at delta {welcome.delta:g}; "
        f"this device allows {allowed.line}, and rounds of at least {limits.smallest_cohort} devices"
    )
    if explain:
        note(allowed.words)
    if explain and allowed.every_seconds:
        note(ahead_words(allowed))
    note(trust_sentence(FleetProfile(welcome, limits)))
    if current is None:
        carried += welcome.carried_nano
    if carried:
        note(carried_words(carried, limits.delta, explain=explain))
    if question:
        confirm(question, nobody=nobody, hint="read what it says and compare it, then add --yes")
    return enrolling.accept(place, welcome, catalogue, limits)


@reads("item_column", "title_column", "rating_column", "time_column", "user_column", "columns", "date_order", "strict")
@answering
def import_(
    file: Annotated[
        Path, typer.Argument(help="An export, as a file, a zip archive or a folder; or a table with items or titles.")
    ],
    *,
    read: ReadOptions,
    day_first: Annotated[
        bool | None, typer.Option("--day-first/--month-first", help="How to read dates such as 3/4/2020.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="Take the rows of this user only.")] = None,
    rating_scale: Annotated[
        str | None, typer.Option(help="From the worst rating to the best, if it is guessed wrongly.", metavar="1-10")
    ] = None,
    only_exact: Annotated[bool, typer.Option("--only-exact", help="Keep likely titles as unknown ones.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Import without asking.")] = False,
    folder: FolderOption = None,
) -> Answer:
    """Put your history into the vault: Letterboxd, Netflix, IMDb, Goodreads, Spotify and others, or any table.

    It shows what it found, and asks. Nothing of it leaves the device in clear.
    """
    from palate.client.fleet.folder import NEW_WELCOME
    from palate.client.fleet.import_text import import_lines
    from palate.client.fleet.importing import plan_import
    from palate.client.fleet.profile import FleetProfile
    from palate.client.vault import Vault
    from palate.client.vault.history import History
    from palate.data.catalogue import Catalogue
    from palate.data.ratings import RatingScale

    place = device_folder(folder)
    scale = None if rating_scale is None else RatingScale.parse(rating_scale)
    if day_first is not None:
        read = read.model_copy(update={"date_order": "day" if day_first else "month"})
    with Vault.open(place.vault) as vault:
        profile, catalogue = FleetProfile.load(vault), None
        if place.catalogue.is_file():  # a demonstration device has one without a fleet
            num_items = None if profile is None else profile.welcome.num_items
            data = place.catalogue.read_bytes()
            catalogue = Catalogue.from_parquet(data, num_items=num_items, hint=NEW_WELCOME)
        history = History(vault)
        plan = plan_import(file, history, catalogue, options=read, user=user, likely=not only_exact, scale=scale)
        lines = import_lines(plan, has_catalogue=catalogue is not None)
        notes = [f"note: {words}" for words in plan.notes]
        asked = bool(plan.entries) and not yes
        if asked and not somebody_is_there():
            return Answer({**plan.to_json(), "imported": False}, lines, notes, check=_refuse_to_guess)
        if asked:
            for words in (*lines, *notes):
                note(words)
            confirm("Import this?", nobody="", hint="palate client import --help says how files are read")
            lines, notes = [], []
        plan.write(history)
    done = "imported; palate client undo takes it back" if plan.entries else "all of it is in your history already"
    return Answer({**plan.to_json(), "imported": bool(plan.entries)}, [*lines, done], notes)


def _refuse_to_guess() -> None:
    raise ConfigError("nothing was imported: there is nobody to agree", hint="look at the preview, then add --yes")


def join(
    link: Annotated[
        str | None, typer.Argument(help="An invitation: makes the device if there is none, enrols it, and joins.")
    ] = None,
    folder: FolderOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Agree to plan and limits without being asked.")] = False,
    epsilon: EpsilonOption = None,
    every: EveryOption = None,
    delta: DeltaOption = None,
    smallest_cohort: CohortOption = None,
    least_parties: PartiesOption = None,
    wait_seconds: Annotated[
        float, typer.Option(min=0.0, help="How long to wait until whoever admits devices has signed.")
    ] = 86_400.0,
    address: Annotated[str | None, typer.Option(help="Another address of the server, host:port.")] = None,
    stay: Annotated[bool, typer.Option("--stay", help="Wait for the next run when one is over.")] = False,
    train_seconds: Annotated[
        float, typer.Option(min=1.0, help="Longest computation; then only noise is sent.")
    ] = 120.0,
    idle_seconds: Annotated[float, typer.Option(min=0.0, help="When an idle worker process ends.")] = 60.0,
    explain: ExplainOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take part in rounds until the fleet's run is over, or Ctrl-C; with an invitation, join its fleet first."""
    from palate.client.fleet.logs import logged_to
    from palate.client.fleet.member import Member, take_part
    from palate.client.fleet.status import budget_of
    from palate.client.fleet.status_text import RoundLines, run_words

    place = device_folder(folder)
    wishes = {
        "epsilon": epsilon,
        "every": every,
        "delta": delta,
        "smallest_cohort": smallest_cohort,
        "least_parties": least_parties,
    }
    if link is not None:
        _accept_invitation(place, link, wishes, yes=yes, wait_seconds=wait_seconds, explain=explain)
    elif yes or any(value is not None for value in wishes.values()):
        raise ConfigError("limits are agreed to with an invitation alone", hint="later on: palate client limits --help")
    lines = RoundLines(say, as_json=as_json)
    with place.locked(), logged_to(place.log, note), Member.opened(place) as member:
        note(f"device {member.keys.name} in fleet {member.profile.welcome.fleet}; Ctrl-C ends it")
        for promise in member.profile.limits.promises.values() if link is None else ():
            note(f"it allows {promise.line}")
            if explain:
                note(promise.words)
        if not member.taste():
            note("this device has no history yet and sends noise alone: palate client import FILE")

        def say_run(profile: FleetProfile) -> None:
            if profile.notice is not None:
                note(run_words(profile.notice, budget_of(place, member.vault, member.keys, profile)))

        finished_run = take_part(
            member,
            address=address,
            timeout_seconds=train_seconds,
            idle_seconds=idle_seconds,
            once=not stay,
            watch=lines,
            met=say_run,
        )
    if finished_run is None:
        note("stopped; rounds go on when you join again")
    else:
        note(f"run {finished_run} is over; its table is here: palate client status")


def _accept_invitation(
    place: DeviceFolder, link: str, wishes: dict[str, Any], *, yes: bool, wait_seconds: float, explain: bool
) -> None:
    """Make the device where there is none, have it enrolled, and join; nothing happens to one that has joined."""
    from palate.client.fleet import enrolling, joining
    from palate.client.fleet.profile import FleetProfile
    from palate.client.vault import Vault
    from palate.client.vault.errors import NoVault
    from palate.privacy.enrolment import spaced
    from palate.privacy.invitation import Invitation

    invitation = Invitation.parse(link)
    card = joining.card_of(invitation)
    try:
        with Vault.open(place.vault) as vault:
            profile = FleetProfile.load(vault)
    except NoVault:
        made, profile = enrolling.begin(place), None
        note(f"device {made.device} in {place.home}")
        if made.keeper == "file":
            note("the vault's key lies in a file beside it: whoever copies the whole folder can open it")
    if profile is not None and (profile.welcome.fleet, profile.welcome.server_key) == (card.fleet, card.server_key):
        note(f"this device belongs to fleet {card.fleet} already")
        return
    if profile is not None:
        raise ConfigError(
            f"this device belongs to fleet {profile.welcome.fleet!r}", hint="leave it first: palate client leave"
        )
    welcome, catalogue = joining.ask(
        place,
        invitation,
        card,
        wait_seconds=wait_seconds,
        waits=lambda fingerprint: note(
            f"request      {spaced(fingerprint)}\n"
            "waiting until whoever admits devices has signed for this request; Ctrl-C ends it"
        ),
    )
    question, nobody = "" if yes else "Do you agree?", "there is nobody to agree"
    profile = _agree(place, welcome, catalogue, wishes, question=question, nobody=nobody, explain=explain)
    note(f"joined fleet {profile.welcome.fleet}")


@answering
def compare(
    words: Annotated[
        list[str],
        typer.Argument(help="What the helper or the authority told you, not the server.", metavar="WORDS..."),
    ],
    folder: FolderOption = None,
) -> Answer:
    """Note that you heard the words of a key from whoever holds it; status then says so.

    An invitation comes from the server's operators. Only the words of helper and authority, heard from themselves, show
    that others hold these keys. They print them with palate helper status and palate authority init.
    """
    from palate.client.fleet import enrolling
    from palate.client.fleet.trust import trust_sentence

    name, profile = enrolling.compare(device_folder(folder), " ".join(words))
    values = {"compared": name, "not_compared": profile.uncompared, "trust": trust_sentence(profile)}
    return Answer(values, [f"these are the words of the {name}'s key", trust_sentence(profile)])


@answering
def leave(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    folder: FolderOption = None,
) -> Answer:
    """Leave the fleet: shred the keys it knows this device by; history and ledger stay."""
    from palate.client.fleet import enrolling
    from palate.client.fleet.status_text import left_words

    if not yes:
        confirm(
            "Leave the fleet? To come back, it must enrol this device anew.",
            nobody="there is nobody to confirm",
            hint="palate client leave --yes",
        )
    fleet = enrolling.leave(device_folder(folder))
    return Answer({"left": fleet}, [left_words(fleet)])


_LIMITS = [keyword(field.name, KINDS[field.kind] | None, typer.Option(help=field.about)) for field in FIELDS]


@answering
@replacing("changes", _LIMITS, changes_in)
def limits(*, changes: dict[str, Any], explain: ExplainOption = False, folder: FolderOption = None) -> Answer:
    """Show what this device allows, or change it.

    For example:
      palate client limits --epsilon 2 --every 30d
    """
    from palate.client.fleet import enrolling
    from palate.client.fleet.member import Member
    from palate.client.fleet.status_text import ahead_words

    place = device_folder(folder)
    if changes:
        profile = enrolling.change_limits(place, **changes)
    else:
        with Member.opened(place) as member:
            profile = member.profile
    lines = [f"{name:<26}{text}" for name, text in as_text(profile.limits).items()]
    (promise,) = profile.limits.promises.values()
    if explain:
        lines += [promise.words, *([ahead_words(promise)] if promise.every_seconds else [])]
    return Answer({**profile.limits.to_values(), "reading": _reading(profile)}, lines)


@answering
def pause(
    off: Annotated[bool, typer.Option("--off", help="Go on.")] = False,
    folder: FolderOption = None,
) -> Answer:
    """Take part in no new round, without leaving the fleet; recommendations go on."""
    from palate.client.fleet.profile import set_paused
    from palate.client.vault import Vault

    with Vault.open(device_folder(folder).vault) as vault:
        set_paused(vault, not off)
    words = "rounds go on when the device has joined" if off else "paused; a round that has begun is still finished"
    return Answer({"paused": not off}, [words])


@answering
def status(folder: FolderOption = None, explain: ExplainOption = False) -> Answer:
    """Show the budget, the rounds and what was sent in them, and the limits."""
    from palate.client.fleet.status import status_of
    from palate.client.fleet.status_text import status_lines

    found = status_of(device_folder(folder))
    return Answer(found.to_json(), status_lines(found, explain=explain))
