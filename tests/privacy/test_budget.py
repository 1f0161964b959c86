"""From a budget to noise: the claim stays within it, wastes little, and a device's ledger admits every round."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from palate.privacy.accounting import gaussian
from palate.privacy.accounting.crosscheck import checked_epsilon
from palate.privacy.accounting.events import Composed, SkellamEvent, Unit
from palate.privacy.accounting.filters import SkellamMeter, budget_nano_for, price_nano
from palate.privacy.accounting.guarantee import account_for
from palate.privacy.budget import Promise, RunBudget, run_terms
from palate.privacy.errors import PrivacyError
from palate.privacy.ledger.body import Intent
from palate.privacy.ledger.errors import BudgetExceeded
from palate.privacy.ledger.state import LedgerState
from palate.privacy.mechanisms.terms import ReleaseTerms, RunTerms

DELTA = 1e-5
BUDGET = RunBudget(
    unit="user",
    epsilon=8.0,
    delta=DELTA,
    rounds=4,
    popularity_share=0.1,
    clip_norm=1e-3,
    sensitivity=4096,
    honest_shares=500,
    roster_size=600,
)


def event(terms: ReleaseTerms, size: int) -> SkellamEvent:
    return SkellamEvent(sensitivity=terms.sensitivity, variance=terms.sum_variance, num_values=size)


def released(terms: RunTerms, budget: RunBudget) -> list[SkellamEvent | Composed]:
    """What a device takes part in at most, from the integers that a plan carries."""
    popularity = event(terms.popularity, 1000)
    return [popularity, Composed(event(terms.train, 8003), budget.rounds)]


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0, 4.0, 8.0])
@pytest.mark.parametrize("honest", [1, 500])
def test_the_claim_of_the_integers_is_within_the_target_and_at_most_a_percent_below(epsilon, honest):
    budget = replace(BUDGET, epsilon=epsilon, honest_shares=honest)
    claim = account_for(released(run_terms(budget), budget), DELTA).epsilon
    assert 0.99 * epsilon < claim <= epsilon


def test_independent_accountants_confirm_the_claim():
    claim = checked_epsilon(released(run_terms(BUDGET), BUDGET), DELTA)
    assert claim.epsilon <= 8.0
    assert len({check.accountant for check in claim.cross_checks}) >= 2
    assert all(0.99 * 8.0 < check.epsilon < 1.08 * 8.0 for check in claim.cross_checks)


def test_the_closed_form_of_the_gaussian_is_a_little_below_the_claim():
    terms = run_terms(BUDGET)
    multipliers = [terms.popularity.noise_multiplier] + BUDGET.rounds * [terms.train.noise_multiplier]
    exact = gaussian.epsilon_at(gaussian.total_mu(multipliers), DELTA)
    assert 0.99 * 8.0 < exact < 8.0


@given(
    epsilon=st.floats(0.5, 8.0),
    rounds=st.integers(1, 40),
    share=st.floats(0.02, 0.9),
    honest=st.integers(1, 600),
    sensitivity=st.sampled_from([256, 1024, 4096]),  # at 2^16 one honest share alone can be beyond the sampler
)
@settings(max_examples=25)
def test_a_budget_holds_every_round_and_not_one_more(epsilon, rounds, share, honest, sensitivity):
    budget = replace(
        BUDGET,
        epsilon=epsilon,
        rounds=rounds,
        popularity_share=share,
        honest_shares=honest,
        sensitivity=sensitivity,
    )
    terms = run_terms(budget)
    kind = SkellamMeter(sensitivity)
    allowed = budget_nano_for(kind, epsilon, DELTA)
    popularity, train = event(terms.popularity, 1000), event(terms.train, 8003)
    assert price_nano(kind, [popularity, Composed(train, rounds)]) <= allowed
    assert price_nano(kind, [popularity, Composed(train, rounds + 1)]) > allowed


@pytest.mark.parametrize(
    ("changes", "popularity", "train"),
    [
        ({}, (121480, 500, 32), (53992, 500, 32)),
        ({"epsilon": 1.0, "honest_shares": 300, "popularity_share": 0.33}, (2360427, 300, 32), (4650393, 300, 32)),
        ({"unit": "interaction"}, (60740051, 1, 33), (26995579, 1, 32)),
        ({"unit": "both"}, (121480294, 500, 33), (221147760, 500, 32)),
        ({"unit": "both", "interaction_epsilon": 2.5}, (448749685, 500, 33), (221147760, 500, 32)),
        ({"spare_rounds": 2, "honest_shares": 1, "roster_size": 1}, (182220148, 1, 32), (40493367, 1, 32)),
    ],
)
def test_the_noise_of_a_budget_does_not_change_between_versions(changes, popularity, train):
    """Shares of variance, honest shares and bits of the ring: runs and fleets that have begun go on with these."""
    bounds = {"popularity_interactions": 1000, "interactions_per_round": 64}
    terms = run_terms(replace(BUDGET, **{**bounds, **changes}))
    found = [(one.share_variance, one.honest_shares, one.ring_bits) for one in (terms.popularity, terms.train)]
    assert found == [popularity, train]


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5])
@pytest.mark.parametrize("rounds", [1, 4, 25])
def test_the_budget_is_split_as_asked(share, rounds):
    terms = run_terms(replace(BUDGET, popularity_share=share, rounds=rounds))
    popularity = terms.popularity.noise_multiplier**-2
    train = rounds * terms.train.noise_multiplier**-2
    assert popularity / (popularity + train) == pytest.approx(share, rel=1e-3)


def test_terms_carry_the_public_numbers_and_the_popularity_part_has_norm_one():
    terms = run_terms(BUDGET)
    assert terms.popularity.clip_norm == 1.0
    assert terms.train.clip_norm == 1e-3
    for one in (terms.popularity, terms.train):
        assert (one.honest_shares, one.roster_size, one.sensitivity) == (500, 600, 4096)


def test_dropouts_and_colluders_make_every_share_larger():
    plain = run_terms(replace(BUDGET, honest_shares=600))
    wary = run_terms(replace(BUDGET, honest_shares=300))
    assert wary.train.sum_variance == pytest.approx(plain.train.sum_variance, rel=1e-3)
    assert wary.train.share_variance == pytest.approx(2 * plain.train.share_variance, rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rounds": 0}, "rounds"),
        ({"popularity_share": 0.0}, "popularity_share"),
        ({"popularity_share": 1.5}, "popularity_share"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"epsilon": float("nan")}, "epsilon"),
        ({"delta": 0.0}, "delta"),
        ({"honest_shares": 601}, "601 honest shares"),
        ({"roster_size": 2**20}, "modulus"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_refused(changes, words):
    with pytest.raises(PrivacyError, match=words):
        run_terms(replace(BUDGET, **changes))


def test_the_whole_budget_for_popularity_leaves_none_for_training():
    with pytest.raises(PrivacyError, match="popularity_share"):
        run_terms(replace(BUDGET, popularity_share=1.0))


@pytest.mark.parametrize(
    ("epsilon", "rounds", "sensitivity"),
    [(8.0, 4, 4096), (2.0, 40, 1024), (20.0, 10, 256), (1.0, 1, 1024), (8.0, 200, 4096), (8.0, 2, 65536)],
)
def test_a_ledgers_own_arithmetic_admits_the_run_to_its_last_round(epsilon, rounds, sensitivity):
    """The ledger prices an INTENT by itself (docs/formats/ledger.md), without the accounting package's events."""
    budget = replace(BUDGET, epsilon=epsilon, rounds=rounds, sensitivity=sensitivity)
    terms, state = run_terms(budget), LedgerState(head=b"")
    state.policy = Promise(unit=Unit.USER, epsilon=epsilon, delta=DELTA, sensitivity=sensitivity).policy(
        smallest_cohort=1
    )

    def charge(number: int, one: ReleaseTerms) -> None:
        intent = Intent(
            run="r",
            round=number,
            mechanism="skellam",
            unit="user",
            adjacency="zero-out",
            clip_int=one.sensitivity,
            sum_var_int=one.sum_variance,
            m_honest=one.honest_shares,
            n1=one.roster_size,
            sampling="none-claimed",
            model="sha256:" + "0" * 64,
            transcript="sha256:" + "0" * 64,
        )
        state.check(intent)
        state.apply(intent, b"")

    charge(0, terms.popularity)
    for number in range(1, rounds + 1):
        charge(number, terms.train)
    with pytest.raises(BudgetExceeded):
        charge(rounds + 1, terms.train)


@pytest.mark.parametrize(("epsilon", "windows"), [(2.0, 1), (2.0, 13), (0.5, 61), (8.0, 5)])
def test_windows_add_up_to_the_curve_of_their_budgets_together(epsilon: float, windows: int):
    """Balle & Wang 2018, Theorem 8, solved here, for k budgets as one Gaussian: never above what is said."""
    promise = Promise(unit=Unit.USER, epsilon=epsilon, delta=1e-5, sensitivity=4096, every_seconds=86_400)
    mu = math.sqrt(windows * promise.policy(smallest_cohort=1).budget_nano / 1e9)

    def surplus(found: float) -> float:
        return float(norm.cdf(mu / 2 - found / mu) - math.exp(found) * norm.cdf(-mu / 2 - found / mu) - 1e-5)

    by_hand = float(brentq(surplus, 1e-6, 500.0, xtol=1e-12))
    assert by_hand <= promise.over_windows(windows) <= by_hand * 1.1
    assert promise.over_windows(1) <= epsilon


def test_a_promise_says_which_rounds_it_covers():
    life = Promise(unit=Unit.USER, epsilon=2.0, delta=1e-5)
    month = replace(life, every_seconds=30 * 86_400)
    assert "at delta 1e-05, for all rounds together" in life.words
    assert "at delta 1e-05, for all rounds within a window of 30 days" in month.words
    assert (life.reading["every"], month.reading["every"]) == ("life", "30d")
