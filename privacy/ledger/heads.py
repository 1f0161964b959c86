"""Anchors of a whole file of ledgers: one hash over the heads of all of them at one moment.

A machine that simulates thousands of devices need not keep thousands of anchors. Replayed in the order of writing, the
file must pass through every state that was noted; a file that ends before is rolled back, one that passes by is forked.
Notes in the same folder show only that the file alone was changed: keep a copy of the latest elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from palate.privacy.ledger import canonical
from palate.privacy.ledger.anchors import Anchor
from palate.privacy.ledger.body import Event
from palate.privacy.ledger.errors import BadReceipt, Fork, LedgerUnreadable, MalformedBody, Rollback
from palate.privacy.ledger.framing import HASH_SIZE, digest, number
from palate.privacy.ledger.state import LedgerState
from palate.privacy.ledger.store import LedgerBook

HEADS_TAG = b"palate/ledger/heads/1"
NOTES_SUFFIX = ".anchors.jsonl"

_BOOK_FIELDS: dict[str, type] = {"book": str, "entries": int, "heads": str}
_LEDGER_FIELDS: dict[str, type] = {"entry": str, "ledger": str, "seq": int}


@dataclass(frozen=True)
class BookAnchor:
    """A former state of a file of ledgers.

    Attributes
    ----------
    book
        Name of the file, without its folder.
    entries
        Entries of all its ledgers together, at least 1.
    heads
        `digest_of` the ledgers at that moment, 32 bytes.

    Raises
    ------
    BadReceipt
        If these cannot be the number and the hash of entries.
    """

    book: str
    entries: int
    heads: bytes

    def __post_init__(self) -> None:
        if self.entries < 1 or len(self.heads) != HASH_SIZE:
            raise BadReceipt(f"{self.entries} entries with a hash of {len(self.heads)} bytes are no state of a file")

    def to_line(self) -> bytes:
        """Write as one line of canonical JSON, for `read_anchors`."""
        return canonical.encode({"book": self.book, "entries": self.entries, "heads": self.heads.hex()}) + b"\n"


def ledger_line(anchor: Anchor) -> bytes:
    """Write the anchor of a single ledger as one line of canonical JSON, for `read_anchors`."""
    values: dict[str, canonical.Value] = {"entry": anchor.entry.hex(), "ledger": anchor.name, "seq": anchor.seq}
    return canonical.encode(values) + b"\n"


def digest_of(states: Mapping[str, LedgerState]) -> bytes:
    """Hash the number and the hash of every ledger's last entry, by name; ledgers without entries do not count."""
    parts = []
    for name in sorted(states):
        if states[name].seq:
            parts += [name.encode("ascii"), number(states[name].seq), states[name].head]
    return digest(HEADS_TAG, *parts)


def anchor_of(book: LedgerBook, name: str) -> BookAnchor:
    """Note the present state of a file of ledgers that has this name.

    Raises
    ------
    BadReceipt
        If it holds no entries.
    """
    states = {ledger: book.state(ledger) for ledger in book.names}
    return BookAnchor(name, sum(state.seq for state in states.values()), digest_of(states))


def notes_of(path: Path) -> Path:
    """Name the file of notes of a file of ledgers: book.sqlite has book.anchors.jsonl; one writer each."""
    return path.with_suffix(NOTES_SUFFIX)


def note_heads(path: Path, book: LedgerBook) -> None:
    """Note the present state of a file of ledgers in its file of notes; raises as below."""
    append_anchors(notes_of(path), [anchor_of(book, path.name)])


def append_anchors(path: Path, anchors: Iterable[BookAnchor]) -> None:
    """Add notes to a file of them, on disk before this returns; what a crash cut off is dropped.

    Raises
    ------
    LedgerUnreadable
        If the file cannot be written.
    """
    try:
        with path.open("a+b") as file:
            file.seek(0)
            written = file.read()
            file.truncate(written.rfind(b"\n") + 1)
            file.write(b"".join(anchor.to_line() for anchor in anchors))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise LedgerUnreadable(f"cannot write {path}: {error.strerror}", hint="choose a folder you may write") from None


def read_anchors(data: bytes) -> tuple[list[BookAnchor], list[Anchor]]:
    """Read notes about files, and about single ledgers: `{"entry","ledger","seq"}`, one canonical JSON object a line.

    Returns
    -------
    books, ledgers
        In the order of the lines. A last line without its end is ignored: a crash may have cut it.

    Raises
    ------
    LedgerUnreadable
        If a line is neither.
    """
    books, ledgers = [], []
    for count, line in enumerate(data.split(b"\n")[:-1], start=1):
        try:
            values = canonical.decode(line)
            types = {name: type(value) for name, value in values.items()}
            if types == _BOOK_FIELDS:
                book, entries, heads = values["book"], values["entries"], values["heads"]
                books.append(BookAnchor(str(book), int(entries), canonical.unhex(heads, HASH_SIZE)))
            elif types == _LEDGER_FIELDS:
                name, seq, entry = values["ledger"], values["seq"], values["entry"]
                ledgers.append(Anchor(str(name), int(seq), canonical.unhex(entry, HASH_SIZE)))
            else:
                raise BadReceipt(f"its fields are neither {', '.join(_BOOK_FIELDS)} nor {', '.join(_LEDGER_FIELDS)}")
        except (MalformedBody, BadReceipt) as error:
            raise LedgerUnreadable(
                f"line {count} is no anchor: {error.message}",
                hint="anchors are the lines that palate wrote; see docs/formats/ledger.md",
            ) from None
    return books, ledgers


class AnchorWatch:
    """Compares a replay with anchors: hand `observe` to `verify_book`, and call `finish` when it returned.

    Parameters
    ----------
    book
        Name of the file that is replayed.
    books, ledgers
        Anchors; those of other files, and of ledgers that the file does not hold, are ignored.
    """

    def __init__(self, book: str, books: Sequence[BookAnchor], ledgers: Sequence[Anchor]) -> None:
        self._book = book
        self._at: dict[int, set[bytes]] = {}
        for anchor in books:
            if anchor.book == book:
                self._at.setdefault(anchor.entries, set()).add(anchor.heads)
        self._wanted: dict[str, list[Anchor]] = {}
        for single in ledgers:
            self._wanted.setdefault(single.name, []).append(single)
        self._entries = 0
        self._states: dict[str, LedgerState] = {}
        self._fork: Fork | None = None
        self.checked = 0

    def observe(self, name: str, event: Event, state: LedgerState) -> None:
        """Take one replayed entry."""
        del event
        self._entries += 1
        self._states[name] = state
        noted = self._at.get(self._entries)
        if noted is not None:
            self.checked += len(noted)
            if noted != {digest_of(self._states)}:
                self._fork = self._fork or Fork(
                    f"{self._book}: the first {self._entries} entries are not those that an anchor saw"
                )
        for anchor in self._wanted.get(name, ()):
            if anchor.seq == state.seq:
                self.checked += 1
                if anchor.entry != state.head:
                    self._fork = self._fork or Fork(
                        f"ledger {name}: entry {anchor.seq} is not the one that an anchor saw"
                    )

    def finish(self) -> None:
        """Raise what was found.

        Raises
        ------
        Rollback
            If the file, or a ledger in it, is shorter than an anchor.
        Fork
            If it holds other entries than an anchor saw.
        """
        longest = max(self._at, default=0)
        if longest > self._entries:
            raise Rollback(f"{self._book} has {self._entries} entries, an anchor saw {longest}")
        for name, state in self._states.items():
            latest = max((anchor.seq for anchor in self._wanted.get(name, ())), default=0)
            if latest > state.seq:
                raise Rollback(f"ledger {name} has {state.seq} entries, an anchor saw {latest}")
        if self._fork is not None:
            raise self._fork
