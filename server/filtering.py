"""Denoising the rows of an item table by their likeness to one another: Wiener filters of groups of items.

Items that go together (films of one kind, places of one town) have embeddings that span few directions, though all
items together span all of them. Of rows with known noise a mixture of Gaussians is learned, and each row becomes its
posterior mean under it: the piecewise linear estimator of Yu, Sapiro & Mallat (2012, IEEE Trans. Image Processing
21(5), section II), for rows instead of patches of a picture. All it sees has been released already: post-processing,
which costs no privacy (Dwork & Roth 2014, proposition 2.1).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float64]
Labels = npt.NDArray[np.intp]

_PARTITIONS = 2  # independent mixtures, whose answers are averaged
_ITERATIONS = 6  # of expectation and maximisation; more changes nothing that can be measured
_MEANS = 25  # iterations of the spherical k-means that the mixtures start from
_POOLED_ROWS = 200.0  # how many rows' worth of the covariance of all rows is mixed into that of a group
_BANDS = 40  # of popularity, for the size of the signal in a row
_LEAST_VARIANCE = 1e-4  # of a direction, in shares of the mean


def filter_rows(rows: Matrix, noise: Matrix, popularity: Vector, *, groups: int, rng: np.random.Generator) -> Matrix:
    """Return what is likely to be signal in noisy rows.

    Parameters
    ----------
    rows
        Signal plus Gaussian noise, independent between rows, float64 [n, dim].
    noise
        Covariance of the noise of a row, the same for all rows, float64 [dim, dim].
    popularity
        Known popularity of the rows, not negative, float64 [n]. Rows of like popularity have signals of like size.
    groups
        Components of the mixture; no more are used than leave 20 rows for each.
    rng
        Public randomness of the starting groups.

    Returns
    -------
    Posterior means, float64 [n, dim]; the rows themselves where there is no noise or nothing to learn from.
    """
    sizes, axes = np.linalg.eigh(noise)
    if len(rows) < 2 or not sizes.max(initial=0.0) > 0.0:
        return rows.copy()
    roots = np.sqrt(np.maximum(sizes, 1e-12 * sizes.max()))
    white = rows @ (axes / roots)  # in these coordinates the noise of an entry is 1
    energy = _signal_energy(white, popularity)
    count = max(1, min(groups, len(rows) // 20))
    found = sum((_Mixture(white, energy).fitted(_like_rows(white, popularity, count, rng)) for _ in range(_PARTITIONS)),
                start=np.zeros_like(white))  # fmt: skip
    mean: Matrix = (found / _PARTITIONS) @ (axes * roots).T
    return mean


class _Mixture:
    """Rows ``x_i = r_i s_i + noise``, where ``s_i`` is Gaussian with a covariance of trace 1 that its group shares.

    Parameters
    ----------
    white
        Rows with unit noise, float64 [n, dim].
    energy
        Expected ``r_i^2``, float64 [n].
    """

    def __init__(self, white: Matrix, energy: Vector) -> None:
        self.white, self.energy = white, energy
        n, dim = white.shape
        self.trust = energy / (energy + dim)  # the share of a row's energy that is signal
        self.pooled: Matrix = (white.T @ white - n * np.eye(dim)) / energy.sum()

    def fitted(self, labels: Labels) -> Matrix:
        """Return the posterior means after fitting from a first partition, float64 [n, dim]."""
        groups = int(labels.max()) + 1
        for _ in range(_ITERATIONS):
            share = np.bincount(labels, minlength=groups) / len(labels)
            spectra = [self._covariance(labels == group) for group in range(groups)]
            likelihood = np.stack([self._likelihood(*spectrum) for spectrum in spectra], axis=1)
            likelihood += np.log(np.maximum(share, 1e-4))
            labels = likelihood.argmax(axis=1)
        belongs = np.exp(likelihood - likelihood.max(axis=1, keepdims=True))
        belongs /= belongs.sum(axis=1, keepdims=True)
        mean = np.zeros_like(self.white)
        for weight, (variances, axes) in zip(belongs.T, spectra, strict=True):
            signal = np.outer(self.energy, variances)
            mean += weight[:, None] * ((self.white @ axes * (signal / (signal + 1.0))) @ axes.T)
        return mean

    def _covariance(self, members: npt.NDArray[np.bool_]) -> tuple[Vector, Matrix]:
        """Estimate a group's covariance, less the noise and towards that of all rows: variances and axes."""
        rows, trust = self.white[members], self.trust[members]
        weight = trust / self.energy[members]
        own = (rows * weight[:, None]).T @ rows - weight.sum() * np.eye(rows.shape[1])
        variances, axes = np.linalg.eigh((own + _POOLED_ROWS * self.pooled) / (trust.sum() + _POOLED_ROWS))
        variances = np.maximum(variances, _LEAST_VARIANCE / len(variances))
        return variances / variances.sum(), axes

    def _likelihood(self, variances: Vector, axes: Matrix) -> Vector:
        """Log-likelihood of every row in a group, without the constant, float64 [n]."""
        total = np.outer(self.energy, variances) + 1.0
        value: Vector = -0.5 * ((self.white @ axes) ** 2 / total + np.log(total)).sum(axis=1)
        return value


def _signal_energy(white: Matrix, popularity: Vector) -> Vector:
    """Estimate the energy of each row's signal from rows of like popularity, float64 [n]."""
    excess = (white**2).sum(axis=1) - white.shape[1]
    order = np.argsort(popularity, kind="stable")
    bands = np.array_split(order, max(1, min(_BANDS, len(white) // 20)))
    at = np.log([popularity[band].mean() + 0.5 for band in bands])
    value = np.log([max(float(excess[band].mean()), 1.0) for band in bands])
    return np.exp(np.interp(np.log(popularity + 0.5), at, value))


def _like_rows(white: Matrix, popularity: Vector, groups: int, rng: np.random.Generator) -> Labels:
    """Partition rows by direction: spherical k-means (Dhillon & Modha 2001), popular rows weighing more, int [n]."""
    lengths = np.linalg.norm(white, axis=1, keepdims=True)
    units = white / np.where(lengths > 0.0, lengths, 1.0)
    weights = popularity + 1e-6
    centres = units[rng.choice(len(units), groups, replace=False, p=weights / weights.sum())]
    labels: Labels = np.zeros(len(units), dtype=np.intp)
    for _ in range(_MEANS):
        labels = (units @ centres.T).argmax(axis=1)
        sums = np.zeros_like(centres)
        np.add.at(sums, labels, units * weights[:, None])
        length = np.linalg.norm(sums, axis=1)
        lost = length < 1e-12
        sums[lost] = units[rng.choice(len(units), int(lost.sum()), replace=False)]
        centres = sums / np.where(lost, 1.0, length)[:, None]
    return labels
