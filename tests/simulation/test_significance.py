"""Paired tests: known answers, calibration under no difference, and refusals."""

import itertools
from dataclasses import replace
from math import comb

import numpy as np
import pytest

from palate.errors import DataError
from palate.simulation.evaluation import Evaluation
from palate.simulation.significance import compare, holm, mcnemar_p_value, permutation_p_value


def evaluation(ranks, users=None):
    ranks = np.asarray(ranks, dtype=np.int32)
    users = np.arange(len(ranks), dtype=np.int32) if users is None else users
    return Evaluation(users, np.zeros_like(ranks), ranks, None, None, 10)


def test_mcnemar_is_the_two_sided_binomial_tail():
    tail = sum(comb(12, k) for k in range(3)) / 2**12
    assert mcnemar_p_value(2, 10) == pytest.approx(2 * tail)
    assert mcnemar_p_value(10, 2) == pytest.approx(2 * tail)
    assert mcnemar_p_value(4, 4) == 1.0
    assert mcnemar_p_value(0, 0) == 1.0


def test_permutation_test_of_few_users_tries_every_sign_pattern():
    differences = np.array([0.5, 0.2, -0.1, 0.7, 0.0, 0.3])
    changed = differences[differences != 0]
    sums = [np.dot(signs, changed) for signs in itertools.product([1, -1], repeat=len(changed))]
    expected = np.mean(np.abs(sums) >= changed.sum() - 1e-12)
    found = permutation_p_value(differences, num_resamples=9999, rng=np.random.default_rng(0))
    assert found == pytest.approx(expected)


def test_holm_corrects_as_its_definition_says_and_keeps_the_order_given():
    p_values = [0.04, 0.01, 0.03, 0.005]
    # By hand: 0.005 x 4, 0.01 x 3, 0.03 x 2, and 0.04 x 1, which may not be smaller than the one before it.
    assert holm(p_values) == pytest.approx([0.06, 0.03, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_holm_makes_at_most_five_false_findings_in_a_hundred_families():
    families = np.random.default_rng(3).uniform(size=(2000, 6))  # p-values where nothing differs
    assert np.mean([min(holm(list(family))) < 0.05 for family in families]) == pytest.approx(0.05, abs=0.015)


def test_the_effect_size_is_the_mean_over_the_spread_of_paired_differences():
    found = compare(evaluation([20, 20, 20, 0]), evaluation([0, 0, 20, 0]), rng=np.random.default_rng(0))
    hits = [1, 1, 0, 0]
    assert found.hit_rate.effect == pytest.approx(np.mean(hits) / np.std(hits, ddof=1))


def test_a_model_compared_with_itself_shows_no_difference():
    found = compare(evaluation([0, 3, 30, 9]), evaluation([0, 3, 30, 9]), rng=np.random.default_rng(0))
    for difference in (found.hit_rate, found.ndcg):
        assert (difference.value, difference.low, difference.high, difference.p_value) == (0.0, 0.0, 0.0, 1.0)
        assert difference.effect == 0.0


def test_a_clear_gain_is_found_and_its_sign_follows_the_order():
    rng = np.random.default_rng(1)
    weak = rng.integers(0, 40, 400)
    strong = np.maximum(weak - 8, 0)
    better = compare(evaluation(weak), evaluation(strong), rng=np.random.default_rng(2), num_resamples=999)
    worse = compare(evaluation(strong), evaluation(weak), rng=np.random.default_rng(2), num_resamples=999)
    assert better.hit_rate.value == pytest.approx(np.mean(strong < 10) - np.mean(weak < 10))
    for difference in (better.hit_rate, better.ndcg):
        assert 0 < difference.low <= difference.value <= difference.high
        assert difference.p_value < 0.01
    assert worse.ndcg.value == -better.ndcg.value
    assert (worse.only_first, worse.only_second) == (better.only_second, better.only_first)


def test_equal_models_are_told_apart_about_once_in_twenty():
    rng = np.random.default_rng(5)
    p_values, covered = [], []
    for _ in range(200):
        first, second = rng.integers(0, 30, 60), rng.integers(0, 30, 60)
        found = compare(evaluation(first), evaluation(second), rng=rng, num_resamples=199)
        p_values.append(found.ndcg.p_value)
        covered.append(found.ndcg.low <= 0 <= found.ndcg.high)
    assert 0.005 < np.mean(np.array(p_values) < 0.05) < 0.1
    assert 0.88 < np.mean(covered) < 0.99


def test_the_same_generator_gives_the_same_numbers():
    first, second = evaluation([0, 3, 30, 9, 12]), evaluation([1, 13, 3, 9, 0])
    one, two = (compare(first, second, rng=np.random.default_rng(7)) for _ in range(2))
    assert one == two


@pytest.mark.parametrize(
    "other",
    [
        evaluation([1, 2, 3]),
        evaluation([1, 2], users=np.array([1, 0], dtype=np.int32)),
        replace(evaluation([1, 2]), target=np.array([5, 6], dtype=np.int32)),
        replace(evaluation([1, 2]), top_k=5),
    ],
)
def test_evaluations_that_do_not_pair_up_are_refused(other):
    with pytest.raises(DataError):
        compare(evaluation([1, 2]), other, rng=np.random.default_rng(0))


def test_one_user_is_too_few_to_compare():
    with pytest.raises(DataError, match="at least 2"):
        compare(evaluation([1]), evaluation([2]), rng=np.random.default_rng(0))
