"""Recency weights decay by rank down to a floor; user weights bound what a heavy user adds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle.alone import popularity_update

from palate.models.histories import pooling_weights, recency_weights, user_weights
from palate.models.training import LocalTraining

HYPERBOLIC = LocalTraining(forgetting="hyperbolic")


def test_the_newest_interaction_counts_one_and_the_rest_halves_every_half_life():
    weights = recency_weights(np.array([0, 10, 20]), half_life=10.0, floor=0.0)
    np.testing.assert_allclose(weights, [1.0, 0.5, 0.25], rtol=1e-6)


@given(st.floats(0.1, 1e4), st.floats(0, 1), st.integers(1, 200))
def test_weights_never_fall_below_the_floor_and_never_rise_with_age(half_life, floor, count):
    weights = recency_weights(np.arange(count), half_life=half_life, floor=floor)
    assert weights.dtype == np.float32
    assert weights[0] == 1.0
    assert weights.min() >= np.float32(floor)
    assert (np.diff(weights) <= 0).all()


def test_an_infinite_half_life_weighs_all_alike():
    np.testing.assert_array_equal(recency_weights(np.arange(9), half_life=float("inf"), floor=0.2), np.ones(9))


def test_hyperbolic_weights_are_one_over_the_place_and_never_fade_together():
    np.testing.assert_allclose(pooling_weights(np.array([0, 1, 3, 99]), HYPERBOLIC), [1.0, 0.5, 0.25, 0.01], rtol=1e-6)
    doubled = [pooling_weights(np.arange(count), HYPERBOLIC).sum(dtype=np.float64) for count in (1000, 2000)]
    assert doubled[1] - doubled[0] == pytest.approx(np.log(2.0), abs=1e-3)


@pytest.mark.parametrize("forgetting", ["exponential", "hyperbolic"])
def test_where_the_order_means_nothing_no_way_of_forgetting_weighs_by_it(forgetting):
    config = LocalTraining(forgetting=forgetting, recency_half_life=float("inf"))
    np.testing.assert_array_equal(pooling_weights(np.arange(5), config), np.ones(5))


def test_pooling_weights_go_by_the_configuration():
    ages, config = np.arange(30), LocalTraining(recency_half_life=3.0, recency_floor=0.2)
    np.testing.assert_array_equal(pooling_weights(ages, config), recency_weights(ages, half_life=3.0, floor=0.2))
    other = config.model_copy(update={"forgetting": "hyperbolic"})
    np.testing.assert_array_equal(pooling_weights(ages, other), pooling_weights(ages, HYPERBOLIC))


def test_exponent_zero_weighs_all_people_alike_and_one_gives_means():
    lengths = np.array([0, 1, 4, 100])
    np.testing.assert_array_equal(user_weights(lengths, exponent=0.0), np.ones(4))
    np.testing.assert_allclose(user_weights(lengths, exponent=1.0), [1, 1, 0.25, 0.01], rtol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 50])
def test_exponent_one_half_is_what_gives_a_popularity_vector_of_norm_one(count):
    scale = user_weights(np.array([count]), exponent=0.5)[0]
    update = popularity_update(np.arange(count, dtype=np.int32), 60)
    np.testing.assert_allclose(update[:count], scale, rtol=1e-6)
    assert np.linalg.norm(update) == pytest.approx(1.0, rel=1e-6)
