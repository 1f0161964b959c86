"""The kernel does what a readable device does (tests/oracle), for a batch of one and for many devices together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracle import alone
from oracle.device import popularity_update, train

from palate.models.histories import Histories
from palate.models.learning import kernel
from palate.models.learning.kernel import fresh_heads, popularity_sum
from palate.models.scores.registry import SCORE_MODELS
from palate.models.table import ItemTable, initial_embeddings
from palate.models.training import LocalTraining
from palate.simulation.seeding import device_keys

NUM_ITEMS, NUM_USERS = 60, 9
CASES = [(name, objective) for name, model in sorted(SCORE_MODELS.items()) for objective in sorted(model.objectives)]


@pytest.fixture
def table() -> ItemTable:
    rng = np.random.default_rng(1)
    fixed = rng.normal(size=(NUM_ITEMS, 4)).astype(np.float32)
    return ItemTable(fixed, initial_embeddings(NUM_ITEMS, 6, scale=0.3, rng=rng))


@pytest.fixture
def histories() -> Histories:
    rng = np.random.default_rng(2)
    lengths = [1, 3, 30, 0, 7, 30, 12, 19, 2]
    items = [rng.permutation(NUM_ITEMS)[:n].astype(np.int32) for n in lengths]
    return Histories(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), np.concatenate(items))


@pytest.mark.parametrize("own_items_only", [False, True])
@pytest.mark.parametrize("leave_one_out", [False, True])
@pytest.mark.parametrize(("model", "objective"), CASES)
def test_updates_and_heads_agree_over_three_rounds(table, histories, model, objective, leave_one_out, own_items_only):
    config = LocalTraining(
        model=model, objective=objective, hidden=5, epochs=2, batch_size=8, negatives=3,
        head_negatives=2, recency_half_life=4.0,
        regularisation=2.0, learning_rate=0.2, leave_one_out=leave_one_out, own_items_only=own_items_only,
        head_learning_rate=0.2, item_learning_rate=0.7, weight_decay=0.01,
    )  # fmt: skip
    users = np.arange(NUM_USERS)
    state = fresh_heads(table, config, NUM_USERS)
    states: list[dict[str, torch.Tensor] | None] = [None] * NUM_USERS
    for server_round in (1, 2, 3):
        keys = device_keys(5, server_round, users)
        together = kernel.train(table, histories, state, keys, config)
        state, total = together.heads, np.zeros_like(table.learned)
        for user in users:
            own = histories.of(user)
            trained = train(table, own, states[user], config, key=keys[user])
            by_itself = alone.train(table, own, states[user], config, key=keys[user])
            np.testing.assert_allclose(by_itself.update, trained.update, atol=1e-5)
            assert by_itself.loss == pytest.approx(trained.loss, abs=1e-5)
            states[user] = trained.state
            total += trained.update
            if len(own):
                for name, value in trained.state.items():
                    for found in (state[name][user], by_itself.state[name]):
                        np.testing.assert_allclose(found, value, atol=1e-5, err_msg=f"{name} of {user}")
        assert np.abs(total).max() > 1e-3
        np.testing.assert_allclose(together.update, total, atol=1e-5)
        table = table.with_learned(table.learned + 0.3 * total)


def test_popularity_round_agrees(histories):
    users = np.arange(NUM_USERS)
    total = sum(popularity_update(histories.of(user), NUM_ITEMS) for user in users)
    np.testing.assert_allclose(popularity_sum(histories, NUM_ITEMS), total, atol=1e-6)


@pytest.mark.parametrize("own_items_only", [False, True])
@pytest.mark.parametrize(
    ("model", "objective"), [("gmf", "whole"), ("neumf", "whole"), ("autoencoder", "whole"), ("mlp", "bce")]
)
def test_each_update_that_a_mechanism_takes_is_the_devices_own(table, histories, model, objective, own_items_only):
    config = LocalTraining(
        model=model, objective=objective, hidden=5, leave_one_out=True, regularisation=2.0, least_interactions=2,
        own_items_only=own_items_only,
    )  # fmt: skip
    users = np.arange(NUM_USERS)
    keys = device_keys(5, 1, users)
    taken: dict[int, np.ndarray] = {}

    def sink(people, updates):
        dense = updates.dense(0, updates.num_devices).transpose(0, 2, 1)
        taken.update(zip(people.tolist(), dense, strict=True))

    kernel.train(table, histories, fresh_heads(table, config, NUM_USERS), keys, config, sink=sink)
    for user in np.flatnonzero(histories.lengths >= 2).tolist():
        expected = train(table, histories.of(user), None, config, key=keys[user]).update
        assert np.abs(expected).max() > 5e-4
        np.testing.assert_allclose(taken[user], expected, atol=1e-5)


@pytest.mark.parametrize("leave_one_out", [False, True])
@pytest.mark.parametrize(("model", "objective"), CASES)
def test_on_own_items_an_update_is_what_it_is_anyway_and_nothing_elsewhere(
    table, histories, model, objective, leave_one_out
):
    users = np.arange(NUM_USERS)
    everywhere = LocalTraining(
        model=model, objective=objective, hidden=5, regularisation=2.0, leave_one_out=leave_one_out, negatives=9,
        head_negatives=9,
    )  # fmt: skip
    own_only = everywhere.model_copy(update={"own_items_only": True})
    keys = device_keys(5, 1, users)
    for user in np.flatnonzero(histories.lengths):
        items = histories.of(user)
        dense, own = (alone.train(table, items, None, config, key=keys[user]) for config in (everywhere, own_only))
        np.testing.assert_allclose(own.update[items], dense.update[items], rtol=1e-5, atol=1e-8)
        others = np.setdiff1d(np.arange(NUM_ITEMS), items)
        assert dense.update[others].any()
        assert not own.update[others].any()
        for name, value in own.state.items():
            torch.testing.assert_close(value, dense.state[name], rtol=0, atol=0)
