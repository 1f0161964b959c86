"""Server optimisers: each direction descends, steps have the promised size, and state resumes exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from palate.errors import ConfigError
from palate.server.filtering import filter_rows
from palate.server.optimisers import OPTIMISERS, Aggregate, Optimiser, OptimiserConfig, build_optimiser

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


def noisy(server_round: int, *, active: np.ndarray | None = None) -> Aggregate:
    """A round of rows in two groups, with noise of known size."""
    rng = np.random.default_rng([5, server_round])
    popularity = np.linspace(9.0, 3.0, 80)
    total = np.zeros((80, DIM))
    total[:40, 0], total[40:, 1] = popularity[:40], -popularity[40:]
    total += 0.5 * rng.normal(size=total.shape)
    if active is not None:
        total[~active] = 0.0
    return replace(aggregate_of(total, server_round, popularity=popularity), noise_std=0.5, active=active)


def filtered(**changes: float) -> Optimiser:
    return build_optimiser(config("curvature", momentum=0.0, groups=2, **changes))


@pytest.mark.parametrize("decay", [1.0, 0.7])
def test_with_groups_the_way_so_far_is_the_filtered_sum_of_all_whitened_rounds(decay):
    """Recomputed from the inputs with numpy alone but for the filter."""
    optimiser = filtered(decay=decay)
    rounds = [noisy(1), noisy(2), noisy(3)]
    way = sum(optimiser.step(given) for given in rounds)
    scale = row_scale(rounds[0])
    summed, covariance = np.zeros((80, DIM)), np.zeros((DIM, DIM))
    for t, given in enumerate(rounds):
        inner = (given.total / scale).T @ (given.total / scale)
        values, axes = np.linalg.eigh(inner)
        whitener = decay**t * np.sqrt(80) * (axes / np.sqrt(values)) @ axes.T
        summed += given.total @ whitener
        covariance += 0.25 * whitener @ whitener
    wanted = filter_rows(summed, covariance, rounds[0].popularity, groups=2, rng=np.random.default_rng(3))
    wanted *= 0.3 * np.linalg.norm(summed) / np.linalg.norm(wanted)
    np.testing.assert_allclose(way, wanted / scale**2, rtol=1e-6, atol=1e-9)


def test_with_groups_a_resumed_sequence_equals_an_uninterrupted_one():
    whole, first, second = filtered(), filtered(), filtered()
    expected = [whole.step(noisy(server_round)) for server_round in (1, 2, 3)]
    first.step(noisy(1))
    second.state = {key: value.copy() for key, value in first.state.items()}
    np.testing.assert_array_equal(second.step(noisy(2)), expected[1])
    np.testing.assert_array_equal(second.step(noisy(3)), expected[2])


def test_groups_bring_noisy_rows_nearer_to_their_group():
    plain = build_optimiser(config("curvature", momentum=0.0)).step(noisy(1))
    found = filtered().step(noisy(1))
    off_axis = [np.linalg.norm(step[:40, 1:]) / np.linalg.norm(step[:40]) for step in (plain, found)]
    assert off_axis[1] < 0.7 * off_axis[0]


def test_rows_that_are_not_learned_stay_where_they_are():
    active = np.arange(80) % 3 > 0
    step = filtered().step(noisy(1, active=active))
    assert (step[~active] == 0.0).all()
    assert (step[active] != 0.0).any(axis=1).all()


def test_without_noise_groups_change_nothing():
    given = replace(noisy(1), noise_std=0.0)
    np.testing.assert_array_equal(
        filtered().step(given), build_optimiser(config("curvature", momentum=0.0)).step(given)
    )


def test_the_noise_in_the_sum_of_rounds_has_the_covariance_that_is_kept():
    """Second source: the covariance of what noise did to many rows, round by round through the steps taken."""
    rng = np.random.default_rng(12)
    n, noise_std = 20_000, 0.7
    popularity, optimiser = rng.uniform(1.0, 9.0, n), filtered(decay=0.8)
    learned, noise = np.zeros((n, DIM)), np.zeros((n, DIM))
    for server_round in (1, 2, 3):
        signal = popularity[:, None] * rng.normal(size=(n, DIM)) * rng.uniform(0.2, 2.0, DIM)
        drawn = noise_std * rng.normal(size=(n, DIM))
        given = aggregate_of(signal + drawn, server_round, popularity=popularity)
        optimiser.step(replace(given, noise_std=noise_std))
        added = optimiser.state["learned"] - learned
        whitener, *_ = np.linalg.lstsq(given.total, added, rcond=None)
        np.testing.assert_allclose(given.total @ whitener, added, atol=1e-8)
        learned, noise = optimiser.state["learned"], noise + drawn @ whitener
    kept = optimiser.state["noise"]
    np.testing.assert_allclose(noise.T @ noise / n, kept, atol=0.03 * np.trace(kept) / DIM)


def test_the_state_has_rows_for_what_is_learned_alone():
    active = np.arange(80) % 4 == 0
    optimiser = filtered()
    optimiser.step(noisy(1, active=active))
    assert {name: value.shape for name, value in optimiser.state.items()} == {
        "learned": (20, DIM),
        "noise": (DIM, DIM),
        "filtered": (20, DIM),
    }


@pytest.mark.parametrize("name", ["average", "momentum", "adam"])
def test_no_update_is_no_step(name):
    given = aggregate_of(np.zeros((NUM_ITEMS, DIM)))
    np.testing.assert_array_equal(build_optimiser(config(name)).step(given), np.zeros((NUM_ITEMS, DIM)))


def test_an_unknown_optimiser_is_refused_with_the_known_names():
    with pytest.raises(ConfigError, match="'sgd'") as refused:
        build_optimiser(OptimiserConfig(name="sgd"))
    assert all(name in refused.value.hint for name in OPTIMISERS)
