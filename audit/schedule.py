"""What a schedule costs before any data is touched: the worst case that is promised, and the case that is likely.

The promise covers the device that takes part most often: every round, or the cap that devices enforce. Where a cohort
is drawn at random, nobody takes part in all rounds; that figure is shown as information, for no device enforces luck.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from palate.privacy.accounting.checks import require_count
from palate.privacy.accounting.events import Composed, Event
from palate.privacy.accounting.guarantee import Guarantee, account_for
from palate.privacy.errors import PrivacyError


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Rounds, and who takes part in them.

    Attributes
    ----------
    devices
        Devices in the federation.
    cohort
        Devices asked in each round; at most `devices`.
    rounds
        Number of rounds.
    cap
        Most rounds in which a device takes part, enforced on the device; None for no cap.

    Raises
    ------
    PrivacyError
        If a number is not a positive whole one, or the cohort exceeds the federation.
    """

    devices: int
    cohort: int
    rounds: int
    cap: int | None = None

    def __post_init__(self) -> None:
        for name in ("devices", "cohort", "rounds"):
            require_count(name, getattr(self, name))
        if self.cap is not None:
            require_count("cap", self.cap)
        if self.cohort > self.devices:
            raise PrivacyError(
                f"cohort is {self.cohort}, it must be at most the {self.devices} devices",
                hint="ask fewer devices in a round",
            )

    @property
    def most_rounds(self) -> int:
        """Rounds in which one device can take part: what the promise must cover."""
        return self.rounds if self.cap is None else min(self.cap, self.rounds)

    @property
    def likely_most_rounds(self) -> int:
        """Rounds of the busiest device when cohorts are drawn uniformly: exceeded in less than half of all runs.

        A union bound over devices, each with a Binomial(rounds, cohort / devices) count, held down by the cap.
        """
        counts = np.arange(self.rounds + 1)
        busier = binom.sf(counts, self.rounds, self.cohort / self.devices)  # [rounds + 1]
        return min(self.most_rounds, int(np.argmax(self.devices * busier <= 0.5)))


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a schedule costs its busiest device.

    Attributes
    ----------
    promised
        The guarantee for everybody.
    likely_rounds, likely
        The busiest device of a typical run, as information.
    """

    promised: Guarantee
    likely_rounds: int
    likely: Guarantee


def schedule_cost(schedule: Schedule, event: Event, delta: float) -> Cost:
    """Price a schedule in which every round is `event`.

    Parameters
    ----------
    schedule
        The rounds.
    event
        One round.
    delta
        Probability left over.

    Raises
    ------
    PrivacyError
        If delta is out of range or the events cannot be composed.
    """
    likely_rounds = schedule.likely_most_rounds

    def cost_of(rounds: int) -> Guarantee:
        return account_for([Composed(event, rounds)], delta)

    return Cost(
        promised=cost_of(schedule.most_rounds),
        likely_rounds=likely_rounds,
        likely=cost_of(max(1, likely_rounds)),
    )
