"""Server optimisers: each direction descends, steps have the promised size, and state resumes exactly."""

from __future__ import annotations

import numpy as np
import pytest

from palate.models.errors import ConfigError
from palate.server.optimisers import OPTIMISERS, Aggregate, OptimiserConfig, build_optimiser

NUM_ITEMS, DIM = 30, 4
ALL = pytest.mark.parametrize("name", sorted(OPTIMISERS))
SIZED = pytest.mark.parametrize("name", ["momentum", "adam", "curvature"])


def aggregate(server_round: int = 1, *, scale: float = 1.0, seed: int = 0, devices: float = 10.0) -> Aggregate:
    rng = np.random.default_rng([seed, server_round])
    total = scale * rng.normal(size=(NUM_ITEMS, DIM)) * rng.uniform(0.1, 5.0, DIM)
    return aggregate_of(total, server_round, devices=devices, popularity=rng.exponential(size=NUM_ITEMS))


def aggregate_of(
    total: np.ndarray, server_round: int = 1, *, devices: float = 10.0, popularity: np.ndarray | None = None
) -> Aggregate:
    weights = np.ones(len(total)) if popularity is None else popularity
    return Aggregate(
        total=total,
        devices=devices,
        popularity=weights,
        all_users=devices**2 / weights.sum(),
        unobserved_weight=0.1,
        server_round=server_round,
    )


def config(name: str, **changes: float) -> OptimiserConfig:
    return OptimiserConfig(name=name, **({"step_size": 0.3, "decay": 0.9, "momentum": 0.7} | changes))


@ALL
def test_a_resumed_sequence_of_steps_equals_an_uninterrupted_one(name):
    whole = build_optimiser(config(name))
    expected = [whole.step(aggregate(server_round)) for server_round in range(1, 7)]
    first = build_optimiser(config(name))
    steps = [first.step(aggregate(server_round)) for server_round in range(1, 4)]
    second = build_optimiser(config(name))
    second.state = {key: value.copy() for key, value in first.state.items()}
    steps += [second.step(aggregate(server_round)) for server_round in range(4, 7)]
    for step, wanted in zip(steps, expected, strict=True):
        np.testing.assert_array_equal(step, wanted)


@ALL
def test_a_first_step_goes_down_hill(name):
    given = aggregate()
    change = build_optimiser(config(name)).step(given)
    assert change.shape == given.total.shape
    assert np.sum(change * given.total) > 0


@SIZED
def test_a_step_does_not_depend_on_the_scale_of_the_updates(name):
    small, large = (build_optimiser(config(name)).step(aggregate(scale=scale)) for scale in (1.0, 1e4))
    np.testing.assert_allclose(small, large, rtol=1e-6)


def row_scale(given: Aggregate) -> np.ndarray:
    """Root of each item's share of the Hessian, root mean square 1, [num_items, 1]."""
    hessian = given.popularity + given.unobserved_weight * given.all_users
    return np.sqrt(hessian / hessian.mean())[:, None]


@pytest.mark.parametrize("server_round", [1, 2, 5])
def test_the_step_size_is_the_root_mean_square_of_a_step_and_decays(server_round):
    given, expected = aggregate(server_round), 0.3 * 0.9 ** (server_round - 1)
    momentum = build_optimiser(config("momentum")).step(given)
    assert np.sqrt(np.mean(momentum**2)) == pytest.approx(expected)
    curvature = build_optimiser(config("curvature")).step(given) * row_scale(given)
    assert np.sqrt(np.mean(curvature**2)) == pytest.approx(expected)


def test_the_average_of_equal_updates_is_that_update():
    update = np.random.default_rng(2).normal(size=(NUM_ITEMS, DIM))
    given = aggregate_of(7 * update, devices=7.0)
    step = build_optimiser(OptimiserConfig(name="average", step_size=1.0)).step(given)
    np.testing.assert_allclose(step, update, rtol=1e-12)


def test_momentum_sums_old_directions_geometrically():
    optimiser = build_optimiser(config("momentum", decay=1.0))
    first, second = aggregate(1), aggregate(2)
    optimiser.step(first)
    expected = 0.7 * first.total + second.total
    np.testing.assert_allclose(optimiser.step(second), 0.3 * expected / np.sqrt(np.mean(expected**2)))


def test_adam_follows_its_paper_over_three_rounds():
    optimiser = build_optimiser(config("adam", decay=1.0, second_momentum=0.9))
    first = second = np.zeros((NUM_ITEMS, DIM))
    for server_round in (1, 2, 3):
        total = aggregate(server_round).total
        first, second = 0.7 * first + 0.3 * total, 0.9 * second + 0.1 * total**2
        wanted = 0.3 * (first / (1 - 0.7**server_round)) / np.sqrt(second / (1 - 0.9**server_round))
        np.testing.assert_allclose(optimiser.step(aggregate(server_round)), wanted, rtol=1e-3)


def test_curvature_descends_after_row_scaling_and_moves_all_taste_directions_at_an_equal_pace():
    given = aggregate()
    direction = build_optimiser(config("curvature", momentum=0.0)).direction(given)
    assert np.sum(direction * given.total) > 0
    values = np.linalg.svd(direction * row_scale(given), compute_uv=False)
    np.testing.assert_allclose(values, values[0])


def test_curvature_steps_less_on_popular_items():
    total = np.tile(np.eye(DIM), (8, 1))
    popularity = np.repeat([100.0, 1.0], 16)
    direction = build_optimiser(config("curvature")).direction(aggregate_of(total, popularity=popularity))
    sizes = np.linalg.norm(direction, axis=1)
    assert sizes[:16].max() < sizes[16:].min()


@pytest.mark.parametrize("name", ["average", "momentum", "adam"])
def test_no_update_is_no_step(name):
    given = aggregate_of(np.zeros((NUM_ITEMS, DIM)))
    np.testing.assert_array_equal(build_optimiser(config(name)).step(given), np.zeros((NUM_ITEMS, DIM)))


def test_an_unknown_optimiser_is_refused_with_the_known_names():
    with pytest.raises(ConfigError, match="'sgd'") as refused:
        build_optimiser(OptimiserConfig(name="sgd"))
    assert all(name in refused.value.hint for name in OPTIMISERS)
