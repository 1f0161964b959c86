"""A new fleet: keys, certificates, catalogue and configuration; and the devices that it welcomes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from palate.data.options import ReadOptions
from palate.errors import ConfigError, EnvironmentProblem
from palate.privacy import files
from palate.privacy.enrolment import EnrolmentRequest, Welcome, device_name
from palate.privacy.secagg.errors import SecureAggregationError
from palate.privacy.secagg.keys import EnrolmentAuthority, EnrolmentCertificate
from palate.server.fleet.catalogue import content_of, make_catalogue, read_catalogue
from palate.server.fleet.certificates import KeyFiles, issue_server_certificate, make_authority
from palate.server.fleet.config import checked_config, load_config, to_toml
from palate.server.fleet.folder import FleetFolder, make_key, read_key, read_public_key, write_public_key
from palate.server.fleet.transport.enrolment import Enrolment
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
    config = checked_config(given)
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
    write_public_key(
        folder.authority_public_key, make_key(folder.authority_key).public_key() if public is None else public
    )
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


def certify(request: EnrolmentRequest, fleet: str, authority: Ed25519PrivateKey) -> EnrolmentCertificate:
    """Sign, as the authority, that a device belongs to a fleet."""
    return EnrolmentAuthority(fleet, authority).enrol(request.device, request.identity_key)


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
        What a separate authority has signed with `certify`; no key is needed then.
    readmit
        Take it although it was removed.

    Raises
    ------
    ConfigError, RunError
        If the authority's key is missing, or is not the fleet's; or the certificate is not; or the device was removed.
    """
    config, device = load_config(folder.config), device_name(request.device)
    authority = read_public_key(folder.authority_public_key)
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
        if certificate is not None:
            signed = EnrolmentCertificate.from_bytes(certificate)
        else:
            signed = certify(request, config.name, _authority_key(folder, authority_key, authority))
        _check(signed, request, config.name, authority)
        if not enrolled:
            enrolment.add(request.node_key_pem, label=device, certificate=signed.to_bytes())
    catalogue, digest = read_catalogue(folder.catalogue)
    made = Welcome(
        fleet=config.name,
        address=config.listen.address,
        ca_certificate=tls_authority(folder).certificate.read_text(encoding="ascii"),
        server_key=read_key(folder.server_key).public_key().public_bytes_raw().hex(),
        authority_key=authority.public_bytes_raw().hex(),
        authority_is_separate=folder.authority_is_separate(config.cohort.authority_is_separate),
        certificate=signed.to_bytes().hex(),
        epsilon=config.epsilon,
        delta=config.delta,
        rounds=config.schedule.rounds,
        smallest_roster=config.cohort.smallest,
        tau_thousandths=round(config.cohort.tau * 1000),
        gamma_thousandths=round(config.cohort.gamma * 1000),
        num_items=catalogue.num_items,
        catalogue_sha256=digest,
    )
    archive = made.pack(folder.catalogue.read_bytes())
    return Welcomed(device, request.fingerprint, made.fingerprint, archive, enrolled)


def _authority_key(folder: FleetFolder, path: Path | None, pinned: Ed25519PublicKey) -> Ed25519PrivateKey:
    path = path or folder.authority_key
    if not path.exists():
        raise ConfigError(
            f"the authority's key is not at {path}",
            hint="give --authority-key FILE, or --certificate FILE that the authority has signed",
        )
    key = read_key(path)
    if key.public_key().public_bytes_raw() != pinned.public_bytes_raw():
        raise ConfigError(f"{path} is not the key of this fleet's authority", hint="devices pin another one")
    return key


def _check(certificate: EnrolmentCertificate, request: EnrolmentRequest, fleet: str, key: Ed25519PublicKey) -> None:
    try:
        certificate.check(key, fleet=fleet, issued_at=0)
    except SecureAggregationError as error:
        raise ConfigError(f"the certificate is not this fleet's: {error.message}", hint=error.hint) from None
    if certificate.identity_key != request.identity_key.public_bytes_raw() or certificate.device != request.device:
        raise ConfigError("the certificate is for another device", hint="let the authority sign this request")
