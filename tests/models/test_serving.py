"""The copy that recommends: how it differs from what trains; a pooled code needs no stored vector."""

import numpy as np
import pytest
from oracle.alone import score_catalogue, train
from oracle.device import solve_user

from palate.models.scores.registry import SCORE_MODELS, serving_training
from palate.models.table import ItemTable, initial_embeddings
from palate.models.training import LocalTraining

ITEMS = np.array([3, 17, 8, 30, 21, 5], np.int32)


@pytest.fixture
def table() -> ItemTable:
    rng = np.random.default_rng(1)
    fixed = rng.normal(size=(40, 2)).astype(np.float32)
    return ItemTable(fixed, initial_embeddings(40, 5, scale=0.3, rng=rng))


@pytest.mark.parametrize("model", sorted(set(SCORE_MODELS) - {"sequential"}))
def test_without_a_half_life_for_serving_other_models_serve_as_they_train(model):
    objective = min(SCORE_MODELS[model].objectives)
    config = LocalTraining(model=model, objective=objective)
    assert serving_training(config) == config


@pytest.mark.parametrize("objective", ["whole", "bce"])
@pytest.mark.parametrize("half_life", [None, 3.0])
def test_sequential_recommends_by_a_ridge_with_hyperbolic_weights(table, objective, half_life):
    config = LocalTraining(model="sequential", objective=objective, serving_half_life=half_life, regularisation=2.0)
    state = train(table, ITEMS, None, config, key=np.uint64(1)).state
    weights = np.array([1 / 6, 1 / 5, 1 / 4, 1 / 3, 1 / 2, 1], np.float32)
    code = solve_user(table.rows, ITEMS, weights, unobserved_weight=0.1, regularisation=2.0)
    for stored in (state, None):
        scores = score_catalogue(table, ITEMS, stored, serving_training(config))
        np.testing.assert_allclose(scores, table.rows @ code, atol=1e-6)


def _closed_form_models() -> list[str]:
    return sorted(name for name in SCORE_MODELS if "whole" in SCORE_MODELS[name].objectives)


@pytest.mark.parametrize("model", _closed_form_models())
@pytest.mark.parametrize("forgetting", ["exponential", "hyperbolic"])
def test_every_closed_form_serves_with_the_weights_that_are_asked_for_and_trains_as_before(table, model, forgetting):
    plain = LocalTraining(model=model, regularisation=2.0, leave_one_out=True)
    asked = plain.model_copy(update={"serving_forgetting": forgetting})
    trained = [train(table, ITEMS, None, config, key=np.uint64(1)) for config in (plain, asked)]
    np.testing.assert_array_equal(trained[0].update, trained[1].update)
    serving = plain.model_copy(update={"forgetting": forgetting})
    np.testing.assert_array_equal(
        score_catalogue(table, ITEMS, trained[1].state, serving_training(asked)),
        score_catalogue(table, ITEMS, trained[0].state, serving),
    )


def test_sequential_trains_items_with_the_broad_weights_of_gmf(table):
    updates = [
        train(table, ITEMS, None, LocalTraining(model=model, leave_one_out=True), key=np.uint64(1)).update
        for model in ("gmf", "sequential")
    ]
    np.testing.assert_array_equal(*updates)


def test_sequential_serves_all_alike_where_there_is_no_order(table):
    config = LocalTraining(model="sequential", recency_half_life=float("inf"))
    backwards = score_catalogue(table, ITEMS[::-1].copy(), None, serving_training(config))
    np.testing.assert_allclose(score_catalogue(table, ITEMS, None, serving_training(config)), backwards, atol=1e-6)


@pytest.mark.parametrize("model", ["autoencoder", "sequential"])
def test_a_pooled_code_needs_no_stored_vector(table, model):
    config = LocalTraining(model=model, regularisation=2.0)
    state = train(table, ITEMS, None, config, key=np.uint64(1)).state
    serving = serving_training(config)
    np.testing.assert_array_equal(
        score_catalogue(table, ITEMS, state, serving), score_catalogue(table, ITEMS, None, serving)
    )


def test_an_autoencoder_teaches_its_own_items_otherwise_than_gmf_and_the_rest_alike(table):
    updates = {
        model: train(table, ITEMS, None, LocalTraining(model=model, leave_one_out=True), key=np.uint64(1)).update
        for model in ("gmf", "autoencoder")
    }
    rest = np.setdiff1d(np.arange(table.num_items), ITEMS)
    np.testing.assert_array_equal(updates["gmf"][rest], updates["autoencoder"][rest])
    assert np.abs(updates["gmf"][ITEMS] - updates["autoencoder"][ITEMS]).max() > 1e-3
