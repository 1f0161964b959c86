"""Who belongs to the fleet: public node keys, in a file of the server's own.

Flower keeps its registrations beside messages and runs; here a device's place in the fleet outlives every run. A node
keeps its number for as long as it is enrolled, over restarts too. Another process (the operator's command line) may
enrol and remove nodes while the server runs: SQLite's data_version tells when to read again.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from palate.errors import ConfigError, RunError
from palate.server.fleet.certificates import read_node_public_key

FORMAT = 2
_NODE_ID_BITS = 62
_REMOVED = "create table removed (public_key blob primary key, removed_at text not null) strict"
_SCHEMA = """
create table node (
    node_id integer primary key,
    public_key blob not null unique,
    label text not null,
    enrolled_at text not null
) strict
"""


@dataclass(frozen=True, kw_only=True)
class EnrolledNode:
    """A device that may talk to this server.

    Parameters
    ----------
    node_id
        Its number, drawn at enrolment.
    public_key
        Its P-384 key, SubjectPublicKeyInfo as PEM.
    label
        The operator's name for it; may be empty.
    enrolled_at
        When, ISO 8601 in UTC.
    """

    node_id: int
    public_key: bytes
    label: str
    enrolled_at: str

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the key as PEM, lower-case hex: short enough to read over the telephone in parts."""
        return hashlib.sha256(self.public_key).hexdigest()


class Enrolment:
    """The list of enrolled nodes; safe to use from several threads and processes.

    Raises
    ------
    RunError
        If the file is damaged, or of another format.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._version: int | None = None
        self._nodes: dict[bytes, EnrolledNode] = {}
        self._removed: frozenset[bytes] = frozenset()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600)  # who belongs to the fleet is nobody else's business
            self._db = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
            self._db.execute("pragma synchronous = full")
            self._create()
            with self._lock:
                self._refresh()
        except (sqlite3.Error, OSError) as error:
            raise RunError(f"{path} cannot be read: {error}", hint="is it the fleet's enrolment file?") from error

    def _create(self) -> None:
        self._db.execute("begin immediate")
        (found,) = self._db.execute("pragma user_version").fetchone()
        if found == 0:
            self._db.execute(_SCHEMA)
        if found in (0, 1):
            self._db.execute(_REMOVED)
            self._db.execute(f"pragma user_version = {FORMAT}")
        self._db.execute("commit")
        if found not in (0, 1, FORMAT):
            self._db.close()
            raise RunError(
                f"{self._path} has format {found}, this version reads {FORMAT}",
                hint="use the version of Palate that wrote it",
            )

    def _refresh(self) -> None:
        (version,) = self._db.execute("pragma data_version").fetchone()
        if version != self._version:
            self._read()
            self._version = version

    def _read(self) -> None:
        rows = self._db.execute(
            "select node_id, public_key, label, enrolled_at from node order by enrolled_at, node_id"
        )
        self._nodes = {
            key: EnrolledNode(node_id=node_id, public_key=key, label=label, enrolled_at=at)
            for node_id, key, label, at in rows
        }
        self._removed = frozenset(row[0] for row in self._db.execute("select public_key from removed"))

    def add(self, public_key: bytes, *, label: str = "") -> EnrolledNode:
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
            enrolled_at=datetime.now(UTC).isoformat(timespec="microseconds"),
        )
        with self._lock:
            try:
                with self._transaction():
                    self._db.execute(
                        "insert into node values (?, ?, ?, ?)",
                        (node.node_id, node.public_key, node.label, node.enrolled_at),
                    )
                    self._db.execute("delete from removed where public_key = ?", (node.public_key,))
            except sqlite3.IntegrityError as error:
                raise ConfigError(
                    f"the key {node.fingerprint[:16]} is enrolled already", hint="every device makes a key of its own"
                ) from error
            self._read()
        return node

    def remove(self, node_id: int) -> None:
        """Strike a node off; its key is refused from the next request on, and is told why.

        Raises
        ------
        ConfigError
            If there is no such node.
        """
        with self._lock:
            with self._transaction():
                self._db.execute(
                    "insert or replace into removed select public_key, ? from node where node_id = ?",
                    (datetime.now(UTC).isoformat(timespec="microseconds"), node_id),
                )
                if self._db.execute("delete from node where node_id = ?", (node_id,)).rowcount != 1:
                    raise ConfigError(f"no node {node_id} is enrolled", hint="list the nodes to see their numbers")
            self._read()

    def nodes(self) -> tuple[EnrolledNode, ...]:
        """All enrolled nodes, oldest first."""
        with self._lock:
            self._refresh()
            return tuple(self._nodes.values())

    def find(self, public_key: bytes) -> EnrolledNode | None:
        """Look a key up, byte for byte as it was enrolled in PEM."""
        with self._lock:
            self._refresh()
            return self._nodes.get(public_key)

    def was_removed(self, public_key: bytes) -> bool:
        """Whether a key was enrolled, was removed, and did not come back."""
        with self._lock:
            self._refresh()
            return public_key in self._removed

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
