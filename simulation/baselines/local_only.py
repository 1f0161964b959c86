"""No federation at all: what a device can do that never talks to anyone.

It knows its own history and the public catalogue, nothing about other people, so not even what is popular. Item
embeddings of its own would be no use: an item that it has not had would keep its random start. What is left is a
ridge over public content, and where there is no content there is nothing to tell one new item from another.
"""

from __future__ import annotations

from functools import partial

from pydantic import NonNegativeFloat, PositiveFloat
from pydantic.dataclasses import dataclass

from palate.errors import ConfigError
from palate.models.arrays import Float32Array
from palate.models.histories import Histories
from palate.simulation.baselines.base import Baseline, FitData
from palate.simulation.baselines.normal_equations import solve_ridge
from palate.simulation.baselines.scorers import FactorScorer
from palate.simulation.evaluation import Scorer


@dataclass(frozen=True, kw_only=True)
class LocalOnlyConfig:
    """Hyperparameters of the user ridge (normal_equations.py).

    Attributes
    ----------
    unobserved_weight
        Weight of the whole catalogue.
    regularisation
        Ridge on the user vector.
    """

    unobserved_weight: NonNegativeFloat = 0.1
    regularisation: PositiveFloat = 30.0


def fit_local_only(
    history: Histories, content: Float32Array | None, config: LocalOnlyConfig | None = None
) -> FactorScorer:
    """Solve one ridge per user over content columns.

    Parameters
    ----------
    history
        What each user has had.
    content
        Centred content features, float32 [num_items, k], k >= 1.
    config
        Hyperparameters.

    Raises
    ------
    ConfigError
        If there is no content.
    """
    if content is None or content.shape[1] == 0:
        raise ConfigError("the items have 0 content columns, a device alone needs some", hint="add genres or texts")
    config = config or LocalOnlyConfig()
    users = solve_ridge(
        content, history, unobserved_weight=config.unobserved_weight, regularisation=config.regularisation
    )
    return FactorScorer(users, content)


def _fit(data: FitData, config: LocalOnlyConfig) -> Scorer:
    return fit_local_only(data.history, data.content, config)


LOCAL_ONLY = Baseline(
    name="local_only",
    label="Local only (no federation)",
    citation="Hu, Koren & Volinsky (2008), eq. 4, on public content",
    fit=partial(_fit, config=LocalOnlyConfig()),
    variants={
        f"regularisation={reg:g}": partial(_fit, config=LocalOnlyConfig(regularisation=reg)) for reg in (10.0, 100.0)
    },
    needs_content=True,
)
