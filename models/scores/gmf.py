"""GMF: the inner product of user vector and item row (He et al. 2017, eq. 9 with constant output weights).

Output weights would be redundant: on a device they are as personal as the user vector and multiply it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from palate.models.arrays import Float32Array
from palate.models.scores.base import A, ScoreModel, Shape


class GMF(ScoreModel):
    """Matrix factorisation with popularity and content columns; closed form under the whole-data loss."""

    name = "gmf"
    objectives = frozenset({"whole", "bce"})

    @staticmethod
    def initial(shape: Shape, rng: np.random.Generator) -> dict[str, Float32Array]:
        """User vector, [1, row_dim]."""
        return {"user.weight": rng.normal(0.0, 0.1, (1, shape.row_dim)).astype(np.float32)}

    @staticmethod
    def batched(state: Mapping[str, A], rows: A) -> A:
        """Scores of B heads: [B, n, row_dim] to [B, n]."""
        return (rows @ state["user.weight"].swapaxes(1, 2)).squeeze(-1)

    @classmethod
    def install(cls, state: dict[str, A], solution: A) -> None:
        """Write solutions [B, row_dim]."""
        state["user.weight"] = solution[:, None, :]

    @classmethod
    def solution(cls, state: Mapping[str, A]) -> A:
        """Read back the linear part, [B, row_dim]."""
        return state["user.weight"][:, 0]
