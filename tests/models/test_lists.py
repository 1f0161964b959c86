"""Recommendation lists and their properties against hand-computed values and slow twins."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from palate.errors import ConfigError
from palate.models import lists
from palate.models.lists import NO_ITEM, best_items
from palate.models.metrics import NonFiniteScoreError

TIED_SCORES = hnp.arrays(np.float32, (4, 8), elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0]))
EXCLUDED = hnp.arrays(np.bool_, (4, 8))


@given(TIED_SCORES, EXCLUDED, st.integers(1, 10))
def test_top_items_equal_a_full_sort_with_ties_in_item_order(scores, excluded, top_k):
    expected = []
    for row, gone in zip(scores, excluded, strict=True):
        best = sorted((item for item in range(8) if not gone[item]), key=lambda item: (-row[item], item))[:top_k]
        expected.append(best + [NO_ITEM] * (top_k - len(best)))
    assert lists.top_items(scores, excluded, top_k).tolist() == expected


def test_top_items_refuse_scores_that_are_not_finite_and_empty_lists():
    nobody = np.zeros((1, 2), dtype=bool)
    with pytest.raises(NonFiniteScoreError):
        lists.top_items(np.array([[np.nan, 0.0]]), nobody, 1)
    with pytest.raises(ConfigError, match="length is 0"):
        lists.top_items(np.zeros((1, 2)), nobody, 0)


def test_coverage_counts_items_shown_at_least_once():
    assert lists.coverage(np.array([[0, 1], [1, NO_ITEM]]), 4) == 0.5


def test_gini_is_zero_for_equal_exposure_and_largest_for_one_item():
    assert lists.gini(np.array([3, 3, 3, 3])) == pytest.approx(0.0)
    assert lists.gini(np.array([0, 0, 0, 7])) == pytest.approx(0.75)
    assert lists.gini(np.zeros(3, dtype=np.int64)) == 0.0


@given(hnp.arrays(np.int64, st.integers(1, 12), elements=st.integers(0, 50)).filter(lambda counts: counts.sum() > 0))
def test_gini_equals_half_the_relative_mean_absolute_difference(counts):
    pairs = [abs(a - b) for a, b in itertools.product(counts.tolist(), repeat=2)]
    assert lists.gini(counts) == pytest.approx(np.mean(pairs) / (2 * counts.mean()))


def test_novelty_is_self_information_in_bits():
    users = np.array([8, 4, 1, 0])
    assert lists.novelty(np.array([[0, 1]]), users, 8) == pytest.approx(0.5)
    assert lists.novelty(np.array([[2, NO_ITEM]]), users, 8) == pytest.approx(3.0)
    assert lists.novelty(np.array([[3]]), users, 8) == pytest.approx(3.0)
    assert lists.novelty(np.array([[NO_ITEM]]), users, 8) == 0.0


def test_diversity_of_equal_orthogonal_and_opposite_items():
    features = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    assert lists.intra_list_diversity(np.array([[0, 1]]), features) == pytest.approx(0.0)
    assert lists.intra_list_diversity(np.array([[0, 2]]), features) == pytest.approx(1.0)
    assert lists.intra_list_diversity(np.array([[0, 3]]), features) == pytest.approx(2.0)


@given(
    hnp.arrays(np.float64, (6, 3), elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0])),
    st.lists(st.permutations(range(-1, 6)).map(lambda order: order[:4]), min_size=1, max_size=5),
)
def test_diversity_equals_a_loop_over_pairs_with_content(features, chosen):
    per_user = []
    for row in chosen:
        known = [item for item in row if item != NO_ITEM and features[item].any()]
        pairs = [
            1 - features[a] @ features[b] / (np.linalg.norm(features[a]) * np.linalg.norm(features[b]))
            for a, b in itertools.combinations(known, 2)
        ]
        if pairs:
            per_user.append(np.mean(pairs))
    found = lists.intra_list_diversity(np.array(chosen), features)
    assert found == (pytest.approx(np.mean(per_user)) if per_user else None)


def test_without_content_there_is_no_diversity():
    assert lists.intra_list_diversity(np.array([[0, 1]]), np.zeros((2, 0))) is None


LEVELS = hnp.arrays(np.float32, st.integers(1, 3000), elements=st.sampled_from([-1.0, 0.0, 0.25, 2.0]))


@given(LEVELS, st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_best_items_are_those_of_a_full_sort_with_ties_in_item_order(scores, seed, count):
    allowed = np.random.default_rng(seed).random(len(scores)) < 0.7
    order = np.argsort(-scores, kind="stable")
    assert best_items(scores, allowed, count).tolist() == order[allowed[order]][:count].tolist()


def test_blocks_cut_nothing_that_belongs_in_the_list():
    scores = np.random.default_rng(0).normal(size=50_000).astype(np.float32)
    assert (
        best_items(scores, np.ones(50_000, dtype=bool), 25).tolist() == np.argsort(-scores, kind="stable")[:25].tolist()
    )


def test_scores_that_are_not_finite_and_empty_lists_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        best_items(np.array([0.0, np.nan]), np.ones(2, dtype=bool), 1)
    with pytest.raises(ConfigError, match="length is 0"):
        best_items(np.zeros(2), np.ones(2, dtype=bool), 0)
