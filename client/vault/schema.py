"""Tables of a vault: SQLite in WAL mode, every commit on disk, and nothing deleted that is not overwritten.

Without `secure_delete`, VACUUM and a truncated write-ahead log, rows that were deleted stay readable in the file.
Temporary tables stay in memory, for the same reason.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Final

from palate.client.vault import files
from palate.client.vault.errors import OtherVersion, VaultError, VaultLocked, VaultTampered
from palate.privacy import files as whole

FORMAT_VERSION = 1
APPLICATION_ID = 0x504C564C  # "PLVL"
FILE = "vault.db"
SIDE_FILES = ("-wal", "-shm", "-journal")
WAIT_SECONDS = 30.0
"""How long to wait for other programs that hold the file."""

SCHEMA: Final = MappingProxyType(
    {
        "vault": (
            "CREATE TABLE vault (one INTEGER PRIMARY KEY CHECK (one = 1), id BLOB NOT NULL, keeper TEXT NOT NULL, "
            "master BLOB NOT NULL, state BLOB NOT NULL) STRICT"
        ),
        "keys": (
            "CREATE TABLE keys (purpose TEXT PRIMARY KEY, id BLOB NOT NULL, born INTEGER NOT NULL, "
            "wrapped BLOB NOT NULL) STRICT"
        ),
        "entries": (
            "CREATE TABLE entries (purpose TEXT NOT NULL, tag BLOB NOT NULL, version INTEGER NOT NULL, "
            "sealed BLOB NOT NULL, PRIMARY KEY (purpose, tag)) STRICT"
        ),
    }
)


def connect(path: Path) -> sqlite3.Connection:
    """Open a vault's file, or make an empty one, readable by its owner only.

    Raises
    ------
    LooseFile
        If the file or one beside it is a link, belongs to somebody else, or others have rights to it.
    VaultError
        If it is no database, or is held for too long.
    """
    with suppress(FileExistsError):
        whole.create(path, b"")
    files.check_private(path)
    for suffix in SIDE_FILES:
        try:
            files.check_private(path.with_name(path.name + suffix))
        except FileNotFoundError:
            continue
    # A vault may be handed from thread to thread; a lock keeps two threads from using it at once.
    connection = sqlite3.connect(path, isolation_level=None, timeout=WAIT_SECONDS, check_same_thread=False)
    try:
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "secure_delete = ON",
            "temp_store = MEMORY",
            "trusted_schema = OFF",
            "cell_size_check = ON",
            "mmap_size = 0",
            "cache_size = -64",  # KiB: values are read once, and a process may hold thousands of vaults
        ):
            connection.execute(f"PRAGMA {pragma}")
    except sqlite3.Error as error:
        connection.close()
        raise failure(error) from None
    return connection


def create(connection: sqlite3.Connection) -> None:
    """Lay out an empty file, inside the caller's transaction."""
    for statement in SCHEMA.values():
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")


def is_empty(connection: sqlite3.Connection) -> bool:
    """Whether a file holds nothing at all yet."""
    return connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None


def check(connection: sqlite3.Connection) -> None:
    """Check that a file is a vault of this version, and nothing but that.

    Raises
    ------
    OtherVersion
        If it is something else or of another version.
    VaultTampered
        If a table is missing or changed, or there is anything else.
    """
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise OtherVersion("this file is not a vault", hint="name the folder in which palate keeps this device's vault")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != FORMAT_VERSION:
        raise OtherVersion(f"vault format {version} is not {FORMAT_VERSION}", hint="use the palate that wrote it")
    found = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
    if found != SCHEMA:
        raise VaultTampered(
            f"{len(found)} tables, indices and triggers are not the {len(SCHEMA)} of a vault, or differ from them",
            hint="restore a backup, or forget this vault and begin a new one",
        )


def failure(error: sqlite3.Error) -> VaultError:
    """Give a failure of SQLite a name; its words name tables at most, never what is in them."""
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return VaultLocked("another program holds the vault", hint="let it finish, or close it, then try again")
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return VaultTampered(
            "the vault's file is damaged", hint="restore a backup, or forget this vault and begin a new one"
        )
    return VaultError(
        f"the vault's file cannot be used ({getattr(error, 'sqlite_errorname', type(error).__name__)})",
        hint="check the disk, the rights, and who else holds the file",
    )
