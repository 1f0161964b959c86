"""Signing for devices, as an authority or as the leader: certificates, the register of all, and which keys are out.

A person has one live key. Their device's number follows from the first; a later key goes on under that number, as its
next generation, and the one before is out.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from palate.errors import ConfigError
from palate.privacy.aggregators.admission import (
    ADMISSION_SECONDS,
    Certificate,
    Parties,
    Revocation,
    entries_of,
    key_number,
    list_of,
)
from palate.privacy.enrolment import EnrolmentRequest, device_name
from palate.privacy.secagg.encoding import Kind, header
from palate.privacy.secagg.errors import SecureAggregationError
from palate.privacy.secagg.keys import EnrolmentAuthority, EnrolmentCertificate
from palate.server.fleet.claims import parties_of
from palate.server.fleet.config import load_config
from palate.server.fleet.folder import FleetFolder, make_key, read_key, write_public_key
from palate.server.fleet.transport.enrolment import Enrolment

REGISTER_SECONDS = 180 * 86_400
"""How long a register holds that a third party has signed."""


def make_authority_key(path: Path) -> Ed25519PublicKey:
    """Make the key of a separate enrolment authority, and write its public half beside it as `.pub`.

    Raises
    ------
    ConfigError
        If there is a file already.
    """
    key = make_key(path)
    write_public_key(path.with_suffix(".pub"), key.public_key())
    return key.public_key()


def certify(
    request: EnrolmentRequest, fleet: str, authority: Ed25519PrivateKey, *, not_after: int = 0
) -> EnrolmentCertificate:
    """Sign, as the authority of a fleet of peers, that a device belongs to it; until `not_after`, or without an end."""
    return EnrolmentAuthority(fleet, authority).enrol(request.device, request.identity_key, not_after=not_after)


def certificate_for(
    request: EnrolmentRequest, fleet: str, *, replaces: Certificate | None, not_after: int
) -> Certificate:
    """Write what admits a device to a fleet with a helper; nobody has signed it.

    Parameters
    ----------
    request, fleet
        Who asks, and name of the fleet.
    replaces
        The certificate of the key that the same person had until now: the new key goes on under that device's number,
        as the next generation. None for a person's first key.
    not_after
        Last second, since 1970, at which it admits.

    Raises
    ------
    ConfigError
        If the device asks with the key that it would replace.
    """
    key = request.identity_key.public_bytes_raw()
    if replaces is None:
        return Certificate(fleet=fleet, device=request.device, identity_key=key, generation=1, not_after=not_after)
    if replaces.identity_key == key:
        raise ConfigError(
            f"device {device_name(replaces.device)} has this key already", hint="the request is the old device's own"
        )
    return replace(replaces, identity_key=key, generation=replaces.generation + 1, not_after=not_after, signatures=())


def with_register(
    asked: Sequence[EnrolmentRequest],
    known: Sequence[bytes],
    fleet: str,
    authority: Ed25519PrivateKey,
    *,
    days: int | None,
    now: int,
    replaces: int | None = None,
    revoked: Sequence[int] = (),
) -> list[bytes]:
    """Sign, as the authority of a fleet with a helper, for new devices, the register of all, and which keys are out.

    Parameters
    ----------
    asked, known
        Requests of new devices; certificates of those that are enrolled, and the newest revocation.
    fleet, authority
        Name of the fleet, and the authority's key.
    days
        How long an admission lasts; two years unless given. With less than a quarter left, one is renewed.
    now
        Seconds since 1970; the epoch of the register, and the number of a revocation.
    replaces
        Number of the device whose key the one new device replaces.
    revoked
        Numbers of devices whose keys are out from now on.

    Returns
    -------
    list
        Certificates of all, the register, and the newest revocation where there is one.

    Raises
    ------
    ConfigError
        If a certificate is not this authority's, or a device is not among them.
    """
    life = ADMISSION_SECONDS if days is None else days * 86_400
    own = Parties(leader=b"", helper=b"", authority=authority.public_key().public_bytes_raw())
    live: dict[int, Certificate] = {}
    newest: Revocation | None = None
    try:
        for data in known:
            if data.startswith(header(Kind.REVOCATION)):
                newest = Revocation.from_bytes(data)
                newest.verify(own)
                continue
            each = Certificate.from_bytes(data)
            each.verify(own)
            if each.device not in live or live[each.device].generation < each.generation:
                live[each.device] = each
    except SecureAggregationError as error:
        raise ConfigError(f"a certificate is not this authority's: {error.message}", hint="check --key") from None
    out = [_live(live, device).identity_key for device in revoked]
    before = None if replaces is None else _live(live, replaces)
    out += [] if before is None else [before.identity_key]
    for each in [each for each in live.values() if each.not_after - now < life // 4]:
        live[each.device] = replace(each, not_after=now + life, signatures=()).signed(authority)
    for request in asked:
        each = certificate_for(request, fleet, replaces=before, not_after=now + life)
        live[each.device] = each.signed(authority)
    if out:
        newest = with_keys_out(newest, fleet, out, number=now).signed(authority)
    gone = frozenset(newest.keys if newest else ())
    members = [each for each in live.values() if key_number(each.identity_key) not in gone]
    register = list_of(entries_of(members), fleet=fleet, epoch=now, not_after=now + REGISTER_SECONDS)
    statements = [*members, register.signed(authority), *([] if newest is None else [newest])]
    return [each.to_bytes() for each in statements]


def with_keys_out(newest: Revocation | None, fleet: str, keys: Iterable[bytes], *, number: int = 0) -> Revocation:
    """Return the revocation that follows the newest one, with more keys in it; nobody has signed it.

    Parameters
    ----------
    newest
        The one before; None for the first.
    fleet
        Name of the fleet.
    keys
        Signing keys that are out from now on, 32 bytes each.
    number
        Of the revocation, at least; it counts up in any case.
    """
    before = () if newest is None else newest.keys
    number = max(number, 1 if newest is None else newest.number + 1)
    return Revocation(fleet=fleet, number=number, keys=tuple(sorted({*before, *map(key_number, keys)})))


def _live(live: Mapping[int, Certificate], device: int) -> Certificate:
    """Return the newest certificate of a device; ConfigError if it has none."""
    if device not in live:
        raise ConfigError(
            f"device {device_name(device)} is not among those that are enrolled",
            hint="palate server devices lists them; palate server waiting -o FILE writes their certificates",
        )
    return live[device]


def propose(
    folder: FleetFolder, request: EnrolmentRequest, *, replaces: int | None = None, now: float | None = None
) -> Certificate:
    """Sign, as the leader, that a device belongs to a fleet with a helper; the helper's operator must admit it too.

    Parameters
    ----------
    folder, request
        The fleet's, and who asks.
    replaces
        Number of the device whose key it replaces.
    now
        Seconds since 1970.

    Raises
    ------
    ConfigError, RunError
        If the fleet has no helper, a file of it is missing, or there is no such device.
    """
    config = load_config(folder.config)
    if parties_of(folder, config).authority is not None:
        raise ConfigError("a third party admits devices to this fleet", hint="palate authority certify --helper --key")
    with closing(Enrolment(folder.enrolment)) as enrolment:
        known = [Certificate.from_bytes(node.certificate) for node in enrolment.all()]
    live = {each.device: each for each in sorted(known, key=lambda each: each.generation)}
    certificate = certificate_for(
        request,
        config.name,
        replaces=None if replaces is None else _live(live, replaces),
        not_after=int(time.time() if now is None else now) + ADMISSION_SECONDS,
    )
    return certificate.signed(read_key(folder.server_key))
