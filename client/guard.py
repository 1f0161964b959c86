"""The device's own say about a round: its ledger is charged before anything private is touched, or it refuses.

One file holds a ledger for each unit that the device has a budget for. The exact bytes are on disk before they can
leave, so that a round that is asked for twice is answered with the same bytes; it is closed when the server has moved
on to another. `Guard.charged` does all of it for an answer that is made in one step; secure aggregation takes several,
and calls `begin`, `persist` and `finish` itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.privacy.accounting.events import Unit
from palate.privacy.budget import Promise
from palate.privacy.charging import intents, ledger_name
from palate.privacy.errors import PrivacyError
from palate.privacy.ledger.anchors import Anchor
from palate.privacy.ledger.body import RELEASED, Intent, Policy, Window
from palate.privacy.ledger.errors import Fork, Rollback
from palate.privacy.ledger.state import LedgerState
from palate.privacy.ledger.store import LedgerBook
from palate.privacy.wire import ItemUpdate, RoundPlan


class Guard:
    """Charges rounds to a device's ledgers; the file is opened for each call, or once for many (`held`).

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
    carried
        What a device that was forgotten had spent for the same person, by unit, in 1e-9 of 2 rho: it comes off the
        budgets, whatever they are changed to, and off every window of one that renews.
    clock
        Seconds since 1970, by which budgets renew. It never goes back (`RoundLog.latest_time`).
    """

    def __init__(
        self,
        path: Path,
        signer: Ed25519PrivateKey,
        device: str,
        promises: Mapping[Unit, Promise],
        *,
        smallest_cohort: int = 1,
        carried: Mapping[Unit, int] | None = None,
        clock: Callable[[], int] = lambda: int(time.time()),
    ) -> None:
        self._path = path
        self._signer = signer
        self._device = device
        self._promises = dict(promises)
        self._smallest_cohort = smallest_cohort
        self._carried = dict(carried or {})
        self._clock = clock
        self._book: LedgerBook | None = None
        self._holders = 0

    def __repr__(self) -> str:
        return f"Guard({self._device!r})"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Open the file once for all calls until the context ends: to open it, all of its entries are verified."""
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            if not self._holders:
                self._close()

    def begin(self, plan: RoundPlan) -> bytes | None:
        """Charge a round, or find out how far it came before; rounds that others replaced are closed first.

        Returns
        -------
        payload
            The bytes that were kept for this round, to be sent again; None if there are none yet.

        Raises
        ------
        PrivacyError
            If the plan protects a unit for which there is no budget, or none at all.
        BudgetExceeded, PolicyRefused, RoundRefused
            If a ledger refuses the round; then nothing is charged.
        """
        charges = self._charges(plan)
        with self._opened() as book:
            self._renew(book)
            self._admit(plan, charges, book)
            self._close_rounds(book, but=(plan.run, plan.server_round))
            kept = [book.begin(ledger_name(self._device, unit), charge) for unit, charge in charges.items()]
            return next((payload for payload in kept if payload is not None), None)

    def check(self, plan: RoundPlan) -> None:
        """Refuse what `begin` would refuse, and charge nothing."""
        charges = self._charges(plan)
        with self._opened() as book:
            self._renew(book)
            self._admit(plan, charges, book)

    def persist(self, run: str, server_round: int, payload: bytes) -> None:
        """Keep the exact bytes of a charged round; only then may they leave.

        Raises
        ------
        RoundRefused
            If the round is not open, or other bytes are kept for it.
        """
        with self._opened() as book:
            for name in self._names:
                book.persist(name, run, server_round, payload)

    def finish(self, run: str, server_round: int, *, receipt: bytes = b"") -> bool:
        """Close a round, with the server's receipt if one came; nothing happens to one that is closed already.

        Returns
        -------
        bool
            Whether the round has bytes that may have left; without them it is written off. Its charge stands.
        """
        released = False
        with self._opened() as book:
            for name in self._names:
                if (run, server_round) in book.state(name).open:
                    released |= book.close_round(name, run, server_round, receipt=receipt).status == RELEASED
        return released

    def last_round(self, run: str) -> int:
        """Return the highest round of a run that was ever charged here; -1 before the first."""
        begun = [place for state in self.spending().values() for place in (*state.open, *state.closed)]
        return max((number for name, number in begun if name == run), default=-1)

    def charged(self, plan: RoundPlan, compute: Callable[[], ItemUpdate]) -> ItemUpdate:
        """Charge a round, compute the answer, and keep its bytes until the round is closed.

        Parameters
        ----------
        plan
            The round.
        compute
            Makes the answer; called only when the charge is on disk. It must not fail for reasons that are in the
            person's data: a failure can be seen.

        Raises
        ------
        PrivacyError
            If the plan protects a unit for which there is no budget, or none at all.
        BudgetExceeded, PolicyRefused, RoundRefused
            If a ledger refuses the round; then nothing was computed and nothing is charged.
        """
        stored = self.begin(plan)
        update = compute() if stored is None else _from_payload(stored, plan)
        self.persist(plan.run, plan.server_round, update.vector.tobytes())
        return update

    def settle(self) -> None:
        """Close all rounds that are open: those with bytes, which may have left, and those that never had any.

        The charge of both stands: whether a computation succeeded may have been seen.
        """
        with self._opened() as book:
            self._close_rounds(book)

    def spending(self) -> dict[Unit, LedgerState]:
        """Return the totals of the ledgers by unit, as of now."""
        with self._opened() as book:
            return {unit: book.state(ledger_name(self._device, unit)) for unit in self._promises}

    def spent_nano(self, unit: Unit) -> int:
        """Return all that was ever charged for a unit, in 1e-9 of 2 rho: to the ledger, and what is carried."""
        return self.spending()[unit].spent_nano + self._carried.get(unit, 0)

    def counted_nano(self, unit: Unit) -> int:
        """Return what counts against the budget now: all that was charged, or in a window of one that renews."""
        return self.spending()[unit].counted_nano + self._carried.get(unit, 0)

    def heads(self) -> tuple[Anchor, ...]:
        """Return the ends of the device's ledgers, to be kept apart from them (`check_heads`)."""
        with self._opened() as book:
            return tuple(Anchor(name, book.state(name).seq, book.state(name).head) for name in self._names)

    def check_heads(self, heads: Iterable[Anchor]) -> None:
        """Refuse a ledger that lacks entries which it once had: its budget would start anew.

        Raises
        ------
        Rollback, Fork
            If a ledger is shorter than it was, or was replaced by another: it was deleted, or is an old copy.
        """
        with self._opened() as book:
            for head in heads:
                try:
                    book.check_anchor(head)
                except (Rollback, Fork) as error:
                    raise type(error)(
                        f"{error.message}: what was spent before is missing in it",
                        hint=f"restore the newest {self._path.name}; without it, this device takes part no more",
                    ) from None

    def adopt_policy(self) -> None:
        """Write the owner's promises as the ledgers' policy from here on, where they have changed; renew what is due.

        A ledger that holds a round of coarser integers than the owner's budget counts on keeps a budget for those.
        """
        with self._opened() as book:
            for unit, promise in self._promises.items():
                name = ledger_name(self._device, unit)
                state = book.state(name)
                policy = self._policy(unit, promise, coarsest=state.coarsest)
                if state.policy != policy:
                    book.append(name, policy)
            self._renew(book)

    def _renew(self, book: LedgerBook) -> None:
        """Begin a window where the owner's budget renews and the last window is over; end windows where it is for life.

        A window that was begun lasts as long as it said. Whoever asks for a shorter one, or leaves windows and comes
        back to them, waits until it ends. Windows in which nothing was asked are not made up for.
        """
        for unit, promise in self._promises.items():
            name = ledger_name(self._device, unit)
            state, now = book.state(name), self._clock() if promise.every_seconds else 0
            if not promise.every_seconds:
                if state.renews:
                    book.append(name, Window(begins=0, lasts=0))
            elif state.window is None or now >= state.window.ends:
                book.append(name, Window(begins=now, lasts=promise.every_seconds))
            elif not state.renews:
                book.append(name, state.window)

    def _charges(self, plan: RoundPlan) -> dict[Unit, Intent]:
        """Return what a plan costs each ledger."""
        charges = intents(plan)
        if not charges or set(charges) != set(self._promises):
            raise PrivacyError(
                f"the plan's unit {plan.unit} does not protect what this device has budgets for: "
                f"{', '.join(self._promises) or 'nothing'}",
                hint="take part in rounds that protect all that the owner has chosen",
            )
        return {unit: self._promises[unit].require(charge) for unit, charge in charges.items()}

    def _admit(self, plan: RoundPlan, charges: Mapping[Unit, Intent], book: LedgerBook) -> None:
        """Ask every ledger before the first is charged."""
        for unit, intent in charges.items():
            state = book.state(ledger_name(self._device, unit))
            if (plan.run, plan.server_round) not in state.open:
                state.check(intent)

    @property
    def _names(self) -> list[str]:
        return [ledger_name(self._device, unit) for unit in self._promises]

    @contextmanager
    def _opened(self) -> Iterator[LedgerBook]:
        with self.held():
            if self._book is None:
                self._book = LedgerBook(self._path, self._signer)
            with self._book.transaction():
                pass  # takes in what another program has written since the last call
            for unit, promise in self._promises.items():
                name = ledger_name(self._device, unit)
                if name not in self._book.names:
                    self._book.create([name], self._policy(unit, promise))
            yield self._book

    def _close(self) -> None:
        if self._book is not None:
            self._book.close()
            self._book = None

    def _close_rounds(self, book: LedgerBook, but: tuple[str, int] | None = None) -> None:
        for name in book.names:
            for run, number in [key for key in book.state(name).open if key != but]:
                book.close_round(name, run, number)

    def _policy(self, unit: Unit, promise: Promise, *, coarsest: int | None = None) -> Policy:
        """Return what a ledger may be charged: the budget, less what is carried."""
        if coarsest is not None and coarsest < promise.sensitivity:
            promise = replace(promise, sensitivity=coarsest)
        whole = promise.policy(smallest_cohort=self._smallest_cohort)
        return replace(whole, budget_nano=max(0, whole.budget_nano - self._carried.get(unit, 0)))


def _from_payload(payload: bytes, plan: RoundPlan) -> ItemUpdate:
    bits = 32 if plan.terms is None else plan.terms.ring_bits
    vector = np.frombuffer(payload, dtype=np.uint32 if bits <= 32 else np.uint64)
    return ItemUpdate.from_parts({"update": vector}, plan)
