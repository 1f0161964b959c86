"""What the server checks of a message before it lets it into a round; a refusal changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from palate.privacy.secagg.errors import (
    AdvertRefused,
    ConsistencyRefused,
    MaskedRefused,
    RevealRefused,
    SecureAggregationError,
    SharesRefused,
)
from palate.privacy.secagg.masks import has_low_order
from palate.privacy.secagg.messages import Advert, Consistency, DeviceMessage, MaskedVector, Reveal, SealedShares
from palate.privacy.secagg.offer import Offer
from palate.privacy.secagg.shamir import PRIME, SHARE_SIZE

_PRIME_BYTES = PRIME.to_bytes(SHARE_SIZE, "big")


@dataclass(frozen=True)
class Sender:
    """Who sends, after the roster is closed.

    Attributes
    ----------
    device
        Whom the transport knows as the sender.
    identity_key
        Its enrolled key.
    root
        Root of the roster.
    """

    device: int
    identity_key: bytes
    root: bytes


class Screen:
    """Checks messages against an offer.

    Parameters
    ----------
    offer
        The round's offer.
    authority_key
        Public key of the enrolment authority.
    """

    def __init__(self, offer: Offer, authority_key: Ed25519PublicKey) -> None:
        self._offer = offer
        self._context = offer.context
        self._authority_key = authority_key

    def advert(self, advert: Advert, device: int, present: Mapping[int, Advert]) -> Advert:
        """Check an advert; `present` are those that were accepted.

        Raises
        ------
        AdvertRefused
            If it is for another offer, of another device, wrongly signed, with keys that are unusable or another's,
            or if the roster is full.
        EnrolmentRefused
            If the certificate is not the authority's.
        """
        if advert.context != self._context:
            raise AdvertRefused(f"the advert of device {device} is for another offer", hint="it may be a replay")
        if advert.certificate.device != device:
            raise AdvertRefused(f"device {device} sent the advert of {advert.certificate.device}", hint="drop it")
        if device not in present and len(present) >= self._offer.max_roster:
            raise AdvertRefused(
                f"device {device} came after {self._offer.max_roster} others", hint="it may join the next round"
            )
        advert.certificate.check(self._authority_key, fleet=self._offer.fleet, issued_at=self._offer.issued_at)
        advert.verify(
            advert.certificate.identity_key, AdvertRefused, f"the advert of device {device} is not signed by it"
        )
        keys = {advert.cipher_key, advert.mask_key}
        taken = (other for other in present.values() if other.certificate.device != device)
        if len(keys) < 2 or any(keys & {other.cipher_key, other.mask_key} for other in taken):
            raise AdvertRefused(f"device {device} advertises a key that is taken", hint="it must draw its own")
        if any(map(has_low_order, keys)):
            raise AdvertRefused(f"device {device} advertises a key of low order", hint="it must draw its own")
        return advert

    def shares(self, message: SealedShares, sender: Sender, others: int) -> SealedShares:
        """Check sealed shares for so many `others` on the roster.

        Raises
        ------
        SharesRefused
            If they are for another round, of another device, wrongly signed, or of another number.
        """
        self._check(message, sender, SharesRefused)
        if len(message.sealed) != others:
            raise SharesRefused(
                f"device {sender.device} sealed {len(message.sealed)} shares for {others} others", hint="drop it"
            )
        return message

    def masked(self, message: MaskedVector, sender: Sender) -> MaskedVector:
        """Check a masked vector; its values are checked as they are read.

        Raises
        ------
        MaskedRefused
            If it is for another round, of another device, wrongly signed, or of another shape.
        """
        self._check(message, sender, MaskedRefused)
        size, expected = len(message.words), self._offer.vector_length * self._offer.word_bytes
        if message.word_bytes != self._offer.word_bytes or size != expected:
            raise MaskedRefused(
                f"device {sender.device} sent {size} bytes in values of {message.word_bytes}, the offer asks for"
                f" {expected} in values of {self._offer.word_bytes}",
                hint="drop it",
            )
        return message

    def consistency(self, message: Consistency, sender: Sender, sets_hash: bytes) -> Consistency:
        """Check a signature over the round's survivor sets.

        Raises
        ------
        ConsistencyRefused
            If it is for another round, of another device, wrong, or over other sets.
        """
        self._check(message, sender, ConsistencyRefused)
        if message.sets_hash != sets_hash:
            raise ConsistencyRefused(f"device {sender.device} signed other survivor sets", hint="drop it")
        return message

    def reveal(self, message: Reveal, sender: Sender, sets_hash: bytes, held: int) -> Reveal:
        """Check the form of `held` revealed shares; whether they are true shows when secrets are put together.

        Raises
        ------
        RevealRefused
            If they are for another round or other sets, of another device, wrongly signed, of another number, or not
            below p.
        """
        self._check(message, sender, RevealRefused)
        if message.sets_hash != sets_hash:
            raise RevealRefused(f"device {sender.device} revealed for other survivor sets", hint="drop it")
        if len(message.shares) != held or max(message.shares) >= _PRIME_BYTES:
            raise RevealRefused(
                f"device {sender.device} revealed {len(message.shares)} shares, {held} below p are expected",
                hint="drop it",
            )
        return message

    def _check(self, message: DeviceMessage, sender: Sender, error: Callable[..., SecureAggregationError]) -> None:
        if (message.context, message.root) != (self._context, sender.root):
            raise error(f"the message of device {sender.device} is for another round", hint="it may be a replay")
        if message.device != sender.device:
            raise error(f"device {sender.device} sent a message of {message.device}", hint="drop it")
        message.verify(sender.identity_key, error, f"the message of device {sender.device} is not signed by it")
