"""The operator's own certificate authority: one root that devices pin, one certificate for the server (RFC 5280).

Devices trust this root and nothing else, so that no public authority can vouch for another server. Keys are written
once, readable by their owner alone, and never replaced in silence. Node keys are made on the devices themselves
(`palate.client.fleet.identity`); here their public halves are read.
"""

from __future__ import annotations

import ipaddress
import ssl
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
    load_ssh_public_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from palate.errors import ConfigError
from palate.privacy import files as storage
from palate.privacy.enrolment import certificate_from

AUTHORITY_DAYS = 3_650
SERVER_DAYS = 397
"""Public authorities may not go beyond 398 days; a server's key is in use every day, the root's is not."""
BACKDATE = timedelta(hours=1)
"""Devices whose clock is a little slow accept a new certificate too."""
_MAX_NODE_KEY_BYTES = 4_096


class CertificateError(ConfigError):
    """A key or certificate that cannot be made, read or used."""


@dataclass(frozen=True)
class KeyFiles:
    """Where a key and its certificate lie: an authority's, whose certificate devices pin, or a server's.

    Attributes
    ----------
    folder, name
        The folder, and the files' name without their ending.
    """

    folder: Path
    name: Literal["authority", "server"]

    @property
    def key(self) -> Path:
        """Private key, PKCS 8 as PEM, mode 0600; an authority's belongs in a safe place."""
        return self.folder / f"{self.name}.key"

    @property
    def certificate(self) -> Path:
        """Certificate as PEM."""
        return self.folder / f"{self.name}.crt"


def make_authority(
    folder: Path, *, name: str = "Palate fleet", days: int = AUTHORITY_DAYS, now: datetime | None = None
) -> KeyFiles:
    """Make a root key (P-384) and its self-signed certificate, which may sign servers and no further authorities.

    Raises
    ------
    CertificateError
        If one of the files exists, or cannot be written.
    """
    files = KeyFiles(folder, "authority")
    _refuse_existing(files.key, files.certificate)
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start, end = _validity(days, now)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA384())
    )
    _write_pair(files.key, key, files.certificate, certificate)
    return files


def issue_server_certificate(
    authority: KeyFiles,
    folder: Path,
    *,
    hosts: Sequence[str],
    days: int = SERVER_DAYS,
    now: datetime | None = None,
) -> KeyFiles:
    """Make a server's key (P-256) and a certificate for the names and addresses under which devices reach it.

    Parameters
    ----------
    hosts
        DNS names and IP addresses: the subject's alternative names.

    Raises
    ------
    CertificateError
        If a file exists, the authority cannot be used, or a host is not a name or an address.
    """
    files = KeyFiles(folder, "server")
    _refuse_existing(files.key, files.certificate)
    key = ec.generate_private_key(ec.SECP256R1())
    _write_pair(files.key, key, files.certificate, _certified(authority, key, hosts, days=days, now=now))
    return files


def renew_server_certificate(
    authority: KeyFiles,
    server: KeyFiles,
    *,
    hosts: Sequence[str],
    days: int = SERVER_DAYS,
    now: datetime | None = None,
) -> datetime:
    """Replace a server's certificate by one for the same key, in one step; return its last moment.

    A server that runs takes it up by itself. Devices pin the authority, and notice nothing.

    Raises
    ------
    CertificateError
        As `issue_server_certificate`; the old certificate then stays.
    """
    certificate = _certified(authority, _read_key(server.key), hosts, days=days, now=now)
    try:
        storage.replace(server.certificate, certificate.public_bytes(Encoding.PEM), mode=storage.SHARED)
    except OSError as error:
        raise CertificateError(
            f"{server.certificate} cannot be written: {_reason(error)}", hint="check the folder"
        ) from error
    return certificate.not_valid_after_utc


def last_moment(certificate: Path) -> datetime:
    """Return the last moment at which a certificate is valid; raises CertificateError if it cannot be read."""
    return _read_certificate(certificate).not_valid_after_utc


def _certified(
    authority: KeyFiles, key: ec.EllipticCurvePrivateKey, hosts: Sequence[str], *, days: int, now: datetime | None
) -> x509.Certificate:
    """Have the authority certify a server's key for these hosts."""
    if not hosts:
        raise CertificateError(
            "a server certificate for 0 hosts", hint="name at least one host that devices connect to"
        )
    authority_key, root = _read_key(authority.key), _read_certificate(authority.certificate)
    _check_pair(authority.key, authority_key, root)
    start, end = _validity(days, now)
    if not root.not_valid_before_utc <= start + BACKDATE <= root.not_valid_after_utc:
        raise CertificateError(
            f"{authority.certificate} is valid until {root.not_valid_after_utc:%Y-%m-%d}",
            hint="make a new authority, and give its certificate to every device",
        )
    names = [_host(host) for host in hosts]
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Palate server")]))
        .issuer_name(root.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(start, root.not_valid_before_utc))
        .not_valid_after(min(end, root.not_valid_after_utc))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA384())
    )


def server_tls(certificate: Path, key: Path, *, now: datetime | None = None) -> ssl.SSLContext:
    """Read a server's certificate and key for TLS 1.3.

    Raises
    ------
    CertificateError
        If one is missing, unreadable, expired, not valid yet, readable by others (the key), or if they do not belong
        together.
    """
    loaded, private = _read_certificate(certificate), _read_key(key)
    _check_pair(key, private, loaded)
    now = datetime.now(UTC) if now is None else now
    if not loaded.not_valid_before_utc <= now <= loaded.not_valid_after_utc:
        raise CertificateError(
            f"{certificate} is valid from {loaded.not_valid_before_utc:%Y-%m-%d %H:%M} "
            f"to {loaded.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, and it is {now:%Y-%m-%d %H:%M}",
            hint="palate server renew-tls; devices need nothing new",
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        raise CertificateError(f"{certificate} cannot be used: {error}", hint="issue it again") from error
    return context


def check_issued_by(certificate: Path, authority: Path) -> None:
    """Check that a server certificate was signed by an authority's; raises CertificateError where it was not."""
    try:
        _read_certificate(certificate).verify_directly_issued_by(_read_certificate(authority))
    except (ValueError, TypeError, InvalidSignature) as error:
        raise CertificateError(
            f"{certificate} was not issued by {authority}",
            hint="devices that pin this authority would refuse the server; issue the certificate with its key",
        ) from error


def check_accepted(server: KeyFiles, authority: Path, host: str) -> None:
    """Check that a server is one that devices accept, by shaking hands in memory as they do.

    Parameters
    ----------
    server
        Its certificate and key.
    authority
        The certificate that devices pin.
    host
        Name or address by which they connect.

    Raises
    ------
    CertificateError
        If a device would refuse: another issuer, another host, a validity that is over; or as `server_tls`.
    """
    context = server_tls(server.certificate, server.key)
    check_issued_by(server.certificate, authority)
    pinning = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        pinning.load_verify_locations(cafile=authority)
        device = pinning.wrap_bio(down, up, server_hostname=host)
        fleet = context.wrap_bio(up, down, server_side=True)
        for side in (device, fleet, device, fleet):  # two turns each: the server may ask for another key share
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
        device.do_handshake()
    except (ssl.SSLError, ValueError) as error:
        reason = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else str(error)
        raise CertificateError(
            f"devices that connect to {host!r} would refuse {server.certificate}: {reason}",
            hint="let the authority issue one for the host in listen.address of fleet.toml, or mend the address",
        ) from error


def read_node_public_key(text: bytes) -> bytes:
    """Read a node's public key, one OpenSSH line or PEM, and return it as PEM (SubjectPublicKeyInfo).

    Raises
    ------
    CertificateError
        If it is not a public key on the curve P-384.
    """
    hint = "send the .pub file that the device made, one line that begins with ecdsa-sha2-nistp384"
    if len(text) > _MAX_NODE_KEY_BYTES:
        raise CertificateError(f"a node key of {len(text)} bytes, at most {_MAX_NODE_KEY_BYTES} are read", hint=hint)
    if b"PRIVATE KEY" in text:
        raise CertificateError(
            "this is a private key, not a public one", hint="it must never leave the device: make a new one there"
        )
    try:
        key = load_pem_public_key(text) if text.lstrip().startswith(b"-----") else load_ssh_public_key(text.strip())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError("the node key cannot be read", hint=hint) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        kind = key.curve.name if isinstance(key, ec.EllipticCurvePublicKey) else type(key).__name__
        raise CertificateError(f"the node key is of kind {kind}, not P-384", hint=hint)
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _validity(days: int, now: datetime | None) -> tuple[datetime, datetime]:
    if not 1 <= days <= AUTHORITY_DAYS:
        raise CertificateError(
            f"a validity of {days} days, 1 to {AUTHORITY_DAYS} are allowed", hint="choose fewer days"
        )
    moment = datetime.now(UTC) if now is None else now
    return moment - BACKDATE, moment + timedelta(days=days)


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass
    labels = host.split(".")
    if len(host) > 253 or not all(
        label.isascii() and label.replace("-", "").isalnum() and len(label) < 64 for label in labels
    ):
        raise CertificateError(
            f"{host!r} is not a host name or an IP address",
            hint="write it as devices dial it, without https:// or port",
        )
    return x509.DNSName(host)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _check_pair(path: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    if key.public_key() != certificate.public_key():
        raise CertificateError(
            f"{path} is not the key of the certificate beside it", hint="keep the two files of one making together"
        )


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return certificate_from(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CertificateError(
            f"{path} cannot be read as a certificate: {_reason(error)}", hint="make it again, or name another file"
        ) from error


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise CertificateError(f"{path} has mode {mode:04o}, others can use it", hint=f"chmod 600 {path}")
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateError(
            f"{path} cannot be read as a key: {_reason(error)}", hint="make it again, or name another file"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError(f"{path} holds a {type(key).__name__}, not an elliptic-curve key", hint="make it again")
    return key


def _reason(error: Exception) -> str:
    return error.strerror or "I/O error" if isinstance(error, OSError) else "damaged, or of another kind"


def _refuse_existing(*paths: Path) -> None:
    for path in paths:
        if path.exists():
            raise CertificateError(
                f"{path} exists, and is not replaced", hint="move it away first, or choose another folder"
            )


def _write_pair(
    key_path: Path, key: ec.EllipticCurvePrivateKey, certificate_path: Path, certificate: x509.Certificate
) -> None:
    _write_new(key_path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    _write_new(certificate_path, certificate.public_bytes(Encoding.PEM), 0o644)


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        storage.create(path, content, mode=mode)
    except OSError as error:
        raise CertificateError(f"{path} cannot be written: {_reason(error)}", hint="check the folder") from error
