"""Settings under dotted names: merged, nested and flat, and a misspelt one is answered with the right one."""

from __future__ import annotations

import pytest

from palate.server.values import asked_in, fields_of, flat, merge, nested, similar
from palate.simulation.config import SimulationConfig


def test_merging_lets_the_second_win_and_changes_neither():
    base, over = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"c": 4}, "d": {"e": 5}}
    assert merge(base, over) == {"a": {"b": 1, "c": 4}, "d": {"e": 5}}
    assert base == {"a": {"b": 1, "c": 2}, "d": 3}
    assert over == {"a": {"c": 4}, "d": {"e": 5}}


def test_flat_and_nested_values_say_the_same():
    values = {"a": 1, "b": {"c": 2, "d": {"e": 3}}}
    assert flat(values) == {"a": 1, "b.c": 2, "b.d.e": 3}
    assert nested(flat(values)) == values


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("schedule.round", "schedule.rounds"),
        ("rounds", "schedule.rounds"),
        ("epsilom", "epsilon"),
        ("training.momentum", "optimiser.momentum"),
        ("training.recency_halflife", "training.recency_half_life"),
        ("colour", None),
    ],
)
def test_a_misspelt_or_misplaced_name_is_answered_with_the_right_one(wrong, right):
    assert similar(wrong, fields_of(SimulationConfig)) == right


def test_what_was_asked_for_is_known_and_is_enough_to_ask_again():
    config = SimulationConfig(epsilon=2.0, schedule={"rounds": 5})
    assert asked_in(config) == {"epsilon": 2.0, "schedule": {"rounds": 5}}
    assert SimulationConfig(**asked_in(config)) == config
