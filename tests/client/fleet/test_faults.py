"""Every call of a device may fail: it says so or goes on, is charged once a round, and takes part in the next one."""

from __future__ import annotations

import errno
import random
from collections import Counter

import numpy as np
import pytest
from system_faults import patched

from palate.cli.errors import INTERNAL, ending_of
from palate.client.fleet.rounds import RoundOver
from palate.errors import PalateError
from palate.models.table import ItemTable
from palate.privacy.charging import intents
from palate.privacy.wire import FleetStep


@pytest.fixture
def faults(monkeypatch):
    return patched(monkeypatch)


def named(error: BaseException) -> str:
    """Return how an error ends the device's program; it must have a name, and accuse nobody."""
    ending = ending_of(error)
    assert ending.exit_code not in (INTERNAL, 1), f"{type(error).__name__}: {error}"
    assert ending.message
    assert ending.hint
    return f"exit code {ending.exit_code}"


def take_round(fleet, device, call, plan):
    """One device's part in a round under two aggregators, without its receipt."""
    return device.rounds.handle(fleet.message(FleetStep.REPORT, plan, call.to_bytes()), plan=plan).body


def live(fleet, device, plan, call):
    """Start a device's program, and let it report once; what it sent, and what it ended with."""
    try:
        device.start()
        return take_round(fleet, device, call, plan), None
    except Exception as error:
        return None, error


def outcome_at(fleet, device, faults, server_round, point):
    """Let one call fail in a round, start the program again, and finish the round; how the first life ended."""
    plan = fleet.plan(server_round)
    call = fleet.collection(plan)
    device.kill()
    faults.begin(device.folder.home, point)
    sent, error = live(fleet, device, plan, call)
    faults.end()
    ended = ("went on" if faults.hit else "not reached") if error is None else named(error)
    assert error is None or faults.hit, error
    if device.member is not None:
        device.kill()
    device.start()
    try:
        again = take_round(fleet, device, call, plan)
    except RoundOver:  # charged, and not on record yet: nothing has left, and the round is not begun a second time
        assert sent is None
        assert device.record(server_round) is None
        server_round, ended = server_round + 1, f"{ended}, and sits this round out"
        plan = fleet.plan(server_round)
        call = fleet.collection(plan)
        again = take_round(fleet, device, call, plan)
    assert sent in (None, again), "what has left is sent again as it was"
    prices = sum(intents(fleet.plan(number)).popitem()[1].charge_nano for number in range(server_round + 1))
    assert device.spent == prices, "each round is charged once"
    table = ItemTable(fleet.fixed, np.full((12, 2), 0.01 * (server_round + 1), dtype=np.float32))
    others = [fleet.answer_of(other, plan, call) for other in fleet.devices if other is not device]
    _, receipt = fleet.collect(call, [again, *others], table_hash=table.content_hash)
    for each in fleet.devices:
        each.receive(plan, receipt)
    assert device.record(server_round).ended == "released"
    return ended


@pytest.mark.campaign(short=8, long=100_000)
def test_each_call_that_fails_ends_a_device_with_a_named_error_or_not_at_all(reporting_of, faults, repeats):
    fleet = reporting_of()
    device = fleet.devices[0]
    plan = fleet.plan(0)
    call = fleet.collection(plan)
    device.kill()
    faults.begin(device.folder.home)
    assert live(fleet, device, plan, call)[1] is None
    faults.end()
    points = faults.points()
    drawn = points if repeats >= len(points) else random.Random(2).sample(points, repeats)
    assert {each.kind for each in faults.calls} >= {"open", "connect database", "statement", "commit", "query"}
    outcomes: Counter[str] = Counter()
    failed = []
    for number, code in drawn:
        fleet = reporting_of()
        try:
            outcomes[outcome_at(fleet, fleet.devices[0], faults, 0, (number, code))] += 1
        except (AssertionError, PalateError) as error:
            failed.append(f"{number} {faults.calls[-1:]} {errno.errorcode[code]}: {type(error).__name__} {error}")
        for each in fleet.devices:
            if each.member is not None:
                each.kill()
    print(len(drawn), "of", len(points), "points:", dict(outcomes))
    assert not failed, "\n".join(failed)
