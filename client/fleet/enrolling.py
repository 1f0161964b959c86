"""Becoming a device, joining a fleet and leaving it: what the owner decides once, in the order that keeps it safe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from palate.client.fleet import carried_spending
from palate.client.fleet.folder import NEW_WELCOME, DeviceFolder
from palate.client.fleet.identity import DeviceKeys
from palate.client.fleet.limits import DEFAULT_DELTA, DEFAULT_EPSILON, SMALLEST_UNASKED, OwnerLimits
from palate.client.fleet.member import Member
from palate.client.fleet.profile import REMOVED_AT, FleetProfile
from palate.client.fleet.round_log import RoundLog
from palate.client.fleet.rounds import close_rounds
from palate.client.vault import Vault
from palate.client.vault.keeper import Choice
from palate.data.catalogue import Catalogue
from palate.errors import ConfigError, DataError
from palate.privacy import files
from palate.privacy.accounting.events import Unit
from palate.privacy.durations import parse_duration
from palate.privacy.enrolment import MAX_CATALOGUE_BYTES, MAX_WELCOME_BYTES, Welcome
from palate.privacy.spoken import same_words


@dataclass(frozen=True)
class NewDevice:
    """What `begin` made.

    Attributes
    ----------
    device
        The device's name.
    keeper
        Where the vault's master key lies, "keyring" or "file".
    carried_nano
        What a device had spent at unit user that was forgotten in the same folder, in 1e-9 of 2 rho; it comes off this
        one's budget.
    """

    device: str
    keeper: str
    carried_nano: int = 0


def begin(folder: DeviceFolder, *, keyring: Choice = "auto") -> NewDevice:
    """Make a device: its folder, its vault and its keys; what one that was forgotten there had spent is taken over.

    Raises
    ------
    EnvironmentProblem, VaultError
        If the folder cannot be used, has a vault already, or no place for its key is found.
    Forgotten
        If a forgetting was begun there and not finished.
    VaultTampered, OtherVersion
        If what a forgotten device had spent cannot be read: nobody begins from 0 because of that.
    """
    folder.make()
    before = carried_spending.left_behind(folder)
    with Vault.create(folder.vault, keyring=keyring, carrying=before) as vault:
        with vault.transaction():
            if before is not None:
                carried_spending.keep(vault, before)
            keys = DeviceKeys.make(vault)
        files.replace(folder.public_key, keys.ledger.public_key().public_bytes_raw().hex().encode("ascii") + b"\n")
        return NewDevice(keys.name, vault.keeper, carried_spending.carried_nano(vault).get(Unit.USER, 0))


def request(folder: DeviceFolder, path: Path) -> str:
    """Write the enrolment request that the operator needs, and return its fingerprint.

    Raises
    ------
    ConfigError
        If the device belongs to a fleet already.
    EnvironmentProblem
        If the file cannot be written.
    """
    with Vault.open(folder.vault) as vault:
        keys = DeviceKeys.load(vault)
        profile = FleetProfile.load(vault)
        if profile is not None:
            raise ConfigError(
                f"this device belongs to fleet {profile.welcome.fleet!r}", hint="leave it first: palate client leave"
            )
        files.replace(path, keys.request.sign(keys.signing) + b"\n")
        return keys.request.fingerprint


def read_welcome(path: Path) -> tuple[Welcome, bytes]:
    """Read a welcome and the catalogue in it; nothing is kept yet.

    Raises
    ------
    EnrolmentFileRefused
        If it is damaged, altered or of another version.
    DataError
        If the file is missing or too large.
    """
    most = MAX_WELCOME_BYTES + MAX_CATALOGUE_BYTES
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", hint="check the path") from None
    if len(data) > most:
        raise DataError(f"{path} has more than {most} bytes", hint="is it a welcome?")
    return Welcome.unpack(data)


def limits_for(
    welcome: Welcome,
    *,
    epsilon: float | None = None,
    every: str | None = None,
    delta: float | None = None,
    smallest_cohort: int | None = None,
    least_parties: int | None = None,
    current: OwnerLimits | None = None,
    before: OwnerLimits | None = None,
) -> OwnerLimits:
    """Propose an owner's limits: those there are, else what the fleet plans, unless the owner says otherwise.

    Parameters
    ----------
    welcome
        What the fleet plans.
    epsilon, every, delta, smallest_cohort, least_parties
        What the owner says; `every` as `parse_duration` reads it.
    current
        The limits in this very fleet, if the device belongs to it already.
    before
        Those in a fleet that it left. The ledger is the same, so a next fleet must not loosen them unasked.

    Raises
    ------
    ConfigError
        If the fleet plans to spend more than is usual and the owner has not agreed by name, or asks for smaller cohorts
        than the owner wants.
    """
    for name, planned, given, usual in (
        ("epsilon", welcome.epsilon, epsilon, DEFAULT_EPSILON),
        ("delta", welcome.delta, delta, DEFAULT_DELTA),
    ):
        if given is None and current is None and planned > usual:
            raise ConfigError(
                f"the fleet plans to spend {name} {planned:g}, devices agree to at most {usual:g} unasked",
                hint=f"agree with --{name} {planned:g}, or set a smaller one",
            )
    wishes = {
        "epsilon": epsilon,
        "delta": delta,
        "smallest_cohort": smallest_cohort,
        "least_parties": least_parties,
        "every_seconds": None if every is None else parse_duration(every),
    }
    # What the fleet states about failures and collusion is held against every offer, like its budget.
    planned_limits = OwnerLimits(
        epsilon=welcome.epsilon,
        delta=welcome.delta,
        smallest_cohort=min(OwnerLimits.smallest_cohort, max(welcome.smallest_roster, SMALLEST_UNASKED)),
        least_tau_thousandths=welcome.tau_thousandths,
        least_gamma_thousandths=welcome.gamma_thousandths,
    )
    start = planned_limits if current is None else current
    if before is not None and current is None:
        start = start.tightened(before)
    limits = start.with_changes({name: value for name, value in wishes.items() if value is not None})
    parties = FleetProfile(welcome, limits).parties
    if parties < limits.least_parties:
        raise ConfigError(
            f"{parties} party alone could read what this device sends, the owner asks for {limits.least_parties}",
            hint="agree with --least-parties 1, or choose a fleet in which others admit the devices",
        )
    if welcome.smallest_roster < limits.smallest_cohort:
        raise ConfigError(
            f"the fleet runs rounds of {welcome.smallest_roster} devices, this device wants {limits.smallest_cohort}",
            hint=f"agree with --smallest-cohort {welcome.smallest_roster}, or ask the operator for larger rounds",
        )
    return limits


def membership_of(folder: DeviceFolder) -> tuple[OwnerLimits | None, OwnerLimits | None, int]:
    """Look at what a device brings to a fleet.

    Returns
    -------
    current, before, carried_nano
        Its limits in the fleet that it belongs to, and in the one that it left last, None where there is none; and what
        a device had spent at unit user that was forgotten in the same folder, in 1e-9 of 2 rho.
    """
    with Vault.open(folder.vault) as vault:
        profile = FleetProfile.load(vault)
        carried = carried_spending.carried_nano(vault).get(Unit.USER, 0)
        return None if profile is None else profile.limits, FleetProfile.limits_before(vault), carried


def accept(folder: DeviceFolder, welcome: Welcome, catalogue: bytes, limits: OwnerLimits) -> FleetProfile:
    """Join a fleet: pin its keys, keep its catalogue, and begin or renew the ledger's policy.

    Raises
    ------
    EnrolmentFileRefused
        If the welcome is for another device, or its certificate is not the authority's.
    ConfigError
        If the device belongs to another fleet, or to this one under another enrolment authority.
    DataError
        If the catalogue cannot be read.
    """
    with folder.locked(), Vault.open(folder.vault) as vault:
        keys = DeviceKeys.load(vault)
        welcome.check_for(keys.signing.public_key())
        old = FleetProfile.load(vault)
        if old is not None and (old.welcome.fleet, old.welcome.server_key) != (welcome.fleet, welcome.server_key):
            raise ConfigError(
                f"this device belongs to fleet {old.welcome.fleet!r}", hint="leave it first: palate client leave"
            )
        for who, harm in (("authority", "invent devices"), ("helper", "take masks off")):
            found = getattr(welcome, f"{who}_key") or "none"
            pinned = found if old is None else getattr(old.welcome, f"{who}_key") or "none"
            if found == pinned:
                continue
            raise ConfigError(
                f"the welcome names the {who} {found[:16]}, this device pinned {pinned[:16]}: "
                f"another {who} could {harm}",
                hint="ask the operator why; to trust the new one, leave first: palate client leave",
            )
        Catalogue.from_parquet(catalogue, num_items=welcome.num_items, hint=NEW_WELCOME)
        profile = FleetProfile(welcome, limits, compared=frozenset() if old is None else old.compared)
        carried_spending.keep_of_earlier_keys(vault, welcome.server_key, welcome.carried_nano)
        Member(folder, vault, keys, profile).guard.adopt_policy()  # refuses what no budget can promise
        files.replace(folder.catalogue, catalogue)
        profile.save(vault)
        REMOVED_AT.drop(vault)
        return profile


def change_limits(folder: DeviceFolder, **changes: float | int) -> FleetProfile:
    """Change some of the owner's limits; the ledger notes a new policy where the budget or the cohort changes.

    Raises
    ------
    ConfigError
        If a limit is out of range, or the device belongs to no fleet.
    """
    with folder.locked(), Member.opened(folder) as member:
        profile = member.profile.with_limits(member.profile.limits.with_changes(changes))
        # First the ledger: it refuses what no budget can promise, and a start takes up what the vault says.
        Member(folder, member.vault, member.keys, profile).guard.adopt_policy()
        profile.save(member.vault)
        return profile


def compare(folder: DeviceFolder, words: str) -> tuple[str, FleetProfile]:
    """Note that the owner has heard these words from whoever holds a key of the fleet.

    Returns
    -------
    name, profile
        Whose key it is, "server", "helper" or "authority", and what is known now.

    Raises
    ------
    ConfigError
        If they are the words of no key of this fleet, or the device belongs to none.
    """
    with folder.locked(), Vault.open(folder.vault) as vault:
        profile = FleetProfile.require(vault)
        name = next((name for name, own in profile.words.items() if same_words(own, words)), None)
        if name is None:
            raise ConfigError(
                "these are the words of no key that this device pinned",
                hint="listen again, word by word; if they stay others: palate client leave, and ask who invited you",
            )
        profile = replace(profile, compared=profile.compared | {profile.keys[name]})
        profile.save(vault)
        return name, profile


def leave(folder: DeviceFolder) -> str:
    """Leave the fleet: close its rounds, shred the keys that it knows this device by, and forget its own.

    The ledger stays, with its own key, so that a next fleet gets what is left of the budget; so do the history, the
    record of rounds and the last table. The server is told nothing: it finds the device gone.

    Returns
    -------
    The fleet's name.
    """
    with folder.locked(), Member.opened(folder) as member:
        close_rounds(member.guard, RoundLog(member.vault))
        with member.vault.transaction():
            member.keys.renewed(member.vault)
            FleetProfile.drop(member.vault)
            REMOVED_AT.drop(member.vault)
        member.vault.scrub()
        folder.authority.unlink(missing_ok=True)
        return member.profile.welcome.fleet
