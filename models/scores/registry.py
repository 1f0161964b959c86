"""Score models by name. A new one is a file beside this one and a line here; the conformance suite does the rest."""

from __future__ import annotations

import threading

import torch

from palate.errors import ConfigError
from palate.models.scores.autoencoder import Autoencoder
from palate.models.scores.base import ScoreModel, Shape, State
from palate.models.scores.gmf import GMF
from palate.models.scores.linear import LinearHead
from palate.models.scores.mlp import MLP
from palate.models.scores.neumf import NeuMF
from palate.models.scores.sequential import Sequential

SCORE_MODELS: dict[str, type[ScoreModel]] = {
    model.name: model for model in (GMF, MLP, NeuMF, LinearHead, Autoencoder, Sequential)
}

_PUBLIC_SEED = 1729  # heads start alike everywhere; what makes them personal is the device's own history
_BUILDING = threading.Lock()  # torch has one generator for all threads, and nodes of a simulation are threads


def score_model(name: str, objective: str) -> type[ScoreModel]:
    """Look up a model that the objective can train.

    Raises
    ------
    ConfigError
        If the model is unknown, or cannot be trained with the objective.
    """
    if name not in SCORE_MODELS:
        raise ConfigError(f"unknown model {name!r}", hint=f"choose one of {', '.join(sorted(SCORE_MODELS))}")
    model = SCORE_MODELS[name]
    if objective not in model.objectives:
        raise ConfigError(
            f"model {name!r} cannot be trained with objective {objective!r}",
            hint=f"use --objective {' or '.join(sorted(model.objectives))}, or another model",
        )
    return model


def build(name: str, objective: str, shape: Shape) -> ScoreModel:
    """Build one device's head at its public starting point."""
    model = score_model(name, objective)
    with _BUILDING, torch.random.fork_rng(devices=[]):
        torch.manual_seed(_PUBLIC_SEED)
        return model(shape)


def initial_state(name: str, objective: str, shape: Shape) -> State:
    """Return the public starting point of a head as a state without batch dimension."""
    return {key: value.detach().clone() for key, value in build(name, objective, shape).state_dict().items()}


def head_size(name: str, objective: str, shape: Shape) -> int:
    """Count the trainable values of a head."""
    return sum(value.numel() for value in initial_state(name, objective, shape).values())
