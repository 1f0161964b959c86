"""Evaluation of scorers by both protocols, against a loop over users."""

import json
from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest
from pydantic import TypeAdapter

from palate.errors import DataError
from palate.models.histories import Histories
from palate.models.metrics import NonFiniteScoreError
from palate.simulation import evaluation
from palate.simulation.datasets.splits import HeldOut
from palate.simulation.evaluation import Evaluation, evaluate, summarise
from palate.simulation.report.records import ReadSummary

NUM_USERS, NUM_ITEMS = 23, 17


@dataclass
class TableScorer:
    """Scores looked up in a matrix."""

    table: np.ndarray

    def scores(self, users):
        return self.table[users]


@dataclass
class CandidateTableScorer(TableScorer):
    """Remembers which way it was asked."""

    rows_scored: int = 0

    def scores(self, users):
        self.rows_scored += len(users)
        return self.table[users]

    def score_items(self, users, items):
        return self.table[users[:, None], items]


@pytest.fixture
def world():
    rng = np.random.default_rng(3)
    sequences = [rng.permutation(NUM_ITEMS)[: rng.integers(3, 9)] for _ in range(NUM_USERS)]
    target = np.array([sequence[-1] for sequence in sequences], dtype=np.int32)
    target[[4, 20]] = -1
    indptr = np.concatenate([[0], np.cumsum([len(sequence) - 1 for sequence in sequences])]).astype(np.int64)
    history = Histories(indptr, np.concatenate([sequence[:-1] for sequence in sequences]).astype(np.int32))
    negatives = np.stack([rng.choice(NUM_ITEMS, 5, replace=False) for _ in range(NUM_USERS)]).astype(np.int32)
    table = rng.integers(0, 6, (NUM_USERS, NUM_ITEMS)).astype(np.float32)
    return TableScorer(table), HeldOut(target, negatives), history


def slow_ranks(table, held_out, history, user):
    target, past = held_out.item[user], set(history.of(user).tolist())
    bar = table[user, target]
    sampled = sum(table[user, item] >= bar for item in held_out.negatives[user] if item != target)
    full = sum(table[user, item] >= bar for item in range(NUM_ITEMS) if item != target and item not in past)
    return sampled, full


def among(held_out, users):
    """Held-out items of these users alone."""
    return HeldOut(
        np.where(np.isin(np.arange(NUM_USERS), users), held_out.item, -1).astype(np.int32), held_out.negatives
    )


@pytest.mark.parametrize("batch_users", [1, 4, 512])
def test_ranks_and_lists_equal_a_loop_over_users_for_any_batch_size(world, batch_users, monkeypatch):
    monkeypatch.setattr(evaluation, "BATCH_USERS", batch_users)
    scorer, held_out, history = world
    found = evaluate(scorer, held_out, history, top_k=4)
    users = [user for user in range(NUM_USERS) if held_out.item[user] >= 0]
    assert found.users.tolist() == users
    assert found.target.tolist() == held_out.item[users].tolist()
    expected = [slow_ranks(scorer.table, held_out, history, user) for user in users]
    assert list(zip(found.rank_sampled.tolist(), found.rank_full.tolist(), strict=True)) == expected
    for user, top in zip(users, found.top_items, strict=True):
        unseen = [item for item in range(NUM_ITEMS) if item not in history.of(user)]
        assert top.tolist() == sorted(unseen, key=lambda item: (-scorer.table[user, item], item))[:4]


def test_cheap_evaluation_gives_the_same_sampled_ranks_without_scoring_rows(world):
    scorer, held_out, history = world
    candidate = CandidateTableScorer(scorer.table)
    whole = evaluate(scorer, held_out, history)
    for cheap in (
        evaluate(candidate, held_out, history, with_full=False),
        evaluate(scorer, held_out, history, with_full=False),
    ):
        np.testing.assert_array_equal(cheap.rank_sampled, whole.rank_sampled)
        assert cheap.rank_full is None
        assert cheap.top_items is None
    assert candidate.rows_scored == 0


def test_an_item_among_its_own_negatives_does_not_beat_itself(world):
    scorer, held_out, history = world
    held_out.negatives[:, 0] = held_out.item
    best = scorer.table.copy()
    users = np.flatnonzero(held_out.item >= 0)
    best[users, held_out.item[users]] = 100.0
    for with_full in (True, False):
        assert evaluate(TableScorer(best), held_out, history, with_full=with_full).rank_sampled.max() == 0


def test_only_users_with_a_held_out_item_are_evaluated(world):
    scorer, held_out, history = world
    found = evaluate(scorer, among(held_out, [9, 4, 2]), history)
    assert held_out.item[4] < 0
    assert found.users.tolist() == [2, 9]


@pytest.mark.parametrize("with_full", [True, False])
def test_a_diverged_model_is_refused_instead_of_ranked_first(world, with_full):
    scorer, held_out, history = world
    broken = np.full_like(scorer.table, np.nan)
    with pytest.raises(NonFiniteScoreError):
        evaluate(TableScorer(broken), held_out, history, with_full=with_full)


def test_no_held_out_items_and_wrong_shapes_are_refused(world):
    scorer, held_out, history = world
    with pytest.raises(DataError, match="none of 23 users"):
        evaluate(scorer, HeldOut(np.full(NUM_USERS, -1, dtype=np.int32), held_out.negatives), history)
    transposed = CandidateTableScorer(scorer.table)
    transposed.score_items = lambda users, items: np.zeros(items.shape[::-1])
    with pytest.raises(DataError, match="shape"):
        evaluate(transposed, held_out, history, with_full=False)


def test_joined_parts_equal_the_whole(world):
    scorer, held_out, history = world
    whole = evaluate(scorer, held_out, history)
    parts = [evaluate(scorer, among(held_out, users), history) for users in np.array_split(np.arange(NUM_USERS), 3)]
    assert Evaluation.concatenate(parts).to_frame().equals(whole.to_frame())


def test_parts_of_different_kinds_are_not_joined(world):
    scorer, held_out, history = world
    whole, cheap = (evaluate(scorer, held_out, history, with_full=flag) for flag in (True, False))
    with pytest.raises(DataError, match="differ"):
        Evaluation.concatenate([whole, cheap])
    with pytest.raises(DataError):
        Evaluation.concatenate([])
    with pytest.raises(DataError, match="full"):
        cheap.metrics("full")


def test_the_frame_survives_parquet(world, tmp_path):
    scorer, held_out, history = world
    found = evaluate(scorer, held_out, history, top_k=3)
    frame = found.to_frame()
    frame.write_parquet(tmp_path / "ranks.parquet")
    back = pl.read_parquet(tmp_path / "ranks.parquet")
    assert back.columns == ["user", "target", "rank_sampled", "rank_full", "top_items"]
    assert back["rank_full"].to_list() == found.rank_full.tolist()
    assert back["top_items"].to_list() == found.top_items.tolist()


def test_summary_bands_partition_the_users_and_average_to_the_whole(world):
    scorer, held_out, history = world
    found = evaluate(scorer, held_out, history, top_k=3)
    labels = ["F", "M"] * 11 + ["F"]
    summary = summarise(
        found,
        train=history,
        num_items=NUM_ITEMS,
        content=np.eye(NUM_ITEMS, dtype=np.float32),
        groups={"gender": labels},
    )
    for bands in (summary.by_activity, summary.by_popularity, summary.by_group["gender"]):
        sizes = [band.sampled.num_users for band in bands]
        assert sum(sizes) == len(found.users)
        for ranking in ("sampled", "full"):
            parts = [getattr(band, ranking).hit_rate.value for band in bands]
            whole = getattr(summary, ranking).hit_rate.value
            assert np.average(parts, weights=sizes) == pytest.approx(whole)
    assert [band.label for band in summary.by_group["gender"]] == ["F", "M"]
    women = np.array(labels)[found.users] == "F"
    assert summary.by_group["gender"][0].sampled.hit_rate.value == np.mean(found.rank_sampled[women] < 3)
    assert summary.beyond.diversity == pytest.approx(1.0)


def test_summary_is_json_with_the_keys_of_published_tables(world):
    scorer, held_out, history = world
    found = evaluate(scorer, held_out, history)
    summary = summarise(found, train=history, num_items=NUM_ITEMS)
    told = json.loads(json.dumps(summary.to_dict(), allow_nan=False))
    for ranking in ("sampled", "full"):
        assert {"hr@10", "ndcg@10", "recall@20", "precision@10", "f1@10", "mrr"} <= set(told[ranking])
    assert set(told["beyond"]) == {"coverage", "gini", "novelty", "diversity"}
    assert TypeAdapter(ReadSummary).validate_python(told) == summary


def test_a_cheap_evaluation_is_not_summarised(world):
    scorer, held_out, history = world
    with pytest.raises(DataError):
        summarise(evaluate(scorer, held_out, history, with_full=False), train=history, num_items=NUM_ITEMS)
