"""Renyi accounting: the sampled Gaussian against integration, conversion against the exact answer."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.privacy.accounting.events import Composed, GaussianEvent, SampledGaussianEvent
from palate.privacy.accounting.gaussian import epsilon_at
from palate.privacy.accounting.rdp import ORDERS, composed_rdp, event_rdp, rdp_to_epsilon
from palate.privacy.accounting.sampled import MAX_ORDER
from palate.privacy.errors import PrivacyError

DELTA = 1e-5


def integrated_divergence(q: float, sigma: float, order: int) -> float:
    """Integrate (mixture / Gaussian)^order against the Gaussian."""
    with mpmath.workdps(30):

        def integrand(x: mpmath.mpf) -> mpmath.mpf:
            ratio = (1 - q) + q * mpmath.exp((2 * x - 1) / (2 * mpmath.mpf(sigma) ** 2))
            return mpmath.npdf(x, 0, sigma) * ratio**order

        edges = [-20 * sigma, -5 * sigma, 0, order / 2, order, order + 5 * sigma, order + 20 * sigma]
        return float(mpmath.log(mpmath.quad(integrand, edges)) / (order - 1))


@pytest.mark.parametrize(("q", "sigma", "order"), [(0.01, 1.0, 2), (0.1, 1.0, 8), (0.5, 2.0, 5), (0.9, 0.7, 3)])
def test_sampled_divergence_matches_integration(q: float, sigma: float, order: int):
    event = SampledGaussianEvent(sampling_rate=q, noise_multiplier=sigma)
    ours = event_rdp(event, np.array([float(order)]))[0]
    assert ours == pytest.approx(integrated_divergence(q, sigma, order), rel=1e-9)


def test_sampling_everybody_is_the_plain_gaussian():
    sampled = SampledGaussianEvent(sampling_rate=1.0, noise_multiplier=3.0)
    np.testing.assert_array_equal(event_rdp(sampled), event_rdp(GaussianEvent(noise_multiplier=3.0)))


@given(st.floats(1e-4, 0.999), st.floats(0.3, 30))
@settings(max_examples=20, deadline=None)
def test_sampling_never_costs_more_than_taking_part(q: float, sigma: float):
    orders = np.array([2.0, 7.0, 32.0])
    sampled = event_rdp(SampledGaussianEvent(sampling_rate=q, noise_multiplier=sigma), orders)
    assert np.all(sampled >= 0)
    assert np.all(sampled <= event_rdp(GaussianEvent(noise_multiplier=sigma), orders) * (1 + 1e-9))


def test_sampled_divergence_claims_nothing_off_its_orders():
    rdp = event_rdp(SampledGaussianEvent(sampling_rate=0.1, noise_multiplier=1.0))
    proven = (np.floor(ORDERS) == ORDERS) & (ORDERS <= MAX_ORDER)
    np.testing.assert_array_equal(np.isfinite(rdp), proven)


@given(st.floats(0.3, 200), st.integers(1, 500), st.floats(1e-10, 1e-2))
@settings(max_examples=60, deadline=None)
def test_conversion_is_never_below_the_exact_answer(sigma: float, rounds: int, delta: float):
    converted, _ = rdp_to_epsilon(composed_rdp([Composed(GaussianEvent(noise_multiplier=sigma), rounds)]), delta)
    assert converted >= epsilon_at(math.sqrt(rounds) / sigma, delta)


@pytest.mark.parametrize(("sigma", "rounds", "expected"), [(5, 50, 7.077), (2, 50, 22.02), (20, 200, 3.189)])
def test_order_grid_loses_nothing_against_the_best_order(sigma: float, rounds: int, expected: float):
    converted, order = rdp_to_epsilon(composed_rdp([Composed(GaussianEvent(noise_multiplier=sigma), rounds)]), DELTA)
    assert converted == pytest.approx(expected, rel=5e-4)
    dense = np.arange(order - 0.5, order + 0.5, 1e-4)
    best, _ = rdp_to_epsilon(rounds * dense / (2 * sigma**2), DELTA, dense)
    assert converted <= best * 1.0005


@given(st.lists(st.tuples(st.floats(0.5, 50), st.integers(1, 40)), min_size=1, max_size=4))
@settings(max_examples=30, deadline=None)
def test_composition_adds_and_ignores_order(rounds: list[tuple[float, int]]):
    events = [Composed(GaussianEvent(noise_multiplier=sigma), count) for sigma, count in rounds]
    forwards = composed_rdp(events)
    np.testing.assert_allclose(forwards, composed_rdp(events[::-1]), rtol=1e-12)
    np.testing.assert_allclose(forwards, sum(composed_rdp([event]) for event in events), rtol=1e-11)


def test_no_divergence_needs_no_epsilon():
    assert rdp_to_epsilon(np.zeros_like(ORDERS), DELTA)[0] == 0.0


def test_shared_bounds_cannot_be_changed_by_a_caller():
    event = GaussianEvent(noise_multiplier=1.0)
    composed_rdp([event])[:] = 0
    assert composed_rdp([event])[0] > 0
    with pytest.raises(ValueError, match="read-only"):
        ORDERS[0] = 2.0


@pytest.mark.parametrize("delta", [0.0, 1.0, float("nan")])
def test_conversion_refuses_a_delta_that_is_no_probability(delta: float):
    with pytest.raises(PrivacyError, match="delta"):
        rdp_to_epsilon(np.ones_like(ORDERS), delta)
