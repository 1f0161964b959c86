"""A head comes back to the last bit, for the model that it was learned for and no other."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save

from palate.client.vault import HEADS, heads
from palate.client.vault.errors import EntryRefused, VaultTampered
from palate.client.vault.heads import load_head, save_head
from palate.models.scores.base import Shape
from palate.models.scores.registry import SCORE_MODELS, initial_state

SHAPE = Shape(fixed_dim=3, dim=4, hidden=5)
CASES = [(name, objective) for name, model in SCORE_MODELS.items() for objective in sorted(model.objectives)]


def learned(model, objective):
    generator = torch.Generator().manual_seed(7)
    start = initial_state(model, objective, SHAPE)
    return {name: torch.randn(value.shape, generator=generator) for name, value in start.items()}


@pytest.mark.parametrize(("model", "objective"), CASES)
def test_a_head_of_every_model_comes_back_to_the_last_bit(vault, model, objective):
    state = learned(model, objective)
    save_head(vault, model, objective, SHAPE, state)
    loaded = load_head(vault, model, objective, SHAPE)
    assert loaded is not None
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_a_head_counts_for_its_shape_and_model_only(vault):
    model, objective = CASES[0]
    assert load_head(vault, model, objective, SHAPE) is None
    save_head(vault, model, objective, SHAPE, learned(model, objective))
    assert load_head(vault, model, objective, Shape(fixed_dim=2, dim=5, hidden=5)) is None
    other = next(case for case in CASES if case[0] != model)
    assert load_head(vault, *other, SHAPE) is None


def test_what_is_no_head_of_the_model_is_refused_before_it_is_kept(vault):
    model, objective = CASES[0]
    state = learned(model, objective)
    name = next(iter(state))
    for wrong in (
        {**state, name: state[name].double()},
        {**state, name: state[name][None]},
        {**state, name: torch.full_like(state[name], torch.nan)},
        {**state, "more": state[name]},
        {},
    ):
        with pytest.raises(EntryRefused):
            save_head(vault, model, objective, SHAPE, wrong)
    assert vault.ids(HEADS) == []


def test_what_was_kept_by_another_program_is_not_taken_for_a_head(vault):
    model, objective = CASES[0]
    state = learned(model, objective)
    label = heads._label(model, objective, SHAPE)
    for data in (
        b"",
        b"\xff" * 100,
        save(state),
        save(state, {**label, "format": "palate-head/2"}),
        save({"other": torch.zeros(3)}, label),
        save({name: value * torch.inf for name, value in state.items()}, label),
    ):
        vault.put(HEADS, f"{model}/{objective}", data)
        with pytest.raises(VaultTampered) as caught:
            load_head(vault, model, objective, SHAPE)
        assert caught.value.hint
