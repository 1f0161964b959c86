"""Denoising the rows of an item table by their likeness to one another: Wiener filters of groups of items.

Items that go together (films of one kind, places of one town) have embeddings that span few directions, though all
items together span all of them. Of rows with known noise a mixture of Gaussians is learned, and each row becomes its
posterior mean under it: the piecewise linear estimator of Yu, Sapiro & Mallat (2012, IEEE Trans. Image Processing
21(5), section II), for rows instead of patches of a picture. Rows of similar popularity differ in how much signal they
hold, and by how much is not known: each group is a mixture over sizes of its signal as well (Gaussian scale mixtures:
Portilla, Strela, Wainwright & Simoncelli 2003, IEEE Trans. Image Processing 12(11), section III). Several mixtures from
different starts are averaged (bagging: Breiman 1996). All it sees has been released already: post-processing, which
costs no privacy (Dwork & Roth 2014, proposition 2.1).

The constants below were chosen on gowalla, 8,000 rows of 112 columns whose noise is that of epsilon 8, with the
people's own vectors known without noise. recall@20 was .140 unfiltered, .143 with 40 groups, 2 mixtures and 200 pooled
rows, and .149 to .150 with 80 to 160 groups (.148 with 320), 6 mixtures and 50 rows. Sizes that spread by .6 (natural
logarithm) raise whole runs by .001, in both of two seeds (docs/experiments.md).
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from palate.models.arrays import Float32Array, Float64Array, Int64Array

_MIXTURES = 6  # from independent starts, whose answers are averaged: what helped most
_ITERATIONS = 2  # of expectation and maximisation
_MEANS = 15  # iterations of the spherical k-means that a mixture starts from
_POOLED_ROWS = 50.0  # how many rows' worth of the covariance of all rows is mixed into that of a group
_LEAST_ROWS = 20  # for each group and each band
_BANDS = 40  # of popularity, for the size of the signal in a row
_LEAST_VARIANCE = 1e-4  # of a direction, in shares of the mean
_LEAST_SHARE = 1e-4  # of the rows, that a group counts as having
_LEAST_BELIEF = 1e-3  # in a group, below which it says nothing about a row
_NODES = 24  # energies between which what depends on a row's energy is interpolated
_SPREAD = 0.6  # standard deviation of the logarithm of a row's energy, among rows of like popularity


def filter_rows(
    rows: Float64Array, noise: Float64Array, popularity: Float64Array, *, groups: int, rng: np.random.Generator
) -> Float64Array:
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
        Components of a mixture; no more are used than leave 20 rows for each.
    rng
        Public randomness of the starting groups.

    Returns
    -------
    Posterior means, float64 [n, dim], computed in float32; the rows themselves where there is no noise or nothing to
    learn from.
    """
    sizes, axes = np.linalg.eigh(noise)
    if len(rows) < 2 or not sizes.max(initial=0.0) > 0.0:
        return rows.copy()
    roots = np.sqrt(np.maximum(sizes, 1e-12 * sizes.max()))
    white = (rows @ (axes / roots)).astype(np.float32)  # in these coordinates the noise of an entry is 1
    mixture = _Mixture(white, _signal_energy(white, popularity))
    count = max(1, min(groups, len(rows) // _LEAST_ROWS))
    found = np.zeros(white.shape)
    for _ in range(_MIXTURES):
        found += mixture.fitted(_like_rows(white, popularity, count, rng), count)
    mean: Float64Array = (found / _MIXTURES) @ (axes * roots).T
    return mean


class _Mixture:
    """Rows ``x_i = r_i s_i + noise``, where ``s_i`` is Gaussian with a covariance of trace 1 that its group shares.

    Parameters
    ----------
    white
        Rows with unit noise, float32 [n, dim].
    energy
        Expected ``r_i^2``, float64 [n].
    """

    def __init__(self, white: Float32Array, energy: Float64Array) -> None:
        n, dim = white.shape
        self.white, self.energy = white, energy.astype(np.float32)
        self.sizes, self.probability = _sizes()
        self.pooled: Float64Array = ((white.T @ white).astype(np.float64) - n * np.eye(dim)) / energy.sum()
        self.nodes, self.between = _interpolation(np.multiply.outer(energy, self.sizes.astype(np.float64)))

    def fitted(self, labels: Int64Array, groups: int) -> Float32Array:
        """Return the posterior means after fitting from a first partition into groups, float32 [n, dim]."""
        energy = self.energy
        for _ in range(_ITERATIONS):
            variances, axes = self._spectra(labels, groups, energy)
            share = np.maximum(np.bincount(labels, minlength=groups) / len(labels), _LEAST_SHARE)
            joint = self._likelihood(variances, axes) + np.log(np.outer(share, self.probability)).astype(np.float32)
            belief = np.exp(joint - joint.max(axis=(1, 2), keepdims=True))
            belief /= belief.sum(axis=(1, 2), keepdims=True)
            labels = belief.sum(axis=2).argmax(axis=1)
            energy = self.energy * (belief.sum(axis=1) @ self.sizes)
        mean = np.zeros_like(self.white)
        for group in range(groups):
            rows = np.flatnonzero(belief[:, group].sum(axis=1) > _LEAST_BELIEF)
            signal = np.multiply.outer(self.nodes, variances[group])  # [nodes, dim]
            believed = np.einsum("ns,nsk->nk", belief[rows, group], self.between[rows])
            gain = believed @ (signal / (signal + 1.0))  # Wiener: signal over signal and noise
            mean[rows] += (self.white[rows] @ axes[group] * gain) @ axes[group].T
        return mean

    def _spectra(self, labels: Int64Array, groups: int, energy: Float32Array) -> tuple[Float32Array, Float32Array]:
        """Estimate covariances of groups, less the noise and towards that of all rows.

        Returns
        -------
        Variances, float32 [groups, dim], and the axes that they are along, float32 [groups, dim, dim].
        """
        dim = self.white.shape[1]
        weights = 1.0 / (energy + np.float32(dim))
        trust = weights * energy  # the share of a row's energy that is signal
        order = np.argsort(labels, kind="stable")
        starts = np.searchsorted(labels[order], np.arange(groups + 1))
        covariances = np.empty((groups, dim, dim))
        for group in range(groups):
            members = order[starts[group] : starts[group + 1]]
            rows, weight = self.white[members], weights[members]
            own = ((rows * weight[:, None]).T @ rows).astype(np.float64) - float(weight.sum()) * np.eye(dim)
            known = trust[members].sum(dtype=np.float64)
            covariances[group] = (own + _POOLED_ROWS * self.pooled) / (known + _POOLED_ROWS)
        variances, axes = np.linalg.eigh(covariances.astype(np.float32))
        variances = np.maximum(variances, _LEAST_VARIANCE / dim)
        return variances / variances.sum(axis=1, keepdims=True), axes

    def _likelihood(self, variances: Float32Array, axes: Float32Array) -> Float32Array:
        """Log-likelihood of every row in each group, at each size, less a constant, float32 [n, groups, sizes]."""
        likelihood = np.empty((len(self.white), len(variances), len(self.sizes)), dtype=np.float32)
        turned = np.empty_like(self.white)
        for group, (variance, axis) in enumerate(zip(variances, axes, strict=True)):
            np.matmul(self.white, axis, out=turned)
            np.square(turned, out=turned)
            total = np.multiply.outer(self.nodes, variance) + 1.0  # variances of signal and noise, [nodes, dim]
            at_nodes = turned @ (1.0 / total).T + np.log(total).sum(axis=1)  # [n, nodes]
            likelihood[:, group] = np.vecdot(self.between, at_nodes[:, None])
        likelihood *= -0.5
        return likelihood


def _interpolation(energies: Float64Array) -> tuple[Float32Array, Float32Array]:
    """Chebyshev nodes in the logarithm of the energy, and what each node counts for at some energies.

    ``1 / (1 + e v)`` and ``log(1 + e v)`` are analytic in log e, with the nearest poles at distance pi. So with 24
    nodes the error is some 10^-6 where energies span a factor of 10^4 (Trefethen 2013, Approximation Theory and
    Approximation Practice, theorem 8.2; the barycentric formula is theorem 5.2).

    Parameters
    ----------
    energies
        Positive, float64 [n, sizes].

    Returns
    -------
    Energies of the nodes, float32 [nodes], and weights, float32 [n, sizes, nodes]: a function's values at the nodes
    times these are its values at the energies.
    """
    logs = np.log(energies)
    middle, half = (logs.max() + logs.min()) / 2.0, max((logs.max() - logs.min()) / 2.0, 1e-9)
    angles = np.pi * np.arange(_NODES) / (_NODES - 1)
    nodes = np.cos(angles)
    weights = np.where(np.arange(_NODES) % 2 == 0, 1.0, -1.0)
    weights[[0, -1]] *= 0.5
    away = ((logs - middle) / half)[:, :, None] - nodes
    close = np.abs(away) < 1e-9  # at a node only that node counts
    terms = np.where(close.any(axis=2, keepdims=True), close, weights / np.where(close, 1.0, away))
    between = terms / terms.sum(axis=2, keepdims=True)
    return np.exp(middle + half * nodes).astype(np.float32), between.astype(np.float32)


def _sizes() -> tuple[Float32Array, Float32Array]:
    """Multiples of the expected energy, of mean 1, and how probable each is: three points of a log-normal.

    The points are those of Gauss-Hermite quadrature (Abramowitz & Stegun 1964, table 25.10), at 0 and +-sqrt(3).
    """
    probability = np.array([1.0, 4.0, 1.0]) / 6.0
    size = np.exp(_SPREAD * np.array([-np.sqrt(3.0), 0.0, np.sqrt(3.0)]))
    return (size / (size @ probability)).astype(np.float32), probability.astype(np.float32)


def _signal_energy(white: Float32Array, popularity: Float64Array) -> Float64Array:
    """Estimate the energy of each row's signal from rows of like popularity, float64 [n]."""
    excess = np.square(white, dtype=np.float64).sum(axis=1) - white.shape[1]
    order = np.argsort(popularity, kind="stable")
    bands = np.array_split(order, max(1, min(_BANDS, len(white) // _LEAST_ROWS)))
    at = np.log([popularity[band].mean() + 0.5 for band in bands])
    value = np.log([max(float(excess[band].mean()), 1.0) for band in bands])
    return np.exp(np.interp(np.log(popularity + 0.5), at, value))


def _like_rows(white: Float32Array, popularity: Float64Array, groups: int, rng: np.random.Generator) -> Int64Array:
    """Partition rows by direction: spherical k-means (Dhillon & Modha 2001), popular rows weighing more, int [n]."""
    lengths = np.linalg.norm(white, axis=1, keepdims=True)
    units = white / np.where(lengths > 0.0, lengths, np.float32(1.0))
    weights = popularity + 1e-6
    centres = units[rng.choice(len(units), groups, replace=False, p=weights / weights.sum())]
    labels: Int64Array = np.zeros(len(units), dtype=np.intp)
    places = np.arange(len(units))
    for _ in range(_MEANS):
        labels = (units @ centres.T).argmax(axis=1)
        members = sp.csr_matrix((weights.astype(np.float32), (labels, places)), shape=(groups, len(units)))
        sums = np.asarray(members @ units)
        length = np.linalg.norm(sums, axis=1)
        lost = length < 1e-12
        sums[lost] = units[rng.choice(len(units), int(lost.sum()), replace=False)]
        centres = sums / np.where(lost, np.float32(1.0), length)[:, None]
    return labels
