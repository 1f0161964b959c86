"""What lists by popularity may lose because the popularity sum is noisy, estimated from the noisy sum itself.

A sum y with Gaussian noise of variance v can be split into two that are independent of each other: with a further draw
u of variance v, ``y + a u`` has noise of variance (1 + a^2) v, and ``y - u / a`` has noise that is independent of it
(data thinning: Neufeld, Dharamshi, Gao & Witten 2024). So one of them ranks, and the other one says, without bias, how
often each item is taken. This gives the hit rate of rankings that are noisier than y, and with it what half of the
budget is worth. It is post-processing of a release: no device is asked, and no budget is spent.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import bdtr

from palate.models.arrays import Float64Array, FloatingArray

NUM_NEGATIVES = 99
TOP_K = 10

_LESS, _MORE = 1.25, 2.5
"""Variances, in those of the sum, of the two rankings that are compared: half of the budget lies between them."""
_DRAWS = 32


def possible_loss(popularity: FloatingArray, *, noise_std: float, share: float, rng: np.random.Generator) -> float:
    """Bound the hit rate that lists by popularity lose against those that had the whole budget.

    Once popular items stand out of the noise, every doubling of a budget is worth less than the one before. So the loss
    is at most that of the last doubling, times the doublings that are left.

    Parameters
    ----------
    popularity
        The noisy sum, [num_items].
    noise_std
        Standard deviation of the noise in each of its values; 0 loses nothing.
    share
        Part of the budget that it has had, in (0, 1].
    rng
        Public randomness of the split.

    Returns
    -------
    A difference of HR@10 among 100 items; at least 0.
    """
    if noise_std == 0.0 or len(popularity) < 2:
        return 0.0
    values = popularity.astype(np.float64)
    lost = [_lost_by_half(values, noise_std, rng) for _ in range(_DRAWS)]
    return max(float(np.mean(lost)), 0.0) * math.log2(1.0 / share)


def _lost_by_half(values: Float64Array, noise_std: float, rng: np.random.Generator) -> float:
    """Compare rankings of variance `_LESS` and `_MORE` with the same independent frequencies."""
    first, second = rng.normal(0.0, noise_std, (2, len(values)))
    step = math.sqrt(_LESS - 1.0)
    less = values + step * first
    more = less + math.sqrt(_MORE - _LESS) * second
    taken = values - first / step  # independent of both
    total = float(taken.sum())
    return float(taken @ (hit_rates(less) - hit_rates(more))) / total if total > 0 else 0.0


def hit_rates(scores: Float64Array) -> Float64Array:
    """Return how likely each item is among the first `TOP_K` of itself and `NUM_NEGATIVES` random others, [num_items].

    The number of them that are ahead is binomial. Ties count against an item.
    """
    ordered = np.sort(scores)
    ahead = (len(scores) - np.searchsorted(ordered, scores, side="left") - 1) / max(len(scores) - 1, 1)
    found: Float64Array = bdtr(TOP_K - 1.0, NUM_NEGATIVES, ahead)
    return found
