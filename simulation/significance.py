"""Paired tests of two models on the same users. Paired, because users differ far more than models do.

Hit rate: the exact McNemar test on the users whom only one model served (for 0/1 outcomes the sign-flip permutation
test is the same thing). NDCG: the sign-flip permutation test (Fisher 1935), which Smucker, Allan & Carterette (2007)
recommend for rankings. Intervals: the paired bootstrap over users (Efron & Tibshirani 1993). They speak about
other users of this dataset under this protocol, not about other seeds of training or other datasets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from palate.errors import DataError
from palate.models import metrics
from palate.models.arrays import Float64Array
from palate.simulation.evaluation import Evaluation

BATCH_RESAMPLES = 250
"""Resamples held in memory at once."""


@dataclass(frozen=True)
class Difference:
    """Second model minus first model, averaged over users.

    Attributes
    ----------
    value
        The difference.
    low, high
        95 % bootstrap interval.
    p_value
        Two-sided, for no difference.
    effect
        The difference in standard deviations of the paired differences (Cohen 1988, d_z); 0 where all are alike.
    """

    value: float
    low: float
    high: float
    p_value: float
    effect: float


@dataclass(frozen=True)
class Comparison:
    """Two models on the same users.

    Attributes
    ----------
    hit_rate, ndcg
        Differences at the cut-off.
    only_first, only_second
        Users for whom only one of the models has a hit within the cut-off; McNemar's test uses these.
    """

    hit_rate: Difference
    ndcg: Difference
    only_first: int
    only_second: int


def compare(
    first: Evaluation,
    second: Evaluation,
    *,
    rng: np.random.Generator,
    ranking: str = "sampled",
    num_resamples: int = 9999,
) -> Comparison:
    """Compare two models that ranked the same held-out items of the same users.

    Parameters
    ----------
    first, second
        Evaluations with equal users in the same order, at least 2.
    rng
        Draws the permutations and the bootstrap samples.
    ranking
        "sampled" or "full".
    num_resamples
        Permutations and bootstrap samples; the smallest p-value of NDCG is about 2 / num_resamples.

    Raises
    ------
    DataError
        If the users, their held-out items or the cut-offs differ, or there are fewer than 2 users.
    """
    if first.top_k != second.top_k:
        raise DataError(f"cut-offs {first.top_k} and {second.top_k} differ", hint="evaluate both with one top_k")
    if not np.array_equal(first.users, second.users):
        counts = f"{len(first.users)} and {len(second.users)}"
        raise DataError(f"{counts} users do not match one to one", hint="evaluate both models on the same users")
    if differing := int(np.sum(first.target != second.target)):
        raise DataError(f"different items are held out for {differing:,} users", hint="evaluate both on one split")
    if len(first.users) < 2:
        raise DataError(f"{len(first.users)} users to compare, at least 2 are needed", hint="evaluate more users")
    ranks, k = (first.ranks(ranking), second.ranks(ranking)), first.top_k
    hits = metrics.hit_rate(ranks[1], k) - metrics.hit_rate(ranks[0], k)
    gains = metrics.ndcg(ranks[1], k) - metrics.ndcg(ranks[0], k)
    only_first, only_second = int(np.sum(hits < 0)), int(np.sum(hits > 0))
    return Comparison(
        hit_rate=_difference(hits, mcnemar_p_value(only_first, only_second), num_resamples, rng),
        ndcg=_difference(gains, permutation_p_value(gains, num_resamples=num_resamples, rng=rng), num_resamples, rng),
        only_first=only_first,
        only_second=only_second,
    )


def mcnemar_p_value(only_first: int, only_second: int) -> float:
    """Exact two-sided McNemar (1947) test: if only one model has a hit for a user, each is equally likely.

    Parameters
    ----------
    only_first, only_second
        Users with a hit of only one of the models; the result is 1.0 when there are none.
    """
    discordant = only_first + only_second
    return float(stats.binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


def permutation_p_value(differences: Float64Array, *, num_resamples: int, rng: np.random.Generator) -> float:
    """Two-sided sign-flip test that the mean of paired differences is 0.

    Parameters
    ----------
    differences
        One per user, float64 [m].
    num_resamples
        Sign patterns drawn; all of them are tried where there are no more than this.
    rng
        Draws the signs.
    """
    # Flipping the sign of 0 changes nothing, and both models agree on most users.
    changed = differences[differences != 0]
    if len(changed) == 0:
        return 1.0
    result = stats.permutation_test(
        (changed,),
        np.sum,
        permutation_type="samples",
        vectorized=True,
        n_resamples=num_resamples,
        batch=BATCH_RESAMPLES,
        rng=rng,
    )
    return float(result.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values of a family of tests, in the order given (Holm 1979): the chance of any false finding is kept.

    The i-th smallest of m is multiplied by m - i + 1. A larger p-value never becomes the smaller one, nor more than 1.
    """
    corrected, worst = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        worst = max(worst, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = worst
    return corrected


def _difference(values: Float64Array, p_value: float, num_resamples: int, rng: np.random.Generator) -> Difference:
    """Mean of paired differences with its bootstrap interval."""
    interval = stats.bootstrap(
        (values,), np.mean, n_resamples=num_resamples, batch=BATCH_RESAMPLES, method="percentile", rng=rng
    ).confidence_interval
    mean, spread = float(np.mean(values)), float(np.std(values, ddof=1))
    effect = mean / spread if spread > 0 else 0.0
    return Difference(mean, float(interval.low), float(interval.high), p_value, effect)
