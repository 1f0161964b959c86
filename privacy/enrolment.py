"""How a device joins a fleet: a request that it signs, and the operator's welcome that it pins.

Two files that people carry, in the manner of a certificate request (RFC 2986) and its answer: the request names the
device's public keys and proves that it holds the signing one; the welcome names everything that the device will trust
from then on. docs/formats/enrolment.md has the bytes; the operator's and the device's programs both read them here.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from dataclasses import dataclass, field, fields
from hashlib import sha256
from typing import Any, Final, cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from palate.privacy.aggregators.admission import Certificate, Parties, key_number
from palate.privacy.aggregators.errors import RegisterRefused
from palate.privacy.errors import PrivacyError
from palate.privacy.ledger import canonical
from palate.privacy.ledger.errors import MalformedBody
from palate.privacy.ledger.framing import framed
from palate.privacy.secagg.errors import SecureAggregationError
from palate.privacy.secagg.keys import EnrolmentCertificate

REQUEST_FORMAT: Final = "palate-enrolment-request/1"
WELCOME_FORMAT: Final = "palate-welcome/1"
AGGREGATORS_FORMAT: Final = "palate-welcome/2"
"""Of a welcome into a fleet with two aggregators."""
NEXT_KEY_FORMAT: Final = "palate-welcome/3"
"""Of one to a person's next key there, with what the earlier ones were charged."""
WELCOME_NAME: Final = "welcome.json"
CATALOGUE_NAME: Final = "catalogue.parquet"
ADMISSION_PATH: Final = "/v1/palate/admission"
"""Where an enrolled device fetches its newest certificate."""
MAX_WELCOME_BYTES: Final = 1 << 16
MAX_CATALOGUE_BYTES: Final = 1 << 28
_MAX_RATIO: Final = 20
"""Unpacked size over packed size: a catalogue is Parquet, which is packed already."""
_MAX_ENTRIES: Final = 100
"""Of an archive's directory, by their mark, which two files may have in them by chance."""

_REQUEST_TAG = b"palate/enrolment/request/1"
_HEX32 = re.compile(r"[0-9a-f]{64}")
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]{2,64}\]|[A-Za-z0-9.-]{1,253}):([0-9]{1,5})")
_PEERS_ONLY = {"authority_is_separate", "tau_thousandths"}
_AGGREGATORS_ONLY = {"helper_key", "carried_nano"}
_RANGES: Final[dict[str, tuple[float, float]]] = {
    "epsilon": (0.0, 1e6),
    "delta": (0.0, 0.5),
    "rounds": (0, 1 << 20),
    "smallest_roster": (1, 1 << 20),
    "tau_thousandths": (499, 999),
    "gamma_thousandths": (-1, 499),
    "num_items": (0, 1 << 28),
    "carried_nano": (-1, 1 << 53),
}
"""What numbers of a welcome are above, and the most that they may be."""
_REQUEST_FIELDS = {"format", "device", "identity_key", "node_key", "signature"}


class EnrolmentFileRefused(PrivacyError):
    """A request or a welcome that is damaged, altered, of another version, or for another device."""


def device_number(identity_key: Ed25519PublicKey) -> int:
    """Return the number by which a fleet knows a device whose first signing key this is."""
    return key_number(identity_key.public_bytes_raw())


def device_name(number: int) -> str:
    """Write a device's number as 16 hexadecimal digits."""
    return f"{number:016x}"


def certificate_from(data: bytes) -> x509.Certificate:
    """Read an X.509 certificate, PEM or DER; ValueError where it is none, or of a version that there is not."""
    read = x509.load_pem_x509_certificate if b"-----BEGIN" in data else x509.load_der_x509_certificate
    try:
        return read(data)
    except x509.InvalidVersion as error:
        raise ValueError(str(error)) from error


def spaced(fingerprint: str) -> str:
    """Group the digits of a fingerprint, so that two people can compare it aloud."""
    return " ".join(fingerprint[start : start + 4] for start in range(0, len(fingerprint), 4))


@dataclass(frozen=True, eq=False)
class EnrolmentRequest:
    """A device's request to an operator.

    Attributes
    ----------
    identity_key
        Signs the device's part of every round.
    node_key
        P-384 key of the device's node, with which it logs in to the server.
    """

    identity_key: Ed25519PublicKey
    node_key: ec.EllipticCurvePublicKey

    @property
    def device(self) -> int:
        """The device's number, which follows from its signing key."""
        return device_number(self.identity_key)

    @property
    def node_key_pem(self) -> bytes:
        """The node key as PEM, SubjectPublicKeyInfo."""
        return self.node_key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over both keys in hexadecimal, for two people to compare."""
        return sha256(framed(_REQUEST_TAG, *self._keys())).hexdigest()

    def sign(self, identity: Ed25519PrivateKey) -> bytes:
        """Write the request, signed by the key that it names.

        Raises
        ------
        EnrolmentFileRefused
            If `identity` is another key.
        """
        if identity.public_key().public_bytes_raw() != self.identity_key.public_bytes_raw():
            raise EnrolmentFileRefused(
                "a request is signed by the key that it names", hint="sign with the device's key"
            )
        identity_key, node_key = self._keys()
        return canonical.encode(
            {
                "format": REQUEST_FORMAT,
                "device": device_name(self.device),
                "identity_key": identity_key.hex(),
                "node_key": node_key.hex(),
                "signature": identity.sign(framed(_REQUEST_TAG, identity_key, node_key)).hex(),
            }
        )

    @staticmethod
    def open(data: bytes) -> EnrolmentRequest:
        """Read a request and check its signature.

        Raises
        ------
        EnrolmentFileRefused
            If the bytes are not exactly what `sign` writes.
        """
        try:
            values = canonical.decode(data.rstrip(b"\r\n"))  # an editor or a mail program may have ended the line
        except MalformedBody as error:
            raise EnrolmentFileRefused(f"not an enrolment request: {error.message}", hint=_ASK_AGAIN) from None
        if set(values) != _REQUEST_FIELDS or values["format"] != REQUEST_FORMAT:
            raise EnrolmentFileRefused(f"not an enrolment request of format {REQUEST_FORMAT}", hint=_ASK_AGAIN)
        try:
            identity_key = Ed25519PublicKey.from_public_bytes(_unhex(values["identity_key"]))
            node_key = serialization.load_der_public_key(_unhex(values["node_key"]))
            signature = _unhex(values["signature"])
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise EnrolmentFileRefused("the request's keys are not keys", hint=_ASK_AGAIN) from None
        if not isinstance(node_key, ec.EllipticCurvePublicKey) or not isinstance(node_key.curve, ec.SECP384R1):
            raise EnrolmentFileRefused("the request's node key is not on the curve P-384", hint=_ASK_AGAIN)
        request = EnrolmentRequest(identity_key, node_key)
        keys = request._keys()
        if values["node_key"] != keys[1].hex() or values["device"] != device_name(request.device):
            raise EnrolmentFileRefused("the request's keys are not in their one spelling", hint=_ASK_AGAIN)
        try:
            identity_key.verify(signature, framed(_REQUEST_TAG, *keys))
        except InvalidSignature:
            raise EnrolmentFileRefused("the request is not signed by the key that it names", hint=_ASK_AGAIN) from None
        return request

    def _keys(self) -> tuple[bytes, bytes]:
        node_key = self.node_key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return self.identity_key.public_bytes_raw(), node_key


_ASK_AGAIN = "let the device write it anew: palate client enrol --request FILE"
_WELCOME_AGAIN = "ask the operator for a new one: palate server enrol REQUEST --welcome FILE"


@dataclass(frozen=True, kw_only=True)
class Welcome:
    """Everything that a device trusts and expects as a member of a fleet.

    Attributes
    ----------
    fleet
        Name of the fleet.
    address
        The server's, "host:port".
    ca_certificate
        The only authority for the server's TLS certificate, PEM.
    server_key
        Ed25519 public key that signs offers and receipts, hexadecimal; the leader's, where there are two aggregators.
    helper_key
        The helper's Ed25519 public key, hexadecimal; empty in a fleet whose devices aggregate among themselves.
    authority_key
        Ed25519 public key that signs enrolments, hexadecimal; empty where leader and helper admit devices together.
    authority_is_separate
        Among peers: the fleet's statement that other people than the operators hold the authority's key.
    certificate
        The device's, hexadecimal: an `EnrolmentCertificate` among peers, else a `Certificate` of who admits.
    epsilon, delta, rounds
        What the server plans to spend in total, and the number of training rounds.
    smallest_roster
        Fewest devices in a round that the server will run; the least batch of two aggregators.
    tau_thousandths
        Among peers: quorum of survivors, in thousandths of a roster.
    gamma_thousandths
        Corrupt devices allowed for, in thousandths: of a roster, or of all registered devices of two aggregators.
    num_items, catalogue_sha256
        Rows and hash of the catalogue that comes with it.
    carried_nano
        What rounds of this fleet were charged to earlier keys of the same person, by the server's ledger, in 1e-9 of
        2 rho at unit user; it comes off this device's budget.

    Raises
    ------
    EnrolmentFileRefused
        If a field is of another type or out of range.
    """

    fleet: str
    address: str
    ca_certificate: str
    server_key: str
    helper_key: str = ""
    authority_key: str
    authority_is_separate: bool = False
    certificate: str = field(repr=False)
    epsilon: float
    delta: float
    rounds: int
    smallest_roster: int
    tau_thousandths: int = 500
    gamma_thousandths: int
    num_items: int
    catalogue_sha256: str
    carried_nano: int = 0

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if type(value).__name__ != each.type:
                raise _refused(f"{each.name} must be {each.type}, not {type(value).__name__}")
        if not 1 <= len(self.fleet) <= 100 or not (self.fleet.isascii() and self.fleet.isprintable()):
            raise _refused("fleet is not 1 to 100 printable ASCII characters")
        if self.carried_nano and not self.helper_key:
            raise _refused("carried_nano is for fleets with a helper: among peers a person has one key")
        _ = self.host, self.port
        optional = {"helper_key", "authority_key"} if self.helper_key else {"helper_key"}
        for name in ("server_key", "helper_key", "authority_key", "catalogue_sha256"):
            if not _HEX32.fullmatch(getattr(self, name)) and (getattr(self, name) or name not in optional):
                raise _refused(f"{name} is not 64 hexadecimal digits")
        for name, (above, most) in _RANGES.items():
            value = getattr(self, name)
            if not above < value <= most:  # false for NaN too
                raise _refused(f"{name} is {value}, it must be above {above} and at most {most}")
        try:
            certificate_from(self.ca_certificate.encode("ascii"))
        except ValueError:
            raise _refused("ca_certificate is no certificate in PEM") from None
        _ = self.device

    @property
    def host(self) -> str:
        """The server's name or number."""
        return self._address()[0]

    @property
    def port(self) -> int:
        """The server's port."""
        return self._address()[1]

    @property
    def parties(self) -> Parties | None:
        """The keys of two aggregators, and of who admits; None in a fleet of peers."""
        if not self.helper_key:
            return None
        keys = (bytes.fromhex(key) for key in (self.server_key, self.helper_key, self.authority_key))
        leader, helper, authority = keys
        return Parties(leader=leader, helper=helper, authority=authority or None)

    @property
    def enrolment(self) -> EnrolmentCertificate:
        """The device's certificate among peers, decoded; its signature is not checked."""
        try:
            return EnrolmentCertificate.from_bytes(bytes.fromhex(self.certificate))
        except (ValueError, SecureAggregationError):
            raise _refused("certificate is no enrolment certificate") from None

    @property
    def admission(self) -> Certificate:
        """The device's certificate under two aggregators, decoded; its signatures are not checked."""
        try:
            return Certificate.from_bytes(bytes.fromhex(self.certificate))
        except (ValueError, SecureAggregationError):
            raise _refused("certificate does not admit a device") from None

    @property
    def device(self) -> int:
        """Number of the device that the welcome is for."""
        return (self.admission if self.helper_key else self.enrolment).device

    @property
    def fingerprint(self) -> str:
        """SHA-256 of `to_json` in hexadecimal: covers every field, and through its hash the catalogue."""
        return sha256(self.to_json()).hexdigest()

    def check_for(self, identity_key: Ed25519PublicKey) -> None:
        """Check that this welcome is for the holder of a signing key, and is consistent.

        Raises
        ------
        EnrolmentFileRefused
            If it is for another device, or its certificate is not the authority's.
        """
        parties = self.parties
        certificate = self.enrolment if parties is None else self.admission
        if certificate.identity_key != identity_key.public_bytes_raw():
            raise EnrolmentFileRefused(
                f"the welcome is for device {device_name(certificate.device)}, this one is "
                f"{device_name(device_number(identity_key))}",
                hint="give the operator this device's own request: palate client enrol --request FILE",
            )
        try:
            if isinstance(certificate, EnrolmentCertificate):
                key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.authority_key))
                certificate.check(key, fleet=self.fleet, issued_at=0)
            else:
                assert parties is not None
                certificate.verify(parties)
                if certificate.fleet != self.fleet:
                    raise RegisterRefused(f"it is of fleet {certificate.fleet!r}, not {self.fleet!r}")
        except SecureAggregationError as error:
            raise EnrolmentFileRefused(f"the welcome's certificate: {error.message}", hint=_WELCOME_AGAIN) from None

    def to_json(self) -> bytes:
        """Write the fields as JSON in one spelling: sorted keys, no white space, ASCII."""
        form = WELCOME_FORMAT
        if self.helper_key:
            form = NEXT_KEY_FORMAT if self.carried_nano else AGGREGATORS_FORMAT
        values = {name: getattr(self, name) for name in _names(form)}
        return json.dumps({"format": form, **values}, sort_keys=True, separators=(",", ":")).encode("ascii")

    @staticmethod
    def from_json(data: bytes) -> Welcome:
        """Read the fields.

        Raises
        ------
        EnrolmentFileRefused
            If the bytes are not exactly what `to_json` writes.
        """
        if len(data) > MAX_WELCOME_BYTES:
            raise _refused(f"it has {len(data)} bytes, at most {MAX_WELCOME_BYTES} are accepted")
        try:
            values = json.loads(data)
        except (ValueError, RecursionError):
            raise _refused("it is not JSON") from None
        form = values.pop("format", None) if isinstance(values, dict) else None
        if form not in (WELCOME_FORMAT, AGGREGATORS_FORMAT, NEXT_KEY_FORMAT):
            raise _refused(f"it is not of format {WELCOME_FORMAT}, {AGGREGATORS_FORMAT} or {NEXT_KEY_FORMAT}")
        expected = _names(form)
        if set(values) != expected:
            raise _refused(f"fields {', '.join(sorted(set(values) ^ expected))} are missing or not known")
        welcome = Welcome(**cast("dict[str, Any]", values))
        if welcome.to_json() != data:
            raise _refused("it is not in its one spelling")
        return welcome

    def pack(self, catalogue: bytes) -> bytes:
        """Return the archive that the operator hands over: these fields and the catalogue, as zip.

        Raises
        ------
        EnrolmentFileRefused
            If the catalogue is another than the fields say, or too large.
        """
        self._check_catalogue(catalogue)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in ((WELCOME_NAME, self.to_json()), (CATALOGUE_NAME, catalogue)):
                archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
        return packed.getvalue()

    @staticmethod
    def unpack(data: bytes) -> tuple[Welcome, bytes]:
        """Read an archive into memory; no file of it is written, and no name of it is used as a path.

        Returns
        -------
        welcome, catalogue
            The fields, and the catalogue's bytes, which have the hash that the fields say.

        Raises
        ------
        EnrolmentFileRefused
            If it holds anything but the two files, they are too large, or they do not belong together.
        """
        if data.count(b"PK\x01\x02") > _MAX_ENTRIES:  # the directory is read as a whole
            raise _refused(f"it must hold {WELCOME_NAME} and {CATALOGUE_NAME} and nothing else")
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                names = sorted(entry.filename for entry in archive.infolist())
                if names != sorted((WELCOME_NAME, CATALOGUE_NAME)):
                    raise _refused(f"it must hold {WELCOME_NAME} and {CATALOGUE_NAME} and nothing else")
                welcome = Welcome.from_json(_member(archive, WELCOME_NAME, MAX_WELCOME_BYTES))
                catalogue = _member(archive, CATALOGUE_NAME, MAX_CATALOGUE_BYTES)
        except (
            zipfile.BadZipFile,
            zlib.error,
            NotImplementedError,
            RuntimeError,
            EOFError,
            OSError,
            ValueError,
        ) as error:
            if isinstance(error, PrivacyError):
                raise
            raise _refused("it is no zip archive, or a damaged one") from None
        welcome._check_catalogue(catalogue)
        return welcome, catalogue

    def _check_catalogue(self, catalogue: bytes) -> None:
        if len(catalogue) > MAX_CATALOGUE_BYTES:
            raise _refused(f"its catalogue has {len(catalogue)} bytes, at most {MAX_CATALOGUE_BYTES} are accepted")
        found = sha256(catalogue).hexdigest()
        if found != self.catalogue_sha256:
            raise _refused(f"its catalogue has the hash {found}, not {self.catalogue_sha256}")

    def _address(self) -> tuple[str, int]:
        match = _ADDRESS.fullmatch(self.address)
        if match is None or not 1 <= int(match[2]) <= 65535:
            raise _refused("address is not host:port with a port of 1 to 65535")
        return match[1].strip("[]"), int(match[2])


def _names(form: str) -> set[str]:
    """Fields of a welcome of a format."""
    left_out = {
        WELCOME_FORMAT: _AGGREGATORS_ONLY,
        AGGREGATORS_FORMAT: _PEERS_ONLY | {"carried_nano"},
        NEXT_KEY_FORMAT: _PEERS_ONLY,
    }
    return {each.name for each in fields(Welcome)} - left_out[form]


def _member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """Read one file of an archive; the size that the archive states is checked, and then not trusted."""
    stated = archive.getinfo(name)
    if stated.file_size > most:
        raise _refused(f"{name} in it has more than the {most} bytes that are accepted")
    if stated.file_size > max(MAX_WELCOME_BYTES, _MAX_RATIO * stated.compress_size):
        raise _refused(f"{name} in it would unpack to {stated.file_size:,} bytes from {stated.compress_size:,}")
    with archive.open(name) as member:
        data = member.read(stated.file_size + 1)
    if len(data) != stated.file_size:
        raise _refused(f"{name} in it has another size than it states")
    return data


def _refused(what: str) -> EnrolmentFileRefused:
    return EnrolmentFileRefused(f"the welcome is not accepted: {what}", hint=_WELCOME_AGAIN)


def _unhex(value: object) -> bytes:
    """Read lower-case hexadecimal digits; raises ValueError for any other spelling."""
    raw = bytes.fromhex(value) if isinstance(value, str) else b""
    if not raw or raw.hex() != value:
        raise ValueError("not lower-case hexadecimal digits")
    return raw
