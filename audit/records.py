"""Verified ledgers as an auditor reads them: whose each is, its rounds, and how every round ended."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from palate.privacy.ledger.body import WITHHELD, Event, Intent, Outcome, Policy, Window
from palate.privacy.ledger.state import LedgerState

SERVER = "server"
OPEN = "open"


@dataclass(frozen=True)
class Round:
    """A charged round.

    Attributes
    ----------
    intent
        What was charged.
    status
        "released", "withheld", or "open" without a recorded outcome.
    """

    intent: Intent
    status: str

    @property
    def counts(self) -> bool:
        """Whether its charge stands: bytes left, or may have."""
        return self.status != WITHHELD


@dataclass(frozen=True)
class WindowSpending:
    """A window of a budget that renews.

    Attributes
    ----------
    window
        When it was, by the device's clock.
    spent_nano
        What was spent in it, in billionths of 2 rho; the first takes over what was spent before.
    """

    window: Window
    spent_nano: int


@dataclass(frozen=True, eq=False)
class LedgerRecord:
    """One ledger that holds together.

    Attributes
    ----------
    name
        Of the ledger: "server" or a device's, with the unit behind a dot where it is not the only one.
    book
        File that it is in.
    events
        What its entries say, in order.
    state
        Totals after the last one.
    """

    name: str
    book: str
    events: tuple[Event, ...]
    state: LedgerState

    @property
    def is_server(self) -> bool:
        """Whether it is the server's; all others are devices'."""
        return self.name.partition(".")[0] == SERVER

    @property
    def policy(self) -> Policy:
        """The policy in force: the last one."""
        return self.policies[-1]

    @cached_property
    def policies(self) -> tuple[Policy, ...]:
        """Every policy, in order; a verified ledger has at least one."""
        return tuple(event for event in self.events if isinstance(event, Policy))

    @cached_property
    def rounds(self) -> dict[tuple[str, int], Round]:
        """Charged rounds by run and number, in the order of charging."""
        found: dict[tuple[str, int], Round] = {}
        for event in self.events:
            if isinstance(event, Intent):
                found[event.run, event.round] = Round(event, OPEN)
            elif isinstance(event, Outcome):
                found[event.run, event.round] = Round(found[event.run, event.round].intent, event.status)
        return found

    @property
    def windows(self) -> list[WindowSpending]:
        """Windows of a budget that renews, in order, with what was spent in each."""
        found, spent = list[WindowSpending](), 0
        for event in self.events:
            if isinstance(event, Window) and event.lasts and (not found or event != found[-1].window):
                spent = 0 if found else spent
                found.append(WindowSpending(event, spent))
            elif isinstance(event, Intent) and self.rounds[event.run, event.round].counts:
                spent += event.charge_nano
                found[-1:] = [replace(each, spent_nano=spent) for each in found[-1:]]
        return found

    @property
    def counted(self) -> list[Intent]:
        """What was spent: every round but those withheld."""
        return [charged.intent for charged in self.rounds.values() if charged.counts]
