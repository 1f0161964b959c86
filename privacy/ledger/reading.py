"""Read a single ledger from a file: its bodies, and each entry's proof to the signature that it shares with others.

Indices are not trusted: an index that was edited could hide a row, so every query goes through the table.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import groupby, product
from operator import itemgetter
from pathlib import Path
from typing import Any, get_args

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from palate.privacy.ledger import schema
from palate.privacy.ledger.body import Event
from palate.privacy.ledger.chain import Record, Seal, check_name, genesis
from palate.privacy.ledger.errors import LedgerUnreadable, Tampered
from palate.privacy.ledger.merkle import MerkleTree
from palate.privacy.ledger.state import LedgerState, advance

Observer = Callable[[str, Event, LedgerState], None]
"""Called with every entry as it is replayed: the ledger's name, the event, and the state after it."""


@contextmanager
def opened(path: Path, key: Ed25519PublicKey) -> Iterator[sqlite3.Connection]:
    """Hold one state of a file to read from.

    Parameters
    ----------
    path
        The file; not written to.
    key
        The key that must have signed it.

    Raises
    ------
    LedgerUnreadable
        If the file is missing, damaged, of another version, or not a ledger.
    Tampered
        If its tables or guards were changed, or it names another key.
    """
    try:
        with closing(schema.open_to_read(path)) as connection:
            connection.execute("BEGIN")  # one state of the file throughout
            if schema.check(connection) != key.public_bytes_raw():
                raise Tampered("the file names another key than the one to verify with")
            yield connection
    except (sqlite3.Error, OverflowError, UnicodeDecodeError) as error:
        raise LedgerUnreadable(
            f"{path.name}: {' '.join(str(error).split())}", hint="the file is damaged or held by another program"
        ) from None


def ledger_ids(connection: sqlite3.Connection) -> dict[str, int]:
    """Row numbers of all ledgers by name, in the order in which they were made.

    Raises
    ------
    Tampered
        If a name is not one, or is there twice.
    """
    rows = list(_typed(connection.execute("SELECT name, id FROM ledgers NOT INDEXED ORDER BY id"), str, int))
    for name, _ in rows:
        check_name(name)
    ids = dict(rows)
    if len(ids) != len(rows):
        raise Tampered("two ledgers have the same name")
    return ids


def load_states(
    connection: sqlite3.Connection, key: Ed25519PublicKey, observe: Observer | None = None
) -> dict[str, LedgerState]:
    """Replay every ledger of a file, in the order of writing: chains and rules are checked, signatures are not.

    Raises
    ------
    Tampered, BudgetExceeded
        As `state.advance`; and if an entry belongs to no ledger.
    """
    ids = ledger_ids(connection)
    states = {name: LedgerState(head=genesis(name, key)) for name in ids}
    by_id = {number: (name, states[name]) for name, number in ids.items()}
    query = "SELECT ledger, seq, kind, run, round, body, hash FROM entries NOT INDEXED ORDER BY id"
    types = (int, int, str, str | None, int | None, bytes, bytes)
    for ledger, seq, kind, run, round_, body, stored in _typed(connection.execute(query), *types):
        if ledger not in by_id:
            raise Tampered(f"an entry belongs to ledger {ledger}, which the file does not name")
        name, state = by_id[ledger]
        try:
            event = advance(state, body, stored_columns=(seq, kind, run, round_), stored_hash=stored)
        except Tampered as error:
            raise Tampered(f"ledger {name}: {error.message}") from None
        if observe is not None:
            observe(name, event, state)
    return states


def read_records(connection: sqlite3.Connection, name: str) -> list[Record]:
    """All entries of one ledger with their seals, in order.

    Raises
    ------
    LedgerUnreadable
        If the file has no ledger of that name.
    Tampered
        If a batch that an entry was sealed with is incomplete, or the file holds loose ends of deleted rows.
    """
    ids = ledger_ids(connection)
    if name not in ids:
        raise LedgerUnreadable(f"there is no ledger {name!r} in the file", hint=_name_hint(ids))
    _check_strays(connection)
    seals = dict(_read_seals(connection, ids[name]))
    query = "SELECT seq, kind, run, round, body, hash, seal FROM entries NOT INDEXED WHERE ledger = ? ORDER BY id"
    types = (int, str, str | None, int | None, bytes, bytes, int)
    return [
        Record(body, seals[seal], (seq, kind, run, round_), entry)
        for seq, kind, run, round_, body, entry, seal in _typed(connection.execute(query, (ids[name],)), *types)
    ]


def sealed_hashes(connection: sqlite3.Connection) -> Iterator[tuple[list[bytes], bytes]]:
    """Every batch of a file: the hashes of its entries, in order, and the signature over them.

    Raises
    ------
    Tampered
        If a batch lacks entries, or an entry has no batch.
    """
    signatures = _signatures(connection)
    query = "SELECT seal, leaf, hash FROM entries NOT INDEXED ORDER BY seal, leaf"
    for seal, rows in groupby(_typed(connection.execute(query), int, int, bytes), itemgetter(0)):
        size, signature = signatures.pop(seal, (0, b""))
        yield _complete(seal, size, [(leaf, entry) for _, leaf, entry in rows]), signature
    if signatures:
        raise Tampered(f"{len(signatures)} signed batches have no entries any more")


def _read_seals(connection: sqlite3.Connection, ledger: int) -> Iterator[tuple[int, Seal]]:
    own = connection.execute("SELECT seal, leaf FROM entries NOT INDEXED WHERE ledger = ?", (ledger,)).fetchall()
    places = dict(own)
    if len(places) != len(own):
        raise Tampered("two entries of one ledger share a signed batch")
    signatures = _signatures(connection)
    query = (
        "SELECT seal, leaf, hash FROM entries NOT INDEXED "
        "WHERE seal IN (SELECT seal FROM entries NOT INDEXED WHERE ledger = ?) ORDER BY seal, leaf"
    )
    for seal, rows in groupby(_typed(connection.execute(query, (ledger,)), int, int, bytes), itemgetter(0)):
        size, signature = signatures.get(seal, (0, b""))
        hashes = _complete(seal, size, [(leaf, entry) for _, leaf, entry in rows])
        index = places[seal]
        path = MerkleTree(hashes).inclusion_proof(index) if size > 1 else []
        yield seal, Seal(size=size, index=index, path=tuple(path), signature=signature)


def _signatures(connection: sqlite3.Connection) -> dict[int, tuple[int, bytes]]:
    rows = connection.execute("SELECT id, size, signature FROM seals NOT INDEXED")
    return {number: (size, signature) for number, size, signature in _typed(rows, int, int, bytes)}


def _check_strays(connection: sqlite3.Connection) -> None:
    """Refuse a file in which rows were deleted without the rows that refer to them."""
    for what, query in {
        "signed batches have no entries": "SELECT id FROM seals WHERE id NOT IN (SELECT seal FROM entries NOT INDEXED)",
        "entries have no ledger": "SELECT id FROM entries NOT INDEXED WHERE ledger NOT IN (SELECT id FROM ledgers)",
    }.items():
        found = connection.execute(query).fetchall()
        if found:
            raise Tampered(f"{len(found)} {what} any more")


def _typed(rows: Iterable[tuple[Any, ...]], *types: object) -> Iterator[tuple[Any, ...]]:
    """Pass on rows of these types only: SQLite checks them when it writes, and a damaged file was written elsewhere."""
    choices = [get_args(kind) or (kind,) for kind in types]
    allowed = set(product(*choices))
    for row in rows:
        if tuple(map(type, row)) not in allowed:
            raise Tampered("a column holds another type than the format says")
        yield row


def _complete(seal: int, size: int, rows: list[tuple[int, bytes]]) -> list[bytes]:
    if len(rows) != size or [leaf for leaf, _ in rows] != list(range(size)):
        raise Tampered(f"signed batch {seal} has {size} entries, {len(rows)} are there")
    return [entry for _, entry in rows]


def _name_hint(ids: dict[str, int]) -> str:
    return f"the file holds {len(ids)} ledgers, among them {', '.join(list(ids)[:3])}" if ids else "the file is empty"
