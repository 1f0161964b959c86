"""Takes stored entries one by one: the one place that decides whether a body continues a chain."""

from __future__ import annotations

from palate.privacy.ledger import body as bodies
from palate.privacy.ledger.chain import Columns, entry_hash
from palate.privacy.ledger.errors import MalformedBody, PolicyRefused, RoundRefused, Tampered
from palate.privacy.ledger.state import LedgerState


def columns(seq: int, event: bodies.Event) -> Columns:
    """Name what a table repeats of a body, so that its indices can enforce it."""
    if isinstance(event, bodies.Policy):
        return seq, event.kind, None, None
    return seq, event.kind, event.run, event.round


def advance(
    state: LedgerState, body: bytes, *, stored_columns: Columns | None = None, stored_hash: bytes | None = None
) -> bodies.Event:
    """Check that a body may come next after a state, and take it.

    Parameters
    ----------
    state
        Of the ledger before this entry; changed to after it.
    body
        Canonical JSON of the entry.
    stored_columns, stored_hash
        What a table says beside the body; both must agree with it.

    Raises
    ------
    Tampered
        If the body is malformed, out of sequence, at odds with what is stored beside it, or against the rules.
    BudgetExceeded
        If it charges more than was left.
    """
    where = f"entry {state.seq + 1}"
    try:
        seq, event = bodies.decode(body)
        if seq != state.seq + 1:
            raise Tampered(f"{where} is missing: entry {seq} comes in its place")
        if stored_columns not in (None, columns(seq, event)):
            raise Tampered(f"{where}: the table's columns differ from the body")
        entry = entry_hash(state.head, body)
        if stored_hash not in (None, entry):
            raise Tampered(f"{where}: the chain is broken")
        state.check(event)
    except MalformedBody as error:
        raise Tampered(f"{where}: {error.message}") from None
    except (PolicyRefused, RoundRefused) as error:
        raise Tampered(f"{where} is against the rules: {error.message}") from None
    state.apply(event, entry)
    return event
