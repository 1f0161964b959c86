"""Enrolment: an authority certifies the signing keys of devices (the PKI of Bonawitz et al. 2017).

Peers trust each other's keys because the authority signed them, never because the server passed them on: a server
that invents devices could otherwise surround one with them and read its vector.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from palate.privacy.secagg.encoding import (
    MAX_NUMBER,
    DeviceNumber,
    Kind,
    Message,
    Number,
    PublicKey,
    Text,
    check_text,
    to_sign,
)
from palate.privacy.secagg.errors import EnrolmentRefused, MessageError

Guarantee = Literal["semi-honest", "malicious"]


@dataclass(frozen=True, kw_only=True)
class EnrolmentCertificate(Message):
    """A statement of the authority: this device of this fleet signs with this key.

    Attributes
    ----------
    fleet
        Name of the fleet, printable ASCII.
    device
        Number of the device, any 64 bits; the authority gives each only once.
    identity_key
        Ed25519 public key, 32 bytes.
    not_after
        Last second, since 1970, at which an offer may be issued that the device joins; 0 for no end.
    signature
        Ed25519 signature of the authority, 64 bytes.

    Raises
    ------
    MessageError
        If a field is out of range.
    """

    kind: ClassVar[Kind] = Kind.CERTIFICATE
    fleet: Text
    device: DeviceNumber
    identity_key: PublicKey
    not_after: Number

    def __post_init__(self) -> None:
        check_text(self.fleet)
        if not 0 <= self.not_after <= MAX_NUMBER:
            raise MessageError(f"not_after {self.not_after} is not within 0 ... {MAX_NUMBER}", hint="give seconds")
        _ = self.body  # refuses what cannot be written

    def check(self, authority: Ed25519PublicKey, *, fleet: str, issued_at: int) -> None:
        """Check that the authority enrolled this device in `fleet`, for offers issued at `issued_at`.

        Raises
        ------
        EnrolmentRefused
            If it did not.
        """
        self.check_terms(fleet=fleet, issued_at=issued_at)
        self.verify(authority, EnrolmentRefused, f"the authority did not enrol device {self.device}")

    def check_terms(self, *, fleet: str, issued_at: int) -> None:
        """Check all but the signature: for a certificate that was verified before.

        Raises
        ------
        EnrolmentRefused
            If it is for another fleet, or has ended.
        """
        if self.fleet != fleet:
            raise EnrolmentRefused(
                f"device {self.device} is enrolled in fleet {self.fleet!r}, not {fleet!r}", hint="enrol it here"
            )
        if self.not_after and issued_at > self.not_after:
            raise EnrolmentRefused(
                f"the enrolment of device {self.device} ended at {self.not_after}, the offer is from {issued_at}",
                hint="renew the enrolment",
            )


class EnrolmentAuthority:
    """Enrols devices; its key belongs on another machine than the server's, under other people's control.

    Parameters
    ----------
    fleet
        Name of the fleet.
    key
        The authority's Ed25519 private key.
    """

    def __init__(self, fleet: str, key: Ed25519PrivateKey) -> None:
        check_text(fleet)
        self.fleet = fleet
        self._key = key

    @staticmethod
    def generate(fleet: str) -> EnrolmentAuthority:
        """Make an authority with a new key."""
        return EnrolmentAuthority(fleet, Ed25519PrivateKey.generate())

    def __repr__(self) -> str:
        return f"EnrolmentAuthority({self.fleet!r}, <sealed>)"

    @property
    def public_key(self) -> Ed25519PublicKey:
        """The key that devices pin."""
        return self._key.public_key()

    def enrol(self, device: int, identity_key: Ed25519PublicKey, *, not_after: int = 0) -> EnrolmentCertificate:
        """Certify a device's signing key; the caller has made sure that a person stands behind it, and only once.

        Raises
        ------
        MessageError
            If a number is out of range.
        """
        certificate = EnrolmentCertificate(
            fleet=self.fleet, device=device, identity_key=identity_key.public_bytes_raw(), not_after=not_after
        )
        return certificate.signed(lambda body: self._key.sign(to_sign(body)))


@dataclass(frozen=True, eq=False)
class DeviceIdentity:
    """A device's certificate with the private key that belongs to it.

    Raises
    ------
    EnrolmentRefused
        If the key is another than the certificate's.
    """

    certificate: EnrolmentCertificate
    key: Ed25519PrivateKey = field(repr=False)

    def __post_init__(self) -> None:
        if self.key.public_key().public_bytes_raw() != self.certificate.identity_key:
            raise EnrolmentRefused(
                f"the certificate of device {self.certificate.device} is for another key", hint="enrol this key"
            )

    @property
    def device(self) -> int:
        """Number of the device."""
        return self.certificate.device

    def sign(self, body: bytes) -> bytes:
        """Sign the body of a message, 64 bytes."""
        return self.key.sign(to_sign(body))


def claimed_guarantee(
    *,
    server_key: Ed25519PublicKey,
    authority_key: Ed25519PublicKey,
    authority_is_separate: bool,
) -> Guarantee:
    """Tell which guarantee may be claimed for rounds under these keys.

    "malicious": no sum of fewer than m honest vectors is revealed, whatever the server does, while at most
    floor(gamma n1) devices of a roster collude with it. "semi-honest": the same against a server that follows the
    protocol and looks: a server that enrols devices can invent them, so that gamma bounds nothing.

    Parameters
    ----------
    server_key, authority_key
        The keys that devices pin.
    authority_is_separate
        The fleet policy's statement that other people than the server's operators hold the authority's key.
    """
    same = server_key.public_bytes_raw() == authority_key.public_bytes_raw()
    return "malicious" if authority_is_separate and not same else "semi-honest"
