"""Ledgers on disk: a device's one, or those of thousands of virtual devices in one file, written in signed batches.

A commit is on disk before it returns, and an entry that the rules refuse is never written. Several programs may hold
the same file; each sees what the others wrote before it writes.

A round takes three steps, in an order that survives a crash at any point: `begin`, `persist`, `close_round`. INTENT is
on disk before anything private is touched; the exact bytes are on disk before they can leave; OUTCOME comes last. A
retry therefore resends the same bytes or refuses: two noisy answers to one round would be two releases for the price of
one. A charge never comes back; ledgers of earlier versions may hold rounds that were withheld.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.privacy.ledger import body as bodies
from palate.privacy.ledger import chain, reading, schema
from palate.privacy.ledger.anchors import Anchor
from palate.privacy.ledger.errors import LedgerUnreadable, PolicyRefused, RoundRefused
from palate.privacy.ledger.state import LedgerState, columns_of


class LedgerBook:
    """One file of ledgers, opened for writing.

    Parameters
    ----------
    path
        The file; created if it is not there, readable by its owner only.
    signer
        Ed25519 key of the device, the server, or the machine that simulates devices.

    Raises
    ------
    LedgerUnreadable
        If the file is not a ledger, is of another version, was begun with another key, or cannot be written.
    Tampered, BudgetExceeded
        If what the file holds does not replay.
    """

    def __init__(self, path: Path, signer: Ed25519PrivateKey) -> None:
        self._path = path
        self._signer = signer
        self._key = signer.public_key()
        self._states: dict[str, LedgerState] = {}
        self._ids: dict[str, int] = {}
        self._seen_version = -1
        self._new: list[str] = []
        self._pending: list[tuple[str, LedgerState, bodies.Event, bytes]] = []
        try:
            self._connection = schema.open_to_write(path)
        except sqlite3.Error as error:
            raise _unreadable(path, error) from None
        try:
            with self.transaction():
                pass
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"LedgerBook({str(self._path)!r}, {len(self._states)} ledgers)"

    def __enter__(self) -> LedgerBook:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; everything is on disk already."""
        self._connection.close()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the ledgers, in the order in which they were made."""
        return tuple(self._states)

    def state(self, name: str) -> LedgerState:
        """Look up the running totals of a ledger, as of this program's last write; not to be changed.

        Raises
        ------
        LedgerUnreadable
            If there is no ledger of that name.
        """
        if name not in self._states:
            raise LedgerUnreadable(f"there is no ledger {name!r}", hint="create it with a policy first")
        return self._states[name]

    def create(self, names: Iterable[str], policy: bodies.Policy) -> None:
        """Begin ledgers, each with the same policy as its first entry.

        Raises
        ------
        PolicyRefused
            If a ledger of that name is there already.
        Tampered
            If a name cannot be one.
        """
        names = list(names)
        with self.transaction() as connection:
            for name in names:
                chain.check_name(name)
                if name in self._states:
                    raise PolicyRefused(f"there is a ledger {name!r} already", hint="append a new policy to it instead")
                self._states[name] = LedgerState(head=chain.genesis(name, self._key))
                self._new.append(name)
            connection.executemany("INSERT INTO ledgers (name) VALUES (?)", [(name,) for name in names])
            self._ids = reading.ledger_ids(connection)
            self._insert(connection, [(name, policy) for name in names])

    def append(self, name: str, event: bodies.Event) -> int:
        """Write one entry, signed by itself, and return its number.

        Raises
        ------
        BudgetExceeded, PolicyRefused, RoundRefused
            If the rules refuse it; nothing is written.
        LedgerUnreadable
            If there is no such ledger, or the file cannot be written.
        """
        self.append_batch([(name, event)])
        return self.state(name).seq

    def append_batch(self, events: Sequence[tuple[str, bodies.Event]]) -> None:
        """Write one entry in each of many ledgers, under one signature and one commit: all or none.

        Raises
        ------
        BudgetExceeded, PolicyRefused, RoundRefused
            If the rules refuse one of them, or a ledger is named twice; ask `state(name).check` beforehand.
        LedgerUnreadable
            If a ledger is not there, or the file cannot be written.
        """
        with self.transaction() as connection:
            self._insert(connection, events)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Lock the file, with up-to-date states; commit at the end or change nothing.

        Raises
        ------
        LedgerUnreadable
            If the file is held by another program for too long, is damaged, or cannot be written.
        """
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._refresh()
            yield self._connection
            self._connection.execute("COMMIT")
        except BaseException as error:
            self._abandon()
            if isinstance(error, sqlite3.Error):
                raise _unreadable(self._path, error) from None
            raise
        for _, state, event, entry in self._pending:
            state.apply(event, entry)
        self._forget_pending(keep_new=True)

    def begin(self, name: str, intent: bodies.Intent) -> bytes | None:
        """Charge a round, or find out how far it came before.

        Returns
        -------
        payload
            The bytes to send again, or None: nothing could have left yet, compute the round.

        Raises
        ------
        RoundRefused
            If the round is closed, or was charged with other parameters.
        BudgetExceeded, PolicyRefused
            If the ledger refuses the round; nothing is written.
        """
        with self.transaction() as connection:
            begun = self.state(name).open.get((intent.run, intent.round))
            if begun is None:
                self._insert(connection, [(name, intent)])
                return None
            if begun != intent:
                raise RoundRefused(
                    f"round {intent.round} of {intent.run} was charged with other parameters",
                    hint="a retry must ask for exactly the same round",
                )
            return self._kept(connection, name, intent.run, intent.round)

    def persist(self, name: str, run: str, round: int, payload: bytes) -> None:
        """Keep the exact bytes of a charged round; only then may they be sent.

        Raises
        ------
        RoundRefused
            If the round is not open, or other bytes are kept for it.
        """
        with self.transaction() as connection:
            kept = self._kept(connection, name, run, round)
            if kept is None:
                connection.execute("INSERT INTO outbox VALUES (?, ?, ?, ?)", (self._ids[name], run, round, payload))
            elif kept != payload:
                raise RoundRefused(
                    f"round {round} of {run} has other bytes already: {bodies.hash_text(kept)}",
                    hint="resend the stored bytes",
                )

    def close_round(self, name: str, run: str, round: int, *, receipt: bytes = b"") -> bodies.Outcome:
        """Close a round: released, with the server's receipt if one came, if bytes are kept; else written off.

        Kept bytes may have left, and are dropped now. The charge of both stands. That a round ended without bytes may
        itself have been seen, and may depend on private data.

        Raises
        ------
        RoundRefused
            If the round is not open.
        """
        with self.transaction() as connection:
            payload = self._kept(connection, name, run, round)
            outcome = bodies.Outcome(
                run=run,
                round=round,
                status=bodies.WRITTEN_OFF if payload is None else bodies.RELEASED,
                payload=bodies.NO_HASH if payload is None else bodies.hash_text(payload),
                receipt=bodies.NO_HASH if payload is None or not receipt else bodies.hash_text(receipt),
            )
            self._insert(connection, [(name, outcome)])
            connection.execute(
                "DELETE FROM outbox WHERE ledger = ? AND run = ? AND round = ?", (self._ids[name], run, round)
            )
            return outcome

    def _kept(self, connection: sqlite3.Connection, name: str, run: str, round: int) -> bytes | None:
        """Bytes that are kept for an open round."""
        if (run, round) not in self.state(name).open:
            raise RoundRefused(f"round {round} of {run} was not charged, or is closed already")
        query = "SELECT payload FROM outbox WHERE ledger = ? AND run = ? AND round = ?"
        row = connection.execute(query, (self._ids[name], run, round)).fetchone()
        return bytes(row[0]) if row else None

    def check_anchor(self, anchor: Anchor) -> None:
        """Compare a ledger with the end that it once had.

        Raises
        ------
        Rollback
            If the ledger is shorter than the anchor.
        Fork
            If another entry is where the anchor's was.
        LedgerUnreadable
            If there is no such ledger.
        """
        with self.transaction() as connection:
            self.state(anchor.name)  # refuses one that is not there
            query = "SELECT hash FROM entries NOT INDEXED WHERE ledger = ? ORDER BY seq"
            anchor.check([entry for (entry,) in connection.execute(query, (self._ids[anchor.name],))])

    def _refresh(self) -> None:
        version = self._connection.execute("PRAGMA data_version").fetchone()[0]
        if version == self._seen_version:
            return
        own_key = self._key.public_bytes_raw()
        if schema.is_empty(self._connection):
            schema.create(self._connection, own_key)
        if schema.check(self._connection) != own_key:
            raise LedgerUnreadable("the ledger was begun with another key", hint="open it with the key it was made for")
        self._states = reading.load_states(self._connection, self._key)
        self._ids = reading.ledger_ids(self._connection)
        self._seen_version = version

    def _abandon(self) -> None:
        # States change after a commit only; what is to be forgotten are the ledgers that this transaction began.
        self._forget_pending(keep_new=False)
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _forget_pending(self, *, keep_new: bool) -> None:
        for name in () if keep_new else self._new:
            self._states.pop(name, None)
            self._ids.pop(name, None)
        self._new.clear()
        self._pending.clear()

    def _insert(self, connection: sqlite3.Connection, events: Sequence[tuple[str, bodies.Event]]) -> None:
        busy = {name for name, *_ in self._pending}
        if not events:
            return
        seal = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM seals").fetchone()[0]
        rows, hashes = [], []
        written: bodies.Event | None = None
        before = after = b""
        columns: chain.Columns = (0, "", None, None)
        for leaf, (name, event) in enumerate(events):
            if name in busy:
                raise RoundRefused(f"ledger {name!r} is named twice in one batch")
            busy.add(name)
            state = self.state(name)
            state.check(event)
            if isinstance(event, bodies.Window):
                schema.allow_windows(connection)
            if event is not written:  # virtual devices share one event: write it once
                before, after = bodies.split_at_seq(event)
                columns, written = columns_of(0, event), event
            seq = state.seq + 1
            body = b"%b%d%b" % (before, seq, after)
            entry = chain.entry_hash(state.head, body)
            rows.append((self._ids[name], seq, *columns[1:], body, entry, seal, leaf))
            hashes.append(entry)
            self._pending.append((name, state, event, entry))
        signature = chain.sign_batch(self._signer, hashes)
        connection.execute("INSERT INTO seals VALUES (?, ?, ?)", (seal, len(hashes), signature))
        connection.executemany(
            "INSERT INTO entries (ledger, seq, kind, run, round, body, hash, seal, leaf) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )


def _unreadable(path: Path, error: sqlite3.Error) -> LedgerUnreadable:
    return LedgerUnreadable(f"{path.name}: {error}", hint="check the disk, the rights, and who else holds the file")
