"""A device's own test of a table agrees with the protocol's arithmetic, and its candidates with nobody else's data."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from palate.client.release import NUM_NEGATIVES, TOP_K, device_metrics, draw_candidates
from palate.models.sampling import draw_items, stream

KEYS = np.arange(1, 401, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
TARGETS = np.arange(400, dtype=np.int32) % 50


def scores_with_rank(rank: int) -> np.ndarray:
    """A held-back item with so many negatives above it."""
    scores = np.zeros((1, 1 + NUM_NEGATIVES), np.float32)
    scores[0, 0] = 0.5
    scores[0, 1 : 1 + rank] = 1.0
    return scores


ALL = np.ones((1, NUM_NEGATIVES), dtype=np.bool_)


def test_the_held_back_item_comes_first_and_negatives_from_the_whole_catalogue():
    candidates = draw_candidates(KEYS, TARGETS, 50)
    assert candidates.shape == (400, 1 + NUM_NEGATIVES)
    assert candidates.dtype == np.int32
    np.testing.assert_array_equal(candidates[:, 0], TARGETS)
    counts = np.bincount(candidates[:, 1:].ravel(), minlength=50)
    assert len(counts) == 50
    assert stats.chisquare(counts).pvalue > 1e-4


def test_candidates_repeat_with_their_key_and_do_not_depend_on_who_is_beside():
    whole = draw_candidates(KEYS, TARGETS, 50)
    np.testing.assert_array_equal(draw_candidates(KEYS[17:18], TARGETS[17:18], 50)[0], whole[17])
    assert len({row.tobytes() for row in whole[:, 1:]}) == len(whole)


def test_candidates_share_no_stream_with_local_training():
    """Streams 2e and 2e + 1 belong to epoch e."""
    candidates = draw_candidates(KEYS[:1], TARGETS[:1], 1 << 20)[0, 1:]
    for number in range(40):
        drawn = draw_items(stream(KEYS[:1], number)[:, None], np.arange(NUM_NEGATIVES)[None], 1 << 20)[0]
        assert np.intersect1d(candidates, drawn).size <= 2


@pytest.mark.parametrize("rank", [0, 1, TOP_K - 1, TOP_K, NUM_NEGATIVES])
def test_hit_and_gain_follow_the_rank(rank):
    hit, gain, one = device_metrics(scores_with_rank(rank), ALL)[0]
    assert hit == (rank < TOP_K)
    assert gain == pytest.approx(1 / np.log2(rank + 2) if rank < TOP_K else 0.0)
    assert one == 1.0


def test_negatives_that_the_person_knows_do_not_compete():
    competing = ALL.copy()
    competing[0, :30] = False
    np.testing.assert_array_equal(device_metrics(scores_with_rank(30), competing), [[1.0, 1.0, 1.0]])
    assert device_metrics(scores_with_rank(30), ALL)[0, 0] == 0.0


def test_metrics_lie_in_the_unit_interval_whatever_the_scores():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(300, 1 + NUM_NEGATIVES)).astype(np.float32)
    scores[:100] = 0.0  # ties
    metrics = device_metrics(scores, rng.random((300, NUM_NEGATIVES)) < 0.7)
    assert metrics.dtype == np.float32
    assert metrics.shape == (300, 3)
    assert (metrics >= 0).all()
    assert (metrics <= 1).all()
    assert (metrics[:, 1] <= metrics[:, 0]).all()


def test_a_table_that_knows_nothing_hits_one_time_in_ten():
    rng = np.random.default_rng(2)
    scores = rng.normal(size=(4000, 1 + NUM_NEGATIVES)).astype(np.float32)
    hits = device_metrics(scores, np.ones((4000, NUM_NEGATIVES), dtype=np.bool_))[:, 0]
    assert stats.binomtest(int(hits.sum()), 4000, TOP_K / (1 + NUM_NEGATIVES)).pvalue > 1e-4
