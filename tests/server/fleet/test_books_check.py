"""The fleet's own books fool nobody: what was spent is not forgotten, and damage is found at the start."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

import pytest

from palate.errors import RunError
from palate.privacy.ledger.heads import notes_of
from palate.server.fleet.books_check import check_books, check_whole


@pytest.fixture
def fleet(make_fleet):
    """A fleet whose run is over, with the ledger as it was after the first round."""
    made = make_fleet(devices=4, cohort={"devices": 4, "smallest": 2}, schedule={"rounds": 2, "dim": 3})
    operation = made.operation()
    finish = made.ledger.finish

    def finishing(*arguments, **more):
        finish(*arguments, **more)
        if not (made.folder / "old.sqlite").exists():
            with sqlite3.connect(made.ledger_path) as source, sqlite3.connect(made.folder / "old.sqlite") as target:
                source.backup(target)

    made.ledger_path = made.folder / "server.sqlite"
    made.ledger.finish = finishing
    operation.run()
    made.ledger.close()
    yield made
    made.state.close()
    made.enrolment.close()


def check(fleet):
    check_whole(fleet.folder / "fleet.sqlite", fleet.folder / "nodes.sqlite", fleet.ledger_path)
    check_books(fleet.ledger_path, fleet.state, fleet.keys[0].public_key())


def test_books_that_belong_together_are_accepted_and_so_is_a_fleet_that_has_not_begun(fleet, make_fleet):
    check(fleet)
    new = make_fleet(devices=4)
    new.operation()
    new.ledger.close()
    check_books(new.folder / "absent.sqlite", new.state, new.keys[0].public_key())


def test_a_ledger_that_is_gone_is_not_begun_anew(fleet):
    fleet.ledger_path.unlink()
    with pytest.raises(RunError, match="is gone") as caught:
        check(fleet)
    assert "would forget what is spent" in caught.value.hint
    notes_of(fleet.ledger_path).unlink()
    with pytest.raises(RunError, match="is gone"):
        check(fleet)


def test_a_ledger_whose_making_was_cut_off_counts_as_none(fleet, make_fleet):
    new = make_fleet(devices=4)
    new.operation()
    new.ledger.close()
    empty = new.folder / "cut-off.sqlite"
    with closing(sqlite3.connect(empty)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    assert empty.stat().st_size > 0
    check_books(empty, new.state, new.keys[0].public_key())
    with pytest.raises(RunError, match="is gone"):
        check_books(empty, fleet.state, fleet.keys[0].public_key())


def test_a_ledger_that_was_begun_anew_lacks_the_rounds(fleet, make_fleet):
    other = make_fleet(devices=4)
    other.keys = fleet.keys
    other.operation()
    other.ledger.close()
    shutil.copy(other.folder / "server.sqlite", fleet.ledger_path)
    notes_of(fleet.ledger_path).unlink()
    with pytest.raises(RunError, match="lacks rounds that made a table: 0, 1, 2"):
        check(fleet)


def test_an_older_ledger_is_found_by_its_notes_and_without_them_by_the_rounds(fleet):
    shutil.copy(fleet.folder / "old.sqlite", fleet.ledger_path)
    with pytest.raises(RunError, match="an anchor saw"):
        check(fleet)
    notes_of(fleet.ledger_path).unlink()
    with pytest.raises(RunError, match="lacks rounds that made a table: 1, 2"):
        check(fleet)


@pytest.mark.parametrize("name", ["server.sqlite", "fleet.sqlite", "nodes.sqlite"])
def test_garbage_in_any_of_the_files_is_found(fleet, name):
    path = fleet.folder / name
    if name != "server.sqlite":
        fleet.state.close() if name == "fleet.sqlite" else fleet.enrolment.close()
    with sqlite3.connect(path) as connection:
        connection.execute("pragma wal_checkpoint(truncate)")
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(max(100, min(size - 8192, size // 2)))
        file.write(b"\xa5" * min(8192, size // 2))
    with pytest.raises(RunError, match=rf"{name}"):
        check_whole(path)
