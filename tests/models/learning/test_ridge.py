"""The closed form against brute force: a general minimiser for the user, finite differences for the items."""

from __future__ import annotations

import numpy as np
import pytest
from oracle.device import solve_user
from scipy.optimize import approx_fprime, minimize

from palate.models.histories import Histories, history_weights
from palate.models.learning.ridge import ClosedForm, closed_form, solve_users
from palate.models.training import LocalTraining

A0, REG = 0.13, 0.7
CONFIG = LocalTraining(unobserved_weight=A0, regularisation=REG, recency_half_life=3.0, leave_one_out=True)


def case(seed: int, count: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(15, 4)).astype(np.float32)
    items = rng.permutation(15)[:count].astype(np.int32)
    return rows, items, history_weights(Histories.of_one(items), CONFIG)


def loss(user: np.ndarray, rows: np.ndarray, items: np.ndarray, weights: np.ndarray) -> float:
    """The loss of the module's docstring, term by term."""
    own = sum(float(w) * (1.0 - rows[i] @ user) ** 2 for i, w in zip(items, weights, strict=True))
    return own + A0 * sum((row @ user) ** 2 for row in rows) + REG * user @ user


def fitted(rows: np.ndarray, items: np.ndarray, learned: slice = slice(0, 4)) -> ClosedForm:
    """The closed form for a batch of one, whose update counts fully."""
    history = Histories.of_one(items)
    users = solve_users(rows, history, CONFIG)
    return closed_form(rows, history, users, learned, np.ones(1, np.float32), CONFIG)


def solved(rows: np.ndarray, items: np.ndarray) -> np.ndarray:
    return fitted(rows, items).users[0]


def errors(rows: np.ndarray, items: np.ndarray) -> np.ndarray:
    return fitted(rows, items).errors(np.arange(1))[0]


@pytest.mark.parametrize("seed", range(5))
def test_the_solution_is_the_brute_force_minimiser(seed):
    rows, items, weights = case(seed)
    wide = rows.astype(np.float64)
    found = minimize(loss, np.zeros(4), args=(wide, items, weights), method="BFGS", options={"gtol": 1e-9})
    np.testing.assert_allclose(solved(rows, items), found.x, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_the_residual_update_is_half_the_negative_gradient_with_respect_to_the_items(seed):
    rows, items, weights = case(seed)
    user = solved(rows, items)

    def of_items(flat: np.ndarray) -> float:
        return loss(user.astype(np.float64), flat.reshape(rows.shape), items, weights)

    gradient = approx_fprime(rows.astype(np.float64).ravel(), of_items, 1e-7).reshape(rows.shape)
    update = np.outer(errors(rows, items), user)
    np.testing.assert_allclose(update, -0.5 * gradient, atol=2e-5)


def test_residuals_are_dense_and_show_no_sparsity_pattern():
    rows, items, _ = case(0)
    found = errors(rows, items)
    assert found.shape == (15,)
    assert (found != 0).all()


def test_without_history_the_solution_is_zero():
    rows, items, _ = case(1, count=0)
    np.testing.assert_array_equal(solved(rows, items), np.zeros(4))


def left_out(rows: np.ndarray, items: np.ndarray, learned: slice) -> np.ndarray:
    form = fitted(rows, items, learned)
    return form.errors(np.arange(1))[0, items, None] * form.vectors + form.corrections


@pytest.mark.parametrize("seed", range(5))
def test_leaving_one_out_in_closed_form_is_fitting_again_without_it(seed):
    rows, items, weights = case(seed)
    found = left_out(rows, items, slice(1, 3))
    for index, item in enumerate(items):
        others = weights.copy()
        others[index] = 0.0
        user = solve_user(rows, items, others, unobserved_weight=A0, regularisation=REG)
        score = rows[item] @ user
        expected = (weights[index] * (1.0 - score) - A0 * score) * user[1:3]
        np.testing.assert_allclose(found[index], expected, atol=1e-5)


def test_an_only_interaction_pulls_its_item_nowhere_when_left_out():
    rows, items, _ = case(3, count=1)
    user = solved(rows, items)
    pulled = np.outer(errors(rows, items), user)[items]
    assert np.abs(pulled).max() > 0.01
    np.testing.assert_allclose(left_out(rows, items, slice(0, 4)), 0.0, atol=1e-6)


@pytest.mark.parametrize("regularisation", [1e-9, 1e-5, 1e-2, 1.0, 100.0])
@pytest.mark.parametrize("size", [1e-3, 1.0, 300.0])
def test_whatever_the_ridge_the_precision_is_enough(regularisation: float, size: float):
    """Badly conditioned matrices are factorised in float64, and a person's result does not depend on the others."""
    rng = np.random.default_rng(2)
    rows = (size * rng.normal(size=(40, 6))).astype(np.float32)
    config = CONFIG.model_copy(update={"regularisation": regularisation})
    items = [rng.permutation(40)[:count].astype(np.int32) for count in (1, 3, 12, 40)]
    together = Histories(np.cumsum([0, 1, 3, 12, 40]), np.concatenate(items))
    users = solve_users(rows, together, config)
    learned, scale = slice(2, 5), np.ones(4, np.float32)
    corrections = closed_form(rows, together, users, learned, scale, config).corrections
    for number, own in enumerate(items):
        alone = Histories.of_one(own)
        weights = history_weights(alone, config).astype(np.float64)
        expected = solve_user(rows, own, weights, unobserved_weight=A0, regularisation=regularisation)
        np.testing.assert_allclose(users[number], expected, rtol=2e-4, atol=2e-4 * np.abs(expected).max())
        np.testing.assert_array_equal(users[number], solve_users(rows, alone, config)[0])
        one = closed_form(rows, alone, users[number : number + 1], learned, scale[:1], config)
        span = slice(together.indptr[number], together.indptr[number + 1])
        np.testing.assert_array_equal(corrections[span], one.corrections)
