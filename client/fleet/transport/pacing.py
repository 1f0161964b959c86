"""When to ask again: soon within a round, seldom when idle, and ever more seldom when the server does not answer.

Waits are jittered, or a fleet that lost its server would come back all at once ("full jitter", Brooker, AWS
Architecture Blog, 2015).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from palate.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How an agent waits; all in seconds.

    Parameters
    ----------
    busy_poll_seconds
        Between two questions for work, for `busy_seconds` after the last message.
    idle_poll_seconds
        The longest time between two questions; reached step by step.
    busy_seconds
        How long a round's next message is waited for at the fast pace.
    first_retry_seconds, max_retry_seconds
        Bounds of the wait after a failure: each is drawn between zero and a bound that doubles.
    give_up_after_seconds
        How long the server may be unreachable before the agent ends.
    heartbeat_seconds
        Between two signs of life where nothing else is sent; the server takes a device that is silent twice as long
        for offline.
    """

    busy_poll_seconds: float = 0.1
    idle_poll_seconds: float = 5.0
    busy_seconds: float = 20.0
    first_retry_seconds: float = 0.5
    max_retry_seconds: float = 30.0
    give_up_after_seconds: float = 3_600.0
    heartbeat_seconds: float = 30.0

    def __post_init__(self) -> None:
        if not 0 < self.busy_poll_seconds <= self.idle_poll_seconds <= 600:
            raise ConfigError(
                f"polls every {self.busy_poll_seconds} to {self.idle_poll_seconds} s",
                hint="0 < busy_poll_seconds <= idle_poll_seconds <= 600",
            )
        if not 0 < self.first_retry_seconds <= self.max_retry_seconds:
            raise ConfigError(
                f"retries after {self.first_retry_seconds} to {self.max_retry_seconds} s",
                hint="0 < first_retry_seconds <= max_retry_seconds",
            )


class Poll:
    """The adaptive poll interval."""

    def __init__(self, pace: Pace, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._pace = pace
        self._clock = clock
        self._busy_until = clock() + pace.busy_seconds  # who has just joined is about to be asked
        self._interval = pace.busy_poll_seconds

    def worked(self) -> None:
        """Note that a message came: a round is under way."""
        self._busy_until = self._clock() + self._pace.busy_seconds
        self._interval = self._pace.busy_poll_seconds

    def wait_seconds(self) -> float:
        """Say how long to wait after a question that brought nothing; at most `idle_poll_seconds`."""
        if self._clock() < self._busy_until:
            return self._pace.busy_poll_seconds
        self._interval = min(1.5 * self._interval, self._pace.idle_poll_seconds)
        return self._interval * random.uniform(0.8, 1.0)


class Backoff:
    """Jittered exponential backoff since the last success."""

    def __init__(self, pace: Pace, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._pace = pace
        self._clock = clock
        self._bound = pace.first_retry_seconds
        self._failing_since: float | None = None

    def succeeded(self) -> None:
        """Start over."""
        self._bound, self._failing_since = self._pace.first_retry_seconds, None

    def failed(self) -> float | None:
        """Note a failure, and say how many seconds to wait; None when it is time to give up."""
        now = self._clock()
        self._failing_since = now if self._failing_since is None else self._failing_since
        left = self._pace.give_up_after_seconds - (now - self._failing_since)
        if left <= 0:
            return None
        wait = min(random.uniform(0.0, self._bound), left)
        self._bound = min(2 * self._bound, self._pace.max_retry_seconds)
        return wait
