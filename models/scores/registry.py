"""Score models by name. To add one, add a file in this folder and a line here, or an entry point in another package.

Nothing here loads PyTorch: looking a model up, counting its parameters and recommending do not need it.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import numpy as np

from palate.errors import ConfigError
from palate.models.arrays import Float32Array
from palate.models.fitting import Fitting
from palate.models.registry import Registry
from palate.models.scores.base import ScoreModel, Shape

if TYPE_CHECKING:
    from palate.models.training import LocalTraining

_PUBLIC_SEED = 1729  # heads start alike everywhere; what makes them personal is the device's own history
_CLOSED_FORM = "gmf"


def _accept(value: object) -> type[ScoreModel]:
    """Return a score model; raises TypeError for anything else."""
    if not (isinstance(value, type) and issubclass(value, ScoreModel)):
        raise TypeError(f"{value!r}, not a subclass of palate.models.scores.base.ScoreModel")
    if inspect.isabstract(value):
        raise TypeError(f"{value.__name__} without {' and '.join(sorted(value.__abstractmethods__))}")
    name = getattr(value, "name", None)
    if not (isinstance(name, str) and name.isidentifier() and len(name) <= 32):
        raise TypeError(f"{value.__name__} with the name {name!r}, not an identifier of at most 32 characters")
    if not getattr(value, "objectives", frozenset()) or not set(value.objectives) <= {"whole", "bce"}:
        raise TypeError(f"{value.__name__} whose objectives are not among 'whole' and 'bce'")
    return value


SCORE_MODELS: Registry[type[ScoreModel]] = Registry(
    "model",
    "palate.models",
    {
        "gmf": "palate.models.scores.ncf:GMF",
        "mlp": "palate.models.scores.ncf:MLP",
        "neumf": "palate.models.scores.ncf:NeuMF",
        "linear": "palate.models.scores.linear:LinearHead",
        "autoencoder": "palate.models.scores.autoencoder:Autoencoder",
        "sequential": "palate.models.scores.sequential:Sequential",
    },
    _accept,
)


def score_model(name: str, objective: str) -> type[ScoreModel]:
    """Look up a model that the objective can train.

    Raises
    ------
    ConfigError
        If the model is unknown, or cannot be trained with the objective.
    """
    model = SCORE_MODELS[name]
    if objective not in model.objectives:
        raise ConfigError(
            f"model {name!r} cannot be trained with objective {objective!r}",
            hint=f"use --objective {' or '.join(sorted(model.objectives))}, or another model",
        )
    return model


def initial_head(name: str, objective: str, shape: Shape) -> dict[str, Float32Array]:
    """Return the public starting point of a head as NumPy arrays without batch dimension."""
    return score_model(name, objective).initial(shape, np.random.default_rng(_PUBLIC_SEED))


def serving_training(config: LocalTraining, *, noised_head: bool = False) -> LocalTraining:
    """Return the parameters with which the personal copy that recommends is fitted; it is never sent.

    It differs from what trains: recommending wants the latest taste, training wants more of the history; and where the
    head that trains is noised, recommending needs one that is not.

    Parameters
    ----------
    config
        Parameters of local training.
    noised_head
        Whether the head that trains is noised; then the copy is a closed form, GMF's where the model has none, to be
        fitted on a fresh head.

    Raises
    ------
    ConfigError
        If the model is unknown here.
    """
    model = SCORE_MODELS[config.model]
    changes: dict[str, object] = dict(model.serving)
    if config.serving_half_life is not None:
        changes["recency_half_life"] = config.serving_half_life
    if config.serving_forgetting is not None:
        changes["forgetting"] = config.serving_forgetting
    if noised_head:
        closed_form = config.model if "whole" in model.objectives else _CLOSED_FORM
        changes |= {"objective": "whole", "model": closed_form}
    return config.model_copy(update=changes)


def fitting_of(config: LocalTraining) -> Fitting:
    """Return what a device fits its owner's copy with: `serving_training` without noised heads, as plain values."""
    serving = serving_training(config, noised_head=True)
    return Fitting(
        model=config.model,
        objective=config.objective,
        hidden=config.hidden,
        closed_form=serving.model,
        unobserved_weight=serving.unobserved_weight,
        regularisation=serving.regularisation,
        recency_half_life=serving.recency_half_life,
        recency_floor=serving.recency_floor,
        forgetting=serving.forgetting,
    )
