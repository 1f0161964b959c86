"""When an answer leaves: at one of a few public times, and not when the work is done.

How long a device works in a round depends on the length of its history, and a hostile server can choose training that
takes long, to measure it. So an answer to the step that opens a round leaves 2, 4, 8, ... seconds after the question
came. Under the owner's longest computation (`palate client join --train-seconds`) that is one of seven times, whatever
the plan; as a rule it is the first one or two for everybody. On top comes jitter that is drawn without looking at the
work, so that the answers of a fleet do not come all at once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from palate.client.fleet.relay import Answering
from palate.models.table import ItemTable
from palate.privacy.wire import FleetMessage, RoundPlan

FIRST_SECONDS = 2.0
JITTER = 0.1
"""Largest wait after a public time, as a share of the first one."""


def public_seconds(worked: float, first: float = FIRST_SECONDS) -> float:
    """Return the first public time, in seconds after the question, that is not before the end of the work."""
    seconds = first
    while seconds < worked:
        seconds *= 2
    return seconds


class AtPublicTimes:
    """Answers as the rounds do, and later: a refusal or an error, too, leaves at a public time.

    Parameters
    ----------
    rounds
        What answers.
    first_seconds
        The first public time.
    clock, wait, draw
        Monotonic seconds; waits so many; a number in [0, 1) for the jitter.
    """

    def __init__(
        self,
        rounds: Answering,
        *,
        first_seconds: float = FIRST_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._rounds, self._first = rounds, first_seconds
        self._clock, self._wait, self._draw = clock, wait, draw

    def handle(self, message: FleetMessage, *, plan: RoundPlan | None, table: ItemTable | None) -> FleetMessage:
        """Answer one step; only the step that opens a round costs work that depends on a history."""
        came = self._clock()
        try:
            reply = self._rounds.handle(message, plan=plan, table=table)
        except Exception:  # not the signal that ends the device: whoever stops it does not wait
            self._until_public(message, came)
            raise
        self._until_public(message, came)
        return reply

    def _until_public(self, message: FleetMessage, came: float) -> None:
        if message.step.opens_a_round:
            due = came + public_seconds(self._clock() - came, self._first) + self._draw() * JITTER * self._first
            self._wait(max(0.0, due - self._clock()))
