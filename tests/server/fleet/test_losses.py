"""A fleet whose rounds keep failing stops by itself, says why as far as it knows, and goes on when it is told to."""

from __future__ import annotations

import itertools
import json
import logging
import random
import re

import pytest

from palate.privacy.secagg import device as protocol
from palate.privacy.secagg.shamir import split
from palate.privacy.wire import BAD_PLAN, FAILED, REFUSED, ROUND_GONE, TAMPERED, FleetStep
from palate.server.fleet import operation as running
from palate.server.fleet.config import checked_config
from palate.server.fleet.dropouts import REMOVED, counted, words_of
from palate.server.fleet.eventlog import EventLog, LogHandler
from palate.server.fleet.state import FleetState
from palate.server.fleet.watching import DeviceFailed, Lost

GIVEN = {"name": "f", "run": "f-1", "listen": {"address": "localhost:1"}}


def statuses(fleet):
    return [str(each.status) for each in fleet.state.rounds()]


def losing(fleet, rounds, step=FleetStep.MASK):
    """Six of eight devices fall silent in a step of some rounds; the others are too few for a round of their own."""
    lost = {device.name for device in fleet.devices[:6]}
    fleet.grid.fault = lambda device, at, number: (
        "silent" if device.name in lost and at is step and number in rounds else ""
    )


@pytest.mark.parametrize(("spare", "given", "expected"), [(0, None, 1), (1, None, 2), (9, None, 3), (9, 7, 7)])
def test_a_fleet_loses_its_spare_rounds_and_one_more_and_no_more_than_three_unless_told(spare, given, expected):
    more = {} if given is None else {"failures": {"halt_after": given}}
    assert checked_config({**GIVEN, "privacy": {"spare_rounds": spare}, **more}).halt_after == expected


@pytest.mark.parametrize("step", [FleetStep.ADVERTISE, FleetStep.MASK, FleetStep.REVEAL])
def test_rounds_lost_in_a_row_stop_the_fleet_before_they_have_spent_the_budget(make_fleet, step):
    fleet = make_fleet()
    losing(fleet, range(1, 99), step)
    assert fleet.operation().run() == running.HALTED
    assert statuses(fleet) == ["done", "abandoned", "abandoned", "abandoned"]
    assert all(len(device.charged) <= 4 for device in fleet.devices)
    assert {each.lost_in for each in fleet.state.rounds()[1:]} == {str(step)}
    # devices are not told that the run is over
    assert all(device.table_hash is None for device in fleet.devices)


def test_neither_a_crash_nor_a_supervisor_starts_it_again_but_the_operator_does(make_fleet):
    fleet = make_fleet()
    losing(fleet, range(4))
    for _ in range(3):
        assert fleet.operation().run() == running.HALTED
        assert statuses(fleet) == ["abandoned"] * 3
        fleet.kill()
    losing(fleet, ())
    again = fleet.operation()
    fleet.state.forgive_losses()
    assert again.run() == running.FINISHED
    assert statuses(fleet) == ["abandoned"] * 3 + ["done"] * 3


def test_what_was_forgiven_does_not_count_again_and_what_is_lost_after_it_does(make_fleet):
    fleet = make_fleet(privacy={"popularity_share": 0.3, "spare_rounds": 9}, failures={"halt_after": 2})
    losing(fleet, range(99))
    for count in (2, 4):
        assert fleet.operation().run() == running.HALTED
        assert statuses(fleet) == ["abandoned"] * count
        fleet.state.forgive_losses()
        fleet.kill()


def test_a_round_that_is_applied_makes_an_end_of_the_row(make_fleet):
    fleet = make_fleet(privacy={"popularity_share": 0.3, "spare_rounds": 9})
    losing(fleet, {0, 1, 3, 4})
    assert fleet.operation().run() == running.FINISHED
    assert statuses(fleet) == ["abandoned"] * 2 + ["done"] + ["abandoned"] * 2 + ["done"] * 2


def test_a_budget_that_is_spent_is_said_so_although_rounds_were_lost(make_fleet):
    fleet = make_fleet(privacy={"popularity_share": 0.3, "spare_rounds": 0}, failures={"halt_after": 2})
    losing(fleet, {1, 2})  # both training rounds, and there is no spare one
    assert fleet.operation().run() == running.SPENT


def test_a_device_whose_shares_give_no_secret_is_named_to_the_operator_and_not_in_the_log(
    make_fleet, tmp_path, monkeypatch
):
    fleet = make_fleet()
    bad = fleet.devices[2]
    shared_falsely(bad, monkeypatch)
    events = EventLog(tmp_path / "server.jsonl", fleet.config.promise)
    built = fleet.operation(events)
    assert built.run() == running.HALTED
    assert {(each.lost_in, each.named) for each in fleet.state.rounds()} == {("reveal", bad.name)}
    error = built.losses.error()
    assert "do not give the secret" in error.message
    assert f"palate server remove {bad.name}" in error.hint
    text = (tmp_path / "server.jsonl").read_text()
    last = json.loads(text.splitlines()[-2])
    assert (last["event"], last["rounds"], last["steps"]) == ("run-halted", [0, 1, 2], ["reveal"] * 3)
    assert last["devices"] == [events.pseudonym(bad.name)]
    assert bad.name not in text
    assert str(bad.number) not in text
    fleet.kill()
    # without it the fleet goes on
    fleet.remove(bad)
    with_state = FleetState(fleet.folder / "fleet.sqlite")
    with_state.forgive_losses()
    with_state.close()
    assert fleet.operation().run() == running.FINISHED
    assert [each.survivors for each in fleet.state.rounds()[3:]] == [7, 7, 7]


def noting_its_answers(device):
    """Return a list that holds something while the device is answering."""
    at_work, real = [], device.answer

    def answering(message):
        at_work.append(device)
        try:
            return real(message)
        finally:
            at_work.pop()

    device.answer = answering
    return at_work


def shared_falsely(device, monkeypatch):
    """Let one device share another secret than the one that it commits to."""
    at_work = noting_its_answers(device)
    monkeypatch.setattr(
        protocol,
        "split",
        lambda secret, *more: split(bytes(32) if at_work else secret, *more),
    )


def sealed_garbage(device, monkeypatch):
    """Let one device seal what nobody can open."""
    at_work, seal = noting_its_answers(device), protocol.seal
    monkeypatch.setattr(
        protocol, "seal", lambda key, own, other, shares: seal(key, own, other, b"\xff" * 66 if at_work else shares)
    )


def test_one_device_that_seals_garbage_costs_the_others_one_round_and_not_their_budget(make_fleet, monkeypatch):
    fleet = make_fleet()
    sealed_garbage(fleet.devices[2], monkeypatch)
    built = fleet.operation()
    assert built.run() == running.HALTED
    assert statuses(fleet) == ["abandoned"]
    (only,) = built.losses.rounds
    assert (only.lost_in, only.named) == ("mask", "")  # who it was, the server cannot know
    assert "7 of 8 devices: a check of what others sent failed there" in only.reason
    assert "whose shares they could not open" in built.losses.error().hint
    fleet.kill()
    assert fleet.operation().run() == running.HALTED
    assert len(fleet.state.rounds()) == 1


def test_devices_that_were_restarted_with_the_server_do_not_stop_it(make_fleet):
    fleet = make_fleet()
    built = fleet.operation()
    fleet.grid.fault = lambda device, at, number: "silent" if at is FleetStep.MASK else ""
    sleep = fleet.clock.sleep

    def sleeping(seconds):
        sleep(seconds)
        raise running.Interrupted

    fleet.clock.sleep = sleeping
    with pytest.raises(running.Interrupted):
        built.run()
    fleet.kill()
    fleet.clock.sleep = sleep
    fleet.grid.fault = lambda device, at, number: str(ROUND_GONE) if number == 0 else ""  # their keys are gone
    assert fleet.operation().run() == running.FINISHED
    assert statuses(fleet) == ["abandoned", "done", "done", "done"]


@pytest.mark.parametrize("seed", range(3))
def test_a_third_of_the_devices_restarting_in_every_round_neither_stops_the_fleet_nor_is_accused(
    make_fleet, tmp_path, seed
):
    """Three of ten flap: more than tau bears. After a lost round the others are asked alone, and rounds get done."""
    draw = random.Random(seed)
    fleet = make_fleet(
        devices=10,
        cohort={"devices": 10, "smallest": 4, "tau": 0.75},
        schedule={"rounds": 8, "dim": 3},
        privacy={"popularity_share": 0.3, "spare_rounds": 4},
    )
    flapping = {device.name for device in fleet.devices[:3]}
    falls_at = dict[tuple[str, int], FleetStep]()

    def fault(device, at, number):
        if device.name not in flapping:
            return ""
        step = falls_at.setdefault((device.name, number), draw.choice([FleetStep.SHARE, FleetStep.MASK]))
        if at is step:
            device.restart()
        return draw.choice(["", "silent"]) if at is step else ""

    fleet.grid.fault = fault
    events = EventLog(tmp_path / "server.jsonl", fleet.config.promise)
    built = fleet.operation(events)
    assert built.run() == running.FINISHED
    lost = [each for each in fleet.state.rounds() if each.status == "abandoned"]
    assert 1 <= len(lost) <= 4
    assert not built.losses.sabotaged
    assert not any(each.named for each in lost)
    text = (tmp_path / "server.jsonl").read_text()
    assert "it was restarted, and has no keys for the round" in text
    assert not re.search(r"code \d|%[sdr]", text)
    assert "restarted" in lost[0].reason or "no answer in time" in lost[0].reason


def test_who_went_away_is_asked_again_after_some_rounds_and_victims_of_sabotage_at_once(make_fleet):
    fleet = make_fleet(schedule={"rounds": 6, "dim": 3})
    lost = {device.name for device in fleet.devices[:4]}
    fleet.grid.fault = lambda device, at, number: (
        "silent" if device.name in lost and at is FleetStep.MASK and number == 0 else ""
    )
    assert fleet.operation().run() == running.FINISHED
    assert [each.roster_size for each in fleet.state.rounds()] == [8, 4, 4, 4, 4, 8, 8, 8]
    other = make_fleet(schedule={"rounds": 1, "dim": 3})
    other.grid.fault = lambda device, at, number: (
        str(TAMPERED) if device.name in {each.name for each in other.devices[:4]} and number == 0 else ""
    )
    assert other.operation().run() == running.FINISHED
    assert [each.roster_size for each in other.state.rounds()] == [8, 8, 8]


def test_every_code_has_words_and_none_shows_a_number():
    for code in (1, 2, 3, 4, 5, 6, 9, BAD_PLAN, FAILED, REFUSED, ROUND_GONE, TAMPERED, 8, 77, -5, 2**40):
        assert not any(letter.isdigit() for letter in words_of(code))
    assert counted([0, 5, 4, 5]) == {"offline": 2, "no answer in time": 1}


def test_a_warning_reaches_the_log_without_values_and_without_signs_of_printf(tmp_path, make_fleet):
    events = EventLog(tmp_path / "server.jsonl", make_fleet().config.promise)
    record = logging.LogRecord("palate.server", logging.WARNING, "", 1, "%s refused %5.1f%% of %r", (1, 2.0, 3), None)
    moment = 0.0
    handler = LogHandler(events, now=lambda: moment)
    for at in (1.0, 2.0, 60.0, 61.0, 62.0):  # a stranger who causes many fills no disk
        moment = at
        handler.emit(record)
    written = [json.loads(line) for line in (tmp_path / "server.jsonl").read_text().splitlines()]
    assert {each["text"] for each in written} == {"... refused ...% of ..."}
    assert [each["times"] for each in written] == [1, 3]


def test_rounds_begin_no_sooner_than_every_so_often(make_fleet):
    fleet = make_fleet(deadlines={"every_seconds": 100.0})
    assert fleet.operation().run() == running.FINISHED
    began = [each.started_at for each in fleet.state.rounds()]
    assert all(100 <= after - before < 102 for before, after in itertools.pairwise(began))


def test_every_ended_round_is_followed_by_how_many_are_lost_in_a_row(make_fleet):
    fleet, told = make_fleet(), []
    losing(fleet, {0, 1})
    fleet.operation(told.append).run()
    counted = [len(each.losses.rounds) for each in told if isinstance(each, Lost)]
    assert counted == [0, 1, 2, 0, 0, 0]


@pytest.mark.parametrize("step", list(FleetStep)[:5])
def test_a_device_that_is_removed_in_the_middle_of_a_round_has_dropped_out_and_nobody_waits(make_fleet, step):
    fleet = make_fleet(deadlines=dict.fromkeys([f"{each}_seconds" for each in FleetStep], 500.0))
    leaving, told = fleet.devices[0], []
    built = fleet.operation(told.append)

    def fault(device, at, number):
        if device is leaving and (at, number) == (step, 1):
            fleet.remove(device)
            return "silent"
        return ""

    fleet.grid.fault = fault
    before = fleet.clock.now()
    assert built.run() == running.FINISHED
    assert fleet.clock.now() - before < 5.0
    assert statuses(fleet) == ["done"] * 3
    in_the_sum = step in (FleetStep.CONFIRM, FleetStep.REVEAL)
    assert [each.survivors for each in fleet.state.rounds()] == [8, 8 if in_the_sum else 7, 7]
    assert fleet.state.rounds()[2].roster_size == 7
    failed = [each for each in told if isinstance(each, DeviceFailed)]
    assert [(each.number, each.step, each.device, each.why) for each in failed] == [
        (1, step, leaving.name, "removed from the fleet")
    ]
    assert {m.device: m.failure for m in fleet.state.members(1) if m.failure} == {leaving.name: REMOVED}
    # its node was asked for nothing after that
    assert [(at, number) for at, number, node, _ in fleet.grid.log if node == 100][-1] == (step, 1)


def test_an_answer_of_a_removed_device_is_not_taken(make_fleet):
    fleet = make_fleet()
    leaving = fleet.devices[0]

    def fault(device, at, number):
        if device is leaving and at is FleetStep.MASK and number == 1:
            fleet.remove(device)
            return "late"  # it comes, within the deadline
        return ""

    fleet.grid.fault = fault
    assert fleet.operation().run() == running.FINISHED
    assert [each.survivors for each in fleet.state.rounds()] == [8, 7, 7]


def test_the_removed_stay_removed_after_a_crash_in_their_round(make_fleet):
    fleet = make_fleet()
    leaving = fleet.devices[0]
    built = fleet.operation()

    def fault(device, at, number):
        if device is leaving and at is FleetStep.CONFIRM and number == 1:
            fleet.remove(device)
            raise running.Interrupted
        return ""

    fleet.grid.fault = fault
    with pytest.raises(running.Interrupted):
        built.run()
    fleet.kill()
    fleet.grid.fault = lambda device, at, number: ""
    assert fleet.operation().run() == running.FINISHED
    assert [each.survivors for each in fleet.state.rounds()] == [8, 8, 7]
    assert [each.roster_size for each in fleet.state.rounds()] == [8, 8, 7]
    assert 2 not in leaving.charged


def test_the_noise_of_later_rounds_is_spread_over_those_who_are_left(make_fleet):
    fleet = make_fleet()
    fleet.operation()
    fleet.remove(fleet.devices[0])
    fleet.kill()
    built = fleet.operation(wait_for=7)
    plans = []
    real = built._plan
    built._plan = lambda size: plans.append(real(size)) or plans[-1]
    assert built.run() == running.FINISHED
    for plan in plans:
        terms = plan.terms
        assert (terms.roster_size, terms.honest_shares) == (7, 4)
        assert terms.share_variance * terms.honest_shares >= terms.sum_variance
        whole = getattr(fleet.settings.terms, "popularity" if plan.purpose == "popularity" else "train")
        assert terms.sum_variance >= whole.sum_variance
