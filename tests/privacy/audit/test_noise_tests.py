from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from palate.privacy.audit.noise_tests import correlation_test, low_bits_test, shape_test, variance_test
from palate.privacy.errors import PrivacyError
from palate.privacy.integer.csprng import Purpose, WordStream
from palate.privacy.integer.skellam import SkellamSampler

COUNT = 60_000


def drawn(variance: int, count: int = COUNT, seed: int = 1) -> np.ndarray:
    """Noise of the project's own sampler."""
    return SkellamSampler(variance).draw(count, WordStream(seed.to_bytes(32, "big"), Purpose.NOISE))


def poisson_difference(variance: float, count: int, seed: int) -> np.ndarray:
    """Skellam noise by its definition, from numpy."""
    return np.subtract(*np.random.default_rng(seed).poisson(variance / 2, (2, count)))


@pytest.mark.parametrize("variance", [1, 3, 40, 10_000, 1 << 26])
def test_noise_of_the_sampler_passes_every_test(variance: int):
    noise = drawn(variance)
    test = variance_test(noise, variance)
    assert 1e-4 < test.p_too_little < 1 - 1e-4
    assert test.p_too_little + test.p_too_much == pytest.approx(1.0)
    assert low_bits_test(noise, variance) > 1e-4
    if variance >= 40:
        assert shape_test(noise, variance) > 1e-4


@pytest.mark.parametrize("variance", [1.0, 2.0, 500.0])
def test_p_values_of_right_noise_are_uniform(variance: float):
    runs = [poisson_difference(variance, 2000, seed) for seed in range(400)]
    assert stats.kstest([variance_test(noise, variance).p_too_little for noise in runs], "uniform").pvalue > 1e-3
    assert stats.kstest([low_bits_test(noise, variance) for noise in runs], "uniform").pvalue > 1e-3
    if variance > 100:
        assert stats.kstest([shape_test(noise, variance) for noise in runs], "uniform").pvalue > 1e-3


def test_the_kurtosis_of_the_skellam_distribution_matters_where_the_variance_is_small():
    """Chi-square alone would reject right noise of variance 1/4 too often."""
    runs = [poisson_difference(0.25, 2000, seed) for seed in range(400)]
    assert stats.skellam.stats(0.125, 0.125, moments="k") == pytest.approx(4.0)  # excess kurtosis 1/V
    assert stats.kstest([variance_test(noise, 0.25).p_too_little for noise in runs], "uniform").pvalue > 1e-3
    naive = [stats.chi2.cdf(float(noise @ noise) / 0.25, 2000) for noise in runs]
    assert stats.kstest(naive, "uniform").pvalue < 1e-6


def test_with_a_large_variance_it_is_the_chi_square_test():
    noise = drawn(1 << 26)
    statistic = float((noise.astype(float) ** 2).sum()) / (1 << 26)
    test = variance_test(noise, 1 << 26)
    assert test.p_too_little == pytest.approx(stats.chi2.cdf(statistic, COUNT), rel=1e-6)
    assert test.ratio == pytest.approx(math.sqrt(statistic / COUNT))


@pytest.mark.parametrize(("scale", "error"), [(0.99, 0.05), (0.97, 1e-6), (0.5, 1e-300)])
def test_noise_that_is_too_weak_is_detected(scale: float, error: float):
    noise = drawn(round(scale**2 * (1 << 26)))
    assert variance_test(noise, 1 << 26).p_too_little <= error


def test_noise_at_99_percent_is_detected_with_the_power_that_theory_gives():
    """On 60,000 values 3.4 standard errors away: at a level of 1% nearly always found."""
    variance = 1 << 20
    found = [
        variance_test(drawn(round(0.9801 * variance), seed=seed), variance).p_too_little < 0.01 for seed in range(100)
    ]
    expected = stats.norm.cdf((1 - 0.9801) / math.sqrt(2 / COUNT) - stats.norm.isf(0.01))
    assert np.mean(found) == pytest.approx(expected, abs=0.12)


def test_noise_that_is_too_strong_is_told_from_noise_that_is_too_weak():
    test = variance_test(drawn(1 << 21), 1 << 20)
    assert test.p_too_much < 1e-300 < 0.99 < test.p_too_little


def test_another_distribution_of_the_same_variance_is_detected():
    variance = 1 << 20
    half_width = math.isqrt(3 * variance)
    rng = np.random.default_rng(8)
    uniform = rng.integers(-half_width, half_width + 1, COUNT)
    laplace = np.rint(rng.laplace(0, math.sqrt(variance / 2), COUNT)).astype(np.int64)
    assert min(variance_test(uniform, variance).p_too_little, variance_test(uniform, variance).p_too_much) > 1e-6
    assert shape_test(uniform, variance) < 1e-100
    assert shape_test(laplace, variance) < 1e-100


@pytest.mark.parametrize("variance", [40, 1000])
def test_the_bins_of_the_shape_test_have_the_probabilities_of_scipy(variance: int):
    """Counts that scipy's distribution would give on the average pass even at ten million values."""
    reach = 12 * math.isqrt(variance)
    support = np.arange(-reach, reach + 1)
    counts = np.rint(1e7 * stats.skellam.pmf(support, variance / 2, variance / 2)).astype(np.int64)
    assert shape_test(np.repeat(support, counts), variance) > 0.99


def test_noise_on_a_grid_is_detected_by_its_low_bits_alone():
    variance = 1 << 20
    coarse = 2 * drawn(variance // 4)
    assert variance_test(coarse, variance).p_too_little > 1e-4
    assert shape_test(coarse, variance) > 1e-4
    assert low_bits_test(coarse, variance) < 1e-300


@pytest.mark.parametrize("variance", [1.0, 4.0])
def test_the_residues_have_the_probabilities_of_scipy(variance: float):
    support = np.arange(-60, 61)
    pmf = stats.skellam.pmf(support, variance / 2, variance / 2)
    counts = np.rint(1e6 * pmf).astype(np.int64)
    assert low_bits_test(np.repeat(support, counts), variance) > 0.99


def test_noise_that_is_used_twice_is_found_among_many_rounds():
    rng = np.random.default_rng(3)
    rounds = rng.standard_normal((30, 500))
    fresh = correlation_test(rounds)
    assert fresh.p_value > 1e-3
    for factor in (1.0, -2.5):
        rounds[17] = factor * rounds[4]
        found = correlation_test(rounds)
        assert (found.rounds, found.p_value) == ((4, 17), 0.0)
        assert found.largest == pytest.approx(math.copysign(1.0, factor))


def test_half_of_the_noise_used_again_is_found():
    rng = np.random.default_rng(4)
    rounds = rng.standard_normal((10, 2000))
    rounds[3, :1000] = rounds[8, :1000]
    assert correlation_test(rounds).p_value < 1e-20


def test_the_p_value_of_a_correlation_is_that_of_scipy():
    """With a constant row's projection removed, scipy's Pearson test is the same law with one value less."""
    rng = np.random.default_rng(5)
    rounds = rng.standard_normal((2, 41))
    centred = rounds - rounds.mean(axis=1, keepdims=True)
    basis = np.linalg.svd(np.ones((1, 41)))[2][1:]  # 40 orthonormal directions orthogonal to the constant
    found = correlation_test(centred @ basis.T)
    expected = stats.pearsonr(*rounds)
    assert found.largest == pytest.approx(expected.statistic)
    assert found.p_value == pytest.approx(expected.pvalue)


def test_correlation_p_values_of_fresh_skellam_noise_are_honest():
    values = [
        correlation_test(poisson_difference(2.0, 6 * 300, seed).reshape(6, 300).astype(float)).p_value
        for seed in range(300)
    ]
    assert stats.binomtest(sum(value < 0.1 for value in values), 300, 0.1, alternative="greater").pvalue > 1e-3


def test_no_noise_at_all_is_left_to_the_variance_test():
    assert correlation_test(np.zeros((3, 100))).p_value == 1.0
    assert variance_test(np.zeros(COUNT, dtype=np.int64), 100).p_too_little == 0.0


def test_too_little_to_test_is_refused():
    with pytest.raises(PrivacyError, match="at least 1280 values"):
        variance_test(np.zeros(10, dtype=np.int64), 1.0)
    with pytest.raises(PrivacyError, match="is not above 0"):
        shape_test(drawn(100), 0.0)
    with pytest.raises(PrivacyError, match="no two rounds"):
        correlation_test(np.zeros((1, 100)))
