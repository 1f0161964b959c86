"""What the helper checks before it signs who takes part: certificates, registers and revocations.

Where leader and helper admit together, a statement reaches the helper with the leader's signature and leaves with both.
The helper signs for a device only what its own operator has admitted, one live key a device. Where a third party
admits, the helper only checks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.privacy.aggregators.admission import (
    Certificate,
    Entry,
    Membership,
    Parties,
    Register,
    Revocation,
    entries_of,
)
from palate.privacy.aggregators.errors import RegisterRefused

Statement = TypeVar("Statement", Certificate, Register, Revocation)


def completed(statement: Statement, *, fleet: str, parties: Parties, key: Ed25519PrivateKey) -> Statement:
    """Return a statement with the signatures of all who admit, the helper's own added where it is one of them.

    Parameters
    ----------
    statement
        With the leader's signature alone, or with all.
    fleet, parties
        The helper's fleet, and the keys of all.
    key
        The helper's.

    Raises
    ------
    RegisterRefused
        If it is for another fleet, or a signature is missing or wrong.
    """
    if statement.fleet != fleet:
        raise RegisterRefused(f"this is for fleet {statement.fleet!r}, not {fleet!r}", hint="ask the right helper")
    if parties.authority is None and len(statement.signatures) == 1:
        statement = statement.countersigned(key)
    statement.verify(parties)
    return statement


def check_admissible(certificate: Certificate, *, newest: Certificate | None, holder: int | None, now: int) -> None:
    """Check that a device may have this key: one live key a device, one device a key.

    Parameters
    ----------
    certificate
        What is to be signed.
    newest
        What the helper has signed last for this device.
    holder
        The device for which it has signed this key before, if any.
    now
        Seconds since 1970.

    Raises
    ------
    RegisterRefused
        If the generation goes back, a key changes without a new generation, another device has the key, or it has
        ended.
    """
    if certificate.not_after < now:
        raise RegisterRefused(f"the certificate ended at {certificate.not_after}", hint="ask the leader for a new one")
    if holder is not None and holder != certificate.device:
        raise RegisterRefused(f"device {holder:016x} has this key", hint="every device has a key of its own")
    if newest is None:
        return
    if certificate.generation < newest.generation:
        raise RegisterRefused(
            f"generation {certificate.generation} of device {certificate.device:016x} is over, "
            f"{newest.generation} is the newest",
            hint="ask the leader for the newest certificate",
        )
    if certificate.generation == newest.generation and certificate.identity_key != newest.identity_key:
        raise RegisterRefused(
            f"device {certificate.device:016x} has another key in generation {newest.generation}",
            hint="a new key is a new generation",
        )


def check_register(
    register: Register,
    certificates: Sequence[Certificate],
    *,
    parties: Parties,
    revocation: Revocation | None,
    newest: Register | None,
    signed: Callable[[int], Certificate | None],
) -> dict[int, Entry]:
    """Check a register with all signatures against the certificates of its devices, and return its list.

    Parameters
    ----------
    register
        With the signatures of all who admit.
    certificates
        Of all its devices, one a device.
    parties
        The keys of all.
    revocation
        The newest one, with all signatures.
    newest
        The register that was checked last.
    signed
        Gives, where leader and helper admit, what the helper has signed last for a device.

    Raises
    ------
    RegisterRefused
        If a signature is wrong, the list is another, the epoch goes back, or a key is not the device's newest.
    """
    if newest is not None and register.content_hash != newest.content_hash and register.epoch <= newest.epoch:
        raise RegisterRefused(
            f"the register is of epoch {register.epoch}, {newest.epoch} was checked before",
            hint="count the epoch up with every change",
        )
    for each in certificates:
        if each.fleet != register.fleet:
            raise RegisterRefused(f"a certificate is for fleet {each.fleet!r}", hint="check the leader's list")
        each.verify(parties)
        last = signed(each.device) if parties.authority is None else each
        if last is None or last.generation != each.generation or last.identity_key != each.identity_key:
            raise RegisterRefused(
                f"the key of device {each.device:016x} is not the newest that was admitted here",
                hint="have the helper's operator admit it: palate helper admit",
            )
    entries = entries_of(certificates)
    if len(entries) != len(certificates):
        raise RegisterRefused("a device has two certificates in the list", hint="send the newest one alone")
    return dict(Membership.checked(register, entries, parties, revocation).entries)
