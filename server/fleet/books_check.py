"""Before a fleet goes on: its books are whole, agree with each other, and are no older than what was noted beside them.

A ledger that is begun anew forgets what was spent, and an operator would be fooled by its own books. So once a round
was made, the ledger must be there, hold every round that made a table, and reach as far as its file of notes says.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from contextlib import closing
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from palate.errors import EnvironmentProblem, RunError
from palate.privacy.ledger import schema
from palate.privacy.ledger.errors import LedgerError
from palate.privacy.ledger.heads import AnchorWatch, notes_of, read_anchors
from palate.privacy.ledger.verify import verify_book
from palate.server.fleet.state import FleetState, Round, RoundStatus
from palate.server.fleet.transparency import TransparencyLog

_RESTORE = "restore fleet.sqlite, run/ and ledgers/ from one backup, the newest that has all rounds"


def check_whole(*databases: Path) -> None:
    """Read files of SQLite through; RunError if one is damaged. One that is not there yet is no error.

    Raises EnvironmentProblem where the machine prevents it.
    """
    for path in databases:
        if not path.exists():
            continue
        try:
            with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
                (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.OperationalError as error:
            raise EnvironmentProblem(f"{path}: {error}", hint="mend the disk, then start again") from error
        except sqlite3.Error as error:
            found = str(error)
        if found != "ok":
            raise RunError(f"{path} is damaged: {found.splitlines()[0]}", hint=_RESTORE)


def check_books(ledger: Path, state: FleetState, key: Ed25519PublicKey) -> frozenset[tuple[str, int]]:
    """Compare the ledger with its notes and with the rounds of the fleet; return the charged rounds, by run and number.

    Parameters
    ----------
    ledger, state
        The fleet's.
    key
        The server's public key, which signs the ledger.

    Raises
    ------
    RunError
        If the ledger is gone, was changed, is older than its notes, or lacks a round that made a table.
    """
    made = [
        (each.run, each.number) for each in state.rounds() if each.status in (RoundStatus.APPLIED, RoundStatus.DONE)
    ]
    notes = notes_of(ledger)
    if not _begun(ledger):
        if made or notes.exists():
            raise RunError(
                f"{ledger} is gone, and what was spent stood in it",
                hint=f"{_RESTORE}; a new one would forget what is spent",
            )
        return frozenset()
    anchors, _ = read_anchors(notes.read_bytes()) if notes.exists() else ([], [])
    watch = AnchorWatch(ledger.name, anchors, [])
    try:
        states = verify_book(ledger, key, allow_open=True, observe=watch.observe)
        watch.finish()
    except LedgerError as error:
        raise RunError(f"{ledger}: {error.message}", hint=_RESTORE) from error
    charged = {place for found in states.values() for place in (*found.open, *found.closed)}
    lacking = sorted(number for run, number in made if (run, number) not in charged)
    if lacking:
        rounds = ", ".join(map(str, lacking))
        raise RunError(f"{ledger} lacks rounds that made a table: {rounds}", hint=_RESTORE)
    return frozenset(charged)


def _begun(ledger: Path) -> bool:
    """Whether there is a ledger: a file without tables is one whose making was cut off, and nothing stood in it."""
    if not ledger.exists():
        return False
    try:
        with closing(schema.open_to_read(ledger)) as connection:
            return not schema.is_empty(connection)
    except sqlite3.Error:
        return True  # damaged: whoever reads it says how


def check_agreement(
    run: str,
    rounds: Sequence[Round],
    *,
    charged: Collection[tuple[str, int]],
    last_in_table: int | None,
    log: TransparencyLog,
) -> None:
    """Compare what is remembered of a fleet's rounds with the ledger, the checkpoint and the public log.

    Parameters
    ----------
    run
        The run that goes on.
    rounds
        All rounds of the fleet.
    charged
        Rounds in the ledger, by run and number.
    last_in_table
        The last round that is in the checkpoint's table; None without a checkpoint.
    log
        The public log.

    Raises
    ------
    RunError
        If they contradict each other: they are not from one moment.
    """
    known = {(each.run, each.number) for each in rounds}
    made = [each for each in rounds if each.status in (RoundStatus.APPLIED, RoundStatus.DONE)]
    for each in made:
        if each.run == run and (last_in_table is None or each.number > last_in_table):
            raise RunError(f"round {each.number} was applied, but the checkpoint ends before it", hint=_RESTORE)
        if (log.leaf(each.run, each.number) or {}).get("model") != each.table_hash:
            raise RunError(f"round {each.number} is not in the public log with the table that it made", hint=_RESTORE)
    named = {place for place in charged if place[0] == run}
    if last_in_table is not None:
        named.add((run, last_in_table))
    if named - known:
        raise RunError("the ledger or the checkpoint names rounds that fleet.sqlite does not", hint=_RESTORE)
