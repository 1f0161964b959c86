"""Rounds under two aggregators: exact sums, liars left out by name, a helper that is away, a register that follows."""

from __future__ import annotations

import json
import secrets
from dataclasses import replace

import numpy as np
import pytest

from palate.privacy.accounting.events import Unit
from palate.privacy.accounting.guarantee import account_for
from palate.privacy.aggregators.admission import Register, Revocation
from palate.privacy.aggregators.call import open_cosigned
from palate.privacy.aggregators.claim import trust_of
from palate.privacy.aggregators.errors import RegisterRefused
from palate.privacy.aggregators.messages import CollectionReceipt, Upload
from palate.privacy.aggregators.offer import CollectionOffer
from palate.privacy.aggregators.sealing import Suite
from palate.privacy.charging import event_of
from palate.privacy.integer.ring import Ring
from palate.privacy.ledger.verify import verify_ledger
from palate.privacy.secagg.encoding import to_sign
from palate.privacy.wire import NUM_METRICS, FleetStep
from palate.server.fleet import operation as running
from palate.server.fleet.certifying import with_keys_out
from palate.server.fleet.dropouts import EXCLUDED, LATE, REFUSED_HERE
from palate.server.fleet.eventlog import EventLog
from palate.server.fleet.exchange import Interrupted
from palate.server.fleet.registering import newest_revocation
from palate.server.fleet.state import Stop
from palate.server.fleet.watching import DeviceFailed, HelperAway, HelperDone
from palate.server.helper.link import HelperUnreachable


@pytest.fixture
def sums(monkeypatch):
    """Every sum that enters a table, by round."""
    seen = {}
    real = running.Operation._apply

    def applying(self, plan, found):
        seen[plan.server_round] = (plan, found)
        return real(self, plan, found)

    monkeypatch.setattr(running.Operation, "_apply", applying)
    return seen


def check_sums(fleet, sums):
    by_number = {device.number: device for device in fleet.devices}
    for number, (plan, found) in sums.items():
        ring = Ring(bits=plan.terms.ring_bits)
        plain = ring.zeros(plan.update_size)
        for survivor in found.survivors:
            plain = ring.add(plain, by_number[survivor].vectors[number])
        np.testing.assert_array_equal(found.vector, plain)


def statuses(fleet):
    return [str(each.status) for each in fleet.state.rounds()]


def check_books(fleet):
    """Ledger, rounds, log, table, receipts and the helper's ledger agree, and no upload is left."""
    rounds = fleet.state.rounds()
    assert [each.round for each in fleet.ledger.charged(Unit.USER)] == [each.number for each in rounds]
    verify_ledger(fleet.folder / "server.sqlite", "server", fleet.keys[0].public_key())
    done = [each for each in rounds if each.status == "done"]
    assert [each.log_index for each in done] == list(range(len(done)))
    assert fleet.store.load({"run": "f-1"}).table.content_hash == done[-1].table_hash
    assert fleet.helper.book.head()[0] == len(done)
    assert not list((fleet.folder / "spool").iterdir())
    assert all(fleet.state.collection(each.number) is None for each in rounds)
    prices = {each.round: each.charge_nano for each in fleet.ledger.charged(Unit.USER)}
    for device in fleet.devices:
        assert device.charged.items() <= prices.items()
    for each in done:
        receipt = CollectionReceipt.from_bytes(each.receipt)
        assert (receipt.table_hash.hex(), receipt.log_index) == (each.table_hash, each.log_index)
    assert open_cosigned(fleet.log.published, "f", fleet.parties).size == len(done)


def tampered(fleet, device, change, at=1):
    """A device that sends something else than its report in one round."""
    real = device._body

    def body(message, content):
        sent = real(message, content)
        if (message.step, message.server_round) == (FleetStep.REPORT, at):
            return change(Upload.from_bytes(sent, Suite.X25519), sent)
        return sent

    device._body = body


def test_every_round_is_the_exact_sum_of_the_reports(make_fleet, sums):
    fleet = make_fleet(helper=True, privacy={"popularity_share": 0.3, "spare_rounds": 0})
    happened = []
    assert fleet.operation(happened.append).run() == running.FINISHED
    assert statuses(fleet) == ["done"] * 3
    assert [len(found.survivors) for _, found in sums.values()] == [8, 8, 8]
    check_sums(fleet, sums)
    check_books(fleet)
    assert all(set(device.receipts) == {0, 1, 2} for device in fleet.devices)
    assert all(device.table_hash == fleet.coordinator.table.content_hash for device in fleet.devices)
    assert all(device.seen.sequence == 3 for device in fleet.devices)
    steps = {step for step, *_ in fleet.grid.log}
    assert steps == {FleetStep.REPORT, FleetStep.RECEIPT}
    assert [(each.reports, each.accepted) for each in happened if isinstance(each, HelperDone)] == [(8, 8)] * 3
    spent = account_for([event_of(each) for each in fleet.ledger.charged(Unit.USER)], fleet.config.delta).epsilon
    assert 0.98 * fleet.config.epsilon < spent <= fleet.config.epsilon


def test_noise_and_words_are_those_of_the_least_batch(make_fleet, sums):
    fleet = make_fleet(helper=True, cohort={"devices": 8, "smallest": 3, "gamma": 0.25})
    fleet.operation().run()
    plan, _ = sums[1]
    offers = [CollectionOffer.open(each.offer, fleet.parties.leader) for each in fleet.state.rounds()]
    # eight are asked, six needed; two of eight enrolled may be corrupt
    assert {(o.most_reports, o.least_batch, o.corrupt, o.honest_shares) for o in offers} == {(8, 6, 2, 4)}
    assert (plan.terms.honest_shares, plan.terms.ring_bits, offers[1].ring_bits) == (4, 19, 19)
    alone = fleet.settings.terms.train
    assert alone.sum_variance <= 4 * plan.terms.share_variance < alone.sum_variance + 4


def test_a_vector_of_popular_items_alone_is_collected(make_fleet, sums):
    fleet = make_fleet(helper=True, schedule={"rounds": 1, "dim": 3, "head": 0.5})
    assert fleet.operation().run() == running.FINISHED
    active = fleet.coordinator.active
    assert len(sums[1][1].vector) == 3 * active.sum() + NUM_METRICS
    check_sums(fleet, sums)


@pytest.mark.parametrize("fault", ["silent", "garbage", "stranger", "late", "101"])
def test_one_device_that_fails_does_not_stop_a_round(make_fleet, sums, fault):
    fleet = make_fleet(helper=True, deadlines={"report_seconds": 10.0})
    failing = fleet.devices[0]
    fleet.grid.fault = lambda device, at, number: fault if device is failing and at is FleetStep.REPORT else ""
    assert fleet.operation().run() == running.FINISHED
    assert {len(found.survivors) for _, found in sums.values()} == {7}
    check_sums(fleet, sums)
    check_books(fleet)
    assert {member.device for member in fleet.state.members(1) if member.failure} == {failing.name}


def test_a_round_with_too_few_reports_is_given_up_and_nothing_is_unmasked(make_fleet, sums):
    fleet = make_fleet(helper=True, privacy={"popularity_share": 0.3, "spare_rounds": 1})
    lost = {device.name for device in fleet.devices[:3]}
    fleet.grid.fault = lambda device, at, number: "silent" if device.name in lost and number == 1 else ""
    assert fleet.operation().run() == running.FINISHED
    assert statuses(fleet) == ["done", "abandoned", "done", "done"]
    assert "5 reports are here, the least batch is 6" in fleet.state.rounds()[1].reason
    assert fleet.helper.book.head()[0] == 3
    check_sums(fleet, sums)
    check_books(fleet)


def signed_again(device, upload, **changes):
    report = replace(upload.report, **changes).signed(lambda body: device.key.sign(to_sign(body)))
    return replace(upload, report=report).to_bytes()


def test_reports_that_the_leader_refuses_have_a_name_for_it(make_fleet, sums):
    fleet = make_fleet(helper=True, cohort={"devices": 8, "smallest": 3, "tau": 0.2})
    a, b, c, d = sorted(fleet.devices, key=lambda device: device.name)[:4]  # in the order in which they are asked
    tampered(fleet, a, lambda upload, sent: signed_again(a, upload, context=bytes(32)))
    tampered(fleet, b, lambda upload, sent: replace(upload, words=bytes(len(upload.words))).to_bytes())
    tampered(fleet, c, lambda upload, sent: a.kept[1])  # another's report
    tampered(fleet, d, lambda upload, sent: c.kept[0])  # of the round before
    happened = []
    assert fleet.operation(happened.append).run() == running.FINISHED
    whys = {each.device: each.why for each in happened if isinstance(each, DeviceFailed)}
    reasons = {
        a: "the report is for another offer",
        b: "the words are not those that the device signed for",
        c: "the report is another device's",
        d: "the report is for another offer",
    }
    assert whys == {device.name: f"ReportRefused: {why}" for device, why in reasons.items()}
    assert {member.failure for member in fleet.state.members(1)} == {0, REFUSED_HERE}
    assert len(sums[1][1].survivors) == 4
    check_sums(fleet, sums)
    check_books(fleet)


def test_what_the_helper_leaves_out_is_named_counted_and_not_in_the_sum(make_fleet, sums, tmp_path):
    fleet = make_fleet(helper=True, cohort={"devices": 8, "smallest": 3, "tau": 0.5})
    liar = fleet.devices[0]
    tampered(fleet, liar, lambda upload, sent: signed_again(liar, upload, sealed=secrets.token_bytes(80)))
    happened = []
    events = EventLog(tmp_path / "server.jsonl", fleet.config.promise)
    assert fleet.operation(running_both(events, happened.append)).run() == running.FINISHED
    (failed,) = [each for each in happened if isinstance(each, DeviceFailed)]
    assert (failed.device, failed.why) == (liar.name, "left out by the helper: unsealable")
    done = [each for each in happened if isinstance(each, HelperDone)]
    assert [(each.accepted, each.left_out) for each in done] == [(8, {}), (7, {"unsealable": 1}), (8, {})]
    assert liar.number not in sums[1][1].survivors
    check_sums(fleet, sums)
    check_books(fleet)
    assert {member.device: member.failure for member in fleet.state.members(1)}[liar.name] == EXCLUDED
    lines = [json.loads(line) for line in (tmp_path / "server.jsonl").read_text().splitlines()]
    assert [line["left_out"] for line in lines if line["event"] == "helper-answered"][1] == {"unsealable": 1}
    assert liar.name not in (tmp_path / "server.jsonl").read_text()


def running_both(*watchers):
    return lambda happening: [watcher(happening) for watcher in watchers]


def test_a_round_of_which_the_helper_finds_too_few_valid_goes_on_or_is_given_up(make_fleet, sums):
    fleet = make_fleet(helper=True, privacy={"popularity_share": 0.3, "spare_rounds": 1})
    for liar in fleet.devices[:3]:
        tampered(
            fleet, liar, lambda upload, sent, liar=liar: signed_again(liar, upload, sealed=secrets.token_bytes(80))
        )
    assert fleet.operation().run() == running.FINISHED
    assert statuses(fleet) == ["done", "abandoned", "done", "done"]
    assert "of 8 reports the helper found too few valid" in fleet.state.rounds()[1].reason
    assert fleet.helper.book.head()[0] == 3
    check_sums(fleet, sums)


def test_a_late_report_makes_up_for_one_that_the_helper_left_out(make_fleet, sums):
    fleet = make_fleet(helper=True, cohort={"devices": 8, "smallest": 7}, deadlines={"offline_seconds": 20.0})
    liar, late = fleet.devices[:2]
    tampered(fleet, liar, lambda upload, sent: signed_again(liar, upload, sealed=secrets.token_bytes(80)))
    real, asked = fleet.helper.answer, []
    fleet.grid.fault = lambda device, at, number: (
        "gone" if device is late and (at, number) == (FleetStep.REPORT, 1) and len(asked) < 2 else ""
    )

    def answer(request):
        asked.append(request)
        fleet.grid.offline.clear()  # it is back
        return real(request)

    fleet.helper.answer = answer
    assert fleet.operation().run() == running.FINISHED
    assert statuses(fleet) == ["done"] * 3
    assert [len(found.survivors) for _, found in sums.values()] == [8, 7, 8]
    assert len(asked) == 4  # seven reports of which six are valid, then eight
    assert liar.number not in sums[1][1].survivors
    check_sums(fleet, sums)


class Link:
    """A helper that is away, or refuses, when a test says so."""

    def __init__(self, fleet) -> None:
        self.inner = fleet.helper
        self.away = lambda name: False
        self.asked = []

    def __getattr__(self, name):
        def call(*arguments):
            self.asked.append(name)
            if self.away(name):
                raise HelperUnreachable("the helper does not answer")
            return getattr(self.inner, name)(*arguments)

        return call


@pytest.mark.parametrize("missing", ["countersign", "round_key", "answer", "cosign"])
def test_a_helper_that_is_away_for_a_while_is_asked_again_and_nothing_is_lost(make_fleet, sums, missing):
    fleet = make_fleet(helper=True)
    link = Link(fleet)
    book = fleet.helper
    fleet.helper = link
    back = fleet.clock.now() + 300
    link.away = lambda name: name == missing and fleet.clock.now() < back
    if missing == "cosign":
        link.away = lambda name: name == "cosign" and link.asked.count("cosign") < 3
    happened = []
    assert fleet.operation(happened.append).run() == running.FINISHED
    fleet.helper = book
    assert statuses(fleet) == ["done"] * 3
    assert any(isinstance(each, HelperAway) for each in happened)
    check_sums(fleet, sums)
    check_books(fleet)


@pytest.mark.parametrize(("spare", "ends", "status"), [
    (1, running.FINISHED, ["abandoned", "done", "done", "done"]),
    (0, running.SPENT, ["abandoned", "done", "done"]),
])  # fmt: skip
def test_a_lost_round_is_repeated_without_being_asked_for(make_fleet, sums, spare, ends, status):
    """Where nothing was kept for it, the run has a round less, and says that the budget is spent."""
    fleet = make_fleet(helper=True, privacy={"popularity_share": 0.3, "spare_rounds": spare})
    quiet = {device.name for device in fleet.devices[:3]}
    fleet.grid.fault = lambda device, at, number: "silent" if device.name in quiet and number == 0 else ""
    assert fleet.operation().run() == ends
    assert statuses(fleet) == status
    assert [each.number for each in fleet.state.rounds() if each.purpose == "popularity"] == [0, 1]
    for device in fleet.devices:  # who sent nothing in the lost round was charged nothing for it
        assert (0 in device.charged) is (device.name not in quiet)
    check_sums(fleet, sums)
    check_books(fleet)


def test_a_fleet_with_a_helper_stops_after_three_lost_rounds(make_fleet):
    fleet = make_fleet(helper=True, privacy={"popularity_share": 0.3, "spare_rounds": 5})
    quiet = {device.name for device in fleet.devices[1:]}  # the others are too few to go on without them
    fleet.grid.fault = lambda device, at, number: "silent" if device.name in quiet else ""
    assert fleet.operation().run() == running.HALTED
    assert statuses(fleet) == ["abandoned"] * 3


def test_a_helper_that_stays_away_costs_the_round_and_the_fleet_stops(make_fleet):
    fleet = make_fleet(helper=True, privacy={"popularity_share": 0.3, "spare_rounds": 0}, failures={"halt_after": 1})
    link = Link(fleet)
    fleet.helper = link
    link.away = lambda name: name == "answer"
    before = fleet.clock.now()
    assert fleet.operation().run() in (running.HALTED, running.SPENT)
    assert "the helper did not answer in time" in fleet.state.rounds()[0].reason
    assert 3500 < fleet.clock.now() - before < 4400


def test_no_round_is_offered_before_the_helper_has_cosigned_the_log(make_fleet, sums):
    """It is away when the log has grown; devices would refuse a log without its cosignature."""
    fleet, happened = make_fleet(helper=True), []
    link = Link(fleet)
    fleet.helper, since = link, fleet.clock.now()
    link.away = lambda name: name == "cosign" and fleet.clock.now() < since + 200
    assert fleet.operation(happened.append).run() == running.FINISHED
    assert any(isinstance(each, HelperAway) for each in happened)
    assert fleet.clock.now() >= since + 200
    assert statuses(fleet) == ["done"] * 3
    check_sums(fleet, sums)
    fleet.helper = link.inner
    check_books(fleet)


def test_the_wish_to_stop_is_heard_while_the_helper_is_away_and_the_round_goes_on_later(make_fleet, sums):
    fleet = make_fleet(helper=True)
    link, helper = Link(fleet), fleet.helper
    fleet.helper = link
    link.away = lambda name: name == "answer" and (fleet.state.request_stop(Stop.NOW) or True)
    with pytest.raises(Interrupted):
        fleet.operation().run()
    assert statuses(fleet) == ["open"]
    fleet.kill()
    fleet.helper = helper
    again = fleet.operation()
    fleet.state.request_stop(None)
    assert again.run() == running.FINISHED
    assert statuses(fleet) == ["done"] * 3
    check_sums(fleet, sums)
    check_books(fleet)


def test_a_device_that_is_removed_is_in_no_later_register_and_gamma_is_of_those_enrolled(make_fleet, sums):
    fleet = make_fleet(helper=True, cohort={"devices": 8, "smallest": 3, "gamma": 0.25})
    built, gone = fleet.operation(), fleet.devices[0]
    real = built._close

    def closing(applied):
        real(applied)
        if applied.number == 0:
            fleet.remove(gone)

    built._close = closing
    assert built.run() == running.FINISHED
    offers = [CollectionOffer.open(each.offer, fleet.parties.leader) for each in fleet.state.rounds()]
    assert [(each.most_reports, each.corrupt) for each in offers] == [(8, 2), (7, 1), (7, 1)]
    assert offers[0].register_hash != offers[1].register_hash == offers[2].register_hash
    assert set(gone.charged) == {0}
    check_sums(fleet, sums)


def test_a_register_is_kept_for_as_long_as_nobody_comes_or_goes(make_fleet):
    fleet = make_fleet(helper=True)
    link, helper = Link(fleet), fleet.helper
    fleet.helper = link
    fleet.operation().run()
    assert link.asked.count("countersign") == 1
    assert Register.from_bytes(fleet.state.register()[0]).epoch <= int(fleet.wall_clock())
    fleet.helper = helper
    assert trust_of(fleet.parties).against_lies


def test_a_register_whose_reply_was_lost_is_asked_for_again_with_the_same_bytes(make_fleet):
    """Else the helper would refuse a second register of the same epoch, and the fleet would stand still for good."""
    fleet = make_fleet(helper=True)
    fleet.operation()
    asked, real, now = [], fleet.helper.countersign, int(fleet.wall_clock())

    def losing(register, certificates, revocation=b""):
        asked.append((register, tuple(certificates)))
        signed = real(register, certificates, revocation)
        if len(asked) < 3:
            raise HelperUnreachable("the reply is lost")
        return signed

    fleet.helper.countersign = losing
    keeper = fleet.protocol().register
    for later in (0, 100):
        with pytest.raises(HelperUnreachable):
            keeper.current(now=now + later, until=now + 5000)
        fleet.remove(fleet.devices[later // 100])  # the list changes before the reply comes
    found = keeper.current(now=now + 200, until=now + 5000)
    assert asked[0] == asked[1] == asked[2]
    assert [Register.from_bytes(register).epoch for register, _ in asked] == [now, now, now, now + 200]
    assert (found.register.epoch, found.size) == (now + 200, len(fleet.devices) - 2)
    assert fleet.state.asked_register() is None


def test_a_register_that_the_helper_refuses_is_not_asked_for_again(make_fleet):
    fleet = make_fleet(helper=True)
    fleet.operation()
    real, now = fleet.helper.countersign, int(fleet.wall_clock())

    def refusing(register, certificates, revocation=b""):
        raise RegisterRefused("not admitted here")

    fleet.helper.countersign = refusing
    keeper = fleet.protocol().register
    with pytest.raises(RegisterRefused):
        keeper.current(now=now, until=now + 5000)
    assert fleet.state.asked_register() is None
    fleet.helper.countersign = real
    assert keeper.current(now=now, until=now + 5000).register.epoch == now


def test_devices_whose_admission_ends_before_the_answer_are_not_asked(make_fleet):
    fleet = make_fleet(helper=True)

    def refusing(certificates):
        raise RegisterRefused("not renewed")

    fleet.helper.renew = refusing
    fleet.clock.sleep(10_000_000 - 4000)  # less than a round before the end of all certificates
    built, sleep, waiting = fleet.operation(), fleet.clock.sleep, []

    def sleeping(seconds):
        sleep(seconds)
        waiting.append(seconds)
        if len(waiting) > 5:
            fleet.state.request_stop(Stop.AFTER_ROUND)

    fleet.clock.sleep = sleeping
    assert built.run() == running.STOPPED
    assert not fleet.state.rounds()
    assert not any(device.charged for device in fleet.devices)


def test_deadlines_of_the_offer_are_those_of_the_configuration(make_fleet):
    fleet = make_fleet(helper=True, deadlines={"report_seconds": 77.0, "answer_seconds": 33.0})
    silent = fleet.devices[0].name
    fleet.grid.fault = lambda device, at, number: "silent" if device.name == silent and at is FleetStep.REPORT else ""
    before = fleet.clock.now()
    fleet.operation().run()
    offers = [CollectionOffer.open(each.offer, fleet.parties.leader) for each in fleet.state.rounds()]
    assert {(o.report_before - o.issued_at, o.answer_before - o.report_before) for o in offers} == {(77, 33)}
    assert 3 * 77 <= fleet.clock.now() - before < 3 * 77 + 30
    assert {member.failure for member in fleet.state.members(1)} == {0, LATE}


def test_a_key_that_is_revoked_in_the_middle_of_a_round_is_left_out_and_in_no_later_register(make_fleet, sums):
    """The revocation comes from another process once all reports are here; the helper has it before it answers."""
    fleet, done = make_fleet(helper=True), []
    built, gone = fleet.operation(done.append), fleet.devices[0]

    def freezing(number, request, sizes=()):
        freeze(number, request, sizes)
        if number == 0 and newest_revocation(fleet.state) is None:
            signed = with_keys_out(None, "f", [gone.admission.identity_key]).signed(fleet.keys[0])
            fleet.state.keep_revocation(signed.to_bytes())
            fleet.remove(gone)

    freeze, fleet.state.freeze = fleet.state.freeze, freezing
    assert built.run() == running.FINISHED
    check_sums(fleet, sums)
    kept, at_helper = fleet.state.revocation()
    Revocation.from_bytes(kept).verify(fleet.parties)
    assert at_helper
    assert kept == fleet.helper.book.newest_revocation().to_bytes()
    told = [each for each in done if isinstance(each, HelperDone)]
    assert [(each.reports, each.accepted, each.left_out) for each in told] == [
        (8, 7, {"revoked": 1}),
        (7, 7, {}),
        (7, 7, {}),
    ]
    assert [len(fleet.state.members(number)) for number in range(3)] == [8, 7, 7]
    failures = {member.device: member.failure for member in fleet.state.members(0)}
    assert failures[gone.name] == EXCLUDED
    assert fleet.protocol().register.newest().size == 7
    assert set(gone.charged) == {0}
    check_books(fleet)
