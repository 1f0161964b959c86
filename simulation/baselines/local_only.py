"""No federation: what a single device can do without any communication.

It knows its own history and the public catalogue, nothing about other people, so not even what is popular. Item
embeddings of its own would be no use: an item that it has not had would keep its random start. What is left is a
ridge over public content, and where there is no content there is nothing to tell one new item from another.
"""

from __future__ import annotations

import math

from palate.errors import ConfigError
from palate.models.learning.ridge import solve_users
from palate.models.training import LocalTraining
from palate.simulation.baselines.base import Baseline, FitData, require_positive
from palate.simulation.baselines.scorers import FactorScorer


def fit_local_only(data: FitData, regularisation: float = 30.0) -> FactorScorer:
    """Solve one ridge per user over content columns, with equal weights for old and recent interactions.

    Raises
    ------
    ConfigError
        If there is no content, or the ridge is not positive.
    """
    require_positive(regularisation)
    content = data.content
    if content is None or content.shape[1] == 0:
        raise ConfigError("the items have no content columns; a single device needs some", hint="add genres or texts")
    training = LocalTraining(regularisation=regularisation, recency_half_life=math.inf)
    return FactorScorer(solve_users(content, data.history, training), content)


LOCAL_ONLY = Baseline(
    name="local_only",
    label="Local only (no federation)",
    citation="Hu, Koren & Volinsky (2008), eq. 4, on public content",
    fit=fit_local_only,
    needs_content=True,
)
