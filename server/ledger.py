"""The server's own ledger: a round is charged before its plan leaves, and closed by the table that it made.

The same format and rules as on a device (docs/formats/ledger.md). A server that fails with a round open finds it open
again, charged once; a failed round is written off, and its charge stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.privacy.accounting.events import Unit
from palate.privacy.charging import intents, ledger_name
from palate.privacy.ledger.body import NO_HASH, RELEASED, Intent, Outcome, Policy
from palate.privacy.ledger.heads import note_heads
from palate.privacy.ledger.store import LedgerBook
from palate.privacy.ledger.verify import verify_ledger
from palate.privacy.wire import RoundPlan

SERVER = "server"


class ServerLedger:
    """The server's ledgers of a run, one file; one ledger for each unit that the run protects.

    Parameters
    ----------
    path
        The file; made if it is not there.
    signer
        The server's key.
    policies
        What a run may be charged. It is the first entry of each ledger when the file is new.
    run
        The run, where the ledgers go on from run to run. Then the policy of a later one allows what earlier runs were
        charged and the run's own budget, whenever the server starts.
    """

    def __init__(
        self, path: Path, signer: Ed25519PrivateKey, policies: Mapping[Unit, Policy], *, run: str | None = None
    ) -> None:
        self._path = path
        self._signer = signer
        self._book = LedgerBook(path, signer)
        for unit, policy in policies.items():
            if ledger_name(SERVER, unit) not in self._book.names:
                self._book.create([ledger_name(SERVER, unit)], policy)
            earlier = 0 if run is None else sum(each.charge_nano for each in self.charged(unit) if each.run != run)
            whole = replace(policy, budget_nano=earlier + policy.budget_nano)
            if run is not None and self._book.state(ledger_name(SERVER, unit)).policy != whole:
                self._book.append(ledger_name(SERVER, unit), whole)
                note_heads(path, self._book)

    def begin(self, plan: RoundPlan) -> None:
        """Charge a round before its plan is sent, once; raises as the ledger does."""
        for unit, intent in intents(plan).items():
            name = ledger_name(SERVER, unit)
            if (plan.run, plan.server_round) not in self._book.state(name).closed:
                self._book.begin(name, intent)

    def finish(self, run: str, server_round: int, table_hash: str, *, receipt: str = NO_HASH) -> None:
        """Close a round with the item table that it made, unless it is closed; `receipt` is a hash, or empty."""
        payload = f"sha256:{table_hash}"
        outcome = Outcome(run=run, round=server_round, status=RELEASED, payload=payload, receipt=receipt)
        for name in self._open_in(run, server_round):
            self._book.append(name, outcome)
            note_heads(self._path, self._book)

    def write_off(self, run: str, server_round: int) -> None:
        """Close a failed round, unless it is closed; its charge stands."""
        for name in self._open_in(run, server_round):
            self._book.close_round(name, run, server_round)
            note_heads(self._path, self._book)

    def left_nano(self, unit: Unit) -> int:
        """Return what may still be charged to a unit, in 1e-9 of 2 rho."""
        return self._book.state(ledger_name(SERVER, unit)).left_nano

    def charged(self, unit: Unit) -> list[Intent]:
        """Every round that was charged to a unit, in order, after verifying the ledger.

        Raises
        ------
        Tampered
            If an entry is not what was written.
        """
        name = ledger_name(SERVER, unit)
        events = verify_ledger(self._path, name, self._signer.public_key(), allow_open=True).events
        return [event for event in events if isinstance(event, Intent)]

    def close(self) -> None:
        """Close the file."""
        self._book.close()

    def _open_in(self, run: str, server_round: int) -> list[str]:
        return [name for name in self._book.names if (run, server_round) in self._book.state(name).open]
