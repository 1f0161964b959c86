"""Verification: every way to change a ledger has a name, and an intact one passes."""

from __future__ import annotations

import random
import re
import shutil
import sqlite3
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.privacy.ledger import chain, schema
from palate.privacy.ledger.anchors import Anchor
from palate.privacy.ledger.body import Checkpoint, encode, hash_text
from palate.privacy.ledger.chain import Record, Seal
from palate.privacy.ledger.errors import (
    BudgetExceeded,
    Fork,
    LedgerError,
    LedgerUnreadable,
    OpenIntent,
    Rollback,
    Tampered,
)
from palate.privacy.ledger.store import LedgerBook
from palate.privacy.ledger.verify import check_same_history, verify_book, verify_ledger, verify_records


@pytest.fixture
def key(signer):
    return signer.public_key()


def _resign(db: sqlite3.Connection, signer: Ed25519PrivateKey, first: int) -> None:
    """Make hashes and signatures fit again from an entry on, as only the owner of the key can."""
    row = db.execute("SELECT hash FROM entries WHERE seq = ?", (first - 1,)).fetchone()
    previous = row[0] if row else chain.genesis("device", signer.public_key())
    for seal, body in db.execute("SELECT seal, body FROM entries WHERE seq >= ? ORDER BY seq", (first,)).fetchall():
        previous = chain.entry_hash(previous, body)
        db.execute("UPDATE entries SET hash = ? WHERE seal = ?", (previous, seal))
        db.execute("UPDATE seals SET signature = ? WHERE id = ?", (chain.sign_batch(signer, [previous]), seal))


def _truncate(db: sqlite3.Connection, last: int) -> None:
    db.execute("DELETE FROM seals WHERE id IN (SELECT seal FROM entries WHERE seq > ?)", (last,))
    db.execute("DELETE FROM entries WHERE seq > ?", (last,))


def _swap(db: sqlite3.Connection) -> None:
    for old, new in ((2, 99), (4, 2), (99, 4)):
        db.execute("UPDATE entries SET seq = ?, id = ? WHERE seq = ?", (new, new, old))


def _reword(db: sqlite3.Connection, find: bytes, put: bytes) -> None:
    body = db.execute("SELECT body FROM entries WHERE seq = 4").fetchone()[0]
    assert find in body
    db.execute("UPDATE entries SET body = ? WHERE seq = 4", (body.replace(find, put),))


def test_an_intact_ledger_passes_and_says_what_it_holds(ledger, key):
    verified = verify_ledger(ledger, "device", key)
    assert [event.kind for event in verified.events] == [
        "POLICY",
        "INTENT",
        "OUTCOME",
        "INTENT",
        "OUTCOME",
        "CHECKPOINT",
    ]
    assert verified.state.spent_nano == 500_000_020
    assert verified.head == Anchor("device", 6, verified.hashes[-1])
    assert verify_book(ledger, key)["device"] == verified.state


ATTACKS = {
    "edit of a body": lambda db: _reword(db, b'"n1":100', b'"n1":200'),
    "edit of a body that stays as long": lambda db: _reword(db, b'"run-1"', b'"run-2"'),
    "edit of a charge": lambda db: _reword(db, b"250000010", b"150000010"),
    "edit of a column": lambda db: db.execute("UPDATE entries SET round = 9 WHERE seq = 4"),
    "edit of a kind": lambda db: db.execute("UPDATE entries SET kind = 'NOTE' WHERE seq = 4"),
    "edit of a hash": lambda db: db.execute("UPDATE entries SET hash = zeroblob(32) WHERE seq = 4"),
    "edit of a signature": lambda db: db.execute("UPDATE seals SET signature = zeroblob(64) WHERE id = 4"),
    "edit of a batch's size": lambda db: db.execute("UPDATE seals SET size = 2 WHERE id = 4"),
    "edit of a place in a batch": lambda db: db.execute("UPDATE entries SET leaf = 1 WHERE seq = 4"),
    "deletion in the middle": lambda db: db.execute("DELETE FROM entries WHERE seq = 3"),
    "deletion of the first entry": lambda db: db.execute("DELETE FROM entries WHERE seq = 1"),
    "deletion of the last entry, but not its signature": lambda db: db.execute("DELETE FROM entries WHERE seq = 6"),
    "deletion of a signature": lambda db: db.execute("DELETE FROM seals WHERE id = 4"),
    "deletion of all entries": lambda db: _truncate(db, 0),
    "reordering": _swap,
    "two signatures exchanged": lambda db: db.execute("UPDATE entries SET seal = 9 - seal WHERE seq IN (4, 5)"),
    "renaming of the ledger": lambda db: db.execute("UPDATE ledgers SET name = 'other'"),
    "an entry of no ledger": lambda db: db.execute("UPDATE entries SET ledger = 7 WHERE seq = 6"),
    "another key in the file": lambda db: db.execute("UPDATE book SET key = zeroblob(32)"),
    "no key in the file": lambda db: db.execute("DELETE FROM book"),
    "two ledgers of one name": lambda db: db.execute("UPDATE ledgers SET name = ''"),
    "numbers far out of range": lambda db: db.execute("UPDATE seals SET size = 1 << 62 WHERE id = 4"),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_every_change_behind_the_guards_is_found(ledger, key, edit, attack):
    edit(ledger, attack)
    with pytest.raises(Tampered):
        verify_book(ledger, key)
    renamed = attack is ATTACKS["renaming of the ledger"]
    with pytest.raises(LedgerUnreadable if renamed else Tampered):
        verify_ledger(ledger, "device", key)


def test_a_rehashed_edit_lacks_a_signature(ledger, key, edit):
    def attack(db: sqlite3.Connection) -> None:
        _reword(db, b'"n1":100', b'"n1":200')
        _resign(db, Ed25519PrivateKey.generate(), 4)

    edit(ledger, attack)
    with pytest.raises(Tampered, match="another key signed it"):
        verify_ledger(ledger, "device", key)
    with pytest.raises(Tampered, match="another key signed it"):
        verify_book(ledger, key)


def test_the_wrong_key_verifies_nothing(ledger):
    with pytest.raises(Tampered, match="another key"):
        verify_ledger(ledger, "device", Ed25519PrivateKey.generate().public_key())


@pytest.mark.parametrize("guard", ["entries_no_update", "entries_no_delete", "outbox_no_update"])
def test_a_missing_guard_is_found(ledger, key, guard):
    with sqlite3.connect(ledger) as connection:
        connection.execute(f"DROP TRIGGER {guard}")
    with pytest.raises(Tampered, match=guard):
        verify_ledger(ledger, "device", key)


def test_a_view_in_place_of_the_table_is_found(ledger, key, edit):
    def attack(db: sqlite3.Connection) -> None:
        db.execute("ALTER TABLE entries RENAME TO hidden")
        db.execute("CREATE TABLE entries AS SELECT * FROM hidden")

    edit(ledger, attack)
    with pytest.raises(Tampered, match="entries, hidden"):
        verify_ledger(ledger, "device", key)


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("entries", "body = 5"), ("entries", "body = 'text'"), ("entries", "hash = NULL"), ("entries", "leaf = 0.5"),
        ("entries", "round = round || ''"), ("entries", "ledger = x'00'"), ("seals", "signature = 1"),
        ("seals", "size = 'x'"), ("ledgers", "name = x'00'"), ("book", "key = 'text'"), ("book", "key = NULL"),
    ],
)  # fmt: skip
def test_values_of_another_type_than_the_tables_promise_are_found(ledger, key, edit, table, change):
    def retype(old: str, new: str) -> None:
        connection = sqlite3.connect(ledger, isolation_level=None)
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE name = ?", (old, new, table))
        connection.close()

    strict = schema.SCHEMA[table]
    loose = re.sub(" STRICT| NOT NULL| BLOB| TEXT| INTEGER(?=,)", "", strict)
    retype(strict, loose)
    edit(ledger, lambda db: db.execute(f"UPDATE {table} SET {change}"))
    retype(loose, strict)
    for verify in (lambda: verify_book(ledger, key), lambda: verify_ledger(ledger, "device", key)):
        with pytest.raises((Tampered, LedgerUnreadable)):
            verify()


def test_a_signed_truncation_passes_without_an_anchor_and_is_a_rollback_with_one(ledger, key, edit):
    head = verify_ledger(ledger, "device", key).head
    edit(ledger, lambda db: _truncate(db, 3))
    assert verify_ledger(ledger, "device", key).state.seq == 3
    with pytest.raises(Rollback, match="3 entries, an anchor saw 6"):
        verify_ledger(ledger, "device", key, anchors=[head])


def test_a_resigned_history_passes_without_an_anchor_and_is_a_fork_with_one(ledger, signer, key, edit):
    honest = verify_ledger(ledger, "device", key)
    copy = ledger.with_name("copy.db")
    shutil.copy(ledger, copy)

    def attack(db: sqlite3.Connection) -> None:
        _reword(db, b'"n1":100', b'"n1":200')
        _resign(db, signer, 4)

    edit(copy, attack)
    forked = verify_ledger(copy, "device", key)
    with pytest.raises(Fork, match="entry 6"):
        verify_ledger(copy, "device", key, anchors=[honest.head])
    with pytest.raises(Fork, match="two signed entries 4 differ"):
        check_same_history(honest, forked)
    verify_ledger(
        copy, "device", key, anchors=[Anchor("device", 3, honest.hashes[2]), replace(honest.head, name="else")]
    )


def test_a_longer_copy_continues_a_shorter_one(ledger, signer, key, intent, outcome):
    before = verify_ledger(ledger, "device", key)
    with LedgerBook(ledger, signer) as book:
        book.append("device", intent(3))
        book.append("device", outcome(3))
    after = verify_ledger(ledger, "device", key, anchors=[before.head])
    check_same_history(before, after)
    check_same_history(after, before)


def test_an_open_round_is_named_unless_it_is_expected(ledger, signer, key, intent):
    with LedgerBook(ledger, signer) as book:
        book.append("device", intent(3))
    for verify in (
        lambda **kw: verify_ledger(ledger, "device", key, **kw),
        lambda **kw: verify_book(ledger, key, **kw),
    ):
        with pytest.raises(OpenIntent, match="1 charged rounds have no outcome, the first is round 3 of run-1"):
            verify()
        verify(allow_open=True)


def _chain(signer: Ed25519PrivateKey, bodies: list[bytes]) -> list[Record]:
    """Entries signed by a device that does not keep to the rules."""
    records, previous = [], chain.genesis("device", signer.public_key())
    for body in bodies:
        previous = chain.entry_hash(previous, body)
        records.append(Record(body, Seal(1, 0, (), chain.sign_batch(signer, [previous]))))
    return records


def test_a_signed_ledger_that_overspends_is_over_budget(signer, key, policy, intent, outcome):
    events = [policy(budget_nano=300_000_000), intent(1), outcome(1), intent(2), outcome(2)]
    records = _chain(signer, [encode(event, seq) for seq, event in enumerate(events, start=1)])
    assert verify_records("device", records[:3], key).state.left_nano == 49_999_990
    with pytest.raises(BudgetExceeded):
        verify_records("device", records, key)


@pytest.mark.parametrize("kinds", ["I", "PO", "PII", "PIOO", "PIOI", "PCC", "C", "O"])
def test_a_signed_ledger_that_breaks_a_rule_is_tampered_with(signer, key, policy, intent, outcome, kinds):
    seen = Checkpoint(run="r", round=1, origin="o", tree_size=0, root=hash_text(b""), receipt="")
    made = {"P": policy(), "I": intent(1), "O": outcome(1), "C": seen}
    records = _chain(signer, [encode(made[kind], seq) for seq, kind in enumerate(kinds, start=1)])
    with pytest.raises(Tampered, match="against the rules"):
        verify_records("device", records, key, allow_open=True)


def test_a_ledger_without_entries_is_no_ledger(key):
    with pytest.raises(Tampered, match="no entries"):
        verify_records("device", [], key)


def test_a_missing_ledger_is_named(ledger, key, tmp_path):
    with pytest.raises(LedgerUnreadable, match="no ledger 'tablet'") as caught:
        verify_ledger(ledger, "tablet", key)
    assert "device" in caught.value.hint
    with pytest.raises(LedgerUnreadable, match="there is no ledger at"):
        verify_ledger(tmp_path / "none.db", "device", key)


def test_a_changed_byte_of_the_file_is_named_or_changes_nothing(ledger, key, tmp_path):
    honest = verify_ledger(ledger, "device", key)
    with sqlite3.connect(ledger) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = ledger.read_bytes()
    generator, path, named = random.Random(5), tmp_path / "changed.db", 0
    for _ in range(400):
        at = generator.randrange(len(content))
        path.write_bytes(content[:at] + bytes([content[at] ^ generator.randrange(1, 256)]) + content[at + 1 :])
        try:
            assert verify_ledger(path, "device", key) == honest  # free space, or an index, which is not believed
        except LedgerError:
            named += 1
        for leftover in tmp_path.glob("changed.db-*"):
            leftover.unlink()
    assert named > 20


@pytest.mark.parametrize("keep", [0, 1, 15, 16, 100, 4095, 4096, 4097, 9000])
def test_a_cut_off_file_is_named(ledger, key, keep):
    with sqlite3.connect(ledger) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = ledger.read_bytes()
    assert len(content) > keep
    ledger.write_bytes(content[:keep])
    with pytest.raises(LedgerError):
        verify_ledger(ledger, "device", key)
