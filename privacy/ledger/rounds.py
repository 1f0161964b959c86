"""One round on a device, in an order that survives a crash at any point.

INTENT is on disk before anything private is touched; the exact bytes are on disk before they can leave; OUTCOME comes
last. A retry therefore resends the same bytes or refuses: two noisy answers to one round would be two releases for the
price of one. A charge never comes back; ledgers of earlier versions may hold rounds that were withheld.
"""

from __future__ import annotations

import sqlite3

from palate.privacy.ledger.body import NO_HASH, RELEASED, WRITTEN_OFF, Intent, Outcome, hash_text
from palate.privacy.ledger.errors import RoundRefused
from palate.privacy.ledger.store import LedgerBook


class RoundKeeper:
    """Runs the rounds of one ledger of a book: `begin`, `persist`, then `finish`; or `write_off`.

    Parameters
    ----------
    book
        The file of ledgers.
    name
        Which ledger.
    """

    def __init__(self, book: LedgerBook, name: str) -> None:
        self._book = book
        self._name = name
        self._id = book.ledger_id(name)

    def begin(self, intent: Intent) -> bytes | None:
        """Charge a round, or find out how far it got before.

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
        with self._book.transaction() as connection:
            begun = self._book.state(self._name).open.get((intent.run, intent.round))
            if begun is None:
                self._book.append_within(connection, self._name, intent)
                return None
            if begun != intent:
                raise RoundRefused(
                    f"round {intent.round} of {intent.run} was charged with other parameters",
                    hint="a retry must ask for exactly the same round",
                )
            return self._stored(connection, intent.run, intent.round)

    def persist(self, run: str, round: int, payload: bytes) -> None:
        """Keep the exact bytes of a charged round; only then may they be sent.

        Raises
        ------
        RoundRefused
            If the round is not open, or other bytes are kept for it.
        """
        with self._book.transaction() as connection:
            self._check_open(run, round)
            stored = self._stored(connection, run, round)
            if stored is None:
                connection.execute("INSERT INTO outbox VALUES (?, ?, ?, ?)", (self._id, run, round, payload))
            elif stored != payload:
                raise RoundRefused(
                    f"round {round} of {run} has other bytes already: {hash_text(stored)}",
                    hint="resend the stored bytes",
                )

    def finish(self, run: str, round: int, *, receipt: bytes = b"") -> Outcome:
        """Close a round whose bytes may have left, with the server's receipt if one came, and drop the bytes.

        Raises
        ------
        RoundRefused
            If the round is not open, or nothing was persisted.
        """
        with self._book.transaction() as connection:
            self._check_open(run, round)
            payload = self._stored(connection, run, round)
            if payload is None:
                raise RoundRefused(f"round {round} of {run} has no bytes to have sent", hint="write it off instead")
            outcome = Outcome(
                run=run,
                round=round,
                status=RELEASED,
                payload=hash_text(payload),
                receipt=hash_text(receipt) if receipt else NO_HASH,
            )
            self._book.append_within(connection, self._name, outcome)
            connection.execute("DELETE FROM outbox WHERE ledger = ? AND run = ? AND round = ?", (self._id, run, round))
            return outcome

    def write_off(self, run: str, round: int) -> Outcome:
        """Close a round that ended before there were bytes; its charge stands.

        That it ended may itself have been seen, and may depend on private data: whoever cannot rule that out does not
        take the charge back.

        Raises
        ------
        RoundRefused
            If the round is not open, or its bytes were persisted and may have left.
        """
        with self._book.transaction() as connection:
            self._check_open(run, round)
            if self._stored(connection, run, round) is not None:
                raise RoundRefused(
                    f"round {round} of {run}: its bytes may have left, so its charge stands",
                    hint="finish it, with or without a receipt",
                )
            outcome = Outcome(run=run, round=round, status=WRITTEN_OFF, payload=NO_HASH, receipt=NO_HASH)
            self._book.append_within(connection, self._name, outcome)
            return outcome

    def has_bytes(self, run: str, round: int) -> bool:
        """Tell whether bytes of an open round are kept, and may have left."""
        with self._book.transaction() as connection:
            return self._stored(connection, run, round) is not None

    def _check_open(self, run: str, round: int) -> None:
        if (run, round) not in self._book.state(self._name).open:
            raise RoundRefused(f"round {round} of {run} was not charged, or is closed already")

    def _stored(self, connection: sqlite3.Connection, run: str, round: int) -> bytes | None:
        row = connection.execute(
            "SELECT payload FROM outbox WHERE ledger = ? AND run = ? AND round = ?", (self._id, run, round)
        ).fetchone()
        return bytes(row[0]) if row else None
