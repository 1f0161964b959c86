"""What the helper remembers, on disk: one answer a round, round keys, registers, and the log's newest checkpoint.

Order of the durable writes: the private half of a round's key, then its public half, then it may be published; an
answer and the new head in one commit, then the anchor, then the private half is destroyed, then the answer may be sent.
After a crash between any two of them the next start goes on from there.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.privacy.aggregators.admission import (
    Certificate,
    Entries,
    Membership,
    Register,
    Revocation,
    key_number,
)
from palate.privacy.aggregators.errors import (
    AlreadyCollected,
    AnswerRefused,
    RegisterRefused,
    RequestRefused,
    RoundKeyGone,
)
from palate.privacy.aggregators.messages import Answer
from palate.privacy.aggregators.registering import LiveKey
from palate.privacy.aggregators.sealing import RoundKey, RoundSecret, Suite
from palate.privacy.ledger import schema as ledger_schema
from palate.privacy.ledger.errors import Fork, LedgerUnreadable, Rollback, Tampered
from palate.privacy.secagg.encoding import DEVICE, HASH_SIZE
from palate.privacy.secagg.errors import SecureAggregationError
from palate.server.helper import schema
from palate.server.helper.anchor import AnchorFile, LedgerEnd
from palate.server.helper.secrets_folder import RoundSecrets

if TYPE_CHECKING:
    from palate.privacy.aggregators.offer import CollectionOffer

KEPT_LISTS = 8
"""Registers whose lists are kept: offers of older ones are refused."""
MAX_OPEN_KEYS = 10_000
"""Round keys that may be there at once, answered or not: a leader cannot fill the disk with them."""
_ENTRY_SIZE = 48
_RESTORE = "restore the newest ledger"


class SqliteBook:
    """A `palate.privacy.aggregators.helper.HelperBook` on disk. One thread at a time uses it.

    Parameters
    ----------
    path
        The ledger; `create` made it.
    secrets
        Where private halves of round keys lie.
    anchor
        Where the ledger's newest end is kept.
    fleet, key
        Name of the fleet, and the helper's signing key.
    clock
        Seconds since 1970.
    anew
        Write the anchor without reading it: it is lost for good.
    alone
        Whether no other process has the ledger open; then what a crash left undone is finished first.

    Raises
    ------
    LedgerUnreadable, Tampered
        If the ledger is missing, damaged, or another helper's.
    Rollback, Fork
        If the anchor has seen a newer ledger, or another one.
    """

    def __init__(
        self,
        path: Path,
        *,
        secrets: RoundSecrets,
        anchor: AnchorFile,
        fleet: str,
        key: Ed25519PrivateKey,
        clock: Callable[[], int] = lambda: int(time.time()),
        anew: bool = False,
        alone: bool = True,
    ) -> None:
        if not path.exists():
            raise LedgerUnreadable(f"there is no ledger at {path}", hint="restore it; a new one is a new helper")
        self._path, self._secrets, self._anchor = path, secrets, anchor
        self._fleet, self._key, self._clock = fleet, key, clock
        try:
            self._connection = ledger_schema.open_to_write(path)
        except sqlite3.Error as error:
            raise LedgerUnreadable(f"{path.name}: {error}", hint="check the disk and the rights") from None
        try:
            with self._transaction():
                schema.upgrade(self._connection)
                schema.check(self._connection, fleet, key.public_key().public_bytes_raw())
            self._check_chain()
            self._anchored = None if anew else self._checked_anchor()
            if alone:
                self.anchor()
                self.sweep()
        except BaseException:
            self.close()
            raise

    @staticmethod
    def create(path: Path, anchor: AnchorFile) -> None:
        """Lay out an empty ledger and its anchor.

        Raises
        ------
        LedgerUnreadable
            If there is a file already.
        """
        if path.exists():
            raise LedgerUnreadable(f"{path} is there already", hint="choose another folder")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection = ledger_schema.open_to_write(path)
        connection.execute("BEGIN IMMEDIATE")
        schema.create(connection, anchor.fleet, anchor.key.public_key().public_bytes_raw())
        connection.execute("COMMIT")
        connection.close()
        anchor.write(LedgerEnd())

    def close(self) -> None:
        """Close the file; everything is on disk already."""
        self._connection.close()

    # Answers.

    def head(self) -> tuple[int, bytes]:
        """Return the number of answers given and the hash of the newest, 32 bytes; zeros before the first."""
        row = self._one("SELECT sequence, answer FROM answers ORDER BY sequence DESC LIMIT 1")
        return (0, bytes(HASH_SIZE)) if row is None else (row[0], Answer.from_bytes(row[1]).content_hash)

    def answered(self, context: bytes) -> tuple[bytes, bytes] | None:
        """Return hash of the request and the bytes of the answer of a round, or None."""
        return self._one("SELECT request, answer FROM answers WHERE context = ?", context)

    def last_reports(self) -> dict[int, tuple[int, bytes]]:
        """Return for each device the number of its key and the mark of the newest report that was counted."""
        rows = self._connection.execute("SELECT device, key, mark FROM last_reports")
        return {int.from_bytes(device, "big"): (int.from_bytes(key, "big"), mark) for device, key, mark in rows}

    def record(
        self,
        offer: CollectionOffer,
        request_hash: bytes,
        answer: Answer,
        counted: Mapping[int, tuple[int, bytes]],
    ) -> None:
        """Write an answer, and the new head with it.

        Parameters
        ----------
        offer, request_hash, answer
            What was asked and answered.
        counted
            The newest reports of the devices in the sum, as `last_reports` has them.

        Raises
        ------
        AlreadyCollected
            If the round, or another one under the same round key, has an answer.
        """
        with self._transaction() as connection:
            sequence, previous = self.head()
            if (answer.sequence, answer.previous) != (sequence + 1, previous):
                raise AlreadyCollected("another answer was given meanwhile", hint="send the request again")
            try:
                connection.execute(
                    "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        answer.sequence,
                        answer.context,
                        offer.round_key_hash,
                        offer.run,
                        offer.server_round,
                        request_hash,
                        answer.to_bytes(),
                        self._clock(),
                    ),
                )
            except sqlite3.IntegrityError:
                raise AlreadyCollected("this round or its key was used", hint="begin the next round") from None
            connection.executemany(
                "INSERT OR REPLACE INTO last_reports VALUES (?, ?, ?)",
                [(device.to_bytes(8, "big"), key.to_bytes(8, "big"), mark) for device, (key, mark) in counted.items()],
            )

    def anchor(self) -> None:
        """Copy the ledger's end to the anchor, unless it is there."""
        end = self.end()
        if end != self._anchored:
            self._anchor.write(end)
            self._anchored = end

    def end(self) -> LedgerEnd:
        """Return where the ledger ends."""
        sequence, answer_hash = self.head()
        row = self._one("SELECT size, root FROM checkpoints ORDER BY id DESC LIMIT 1")
        log = LedgerEnd() if row is None else LedgerEnd(log_size=row[0], log_root=row[1])
        return LedgerEnd(sequence=sequence, answer_hash=answer_hash, log_size=log.log_size, log_root=log.log_root)

    # Round keys.

    def new_round_key(self, run: str, server_round: int, suite: Suite, *, not_after: int) -> RoundKey:
        """Return the key of a round: a new one, or the same one again.

        Raises
        ------
        RoundKeyGone
            If its private half was destroyed.
        RequestRefused
            If more keys are open than any fleet needs.
        """
        with self._transaction() as connection:
            row = self._one("SELECT key FROM round_keys WHERE run = ? AND round = ?", run, server_round)
            if row is not None:
                known = RoundKey.from_bytes(row[0])
                if known.not_after < self._clock() or self.round_secret(known.content_hash) is None:
                    raise RoundKeyGone(
                        f"the key of round {server_round} of run {run} was destroyed",
                        hint="it has answered or expired; ask for the next round's",
                    )
                return known
            (open_keys,) = self._one("SELECT count(*) FROM round_keys WHERE not_after >= ?", self._clock()) or (0,)
            if open_keys >= MAX_OPEN_KEYS:
                raise RequestRefused(
                    f"{open_keys} round keys have not expired",
                    hint="is the leader's program in order? wait for their end",
                )
            (number,) = self._one("SELECT coalesce(max(number), 0) + 1 FROM round_keys") or (1,)
            secret = RoundSecret.generate(suite)
            made = secret.published(self._key, fleet=self._fleet, index=number, not_after=not_after)
            self._secrets.put(made.content_hash, secret)
            connection.execute(
                "INSERT INTO round_keys VALUES (?, ?, ?, ?, ?, ?)",
                (number, run, server_round, made.content_hash, made.to_bytes(), not_after),
            )
        return made

    def round_secret(self, round_key_hash: bytes) -> tuple[RoundKey, RoundSecret] | None:
        """Return a round's key while its private half is there, or None."""
        row = self._one("SELECT key FROM round_keys WHERE hash = ?", round_key_hash)
        secret = self._secrets.get(round_key_hash)
        if row is None or secret is None:
            return None
        found = RoundKey.from_bytes(row[0])
        again = secret.published(self._key, fleet=self._fleet, index=found.index, not_after=found.not_after)
        return (found, secret) if again == found else None  # half overwritten when the power went

    def destroy(self, round_key_hash: bytes) -> None:
        """Destroy the private half of a round's key."""
        self._secrets.destroy(round_key_hash)

    def sweep(self) -> None:
        """Destroy the private halves of keys that have answered, have expired, or were never published."""
        self._secrets.sweep_drafts()
        for found in self._secrets.hashes():
            row = self._one(
                "SELECT not_after, EXISTS (SELECT 1 FROM answers WHERE round_key = hash) FROM round_keys "
                "WHERE hash = ?",
                found,
            )
            if row is None or row[1] or row[0] < self._clock():
                self._secrets.destroy(found)

    def open_keys(self) -> Iterator[RoundKey]:
        """Yield the round keys whose private halves are here."""
        for found in self._secrets.hashes():
            row = self._one("SELECT key FROM round_keys WHERE hash = ?", found)
            if row is not None:
                yield RoundKey.from_bytes(row[0])

    # Who takes part.

    def newest_register(self) -> Register | None:
        """Return the register that was checked last."""
        row = self._one("SELECT register FROM registers ORDER BY epoch DESC LIMIT 1")
        return None if row is None else Register.from_bytes(row[0])

    def newest_revocation(self) -> Revocation | None:
        """Return the revocation with the highest number."""
        row = self._one("SELECT revocation FROM revocations ORDER BY number DESC LIMIT 1")
        return None if row is None else Revocation.from_bytes(row[0])

    def keep_revocation(self, revocation: Revocation) -> None:
        """Write down a revocation that was checked; the same again changes nothing."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO revocations VALUES (?, ?)", (revocation.number, revocation.to_bytes())
            )

    def revoked(self) -> frozenset[int]:
        """Return the numbers of the keys that are out by the newest revocation."""
        newest = self.newest_revocation()
        return frozenset(newest.keys if newest else ())

    def live_keys(self) -> dict[int, LiveKey]:
        """Return what the helper signed last for each device."""
        rows = self._connection.execute("SELECT device, generation, key FROM certificates ORDER BY generation, id")
        return {int.from_bytes(device, "big"): LiveKey(generation, key) for device, generation, key in rows}

    def holder(self, identity_key: bytes) -> int | None:
        """Return the device for which the helper has signed a key."""
        row = self._one("SELECT device FROM certificates WHERE key = ? LIMIT 1", identity_key)
        return None if row is None else int.from_bytes(row[0], "big")

    def has_certificate(self, certificate: Certificate) -> bool:
        """Whether the helper has signed this very certificate."""
        query = "SELECT 1 FROM certificates WHERE device = ? AND certificate = ?"
        return self._one(query, DEVICE.write(certificate.device), certificate.to_bytes()) is not None

    @contextmanager
    def admitting(self) -> Iterator[Callable[[Certificate], None]]:
        """Write down that devices are admitted, all or none, before their certificates leave."""
        with self._transaction() as connection:

            def keep(certificate: Certificate) -> None:
                connection.execute(
                    "INSERT INTO certificates (device, generation, key, certificate) VALUES (?, ?, ?, ?)",
                    (
                        DEVICE.write(certificate.device),
                        certificate.generation,
                        certificate.identity_key,
                        certificate.to_bytes(),
                    ),
                )

            yield keep

    def keep_register(self, register: Register, entries: Entries) -> None:
        """Write down a register that was checked, with its list; the same again changes nothing."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO registers VALUES (?, ?, ?, ?)",
                (register.epoch, register.content_hash, register.to_bytes(), self._clock()),
            )
            connection.execute("INSERT OR IGNORE INTO lists VALUES (?, ?)", (register.epoch, entries.leaves))
            connection.execute(
                "DELETE FROM lists WHERE epoch NOT IN (SELECT epoch FROM lists ORDER BY epoch DESC LIMIT ?)",
                (KEPT_LISTS,),
            )

    def membership(self, register_hash: bytes) -> Membership:
        """Return a register that was checked, with its list and the keys of it that are out.

        Out are those of the newest revocation, and those in whose place a device has a newer one: by the newest
        register, or by what the helper's operator has admitted since.

        Raises
        ------
        RegisterRefused
            If it is not here, or not any more.
        """
        row = self._one(
            "SELECT register, entries FROM registers JOIN lists USING (epoch) WHERE hash = ?", register_hash
        )
        if row is None:
            raise RegisterRefused(
                "the register that the offer names was not checked here, or is too old",
                hint="have the helper check it before the round is offered",
            )
        entries = Entries(row[1])
        (newest,) = self._one("SELECT entries FROM lists ORDER BY epoch DESC LIMIT 1") or (row[1],)
        live = {device: entry.identity_key for device, entry in Entries(newest).items()}
        live |= {device: key.identity_key for device, key in self.live_keys().items()}
        replaced = {
            key_number(entry.identity_key)
            for device, entry in entries.items()
            if live.get(device, entry.identity_key) != entry.identity_key
        }
        return Membership(Register.from_bytes(row[0]), entries, self.revoked() | replaced)

    def most_registered(self) -> int:
        """Return the most devices of a register whose list is here."""
        (size,) = self._one("SELECT coalesce(max(length(entries)), 0) FROM lists") or (0,)
        return int(size) // _ENTRY_SIZE

    # The leader's log.

    def keep_checkpoint(self, size: int, root: bytes) -> None:
        """Write down the newest head of the leader's log, before it is cosigned."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO checkpoints (size, root, time) VALUES (?, ?, ?)", (size, root, self._clock())
            )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection
            self._connection.execute("COMMIT")
        except BaseException as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise LedgerUnreadable(
                    f"{self._path.name}: {error}", hint="check the disk, the rights, and who else holds the file"
                ) from None
            raise

    def _one(self, query: str, *values: object) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._connection.execute(query, values).fetchone()
        return row

    def _check_chain(self) -> None:
        sequence, previous = 0, bytes(HASH_SIZE)
        try:
            for (data,) in self._connection.execute("SELECT answer FROM answers ORDER BY sequence"):
                answer = Answer.from_bytes(data)
                answer.verify(self._key.public_key(), AnswerRefused, "it is not signed by this helper")
                if (answer.sequence, answer.previous) != (sequence + 1, previous):
                    raise AnswerRefused("it does not follow the one before")
                sequence, previous = answer.sequence, answer.content_hash
        except sqlite3.OperationalError as error:  # the disk or the memory, and no sign of a change
            raise LedgerUnreadable(f"{self._path.name}: {error}", hint="check the disk, then start again") from None
        except (SecureAggregationError, sqlite3.DatabaseError) as error:
            raise Tampered(f"answer {sequence + 1} in the ledger is damaged: {error}", hint=_RESTORE) from None

    def _checked_anchor(self) -> LedgerEnd:
        seen, own = self._anchor.read(), self.end()
        for what, before, now in (("answers", seen.sequence, own.sequence), ("leaves", seen.log_size, own.log_size)):
            if now < before:
                raise Rollback(
                    f"the ledger has seen {now} {what}, the anchor {before}: an old ledger was put back",
                    hint="restore the newest ledger; if there is none, end this fleet and begin another",
                )
        row = self._one("SELECT answer FROM answers WHERE sequence = ?", seen.sequence)
        at = bytes(HASH_SIZE) if row is None else Answer.from_bytes(row[0]).content_hash
        known = self._one("SELECT 1 FROM checkpoints WHERE size = ? AND root = ?", seen.log_size, seen.log_root)
        if at != seen.answer_hash or (seen.log_size and known is None):
            raise Fork("the ledger is not the one that the anchor saw", hint=_RESTORE)
        return seen
