"""Check that a record is intact: verify every ledger, and compare it with its anchors and its counterparts.

Faults are collected instead of raised one by one, so that an auditor sees all of them; `raise_gravest` raises the
worst. No figure may be taken from a record with a fault other than an open round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from palate.audit.agreement import contradictions, missing_shards
from palate.audit.opening import SERVER_BOOK, Source
from palate.audit.records import LedgerRecord
from palate.errors import ConfigError
from palate.privacy.ledger import reading
from palate.privacy.ledger.anchors import Anchor
from palate.privacy.ledger.body import Event
from palate.privacy.ledger.errors import (
    BudgetExceeded,
    Fork,
    LedgerError,
    LedgerUnreadable,
    OpenIntent,
    Rollback,
    Tampered,
)
from palate.privacy.ledger.export import from_text
from palate.privacy.ledger.heads import (
    NOTES_SUFFIX,
    AnchorWatch,
    BookAnchor,
    digest_of,
    ledger_line,
    notes_of,
    read_anchors,
)
from palate.privacy.ledger.state import LedgerState
from palate.privacy.ledger.verify import Verified, verify_book, verify_ledger, verify_records
from palate.simulation.report.files import file_bytes, is_file

_GRAVITY: tuple[type[LedgerError], ...] = (
    Tampered,
    LedgerUnreadable,
    BudgetExceeded,
    Rollback,
    Fork,
    OpenIntent,
    LedgerError,
)


@dataclass(kw_only=True)
class LedgerAudit:
    """What is known about a record; it grows as the files are read.

    Attributes
    ----------
    source
        What is audited.
    device
        The one ledger that was asked for, or None.
    anchors_elsewhere
        Some anchors came from elsewhere than the record.
    records
        The ledgers that verified.
    faults
        Faults, worst first; empty for an intact record.
    heads
        The files as they are now, for the next audit.
    anchors_checked
        Anchors that were compared.
    book_anchors, ledger_anchors
        Anchors that the record must continue: of whole files, and of single ledgers.
    seconds
        Wall time.
    """

    source: Source
    device: str | None
    anchors_elsewhere: bool
    records: list[LedgerRecord] = field(default_factory=list)
    faults: list[LedgerError] = field(default_factory=list)
    heads: list[BookAnchor] = field(default_factory=list)
    anchors_checked: int = 0
    book_anchors: list[BookAnchor] = field(default_factory=list)
    ledger_anchors: list[Anchor] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def intact(self) -> bool:
        """Whether figures may be taken from the record; open rounds count as spent."""
        return all(isinstance(fault, OpenIntent) for fault in self.faults)

    @property
    def entries(self) -> int:
        """Entries of all ledgers that verified."""
        return sum(record.state.seq for record in self.records)

    @property
    def open_rounds(self) -> int:
        """Charged rounds without an outcome, over all ledgers."""
        return sum(len(record.state.open) for record in self.records)

    @property
    def anchor_lines(self) -> bytes:
        """What a reader keeps for the next audit: the heads of the files, or of the one ledger that was verified."""
        if self.device is None and self.source.text is None:
            return b"".join(head.to_line() for head in self.heads)
        own = [record for record in self.records if self.device in (None, record.name)]
        return b"".join(ledger_line(Anchor(record.name, record.state.seq, record.state.head)) for record in own)

    def raise_gravest(self, *, allow_open: bool = False) -> None:
        """Raise the worst fault, if there is one.

        Raises
        ------
        Tampered, LedgerUnreadable, BudgetExceeded, Rollback, Fork, OpenIntent
            Whatever is wrong; open rounds are let pass with `allow_open`.
        """
        for fault in self.faults:
            if not (allow_open and isinstance(fault, OpenIntent)):
                raise fault

    def read_anchors(self, paths: Iterable[Path]) -> None:
        """Read files of anchors; raises LedgerUnreadable if one holds something else."""
        for path in paths:
            try:
                books, ledgers = read_anchors(file_bytes(path.parent, path.name))
            except LedgerUnreadable as error:
                raise _in_file(path.name, error) from None
            self.book_anchors += books
            self.ledger_anchors += ledgers

    def read_book(self, path: Path) -> None:
        """Verify every ledger of a file."""
        events: dict[str, list[Event]] = {}
        watch = AnchorWatch(path.name, self.book_anchors, self.ledger_anchors)

        def observe(name: str, event: Event, state: LedgerState) -> None:
            events.setdefault(name, []).append(event)
            watch.observe(name, event, state)

        try:
            states = verify_book(path, self.source.key.public, allow_open=True, observe=observe)
        except LedgerError as error:
            self.faults.append(_in_file(path.name, error))
            return
        self.anchors_checked += watch.checked
        try:
            watch.finish()
        except (Rollback, Fork) as error:
            self.faults.append(error)
        self.records += [LedgerRecord(name, path.name, tuple(events[name]), state) for name, state in states.items()]
        self.heads.append(BookAnchor(path.name, sum(state.seq for state in states.values()), digest_of(states)))

    def read_ledger(self, verify: Callable[[], Verified], book: str) -> None:
        """Verify one ledger, and compare it with its anchors."""
        try:
            verified = verify()
        except LedgerError as error:
            self.faults.append(_in_file(book, error))
            return
        own = [anchor for anchor in self.ledger_anchors if anchor.name == verified.name]
        self.anchors_checked += len(own)
        for anchor in own:
            try:
                anchor.check(verified.hashes)
            except (Rollback, Fork) as error:
                self.faults.append(error)
                break
        self.records.append(LedgerRecord(verified.name, book, verified.events, verified.state))

    def compare(self) -> None:
        """Compare what was read: with itself, with the files that should be there, and with the anchors' files."""
        open_in = [record for record in self.records if record.state.open]
        if open_in:
            run, number = next(iter(open_in[0].state.open))
            total = sum(len(record.state.open) for record in open_in)
            self.faults.append(
                OpenIntent(
                    f"{total} charged rounds in {len(open_in)} ledgers have no outcome, the first is round {number} "
                    f"of {run} in {open_in[0].name}",
                    hint="let the run continue, or its devices close the rounds; the charges count until then",
                )
            )
        if self.source.run is None:
            return
        self.faults += missing_shards(self.source.books)
        present = {book.name for book in self.source.books}
        gone = sorted({anchor.book for anchor in self.book_anchors} - present)
        self.faults += [Rollback(f"{name} is gone, an anchor saw its entries") for name in gone]
        unverified = any(not isinstance(fault, OpenIntent) for fault in self.faults)
        if unverified:  # every ledger of a file that did not verify would seem to be missing
            return
        if self.device is None:
            names = {record.name for record in self.records}
            gone = sorted({anchor.name for anchor in self.ledger_anchors} - names)
            self.faults += [Rollback(f"ledger {name} is gone, an anchor saw its entries") for name in gone]
        self.faults += contradictions(self.records, whole=self.device is None)


def audit_ledgers(
    source: Source,
    anchors: Path | None = None,
    *,
    device: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> LedgerAudit:
    """Verify a record.

    Parameters
    ----------
    source
        What to verify.
    anchors
        File of heads that it must have had, in addition to those in the ledgers' folder.
    device
        Verify only this ledger and the server's; None for all.
    progress
        Called with the name of each file before it is read.

    Raises
    ------
    ConfigError
        If there is no ledger of that name.
    LedgerUnreadable
        If a file of anchors holds something else.
    RunError, EnvironmentProblem
        If the given file is not there or may not be read.
    """
    begun = time.perf_counter()
    tell = progress or (lambda _: None)
    elsewhere = anchors is not None and anchors.resolve().parent != source.folder.resolve()
    found = LedgerAudit(source=source, device=device, anchors_elsewhere=elsewhere)
    notes = [notes_of(book) for book in source.books if is_file(notes_of(book))]
    if source.run is not None:  # also of files that are gone
        notes = sorted(source.folder.glob(f"*{NOTES_SUFFIX}"))
    found.read_anchors([*notes, anchors] if anchors else notes)
    own = _book_of(source, device) if device is not None and source.text is None else None
    for book in source.books:
        if own is None or (book != own and book.name == SERVER_BOOK and source.run is not None):
            tell(book.name)
            found.read_book(book)
    key = source.key.public
    if own is not None and device is not None:
        tell(own.name)
        found.read_ledger(lambda: verify_ledger(own, device, key, allow_open=True), own.name)
    text = source.text
    if text is not None:
        tell(text.name)
        found.read_ledger(lambda: _verified_text(text, key, device), text.name)
    found.compare()
    found.faults.sort(key=lambda fault: next(rank for rank, kind in enumerate(_GRAVITY) if isinstance(fault, kind)))
    found.seconds = time.perf_counter() - begun
    return found


def _verified_text(path: Path, key: Ed25519PublicKey, device: str | None) -> Verified:
    """Verify an exported ledger."""
    name, records = from_text(file_bytes(path.parent, path.name), key)
    if device not in (None, name):
        raise ConfigError(f"{path.name} holds ledger {name}, not {device}", hint=f"say --device {name}")
    return verify_records(name, records, key, allow_open=True)


def _book_of(source: Source, device: str) -> Path:
    """Find the file that holds a ledger."""
    for path in source.books:
        try:
            with reading.opened(path, source.key.public) as connection:
                if device in reading.ledger_ids(connection):
                    return path
        except LedgerError as error:
            raise _in_file(path.name, error) from None
    raise ConfigError(
        f"no ledger is called {device!r}", hint="devices are called device-000000, the server's ledger server"
    )


def _in_file(name: str, error: LedgerError) -> LedgerError:
    """Put the file's name before the message; the error stays the one that it is."""
    if not error.message.startswith(name):
        error.message = f"{name}: {error.message}"
        error.args = (error.message,)
    return error


def counts_by_book(records: Sequence[LedgerRecord]) -> dict[str, tuple[int, int]]:
    """Count ledgers and entries of every file."""
    counts: dict[str, tuple[int, int]] = {}
    for record in records:
        ledgers, entries = counts.get(record.book, (0, 0))
        counts[record.book] = (ledgers + 1, entries + record.state.seq)
    return counts
