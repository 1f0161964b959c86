"""A paused device begins no round, finishes the one that it is in, and goes on when its owner says so."""

from __future__ import annotations

import pytest

from palate.client.fleet.limits import RoundUnwelcome
from palate.client.fleet.profile import set_paused
from palate.client.fleet.round_log import RoundLog
from palate.privacy.accounting.events import Unit
from palate.privacy.wire import FleetStep


def test_a_paused_device_begins_no_round_and_goes_on_when_its_owner_says_so(fleet_of):
    fleet = fleet_of(2)
    device, plan = fleet.devices[0], fleet.plan(0)
    set_paused(device.member.vault, True)
    with pytest.raises(RoundUnwelcome, match="paused"):
        device.rounds.handle(fleet.ask(plan), plan=plan)
    assert device.member.guard.spending()[Unit.USER].spent_nano == 0
    assert device.trainer.asked == []
    set_paused(device.member.vault, False)
    fleet.run_round(plan)
    assert device.member.guard.spending()[Unit.USER].spent_nano > 0


def test_a_pause_does_not_stop_a_round_that_has_begun(fleet_of):
    fleet = fleet_of(2)
    plan, vault = fleet.plan(0), fleet.devices[0].member.vault

    def pause(step: FleetStep, device: object, asked: object, got: object) -> None:
        if step is FleetStep.ADVERTISE:
            set_paused(vault, True)

    fleet.finish(plan, fleet.run_round(plan, after=pause), model="22" * 32)
    assert RoundLog(vault).records()[-1].ended == "released"
