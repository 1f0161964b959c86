"""Anchors of a whole file: a replay passes through every state that was noted, or says where it did not."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.privacy.ledger.anchors import Anchor
from palate.privacy.ledger.errors import BadReceipt, Fork, LedgerUnreadable, Rollback
from palate.privacy.ledger.heads import (
    AnchorWatch,
    BookAnchor,
    anchor_of,
    append_anchors,
    digest_of,
    ledger_line,
    note_heads,
    notes_of,
    read_anchors,
)
from palate.privacy.ledger.store import LedgerBook
from palate.privacy.ledger.verify import verify_book

NAMES = ["a", "b"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "book.sqlite"


@pytest.fixture
def anchored(path, signer, policy, intent, outcome) -> list[BookAnchor]:
    """A file of two ledgers and two rounds, and its heads after every commit."""
    heads = []
    with LedgerBook(path, signer) as book:
        for batch in (
            None,
            [(name, intent(1)) for name in NAMES],
            [(name, outcome(1)) for name in NAMES],
            [("a", intent(2))],
        ):
            if batch is None:
                book.create(NAMES, policy())
            else:
                book.append_batch(batch)
            heads.append(anchor_of(book, path.name))
    return heads


def watched(path, signer, books=(), ledgers=()) -> int:
    watch = AnchorWatch(path.name, books, ledgers)
    verify_book(path, signer.public_key(), allow_open=True, observe=watch.observe)
    watch.finish()
    return watch.checked


def test_heads_follow_from_the_format(path, signer, anchored):
    states = verify_book(path, signer.public_key(), allow_open=True)
    parts = [b"palate/ledger/heads/1"]
    for name in NAMES:
        parts += [name.encode(), states[name].seq.to_bytes(8, "big"), states[name].head]
    framed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    assert digest_of(states) == sha256(framed).digest() == anchored[-1].heads
    assert [anchor.entries for anchor in anchored] == [2, 4, 6, 7]


def test_every_earlier_state_is_passed_through(path, signer, anchored):
    assert watched(path, signer, anchored) == 4
    assert watched(path, signer, [BookAnchor("other.sqlite", 99, bytes(32))]) == 0


def test_a_longer_past_is_a_rollback_and_another_one_a_fork(path, signer, anchored):
    with pytest.raises(Rollback, match="has 7 entries, an anchor saw 8"):
        watched(path, signer, [BookAnchor(path.name, 8, anchored[-1].heads)])
    for entries in range(1, 8):
        with pytest.raises(Fork, match=f"the first {entries} entries"):
            watched(path, signer, [BookAnchor(path.name, entries, bytes(32))])


def test_two_anchors_that_contradict_each_other_are_a_fork(path, signer, anchored):
    with pytest.raises(Fork):
        watched(path, signer, [*anchored, BookAnchor(path.name, 4, bytes(32))])


def test_single_ledgers_are_compared_too(path, signer, anchored):
    head = verify_book(path, signer.public_key(), allow_open=True)["a"]
    assert watched(path, signer, ledgers=[Anchor("a", head.seq, head.head)]) == 1
    with pytest.raises(Rollback, match="ledger a has 4 entries"):
        watched(path, signer, ledgers=[Anchor("a", head.seq + 1, head.head)])
    with pytest.raises(Fork, match="ledger a: entry 3"):
        watched(path, signer, ledgers=[Anchor("a", 3, head.head)])


def test_anchors_of_both_kinds_come_back_as_they_were_written():
    book, ledger = BookAnchor("book.sqlite", 3, bytes(32)), Anchor("a", 2, bytes(range(32)))
    assert read_anchors(ledger_line(ledger) + book.to_line()) == ([book], [ledger])


def test_notes_beside_a_file_are_read_back(path, signer, anchored):
    with LedgerBook(path, signer) as book:
        note_heads(path, book)
        note_heads(path, book)
    books, ledgers = read_anchors(notes_of(path).read_bytes())
    assert (books, ledgers) == ([anchored[-1]] * 2, [])
    assert notes_of(path).name == "book.anchors.jsonl"


@given(st.integers(0, 200))
def test_a_crash_while_noting_costs_no_earlier_note(tmp_path_factory, cut: int):
    path = tmp_path_factory.mktemp("notes") / "book.anchors.jsonl"
    notes = [BookAnchor("book.sqlite", number, bytes([number] * 32)) for number in (1, 2, 3)]
    append_anchors(path, notes[:2])
    whole = path.read_bytes()
    path.write_bytes(whole[: max(len(notes[0].to_line()), len(whole) - cut)])
    kept = read_anchors(path.read_bytes())[0]
    append_anchors(path, notes[2:])
    assert read_anchors(path.read_bytes())[0] == [*kept, notes[2]]


@pytest.mark.parametrize(
    "line",
    [
        b"", b"x", b"[]", b"{}", b'{"book":"a","entries":1}', b'{"book":"a","entries":1,"heads":"00"}',
        b'{"book":"a","entries":0,"heads":"%s"}' % (b"00" * 32),
        b'{"book":"a","entries":1,"heads":"%s"}' % (b"zz" * 32),
        b'{"book":"a","entries":1,"heads":"%s"}' % (b"AB" * 32),
        b'{"entry":"%s","ledger":"a","seq":0}' % (b"00" * 32), b'{"entry":1,"ledger":"a","seq":1}',
        b'{"book": "a","entries":1,"heads":"%s"}' % (b"00" * 32),
    ],
)  # fmt: skip
def test_a_line_that_is_no_anchor_is_refused_by_its_number(line: bytes):
    with pytest.raises(LedgerUnreadable, match="line 2 is no anchor"):
        read_anchors(BookAnchor("a", 1, bytes(32)).to_line() + line + b"\n")


def test_what_cannot_be_a_state_is_no_anchor():
    for entries, heads in ((0, bytes(32)), (1, bytes(31))):
        with pytest.raises(BadReceipt):
            BookAnchor("a", entries, heads)


def test_notes_that_cannot_be_written_are_named(tmp_path):
    with pytest.raises(LedgerUnreadable, match="cannot write"):
        append_anchors(tmp_path / "nowhere" / "notes.jsonl", [])
