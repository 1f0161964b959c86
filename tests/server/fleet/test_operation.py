"""A fleet's run: exact sums, dropouts at every step, lost rounds, deadlines, budgets and the wish to stop."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from palate.errors import FederationError
from palate.privacy.accounting.events import Unit
from palate.privacy.accounting.guarantee import account_for
from palate.privacy.charging import event_of
from palate.privacy.ledger.verify import verify_ledger
from palate.privacy.secagg.offer import Offer
from palate.privacy.wire import NUM_METRICS, FleetStep
from palate.server.fleet import operation as running
from palate.server.fleet.exchange import poll_seconds
from palate.server.fleet.state import RoundStatus, Stop

STEPS = list(FleetStep)[:5]
FAULTS = ["stranger", "garbage", "late", "101", "garbage"]


@pytest.fixture
def sums(monkeypatch):
    """Every sum that enters a table, by round."""
    seen = {}
    real = running.Operation._apply

    def applying(self, plan, found):
        seen[plan.server_round] = found
        return real(self, plan, found)

    monkeypatch.setattr(running.Operation, "_apply", applying)
    return seen


def check_sums(fleet, sums):
    by_number = {device.number: device for device in fleet.devices}
    for number, found in sums.items():
        plain = np.zeros_like(found.vector)
        for survivor in found.survivors:
            plain += by_number[survivor].vectors[number]
        np.testing.assert_array_equal(found.vector, plain)


def statuses(fleet):
    return [(each.number, each.purpose, str(each.status)) for each in fleet.state.rounds()]


def check_books(fleet):
    """What every end of a run has in common: ledger, rounds, log and table agree."""
    rounds = fleet.state.rounds()
    charged = fleet.ledger.charged(Unit.USER)
    assert [each.round for each in charged] == [each.number for each in rounds]
    verify_ledger(fleet.folder / "server.sqlite", "server", fleet.keys[0].public_key())  # refuses open rounds
    done = [each for each in rounds if each.status is RoundStatus.DONE]
    assert fleet.log.head.size == len(done)
    assert [each.log_index for each in done] == list(range(len(done)))
    if done:
        assert fleet.store.load({"run": "f-1"}).table.content_hash == done[-1].table_hash
        assert fleet.store.load({"run": "f-1"}).applied == len(done)
    prices = {each.round: each.charge_nano for each in charged}
    for device in fleet.devices:  # nobody has paid for a round that the server has not
        assert device.charged.items() <= prices.items()
    assert sum(prices.values()) <= fleet.config.promise.policy(smallest_cohort=1).budget_nano
    lines = [json.loads(line) for line in fleet.store.rounds_path.read_text().splitlines()]
    assert [line["round"] for line in lines] == [each.number for each in rounds]


def test_a_fleet_that_learns_popular_items_alone_masks_vectors_of_their_rows(make_fleet, sums):
    fleet = make_fleet(schedule={"rounds": 2, "dim": 3, "head": 0.5})
    assert fleet.operation().run() == running.FINISHED
    active = fleet.coordinator.active
    assert 6 <= active.sum() < 12
    lengths = [len(sums[number].vector) for number in range(3)]
    assert lengths == [12, 3 * active.sum() + NUM_METRICS, 3 * active.sum() + NUM_METRICS]
    check_sums(fleet, sums)
    check_books(fleet)
    assert not fleet.coordinator.table.learned[~active].any()
    assert fleet.coordinator.table.learned[active].all()
    assert all(device.table_hash == fleet.coordinator.table.content_hash for device in fleet.devices)


def test_every_round_is_the_exact_sum_of_its_devices_vectors(make_fleet, sums):
    fleet = make_fleet()
    assert fleet.operation().run() == running.FINISHED
    assert statuses(fleet) == [(0, "popularity", "done"), (1, "train", "done"), (2, "train", "done")]
    assert all(len(found.survivors) == 8 for found in sums.values())
    assert len(sums) == 3
    check_sums(fleet, sums)
    check_books(fleet)
    assert all(set(device.receipts) == {0, 1, 2} for device in fleet.devices)
    assert all(device.table_hash == fleet.coordinator.table.content_hash for device in fleet.devices)


@pytest.mark.parametrize(
    ("step", "fault"),
    [
        *((step, "silent") for step in STEPS),
        *zip(STEPS, ["stranger", "garbage", "late", "101", "garbage"], strict=True),
    ],
)
def test_two_devices_that_fail_at_any_step_do_not_stop_a_round(make_fleet, sums, step, fault):
    fleet = make_fleet(deadlines=dict.fromkeys([f"{each}_seconds" for each in FleetStep], 10.0))
    failing = {device.name for device in fleet.devices[:2]}
    fleet.grid.fault = lambda device, at, number: fault if device.name in failing and (at, number) == (step, 1) else ""
    assert fleet.operation().run() == running.FINISHED
    assert [status for *_, status in statuses(fleet)] == ["done"] * 3
    in_the_sum = step in (FleetStep.CONFIRM, FleetStep.REVEAL)  # then it is too late to leave
    assert len(sums[1].survivors) == (8 if in_the_sum else 6)
    check_sums(fleet, sums)
    check_books(fleet)
    assert {member.device for member in fleet.state.members(1) if member.failure} == failing


def test_the_noise_of_a_smaller_sum_is_scaled_with_it(make_fleet, sums, monkeypatch):
    seen = []
    real = running.Coordinator.apply
    monkeypatch.setattr(
        running.Coordinator, "apply", lambda self, total, **more: (seen.append(more), real(self, total, **more))[1]
    )
    fleet = make_fleet()
    gone = fleet.devices[0].name
    fleet.grid.fault = lambda device, at, number: "silent" if device.name == gone and at is FleetStep.MASK else ""
    fleet.operation().run()
    assert seen == [{"survivors": 7}] * 3


@pytest.mark.parametrize("step", STEPS)
def test_a_round_that_loses_its_quorum_is_given_up_and_the_next_one_asks_again(make_fleet, sums, step):
    fleet = make_fleet()
    lost = {device.name for device in fleet.devices[:5]}
    fleet.grid.fault = lambda device, at, number: "silent" if device.name in lost and (at, number) == (step, 0) else ""
    assert fleet.operation().run() == running.FINISHED
    assert statuses(fleet) == [
        (0, "popularity", "abandoned"),
        (1, "popularity", "done"),
        (2, "train", "done"),
        (3, "train", "done"),
    ]
    assert fleet.state.rounds()[0].reason.startswith(f"{step}: ")
    assert set(sums) == {1, 2, 3}
    check_sums(fleet, sums)
    check_books(fleet)


def test_rounds_end_when_the_budget_does_and_everybody_gets_the_last_table(make_fleet):
    fleet = make_fleet(failures={"halt_after": 100})
    lost = {device.name for device in fleet.devices[:6]}
    fleet.grid.fault = lambda device, at, number: "silent" if device.name in lost and number >= 2 else ""
    assert fleet.operation().run() == running.SPENT
    assert [status for *_, status in statuses(fleet)][:2] == ["done", "done"]
    assert {status for *_, status in statuses(fleet)[2:]} == {"abandoned"}
    check_books(fleet)
    assert {device.table_hash for device in fleet.devices[5:]} == {fleet.coordinator.table.content_hash}
    spent = account_for([event_of(each) for each in fleet.ledger.charged(Unit.USER)], fleet.config.delta).epsilon
    assert fleet.state.rounds()[-1].epsilon == spent <= fleet.config.epsilon


def test_devices_that_refuse_are_not_asked_until_the_budget_is_gone(make_fleet):
    fleet = make_fleet()
    fleet.grid.fault = lambda device, at, number: "102"
    with pytest.raises(running.FederationError, match="8 of 8 devices refuse"):
        fleet.operation().run()
    assert statuses(fleet) == [(0, "popularity", "abandoned")]


def test_stragglers_have_until_the_deadline_and_no_longer(make_fleet):
    fleet = make_fleet(deadlines={"mask_seconds": 40.0})
    slow = fleet.devices[0].name
    fleet.grid.fault = lambda device, at, number: "late" if device.name == slow and at is FleetStep.MASK else ""
    before = fleet.clock.now()
    fleet.operation().run()  # late by 30 seconds, three times
    assert {each.survivors for each in fleet.state.rounds()} == {8}
    assert 90.0 <= fleet.clock.now() - before < 95.0


def test_answers_of_thousands_are_looked_for_once_a_second_and_those_of_few_at_once():
    assert poll_seconds(8) == poll_seconds(200) == 0.05
    assert 1.0 < poll_seconds(6040) < 2.0


def test_a_device_that_is_offline_for_a_moment_is_asked_when_it_is_back(make_fleet):
    fleet = make_fleet()
    flaky = fleet.devices[0]
    node = 100
    failures = []

    def fault(device, at, number):
        if device is flaky and at is FleetStep.CONFIRM and number == 1 and not failures:
            failures.append(fleet.clock.now())
            return "gone"
        return ""

    fleet.grid.fault = fault
    sleep = fleet.clock.sleep

    def sleeping(seconds):
        sleep(seconds)
        if failures and fleet.clock.now() > failures[0] + 5:
            fleet.grid.offline.discard(node)

    fleet.clock.sleep = sleeping
    assert fleet.operation().run() == running.FINISHED
    confirms = [body for step, number, to, body in fleet.grid.log if (step, number, to) == (FleetStep.CONFIRM, 1, node)]
    assert len(confirms) == 2
    assert confirms[0] == confirms[1]
    assert {member.failure for member in fleet.state.members(1)} == {0}


def test_a_device_that_stays_offline_holds_a_step_up_for_less_than_its_deadline(make_fleet):
    fleet = make_fleet(deadlines={"advertise_seconds": 600.0, "offline_seconds": 20.0})
    gone = fleet.devices[0]
    fleet.grid.fault = lambda device, at, number: "gone" if device is gone else ""
    before = fleet.clock.now()
    assert fleet.operation().run() == running.FINISHED
    assert 20.0 <= fleet.clock.now() - before < 90.0
    assert {member.failure for member in fleet.state.members(0) if member.device == gone.name} == {5}
    assert [each.roster_size for each in fleet.state.rounds()] == [8, 7, 7]


def test_a_round_waits_for_the_devices_that_it_needs(make_fleet):
    fleet = make_fleet()
    fleet.grid.offline = {100, 101, 102}
    sleep = fleet.clock.sleep

    def sleeping(seconds):
        sleep(seconds)
        if fleet.clock.now() > 1050:
            fleet.grid.offline = set()

    fleet.clock.sleep = sleeping
    assert fleet.operation().run() == running.FINISHED
    assert fleet.state.rounds()[0].roster_size == 8


def test_more_devices_than_the_largest_roster_are_drawn_from(make_fleet):
    fleet = make_fleet(devices=12, cohort={"devices": 6, "smallest": 3, "largest": 6})
    assert fleet.operation().run() == running.FINISHED
    assert {each.roster_size for each in fleet.state.rounds()} == {6}


def test_the_wish_to_stop_is_heard_after_the_round(make_fleet):
    fleet = make_fleet()
    built = fleet.operation()
    real = fleet.grid.push_messages

    def pushing(messages):
        fleet.state.request_stop(Stop.AFTER_ROUND)
        return real(messages)

    fleet.grid.push_messages = pushing
    assert built.run() == running.STOPPED
    assert statuses(fleet) == [(0, "popularity", "done")]
    fleet.kill()
    fleet.grid.push_messages = real
    again = fleet.operation()
    fleet.state.request_stop(None)
    assert again.run() == running.FINISHED
    assert [status for *_, status in statuses(fleet)] == ["done"] * 3
    check_books(fleet)


def test_the_wish_to_stop_now_leaves_the_round_open_and_it_goes_on_later(make_fleet, sums):
    fleet = make_fleet()
    built = fleet.operation()
    fleet.grid.fault = lambda device, at, number: "silent" if at is FleetStep.MASK and number == 1 else ""
    sleep = fleet.clock.sleep

    def sleeping(seconds):
        sleep(seconds)
        fleet.state.request_stop(Stop.NOW)

    fleet.clock.sleep = sleeping
    with pytest.raises(running.Interrupted):
        built.run()
    assert statuses(fleet)[-1] == (1, "train", "open")
    fleet.kill()
    fleet.grid.fault = lambda device, at, number: ""
    fleet.clock.sleep = sleep
    again = fleet.operation()
    fleet.state.request_stop(None)
    assert again.run() == running.FINISHED
    assert [status for *_, status in statuses(fleet)] == ["done"] * 3
    assert len(sums[1].survivors) == 8
    check_sums(fleet, sums)
    check_books(fleet)


@pytest.mark.parametrize("helper", [False, True])
def test_the_first_round_does_not_wait_for_ever_for_a_device_that_is_away(make_fleet, helper):
    fleet = make_fleet(helper=helper)
    fleet.grid.offline = {100}
    before = fleet.clock.now()
    assert fleet.operation().run() == running.FINISHED
    assert fleet.clock.now() - before > fleet.config.deadlines.gather_seconds
    assert [each.roster_size for each in fleet.state.rounds()] == [7, 7, 7]
    check_books(fleet)


def test_a_server_that_stays_gives_the_table_to_who_comes_later_until_it_is_to_stop(make_fleet):
    fleet = make_fleet()
    fleet.grid.offline = {100}
    built = fleet.operation(wait_for=7)
    assert built.run() == running.FINISHED
    late = fleet.devices[0]
    assert late.table_hash is None
    asked = len(fleet.grid.log)
    sleep, waits = fleet.clock.sleep, []

    def sleeping(seconds):
        sleep(seconds)
        waits.append(seconds)
        if len(waits) == 3:
            fleet.grid.offline = set()
        if len(waits) > 8:
            fleet.state.request_stop(Stop.AFTER_ROUND)

    fleet.clock.sleep = sleeping
    built.stay()
    assert late.table_hash == fleet.coordinator.table.content_hash
    assert len(fleet.grid.log) == asked + 1  # once, and nobody else again
    check_books(fleet)


def test_noise_among_peers_is_sized_for_the_corrupt_of_all_who_are_enrolled(make_fleet):
    """Of 8 enrolled 2 may be corrupt: on the smallest roster of 6 that is a third, which every offer allows for."""
    cohort = {"devices": 8, "smallest": 6, "gamma": 0.25, "authority_is_separate": True}
    fleet = make_fleet(devices=8, cohort=cohort)
    assert fleet.operation().run() == running.FINISHED
    for each in fleet.state.rounds():
        offer = Offer.open(each.offer, fleet.keys[0].public_key())
        assert offer.gamma_thousandths == 334
        assert all(offer.corrupt(roster) >= 2 for roster in range(6, 9))
        assert offer.honest_shares == offer.quorum(8) - offer.corrupt(8)
        assert offer.fewest_survivors(6) >= offer.honest_shares + 2
    crowded = make_fleet(devices=8, cohort=cohort)
    built = crowded.operation()
    built._protocol = replace(built._protocol, enrolled=lambda: 16)
    with pytest.raises(FederationError, match="more devices are enrolled than the run is planned for"):
        built.run()
