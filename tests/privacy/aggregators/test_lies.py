"""The design's rules as attacks: each party lies with all that it sees, and what cannot be noticed is shown as well."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from oracle.parties import Spool

from palate.privacy.aggregators.admission import Certificate, Entry, Membership, entries_of, key_number, list_of
from palate.privacy.aggregators.claim import trust_of
from palate.privacy.aggregators.device import mask_bytes, unpack_mask
from palate.privacy.aggregators.errors import AlreadyCollected, RegisterRefused, RequestRefused, TooFewReports
from palate.privacy.aggregators.messages import Answer, Batch, Exclusion, Report, Request, Upload, tag_of
from palate.privacy.aggregators.planes import pack
from palate.privacy.integer.ring import Ring
from palate.privacy.secagg.encoding import to_sign

from .conftest import FLEET, NOW, key_of, raw

TESTS = Path(__file__).parents[2]


def request_of(fleet, uploads) -> bytes:
    """A request that a lying leader makes of any reports, sorted as the protocol asks."""
    records = sorted((Upload.from_bytes(data, fleet.suite).report.record for data in uploads), key=lambda it: it[:8])
    batch = Batch(fleet.suite, tuple(records))
    return (
        Request(offer=fleet.offer_bytes, batch=batch).signed(lambda body: fleet.leader.sign(to_sign(body))).to_bytes()
    )


def answer_of(fleet, uploads) -> Answer:
    return Answer.from_bytes(fleet.helper.answer(request_of(fleet, uploads), now=NOW + 150))


def masks_in(answer, fleet) -> np.ndarray:
    return unpack_mask(answer.mask_sum, fleet.offer)


def words_in(upload, fleet) -> np.ndarray:
    return unpack_mask(Upload.from_bytes(upload, fleet.suite).words, fleet.offer)


@pytest.mark.parametrize("rule", range(1, 11))
def test_every_rule_of_the_design_has_a_named_test(rule):
    named = [path.name for path in TESTS.rglob("test_*.py") if re.search(rf"def test_rule_{rule}_", path.read_text())]
    assert named


def test_rule_1_whoever_admits_alone_reads_one_device_and_so_no_claim_is_made(fleet):
    """An aggregator that is the authority as well: five invented devices, one real one, and the sum minus its own."""
    victim, invented = 100, (101, 102, 103, 104, 105)
    uploads = [fleet.report(device) for device in (victim, *invented)]
    answer = answer_of(fleet, uploads)
    assert answer.accepted == 6
    ring = Ring(bits=fleet.offer.ring_bits)
    total = sum(words_in(upload, fleet).astype(np.int64) for upload in uploads) - masks_in(answer, fleet)
    own = sum(fleet.vector(device).astype(np.int64) for device in invented)
    assert np.array_equal(ring.reduce(total - own), fleet.vector(victim)), "the vector under one share of noise"
    for alone in (fleet.parties.leader, fleet.parties.helper):
        assert not trust_of(replace(fleet.parties, authority=alone)).against_lies


def test_rule_1_where_both_admit_neither_can_add_a_device_of_its_own(make_fleet):
    fleet = make_fleet(together=True)
    invented = dict(fleet.entries) | {999: Entry(raw(key_of(77)), NOW + 10_000)}
    for signers in ((fleet.leader, fleet.leader), (fleet.helper_key, fleet.helper_key), (fleet.leader, key_of(77))):
        register = list_of(invented, fleet=FLEET, epoch=6, not_after=NOW + 10_000).signed(*signers)
        with pytest.raises(RegisterRefused):
            Membership.checked(register, invented, fleet.parties)
        with pytest.raises(RegisterRefused):
            fleet.offered(register=register.to_bytes())


def test_rule_2_a_leader_that_leaves_honest_reports_out_gets_no_smaller_sum(fleet):
    """It may choose who is in, but not fewer than the least batch, of which m are honest even if all corrupt are in."""
    uploads = [fleet.report(device) for device in (100, 101)]
    with pytest.raises(TooFewReports) as refused:
        fleet.helper.answer(request_of(fleet, uploads), now=NOW + 150)
    assert (refused.value.valid, refused.value.least) == (2, fleet.offer.least_batch)


def test_rule_5_a_leader_gets_no_second_set_of_a_round_and_so_no_difference_of_two(fleet):
    everybody = [fleet.report(device) for device in fleet.identities]
    answer_of(fleet, everybody)
    with pytest.raises(AlreadyCollected, match="answered to another request"):
        fleet.helper.answer(request_of(fleet, everybody[1:]), now=NOW + 150)


def test_rule_6_two_certificates_of_one_person_give_one_entry_and_the_old_key_signs_nothing(fleet):
    """Two live keys would be 2 S: the register has one entry a device, the helper refuses the key before."""
    old, new = fleet.identities[100], key_of(4242)
    first, second = (
        Certificate(
            fleet=FLEET, device=100, identity_key=raw(key), generation=generation, not_after=NOW + 10_000
        ).signed(*fleet.admit)
        for generation, key in ((1, old), (2, new))
    )
    assert entries_of([second, first]) == {100: Entry(raw(new), NOW + 10_000)}
    uploads = [fleet.report(device) for device in fleet.identities]
    fleet.book.members = lambda: Membership(
        fleet.register, fleet.entries, frozenset({key_number(raw(old))})
    )  # the round was offered before the key was replaced
    assert answer_of(fleet, uploads).excluded == ((0, Exclusion.REVOKED),)
    fleet.entries[100] = Entry(raw(new), NOW + 10_000)
    fleet.register = list_of(fleet.entries, fleet=FLEET, epoch=6, not_after=NOW + 10_000).signed(*fleet.admit)
    fleet.round_key, fleet.offer, fleet.offer_bytes = fleet.new_round(server_round=2)
    fleet.book.members = fleet.membership
    stolen = fleet.report(100)
    fleet.identities[100] = new
    uploads = [stolen, *(fleet.report(device) for device in list(fleet.identities)[1:])]
    assert answer_of(fleet, uploads).excluded == ((0, Exclusion.BAD_SIGNATURE),)


def test_rule_7_reports_of_another_round_or_for_another_device_are_left_out(fleet):
    """Replay and exchange: what was sealed and signed for one round and device counts for no other."""
    replayed = Upload.from_bytes(fleet.report(101), fleet.suite)
    fleet.round_key, fleet.offer, fleet.offer_bytes = fleet.new_round(server_round=2)
    uploads = [fleet.report(device) for device in fleet.identities]
    own, others = (Upload.from_bytes(upload, fleet.suite) for upload in uploads[:2])
    swapped = replace(own.report, sealed=others.report.sealed).signed(
        lambda body: fleet.identities[100].sign(to_sign(body))
    )
    again = replace(replayed.report, context=fleet.offer.context)
    lies = [replace(own, report=report).to_bytes() for report in (swapped, again)]
    found = answer_of(fleet, [*lies, *uploads[2:]])
    assert found.excluded == ((0, Exclusion.UNSEALABLE), (1, Exclusion.BAD_SIGNATURE))


def test_rule_8_a_plausible_offset_of_the_helper_is_not_noticed(fleet):
    """It spoils the sum by less than the noise, and learns nothing: the threat model says so."""
    collection = fleet.collection(Spool())
    for device in fleet.identities:
        collection.take(fleet.report(device), now=NOW + 5)
    honest = Answer.from_bytes(fleet.helper.answer(collection.freeze(), now=NOW + 150))
    ring = Ring(bits=fleet.offer.ring_bits)
    shifted = ring.reduce(masks_in(honest, fleet).astype(np.int64) - 5)
    lying = replace(honest, mask_sum=pack(shifted, fleet.offer.ring_bits)).signed(
        lambda body: fleet.helper_key.sign(to_sign(body))
    )
    found = collection.finish(lying.to_bytes())
    assert np.array_equal(found.integers, fleet.signed_sum(fleet.identities) + 5)


def test_rule_9_the_helper_asks_for_lists_sorted_by_device_so_that_their_order_says_nothing(fleet):
    uploads = [Upload.from_bytes(fleet.report(device), fleet.suite).report.record for device in (101, 100, 102)]
    with pytest.raises(RequestRefused):
        Request.from_bytes(
            Request(offer=fleet.offer_bytes, batch=Batch(fleet.suite, tuple(uploads)))
            .signed(lambda body: fleet.leader.sign(to_sign(body)))
            .to_bytes()
        )


def test_rule_9_the_helpers_whole_view_tests_no_guess_of_a_vector(fleet):
    """With every seed open and the true vector guessed, the tag still needs the salt, which the leader alone has."""
    upload = Upload.from_bytes(fleet.report(100), fleet.suite)
    view = Report.from_record(upload.report.record, fleet.offer.context)
    _, secret = fleet.book.secrets[fleet.round_key.content_hash]
    seed = secret.opener().open(view.sealed, context=fleet.offer.context, device=100)
    mask = unpack_mask(mask_bytes(seed, fleet.offer, 100), fleet.offer)
    words = pack(Ring(bits=fleet.offer.ring_bits).add(fleet.vector(100), mask), fleet.offer.ring_bits)
    assert words == upload.words, "the guess is right"
    seen = [seed, view.tag, view.ledger_head, view.answer_hash, fleet.offer.context, bytes(32), view.sealed[:32]]
    assert all(tag_of(fleet.offer.context, 100, salt, words) != view.tag for salt in seen)
    assert tag_of(fleet.offer.context, 100, upload.salt, words) == view.tag


def test_rule_10_a_device_that_reports_to_two_shards_of_a_leader_is_in_no_sum(fleet):
    """Each shard takes one report; put together, both are left out, or the device would count twice for good."""
    shards = [fleet.collection(Spool()), fleet.collection(Spool())]
    doubled = [fleet.report(100), fleet.report(100)]
    for shard, upload in zip(shards, doubled, strict=True):
        shard.take(upload, now=NOW + 5)
    others = [fleet.report(device) for device in (101, 102, 103)]
    answer = answer_of(fleet, [*doubled, *others])
    assert answer.excluded == ((0, Exclusion.TWICE), (1, Exclusion.TWICE))
    assert answer.accepted == 3
