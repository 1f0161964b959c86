"""Epsilon with more colluders than planned: against the exact Gaussian, against the accounting of runs, and by hand."""

from __future__ import annotations

import math

import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from palate.privacy.accounting.events import Composed, SkellamEvent, Unit
from palate.privacy.accounting.guarantee import account_for
from palate.privacy.colluding import SHARES, LeastSum, colluding_words, if_colluding

DELTA = 1e-5
ROUND = LeastSum(sensitivity=4096, share_variance=4096**2 // 300, least=750, enrolled=1000)


def gaussian_epsilon(mu: float) -> float:
    """Exact epsilon of Gaussian noise (Balle & Wang 2018, theorem 8), by root finding on its delta."""

    def delta_at(epsilon):
        return norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)

    return brentq(lambda epsilon: delta_at(epsilon) - DELTA, 0.0, 500.0)


@pytest.mark.parametrize("rounds", [1, 7])
def test_the_figure_is_that_of_the_noise_of_the_honest_shares_that_are_left(rounds):
    """Two other sources: the exact curve of Gaussians of that variance, and the accounting of simulated runs."""
    for each in if_colluding([ROUND] * rounds, DELTA):
        honest = 750 - round(each.share * 1000)
        variance = honest * ROUND.share_variance
        exact = gaussian_epsilon(math.sqrt(rounds * ROUND.sensitivity**2 / variance))
        event = SkellamEvent(sensitivity=ROUND.sensitivity, variance=variance, unit=Unit.USER)
        accounted = account_for([Composed(event, rounds)], DELTA).epsilon
        assert exact <= each.epsilon <= exact * 1.005
        assert accounted == pytest.approx(each.epsilon, rel=5e-3)
        assert not each.alone


def test_rounds_of_different_noise_add_up():
    other = LeastSum(sensitivity=4096, share_variance=4096**2 // 40, least=20, enrolled=20)
    for each in if_colluding([ROUND, other, other], DELTA, [0.1]):
        left = 4096**2 / (650 * ROUND.share_variance) + 2 * 4096**2 / (18 * other.share_variance)
        assert each.epsilon == pytest.approx(gaussian_epsilon(math.sqrt(left)), rel=5e-3)


def test_colluders_are_a_share_of_all_who_are_enrolled_and_the_persons_own_noise_is_left():
    """5% of 1,000 are 50, whoever is asked: a batch of 60 is left with 10 honest shares, one of 40 with the own one."""
    batch = LeastSum(sensitivity=4096, share_variance=4096**2, least=60, enrolled=1000)
    assert [batch.honest(share) for share in SHARES] == [50, 10, 1]
    small = LeastSum(sensitivity=4096, share_variance=4096**2, least=40, enrolled=1000)
    (found,) = if_colluding([small], DELTA, [0.05])
    assert found.alone
    assert found.epsilon == pytest.approx(gaussian_epsilon(1.0), rel=5e-3)
    assert "nobody else's noise is left" in colluding_words([found], DELTA, of="the enrolled devices")


def test_where_no_noise_is_left_the_epsilon_is_infinite_and_null_in_json():
    (found,) = if_colluding([LeastSum(sensitivity=1 << 30, share_variance=1, least=2, enrolled=1000)], DELTA, [0.1])
    assert (found.epsilon, found.to_json()) == (math.inf, {"share": 0.1, "epsilon": None, "only_own_noise": True})
    assert if_colluding([], DELTA) == []
