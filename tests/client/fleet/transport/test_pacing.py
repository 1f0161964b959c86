"""Waits are short in a round, bounded when idle, and grow with jitter while the server is away."""

from __future__ import annotations

import statistics

import pytest

from palate.client.fleet.transport.pacing import Backoff, Pace, Poll
from palate.errors import ConfigError


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


PACE = Pace(
    busy_poll_seconds=0.1,
    idle_poll_seconds=5.0,
    busy_seconds=20.0,
    first_retry_seconds=0.5,
    max_retry_seconds=30.0,
    give_up_after_seconds=600.0,
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_within_a_round_polls_are_fast_and_after_it_they_slow_down_to_the_bound(clock):
    poll = Poll(PACE, clock=clock)
    poll.worked()
    waits = []
    while clock.now < 120:
        waits.append(poll.wait_seconds())
        clock.now += waits[-1]
    busy = [it for it in waits if it == 0.1]
    idle = waits[len(busy) :]
    assert sum(busy) == pytest.approx(20.0, abs=0.2)
    assert 0.8 * 0.15 <= idle[0] <= 0.15
    assert max(idle) <= 5.0
    assert min(idle[-5:]) >= 4.0
    assert len(set(idle[-5:])) > 1, "idle devices do not ask in step"
    poll.worked()
    assert poll.wait_seconds() == 0.1


def test_retries_double_with_full_jitter_up_to_the_bound(clock):
    first, eighth = [], []
    for _ in range(400):
        backoff = Backoff(PACE, clock=clock)
        waits = [backoff.failed() for _ in range(8)]
        first.append(waits[0])
        eighth.append(waits[7])
    assert 0 <= min(first) < 0.05
    assert 0.45 < max(first) <= 0.5
    assert statistics.mean(first) == pytest.approx(0.25, abs=0.03)
    assert 25 < max(eighth) <= 30
    assert statistics.mean(eighth) == pytest.approx(15, abs=2)


def test_success_starts_over(clock):
    backoff = Backoff(PACE, clock=clock)
    for _ in range(8):
        backoff.failed()
    clock.now = 599
    backoff.succeeded()
    clock.now = 1_000
    assert max(Backoff.failed(backoff) for _ in range(1)) <= 0.5


def test_it_gives_up_after_the_limit_and_not_before(clock):
    backoff = Backoff(PACE, clock=clock)
    clock.now = 100
    assert backoff.failed() is not None
    clock.now = 699.9
    assert backoff.failed() <= 0.1 + 1e-9, "the last wait ends at the limit"
    clock.now = 700
    assert backoff.failed() is None


@pytest.mark.parametrize(
    "options",
    [
        {"busy_poll_seconds": 0.0},
        {"busy_poll_seconds": 6.0},
        {"idle_poll_seconds": 601.0},
        {"first_retry_seconds": 0.0},
        {"max_retry_seconds": 0.1},
    ],
)
def test_a_senseless_pace_is_refused(options):
    with pytest.raises(ConfigError) as caught:
        Pace(**options)
    assert caught.value.hint
