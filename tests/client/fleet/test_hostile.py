"""What owners, operators and thieves could try with a device: no budget begins anew, and no promise shrinks."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from palate.client.fleet import enrolling
from palate.client.fleet.identity import DeviceKeys
from palate.client.fleet.limits import RoundUnwelcome
from palate.client.fleet.member import ledger_guard
from palate.client.fleet.profile import FleetProfile
from palate.client.fleet.round_log import RoundLog
from palate.client.fleet.tables import read_table
from palate.client.fleet.trust import against_server
from palate.client.fleet.worker import Worker
from palate.client.vault import Vault
from palate.errors import ConfigError
from palate.privacy.accounting.events import Unit
from palate.privacy.ledger.errors import Fork, Rollback
from palate.privacy.secagg.keys import EnrolmentAuthority
from palate.privacy.wire import FleetStep


def _begin(fleet, device, number):
    plan = fleet.plan(number)
    return device.rounds.handle(fleet.ask(plan), plan=plan)


def _files(device):
    return sorted(device.folder.home.glob("ledger.sqlite*"))


def _spent(device):
    return device.member.guard.spending()[Unit.USER].spent_nano


def test_a_device_whose_ledger_was_deleted_takes_part_no_more(lone):
    device = lone.devices[0]
    for number in range(2):
        _begin(lone, device, number)
    assert _spent(device) > 0
    device.kill()
    for path in _files(device):
        path.unlink()
    with pytest.raises(Rollback, match="what was spent before is missing in it") as refusal:
        device.start()
    assert "restore the newest ledger.sqlite" in refusal.value.hint


def test_a_ledger_that_is_deleted_while_the_agent_runs_is_missed_before_the_next_round(lone):
    device = lone.devices[0]
    _begin(lone, device, 0)
    for path in _files(device):
        path.unlink()
    with pytest.raises(Rollback):
        _begin(lone, device, 1)
    assert _spent(device) == 0
    assert [number for number, *_ in device.trainer.asked] == [0], "the history was not touched"


def test_an_old_copy_of_the_ledger_is_refused_and_the_newest_is_taken(lone, tmp_path):
    device = lone.devices[0]
    _begin(lone, device, 0)
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(device.folder.home, old)
    _begin(lone, device, 1)
    spent = _spent(device)
    device.kill()
    shutil.copytree(device.folder.home, new)
    _put_back(old, device)
    with pytest.raises(Rollback):
        device.start()
    _begin_elsewhere(device)
    with pytest.raises(Fork, match="is not the one that an anchor saw"):
        device.start()
    _put_back(new, device)
    device.start()
    _begin(lone, device, 2)
    assert _spent(device) > spent


def _put_back(copy, device):
    for path in _files(device):
        path.unlink()
    for path in copy.glob("ledger.sqlite*"):
        shutil.copy(path, device.folder.home)


def _begin_elsewhere(device):
    """Let the old ledger grow again, past the length that it had."""
    with Vault.open(device.folder.vault) as vault:
        keys, profile = DeviceKeys.load(vault), FleetProfile.require(vault)
        for cohort in range(3, 13):
            changed = profile.with_limits(profile.limits.with_changes({"smallest_cohort": cohort}))
            ledger_guard(device.folder, vault, keys, changed).adopt_policy()


def _welcome(fleet, device, **changes):
    with Vault.open(device.folder.vault) as vault:
        return fleet.welcome(DeviceKeys.load(vault).signing.public_key(), **changes)


def test_what_the_fleet_states_about_collusion_and_failures_is_held_against_its_offers(lone):
    welcome = _welcome(lone, lone.devices[0], gamma_thousandths=200, tau_thousandths=700)
    limits = enrolling.limits_for(welcome, smallest_cohort=2)
    plan = lone.plan(0)
    for changes, words in (
        ({}, "tau in thousandths is 500, the owner asks for at least 700"),
        ({"tau_thousandths": 700}, "gamma in thousandths is 0, the owner asks for at least 200"),
    ):
        with pytest.raises(RoundUnwelcome, match=words):
            limits.check(plan, lone.offer(plan, **changes), num_items=12, began_lately=0, parties=2)
    plan = lone.plan(0, terms=replace(lone.terms.popularity, honest_shares=1))
    as_stated = lone.offer(plan, gamma_thousandths=200, tau_thousandths=700)
    limits.check(plan, as_stated, num_items=12, began_lately=0, parties=2)


@pytest.mark.parametrize("name", ["authority", "server"])
def test_a_welcome_under_other_keys_is_not_taken_in_beside_the_pinned_ones(lone, name):
    device = lone.devices[0]
    device.kill()
    changes = {}
    if name == "authority":
        lone.authority = EnrolmentAuthority.generate("films")
    else:
        changes["server_key"] = lone.authority.public_key.public_bytes_raw().hex()
    welcome = _welcome(lone, device, **changes)
    with pytest.raises(ConfigError, match="authority" if name == "authority" else "belongs to fleet"):
        enrolling.accept(device.folder, welcome, lone.catalogue, lone.limits)
    device.start()
    _begin(lone, device, 0)  # under the keys that it had


def test_words_about_the_server_say_what_they_rest_on(lone):
    profile = lone.devices[0].member.profile
    assert "provided that others enrol the devices" in against_server(profile)
    assert "none colludes" in against_server(profile)
    some = profile.with_limits(profile.limits.with_changes({"least_gamma_thousandths": 125}))
    assert "at most 12.5% of the enrolled devices collude with it, as it counts them" in against_server(some)
    own = _welcome(lone, lone.devices[0], authority_is_separate=False)
    limits = enrolling.limits_for(own, smallest_cohort=2)
    assert "if its operators keep to the protocol" in against_server(FleetProfile(own, limits))


def test_a_next_fleet_does_not_loosen_what_the_owner_allowed_before(lone):
    device = lone.devices[0]
    device.kill()
    enrolling.change_limits(device.folder, epsilon=1.0, smallest_cohort=20, most_rounds_a_day=5)
    assert enrolling.membership_of(device.folder)[1] is None
    enrolling.leave(device.folder)
    before = enrolling.membership_of(device.folder)[1]
    welcome = _welcome(lone, device, epsilon=9.0, gamma_thousandths=100, tau_thousandths=600, smallest_roster=20)
    limits = enrolling.limits_for(welcome, before=before)
    assert (limits.epsilon, limits.smallest_cohort, limits.most_rounds_a_day) == (1.0, 20, 5)
    assert (limits.least_gamma_thousandths, limits.least_tau_thousandths) == (100, 600), "the new fleet's own promise"
    assert enrolling.limits_for(welcome, epsilon=9.0, before=before).epsilon == 9.0, "when asked for by name"
    with pytest.raises(ConfigError, match="rounds of 10 devices, this device wants 20"):
        enrolling.limits_for(_welcome(lone, device, smallest_roster=10), before=before)


def test_whatever_goes_wrong_in_training_the_round_is_answered(catalogue_data, tmp_path, lone, monkeypatch):
    """An answer that fails to come says something about the history; MemoryError is no ChannelBroken."""
    path = tmp_path / "catalogue.parquet"
    path.write_bytes(catalogue_data)
    worker = Worker(path, "0" * 64, command=("false",))

    def fails(*_):
        raise MemoryError

    monkeypatch.setattr(worker, "_exchange", fails)
    plan = lone.plan(0)
    given = worker.contribute(plan, ["i1"], None)
    assert (given.vector.shape, given.head) == ((plan.update_size,), None)
    assert len(set(given.vector.tolist())) > 1


def test_an_old_receipt_puts_no_old_table_back(fleet):
    device, old, new = fleet.devices[0], fleet.final_table(), fleet.final_table()
    old = old.with_learned(old.learned / 2)
    receipts = []
    for number, table in enumerate((old, new)):
        plan = fleet.plan(number, learned=old.learned) if number else fleet.plan(number)
        server = fleet.run_round(plan)
        receipts.append((plan, server.receipt(model_hash=table.content_hash, log_index=number)))
        device.rounds.handle(fleet.message(FleetStep.RECEIPT, *receipts[-1]), table=table if number else None)
    assert read_table(device.folder.table).content_hash == new.content_hash
    before = RoundLog(device.member.vault).standing()
    with pytest.raises(RoundUnwelcome, match="the receipt of a later round is here"):
        device.rounds.handle(fleet.message(FleetStep.RECEIPT, *receipts[0]), table=old)
    device.rounds.handle(fleet.message(FleetStep.RECEIPT, *receipts[0]))  # alone it changes nothing
    assert RoundLog(device.member.vault).standing() == before
    assert read_table(device.folder.table).content_hash == new.content_hash
