"""An invitation into a fleet: a link with a one-time code, and all that a device must know to trust its server.

    palate://fleet.example:9092/<fingerprint>#<code>

The fingerprint is that of the fleet's *card*: its certificate authority for TLS and the keys of server, helper and
authority. A device fetches the card from anybody, compares the fingerprint, and trusts nothing else from then on.

The code is the seed of an Ed25519 key. It never travels: a device signs its enrolment request with it, and whoever
admits knows the public half alone. So a stolen list of invitations invites nobody, and a server that passes a request
on cannot put its own in the place. Format: docs/formats/enrolment.md.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from dataclasses import dataclass, field, fields
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from palate.privacy.enrolment import EnrolmentFileRefused, EnrolmentRequest, Welcome, certificate_from
from palate.privacy.ledger import canonical
from palate.privacy.ledger.errors import MalformedBody
from palate.privacy.ledger.framing import framed

CARD_FORMAT: Final = "palate-fleet-card/1"
JOIN_FORMAT: Final = "palate-join/1"
MAX_CARD_BYTES: Final = 1 << 16
CARD_PATH, JOIN_PATH = "/v1/palate/card", "/v1/palate/join"
_CODE_BYTES = 16
_SEED_TAG = b"palate/invitation/code/1"
_JOIN_TAG = b"palate/invitation/join/1"
_LINK = re.compile(
    r"palate://((?:\[[0-9a-fA-F:.]{2,64}\]|[A-Za-z0-9.-]{1,253}):[0-9]{1,5})/([A-Za-z0-9_-]{43})#([A-Za-z0-9_-]{22})"
)
_NEW_LINK = "ask whoever invited you for a new link"


@dataclass(frozen=True, kw_only=True)
class FleetCard:
    """What a device must know of a fleet before it asks to be taken in; public.

    Attributes
    ----------
    fleet
        Name of the fleet.
    tls_authority
        The only certificate authority for the server's TLS, as DER in hexadecimal.
    server_key, helper_key, authority_key
        As in a `Welcome`; the last two may be empty.
    """

    fleet: str
    tls_authority: str
    server_key: str
    helper_key: str
    authority_key: str

    @staticmethod
    def of(fleet: str, ca_certificate: str, server_key: str, helper_key: str, authority_key: str) -> FleetCard:
        """Make a card; the certificate is given as PEM."""
        der = certificate_from(ca_certificate.encode("ascii")).public_bytes(Encoding.DER)
        return FleetCard(
            fleet=fleet,
            tls_authority=der.hex(),
            server_key=server_key,
            helper_key=helper_key,
            authority_key=authority_key,
        )

    @property
    def ca_certificate(self) -> str:
        """The certificate authority as PEM; EnrolmentFileRefused if it is none."""
        try:
            return certificate_from(bytes.fromhex(self.tls_authority)).public_bytes(Encoding.PEM).decode()
        except ValueError:
            raise EnrolmentFileRefused("the fleet's card has no certificate", hint=_NEW_LINK) from None

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the card's bytes, 32 bytes; a link has it."""
        return sha256(self.to_bytes()).digest()

    def to_bytes(self) -> bytes:
        """Write the card as canonical JSON."""
        return canonical.encode(
            {"format": CARD_FORMAT} | {each.name: getattr(self, each.name) for each in fields(self)}
        )

    @staticmethod
    def from_bytes(data: bytes) -> FleetCard:
        """Read a card.

        Raises
        ------
        EnrolmentFileRefused
            If the bytes are not exactly what `to_bytes` writes.
        """
        values = _read(data, CARD_FORMAT, {each.name for each in fields(FleetCard)}, "a fleet's card")
        card = FleetCard(**values)
        _ = card.ca_certificate
        return card

    def check(self, welcome: Welcome) -> None:
        """Check that a welcome has the keys of this card.

        Raises
        ------
        EnrolmentFileRefused
            If one is another.
        """
        names = ("fleet", "server_key", "helper_key", "authority_key", "ca_certificate")
        other = [name for name in names if getattr(welcome, name) != getattr(self, name)]
        if other:
            raise EnrolmentFileRefused(
                f"the welcome is not from the fleet of the link: {', '.join(other)} differ",
                hint="do not trust this server, and tell whoever invited you",
            )


@dataclass(frozen=True)
class Invitation:
    """A link: where the server is, which card it must show, and a code that takes one device in.

    Attributes
    ----------
    address
        The server, "host:port".
    card_fingerprint
        SHA-256 of the fleet's card, 32 bytes.
    code
        Secret, 16 bytes.
    """

    address: str
    card_fingerprint: bytes
    code: bytes = field(repr=False)

    @staticmethod
    def new(address: str, card: FleetCard) -> Invitation:
        """Draw a code."""
        return Invitation(address, card.fingerprint, secrets.token_bytes(_CODE_BYTES))

    @property
    def key(self) -> Ed25519PrivateKey:
        """What the code is the seed of; its public half names the invitation."""
        return Ed25519PrivateKey.from_private_bytes(sha256(framed(_SEED_TAG, self.code)).digest())

    @property
    def public_key(self) -> bytes:
        """The public half, 32 bytes: all that whoever admits keeps of the code."""
        return self.key.public_key().public_bytes_raw()

    @property
    def link(self) -> str:
        """The link, code included: for whoever is invited, and for nobody's log."""
        return f"palate://{self.address}/{_text(self.card_fingerprint)}#{_text(self.code)}"

    @staticmethod
    def parse(link: str) -> Invitation:
        """Read a link.

        Raises
        ------
        EnrolmentFileRefused
            If it is none, or was cut short.
        """
        match = _LINK.fullmatch(link.strip())
        try:
            if match is None:
                raise ValueError
            found = Invitation(match[1], _bytes(match[2]), _bytes(match[3]))
        except (ValueError, binascii.Error):
            raise EnrolmentFileRefused(
                "this is not a whole invitation: palate://host:port/fingerprint#code",
                hint="put the link in quotation marks, or ask whoever invited you for a new one",
            ) from None
        return found

    def opened(self, card: bytes) -> FleetCard:
        """Read the card that a server shows, if it is the one of this link.

        Raises
        ------
        EnrolmentFileRefused
            If it is another.
        """
        if sha256(card).digest() != self.card_fingerprint:
            raise EnrolmentFileRefused(
                f"{self.address} shows another fleet's card than the link names",
                hint="do not go on: another server answers there, or its keys have changed; ask whoever invited you",
            )
        return FleetCard.from_bytes(card)

    def join(self, request: bytes) -> bytes:
        """Write what a device sends: its signed enrolment request, signed by the code as well."""
        return canonical.encode(
            {
                "format": JOIN_FORMAT,
                "invitation": self.public_key.hex(),
                "request": request.decode("ascii"),
                "signature": self.key.sign(framed(_JOIN_TAG, self.card_fingerprint, request)).hex(),
            }
        )


@dataclass(frozen=True)
class Joining:
    """A device that asks to be taken in, as it arrived.

    Attributes
    ----------
    invitation
        Public half of the code, 32 bytes.
    request
        What the device asks for, and its bytes.
    """

    invitation: bytes
    request: EnrolmentRequest
    request_bytes: bytes = field(repr=False)

    @staticmethod
    def open(data: bytes, card: FleetCard) -> Joining:
        """Read what `Invitation.join` wrote, and check both signatures; whether the invitation counts is not checked.

        Raises
        ------
        EnrolmentFileRefused
            If it is none, or a signature is wrong.
        """
        values = _read(data, JOIN_FORMAT, {"invitation", "request", "signature"}, "a request to join")
        request = values["request"].encode("ascii")
        try:
            invitation, signature = bytes.fromhex(values["invitation"]), bytes.fromhex(values["signature"])
            if (invitation.hex(), signature.hex()) != (values["invitation"], values["signature"]):
                raise ValueError
            Ed25519PublicKey.from_public_bytes(invitation).verify(
                signature, framed(_JOIN_TAG, card.fingerprint, request)
            )
        except (ValueError, InvalidSignature):
            raise EnrolmentFileRefused(
                "the request is not signed by the code of its invitation", hint=_NEW_LINK
            ) from None
        return Joining(invitation, EnrolmentRequest.open(request), request)


def _read(data: bytes, form: str, names: set[str], what: str) -> dict[str, str]:
    try:
        values = canonical.decode(data)
    except MalformedBody as error:
        raise EnrolmentFileRefused(f"not {what}: {error.message}", hint=_NEW_LINK) from None
    texts = {name: value for name, value in values.items() if isinstance(value, str)}
    if set(values) != names | {"format"} or set(texts) != set(values) or texts.pop("format") != form:
        raise EnrolmentFileRefused(f"not {what} of format {form}", hint="is the other side of this version of Palate?")
    return texts


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _bytes(text: str) -> bytes:
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if _text(data) != text:
        raise ValueError("another spelling")
    return data
