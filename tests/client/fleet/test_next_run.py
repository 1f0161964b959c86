"""Notices of runs: what a device takes in, and every notice that it refuses."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, replace
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.client.fleet.next_run import take_in
from palate.client.fleet.profile import FleetProfile
from palate.client.fleet.round_log import RoundLog
from palate.client.fleet.status import status_of
from palate.client.fleet.status_text import status_lines
from palate.client.vault import Vault
from palate.errors import RunError
from palate.privacy.enrolment import EnrolmentFileRefused
from palate.privacy.ledger.errors import BudgetExceeded
from palate.privacy.run_notice import RunNotice

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NOTICE = RunNotice(
    fleet="films",
    run="two",
    epsilon=4.0,
    delta=1e-5,
    rounds=3,
    smallest_roster=2,
    tau_thousandths=500,
    gamma_thousandths=0,
    num_items=12,
    catalogue_sha256="0" * 64,
)


def never() -> bytes:
    pytest.fail("nothing is to be fetched")


@pytest.fixture
def device(lone):
    """A device of a fleet."""
    return lone.devices[0]


def take(device, notice: RunNotice, fetch=never) -> FleetProfile:
    vault = device.member.vault
    return take_in(device.folder, vault, FleetProfile.require(vault), notice, fetch)


def of(catalogue: bytes, **changes) -> RunNotice:
    return replace(NOTICE, catalogue_sha256=sha256(catalogue).hexdigest(), **changes)


def test_a_notice_comes_back_as_it_was_signed():
    data = NOTICE.sign(KEY)
    assert RunNotice.open(data, KEY.public_key()) == NOTICE
    assert json.loads(data)["format"] == "palate-run-notice/1"


def test_a_notice_of_another_key_is_refused():
    with pytest.raises(EnrolmentFileRefused, match="not signed by the server's key"):
        RunNotice.open(NOTICE.sign(KEY), Ed25519PrivateKey.generate().public_key())


def test_no_changed_byte_of_a_notice_is_accepted():
    data, rng = NOTICE.sign(KEY), random.Random(1)
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= rng.randrange(1, 256)
        with pytest.raises(EnrolmentFileRefused):
            RunNotice.open(bytes(changed), KEY.public_key())


@settings(max_examples=500)
@given(st.one_of(st.binary(max_size=200), st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.sampled_from([*asdict(NOTICE), "format"]), inner)),
).map(lambda value: json.dumps(value).encode())))  # fmt: skip
def test_nothing_else_is_read_as_a_notice(data):
    with pytest.raises(EnrolmentFileRefused):
        RunNotice.open(data, KEY.public_key())


def test_a_notice_changes_the_plan_and_nothing_that_the_device_trusts_or_its_owner_allows(lone, device):
    before = FleetProfile.require(device.member.vault)
    after = take(device, of(lone.catalogue, epsilon=4000.0, smallest_roster=2, rounds=900))
    assert after == FleetProfile.require(device.member.vault)
    assert (after.welcome.epsilon, after.welcome.rounds) == (4000.0, 900)
    assert after.limits == before.limits
    unchanged = asdict(after.welcome).keys() - {"epsilon", "rounds"}
    assert {name: getattr(after.welcome, name) for name in unchanged} == {
        name: getattr(before.welcome, name) for name in unchanged
    }


def test_what_a_notice_promises_to_spend_does_not_loosen_the_ledger(lone, device):
    take(device, of(lone.catalogue, run="greedy", epsilon=4000.0))
    device.restart()
    loud = replace(lone.terms.popularity, share_variance=10_000)
    plan = lone.plan(0, run="greedy", terms=loud)
    with pytest.raises(BudgetExceeded):
        device.rounds.handle(lone.ask(plan), plan=plan)


def test_a_new_list_of_items_replaces_the_old_one_and_the_table_of_its_items_goes(device, catalogue_of):
    device.folder.table.write_bytes(b"a table of 12 items")
    bigger = catalogue_of(13)
    profile = take(device, of(bigger, num_items=13), lambda: bigger)
    assert profile.welcome.num_items == 13
    assert device.folder.catalogue.read_bytes() == bigger
    assert not device.folder.table.exists()
    device.restart().close()
    device.member.check_catalogue()


def test_a_device_that_died_before_the_list_was_in_place_fetches_it_again(device, catalogue_of):
    bigger = catalogue_of(13)
    notice, old = of(bigger, num_items=13), device.folder.catalogue.read_bytes()
    take(device, notice, lambda: bigger)
    device.folder.catalogue.write_bytes(old)  # as if it had been killed in between
    device.restart()
    with pytest.raises(RunError, match="is not the fleet's"):
        device.member.check_catalogue()
    take(device, notice, lambda: bigger)
    device.member.check_catalogue()
    take(device, notice)  # nothing is fetched twice


@pytest.mark.parametrize(("changes", "words"), [
    ({"fleet": "books"}, "of fleet 'books', not 'films'"),
    ({"num_items": 0}, "num_items is 0"),
    ({"epsilon": float("inf")}, "epsilon is inf"),
    ({"delta": 0.9}, "delta is 0.9"),
    ({"smallest_roster": 0}, "smallest_roster is 0"),
    ({"run": "over"}, "which is over"),
])  # fmt: skip
def test_a_notice_that_does_not_fit_changes_nothing(lone, device, changes, words):
    vault = device.member.vault
    standing = RoundLog(vault).standing()
    RoundLog(vault)._stand(replace(standing, finished=("over",)))
    before = FleetProfile.require(vault)
    with pytest.raises(EnrolmentFileRefused, match=words):
        take(device, of(lone.catalogue, **changes))
    assert FleetProfile.require(vault) == before


def test_another_list_than_the_notice_names_changes_nothing(lone, device):
    before = device.folder.catalogue.read_bytes()
    with pytest.raises(EnrolmentFileRefused, match="not the one that the notice names"):
        take(device, replace(NOTICE, catalogue_sha256="1" * 64), lambda: before + b"x")
    assert device.folder.catalogue.read_bytes() == before
    assert FleetProfile.require(device.member.vault).notice is None


def test_a_device_asks_about_a_run_that_it_does_not_know_once_and_takes_part_in_it(lone, device):
    asked, made = [], of(lone.catalogue, run="two", table_hash=lone.plan(0).table_hash)

    def meet(run):
        asked.append(run)
        return take(device, made)

    device.trainer.use_catalogue = lambda digest: asked.append(digest[:4])
    device.rounds = device.member.rounds(device.trainer, meet_run=meet)
    for number in range(2):
        plan = lone.plan(number, run="two")
        device.rounds.handle(lone.ask(plan), plan=plan)
    assert asked == ["two", made.catalogue_sha256[:4]]
    assert device.folder.table.exists(), "the notice vouches for the table that the run starts from"


def test_status_says_what_a_run_would_spend_of_the_budget_and_when_it_is_over(lone, device):
    take(device, of(lone.catalogue))
    device.kill()
    text = "\n".join(status_lines(status_of(device.folder)))
    assert "run two plans 4 rounds within epsilon 4 at delta 1e-05 per user, over 12 items" in text
    assert "of which 100% is left; it takes part in all of it" in text
    with Vault.open(device.folder.vault) as vault:
        RoundLog(vault)._stand(replace(RoundLog(vault).standing(), finished=("two",)))
    assert "run two is over" in "\n".join(status_lines(status_of(device.folder)))
    assert status_of(device.folder).to_json()["fleet"]["run"]["run"] == "two"
