"""Score every user once, rank the held-out item by both protocols, and say for whom it works.

Sampled ranks compare with published tables (He et al. 2017); ranks in the whole catalogue are what a person would
see (Krichene & Rendle 2020). Both come from one pass over batches of users, without a loop over users.
Everything here needs all users' histories at once: it exists in simulations only.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import polars as pl

from palate.errors import DataError
from palate.models import lists, metrics
from palate.models.arrays import Float32Array, Int32Array
from palate.models.histories import Histories
from palate.models.metrics import RankingMetrics
from palate.simulation.bands import Band, accuracy_by, by_activity, by_label, by_popularity
from palate.simulation.datasets.splits import HeldOut

BATCH_USERS = 512
"""Users scored at once; bounds memory to a few times so many rows of the catalogue."""


class Scorer(Protocol):
    """Anything that can score the catalogue for a batch of users."""

    def scores(self, users: Int32Array) -> Float32Array:
        """Score all items, higher is better, for users int32 [batch]: float32 [batch, num_items], all finite."""
        ...


@runtime_checkable
class CandidateScorer(Scorer, Protocol):
    """A scorer that can also score a few items without the whole row, for cheap validation every round."""

    def score_items(self, users: Int32Array, items: Int32Array) -> Float32Array:
        """Score items int32 [batch, candidates] for users int32 [batch]: float32 [batch, candidates]."""
        ...


@dataclass(frozen=True)
class Evaluation:
    """Ranks and lists of the users that have a held-out item.

    Attributes
    ----------
    users
        User indices, int32 [m].
    target
        Their held-out items, int32 [m].
    rank_sampled
        0-based rank among the fixed negatives, int32 [m].
    rank_full
        0-based rank among all items outside the history, int32 [m]; None after a cheap evaluation.
    top_items
        Recommendations, best first, history excluded, filled with -1, int32 [m, top_k]; None likewise.
    top_k
        Length of the lists and cut-off of the metrics.
    """

    users: Int32Array
    target: Int32Array
    rank_sampled: Int32Array
    rank_full: Int32Array | None
    top_items: Int32Array | None
    top_k: int

    @property
    def columns(self) -> dict[str, Int32Array]:
        """What is known of every user: `user`, `target`, `rank_sampled` and, unless cheap, `rank_full`, `top_items`."""
        known = {"user": self.users, "target": self.target, "rank_sampled": self.rank_sampled}
        if self.rank_full is not None and self.top_items is not None:
            known |= {"rank_full": self.rank_full, "top_items": self.top_items}
        return known

    @staticmethod
    def of_columns(columns: Mapping[str, Int32Array], top_k: int) -> Evaluation:
        """Make an evaluation from its `columns`; other columns are ignored."""
        user, target, rank = (columns[name] for name in ("user", "target", "rank_sampled"))
        return Evaluation(user, target, rank, columns.get("rank_full"), columns.get("top_items"), top_k)

    @staticmethod
    def concatenate(parts: Sequence[Evaluation]) -> Evaluation:
        """Join evaluations of disjoint users, such as those of several shards, in the order given.

        Raises
        ------
        DataError
            If there is nothing to join, or the parts differ in cut-off or in what they hold.
        """
        if not parts:
            raise DataError("0 evaluations to join, at least 1 is needed", hint="evaluate some users first")
        if len({(part.top_k, *part.columns) for part in parts}) > 1:
            raise DataError(f"{len(parts)} evaluations differ in cut-off or kind", hint="evaluate all shards alike")
        joined = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
        return Evaluation.of_columns(joined, parts[0].top_k)

    def metrics(self, ranking: str = "sampled") -> RankingMetrics:
        """Accuracy under one protocol, "sampled" or "full".

        Raises
        ------
        DataError
            If full ranks are asked for and were not computed, or there is no such protocol.
        """
        return RankingMetrics.from_ranks(self.ranks(ranking), self.top_k)

    def ranks(self, ranking: str) -> Int32Array:
        """Ranks under one protocol, "sampled" or "full", int32 [m]; raises DataError where there are none."""
        ranks = {"sampled": self.rank_sampled, "full": self.rank_full}.get(ranking)
        if ranks is None:
            raise DataError(
                f"no {ranking!r} ranks in this evaluation", hint='evaluate again with with_full=True, or use "sampled"'
            )
        return ranks

    def to_frame(self) -> pl.DataFrame:
        """One row per user for parquet: user, target, rank_sampled and, where known, rank_full, top_items."""
        return pl.DataFrame(self.columns)


def evaluate(
    scorer: Scorer,
    held_out: HeldOut,
    history: Histories,
    *,
    top_k: int = 10,
    with_full: bool = True,
) -> Evaluation:
    """Rank the held-out item of every user that has one.

    Parameters
    ----------
    scorer
        The model.
    held_out
        Held-out items and fixed negatives of all users.
    history
        What each user has had before the held-out item; not recommended again.
    top_k
        Length of the recommendation lists.
    with_full
        False ranks among the fixed negatives only, and uses the scorer's `score_items` where it has one.

    Raises
    ------
    DataError
        If no user has a held-out item, or the scorer's answer has the wrong shape.
    NonFiniteScoreError
        If the model's scores are not finite.
    """
    chosen = np.flatnonzero(held_out.item[: history.num_users] >= 0).astype(np.int32)
    if len(chosen) == 0:
        raise DataError(
            f"none of {history.num_users} users has a held-out item", hint="histories need at least 3 interactions"
        )
    batches = [chosen[start : start + BATCH_USERS] for start in range(0, len(chosen), BATCH_USERS)]
    return Evaluation.concatenate(
        [
            _rank_all(scorer, held_out, history, batch, top_k)
            if with_full
            else _rank_candidates(scorer, held_out, batch, top_k)
            for batch in batches
        ]
    )


def _rank_candidates(scorer: Scorer, held_out: HeldOut, users: Int32Array, top_k: int) -> Evaluation:
    """Rank among the fixed negatives only."""
    target = held_out.item[users]
    items = np.column_stack([target, held_out.negatives[users]])  # [batch, 1 + num_negatives]
    if isinstance(scorer, CandidateScorer):
        scores = scorer.score_items(users, items)
        _require_shape(scores, items.shape)
    else:
        rows = scorer.scores(users)
        _require_shape(rows, (len(users), rows.shape[-1]))
        scores = np.take_along_axis(rows, items, axis=1)
    competing = items[:, 1:] != target[:, None]
    ranks = metrics.ranks_sampled(scores[:, 0], scores[:, 1:], competing=competing)
    return Evaluation(users, target, ranks, None, None, top_k)


def _rank_all(scorer: Scorer, held_out: HeldOut, history: Histories, users: Int32Array, top_k: int) -> Evaluation:
    """Rank among the fixed negatives and in the whole catalogue, and recommend."""
    scores = scorer.scores(users)  # [batch, num_items]
    _require_shape(scores, (len(users), scores.shape[-1]))
    target, negatives = held_out.item[users], held_out.negatives[users]
    rows = np.arange(len(users))
    past = history.select(users)
    excluded = np.zeros(scores.shape, dtype=np.bool_)
    excluded[past.owners, past.items] = True
    return Evaluation(
        users=users,
        target=target,
        rank_sampled=metrics.ranks_sampled(
            scores[rows, target],
            np.take_along_axis(scores, negatives, axis=1),
            competing=negatives != target[:, None],
        ),
        rank_full=metrics.ranks_full(scores, target, excluded),
        top_items=lists.top_items(scores, excluded, top_k),
        top_k=top_k,
    )


def _require_shape(scores: Float32Array, expected: tuple[int, ...]) -> None:
    """Refuse scores of the wrong shape."""
    if scores.shape != expected:
        raise DataError(
            f"the scorer answered with shape {scores.shape}, expected {expected}", hint="fit it on the same users"
        )


@dataclass(frozen=True)
class BeyondAccuracy:
    """Properties of the recommendation lists, independent of accuracy.

    Attributes
    ----------
    coverage
        Share of the catalogue in at least one list.
    gini
        Inequality of exposure, 0 (equal) to 1.
    novelty
        Mean self-information of the recommendations, bits.
    diversity
        Mean pairwise cosine distance of public content inside a list; None without content.
    """

    coverage: float
    gini: float
    novelty: float
    diversity: float | None


@dataclass(frozen=True)
class Summary:
    """One model's results: accuracy under both protocols, beyond accuracy, and for whom.

    Attributes
    ----------
    sampled, full
        Accuracy over all users.
    beyond
        Properties of the lists.
    by_activity
        Quartiles of users by training interactions; fewer bands where many users share a length.
    by_popularity
        Users by how popular their held-out item is in training: "head" items hold the first 50 % of
        interactions, "mid" those up to 80 %, "tail" the rest.
    by_group
        Demographic groups, where the data has them.
    """

    sampled: RankingMetrics
    full: RankingMetrics
    beyond: BeyondAccuracy
    by_activity: tuple[Band, ...]
    by_popularity: tuple[Band, ...]
    by_group: dict[str, tuple[Band, ...]]

    def accuracy(self, ranking: str) -> RankingMetrics:
        """Accuracy under one protocol, "sampled" or "full"."""
        return self.sampled if ranking == "sampled" else self.full

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            "sampled": self.sampled.to_dict(),
            "full": self.full.to_dict(),
            "beyond": asdict(self.beyond),
            "by_activity": [band.to_dict() for band in self.by_activity],
            "by_popularity": [band.to_dict() for band in self.by_popularity],
            "by_group": {name: [band.to_dict() for band in bands] for name, bands in self.by_group.items()},
        }


def summarise(
    evaluation: Evaluation,
    *,
    train: Histories,
    num_items: int,
    content: Float32Array | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
) -> Summary:
    """Average an evaluation over users, and over the groups in which it may differ.

    Parameters
    ----------
    evaluation
        Ranks and lists.
    train
        Training histories of all users: activity, popularity and novelty are counted here.
    num_items
        Size of the catalogue.
    content
        Public content features, [num_items, k], for diversity.
    groups
        Text labels of all users, [num_users] each, by the name of the grouping.

    Raises
    ------
    DataError
        If the evaluation has no ranks in the whole catalogue.
    """
    counts = np.bincount(train.items, minlength=num_items)
    full, shown = evaluation.metrics("full"), evaluation.top_items
    if shown is None or evaluation.rank_full is None:
        raise DataError("0 lists to describe in this evaluation", hint="evaluate again with with_full=True")
    beyond = BeyondAccuracy(
        coverage=lists.coverage(shown, num_items),
        gini=lists.gini(lists.exposure(shown, num_items)),
        novelty=lists.novelty(shown, counts, train.num_users),
        diversity=lists.intra_list_diversity(shown, content) if content is not None else None,
    )

    ranks = evaluation.rank_sampled, evaluation.rank_full
    accuracy = functools.partial(accuracy_by, rank_sampled=ranks[0], rank_full=ranks[1], top_k=evaluation.top_k)
    labels = {name: np.asarray(values, dtype=np.str_)[evaluation.users] for name, values in (groups or {}).items()}
    return Summary(
        sampled=evaluation.metrics(),
        full=full,
        beyond=beyond,
        by_activity=accuracy(by_activity(train.lengths[evaluation.users])),
        by_popularity=accuracy(by_popularity(counts, evaluation.target)),
        by_group={name: accuracy(by_label(values)) for name, values in labels.items()},
    )
