"""A device's guard: charged before anything is computed, the same bytes for ever, and nothing lost in a crash."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from palate.client.guard import Guard
from palate.privacy.accounting.events import Unit
from palate.privacy.budget import Promise, RunBudget, run_terms
from palate.privacy.charging import intents
from palate.privacy.errors import PrivacyError
from palate.privacy.ledger.body import RELEASED, WRITTEN_OFF, Intent, Outcome, Policy, Window, hash_text
from palate.privacy.ledger.errors import BudgetExceeded, PolicyRefused, RoundRefused
from palate.privacy.ledger.store import LedgerBook
from palate.privacy.ledger.verify import Verified, verify_ledger
from palate.privacy.wire import ItemUpdate, RoundPlan

SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ROUNDS = 3
PROMISES = {Unit.USER: Promise(unit=Unit.USER, epsilon=4.0, delta=1e-5, sensitivity=4096)}
TERMS = run_terms(
    RunBudget(
        unit="user",
        epsilon=4.0,
        delta=1e-5,
        rounds=ROUNDS,
        popularity_share=0.1,
        clip_norm=0.5,
        sensitivity=4096,
        honest_shares=50,
        roster_size=50,
    )
)
PLAN = RoundPlan(
    run="r",
    server_round=1,
    purpose="train",
    unit="user",
    participation=1.0,
    training="{}",
    fixed=np.zeros((9, 1), np.float32),
    learned=np.zeros((9, 2), np.float32),
    terms=TERMS.train,
)
CHARGE = intents(PLAN)[Unit.USER].charge_nano


class CrashError(Exception):
    """Stands in for whatever ends a process."""


def number(server_round: int) -> RoundPlan:
    return replace(PLAN, server_round=server_round)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "device.sqlite"


@pytest.fixture
def guard(path: Path) -> Guard:
    return Guard(path, SIGNER, "me", PROMISES)


def answer(seed: int) -> Callable[[], ItemUpdate]:
    return lambda: ItemUpdate(np.random.default_rng(seed).integers(0, 2**32, 18, dtype=np.uint32))


def never() -> ItemUpdate:
    pytest.fail("nothing may be computed")


def crash() -> ItemUpdate:
    raise CrashError


def ledger(path: Path, *, allow_open: bool = True) -> Verified:
    """The device's ledger, every hash and signature of it checked."""
    return verify_ledger(path, "me", SIGNER.public_key(), allow_open=allow_open)


def kinds(path: Path) -> list[str]:
    return [event.status if isinstance(event, Outcome) else event.kind for event in ledger(path).events]


def test_the_charge_is_on_disk_before_anything_is_computed(guard, path):
    seen = []

    def compute() -> ItemUpdate:
        seen.append(ledger(path).state.spent_nano)
        return answer(1)()

    guard.charged(PLAN, compute)
    assert seen == [CHARGE]


def test_the_bytes_are_on_disk_before_they_are_returned(guard, path):
    update = guard.charged(PLAN, answer(1))
    with LedgerBook(path, SIGNER) as book:
        assert book.begin("me", intents(PLAN)[Unit.USER]) == update.vector.tobytes()


@pytest.mark.parametrize("restarted", [False, True])
def test_a_round_that_is_asked_for_again_is_answered_with_the_same_bytes_and_charged_once(guard, path, restarted):
    first = guard.charged(PLAN, answer(1))
    again = Guard(path, SIGNER, "me", PROMISES) if restarted else guard
    for _ in range(3):
        np.testing.assert_array_equal(again.charged(PLAN, never).vector, first.vector)
    assert ledger(path).state.spent_nano == CHARGE


@pytest.mark.parametrize(
    "changes",
    [
        {"learned": np.ones((9, 2), np.float32)},
        {"training": '{"epochs": 2}'},
        {"terms": replace(TERMS.train, share_variance=2 * TERMS.train.share_variance)},
        {"terms": replace(TERMS.train, clip_norm=1.0)},
        {"evaluation_share": 0.1},
    ],
)
def test_a_round_that_was_charged_is_not_answered_under_other_parameters(guard, path, changes):
    guard.charged(PLAN, answer(1))
    with pytest.raises(RoundRefused, match="other parameters"):
        guard.charged(replace(PLAN, **changes), never)
    assert ledger(path).state.spent_nano == CHARGE


def test_a_round_that_is_closed_is_never_answered_again(guard, path):
    guard.charged(number(1), answer(1))
    guard.charged(number(2), answer(2))
    with pytest.raises(RoundRefused, match="charged already"):
        guard.charged(number(1), never)
    assert ledger(path).state.spent_nano == 2 * CHARGE


def test_the_budget_ends_where_it_was_planned_to_and_nothing_is_computed_beyond(guard, path):
    popularity = replace(PLAN, server_round=0, purpose="popularity", terms=TERMS.popularity)
    guard.charged(popularity, lambda: ItemUpdate(np.zeros(9, np.uint32)))
    for server_round in range(1, ROUNDS + 1):
        guard.charged(number(server_round), answer(server_round))
    spent = ledger(path).state.spent_nano
    with pytest.raises(BudgetExceeded) as refused:
        guard.charged(number(ROUNDS + 1), never)
    assert refused.value.needed_nano == CHARGE > refused.value.left_nano
    assert ledger(path).state.spent_nano == spent <= PROMISES[Unit.USER].policy(smallest_cohort=1).budget_nano


def test_a_round_that_costs_more_than_the_whole_budget_leaves_the_ledger_without_a_charge(guard, path):
    loud = replace(PLAN, terms=replace(TERMS.train, share_variance=TERMS.train.share_variance // 100))
    with pytest.raises(BudgetExceeded):
        guard.charged(loud, never)
    assert kinds(path) == ["POLICY"]


@pytest.mark.parametrize("unit", ["none", "household"])
def test_a_plan_for_another_unit_or_for_none_is_refused_before_the_file_is_made(guard, path, unit):
    with pytest.raises(PrivacyError, match=f"unit '?{unit}'?"):
        guard.charged(replace(PLAN, unit=unit, terms=None if unit == "none" else PLAN.terms), never)
    assert not path.exists()


def test_a_plan_of_coarser_integers_than_the_budget_counts_on_is_refused_before_the_file_is_made(guard, path):
    coarse = replace(TERMS.train, sensitivity=4095)
    with pytest.raises(PrivacyError, match="clips to 4095 integer steps") as refused:
        guard.charged(replace(PLAN, terms=coarse), never)
    assert refused.value.hint
    assert not path.exists()


def test_a_unit_without_a_budget_is_refused(path):
    with pytest.raises(PrivacyError, match="does not protect what this device has budgets for"):
        Guard(path, SIGNER, "me", {}).charged(PLAN, never)


def test_a_plan_that_protects_only_a_part_of_what_the_owner_chose_is_refused(path):
    alone = Promise(unit=Unit.INTERACTION, epsilon=8.0, delta=1e-5)
    with pytest.raises(PrivacyError, match="user, interaction"):
        Guard(path, SIGNER, "me", {**PROMISES, Unit.INTERACTION: alone}).charged(PLAN, never)
    assert not path.exists()


def test_a_plan_that_lost_its_terms_is_refused(guard):
    with pytest.raises(PrivacyError, match="no terms"):
        guard.charged(replace(PLAN, terms=None), never)


def test_a_cohort_below_the_smallest_is_refused(path):
    with pytest.raises(PolicyRefused, match="50 devices"):
        Guard(path, SIGNER, "me", PROMISES, smallest_cohort=51).charged(PLAN, never)
    Guard(path.with_name("other"), SIGNER, "me", PROMISES, smallest_cohort=50).charged(PLAN, answer(1))


def test_a_crash_while_computing_is_paid_once_when_the_round_is_asked_for_again(guard, path):
    with pytest.raises(CrashError):
        guard.charged(PLAN, crash)
    assert ledger(path).state.spent_nano == CHARGE
    update = Guard(path, SIGNER, "me", PROMISES).charged(PLAN, answer(2))
    np.testing.assert_array_equal(update.vector, answer(2)().vector)
    assert ledger(path).state.spent_nano == CHARGE
    assert kinds(path) == ["POLICY", "INTENT"]


def test_a_crash_while_computing_stays_charged_when_the_server_moves_on(guard, path):
    """Whether a computation failed depends on private data, and was seen: nothing is given back."""
    with pytest.raises(CrashError):
        guard.charged(number(1), crash)
    guard.charged(number(2), answer(2))
    guard.settle()
    assert kinds(path) == ["POLICY", "INTENT", WRITTEN_OFF, "INTENT", RELEASED]
    assert ledger(path, allow_open=False).state.spent_nano == 2 * CHARGE


@pytest.mark.parametrize("step", ["begin", "persist"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_crash_at_any_step_loses_nothing_and_charges_nothing_twice(guard, path, monkeypatch, step, moment):
    """Whatever had been persisted is what is sent in the end; a round never has two answers."""
    real = getattr(LedgerBook, step)

    def failing(self, *arguments):
        if moment == "after":
            real(self, *arguments)
        raise CrashError

    computed = []

    def compute() -> ItemUpdate:
        computed.append(len(computed))
        return answer(len(computed))()

    with monkeypatch.context() as patched:
        patched.setattr(LedgerBook, step, failing)
        with pytest.raises(CrashError):
            guard.charged(PLAN, compute)
    reborn = Guard(path, SIGNER, "me", PROMISES)
    update = reborn.charged(PLAN, compute)
    persisted = (step, moment) == ("persist", "after")
    np.testing.assert_array_equal(update.vector, answer(1 if persisted or step == "begin" else 2)().vector)
    assert ledger(path).state.spent_nano == CHARGE
    reborn.settle()
    done = ledger(path, allow_open=False)
    assert kinds(path) == ["POLICY", "INTENT", RELEASED]
    assert done.events[-1].payload == hash_text(update.vector.tobytes())


@pytest.mark.parametrize("step", ["begin", "persist"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_crash_followed_by_another_round_gives_no_charge_back(guard, path, monkeypatch, step, moment):
    real = getattr(LedgerBook, step)

    def failing(self, *arguments):
        if moment == "after":
            real(self, *arguments)
        raise CrashError

    with monkeypatch.context() as patched:
        patched.setattr(LedgerBook, step, failing)
        with pytest.raises(CrashError):
            guard.charged(number(1), answer(1))
    guard.charged(number(2), answer(2))
    charged = (step, moment) != ("begin", "before")
    assert ledger(path).state.spent_nano == (2 if charged else 1) * CHARGE


def test_settling_closes_what_is_open_and_may_be_repeated(guard, path):
    sent = guard.charged(PLAN, answer(1))
    guard.settle()
    guard.settle()
    closed = ledger(path, allow_open=False)
    assert [type(event) for event in closed.events] == [Policy, Intent, Outcome]
    assert closed.events[-1].payload == hash_text(sent.vector.tobytes())
    with pytest.raises(RoundRefused):
        guard.charged(PLAN, never)


def test_bytes_of_another_size_in_the_file_are_not_sent(guard, path):
    guard.charged(PLAN, lambda: ItemUpdate(np.zeros(17, np.uint32)))
    with pytest.raises(ValueError, match="17 values"):
        guard.charged(PLAN, never)


def test_a_guard_prints_its_name_and_nothing_else(guard):
    assert repr(guard) == "Guard('me')"


def test_the_steps_of_a_round_charge_keep_and_close_it_once(guard, path):
    assert guard.last_round("r") == -1
    assert guard.begin(PLAN) is None
    assert guard.begin(PLAN) is None
    guard.persist("r", 1, b"masked")
    assert guard.begin(PLAN) == b"masked"
    assert guard.finish("r", 1, receipt=b"signed") is True
    assert guard.finish("r", 1) is False  # closed already
    outcome = ledger(path, allow_open=False).events[-1]
    assert (outcome.payload, outcome.receipt) == (hash_text(b"masked"), hash_text(b"signed"))
    assert (guard.last_round("r"), guard.last_round("other")) == (1, -1)
    assert guard.spending()[Unit.USER].spent_nano == CHARGE


def test_a_round_that_is_finished_without_bytes_is_written_off(guard, path):
    guard.begin(PLAN)
    assert guard.finish("r", 1) is False
    assert kinds(path) == ["POLICY", "INTENT", WRITTEN_OFF]
    assert ledger(path, allow_open=False).state.spent_nano == CHARGE


def test_checking_a_plan_changes_nothing(guard, path):
    guard.begin(number(1))
    guard.check(number(2))
    assert kinds(path) == ["POLICY", "INTENT"]
    with pytest.raises(PrivacyError, match="unit interaction"):
        guard.check(replace(PLAN, unit="interaction", interactions_per_round=1))


def test_a_policy_is_written_again_only_where_it_has_changed(guard, path):
    guard.adopt_policy()
    guard.adopt_policy()
    assert kinds(path) == ["POLICY"]
    other = Guard(path, SIGNER, "me", {Unit.USER: Promise(unit=Unit.USER, epsilon=1.0, delta=1e-5)}, smallest_cohort=9)
    other.adopt_policy()
    assert kinds(path) == ["POLICY", "POLICY"]
    assert other.spending()[Unit.USER].policy.n_min == 9


def test_a_ledger_with_a_coarse_round_keeps_a_budget_that_counts_on_no_more_than_that(path):
    loose = {Unit.USER: replace(PROMISES[Unit.USER], sensitivity=64)}
    Guard(path, SIGNER, "me", loose).charged(replace(PLAN, terms=replace(TERMS.train, sensitivity=64)), answer(1))
    Guard(path, SIGNER, "me", PROMISES).adopt_policy()
    budget = ledger(path).state.policy.budget_nano
    assert budget == loose[Unit.USER].policy(smallest_cohort=1).budget_nano
    assert budget < PROMISES[Unit.USER].policy(smallest_cohort=1).budget_nano


DAY = 86_400
RENEWING = {Unit.USER: replace(PROMISES[Unit.USER], every_seconds=30 * DAY)}


def spend_all(guard: Guard, first: int) -> int:
    """Take part in training rounds until the budget refuses one; return how many."""
    for taken in range(20):
        try:
            guard.charged(number(first + taken), answer(1))
        except BudgetExceeded:
            return taken
    pytest.fail("no budget refuses")


def test_a_budget_that_renews_is_whole_again_after_its_window_and_not_before(path):
    now = [100 * DAY]
    guard = Guard(path, SIGNER, "me", RENEWING, clock=lambda: now[0])
    guard.adopt_policy()
    taken = spend_all(guard, 1)
    assert taken >= ROUNDS
    now[0] += 30 * DAY - 1
    assert spend_all(guard, 100) == 0
    now[0] += 1
    assert spend_all(guard, 200) == taken
    now[0] += 300 * DAY  # nothing is made up for
    assert spend_all(guard, 300) == taken
    state = ledger(path).state
    assert (state.windows, state.spent_nano) == (3, 3 * taken * CHARGE)


def test_a_check_finds_the_budget_renewed_and_charges_nothing(path):
    now = [100 * DAY]
    guard = Guard(path, SIGNER, "me", RENEWING, clock=lambda: now[0])
    guard.adopt_policy()
    taken = spend_all(guard, 1)
    with pytest.raises(BudgetExceeded):
        guard.check(number(50))
    now[0] += 30 * DAY
    guard.check(number(50))
    assert ledger(path).state.spent_nano == taken * CHARGE


def test_an_owner_who_switches_back_and_forth_gets_no_budget_by_it(path):
    now = [100 * DAY]

    def under(every: int) -> Guard:
        promises = {Unit.USER: replace(PROMISES[Unit.USER], every_seconds=every)}
        guard = Guard(path, SIGNER, "me", promises, clock=lambda: now[0])
        guard.adopt_policy()
        return guard

    taken = spend_all(under(0), 1)
    for step, every in enumerate((30 * DAY, 0, DAY, 30 * DAY, 0, DAY), start=1):
        assert spend_all(under(every), 100 * step) == 0
        now[0] += DAY
    assert under(0).spending()[Unit.USER].windows == 1, "the window of 30 days was begun once, and is not over"
    now[0] += 30 * DAY
    assert spend_all(under(DAY), 900) == taken
    assert spend_all(under(0), 1000) == 0


def test_a_window_follows_whoever_charges_first_also_where_the_owner_never_started_again(path):
    """An agent that stays up for months renews by itself."""
    now = [100 * DAY]
    guard = Guard(path, SIGNER, "me", RENEWING, clock=lambda: now[0])
    guard.charged(number(1), answer(1))
    now[0] += 31 * DAY
    guard.charged(number(2), answer(1))
    assert [event for event in ledger(path).events if isinstance(event, Window)] == [
        Window(begins=100 * DAY, lasts=30 * DAY),
        Window(begins=131 * DAY, lasts=30 * DAY),
    ]


def test_what_a_forgotten_device_had_spent_comes_off_every_window(path):
    now = [100 * DAY]
    guard = Guard(path, SIGNER, "me", RENEWING, carried={Unit.USER: CHARGE}, clock=lambda: now[0])
    guard.adopt_policy()
    taken = spend_all(guard, 1)
    now[0] += 30 * DAY
    assert spend_all(guard, 100) == taken
    assert taken < spend_all(Guard(path.with_name("other"), SIGNER, "me", RENEWING), 1)
