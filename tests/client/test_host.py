"""One person's device: answers plans through the mechanism, keeps its head, and tells nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from palate.client.host import DeviceHost, training_of
from palate.client.trainer import Trained, popularity_update, train
from palate.models.table import ItemTable, initial_embeddings
from palate.models.training import LocalTraining
from palate.privacy.wire import RoundPlan, WireError

NUM_ITEMS, DIM = 20, 3
ITEMS = np.array([2, 7, 13, 4], np.int32)
CONFIG = LocalTraining(model="neumf", hidden=3, regularisation=1.0)
TABLE = ItemTable(
    np.zeros((NUM_ITEMS, 1), np.float32),
    initial_embeddings(NUM_ITEMS, DIM, scale=0.3, rng=np.random.default_rng(1)),
)
PLAN = RoundPlan(
    run="r",
    server_round=1,
    purpose="train",
    unit="none",
    participation=1.0,
    training=CONFIG.model_dump_json(),
    fixed=TABLE.fixed,
    learned=TABLE.learned,
)


def key_of_round(server_round: int) -> np.uint64:
    return np.uint64(100 + server_round)


def device() -> DeviceHost:
    return DeviceHost(ITEMS, key_of_round)


def test_round_zero_is_answered_with_the_popularity_part():
    vector = device().answer(replace(PLAN, server_round=0, purpose="popularity")).vector
    np.testing.assert_array_equal(vector, popularity_update(ITEMS, NUM_ITEMS))


def test_a_training_round_is_answered_with_the_flat_update_of_the_planned_size():
    vector = device().answer(PLAN).vector
    assert vector.shape == (PLAN.update_size,)
    expected = train(TABLE, ITEMS, None, CONFIG, key=key_of_round(1))
    np.testing.assert_array_equal(vector, expected.update.ravel())


def test_the_head_goes_on_from_round_to_round_with_a_fresh_key_each():
    own = device()
    own.answer(PLAN)
    second = own.answer(replace(PLAN, server_round=2)).vector
    state = train(TABLE, ITEMS, None, CONFIG, key=key_of_round(1)).state
    expected = train(TABLE, ITEMS, state, CONFIG, key=key_of_round(2))
    np.testing.assert_array_equal(second, expected.update.ravel())


def test_scores_come_from_the_trained_head():
    own = device()
    before = own.scores(TABLE, CONFIG)
    own.answer(PLAN)
    after = own.scores(TABLE, CONFIG)
    assert before.shape == after.shape == (NUM_ITEMS,)
    assert not np.array_equal(before, after)


def test_a_device_refuses_every_question():
    with pytest.raises(WireError, match="answers no questions"):
        device().inspect({"part": "test", "round": 1, "full": 1}, {"fixed": TABLE.fixed, "learned": TABLE.learned})


def test_a_unit_without_mechanism_is_refused_before_training():
    own = DeviceHost(ITEMS, lambda server_round: pytest.fail("a refused plan must not be trained on"))
    with pytest.raises(WireError, match="no mechanism for unit 'user'"):
        own.answer(replace(PLAN, unit="user"))


@pytest.mark.parametrize(
    "training", ["", "{", "[]", '{"epochs": 0}', '{"steal": 1}', '{"epochs": "many"}', '{"learning_rate": Infinity}']
)
def test_training_parameters_that_are_not_valid_are_refused(training):
    with pytest.raises(WireError, match="training parameters are not valid"):
        device().answer(replace(PLAN, training=training))


def test_every_parameter_of_local_training_survives_the_plan():
    config = LocalTraining(objective="bce", recency_half_life=float("inf"), epochs=3, weight_decay=0.25)
    assert training_of(replace(PLAN, training=config.model_dump_json())) == config


def test_what_training_leaves_behind_is_not_printed():
    update, state = np.full((2, 2), 13, np.float32), {"user": torch.full((1,), 13.0)}
    assert repr(Trained(update, state, 13.0)) == "Trained()"


def test_a_device_does_not_print_its_history():
    assert repr(device()) == "DeviceHost(<private>)"
    assert "13" not in str(device())
