"""Who belongs to the fleet: every device that is or was enrolled, in a file of the server's own.

Flower keeps its registrations beside messages and runs; here a device's place in the fleet outlives every run. A node
keeps its number for as long as it is enrolled, over restarts too. Another process (the operator's command line) may
enrol and remove nodes while the server runs, so nothing is remembered beside the file but who is enrolled, for as long
as the file is the same.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

from palate.errors import ConfigError, EnvironmentProblem, RunError
from palate.server.fleet.certificates import read_node_public_key

FORMAT = 3
_NODE_ID_BITS = 62
_SCHEMA = """
create table node (
    node_id integer primary key,
    public_key blob not null unique,
    label text not null,
    certificate blob not null,
    enrolled_at real not null,
    removed_at real
) strict
"""


_COLUMNS = "node_id, public_key, label, certificate, enrolled_at, removed_at"


@dataclass(frozen=True)
class EnrolledNode:
    """A device that may talk to this server, or might before it was removed.

    Parameters
    ----------
    node_id
        Its number, drawn at enrolment.
    public_key
        Its P-384 key, SubjectPublicKeyInfo as PEM.
    label
        The device's name in the fleet, 16 hexadecimal digits.
    certificate
        The enrolment authority's, as bytes.
    enrolled_at, removed_at
        Seconds since 1970; None while it is enrolled.
    """

    node_id: int
    public_key: bytes
    label: str
    certificate: bytes
    enrolled_at: float
    removed_at: float | None = None


class Enrolment:
    """The list of enrolled nodes; safe to use from several threads and processes.

    Raises
    ------
    RunError
        If the file is damaged, or of another format.
    EnvironmentProblem
        If the disk is full or broken, or the process has no descriptor left.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._numbers: dict[str, int] = {}
        self._numbers_of: tuple[int, int] | None = None
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600)  # who belongs to the fleet is nobody else's business
            self._db = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
            self._db.execute("pragma synchronous = full")
            self._create()
            self._select("limit 1")
        except (sqlite3.OperationalError, OSError) as error:
            raise EnvironmentProblem(f"{path}: {error}", hint="free some space or mend the disk") from error
        except sqlite3.Error as error:
            raise RunError(f"{path} cannot be read: {error}", hint="is it the fleet's enrolment file?") from error

    def _create(self) -> None:
        try:
            self._db.execute("begin immediate")
            (found,) = self._db.execute("pragma user_version").fetchone()
            if found == 0:
                self._db.execute(_SCHEMA)
                self._db.execute(f"pragma user_version = {FORMAT}")
            self._db.execute("commit")
        except BaseException:
            self._db.close()  # or it holds the file for as long as the error is looked at
            raise
        if found not in (0, FORMAT):
            self._db.close()
            raise RunError(
                f"{self._path} has format {found}, this version reads {FORMAT}",
                hint="use the version of Palate that wrote it",
            )

    def _select(self, condition: str, *values: object) -> list[EnrolledNode]:
        with self._lock:
            return [EnrolledNode(*row) for row in self._db.execute(f"select {_COLUMNS} from node {condition}", values)]

    def add(self, public_key: bytes, *, label: str = "", certificate: bytes = b"") -> EnrolledNode:
        """Enrol a node by its public key (OpenSSH or PEM, NIST P-384), whether it was removed before or not.

        Raises
        ------
        ConfigError
            If the key is not one, or is enrolled already.
        """
        node = EnrolledNode(
            node_id=1 + (1 << _NODE_ID_BITS) + secrets.randbits(_NODE_ID_BITS),
            public_key=read_node_public_key(public_key),
            label=label,
            certificate=certificate,
            enrolled_at=time.time(),
        )
        with self._lock:
            try:
                with self._transaction():
                    self._db.execute(  # one that came back; a key that was replaced stays, and is told so
                        "delete from node where removed_at is not null and "
                        "(public_key = ? or (label = nullif(?, '') and certificate = ?))",
                        (node.public_key, node.label, node.certificate),
                    )
                    self._db.execute("insert into node values (?, ?, ?, ?, ?, ?)", astuple(node))
            except sqlite3.IntegrityError as error:
                fingerprint = hashlib.sha256(node.public_key).hexdigest()
                raise ConfigError(
                    f"the key {fingerprint[:16]} is enrolled already", hint="every device makes a key of its own"
                ) from error
        return node

    def renew(self, certificates: Mapping[str, bytes]) -> None:
        """Replace the certificates of enrolled nodes, by label."""
        with self._lock, self._transaction():
            query = "update node set certificate = ? where label = ? and removed_at is null"
            self._db.executemany(query, [(certificate, label) for label, certificate in certificates.items()])

    def remove(self, node_id: int) -> None:
        """Strike a node off; its key is refused from the next request on, and is told why.

        Raises
        ------
        ConfigError
            If there is no such node.
        """
        with self._lock, self._transaction():
            query = "update node set removed_at = ? where node_id = ? and removed_at is null"
            if self._db.execute(query, (time.time(), node_id)).rowcount != 1:
                raise ConfigError(f"no node {node_id} is enrolled", hint="list the nodes to see their numbers")

    def all(self) -> tuple[EnrolledNode, ...]:
        """All nodes that are or were enrolled, oldest first."""
        return tuple(self._select("order by enrolled_at, node_id"))

    def nodes(self) -> tuple[EnrolledNode, ...]:
        """All enrolled nodes, oldest first."""
        return tuple(self._select("where removed_at is null order by enrolled_at, node_id"))

    def numbers(self) -> Mapping[str, int]:
        """Return the numbers of all enrolled nodes by their labels: a loop asks for them many times a second."""
        with self._lock:
            (version,) = self._db.execute("pragma data_version").fetchone()  # what others wrote
            state = version, self._db.total_changes
            if state != self._numbers_of:
                self._numbers = dict(self._db.execute("select label, node_id from node where removed_at is null"))
                self._numbers_of = state
            return self._numbers

    def certificates(self, *, removed: bool = False) -> Iterator[bytes]:
        """Yield the certificates of enrolled nodes, few in memory at a time; if asked, of removed ones too."""
        last = 0
        while True:
            which = "where node_id > ? and (? or removed_at is null) order by node_id limit 1000"
            page = self._select(which, last, removed)
            if not page:
                return
            yield from (node.certificate for node in page)
            last = page[-1].node_id

    def holder(self, identity_key: bytes) -> EnrolledNode | None:
        """Return the node whose certificate names a signing key of 32 bytes; it may have been removed.

        A key is in its certificate as it is, and 32 bytes of it are nowhere else.
        """
        return next(iter(self._select("where instr(certificate, ?) order by enrolled_at, node_id", identity_key)), None)

    def named(self, label: str) -> list[EnrolledNode]:
        """List the nodes of a device, oldest first; they may have been removed."""
        return self._select("where label = ? order by enrolled_at, node_id", label)

    def find(self, public_key: bytes) -> EnrolledNode | None:
        """Look a key up, byte for byte as it was enrolled in PEM; the node may have been removed."""
        return next(iter(self._select("where public_key = ?", public_key)), None)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("begin immediate")
        try:
            yield
        except BaseException:
            self._db.execute("rollback")
            raise
        self._db.execute("commit")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()
