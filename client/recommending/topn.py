"""The best items of one person, in milliseconds for a million items: a bound from the maxima of blocks cuts first.

The n-th largest of the block maxima is at most the n-th largest score, for n different items reach it. So whatever
lies below that bound cannot be in the list, and only the few items at or above it are sorted. Unlike
`palate.models.lists.top_items`, which ranks many people at once, this needs no PyTorch: importing it takes longer than
all that a device does to recommend.
"""

from __future__ import annotations

import numpy as np

from palate.errors import ConfigError
from palate.models.arrays import BoolArray, FloatingArray, Int64Array

_BLOCK = 256


def best_items(scores: FloatingArray, open_items: BoolArray, count: int) -> Int64Array:
    """Return the items with the largest scores, best first, equal scores in the order of the item index.

    Parameters
    ----------
    scores
        Finite scores of the whole catalogue, [num_items].
    open_items
        Which items may be recommended, bool [num_items].
    count
        Length of the list.

    Returns
    -------
    int64 [count or fewer]
        Fewer where fewer are open.

    Raises
    ------
    ConfigError
        If count is not positive.
    ValueError
        If any score is NaN or infinite.
    """
    if count < 1:
        raise ConfigError(f"the list's length is {count}, it must be at least 1", hint="ask for 10 items")
    if not np.isfinite(scores).all():
        raise ValueError("scores: a score is not finite, and would be ranked anywhere")
    masked = np.where(open_items, scores, -np.inf)
    candidates = np.flatnonzero(masked >= _bound(masked, count))
    candidates = candidates[np.isfinite(masked[candidates])]
    return candidates[np.argsort(-masked[candidates], kind="stable")[:count]]


def _bound(masked: FloatingArray, count: int) -> float:
    """Return a value that at least `count` items reach, -inf where there are too few blocks to tell."""
    blocks = len(masked) // _BLOCK
    if blocks <= count:
        return -np.inf
    maxima = masked[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(axis=1)
    return float(np.partition(maxima, blocks - count)[blocks - count])
