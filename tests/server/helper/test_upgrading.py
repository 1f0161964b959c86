"""A ledger of format 1, as a helper of an earlier version left it, is opened and goes on; an unknown one is refused."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from hashlib import sha256

import numpy as np
import pytest

from palate.privacy.ledger.errors import LedgerUnreadable
from palate.server.helper import schema

FORMAT_1 = "6f6fb79e6db4dba96502a4dcddd710d3da4323090087d792034d485bcaa414e3"
"""SHA-256 of the statements that laid out format 1, joined by line ends."""


def to_format_1(path):
    """Lay a ledger out as format 1 was, and give it the rows that there are."""
    statements = [statement for name, statement in schema.SCHEMA.items() if name != "last_reports"]
    assert sha256("\n".join(statements).encode()).hexdigest() == FORMAT_1, "keep the old statements for this test"
    old = path.with_name("old.sqlite")
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("ATTACH DATABASE ? AS newer", (str(path),))
        for statement in statements:
            connection.execute(statement)
        for (table,) in connection.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'").fetchall():
            connection.execute(f"INSERT INTO main.{table} SELECT * FROM newer.{table}")
        connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 1")
        connection.commit()
    for each in path.parent.glob(f"{path.name}*"):
        each.unlink()
    old.rename(path)


def test_a_ledger_of_format_1_answers_as_before_and_goes_on(leader, place):
    service = place.open()
    membership = leader.registered(service)
    request = leader.round(service, membership, 1).collection().freeze()
    answered = service.answer(request)
    service.close()
    to_format_1(place.ledger)

    service = place.open()
    assert service.answer(request) == answered
    made = leader.round(service, membership, 2)
    collection = made.collection()
    assert np.array_equal(collection.finish(service.answer(collection.freeze()).answer).integers, made.signed_sum())
    assert len(service.book.last_reports()) == len(leader.identities), "from now on it knows the newest reports"
    service.close()
    with closing(sqlite3.connect(place.ledger)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)


def test_a_ledger_of_a_later_format_is_refused_by_name(leader, place):
    place.open().close()
    with closing(sqlite3.connect(place.ledger)) as connection:
        connection.execute("PRAGMA user_version = 3")
    with pytest.raises(LedgerUnreadable, match="ledger format 3 is not 2") as refused:
        place.open()
    assert refused.value.hint == "use the matching palate"
