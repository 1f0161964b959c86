"""The Skellam bound against the true divergence, the Gaussian that it approaches, and its domain."""

from __future__ import annotations

import itertools
import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.privacy.accounting.events import GaussianEvent, SkellamEvent
from palate.privacy.accounting.rdp import ORDERS, event_rdp
from palate.privacy.accounting.skellam import l1_sensitivity, skellam_rdp


def true_divergence(shift: int, variance: float, order: int) -> float:
    """Renyi divergence between Skellam noise of that variance and the same noise shifted, summed term by term."""
    reach = int(12 * math.sqrt(variance)) + 4 * shift * order + 60
    with mpmath.workdps(50):
        bessel = {k: mpmath.besseli(k, variance) for k in range(reach + shift + 1)}
        terms = (bessel[abs(k - shift)] ** order * bessel[abs(k)] ** (1 - order) for k in range(-reach, reach + 1))
        return float(mpmath.log(mpmath.exp(-variance) * mpmath.fsum(terms)) / (order - 1))


@pytest.mark.parametrize(("shift", "variance", "order"), itertools.product([1, 2, 3], [0.5, 4.0, 30.0], [2, 3, 8]))
def test_bound_covers_the_true_divergence(shift: int, variance: float, order: int):
    event = SkellamEvent(sensitivity=shift, variance=variance, num_values=1)
    bound = skellam_rdp(event, np.array([float(order)]))[0]
    assert true_divergence(shift, variance, order) <= bound


def test_bound_is_within_a_hundredth_of_the_truth_for_wide_noise():
    event = SkellamEvent(sensitivity=2, variance=400.0, num_values=1)
    bound = skellam_rdp(event, np.array([2.0]))[0]
    assert bound == pytest.approx(true_divergence(2, 400.0, 2), rel=0.01)


def test_bound_covers_a_vector_whose_norm_is_spread_over_coordinates():
    # A shift of (1, 1, 1, 1) has L2 norm 2 and L1 norm 4; divergences of independent coordinates add up.
    event = SkellamEvent(sensitivity=2, variance=2.0, num_values=4)
    bound = skellam_rdp(event, np.array([2.0, 4.0]))
    assert 4 * true_divergence(1, 2.0, 2) <= bound[0]
    assert 4 * true_divergence(1, 2.0, 4) <= bound[1]


@pytest.mark.parametrize("noise_multiplier", [0.5, 1.0, 4.0, 26.0])
@pytest.mark.parametrize("bits", [8, 12, 14])
def test_fine_integers_cost_what_gaussian_noise_costs(bits: int, noise_multiplier: float):
    sensitivity = 2**bits
    event = SkellamEvent(sensitivity=sensitivity, variance=(noise_multiplier * sensitivity) ** 2, num_values=60_000)
    whole = np.arange(2.0, 65.0)
    gaussian = event_rdp(GaussianEvent(noise_multiplier=noise_multiplier), whole)
    ours = skellam_rdp(event, whole)
    assert np.all(ours > gaussian)
    np.testing.assert_allclose(ours, gaussian, rtol=1e-3)


def test_coarse_integers_cost_visibly_more():
    event = SkellamEvent(sensitivity=2, variance=4.0, num_values=60_000)
    assert skellam_rdp(event, np.array([4.0]))[0] > 1.3 * 4 / 2


def test_nothing_is_claimed_between_whole_orders():
    event = SkellamEvent(sensitivity=64, variance=4096.0, num_values=10)
    rdp = skellam_rdp(event, ORDERS)
    whole = np.floor(ORDERS) == ORDERS
    assert np.all(np.isfinite(rdp[whole]))
    assert np.all(np.isinf(rdp[~whole]))


@given(st.integers(1, 2**16), st.integers(1, 2**20))
def test_l1_bound_is_the_smaller_of_both_and_never_rounded_down(sensitivity: int, num_values: int):
    bound = l1_sensitivity(sensitivity, num_values)
    assert bound <= sensitivity**2
    assert bound == sensitivity**2 or bound**2 >= num_values * sensitivity**2 > (bound - 1) ** 2


def test_an_unknown_length_is_covered_at_next_to_no_cost():
    known = SkellamEvent(sensitivity=4096, variance=(2.0 * 4096) ** 2, num_values=60_000)
    unknown = SkellamEvent(sensitivity=4096, variance=(2.0 * 4096) ** 2)
    orders = np.arange(2.0, 65.0)
    assert np.all(skellam_rdp(unknown, orders) >= skellam_rdp(known, orders))
    np.testing.assert_allclose(skellam_rdp(unknown, orders), skellam_rdp(known, orders), rtol=1e-6)


@given(st.integers(1, 2**14), st.floats(0.3, 50), st.floats(1.01, 4), st.integers(1, 10**6))
def test_more_noise_never_costs_more(sensitivity: int, noise_multiplier: float, factor: float, num_values: int):
    def bound(noise: float):
        event = SkellamEvent(sensitivity=sensitivity, variance=(noise * sensitivity) ** 2, num_values=num_values)
        return skellam_rdp(event, np.array([2.0, 16.0, 256.0]))

    assert np.all(bound(noise_multiplier * factor) <= bound(noise_multiplier))
