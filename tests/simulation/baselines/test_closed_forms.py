"""Each baseline against its definition, written the slow way."""

from dataclasses import replace

import numpy as np
import pytest
from oracle.device import solve_user
from scipy import sparse

from palate.errors import ConfigError
from palate.models.histories import Histories
from palate.simulation.baselines import ease, ials, item_knn
from palate.simulation.baselines.base import FitData
from palate.simulation.baselines.content_only import fit_content_only
from palate.simulation.baselines.ease import fit_ease
from palate.simulation.baselines.ials import fit_ials, solve_ridge
from palate.simulation.baselines.item_knn import fit_item_knn
from palate.simulation.baselines.local_only import fit_local_only
from palate.simulation.baselines.popularity import fit_popularity
from palate.simulation.baselines.transitions import fit_transitions, transition_counts

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


@pytest.mark.parametrize("ordered", [False, True])
def test_ease_of_people_is_ease_of_items(history, monkeypatch, ordered):
    data = FitData(history, NUM_ITEMS, ordered=ordered)
    of_items = fit_ease(data, regularisation=3.0).scores(EVERYBODY)
    more_items = replace(data, num_items=NUM_USERS + 1)  # some that nobody has had
    monkeypatch.setattr(ease, "LARGEST_INVERSE", NUM_USERS)
    monkeypatch.setattr(ease, "_BLOCK", 5)
    of_people = fit_ease(more_items, regularisation=3.0)
    assert isinstance(of_people, ease.PeopleScorer)
    np.testing.assert_allclose(of_people.scores(EVERYBODY)[:, :NUM_ITEMS], of_items, atol=1e-5)
    np.testing.assert_allclose(of_people.scores(EVERYBODY)[:, NUM_ITEMS:], 0.0, atol=1e-6)


def test_with_too_many_items_and_people_ease_knows_the_most_popular_and_ranks_the_others_last(history, monkeypatch):
    monkeypatch.setattr(ease, "LARGEST_INVERSE", 5)
    monkeypatch.setattr(ease, "HEAD_ITEMS", 4)
    scorer = fit_ease(FitData(history, NUM_ITEMS), regularisation=3.0)
    counts = np.bincount(history.items, minlength=NUM_ITEMS)
    assert counts[scorer.items].min() >= np.delete(counts, scorer.items).max()
    scores = scorer.scores(EVERYBODY)
    head = [np.flatnonzero(np.isin(scorer.items, history.of(user))) for user in range(NUM_USERS)]
    expected = [scorer.head.weights[own].sum(axis=0) for own in head]
    np.testing.assert_allclose(scores[:, scorer.items], expected, atol=1e-6)
    assert (np.delete(scores, scorer.items, axis=1) == scores.min(axis=1, keepdims=True)).all()


@pytest.mark.parametrize("block", [1, 5, 1024])
def test_the_inverse_of_a_gram_matrix_is_symmetric_and_right_for_any_block(dense, monkeypatch, block):
    monkeypatch.setattr(ease, "_BLOCK", block)
    found = ease._inverse_of_gram(sparse.csr_array(dense.T.astype(np.float32)), 2.0)
    np.testing.assert_allclose(found, np.linalg.inv(dense.T @ dense + 2.0 * np.eye(NUM_ITEMS)), atol=1e-5)


def ages(history):
    return np.concatenate([np.arange(length)[::-1] for length in history.lengths])


def test_references_weigh_recent_interactions_by_one_over_one_plus_age_where_an_order_is_known(history):
    known = FitData(history, NUM_ITEMS, ordered=True)
    np.testing.assert_allclose(known.recency, 1 / (1 + ages(history)), rtol=1e-6)
    np.testing.assert_array_equal(FitData(history, NUM_ITEMS).recency, 1.0)
    weighted = np.zeros((NUM_USERS, NUM_ITEMS))
    weighted[history.owners, history.items] = known.recency
    for fit in (fit_ease, fit_item_knn):
        scorer = fit(known)
        weights = scorer.weights.toarray() if sparse.issparse(scorer.weights) else scorer.weights
        np.testing.assert_allclose(scorer.scores(EVERYBODY), weighted @ weights, atol=1e-5)


def test_transitions_are_counted_up_to_ten_steps_and_divided_by_how_often_both_items_occur(history):
    counts = np.zeros((NUM_ITEMS, NUM_ITEMS))
    for user in range(NUM_USERS):
        own = history.of(user)
        for place, item in enumerate(own):
            for later in own[place + 1 : place + 11]:
                counts[item, later] += 1
    np.testing.assert_array_equal(transition_counts(history, NUM_ITEMS).toarray(), counts)
    occurs = np.bincount(history.items, minlength=NUM_ITEMS) + 10.0
    weighted = np.zeros((NUM_USERS, NUM_ITEMS))
    weighted[history.owners, history.items] = 1 / (1 + ages(history))
    scores = fit_transitions(FitData(history, NUM_ITEMS, ordered=True)).scores(EVERYBODY)
    np.testing.assert_allclose(scores, weighted @ (counts / np.sqrt(np.outer(occurs, occurs))), atol=1e-5)


def test_a_transition_is_counted_forwards_and_no_further_than_ten_steps():
    counts = transition_counts(histories([np.arange(12)]), 12).toarray()
    assert np.count_nonzero(np.tril(counts)) == 0
    assert (counts[0, 1:11] == 1).all()
    assert counts[0, 11] == 0


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


def test_ials_solves_people_with_the_weights_of_their_interactions(history):
    data = FitData(history, NUM_ITEMS, seed=1, ordered=True)
    scorer = fit_ials(data, dim=5, num_epochs=3, regularisation=REG)
    for user in range(NUM_USERS):
        own = slice(history.indptr[user], history.indptr[user + 1])
        expected = solve_user(
            scorer.items,
            history.items[own],
            data.recency[own],
            unobserved_weight=A0,
            regularisation=REG * (data.recency[own].sum() + A0 * NUM_ITEMS),
        )
        np.testing.assert_allclose(scorer.users[user], expected, atol=1e-5)


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
