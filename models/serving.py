"""The personal copy that recommends, where it differs from what trains: it is fitted on the device and never sent.

Recommending wants the latest taste, training wants more of the history; and where the head that trains is noised,
recommending needs one that is not.
"""

from __future__ import annotations

from palate.models.scores.registry import SCORE_MODELS
from palate.models.training import LocalTraining

_CLOSED_FORM = "gmf"


def serving_training(config: LocalTraining, *, noised_head: bool = False) -> LocalTraining:
    """Return the parameters with which the copy that recommends is fitted.

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
    if noised_head:
        closed_form = config.model if "whole" in model.objectives else _CLOSED_FORM
        changes |= {"objective": "whole", "model": closed_form}
    return config.model_copy(update=changes)
