"""Ranks and accuracy against hand-computed values and slow twins."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from palate.errors import ConfigError, PalateError
from palate.models import metrics
from palate.models.metrics import NonFiniteScoreError, RankingMetrics

# Few distinct values, so that ties are the rule and not the exception.
TIED_SCORES = hnp.arrays(np.float32, (5, 9), elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0]))
TARGETS = hnp.arrays(np.int32, 5, elements=st.integers(0, 8))
EXCLUDED = hnp.arrays(np.bool_, (5, 9))


def test_sampled_rank_counts_better_and_equal_negatives():
    target = np.array([0.5, 0.5, 0.5], dtype=np.float32)
    negatives = np.array([[0.1, 0.2, 0.3], [0.9, 0.5, 0.1], [0.5, 0.5, 0.5]], dtype=np.float32)
    assert metrics.ranks_sampled(target, negatives).tolist() == [0, 2, 3]


def test_a_constant_model_gets_the_worst_sampled_rank():
    assert metrics.ranks_sampled(np.zeros(4), np.zeros((4, 99))).tolist() == [99] * 4


def test_a_negative_that_does_not_compete_is_not_counted():
    ranks = metrics.ranks_sampled(np.zeros(1), np.array([[1.0, 1.0]]), competing=np.array([[True, False]]))
    assert ranks.tolist() == [1]


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused_wherever_they_stand(broken):
    good, bad = np.zeros((2, 3)), np.zeros((2, 3))
    bad[1, 2] = broken
    nobody = np.zeros((2, 3), dtype=bool)
    with pytest.raises(NonFiniteScoreError, match="1 of 6"):
        metrics.ranks_sampled(np.zeros(2), bad)
    with pytest.raises(NonFiniteScoreError):
        metrics.ranks_sampled(bad[:, 2], good)
    with pytest.raises(NonFiniteScoreError):
        metrics.ranks_full(bad, np.zeros(2, dtype=np.int32), nobody)


def test_a_refusal_is_both_a_value_error_and_an_error_with_a_hint():
    with pytest.raises(ValueError, match="1 of 1") as caught:
        metrics.require_finite(np.array([np.nan]))
    assert isinstance(caught.value, PalateError)
    assert caught.value.hint


@given(TIED_SCORES, TARGETS, EXCLUDED)
def test_full_rank_equals_a_loop_over_items(scores, target, excluded):
    expected = [
        sum(
            1
            for item in range(9)
            if item != target[user] and not excluded[user, item] and scores[user, item] >= scores[user, target[user]]
        )
        for user in range(5)
    ]
    assert metrics.ranks_full(scores, target, excluded).tolist() == expected


@given(TIED_SCORES, TARGETS, EXCLUDED)
def test_ranking_leaves_its_inputs_alone(scores, target, excluded):
    before = scores.copy(), target.copy(), excluded.copy()
    metrics.ranks_full(scores, target, excluded)
    for now, then in zip((scores, target, excluded), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_accuracy_of_known_ranks():
    ranks = np.array([0, 2, 10, 25])
    found = RankingMetrics.from_ranks(ranks, top_k=10).to_dict()
    assert found["users"] == 4
    assert found["hr@10"] == 0.5
    assert found["recall@10"] == 0.5
    assert found["recall@20"] == 0.75
    assert found["precision@10"] == pytest.approx(0.05)
    assert found["f1@10"] == pytest.approx(0.5 * 2 / 11)
    assert found["ndcg@10"] == pytest.approx((1 + 1 / math.log2(4)) / 4)
    assert found["mrr"] == pytest.approx((1 + 1 / 3 + 1 / 11 + 1 / 26) / 4)


@given(hnp.arrays(np.int32, st.integers(1, 30), elements=st.integers(0, 40)), st.integers(1, 12))
def test_accuracy_equals_definitions_on_explicit_lists(ranks, k):
    hits, gains, harmonic = [], [], []
    for rank in ranks:
        relevant = [position == rank for position in range(k)]
        gain = sum(flag / math.log2(position + 2) for position, flag in enumerate(relevant))
        p, r = sum(relevant) / k, sum(relevant) / 1
        hits.append(any(relevant))
        gains.append(gain)
        harmonic.append(2 * p * r / (p + r) if p + r else 0.0)
    found = RankingMetrics.from_ranks(ranks, top_k=k)
    assert found.hit_rate.value == pytest.approx(np.mean(hits))
    assert found.ndcg.value == pytest.approx(np.mean(gains))
    assert found.values[f"f1@{k}"] == pytest.approx(np.mean(harmonic))
    assert found.values[f"precision@{k}"] == pytest.approx(np.mean(hits) / k)


@given(hnp.arrays(np.int32, st.integers(1, 40), elements=st.integers(0, 20)))
def test_intervals_contain_the_estimate_and_stay_in_range(ranks):
    found = RankingMetrics.from_ranks(ranks)
    for estimate in (found.hit_rate, found.ndcg):
        assert 0.0 <= estimate.low <= estimate.value <= estimate.high <= 1.0


def test_interval_of_a_share_is_wilsons():
    # Newcombe (1998), table I: 81 of 263 gives 0.2553 to 0.3662.
    found = metrics.estimate_rate(np.repeat([1.0, 0.0], [81, 182]))
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)


def test_no_hits_among_few_users_does_not_look_certain():
    assert metrics.estimate_rate(np.zeros(10)).high > 0.2


def test_normal_interval_covers_the_mean_nineteen_times_in_twenty():
    rng = np.random.default_rng(0)
    samples = rng.beta(2.0, 5.0, (2000, 200))
    covered = [found.low <= 2 / 7 <= found.high for found in map(metrics.estimate_mean, samples)]
    assert 0.93 < np.mean(covered) < 0.97


@pytest.mark.parametrize(("ranks", "top_k"), [(np.array([], dtype=np.int32), 10), (np.array([1]), 0)])
def test_averages_over_nobody_and_empty_lists_are_refused(ranks, top_k):
    with pytest.raises(ConfigError):
        RankingMetrics.from_ranks(ranks, top_k)
