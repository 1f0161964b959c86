"""Rounds under two aggregators on real folders: one report, exact sums, and a named refusal of everything else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from oracle.mutating import mutations

from palate.client.fleet.limits import RoundUnwelcome
from palate.client.fleet.round_log import OPEN, RELEASED, WRITTEN_OFF, RoundLog
from palate.client.fleet.rounds import RoundOver
from palate.client.fleet.seen import read_seen
from palate.client.fleet.tables import read_table
from palate.client.guard import Guard
from palate.errors import PalateError
from palate.privacy.accounting.events import Unit
from palate.privacy.aggregators.errors import (
    HelperRestored,
    OfferRefused,
    ReceiptRefused,
    RegisterRefused,
    RoundKeyRefused,
)
from palate.privacy.aggregators.messages import CollectionReceipt, Head, Upload
from palate.privacy.aggregators.offer import CollectionOffer
from palate.privacy.aggregators.sealing import Suite
from palate.privacy.charging import intents
from palate.privacy.errors import PrivacyError
from palate.privacy.ledger.anchors import Anchor
from palate.privacy.ledger.body import Intent, Outcome, hash_text
from palate.privacy.ledger.checkpoint import TreeHead
from palate.privacy.ledger.errors import BadNote, BadProof, Fork, Rollback
from palate.privacy.ledger.merkle import MerkleTree
from palate.privacy.secagg.encoding import to_sign
from palate.privacy.secagg.errors import MessageError
from palate.privacy.wire import FleetMessage, FleetStep


def signed_sum(fleet, devices, server_round, bits):
    """The sum of vectors as integers, each read modulo 2^b around zero."""
    half = 1 << (bits - 1)
    vectors = [device.trainer.vectors[server_round].astype(np.int64) % (1 << bits) for device in devices]
    total = sum(vectors) % (1 << bits)
    return np.where(total >= half, total - 2 * half, total)


def at(device, moment):
    """Set the clock of a device."""
    device.rounds._round_log._clock = lambda: moment


def test_a_run_sums_exactly_and_every_ledger_closes(reporting):
    fleet, table = reporting, reporting.final_table()
    plans = [fleet.plan(0), fleet.plan(1), fleet.plan(2)]
    for plan, following in zip(plans, [*plans[1:], None], strict=True):
        call = fleet.collection(plan)
        reports = [fleet.answer_of(device, plan, call) for device in fleet.devices]
        collected, receipt = fleet.collect(
            call, reports, table_hash=table.content_hash if following is None else following.table_hash
        )
        assert collected.accepted == 3
        np.testing.assert_array_equal(collected.integers, signed_sum(fleet, fleet.devices, plan.server_round, 24))
        for device in fleet.devices:
            device.receive(plan, receipt, table=table if following is None else None)
    for device in fleet.devices:
        verified = device.ledger(allow_open=False)
        charges = [event.charge_nano for event in verified.events if isinstance(event, Intent)]
        assert charges == [intents(plan)[Unit.USER].charge_nano for plan in plans]
        assert [event.status for event in verified.events if isinstance(event, Outcome)] == ["released"] * 3
        assert device.rounds.finished_run == "run-1"
        assert read_table(device.folder.table).content_hash == table.content_hash
        assert read_seen(device.member.vault, fleet.parties).head.sequence == 3
        assert device.record(2).receipt["helper_sequence"] == 3


def test_a_report_is_some_hundred_bytes_more_than_its_packed_vector(reporting):
    plan = reporting.plan(1)
    report = reporting.answer_of(reporting.devices[0], plan, reporting.collection(plan))
    assert len(report) <= -(-plan.update_size * 24 // 8) + 512


def test_the_ledger_names_the_report_and_the_receipt_and_the_report_commits_to_the_ledger(reporting):
    plan = reporting.plan(0)
    call = reporting.collection(plan)
    reports = [reporting.answer_of(device, plan, call) for device in reporting.devices]
    charged = [device.ledger() for device in reporting.devices]
    _, receipt = reporting.collect(call, reports, table_hash="00" * 32)
    for device, report, before in zip(reporting.devices, reports, charged, strict=True):
        device.receive(plan, receipt)
        outcome = device.ledger().events[-1]
        assert (outcome.payload, outcome.receipt) == (hash_text(report), hash_text(receipt))
        kept = device.record(0).anchor
        anchor = Anchor(kept["name"], kept["seq"], bytes.fromhex(kept["entry"]))
        anchor.check(before.hashes)
        assert Upload.from_bytes(report, Suite.X25519).report.ledger_head == anchor.commit(bytes.fromhex(kept["salt"]))


def test_the_charge_is_on_disk_before_training_and_the_report_before_it_leaves(reporting, monkeypatch):
    device, plan = reporting.devices[0], reporting.plan(0)
    seen = []
    real = device.trainer.contribute
    monkeypatch.setattr(device.trainer, "contribute", lambda *parts: (seen.append(device.spent), real(*parts))[1])
    report = reporting.answer_of(device, plan, reporting.collection(plan))
    assert seen == [intents(plan)[Unit.USER].charge_nano]
    assert device.rounds._guard.begin(plan) == report


@pytest.mark.parametrize("killed", [False, True])
def test_the_same_offer_gets_the_same_bytes_also_from_a_device_that_was_killed(reporting, killed):
    device, plan = reporting.devices[0], reporting.plan(0)
    call = reporting.collection(plan)
    first = reporting.answer_of(device, plan, call)
    if killed:
        device.restart()
    assert reporting.answer_of(device, plan, call) == first
    renewed = replace(call, checkpoint=call.checkpoint + b"\xe2\x80\x94 w AAAAAAAA\n")
    assert reporting.answer_of(device, plan, renewed) == first, "the offer is the question, not what stands beside it"
    assert len(device.trainer.asked) == 1
    assert device.spent == intents(plan)[Unit.USER].charge_nano


def test_two_different_offers_for_one_round_get_one_report(reporting):
    device, plan = reporting.devices[0], reporting.plan(0)
    first = reporting.collection(plan)
    answer = reporting.answer_of(device, plan, first)
    for _ in range(2):
        with pytest.raises(RoundOver, match="asked for twice"):
            reporting.answer_of(device, plan, reporting.collection(plan))
        device.restart()
    assert reporting.answer_of(device, plan, first) == answer
    assert len(device.trainer.asked) == 1


def refused(fleet, call, plan=None, *, error, match=None):
    """The first device refuses a call: nothing is charged, nothing is touched, and the owner can read why."""
    device, plan = fleet.devices[0], plan or fleet.plan(1)
    before, asked = device.spent, len(device.trainer.asked)
    with pytest.raises(error, match=match):
        fleet.answer_of(device, plan, call)
    assert (device.spent, len(device.trainer.asked)) == (before, asked)
    assert RoundLog(device.member.vault).refusals()


def other_key():
    return Ed25519PrivateKey.generate()


def resigned_offer(fleet, call, key):
    offer = CollectionOffer.open(call.offer, fleet.parties.leader)
    return replace(call, offer=offer.sign(key))


def test_whoever_is_not_in_the_invitation_signs_nothing(reporting):
    """Wrong keys: of the leader, of the helper, of the authority, and of the log."""
    fleet, plan = reporting, reporting.plan(1)
    call = fleet.collection(plan)
    refused(fleet, resigned_offer(fleet, call, other_key()), error=OfferRefused, match="not signed by this leader")
    register = replace(fleet.register, epoch=9).signed(other_key())
    refused(fleet, fleet.collection(plan, register=register), error=RegisterRefused, match="did not sign")
    both = replace(fleet.register, epoch=9).signed(fleet.server_key, fleet.helper_key)
    refused(fleet, fleet.collection(plan, register=both), error=RegisterRefused, match="2 signatures where 1")
    pinned, fleet.helper_key = fleet.helper_key, other_key()
    refused(fleet, fleet.collection(plan), error=RoundKeyRefused, match="not signed by this helper")
    fleet.helper_key = pinned
    empty = TreeHead.of("films", MerkleTree())
    checkpoint = empty.sign(other_key()).cosigned(fleet.helper_key, "helper.films", time=1).encode()
    refused(fleet, replace(call, checkpoint=checkpoint), error=BadNote)
    alone = replace(call, checkpoint=empty.sign(fleet.server_key).encode())
    refused(fleet, alone, error=BadNote, match="0 trusted witnesses")


def test_where_leader_and_helper_admit_together_neither_does_alone(reporting_of):
    fleet = reporting_of(together=True)
    plan = fleet.plan(1)
    for key in (fleet.server_key, fleet.helper_key):
        register = replace(fleet.register, epoch=2).signed(key, key)
        refused(fleet, fleet.collection(plan, register=register), error=RegisterRefused, match="did not sign")
    assert fleet.answer_of(fleet.devices[0], plan, fleet.collection(plan))


def test_an_offer_that_protects_too_little_is_refused(reporting_of):
    fleet = reporting_of(devices=4, limits={"smallest_cohort": 3, "least_gamma_thousandths": 250})
    plan = fleet.plan(1, terms=fleet.terms_for(2))
    assert fleet.register.size == 4
    refused(fleet, fleet.collection(plan, corrupt=0, least_batch=3), plan, error=OfferRefused, match="wants 1")
    refused(fleet, fleet.collection(plan, corrupt=0, least_batch=2), plan, error=OfferRefused)
    loose = fleet.plan(1, terms=fleet.terms_for(1))
    refused(
        fleet, fleet.collection(loose, corrupt=1, least_batch=2), loose, error=RoundUnwelcome, match="least batch is 2"
    )
    with pytest.raises(OfferRefused, match="do not fit"):
        fleet.collection(plan, corrupt=2, least_batch=3)
    assert fleet.answer_of(fleet.devices[0], plan, fleet.collection(plan, corrupt=1, least_batch=3))


def test_the_offer_is_for_this_plan_and_open_by_the_devices_clock(reporting):
    fleet, plan = reporting, reporting.plan(1)
    call = fleet.collection(plan)
    refused(fleet, call, fleet.plan(2), error=OfferRefused, match="not for this plan")
    refused(fleet, call, fleet.plan(1, learned=plan.learned + 1), error=OfferRefused, match="plan_hash")
    refused(fleet, fleet.collection(plan, report_before=fleet.now - 1), error=OfferRefused, match="not open")
    refused(fleet, fleet.collection(plan, issued_at=fleet.now + 10_000), error=OfferRefused, match="not open")


def test_an_old_register_is_refused_also_after_a_restart(reporting):
    fleet, device = reporting, reporting.devices[0]
    old = fleet.register
    fleet.epoch = 7
    assert fleet.answer_of(device, fleet.plan(1), fleet.collection(fleet.plan(1)))
    for _ in range(2):
        call = fleet.collection(fleet.plan(2), register=old)
        refused(fleet, call, fleet.plan(2), error=OfferRefused, match="epoch 1")
        device.restart()


def test_a_device_whose_admission_ends_before_the_answer_takes_no_part(reporting):
    fleet, plan = reporting, reporting.plan(1)
    register = replace(fleet.register, not_after=fleet.now + 90_000).signed(*fleet.admit)
    late = {"report_before": fleet.now + 45_000, "answer_before": fleet.now + 50_000}
    refused(fleet, fleet.collection(plan, register=register, **late), error=RoundUnwelcome, match="admission ends")


def test_a_log_that_goes_back_or_lacks_the_last_receipt_is_refused(reporting):
    fleet, device = reporting, reporting.devices[0]
    plans = [fleet.plan(0), fleet.plan(1), fleet.plan(2)]
    fleet.leaves = [b"an earlier run"]
    _, _, receipt = fleet.round(plans[0], table_hash=plans[1].table_hash)
    device.receive(plans[0], receipt)
    honest = list(fleet.leaves)
    for leaves, error in (
        ([], Rollback),
        ([b"another"], Fork),
        ([b"another", honest[1]], BadProof),
        (honest[:1], BadProof),
        ([honest[0], b"another sum"], BadProof),
    ):
        fleet.leaves = leaves
        refused(fleet, fleet.collection(plans[1]), plans[1], error=error)
        device.restart()
    fleet.leaves = honest
    wrong = replace(fleet.collection(plans[1]), leaves=())
    refused(fleet, wrong, plans[1], error=BadProof, match="leaves are not those")
    assert fleet.answer_of(device, plans[1], fleet.collection(plans[1]))


def test_another_table_than_the_receipt_vouches_for_is_refused(reporting):
    fleet, device = reporting, reporting.devices[0]
    _, _, receipt = fleet.round(fleet.plan(0), table_hash="11" * 32)
    device.receive(fleet.plan(0), receipt)
    refused(fleet, fleet.collection(fleet.plan(1)), fleet.plan(1), error=RoundUnwelcome, match="vouches for")


def test_the_steps_of_peers_are_not_answered_under_two_aggregators_and_the_other_way_round(reporting, fleet_of):
    lone = fleet_of(2)
    plan = lone.plan(0)
    with pytest.raises(RoundUnwelcome, match="no step of the protocol"):
        reporting.devices[0].rounds.handle(lone.ask(plan), plan=plan)
    call = reporting.collection(plan)
    with pytest.raises(RoundUnwelcome, match="no step of the protocol"):
        reporting.answer_of(lone.devices[0], plan, call)
    assert reporting.devices[0].spent == lone.devices[0].spent == 0


def test_a_replayed_call_of_a_closed_round_gets_nothing(reporting):
    fleet, device, plan = reporting, reporting.devices[0], reporting.plan(0)
    call = fleet.collection(plan)
    reports = [fleet.answer_of(each, plan, call) for each in fleet.devices]
    _, receipt = fleet.collect(call, reports, table_hash=fleet.plan(1).table_hash)
    device.receive(plan, receipt)
    for _ in range(2):
        with pytest.raises(RoundOver, match="is over here"):
            fleet.answer_of(device, plan, call)
        device.restart()
    assert len(device.trainer.asked) == 1


def test_a_round_without_a_receipt_ends_with_its_offer_and_stays_charged(reporting):
    fleet, device, plan = reporting, reporting.devices[0], reporting.plan(0)
    call = fleet.collection(plan)
    fleet.answer_of(device, plan, call)
    at(device, fleet.now + 29_999)
    assert fleet.answer_of(device, plan, call), "kept bytes are sent again until the offer has ended"
    at(device, fleet.now + 30_000)
    with pytest.raises(RoundOver, match="is over here"):
        fleet.answer_of(device, plan, call)
    assert device.record(0).ended == RELEASED
    assert device.spent == intents(plan)[Unit.USER].charge_nano
    device.ledger(allow_open=False)


def test_a_receipt_that_comes_after_the_offer_ended_still_counts(reporting):
    fleet, device, plan = reporting, reporting.devices[0], reporting.plan(0)
    _, _, receipt = fleet.round(plan, table_hash=fleet.plan(1).table_hash)
    at(device, fleet.now + 35_000)
    device.receive(plan, receipt)
    assert device.record(0).receipt["model_hash"] == fleet.plan(1).table_hash


@pytest.mark.parametrize("change", ["leader", "head", "context", "cut"])
def test_a_false_receipt_is_refused_and_leaves_the_round_open(reporting, change):
    fleet, device, plan = reporting, reporting.devices[0], reporting.plan(0)
    _, _, receipt = fleet.round(plan, table_hash="00" * 32)
    true = CollectionReceipt.from_bytes(receipt)
    sign = lambda body: (other_key() if change == "leader" else fleet.server_key).sign(to_sign(body))  # noqa: E731
    head = Head(fleet="films", sequence=9, answer_hash=true.answer_hash).signed(
        lambda body: (other_key() if change == "head" else fleet.helper_key).sign(to_sign(body))
    )
    changed = replace(true, head=head, context=bytes(32) if change == "context" else true.context).signed(sign)
    data = receipt[:-1] if change == "cut" else changed.to_bytes()
    with pytest.raises(MessageError if change == "cut" else ReceiptRefused):
        device.receive(plan, data)
    assert device.record(0).ended == OPEN
    assert read_seen(device.member.vault, fleet.parties).head is None


def test_a_helper_that_goes_back_is_found_by_its_next_receipt(reporting):
    fleet, device = reporting, reporting.devices[0]
    plans, receipts = [fleet.plan(0), fleet.plan(1)], []
    for plan in plans:
        call = fleet.collection(plan)
        reports = [fleet.answer_of(each, plan, call) for each in fleet.devices]
        if plan.server_round == 1:
            shown = Upload.from_bytes(reports[0], Suite.X25519).report
            assert (shown.sequence, shown.answer_hash) == (5, receipts[0].answer_hash)
            fleet.book.end = (3, bytes(32))  # an old state, put back
            fleet.helper.book.end = (3, bytes(32))
            with pytest.raises(HelperRestored):
                fleet.collect(call, reports, table_hash="00" * 32)
            break
        fleet.book.end = (4, b"\x01" * 32)
        _, receipt = fleet.collect(call, reports, table_hash=plans[1].table_hash)
        receipts.append(CollectionReceipt.from_bytes(receipt))
        for each in fleet.devices:
            each.receive(plan, receipt)
    forged = Head(fleet="films", sequence=4, answer_hash=receipts[0].answer_hash).signed(
        lambda body: fleet.helper_key.sign(to_sign(body))
    )
    again = replace(receipts[0], head=forged).signed(lambda body: fleet.server_key.sign(to_sign(body)))
    with pytest.raises(ReceiptRefused, match="went back from 5 to 4"):
        device.receive(plans[0], again.to_bytes())


class Killed(BaseException):
    """Stands in for SIGKILL: nothing catches it."""


WRITES = [
    (Guard, ["begin", "persist", "finish"]),
    (RoundLog, ["begin", "keep_answer", "keep_head", "close", "keep_receipt"]),
]


def killed_at(fleet, monkeypatch, kill_at):
    """Take all devices through a round; the first is killed after its write number `kill_at`, and asked again.

    Returns the number of its writes and every answer that it gave.
    """
    victim, plan, count, answers = fleet.devices[0], fleet.plan(0), 0, []

    def counted(kind, name):
        real = getattr(kind, name)

        def write(self, *arguments, **named):
            nonlocal count
            result = real(self, *arguments, **named)
            if self in (victim.rounds._guard, victim.rounds._round_log):
                count += 1
                if count == kill_at:
                    raise Killed
            return result

        monkeypatch.setattr(kind, name, write)

    for kind, names in WRITES:
        for name in names:
            counted(kind, name)

    def ask():
        for _ in range(2):
            try:
                return fleet.answer_of(victim, plan, call)
            except Killed:
                victim.restart()
            except RoundOver:
                return None
        return None

    call = fleet.collection(plan)
    answers = [each for each in (ask(), ask()) if each]
    others = [fleet.answer_of(device, plan, call) for device in fleet.devices[1:]]
    _, receipt = fleet.collect(call, [*answers[:1], *others], table_hash=fleet.plan(1).table_hash)
    for device in fleet.devices:
        for _ in range(2):
            try:
                if device.record(0) is not None:
                    device.receive(plan, receipt)
                break
            except Killed:
                device.restart()
    return count, answers


def test_a_device_that_is_killed_after_any_write_sends_one_report_and_is_charged_once(
    reporting_of, tmp_path, monkeypatch
):
    """Every state that a kill can leave on disk: nothing or the same bytes leave; then another round."""
    fleet = reporting_of(3)
    with monkeypatch.context() as patched:
        writes, answers = killed_at(fleet, patched, 0)
    assert writes >= 7
    assert len(answers) == 2
    reported = 0
    for kill_at in range(1, writes + 1):
        fleet = type(fleet)(tmp_path / f"killed-{kill_at}", 3)
        with monkeypatch.context() as patched:
            _, answers = killed_at(fleet, patched, kill_at)
        victim = fleet.devices[0]
        assert len(set(answers)) <= 1
        reported += bool(answers)
        call, plan = fleet.collection(fleet.plan(1)), fleet.plan(1)
        assert fleet.answer_of(victim, plan, call)
        begun = [event.round for event in victim.ledger().events if isinstance(event, Intent)]
        assert begun == [0, 1]
        assert victim.spent == sum(intents(fleet.plan(number))[Unit.USER].charge_nano for number in begun)
        assert victim.record(0) is None or victim.record(0).ended in (RELEASED, WRITTEN_OFF)
    assert reported == writes - 1, "only a kill between the charge and its record loses the report"


@pytest.mark.campaign(short=200, long=10_000)
def test_a_damaged_call_or_receipt_is_refused_by_name(reporting, repeats):
    """The messages that a device reads: a named error, never a charge."""
    fleet, device, plan = reporting, reporting.devices[0], reporting.plan(0)
    call = fleet.collection(plan)
    for data in mutations(call.to_bytes(), repeats):
        message = FleetMessage(step=FleetStep.REPORT, run=plan.run, server_round=0, body=data)
        with pytest.raises(PalateError):
            device.rounds.handle(message, plan=plan)
    assert device.spent == 0
    reports = [fleet.answer_of(each, plan, call) for each in fleet.devices]
    _, receipt = fleet.collect(call, reports, table_hash="00" * 32)
    for data in mutations(receipt, repeats):
        with pytest.raises(PrivacyError):
            device.receive(plan, data)
    device.receive(plan, receipt)
