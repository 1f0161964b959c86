"""The kernel for a batch of one: dense updates, loss that falls, nothing that a device without history gives away."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracle.alone import popularity_update, score_catalogue, train
from oracle.device import LocalModel, interaction_weights, residuals, solve_user
from oracle.modules import build
from torch import nn

from palate.models.histories import user_weights
from palate.models.scores.base import Shape
from palate.models.scores.registry import SCORE_MODELS
from palate.models.table import ItemTable, initial_embeddings
from palate.models.training import LocalTraining

NUM_ITEMS, DIM = 40, 5
ITEMS = np.array([3, 17, 8, 30, 21, 5], np.int32)
KEY = np.uint64(11)
CASES = [(name, objective) for name, model in sorted(SCORE_MODELS.items()) for objective in sorted(model.objectives)]
EVERY = pytest.mark.parametrize(("model", "objective"), CASES)


@pytest.fixture
def table() -> ItemTable:
    rng = np.random.default_rng(1)
    fixed = rng.normal(size=(NUM_ITEMS, 2)).astype(np.float32)
    return ItemTable(fixed, initial_embeddings(NUM_ITEMS, DIM, scale=0.3, rng=rng))


def config(model: str, objective: str, **changes) -> LocalTraining:
    fields = {"hidden": 4, "regularisation": 1.0, "learning_rate": 0.1, "batch_size": 4, "negatives": 3}
    return LocalTraining(model=model, objective=objective, **(fields | changes))


@EVERY
def test_the_update_has_the_shape_of_the_learned_columns_and_the_table_stays(table, model, objective):
    before = table.content_hash
    trained = train(table, ITEMS, None, config(model, objective), key=KEY)
    assert trained.update.shape == (NUM_ITEMS, DIM)
    assert trained.update.dtype == np.float32
    assert np.isfinite(trained.update).all()
    assert np.abs(trained.update).max() > 0
    assert table.content_hash == before


@EVERY
def test_training_is_a_function_of_its_arguments(table, model, objective):
    torch.manual_seed(1)
    first = train(table, ITEMS, None, config(model, objective), key=KEY)
    torch.manual_seed(2)
    second = train(table, ITEMS, None, config(model, objective), key=KEY)
    np.testing.assert_array_equal(first.update, second.update)
    for name, value in first.state.items():
        assert torch.equal(value, second.state[name])


@EVERY
def test_a_device_without_history_answers_zeros(table, model, objective):
    trained = train(table, np.zeros(0, np.int32), None, config(model, objective), key=KEY)
    np.testing.assert_array_equal(trained.update, np.zeros((NUM_ITEMS, DIM)))


@pytest.mark.parametrize("model", ["gmf", "linear", "sequential"])
def test_a_closed_form_update_is_the_scaled_residual_times_the_user_vector(table, model):
    settings = config(model, "whole")
    rows = np.concatenate([table.rows, np.ones((NUM_ITEMS, 1), np.float32)], axis=1)
    rows = rows if SCORE_MODELS[model].intercept else table.rows
    weights = interaction_weights(len(ITEMS), settings)
    terms = {"unobserved_weight": settings.unobserved_weight}
    user = solve_user(rows, ITEMS, weights, **terms, regularisation=settings.regularisation)
    scale = user_weights(np.array([len(ITEMS)]), exponent=0.5)[0]
    expected = scale * np.outer(residuals(rows, ITEMS, weights, user, **terms), user[2 : 2 + DIM])
    np.testing.assert_allclose(train(table, ITEMS, None, settings, key=KEY).update, expected, atol=1e-6)


@pytest.mark.parametrize("model", sorted(name for name, objective in CASES if objective == "bce"))
def test_the_sampled_loss_falls_over_rounds_on_one_device(table, model):
    settings, state, losses = config(model, "bce", epochs=2, learning_rate=0.3), None, []
    for server_round in range(30):
        trained = train(table, ITEMS, state, settings, key=np.uint64(server_round))
        state = trained.state
        losses.append(trained.loss)
        table = table.with_learned(table.learned + trained.update)
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])


def test_a_whole_data_update_touches_every_item(table):
    update = train(table, ITEMS, None, config("gmf", "whole"), key=KEY).update
    assert (np.abs(update).sum(axis=1) > 0).all()


def test_the_residual_head_learns_and_its_state_goes_on(table):
    settings = config("neumf", "whole", epochs=3)
    first = train(table, ITEMS, None, settings, key=KEY)
    assert torch.count_nonzero(first.state["head.out.weight"]) > 0
    again = train(table, ITEMS, first.state, settings, key=KEY)
    fresh = train(table, ITEMS, None, settings, key=KEY)
    assert not torch.equal(again.state["head.out.weight"], fresh.state["head.out.weight"])


def test_a_device_with_its_own_items_scores_them_higher_than_the_rest(table):
    settings = config("gmf", "whole", regularisation=0.1)
    scores = score_catalogue(table, ITEMS, None, settings)
    others = np.setdiff1d(np.arange(NUM_ITEMS), ITEMS)
    assert scores[ITEMS].mean() > scores[others].mean() + 0.1


def test_scores_follow_a_history_that_has_grown(table):
    settings = config("neumf", "whole")
    state = train(table, ITEMS, None, settings, key=KEY).state
    grown = np.append(ITEMS, np.int32(11))
    before, after = (score_catalogue(table, items, state, settings) for items in (ITEMS, grown))
    assert after[11] > before[11]
    np.testing.assert_array_equal(before, score_catalogue(table, ITEMS, state, settings))


@pytest.mark.parametrize("count", [0, 1, 9])
def test_the_popularity_part_has_norm_one_and_lies_on_the_own_items(count):
    items = np.arange(count, dtype=np.int32)
    update = popularity_update(items, NUM_ITEMS)
    assert np.linalg.norm(update) == pytest.approx(float(count > 0))
    assert np.flatnonzero(update).tolist() == items.tolist()


@pytest.mark.parametrize("model", sorted(name for name, objective in CASES if objective == "bce"))
def test_all_trainable_parameters_of_a_local_model_sit_in_plain_layers(table, model):
    shape = Shape(fixed_dim=2, dim=DIM, hidden=4)
    local = LocalModel(table, build(model, "bce", shape))
    owners = [owner for owner in local.modules() if list(owner.parameters(recurse=False))]
    assert all(type(owner) in (nn.Linear, nn.Embedding) for owner in owners)
    assert local.item.weight.requires_grad
    scores = local(torch.from_numpy(ITEMS.astype(np.int64)))
    with torch.no_grad():
        torch.testing.assert_close(scores, local.head(torch.from_numpy(table.rows[ITEMS])))
