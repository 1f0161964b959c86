"""Secure rounds on real folders: exact sums, identical bytes, and one charge a round whatever happens in between."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from palate.client.fleet.limits import RoundUnwelcome
from palate.client.fleet.round_log import RELEASED, WRITTEN_OFF, RoundLog
from palate.client.fleet.rounds import RoundOver
from palate.client.fleet.tables import read_table
from palate.client.guard import Guard
from palate.client.vault.history import History
from palate.privacy.accounting.events import Unit
from palate.privacy.charging import intents
from palate.privacy.errors import PrivacyError
from palate.privacy.ledger.body import Intent, Outcome, hash_text
from palate.privacy.ledger.errors import BudgetExceeded
from palate.privacy.ledger.verify import verify_ledger
from palate.privacy.secagg.errors import OfferRefused, ReceiptRefused
from palate.privacy.wire import FleetStep, WireError

STEPS = [FleetStep.ADVERTISE, FleetStep.SHARE, FleetStep.MASK, FleetStep.CONFIRM, FleetStep.REVEAL]


def ledger(device, *, allow_open=True):
    key = device.member.keys.ledger.public_key()
    return verify_ledger(device.folder.ledger, "device", key, allow_open=allow_open)


def record(device, server_round):
    return RoundLog(device.member.vault).record("run-1", server_round)


def total(fleet, devices, server_round):
    vectors = [device.trainer.vectors[server_round] for device in devices]
    return np.sum(vectors, axis=0, dtype=np.uint32)


def test_a_whole_run_sums_exactly_and_every_ledger_closes(fleet):
    plans = [fleet.plan(0), fleet.plan(1), fleet.plan(2)]
    table = fleet.final_table()
    for plan, following in zip(plans, [*plans[1:], None], strict=True):
        server = fleet.run_round(plan)
        result = server.result()
        np.testing.assert_array_equal(result.vector, total(fleet, fleet.devices, plan.server_round))
        if following is None:
            fleet.finish(plan, server, table=table)
        else:
            fleet.finish(plan, server, model=following.table_hash)
    for device in fleet.devices:
        verified = ledger(device, allow_open=False)
        charges = [event.charge_nano for event in verified.events if isinstance(event, Intent)]
        assert charges == [intents(plan)[Unit.USER].charge_nano for plan in plans]
        assert verified.state.spent_nano == sum(charges)
        assert [e.status for e in verified.events if isinstance(e, Outcome)] == ["released"] * 3
        assert device.rounds.finished_run == "run-1"
        assert read_table(device.folder.table).content_hash == table.content_hash


def test_a_round_over_chosen_rows_sums_vectors_of_their_length_and_costs_the_same(fleet):
    whole = fleet.plan(1)
    plan = replace(whole, active=np.arange(len(whole.learned)) % 2 == 0)
    server = fleet.run_round(plan)
    assert len(server.result().vector) == plan.update_size < whole.update_size
    np.testing.assert_array_equal(server.result().vector, total(fleet, fleet.devices, 1))
    fleet.finish(plan, server)
    (charge,) = {
        event.charge_nano for device in fleet.devices for event in ledger(device).events if isinstance(event, Intent)
    }
    assert charge == intents(whole)[Unit.USER].charge_nano


def test_the_ledger_names_the_masked_bytes_and_the_receipt(fleet):
    masked = {}

    def after(step, device, asked, got):
        if step is FleetStep.MASK:
            masked[device.number] = got.body

    plan = fleet.plan(0)
    server = fleet.run_round(plan, after=after)
    fleet.finish(plan, server)
    receipt = server.receipt(model_hash="00" * 32, log_index=0)
    for device in fleet.devices:
        outcome = ledger(device).events[-1]
        assert (outcome.payload, outcome.receipt) == (hash_text(masked[device.number]), hash_text(receipt))


def test_the_charge_is_on_disk_before_the_history_is_given_to_anybody(lone, monkeypatch):
    device, plan = lone.devices[0], lone.plan(0)
    spent = []
    real = device.trainer.contribute

    def contribute(*arguments):
        spent.append(ledger(device).state.spent_nano)
        return real(*arguments)

    monkeypatch.setattr(device.trainer, "contribute", contribute)
    device.rounds.handle(lone.ask(plan), plan=plan)
    assert spent == [intents(plan)[Unit.USER].charge_nano]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("killed", [False, True])
def test_the_same_request_gets_the_same_bytes_also_from_a_device_that_was_killed(fleet, step, killed):
    asked_again = []

    def after(at, device, asked, got):
        if at is step and device is fleet.devices[0]:
            if killed:
                device.restart()
            plan_again = plan if at is FleetStep.ADVERTISE else None
            asked_again.append(device.rounds.handle(asked, plan=plan_again) == got)

    plan = fleet.plan(0)
    before = lambda at, device: not (killed and asked_again and device is fleet.devices[0])  # noqa: E731
    server = fleet.run_round(plan, before=before, after=after)
    assert asked_again == [True]
    survivors = fleet.devices[1:] if killed and step in STEPS[:2] else fleet.devices
    np.testing.assert_array_equal(server.result().vector, total(fleet, survivors, 0))
    assert len(fleet.devices[0].trainer.asked) == 1
    assert ledger(fleet.devices[0]).state.spent_nano == intents(plan)[Unit.USER].charge_nano


@pytest.mark.parametrize("step", STEPS[1:])
def test_a_device_that_was_killed_takes_no_new_step_and_the_round_goes_on_without_it(fleet, step):
    victim = fleet.devices[0]

    def before(at, device):
        if device is victim and at is step:
            victim.restart()
        return True

    plan = fleet.plan(0)
    server = fleet.run_round(plan, before=before)
    assert {(device.number, at) for device, at, _ in fleet.refused} == {(victim.number, step)}
    assert "keys are gone" in fleet.refused[0][2].message
    survivors = fleet.devices if step in (FleetStep.CONFIRM, FleetStep.REVEAL) else fleet.devices[1:]
    np.testing.assert_array_equal(server.result().vector, total(fleet, survivors, 0))
    assert len(victim.trainer.asked) == 1  # no second answer to one round


@pytest.mark.parametrize("step", STEPS)
def test_a_round_that_was_cut_off_is_closed_and_stays_charged_when_the_next_begins(fleet, step):
    victim, first, second = fleet.devices[0], fleet.plan(0), fleet.plan(1)

    def before(at, device):
        if device is victim and at is step:
            victim.kill()
        return device is not victim or device.rounds is not None

    fleet.run_round(first, before=before)
    victim.start()
    fleet.finish(second, fleet.run_round(second))
    closed = ledger(victim, allow_open=False)
    expected = [] if step is FleetStep.ADVERTISE else ["written-off" if step in STEPS[:3] else "released"]
    assert [e.status for e in closed.events if isinstance(e, Outcome)] == [*expected, "released"]
    charged = ([first] if expected else []) + [second]
    assert closed.state.spent_nano == sum(intents(plan)[Unit.USER].charge_nano for plan in charged)
    if expected:
        assert record(victim, 0).ended == (WRITTEN_OFF if step in STEPS[:3] else RELEASED)


def test_a_device_that_was_killed_after_its_vector_left_still_takes_the_receipt(fleet):
    victim, plan, table = fleet.devices[0], fleet.plan(0), fleet.final_table()

    def before(at, device):
        if device is victim and at is FleetStep.CONFIRM:
            victim.restart()
        return device is not victim or at in STEPS[:3]

    server = fleet.run_round(plan, before=before)
    fleet.finish(plan, server, table=table)
    outcome = ledger(victim, allow_open=False).events[-1]
    assert (outcome.status, outcome.receipt != "") == ("released", True)
    assert record(victim, 0).receipt["confirmed"] is False
    assert read_table(victim.folder.table).content_hash == table.content_hash


def test_a_receipt_may_come_twice_but_not_in_two_versions(fleet):
    plan, table = fleet.plan(0), fleet.final_table()
    server = fleet.run_round(plan)
    fleet.finish(plan, server, table=table)
    fleet.finish(plan, server, table=table)
    with pytest.raises(ReceiptRefused, match="two different receipts"):
        fleet.finish(plan, server, model="11" * 32)
    assert read_table(fleet.devices[0].folder.table).content_hash == table.content_hash


def test_an_abandoned_round_is_followed_by_one_with_its_own_charge(lone):
    first, second = lone.plan(0), lone.plan(1, purpose="popularity", terms=lone.terms.popularity)
    for device in lone.devices:
        device.rounds.handle(lone.ask(first), plan=first)
    server = lone.run_round(second)
    np.testing.assert_array_equal(server.result().vector, total(lone, lone.devices, 1))
    assert ledger(lone.devices[0]).state.spent_nano == 2 * intents(first)[Unit.USER].charge_nano
    assert record(lone.devices[0], 0).ended == WRITTEN_OFF


def test_a_head_is_kept_with_its_vector_and_used_in_its_run_alone(fleet):
    fleet.run_round(fleet.plan(0))
    fleet.run_round(fleet.plan(1))
    fleet.run_round(fleet.plan(1, run="run-2"))
    heads = [head for _, _, head in fleet.devices[0].trainer.asked]
    assert heads == [None, b"head 0", None]


def test_a_round_learns_from_what_the_owner_likes_in_the_order_of_time(lone):
    device = lone.devices[0]
    history = History(device.member.vault)
    history.add("i3", time=30)
    history.add("i1", time=10)
    history.add("elsewhere", time=20)
    history.add("i5", time=40)
    history.mark("i5", "dislike")
    plan = lone.plan(0)
    device.rounds.handle(lone.ask(plan), plan=plan)
    assert device.trainer.asked[0][1] == ["i1", "elsewhere", "i3"]


def refused(device, asked, plan, error, match):
    """The round is refused, nothing is charged or computed, and the owner finds out why."""
    spent = device.member.guard.spending()[Unit.USER].spent_nano
    computed = len(device.trainer.asked)
    with pytest.raises(error, match=match):
        device.rounds.handle(asked, plan=plan)
    assert device.member.guard.spending()[Unit.USER].spent_nano == spent
    assert len(device.trainer.asked) == computed


@pytest.mark.parametrize(
    ("limits", "plan_changes", "offer_changes", "match"),
    [
        ({"smallest_cohort": 3}, {}, {}, "planned size is 2, the owner asks for at least 3"),
        ({"least_tau_thousandths": 600}, {}, {}, "tau in thousandths is 500"),
        ({"least_gamma_thousandths": 100}, {}, {}, "gamma in thousandths is 0"),
        ({"least_own_noise": 100.0}, {}, {}, "own noise over the sensitivity"),
        ({}, {"learned": np.full((12, 2), 1e5, np.float32)}, {}, "learned columns hold 100000"),
        ({}, {"fixed": np.full((12, 1), -2e4, np.float32)}, {}, "fixed columns hold 20000"),
        ({}, {"learned": np.zeros((11, 2), np.float32), "fixed": np.zeros((11, 1), np.float32)}, {}, "11 rows"),
        ({}, {"learned": np.zeros((12, 513), np.float32)}, {}, "513 learned columns"),
        ({}, {"fixed": np.zeros((12, 4097), np.float32)}, {}, "4097 fixed columns"),
        ({}, {"unit": "both"}, {}, "unit 'both'"),
        ({}, {"unit": "interaction"}, {}, "unit 'interaction'"),
    ],
)
def test_a_round_below_the_owners_limits_is_refused_before_anything_is_charged(
    fleet_of, limits, plan_changes, offer_changes, match
):
    fleet = fleet_of(2, limits=limits)
    plan = fleet.plan(1, **plan_changes)
    refused(fleet.devices[0], fleet.ask(plan, **offer_changes), plan, RoundUnwelcome, match)
    assert match.split("'")[0].split(" ")[-1] in RoundLog(fleet.devices[0].member.vault).refusals()[-1]["why"]


def test_rounds_of_a_day_are_counted_over_restarts(fleet_of):
    fleet = fleet_of(2, limits={"most_rounds_a_day": 2})
    device = fleet.devices[0]
    for number in (0, 1):
        plan = fleet.plan(number)
        device.rounds.handle(fleet.ask(plan), plan=plan)
        device.restart()
    refused(device, fleet.ask(fleet.plan(2)), fleet.plan(2), RoundUnwelcome, "2 rounds began within a day")


def test_a_budget_that_is_used_up_refuses_and_the_round_under_way_is_not_lost(lone):
    device = lone.devices[0]
    for number in range(4):
        plan = lone.plan(number)
        lone.finish(plan, lone.run_round(plan), model=lone.plan(number + 1).table_hash)
    left = device.member.guard.spending()[Unit.USER].left_nano
    assert 0 <= left < intents(lone.plan(4))[Unit.USER].charge_nano
    refused(device, lone.ask(lone.plan(4)), lone.plan(4), BudgetExceeded, "is left of")


def test_an_offer_that_is_not_the_servers_or_not_for_this_plan_is_refused(lone):
    device, plan, other = lone.devices[0], lone.plan(0), lone.plan(0, learned=np.ones((12, 2), np.float32))
    refused(device, lone.message(FleetStep.ADVERTISE, plan, lone.ask(other).body), plan, OfferRefused, "plan")
    forged = lone.message(FleetStep.ADVERTISE, plan, lone.offer(plan).sign(device.member.keys.signing))
    refused(device, forged, plan, OfferRefused, "not signed")
    refused(device, lone.message(FleetStep.ADVERTISE, plan, b"nonsense"), plan, PrivacyError, "message")
    elsewhere = lone.message(FleetStep.ADVERTISE, plan, lone.offer(plan, fleet="books").sign(lone.server_key))
    refused(device, elsewhere, plan, PrivacyError, "books")


def test_a_message_for_another_round_than_its_plan_is_not_understood(lone):
    device, plan = lone.devices[0], lone.plan(1)
    for other in (lone.plan(2), lone.plan(1, run="run-2")):
        refused(device, lone.message(FleetStep.ADVERTISE, other, lone.ask(plan).body), plan, WireError, "another")


@pytest.mark.parametrize("run", ["", "r" * 129, "r\n", "r\u00e9"])
def test_a_run_whose_name_cannot_be_one_is_not_understood(lone, run):
    plan = lone.plan(0, run=run)
    refused(lone.devices[0], lone.message(FleetStep.ADVERTISE, plan, b""), plan, WireError, "name")


def test_plans_and_tables_come_with_their_steps_alone(lone):
    device, plan = lone.devices[0], lone.plan(0)
    for asked, given in (
        (lone.ask(plan), {}),
        (lone.message(FleetStep.SHARE, plan, b""), {"plan": plan}),
        (lone.ask(plan), {"plan": plan, "table": lone.final_table()}),
    ):
        with pytest.raises(WireError, match="comes with"):
            device.rounds.handle(asked, **given)


def test_a_round_does_not_come_back(lone):
    device = lone.devices[0]
    for number in (1, 2):
        plan = lone.plan(number)
        device.rounds.handle(lone.ask(plan), plan=plan)
    refused(device, lone.ask(lone.plan(1)), lone.plan(1), RoundOver, "was begun before, or comes after")
    refused(device, lone.ask(lone.plan(0)), lone.plan(0), RoundOver, "was begun before, or comes after")


def test_a_round_begun_before_a_crash_is_not_begun_again_with_other_keys(lone, monkeypatch):
    """Two adverts of one round would be two devices to the server."""
    device, plan = lone.devices[0], lone.plan(0)
    with monkeypatch.context() as patched:
        patched.setattr(device.trainer, "contribute", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            device.rounds.handle(lone.ask(plan), plan=plan)
    device.restart()
    refused(device, lone.ask(plan), plan, RoundOver, "was begun before")


def test_a_second_offer_for_a_round_ends_it_here(fleet):
    device, plan = fleet.devices[0], fleet.plan(0)
    device.rounds.handle(fleet.ask(plan), plan=plan)
    refused(device, fleet.ask(plan, issued_at=2), plan, RoundOver, "asked for twice, with different contents")
    with pytest.raises(RoundOver, match="keys are gone"):
        device.rounds.handle(fleet.message(FleetStep.SHARE, plan, b""))


@pytest.mark.parametrize("step", STEPS[1:])
def test_a_step_asked_twice_with_different_contents_ends_the_round_here(fleet, step):
    device = fleet.devices[0]

    def after(at, who, asked, got):
        if who is device and at is step:
            with pytest.raises(RoundOver, match="with different contents"):
                device.rounds.handle(fleet.message(step, plan, asked.body + b"x"))

    plan = fleet.plan(0)
    fleet.run_round(plan, after=after)
    later = STEPS[STEPS.index(step) + 1 :]
    assert {at for who, at, _ in fleet.refused if who is device} <= set(later[:1])
    assert bool(fleet.refused) == bool(later)


def test_a_table_that_the_receipt_before_does_not_vouch_for_is_refused(lone):
    first, second = lone.plan(0), lone.plan(1)
    lone.finish(first, lone.run_round(first), model="22" * 32)
    refused(lone.devices[0], lone.ask(second), second, RoundUnwelcome, "vouches for")


def test_a_table_after_a_missed_receipt_is_taken(lone):
    first, third = lone.plan(0), lone.plan(2)
    lone.finish(first, lone.run_round(first), model="22" * 32)
    lone.devices[0].rounds.handle(lone.ask(third), plan=third)


def test_tables_are_kept_that_receipts_vouch_for_and_no_others(lone):
    first, second, device = lone.plan(0), lone.plan(1), lone.devices[0]
    server = lone.run_round(first)
    assert not device.folder.table.exists()
    lone.finish(first, server, model=second.table_hash)
    device.rounds.handle(lone.ask(second), plan=second)
    assert read_table(device.folder.table).content_hash == second.table_hash


def test_a_final_table_of_another_hash_or_size_is_not_taken(lone):
    plan, table = lone.plan(0), lone.final_table()
    server = lone.run_round(plan)
    receipt = server.receipt(model_hash="33" * 32, log_index=0)
    device = lone.devices[0]
    with pytest.raises(RoundUnwelcome, match="the receipt says 3333"):
        device.rounds.handle(lone.message(FleetStep.RECEIPT, plan, receipt), table=table)
    assert not device.folder.table.exists()
    assert device.rounds.finished_run is None
    assert ledger(device).state.open  # the receipt itself may still come


def test_a_receipt_of_a_stranger_or_another_round_is_refused(lone):
    first, second = lone.plan(0), lone.plan(1)
    old = lone.run_round(first).receipt(model_hash=second.table_hash, log_index=0)
    lone.run_round(second)
    device = lone.devices[0]
    with pytest.raises(ReceiptRefused):
        device.rounds.handle(lone.message(FleetStep.RECEIPT, second, old))
    with pytest.raises(PrivacyError):
        device.rounds.handle(lone.message(FleetStep.RECEIPT, second, old[:-1] + bytes([old[-1] ^ 1])))
    with pytest.raises(RoundOver, match="never begun here"):
        device.rounds.handle(lone.message(FleetStep.RECEIPT, lone.plan(7), old))


def test_a_record_shows_what_was_sent_and_what_it_cost(lone):
    sent = {}

    def after(at, device, asked, got):
        if device is lone.devices[0]:
            sent[str(at)] = {"bytes": len(got.body), "sha256": hash_text(got.body).removeprefix("sha256:")}

    plan = lone.plan(0)
    lone.finish(plan, lone.run_round(plan, after=after))
    found = record(lone.devices[0], 0)
    asked = {step: each.pop("asked") for step, each in found.sent.items()}
    assert found.sent == sent
    assert len(set(asked.values())) == len(sent)
    assert found.ended == RELEASED
    assert 0 < found.epsilon == found.total_epsilon < found.local_epsilon
    assert lone.devices[0].seen[-1] == record(lone.devices[0], 0)


def test_nothing_prints_what_is_private(lone):
    device, plan = lone.devices[0], lone.plan(0)
    device.rounds.handle(lone.ask(plan), plan=plan)
    assert repr(device.rounds) == "SecureRounds(<private>)"
    assert repr(RoundLog(device.member.vault)) == "RoundLog(<sealed>)"
    assert "offer" not in repr(record(device, 0))


class Killed(BaseException):
    """Stands in for SIGKILL: nothing catches it."""


WRITES = [
    (Guard, ["adopt_policy", "begin", "persist", "finish", "settle"]),
    (RoundLog, ["begin", "keep_answer", "keep_head", "close", "keep_receipt"]),
]


def two_rounds(fleet, monkeypatch, kill_at):
    """Take the first device through two rounds, killed right after its write number `kill_at`; count its writes."""
    victim, count, victim_guard, victim_book = fleet.devices[0], 0, None, None
    plans = [fleet.plan(0), fleet.plan(1)]

    def counted(kind, name):
        real = getattr(kind, name)

        def write(self, *arguments, **named):
            nonlocal count
            result = real(self, *arguments, **named)
            mine = self is victim_guard or self is victim_book
            count += mine
            if mine and count == kill_at:
                raise Killed
            return result

        monkeypatch.setattr(kind, name, write)

    for kind, names in WRITES:
        for name in names:
            counted(kind, name)
    for plan in plans:
        if victim.rounds is None:
            victim.start()
        victim_guard, victim_book = victim.rounds._guard, victim.rounds._round_log
        try:
            server = fleet.run_round(plan)
            fleet.finish(plan, server, model=fleet.plan(plan.server_round + 1).table_hash)
        except Killed:
            victim.kill()
            victim.start()  # and the round goes on without it, which the other tests have seen
            victim_guard = victim_book = None
    return count


@pytest.mark.slow
def test_a_device_that_is_killed_after_any_of_its_writes_charges_once_and_goes_on(fleet_of, monkeypatch, tmp_path):
    """Every state that a kill can leave on disk; then a third round, which must find and leave everything in order."""
    fleet = fleet_of(2)
    with monkeypatch.context() as patched:
        writes = two_rounds(fleet, patched, kill_at=0)
    assert writes > 20
    for kill_at in range(1, writes + 1):
        home = tmp_path / f"killed-{kill_at}"
        fleet.devices = [fleet.enrol(home / "0", 0), fleet.enrol(home / "1", 1)]
        with monkeypatch.context() as patched:
            two_rounds(fleet, patched, kill_at=kill_at)
        third = fleet.plan(2)
        server = fleet.run_round(third)
        fleet.finish(third, server, model="44" * 32)
        np.testing.assert_array_equal(server.result().vector, total(fleet, fleet.devices, 2))
        victim = fleet.devices[0]
        verified = ledger(victim, allow_open=False)
        begun = [(e.run, e.round) for e in verified.events if isinstance(e, Intent)]
        assert len(begun) == len(set(begun))
        assert [number for _, number in begun][-1] == 2
        assert verified.state.spent_nano == sum(e.charge_nano for e in verified.events if isinstance(e, Intent))
        computed = [number for number, *_ in victim.trainer.asked]
        assert computed == sorted(set(computed))
        assert all(each.ended in (RELEASED, WRITTEN_OFF) for each in RoundLog(victim.member.vault).records())
