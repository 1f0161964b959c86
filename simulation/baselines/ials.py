"""iALS: matrix factorisation on implicit feedback by alternating ridge solves (Hu, Koren & Volinsky 2008).

With the frequency-scaled regularisation and small initialisation of Rendle et al. (2022), "Revisiting the performance
of iALS on item recommendation benchmarks", eq. 2 to 5, which is what makes it competitive with newer models:

    sum_{(u,i) in S} (1 - w_u'h_i)^2 + a0 sum_{all u,i} (w_u'h_i)^2
        + reg (sum_u (|S_u| + a0 |I|)^nu |w_u|^2 + sum_i (|S_i| + a0 |U|)^nu |h_i|^2)
"""

from __future__ import annotations

from functools import partial

import numpy as np
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from palate.models.arrays import Float32Array, Int64Array
from palate.models.histories import Histories
from palate.simulation.baselines.base import Baseline, FitData
from palate.simulation.baselines.normal_equations import solve_ridge
from palate.simulation.baselines.scorers import FactorScorer, history_matrix
from palate.simulation.evaluation import Scorer


@dataclass(frozen=True, kw_only=True)
class IalsConfig:
    """Hyperparameters.

    Attributes
    ----------
    dim
        Length of the vectors.
    num_epochs
        Alternations; users are solved once more at the end.
    unobserved_weight
        a0, weight of a pair that was not observed.
    regularisation
        reg above.
    frequency_exponent
        nu above; 1 weighs the penalty by how often a user or item occurs, 0 not at all.
    init_scale
        Standard deviation of the initial item vectors times sqrt(dim).
    """

    dim: PositiveInt = 64
    num_epochs: PositiveInt = 12
    unobserved_weight: PositiveFloat = 0.2
    regularisation: PositiveFloat = 0.005
    frequency_exponent: NonNegativeFloat = 1.0
    init_scale: PositiveFloat = 0.1


def fit_ials(
    history: Histories,
    num_items: int,
    config: IalsConfig | None = None,
    *,
    seed: int = 0,
) -> FactorScorer:
    """Alternate between the users' and the items' closed forms.

    Parameters
    ----------
    history
        What each user has had.
    num_items
        Size of the catalogue.
    config
        Hyperparameters.
    seed
        Draws the initial item vectors.
    """
    config = config or IalsConfig()
    transposed = history_matrix(history, num_items).T.tocsr()
    owners = Histories(transposed.indptr.astype(np.int64), transposed.indices.astype(np.int32))  # users per item

    def penalty(lengths: Int64Array, num_others: int) -> Float32Array:
        scale = (lengths + config.unobserved_weight * num_others) ** config.frequency_exponent
        return (config.regularisation * scale).astype(np.float32)

    user_penalty = penalty(history.lengths, num_items)
    item_penalty = penalty(owners.lengths, history.num_users)
    rng = np.random.default_rng(seed)
    items = rng.normal(0.0, config.init_scale / np.sqrt(config.dim), (num_items, config.dim)).astype(np.float32)

    def solve_users() -> Float32Array:
        return solve_ridge(items, history, unobserved_weight=config.unobserved_weight, regularisation=user_penalty)

    for _ in range(config.num_epochs):
        items = solve_ridge(
            solve_users(), owners, unobserved_weight=config.unobserved_weight, regularisation=item_penalty
        )
    return FactorScorer(solve_users(), items)


def _fit(data: FitData, config: IalsConfig) -> Scorer:
    return fit_ials(data.history, data.num_items, config, seed=data.seed)


IALS = Baseline(
    name="ials",
    label="iALS",
    citation="Hu, Koren & Volinsky (2008); Rendle, Krichene, Zhang & Koren (2022), Revisiting iALS",
    fit=partial(_fit, config=IalsConfig()),
    variants={
        "regularisation=0.002": partial(_fit, config=IalsConfig(regularisation=0.002)),
        "regularisation=0.015": partial(_fit, config=IalsConfig(regularisation=0.015)),
        # Short histories want everything pulled harder towards zero.
        "unobserved_weight=0.5, regularisation=0.015": partial(
            _fit, config=IalsConfig(unobserved_weight=0.5, regularisation=0.015)
        ),
    },
)
