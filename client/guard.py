"""The device's own say about a round: its ledger is charged before anything private is touched, or it refuses.

One file holds a ledger for each unit that the device has a budget for. The exact bytes are on disk before they can
leave, so that a round that is asked for twice is answered with the same bytes; it is closed when the server has moved
on to another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.privacy.accounting.events import Unit
from palate.privacy.charging import Promise, intents, ledger_name
from palate.privacy.errors import PrivacyError
from palate.privacy.ledger.rounds import RoundKeeper
from palate.privacy.ledger.store import LedgerBook
from palate.privacy.wire import ItemUpdate, RoundPlan


class Guard:
    """Charges rounds to a device's ledgers; the file is opened for each round, and closed again.

    Parameters
    ----------
    path
        The device's ledger file; made with the first round.
    signer
        The device's key.
    device
        The device's name in its ledgers.
    promises
        The owner's budgets, by unit: a plan that protects another unit is refused.
    smallest_cohort
        Fewest devices in a round in which this one takes part.
    """

    def __init__(
        self,
        path: Path,
        signer: Ed25519PrivateKey,
        device: str,
        promises: Mapping[Unit, Promise],
        *,
        smallest_cohort: int = 1,
    ) -> None:
        self._path = path
        self._signer = signer
        self._device = device
        self._promises = dict(promises)
        self._smallest_cohort = smallest_cohort

    def __repr__(self) -> str:
        return f"Guard({self._device!r})"

    def charged(self, plan: RoundPlan, compute: Callable[[], ItemUpdate]) -> ItemUpdate:
        """Charge a round, compute the answer, and keep its bytes until the round is closed.

        Parameters
        ----------
        plan
            The round.
        compute
            Makes the answer; called only when the charge is on disk. It must not fail for reasons that lie in the
            person's data: a failure can be seen.

        Raises
        ------
        PrivacyError
            If the plan protects a unit for which there is no budget, or none at all.
        BudgetExceeded, PolicyRefused, RoundRefused
            If a ledger refuses the round; then nothing was computed and nothing is charged.
        """
        charges = intents(plan)
        if not charges or set(charges) != set(self._promises):
            raise PrivacyError(
                f"the plan's unit {plan.unit} does not protect what this device has budgets for: "
                f"{', '.join(self._promises) or 'nothing'}",
                hint="take part in rounds that protect all that the owner has chosen",
            )
        with LedgerBook(self._path, self._signer) as book:
            self._open_ledgers(book)
            self._close_rounds(book, but=(plan.run, plan.server_round))
            keepers = {unit: RoundKeeper(book, ledger_name(self._device, unit)) for unit in charges}
            for unit, intent in charges.items():
                state = book.state(ledger_name(self._device, unit))
                if (plan.run, plan.server_round) not in state.open:
                    state.check(intent)  # every ledger agrees before the first is charged
            kept = [keeper.begin(charges[unit]) for unit, keeper in keepers.items()]
            stored = next((payload for payload in kept if payload is not None), None)
            update = compute() if stored is None else _from_payload(stored, plan)
            for keeper in keepers.values():
                keeper.persist(plan.run, plan.server_round, update.vector.tobytes())
        return update

    def settle(self) -> None:
        """Close the rounds whose bytes may have left.

        A round without bytes stays open and charged: whether its computation succeeded may have been seen, so nothing
        is given back.
        """
        with LedgerBook(self._path, self._signer) as book:
            self._close_rounds(book)

    def _close_rounds(self, book: LedgerBook, but: tuple[str, int] | None = None) -> None:
        for name in book.names:
            keeper = RoundKeeper(book, name)
            for run, number in [key for key in book.state(name).open if key != but]:
                if keeper.has_bytes(run, number):
                    keeper.finish(run, number)

    def _open_ledgers(self, book: LedgerBook) -> None:
        for unit, promise in self._promises.items():
            name = ledger_name(self._device, unit)
            if name not in book.names:
                book.create([name], promise.policy(smallest_cohort=self._smallest_cohort))


def _from_payload(payload: bytes, plan: RoundPlan) -> ItemUpdate:
    bits = 32 if plan.terms is None else plan.terms.ring_bits
    vector = np.frombuffer(payload, dtype=np.uint32 if bits <= 32 else np.uint64)
    return ItemUpdate.from_parts({"update": vector}, plan)
