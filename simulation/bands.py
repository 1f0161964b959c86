"""Groups of users, to see for whom a recommender works: by activity, by popularity of the item, by label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from palate.models.arrays import BoolArray, Int32Array, Int64Array, IntegerArray, StrArray
from palate.models.metrics import RankingMetrics

POPULARITY_BANDS = ((0.5, "head"), (0.8, "mid"), (1.0, "tail"))
"""Items from most to least popular, cut where they hold this share of all training interactions."""


Groups = dict[str, BoolArray]
"""Disjoint groups of users by name: who belongs to each, bool [m]."""


@dataclass(frozen=True)
class Band:
    """Accuracy in one group of users.

    Attributes
    ----------
    label
        Who: "1 to 24 interactions", "head", "F".
    sampled, full
        Their accuracy under both protocols.
    """

    label: str
    sampled: RankingMetrics
    full: RankingMetrics

    @property
    def users(self) -> int:
        """How many."""
        return self.sampled.num_users

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            "label": self.label,
            "users": self.users,
            "sampled": self.sampled.to_dict(),
            "full": self.full.to_dict(),
        }


def by_activity(lengths: Int64Array) -> Groups:
    """Quartiles of users by history length, fewer where many share a length: equals stay together.

    Parameters
    ----------
    lengths
        Training interactions per user, int64 [m], m >= 1.
    """
    edges = np.unique(np.quantile(lengths, [0.25, 0.5, 0.75], method="inverted_cdf"))
    quartile = np.searchsorted(edges, lengths, side="left")
    groups = {}
    for band in np.unique(quartile):  # without quartiles that have nobody
        inside = quartile == band
        low, high = int(lengths[inside].min()), int(lengths[inside].max())
        span = f"{low} to {high}" if low < high else f"{low}"
        groups[f"{span} interaction{'' if high == 1 else 's'}"] = inside
    return groups


def by_popularity(counts: IntegerArray, items: Int32Array) -> Groups:
    """Users by whether their item is in the head, the middle or the tail of the catalogue (POPULARITY_BANDS).

    Parameters
    ----------
    counts
        Training interactions per item, [num_items].
    items
        One item per user, int32 [m].
    """
    order = np.argsort(-counts, kind="stable")
    # An item belongs where the interactions of more popular items end, so the most popular one is always head.
    before = np.cumsum(counts[order]) - counts[order]
    edges = [share * counts.sum() for share, _ in POPULARITY_BANDS[:-1]]
    band = np.empty(len(counts), dtype=np.int64)
    band[order] = np.searchsorted(edges, before, side="right")
    return {label: band[items] == place for place, (_, label) in enumerate(POPULARITY_BANDS)}


def by_label(values: Sequence[str] | StrArray) -> Groups:
    """Users with equal labels, groups in alphabetical order; values are text, [m]."""
    labels = np.asarray(values, dtype=np.str_)
    return {str(label): labels == label for label in np.unique(labels)}


def accuracy_by(groups: Groups, rank_sampled: Int32Array, rank_full: Int32Array, *, top_k: int) -> tuple[Band, ...]:
    """Accuracy in each group that has users.

    Parameters
    ----------
    groups
        Who belongs where; a group may be empty.
    rank_sampled, rank_full
        0-based ranks of the same users, int32 [m].
    top_k
        Cut-off of the metrics.
    """
    return tuple(
        Band(
            label,
            RankingMetrics.from_ranks(rank_sampled[inside], top_k),
            RankingMetrics.from_ranks(rank_full[inside], top_k),
        )
        for label, inside in groups.items()
        if inside.any()
    )
