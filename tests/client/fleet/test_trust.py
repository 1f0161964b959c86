"""Who could read what a device sends: worked out from the keys that it pinned, said in words, and held as a limit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.client.fleet import enrolling
from palate.client.fleet.identity import DeviceKeys
from palate.client.fleet.limits import RoundUnwelcome
from palate.client.fleet.profile import FleetProfile
from palate.client.fleet.round_log import RoundLog
from palate.client.fleet.status import status_of
from palate.client.fleet.status_text import status_lines
from palate.client.fleet.trust import trust_sentence
from palate.client.vault import Vault
from palate.errors import ConfigError
from palate.privacy.colluding import LeastSum, if_colluding
from palate.privacy.spoken import spoken


def test_who_would_have_to_work_together_follows_from_the_pinned_keys(reporting_of):
    """In words, in JSON and as a limit: by the keys of the welcome, never by what the leader says."""
    fleet = reporting_of(limits={"least_gamma_thousandths": 50})
    profile = fleet.devices[0].member.profile
    assert (profile.parties, profile.guarantee) == (2, "malicious")
    assert "two of the three would have to work together" in trust_sentence(profile)
    assert "up to 5% of all registered devices" in trust_sentence(profile)
    shown = status_of(fleet.devices[0].folder)
    assert shown.to_json()["fleet"]["trust"] == trust_sentence(profile)
    assert any(line == f"trust      {trust_sentence(profile)}" for line in status_lines(shown))
    identity = fleet.devices[0].member.keys.signing.public_key()
    for change, words in (
        ({"authority_key": fleet.parties.leader.hex()}, "The leader admits devices alone"),
        ({"authority_key": fleet.parties.helper.hex()}, "The helper admits devices alone"),
        ({"helper_key": fleet.parties.leader.hex()}, "One party is both leader and helper"),
    ):
        weak = fleet.welcome(identity, smallest_roster=20, **change)
        assert FleetProfile(weak, fleet.limits).parties == 1
        assert trust_sentence(FleetProfile(weak, fleet.limits)).startswith(words)
        with pytest.raises(ConfigError, match="1 party alone could read"):
            enrolling.limits_for(weak, least_parties=2)
        assert enrolling.limits_for(weak).least_parties == 1
    together = fleet.welcome(identity, authority_key="", smallest_roster=20)
    assert enrolling.limits_for(together, least_parties=2).least_parties == 2


def test_a_round_is_refused_where_fewer_parties_could_read_it_than_the_owner_wants(reporting_of):
    fleet = reporting_of()
    device, plan = fleet.devices[0], fleet.plan(1)
    fleet.third = fleet.helper_key  # the helper's operator admits the devices
    device.kill()
    with Vault.open(device.folder.vault) as vault:
        FleetProfile.drop(vault)
        welcome = fleet.welcome(DeviceKeys.load(vault).signing.public_key())
    enrolling.accept(device.folder, welcome, fleet.catalogue, fleet.limits.with_changes({"least_parties": 2}))
    device.start()
    with pytest.raises(RoundUnwelcome, match="parties that would have to work together"):
        fleet.answer_of(device, plan, fleet.collection(plan))
    assert device.spent == 0


def test_a_welcome_with_another_helper_is_refused_until_the_device_has_left(reporting):
    device = reporting.devices[0]
    identity = device.member.keys.signing.public_key()
    device.kill()
    reporting.helper_key = Ed25519PrivateKey.generate()
    with pytest.raises(ConfigError, match="another helper could take masks off"):
        enrolling.accept(device.folder, reporting.welcome(identity), reporting.catalogue, reporting.limits)


def test_status_says_what_the_rounds_would_be_worth_with_more_colluders(reporting_of):
    """Of all who are enrolled, by the signed register."""
    fleet = reporting_of(devices=4, limits={"smallest_cohort": 3})
    device, plan = fleet.devices[0], fleet.plan(0, terms=fleet.terms_for(3))
    assert status_of(device.folder).if_colluding == []
    assert fleet.answer_of(device, plan, fleet.collection(plan, least_batch=3))
    terms = plan.terms
    expected = LeastSum(sensitivity=terms.sensitivity, share_variance=terms.share_variance, least=3, enrolled=4)
    status = status_of(device.folder)
    assert status.if_colluding == if_colluding([expected], device.member.profile.limits.delta)
    assert status.to_json()["if_colluding"] == [each.to_json() for each in status.if_colluding]
    assert "if more of the enrolled devices colluded" in "\n".join(status_lines(status, explain=True))
    assert "colluded" not in "\n".join(status_lines(status))


def test_among_peers_colluders_are_counted_on_the_roster(fleet_of):
    lone = fleet_of(2)
    plan = lone.plan(0)
    lone.devices[0].rounds.handle(lone.ask(plan), plan=plan)
    (record,) = status_of(lone.devices[0].folder).rounds
    assert (record.least_sum["least"], record.least_sum["enrolled"]) == (2, 2)
    assert "if more of a round's devices" in "\n".join(status_lines(status_of(lone.devices[0].folder), explain=True))


def test_a_record_of_an_earlier_version_says_nothing_about_colluders(reporting):
    fleet, device, plan = reporting, reporting.devices[0], reporting.plan(0)
    fleet.answer_of(device, plan, fleet.collection(plan))
    log = RoundLog(device.member.vault)
    with device.member.vault.transaction():
        log._write(replace(device.record(0), least_sum={}))
    assert status_of(device.folder).if_colluding == []


def test_what_only_the_invitation_says_is_not_claimed_until_the_owner_has_compared_the_words(reporting, terminal_at):
    """An authority's key that secretly lies with the server looks like any other: the owner is told what to ask for."""
    device, profile = reporting.devices[0], reporting.devices[0].member.profile
    home, words = device.folder.home, profile.words
    assert set(words) == {"server", "helper", "authority"}
    assert words["helper"] == spoken(reporting.parties.helper)
    assert "ask the helper and the authority for the words" in trust_sentence(profile)
    assert "which no program can check" in trust_sentence(profile)
    device.kill()
    terminal = terminal_at(home)
    for name, text in words.items():
        assert f"{name}'s words: {text}" in terminal("status")
    assert terminal.json("status")["fleet"]["not_compared"] == ["helper", "authority"]
    heard = words["helper"].upper().replace(" ", ", ")
    said = terminal("compare", heard)
    assert "these are the words of the helper's key" in said
    assert "ask the authority for the words" in said
    with pytest.raises(ConfigError, match="words of no key"):
        enrolling.compare(device.folder, words["authority"].rsplit(" ", 1)[0])
    assert terminal.json("compare", *words["authority"].split())["not_compared"] == []
    assert "You have compared their words" in terminal("status")
    enrolling.accept(device.folder, profile.welcome, reporting.catalogue, profile.limits)
    assert terminal.json("status")["fleet"]["not_compared"] == [], "the same keys again need no second call"
    enrolling.leave(device.folder)
    with pytest.raises(ConfigError, match="belongs to no fleet"):
        enrolling.compare(device.folder, words["helper"])


def test_where_one_party_could_read_everything_no_comparison_helps(reporting_of):
    profile = reporting_of().devices[0].member.profile
    weak = replace(profile.welcome, authority_key=profile.welcome.server_key)
    assert "words" not in trust_sentence(FleetProfile(weak, profile.limits))
