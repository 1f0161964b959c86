"""Noise for devices that fail: spares are paid for, and a roster of any size gets the noise that was planned."""

from __future__ import annotations

import pytest

from palate.privacy.accounting.dropout import Quorum
from palate.privacy.accounting.events import Composed, SkellamEvent, Unit
from palate.privacy.accounting.filters import SkellamMeter, budget_nano_for, price_nano
from palate.privacy.accounting.guarantee import account_for
from palate.privacy.budget import SENSITIVITY, Promise, RunBudget, for_batch, for_roster, run_terms
from palate.privacy.errors import PrivacyError
from palate.privacy.integer.ring import Ring

GIVEN = {
    "unit": "user",
    "owners_sensitivity": SENSITIVITY,
    "epsilon": 8.0,
    "delta": 1e-5,
    "rounds": 3,
    "popularity_share": 0.3,
    "clip_norm": 1e-3,
    "sensitivity": 4096,
}
METER = SkellamMeter(4096)


def events_of(terms, popularity, train):
    return [
        Composed(SkellamEvent(sensitivity=each.sensitivity, variance=each.sum_variance), count)
        for each, count in ((terms.popularity, popularity), (terms.train, train))
        if count
    ]


@pytest.mark.parametrize("spare", [0, 1, 4])
def test_all_rounds_and_all_spares_together_use_the_budget_and_no_more(spare):
    terms = run_terms(RunBudget(**GIVEN, spare_rounds=spare))
    everything = events_of(terms, 1 + spare, 3 + spare)
    budget = budget_nano_for(METER, 8.0, 1e-5)
    assert account_for(everything, 1e-5).epsilon <= 8.0
    assert 0.99 * budget < price_nano(METER, everything) <= budget  # a ledger admits them, one by one
    share = price_nano(METER, events_of(terms, 1 + spare, 0)) / price_nano(METER, everything)
    assert share == pytest.approx(0.3, abs=1e-3)


@pytest.mark.parametrize("roster", [2, 3, 20, 300])
@pytest.mark.parametrize(("tau", "gamma"), [(0.5, 0.0), (0.7, 0.2)])
def test_the_honest_shares_of_any_roster_carry_at_least_the_planned_noise(roster, tau, gamma):
    terms = run_terms(RunBudget(**GIVEN, spare_rounds=1))
    quorum = Quorum(tau=tau, gamma=gamma)
    spread = for_roster(terms, quorum, roster)
    for given, each in ((terms.popularity, spread.popularity), (terms.train, spread.train)):
        assert (each.roster_size, each.honest_shares) == (roster, quorum.honest_survivors(roster))
        assert 0 <= each.sum_variance - given.sum_variance < each.honest_shares
        assert each.clip_norm == given.clip_norm


@pytest.mark.parametrize("wrong", [{"popularity_share": 1.0}, {"spare_rounds": -1}, {"rounds": 0}])
def test_numbers_that_leave_nothing_for_training_are_refused(wrong):
    with pytest.raises(PrivacyError):
        run_terms(RunBudget(**{**GIVEN, "spare_rounds": 1, **wrong}))


@pytest.mark.parametrize("sensitivity", [4096, 16384])
@pytest.mark.parametrize("epsilon", [1.0, 8.0])
def test_what_owners_allow_lasts_to_the_last_spare_round_however_fine_the_integers_are(epsilon, sensitivity):
    given = {**GIVEN, "epsilon": epsilon, "rounds": 40, "sensitivity": sensitivity}
    everything = events_of(run_terms(RunBudget(**given, spare_rounds=1)), 2, 41)
    owner = Promise(unit=Unit.USER, epsilon=epsilon, delta=1e-5, sensitivity=SENSITIVITY)
    assert price_nano(owner.meter, everything) <= owner.policy(smallest_cohort=2).budget_nano


@pytest.mark.parametrize(("least", "corrupt", "most"), [(2, 0, 2), (750, 0, 1000), (1000, 500, 10_000), (6, 5, 6)])
def test_the_honest_reports_of_the_least_batch_carry_at_least_the_planned_noise(least, corrupt, most):
    terms = run_terms(RunBudget(**GIVEN))
    spread = for_batch(terms, honest_shares=least - corrupt, most_reports=most)
    for given, each in ((terms.popularity, spread.popularity), (terms.train, spread.train)):
        assert (each.roster_size, each.honest_shares) == (most, least - corrupt)
        assert 0 <= each.sum_variance - given.sum_variance < each.honest_shares
        fits = {"devices": most, "sensitivity": each.sensitivity, "sum_variance": most * each.share_variance}
        Ring(bits=each.ring_bits).require_room(**fits)
        with pytest.raises(PrivacyError):
            Ring(bits=each.ring_bits - 1).require_room(**fits)


def test_a_batch_without_an_honest_report_has_no_terms():
    with pytest.raises(PrivacyError, match="0 honest shares are not between 1"):
        for_batch(run_terms(RunBudget(**GIVEN)), honest_shares=0, most_reports=5)
