"""Every call of server and helper may fail: each ends with a named error or goes on, and nothing is lost or doubled."""

from __future__ import annotations

import errno
import random
from collections import Counter

import pytest
from system_faults import Faults, patched

from palate.cli.errors import EXIT_CODES, INTERNAL, ending_of
from palate.privacy.accounting.events import Unit
from palate.privacy.ledger.verify import verify_ledger
from palate.server.fleet import operation as running
from palate.server.fleet.eventlog import EventLog


@pytest.fixture
def faults(monkeypatch):
    return patched(monkeypatch)


TAMPERED = 1
"""Exit code that accuses somebody."""


def small(make_fleet, helper):
    """Make the smallest fleet that can lose somebody."""
    return make_fleet(devices=4, helper=helper, cohort={"devices": 4, "smallest": 2}, schedule={"rounds": 1, "dim": 3})


def live(fleet):
    """Let the server and the helper live once, from their files to the end of the run; what the server ends with."""
    events = None
    try:
        if fleet.config.helper.there:
            fleet.helper = fleet.helper_service()
        events = EventLog(fleet.folder / "server.jsonl", fleet.config.promise)
        return fleet.operation(events).run()
    finally:
        if events is not None:
            events.close()


def leave(fleet):
    """Let go of what a life had open; it may have ended before some of it was."""
    for name in ("state", "enrolment", "ledger"):
        if hasattr(fleet, name):
            getattr(fleet, name).close()
            delattr(fleet, name)


def check(fleet):
    """Nothing is lost: two rounds are done, each was charged once, and every record verifies."""
    rounds = fleet.state.rounds()
    assert [each.number for each in rounds] == list(range(len(rounds)))
    done = [each for each in rounds if each.status == "done"]
    assert len(done) == 2
    assert {str(each.status) for each in rounds} <= {"done", "abandoned"}
    events = verify_ledger(fleet.folder / "server.sqlite", "server", fleet.keys[0].public_key()).events
    assert [event.round for event in events if event.kind == "INTENT"] == [each.number for each in rounds]
    released = [event for event in events if event.kind == "OUTCOME" and event.status == "released"]
    assert [(event.round, event.payload) for event in released] == [
        (each.number, f"sha256:{each.table_hash}") for each in done
    ]
    assert fleet.coordinator.applied == len(done)
    assert fleet.log.head.size == len(done)
    prices = {each.round: each.charge_nano for each in fleet.ledger.charged(Unit.USER)}
    for device in fleet.devices:
        assert device.charged.items() <= prices.items()
    if fleet.config.helper.there:
        assert fleet.helper.book.head()[0] == len(done)
        assert not list((fleet.folder / "spool").iterdir())


def error_of(fleet):
    """Let the fleet live, and return what it raised; None where it ran to its end."""
    try:
        assert live(fleet) == running.FINISHED
    except Exception as error:
        return error
    return None


def outcome_at(make_fleet, faults: Faults, helper, point):
    """Let one call fail, start again, and check; how the first life ended."""
    fleet = small(make_fleet, helper)
    faults.begin(fleet.folder, point)
    error = error_of(fleet)
    faults.end()
    ended = "went on" if faults.hit else "not reached"
    if error is not None:
        assert faults.hit, error
        ending = ending_of(error)
        assert ending.exit_code in EXIT_CODES
        assert ending.exit_code != INTERNAL, f"{type(error).__name__}: {error}"
        assert ending.exit_code != TAMPERED, f"a fault is called tampering: {error}"
        assert ending.message
        assert ending.hint
        ended = f"exit code {ending.exit_code}"
    leave(fleet)
    assert live(fleet) == running.FINISHED
    check(fleet)
    leave(fleet)
    return ended


def counted_calls(make_fleet, faults: Faults, helper):
    """Run a fleet in which nothing fails, and return every point at which something can."""
    fleet = small(make_fleet, helper)
    faults.begin(fleet.folder)
    assert live(fleet) == running.FINISHED
    faults.end()
    check(fleet)
    leave(fleet)
    assert {call.kind for call in faults.calls} >= {"open", "write", "sync", "rename", "connect database", "commit"}
    return list(faults.calls), faults.points()


def chosen(calls, points, draws):
    """Return the points to try: after each call of another kind or file the first and the last time, and some more."""
    before = [None, *calls]
    kinds = {}
    for number, code in points:
        kinds.setdefault((before[number], calls[number], code), []).append((number, code))
    told_apart = sorted({place for places in kinds.values() for place in (places[0], places[-1])})
    return told_apart if draws >= len(told_apart) else random.Random(draws).sample(told_apart, draws)


@pytest.mark.campaign(short=10, long=100_000)
@pytest.mark.parametrize("helper", [False, True])
def test_each_call_that_fails_ends_the_server_with_a_named_error_or_not_at_all(make_fleet, faults, repeats, helper):
    calls, points = counted_calls(make_fleet, faults, helper)
    drawn = chosen(calls, points, repeats)
    outcomes: Counter[str] = Counter()
    failed = []
    for number, code in drawn:
        try:
            outcomes[outcome_at(make_fleet, faults, helper, (number, code))] += 1
        except Exception as error:
            failed.append(f"{number} {calls[number]} {errno.errorcode[code]}: {type(error).__name__} {error}")
    print(len(drawn), "of", len(points), "points:", dict(outcomes))
    assert not failed, "\n".join(failed)
