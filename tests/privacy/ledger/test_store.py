"""Writing: the rules refuse before anything is written, commits last, and batches are the same format."""

from __future__ import annotations

import sqlite3
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.privacy.ledger import schema
from palate.privacy.ledger.anchors import Anchor
from palate.privacy.ledger.errors import (
    BudgetExceeded,
    Fork,
    LedgerError,
    LedgerUnreadable,
    PolicyRefused,
    Rollback,
    RoundRefused,
    Tampered,
)
from palate.privacy.ledger.export import export_ledger, from_text
from palate.privacy.ledger.store import LedgerBook
from palate.privacy.ledger.verify import verify_book, verify_ledger, verify_records

CHARGE = 250_000_010  # of `intent`


@pytest.fixture
def book(tmp_path, signer, policy):
    with LedgerBook(tmp_path / "book.db", signer) as book:
        book.create(["device"], policy())
        yield book


def test_a_round_beyond_the_budget_is_refused_with_the_figures(book, intent):
    for number in range(4):
        book.append("device", intent(number))
    with pytest.raises(BudgetExceeded, match=r"needs 0\.25000001, 0 is left of 1\.00000004 ") as caught:
        book.append("device", intent(4))
    assert (caught.value.needed_nano, caught.value.left_nano, caught.value.budget_nano) == (CHARGE, 0, 4 * CHARGE)
    assert caught.value.hint
    assert book.state("device").seq == 5


def test_the_budget_may_be_spent_to_the_last_unit_and_no_further(book, policy, intent):
    book.append("device", policy(budget_nano=CHARGE - 1))
    with pytest.raises(BudgetExceeded):
        book.append("device", intent(1))
    book.append("device", policy(budget_nano=CHARGE))
    book.append("device", intent(1))
    assert book.state("device").left_nano == 0


def test_raising_the_budget_takes_a_new_policy(book, policy, intent):
    for number in range(4):
        book.append("device", intent(number))
    book.append("device", policy(budget_nano=5 * CHARGE))
    book.append("device", intent(4))
    assert book.state("device").spent_nano == 5 * CHARGE


@pytest.mark.parametrize("changes", [{"unit": "interaction"}, {"adjacency": "replace-one"}, {"n1": 49, "m_honest": 40}])
def test_a_round_outside_the_policy_is_refused(book, intent, changes):
    with pytest.raises(PolicyRefused):
        book.append("device", intent(1, **changes))
    assert book.state("device").seq == 1


def test_a_round_is_charged_once_whatever_it_asks_for(book, intent, outcome):
    book.append("device", intent(1))
    for again in (intent(1), intent(1, sum_var_int=9000**2)):
        with pytest.raises(RoundRefused):
            book.append("device", again)
    book.append("device", outcome(1))
    with pytest.raises(RoundRefused):
        book.append("device", intent(1))
    book.append("device", intent(1, run="run-2"))


def test_an_outcome_needs_its_intent_and_comes_once(book, intent, outcome):
    with pytest.raises(RoundRefused):
        book.append("device", outcome(1))
    book.append("device", intent(1))
    book.append("device", outcome(1))
    with pytest.raises(RoundRefused):
        book.append("device", outcome(1))


def test_only_a_withheld_round_gives_its_charge_back(book, intent, outcome):
    book.append("device", intent(1))
    book.append("device", outcome(1))
    assert book.state("device").spent_nano == CHARGE
    book.append("device", intent(2))
    book.append("device", outcome(2, status="withheld", payload=""))
    assert book.state("device").spent_nano == CHARGE
    with pytest.raises(RoundRefused):
        book.append("device", intent(2))


def test_a_ledger_begins_once_and_with_a_policy(book, policy, intent):
    with pytest.raises(PolicyRefused, match="already"):
        book.create(["new", "device"], policy())
    assert book.names == ("device",)
    with pytest.raises(LedgerUnreadable, match="no ledger"):
        book.append("stranger", intent(1))


@pytest.mark.parametrize("name", ["", "x" * 101, "é", "a\nb"])
def test_a_name_that_a_file_could_not_carry_is_refused(book, policy, name):
    with pytest.raises(Tampered):
        book.create([name], policy())
    assert book.names == ("device",)


@pytest.mark.parametrize("table", ["entries", "seals", "ledgers", "book"])
@pytest.mark.parametrize("attack", ["UPDATE {table} SET {column} = {column}", "DELETE FROM {table}"])
def test_the_database_refuses_to_change_what_is_written(ledger, table, attack):
    column = {"entries": "body", "seals": "size", "ledgers": "name", "book": "key"}[table]
    connection = sqlite3.connect(ledger)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(attack.format(table=table, column=column))
    connection.close()


def test_the_database_refuses_a_second_entry_of_a_kind_for_one_round(ledger):
    connection = sqlite3.connect(ledger)
    copy = (
        "INSERT INTO entries SELECT 99, ledger, 99, kind, run, round, body, hash, seal, leaf FROM entries WHERE seq=2"
    )
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        connection.execute(copy)
    connection.close()


def test_every_commit_waits_for_the_disk(book):
    with book.transaction() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
        assert connection.execute("SELECT count(*) FROM pragma_table_list WHERE strict").fetchone()[0] == 5


def test_only_the_owner_may_read_the_file(ledger):
    assert stat.S_IMODE(ledger.stat().st_mode) == 0o600


def test_two_programs_on_one_file_see_each_others_charges(ledger, signer, intent):
    with LedgerBook(ledger, signer) as first, LedgerBook(ledger, signer) as second:
        first.append("device", intent(3))
        with pytest.raises(RoundRefused):
            second.append("device", intent(3))
        second.append("device", intent(4))
        with pytest.raises(BudgetExceeded):
            first.append("device", intent(5))
    assert verify_ledger(ledger, "device", signer.public_key(), allow_open=True).state.seq == 8


def test_a_batch_is_written_whole_or_not_at_all(book, policy, intent):
    book.create(["poor"], policy(budget_nano=1))
    with pytest.raises(BudgetExceeded):
        book.append_batch([("device", intent(1)), ("poor", intent(1))])
    assert [book.state(name).seq for name in book.names] == [1, 1]
    book.append("device", intent(1))


def test_a_batch_has_one_entry_a_ledger(book, intent):
    with pytest.raises(RoundRefused, match="twice"):
        book.append_batch([("device", intent(1)), ("device", intent(2))])
    assert book.state("device").seq == 1


def test_an_empty_batch_writes_nothing(book):
    book.append_batch([])
    assert book.state("device").seq == 1


def test_each_ledger_of_a_batch_is_verified_by_itself(tmp_path, signer, policy, intent, outcome):
    path, key = tmp_path / "simulation.db", signer.public_key()
    names = [f"user-{number}" for number in range(13)]
    with LedgerBook(path, signer) as book:
        book.create(names, policy())
        for number in (1, 2):
            some = names[: 5 + number]
            book.append_batch([(name, intent(number)) for name in some])
            book.append_batch([(name, outcome(number, name.encode())) for name in some])
        with book.transaction() as connection:
            assert connection.execute("SELECT count(*) FROM seals").fetchone()[0] == 5
    assert {name: state.seq for name, state in verify_book(path, key).items()} == {
        name: 5 if number < 6 else 3 if number < 7 else 1 for number, name in enumerate(names)
    }
    for name in names:
        exported, records = from_text(export_ledger(path, name, key), key)
        assert verify_records(exported, records, key) == verify_ledger(path, name, key)


def test_a_batch_of_one_and_a_batch_of_many_write_the_same_entries(tmp_path, signer, policy, intent):
    with LedgerBook(tmp_path / "alone.db", signer) as alone, LedgerBook(tmp_path / "many.db", signer) as many:
        alone.create(["a"], policy())
        alone.append("a", intent(1))
        many.create(["b", "a"], policy())
        many.append_batch([("b", intent(1)), ("a", intent(1))])
        assert alone.state("a").head == many.state("a").head
        assert many.state("a").head != many.state("b").head


def test_a_reopened_book_goes_on_where_it_was(ledger, signer, intent):
    with LedgerBook(ledger, signer) as book:
        assert book.state("device").seq == 6
        assert book.append("device", intent(3)) == 7
        assert repr(book) == f"LedgerBook({str(ledger)!r}, 1 ledgers)"


def test_a_book_opens_with_its_own_key_only(ledger):
    with pytest.raises(LedgerUnreadable, match="another key"):
        LedgerBook(ledger, Ed25519PrivateKey.generate())


def test_a_damaged_ledger_takes_no_more_entries(ledger, signer, edit):
    edit(ledger, lambda db: db.execute("DELETE FROM entries WHERE seq = 3"))
    with pytest.raises(Tampered, match="entry 3 is missing"):
        LedgerBook(ledger, signer)


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to look at" * 40, b"SQLite format 3\x00" + b"\x00" * 84]
)
def test_another_file_is_not_taken_for_a_ledger(tmp_path, signer, content):
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(LedgerError):
        LedgerBook(path, signer)
    with pytest.raises(LedgerError):
        verify_ledger(path, "device", signer.public_key())
    assert path.read_bytes()[:10] == content[:10]


def test_somebody_elses_database_is_left_alone(tmp_path, signer):
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE entries (body)")
    with pytest.raises(LedgerUnreadable, match="not a ledger"):
        LedgerBook(path, signer)


def test_a_later_format_is_refused(ledger, signer):
    with sqlite3.connect(ledger) as connection:
        connection.execute(f"PRAGMA user_version = {schema.WITH_WINDOWS + 1}")
    with pytest.raises(LedgerUnreadable, match="format 3 is not 1 or 2"):
        LedgerBook(ledger, signer)


def test_a_folder_that_is_not_there_is_named(tmp_path, signer):
    with pytest.raises(LedgerUnreadable, match="cannot write"):
        LedgerBook(tmp_path / "missing" / "ledger.db", signer)


def test_an_anchor_finds_a_shorter_ledger_and_another_one(tmp_path, signer, book, policy, intent):
    seen = []
    for number in range(3):
        state = book.state("device")
        seen.append(Anchor("device", state.seq, state.head))
        book.append("device", intent(number))
    for anchor in seen:
        book.check_anchor(anchor)
    with LedgerBook(tmp_path / "other.db", signer) as other:
        other.create(["device"], policy())
        other.check_anchor(seen[0])
        with pytest.raises(Rollback, match="1 entries, an anchor saw 2"):
            other.check_anchor(seen[1])
        other.append("device", intent(7))
        with pytest.raises(Fork, match="entry 2"):
            other.check_anchor(seen[1])
        with pytest.raises(LedgerUnreadable, match="no ledger"):
            other.check_anchor(Anchor("stranger", 1, seen[0].entry))
