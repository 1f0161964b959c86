from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from palate.privacy.errors import PrivacyError
from palate.privacy.integer.quantise import clip, l2_norms, require_finite

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
vectors = hnp.arrays(np.float32, st.integers(0, 600), elements=finite)


def exact_norm(values: np.ndarray) -> float:
    return math.hypot(*values.astype(np.float64).tolist())


@given(vectors)
def test_the_norm_is_right_for_any_finite_vector(values: np.ndarray):
    assert l2_norms(values[None])[0] == pytest.approx(exact_norm(values), rel=2.0**-15)


@given(vectors, st.floats(1e-6, 1e6), st.floats(1e-3, 1e6))
def test_clipped_norm_never_exceeds_clip_norm(values: np.ndarray, clip_norm: float, scale: float):
    clipped = clip(values[None], clip_norm, scale=scale)[0]
    assert exact_norm(clipped) <= scale * clip_norm * (1 + 2.0**-14)


@given(vectors)
def test_a_vector_within_the_bound_passes_unchanged(values: np.ndarray):
    bound = max(1e-30, 1.001 * exact_norm(values))
    np.testing.assert_array_equal(clip(values[None], bound)[0], values)


def test_clipping_keeps_the_direction_and_scaling_comes_after_it():
    values = np.array([[3.0, -4.0, 0.0]], dtype=np.float32)
    np.testing.assert_allclose(clip(values, 0.5), [[0.3, -0.4, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(clip(values, 0.5, scale=100.0), [[30.0, -40.0, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(clip(values, 50.0, scale=100.0), [[300.0, -400.0, 0.0]], rtol=1e-6)


def test_the_result_may_take_the_place_of_the_values():
    values = np.array([[3.0, 4.0]], dtype=np.float32)
    assert clip(values, 1.0, out=values) is values
    np.testing.assert_allclose(values, [[0.6, 0.8]], rtol=1e-6)


@given(st.lists(st.integers(-44, 37), min_size=1, max_size=6), st.integers(1, 1300), st.integers(-30, 30))
def test_a_vector_among_others_is_clipped_as_if_alone(sizes: list[int], length: int, bound: int):
    values = np.random.default_rng(length).uniform(-1, 1, (len(sizes), length)) * 10.0 ** np.array(sizes)[:, None]
    together = values.astype(np.float32)
    alone = np.concatenate([clip(row[None], 10.0**bound, scale=1e6) for row in together])
    np.testing.assert_array_equal(clip(together, 10.0**bound, scale=1e6), alone)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad: float):
    with pytest.raises(PrivacyError, match="1 values that are not finite"):
        require_finite(np.array([1.0, bad], dtype=np.float32))
