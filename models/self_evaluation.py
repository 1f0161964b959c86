"""A device's own evaluation of a table: the rank of its held-back item among random items.

Negatives come from the whole public catalogue by the device's own key. Those that are in the person's history do not
compete. So the figures are close to those of the sampled protocol (He et al. 2017), and need nobody else's data.
"""

from __future__ import annotations

import numpy as np

from palate.models.arrays import BoolArray, Float32Array, Int32Array, UInt64Array
from palate.models.metrics import hit_rate, ndcg, ranks_sampled
from palate.models.sampling import draw_items, stream

NUM_NEGATIVES = 99
TOP_K = 10

_STREAM = 1 << 20  # far above the epochs of local training, which number their streams from 0


def draw_candidates(keys: UInt64Array, targets: Int32Array, num_items: int) -> Int32Array:
    """Return each person's held-back item and its negatives, int32 [n, 1 + NUM_NEGATIVES], for keys uint64 [n]."""
    counters = np.arange(NUM_NEGATIVES)[None, :]
    negatives = draw_items(stream(keys, _STREAM)[:, None], counters, num_items)
    return np.concatenate([targets[:, None], negatives], axis=1).astype(np.int32)


def device_metrics(scores: Float32Array, competing: BoolArray) -> Float32Array:
    """Hit and gain of each person's held-back item, and a 1 that counts them.

    Parameters
    ----------
    scores
        Scores of the candidates, the held-back item first, float32 [n, 1 + NUM_NEGATIVES].
    competing
        Which negatives compete, bool [n, NUM_NEGATIVES].

    Returns
    -------
    float32 [n, 3]
        HR and NDCG at 10, each in [0, 1], and 1.
    """
    ranks = ranks_sampled(scores[:, 0], scores[:, 1:], competing=competing)
    ones = np.ones(len(ranks))
    return np.column_stack([hit_rate(ranks, TOP_K), ndcg(ranks, TOP_K), ones]).astype(np.float32)
