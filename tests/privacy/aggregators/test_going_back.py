"""Leader and helper leave out a device that does not know its newest report, and nobody else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.privacy.aggregators.device import check_notice
from palate.privacy.aggregators.errors import LedgerWentBack, OfferRefused
from palate.privacy.aggregators.messages import (
    CHAIN_LENGTH,
    CHAIN_SIZE,
    Exclusion,
    LedgerNotice,
    Upload,
    chain_of,
    mark_of,
)
from palate.privacy.secagg.encoding import to_sign

OLD, NEW = bytes([1]) * 32, bytes([2]) * 32


def test_the_leader_refuses_a_report_that_does_not_name_the_newest(fleet):
    collection = fleet.collection(last={100: mark_of(NEW)})
    old = fleet.report(100, ledger_head=bytes([3]) * 32, chain=chain_of(b"", [OLD]))
    with pytest.raises(LedgerWentBack):
        collection.take(old, now=fleet.offer.issued_at)
    assert len(collection) == 0
    collection.take(fleet.report(100, chain=chain_of(OLD, [NEW])), now=fleet.offer.issued_at)
    collection.take(fleet.report(101, chain=chain_of(b"", [])), now=fleet.offer.issued_at)
    assert len(collection) == 2


def test_the_same_report_again_is_taken_after_it_was_counted(fleet):
    report = fleet.report(100, ledger_head=NEW, chain=chain_of(b"", [OLD]))
    fleet.collection(last={100: mark_of(NEW)}).take(report, now=fleet.offer.issued_at)


def counted(fleet, reports: list[bytes]):
    collection = fleet.collection()
    for report in reports:
        collection.take(report, now=fleet.offer.issued_at)
    return collection.finish(fleet.helper.answer(collection.freeze(), now=fleet.offer.issued_at))


def test_the_helper_leaves_out_an_old_copy_and_takes_a_device_with_a_new_key(fleet):
    first = [fleet.report(device, ledger_head=bytes([device]) * 32) for device in fleet.identities]
    assert counted(fleet, first).excluded == {}
    fleet.round_key, fleet.offer, fleet.offer_bytes = fleet.new_round(server_round=2)
    key, _ = fleet.book.counted[101]
    fleet.book.counted[101] = (key ^ 1, fleet.book.counted[101][1])  # counted under the key before
    chains = {device: chain_of(b"", [bytes([device]) * 32]) for device in fleet.identities}
    chains |= {100: chain_of(b"", [OLD]), 101: chain_of(b"", [OLD])}
    second = [fleet.report(device, ledger_head=NEW, chain=chain) for device, chain in chains.items()]
    assert counted(fleet, second).excluded == {100: Exclusion.LEDGER_WENT_BACK}
    assert fleet.book.counted[100][1] == mark_of(bytes([100]) * 32), "what is left out does not count"
    assert fleet.book.counted[102][1] == mark_of(NEW)


@given(st.binary(max_size=0) | st.binary(min_size=32, max_size=32), st.lists(st.binary(min_size=32, max_size=32)))
def test_a_chain_has_one_length_and_names_the_newest(receipted, made):
    chain = chain_of(receipted, made)
    assert len(chain) == CHAIN_SIZE
    for commitment in ([receipted] if receipted else []) + made[: CHAIN_LENGTH - 1]:
        assert mark_of(commitment) in {chain[at : at + 8] for at in range(0, CHAIN_SIZE, 8)}


def test_a_notice_shows_a_report_that_the_device_signed(fleet):
    upload = Upload.from_bytes(fleet.report(100), fleet.suite)
    identity = fleet.identities[100].public_key().public_bytes_raw()

    def sent(**changes: object) -> bytes:
        notice = LedgerNotice(**{"fleet": "films", "report": upload.report.to_bytes()} | changes)
        return notice.signed(lambda body: fleet.leader.sign(to_sign(body))).to_bytes()

    about = {"fleet": "films", "device": 100, "identity": identity}
    assert check_notice(sent(), fleet.parties, **about) == upload.report
    foreign = replace(upload.report, ledger_head=NEW).to_bytes()  # the leader cannot sign for the device
    for notice, facts in (
        (sent(report=foreign), about),
        (sent(fleet="books"), about),
        (sent(), about | {"device": 101}),
        (sent()[:-1] + bytes([sent()[-1] ^ 1]), about),
    ):
        with pytest.raises(OfferRefused):
            check_notice(notice, fleet.parties, **facts)
