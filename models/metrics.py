"""How good a ranking is: the rank of a held-out item, and the accuracy that follows from it.

Two protocols, always both, because sampled metrics alone mislead (Krichene & Rendle 2020): the rank of
the held-out item among its fixed negatives (He et al. 2017) and its rank in the whole catalogue. A rank is
0-based. Ties count against the model, and scores that are not finite are refused: a NaN loses
every comparison, so it would put the held-out item first and report a perfect model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from palate.errors import ConfigError, PalateError
from palate.models.arrays import BoolArray, Float64Array, FloatingArray, Int32Array, IntegerArray

Z95 = 1.959963984540054
"""97.5 % quantile of the standard normal distribution: two-sided 95 % intervals."""


class NonFiniteScoreError(PalateError, ValueError):
    """A model gave NaN or infinite scores, which cannot be ranked."""


def require_finite(scores: FloatingArray) -> None:
    """Refuse scores that cannot be ranked.

    Parameters
    ----------
    scores
        Floats of any shape.

    Raises
    ------
    NonFiniteScoreError
        If any score is NaN or infinite.
    """
    broken = scores.size - int(np.count_nonzero(np.isfinite(scores)))
    if broken:
        raise NonFiniteScoreError(
            f"{broken} of {scores.size} scores are not finite numbers",
            hint="the model has diverged; lower its learning rate or raise its regularisation",
        )


def ranks_sampled(
    target_scores: FloatingArray, negative_scores: FloatingArray, *, competing: BoolArray | None = None
) -> Int32Array:
    """Rank of each held-out item among its sampled negatives, ties against the model.

    Parameters
    ----------
    target_scores
        Score of the held-out item, [num_users].
    negative_scores
        Scores of the sampled negatives, [num_users, num_negatives].
    competing
        Which negatives take part; all of them by default. NCF's published files list some users' own
        test item among their negatives, and an item does not compete with itself.

    Returns
    -------
    int32 [num_users]
        0 where the held-out item beats every negative.

    Raises
    ------
    NonFiniteScoreError
        If any score is NaN or infinite.
    """
    require_finite(target_scores)
    require_finite(negative_scores)
    ahead = negative_scores >= target_scores[:, None]  # [num_users, num_negatives]
    if competing is not None:
        ahead &= competing
    ranks: Int32Array = ahead.sum(axis=1, dtype=np.int32)
    return ranks


def ranks_full(scores: FloatingArray, target: IntegerArray, excluded: BoolArray) -> Int32Array:
    """Rank of each held-out item among all items that the user has not had yet, ties against the model.

    Parameters
    ----------
    scores
        Scores of the whole catalogue, [num_users, num_items].
    target
        Held-out item, [num_users].
    excluded
        Items that are not recommended again (the history), [num_users, num_items]. The held-out item
        never counts against itself, excluded or not.

    Returns
    -------
    int32 [num_users]
        0 where the held-out item beats every other item.

    Raises
    ------
    NonFiniteScoreError
        If any score is NaN or infinite.
    """
    require_finite(scores)
    rows = np.arange(len(target))
    ahead = scores >= scores[rows, target][:, None]  # [num_users, num_items]
    ahead &= ~excluded
    ahead[rows, target] = False
    ranks: Int32Array = ahead.sum(axis=1, dtype=np.int32)
    return ranks


def hit_rate(ranks: IntegerArray, k: int) -> Float64Array:
    """Whether the held-out item is among the first k; the mean over users is HR@k, and with one target recall@k."""
    return (ranks < k).astype(np.float64)


def ndcg(ranks: IntegerArray, k: int) -> Float64Array:
    """Discounted gain 1 / log2(rank + 2) inside the first k, else 0; the ideal gain of one target is 1."""
    return hit_rate(ranks, k) / np.log2(ranks.astype(np.float64) + 2.0)


@dataclass(frozen=True)
class Estimate:
    """A mean over users with its sampling error.

    Attributes
    ----------
    value
        The mean.
    standard_error
        Standard error of the mean over users.
    low, high
        95 % confidence interval.
    """

    value: float
    standard_error: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Plain numbers for JSON."""
        return {"value": self.value, "se": self.standard_error, "low": self.low, "high": self.high}


def estimate_rate(hits: FloatingArray) -> Estimate:
    """Estimate a share from 0/1 outcomes with Wilson's (1927) interval, which stays valid near 0 and 1.

    Parameters
    ----------
    hits
        0 or 1 per user, [num_users], num_users >= 1.
    """
    n, p = len(hits), float(np.mean(hits))
    centre = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * float(np.sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2)))
    # Rounding error could otherwise put the bound slightly outside [0, 1].
    low, high = max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))
    return Estimate(p, float(np.sqrt(p * (1 - p) / n)), low, high)


def estimate_mean(values: FloatingArray) -> Estimate:
    """Estimate the mean of values in [0, 1] with the normal interval, cut to [0, 1].

    Parameters
    ----------
    values
        One value per user, [num_users], num_users >= 1. For a single user the interval is the whole of [0, 1].
    """
    mean = float(np.mean(values))
    if len(values) == 1:
        return Estimate(mean, 0.5, 0.0, 1.0)
    error = float(np.std(values, ddof=1) / np.sqrt(len(values)))
    return Estimate(mean, error, max(0.0, mean - Z95 * error), min(1.0, mean + Z95 * error))


@dataclass(frozen=True)
class RankingMetrics:
    """Accuracy of one model under one protocol, averaged over users.

    Attributes
    ----------
    num_users
        Users that had a held-out item.
    top_k
        Cut-off of hit rate, NDCG, precision and F1; recall is also given at twice that.
    hit_rate, ndcg
        With standard error and 95 % interval over users.
    recall_wide, mrr
        Means; `recall_wide` is at 2 * top_k.
    """

    num_users: int
    top_k: int
    hit_rate: Estimate
    ndcg: Estimate
    recall_wide: float
    mrr: float

    @classmethod
    def from_ranks(cls, ranks: IntegerArray, top_k: int = 10) -> RankingMetrics:
        """Average over users.

        Parameters
        ----------
        ranks
            0-based rank of the held-out item, [num_users].
        top_k
            Cut-off.

        Raises
        ------
        ConfigError
            If there are no users, or the cut-off is not positive.
        """
        if len(ranks) == 0:
            raise ConfigError(
                "0 users have a held-out item, at least 1 is needed", hint="use users with longer histories"
            )
        if top_k < 1:
            raise ConfigError(f"top_k is {top_k}, it must be at least 1", hint="a usual cut-off is 10")
        return cls(
            num_users=len(ranks),
            top_k=top_k,
            hit_rate=estimate_rate(hit_rate(ranks, top_k)),
            ndcg=estimate_mean(ndcg(ranks, top_k)),
            recall_wide=float(np.mean(hit_rate(ranks, 2 * top_k))),
            mrr=float(np.mean(1.0 / (ranks.astype(np.float64) + 1.0))),
        )

    @property
    def values(self) -> dict[str, float]:
        """Means by their published names, such as "hr@10".

        One item can be right, so recall at the cut-off is the hit rate, precision is 1/k on a hit, and their harmonic
        mean is 2 / (k + 1) on a hit.
        """
        k, hits = self.top_k, self.hit_rate.value
        return {
            f"hr@{k}": hits,
            f"ndcg@{k}": self.ndcg.value,
            f"recall@{k}": hits,
            f"recall@{2 * k}": self.recall_wide,
            f"precision@{k}": hits / k,
            f"f1@{k}": hits * (2.0 / (k + 1.0)),
            "mrr": self.mrr,
        }

    @property
    def intervals(self) -> dict[str, Estimate]:
        """Those with a sampling error, by their published names."""
        return {f"hr@{self.top_k}": self.hit_rate, f"ndcg@{self.top_k}": self.ndcg}

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON by their published names; intervals under "intervals"."""
        intervals = {name: found.to_dict() for name, found in self.intervals.items()}
        return {"users": self.num_users, **self.values, "intervals": intervals}

    @staticmethod
    def fields_of(values: Mapping[str, Any]) -> dict[str, Any]:
        """Turn what `to_dict` gave back into arguments of this class, their types unchecked.

        Raises
        ------
        ValueError
            If there is not one cut-off, or a number is missing.
        """
        cuts = [name.removeprefix("hr@") for name in values if name.startswith("hr@")]
        if len(cuts) != 1 or not cuts[0].isdigit() or (k := int(cuts[0])) < 1:
            raise ValueError("not one hit rate at one cut-off")
        try:
            estimates = {
                field: {"standard_error": own["se"], **{part: own[part] for part in ("value", "low", "high")}}
                for field, own in (
                    ("hit_rate", values["intervals"][f"hr@{k}"]),
                    ("ndcg", values["intervals"][f"ndcg@{k}"]),
                )
            }
            means = {"num_users": values["users"], "recall_wide": values[f"recall@{2 * k}"], "mrr": values["mrr"]}
        except (KeyError, TypeError) as error:
            raise ValueError(f"no {error}") from None
        return {"top_k": k, **estimates, **means}
