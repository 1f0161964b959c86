"""One step of a round: how often a leader looks for answers."""

from __future__ import annotations

from palate.privacy.wire import FleetMessage, FleetStep
from palate.server.fleet.exchange import Exchange
from palate.server.fleet.grid_messages import Answer


class _Time:
    """A clock that counts how often somebody waited."""

    def __init__(self) -> None:
        self.seconds, self.waits = 0.0, 0

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        self.waits += 1


class _Trickle:
    """Messages to devices that answer one after the other: one answer is there at each look."""

    def __init__(self) -> None:
        self.looks = 0

    def online(self):
        return set(range(20))

    def send(self, messages, **_):
        return {str(node): node for node in messages}

    def collect(self, waiting):
        self.looks += 1
        said = FleetMessage(step=FleetStep.RECEIPT, run="r", server_round=0, body=b"")
        yield Answer(next(iter(waiting)), said, 0)


class _State:
    def sent(self, number, sizes):
        """Count nothing."""


def test_a_leader_waits_between_two_looks_also_where_answers_trickle_in():
    """A look costs time for every device that is waited for: one after each answer would cost devices squared."""
    grid, clock = _Trickle(), _Time()
    nodes = {f"{node:016x}": node for node in range(20)}
    exchange = Exchange(
        grid,
        _State(),
        clock,
        lambda _: None,
        nodes=nodes,
        run="r",
        number=0,
        enrolled=lambda: nodes,
        largest_answer=0,
        offline_seconds=10.0,
        interrupted=lambda: False,
    )
    taken = exchange.ask(FleetStep.RECEIPT, dict.fromkeys(nodes, b""), seconds=60.0, take=lambda *_: None)
    assert (taken, grid.looks) == (20, 20)
    assert clock.waits == 19  # none after the last answer
