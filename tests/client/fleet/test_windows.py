"""A budget that renews, on a device: by its own clock, never twice for one window, and said wherever epsilon stands."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest

from palate.client.fleet import enrolling
from palate.client.fleet.identity import DeviceKeys
from palate.client.fleet.limits import OwnerLimits
from palate.client.fleet.profile import FleetProfile
from palate.client.fleet.round_log import RoundLog
from palate.client.fleet.status import status_of
from palate.client.fleet.status_text import status_lines
from palate.client.vault import Vault
from palate.errors import ConfigError
from palate.privacy.ledger.body import Window
from palate.privacy.ledger.errors import BudgetExceeded, Rollback

DAY = 86_400
MONTH = 30 * DAY


@pytest.fixture
def now(monkeypatch):
    """The devices' clock, in seconds since 1970."""
    moment = [1_800_000_000]
    monkeypatch.setattr(RoundLog, "now", lambda self: moment[0])
    return moment


@pytest.fixture
def fleet(fleet_of, now):
    """Two devices whose budget pays for one run of four rounds."""
    return fleet_of(2)


def run_all(fleet, run: str) -> list[int]:
    """Take the fleet through a run; return how many devices refused in each of its four rounds."""
    refused = []
    for number in range(4):
        plan = fleet.plan(number, run=run)
        offered = fleet.ask(plan)
        here = []
        for device in fleet.devices:
            with suppress(BudgetExceeded):
                device.rounds.handle(offered, plan=plan)
                here.append(device)
        refused.append(len(fleet.devices) - len(here))
    return refused


def limit(fleet, **changes) -> None:
    """Change the limits of all devices, as `palate client limits` does, and start their agents again."""
    for device in fleet.devices:
        device.kill()
        enrolling.change_limits(device.folder, **changes)
        device.start()


def test_an_owner_whose_budget_renews_takes_part_in_the_next_run_and_another_does_not(fleet, now):
    renewing = fleet.devices[0]
    renewing.kill()
    enrolling.change_limits(renewing.folder, every_seconds=MONTH)
    renewing.start()
    assert run_all(fleet, "one") == [0, 0, 0, 0]
    assert run_all(fleet, "two") == [2, 2, 2, 2]
    now[0] += MONTH
    assert run_all(fleet, "three") == [1, 1, 1, 1]
    first, other = (status_of(device.folder).budget for device in fleet.devices)
    assert (first.windows, other.windows) == (2, 0)
    assert first.life_nano == 2 * other.life_nano
    assert first.spent_nano == other.spent_nano == other.life_nano
    assert first.life_epsilon > other.life_epsilon


def test_a_clock_that_is_put_back_and_set_right_again_gives_no_budget(fleet, now):
    limit(fleet, every_seconds=MONTH)
    assert run_all(fleet, "one") == [0, 0, 0, 0]
    right = now[0]
    for moment in (right - 20 * 365 * DAY, 0, right, right + MONTH - 1):
        now[0] = moment
        assert run_all(fleet, f"at-{moment}") == [2, 2, 2, 2]


def test_a_clock_that_is_put_back_while_windows_are_chosen_gives_no_budget(fleet, now):
    """The first window would else have ended long ago, once the clock is right."""
    assert run_all(fleet, "one") == [0, 0, 0, 0]
    right = now[0]
    now[0] = right - 20 * 365 * DAY
    limit(fleet, every_seconds=MONTH)
    now[0] = right + DAY
    assert run_all(fleet, "two") == [2, 2, 2, 2]
    now[0] = right + MONTH
    assert run_all(fleet, "three") == [0, 0, 0, 0]


def test_a_clock_that_was_put_forward_renews_once_and_then_waits_until_time_has_caught_up(fleet, now):
    limit(fleet, every_seconds=MONTH)
    run_all(fleet, "one")
    right = now[0]
    now[0] = right + 365 * DAY
    assert run_all(fleet, "two") == [0, 0, 0, 0], "the device's own clock decides"
    now[0] = right + 90 * DAY
    assert run_all(fleet, "three") == [2, 2, 2, 2]


def test_a_fleet_that_is_left_and_another_one_get_nothing_of_a_window_that_is_used_up(fleet, tmp_path, now):
    limit(fleet, every_seconds=MONTH)
    run_all(fleet, "one")
    device = fleet.devices[0]
    device.kill()
    enrolling.leave(device.folder)
    other = type(fleet)(tmp_path / "other", 2)
    with Vault.open(device.folder.vault) as vault:
        key = DeviceKeys.load(vault).signing.public_key()
        before = FleetProfile.limits_before(vault)
    welcome = other.welcome(key)
    limits = enrolling.limits_for(welcome, smallest_cohort=2, before=before)
    assert limits.every_seconds == 0, "a budget for life is the stricter one, and nobody asked for another"
    limits = enrolling.limits_for(welcome, smallest_cohort=2, every="1d", before=before)
    enrolling.accept(device.folder, welcome, other.catalogue, limits)
    other.devices = [replace(device, number=welcome.device)]
    other.devices[0].start()
    now[0] += 2 * DAY
    assert run_all(other, "theirs") == [1, 1, 1, 1], "the window of 30 days goes on"


def test_an_old_ledger_without_the_last_window_gives_nothing_back(fleet, now):
    limit(fleet, every_seconds=MONTH)
    run_all(fleet, "one")
    device = fleet.devices[0]
    device.kill()
    early = device.folder.ledger.read_bytes()
    now[0] += MONTH
    device.start()
    run_all(fleet, "two")
    device.kill()
    device.folder.ledger.write_bytes(early)
    for extra in ("-wal", "-shm"):
        device.folder.ledger.with_name(f"ledger.sqlite{extra}").unlink(missing_ok=True)
    with pytest.raises(Rollback, match="what was spent before is missing in it"):
        device.start()


def test_status_says_of_which_window_its_figures_are_and_what_windows_add_up_to(fleet, now):
    limit(fleet, every_seconds=MONTH)
    run_all(fleet, "one")
    folder = fleet.devices[0].folder
    text = "\n".join(status_lines(status_of(folder)))
    assert "for all rounds within a window of 30 days" in text
    assert "in the window of 2027-01-15 08:00 to 2027-02-14 08:00 UTC, then it renews" in text
    assert "used up in every window" not in text
    text = "\n".join(status_lines(status_of(folder), explain=True))
    assert "used up in every window, the budgets add up to epsilon" in text
    values = status_of(folder).to_json()["budget"]
    assert values["every"] == "30d"
    assert values["window"] == {"begins": 1_800_000_000, "lasts": MONTH, "ends": 1_800_000_000 + MONTH}
    assert [(each["years"], each["windows"]) for each in values["adds_up"]] == [(1, 13), (5, 61)]
    epsilons = [values["epsilon"], *(each["epsilon"] for each in values["adds_up"])]
    assert epsilons == sorted(epsilons)
    now[0] += MONTH
    after = status_of(folder).budget
    assert (after.spent_nano, after.share) == (0, 0.0)
    assert "a new window begins with the next round" in "\n".join(status_lines(status_of(folder)))


def test_a_round_renews_also_where_the_agent_stayed_up(fleet, now):
    limit(fleet, every_seconds=MONTH)
    run_all(fleet, "one")
    now[0] += 10 * MONTH
    assert run_all(fleet, "two") == [0, 0, 0, 0]
    windows = [event for event in fleet.devices[0].ledger().events if isinstance(event, Window)]
    assert windows == [
        Window(begins=1_800_000_000, lasts=MONTH),
        Window(begins=1_800_000_000 + 10 * MONTH, lasts=MONTH),
    ]


@pytest.mark.parametrize("seconds", [1, DAY - 1, 3_651 * DAY])
def test_a_window_is_a_day_at_least_and_ten_years_at_most(seconds):
    with pytest.raises(ConfigError, match="renews every"):
        OwnerLimits(epsilon=1.0, delta=1e-5, every_seconds=seconds)


def test_the_stricter_of_two_limits_is_for_life_where_one_is_and_has_the_longer_window():
    life, month, week = (OwnerLimits(epsilon=1.0, delta=1e-5, every_seconds=n) for n in (0, MONTH, 7 * DAY))
    assert month.tightened(week) == week.tightened(month) == month
    assert month.tightened(life) == life.tightened(month) == life
