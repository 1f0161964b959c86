"""Every registered score model: its two forms agree, its fresh head is public, its parameters sit in plain layers."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from oracle.modules import build, initial_state
from torch import nn

from palate.errors import ConfigError
from palate.models.scores.base import Shape
from palate.models.scores.registry import SCORE_MODELS, score_model

SHAPE = Shape(fixed_dim=3, dim=5, hidden=4)
ALL = pytest.mark.parametrize("name", sorted(SCORE_MODELS))
CLOSED_FORM = pytest.mark.parametrize(
    "name", sorted(name for name, model in SCORE_MODELS.items() if "whole" in model.objectives)
)


def built(name: str):
    return build(name, next(iter(SCORE_MODELS[name].objectives)), SHAPE)


def scrambled(name: str, heads: int) -> dict[str, torch.Tensor]:
    """Random parameters of several heads, [heads, ...]."""
    generator = torch.Generator().manual_seed(3)
    return {
        key: torch.randn(heads, *value.shape, generator=generator) for key, value in built(name).state_dict().items()
    }


@ALL
def test_module_form_and_batched_form_agree(name):
    state, rows = scrambled(name, 6), torch.randn(6, 11, SHAPE.row_dim, generator=torch.Generator().manual_seed(4))
    together = SCORE_MODELS[name].batched(state, rows)
    head = built(name)
    for index in range(6):
        head.load_state_dict({key: value[index] for key, value in state.items()})
        torch.testing.assert_close(together[index], head(rows[index]), atol=1e-5, rtol=1e-5)


@ALL
def test_a_fresh_head_is_public_and_equal_everywhere(name):
    objective = next(iter(SCORE_MODELS[name].objectives))
    before = torch.get_rng_state()
    first, second = (initial_state(name, objective, SHAPE) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before), "a head's start must not touch the global generator"
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_looking_a_model_up_and_starting_a_head_do_not_load_pytorch():
    code = (
        "import sys\n"
        "from palate.models.scores.base import Shape\n"
        "from palate.models.scores.registry import SCORE_MODELS, initial_head\n"
        "for name, model in SCORE_MODELS.items():\n"
        "    initial_head(name, min(model.objectives), Shape(fixed_dim=1, dim=2, hidden=3))\n"
        "print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False"]


@ALL
def test_trainable_parameters_sit_in_plain_layers_that_opacus_can_hook(name):
    owners = {owner for owner in built(name).modules() if list(owner.parameters(recurse=False))}
    assert owners
    assert all(type(owner) in (nn.Linear, nn.Embedding) for owner in owners)


@CLOSED_FORM
def test_an_installed_solution_is_read_back_and_gives_linear_scores(name):
    model = SCORE_MODELS[name]
    state = {key: value.expand(4, *value.shape).clone() for key, value in initial_state(name, "whole", SHAPE).items()}
    generator = torch.Generator().manual_seed(5)
    solution = torch.randn(4, SHAPE.row_dim + model.intercept, generator=generator)
    model.install(state, solution)
    assert torch.equal(model.solution(state), solution)
    rows = torch.randn(4, 7, SHAPE.row_dim, generator=generator)
    wide = torch.cat([rows, torch.ones(4, 7, 1)], dim=2) if model.intercept else rows
    torch.testing.assert_close(model.batched(state, rows), torch.einsum("bnk,bk->bn", wide, solution))


@pytest.mark.parametrize("name", sorted(name for name, model in SCORE_MODELS.items() if model.residual_head))
def test_the_two_forms_of_a_residual_head_agree_and_it_starts_at_zero(name):
    model = SCORE_MODELS[name]
    rows = torch.randn(2, 7, SHAPE.row_dim, generator=torch.Generator().manual_seed(6))
    head = built(name)
    assert torch.equal(head.nonlinear(rows), torch.zeros(2, 7))
    state = scrambled(name, 2)
    head.load_state_dict({key: value[1] for key, value in state.items()})
    parts = model.head_parameters(state)
    assert parts
    torch.testing.assert_close(model.batched_nonlinear(parts, rows)[1], head.nonlinear(rows[1]))


def test_unknown_models_and_impossible_objectives_are_refused_by_name():
    with pytest.raises(ConfigError, match="'svd'") as unknown:
        score_model("svd", "bce")
    assert "neumf" in unknown.value.hint
    with pytest.raises(ConfigError, match="'mlp' cannot be trained with objective 'whole'"):
        score_model("mlp", "whole")
