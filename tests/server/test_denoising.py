"""Release steps: projection is unbiased, shrinkage helps where theory says so, and only public numbers are used."""

from __future__ import annotations

import numpy as np
import pytest

from palate.errors import ConfigError, FederationError
from palate.server.denoising import RELEASE_STEPS, PublicNoise, ReleaseConfig, denoise, project, span_basis

NUM_ITEMS, DIM, COLUMNS = 300, 8, 5
PIPELINES = [(), ("project",), ("shrink",), ("low_rank",), ("project", "shrink"), ("project", "low_rank")]
EVERY = pytest.mark.parametrize("steps", PIPELINES, ids=lambda steps: "+".join(steps) or "nothing")
SHRINKING = pytest.mark.parametrize(
    "steps", [("shrink",), ("low_rank",), ("project", "shrink"), ("project", "low_rank")], ids="+".join
)


def rng_of(*seed: int) -> np.random.Generator:
    return np.random.default_rng([20, *seed])


def public_columns() -> np.ndarray:
    return rng_of(1).normal(size=(NUM_ITEMS, COLUMNS)).astype(np.float32)


def signal(public: np.ndarray, *, inside: float, outside: float) -> np.ndarray:
    """A matrix with a part in the span of the columns and a part of rank one outside of it."""
    rng = rng_of(2)
    basis = span_basis(public.astype(np.float64))
    part = basis @ rng.normal(size=(basis.shape[1], DIM))
    other = rng.normal(size=(NUM_ITEMS, 1)) @ rng.normal(size=(1, DIM))
    other -= basis @ (basis.T @ other)
    return inside * part / np.linalg.norm(part) + outside * other / np.linalg.norm(other)


def squared_errors(steps: tuple[str, ...], truth: np.ndarray, noise_std: float, repeats: int = 20) -> np.ndarray:
    config = ReleaseConfig(steps=steps)
    errors = []
    for repeat in range(repeats):
        total = truth + noise_std * rng_of(3, repeat).normal(size=truth.shape)
        errors.append(
            np.sum((denoise(total, noise_std=noise_std, public=public_columns(), config=config) - truth) ** 2)
        )
    return np.array(errors)


@EVERY
def test_without_noise_the_sum_is_returned_as_it_is(steps):
    total = rng_of(4).normal(size=(NUM_ITEMS, DIM))
    result = denoise(total, noise_std=0.0, public=public_columns(), config=ReleaseConfig(steps=steps))
    np.testing.assert_array_equal(result, total)
    assert result is not total


@EVERY
def test_the_given_sum_is_not_changed(steps):
    total = rng_of(5).normal(size=(NUM_ITEMS, DIM))
    before = total.copy()
    denoise(total, noise_std=1.0, public=public_columns(), config=ReleaseConfig(steps=steps))
    np.testing.assert_array_equal(total, before)


@SHRINKING
def test_a_signal_below_the_noise_gets_a_smaller_error_than_the_raw_sum(steps):
    truth = signal(public_columns(), inside=20.0, outside=20.0)
    raw = squared_errors((), truth, 1.0)
    assert np.mean(squared_errors(steps, truth, 1.0)) < 0.7 * np.mean(raw)


def test_projecting_first_helps_where_public_columns_explain_the_signal():
    truth = signal(public_columns(), inside=40.0, outside=0.0)
    for last in ("shrink", "low_rank"):
        assert np.mean(squared_errors(("project", last), truth, 1.0)) < 0.7 * np.mean(
            squared_errors((last,), truth, 1.0)
        )


@SHRINKING
def test_a_strong_signal_is_kept(steps):
    truth = signal(public_columns(), inside=1e6, outside=1e6)
    error = np.sqrt(np.mean(squared_errors(steps, truth, 1.0, repeats=3)))
    assert error < 1.05 * np.sqrt(NUM_ITEMS * DIM)  # no worse than the noise itself


def test_a_signal_in_the_span_is_estimated_without_bias():
    truth = signal(public_columns(), inside=10.0, outside=0.0)
    basis = span_basis(public_columns().astype(np.float64))
    config, repeats = ReleaseConfig(steps=("project", "low_rank")), 200
    mean = np.zeros((basis.shape[1], DIM))
    for repeat in range(repeats):
        total = truth + rng_of(6, repeat).normal(size=truth.shape)
        mean += basis.T @ denoise(total, noise_std=1.0, public=public_columns(), config=config) / repeats
    deviations = (mean - basis.T @ truth) * np.sqrt(repeats)  # standard normal if unbiased and of unit variance
    assert np.abs(deviations).max() < 4.5
    assert 0.6 < np.var(deviations) < 1.6


def test_project_leaves_rank_over_items_of_the_noise_in_what_it_keeps():
    public = public_columns()
    rank = span_basis(public.astype(np.float64)).shape[1]
    assert rank == COLUMNS + 1
    kept = squared_errors(("project", "low_rank"), np.zeros((NUM_ITEMS, DIM)), 2.0, repeats=100)
    assert np.mean(kept) == pytest.approx(4.0 * rank * DIM, rel=0.1)


def test_project_tells_the_next_step_how_much_noise_is_left_in_every_row():
    public = np.zeros((NUM_ITEMS, 2))
    public[:3, 0] = 1.0  # three items share a column of their own: a third of their noise leaves with it
    public[3, 1] = 1.0  # the column is this item's alone: nothing is left of its row
    before = PublicNoise(public=public, noise_std=2.0, directions=NUM_ITEMS, row_variance=np.full(NUM_ITEMS, 4.0))
    rests = []
    for repeat in range(400):
        parts = project(2.0 * rng_of(7, repeat).normal(size=(NUM_ITEMS, DIM)), before)
        rests.append(parts.rest)
    assert parts.noise.directions == NUM_ITEMS - 3
    assert parts.noise.row_variance[0] == pytest.approx(4.0 * 2 / 3, rel=1e-6)
    assert parts.noise.row_variance[3] == pytest.approx(0.0, abs=1e-9)
    measured = np.mean(np.square(rests), axis=(0, 2))
    np.testing.assert_allclose(measured[[0, 1, 2, 50]], parts.noise.row_variance[[0, 1, 2, 50]], rtol=0.1)


def test_shrink_is_the_positive_part_james_stein_rule():
    total = rng_of(8).normal(size=(NUM_ITEMS, DIM)) * rng_of(9).uniform(0.0, 3.0, size=(NUM_ITEMS, 1))
    result = denoise(total, noise_std=1.3, public=np.zeros((NUM_ITEMS, 0)), config=ReleaseConfig(steps=("shrink",)))
    for row, shrunk in zip(total, result, strict=True):
        factor = max(0.0, 1.0 - (DIM - 2) * 1.3**2 / float(row @ row))
        np.testing.assert_allclose(shrunk, factor * row, rtol=1e-12)


@pytest.mark.parametrize("size", [0.0, 1.0, 3.0, 30.0])
def test_shrink_never_loses_to_the_raw_sum_whatever_the_signal(size):
    truth = size * rng_of(10).normal(size=(NUM_ITEMS, DIM))
    assert np.mean(squared_errors(("shrink",), truth, 1.0)) < np.mean(squared_errors((), truth, 1.0))


def test_rows_of_two_columns_are_not_shrunk():
    total = rng_of(11).normal(size=(NUM_ITEMS, 2))
    result = denoise(total, noise_std=1.0, public=np.zeros((NUM_ITEMS, 0)), config=ReleaseConfig(steps=("shrink",)))
    np.testing.assert_array_equal(result, total)


def test_low_rank_makes_nothing_of_pure_noise():
    noise = 3.0 * rng_of(12).normal(size=(2000, DIM))
    result = denoise(noise, noise_std=3.0, public=np.zeros((2000, 0)), config=ReleaseConfig(steps=("low_rank",)))
    assert np.linalg.norm(result) < 0.05 * np.linalg.norm(noise)  # the edge is sharp only in the limit


@pytest.mark.parametrize("strength", [1.5, 2.0, 4.0])
def test_low_rank_shrinks_a_singular_value_to_what_is_best_against_the_truth(strength):
    """The best multiple of the noisy singular pair, computed from the truth itself, is the second source."""
    shape = (4000, DIM)
    rng = rng_of(13)
    left, right = rng.normal(size=shape[0]), rng.normal(size=shape[1])
    truth = strength * np.sqrt(shape[0]) * np.outer(left / np.linalg.norm(left), right / np.linalg.norm(right))
    total = truth + rng.normal(size=shape)
    config = ReleaseConfig(steps=("low_rank",))
    chosen = np.linalg.svd(denoise(total, noise_std=1.0, public=np.zeros((4000, 0)), config=config), compute_uv=False)
    u, _, v = np.linalg.svd(total, full_matrices=False)
    assert chosen[0] == pytest.approx(float(u[:, 0] @ truth @ v[0]), rel=0.05)


@EVERY
def test_the_result_scales_with_the_sum_and_its_noise(steps):
    total = signal(public_columns(), inside=30.0, outside=30.0) + rng_of(14).normal(size=(NUM_ITEMS, DIM))
    config = ReleaseConfig(steps=steps)
    small = denoise(total, noise_std=1.0, public=public_columns(), config=config)
    large = denoise(1e3 * total, noise_std=1e3, public=public_columns(), config=config)
    np.testing.assert_allclose(large, 1e3 * small, rtol=1e-9, atol=1e-9)


def test_dependent_and_constant_columns_count_once():
    columns = rng_of(15).normal(size=(NUM_ITEMS, 2))
    doubled = np.column_stack([columns, columns.sum(axis=1), np.full(NUM_ITEMS, 3.0), np.zeros(NUM_ITEMS)])
    assert span_basis(doubled).shape == (NUM_ITEMS, 3)
    assert span_basis(np.zeros((NUM_ITEMS, 0))).shape == (NUM_ITEMS, 1)


@pytest.mark.parametrize("shape", [(3, 8), (8, 3), (1, 1), (4, 4)])
@EVERY
def test_small_and_wide_tables_have_a_finite_answer(shape, steps):
    total = rng_of(16).normal(size=shape)
    for columns in (0, 2, 9):
        public = rng_of(17).normal(size=(shape[0], columns))
        result = denoise(total, noise_std=1.0, public=public, config=ReleaseConfig(steps=steps))
        assert result.shape == shape
        assert np.isfinite(result).all()


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (("wavelets",), "unknown release step"),
        (("shrink", "project"), "unknown size"),
        (("low_rank", "shrink"), "unknown size"),
        (("project", "project"), "repeat"),
    ],
)
def test_steps_that_do_not_fit_together_are_refused(steps, message):
    with pytest.raises(ConfigError, match=message) as caught:
        ReleaseConfig(steps=steps)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("total", "noise_std", "public"),
    [
        (np.zeros((4, 2)), -1.0, np.zeros((4, 1))),
        (np.zeros((4, 2)), np.nan, np.zeros((4, 1))),
        (np.zeros((4, 2)), 1.0, np.zeros((5, 1))),
        (np.zeros(4), 1.0, np.zeros((4, 1))),
        (np.full((4, 2), np.nan), 0.0, np.zeros((4, 1))),
        (np.zeros((4, 2)), 1.0, np.full((4, 1), np.inf)),
    ],
)
def test_what_is_not_finite_or_does_not_fit_is_refused(total, noise_std, public):
    with pytest.raises(FederationError) as caught:
        denoise(total, noise_std=noise_std, public=public, config=ReleaseConfig())
    assert caught.value.hint


def test_a_configuration_survives_json_and_names_known_steps_only():
    config = ReleaseConfig()
    assert ReleaseConfig.model_validate_json(config.model_dump_json()) == config
    assert set(config.steps) <= set(RELEASE_STEPS)
