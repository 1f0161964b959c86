"""What the helper checks before it signs who takes part: certificates, registers and revocations.

Where leader and helper admit together, a statement reaches the helper with the leader's signature and leaves with both.
The helper signs for a device only what its own operator has admitted, one live key a device. Where a third party
admits, the helper only checks.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.privacy.aggregators.admission import (
    ADMISSION_SECONDS,
    Certificate,
    Entries,
    Membership,
    Parties,
    Register,
    Revocation,
    entries_of,
    key_number,
)
from palate.privacy.aggregators.errors import RegisterRefused

_CLOCK_SECONDS = 86_400
"""By how much the clocks of leader and helper may differ."""

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


@dataclass(frozen=True)
class LiveKey:
    """The newest key of a device that the helper has signed for, 32 bytes, and its generation."""

    generation: int
    identity_key: bytes


def check_admissible(
    certificate: Certificate, *, live: LiveKey | None, holder: int | None, revoked: Container[int], now: int
) -> None:
    """Check that a device may have this key: one live key a device, one device a key.

    Parameters
    ----------
    certificate
        What is to be signed.
    live
        What the helper has signed last for this device.
    holder
        The device for which it has signed this key before, if any.
    revoked
        Numbers of the keys that are out.
    now
        Seconds since 1970.

    Raises
    ------
    RegisterRefused
        If the generation goes back, a key changes without a new generation, another device has the key, the key is out,
        or the certificate has ended.
    """
    device = f"{certificate.device:016x}"
    if key_number(certificate.identity_key) in revoked:
        raise RegisterRefused(f"the key of device {device} is revoked", hint="its person needs a new key")
    if certificate.not_after < now:
        raise RegisterRefused(f"the certificate ended at {certificate.not_after}", hint="ask the leader for a new one")
    if holder is not None and holder != certificate.device:
        raise RegisterRefused(f"device {holder:016x} has this key", hint="every device has a key of its own")
    if live is None:
        return
    if certificate.generation < live.generation:
        raise RegisterRefused(
            f"generation {certificate.generation} of device {device} is over, {live.generation} is the newest",
            hint="ask the leader for the newest certificate",
        )
    if certificate.generation == live.generation and certificate.identity_key != live.identity_key:
        raise RegisterRefused(
            f"device {device} has another key in generation {live.generation}", hint="a new key is a new generation"
        )


def check_renewal(certificate: Certificate, *, live: LiveKey | None, revoked: Container[int], now: int) -> None:
    """Check that a certificate only lengthens what was admitted before: the same key, and one that is not revoked.

    Raises
    ------
    RegisterRefused
        If it is for a device or a key that was never admitted, for one that is revoked, or lasts too long.
    """
    name = f"device {certificate.device:016x}"
    if live is None or (live.generation, live.identity_key) != (certificate.generation, certificate.identity_key):
        raise RegisterRefused(f"{name} was not admitted here with this key", hint="palate helper admit")
    if key_number(certificate.identity_key) in revoked:
        raise RegisterRefused(f"the key of {name} is revoked", hint="its person needs a new key")
    if not now < certificate.not_after <= now + ADMISSION_SECONDS + _CLOCK_SECONDS:
        raise RegisterRefused(
            f"{name} would be admitted until {certificate.not_after}, at most {ADMISSION_SECONDS} seconds are allowed",
            hint="check the leader's clock",
        )


def check_register(
    register: Register,
    certificates: Sequence[bytes],
    *,
    parties: Parties,
    newest: Register | None,
    live: Mapping[int, LiveKey],
    verified: set[bytes],
) -> Entries:
    """Check a register with all signatures against the certificates of its devices, and return its list.

    Parameters
    ----------
    register
        With the signatures of all who admit.
    certificates
        Of all its devices, one a device.
    parties
        The keys of all.
    newest
        The register that was checked last.
    live
        Where leader and helper admit: the keys that the helper has signed for, by device.
    verified
        Certificates whose signatures were verified before; those of this register join them.

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
    read = []
    for data in certificates:
        each = Certificate.from_bytes(data)
        if each.fleet != register.fleet:
            raise RegisterRefused(f"a certificate is for fleet {each.fleet!r}", hint="check the leader's list")
        if data not in verified:
            each.verify(parties)
            verified.add(data)
        if parties.authority is None and live.get(each.device) != LiveKey(each.generation, each.identity_key):
            raise RegisterRefused(
                f"the key of device {each.device:016x} is not the newest that was admitted here",
                hint="have the helper's operator admit it: palate helper admit",
            )
        read.append(each)
    entries = entries_of(read)
    if len(entries) != len(read):
        raise RegisterRefused("a device has two certificates in the list", hint="send the newest one alone")
    return Membership.checked(register, entries, parties).entries
