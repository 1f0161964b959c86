"""Federated evaluation without a second release: a device's metrics are the last coordinates of its update.

They take a public share w of the clip norm, so the update is first clipped to ``C sqrt(1 - w^2)`` and the whole vector
has a norm of at most C. The server reads three noisy sums off the end of the total. The noise costs nothing beyond
the round's charge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from palate.models.arrays import Float32Array, Float64Array
from palate.privacy.integer.quantise import clip
from palate.privacy.integer.sparse import SparseVectors
from palate.privacy.wire import NUM_METRICS, RoundPlan


@dataclass(frozen=True)
class NoisyMetrics:
    """A round's metrics of the table that it started from.

    Attributes
    ----------
    hit_rate, ndcg
        Means over the devices that have a held-out item.
    hit_rate_std, ndcg_std
        Standard deviation of the noise in them.
    """

    hit_rate: float
    ndcg: float
    hit_rate_std: float
    ndcg_std: float


def attach(
    updates: Float32Array,
    metrics: Float32Array,
    *,
    clip_norm: float,
    share: float,
    out: Float32Array,
    full: bool = False,
) -> Float32Array:
    """Clip updates so that their metrics fit within the same bound.

    Parameters
    ----------
    updates
        Flat updates of n devices, float32 [n, d].
    metrics
        (hit, ndcg, 1) of each device, all in [0, 1], or zeros without a held-back item; float32 [n, NUM_METRICS].
    clip_norm, share
        C and w.
    out
        Receives the clipped updates, float32 [n, d]; may be `updates`.
    full
        Says that no update is mostly zeros, as in `clip`.

    Returns
    -------
    What goes behind them, float32 [n, NUM_METRICS].
    """
    clip(updates, clip_norm * math.sqrt(1.0 - share * share), out=out, full=full)
    return metrics * np.float32(_unit(clip_norm, share))


def attach_sparse(
    updates: SparseVectors, metrics: Float32Array, size: int, *, clip_norm: float, share: float
) -> SparseVectors:
    """Do what `attach` does to flat updates of `size` values that are mostly zeros, and put the metrics behind them."""
    clipped = updates.clipped(clip_norm * math.sqrt(1.0 - share * share))
    return clipped.extended(metrics * np.float32(_unit(clip_norm, share)), size)


def split_metrics(
    total: Float64Array, plan: RoundPlan, *, noise_std: float
) -> tuple[Float64Array, NoisyMetrics | None]:
    """Split the metrics from the end of a total.

    Parameters
    ----------
    total
        Sum of the answers to the plan, float64 [update_size].
    plan
        What was asked.
    noise_std
        Standard deviation of the noise in each value of the total.

    Returns
    -------
    The sum of the updates, float64 [d], and the metrics; None where none were asked for, or where so few devices had
    any that the noise is all there is.
    """
    if not plan.asks_for_metrics or plan.terms is None:
        return total, None
    update, tail = total[:-NUM_METRICS], total[-NUM_METRICS:] / _unit(plan.terms.clip_norm, plan.evaluation_share)
    deviation = noise_std / _unit(plan.terms.clip_norm, plan.evaluation_share)
    hits, gains, count = (float(value) for value in tail)
    if count < 4.0 * deviation:
        return update, None
    hit_rate, ndcg = hits / count, gains / count
    return update, NoisyMetrics(
        hit_rate,
        ndcg,
        deviation / count * math.hypot(1.0, hit_rate),
        deviation / count * math.hypot(1.0, ndcg),
    )


def _unit(clip_norm: float, share: float) -> float:
    return clip_norm * share / math.sqrt(NUM_METRICS)
