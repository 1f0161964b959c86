"""Top-k lists and what they look like beyond accuracy: coverage, exposure, novelty, diversity.

Lists are item indices [num_users, top_k], best first; NO_ITEM fills the end of a list that ran out of items.
"""

from __future__ import annotations

import numpy as np

from palate.errors import ConfigError
from palate.models.arrays import BoolArray, Float64Array, FloatingArray, Int32Array, Int64Array, IntegerArray
from palate.models.metrics import require_finite

NO_ITEM = -1
"""Fills a top-k list that has fewer than k items left to recommend."""

_BLOCK = 256


def best_items(scores: FloatingArray, open_items: BoolArray, count: int) -> Int64Array:
    """Return one person's items with the largest scores, best first, equal scores in the order of the item index.

    Milliseconds for a million items: a bound from the maxima of blocks cuts first. The n-th largest of them is at most
    the n-th largest score, because n different items reach it; only the few items at or above that bound are sorted.

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
    NonFiniteScoreError
        If any score is NaN or infinite.
    """
    if count < 1:
        raise ConfigError(f"the list's length is {count}, it must be at least 1", hint="ask for 10 items")
    require_finite(scores)
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


def top_items(scores: FloatingArray, excluded: BoolArray, top_k: int) -> Int32Array:
    """Recommend to many people: `best_items` of each, without the items that are excluded.

    Parameters
    ----------
    scores
        Finite scores of the whole catalogue, [num_users, num_items].
    excluded
        Items that are not recommended, [num_users, num_items].
    top_k
        Length of the list; at most num_items are given.

    Returns
    -------
    int32 [num_users, top_k]
        Best first; NO_ITEM fills the end of a list when fewer than top_k items are left.
    """
    lists = np.full((len(scores), top_k), NO_ITEM, dtype=np.int32)
    for row, (own, gone) in enumerate(zip(scores, excluded, strict=True)):
        best = best_items(own, ~gone, top_k)
        lists[row, : len(best)] = best
    return lists


def exposure(lists: IntegerArray, num_items: int) -> Int64Array:
    """Count how often each item is recommended, int64 [num_items], from top-k lists [num_users, top_k]."""
    return np.bincount(lists[lists != NO_ITEM], minlength=num_items).astype(np.int64)


def coverage(lists: IntegerArray, num_items: int) -> float:
    """Share of the catalogue that appears in at least one top-k list [num_users, top_k]."""
    return float(np.count_nonzero(exposure(lists, num_items)) / num_items)


def gini(counts: IntegerArray) -> float:
    """Inequality of exposure: 0 when all items are shown equally often, (n - 1) / n when one item takes all.

    Parameters
    ----------
    counts
        Times each item is recommended, [num_items], not negative; with no exposure at all the answer is 0.
    """
    total = int(np.sum(counts))
    if total == 0:
        return 0.0
    n = len(counts)
    ordered = np.sort(counts).astype(np.float64)
    return float(np.sum((2.0 * np.arange(1, n + 1) - n - 1.0) * ordered) / (n * total))


def novelty(lists: IntegerArray, item_users: IntegerArray, num_users: int) -> float:
    """Mean self-information -log2 p(i) of what is recommended, in bits (Vargas & Castells 2011).

    Parameters
    ----------
    lists
        Top-k lists, [num_users, top_k].
    item_users
        Training users per item, [num_items]; p(i) is their share. An item nobody has is taken as one user's.
    num_users
        Training users.
    """
    shown = lists[lists != NO_ITEM]
    if len(shown) == 0:
        return 0.0
    share = np.maximum(item_users, 1) / num_users
    # Written so that an item which every user has scores 0.0 and not -0.0.
    return float(np.mean(np.log2(1.0 / share[shown])))


def unit_rows(features: FloatingArray) -> Float64Array:
    """Rows at length 1, float64 [n, k]; rows of zeros stay."""
    wide = features.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.asarray(wide / np.where(norms > 0, norms, 1.0))


def diversities(lists: IntegerArray, unit: Float64Array) -> Float64Array:
    """Mean pairwise cosine distance inside each list (Ziegler et al. 2005).

    Parameters
    ----------
    lists
        Top-k lists, [num_lists, top_k].
    unit
        Public content of the items, `unit_rows`, [num_items, num_features]; items with an all-zero row are left out.

    Returns
    -------
    float64 [num_lists]
        0 for a list of identical items; NaN for one in which fewer than two items have content.
    """
    usable = (lists != NO_ITEM) & np.any(unit, axis=1)[lists]  # [num_lists, top_k]
    total = np.zeros((len(lists), unit.shape[1]))
    for position in range(lists.shape[1]):
        total += np.where(usable[:, position, None], unit[lists[:, position]], 0.0)
    count = np.count_nonzero(usable, axis=1)
    # |sum of unit vectors|^2 = count + 2 * (sum of pairwise cosines)
    cosine = (np.einsum("uf,uf->u", total, total) - count) / np.maximum(count * (count - 1.0), 1.0)
    return np.where(count >= 2, 1.0 - cosine, np.nan)


def intra_list_diversity(lists: IntegerArray, features: FloatingArray) -> float | None:
    """Mean of `diversities` over lists; None when no list has two items with content, features [num_items, k]."""
    each = diversities(lists, unit_rows(features))
    return None if np.isnan(each).all() else float(np.nanmean(each))
