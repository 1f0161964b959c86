"""A round between devices, leader and helper: the sum is exact, and every rule of the protocol has a test."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from palate.privacy.aggregators.admission import Entry, Membership, Parties, Revocation, list_of
from palate.privacy.aggregators.claim import trust_of
from palate.privacy.aggregators.device import check_receipt
from palate.privacy.aggregators.errors import (
    AlreadyCollected,
    AnswerRefused,
    HelperRestored,
    OfferRefused,
    ReceiptRefused,
    RegisterRefused,
    ReportRefused,
    RequestRefused,
    RoundKeyGone,
    RoundKeyRefused,
    SumImplausible,
    TooFewReports,
    TooLate,
    TwoReports,
)
from palate.privacy.aggregators.messages import Answer, Batch, Exclusion, Report, Request, Upload
from palate.privacy.aggregators.offer import CollectionOffer
from palate.privacy.aggregators.planes import pack
from palate.privacy.aggregators.sealing import Suite
from palate.privacy.secagg.encoding import to_sign
from palate.privacy.wire import MAX_VALUES

NOW = 1_000_000


def filled(fleet, *devices: int, spool=None):
    collection = fleet.collection(spool)
    for device in devices or fleet.identities:
        collection.take(fleet.report(device), now=NOW + 5)
    return collection


def forged(fleet, owner: int, /, sign_with=None, **changes) -> bytes:
    """A record that the leader slips into a request, signed by the device's key or another."""
    upload = Upload.from_bytes(fleet.report(owner), fleet.suite)
    key = sign_with or fleet.identities[owner]
    unsigned = replace(upload.report, **changes)
    return unsigned.signed(lambda body: key.sign(to_sign(body))).record


def request_of(fleet, records) -> bytes:
    return (
        Request(offer=fleet.offer_bytes, batch=Batch(fleet.suite, tuple(sorted(records, key=lambda r: r[:8]))))
        .signed(lambda body: fleet.leader.sign(to_sign(body)))
        .to_bytes()
    )


def records_of(fleet, *devices: int) -> list[bytes]:
    return [Upload.from_bytes(fleet.report(device), fleet.suite).report.record for device in devices]


@pytest.mark.parametrize("suite", list(Suite))
@pytest.mark.parametrize("bits", [17, 20, 32, 40])
@pytest.mark.parametrize("together", [False, True])
def test_the_sum_is_the_plain_sum_of_the_accepted_reports(make_fleet, suite, bits, together):
    fleet = make_fleet(suite=suite, ring_bits=bits, together=together)
    collection = filled(fleet)
    answer = fleet.helper.answer(collection.freeze(), now=NOW + 150)
    collected = collection.finish(answer)
    assert np.array_equal(collected.integers, fleet.signed_sum(fleet.identities))
    assert (collected.accepted, collected.excluded) == (6, {})


@pytest.mark.parametrize(("suite", "most"), [(Suite.X25519, 512), (Suite.X_WING, 1700)])
def test_a_report_is_little_longer_than_its_vector(make_fleet, suite, most):
    fleet = make_fleet(suite=suite, vector_length=1000)
    assert len(fleet.report(100)) <= fleet.offer.words_size + most


def test_a_receipt_shows_the_device_the_helpers_new_head(fleet):
    collection = filled(fleet)
    collected = collection.finish(fleet.helper.answer(collection.freeze(), now=NOW + 150))
    receipt = collection.receipt(collected, table_hash=bytes(32), log_index=3, head=fleet.helper.head())
    found = check_receipt(receipt, fleet.offer, fleet.parties, None)
    assert (found.head.sequence, found.log_index) == (1, 3)
    older = replace(found.head, sequence=0, answer_hash=found.answer_hash).signed(
        lambda body: fleet.helper_key.sign(to_sign(body))
    )
    rolled_back = collection.receipt(collected, table_hash=bytes(32), log_index=3, head=older)
    with pytest.raises(ReceiptRefused, match="went back from 1 to 0"):
        check_receipt(rolled_back, fleet.offer, fleet.parties, found.head)


# Rule 1: whoever enrols alone can isolate.


def test_rule_1_where_both_admit_one_signature_is_not_enough(make_fleet):
    fleet = make_fleet(together=True)
    alone = fleet.register.signed(fleet.leader)
    with pytest.raises(RegisterRefused, match="1 signatures where 2 must admit"):
        Membership.checked(alone, fleet.entries, fleet.parties)
    twice = fleet.register.signed(fleet.leader, fleet.leader)
    with pytest.raises(RegisterRefused, match="did not sign"):
        Membership.checked(twice, fleet.entries, fleet.parties)


def test_rule_1_the_claim_follows_from_who_admits(fleet):
    parties = fleet.parties
    assert trust_of(parties).against_lies
    assert trust_of(replace(parties, authority=None)).against_lies
    assert not trust_of(replace(parties, authority=parties.helper)).against_lies
    assert not trust_of(replace(parties, authority=parties.leader)).against_lies
    alone = trust_of(replace(parties, helper=parties.leader))
    assert not alone.against_lies
    assert "nothing is protected" in alone.sentence


def test_rule_1_a_register_must_match_its_list_and_its_keys_must_differ(fleet):
    others = dict(fleet.entries) | {999: Entry(bytes(32), NOW)}
    with pytest.raises(RegisterRefused, match="is not the register's"):
        Membership.checked(fleet.register, others, fleet.parties)
    shared = dict.fromkeys(fleet.entries, fleet.entries[100])
    register = list_of(shared, fleet="films", epoch=1, not_after=NOW).signed(fleet.authority)
    with pytest.raises(RegisterRefused, match="share a key"):
        Membership.checked(register, shared, fleet.parties)


# Rule 2: gamma is a share of the registered, and m + k <= B <= accepted.


@pytest.mark.parametrize(("honest", "corrupt", "least"), [(3, 1, 3), (2, 2, 3), (4, 0, 3)])
def test_rule_2_noise_must_be_sized_for_the_honest_of_a_batch(make_fleet, honest, corrupt, least):
    with pytest.raises(OfferRefused):
        make_fleet(honest_shares=honest, corrupt=corrupt, least_batch=least)


def test_rule_2_corrupt_devices_count_among_all_that_are_registered(make_fleet):
    fleet = make_fleet(devices=40, corrupt=1, least_batch=3, most_reports=6)
    fleet.offered(gamma_thousandths=49)
    with pytest.raises(OfferRefused, match="allows for 1 corrupt devices of 40 registered, this device wants 2"):
        fleet.offered(gamma_thousandths=50)


def test_rule_2_an_answer_for_fewer_than_the_least_batch_is_refused_by_the_leader(fleet):
    collection = filled(fleet)
    honest = Answer.from_bytes(fleet.helper.answer(collection.freeze(), now=NOW + 150))
    few = replace(honest, excluded=tuple((place, Exclusion.REVOKED) for place in range(4))).signed(
        lambda body: fleet.helper_key.sign(to_sign(body))
    )
    with pytest.raises(AnswerRefused, match="another number of reports"):
        collection.finish(few.to_bytes())


# Rule 3: one bad report does not stop a round.


def test_rule_3_each_bad_report_is_left_out_and_named(fleet):
    stranger = forged(fleet, 101, device=4242)
    bad = [
        forged(fleet, 103, sign_with=fleet.identities[104]),
        forged(fleet, 104, sealed=bytes(80)),
        stranger,
    ]
    answer = fleet.helper.answer(request_of(fleet, [*records_of(fleet, 100, 101, 102), *bad]), now=NOW + 150)
    reasons = dict(Answer.from_bytes(answer).excluded)
    assert reasons == {3: Exclusion.BAD_SIGNATURE, 4: Exclusion.UNSEALABLE, 5: Exclusion.NOT_REGISTERED}


def test_rule_3_two_reports_of_one_device_are_both_left_out(fleet):
    records = [*records_of(fleet, 100, 101, 102, 103), forged(fleet, 103)]
    answer = Answer.from_bytes(fleet.helper.answer(request_of(fleet, records), now=NOW + 150))
    assert answer.excluded == ((3, Exclusion.TWICE), (4, Exclusion.TWICE))


def test_rule_3_revoked_and_expired_devices_are_left_out_by_the_helpers_clock(fleet):
    collection = filled(fleet)
    fleet.book.members = lambda: fleet.membership(101, 105)
    answer = Answer.from_bytes(fleet.helper.answer(collection.freeze(), now=NOW + 150))
    assert answer.excluded == ((1, Exclusion.REVOKED), (5, Exclusion.REVOKED))
    collected = collection.finish(answer.to_bytes())
    assert collected.excluded == {101: Exclusion.REVOKED, 105: Exclusion.REVOKED}
    assert np.array_equal(collected.integers, fleet.signed_sum([100, 102, 103, 104]))


def test_rule_3_an_admission_that_ended_is_left_out(fleet):
    membership = fleet.membership()
    entries = dict(fleet.entries) | {102: Entry(fleet.entries[102].identity_key, NOW + 120)}
    fleet.book.members = lambda: Membership(membership.register, entries)
    answer = fleet.helper.answer(filled(fleet).freeze(), now=NOW + 150)
    assert Answer.from_bytes(answer).excluded == ((2, Exclusion.EXPIRED),)


# Rule 4: forward secrecy.


def test_rule_4_the_rounds_key_is_destroyed_once_it_has_answered(fleet):
    request = filled(fleet).freeze()
    fleet.helper.answer(request, now=NOW + 150)
    assert fleet.book.secrets == {}


def test_rule_4_after_the_end_of_the_offer_the_key_is_destroyed_and_nothing_is_answered(fleet):
    request = filled(fleet).freeze()
    with pytest.raises(RoundKeyGone, match="ended"):
        fleet.helper.answer(request, now=NOW + 200)
    assert fleet.book.secrets == {}
    with pytest.raises(RoundKeyGone, match="not here"):
        fleet.helper.answer(request, now=NOW + 150)


def test_rule_4_a_round_key_of_somebody_else_is_refused(fleet):
    _, secret = fleet.book.secrets[fleet.round_key.content_hash]
    other = secret.published(fleet.leader, fleet="films", index=0, not_after=NOW + 10_000)
    with pytest.raises(RoundKeyRefused, match="not signed by this helper"):
        fleet.offered(round_key=other.to_bytes())


# Rule 5: one collection a round.


def test_rule_5_the_same_request_gets_the_same_bytes_and_another_one_nothing(fleet):
    collection = filled(fleet)
    request = collection.freeze()
    first = fleet.helper.answer(request, now=NOW + 150)
    assert fleet.helper.answer(request, now=NOW + 900) == first
    with pytest.raises(AlreadyCollected):
        fleet.helper.answer(request_of(fleet, records_of(fleet, 100, 101, 102)), now=NOW + 150)


def test_a_leader_cannot_make_the_helper_lay_out_more_words_than_its_operator_allows(fleet):
    fleet.round_key, fleet.offer, fleet.offer_bytes = fleet.new_round(vector_length=MAX_VALUES)
    tracemalloc.start()
    try:
        with pytest.raises(RequestRefused, match=r"268,435,456 words, this helper takes 16,777,216 at most"):
            fleet.helper.answer(request_of(fleet, []), now=NOW + 150)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_rule_5_too_few_valid_reports_use_nothing_up(fleet):
    records = [*records_of(fleet, 100, 101), forged(fleet, 102, sealed=bytes(80))]
    with pytest.raises(TooFewReports) as refused:
        fleet.helper.answer(request_of(fleet, records), now=NOW + 150)
    assert (refused.value.valid, refused.value.least) == (2, 3)
    assert fleet.book.end == (0, bytes(32))
    collection = filled(fleet)
    assert collection.finish(fleet.helper.answer(collection.freeze(), now=NOW + 150)).accepted == 6


def test_rule_5_a_restored_helper_finds_out_from_the_first_device_that_saw_more(fleet):
    collection = filled(fleet)
    fleet.helper.answer(collection.freeze(), now=NOW + 150)
    newest = fleet.helper.head()
    fleet.round_key, fleet.offer, fleet.offer_bytes = fleet.new_round(server_round=2)
    fleet.book.end = (0, bytes(32))
    later = fleet.collection()
    for device in fleet.identities:
        later.take(fleet.report(device, seen=newest if device == 104 else None), now=NOW + 5)
    with pytest.raises(HelperRestored, match="has seen answer 1"):
        fleet.helper.answer(later.freeze(), now=NOW + 150)


def test_rule_5_a_device_that_invents_a_head_is_left_out(fleet):
    lie = forged(fleet, 103, sequence=99, answer_hash=b"x" * 32, head_signature=b"y" * 64)
    answer = fleet.helper.answer(request_of(fleet, [*records_of(fleet, 100, 101, 102), lie]), now=NOW + 150)
    assert Answer.from_bytes(answer).excluded == ((3, Exclusion.FALSE_HEAD),)


def test_rule_5_answers_form_a_chain(fleet):
    first = filled(fleet)
    one = Answer.from_bytes(fleet.helper.answer(first.freeze(), now=NOW + 150))
    fleet.round_key, fleet.offer, fleet.offer_bytes = fleet.new_round(server_round=2)
    two = Answer.from_bytes(fleet.helper.answer(filled(fleet).freeze(), now=NOW + 150))
    assert (one.sequence, one.previous, two.sequence, two.previous) == (1, bytes(32), 2, one.content_hash)


# Rule 7: ctx names everything.


@pytest.mark.parametrize("name", ["register_hash", "round_key_hash", "parties_hash"])
def test_rule_7_an_offer_that_names_something_else_is_refused(fleet, name):
    other = replace(fleet.offer, **{name: b"z" * 32})
    with pytest.raises(OfferRefused, match="names another"):
        fleet.offered(offer=other.sign(fleet.leader))


def test_rule_7_other_parties_or_fleets_are_refused(fleet):
    with pytest.raises(OfferRefused, match="not signed by this leader"):
        fleet.offered(offer=fleet.offer.sign(fleet.helper_key))
    with pytest.raises(OfferRefused, match="is for fleet 'films'"):
        fleet.offered(fleet="books")
    with pytest.raises(OfferRefused, match="epoch"):
        fleet.offered(least_epoch=6)
    other = Parties(leader=fleet.parties.leader, helper=fleet.parties.helper, authority=None)
    with pytest.raises(RegisterRefused):
        fleet.offered(parties=other)


@pytest.mark.parametrize("now", [NOW - 1, NOW + 100])
def test_rule_7_a_device_reports_only_while_the_offer_is_open(fleet, now):
    with pytest.raises(OfferRefused, match="not open"):
        fleet.offered(now=now)


def test_rule_7_a_report_does_not_fit_another_round(fleet):
    old = Upload.from_bytes(fleet.report(100), fleet.suite)
    fleet.round_key, fleet.offer, fleet.offer_bytes = fleet.new_round(server_round=2)
    with pytest.raises(ReportRefused, match="another offer"):
        fleet.collection().take(old.to_bytes(), now=NOW + 5)
    replayed = replace(old.report, context=fleet.offer.context).record
    answer = fleet.helper.answer(request_of(fleet, [*records_of(fleet, 101, 102, 103), replayed]), now=NOW + 150)
    assert Answer.from_bytes(answer).excluded == ((0, Exclusion.BAD_SIGNATURE),)


def test_rule_7_a_register_or_key_that_ends_before_the_answer_is_refused(fleet):
    short = list_of(fleet.entries, fleet="films", epoch=6, not_after=NOW + 150).signed(fleet.authority)
    offer = replace(fleet.offer, register_hash=short.content_hash)
    with pytest.raises(OfferRefused, match="register ends"):
        fleet.offered(offer=offer.sign(fleet.leader), register=short.to_bytes())


# Rule 8: the leader checks what comes back.


def test_rule_8_masks_of_another_set_give_an_implausible_sum(fleet):
    collection = filled(fleet)
    honest = Answer.from_bytes(fleet.helper.answer(collection.freeze(), now=NOW + 150))
    wrong = replace(honest, mask_sum=pack(np.arange(11, dtype=np.uint32) * 90_000, 20)).signed(
        lambda body: fleet.helper_key.sign(to_sign(body))
    )
    with pytest.raises(SumImplausible):
        collection.finish(wrong.to_bytes())


def test_rule_8_an_answer_of_somebody_else_or_to_another_request_is_refused(fleet):
    collection = filled(fleet)
    honest = Answer.from_bytes(fleet.helper.answer(collection.freeze(), now=NOW + 150))
    foreign = honest.signed(lambda body: fleet.leader.sign(to_sign(body)))
    with pytest.raises(AnswerRefused, match="not signed by this helper"):
        collection.finish(foreign.to_bytes())
    other = replace(honest, request_hash=bytes(32)).signed(lambda body: fleet.helper_key.sign(to_sign(body)))
    with pytest.raises(AnswerRefused, match="another request"):
        collection.finish(other.to_bytes())


def test_rule_8_an_answer_that_leaves_out_what_nobody_asked_about_is_refused(fleet):
    collection = filled(fleet)
    honest = Answer.from_bytes(fleet.helper.answer(collection.freeze(), now=NOW + 150))
    beyond = replace(honest, excluded=((6, Exclusion.REVOKED),)).signed(
        lambda body: fleet.helper_key.sign(to_sign(body))
    )
    with pytest.raises(AnswerRefused, match="not asked about"):
        collection.finish(beyond.to_bytes())


# The leader's door.


def test_a_leader_takes_each_report_once(fleet):
    collection = fleet.collection()
    report = fleet.report(100)
    collection.take(report, now=NOW + 5)
    collection.take(report, now=NOW + 5)
    assert len(collection) == 1
    with pytest.raises(TwoReports):
        collection.take(fleet.report(100), now=NOW + 5)


def test_a_leader_refuses_strangers_other_words_and_late_reports(fleet):
    collection = fleet.collection()
    upload = Upload.from_bytes(fleet.report(100), fleet.suite)
    with pytest.raises(ReportRefused, match="not registered"):
        collection.take(replace(upload, report=replace(upload.report, device=7)).to_bytes(), now=NOW + 5)
    other = bytes([upload.words[0] ^ 1]) + upload.words[1:]
    with pytest.raises(ReportRefused, match="not those that the device signed"):
        collection.take(replace(upload, words=other).to_bytes(), now=NOW + 5)
    with pytest.raises(ReportRefused, match="bytes of words"):
        collection.take(replace(upload, words=b"short").to_bytes(), now=NOW + 5)
    with pytest.raises(TooLate):
        collection.take(upload.to_bytes(), now=NOW + 100)


def test_a_frozen_round_takes_nothing_until_it_is_unfrozen(fleet):
    collection = filled(fleet, 100, 101, 102)
    collection.freeze()
    with pytest.raises(TooLate):
        collection.take(fleet.report(103), now=NOW + 5)
    collection.unfreeze()
    collection.take(fleet.report(103), now=NOW + 5)
    assert len(collection) == 4


def test_a_leader_asks_for_nothing_below_the_least_batch(fleet):
    with pytest.raises(TooFewReports):
        filled(fleet, 100, 101).freeze()


def test_a_restarted_leader_goes_on_from_its_spool(fleet):
    spool = type(fleet.collection()._spool)()
    filled(fleet, 100, 101, spool=spool)
    again = fleet.collection(spool)
    assert len(again) == 2
    again.take(fleet.report(102), now=NOW + 5)
    collected = again.finish(fleet.helper.answer(again.freeze(), now=NOW + 150))
    assert np.array_equal(collected.integers, fleet.signed_sum([100, 101, 102]))


# The helper's door.


def test_a_helper_answers_its_leader_alone_and_its_own_offers(fleet):
    records = records_of(fleet, 100, 101, 102)
    request = Request(offer=fleet.offer_bytes, batch=Batch(fleet.suite, tuple(records)))
    with pytest.raises(RequestRefused, match="not signed by this leader"):
        fleet.helper.answer(request.signed(lambda body: fleet.authority.sign(to_sign(body))).to_bytes(), now=NOW)


def test_requests_out_of_order_are_refused(fleet):
    records = records_of(fleet, 101, 100, 102)
    request = Request(offer=fleet.offer_bytes, batch=Batch(fleet.suite, tuple(records))).signed(
        lambda body: fleet.leader.sign(to_sign(body))
    )
    with pytest.raises(RequestRefused, match="order"):
        fleet.helper.answer(request.to_bytes(), now=NOW + 150)


def test_offers_whose_sums_could_wrap_are_refused(make_fleet):
    with pytest.raises(OfferRefused, match="ring"):
        make_fleet(ring_bits=9)


def test_a_revocation_of_another_fleet_is_refused(fleet):
    other = Revocation(fleet="books", number=1, keys=(100,)).signed(fleet.authority)
    with pytest.raises(RegisterRefused, match="another fleet"):
        Membership.checked(fleet.register, fleet.entries, fleet.parties, other)


def test_an_offer_is_read_back_as_it_was_written(fleet):
    assert CollectionOffer.open(fleet.offer_bytes, fleet.parties.leader) == fleet.offer


def test_the_helper_sees_neither_words_nor_salt(fleet):
    """Its whole view of a device is the record; the salt that would test guesses of the words is not in it."""
    upload = Upload.from_bytes(fleet.report(100), fleet.suite)
    record = upload.report.record
    assert upload.salt not in record
    assert upload.words not in record
    assert set(vars(Report.from_record(record, fleet.offer.context))) == {
        "signature",
        "context",
        "device",
        "tag",
        "ledger_head",
        "chain",
        "sequence",
        "answer_hash",
        "head_signature",
        "sealed",
    }
