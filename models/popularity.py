"""Popularity as a column of the item table, from a sum that may be noised; post-processing, so free of privacy cost.

Both columns grow with the logarithm of popularity for popular items. They differ for rare items: `log_column`
distinguishes them down to a floor, which makes sense only for an exact sum; `saturating_column` is proportional to
popularity where there is little, ``log(1 + y / c)``, so that the noise of rare items stays small (the log odds of a
Bernoulli count with ``c`` of smoothing).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from palate.models.arrays import Float32Array, Float64Array, FloatingArray

SATURATING_SCALE = 6.0
"""Largest value of the saturating column. Content is at 1: popularity is what a ridge should hold back least."""

_FLOOR = 0.3  # what one person with eleven items adds to an exact sum


def log_column(weighted_counts: FloatingArray, *, noise_std: float = 0.0) -> Float32Array:
    """Log popularity scaled to [0, 1].

    Parameters
    ----------
    weighted_counts
        Sum ``y`` over devices of ``1/sqrt(n_u)`` on each of the device's items (the norm of one device's part is 1),
        [num_items]; with noise it may be negative.
    noise_std
        Standard deviation of the noise in each entry; what is smaller says nothing.

    Returns
    -------
    float32 [num_items]
        Zeros where all items are equally popular.

    Raises
    ------
    ValueError
        If the sum or the noise is not finite, or the noise is negative.
    """
    counts = _checked(weighted_counts, noise_std)
    return _scaled(np.log(np.maximum(counts, max(_FLOOR, noise_std))), 1.0)


def saturating_column(weighted_counts: FloatingArray, *, noise_std: float = 0.0) -> Float32Array:
    """``log(1 + y / c)`` scaled to [0, SATURATING_SCALE], with ``c^2 = mean(y)^2 + noise_std^2``.

    Values that noise alone can explain stay in the flat part. Parameters, result and errors are those of `log_column`;
    negative values count as zero.
    """
    counts = _checked(weighted_counts, noise_std)
    mean = max(float(counts.mean()), 0.0) if len(counts) else 0.0
    smoothing = math.hypot(mean, noise_std)
    positive = np.maximum(counts, 0.0)
    return _scaled(np.log1p(positive / smoothing) if smoothing > 0 else np.zeros_like(positive), SATURATING_SCALE)


POPULARITY_COLUMNS: dict[str, Callable[..., Float32Array]] = {"log": log_column, "saturating": saturating_column}


def _checked(weighted_counts: FloatingArray, noise_std: float) -> Float64Array:
    counts = np.asarray(weighted_counts, dtype=np.float64)
    if counts.ndim != 1 or not np.isfinite(counts).all():
        raise ValueError(f"popularity: the sum must be a finite vector, not of shape {counts.shape}")
    if not (math.isfinite(noise_std) and noise_std >= 0):
        raise ValueError(f"popularity: noise of standard deviation {noise_std} is not a finite number of at least 0")
    return counts


def _scaled(logs: Float64Array, largest: float) -> Float32Array:
    low, high = logs.min(initial=np.inf), logs.max(initial=-np.inf)
    scaled = largest * (logs - low) / (high - low) if high > low else np.zeros_like(logs)
    return scaled.astype(np.float32)
