"""Tables of the helper's ledger: SQLite, every commit on disk, nothing in them ever changed or deleted but lists.

The list of a register has an entry for each device and is dropped once newer registers have taken its place; the
register itself, with its root, stays. `last_reports` has for each device the number of its key and the mark of its
newest report that was counted.
"""

from __future__ import annotations

import sqlite3
from types import MappingProxyType
from typing import Final

from palate.privacy.ledger.errors import LedgerUnreadable, Tampered

FORMAT_VERSION = 2
APPLICATION_ID = 0x504C4C48  # "PLLH"

_TABLES = {
    "helper": "CREATE TABLE helper (fleet TEXT NOT NULL, key BLOB NOT NULL) STRICT",
    "answers": (
        "CREATE TABLE answers (sequence INTEGER PRIMARY KEY, context BLOB NOT NULL UNIQUE, "
        "round_key BLOB NOT NULL UNIQUE, run TEXT NOT NULL, round INTEGER NOT NULL, request BLOB NOT NULL, "
        "answer BLOB NOT NULL, time INTEGER NOT NULL) STRICT"
    ),
    "round_keys": (
        "CREATE TABLE round_keys (number INTEGER PRIMARY KEY, run TEXT NOT NULL, round INTEGER NOT NULL, "
        "hash BLOB NOT NULL UNIQUE, key BLOB NOT NULL, not_after INTEGER NOT NULL, UNIQUE (run, round)) STRICT"
    ),
    "certificates": (
        "CREATE TABLE certificates (id INTEGER PRIMARY KEY, device BLOB NOT NULL, generation INTEGER NOT NULL, "
        "key BLOB NOT NULL, certificate BLOB NOT NULL) STRICT"
    ),
    "registers": (
        "CREATE TABLE registers (epoch INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, register BLOB NOT NULL, "
        "time INTEGER NOT NULL) STRICT"
    ),
    "revocations": "CREATE TABLE revocations (number INTEGER PRIMARY KEY, revocation BLOB NOT NULL) STRICT",
    "checkpoints": (
        "CREATE TABLE checkpoints (id INTEGER PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL, "
        "time INTEGER NOT NULL) STRICT"
    ),
}
_LISTS = {
    "lists": "CREATE TABLE lists (epoch INTEGER PRIMARY KEY, entries BLOB NOT NULL) STRICT",
    "last_reports": "CREATE TABLE last_reports (device BLOB PRIMARY KEY, key BLOB NOT NULL, mark BLOB NOT NULL) STRICT",
}
_INDICES = {
    "by_device": "CREATE INDEX by_device ON certificates (device, generation, id)",
    "by_key": "CREATE INDEX by_key ON certificates (key)",
}
_TRIGGERS = {
    f"{table}_no_{verb.lower()}": (
        f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END"
    )
    for table in _TABLES
    for verb in ("UPDATE", "DELETE")
}
SCHEMA: Final = MappingProxyType({**_TABLES, **_LISTS, **_INDICES, **_TRIGGERS})


def create(connection: sqlite3.Connection, fleet: str, key: bytes) -> None:
    """Lay out an empty ledger, inside the caller's transaction."""
    for statement in SCHEMA.values():
        connection.execute(statement)
    connection.execute("INSERT INTO helper VALUES (?, ?)", (fleet, key))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")


def upgrade(connection: sqlite3.Connection) -> None:
    """Bring a ledger of format 1, which knew no newest reports, to this one, inside the caller's transaction."""
    found = tuple(connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
    if found == (APPLICATION_ID, 1):
        connection.execute(_LISTS["last_reports"])
        connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")


def check(connection: sqlite3.Connection, fleet: str, key: bytes) -> None:
    """Check that a file is this helper's ledger, whole, with all its guards.

    Raises
    ------
    LedgerUnreadable
        If it is something else, of another version, or another helper's.
    Tampered
        If the file is damaged, or a table, an index or a trigger is missing or changed.
    """
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise LedgerUnreadable("this is not a helper's ledger", hint="restore it, or name the helper's folder")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != FORMAT_VERSION:
        raise LedgerUnreadable(f"ledger format {version} is not {FORMAT_VERSION}", hint="use the matching palate")
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise Tampered(f"the ledger is damaged: {found}", hint="restore it from the newest backup")
    guards = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
    if guards != SCHEMA:
        names = sorted(name for name in {*guards, *SCHEMA} if guards.get(name) != SCHEMA.get(name))
        raise Tampered(f"tables or guards were changed: {', '.join(map(str, names))}", hint="restore the ledger")
    if connection.execute("SELECT fleet, key FROM helper").fetchall() != [(fleet, key)]:
        raise LedgerUnreadable("the ledger was begun with another key", hint="restore key and ledger together")
