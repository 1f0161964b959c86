"""Tables of a ledger file: SQLite in WAL mode, every commit on disk, nothing ever updated or deleted.

The unique indices begin with the columns that all virtual devices of a round share, so that a batch of thousands
touches a few pages of each index and not one page a device.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from types import MappingProxyType
from typing import Final

from palate.privacy.ledger.errors import LedgerUnreadable, Tampered

FORMAT_VERSION = 1
WITH_WINDOWS = 2
"""Version of a file that holds WINDOW entries, which readers of version 1 do not know."""
APPLICATION_ID = 0x504C4C47  # "PLLG"

_APPEND_ONLY = ("book", "ledgers", "seals", "entries")

_TABLES = {
    "book": "CREATE TABLE book (key BLOB NOT NULL) STRICT",
    "ledgers": "CREATE TABLE ledgers (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT",
    "seals": ("CREATE TABLE seals (id INTEGER PRIMARY KEY, size INTEGER NOT NULL, signature BLOB NOT NULL) STRICT"),
    "entries": (
        "CREATE TABLE entries (id INTEGER PRIMARY KEY, ledger INTEGER NOT NULL, seq INTEGER NOT NULL, "
        "kind TEXT NOT NULL, run TEXT, round INTEGER, body BLOB NOT NULL, hash BLOB NOT NULL, "
        "seal INTEGER NOT NULL, leaf INTEGER NOT NULL) STRICT"
    ),
    "outbox": (
        "CREATE TABLE outbox (ledger INTEGER NOT NULL, run TEXT NOT NULL, round INTEGER NOT NULL, "
        "payload BLOB NOT NULL, PRIMARY KEY (ledger, run, round)) STRICT"
    ),
}
_INDICES = {
    "one_seq": "CREATE UNIQUE INDEX one_seq ON entries (seq, ledger)",
    "one_per_round": ("CREATE UNIQUE INDEX one_per_round ON entries (run, round, kind, ledger) WHERE run IS NOT NULL"),
}
_TRIGGERS = {
    f"{table}_no_{verb.lower()}": (
        f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END"
    )
    for table in _APPEND_ONLY
    for verb in ("UPDATE", "DELETE")
} | {
    "outbox_no_update": (
        "CREATE TRIGGER outbox_no_update BEFORE UPDATE ON outbox "
        "BEGIN SELECT RAISE(ABORT, 'bytes that may have left do not change'); END"
    )
}
SCHEMA: Final = MappingProxyType({**_TABLES, **_INDICES, **_TRIGGERS})


def create(connection: sqlite3.Connection, key: bytes) -> None:
    """Create the tables of a ledger file whose entries this public key will sign, inside the caller's transaction."""
    for statement in SCHEMA.values():
        connection.execute(statement)
    connection.execute("INSERT INTO book VALUES (?)", (key,))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")


def allow_windows(connection: sqlite3.Connection) -> None:
    """Say that the file may hold WINDOW entries, inside the caller's transaction."""
    connection.execute(f"PRAGMA user_version = {WITH_WINDOWS}")


def is_empty(connection: sqlite3.Connection) -> bool:
    """Whether a file is still empty."""
    return connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None


def check(connection: sqlite3.Connection) -> bytes:
    """Check that a file is a ledger of this version, with all its guards, and return its public key, 32 bytes.

    Raises
    ------
    LedgerUnreadable
        If it is something else or of another version.
    Tampered
        If a table, an index or a trigger is missing or changed.
    """
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise LedgerUnreadable("this is not a ledger file", hint="name a file that palate wrote as a ledger")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version not in (FORMAT_VERSION, WITH_WINDOWS):
        raise LedgerUnreadable(
            f"ledger format {version} is not {FORMAT_VERSION} or {WITH_WINDOWS}", hint="use the matching palate"
        )
    found = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
    if found != SCHEMA:
        names = sorted(name for name in {*found, *SCHEMA} if found.get(name) != SCHEMA.get(name))
        raise Tampered(f"tables or guards were changed: {', '.join(map(str, names))}")
    keys = connection.execute("SELECT key FROM book").fetchall()
    if len(keys) != 1 or not isinstance(keys[0][0], bytes):
        raise Tampered(f"the file names {len(keys)} keys, or something that is no key")
    key: bytes = keys[0][0]
    return key


def open_to_read(path: Path) -> sqlite3.Connection:
    """Open a file that someone else may have prepared; nothing in its schema is run.

    Raises
    ------
    LedgerUnreadable
        If there is no such file.
    """
    if not path.is_file():
        raise LedgerUnreadable(f"there is no ledger at {path}", hint="check the path")
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
    for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def open_to_write(path: Path) -> sqlite3.Connection:
    """Open or create a file that only its owner may read, with every commit on disk before it returns.

    Raises
    ------
    LedgerUnreadable
        If the folder or the file refuses.
    """
    try:
        path.touch(mode=0o600)
    except OSError as error:
        raise LedgerUnreadable(f"cannot write {path}: {error.strerror}", hint="choose a folder you may write") from None
    # A book may be handed from thread to thread; two threads never use it at once.
    connection = sqlite3.connect(path, isolation_level=None, timeout=30.0, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection
