"""The taste against brute force: a general minimiser, the ridge of training, and what nudges promise."""

import numpy as np
import pytest
from oracle.device import solve_user
from scipy.optimize import minimize

from palate.client.recommending.taste import (
    COLD_SPREAD,
    DISLIKED_TARGET,
    DISLIKED_WEIGHT,
    Nudge,
    contrast,
    fit,
    reach,
    space_of,
)
from palate.models.histories import recency_weights
from palate.models.scores.registry import fitting_of
from palate.models.training import LocalTraining

from .conftest import preferences_of

TRAINING = fitting_of(LocalTraining(model="gmf", unobserved_weight=0.13, regularisation=0.7, recency_half_life=3.0))


def case(seed: int = 0, num_items: int = 60, width: int = 5):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(num_items, width)).astype(np.float32)
    rows[:, 0] = rng.uniform(0, 1, num_items)
    return rows, space_of(rows, TRAINING, popularity=0)


def had(*items: int, extra: tuple[tuple[str, int | str], ...] = ()):
    return preferences_of([*(("had", item) for item in items), *extra])


@pytest.mark.parametrize("seed", range(4))
def test_without_feedback_the_taste_is_the_ridge_of_training(seed):
    rows, space = case(seed)
    items = np.array([5, 9, 2, 30, 31], dtype=np.int32)
    weights = recency_weights(np.arange(5)[::-1], half_life=3.0, floor=TRAINING.recency_floor)
    expected = solve_user(rows, items, weights, unobserved_weight=0.13, regularisation=0.7)
    np.testing.assert_allclose(fit(space, had(*items), TRAINING).vector, expected, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_with_likes_and_dislikes_the_taste_is_the_brute_force_minimiser(seed):
    rows, space = case(seed)
    wide = rows.astype(np.float64)
    preferences = had(5, 9, 2, 30, extra=(("like", 9), ("had", 31), ("dislike", 40), ("dislike", 41)))
    assert preferences.items.tolist() == [5, 2, 30, 9, 31]
    weights = recency_weights(np.array([4, 3, 2, 1, 0]), half_life=3.0, floor=TRAINING.recency_floor).astype(float)
    weights[3] = 1.0  # what was liked does not fade

    def loss(user: np.ndarray) -> float:
        own = sum(w * (1 - wide[i] @ user) ** 2 for i, w in zip(preferences.items, weights, strict=True))
        against = sum(DISLIKED_WEIGHT * (DISLIKED_TARGET - wide[i] @ user) ** 2 for i in (40, 41))
        return own + against + 0.13 * np.sum((wide @ user) ** 2) + 0.7 * user @ user

    found = minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-10})
    np.testing.assert_allclose(fit(space, preferences, TRAINING).vector, found.x, atol=1e-5)


def test_a_dislike_lowers_the_item_and_what_is_like_it_and_a_like_raises_them():
    rows, space = case(1)
    rows[7] = rows[6] + 0.01  # a near double
    space = space_of(rows, TRAINING, popularity=0)
    before = fit(space, had(1, 2, 3), TRAINING).scores(rows)
    disliked = fit(space, had(1, 2, 3, extra=(("dislike", 6),)), TRAINING).scores(rows)
    liked = fit(space, had(1, 2, 3, extra=(("like", 6),)), TRAINING).scores(rows)
    assert (disliked[[6, 7]] < before[[6, 7]]).all()
    assert (liked[[6, 7]] > before[[6, 7]]).all()


def test_a_nudge_moves_its_direction_by_the_step_in_units_of_reach():
    rows, space = case(2)
    preferences, items = had(1, 2, 3), np.arange(20, 28)
    before = fit(space, preferences, TRAINING)
    direction = contrast(space, items)
    after = fit(space, preferences, TRAINING, [Nudge("asked", "these", direction, 0.5)])
    moved = direction @ (after.vector - before.vector)
    assert moved == pytest.approx(0.5 * reach(before.scores(rows)) / 1.05, rel=1e-5)
    centred = rows[items][:, 1:].mean(axis=0) - rows[:, 1:].mean(axis=0)
    np.testing.assert_allclose(direction, [0.0, *centred], atol=1e-6)


def test_nudges_for_and_against_the_same_thing_cancel():
    rows, space = case(3)
    direction = contrast(space, np.arange(5))
    nudges = [Nudge("asked", "more", direction, 1.0), Nudge("refused", "less", direction, -1.0)]
    preferences = had(10, 11)
    np.testing.assert_allclose(
        fit(space, preferences, TRAINING, nudges).scores(rows),
        fit(space, preferences, TRAINING).scores(rows),
        atol=1e-5,
    )


def test_somebody_unknown_gets_what_is_popular():
    rows, space = case(4)
    scores = fit(space, had(), TRAINING).scores(rows)
    assert np.argsort(-scores).tolist() == np.argsort(-rows[:, 0]).tolist()
    assert scores.std() == pytest.approx(COLD_SPREAD, rel=1e-4)


def test_a_table_that_knows_nothing_of_popularity_scores_unknown_people_alike():
    rows, _ = case(5)
    space = space_of(rows, TRAINING, popularity=None)
    assert not fit(space, had(), TRAINING).vector.any()
    assert fit(space, had(), TRAINING, [Nudge("asked", "", contrast(space, np.array([3])), 1.0)]).vector.any()
