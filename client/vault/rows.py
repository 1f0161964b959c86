"""Rows of a vault: what is sealed, under which keys, and the one sealed state over all of them.

A change is made inside a transaction that holds the file alone. It starts from the state on disk, seals the new state
once at its end, and is on disk as a whole or not at all.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from palate.client.vault import schema
from palate.client.vault.errors import EntryRefused, Forgotten, KeyWornOut, NotInVault, VaultError, VaultTampered
from palate.client.vault.purposes import RESERVED, Purpose
from palate.client.vault.sealing import SEALS_PER_KEY, DataKey, State

MAX_VALUE_BYTES = 1 << 28
MAX_NAME_BYTES = 512


class SealedRows:
    """The open file of a vault, with its master key.

    Parameters
    ----------
    connection
        The file; closed by `close`.
    vault_id
        Its id, 16 bytes.
    master
        Its master key, 32 bytes.
    """

    def __init__(self, connection: sqlite3.Connection, vault_id: bytes, master: bytes) -> None:
        self._connection: sqlite3.Connection | None = connection
        self._vault_id = vault_id
        self._master = master
        self._keys: dict[str, DataKey] = {}
        self._pending: State | None = None
        self._scrub_due = False
        self._checked: int | None = None  # SQLite's data_version, which changes when another connection writes
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<sealed>)"

    @property
    def is_open(self) -> bool:
        """Whether it has not been closed."""
        return self._connection is not None

    def close(self) -> None:
        """Close the file and drop the keys; everything is on disk already."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None
            self._keys.clear()
            self._master = b""

    def get(self, purpose: Purpose, name: str) -> bytes:
        """Open a value.

        Raises
        ------
        NotInVault
            If there is no such entry, and none is missing.
        VaultTampered
            If it is not what was put there, or was taken away.
        """
        with self.reading():  # key and entry as they are at one moment
            key = self.key(purpose.name)
            tag = b"" if key is None else key.name_tag(name)
            row = self._row("SELECT version, sealed FROM entries WHERE purpose = ? AND tag = ?", (purpose.name, tag))
            if key is None or row is None:
                self.check()  # a row that somebody took away looks like one that never was
                raise NotInVault(f"there is no such entry of {purpose.name}", hint="put it there first")
            return key.open(tag, *row)[1]

    def put(self, purpose: Purpose, name: str, value: bytes) -> None:
        """Seal a value under a name, in place of what was there.

        Parameters
        ----------
        purpose
            What it is for.
        name
            1 to 512 printable bytes of UTF-8; on disk only a keyed hash of it can be seen.
        value
            At most 2^28 bytes; their number can be seen on disk to the next 256.

        Raises
        ------
        EntryRefused
            If name or value do not fit.
        KeyWornOut
            If the purpose's key has sealed as much as it may: `rotate` it.
        VaultLocked, VaultTampered
            If the file is held for too long, or damaged.
        """
        size = len(name.encode("utf-8", errors="surrogatepass"))
        if not 1 <= size <= MAX_NAME_BYTES or not name.isprintable():
            raise EntryRefused(
                f"a name of {size} bytes, or not printable; 1 to {MAX_NAME_BYTES} printable bytes of UTF-8 are taken",
                hint="shorten it",
            )
        if len(value) > MAX_VALUE_BYTES:
            raise EntryRefused(f"a value of {len(value)} bytes, at most {MAX_VALUE_BYTES} are taken", hint="split it")
        with self.transaction():
            self._put(purpose.name, name, bytes(value))

    def delete(self, purpose: Purpose, name: str) -> None:
        """Remove an entry, overwrite its place in the file, and empty the log unless another program reads just now.

        Raises
        ------
        NotInVault
            If there is no such entry.
        """
        with self.transaction():
            key = self.key(purpose.name)
            tag = b"" if key is None else key.name_tag(name)
            row = self._row("SELECT version FROM entries WHERE purpose = ? AND tag = ?", (purpose.name, tag))
            if row is None:
                self.check()
                raise NotInVault(f"there is no such entry of {purpose.name}", hint="entries() lists what there is")
            self._remove(purpose.name, tag, row[0])

    def entries(self, purpose: Purpose) -> dict[str, bytes]:
        """Open all entries of a purpose, as they are at one moment: values by name, names sorted; raises as `get`."""
        with self.reading():
            key = self.key(purpose.name)
            return {} if key is None else dict(sorted(key.open(*row) for row in self._boxes(purpose.name)))

    def rotate(self, purpose: Purpose) -> None:
        """Seal everything of a purpose anew under a fresh key, and renew the vault's own key.

        The old key, sealed under the master key, is overwritten in the file.

        Raises
        ------
        VaultTampered
            If anything is not intact; nothing is changed then.
        """
        with self.transaction():
            self.check()
            old = self.key(purpose.name)
            self._renew_own_key()
            if old is None:
                return
            boxes = self._boxes(purpose.name)
            self._drop_key(old)
            self._add_key(purpose.name)
            for tag, version, sealed in boxes:
                name, value = old.open(tag, version, sealed)
                self._remove(purpose.name, tag, version)
                self._put(purpose.name, name, value)

    def check(self) -> None:
        """Compare all rows with the sealed sum over them.

        Finds rows that were removed, invented, swapped or put back to an older version, in any number. A whole file
        that was put back is not found: it is what the vault once was. Rows that were compared before are compared again
        once another program has written the file; what this object writes keeps the sum.

        Raises
        ------
        VaultTampered
            If they are not those that the vault was left with.
        """
        with self.reading():
            written = self._row("PRAGMA data_version")[0]
            if written == self._checked:
                return
            state = self._pending or self._load_state()
            count, total = self._sum()
            if (count, total) != (state.entries, state.total):
                raise VaultTampered(
                    f"the vault's {count} entries are not the {state.entries} that it was left with, "
                    "or not their latest versions",
                    hint="restore a whole backup, never a part; or forget this vault and begin a new one",
                )
            self._checked = written

    def scrub(self) -> bool:
        """Cut the write-ahead log, in which older sealed versions stay for a while.

        Returns
        -------
        bool
            False if another program reads just now; then the next one to scrub does it.
        """
        with self._lock, named():
            connection = self._opened()
            busy = connection.in_transaction or connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            self._scrub_due = bool(busy)
            return not self._scrub_due

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Do several things as one: all of them are on disk at the end, or none.

        Other programs wait meanwhile. A transaction inside another is undone alone if it fails, and is on disk with the
        outer one.

        Raises
        ------
        VaultLocked
            If another program holds the file for too long.
        """
        with self._lock:
            if self._pending is not None:
                with self._savepoint():
                    yield
                return
            self._run("BEGIN IMMEDIATE")
            try:
                before = self._pending = self._load_state()
                yield
                if self._pending != before:
                    self._run("UPDATE vault SET state = ?", (self._own_key().seal_state(self._pending),))
                self._run("COMMIT")
            except BaseException:
                self._undo("ROLLBACK")
                raise
            finally:
                self._pending = None
            if self._scrub_due:
                self.scrub()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """See one state of the file throughout."""
        with self._lock:
            if self._opened().in_transaction:
                yield
                return
            self._run("BEGIN")
            try:
                yield
            finally:
                if self._opened().in_transaction:
                    self._run("ROLLBACK")

    def key(self, purpose: str) -> DataKey | None:
        """Return the key in force, or None; outside a transaction it may be one that another program just replaced."""
        cached = self._keys.get(purpose)
        if cached is not None and not self._opened().in_transaction:
            return cached
        row = self._row("SELECT id, born, wrapped FROM keys WHERE purpose = ?", (purpose,))
        if row is None:
            self._keys.pop(purpose, None)
            return None
        if cached is None or (cached.key_id, cached.born) != (row[0], row[1]):
            cached = DataKey.unwrapped(self._master, self._vault_id, purpose, *row)
            self._keys[purpose] = cached
        return cached

    def _put(self, purpose: str, name: str, value: bytes) -> None:
        key = self.key(purpose) or self._add_key(purpose)
        own, state = self._own_key(), self._changing()
        for used in (key, own):
            if state.version - used.born >= SEALS_PER_KEY:
                raise KeyWornOut(
                    f"the key of {used.purpose} may have sealed {SEALS_PER_KEY} times, the most for one key",
                    hint=f"rotate {purpose}",
                )
        tag, version = key.name_tag(name), state.version + 1
        old = self._row("SELECT version FROM entries WHERE purpose = ? AND tag = ?", (purpose, tag))
        self._run(
            "INSERT INTO entries VALUES (?, ?, ?, ?) "
            "ON CONFLICT (purpose, tag) DO UPDATE SET version = excluded.version, sealed = excluded.sealed",
            (purpose, tag, version, key.seal(name, version, value)),
        )
        self._pending = state.changed(
            version=version,
            entries=0 if old else 1,
            added=own.entry_term(purpose, tag, version),
            removed=own.entry_term(purpose, tag, old[0]) if old else 0,
        )

    def _own_key(self) -> DataKey:
        key = self.key(RESERVED)
        if key is None:
            raise _gone()
        return key

    def _add_key(self, purpose: str) -> DataKey:
        state = self._changing()
        key = DataKey.fresh(self._vault_id, purpose, state.version)
        self._run("INSERT INTO keys VALUES (?, ?, ?, ?)", (purpose, key.key_id, key.born, key.wrapped(self._master)))
        self._keys[purpose] = key
        term = self._own_key().key_term(purpose, key.key_id, key.born)
        self._pending = state.changed(version=state.version + 1, added=term)
        return key

    def _drop_key(self, key: DataKey) -> None:
        state = self._changing()
        self._run("DELETE FROM keys WHERE purpose = ?", (key.purpose,))
        self._keys.pop(key.purpose, None)
        term = self._own_key().key_term(key.purpose, key.key_id, key.born)
        self._pending = state.changed(version=state.version + 1, removed=term)
        self._scrub_due = True

    def _renew_own_key(self) -> None:
        state = self._changing()
        own = DataKey.fresh(self._vault_id, RESERVED, state.version)
        self._run(
            "UPDATE keys SET id = ?, born = ?, wrapped = ? WHERE purpose = ?",
            (own.key_id, own.born, own.wrapped(self._master), RESERVED),
        )
        self._keys[RESERVED] = own
        self._pending = State(state.version + 1, *self._sum())  # the terms are hashes under this key
        self._scrub_due = True

    def _remove(self, purpose: str, tag: bytes, version: int) -> None:
        state = self._changing()
        self._run("DELETE FROM entries WHERE purpose = ? AND tag = ?", (purpose, tag))
        term = self._own_key().entry_term(purpose, tag, version)
        self._pending = state.changed(version=state.version + 1, entries=-1, removed=term)
        self._scrub_due = True

    def _boxes(self, purpose: str) -> list[Any]:
        return self._rows("SELECT tag, version, sealed FROM entries WHERE purpose = ?", (purpose,))

    def _sum(self) -> tuple[int, int]:
        own = self._own_key()
        entries = self._rows("SELECT purpose, tag, version FROM entries")
        keys = self._rows("SELECT purpose, id, born FROM keys")
        terms = [own.entry_term(*row) for row in entries] + [own.key_term(*row) for row in keys]
        return len(entries), State(0, 0, 0).changed(version=0, added=sum(terms)).total

    def _load_state(self) -> State:
        row = self._row("SELECT state FROM vault")
        if row is None:
            raise _gone()
        return self._own_key().open_state(row[0])

    def _changing(self) -> State:
        if self._pending is None:
            raise RuntimeError("a change outside a transaction")
        return self._pending

    @contextmanager
    def _savepoint(self) -> Iterator[None]:
        before = self._pending
        self._run("SAVEPOINT inner_one")
        try:
            yield
            self._run("RELEASE inner_one")
        except BaseException:
            self._undo("ROLLBACK TO inner_one")
            self._undo("RELEASE inner_one")
            self._pending = before
            raise

    def _undo(self, statement: str) -> None:
        if self._connection is not None and self._connection.in_transaction:
            self._run(statement)

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise VaultError("the vault is closed", hint="open it again")
        return self._connection

    def _run(self, statement: str, values: Sequence[object] = ()) -> None:
        with named():
            self._opened().execute(statement, values)

    def _row(self, statement: str, values: Sequence[object] = ()) -> Any:
        with self._lock, named():
            return self._opened().execute(statement, values).fetchone()

    def _rows(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        with self._lock, named():
            return self._opened().execute(statement, values).fetchall()


@contextmanager
def named() -> Iterator[None]:
    """Give what SQLite raises one of this package's names."""
    try:
        yield
    except sqlite3.Error as error:
        raise schema.failure(error) from None


def _gone() -> Forgotten:
    return Forgotten("this vault was emptied", hint="close it; if nobody forgot it on purpose, restore a backup")
