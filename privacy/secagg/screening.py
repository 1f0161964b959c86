"""Checks of the server before a message enters a round; a refusal changes nothing."""

from __future__ import annotations

from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from palate.privacy.secagg.errors import (
    AdvertRefused,
    ConsistencyRefused,
    MaskedRefused,
    RevealRefused,
    SecureAggregationError,
    SharesRefused,
)
from palate.privacy.secagg.keys import EnrolmentCertificate
from palate.privacy.secagg.masks import has_low_order
from palate.privacy.secagg.messages import Advert, Consistency, DeviceMessage, MaskedVector, Reveal, SealedShares
from palate.privacy.secagg.offer import Offer
from palate.privacy.secagg.shamir import PRIME, SHARE_SIZE

_PRIME_BYTES = PRIME.to_bytes(SHARE_SIZE, "big")
_REFUSALS: dict[type[DeviceMessage], type[SecureAggregationError]] = {
    SealedShares: SharesRefused,
    MaskedVector: MaskedRefused,
    Consistency: ConsistencyRefused,
    Reveal: RevealRefused,
}


def check_advert(
    advert: Advert, offer: Offer, authority_key: Ed25519PublicKey, device: int, present: Mapping[int, Advert]
) -> None:
    """Check an advert; `present` are those that were accepted.

    Raises
    ------
    AdvertRefused
        If it is for another offer, of another device, wrongly signed, with keys that are unusable or another's, or if
        the roster is full.
    EnrolmentRefused
        If the certificate is not the authority's.
    """
    if advert.context != offer.context:
        raise AdvertRefused(f"the advert of device {device} is for another offer", hint="it may be a replay")
    if advert.certificate.device != device:
        raise AdvertRefused(f"device {device} sent the advert of {advert.certificate.device}", hint="drop it")
    if device not in present and len(present) >= offer.max_roster:
        raise AdvertRefused(f"device {device} came after {offer.max_roster} others", hint="it may join the next round")
    advert.certificate.check(authority_key, fleet=offer.fleet, issued_at=offer.issued_at)
    advert.verify(advert.certificate.identity_key, AdvertRefused, f"the advert of device {device} is not signed by it")
    keys = {advert.cipher_key, advert.mask_key}
    taken = (other for other in present.values() if other.certificate.device != device)
    if len(keys) < 2 or any(keys & {other.cipher_key, other.mask_key} for other in taken):
        raise AdvertRefused(f"device {device} advertises a key that is taken", hint="it must draw its own")
    if any(map(has_low_order, keys)):
        raise AdvertRefused(f"device {device} advertises a key of low order", hint="it must draw its own")


def check_message(
    message: DeviceMessage, offer: Offer, root: bytes, sender: EnrolmentCertificate, *, shares: int, sets_hash: bytes
) -> None:
    """Check a message of a device on the roster. Whether its shares are true shows when secrets are put together.

    Parameters
    ----------
    message
        From R1 on.
    offer, root
        The round's offer, and the root of its roster.
    sender
        Certificate of the device that the transport knows as the sender.
    shares
        How many shares the message holds, if it holds any.
    sets_hash
        Of the round's survivor sets, if the message is about them.

    Raises
    ------
    SharesRefused, MaskedRefused, ConsistencyRefused, RevealRefused
        By the kind of message: if it is for another round or other survivor sets, of another device, wrongly signed,
        or of another shape.
    """
    error, device = _REFUSALS[type(message)], sender.device
    if (message.context, message.root) != (offer.context, root):
        raise error(f"the message of device {device} is for another round", hint="it may be a replay")
    if message.device != device:
        raise error(f"device {device} sent a message of {message.device}", hint="drop it")
    message.verify(sender.identity_key, error, f"the message of device {device} is not signed by it")
    if isinstance(message, Consistency | Reveal) and message.sets_hash != sets_hash:
        raise error(f"the message of device {device} is for other survivor sets", hint="drop it")
    match message:
        case SealedShares() if len(message.sealed) != shares:
            raise error(f"device {device} sealed {len(message.sealed)} shares for {shares} others", hint="drop it")
        case MaskedVector():
            size, expected = len(message.words), offer.vector_length * offer.word_bytes
            if message.word_bytes != offer.word_bytes or size != expected:
                raise error(
                    f"device {device} sent {size} bytes in values of {message.word_bytes}, the offer asks for"
                    f" {expected} in values of {offer.word_bytes}",
                    hint="drop it",
                )
        case Reveal() if len(message.shares) != shares or max(message.shares) >= _PRIME_BYTES:
            raise error(
                f"device {device} revealed {len(message.shares)} shares, {shares} below p are expected", hint="drop it"
            )
