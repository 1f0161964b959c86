"""The roster as one device sees it: its peers and their certificates (Bonawitz et al. 2017, section 6).

A peer's keys are trusted because its enrolled identity key signed them for this offer, and the identity key because
the authority's pinned key certified it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from palate.privacy.secagg.encoding import verify_signature
from palate.privacy.secagg.errors import RosterRefused, SecureAggregationError
from palate.privacy.secagg.keys import EnrolmentCertificate
from palate.privacy.secagg.messages import Roster, RosterEntry
from palate.privacy.secagg.offer import Offer


class Peers:
    """A checked roster.

    Parameters
    ----------
    offer
        The round's offer.
    roster
        The roster, signed by the server.
    own
        This device's entry as it was advertised.
    authority_key
        Pinned key of the enrolment authority.
    known
        Certificates by device number that were verified before.

    Raises
    ------
    RosterRefused
        If it has too few or too many devices, a key twice, or another entry for this device than it advertised.
    """

    def __init__(
        self,
        offer: Offer,
        roster: Roster,
        own: RosterEntry,
        authority_key: Ed25519PublicKey,
        known: Mapping[int, EnrolmentCertificate],
    ) -> None:
        self._offer = offer
        self._entries = roster.entries
        self._authority_key = authority_key
        self._offered = {certificate.device: certificate for certificate in roster.certificates}
        self.verified = dict(known)
        self._checked: set[int] = set()
        self._check_size()
        keys = {key for entry in self._entries for key in (entry.cipher_key, entry.mask_key)}
        if len(keys) != 2 * len(self._entries):
            raise RosterRefused("two devices on the roster share a key", hint="do not trust this round")
        if own not in self._entries:
            raise RosterRefused("the roster does not show what this device advertised", hint="do not trust this round")
        self.root = roster.root
        self.own_rank = self._entries.index(own)
        self.others = tuple(rank for rank in range(self.roster_size) if rank != self.own_rank)

    @property
    def roster_size(self) -> int:
        """n1, devices on the roster."""
        return len(self._entries)

    def entry(self, rank: int) -> RosterEntry:
        """Return what the device of a rank advertised."""
        return self._entries[rank]

    def device(self, rank: int) -> int:
        """Return the number of the device of a rank."""
        return self._entries[rank].device

    def identity_key(self, rank: int) -> bytes:
        """Ed25519 key of the device of a rank; see `verify_identity`."""
        return self.verified[self.device(rank)].identity_key

    def verify_identity(self, rank: int) -> None:
        """Check that the authority enrolled the device of a rank.

        Raises
        ------
        RosterRefused
            If there is no certificate.
        EnrolmentRefused
            If it is not valid.
        """
        device = self.device(rank)
        if device in self._checked:
            return
        known = self.verified.get(device)
        certificate = self._offered.get(device, known)
        if certificate is None:
            raise RosterRefused(f"there is no certificate for device {device}", hint="ask for the whole roster")
        if certificate == known:
            certificate.check_terms(fleet=self._offer.fleet, issued_at=self._offer.issued_at)
        else:
            certificate.check(self._authority_key, fleet=self._offer.fleet, issued_at=self._offer.issued_at)
        self.verified[device] = certificate
        self._checked.add(device)

    def verify_entry(self, rank: int) -> None:
        """Check that an enrolled device advertised these keys for this offer.

        Raises
        ------
        RosterRefused
            If its signature is not valid.
        EnrolmentRefused
            If its certificate is not.
        """
        self.verify_identity(rank)
        entry, key = self.entry(rank), self.identity_key(rank)
        verify_signature(
            key,
            entry.signature,
            entry.advert_body(self._offer.context, key),
            RosterRefused,
            f"the keys of device {entry.device} are not signed by it",
        )

    def check_round(
        self, context: bytes, root: bytes, roster_size: int, error: Callable[..., SecureAggregationError]
    ) -> None:
        """Check that a message is of this round and roster.

        Raises
        ------
        SecureAggregationError
            Made by `error`, if it is not.
        """
        if (context, root, roster_size) != (self._offer.context, self.root, self.roster_size):
            raise error("the message is for another offer or another roster", hint="it may be a replay")

    def _check_size(self) -> None:
        size = self.roster_size
        least = self._offer.fewest_survivors(size)
        if not least <= size <= self._offer.max_roster:
            raise RosterRefused(
                f"a roster of {size} is not between {least} and {self._offer.max_roster}", hint="wait for more devices"
            )
