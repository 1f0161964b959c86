"""Each baseline against its definition, written the slow way."""

import numpy as np
import pytest
from oracle.device import solve_user

from palate.errors import ConfigError
from palate.models.histories import Histories
from palate.simulation.baselines import ials, item_knn
from palate.simulation.baselines.base import FitData
from palate.simulation.baselines.content_only import fit_content_only
from palate.simulation.baselines.ease import MAX_ITEMS, fit_ease
from palate.simulation.baselines.ials import fit_ials, solve_ridge
from palate.simulation.baselines.item_knn import fit_item_knn
from palate.simulation.baselines.local_only import fit_local_only
from palate.simulation.baselines.popularity import fit_popularity

NUM_USERS, NUM_ITEMS = 30, 12
EVERYBODY = np.arange(NUM_USERS, dtype=np.int32)


def histories(sequences):
    indptr = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])]).astype(np.int64)
    return Histories(indptr, np.concatenate([np.asarray(s, dtype=np.int32) for s in sequences]))


@pytest.fixture
def history():
    rng = np.random.default_rng(11)
    sequences = [rng.permutation(NUM_ITEMS)[: rng.integers(1, 8)] for _ in range(NUM_USERS)]
    sequences[7] = []
    return histories(sequences)


@pytest.fixture
def dense(history):
    matrix = np.zeros((NUM_USERS, NUM_ITEMS))
    matrix[history.owners, history.items] = 1.0
    return matrix


@pytest.mark.parametrize("batch_elements", [1, 300, 4_000_000])
def test_batched_ridge_equals_one_users_solve_for_any_batch_size(history, monkeypatch, batch_elements):
    monkeypatch.setattr(ials, "BATCH_ELEMENTS", batch_elements)
    table = np.random.default_rng(0).normal(size=(NUM_ITEMS, 4)).astype(np.float32)
    penalty = np.linspace(0.5, 2.0, NUM_USERS)
    found = solve_ridge(table, history, unobserved_weight=0.2, regularisation=penalty)
    for user in range(NUM_USERS):
        own = history.of(user)
        expected = solve_user(
            table,
            own,
            np.ones(len(own), dtype=np.float32),
            unobserved_weight=0.2,
            regularisation=penalty[user],
        )
        np.testing.assert_allclose(found[user], expected, atol=1e-5)


def test_popularity_is_the_number_of_users(history, dense):
    scores = fit_popularity(FitData(history, NUM_ITEMS)).scores(EVERYBODY)
    np.testing.assert_array_equal(scores, np.tile(dense.sum(axis=0), (NUM_USERS, 1)))


def test_ease_is_the_best_linear_model_without_self_weights(history, dense):
    reg = 3.0
    weights = fit_ease(FitData(history, NUM_ITEMS), regularisation=reg).weights
    np.testing.assert_array_equal(np.diag(weights), 0.0)
    gradient = dense.T @ (dense @ weights - dense) + reg * weights
    off_diagonal = ~np.eye(NUM_ITEMS, dtype=bool)
    np.testing.assert_allclose(gradient[off_diagonal], 0.0, atol=1e-4)


def test_ease_scores_are_the_history_times_the_weights(history, dense):
    scorer = fit_ease(FitData(history, NUM_ITEMS))
    np.testing.assert_allclose(scorer.scores(EVERYBODY), dense @ scorer.weights, atol=1e-6)


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan")])
def test_a_ridge_that_would_not_be_positive_is_refused(history, wrong):
    for fit in (fit_ease, fit_ials, fit_local_only):
        with pytest.raises(ConfigError, match="regularisation"):
            fit(FitData(history, NUM_ITEMS), regularisation=wrong)


def test_ease_refuses_a_catalogue_that_it_cannot_invert():
    with pytest.raises(ConfigError, match=str(MAX_ITEMS)):
        fit_ease(FitData(histories([[0]]), MAX_ITEMS + 1))


@pytest.mark.parametrize("num_neighbours", [3, 50])
@pytest.mark.parametrize("block_elements", [1, 60, 8_000_000])
def test_item_knn_keeps_the_nearest_neighbours_of_each_candidate(
    history, dense, monkeypatch, num_neighbours, block_elements
):
    monkeypatch.setattr(item_knn, "BLOCK_ELEMENTS", block_elements)
    scorer = fit_item_knn(FitData(history, NUM_ITEMS), num_neighbours=num_neighbours, shrinkage=2.0)
    size = np.linalg.norm(dense, axis=0)
    similarity = dense.T @ dense / (np.outer(size, size) + 2.0)
    np.fill_diagonal(similarity, 0.0)
    expected = np.zeros_like(similarity)
    for candidate in range(NUM_ITEMS):
        column = similarity[:, candidate].astype(np.float32)
        nearest = np.lexsort((np.arange(NUM_ITEMS), -column))[:num_neighbours]
        expected[nearest, candidate] = column[nearest]
    np.testing.assert_allclose(scorer.scores(EVERYBODY), dense @ expected, atol=1e-5)


A0, REG = 0.2, 0.05


def ials_loss(dense, users, items):
    scores = users @ items.T
    user_scale = dense.sum(axis=1) + A0 * NUM_ITEMS
    item_scale = dense.sum(axis=0) + A0 * NUM_USERS
    penalty = (user_scale * (users**2).sum(axis=1)).sum() + (item_scale * (items**2).sum(axis=1)).sum()
    fit = (dense * (1 - scores) ** 2).sum() + A0 * (scores**2).sum()
    return fit + REG * penalty


def test_ials_lowers_its_loss_with_every_epoch(history, dense):
    losses = []
    for num_epochs in range(1, 6):
        data = FitData(history, NUM_ITEMS, seed=1)
        scorer = fit_ials(data, dim=5, num_epochs=num_epochs, regularisation=REG, init_scale=1.0)
        losses.append(ials_loss(dense, scorer.users.astype(float), scorer.items.astype(float)))
    assert (np.diff(losses) < 0).all()


def test_ials_ends_at_the_minimum_over_user_vectors(history, dense):
    data = FitData(history, NUM_ITEMS, seed=1)
    scorer = fit_ials(data, dim=5, num_epochs=4, regularisation=REG, init_scale=1.0)
    users, items = scorer.users.astype(float), scorer.items.astype(float)
    scale = dense.sum(axis=1, keepdims=True) + A0 * NUM_ITEMS
    gradient = (dense * (users @ items.T - 1)) @ items + A0 * (users @ items.T) @ items + REG * scale * users
    np.testing.assert_allclose(gradient, 0.0, atol=1e-4)


def test_candidate_scores_of_factors_are_entries_of_the_whole_rows(history):
    scorer = fit_ials(FitData(history, NUM_ITEMS), dim=3, num_epochs=2)
    items = np.array([[0, 5, 11], [3, 3, 2]])
    users = np.array([4, 9], dtype=np.int32)
    rows = scorer.scores(users)
    np.testing.assert_allclose(scorer.score_items(users, items), np.take_along_axis(rows, items, axis=1), atol=1e-6)


def test_a_device_alone_learns_nothing_from_other_people(history):
    content = np.random.default_rng(2).normal(size=(NUM_ITEMS, 4)).astype(np.float32)
    alone = fit_local_only(FitData(histories([history.of(3)]), NUM_ITEMS, content)).scores(
        np.array([0], dtype=np.int32)
    )
    together = fit_local_only(FitData(history, NUM_ITEMS, content)).scores(np.array([3], dtype=np.int32))
    np.testing.assert_allclose(alone, together, atol=1e-6)


@pytest.mark.parametrize("content", [None, np.zeros((NUM_ITEMS, 0), dtype=np.float32)])
def test_a_device_alone_without_content_is_refused(history, content):
    with pytest.raises(ConfigError, match="no content columns"):
        fit_local_only(FitData(history, NUM_ITEMS, content))


def test_without_content_what_is_popular_scores_highest(history, dense):
    scores = fit_content_only(FitData(history, NUM_ITEMS)).scores(np.array([0], dtype=np.int32))[0]
    counts = dense.sum(axis=0)
    assert np.corrcoef(scores, counts)[0, 1] > 0.8
