"""What the operators of leader and helper give each other, once each way: a card, signed by the key that it names.

    helper.card   fleet, address, signing key and TLS certificate of the helper   -> palate server init --helper
    leader.card   fleet, and the keys of leader, helper and authority             -> palate helper trust

Canonical JSON (docs/formats/ledger.md). Cards hold nothing secret. Operators compare the fingerprint by another way.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from palate.errors import ConfigError
from palate.privacy.aggregators.admission import Parties
from palate.privacy.enrolment import certificate_from
from palate.privacy.ledger import canonical
from palate.privacy.ledger.errors import MalformedBody
from palate.privacy.ledger.framing import framed
from palate.privacy.secagg.encoding import KEY_SIZE, SIGNATURE_SIZE

HELPER_FORMAT: Final = "palate-helper-card/1"
LEADER_FORMAT: Final = "palate-leader-card/1"
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]{2,64}\]|[A-Za-z0-9.-]{1,253}):([1-9][0-9]{0,4})")
_TAG = b"palate/helper/card/1"


@dataclass(frozen=True, kw_only=True)
class HelperCard:
    """What a leader must know of its helper.

    Attributes
    ----------
    fleet
        Name of the fleet.
    address
        `host:port` of the helper's service.
    key
        Its Ed25519 key, 32 bytes.
    certificate
        The only TLS certificate that is trusted there, as PEM.
    """

    fleet: str
    address: str
    key: bytes
    certificate: str

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that the card says, in hexadecimal, for two people to compare."""
        return _fingerprint(self._values())

    @property
    def tls_fingerprint(self) -> str:
        """SHA-256 of the certificate, in hexadecimal."""
        return sha256(_der_of(self.certificate)).hexdigest()

    def sign(self, key: Ed25519PrivateKey) -> bytes:
        """Write the card, signed by the helper."""
        return _signed(self._values(), key)

    @staticmethod
    def open(data: bytes) -> HelperCard:
        """Read a card and check its signature.

        Raises
        ------
        ConfigError
            If the bytes are not what `sign` writes.
        """
        values = _opened(data, HELPER_FORMAT, "key", "a helper's card")
        try:
            der = bytes.fromhex(str(values["tls_certificate"]))
            pem = certificate_from(der).public_bytes(Encoding.PEM).decode("ascii")
            card = HelperCard(
                fleet=str(values["fleet"]),
                address=str(values["address"]),
                key=canonical.unhex(values["key"], KEY_SIZE),
                certificate=pem,
            )
        except (KeyError, ValueError):
            raise _refused("a helper's card") from None
        if card._values() != values or not is_address(card.address):
            raise _refused("a helper's card")
        return card

    def _values(self) -> dict[str, canonical.Value]:
        return {
            "format": HELPER_FORMAT,
            "fleet": self.fleet,
            "address": self.address,
            "key": self.key.hex(),
            "tls_certificate": _der_of(self.certificate).hex(),
        }


@dataclass(frozen=True, kw_only=True)
class LeaderCard:
    """What a helper must know of its fleet.

    Attributes
    ----------
    fleet
        Name of the fleet.
    parties
        The keys of leader, helper and, where a third party admits devices, authority.
    """

    fleet: str
    parties: Parties

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that the card says, in hexadecimal, for two people to compare."""
        return _fingerprint(self._values())

    def sign(self, key: Ed25519PrivateKey) -> bytes:
        """Write the card, signed by the leader."""
        return _signed(self._values(), key)

    @staticmethod
    def open(data: bytes) -> LeaderCard:
        """Read a card and check its signature; raises as `HelperCard.open`."""
        values = _opened(data, LEADER_FORMAT, "leader", "a leader's card")
        try:
            authority = str(values["authority"])
            card = LeaderCard(
                fleet=str(values["fleet"]),
                parties=Parties(
                    leader=canonical.unhex(values["leader"], KEY_SIZE),
                    helper=canonical.unhex(values["helper"], KEY_SIZE),
                    authority=canonical.unhex(authority, KEY_SIZE) if authority else None,
                ),
            )
        except (KeyError, ValueError):
            raise _refused("a leader's card") from None
        if card._values() != values:
            raise _refused("a leader's card")
        return card

    def _values(self) -> dict[str, canonical.Value]:
        return {
            "format": LEADER_FORMAT,
            "fleet": self.fleet,
            "leader": self.parties.leader.hex(),
            "helper": self.parties.helper.hex(),
            "authority": "" if self.parties.authority is None else self.parties.authority.hex(),
        }


def is_address(text: str) -> bool:
    """Whether a text is host:port."""
    found = _ADDRESS.fullmatch(text)
    return found is not None and int(found[2]) <= 65535


def _der_of(pem: str) -> bytes:
    return certificate_from(pem.encode("ascii")).public_bytes(Encoding.DER)


def _fingerprint(values: dict[str, canonical.Value]) -> str:
    return sha256(framed(_TAG, canonical.encode(values))).hexdigest()


def _signed(values: dict[str, canonical.Value], key: Ed25519PrivateKey) -> bytes:
    signature = key.sign(framed(_TAG, canonical.encode(values)))
    return canonical.encode({**values, "signature": signature.hex()}) + b"\n"


def _opened(data: bytes, form: str, signer: str, what: str) -> dict[str, canonical.Value]:
    try:
        values = canonical.decode(data.rstrip(b"\r\n"))  # an editor or a mail program may have ended the line
        signature = canonical.unhex(values.pop("signature", ""), SIGNATURE_SIZE)
        key = Ed25519PublicKey.from_public_bytes(canonical.unhex(values.get(signer, ""), KEY_SIZE))
        key.verify(signature, framed(_TAG, canonical.encode(values)))
    except (MalformedBody, InvalidSignature, ValueError):
        raise _refused(what) from None
    if values.get("format") != form:
        raise _refused(what)
    return values


def _refused(what: str) -> ConfigError:
    return ConfigError(f"this is not {what}, or it was changed on its way", hint="ask its operator for it again")
