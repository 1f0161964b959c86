"""Diverse lists: maximal marginal relevance (Carbonell & Goldstein 1998), controlled by one exact setting.

MMR picks one item after another, each time the one with the largest

    (1 - dial) * relevance - dial * (largest similarity to what is picked already).

It is greedy, so a higher dial may happen to give a *less* diverse list. Here the lists of all notches of the dial are
made, and a notch answers with the most diverse list of those up to it, the earliest of equals. So diversity never falls
as the dial is turned up, and notch 0 is the plain list.
"""

from __future__ import annotations

import numpy as np

from palate.errors import ConfigError
from palate.models.arrays import Float64Array, FloatingArray, Int64Array
from palate.models.lists import diversities, unit_rows

NOTCHES = 20
"""Steps of the dial from 0 to 1."""


def pool_size(count: int) -> int:
    """How many of the best candidates a list of `count` is chosen from: ten times as many, at least 100."""
    return max(100, 10 * count)


def rerank(relevance: FloatingArray, features: FloatingArray, count: int, dial: float) -> Int64Array:
    """Choose a list from candidates.

    Parameters
    ----------
    relevance
        Scores of the candidates, best first, [n]; `pool_size` says how many are worth it.
    features
        What makes candidates alike, [n, k].
    count
        Length of the list.
    dial
        0 is the plain list, 1 the most diverse; rounded to the nearest of the notches.

    Returns
    -------
    int64 [min(count, n)]
        Positions among the candidates, in the order of picking; the most relevant candidate is always first.

    Raises
    ------
    ConfigError
        If the dial is outside [0, 1], or the count is not positive.
    """
    if not 0.0 <= dial <= 1.0:
        raise ConfigError(f"diversity is {dial}, it must be from 0 to 1", hint="0 is the plain list, 0.5 a mixed one")
    if count < 1:
        raise ConfigError(f"the list's length is {count}, it must be at least 1", hint="ask for 10 items")
    notch = round(dial * NOTCHES)
    count = min(count, len(relevance))
    if notch == 0 or count < 2:
        return np.arange(count)
    unit = unit_rows(features)
    lists = _marginal_lists(np.asarray(relevance, dtype=np.float64), unit @ unit.T, count, notch + 1)
    # Rounded: two lists of the same items differ in the last bits of their sums, and the first should win.
    best = int(np.argmax(np.round(np.nan_to_num(diversities(lists, unit)), decimals=9)))
    return np.asarray(lists[best])


def _marginal_lists(relevance: Float64Array, cosines: Float64Array, count: int, notches: int) -> Int64Array:
    """Return MMR's lists for the first notches of the dial, int64 [notches, count]."""
    span = float(relevance.max() - relevance.min())
    scaled = (relevance - relevance.min()) / span if span > 0 else np.zeros_like(relevance)  # [n], in [0, 1]
    weight = (np.arange(notches) / NOTCHES)[:, None]
    lists = np.zeros((notches, count), dtype=np.int64)  # the first is the most relevant at every notch
    nearest = np.repeat(cosines[:1], notches, axis=0)  # largest similarity to what is picked, [notches, n]
    every = np.arange(notches)
    taken = np.zeros(nearest.shape, dtype=np.bool_)
    taken[:, 0] = True
    for place in range(1, count):
        marginal = np.where(taken, -np.inf, (1.0 - weight) * scaled - weight * nearest)
        lists[:, place] = picked = np.argmax(marginal, axis=1)
        taken[every, picked] = True
        nearest = np.maximum(nearest, cosines[picked])
    return lists
