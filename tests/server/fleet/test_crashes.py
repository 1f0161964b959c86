"""kill -9 between any two writes: no charged round is lost, none is charged or applied twice."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from palate.privacy.accounting.events import Unit
from palate.privacy.accounting.guarantee import account_for
from palate.privacy.charging import event_of
from palate.privacy.ledger.verify import verify_ledger
from palate.privacy.wire import NUM_METRICS, FleetStep
from palate.server.fleet import operation as running
from palate.server.fleet.spool import UploadSpool
from palate.server.fleet.state import FleetState
from palate.server.fleet.transparency import TransparencyLog
from palate.server.helper.book import SqliteBook
from palate.server.ledger import ServerLedger
from palate.server.store import RunStore

DURABLE = [
    (FleetState, ["begin_round", "update_round", "end_round", "sent", "failed", "record", "close_step"]),
    (ServerLedger, ["begin", "finish", "write_off"]),
    (RunStore, ["save", "write_rounds"]),
    (TransparencyLog, ["record"]),
]
UNDER_TWO = [
    (FleetState, ["begin_round", "update_round", "end_round", "sent", "failed"]),
    (FleetState, ["freeze", "keep_answer", "keep_register"]),
    (UploadSpool, ["put"]),
    *DURABLE[1:3],
    (TransparencyLog, ["record", "cosign"]),
    (SqliteBook, ["new_round_key", "keep_register", "record", "destroy", "keep_checkpoint"]),
]


class PowerCutError(BaseException):
    """The process ends here."""


@pytest.fixture
def cut(monkeypatch):
    """Counts what is written to disk, and ends the process right before a write of that number."""

    class Cut:
        at: int | None = None
        writes = 0
        places: list[str] = []  # noqa: RUF012 - one test's own

    Cut.places = []
    every = [(owner, name) for owner, names in (*DURABLE, *UNDER_TWO) for name in names]
    for owner, name in dict.fromkeys(every):
        real = getattr(owner, name)

        def counting(self, *arguments, _real=real, _name=f"{owner.__name__}.{name}", **more):
            if Cut.writes == Cut.at:
                raise PowerCutError
            Cut.writes += 1
            Cut.places.append(_name)
            return _real(self, *arguments, **more)

        monkeypatch.setattr(owner, name, counting)
    return Cut


@pytest.fixture
def applied(monkeypatch):
    """Rounds whose sum entered a table that reached the disk."""
    seen = []
    real = RunStore.save

    def saving(self, snapshot, metadata):
        real(self, snapshot, metadata)
        seen.append((snapshot.server_round, snapshot.applied))

    monkeypatch.setattr(RunStore, "save", saving)
    return seen


def run_through(fleet, cut, cuts) -> int:
    """Run a fleet to its end through power cuts at these writes of each life; how many lives it took."""
    for life, at in enumerate(itertools.chain(cuts, [None]), start=1):
        cut.at, cut.writes = at, 0
        try:
            fleet.operation().run()
        except PowerCutError:
            fleet.kill()
            if fleet.config.helper.there:  # the power is gone everywhere
                fleet.helper = fleet.helper_service()
            continue
        return life
    raise AssertionError("never finished")


def check(fleet, applied):
    rounds = fleet.state.rounds()
    assert [each.number for each in rounds] == list(range(len(rounds)))
    done = [each for each in rounds if each.status == "done"]
    assert len(done) == 1 + fleet.config.schedule.rounds
    assert {str(each.status) for each in rounds} <= {"done", "abandoned"}
    # every round was charged once, and closed
    events = verify_ledger(fleet.folder / "server.sqlite", "server", fleet.keys[0].public_key()).events
    assert [event.round for event in events if event.kind == "INTENT"] == [each.number for each in rounds]
    released = [event for event in events if event.kind == "OUTCOME" and event.status == "released"]
    assert [(event.round, event.payload) for event in released] == [
        (each.number, f"sha256:{each.table_hash}") for each in done
    ]
    # every sum is in the table once
    assert applied == [(each.number, index) for index, each in enumerate(done, start=1)]
    assert fleet.log.head.size == len(done)
    # no device has paid for what the server has not, and none has paid twice
    prices = {each.round: each.charge_nano for each in fleet.ledger.charged(Unit.USER)}
    if fleet.config.helper.there:  # one answer a round that was collected, and no upload is left
        assert fleet.helper.book.head()[0] == len(done)
        assert not list((fleet.folder / "spool").iterdir())
    for device in fleet.devices:
        assert device.charged.items() <= prices.items()
        assert all(len(set(copies)) == 1 for copies in receipts_by_round(fleet, device).values())


def receipts_by_round(fleet, device):
    node = 100 + fleet.devices.index(device)
    received = {}
    for step, number, to, body in fleet.grid.log:
        if (step, to) == (FleetStep.RECEIPT, node):
            received.setdefault(number, []).append(body)
    return received


def small(make_fleet, helper=False):
    """Make the smallest fleet that can lose somebody."""
    return make_fleet(devices=4, helper=helper, cohort={"devices": 4, "smallest": 2}, schedule={"rounds": 1, "dim": 3})


@pytest.mark.parametrize("helper", [False, True])
def test_a_power_cut_before_any_write_changes_nothing_about_the_rounds(make_fleet, cut, applied, helper):
    fleet = small(make_fleet, helper)
    assert run_through(fleet, cut, []) == 1
    writes, places = cut.writes, list(cut.places)
    durable = [f"{owner.__name__}.{name}" for owner, names in (UNDER_TWO if helper else DURABLE) for name in names]
    assert {*places} >= {*durable} - {"FleetState.failed", "ServerLedger.write_off"}
    # Every pair of neighbouring writes, the first time that it comes and the last: others differ in numbers alone.
    pairs = list(zip([None, *places], places, strict=False))
    chosen = sorted({*(pairs.index(pair) for pair in pairs), *({pair: at for at, pair in enumerate(pairs)}.values())})
    assert (chosen[0], chosen[-1]) == (0, writes - 1)
    assert len(chosen) > 25
    for at in chosen:
        fleet = small(make_fleet, helper)
        applied.clear()
        assert run_through(fleet, cut, [at]) == 2, places[at]
        assert [str(each.status) for each in fleet.state.rounds()] == ["done", "done"], places[at]
        check(fleet, applied)
        fleet.kill()


@pytest.mark.parametrize("every", [7, 11])
def test_a_fleet_that_learns_popular_items_alone_asks_for_the_same_rows_after_power_cuts(
    make_fleet, cut, applied, every
):
    fleet = make_fleet(devices=4, cohort={"devices": 4, "smallest": 2}, schedule={"rounds": 2, "dim": 3, "head": 0.5})
    asked = set()
    for device in fleet.devices:
        device.before = lambda step: asked.add(None if (rows := fleet.coordinator.active) is None else rows.tobytes())
    lives = run_through(fleet, cut, [every] * 15)
    assert lives > 5
    check(fleet, applied)
    assert len(asked) == 2  # none in the popularity round, then always the same
    assert {len(device.vectors[number]) for device in fleet.devices for number in (1, 2)} == {
        3 * int(fleet.coordinator.active.sum()) + NUM_METRICS
    }


@pytest.mark.parametrize("helper", [False, True])
def test_what_is_sent_again_after_a_power_cut_is_the_same_to_the_byte(make_fleet, cut, applied, helper):
    fleet = small(make_fleet, helper)
    run_through(fleet, cut, [12, 14, 8, 20, 9, 15, 11])
    sent = {}
    for step, number, node, body in fleet.grid.log:
        sent.setdefault((step, number, node), set()).add(body)
    assert len(sent) < len(fleet.grid.log)  # something was sent again
    assert all(len(bodies) == 1 for bodies in sent.values())
    check(fleet, applied)


@pytest.mark.campaign(short=2, long=60)
@pytest.mark.parametrize("helper", [False, True])
def test_many_power_cuts_with_failing_devices_neither_lose_nor_double_a_round(make_fleet, cut, applied, draw, helper):
    rng = np.random.default_rng(draw)
    fleet = make_fleet(
        devices=6,
        helper=helper,
        cohort={"devices": 6, "smallest": 3},
        schedule={"rounds": 1, "dim": 3},
        privacy={"popularity_share": 0.5, "spare_rounds": 6},
        deadlines=dict.fromkeys([f"{each}_seconds" for each in FleetStep], 10.0),
    )
    weak = {device.name for device in fleet.devices[:2]}

    def fault(device, at, number):
        if device.name in weak and rng.random() < 0.15:
            device.restart()  # its keys are gone; it refuses until the next round
        return "silent" if number < 3 and rng.random() < 0.02 else ""

    fleet.grid.fault = fault
    run_through(fleet, cut, [int(at) for at in rng.integers(1, 40, size=10)])
    check(fleet, applied)


def test_a_round_whose_devices_are_gone_after_a_power_cut_is_given_up_and_stays_charged(make_fleet, cut, applied):
    fleet = small(make_fleet)
    cut.at = 9
    with pytest.raises(PowerCutError):
        fleet.operation().run()
    fleet.kill()
    for device in fleet.devices:
        device.restart()
    cut.at = None
    assert fleet.operation().run() == running.FINISHED
    assert [str(each.status) for each in fleet.state.rounds()] == ["abandoned", "done", "done"]
    check(fleet, applied)


def test_books_from_different_backups_are_refused(make_fleet):
    fleet = small(make_fleet)
    fleet.operation().run()
    fleet.kill()
    (fleet.folder / "checkpoint.safetensors").unlink()
    with pytest.raises(running.RunError, match="the checkpoint ends before it"):
        fleet.operation()
    fleet.kill()
    (fleet.folder / "fleet.sqlite").unlink()
    with pytest.raises(running.RunError, match=r"names rounds that fleet\.sqlite does not"):
        fleet.operation()


def test_at_no_moment_is_less_said_to_be_spent_than_the_ledger_has(make_fleet, cut, applied):
    cut.at = None
    run_through(small(make_fleet), cut, [])
    begins = [at for at, name in enumerate(cut.places) if name == "ServerLedger.begin"]
    assert len(begins) == 2
    for at in (begins[0], begins[0] + 1, begins[1], begins[1] + 1):
        fleet = small(make_fleet)
        cut.at, cut.writes = at, 0
        with pytest.raises(PowerCutError):
            fleet.operation().run()
        said = max((each.epsilon for each in fleet.state.rounds()), default=0.0)
        spent = [event_of(intent) for intent in fleet.ledger.charged(Unit.USER)]
        assert said >= (account_for(spent, fleet.config.delta).epsilon if spent else 0.0)
        assert said > 0.0
        fleet.kill()
