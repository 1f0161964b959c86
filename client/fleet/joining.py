"""Joining a fleet by an invitation: fetch the card, compare its fingerprint, ask to be taken in, and wait for it.

The card is public and is fetched from whoever answers at the address; only its fingerprint, which is in the link, is
believed. From then on the device speaks TLS under the card's authority alone, and sends its request. The code stays
here: it signs the request.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from palate.client.fleet.folder import DeviceFolder
from palate.client.fleet.identity import DeviceKeys
from palate.client.fleet.transport.link import MEDIA_TYPE, BadAnswer, Link, Refused, Unreachable
from palate.client.vault import Vault
from palate.errors import FederationError
from palate.privacy import files
from palate.privacy.enrolment import MAX_CATALOGUE_BYTES, MAX_WELCOME_BYTES, EnrolmentFileRefused, Welcome
from palate.privacy.https import AnswerTooLarge, Caller, NoAnswer, NotTrusted, trusting
from palate.privacy.invitation import CARD_PATH, JOIN_PATH, MAX_CARD_BYTES, FleetCard, Invitation

POLL_SECONDS = 5.0
_TIMEOUT_SECONDS = 30.0


class StillWaiting(FederationError):
    """Whoever admits devices has not signed for this one yet; the same link may be used again."""


def card_of(invitation: Invitation) -> FleetCard:
    """Fetch the card of a fleet, and compare it with the link.

    Raises
    ------
    Unreachable
        If the server does not answer.
    EnrolmentFileRefused
        If it shows another card.
    """
    address = invitation.address
    try:
        anybody = Caller(address, trusting(None), answer_seconds=_TIMEOUT_SECONDS)  # the fingerprint decides
        found = anybody.post(CARD_PATH, b"", lambda: {"content-type": MEDIA_TYPE}, max_bytes=MAX_CARD_BYTES)
        anybody.close()
    except AnswerTooLarge:
        raise BadAnswer(f"{address} sent more than {MAX_CARD_BYTES} bytes", hint="is it a fleet server?") from None
    except (NoAnswer, NotTrusted, ValueError) as error:
        raise Unreachable(
            f"{address} does not answer ({type(error).__name__})", hint="is the server running?"
        ) from error
    if found.status != 200:
        raise BadAnswer(f"{address} answers {found.status}", hint="is it a fleet server of this version of Palate?")
    return invitation.opened(found.body)


def ask(
    folder: DeviceFolder,
    invitation: Invitation,
    card: FleetCard,
    *,
    wait_seconds: float,
    waits: Callable[[str], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Welcome, bytes]:
    """Ask to be taken in, and return the welcome and the catalogue; nothing of them is kept yet.

    Parameters
    ----------
    folder
        A device's, with keys.
    invitation, card
        The link, and the card that it names.
    wait_seconds
        How long to wait for whoever admits devices.
    waits
        Called once, when the device must wait, with the fingerprint of its request.
    sleep
        Waits some seconds.

    Raises
    ------
    EnrolmentFileRefused
        If the invitation does not count, or the welcome is not of the link's fleet.
    StillWaiting
        If nobody has signed for the device in this time.
    FleetError
        If the server is not trusted or does not answer.
    """
    with Vault.open(folder.vault) as vault:
        keys = DeviceKeys.load(vault)
    body = invitation.join(keys.request.sign(keys.signing))
    with tempfile.TemporaryDirectory() as scratch:
        authority = Path(scratch) / "authority.crt"
        files.create(authority, card.ca_certificate.encode("ascii"))
        with Link(invitation.address, keys.node, authority=authority) as link:
            archive = _admitted(link, body, wait_seconds, lambda: waits(keys.request.fingerprint), sleep)
    welcome, catalogue = Welcome.unpack(archive)
    card.check(welcome)
    welcome.check_for(keys.signing.public_key())
    return welcome, catalogue


def _admitted(
    link: Link, body: bytes, wait_seconds: float, waits: Callable[[], None], sleep: Callable[[float], None]
) -> bytes:
    waited = 0.0
    while True:
        try:
            archive = link.call(JOIN_PATH, body, max_bytes=MAX_WELCOME_BYTES + MAX_CATALOGUE_BYTES)
        except Refused as error:
            if error.status != 403:
                raise
            raise EnrolmentFileRefused(
                f"{link.address} does not take this invitation: it has ended, was used by another device, or is of "
                "another fleet",
                hint="ask whoever invited you for a new one",
            ) from None
        if archive:
            return archive
        if waited == 0:
            waits()
        if waited >= wait_seconds:
            raise StillWaiting(
                "whoever admits devices has not signed for this one yet", hint="run the same command again later"
            )
        sleep(POLL_SECONDS)
        waited += POLL_SECONDS
