"""docs/skellam-as-gaussians.md step by step in many digits, and its result against exact divergences of Skellam noise.

The second source knows nothing of Gaussians: the noise's own probabilities, from the recurrence of Bessel functions.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import exp, fsum, loggamma, mpf, npdf, sqrt

from palate.privacy.accounting.events import Composed, SkellamEvent
from palate.privacy.accounting.filters import NANO, SkellamMeter, budget_nano_for, price_nano
from palate.privacy.accounting.gaussian import epsilon_at, log_delta_at
from palate.privacy.accounting.guarantee import account_for
from palate.privacy.accounting.rdp import ORDERS, composed_rdp, rdp_to_epsilon
from palate.privacy.accounting.skellam import LEAST_FINE_VARIANCE, gaussian_distance, gaussian_variance, is_fine
from palate.privacy.errors import PrivacyError

V0 = 2**16
VARIANCES = [V0, 2**17 + 1, 2**24, 2**40]


@pytest.fixture(autouse=True)
def _many_digits():
    with mpmath.workdps(60):
        yield


def theta(y, eta: int = 16):
    return fsum(npdf(k, y, sqrt(eta)) for k in range(-110, 111))


def test_the_rounding_probabilities_need_next_to_no_normalisation():
    with mpmath.workdps(170):
        assert 1e-138 < max(abs(theta(mpf(y)) - 1) for y in (0, 0.125, 0.5, 0.75)) < 1e-136
        assert abs(theta(mpf(0), eta=4) - 1) > 1e-36  # a narrower kernel would not do


@pytest.mark.parametrize(("k", "variance"), [(0, 40), (25, 100)])
def test_a_rounded_gaussian_has_the_density_of_the_wider_gaussian(k: int, variance: int):
    with mpmath.workdps(170):  # the trapezoidal rule in quarters is exact far beyond these digits
        deviation, normals = sqrt(variance - 16), [theta(mpf(y) / 4) for y in range(4)]
        points = range(-1000, 1001)
        rounded = fsum(npdf(mpf(y) / 4, 0, deviation) * npdf(k, mpf(y) / 4, 4) / normals[y % 4] / 4 for y in points)
        assert abs(rounded / npdf(k, 0, sqrt(variance)) - 1) < 1e-136


SIDES = {  # both logarithms over V, by the denominator of the fourth term
    1200: lambda x: 7 * x / 3 - mpf(100) / 3 * mpmath.log1p(x / 10),
    2520: lambda x: -2 * mpmath.sin(sqrt(x / 2)) ** 2,  # cos w - 1 at w = sqrt(2 x)
}


@pytest.mark.parametrize("fourth", SIDES)
def test_the_logarithms_have_the_series_of_the_proof(fourth: int):
    x, left = mpf("1e-12"), mpf(0)
    for power, coefficient in enumerate([mpf(-1), 1 / mpf(6), -1 / mpf(90), 1 / mpf(fourth)], start=1):
        assert abs((SIDES[fourth](x) - left) / x**power - coefficient) < 1e-11
        left += coefficient * x**power


@pytest.mark.parametrize("variance", VARIANCES)
def test_the_logarithms_differ_by_less_than_the_proof_says(variance: int):
    for u in [mpf(1) / 16, *range(1, 33)]:
        x = mpf(u) ** 2 / (2 * variance)
        gamma, skellam = SIDES[1200](x), SIDES[2520](x)
        assert 0.4 < abs(gamma - skellam) / (x**4 / 1200) < 1
        assert max(gamma, skellam) <= -x + x**2 / 6


def test_the_constants_of_the_fourier_integral_hold():
    low = mpmath.quad(lambda u: u**8 * exp(-(u**2) / 2), range(0, 33, 4)) * exp(mpf(2) / 3) / 19200
    assert 0.01334 < low <= 0.01335
    assert 1.2 < mpmath.quad(lambda u: exp(-0.475 * u**2), range(0, 33, 4)) <= 1.3
    beyond = mpmath.quad(lambda u: exp(-2 * u**2 / mpmath.pi**2) + exp(-0.476 * u**2), [32, 34, 40, 64])
    assert 0.01 * exp(-207) < beyond <= 0.1 * exp(-207)
    assert all(40 * sqrt(variance) + 1 <= 12.75 * mpmath.pi * sqrt(variance) for variance in VARIANCES)
    assert 12.75 * 0.01335 <= 0.175
    # Chernoff's bound for Skellam noise beyond 20 sqrt(V):
    assert all(-400 + variance * (mpmath.cosh(20 / sqrt(variance)) - 1) <= -199.8 for variance in VARIANCES)
    rare = 2 * exp(-199.8) + 12.75 * (exp(-207) / 10 + 1.3 * exp(-216)) + mpf(10) ** -136
    assert 1e-87 < rare <= 1e-86 / 2


@pytest.mark.parametrize("u", [0, 1, 8, 20, 32])
def test_what_the_gamma_law_loses_is_as_rare_as_the_proof_says(u: int):
    """E[exp(-x T); T < t0] = E exp(-x T) * P(gamma of scale 1 / (10 + x) < t0 + 7 V / 3), the latter by its series."""
    x, shape = mpf(u) ** 2 / (2 * V0), mpf(100 * V0) / 3
    z = (V0 - 12 * sqrt(V0) + mpf(7 * V0) / 3) * (10 + x)
    term, total, n = mpf(1), mpf(0), 0
    while term > total * mpf("1e-25"):
        total, n = total + term, n + 1
        term *= z / (shape + n)
    lost = exp(V0 * SIDES[1200](x) + shape * mpmath.log(z) - z - loggamma(shape + 1)) * total
    bound = exp(-216 - 0.475 * u**2)
    assert bound * exp(-12) < lost <= bound


@lru_cache
def skellam_at_v0():
    """P(X = k) for k = 0 .. 20 sqrt(V), by Miller's recurrence I_{k-1} = I_{k+1} + (2 k / V) I_k from far out."""
    values = [mpf(0), mpf(1)]
    for k in range(9000, 0, -1):
        values.append(values[-2] + mpf(2 * k) / V0 * values[-1])
    values.reverse()
    total = values[0] + 2 * fsum(values[1:])  # e^V = I_0 + 2 sum I_k
    return [value / total for value in values[: 20 * 256 + 1]]


@lru_cache
def gamma_at_v0():
    """Points of T' with their weights, by the trapezoidal rule from t0 upwards in quarters of a standard deviation."""
    shape, step = mpf(100 * V0) / 3, sqrt(mpf(V0) / 3) / 4
    points = [V0 - 12 * 256 + step * j for j in range(170)]
    norm, gammas = shape * mpmath.log(10) - loggamma(shape), [t + mpf(7 * V0) / 3 for t in points]
    return [(t, step * exp(norm + (shape - 1) * mpmath.log(y) - 10 * y)) for t, y in zip(points, gammas, strict=True)]


def difference_at_v0(k: int):
    """P(X = k) - q(k)."""
    density = fsum(weight * exp(-mpf(k * k) / (2 * t)) / sqrt(2 * mpmath.pi * t) for t, weight in gamma_at_v0())
    return skellam_at_v0()[k] - density


def test_both_laws_are_computed_to_forty_digits():
    assert abs(skellam_at_v0()[100] / (mpmath.besseli(100, V0) * exp(-V0)) - 1) < 1e-40
    assert abs(fsum(weight for _, weight in gamma_at_v0()) - 1) < 1e-50


@pytest.mark.parametrize("k", [0, 100, 400, 1000, 3000, 5000])
def test_no_probability_differs_from_the_mixture_by_more_than_the_proof_says(k: int):
    sup = 0.01335 / mpf(V0) ** 3 / (mpmath.pi * 256)
    assert abs(difference_at_v0(k)) <= sup
    assert k > 1000 or abs(difference_at_v0(k)) > sup / 1000  # 0.27 of it at k = 0


def test_the_total_variation_distance_is_within_the_claim():
    differences = [abs(difference_at_v0(k)) for k in range(0, 20 * 256 + 1, 32)]  # as smooth as a Gaussian over 256
    distance = float(32 * (2 * fsum(differences) - differences[0]) / 2)
    assert gaussian_distance(V0) / 200 < distance < gaussian_distance(V0)


@lru_cache
def losses(variance: int, shift: int):
    """Probabilities of the noise up to 24 sqrt(V), and its privacy losses against the noise moved by `shift`."""
    reach, ratio, ratios = int(24 * math.sqrt(variance)), 0.0, []
    for k in range(reach + 4000, 0, -1):
        ratio = 1.0 / (2.0 * k / variance + ratio)  # r_k = I_k / I_{k-1} = 1 / (2 k / V + r_{k+1})
        ratios.append(ratio)
    half = np.concatenate([[0.0], np.cumsum(np.log(ratios[: -reach - 1 : -1]))])
    logs = np.concatenate([half[:0:-1], half])
    logs -= math.log(math.fsum(np.exp(logs)))
    return np.exp(logs[shift:]), logs[shift:] - logs[:-shift]


@lru_cache
def moments(variance: int, shift: int, mu: float, tilt: float):
    """Points s = tilt + i theta, theta >= 0, their weights for an integral over all theta, and log E e^{s L} there."""
    step = min(0.12, 0.12 / mu)
    s = tilt + 1j * np.arange(0.0, 8.5 / mu, step)
    probabilities, loss = losses(variance, shift)
    return s, np.where(s.imag == 0, 1, 2) * step, np.log([np.sum(probabilities * np.exp(each * loss)) for each in s])


def exact_delta(variance: int, shifts: dict[int, int], rounds: int, eps: float) -> float:
    """Hockey-stick divergence of noise vectors moved by whole numbers, each so many times, summed up along Re s = tilt.

    delta = E max(0, 1 - e^{eps - L}) = integral of E e^{s L} e^{-s eps} / (s (s + 1)) ds / (2 pi i).
    """
    mu = math.sqrt(rounds * sum(count * shift**2 for shift, count in shifts.items()) / variance)
    tilt = max(1.0, round(eps / mu**2 - 0.5))
    log_moment = 0.0
    for shift, count in shifts.items():
        s, weights, log = moments(variance, shift, mu, tilt)
        log_moment = log_moment + rounds * count * log
    return float(np.sum(weights * np.exp(log_moment - s * eps) / (s * (s + 1))).real) / (2 * math.pi)


VECTORS = [  # variance, sensitivity, how many values move by how much, rounds
    (V0, 128, {128: 1}, 1),
    (V0, 256, {256: 1}, 1),
    (V0, 256, {1: 256**2}, 1),
    (V0, 256, {200: 1, 30: 25, 2: 700, 1: 236}, 1),
    (V0, 16, {8: 4}, 250),
    (2**18, 512, {1: 512**2}, 1),
    (2**20, 2048, {2048: 1}, 1),
    (2**20, 2048, {1: 2048**2}, 1),
    (2**20, 1024, {3: 7000, 40: 400, 1: 345576}, 4),
]


@pytest.mark.parametrize(("variance", "sensitivity", "shifts", "rounds"), VECTORS)
def test_no_vector_costs_more_than_its_gaussian_and_hardly_less(variance, sensitivity, shifts, rounds):
    for eps in (0.5, 1.0, 2.0, 4.0, 8.0):
        exact = exact_delta(variance, shifts, rounds, eps)
        rare = (1 + math.exp(eps)) * rounds * sensitivity**2 * gaussian_distance(variance)
        assert (
            exact <= math.exp(log_delta_at(sensitivity * math.sqrt(rounds / gaussian_variance(variance)), eps)) + rare
        )
        assert exact >= 0.98 * math.exp(log_delta_at(sensitivity * math.sqrt(rounds / variance), eps)) - 1e-20
        if sensitivity in shifts:  # one value moves: a plain sum tells as well
            probabilities, loss = losses(variance, sensitivity)
            assert exact == pytest.approx(-probabilities @ np.expm1(np.minimum(0.0, eps - loss)), rel=1e-3)


@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-6])
@pytest.mark.parametrize(("variance", "sensitivity", "shifts", "rounds"), VECTORS)
def test_the_claim_is_never_below_the_exact_epsilon_and_close_to_it(variance, sensitivity, shifts, rounds, delta):
    assert sum(count * shift**2 for shift, count in shifts.items()) == sensitivity**2
    event = SkellamEvent(sensitivity=sensitivity, variance=variance, num_values=sum(shifts.values()))
    claim = account_for([Composed(event, rounds)], delta)
    assert "exact" in claim.accountant
    assert exact_delta(variance, shifts, rounds, claim.epsilon) <= delta
    below = claim.epsilon / (1 + 15 / math.sqrt(variance))  # 1.5% where V = 2^20
    assert exact_delta(variance, shifts, rounds, below) > delta


@settings(max_examples=50, deadline=None)
@given(st.integers(64, 2**14), st.floats(0.2, 40), st.integers(1, 200), st.sampled_from([1e-3, 1e-6, 1e-30]))
def test_a_claim_lies_between_the_exact_gaussian_and_the_renyi_figure(sensitivity, noise, rounds, delta: float):
    event = SkellamEvent(sensitivity=sensitivity, variance=(noise * sensitivity) ** 2)
    claim, (renyi, _) = (
        account_for([Composed(event, rounds)], delta),
        rdp_to_epsilon(composed_rdp([event]) * rounds, delta),
    )
    assert epsilon_at(math.sqrt(rounds / event.variance) * sensitivity, delta) <= claim.epsilon <= renyi * (1 + 1e-9)
    assert is_fine(event.variance) or "RDP" in claim.accountant


@pytest.mark.parametrize(("sensitivity", "variance"), [(128, math.nextafter(V0, 0)), (2**14, 2.0**20), (2**14, 1e4)])
def test_coarse_noise_and_large_epsilon_are_left_to_the_renyi_figure(sensitivity: int, variance: float):
    event = SkellamEvent(sensitivity=sensitivity, variance=variance)
    assert account_for([event], 1e-6).epsilon == rdp_to_epsilon(composed_rdp([event]), 1e-6)[0]


def test_nothing_is_proven_for_coarse_noise():
    for function in (gaussian_variance, gaussian_distance):
        assert function(LEAST_FINE_VARIANCE) > 0
        with pytest.raises(PrivacyError, match="no Gaussian"):
            function(math.nextafter(LEAST_FINE_VARIANCE, 0))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([64, 300, 4096, 2**14]), st.lists(st.tuples(st.floats(1, 8), st.floats(0.7, 60)), min_size=1))
def test_rounds_that_fit_a_budget_cost_no_more_than_it_promises(sensitivity: int, rounds):
    steps = [int(factor * sensitivity) for factor, _ in rounds]
    events = [SkellamEvent(sensitivity=s, variance=(z * s) ** 2) for s, (_, z) in zip(steps, rounds, strict=True)]
    spent = price_nano(SkellamMeter(sensitivity), events)
    for delta in (1e-4, 1e-9):
        promised = SkellamMeter(sensitivity).epsilon(spent, delta)
        assert account_for(events, delta).epsilon <= promised + 1e-9
        assert promised <= SkellamMeter(1).epsilon(spent, delta)


@pytest.mark.parametrize(("sensitivity", "target"), list(itertools.product([64, 4096, 2**16], [0.1, 1, 8])))
def test_a_budget_is_the_largest_that_keeps_its_promise(sensitivity: int, target: float):
    meter = SkellamMeter(sensitivity)
    budget = budget_nano_for(meter, target, 1e-6)
    assert meter.epsilon(budget, 1e-6) <= target < meter.epsilon(budget + 1, 1e-6)
    assert epsilon_at(math.sqrt(budget / NANO), 1e-6) <= target
    assert budget >= budget_nano_for(SkellamMeter(1), target, 1e-6) * (1.03 if sensitivity >= 4096 else 1)


def test_a_round_of_coarser_integers_than_promised_has_no_price():
    event = SkellamEvent(sensitivity=4095, variance=4096.0**2)
    with pytest.raises(PrivacyError, match="4095"):
        SkellamMeter(4096).price_nano(event)
    assert SkellamMeter(4095).price_nano(event) == SkellamMeter(1).price_nano(event)


@given(st.integers(NANO // 10**4, 10**12), st.sampled_from([1e-3, 1e-6, 1e-12]))
def test_a_meter_that_counts_on_nothing_promises_what_zcdp_does(nano: int, delta: float):
    whole = ORDERS[np.floor(ORDERS) == ORDERS]
    assert SkellamMeter(1).epsilon(nano, delta) == rdp_to_epsilon(whole * (nano / NANO / 2), delta, whole)[0]


@pytest.mark.parametrize("sensitivity", [64, 1000, 4096])
def test_more_charges_never_prove_less_also_where_the_noise_becomes_coarse(sensitivity: int):
    border = NANO * sensitivity**2 // V0
    totals = sorted({*range(border - 3, border + 4), *map(int, np.geomspace(1, 1e13, 60))})
    promised = [SkellamMeter(sensitivity).epsilon(nano, 1e-6) for nano in totals]
    assert all(later >= earlier * (1 - 1e-10) for earlier, later in itertools.pairwise(promised))


@pytest.mark.parametrize(("turn", "eps"), list(itertools.product([-1, 0, 1, 2.5], [1, 3, 5])))
def test_who_chooses_the_next_round_as_results_come_in_gains_nothing(turn: float, eps: float):
    """After a first round with a loss above `turn`, all that is left goes into one value, else into many."""
    variance, first, second = 2**18, 300, 400
    probabilities, loss = losses(variance, first)
    exact = 0.0
    for chosen, shift, count in ((loss > turn, second, 1), (loss <= turn, 1, second**2)):
        s, weights, log = moments(variance, shift, second / math.sqrt(variance), 2.0)
        kernel = weights * np.exp(count * log) / (s * (s + 1)) / (2 * math.pi)
        exact += math.fsum(probabilities[chosen] * (np.exp(np.outer(loss[chosen] - eps, s)) @ kernel).real)
    meter = SkellamMeter(first)
    spent = price_nano(meter, [SkellamEvent(sensitivity=steps, variance=variance) for steps in (first, second)])
    assert eps <= meter.epsilon(spent, exact) <= 1.04 * eps
