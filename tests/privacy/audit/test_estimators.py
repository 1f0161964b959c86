from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq

from palate.privacy.accounting.gaussian import epsilon_at
from palate.privacy.audit.canaries import draw_canaries
from palate.privacy.audit.estimators import bound_mu, clopper_pearson_upper, epsilon_of, fit_mu
from palate.privacy.errors import PrivacyError


def game(mu: float, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of an ideal Gaussian mechanism, and who was in."""
    rng = np.random.default_rng(seed)
    included = rng.random(count) < 0.5
    return mu * included + rng.standard_normal(count), included


@pytest.mark.parametrize("mu", [0.0, 0.5, 1.5, 4.0])
def test_the_standard_error_is_the_spread_over_repetitions(mu: float):
    fits = [fit_mu(*game(mu, 400, seed)) for seed in range(1500)]
    spread = np.std([fit.mu for fit in fits])
    assert np.mean([fit.standard_error for fit in fits]) == pytest.approx(spread, rel=0.08)
    assert np.mean([fit.mu for fit in fits]) == pytest.approx(mu, abs=0.02)


@pytest.mark.parametrize("mu", [0.3, 1.2, 3.0])
def test_the_interval_agrees_with_the_exact_one_of_the_noncentral_t_distribution(mu: float):
    scores, included = game(mu, 1000, 7)
    fit = fit_mu(scores, included)
    statistic = stats.ttest_ind(scores[included], scores[~included]).statistic
    root = math.sqrt(1 / included.sum() + 1 / (~included).sum())

    def end(share: float) -> float:
        freedom = len(scores) - 2
        return root * brentq(lambda shift: stats.nct.cdf(statistic, freedom, shift) - share, 0, 2 * statistic)

    assert fit.mu == pytest.approx(statistic * root, rel=1e-9)
    assert fit.low == pytest.approx(end(0.975), abs=0.01)
    assert fit.high == pytest.approx(end(0.025), abs=0.01)


@pytest.mark.parametrize("num_values", [400, 1600])
def test_crowded_canaries_widen_the_standard_error_as_much_as_they_spread(num_values: int):
    mu, count = 6.0, 200
    fits = []
    for seed in range(250):
        rng = np.random.default_rng(seed)
        canaries = draw_canaries(rng, count, num_values)
        noise = rng.standard_normal(num_values).astype(np.float32)
        scores = (canaries.directions @ noise + mu * canaries.included).astype(np.float64)
        fits.append(fit_mu(scores, canaries.included, crowding=canaries.crowding))
    spread = np.std([fit.mu for fit in fits])
    assert np.mean([fit.standard_error for fit in fits]) == pytest.approx(spread, rel=0.15)


def test_the_clopper_pearson_bound_is_that_of_scipy():
    for count, trials, error in [(0, 10, 0.05), (3, 50, 0.01), (120, 500, 5e-6), (499, 500, 0.1)]:
        exact = stats.binomtest(count, trials).proportion_ci(confidence_level=1 - 2 * error, method="exact").high
        assert clopper_pearson_upper(count, trials, error) == pytest.approx(exact, rel=1e-9)
        seen = stats.binom.cdf(count, trials, clopper_pearson_upper(count, trials, error))
        assert seen == pytest.approx(error, rel=1e-6)
    assert clopper_pearson_upper(10, 10, 0.05) == 1.0


def test_the_bound_is_wrong_no_more_often_than_its_error():
    mu, error = 1.5, 0.2
    bounds = [
        bound_mu(*game(mu, 300, seed), error=error, rng=np.random.default_rng([seed, 1])).mu for seed in range(600)
    ]
    wrong = sum(bound > mu for bound in bounds)
    assert stats.binomtest(wrong, 600, error, alternative="greater").pvalue > 1e-3
    assert np.mean(bounds) > 0.6 * mu


def test_the_bound_comes_close_to_the_truth_with_many_canaries():
    for mu in (0.5, 1.5, 3.0):
        bound = bound_mu(*game(mu, 200_000, 5), error=1e-3, rng=np.random.default_rng(1))
        assert 0.9 * mu < bound.mu < mu


def test_the_bound_follows_from_its_error_rates():
    bound = bound_mu(*game(2.0, 1000, 3), error=0.05, rng=np.random.default_rng(4))
    expected = stats.norm.isf(bound.false_positive_rate) - stats.norm.ppf(bound.false_negative_rate)
    assert bound.mu == pytest.approx(expected, rel=1e-9)
    assert stats.norm.sf(bound.threshold) < bound.false_positive_rate < 3 * stats.norm.sf(bound.threshold)


def test_canaries_that_choose_the_threshold_do_not_count_towards_the_bound():
    """Twenty of the hundred on either side are set aside: without one error the bound is that of eighty."""
    included = np.arange(200) % 2 == 0
    bound = bound_mu(included.astype(float), included, error=0.1, rng=np.random.default_rng(0))
    assert bound.false_positive_rate == bound.false_negative_rate == pytest.approx(1 - 0.05 ** (1 / 80))


def test_scores_that_tell_nothing_prove_nothing():
    scores, included = game(0.0, 1000, 11)
    assert bound_mu(scores, included, error=1e-3, rng=np.random.default_rng(0)).mu == 0.0
    assert bound_mu(-scores - included, included, error=1e-3, rng=np.random.default_rng(0)).mu == 0.0
    assert bound_mu(np.ones(1000), included, error=1e-3, rng=np.random.default_rng(0)).mu == 0.0


def test_scores_without_spread_give_an_infinite_estimate_and_a_finite_bound():
    _, included = game(0.0, 1000, 2)
    scores = included.astype(np.float64)
    assert fit_mu(scores, included).mu == math.inf
    assert fit_mu(np.zeros(1000), included).mu == 0.0
    bound = bound_mu(scores, included, error=1e-6, rng=np.random.default_rng(0))
    rate = (1e-6 / 2) ** (1 / 400)  # of about 400 counted on either side none was wrong
    assert bound.mu == pytest.approx(-2 * stats.norm.ppf(1 - rate), rel=0.05)


@pytest.mark.parametrize("mu", [0.01, 0.5, 2.0, 20.0])
def test_epsilon_of_a_bound_is_the_exact_one_rounded_down(mu: float):
    exact = epsilon_at(mu, 1e-5)
    assert exact * (1 - 1e-6) <= epsilon_of(mu, 1e-5) <= exact
    epsilon = epsilon_of(mu, 1e-5)
    below = stats.norm.logcdf(-mu / 2 - epsilon / mu) + epsilon  # delta of Balle & Wang 2018 at that epsilon
    assert stats.norm.cdf(mu / 2 - epsilon / mu) - math.exp(below) >= 1e-5 * (1 - 1e-6) or epsilon == 0.0


def test_epsilon_of_nothing_is_nothing():
    assert epsilon_of(0.0, 1e-5) == epsilon_of(-1.0, 1e-5) == epsilon_of(-math.inf, 1e-5) == 0.0
    assert epsilon_of(math.inf, 1e-5) == math.inf


def test_one_sided_or_broken_scores_are_refused():
    scores, included = game(1.0, 50, 0)
    with pytest.raises(PrivacyError, match="0 are out"):
        fit_mu(scores, np.ones(50, dtype=bool))
    with pytest.raises(PrivacyError, match="must be finite"):
        bound_mu(np.full(50, np.nan), included, error=0.1, rng=np.random.default_rng(0))
    with pytest.raises(PrivacyError, match="must be finite"):
        fit_mu(scores[:-1], included)
