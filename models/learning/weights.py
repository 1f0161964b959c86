"""How much an interaction and a person count in training.

Taste drifts: an interaction's weight halves every `half_life` newer interactions, down to a floor
(Ding & Li 2005 use clock time; ranks need no timestamps). A person's update is scaled by ``n_u ** -exponent``,
so that heavy users do not drown the others (exponent 0.5 gives everyone a popularity vector of norm 1).
"""

from __future__ import annotations

import math

import numpy as np

from palate.models.arrays import Float32Array, IntegerArray
from palate.models.histories import Histories
from palate.models.training import LocalTraining


def recency_weights(ages: IntegerArray, *, half_life: float, floor: float) -> Float32Array:
    """Weights of interactions by age.

    Parameters
    ----------
    ages
        Number of newer interactions of the same person; 0 is the newest.
    half_life
        Interactions after which the decaying part has halved; ``inf`` weighs all alike.
    floor
        What even the oldest interaction keeps, in [0, 1].

    Returns
    -------
    float32, same shape
        ``floor + (1 - floor) * 2 ** (-age / half_life)``, in (floor, 1].
    """
    decay = np.exp2(-ages.astype(np.float64) / half_life)
    weights: Float32Array = (floor + (1.0 - floor) * decay).astype(np.float32)
    return weights


def hyperbolic_weights(ages: IntegerArray) -> Float32Array:
    """Weights ``1 / (1 + age)``, float32, same shape: memory's power law of forgetting (Anderson & Schooler 1991).

    The newest interaction counts most by far, and yet the old ones together never fade: their sum grows like the
    logarithm of the history's length.
    """
    weights: Float32Array = (1.0 / (1.0 + ages.astype(np.float64))).astype(np.float32)
    return weights


def pooling_weights(ages: IntegerArray, config: LocalTraining) -> Float32Array:
    """Weights of interactions by age as the configuration has them, float32, same shape; a half-life of inf is off."""
    if config.forgetting == "hyperbolic" and math.isfinite(config.recency_half_life):
        return hyperbolic_weights(ages)
    return recency_weights(ages, half_life=config.recency_half_life, floor=config.recency_floor)


def history_weights(histories: Histories, config: LocalTraining) -> Float32Array:
    """Recency weight of every interaction, float32 [num_interactions]."""
    by_age = pooling_weights(np.arange(histories.lengths.max(initial=0)), config)
    ends = np.repeat(histories.indptr[1:], histories.lengths)
    return np.asarray(by_age[ends - 1 - np.arange(len(histories.items))])


def user_weights(lengths: IntegerArray, *, exponent: float) -> Float32Array:
    """Weight of each person's update, ``max(n_u, 1) ** -exponent``, float32 [num_users]."""
    weights: Float32Array = np.power(np.maximum(lengths, 1).astype(np.float64), -exponent).astype(np.float32)
    return weights
