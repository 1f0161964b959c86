"""The fleet's memory, in SQLite: every round, and every message of the round that is open.

A message is here before it is looked at, and so is the moment at which a step was closed. Secure aggregation is a
function of both (`palate.privacy.secagg.server`), so a server that was killed replays them and goes on with the same
outgoing bytes. Other processes read the same file, and leave the wish to stop in it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import wraps
from hashlib import sha256
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from palate.errors import EnvironmentProblem, RunError
from palate.privacy.wire import FleetStep

FORMAT = 5
APPLICATION_ID = 0x504C4654  # "PLFT"

_TABLES = (
    "CREATE TABLE rounds (number INTEGER PRIMARY KEY, run TEXT NOT NULL, purpose TEXT NOT NULL, status TEXT NOT NULL, "
    "roster_size INTEGER NOT NULL, plan_hash TEXT NOT NULL, offer BLOB NOT NULL, started_at REAL NOT NULL, "
    "ended_at REAL, reason TEXT NOT NULL DEFAULT '', advertised INTEGER NOT NULL DEFAULT 0, "
    "survivors INTEGER NOT NULL DEFAULT 0, table_hash TEXT NOT NULL DEFAULT '', log_index INTEGER, "
    "epsilon REAL NOT NULL DEFAULT 0, life_epsilon REAL NOT NULL DEFAULT 0, receipt BLOB, "
    "lost_in TEXT NOT NULL DEFAULT '', named TEXT NOT NULL DEFAULT '') STRICT",
    "CREATE TABLE members (round INTEGER NOT NULL, device TEXT NOT NULL, up INTEGER NOT NULL DEFAULT 0, "
    "down INTEGER NOT NULL DEFAULT 0, failure INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (round, device)) STRICT",
    "CREATE TABLE events (seq INTEGER PRIMARY KEY AUTOINCREMENT, round INTEGER NOT NULL, step TEXT NOT NULL, "
    "device TEXT, digest BLOB, body BLOB, UNIQUE (round, step, device, digest)) STRICT",
    "CREATE TABLE collections (round INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, call BLOB NOT NULL, request BLOB, "
    "answer BLOB, head BLOB) STRICT",
    "CREATE TABLE registers (epoch INTEGER PRIMARY KEY, register BLOB NOT NULL, entries BLOB NOT NULL) STRICT",
    "CREATE TABLE control (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
)
_ROUND_COLUMNS = (
    "number, run, purpose, status, roster_size, plan_hash, offer, started_at, ended_at, reason, advertised, survivors, "
    "table_hash, log_index, epsilon, life_epsilon, receipt, lost_in, named"
)
_BEGUN = (
    "number", "run", "purpose", "status", "roster_size", "plan_hash", "offer", "started_at", "epsilon", "life_epsilon",
)  # fmt: skip
"""Columns that a round has from its beginning."""


class RoundStatus(StrEnum):
    """How far a round came."""

    OPEN = "open"
    APPLIED = "applied"
    """Its sum is in the table; receipts are on their way."""
    DONE = "done"
    ABANDONED = "abandoned"


class Stop(StrEnum):
    """When the operator wants the server to stop."""

    AFTER_ROUND = "after-round"
    NOW = "now"


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round, as it is remembered.

    Attributes
    ----------
    number, run, purpose, status
        Which round, of which run, what it asks for, how far it came. Numbers go on from run to run.
    roster_size
        Devices asked.
    plan_hash
        Of the plan, in hexadecimal.
    offer
        The signed offer.
    started_at, ended_at
        Seconds since 1970; None while it is open.
    reason
        Why it was abandoned.
    advertised, survivors
        Devices on the roster, and devices in the sum.
    table_hash, log_index
        What the round made, and where the public log has it.
    epsilon, life_epsilon
        Spent in the run once this round was charged, and in all runs of the fleet.
    receipt
        What devices are told at the end.
    lost_in
        Step in which it was lost; empty where it was not, or by none.
    named
        The device whose messages made it fail, where that is known: never one that merely fell silent.
    """

    number: int
    run: str
    purpose: str
    status: RoundStatus
    roster_size: int
    plan_hash: str
    offer: bytes
    started_at: float
    ended_at: float | None = None
    reason: str = ""
    advertised: int = 0
    survivors: int = 0
    table_hash: str = ""
    log_index: int | None = None
    epsilon: float = 0.0
    life_epsilon: float = 0.0
    receipt: bytes | None = None
    lost_in: str = ""
    named: str = ""


@dataclass(frozen=True)
class Member:
    """What one device sent and received in a round, in bytes; and the code with which it failed, or 0."""

    device: str
    up: int
    down: int
    failure: int


@dataclass(frozen=True)
class Event:
    """A message of a device, or, without one, the end of a step."""

    step: FleetStep
    device: str | None
    body: bytes


@dataclass(frozen=True, kw_only=True)
class CollectionRecord:
    """What is remembered of a round under two aggregators, besides the uploads (`palate.server.fleet.spool`).

    Attributes
    ----------
    epoch
        Of the register that its offer names.
    call
        What devices are sent, as `CollectionCall` writes it.
    request
        What the helper is asked, once no report is taken any more.
    answer, head
        What it answered; the round is spent from here on.
    """

    epoch: int
    call: bytes = field(repr=False)
    request: bytes | None = field(default=None, repr=False)
    answer: bytes | None = field(default=None, repr=False)
    head: bytes | None = field(default=None, repr=False)


_P = ParamSpec("_P")
_T = TypeVar("_T")


def _in_words(method: Callable[Concatenate[FleetState, _P], _T]) -> Callable[Concatenate[FleetState, _P], _T]:
    """Say what a full or a broken disk means, in place of SQLite's error."""

    @wraps(method)
    def call(state: FleetState, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return method(state, *args, **kwargs)
        except sqlite3.Error as error:
            raise state.unusable(error) from error

    return call


class FleetState:
    """The file; safe to open in several processes.

    Parameters
    ----------
    path
        Made if it is not there, readable by its owner only.

    Raises
    ------
    RunError
        If it is damaged or of another format; from then on, every call, where it is damaged.
    EnvironmentProblem
        If the machine prevents it; likewise.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        try:
            path.touch(mode=0o600)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=30.0, check_same_thread=False)
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON", "trusted_schema = OFF"):
                self._db.execute(f"PRAGMA {pragma}")
            with self._transaction():
                self._create()
        except (sqlite3.Error, OSError) as error:
            raise self.unusable(error) from error

    def unusable(self, error: Exception) -> EnvironmentProblem | RunError:
        """Say what an error of SQLite or of the system means."""
        if isinstance(error, sqlite3.OperationalError | OSError):
            hint = "free some space or mend the disk, then: palate server resume"
            return EnvironmentProblem(f"{self._path}: {error}", hint=hint)
        return RunError(
            f"{self._path} cannot be used: {error}",
            hint="is it the fleet's own? restore fleet.sqlite, run/ and ledgers/ from one backup",
        )

    def close(self) -> None:
        """Close the file; everything is on disk already."""
        self._db.close()

    @_in_words
    def begin_round(self, begun: Round, devices: Iterable[str], collection: CollectionRecord | None = None) -> None:
        """Remember a round that is about to be charged, and whom it asks."""
        with self._transaction():
            self._db.execute(
                f"INSERT INTO rounds ({', '.join(_BEGUN)}) VALUES ({', '.join('?' * len(_BEGUN))})",
                [getattr(begun, name) for name in _BEGUN],
            )
            self._db.executemany(
                "INSERT INTO members (round, device) VALUES (?, ?)", [(begun.number, device) for device in devices]
            )
            if collection is not None:
                self._db.execute(
                    "INSERT INTO collections (round, epoch, call) VALUES (?, ?, ?)",
                    (begun.number, collection.epoch, collection.call),
                )

    @_in_words
    def update_round(self, number: int, /, **changes: str | int | float | bytes | None) -> None:
        """Change columns of a round, all at once."""
        names = ", ".join(f"{name} = ?" for name in changes)
        with self._transaction():
            self._db.execute(f"UPDATE rounds SET {names} WHERE number = ?", (*changes.values(), number))

    @_in_words
    def end_round(
        self, number: int, status: RoundStatus, *, reason: str = "", lost_in: str = "", named: str = ""
    ) -> None:
        """Close a round, and forget its messages: what they hide is nobody's business, and they are large."""
        with self._transaction():
            self._db.execute(
                "UPDATE rounds SET status = ?, reason = ?, lost_in = ?, named = ?, ended_at = ? WHERE number = ?",
                (str(status), reason, lost_in, named, self._clock(), number),
            )
            self._db.execute("DELETE FROM events WHERE round = ?", (number,))
            self._db.execute("DELETE FROM collections WHERE round = ?", (number,))

    @_in_words
    def rounds(self, run: str | None = None) -> tuple[Round, ...]:
        """All rounds of the fleet, or those of a run, oldest first."""
        wanted = f"SELECT {_ROUND_COLUMNS} FROM rounds WHERE run = coalesce(?, run) ORDER BY number"
        rows = self._db.execute(wanted, (run,))
        names = [column[0] for column in rows.description]
        return tuple(_round(dict(zip(names, row, strict=True))) for row in rows)

    @_in_words
    def first_round(self, run: str) -> int:
        """Return the number of a run's first round: the one that it has or will have."""
        rounds = self.rounds(run)
        return rounds[0].number if rounds else max((each.number + 1 for each in self.rounds()), default=0)

    @_in_words
    def unfinished(self) -> Round | None:
        """Return the round that is neither done nor abandoned, if there is one."""
        return next((it for it in self.rounds() if it.status in (RoundStatus.OPEN, RoundStatus.APPLIED)), None)

    @_in_words
    def members(self, number: int) -> tuple[Member, ...]:
        """Whom a round asked, by device."""
        rows = self._db.execute(
            "SELECT device, up, down, failure FROM members WHERE round = ? ORDER BY device", (number,)
        )
        return tuple(Member(*row) for row in rows)

    @_in_words
    def sent(self, number: int, sizes: Iterable[tuple[str, int]]) -> None:
        """Count bytes that went down to devices."""
        with self._transaction():
            self._db.executemany(
                "UPDATE members SET down = down + ? WHERE round = ? AND device = ?",
                [(size, number, device) for device, size in sizes],
            )

    @_in_words
    def failed(self, number: int, device: str, code: int) -> None:
        """Remember with which code a device dropped out."""
        with self._transaction():
            self._db.execute("UPDATE members SET failure = ? WHERE round = ? AND device = ?", (code, number, device))

    # messages of the open round

    @_in_words
    def record(self, number: int, step: FleetStep, device: str, body: bytes) -> bool:
        """Keep a message before it is looked at; False if exactly this one is here already."""
        with self._transaction():
            added = self._db.execute(
                "INSERT OR IGNORE INTO events (round, step, device, digest, body) VALUES (?, ?, ?, ?, ?)",
                (number, str(step), device, sha256(body).digest(), body),
            ).rowcount
            self._db.execute(
                "UPDATE members SET up = up + ? WHERE round = ? AND device = ?", (len(body), number, device)
            )
        return added == 1

    @_in_words
    def close_step(self, number: int, step: FleetStep) -> None:
        """Keep the moment at which a step ended: what is recorded before it counts, and nothing after."""
        with self._transaction():
            self._db.execute("INSERT INTO events (round, step) VALUES (?, ?)", (number, str(step)))

    def events(self, number: int) -> Iterator[Event]:
        """Messages and ends of steps of a round in their order, one in memory at a time."""
        for seq in self._sequence(number):
            yield self._event(seq)

    @_in_words
    def _sequence(self, number: int) -> list[int]:
        return [row[0] for row in self._db.execute("SELECT seq FROM events WHERE round = ? ORDER BY seq", (number,))]

    @_in_words
    def _event(self, seq: int) -> Event:
        query = "SELECT step, device, body FROM events WHERE seq = ?"
        step, device, body = self._db.execute(query, (seq,)).fetchone()
        return Event(FleetStep(step), device, body or b"")

    @_in_words
    def progress(self, number: int) -> tuple[FleetStep, int]:
        """Return the open step of a round, and how many messages of it are here."""
        closed = self._db.execute(
            "SELECT count(*) FROM events WHERE round = ? AND device IS NULL", (number,)
        ).fetchone()[0]
        step = list(FleetStep)[closed]
        (answers,) = self._db.execute(
            "SELECT count(DISTINCT device) FROM events WHERE round = ? AND step = ?", (number, str(step))
        ).fetchone()
        return step, answers

    # rounds under two aggregators

    @_in_words
    def collection(self, number: int) -> CollectionRecord | None:
        """Return what is remembered of an open round; None among peers, or once the round is over."""
        query = "SELECT epoch, call, request, answer, head FROM collections WHERE round = ?"
        row = self._db.execute(query, (number,)).fetchone()
        names = ("epoch", "call", "request", "answer", "head")
        return None if row is None else CollectionRecord(**dict(zip(names, row, strict=True)))

    @_in_words
    def freeze(self, number: int, request: bytes | None, sizes: Iterable[tuple[str, int]] = ()) -> None:
        """Keep the request before it is sent, and what devices have sent; or drop it, to go on collecting."""
        with self._transaction():
            self._db.execute("UPDATE collections SET request = ? WHERE round = ?", (request, number))
            self._db.executemany(
                "UPDATE members SET up = ? WHERE round = ? AND device = ?",
                [(size, number, device) for device, size in sizes],
            )

    @_in_words
    def keep_answer(self, number: int, answer: bytes, head: bytes) -> None:
        """Keep the helper's answer, and the head of its ledger behind it, before they count."""
        with self._transaction():
            self._db.execute("UPDATE collections SET answer = ?, head = ? WHERE round = ?", (answer, head, number))

    @_in_words
    def register(self, epoch: int | None = None) -> tuple[bytes, bytes] | None:
        """Return a register and its entries, the newest unless an epoch is given; None if it is not here."""
        query = "SELECT register, entries FROM registers WHERE epoch = coalesce(?, (SELECT max(epoch) FROM registers))"
        row = self._db.execute(query, (epoch,)).fetchone()
        return None if row is None else (row[0], row[1])

    @_in_words
    def keep_register(self, epoch: int, register: bytes, entries: bytes) -> None:
        """Keep a register that all who admit have signed; of older ones, those that open rounds name stay."""
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO registers VALUES (?, ?, ?)", (epoch, register, entries))
            self._db.execute(
                "DELETE FROM registers WHERE epoch < ? AND epoch NOT IN (SELECT epoch FROM collections)", (epoch,)
            )

    @_in_words
    def asked_register(self) -> bytes | None:
        """Return what the helper was asked to sign as the next register; None where nothing is under way."""
        row = self._db.execute("SELECT value FROM control WHERE name = 'register'").fetchone()
        return None if row is None else bytes.fromhex(row[0])

    @_in_words
    def ask_register(self, asked: bytes | None) -> None:
        """Keep what the helper is asked to sign as the next register, before it is sent; or drop it."""
        with self._transaction():
            self._db.execute("DELETE FROM control WHERE name = 'register'")
            if asked is not None:
                self._db.execute("INSERT INTO control VALUES ('register', ?)", (asked.hex(),))

    @_in_words
    def revocation(self) -> tuple[bytes, bool] | None:
        """Return the newest revocation, and whether the helper has it; None before the first."""
        row = self._db.execute("SELECT value FROM control WHERE name = 'revocation'").fetchone()
        return None if row is None else (bytes.fromhex(row[0][1:]), row[0][0] == "1")

    @_in_words
    def keep_revocation(self, revocation: bytes) -> None:
        """Keep a newer revocation, which the helper does not have yet."""
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO control VALUES ('revocation', ?)", ("0" + revocation.hex(),))

    @_in_words
    def revocation_carried(self, sent: bytes, signed: bytes) -> None:
        """Keep what the helper returned for a revocation, unless another process has kept a newer one meanwhile."""
        query = "UPDATE control SET value = ? WHERE name = 'revocation' AND value = ?"
        with self._transaction():
            self._db.execute(query, ("1" + signed.hex(), "0" + sent.hex()))

    # what other processes want

    @_in_words
    def request_stop(self, when: Stop | None) -> None:
        """Leave the wish to stop, or take it back."""
        with self._transaction():
            self._db.execute("DELETE FROM control WHERE name = 'stop'")
            if when is not None:
                self._db.execute("INSERT INTO control VALUES ('stop', ?)", (str(when),))

    @_in_words
    def stop_requested(self) -> Stop | None:
        """Tell whether somebody wants the server to stop."""
        row = self._db.execute("SELECT value FROM control WHERE name = 'stop'").fetchone()
        return None if row is None else Stop(row[0])

    # rounds that were lost in a row

    @_in_words
    def forgive_losses(self) -> None:
        """Count no round that was lost so far: the operator has looked, and wants to go on."""
        query = "SELECT coalesce(max(number), -1) FROM rounds WHERE status = ?"
        self._set("forgiven", self._db.execute(query, (str(RoundStatus.ABANDONED),)).fetchone()[0])

    @_in_words
    def forgiven(self) -> int:
        """Return the last round that no longer counts; -1 for none."""
        return self._number("forgiven")

    @_in_words
    def halt_at(self, number: int) -> None:
        """Remember that one lost round alone was reason to stop."""
        self._set("halt", number)

    @_in_words
    def halted_at(self) -> int:
        """Return the round that alone was reason to stop; -1 for none."""
        return self._number("halt")

    def _set(self, name: str, value: int) -> None:
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO control VALUES (?, ?)", (name, str(value)))

    def _number(self, name: str) -> int:
        row = self._db.execute("SELECT value FROM control WHERE name = ?", (name,)).fetchone()
        return -1 if row is None else int(row[0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk has rolled back already
                self._db.execute("ROLLBACK")
            raise

    def _create(self) -> None:
        if self._db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None:
            for statement in _TABLES:
                self._db.execute(statement)
            self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self._db.execute(f"PRAGMA user_version = {FORMAT}")
        found = tuple(self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
        if found != (APPLICATION_ID, FORMAT):
            raise RunError(
                f"{self._path} is of format {found[1]}, this version reads {FORMAT}",
                hint="use the version of Palate that wrote it",
            )


def _round(row: dict[str, Any]) -> Round:
    return Round(**{**row, "status": RoundStatus(row["status"])})  # columns and fields have the same names and types
