"""The popularity column keeps the order, damps what noise alone can make, and reads any sum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.models.popularity import SATURATING_SCALE, saturating_column


def column(counts: np.ndarray, noise_std: float = 0.0) -> np.ndarray:
    built = saturating_column(counts, noise_std=noise_std)
    assert built.shape == counts.shape
    assert built.dtype == np.float32
    return built


@given(
    st.lists(st.floats(-1e6, 1e9), min_size=1, max_size=30).map(np.array),
    st.floats(0, 1e5),
)
def test_any_sum_gives_a_column_from_zero_to_the_scale_in_the_order_of_popularity(counts, noise_std):
    built = column(counts, noise_std)
    assert np.isfinite(built).all()
    assert built.min() == 0.0
    assert built.max() in (0.0, np.float32(SATURATING_SCALE))
    order = np.argsort(counts, kind="stable")
    assert (np.diff(built[order]) >= 0).all()


def test_without_noise_the_mean_is_the_knee_of_the_logarithm():
    counts = np.array([0.0, 1.0, 2.0, 13.0])  # mean 4
    expected = SATURATING_SCALE * np.log([1.0, 1.25, 1.5, 4.25]) / np.log(4.25)
    np.testing.assert_allclose(column(counts), expected, rtol=1e-6)


def test_noise_and_mean_add_up_in_squares():
    counts = np.array([0.0, 2.0, 7.0])  # mean 3, noise 4: the knee is at 5
    expected = SATURATING_SCALE * np.log([1.0, 1.4, 2.4]) / np.log(2.4)
    np.testing.assert_allclose(column(counts, 4.0), expected, rtol=1e-6)


def test_counts_below_zero_count_as_zero():
    built = column(np.array([-5.0, 0.0, 20.0]), 3.0)
    assert built[0] == built[1] == 0.0


@pytest.mark.parametrize("counts", [np.zeros(4), np.full(4, 3.0), np.full(4, -3.0)])
def test_equal_popularity_is_a_column_of_zeros(counts):
    assert (column(counts) == 0.0).all()


def test_more_noise_puts_rare_items_closer_together():
    counts = np.array([0.0, 3.0, 500.0])
    gaps = [column(counts, noise_std)[1] for noise_std in (0.0, 100.0, 1000.0)]
    assert gaps[0] > gaps[1] > gaps[2]


@pytest.mark.parametrize(
    ("counts", "noise_std"),
    [(np.array([1.0, np.nan]), 0.0), (np.ones((2, 2)), 0.0), (np.ones(2), -1.0), (np.ones(2), np.inf)],
)
def test_what_is_not_finite_or_not_a_vector_is_refused(counts, noise_std):
    with pytest.raises(ValueError, match="popularity"):
        saturating_column(counts, noise_std=noise_std)
