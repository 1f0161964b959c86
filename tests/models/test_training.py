"""Parameters of local training: the text that plans carry is what it was before it could say more."""

from __future__ import annotations

import json

import pytest
from pydantic import BaseModel, ValidationError

from palate.models.training import LocalTraining

BEFORE = (
    '{"model":"neumf","objective":"whole","hidden":16,"unobserved_weight":0.1,"regularisation":30.0,'
    '"recency_half_life":10.0,"serving_half_life":null,"forgetting":"exponential","recency_floor":0.05,'
    '"user_weight_exponent":0.5,"least_interactions":1,"leave_one_out":false,"epochs":1,"batch_size":256,"negatives":4,'
    '"head_negatives":1,"learning_rate":0.5,"head_learning_rate":0.1,"item_learning_rate":1.0,"weight_decay":0.0}'
)


def test_the_text_of_a_plan_without_own_items_only_is_what_it_was_to_the_byte():
    assert LocalTraining().model_dump_json() == BEFORE
    assert LocalTraining(own_items_only=False).model_dump() == json.loads(BEFORE)
    assert LocalTraining.model_validate_json(BEFORE) == LocalTraining()


def test_the_text_says_it_where_updates_are_on_own_items_only():
    given = LocalTraining(own_items_only=True, recency_half_life=float("inf"))
    text = given.model_dump_json()
    assert json.loads(text)["own_items_only"] is True
    assert LocalTraining.model_validate_json(text) == given
    assert LocalTraining.model_validate(given.model_dump()) == given


def test_the_text_says_how_recommending_weighs_by_age_only_where_somebody_set_it():
    given = LocalTraining(serving_forgetting="hyperbolic")
    assert json.loads(given.model_dump_json())["serving_forgetting"] == "hyperbolic"
    assert LocalTraining.model_validate_json(given.model_dump_json()) == given
    assert "serving_forgetting" not in LocalTraining().model_dump()


class Configuration(BaseModel):
    training: LocalTraining


@pytest.mark.parametrize("own_items_only", [False, True])
def test_inside_a_configuration_it_is_written_in_the_same_way(own_items_only):
    given = Configuration(training=LocalTraining(own_items_only=own_items_only, serving_half_life=float("inf")))
    assert Configuration.model_validate_json(given.model_dump_json()) == given
    assert ("own_items_only" in given.model_dump()["training"]) is own_items_only


def test_unknown_parameters_are_still_refused():
    with pytest.raises(ValidationError):
        LocalTraining.model_validate_json(BEFORE[:-1] + ',"own_item_only":true}')
