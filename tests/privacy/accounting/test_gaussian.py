"""The exact Gaussian against a multi-precision oracle, and published values."""

from __future__ import annotations

import math

import mpmath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.privacy.accounting.calibrate import calibrate_gaussian
from palate.privacy.accounting.gaussian import epsilon_at, log_delta_at, total_mu
from palate.privacy.errors import PrivacyError

DELTA = 1e-5


def oracle_log_delta(mu: float, epsilon: float) -> mpmath.mpf:
    with mpmath.workdps(60):
        mu, epsilon = mpmath.mpf(mu), mpmath.mpf(epsilon)
        above, below = mpmath.ncdf(mu / 2 - epsilon / mu), mpmath.ncdf(-mu / 2 - epsilon / mu)
        return mpmath.log(above - mpmath.e**epsilon * below)


@pytest.mark.parametrize(
    ("noise_multiplier", "rounds", "expected"), [(5, 50, 6.573), (2, 50, 20.68), (20, 200, 2.943), (0.6, 1, 8.0037)]
)
def test_reference_epsilons_to_three_digits(noise_multiplier: float, rounds: int, expected: float):
    assert epsilon_at(math.sqrt(rounds) / noise_multiplier, DELTA) == pytest.approx(expected, rel=5e-4)


@pytest.mark.parametrize(("epsilon", "expected"), [(1, 3.731), (2, 1.994), (4, 1.081), (8, 0.600)])
def test_reference_noise_to_three_digits(epsilon: float, expected: float):
    found = calibrate_gaussian(epsilon=epsilon, delta=DELTA, rounds=1)
    assert found.noise_multiplier == pytest.approx(expected, abs=5.1e-4)


@settings(max_examples=100, deadline=None)
@given(st.floats(-3, 1.5), st.floats(0, 30))
def test_delta_matches_sixty_digits(log10_mu: float, deviations: float):
    mu = 10**log10_mu
    epsilon = mu * mu / 2 + deviations * mu
    expected = oracle_log_delta(mu, epsilon)
    assert log_delta_at(mu, epsilon) == pytest.approx(float(expected), rel=1e-11, abs=1e-11)


@settings(max_examples=100, deadline=None)
@given(st.floats(-3, 1.5), st.floats(-12, -0.5))
def test_returned_epsilon_holds_in_sixty_digits_and_is_tight(log10_mu: float, log10_delta: float):
    mu, delta = 10**log10_mu, 10**log10_delta
    epsilon = epsilon_at(mu, delta)
    assert oracle_log_delta(mu, epsilon) <= mpmath.log(delta)
    if epsilon > 1e-3:
        assert oracle_log_delta(mu, epsilon * (1 - 1e-8)) > mpmath.log(delta)


@given(st.floats(0.01, 20), st.floats(1.001, 3))
def test_more_sensitivity_costs_more(mu: float, factor: float):
    assert epsilon_at(mu * factor, DELTA) >= epsilon_at(mu, DELTA)
    assert log_delta_at(mu * factor, 1.0) >= log_delta_at(mu, 1.0)


def test_delta_at_epsilon_zero_is_the_total_variation():
    assert math.exp(log_delta_at(1.0, 0.0)) == pytest.approx(math.erf(1 / math.sqrt(8)), rel=1e-12)
    assert epsilon_at(1.0, 0.4) == 0.0


def test_rounds_add_up_in_squares():
    assert total_mu([5.0] * 50) == pytest.approx(math.sqrt(50) / 5)
    assert total_mu([1.0, 2.0]) == pytest.approx(math.sqrt(1.25))


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, float("nan"), 1e-300])
def test_delta_out_of_range_is_refused(delta: float):
    with pytest.raises(PrivacyError, match="delta"):
        epsilon_at(1.0, delta)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("inf"), float("nan")])
def test_mu_out_of_range_is_refused(bad: float):
    with pytest.raises(PrivacyError, match="mu"):
        epsilon_at(bad, DELTA)
