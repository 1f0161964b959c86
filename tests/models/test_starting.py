"""The public starting point lies in the span of content, weighted by popularity, and repeats from its seed."""

from __future__ import annotations

import numpy as np
import pytest

from palate.models.table import mixed_embeddings

NUM_ITEMS, COLUMNS, DIM = 60, 4, 6


def columns() -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.column_stack([rng.uniform(0.1, 3.0, NUM_ITEMS), rng.normal(size=(NUM_ITEMS, COLUMNS))]).astype(np.float32)


def rng() -> np.random.Generator:
    return np.random.default_rng(2)


def test_starting_columns_are_mixtures_of_content_weighted_by_popularity():
    fixed = columns()
    start = mixed_embeddings(fixed, DIM, scale=0.2, rng=rng()) / fixed[:, :1]
    content = fixed[:, 1:]
    fitted = content @ np.linalg.lstsq(content, start, rcond=None)[0]
    np.testing.assert_allclose(start, fitted, atol=1e-5)
    assert np.linalg.matrix_rank(start, tol=1e-4) == COLUMNS


@pytest.mark.parametrize("scale", [0.05, 0.2, 1.0])
def test_root_mean_square_is_the_scale(scale):
    start = mixed_embeddings(columns(), DIM, scale=scale, rng=rng())
    assert start.dtype == np.float32
    assert np.sqrt(np.mean(start.astype(np.float64) ** 2)) == pytest.approx(scale, rel=1e-5)


def test_the_size_of_the_popularity_column_does_not_matter():
    fixed, larger = columns(), columns()
    larger[:, 0] *= 7.0
    np.testing.assert_allclose(
        mixed_embeddings(fixed, DIM, scale=0.2, rng=rng()),
        mixed_embeddings(larger, DIM, scale=0.2, rng=rng()),
        rtol=1e-5,
    )


@pytest.mark.parametrize("fixed", [columns()[:, :1], np.zeros((NUM_ITEMS, 1 + COLUMNS), np.float32)])
def test_without_content_or_popularity_it_starts_from_independent_normals(fixed):
    start = mixed_embeddings(fixed, DIM, scale=0.2, rng=rng())
    assert np.linalg.matrix_rank(start) == DIM
    assert np.std(start) == pytest.approx(0.2, rel=0.15)


def test_the_same_seed_gives_the_same_columns_and_another_gives_others():
    first = mixed_embeddings(columns(), DIM, scale=0.2, rng=rng())
    np.testing.assert_array_equal(first, mixed_embeddings(columns(), DIM, scale=0.2, rng=rng()))
    assert not np.allclose(first, mixed_embeddings(columns(), DIM, scale=0.2, rng=np.random.default_rng(3)))
