"""A head comes back to the last bit, for the model that it was learned for and no other."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save

from palate.client.vault import HEADS, heads
from palate.client.vault.errors import EntryRefused, VaultTampered
from palate.client.vault.heads import head_name, pack_head, read_head
from palate.models.scores.base import Shape
from palate.models.scores.registry import SCORE_MODELS, initial_head
from palate.models.table import ItemTable
from palate.models.training import LocalTraining

SHAPE = Shape(fixed_dim=3, dim=4, hidden=5)
TABLE = ItemTable(np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32))
CASES = [
    LocalTraining(model=name, objective=objective, hidden=SHAPE.hidden)
    for name, model in SCORE_MODELS.items()
    for objective in sorted(model.objectives)
]


def learned(training):
    rng = np.random.default_rng(7)
    start = initial_head(training.model, training.objective, SHAPE)
    return {name: rng.normal(size=value.shape).astype(np.float32) for name, value in start.items()}


def keep(vault, training):
    vault.put(HEADS, head_name(training), pack_head(training, SHAPE, learned(training)))


@pytest.mark.parametrize("training", CASES, ids=head_name)
def test_a_head_of_every_model_comes_back_to_the_last_bit(vault, training):
    keep(vault, training)
    loaded, state = read_head(vault, training, TABLE), learned(training)
    assert loaded is not None
    assert loaded.keys() == state.keys()
    assert all(np.array_equal(loaded[name], state[name]) for name in state)


def test_a_head_counts_for_its_shape_and_model_only(vault):
    training = CASES[0]
    assert read_head(vault, training, TABLE) is None
    keep(vault, training)
    assert read_head(vault, training, ItemTable(TABLE.fixed[:, :2], TABLE.learned)) is None
    other = next(case for case in CASES if case.model != training.model)
    assert read_head(vault, other, TABLE) is None


def test_what_is_no_head_of_the_model_is_refused_before_it_is_kept():
    training = CASES[0]
    state = learned(training)
    name = next(iter(state))
    for wrong in (
        {**state, name: state[name].astype(np.float64)},
        {**state, name: state[name][None]},
        {**state, name: np.full_like(state[name], np.nan)},
        {**state, "more": state[name]},
        {},
    ):
        with pytest.raises(EntryRefused):
            pack_head(training, SHAPE, wrong)


def test_what_was_kept_by_another_program_is_not_taken_for_a_head(vault):
    training = CASES[0]
    state = learned(training)
    label = heads._label(training, SHAPE)
    for data in (
        b"",
        b"\xff" * 100,
        save(state),
        save(state, {**label, "format": "palate-head/2"}),
        save({"other": np.zeros(3, np.float32)}, label),
        save({name: value * np.float32(np.inf) for name, value in state.items()}, label),
    ):
        vault.put(HEADS, head_name(training), data)
        with pytest.raises(VaultTampered) as caught:
            read_head(vault, training, TABLE)
        assert caught.value.hint


def test_a_head_that_an_earlier_version_wrote_with_pytorch_is_read():
    torch = pytest.importorskip("torch")
    from safetensors.torch import save as torch_save

    for training in CASES:
        state = learned(training)
        tensors = {name: torch.from_numpy(value) for name, value in state.items()}
        data = torch_save(tensors, heads._label(training, SHAPE))
        assert len(data) == len(pack_head(training, SHAPE, state))
        read = heads.unpack_head(data, training, SHAPE)
        assert all(np.array_equal(read[name], state[name]) for name in state)
