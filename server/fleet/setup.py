"""A new fleet: keys, certificates, catalogue and configuration; and the devices that it welcomes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.data.options import ReadOptions
from palate.errors import ConfigError, EnvironmentProblem
from palate.privacy import files
from palate.privacy.aggregators.admission import Certificate, key_number
from palate.privacy.charging import ledger_name
from palate.privacy.enrolment import EnrolmentRequest, Welcome, device_name
from palate.privacy.ledger.body import Intent
from palate.privacy.ledger.verify import verify_ledger
from palate.privacy.secagg.errors import SecureAggregationError
from palate.privacy.secagg.keys import EnrolmentCertificate
from palate.server.fleet.catalogue import counted_content, make_catalogue, read_catalogue
from palate.server.fleet.certificates import KeyFiles, issue_server_certificate, make_authority
from palate.server.fleet.certifying import certify
from palate.server.fleet.claims import parties_of
from palate.server.fleet.config import FleetConfig, checked_config, load_config, to_toml
from palate.server.fleet.folder import FleetFolder, make_key, read_key, read_public_key, write_public_key
from palate.server.fleet.registering import revoked_in
from palate.server.fleet.revoking import revoke_keys
from palate.server.fleet.state import FleetState
from palate.server.fleet.transport.enrolment import EnrolledNode, Enrolment
from palate.server.helper.admitting import certificates_in
from palate.server.helper.cards import HelperCard, LeaderCard
from palate.server.ledger import SERVER
from palate.server.values import merge


@dataclass(frozen=True)
class Welcomed:
    """A device that now belongs to the fleet.

    Attributes
    ----------
    device
        Its name.
    request_fingerprint, welcome_fingerprint
        What two people compare.
    archive
        The welcome, for the device.
    again
        Whether it was enrolled before, and this is the same welcome once more.
    """

    device: str
    request_fingerprint: str
    welcome_fingerprint: str
    archive: bytes
    again: bool


def tls_authority(folder: FleetFolder) -> KeyFiles:
    """Where the certificate authority of the server's TLS lies."""
    return KeyFiles(folder.keys / "tls", "authority")


def tls_server(folder: FleetFolder) -> KeyFiles:
    """Where the server's TLS certificate lies."""
    return KeyFiles(folder.keys / "tls", "server")


def make_fleet(
    folder: FleetFolder,
    catalogue: Path,
    given: Mapping[str, Any],
    *,
    authority: Path | None = None,
    helper: bytes | None = None,
    read: ReadOptions | None = None,
) -> tuple[int, tuple[str, ...]]:
    """Make a fleet's folder; return the number of its items, and notes on how their file was read.

    Parameters
    ----------
    folder
        Where; it must not hold a fleet.
    catalogue
        File of the items, of any kind that `palate.data.items` reads.
    given
        Settings of fleet.toml that differ from the defaults, nested.
    authority
        Public key of a separate enrolment authority, as `make_authority_key` wrote it; without it the fleet enrols
        devices itself.
    helper
        Card of the helper, as `palate helper init` wrote it; without it devices share masks with each other. With it,
        leader and helper admit devices together.
    read
        Column names of the file of items; what is None is guessed.

    Raises
    ------
    ConfigError, DataError
        If there is a fleet already, a setting cannot be used, or the catalogue cannot be read.
    EnvironmentProblem
        If the folder cannot be written.
    """
    if folder.config.exists():
        raise ConfigError(f"{folder.root} holds a fleet already", hint="choose another folder")
    card = None if helper is None else HelperCard.open(helper)
    if card is not None:
        given = merge({"helper": {"key": card.key.hex()}}, given)
    config = checked_config(given)
    if card is not None and card.fleet != config.name:
        raise ConfigError(f"the card is of a helper of fleet {card.fleet!r}, not {config.name!r}", hint="use its name")
    config.server_settings()  # refuses a budget that no noise meets
    try:
        folder.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.keys.mkdir(mode=0o700, exist_ok=True)
        (folder.keys / "tls").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise EnvironmentProblem(f"{folder.root}: {error.strerror}", hint="choose a folder you may write") from error
    items, notes = make_catalogue(catalogue, folder.catalogue, read)
    given = merge({"content": counted_content(items, config.content)}, given)
    checked_config(given)
    public = None if authority is None else read_public_key(authority)
    make_key(folder.server_key)
    write_public_key(folder.ledger_key, read_key(folder.server_key).public_key())
    if card is None and public is None:
        public = make_key(folder.authority_key).public_key()
    if public is not None:
        write_public_key(folder.authority_public_key, public)
    if card is not None:
        files.replace(folder.helper_card, helper or b"")
        leader = LeaderCard(fleet=config.name, parties=parties_of(folder, config))
        files.replace(folder.leader_card, leader.sign(read_key(folder.server_key)), mode=files.SHARED)
    make_authority(tls_authority(folder).folder, name=f"{config.name} fleet")
    issue_server_certificate(tls_authority(folder), tls_server(folder).folder, hosts=[config.listen.host])
    files.replace(folder.config, to_toml(given).encode(), mode=files.SHARED)  # last: what holds it is a fleet
    return items.num_items, notes


def welcome(
    folder: FleetFolder,
    request: EnrolmentRequest,
    *,
    authority_key: Path | None = None,
    certificate: bytes | None = None,
    readmit: bool = False,
) -> Welcomed:
    """Enrol a device; one that is enrolled gets the same welcome again.

    A device that was removed comes back with `readmit` alone, under the certificate that it had. That costs nobody any
    privacy: what it may still spend is in its own ledger, which went on counting from where it was.

    Parameters
    ----------
    folder
        The fleet's.
    request
        What the device asks for.
    authority_key
        The authority's key, where it is not in the folder.
    certificate
        What a separate authority has signed with `certify`; no key is needed then. With a helper: what `propose` made
        and the helper's operator signed, alone or with those of other devices.
    readmit
        Take it although it was removed.

    Raises
    ------
    ConfigError, RunError
        If the authority's key is missing, or is not the fleet's; or the certificate is not; or the device was removed.
    """
    config, device = load_config(folder.config), device_name(request.device)
    with closing(Enrolment(folder.enrolment)) as enrolment:
        known = enrolment.holder(request.identity_key.public_bytes_raw())
        if known is None and enrolment.named(device):
            raise ConfigError(f"a newer key has taken the place of device {device}'s", hint="make a new device there")
        enrolled = known is not None and known.removed_at is None
        if known is not None and known.removed_at is not None and not readmit:
            day = datetime.fromtimestamp(known.removed_at, UTC).date()
            raise ConfigError(
                f"device {device} was removed from this fleet on {day}", hint="to take it in again, add --readmit"
            )
        if known is not None and (enrolled or certificate is None):
            certificate = known.certificate
        if config.helper.there:
            signed: EnrolmentCertificate | Certificate = _admitted(folder, config, request, certificate)
        elif certificate is not None:
            signed = _certified(request, config.name, folder, certificate)
        else:
            key = _authority_key(folder, authority_key)
            signed = certify(request, config.name, key)
        device = device_name(signed.device)
        replaced = next((it for it in enrolment.named(device) if it.removed_at is None and it != known), None)
        if replaced is not None:  # its key is out first: a crash in between leaves no two keys
            before = Certificate.from_bytes(replaced.certificate).generation
            if not isinstance(signed, Certificate) or signed.generation <= before:
                raise ConfigError(f"device {device} has a newer key", hint="palate authority certify --replaces")
            if parties_of(folder, config).authority is None:  # a third party has signed a revocation itself
                revoke_keys(folder, config, [replaced.certificate])
            enrolment.remove(replaced.node_id)
        if not enrolled:
            known = enrolment.add(request.node_key_pem, label=device, certificate=signed.to_bytes())
        assert known is not None
        carried = _charged_before(folder, config, known) if isinstance(signed, Certificate) else 0
    catalogue, digest = read_catalogue(folder.catalogue)
    keys: dict[str, Any] = (
        {"helper_key": config.helper.key, "authority_key": (parties_of(folder, config).authority or b"").hex()}
        if config.helper.there
        else {
            "authority_key": read_public_key(folder.authority_public_key).public_bytes_raw().hex(),
            "authority_is_separate": folder.authority_is_separate(config.cohort.authority_is_separate),
            "tau_thousandths": round(config.cohort.tau * 1000),
        }
    )
    made = Welcome(
        fleet=config.name,
        address=config.listen.address,
        ca_certificate=tls_authority(folder).certificate.read_text(encoding="ascii"),
        server_key=read_key(folder.server_key).public_key().public_bytes_raw().hex(),
        certificate=signed.to_bytes().hex(),
        epsilon=config.epsilon,
        delta=config.delta,
        rounds=config.schedule.rounds,
        smallest_roster=config.cohort.smallest,
        gamma_thousandths=round(config.cohort.gamma * 1000),
        num_items=catalogue.num_items,
        catalogue_sha256=digest,
        carried_nano=carried,
        **keys,
    )
    archive = made.pack(folder.catalogue.read_bytes())
    return Welcomed(device, request.fingerprint, made.fingerprint, archive, enrolled)


def _charged_before(folder: FleetFolder, config: FleetConfig, node: EnrolledNode) -> int:
    """Add up what earlier keys of a person were charged at most, in 1e-9 of 2 rho: all rounds that asked for them.

    Rounds of which nobody knows any more who was asked count in full.
    """
    if Certificate.from_bytes(node.certificate).generation == 1 or not folder.ledger.exists():
        return 0
    with closing(FleetState(folder.state)) as state:
        spared = {
            (each.run, each.number)
            for each in state.rounds()
            if each.started_at >= node.enrolled_at
            or node.label not in {member.device for member in state.members(each.number)}
        }
    name, key = ledger_name(SERVER, config.promise.unit), read_key(folder.server_key).public_key()
    return sum(
        event.charge_nano
        for event in verify_ledger(folder.ledger, name, key, allow_open=True).events
        if isinstance(event, Intent) and (event.run, event.round) not in spared
    )


def _authority_key(folder: FleetFolder, path: Path | None) -> Ed25519PrivateKey:
    path = path or folder.authority_key
    if not path.exists():
        raise ConfigError(
            f"the authority's key is not at {path}",
            hint="give --authority-key FILE, or --certificate FILE that the authority has signed",
        )
    key = read_key(path)
    if key.public_key().public_bytes_raw() != read_public_key(folder.authority_public_key).public_bytes_raw():
        raise ConfigError(f"{path} is not the key of this fleet's authority", hint="devices pin another one")
    return key


def _certified(request: EnrolmentRequest, fleet: str, folder: FleetFolder, data: bytes) -> EnrolmentCertificate:
    """Read and check what the authority of a fleet of peers has signed."""
    try:
        certificate = EnrolmentCertificate.from_bytes(data)
        certificate.check(read_public_key(folder.authority_public_key), fleet=fleet, issued_at=0)
    except SecureAggregationError as error:
        raise ConfigError(f"the certificate is not this fleet's: {error.message}", hint=error.hint) from None
    if certificate.identity_key != request.identity_key.public_bytes_raw() or certificate.device != request.device:
        raise ConfigError("the certificate is for another device", hint="let the authority sign this request")
    return certificate


def _admitted(folder: FleetFolder, config: FleetConfig, request: EnrolmentRequest, data: bytes | None) -> Certificate:
    """Read and check what leader and helper have signed for a device."""
    hint = "palate authority certify REQUEST; the helper's operator admits it (palate helper admit); then --certificate"
    if data is None:
        raise ConfigError("the helper must admit the device as well", hint=hint)
    try:
        key = request.identity_key.public_bytes_raw()
        own = [each for each in certificates_in(data) if each.identity_key == key]
        if not own or (own[0].generation == 1 and own[0].device != request.device):
            raise ConfigError("the certificate is for another device, or for another key", hint=hint)
        own[0].verify(parties_of(folder, config))
    except SecureAggregationError as error:
        raise ConfigError(f"the certificate is not this fleet's: {error.message}", hint=error.hint or hint) from None
    if own[0].fleet != config.name:
        raise ConfigError("the certificate is of another fleet", hint=hint)
    with closing(FleetState(folder.state)) as state:
        if key_number(own[0].identity_key) in revoked_in(state):
            raise ConfigError(
                "the device's key is revoked for good", hint="its owner makes a new device, with a new key"
            )
    return own[0]
