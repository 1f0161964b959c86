"""Forgetting and beginning anew gives no budget back: what was spent is taken off whatever the new device is given."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from palate.cli.client import client_app
from palate.client.fleet import carried_spending, enrolling
from palate.client.fleet.folder import DeviceFolder
from palate.client.fleet.status import status_of
from palate.client.owner import forgetting
from palate.client.owner.forgetting import forget_device
from palate.client.vault import Vault, tombstone
from palate.client.vault.errors import Forgotten, OtherVersion, VaultTampered
from palate.privacy.accounting.events import Unit
from palate.privacy.accounting.filters import SkellamMeter
from palate.privacy.accounting.guarantee import round_up
from palate.privacy.budget import ADJACENCY, SENSITIVITY
from palate.privacy.ledger.body import charge_nano
from palate.privacy.ledger.errors import BudgetExceeded
from palate.privacy.ledger.verify import verify_ledger
from palate.privacy.secagg.keys import EnrolmentAuthority

METER = SkellamMeter(SENSITIVITY)


def cost(*plans) -> int:
    return sum(charge_nano(plan.terms.sensitivity, plan.terms.sum_variance) for plan in plans)


def spend(fleet, *numbers: int):
    """Take the fleet through rounds, and return what they cost each device."""
    plans = [fleet.plan(number) for number in numbers]
    for plan in plans:
        server = fleet.run_round(plan)
        assert not fleet.refused
        fleet.finish(plan, server, model=fleet.plan(plan.server_round + 1).table_hash)
    return cost(*plans)


def ask(fleet, device, plan):
    return device.rounds.handle(fleet.ask(plan), plan=plan)


def begin_anew(fleet, *, enrol: bool = True) -> DeviceFolder:
    """Let the first device's owner forget everything, begin in the same folder, and join the same fleet."""
    device = fleet.devices[0]
    device.kill()
    forget_device(device.folder)
    if enrol:
        fleet.devices[0] = fleet.enrol(device.folder.home, 7)
    return device.folder


def whole_budget(fleet) -> int:
    promise = fleet.limits.promises[Unit.USER]
    return promise.policy(smallest_cohort=2).budget_nano


def test_what_was_spent_before_forgetting_comes_off_the_new_budget(lone):
    spent = spend(lone, 0, 1)
    number = lone.devices[0].number
    folder = begin_anew(lone)
    assert lone.devices[0].number != number
    gauge = status_of(folder).budget
    assert (gauge.spent_nano, gauge.carried_nano, gauge.budget_nano) == (spent, spent, whole_budget(lone))
    assert gauge.spent_epsilon == gauge.carried_epsilon == METER.epsilon(spent, lone.limits.delta)
    more = spend(lone, 2)
    gauge = status_of(folder).budget
    assert (gauge.spent_nano, gauge.carried_nano) == (spent + more, spent)
    assert status_of(folder).rounds[0].total_epsilon == METER.epsilon(spent + more, lone.limits.delta)


def test_a_budget_that_is_used_up_stays_so(lone):
    spent = spend(lone, 0, 1, 2, 3)
    folder = begin_anew(lone)
    again = lone.plan(4)
    assert cost(again) > whole_budget(lone) - spent
    for device in lone.devices:  # the one that began anew, and one that did not
        with pytest.raises(BudgetExceeded):
            ask(lone, device, again)
    assert status_of(folder).budget.spent_nano == spent
    ledger = verify_ledger(folder.ledger, "device", lone.devices[0].member.keys.ledger.public_key()).state
    assert (ledger.policy.budget_nano, ledger.spent_nano) == (whole_budget(lone) - spent, 0)


def test_without_its_tombstone_the_same_device_would_begin_from_0(lone):
    """What an owner can do and nobody can prevent; and that the test above can fail."""
    spend(lone, 0, 1, 2, 3)
    folder = begin_anew(lone, enrol=False)
    (folder.vault / tombstone.FILE).unlink()
    assert "begins from 0" in forgetting.OUT_OF_REACH
    lone.devices[0] = lone.enrol(folder.home, 7)
    assert ask(lone, lone.devices[0], lone.plan(4)).body
    assert status_of(folder).budget.carried_nano == 0


def test_two_forgettings_add_up(lone):
    first = spend(lone, 0)
    begin_anew(lone)
    second = spend(lone, 1)
    folder = begin_anew(lone)
    assert status_of(folder).budget.carried_nano == first + second
    third = spend(lone, 2)
    begin_anew(lone, enrol=False)
    stone = tombstone.read(folder.vault)
    assert stone.spent == {("user", ADJACENCY): first + second + third}


def test_a_raised_budget_and_another_fleet_are_charged_for_it_too(lone):
    spent = spend(lone, 0, 1)
    folder = begin_anew(lone)
    lone.devices[0].kill()
    enrolling.change_limits(folder, epsilon=9.0)
    whole = replace(lone.limits, epsilon=9.0).promises[Unit.USER].policy(smallest_cohort=2).budget_nano
    with Vault.open(folder.vault) as vault:
        key = enrolling.DeviceKeys.load(vault).ledger.public_key()
    assert verify_ledger(folder.ledger, "device", key).state.policy.budget_nano == whole - spent
    enrolling.leave(folder)
    assert status_of(folder).carried_nano == spent
    with Vault.open(folder.vault) as vault:
        identity_key = enrolling.DeviceKeys.load(vault).signing.public_key()
    lone.authority = EnrolmentAuthority.generate("books")
    enrolling.accept(folder, lone.welcome(identity_key, fleet="books"), lone.catalogue, lone.limits)
    assert status_of(folder).budget.carried_nano == spent


def test_more_spent_than_the_new_budget_holds_leaves_nothing(lone):
    spend(lone, 0, 1)
    folder = begin_anew(lone, enrol=False)
    lone.limits = lone.limits.with_changes({"epsilon": 0.5})
    lone.devices[0] = lone.enrol(folder.home, 7)
    assert status_of(folder).budget.share == 1.0
    with pytest.raises(BudgetExceeded):
        ask(lone, lone.devices[0], lone.plan(2))


def test_a_tombstone_file_that_is_lost_later_takes_nothing_with_it(lone):
    spent = spend(lone, 0)
    folder = begin_anew(lone)
    (folder.vault / tombstone.FILE).unlink()
    assert status_of(folder).budget.carried_nano == spent
    more = spend(lone, 1)
    begin_anew(lone, enrol=False)
    assert tombstone.read(folder.vault).spent_nano("user", ADJACENCY) == spent + more


def test_a_damaged_tombstone_is_no_reason_to_begin_from_0(lone):
    spent = spend(lone, 0)
    folder = begin_anew(lone, enrol=False)
    path = folder.vault / tombstone.FILE
    whole = path.read_bytes()
    for damaged in (whole.replace(str(spent).encode(), b"0"), whole[:-2], b""):
        path.write_bytes(damaged)
        with pytest.raises(VaultTampered) as caught:
            enrolling.begin(folder)
        assert "restore it from a backup" in caught.value.hint
        assert {each.name for each in folder.vault.iterdir()} == {tombstone.FILE}
    path.write_bytes(whole)
    assert enrolling.begin(folder).carried_nano == spent


def test_what_no_budget_is_about_is_refused_and_not_passed_over(tmp_path):
    folder = DeviceFolder(tmp_path / "home")
    folder.vault.mkdir(parents=True, mode=0o700)
    folder.home.chmod(0o700)
    for place in (("household", ADJACENCY), ("user", "replace-one")):
        tombstone.write(folder.vault, tombstone.engrave(bytes(16), {place: 7}, None, None))
        with pytest.raises(OtherVersion, match=place[1]):
            enrolling.begin(folder)


def test_a_forgetting_that_is_not_finished_is_finished_first(lone, monkeypatch):
    spent = spend(lone, 0)
    device = lone.devices[0]
    device.kill()
    with monkeypatch.context() as patched:
        patched.setattr(forgetting, "_shred_all", lambda _: (_ for _ in ()).throw(OSError("the disk is gone")))
        with pytest.raises(OSError, match="the disk is gone"):
            forget_device(device.folder)
    with pytest.raises(Forgotten) as caught:
        enrolling.begin(device.folder)
    assert "palate client forget" in caught.value.hint
    forget_device(device.folder)
    assert enrolling.begin(device.folder).carried_nano == spent


def test_what_the_vault_keeps_of_it_is_checked_when_it_is_read(lone):
    spend(lone, 0)
    folder = begin_anew(lone, enrol=False)
    enrolling.begin(folder)
    with Vault.open(folder.vault) as vault:
        values = json.loads(vault.get(carried_spending.SERVERS, "carried"))
        for changed in ({"format": "palate-carried/2"}, {"tombstone": values["tombstone"][:-2]}, {"tombstone": 1}):
            vault.put(carried_spending.SERVERS, "carried", json.dumps(values | changed).encode())
            with pytest.raises(VaultTampered):
                carried_spending.kept(vault)
        vault.put(carried_spending.SERVERS, "carried", b"[]")
        with pytest.raises(VaultTampered):
            carried_spending.kept(vault)


def test_what_earlier_keys_were_charged_comes_off_the_budget_for_good(reporting):
    """A welcome to a person's next key says it: it counts like a tombstone, once, also in the next fleet."""
    device = reporting.devices[0]
    folder, before = device.folder, device.member.profile
    welcome = replace(before.welcome, carried_nano=1_000_000)
    device.kill()
    for _ in range(2):  # the same welcome again adds nothing
        enrolling.accept(folder, welcome, reporting.catalogue, before.limits)
    status = status_of(folder)
    assert (status.budget.spent_nano, status.budget.carried_nano) == (1_000_000, 1_000_000)
    enrolling.accept(folder, before.welcome, reporting.catalogue, before.limits)
    assert status_of(folder).budget.carried_nano == 1_000_000, "a server that says less afterwards changes nothing"
    enrolling.leave(folder)
    assert status_of(folder).carried_nano == 1_000_000
    assert forget_device(folder).spent_nano(Unit.USER, ADJACENCY) == 1_000_000
    enrolling.begin(folder)
    assert status_of(folder).carried_nano == 1_000_000


def test_the_owner_is_told_at_every_step(lone, terminal_at, tmp_path):
    spent = spend(lone, 0, 1)
    device = lone.devices[0]
    device.kill()
    terminal = terminal_at(device.folder.home)
    assert terminal.json("forget", "--yes")["spent"][0]["spent_nano"] == spent
    said = terminal("init")
    at_default = round_up(METER.epsilon(spent, 1e-4))
    assert f"carried over: an earlier device of yours had spent epsilon {at_default} at delta 0.0001" in said
    assert f"had spent epsilon {at_default}" in terminal("status")
    assert terminal.json("status")["carried_nano"] == spent
    with Vault.open(device.folder.vault) as vault:
        identity_key = enrolling.DeviceKeys.load(vault).signing.public_key()
    (tmp_path / "welcome.zip").write_bytes(lone.welcome(identity_key).pack(lone.catalogue))
    told = f"had spent epsilon {round_up(METER.epsilon(spent, lone.limits.delta))} at delta 1e-05 per user"
    enrol = ["enrol", "--welcome", str(tmp_path / "welcome.zip"), "--yes", "--smallest-cohort", "2"]
    assert told in CliRunner().invoke(client_app, [*enrol, "--folder", str(terminal.home)]).stderr
    assert told in terminal("status")
    assert told in terminal("budget")
    assert terminal.json("budget")["carried_nano"] == spent
    path = tmp_path / "mine.json"
    terminal("export", str(path))
    assert str(spent) in json.loads(path.read_text())["vault"]["purposes"]["servers"]["carried"]["tombstone"]


def test_where_nothing_was_forgotten_nothing_is_carried(lone, terminal_at, tmp_path):
    terminal = terminal_at(tmp_path / "fresh")
    assert terminal.json("init")["carried_nano"] == 0
    assert "forgotten" not in terminal("status")
    with Vault.open(DeviceFolder(terminal.home).vault) as vault:
        assert carried_spending.kept(vault) is None
        assert not vault.has(carried_spending.SERVERS, "carried")
    assert not (DeviceFolder(terminal.home).vault / tombstone.FILE).exists()
    gauge = status_of(lone.devices[0].folder).budget
    assert (gauge.carried_nano, gauge.carried_epsilon, gauge.budget_nano) == (0, 0.0, whole_budget(lone))
