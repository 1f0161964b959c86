"""Windows of a budget: provable from the ledger, never before the last is over, and nothing given back by switching."""

from __future__ import annotations

import itertools
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.privacy.ledger import schema
from palate.privacy.ledger.body import Outcome, Policy, Window, decode, encode
from palate.privacy.ledger.errors import BudgetExceeded, LedgerUnreadable, MalformedBody, PolicyRefused, Tampered
from palate.privacy.ledger.export import export_ledger, from_text
from palate.privacy.ledger.state import LedgerState
from palate.privacy.ledger.store import LedgerBook
from palate.privacy.ledger.verify import verify_ledger, verify_records

DAY = 86_400
LIFE = Window(begins=0, lasts=0)


@pytest.fixture
def book(tmp_path, signer, policy):
    """A ledger that pays for four rounds."""
    with LedgerBook(tmp_path / "windows.db", signer) as made:
        made.create(["device"], policy())
        yield made


def run(book: LedgerBook, intent, outcome, *numbers: int) -> None:
    for number in numbers:
        book.append("device", intent(number))
        book.append("device", outcome(number))


def test_a_window_comes_back_as_it_went_in():
    for event in (LIFE, Window(begins=7, lasts=DAY)):
        assert decode(encode(event, 3)) == (3, event)
    assert encode(Window(begins=7, lasts=DAY), 3) == b'{"begins":7,"kind":"WINDOW","lasts":86400,"seq":3}'


@pytest.mark.parametrize(
    "fields", [{"begins": 5, "lasts": 0}, {"begins": -1, "lasts": 1}, {"begins": 2**53, "lasts": 1}]
)
def test_a_window_that_is_none_is_refused(fields):
    with pytest.raises(MalformedBody):
        Window(**fields)


def test_a_window_whose_end_is_no_number_of_the_format_is_refused():
    with pytest.raises(MalformedBody):
        Window(begins=2**53 - 2, lasts=DAY)


def test_the_budget_is_whole_again_in_the_next_window_and_the_sum_of_all_stays(book, intent, outcome):
    book.append("device", Window(begins=0, lasts=DAY))
    run(book, intent, outcome, 1, 2, 3, 4)
    with pytest.raises(BudgetExceeded, match=r"0 is left of .* until 1970-01-02 00:00"):
        book.append("device", intent(5))
    book.append("device", Window(begins=DAY, lasts=DAY))
    run(book, intent, outcome, 5, 6, 7, 8)
    state = book.state("device")
    assert (state.windows, state.left_nano) == (2, 0)
    assert state.spent_nano == 8 * intent(1).charge_nano


def test_the_first_window_takes_over_what_was_spent_for_life(book, intent, outcome):
    run(book, intent, outcome, 1, 2, 3, 4)
    book.append("device", Window(begins=5 * DAY, lasts=DAY))
    assert book.state("device").left_nano == 0


def test_no_window_begins_before_the_last_one_is_over_however_the_owner_switches(book, intent, outcome):
    first = Window(begins=10 * DAY, lasts=30 * DAY)
    book.append("device", first)
    run(book, intent, outcome, 1, 2, 3, 4)
    early = [Window(begins=begins, lasts=DAY) for begins in (0, 10 * DAY, 11 * DAY, 40 * DAY - 1)]
    for switched in (False, True):
        if switched:
            book.append("device", LIFE)
        for window in early:
            with pytest.raises(PolicyRefused, match="the last one ends at"):
                book.append("device", window)
    book.append("device", first)  # it goes on
    assert book.state("device").left_nano == 0
    book.append("device", Window(begins=40 * DAY, lasts=DAY))
    assert book.state("device").left_nano > 0


def test_a_budget_for_life_counts_the_rounds_of_all_windows(book, intent, outcome):
    for number in range(3):
        book.append("device", Window(begins=number * DAY, lasts=DAY))
        run(book, intent, outcome, 2 * number, 2 * number + 1)
    book.append("device", LIFE)
    assert book.state("device").left_nano == -2 * intent(1).charge_nano


def test_a_round_of_an_earlier_window_that_is_withheld_gives_the_later_one_nothing(book, intent):
    book.append("device", Window(begins=0, lasts=DAY))
    book.append("device", intent(1))
    book.append("device", Window(begins=DAY, lasts=DAY))
    book.append("device", intent(2))
    for number, left in ((1, 3), (2, 4)):
        withheld = Outcome(run="run-1", round=number, status="withheld", payload="", receipt="")
        book.append("device", withheld)
        assert book.state("device").left_nano == left * intent(1).charge_nano
    assert book.state("device").spent_nano == 0


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 20)), max_size=20))
def test_accepted_windows_never_overlap(asked):
    state = LedgerState(head=b"")
    state.apply(Policy(unit="user", adjacency="zero-out", delta="1e-5", budget_nano=9, n_min=1), b"")
    taken = []
    for begins, lasts in asked:
        window = Window(begins=begins if lasts else 0, lasts=lasts)
        before = state.windows
        try:
            state.check(window)
        except PolicyRefused:
            continue
        state.apply(window, b"")
        if state.windows > before:
            taken.append(window)
    assert all(one.ends <= next_.begins for one, next_ in itertools.pairwise(taken))


def test_an_auditor_finds_a_window_that_was_signed_too_early(tmp_path, signer, policy, monkeypatch):
    path = tmp_path / "early.db"
    with LedgerBook(path, signer) as book, monkeypatch.context() as patched:
        patched.setattr(LedgerState, "check", lambda self, event: None)
        book.create(["device"], policy())
        book.append_batch([("device", Window(begins=0, lasts=DAY))])
        book.append_batch([("device", Window(begins=DAY - 1, lasts=DAY))])
    with pytest.raises(Tampered, match="against the rules: a window would begin"):
        verify_ledger(path, "device", signer.public_key())


def test_files_and_texts_with_windows_have_a_version_of_their_own(tmp_path, ledger, signer, monkeypatch):
    key = signer.public_key()
    assert export_ledger(ledger, "device", key).startswith(b'{"format":"palate-ledger/1"')
    with LedgerBook(ledger, signer) as book:
        book.append("device", Window(begins=1, lasts=DAY))
    with sqlite3.connect(ledger) as connection:
        assert connection.execute("PRAGMA user_version").fetchone()[0] == schema.WITH_WINDOWS
    text = export_ledger(ledger, "device", key)
    assert text.startswith(b'{"format":"palate-ledger/2"')
    assert verify_records(*from_text(text, key), key).state.window == Window(begins=1, lasts=DAY)
    with pytest.raises(Tampered, match="its entries are of palate-ledger/2"):
        from_text(text.replace(b"palate-ledger/2", b"palate-ledger/1", 1), key)
    monkeypatch.setattr(schema, "WITH_WINDOWS", schema.FORMAT_VERSION)  # as a reader of version 1
    with pytest.raises(LedgerUnreadable, match="ledger format 2"):
        verify_ledger(ledger, "device", key)
