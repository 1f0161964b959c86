"""Renyi privacy of the Poisson-sampled Gaussian mechanism (Mironov, Talwar & Zhang 2019, section 3)."""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln, logsumexp, xlog1py, xlogy

from palate.models.arrays import Float64Array
from palate.privacy.accounting.events import SampledGaussianEvent

MAX_ORDER = 256
"""The sum has one term per order; larger orders pay only where noise is so large that sampling hardly matters."""


def sampled_gaussian_rdp(event: SampledGaussianEvent, orders: Float64Array) -> Float64Array:
    """Renyi divergence of one release, exact at whole orders.

    Parameters
    ----------
    event
        The release.
    orders
        Renyi orders above 1, float64 [num_orders].

    Returns
    -------
    float64 [num_orders]; infinite at orders that are not whole numbers or exceed MAX_ORDER, except at full
    participation, where the Gaussian formula holds at every order.
    """
    q, sigma = event.sampling_rate, event.noise_multiplier
    if q == 1:
        return orders / (2 * sigma * sigma)
    rdp = np.full(orders.shape, np.inf)
    for index in np.flatnonzero((orders == np.floor(orders)) & (orders <= MAX_ORDER)):
        order = float(orders[index])
        k = np.arange(order + 1)  # [order + 1]
        log_binomial = gammaln(order + 1) - gammaln(k + 1) - gammaln(order - k + 1)
        # A_a = sum_k C(a, k) (1 - q)^(a - k) q^k exp((k^2 - k) / (2 sigma^2)); divergence = log A_a / (a - 1).
        log_terms = log_binomial + xlog1py(order - k, -q) + xlogy(k, q) + (k * k - k) / (2 * sigma * sigma)
        rdp[index] = max(0.0, float(logsumexp(log_terms))) / (order - 1)
    return rdp
