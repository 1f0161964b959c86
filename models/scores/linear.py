"""Linear head on the item row, with a bias and no user embedding (PFedRec: Zhang et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from palate.models.arrays import Float32Array
from palate.models.scores.base import A, ScoreModel, Shape, joined, layer


class LinearHead(ScoreModel):
    """PFedRec's personal score function; weights and bias are one row, as the closed form gives them."""

    name = "linear"
    objectives = frozenset({"whole", "bce"})
    intercept = True

    @staticmethod
    def initial(shape: Shape, rng: np.random.Generator) -> dict[str, Float32Array]:
        """Weights [1, row_dim] and bias [1]."""
        return {"out.weight": layer(rng, 1, shape.row_dim), "out.bias": layer(rng, 1, shape.row_dim)[:, 0]}

    @staticmethod
    def batched(state: Mapping[str, A], rows: A) -> A:
        """Scores of B heads: [B, n, row_dim] to [B, n]."""
        return (rows @ state["out.weight"].swapaxes(1, 2)).squeeze(-1) + state["out.bias"]

    @classmethod
    def install(cls, state: dict[str, A], solution: A) -> None:
        """Write solutions [B, row_dim + 1]; the last column is the bias."""
        state["out.weight"] = solution[:, None, :-1]
        state["out.bias"] = solution[:, -1:]

    @classmethod
    def solution(cls, state: Mapping[str, A]) -> A:
        """Read back weights and bias, [B, row_dim + 1]."""
        return joined(state["out.weight"][:, 0], state["out.bias"])
