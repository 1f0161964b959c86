"""An answer leaves at a public time: how long it took says next to nothing about a history."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import pytest

from palate.client.fleet.public_times import FIRST_SECONDS, JITTER, AtPublicTimes, public_seconds
from palate.errors import PalateError
from palate.privacy.wire import FleetMessage, FleetStep


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Working:
    """Rounds whose work takes so long, and may fail."""

    work: Callable[[], None]
    error: BaseException | None = None

    def handle(self, message, *, plan, table):
        self.work()
        if self.error is not None:
            raise self.error
        return message


def asked(step: FleetStep) -> FleetMessage:
    return FleetMessage(step=step, run="r", server_round=1, body=b"")


def seconds_of(worked: float, *, step=FleetStep.REPORT, error=None, jitter=0.0) -> float:
    clock = Clock()
    rounds = AtPublicTimes(
        Working(lambda: clock.wait(worked), error), clock=clock, wait=clock.wait, draw=lambda: jitter
    )
    with suppress(PalateError):
        rounds.handle(asked(step), plan=None, table=None)
    return clock.now - 100.0


def test_a_device_that_is_stopped_by_a_signal_does_not_wait():
    clock = Clock()
    rounds = AtPublicTimes(Working(lambda: clock.wait(33.0), KeyboardInterrupt()), clock=clock, wait=clock.wait)
    with pytest.raises(KeyboardInterrupt):
        rounds.handle(asked(FleetStep.REPORT), plan=None, table=None)
    assert clock.now - 100.0 == 33.0


@pytest.mark.parametrize("step", [FleetStep.REPORT, FleetStep.ADVERTISE])
def test_a_short_and_a_long_history_are_answered_after_the_same_time(step):
    assert seconds_of(0.02, step=step) == pytest.approx(FIRST_SECONDS) == seconds_of(1.9, step=step)
    assert seconds_of(2.1, step=step) == pytest.approx(4.0) == seconds_of(3.9, step=step)


def test_whatever_takes_at_most_the_owners_longest_computation_is_answered_at_one_of_seven_times():
    assert {public_seconds(tenth / 10) for tenth in range(1, 1201)} == {2, 4, 8, 16, 32, 64, 128}


def test_a_refusal_leaves_at_a_public_time_too():
    assert seconds_of(0.3, error=PalateError("no", hint="none")) == pytest.approx(FIRST_SECONDS)


def test_jitter_does_not_look_at_the_work():
    assert seconds_of(0.1, jitter=0.5) == seconds_of(1.5, jitter=0.5) == pytest.approx(FIRST_SECONDS * (1 + JITTER / 2))


@pytest.mark.parametrize("step", sorted(set(FleetStep) - {FleetStep.REPORT, FleetStep.ADVERTISE}))
def test_steps_without_work_are_answered_at_once(step):
    assert seconds_of(0.01, step=step) == pytest.approx(0.01)


def test_measured_on_a_real_clock_the_length_of_a_history_does_not_show(reporting):
    """Training takes 2 ms an entry: 10 entries and 100 are answered after the same time, but for jitter."""
    device = reporting.devices[0]
    train, entries = device.rounds._trainer.contribute, [0]

    def slow(plan, history, head):
        time.sleep(0.002 * entries[0])
        return train(plan, history, head)

    def seconds_for(number: int, rounds) -> float:
        plan = reporting.plan(number)
        message = reporting.message(FleetStep.REPORT, plan, reporting.collection(plan).to_bytes())
        began = time.monotonic()
        rounds.handle(message, plan=plan, table=None)
        return time.monotonic() - began

    device.rounds._trainer.contribute = slow
    padded = AtPublicTimes(device.rounds, first_seconds=1.0, draw=lambda: 0.0)
    bare, measured = [], []
    for number, entries[0] in enumerate((10, 100)):
        bare.append(seconds_for(number, device.rounds))
    for number, entries[0] in enumerate((10, 100), start=2):
        measured.append(seconds_for(number, padded))
    assert bare[1] - bare[0] > 0.1
    assert abs(measured[1] - measured[0]) < 0.05
    assert min(measured) >= 1.0
