"""Invitations of a fleet: one-time codes that take devices in while the server runs.

Of a code only the public half of its key is kept (`palate.privacy.invitation`). Each takes one device, once; the same
device may ask again with it. Where the enrolment authority's key is in the fleet's folder, the server admits at once.
Otherwise a device waits until whoever admits has signed for it (`palate server waiting`).
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from palate.errors import ConfigError, EnvironmentProblem, RunError
from palate.privacy.aggregators.admission import Certificate, Register, Revocation, entries_of, key_number
from palate.privacy.enrolment import EnrolmentFileRefused, EnrolmentRequest, device_name
from palate.privacy.invitation import CARD_PATH, JOIN_PATH, FleetCard, Invitation, Joining
from palate.privacy.ledger.framing import framed
from palate.privacy.secagg.encoding import MAGIC, Kind, header
from palate.privacy.secagg.errors import SecureAggregationError
from palate.privacy.secagg.keys import EnrolmentCertificate
from palate.server.fleet.claims import parties_of
from palate.server.fleet.config import FleetConfig, load_config
from palate.server.fleet.folder import FleetFolder, read_key, read_public_key
from palate.server.fleet.registering import certificates_in, keep_register, revoked_in
from palate.server.fleet.revoking import keep_revocation
from palate.server.fleet.setup import tls_authority, welcome
from palate.server.fleet.state import FleetState
from palate.server.fleet.transport.enrolment import Enrolment
from palate.server.fleet.transport.http import Refused
from palate.server.helper.queries import parts_of

log = logging.getLogger(__name__)

FORMAT = 1
_SCHEMA = """
create table invitation (
    key blob primary key,
    not_after integer not null,
    device text,
    request blob,
    used_at integer
) strict
"""


@dataclass(frozen=True)
class Waiting:
    """A device with a valid invitation for which nobody has signed yet.

    Attributes
    ----------
    device
        Its name.
    request
        What it asks for, and its bytes.
    since
        When it came, in seconds since 1970.
    """

    device: str
    request: EnrolmentRequest
    request_bytes: bytes
    since: int


class Invitations:
    """The invitations of one fleet; several processes may use the file.

    Parameters
    ----------
    path
        SQLite; made if it is not there.
    clock
        Seconds since 1970.

    Raises
    ------
    RunError
        If the file is damaged, or of another format.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600)
            self._db = sqlite3.connect(path, timeout=5.0, isolation_level=None)
            self._db.execute("pragma synchronous = full")
            self._db.execute("begin immediate")
            (found,) = self._db.execute("pragma user_version").fetchone()
            if found == 0:
                self._db.execute(_SCHEMA)
                self._db.execute(f"pragma user_version = {FORMAT}")
            self._db.execute("commit")
        except (sqlite3.OperationalError, OSError) as error:
            raise EnvironmentProblem(f"{path}: {error}", hint="free some space or mend the disk") from error
        except sqlite3.Error as error:
            raise RunError(f"{path} cannot be read: {error}", hint="is it the fleet's list of invitations?") from error
        if found not in (0, FORMAT):
            self._db.close()
            raise RunError(f"{path} has format {found}, this version reads {FORMAT}", hint="update Palate")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def add(self, keys: list[bytes], *, not_after: int) -> None:
        """Keep the public halves of new codes; each counts until `not_after`, in seconds since 1970."""
        self._db.execute("begin immediate")
        self._db.executemany(
            "insert into invitation values (?, ?, null, null, null)", [(key, not_after) for key in keys]
        )
        self._db.execute("commit")

    def redeem(self, joining: Joining) -> None:
        """Use an invitation for a device; the same device again changes nothing.

        Raises
        ------
        EnrolmentFileRefused
            If the invitation is not known, has ended, or has taken in another device.
        """
        device, now = device_name(joining.request.device), int(self._clock())
        self._db.execute("begin immediate")
        try:
            row = self._db.execute(
                "select not_after, device from invitation where key = ?", (joining.invitation,)
            ).fetchone()
            if row is None:
                raise EnrolmentFileRefused("the invitation is not of this fleet", hint="ask for a new one")
            not_after, used_by = row
            if used_by not in (None, device):
                raise EnrolmentFileRefused("the invitation has taken in another device", hint="ask for a new one")
            if used_by is None and now > not_after:
                raise EnrolmentFileRefused("the invitation has ended", hint="ask for a new one")
            if used_by is None:
                self._db.execute(
                    "update invitation set device = ?, request = ?, used_at = ? where key = ?",
                    (device, joining.request_bytes, now, joining.invitation),
                )
        finally:
            self._db.execute("commit")

    def used(self) -> list[Waiting]:
        """Devices that came with an invitation, oldest first, whether they were admitted since or not."""
        rows = self._db.execute(
            "select device, request, used_at from invitation where device is not null order by used_at, device"
        )
        return [Waiting(device, EnrolmentRequest.open(data), data, since) for device, data, since in rows]

    def open(self) -> int:
        """Count the invitations that may still be used."""
        query = "select count(*) from invitation where device is null and not_after >= ?"
        return int(self._db.execute(query, (int(self._clock()),)).fetchone()[0])


def card_of(folder: FleetFolder) -> FleetCard:
    """Return the card of a fleet, whose fingerprint its invitations name."""
    config, authority = load_config(folder.config), folder.authority_public_key
    return FleetCard.of(
        config.name,
        tls_authority(folder).certificate.read_text(encoding="ascii"),
        read_key(folder.server_key).public_key().public_bytes_raw().hex(),
        config.helper.key,
        read_public_key(authority).public_bytes_raw().hex() if authority.exists() else "",
    )


def invite(folder: FleetFolder, count: int, *, days: float, now: float | None = None) -> list[Invitation]:
    """Make one-time invitations; the codes are in what is returned, and nowhere else."""
    card, address = card_of(folder), load_config(folder.config).listen.address
    made = [Invitation.new(address, card) for _ in range(count)]
    end = int((time.time() if now is None else now) + days * 86_400)
    with Invitations(folder.invitations) as invitations:
        invitations.add([each.public_key for each in made], not_after=end)
    return made


def waiting(folder: FleetFolder) -> list[Waiting]:
    """List the devices that wait until whoever admits has signed for them."""
    with Invitations(folder.invitations) as invitations, closing(Enrolment(folder.enrolment)) as enrolment:
        return [
            each
            for each in invitations.used()
            if enrolment.holder(each.request.identity_key.public_bytes_raw()) is None
        ]


def requests_of(folder: FleetFolder, devices: list[Waiting]) -> bytes:
    """Put the requests of devices that wait into one file, for whoever admits.

    Where a third party admits to a fleet with a helper, it must sign the register of all devices as well: then the
    certificates of those that are enrolled come first, and the newest revocation.
    """
    enrolled: list[bytes] = []
    config = load_config(folder.config)
    if config.helper.there and parties_of(folder, config).authority is not None:
        with closing(Enrolment(folder.enrolment)) as enrolment:
            nodes = enrolment.all()
        with closing(FleetState(folder.state)) as state:
            kept, out = state.revocation(), revoked_in(state)
        for node in nodes:  # a revoked key is not enrolled any more, but a next one may take its place
            revoked = key_number(Certificate.from_bytes(node.certificate).identity_key) in out
            enrolled += [node.certificate] if node.removed_at is None or revoked else []
        enrolled += [] if kept is None else [kept[0]]
    return framed(*enrolled, *(each.request_bytes for each in devices))


def admit(folder: FleetFolder, data: bytes) -> list[str]:
    """Enrol the devices that wait and for which somebody has signed; return their names.

    Parameters
    ----------
    folder
        The fleet's.
    data
        Certificates: one, or several behind their lengths; and the register and a revocation, where a third party signs
        them.

    Raises
    ------
    ConfigError
        If a certificate is not this fleet's.
    """
    config = load_config(folder.config)
    read = Certificate.from_bytes if config.helper.there else EnrolmentCertificate.from_bytes
    try:
        parts = [data] if data.startswith(MAGIC) else parts_of(data)
        registers = [Register.from_bytes(each) for each in parts if each.startswith(header(Kind.REGISTER))]
        revocations = [Revocation.from_bytes(each) for each in parts if each.startswith(header(Kind.REVOCATION))]
        parts = [each for each in parts if not each.startswith((header(Kind.REGISTER), header(Kind.REVOCATION)))]
        signed = {read(each).identity_key: each for each in parts}
        for revocation in revocations:
            with closing(FleetState(folder.state)) as state:
                keep_revocation(state, revocation, parties_of(folder, config))
    except SecureAggregationError as error:
        raise ConfigError(f"these are no certificates: {error.message}", hint="palate authority certify") from None
    asking = [(each, each.request.identity_key.public_bytes_raw()) for each in waiting(folder)]
    taken = [(each, signed[key]) for each, key in asking if key in signed]
    for each, certificate in taken:
        welcome(folder, each.request, certificate=certificate)
    if registers:
        with closing(Enrolment(folder.enrolment)) as enrolment:
            out = {key for revocation in revocations for key in revocation.keys}
            for node in enrolment.nodes():
                if key_number(Certificate.from_bytes(node.certificate).identity_key) in out:
                    enrolment.remove(node.node_id)
            holders = {key: enrolment.holder(key) for key in signed}
            enrolment.renew({node.label: signed[key] for key, node in holders.items() if node is not None})
    for register in registers:
        _keep_register(folder, config, register)
    return [device_name(read(certificate).device) for _, certificate in taken]


def _keep_register(folder: FleetFolder, config: FleetConfig, register: Register) -> None:
    """Keep what a third party has signed of all who are enrolled."""
    with closing(Enrolment(folder.enrolment)) as enrolment, closing(FleetState(folder.state)) as state:
        try:
            keep_register(state, register, entries_of(certificates_in(enrolment)), parties_of(folder, config))
        except SecureAggregationError as error:
            raise ConfigError(
                f"the register is not of those who are enrolled: {error.message}",
                hint="the list has changed meanwhile: palate server waiting -o FILE, and let it be signed again",
            ) from None


class Doorkeeper:
    """Answers devices that are not enrolled yet: the fleet's card, and a welcome for a valid invitation."""

    def __init__(self, folder: FleetFolder) -> None:
        self._folder = folder
        self._card = card_of(folder)

    @property
    def calls(self) -> Mapping[str, Callable[[None, bytes], bytes]]:
        """What is served to anybody, by path."""
        return {CARD_PATH: self._show_card, JOIN_PATH: self._join}

    def _show_card(self, caller: None, body: bytes) -> bytes:
        del caller, body
        return self._card.to_bytes()

    def _join(self, caller: None, body: bytes) -> bytes:
        """Return the welcome, or nothing while the device must wait."""
        del caller
        try:
            joining = Joining.open(body, self._card)
            with Invitations(self._folder.invitations) as invitations:
                invitations.redeem(joining)
        except EnrolmentFileRefused as error:
            raise Refused(403, error.message) from error
        with closing(Enrolment(self._folder.enrolment)) as enrolment:
            known = enrolment.holder(joining.request.identity_key.public_bytes_raw())
        if known is None and not self._folder.authority_key.exists():
            return b""
        try:
            made = welcome(self._folder, joining.request)
        except ConfigError as error:  # it was removed
            raise Refused(410, "removed from the fleet") from error
        log.info("device %s joined by invitation", made.device)
        return made.archive
