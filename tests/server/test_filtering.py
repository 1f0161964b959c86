"""Filtering of noisy rows: it is the posterior mean where that is known, and finds signal in rows that go together."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from palate.server.filtering import _Mixture, _sizes, filter_rows

DIM, GROUPS = 24, 5


def grouped_rows(rng: np.random.Generator, *, n: int = 1500) -> tuple[np.ndarray, np.ndarray]:
    """Rows of five groups, each within three directions of its own, and their popularity; popular rows are longer."""
    popularity = rng.uniform(2.0, 12.0, n)
    axes = [np.linalg.qr(rng.normal(size=(DIM, 3)))[0] for _ in range(GROUPS)]
    member = rng.integers(0, GROUPS, n)
    mixture = rng.normal(size=(n, 3)) / np.sqrt(3)
    signal = np.stack([axes[group] @ weights for group, weights in zip(member, mixture, strict=True)])
    return popularity[:, None] * signal, popularity


def some_noise(rng: np.random.Generator) -> np.ndarray:
    factor = rng.normal(size=(DIM, DIM)) / np.sqrt(DIM) + np.eye(DIM)
    return factor @ factor.T


def relative_error(found: np.ndarray, signal: np.ndarray) -> float:
    return float(np.sum((found - signal) ** 2) / np.sum(signal**2))


def test_of_rows_that_go_together_most_of_the_noise_is_taken():
    rng = np.random.default_rng(1)
    signal, popularity = grouped_rows(rng)
    covariance = some_noise(rng)
    rows = signal + rng.multivariate_normal(np.zeros(DIM), covariance, len(signal))
    found = filter_rows(rows, covariance, popularity, groups=GROUPS, rng=np.random.default_rng(2))
    one_group = filter_rows(rows, covariance, popularity, groups=1, rng=np.random.default_rng(2))
    raw, pooled, grouped = (relative_error(each, signal) for each in (rows, one_group, found))
    assert raw > 1.5 * pooled
    assert pooled > 1.3 * grouped


def test_one_group_of_known_covariance_gets_the_mean_over_sizes_of_wiener_filters():
    """Second source: dense ``C (C + N)^-1 x`` for each size, weighed by SciPy's densities, with the true covariance."""
    rng = np.random.default_rng(3)
    n, spectrum, noise = 20_000, np.array([9.0, 4.0, 1.0, 0.25]), np.diag([1.0, 2.0, 0.5, 1.0])
    sizes, probability = np.exp(0.6 * np.sqrt(3.0) * np.array([-1.0, 0.0, 1.0])), np.array([1.0, 4.0, 1.0]) / 6.0
    sizes /= sizes @ probability
    drawn = rng.choice(sizes, n, p=probability)
    signal = rng.normal(size=(n, 4)) * np.sqrt(spectrum * drawn[:, None])
    rows = signal + rng.normal(size=(n, 4)) * np.sqrt(np.diag(noise))
    found = filter_rows(rows, noise, np.ones(n), groups=1, rng=rng)
    evidence, filtered = [], []
    for size, share in zip(sizes, probability, strict=True):
        covariance = size * np.diag(spectrum)
        evidence.append(share * stats.multivariate_normal(cov=covariance + noise).pdf(rows))
        filtered.append(rows @ np.linalg.solve(covariance + noise, covariance))
    belief = np.stack(evidence) / np.sum(evidence, axis=0)
    wanted = np.sum(belief[:, :, None] * np.stack(filtered), axis=0)
    assert relative_error(found, wanted) < 1e-3
    one_size = rows * (spectrum / (spectrum + np.diag(noise)))
    assert relative_error(wanted, signal) < 0.99 * relative_error(one_size, signal)


def test_the_filter_does_not_depend_on_the_axes_or_the_scale_of_the_rows():
    rng = np.random.default_rng(4)
    signal, popularity = grouped_rows(rng, n=300)
    rows, covariance = signal + rng.normal(size=signal.shape), np.eye(DIM)
    turn = 7.0 * np.linalg.qr(rng.normal(size=(DIM, DIM)))[0]
    here = filter_rows(rows, covariance, popularity, groups=1, rng=np.random.default_rng(5))
    there = filter_rows(rows @ turn, turn.T @ turn, popularity, groups=1, rng=np.random.default_rng(5))
    np.testing.assert_allclose(there, here @ turn, atol=1e-3 * np.abs(there).max())


def test_rows_are_as_likely_in_a_group_as_its_normal_distribution_says():
    """Second source: SciPy's densities; the interpolated determinants are right to three digits."""
    rng = np.random.default_rng(11)
    white, energy = rng.normal(size=(30, 4)).astype(np.float32), rng.uniform(0.5, 300.0, 30)
    variances = np.array([[0.7, 0.2, 0.09, 0.01], [0.25, 0.25, 0.25, 0.25]], np.float32)
    axes = np.stack([np.linalg.qr(rng.normal(size=(4, 4)))[0] for _ in range(2)]).astype(np.float32)
    mixture = _Mixture(white, energy)
    found = mixture._likelihood(variances, axes)
    assert found.shape == (30, 2, 3)
    for (row, group, place), value in np.ndenumerate(found):
        size = energy[row] * mixture.sizes[place]
        covariance = size * (axes[group] * variances[group]) @ axes[group].T + np.eye(4)
        wanted = stats.multivariate_normal(cov=covariance).logpdf(white[row]) + 2.0 * np.log(2.0 * np.pi)
        assert value == pytest.approx(wanted, abs=1e-3)


def test_covariances_are_fitted_again_with_the_energy_that_rows_are_then_believed_to_have(monkeypatch):
    """Second source: sizes weighed by SciPy's densities under the first covariance."""
    rng = np.random.default_rng(12)
    sizes, probability = _sizes()
    drawn = rng.choice(sizes, 400, p=probability / probability.sum())
    white = (rng.normal(size=(400, 4)) * np.sqrt(1.0 + 40.0 * drawn[:, None] / 4)).astype(np.float32)
    mixture = _Mixture(white, np.full(400, 40.0))
    energies, spectra = [], []

    def spied(labels: np.ndarray, groups: int, energy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        energies.append(energy)
        spectra.append(_Mixture._spectra(mixture, labels, groups, energy))
        return spectra[-1]

    monkeypatch.setattr(mixture, "_spectra", spied)
    mixture.fitted(np.zeros(400, dtype=np.intp), 1)
    np.testing.assert_array_equal(energies[0], 40.0)
    (variances,), (axes,) = spectra[0]
    covariance = 40.0 * (axes * variances) @ axes.T
    evidence = [
        share * stats.multivariate_normal(cov=size * covariance + np.eye(4)).pdf(white)
        for size, share in zip(sizes, probability, strict=True)
    ]
    wanted = 40.0 * (sizes @ np.stack(evidence)) / np.sum(evidence, axis=0)
    np.testing.assert_allclose(energies[1], wanted, rtol=1e-2)
    assert np.corrcoef(energies[1], drawn)[0, 1] > 0.5


def test_sizes_spread_around_the_expected_energy():
    sizes, probability = _sizes()
    assert probability.sum() == pytest.approx(1.0)
    assert sizes @ probability == pytest.approx(1.0)
    spread = probability @ np.log(sizes) ** 2 - (probability @ np.log(sizes)) ** 2
    assert spread**0.5 == pytest.approx(0.6, rel=1e-5)


def test_rows_of_nothing_but_noise_are_mostly_taken_away():
    rng = np.random.default_rng(6)
    rows = rng.normal(size=(2000, DIM))
    found = filter_rows(rows, np.eye(DIM), rng.uniform(1, 5, len(rows)), groups=GROUPS, rng=rng)
    assert np.linalg.norm(found) < 0.2 * np.linalg.norm(rows)


def test_the_same_seed_gives_the_same_rows_and_the_argument_stays_as_it_was():
    rng = np.random.default_rng(7)
    signal, popularity = grouped_rows(rng, n=200)
    rows = signal + rng.normal(size=signal.shape)
    before = rows.copy()
    twice = [filter_rows(rows, np.eye(DIM), popularity, groups=4, rng=np.random.default_rng(8)) for _ in range(2)]
    np.testing.assert_array_equal(*twice)
    np.testing.assert_array_equal(rows, before)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_rows_are_left_alone(n):
    rows = np.ones((n, DIM))
    np.testing.assert_array_equal(
        filter_rows(rows, np.eye(DIM), np.ones(n), groups=3, rng=np.random.default_rng(0)), rows
    )


def test_rows_without_noise_are_left_alone():
    rows = np.random.default_rng(9).normal(size=(50, DIM))
    found = filter_rows(rows, np.zeros((DIM, DIM)), np.ones(50), groups=3, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(found, rows)


@pytest.mark.parametrize("n", [2, 15, 60])
def test_few_rows_and_directions_without_noise_or_signal_give_finite_rows(n):
    rng = np.random.default_rng(10)
    rows = rng.normal(size=(n, DIM))
    rows[:, -3:] = 0.0
    noise = np.eye(DIM)
    noise[-3:] = 0.0
    found = filter_rows(rows, noise, np.zeros(n), groups=40, rng=rng)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[:, -3:], 0.0, atol=1e-6)
