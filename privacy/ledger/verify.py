"""Verification of a ledger by someone who trusts nothing but a public key; every fault has a name.

Faults are looked for in this order: file and chain (Tampered), the device's own budget (BudgetExceeded), anchors
(Rollback, Fork), rounds left open (OpenIntent).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from palate.privacy.ledger import chain, reading
from palate.privacy.ledger.anchors import Anchor
from palate.privacy.ledger.body import Event
from palate.privacy.ledger.chain import Record
from palate.privacy.ledger.errors import Fork, OpenIntent, Tampered
from palate.privacy.ledger.state import LedgerState, advance


@dataclass(frozen=True)
class Verified:
    """A verified ledger.

    Attributes
    ----------
    name
        Of the ledger.
    events
        What its entries say, in order.
    hashes
        Their hashes, 32 bytes each.
    state
        Running totals after the last one.
    """

    name: str
    events: tuple[Event, ...]
    hashes: tuple[bytes, ...]
    state: LedgerState

    @property
    def head(self) -> Anchor:
        """The last entry, as an anchor for later."""
        return Anchor(self.name, self.state.seq, self.state.head)


def verify_records(
    name: str,
    records: Iterable[Record],
    key: Ed25519PublicKey,
    *,
    anchors: Sequence[Anchor] = (),
    allow_open: bool = False,
) -> Verified:
    """Verify one ledger's entries, from the first.

    Parameters
    ----------
    name
        Of the ledger; its chain starts with it.
    records
        Its entries, in order.
    key
        The key that must have signed them.
    anchors
        Heads that the ledger is known to have had; those of other ledgers are ignored.
    allow_open
        Accept rounds without an outcome, as a running device has them.

    Raises
    ------
    Tampered
        If an entry was edited, reordered, removed or invented, or signed with another key.
    BudgetExceeded
        If the ledger charged more than its policy allowed.
    Rollback, Fork
        If it is shorter than an anchor, or differs from it.
    OpenIntent
        If a charged round has no outcome.
    """
    chain.check_name(name)
    state = LedgerState(head=chain.genesis(name, key))
    events, hashes = [], []
    for record in records:
        events.append(advance(state, record.body, stored_columns=record.columns, stored_hash=record.entry))
        hashes.append(state.head)
        try:
            chain.verify_seal(key, state.head, record.seal)
        except Tampered as error:
            raise Tampered(f"entry {state.seq}: {error.message}") from None
    if not hashes:
        raise Tampered(f"ledger {name} has no entries; it must begin with a policy")
    for anchor in anchors:
        if anchor.name == name:
            anchor.check(hashes)
    if not allow_open:
        _check_closed(name, state)
    return Verified(name, tuple(events), tuple(hashes), state)


def verify_ledger(
    path: Path,
    name: str,
    key: Ed25519PublicKey,
    *,
    anchors: Sequence[Anchor] = (),
    allow_open: bool = False,
) -> Verified:
    """Verify one ledger of a file; parameters and errors as `verify_records`.

    Raises
    ------
    LedgerUnreadable
        Besides, if the file is not a ledger, or holds none of that name.
    """
    with reading.opened(path, key) as connection:
        records = reading.read_records(connection, name)
    return verify_records(name, records, key, anchors=anchors, allow_open=allow_open)


def verify_book(
    path: Path, key: Ed25519PublicKey, *, allow_open: bool = False, observe: reading.Observer | None = None
) -> dict[str, LedgerState]:
    """Verify every ledger of a file, with one signature check a batch.

    Parameters
    ----------
    path
        The file.
    key, allow_open
        As `verify_records`.
    observe
        Called with every entry, in the order of writing; the entries are valid once this function returns.

    Returns
    -------
    states
        Running totals of every ledger, by name.

    Raises
    ------
    LedgerUnreadable, Tampered, BudgetExceeded, OpenIntent
        As `verify_ledger`.
    """
    with reading.opened(path, key) as connection:
        for hashes, signature in reading.sealed_hashes(connection):
            chain.verify_batch(key, hashes, signature)
        states = reading.load_states(connection, key, observe)
    for name, state in states.items():
        if not state.seq:
            raise Tampered(f"ledger {name} has no entries; it must begin with a policy")
        if not allow_open:
            _check_closed(name, state)
    return states


def check_same_history(first: Verified, second: Verified) -> None:
    """Compare two verified copies of one ledger: one must continue the other.

    Raises
    ------
    Fork
        If they differ at an entry that both have: its owner signed two histories.
    """
    for seq, (one, other) in enumerate(zip(first.hashes, second.hashes, strict=False), start=1):
        if one != other:
            raise Fork(f"ledger {first.name}: two signed entries {seq} differ")


def _check_closed(name: str, state: LedgerState) -> None:
    if state.open:
        run, number = next(iter(state.open))
        raise OpenIntent(
            f"ledger {name}: {len(state.open)} charged rounds have no outcome, the first is round {number} of {run}",
            hint="let the device finish the round; its charge counts until then",
        )
