"""State of a ledger after each entry, and the rules that decide whether a next entry is allowed.

Writing and verifying use the same rules: a device refuses a round beyond its budget, whatever the server says, and an
auditor finds the entry that should have been refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from palate.privacy.ledger.body import NANO, WITHHELD, Checkpoint, Event, Intent, Outcome, Policy, Window, decode
from palate.privacy.ledger.chain import Columns, entry_hash
from palate.privacy.ledger.errors import BudgetExceeded, MalformedBody, PolicyRefused, RoundRefused, Tampered

Round = tuple[str, int]  # run and number


@dataclass
class LedgerState:
    """Running totals of one ledger.

    Attributes
    ----------
    seq, head
        Number and hash of the last entry; 0 and the genesis hash in an empty ledger.
    policy
        The last policy, or None in an empty ledger.
    spent_nano
        Charges so far, less those of withheld rounds, in 1e-9 of 2 rho.
    open
        Charged rounds without an outcome.
    closed
        Rounds with an outcome.
    checkpoints
        Rounds in which a checkpoint was noted.
    coarsest
        Least sensitivity, in integer steps, of all that was ever charged; None before the first charge.
    renews
        Whether the budget covers a window of time; it is for life otherwise.
    window
        The last window, also where the budget is for life again; None before the first.
    windows
        How many windows began.
    before_nano
        What was spent before that window began. Nothing of it counts in the window, but for the first window, which
        takes over all that was spent: a budget that begins to renew gives nothing back.
    """

    head: bytes
    seq: int = 0
    policy: Policy | None = None
    spent_nano: int = 0
    open: dict[Round, Intent] = field(default_factory=dict)
    closed: set[Round] = field(default_factory=set)
    checkpoints: set[Round] = field(default_factory=set)
    coarsest: int | None = None
    renews: bool = False
    window: Window | None = None
    windows: int = 0
    before_nano: int = 0
    _open_before: set[Round] = field(default_factory=set)

    @property
    def counted_nano(self) -> int:
        """What counts against the budget: all that was spent, or what was spent in the window where it renews."""
        return self.spent_nano - self.before_nano if self.renews else self.spent_nano

    @property
    def left_nano(self) -> int:
        """What may still be charged; below 0 where the owner lowered the budget after spending it."""
        return (self.policy.budget_nano if self.policy else 0) - self.counted_nano

    def check(self, event: Event) -> None:
        """Refuse an event that may not come next; changes nothing.

        Raises
        ------
        BudgetExceeded
            If the round costs more than is left.
        PolicyRefused
            If there is no policy yet, the round is not what the policy allows, or a window begins before the last ends.
        RoundRefused
            If the round is charged or closed already, or its outcome comes without its intent.
        """
        if isinstance(event, Policy):
            return
        if self.policy is None:
            raise PolicyRefused("the ledger has no policy yet", hint="write a policy with a budget first")
        if isinstance(event, Intent):
            self._check_intent(event, self.policy)
        elif isinstance(event, Window):
            if event.lasts and self.window not in (None, event) and event.begins < self.window.ends:
                raise PolicyRefused(
                    f"a window would begin at {event.begins}, and the last one ends at {self.window.ends}",
                    hint="a budget renews when its window is over, by the latest time that the device has seen",
                )
        elif isinstance(event, Outcome):
            if (event.run, event.round) not in self.open:
                raise RoundRefused(f"round {event.round} of {event.run} was not charged, or is closed already")
        elif (event.run, event.round) in self.checkpoints:
            raise RoundRefused(f"round {event.round} of {event.run} has a checkpoint already")

    def apply(self, event: Event, entry: bytes) -> None:
        """Take an event that `check` let pass as the next entry, with its hash."""
        self.seq += 1
        self.head = entry
        if isinstance(event, Policy):
            self.policy = event
        elif isinstance(event, Window):
            self._take_window(event)
        elif isinstance(event, Intent):
            self.open[event.run, event.round] = event
            self.spent_nano += event.charge_nano
            self.coarsest = min(self.coarsest or event.clip_int, event.clip_int)
        elif isinstance(event, Outcome):
            intent = self.open.pop((event.run, event.round))
            self.closed.add((event.run, event.round))
            if event.status == WITHHELD:
                self.spent_nano -= intent.charge_nano
                if (event.run, event.round) in self._open_before:  # it was charged to an earlier window
                    self.before_nano -= intent.charge_nano
        elif isinstance(event, Checkpoint):
            self.checkpoints.add((event.run, event.round))

    def _take_window(self, event: Window) -> None:
        self.renews = event.lasts > 0
        if self.renews and event != self.window:
            if self.window is not None:
                self.before_nano, self._open_before = self.spent_nano, set(self.open)
            self.window = event
            self.windows += 1

    def _check_intent(self, intent: Intent, policy: Policy) -> None:
        name = f"round {intent.round} of {intent.run}"
        if (intent.run, intent.round) in self.open or (intent.run, intent.round) in self.closed:
            raise RoundRefused(f"{name} is charged already", hint="resend the stored bytes; never compute it anew")
        if (intent.unit, intent.adjacency) != (policy.unit, policy.adjacency):
            raise PolicyRefused(
                f"{name} protects {intent.unit} under {intent.adjacency}, "
                f"the policy asks for {policy.unit} under {policy.adjacency}"
            )
        if intent.n1 < policy.n_min:
            raise PolicyRefused(
                f"{name} has {intent.n1} devices, the policy asks for at least {policy.n_min}",
                hint="wait for a larger cohort",
            )
        if intent.charge_nano > self.left_nano:
            raise BudgetExceeded(
                f"{name} needs {_decimal(intent.charge_nano)}, "
                f"{_decimal(max(self.left_nano, 0))} is left of {_decimal(policy.budget_nano)} (2 rho){self._when}",
                needed_nano=intent.charge_nano,
                left_nano=self.left_nano,
                budget_nano=policy.budget_nano,
                hint="plan fewer rounds or more noise, or raise the budget of this ledger",
            )

    @property
    def _when(self) -> str:
        return f" until {utc(self.window.ends)}" if self.renews and self.window else ""


def columns_of(seq: int, event: Event) -> Columns:
    """Columns of a table that repeat parts of a body, so that its indices can enforce them."""
    if isinstance(event, Policy | Window):
        return seq, event.kind, None, None
    return seq, event.kind, event.run, event.round


def advance(
    state: LedgerState, body: bytes, *, stored_columns: Columns | None = None, stored_hash: bytes | None = None
) -> Event:
    """Check that a body may come next after a state, and take it.

    Parameters
    ----------
    state
        Of the ledger before this entry; changed to after it.
    body
        Canonical JSON of the entry.
    stored_columns, stored_hash
        Values that a table stores next to the body; both must agree with it.

    Raises
    ------
    Tampered
        If the body is malformed, out of sequence, contradicts the stored columns, or is against the rules.
    BudgetExceeded
        If it charges more than was left.
    """
    where = f"entry {state.seq + 1}"
    try:
        seq, event = decode(body)
        if seq != state.seq + 1:
            raise Tampered(f"{where} is missing: entry {seq} comes in its place")
        if stored_columns not in (None, columns_of(seq, event)):
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


def utc(seconds: int) -> str:
    """Write a moment, in seconds since 1970, for people; far from now as a number."""
    try:
        return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s"


def _decimal(nano: int) -> str:
    """Nano units as a decimal number, exactly."""
    whole, rest = divmod(nano, NANO)
    return f"{whole}.{rest:09d}".rstrip("0").rstrip(".")
