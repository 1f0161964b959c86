"""The register of enrolled devices as a leader keeps it: made anew when the list changes, signed by leader and helper.

gamma is a share of those whom the newest register names, whoever is asked in a round. The leader signs first; the
helper signs what lists devices alone that its own operator has admitted.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.errors import RunError
from palate.privacy.aggregators.admission import (
    ADMISSION_SECONDS,
    RENEW_SECONDS,
    Certificate,
    Entries,
    Entry,
    Membership,
    Parties,
    Register,
    Revocation,
    entries_of,
    key_number,
    list_of,
)
from palate.privacy.aggregators.errors import RegisterRefused
from palate.privacy.enrolment import device_name
from palate.privacy.ledger.framing import framed
from palate.server.fleet.state import FleetState
from palate.server.fleet.transport.enrolment import Enrolment
from palate.server.helper.link import HelperLink, HelperUnreachable
from palate.server.helper.queries import parts_of

log = logging.getLogger(__name__)

REGISTER_SECONDS = 30 * 86_400
"""How long a register holds; it is made anew before."""
_WEEK = 7 * 86_400


@dataclass(frozen=True, eq=False)
class RegisterKeeper:
    """The register of one fleet.

    Attributes
    ----------
    fleet, parties
        Name of the fleet, and the keys of all.
    key
        The leader's.
    state, enrolment
        Where it is kept, and who is enrolled.
    helper
        Checks a new one, and signs it.
    """

    fleet: str
    parties: Parties
    key: Ed25519PrivateKey = field(repr=False)
    state: FleetState
    enrolment: Enrolment
    helper: HelperLink
    _checked: set[int] = field(default_factory=set, repr=False)

    def current(self, *, now: int, until: int) -> Membership:
        """Return the register for a round that ends at `until`, in seconds since 1970; asks the helper for a new one.

        Raises
        ------
        HelperUnreachable, RegisterRefused
            If the helper is away, or refuses the register.
        """
        self.carry_revocation()
        if self.parties.authority is not None:
            return self._of_authority(self.newest(), until)
        self._renew(now)
        while True:
            kept = self.newest()
            entries = entries_of(each for each in self._members() if each.not_after >= until)
            if kept is not None and kept.register.not_after >= until and kept.entries == entries:
                return kept
            # Counted up, and never one that was used before a backup was restored, for time has gone on.
            epoch = now if kept is None else max(now, kept.register.epoch + 1)
            self._have_signed(epoch, entries, not_after=max(now + REGISTER_SECONDS, until))

    def _have_signed(self, epoch: int, entries: Entries, *, not_after: int) -> None:
        """Ask the helper for the next register: for the one that it was asked for before, if nothing came back."""
        asked = self.state.asked_register()
        if asked is None:
            unsigned = list_of(entries, fleet=self.fleet, epoch=epoch, not_after=not_after)
            live = [each.to_bytes() for each in certificates_in(self.enrolment) if _is_live(each, entries)]
            asked = framed(unsigned.signed(self.key).to_bytes(), *live)
            self.state.ask_register(asked)  # on disk before it is sent: an epoch has one register
        register, *listed = parts_of(asked)
        try:
            signed = self.helper.countersign(register, listed)
        except RegisterRefused:
            self.state.ask_register(None)  # it has not signed this one; the next may be another
            raise
        self.keep(Register.from_bytes(signed.register), entries_of(Certificate.from_bytes(each) for each in listed))
        self.state.ask_register(None)

    def _of_authority(self, kept: Membership | None, until: int) -> Membership:
        """Return the register that a third party has signed, once the helper has checked it."""
        if kept is None or kept.register.not_after < until:
            raise HelperUnreachable(
                "the authority has signed no register that lasts until the end of the round",
                hint="palate server waiting -o FILE, palate authority certify --helper, palate server admit",
            )
        if kept.register.epoch not in self._checked:
            everybody = certificates_in(self.enrolment, removed=True)
            named = [each.to_bytes() for each in everybody if _is_live(each, kept.entries)]
            self.helper.countersign(kept.register.to_bytes(), named)
            self._checked.add(kept.register.epoch)
        return kept

    def _renew(self, now: int) -> None:
        """Lengthen admissions with less than a quarter of their life left; devices fetch theirs when they next join."""
        ending = [each for each in self._members() if each.not_after - now < RENEW_SECONDS]
        if not ending:
            return
        end = now // _WEEK * _WEEK + ADMISSION_SECONDS  # the same for a while, so that the question is the same
        longer = [replace(each, not_after=end, signatures=()).signed(self.key) for each in ending]
        try:
            signed = self.helper.renew([each.to_bytes() for each in longer])
        except (HelperUnreachable, RegisterRefused) as error:  # none is renewed; those that have not ended go on
            log.warning("the helper does not renew %d admissions: %s", len(longer), error.message)
            return
        certificates = [Certificate.from_bytes(each) for each in signed]
        for each in certificates:
            each.verify(self.parties)
        self.enrolment.renew({device_name(each.device): each.to_bytes() for each in certificates})

    def carry_revocation(self) -> None:
        """Bring the newest revocation to the helper, unless it has it; it counts there from the next answer on.

        Raises
        ------
        HelperUnreachable, RegisterRefused
            If the helper is away, or refuses it.
        """
        kept = self.state.revocation()
        if kept is None or kept[1]:
            return
        signed = self.helper.countersign(b"", [], kept[0]).revocation
        Revocation.from_bytes(signed).verify(self.parties)
        self.state.revocation_carried(kept[0], signed)

    def _members(self) -> Iterator[Certificate]:
        """Yield the certificates of all who are enrolled, and whose keys are not revoked."""
        out = revoked_in(self.state)
        return (each for each in certificates_in(self.enrolment) if key_number(each.identity_key) not in out)

    def newest(self) -> Membership | None:
        """Return the newest register, checked when it came; None before the first."""
        return self._kept(None)

    def of_epoch(self, epoch: int) -> Membership:
        """Return the register that an open round names; RunError if it is gone."""
        kept = self._kept(epoch)
        if kept is None:
            raise RunError(f"register {epoch} is gone", hint="restore fleet.sqlite from a backup")
        return kept

    def keep(self, register: Register, entries: Entries) -> Membership:
        """Check a register with its list, and keep it; RegisterRefused if they do not belong together."""
        return keep_register(self.state, register, entries, self.parties)

    def _kept(self, epoch: int | None) -> Membership | None:
        row = self.state.register(epoch)
        if row is None:
            return None
        return Membership(Register.from_bytes(row[0]), Entries(row[1]), revoked_in(self.state))


def keep_register(state: FleetState, register: Register, entries: Entries, parties: Parties) -> Membership:
    """Check a register with its list, and keep it; RegisterRefused if they do not belong together."""
    membership = Membership.checked(register, entries, parties)
    state.keep_register(register.epoch, register.to_bytes(), entries.leaves)
    return membership


def newest_revocation(state: FleetState) -> Revocation | None:
    """Return the newest revocation, checked when it came; None before the first."""
    kept = state.revocation()
    return None if kept is None else Revocation.from_bytes(kept[0])


def revoked_in(state: FleetState) -> frozenset[int]:
    """Return the numbers of the keys that are out by the newest revocation."""
    newest = newest_revocation(state)
    return frozenset(newest.keys if newest else ())


def certificates_in(enrolment: Enrolment, *, removed: bool = False) -> Iterator[Certificate]:
    """Yield the certificates of all who are enrolled now, and of those who were, if asked."""
    return map(Certificate.from_bytes, enrolment.certificates(removed=removed))


def _is_live(certificate: Certificate, entries: Entries) -> bool:
    return entries.get(certificate.device) == Entry(certificate.identity_key, certificate.not_after)
