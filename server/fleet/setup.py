"""A new fleet: keys, certificates, catalogue and configuration; and the devices that it welcomes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from palate.data.options import ReadOptions
from palate.errors import ConfigError, EnvironmentProblem
from palate.privacy import files
from palate.privacy.aggregators.admission import ADMISSION_SECONDS, Certificate, Parties, entries_of, list_of
from palate.privacy.enrolment import EnrolmentRequest, Welcome, device_name
from palate.privacy.secagg.errors import SecureAggregationError
from palate.privacy.secagg.keys import EnrolmentAuthority, EnrolmentCertificate
from palate.server.fleet.catalogue import content_of, make_catalogue, read_catalogue
from palate.server.fleet.certificates import KeyFiles, issue_server_certificate, make_authority
from palate.server.fleet.claims import parties_of
from palate.server.fleet.config import FleetConfig, checked_config, load_config, to_toml
from palate.server.fleet.folder import FleetFolder, make_key, read_key, read_public_key, write_public_key
from palate.server.fleet.transport.enrolment import Enrolment
from palate.server.helper.admitting import certificates_in
from palate.server.helper.cards import HelperCard, LeaderCard
from palate.server.values import merge

REGISTER_SECONDS = 180 * 86_400
"""How long a register holds that a third party has signed."""


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
    counted = {"items": items.num_items, "described": bool(content_of(items, config.content).names)}
    given = merge({"content": counted}, given)  # what the run is planned for
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


def make_authority_key(path: Path) -> Ed25519PublicKey:
    """Make the key of a separate enrolment authority, and write its public half beside it as `.pub`.

    Raises
    ------
    ConfigError
        If there is a file already.
    """
    key = make_key(path)
    write_public_key(path.with_suffix(".pub"), key.public_key())
    return key.public_key()


def certify(
    request: EnrolmentRequest, fleet: str, authority: Ed25519PrivateKey, *, not_after: int = 0
) -> EnrolmentCertificate:
    """Sign, as the authority of a fleet of peers, that a device belongs to it; until `not_after`, or without an end."""
    return EnrolmentAuthority(fleet, authority).enrol(request.device, request.identity_key, not_after=not_after)


def admit_alone(request: EnrolmentRequest, fleet: str, authority: Ed25519PrivateKey, *, not_after: int) -> Certificate:
    """Sign, as the authority of a fleet with a helper, that a device belongs to it."""
    certificate = Certificate(
        fleet=fleet,
        device=request.device,
        identity_key=request.identity_key.public_bytes_raw(),
        generation=1,  # another key is another device: its number follows from its key
        not_after=not_after,
    )
    return certificate.signed(authority)


def with_register(
    asked: Sequence[EnrolmentRequest],
    known: Sequence[bytes],
    fleet: str,
    authority: Ed25519PrivateKey,
    *,
    days: int | None,
    now: int,
) -> list[bytes]:
    """Sign, as the authority of a fleet with a helper, for new devices, and the register of all.

    Parameters
    ----------
    asked, known
        Requests of new devices, and certificates of those that are enrolled.
    fleet, authority
        Name of the fleet, and the authority's key.
    days
        How long an admission lasts; two years unless given. With less than a quarter left, one is renewed.
    now
        Seconds since 1970; the epoch of the register.

    Returns
    -------
    list
        Certificates of all, and the register.

    Raises
    ------
    ConfigError
        If a certificate is not this authority's.
    """
    life = ADMISSION_SECONDS if days is None else days * 86_400
    key = authority.public_key().public_bytes_raw()
    certificates = []
    try:
        for each in map(Certificate.from_bytes, known):
            each.verify(Parties(leader=b"", helper=b"", authority=key))
            renewed = replace(each, not_after=now + life, signatures=()).signed(authority)
            certificates.append(renewed if each.not_after - now < life // 4 else each)
    except SecureAggregationError as error:
        raise ConfigError(f"a certificate is not this authority's: {error.message}", hint="check --key") from None
    certificates += [admit_alone(each, fleet, authority, not_after=now + life) for each in asked]
    entries = entries_of(certificates)
    register = list_of(entries, fleet=fleet, epoch=now, not_after=now + REGISTER_SECONDS).signed(authority)
    return [*(each.to_bytes() for each in certificates), register.to_bytes()]


def propose(folder: FleetFolder, request: EnrolmentRequest, *, now: float | None = None) -> Certificate:
    """Sign, as the leader, that a device belongs to a fleet with a helper; the helper's operator must admit it too.

    Raises
    ------
    ConfigError, RunError
        If the fleet has no helper, or a file of it is missing.
    """
    config = load_config(folder.config)
    if parties_of(folder, config).authority is not None:
        raise ConfigError("a third party admits devices to this fleet", hint="palate authority certify --helper --key")
    certificate = Certificate(
        fleet=config.name,
        device=request.device,
        identity_key=request.identity_key.public_bytes_raw(),
        generation=1,  # another key is another device: its number follows from its key
        not_after=int(time.time() if now is None else now) + ADMISSION_SECONDS,
    )
    return certificate.signed(read_key(folder.server_key))


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
        known = next((node for node in enrolment.all() if node.label == device), None)
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
        if not enrolled:
            enrolment.add(request.node_key_pem, label=device, certificate=signed.to_bytes())
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
        **keys,
    )
    archive = made.pack(folder.catalogue.read_bytes())
    return Welcomed(device, request.fingerprint, made.fingerprint, archive, enrolled)


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
        own = [each for each in certificates_in(data) if each.device == request.device]
        if not own:
            raise ConfigError("the certificate is for another device", hint=hint)
        own[0].verify(parties_of(folder, config))
    except SecureAggregationError as error:
        raise ConfigError(f"the certificate is not this fleet's: {error.message}", hint=error.hint or hint) from None
    if own[0].fleet != config.name or own[0].identity_key != request.identity_key.public_bytes_raw():
        raise ConfigError("the certificate is of another fleet, or for another key", hint=hint)
    return own[0]
