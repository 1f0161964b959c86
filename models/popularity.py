"""Popularity as a column of the item table, from a sum that may be noised.

The score of an item grows with its popularity about as ``log(1 + y / c)``: proportional where there is little, so that
the noise of rare items stays small, and logarithmic among hits (the log odds of a Bernoulli count with ``c`` of
smoothing). With c at the mean the one column does the work of a plain logarithm and several popularity bands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

POPULARITY_SCALE = 6.0
"""Largest value of the column. Content indicators are at 1: popularity is what a ridge should hold back least."""


@dataclass(frozen=True, eq=False)
class PopularityFeatures:
    """Columns made of the popularity sum.

    Attributes
    ----------
    columns
        float32 [num_items, k].
    names
        What each column says, in words, [k].
    """

    columns: FloatArray
    names: tuple[str, ...]


def popularity_features(weighted_counts: npt.NDArray[np.floating], *, noise_std: float = 0.0) -> PopularityFeatures:
    """Turn the federation's popularity sum into columns; post-processing, so free of privacy cost.

    Parameters
    ----------
    weighted_counts
        Sum ``y`` over devices of ``1/sqrt(n_u)`` on each of the device's items, [num_items]; with noise it may be
        negative, and what is below zero counts as zero.
    noise_std
        Standard deviation of the noise in each entry, 0 without noise.

    Returns
    -------
    PopularityFeatures
        One column, ``log(1 + y / c)`` scaled to [0, `POPULARITY_SCALE`] with ``c^2 = mean(y)^2 + noise_std^2``: what
        noise alone can make stays in the flat part. Zeros where all items are equally popular.

    Raises
    ------
    ValueError
        If the sum or the noise is not finite, or the noise is negative.
    """
    counts = np.asarray(weighted_counts, dtype=np.float64)
    if counts.ndim != 1 or not np.isfinite(counts).all():
        raise ValueError(f"popularity: the sum must be a finite vector, not of shape {counts.shape}")
    if not (math.isfinite(noise_std) and noise_std >= 0):
        raise ValueError(f"popularity: noise of standard deviation {noise_std} is not a finite number of at least 0")
    mean = max(float(counts.mean()), 0.0) if len(counts) else 0.0
    smoothing = math.hypot(mean, noise_std)
    positive = np.maximum(counts, 0.0)
    logs = np.log1p(positive / smoothing) if smoothing > 0 else np.zeros_like(positive)
    low, high = logs.min(initial=np.inf), logs.max(initial=-np.inf)
    scaled = POPULARITY_SCALE * (logs - low) / (high - low) if high > low else np.zeros_like(logs)
    return PopularityFeatures(scaled.astype(np.float32)[:, None], ("popularity",))
